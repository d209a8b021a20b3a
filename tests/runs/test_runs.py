"""The run directory: files, records, commands, forks."""

import json
import os

import pytest
from filelock import FileLock

from proxsparse import LearnConfig, LearnJob, ProxSparseError, Run, list_runs
from proxsparse.files import Tail, append_record, keep_records, read_json, write_json, written_whole
from proxsparse.runs import find_run, look_at_runs, new_run_path
from proxsparse.runs.directory import numbered_file


def test_a_record_grows_and_a_torn_line_is_left_out(tmp_path):
    path = tmp_path / "steps.jsonl"
    tail = Tail(path)
    assert tail.read() == [] and not tail.restarted
    append_record(path, {"step": 1, "loss": float("nan")})
    assert tail.read() == [{"step": 1, "loss": None}]
    append_record(path, {"step": 2})
    with open(path, "ab") as file:
        file.write(b'{"step": 3, "lo')  # a crash in the middle of a line
    assert tail.read() == [{"step": 2}] and tail.read() == []
    append_record(path, {"step": 3})
    assert tail.read() == [{"step": 3}]
    assert Tail(path).read() == [{"step": 1, "loss": None}, {"step": 2}, {"step": 3}]


def test_a_record_that_was_cut_is_read_again(tmp_path):
    path = tmp_path / "steps.jsonl"
    for step in range(5):
        append_record(path, {"step": step})
    tail = Tail(path)
    tail.read()
    keep_records(Tail(path), lambda record: record["step"] < 2)
    append_record(path, {"step": 2})
    assert tail.read() == [{"step": 0}, {"step": 1}, {"step": 2}] and tail.restarted
    assert tail.read() == [] and not tail.restarted


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "state.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), written_whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["state.json"], "nothing is left behind"


@pytest.fixture
def run(tmp_path):
    return Run.create(LearnJob(learn=LearnConfig(steps=9, lambda1=0.5)), tmp_path / "runs" / "first")


def test_a_new_run(run):
    assert run.state()["status"] == "new" and run.id == "first"
    assert run.job() == LearnJob(learn=LearnConfig(steps=9, lambda1=0.5))
    assert run.table("steps").empty and run.layers().empty and run.export() is None
    with pytest.raises(ProxSparseError, match="is not empty"):
        Run.create(LearnJob(), run.path)
    with pytest.raises(ProxSparseError, match="There is no run"):
        Run(run.path.parent)


def test_a_home_directory_may_be_written_short(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = Run.create(LearnJob(), "~/runs/first")
    assert run.path == tmp_path / "runs" / "first" and Run("~/runs/first").id == "first"
    assert [each.id for each in list_runs("~/runs")] == ["first"]


def test_a_worker_that_vanished_is_noticed(run):
    state = read_json(run.path / "state.json")
    write_json(run.path / "state.json", state | {"status": "running", "updated": 0})
    assert run.state()["status"] == "interrupted"
    with FileLock(run.path / "lock"):  # as a worker holds it
        assert run.state()["status"] == "running" and run.is_alive()


def test_commands_wait_in_order(run):
    with pytest.raises(ProxSparseError, match="is new: it takes no commands"):
        run.send("pause")
    write_json(run.path / "state.json", {"status": "running", "step": 3, "updated": 0})
    with FileLock(run.path / "lock"):
        run.send("pause")
        run.send("set", lambda1=0.3)
        with pytest.raises(ProxSparseError, match="does not know 'dance'"):
            run.send("dance")
    assert [command for _, command in run.commands()] == [{"command": "pause"}, {"command": "set", "lambda1": 0.3}]


def test_a_fork_shares_the_checkpoint_and_carries_the_records(run):
    with pytest.raises(ProxSparseError, match="no checkpoint yet"):
        run.fork(run.path.parent / "second")
    checkpoint = numbered_file(run.path / "checkpoints", 4)
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"state")
    append_record(run.path / "steps.jsonl", {"step": 4, "lambda1": 0.7, "loss": 3.0, "flips": 1})
    child = run.fork(run.path.parent / "second", steps=20)
    assert child.job().learn == LearnConfig(steps=20, lambda1=0.5)
    assert child.header()["parent"] == {"run": "first", "step": 4, "changed": ["steps"]}
    assert child.state()["status"] == "stopped"
    assert os.path.samefile(child.checkpoints()[4], checkpoint)
    assert child.table("steps")["step"].tolist() == [4]
    assert run.fork(run.path.parent / "third", lambda1=0.1).job().learn.lambda1 == 0.1
    with pytest.raises(ProxSparseError, match="no checkpoint of step 5: choose 4"):
        run.fork(run.path.parent / "fourth", step=5)


@pytest.mark.parametrize("id", ["../first", "first/..", "", ".", "..", "/etc", "first\n", "missing", "a" * 500])
def test_a_name_that_leads_elsewhere_is_refused(run, id):
    with pytest.raises(ProxSparseError, match="There is no run named"):
        find_run(run.path.parent, id)


def test_the_list_is_newest_first(run):
    root = run.path.parent
    assert find_run(root, "first").path == run.path
    later = Run.create(LearnJob(), new_run_path(root, "org/some model"))
    header = read_json(later.path / "run.json")
    write_json(later.path / "run.json", header | {"created": "2999-01-01T00:00:00+00:00"})
    assert [each.id for each in list_runs(root)] == [later.id, "first"]
    assert "some-model" in later.id
    assert json.loads((run.path / "run.json").read_text())["kind"] == "learn"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", b""),
        ("run.json", b'{"kind": "learn", "cre'),
        ("run.json", b"\xff\xfe"),
        ("run.json", b"[]"),
        ("run.json", b'{"kind": 3, "created": "2026-01-01", "version": 1}'),
        ("run.json", b'{"kind": "learn", "created": "2026-01-01", "version": 99}'),
        ("run.json", b"[" * 100_000),
    ],
)
def test_a_damaged_run_hides_no_other(run, name, content):
    second = Run.create(LearnJob(), run.path.with_name("second"))
    (run.path / name).write_bytes(content)
    assert [each.id for each in list_runs(run.path.parent)] == [second.id]
    _, reasons = look_at_runs(run.path.parent)
    assert list(reasons) == [run.id] and reasons[run.id].endswith((".", "proxsparse."))
    assert str(run.path) not in reasons[run.id]


@pytest.mark.parametrize("content", [b"", b"null", b'{"status": 1}', b'{"status": "running", "step": true}'])
def test_a_run_whose_state_is_damaged_can_go_on(run, content):
    (run.path / "state.json").write_bytes(content)
    state = run.state()
    assert state["status"] == "interrupted" and state["step"] == 0 and "state.json is damaged" in state["doing"]
    assert [each.id for each in list_runs(run.path.parent)] == [run.id]


def test_lines_that_are_no_records_are_left_out_and_counted(tmp_path):
    path = tmp_path / "text.jsonl"
    good = {"step": 1, "text": "one\u2028line\r"}
    path.write_bytes(json.dumps(good, ensure_ascii=False).encode() + b"\n{\n[]\n\xff\n" + b"[" * 10_000 + b"\n\n")
    tail = Tail(path)
    assert tail.read() == [good] and tail.left_out == 4
    append_record(path, {"step": 2})
    assert tail.read() == [{"step": 2}] and tail.left_out == 4


def test_a_run_that_is_being_deleted_is_not_listed(run):
    run.path.rename(run.path.with_name(".deleted-1"))
    assert list_runs(run.path.parent) == [] and look_at_runs(run.path.parent)[1] == {}
