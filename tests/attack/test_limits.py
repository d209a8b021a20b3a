"""More than the operator allows: longer runs, larger models, more of the disk, more texts, larger requests. Each is one sentence,
before a worker starts; and a worker that comes to a limit stops with what it has."""

import json
import os
import threading
import time
from pathlib import Path

import pytest
from made_runs import made_run, set_state
from starlette.testclient import TestClient
from test_damaged_files import check_sentence
from test_workers import new_run, one_thread  # noqa: F401
from waiting import until

from app import body
from app.limits import Limits
from app.main import main
from app.operator import Operator
from app.received import Received
from app.settings_form import SETTINGS, values_of
from app.shell import Shell
from app.uploads import UPLOAD_BYTES, Uploads
from app.visitors import Rights, acting_as
from proxsparse import LearnConfig, LearnJob, ProxSparseError, Run
from proxsparse.accounts.user_file import UserFile
from proxsparse.files import bytes_in
from proxsparse.runs import disk, start_export
from proxsparse.runs.uploads import unused

UNLIMITED = dict.fromkeys(Limits.__pydantic_fields__, 0)


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture(autouse=True)
def no_limit_of_the_disk(monkeypatch):
    for name in (disk.RUN_GB, disk.RUNS_GB):
        monkeypatch.delenv(name, raising=False)


def typed(**changes):
    """What stands in the form, with some of it typed anew."""
    return [changes.get(name, value) for name, value in zip(SETTINGS, values_of(LearnJob()), strict=True)]


def learn_screen(runs, **limits):
    shell = Shell(Operator(runs, limits=Limits(**UNLIMITED | limits)))
    shell.build()
    return shell.screens[0]


@pytest.mark.parametrize(
    ("limits", "form", "words"),
    [
        ({"max_steps": 99}, {"steps": "100"}, "steps is 100 and a run may take 99 here"),
        ({"max_step_tokens": 767}, {}, r"3 × 1 windows of 256 tokens reads 768 tokens and may read 767 here"),
        ({"max_step_tokens": 3071}, {"accumulation": "4"}, "reads 3,072 tokens and may read 3,071 here"),
        ({"max_step_tokens": 10**6}, {"batch": "1000000", "length": "1048576"}, "reads 1,048,576,000,000 tokens"),
    ],
)
def test_a_run_that_is_too_large_is_refused_before_anything_is_made(runs, limits, form, words):
    with pytest.raises(ProxSparseError, match=words) as refused:
        learn_screen(runs, **limits).start("embedded", "bundled", [], *typed(**form))
    check_sentence(str(refused.value))
    assert list(runs.iterdir()) == []


def test_a_fork_that_is_too_large_is_refused_like_a_run(runs):
    parent = made_run(runs / "parent", steps=3)
    set_state(parent, "stopped", 3)
    screen = learn_screen(runs, max_steps=10)
    with pytest.raises(ProxSparseError, match="steps is 5,000 and a run may take 10 here"):
        screen.branches.fork("parent", None, [], *values_of(parent.job()))
    assert [path.name for path in runs.iterdir()] == ["parent"]


def test_what_is_within_the_limits_and_what_has_none_is_allowed(tmp_path):
    job = LearnJob(learn=LearnConfig(steps=100))
    Limits(max_steps=100, max_step_tokens=768).check(job)
    Limits(**UNLIMITED).check(LearnJob(model="org/unknown", learn=LearnConfig(steps=1_000_000, batch=1_000_000)))
    Limits().check(LearnJob())


def test_a_model_that_is_too_large_is_refused_before_it_is_read(tiny_directory, tmp_path):
    weights = sum(path.stat().st_size for path in tiny_directory.glob("*.safetensors"))
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(bytes(weights))
    for path in (tiny_directory, gguf):
        job = LearnJob(model=str(path))
        Limits(max_model_gb=weights / 1e9).check(job)
        with pytest.raises(ProxSparseError, match=r"those of a model may take .* GB here: choose a smaller model"):
            Limits(max_model_gb=(weights - 1) / 1e9).check(job)
    with pytest.raises(ProxSparseError, match="The Hub does not say how large the model org/unknown is"):
        Limits().check(LearnJob(model="org/unknown"))


# The disk


@pytest.mark.parametrize("name", [disk.RUN_GB, disk.RUNS_GB])
def test_where_the_disk_is_used_up_nothing_is_started(runs, monkeypatch, name):
    run = made_run(runs / "run", steps=3)
    set_state(run, "stopped", 3)
    (run.path / "masks").mkdir()
    (run.path / "masks" / "step-000003.safetensors").write_bytes(bytes(2000))
    monkeypatch.setenv(name, "1e-6")
    for action in (Run.start, start_export):
        with pytest.raises(ProxSparseError, match=r"may take 1e-06 GB here") as refused:
            action(run)
        check_sentence(str(refused.value))
        assert str(runs) not in str(refused.value)
    assert not run.is_alive()
    if name == disk.RUNS_GB:
        before = bytes_in(runs)
        with pytest.raises(ProxSparseError, match="delete one, or ask"):
            learn_screen(runs).start("embedded", "bundled", [], *typed())
        assert bytes_in(runs) == before


