"""A run whose files were damaged: everybody else's runs are served, it is looked at without an error, and it goes on from its
newest good checkpoint or is refused in one sentence. Each way of damaging is tried on each file that a run has."""

import json
import os
import shutil
import time

import pytest

from app.operator import Operator
from app.screens.shown import Shown
from app.shell import Shell
from proxsparse import LearnConfig, LearnJob, ProxSparseError, Run
from proxsparse.runs import look_at_runs, worker
from proxsparse.runs.recorder import Recorder

STEPS, CHECKPOINT = 6, 4


def stopped_run(path, tiny_directory, text_file):
    """A run that was killed after its last step but before it said so: its checkpoints are of steps 2 and 4."""
    learn = LearnConfig(steps=STEPS, learning_rate=1e-2, lambda1=0.05, ramp=1.0, metric_windows=2)
    around = {"length": 16, "context": 32, "windows": 4, "live_windows": 2, "evaluate_every": 3, "checkpoint_every": 2}
    around |= {"device": "cpu", "evaluate_on": ("bundled-other",)}
    run = Run.create(LearnJob(str(tiny_directory), str(text_file), **around, learn=learn), path)
    assert worker.work(run.path) == 0
    run.checkpoints()[STEPS].unlink()
    Recorder(run).update(status="running", doing="gradient half")
    return run


@pytest.fixture(scope="module")
def original(tmp_path_factory, tiny_directory, text_file):
    return stopped_run(tmp_path_factory.mktemp("damage") / "runs" / "original", tiny_directory, text_file)


def torn(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def garbage_in_the_middle(path):
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(range(256)) + content[middle + 256 :])


def a_line_of_garbage(path):
    lines = path.read_bytes().split(b"\n")
    lines[len(lines) // 2] = b'{"step": \xff\xfe'
    path.write_bytes(b"\n".join(lines))


def other_json(value):
    def change(path):
        path.write_text(json.dumps(value))

    change.__name__ = f"holds {json.dumps(value)[:20]}"
    return change


def wrong_types(path):
    """Every value becomes one of another kind, line by line."""

    def wrong(value):
        if isinstance(value, dict):
            return [*value]
        return {"a": 1} if isinstance(value, str | list) else "many"

    lines = (
        [json.loads(line) for line in path.read_text().splitlines()]
        if path.suffix == ".jsonl"
        else [json.loads(path.read_text())]
    )
    path.write_text("".join(json.dumps({name: wrong(value) for name, value in line.items()}) + "\n" for line in lines))


def deep(path):
    path.write_text("[" * 100_000 + "\n")


def from_the_future(path):
    path.write_text(
        json.dumps({"version": 99, "step": 10**9, "status": "dreaming", "kind": "learn", "created": "2999-01-01"})
    )


def gone(path):
    path.unlink()


def a_folder_instead(path):
    path.unlink()
    path.mkdir()


def unreadable_link(path):
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


ANY = (torn, emptied, garbage_in_the_middle, gone, a_folder_instead, unreadable_link)
JSON = (*ANY, other_json([]), other_json(None), other_json({}), other_json(7), wrong_types, deep, from_the_future)
FILES = {
    "run.json": JSON, "state.json": JSON, "layers.json": JSON, "steps.jsonl": (*JSON, a_line_of_garbage),
    "perplexity.jsonl": (*JSON, a_line_of_garbage), "judged.jsonl": (*JSON, a_line_of_garbage), "events.jsonl": (*JSON, a_line_of_garbage),
    "layers.jsonl": (*JSON, a_line_of_garbage), f"checkpoints/step-{CHECKPOINT:06d}.safetensors": ANY,
    f"masks/step-{CHECKPOINT:06d}.safetensors": ANY, "history/masks.safetensors": ANY,
    "history/frames.bin": ANY, "history/frames.index": ANY,
}  # fmt: skip


def named(value):
    return getattr(value, "__name__", value)


STRAY = {
    "commands/garbage.json": b"\x00\xff", "commands/00000000000000000001-a.json": b"{", "commands/00000000000000000002-b.json": b"[1]",
    "commands/00000000000000000003-c.json": b'{"command": ["stop"]}', "commands/00000000000000000004-d.json": b'{"command": "fly"}',
    "commands/00000000000000000005-e.json": b'{"command": "set", "lambda1": {"a": 1}}',
    "commands/00000000000000000006-f.json": b'{"command": "pause", "self": 3}', "commands/00000000000000000007-g.json": None,
    "checkpoints/step-abc.safetensors": b"", "checkpoints/step-999999.safetensors": b"", "checkpoints/.step-000002.safetensors.x": b"",
    "checkpoints/step-000005.safetensors": None, "masks/step-.safetensors": b"", "masks/step-000001.safetensors": None,
    "masks/notes.txt": b"hello", "history/notes.txt": b"hello", "export/run.json": b"", "probe/run.json": b"[]",
}  # fmt: skip


def everybody_looks(shell):
    """What every visitor's page and command line does with the folder; nothing of it may raise but one sentence."""
    root = shell.operator.runs
    readable, reasons = look_at_runs(root)
    assert "other" in [run.id for run in readable], "another run is not hidden"
    for reason in reasons.values():
        check_sentence(reason)
    for screen in shell.screens:
        if screen.name == "regularizer":  # it shows no run
            continue
        values = {component: getattr(component, "value", None) for component in shell.looking()["inputs"]}
        screen.render(Shown("run", shell.operator.snapshot("run"), values))


def check_sentence(text):
    assert text and "\n" not in text and len(text) < 400, text
    assert "Error" not in text and "Errno" not in text and "Traceback" not in text, text


def goes_on(run):
    """Resume it here; what its worker ends with."""
    os.utime(run.path / "lock", (time.time(), time.time()))
    try:
        code = worker.work(run.path)
    except ProxSparseError as error:
        check_sentence(str(error))
        return "refused"
    state = run.state()
    if code:
        check_sentence(state["error"])
        return "refused"
    assert state["status"] == "done" and state["step"] == STEPS
    return "done"


@pytest.fixture(scope="module")
def shell(original, tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    shutil.copytree(original.path, root / "other")
    shell = Shell(Operator(root))
    shell.build()
    return shell


@pytest.fixture
def run(original, shell):
    """The run to be damaged, as somebody has already looked at it."""
    path = shell.operator.runs / "run"
    shutil.copytree(original.path, path)
    try:
        everybody_looks(shell)
        yield Run(path)
    finally:
        shutil.rmtree(path)


@pytest.mark.parametrize(("name", "damage"), [(name, each) for name, ways in FILES.items() for each in ways], ids=named)
def test_a_damaged_file(shell, run, name, damage):
    damage(run.path / name)
    everybody_looks(shell)
    if name == "run.json":  # nothing else says what the run was asked to do
        with pytest.raises(ProxSparseError) as refused:
            Run(run.path).job()
        check_sentence(str(refused.value))
        return
    ended = goes_on(run)
    assert ended == "done" or damage in (a_folder_instead, unreadable_link)  # nothing can be written there
    everybody_looks(shell)


@pytest.mark.parametrize("name", STRAY)
def test_a_stray_file(shell, run, name):
    path, content = run.path / name, STRAY[name]
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if content is None else path.write_bytes(content)
    everybody_looks(shell)
    assert goes_on(run) == "done"
    everybody_looks(shell)
