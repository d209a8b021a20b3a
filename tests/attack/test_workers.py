"""Workers under attack: started twice, killed while they write, robbed of their directory, with a clock that is wrong. Nothing
is lost, nothing is started unseen, and whoever looks is told what is so."""

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from made_runs import made_run, set_state
from test_damaged_files import check_sentence
from waiting import until

from proxsparse import LearnConfig, LearnJob, ProxSparseError, Run
from proxsparse.files import write_json
from proxsparse.runs import Probe, manage, start_export
from proxsparse.runs.requests import PromptRequest


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def new_run(tmp_path, tiny_directory, text_file):
    def make(name="run", steps=400):
        learn = LearnConfig(steps=steps, learning_rate=1e-3, ramp=1.0, metric_windows=2)
        around = {
            "length": 16,
            "context": 32,
            "windows": 4,
            "live_windows": 2,
            "evaluate_every": 50,
            "checkpoint_every": 2,
        }
        return Run.create(
            LearnJob(str(tiny_directory), str(text_file), **around, device="cpu", learn=learn), tmp_path / name
        )

    return make


def stop(run):
    run.send("stop")
    until(lambda: not run.is_alive())


def alive(pid):
    """Whether a process of that number is there, a zombie included."""
    return Path(f"/proc/{pid}").exists()


def test_of_many_who_start_a_run_at_once_one_does(new_run):
    run, started, refused = new_run(), [], []
    together = threading.Barrier(6)

    def click():
        together.wait()
        try:
            started.append(run.start())
        except ProxSparseError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=click) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 1 and len(refused) == 5
    assert all("is being worked on already" in sentence for sentence in refused)
    until(lambda: run.state()["step"] > 3)
    stop(run)
    assert run.state()["status"] == "stopped"
    steps = run.table("steps")["step"].tolist()
    assert steps == list(range(1, len(steps) + 1)), "no second worker took steps"


def test_from_the_moment_it_is_started_a_run_is_seen_to_be_worked_on(new_run):
    run = new_run()
    process = run.start()
    assert run.is_alive() and run.state()["status"] == "starting"
    with pytest.raises(ProxSparseError, match="is being worked on already"):
        run.start()
    process.kill()
    process.wait()
    until(lambda: not run.is_alive(), 5)
    assert run.state()["status"] == "interrupted"


def test_a_worker_that_cannot_start_is_not_waited_for(new_run, monkeypatch):
    run = new_run()
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    run.start().wait()
    assert run.state()["status"] == "interrupted"
    made = made_run(run.path.with_name("made"), steps=3)
    (made.path / "masks").mkdir()
    (made.path / "masks" / "step-000003.safetensors").write_bytes(b"")
    first = start_export(made)
    until(lambda: not first.is_alive(), 5)
    assert first.state()["status"] == "interrupted"
    monkeypatch.undo()
    second = start_export(made)
    assert second.state()["status"] == "starting" and second.is_alive(), "the dead one is not handed out again"
    until(lambda: not second.is_alive())


@pytest.mark.parametrize("ahead", [1e9, -1e9])
@pytest.mark.parametrize("status", ["starting", "running", "paused"])
def test_whatever_the_clock_says_a_dead_run_is_dead(tmp_path, status, ahead):
    run = made_run(tmp_path / "run", steps=3)
    set_state(run, status, 3, updated=time.time() + ahead)
    assert run.state()["status"] == "interrupted"


def test_an_ended_worker_leaves_no_zombie(new_run):
    run = new_run(steps=2)
    pid = run.start().pid
    until(lambda: run.state()["status"] == "done")
    until(lambda: not alive(pid), 20)


def test_a_run_that_is_deleted_under_its_worker_stays_deleted(new_run):
    run = new_run()
    process = run.start()
    until(lambda: run.state()["step"] > 2)
    shutil.rmtree(run.path, ignore_errors=True)
    shutil.rmtree(run.path, ignore_errors=True)  # what was written meanwhile
    assert process.wait(60) != 0
    assert not (run.path / "state.json").exists() and not (run.path / "steps.jsonl").exists()


def test_what_a_killed_worker_had_half_written_is_removed(new_run):
    run = new_run()
    process = run.start()
    until(lambda: run.checkpoints())
    process.kill()
    process.wait()
    left = [run.path / "checkpoints" / name for name in (".step-000002.safetensors.abc.part", ".tmpa1B2c3")]
    left.append(run.path / ".state.json.x.part")
    kept = [run.path / "commands" / ".x.json.y.part", run.path / ".notes"]
    for path in (*left, *kept):
        path.write_bytes(bytes(1000))
    run.start()
    until(lambda: run.state()["status"] == "running" and not any(path.exists() for path in left))
    assert all(path.exists() for path in kept)
    stop(run)


ACTIONS = {
    "start": lambda run: run.start(), "stop": lambda run: run.send("stop"), "set": lambda run: run.send("set", lambda1=0.1),
    "fork": lambda run: run.fork(run.path / "commands" / "child"), "export": start_export,
    "rename": lambda run: manage.rename(run, "other"), "delete": manage.delete,
    "ask": lambda run: Probe(run).ask(PromptRequest(prompt="A")),
}  # fmt: skip


@pytest.mark.parametrize("action", ACTIONS)
def test_what_the_system_refuses_is_one_sentence(action, tmp_path, monkeypatch):
    """As on a full disk or in a read-only folder, which does not stop a test that runs as root."""
    run = made_run(tmp_path / "run", steps=3)
    for folder in ("masks", "checkpoints"):
        (run.path / folder).mkdir()
        (run.path / folder / "step-000003.safetensors").write_bytes(b"")
    if action in ("stop", "set"):
        set_state(run, "running", 3)
        monkeypatch.setattr("proxsparse.runs.directory.is_held", lambda path: True)
    else:
        set_state(run, "stopped", 3)

    def refuses(name):
        def call(*arguments, **options):
            raise PermissionError(13, "Permission denied", str(run.path / "some" / "file"))

        monkeypatch.setattr(name, call)

    for name in ("tempfile.mkstemp", "os.mkdir", "os.rename", "subprocess.Popen"):
        refuses(name)
    with pytest.raises(ProxSparseError) as refused:
        ACTIONS[action](run)
    check_sentence(str(refused.value))
    assert str(tmp_path) not in str(refused.value)
    assert run.path.exists()


def test_a_run_deleted_between_two_clicks(tmp_path):
    run = made_run(tmp_path / "run", steps=3)
    set_state(run, "stopped", 3)
    shutil.rmtree(run.path)
    for action in ACTIONS.values():
        with pytest.raises(ProxSparseError) as refused:
            action(run)
        check_sentence(str(refused.value))


def test_a_command_file_that_arrives_late_is_not_for_the_next_worker(new_run):
    """A command to a worker that has just ended is forgotten when the run is started again."""
    run = new_run(steps=4)
    write_json(run.path / "commands" / "00000000000000000001-a.json", {"command": "stop"})
    run.start()
    until(lambda: run.state()["status"] == "done")
    assert os.listdir(run.path / "commands") == []