def test_a_run_that_comes_to_the_limit_stops_with_a_checkpoint_and_goes_on_once_there_is_room(new_run, monkeypatch):  # noqa: F811
    run, filler = new_run(), new_run("other")
    monkeypatch.setenv(disk.RUNS_GB, "0.01")
    run.start()
    until(lambda: run.state()["step"] >= 2)
    (filler.path / "checkpoints").mkdir()
    (filler.path / "checkpoints" / "large").write_bytes(bytes(10_000_000))
    until(lambda: not run.is_alive())
    state = run.state()
    assert state["status"] == "stopped" and "may take 0.01 GB here" in state["doing"]
    assert max(run.checkpoints()) == state["step"] == run.table("steps")["step"].max(), "no step is lost"
    with pytest.raises(ProxSparseError, match=r"may take 0\.01 GB here"):
        run.start()
    (filler.path / "checkpoints" / "large").unlink()
    run.start()
    until(lambda: run.state()["step"] > state["step"])
    run.send("stop")
    until(lambda: not run.is_alive())


def test_what_cannot_fit_is_said_before_the_first_step(new_run, monkeypatch):  # noqa: F811
    run = new_run()
    steps, every = run.job().learn.steps, run.job().checkpoint_every
    assert 0 < 2 * every < steps, "two are kept, and a third is written before the first goes"
    monkeypatch.setenv(disk.RUN_GB, "1e-4")  # 100 kB, less than one checkpoint
    run.start().wait()
    state = run.state()
    assert state["status"] == "failed" and state["step"] == 0
    assert state["error"].startswith("Up to 3 checkpoints lie on disk at once") and not run.checkpoints()


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "many", ""])
def test_a_limit_that_is_no_number_is_refused(runs, monkeypatch, text):
    monkeypatch.setenv(disk.RUN_GB, text)
    with pytest.raises(ProxSparseError, match="give a number of gigabytes"):
        disk.require_room(runs / "run")


@pytest.mark.parametrize("flag", ["--max-steps=-1", "--max-run-gb=nan", "--max-uploads=many", "--upload-days=1e400"])
def test_a_limit_that_cannot_be_is_refused_by_its_flag(flag, capsys):
    assert main([flag]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {flag[2:].split('=')[0]} is") and said.count("\n") == 1


# Texts


@pytest.fixture
def sent(tmp_path):
    """A file as the server received it."""

    def make(name="text.txt", size=100):
        path = tmp_path / "received" / os.urandom(4).hex() / name
        path.parent.mkdir(parents=True)
        path.write_text("w" * size)
        return path

    return make


def test_a_text_lies_once(runs, sent):
    operator, path = Operator(runs), sent()
    name = operator.keep_upload(str(path))
    assert not path.exists() and bytes_in(runs) == 100
    assert operator.check_corpus(name) == str(operator.uploads.find(name))
    for wrong in (sent("text.exe"), sent("empty.txt", 0), sent("large.txt", UPLOAD_BYTES + 1)):
        with pytest.raises(ProxSparseError):
            operator.keep_upload(str(wrong))
        assert not wrong.exists() and bytes_in(runs) == 100
    with pytest.raises(ProxSparseError, match="upload it again"):
        operator.keep_upload(str(path))


def test_a_visitor_keeps_only_so_many_and_so_much(runs, sent, tmp_path):
    users = UserFile(tmp_path / "users.json")
    operator = Operator(runs, (), Rights(users), Limits(max_uploads=2, max_uploads_mb=1))
    with acting_as("ada"):
        names = [operator.keep_upload(str(sent())) for _ in range(2)]
        with pytest.raises(ProxSparseError, match="2 texts are kept of your uploads, and no more than 2 may be"):
            operator.keep_upload(str(sent()))
    with acting_as("bob"):
        operator.keep_upload(str(sent(size=600_000)))
        with pytest.raises(ProxSparseError, match=r"your uploads would take 1.2 MB and may take 1 MB"):
            operator.keep_upload(str(sent(size=600_000)))
        assert all(operator.uploads.find(name) for name in names), "what one uploaded all may choose"


def test_of_many_texts_at_once_only_so_many_are_kept(runs, sent):
    uploads, together, paths = Uploads(runs, Limits(max_uploads=3)), threading.Barrier(8), [sent() for _ in range(8)]
    kept, refused = [], []

    def click(path):
        together.wait()
        try:
            kept.append(uploads.keep(str(path), None))
        except ProxSparseError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=click, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(kept), len(refused)) == (3, 5)


def test_an_old_text_that_no_run_needs_is_removed(runs, sent):
    uploads = Uploads(runs, Limits(upload_days=1))
    needed, old, new = (uploads.find(uploads.keep(str(sent()), None)) for _ in range(3))
    Run.create(LearnJob(corpus=str(needed)), runs / "run")
    for path in (needed, old):
        os.utime(path, (time.time() - 90_000,) * 2)
    uploads.keep(str(sent()), None)
    assert needed.exists() and new.exists() and not old.exists()
    (runs / "damaged").mkdir()
    (runs / "damaged" / "run.json").write_text("{")
    assert unused(runs) == [], "a run that cannot be read may need any of them"


