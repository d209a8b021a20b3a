"""Every action on a run passes one guard, every setting of a fork takes effect or is refused, and locks tell the truth."""

import json
import multiprocessing
import os
import shutil
import threading
from pathlib import Path

import pytest

from proxsparse import LearnConfig, LearnJob, ProxSparseError, Run
from proxsparse.config import CompareJob
from proxsparse.files import append_record, read_json, write_json
from proxsparse.runs import start_export
from proxsparse.runs.commands import COMMANDS
from proxsparse.runs.directory import numbered_file
from proxsparse.runs.jobs import export as export_job
from proxsparse.runs.launch import FIXED
from proxsparse.runs.lock import held, is_held
from proxsparse.settings import settings_of

EXAMPLE = Path("assets/example-run")
VALUES = {"set": {"lambda1": 0.1}, "delay": {"seconds": 1}}


def state_of(run, status, **more):
    write_json(run.path / "state.json", {"status": status, "step": 4, "updated": 0, **more})


@pytest.fixture
def run(tmp_path):
    run = Run.create(LearnJob(learn=LearnConfig(steps=9, lambda1=0.5)), tmp_path / "runs" / "first")
    for folder in ("checkpoints", "masks"):
        path = numbered_file(run.path / folder, 4)
        path.parent.mkdir()
        path.write_bytes(b"state")
    state_of(run, "stopped")
    return run


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


ACTIONS = {
    "start": lambda run: run.start(),
    "export": lambda run: start_export(run),
    **{name: lambda run, name=name: run.send(name, **VALUES.get(name, {})) for name in COMMANDS},
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("status", ("done", "stopped", "running", "new"))
def test_the_recorded_example_is_only_looked_at(action, status, tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "example")
    run = Run(tmp_path / "example")
    write_json(run.path / "state.json", read_json(run.path / "state.json") | {"status": status, "updated": 9e9})
    before = files_of(run.path)
    with pytest.raises(ProxSparseError, match="is a recorded example, which is only looked at"):
        ACTIONS[action](run)
    assert files_of(run.path) == before


@pytest.mark.parametrize("action", ACTIONS)
def test_a_run_in_a_folder_that_may_not_be_written_is_left_alone(action, run, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != run.path)  # root may write everywhere
    with pytest.raises(ProxSparseError, match="may not be written to"):
        ACTIONS[action](run)


@pytest.mark.parametrize("action", COMMANDS)
@pytest.mark.parametrize("status", ("new", "stopped", "done", "failed", "interrupted"))
def test_a_run_without_a_worker_takes_no_commands(action, status, run):
    state_of(run, status)
    with pytest.raises(ProxSparseError, match=f"is {status}: it takes no commands until it is resumed"):
        ACTIONS[action](run)
    assert run.commands() == []


def test_a_run_that_is_done_or_alive_is_not_started_again(run):
    state_of(run, "done")
    with pytest.raises(ProxSparseError, match="is done: fork it with more steps"):
        run.start()
    state_of(run, "running")
    with held(run.path / "lock"), pytest.raises(ProxSparseError, match="being worked on already"):
        run.start()


@pytest.mark.parametrize("command", ("step", "gradient", "prox", "set", "delay"))
def test_a_comparison_takes_no_steps(command, tmp_path):
    run = Run.create_kind("compare", {"compare": CompareJob().to_dict()}, tmp_path / "compared")
    state_of(run, "running")
    with held(run.path / "lock"):
        with pytest.raises(ProxSparseError, match=f"learned no mask .*: it takes no '{command}'"):
            ACTIONS[command](run)
        with pytest.raises(ProxSparseError, match="takes no 'fork'"):
            run.fork(tmp_path / "fork")
        run.send("pause")


@pytest.mark.parametrize(
    ("command", "values", "words"),
    [
        ("set", {}, "set takes lambda1, and nothing was given"),
        ("set", {"lambda1": None}, "lambda1 is None: give a number"),
        ("set", {"lambda1": "much"}, "lambda1 is 'much': give a number"),
        ("set", {"lambda1": -1}, "lambda1 is -1: give 0 or more"),
        ("set", {"lambda1": float("nan")}, "lambda1 is nan: give a number"),
        ("set", {"lambda1": 1, "ramp": 2}, "set takes lambda1, and lambda1, ramp was given"),
        ("delay", {}, "delay takes seconds, and nothing was given"),
        ("delay", {"seconds": "long"}, "delay is 'long': give 0 to 60 seconds"),
        ("delay", {"seconds": -1}, "delay is -1: give 0 to 60 seconds"),
        ("delay", {"seconds": 3600}, "delay is 3600: give 0 to 60 seconds"),
        ("delay", {"seconds": float("nan")}, "delay is nan: give 0 to 60 seconds"),
        ("pause", {"lambda1": 1}, "pause takes no value"),
    ],
)
def test_a_command_with_the_wrong_values_never_reaches_the_worker(command, values, words, run):
    state_of(run, "running")
    with held(run.path / "lock"), pytest.raises(ProxSparseError, match=words):
        run.send(command, **values)
    assert run.commands() == []


# Forks


OTHER = {
    "model": "other", "corpus": "other.txt", "metric": "weight", "loss_at": "soft", "decay": "cosine", "precision": "fp32",
    "memory": "full", "recompute": True, "offload": True, "relative": False, "device": "cpu", "bos": "every", "distill": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", [*settings_of(LearnConfig), *settings_of(LearnJob)])
def test_every_setting_of_a_fork_takes_effect_or_is_refused_by_name(name, run):
    """What the worker makes of a new strength is tested with real workers, see test_worker.py."""
    learn = LearnConfig()
    now = getattr(learn if hasattr(learn, name) else run.job(), name)
    if name not in OTHER:
        OTHER[name] = 1 if name == "n" else 0.5 if name == "warmup" else now + 3
    other = OTHER[name]
    target = run.path.parent / "fork"
    if name in FIXED:
        with pytest.raises(ProxSparseError, match=f"{name.replace('_', '-')} is .* cannot become .* in a fork"):
            run.fork(target, **{name: other})
        assert not target.exists()
    else:
        job = run.fork(target, **{name: other}).job()
        assert getattr(job.learn if hasattr(job.learn, name) else job, name) == other


def test_a_fork_refuses_what_is_no_setting_or_ends_before_it_begins(run):
    with pytest.raises(ProxSparseError, match="There is no setting 'colour'"):
        run.fork(run.path.parent / "fork", colour=1)
    with pytest.raises(ProxSparseError, match="steps is 3 and the checkpoint is of step 4: give 4 or more"):
        run.fork(run.path.parent / "fork", steps=3)


# Formats


def test_a_newer_run_is_refused_and_an_older_one_migrated(run):
    header = read_json(run.path / "run.json")
    assert header["version"] == 1
    write_json(run.path / "run.json", header | {"version": 2})
    with pytest.raises(ProxSparseError, match="has the format version 2 and this proxsparse reads versions up to 1"):
        run.job()
    del header["version"]
    for name in ("loss_at", "ramp", "distill"):
        del header["job"]["learn"][name]
    write_json(run.path / "run.json", header | {"parent": {"run": "a", "step": 2, "lambda1": 0.1}})
    assert (run.job().learn.loss_at, run.job().learn.ramp) == ("soft", 1.0), "as runs were before there was a choice"
    assert run.job().learn.distill == 0.0
    assert run.header()["parent"] == {"run": "a", "step": 2, "changed": ["lambda1"]}
    assert json.loads((EXAMPLE / "run.json").read_text())["version"] == 1


# Locks


def _hold(path, holding, release):
    with held(path):
        holding.set()
        release.wait(60)


def test_many_who_look_do_not_make_a_dead_run_look_alive(run):
    """Each look takes the lock shared: with an exclusive one, two looks at once would take each other for a worker."""
    (run.path / "lock").touch()
    seen, start = [], threading.Barrier(8)

    def look():
        start.wait()
        seen.extend(run.is_alive() for _ in range(200))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1600 and not any(seen)


def test_a_worker_s_lock_is_seen_and_goes_with_its_process(tmp_path):
    context = multiprocessing.get_context("spawn")
    holding, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "lock", holding, release))
    assert not is_held(tmp_path / "lock")
    process.start()
    assert holding.wait(60) and is_held(tmp_path / "lock")
    with pytest.raises(BlockingIOError), held(tmp_path / "lock"):
        pass
    process.kill()
    process.join(60)
    assert not is_held(tmp_path / "lock")