# Requests


JOIN = "/gradio_api/queue/join"


def parts(size):
    for _ in range(size // 65536 + 1):
        yield bytes(65536)


@pytest.mark.parametrize("path", [JOIN, "/login", "/", "/gradio_api/upload"])
@pytest.mark.parametrize("announced", [True, False])
def test_a_request_that_is_too_large_is_refused_in_one_sentence(page, path, announced):
    size = (UPLOAD_BYTES if path.endswith("upload") else body.EVENT_BYTES) + 2 * body.AROUND
    content = bytes(size) if announced else parts(size)
    answer = page.post(path, content=content, headers={"Content-Type": "multipart/form-data; boundary=x"})
    if announced or path in (JOIN, "/gradio_api/upload"):  # of the others nobody reads what comes
        assert answer.status_code == 413 and answer.text.count("\n") == 0 and answer.text.endswith(".")
    else:
        assert answer.status_code == 404


@pytest.mark.parametrize("length", ["-1", "1e9", "9" * 400, "١", ""])
def test_a_length_that_is_none_opens_nothing(page, length):
    answer = page.post(JOIN, content=parts(2 * body.EVENT_BYTES), headers={"Content-Length": length.encode()})
    assert answer.status_code == 413


def test_what_is_large_and_allowed_arrives_whole(page):
    text = b"w" * (UPLOAD_BYTES - 1)
    answer = page.post("/gradio_api/upload", files={"files": ("a.txt", text)})
    assert answer.status_code == 200
    with open(answer.json()[0], "rb") as kept:
        assert kept.read() == text
    os.unlink(answer.json()[0])
    assert page.post(JOIN, json={"data": ["w" * 900_000]}).status_code in (400, 422), "read, and no event of the page"


def test_uploads_that_nobody_keeps_do_not_fill_the_disk(made_page, monkeypatch):
    monkeypatch.setattr("app.received.MOST_BYTES", 1000)
    with TestClient(made_page(), base_url="http://127.0.0.1:7860") as client:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])

        def send():
            return client.post("/gradio_api/upload", files={"files": ("a.txt", os.urandom(600))}).status_code

        assert [send(), send(), send()] == [200, 200, 503] and bytes_in(folder) == 1200
        for path in folder.rglob("*.txt"):
            os.utime(path, (time.time() - 4000,) * 2)
        assert send() == 200 and bytes_in(folder) == 600


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "/dev/zero", "https://evil.example/a.txt", "http://127.0.0.1:1/a.txt", "file:///etc/passwd", "a\0b", "", "a.txt",
        None, 1, ["/etc/passwd"], {"path": "/etc/passwd"}, "\ud800", "FOLDER", "FOLDER/../secret.txt", "FOLDER/link.txt", "FOLDER/none.txt",
    ],
)  # fmt: skip
def test_an_event_names_no_file_that_was_not_sent(made_page, tmp_path, path):
    """Gradio would copy it first: a secret of the operator's, a device without an end, a page of another server."""
    with TestClient(made_page(), base_url="http://127.0.0.1:7860") as client:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        secret = folder.parent / "secret.txt"
        (folder / "link.txt").symlink_to(secret)
        path = path.replace("FOLDER", str(folder)) if isinstance(path, str) else path
        named = {"path": path, "meta": {"_type": "gradio.FileData"}}
        upload = next(number for number, count in inputs_of(client.app).items() if count == 1)
        for value in (named, [{"value": named}], {"a": [named]}):
            answer = client.post(JOIN, content=json.dumps({"fn_index": upload, "data": [value], "session_hash": "a"}))
            assert (
                answer.status_code == 403 and answer.text == "The page names a file that was not sent here: upload it."
            )
        assert [each for each in folder.rglob("*") if not each.is_symlink()] == []


def inputs_of(application):
    """{number of an event of the page: how many values come with it}."""
    while not isinstance(application, Received):
        application = application.app
    return application.inputs


@pytest.mark.parametrize(
    "changed",
    [
        {"fn_index": -1}, {"fn_index": 10**6}, {"fn_index": None}, {"fn_index": True}, {"fn_index": "0"}, {"fn_index": 1.0}, {"data": None},
        {"data": {}}, {"data": ["one too many"] * 99}, {"session_hash": None}, {"session_hash": ""}, {"session_hash": "\ud800"},
        {"session_hash": "a" * 65}, {"session_hash": "a\n"}, {"trigger_id": []},
    ],
)  # fmt: skip
def test_what_is_no_event_of_the_page_is_one_sentence(page, changed):
    number, count = next(iter(inputs_of(page.app).items()))
    event = {"fn_index": number, "data": [None] * count, "session_hash": "a", "trigger_id": None} | changed
    for content in (json.dumps(event), json.dumps([event]), json.dumps(event)[:-2], "[" * 10_000, b"\xff\xfe", "NaN"):
        answer = page.post(JOIN, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400 and answer.text == "This is no event of the page as it is now: load it again."