# Exports


@pytest.fixture
def exports(monkeypatch):
    """Starting a worker is only noted: its export looks as one that has just been asked for."""
    started = []
    monkeypatch.setattr(Run, "start", lambda self: (state_of(self, "starting"), started.append(self)))
    monkeypatch.setattr("proxsparse.runs.directory.is_held", lambda path: True)
    return started


def test_an_export_that_is_being_written_is_not_started_twice(run, exports):
    first = start_export(run, "dense")
    assert start_export(run, "dense").path == first.path and len(exports) == 1
    with pytest.raises(
        ProxSparseError, match=r"The dense export of run first is being written: wait .* ask for compact"
    ):
        start_export(run, "compact")
    state_of(first, "done")
    assert start_export(run, "compact").header()["format"] == "compact" and len(exports) == 2


def test_clicks_at_the_same_moment_start_one_export(run, exports):
    start = threading.Barrier(6)

    def click():
        start.wait()
        start_export(run)

    threads = [threading.Thread(target=click) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(exports) == 1 and run.export().state()["status"] == "starting"


def test_a_start_that_hangs_is_said(run, exports, monkeypatch):
    monkeypatch.setattr(export_job, "START_TIMEOUT", 0.1)
    with held(run.path / "export.lock"), pytest.raises(ProxSparseError, match="is just being started"):
        start_export(run)


def test_events_are_cut_back_with_the_other_records(run):
    """λ1 set at a step that is taken again stays, everything else of that step goes."""
    from proxsparse.runs.recorder import Recorder

    for step, event, more in (
        (2, "paused", {}), (6, "paused", {}), (7, "lambda1", {"phase": "prox", "lambda1": 0.7}), (8, "checkpoint", {}),
    ):  # fmt: skip
        append_record(run.path / "events.jsonl", {"time": 1.0, "step": step, "event": event, **more})
    append_record(run.path / "steps.jsonl", {"step": 4, "loss": 3.0, "lambda1": 0.1, "flips": 1})
    append_record(run.path / "steps.jsonl", {"step": 5, "loss": 3.0, "lambda1": 0.1, "flips": 1})
    recorder = Recorder(run)
    recorder.event("unreadable checkpoint", checkpoint=8)
    recorder.forget_after(4)
    assert run.table("events")["event"].tolist() == ["paused", "lambda1", "unreadable checkpoint"]
    assert run.table("steps")["step"].tolist() == [4]
    recorder.forget_strengths_from(7, "gradient")
    assert run.table("events")["event"].tolist() == ["paused", "unreadable checkpoint"]
