"""Processes that share a run are started again after one was killed, and the run ends as if none had been; on one machine or on several."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from test_launched import SECONDS, alone, assert_same_steps, follower_of, job, same_masks, told, worked_on  # noqa: F401  # fmt: skip
from tiny_models import tiny_model
from waiting import until

from proxsparse import Run
from proxsparse.cli.ranks import require_fresh_store, require_place
from proxsparse.config import LearnJob
from proxsparse.errors import ProxSparseError
from proxsparse.models.language_model import fingerprint
from proxsparse.runs.launch import set_launch
from proxsparse.runs.manage import command_line
from proxsparse.runs.ranks.following import difference
from proxsparse.runs.ranks.leading import was_paused
from proxsparse.runs.ranks.start import Start

AGAIN = "processes started again"


def learn_flags(wanted: LearnJob, out: Path, **others) -> list[str]:
    """`learn` of the jobs of these tests."""
    flags = {name: getattr(wanted, name) for name in ("model", "corpus", "length", "context", "windows", "device")}
    flags |= {"live-windows": 3, "evaluate-every": 4, "checkpoint-every": 4, "evaluate-on": wanted.evaluate_on[0]}
    flags |= {"steps": 12, "precision": "fp32", "learning-rate": "3e-3", "metric-windows": 8, "out": out} | others
    return ["learn", *(str(word) for name, value in flags.items() for word in (f"--{name}", value))]


def torchrun(*words: object, environment: dict[str, str] | None = None) -> subprocess.Popen:
    """What torchrun starts; words: its own flags, then those of proxsparse from its verb on."""
    own = [str(word) for word in words]
    at = next(index for index, word in enumerate(own) if word in ("learn", "resume"))
    command = [sys.executable, "-m", "torch.distributed.run", *own[:at], "-m", "proxsparse", *own[at:]]
    return subprocess.Popen(
        command, env=os.environ | (environment or {}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def paused_at(run: Run, step: int) -> None:
    run.send("pause")
    until(lambda: run.state()["status"] == "paused" and run.state().get("phase"), SECONDS)
    while (before := run.state()["step"]) < step:
        run.send("step")
        until(lambda before=before: run.state()["step"] > before, SECONDS)


def test_a_run_goes_on_from_its_checkpoint_and_fails_when_it_was_started_again_often_enough(job, alone, tmp_path):  # noqa: F811
    run = Run.create(job(2, max_restarts=1), tmp_path / "run")
    run.start()
    paused_at(run, 6)
    os.kill(run.state()["pid"], signal.SIGKILL)
    until(lambda: told(run, AGAIN), SECONDS)
    (again,) = told(run, AGAIN)
    assert (again["step"], again["times"], again["most"]) == (4, 1, 1)
    assert list(run.table("steps")["step"]) == [1, 2, 3, 4], "the records go as far as the checkpoint"
    until(lambda: run.state()["status"] == "paused", SECONDS)  # as it was
    paused_at(run, 5)
    os.kill(follower_of(run.state()["pid"]), signal.SIGKILL)
    until(lambda: run.state()["status"] == "failed", SECONDS)
    assert "Process 1 of 2 (from 0) was killed (SIGKILL)" in run.state()["error"]
    until(lambda: not run.is_alive(), SECONDS)
    worked_on(run)
    assert_same_steps(run, alone)
    assert same_masks(run, alone, 12)


def test_torchrun_starts_them_again_and_a_stop_given_meanwhile_counts(job, alone, tmp_path):  # noqa: F811
    path = tmp_path / "run"
    started = torchrun("--standalone", "--nproc-per-node", 2, "--max-restarts", 1, *learn_flags(job(2), path))
    until(lambda: (path / "run.json").exists() and Run(path).checkpoints(), SECONDS)
    run = Run(path)
    leader = run.state()["pid"]
    os.kill(leader, signal.SIGSTOP)  # so that it handles the command when the other one is gone
    run.send("stop")
    (follower,) = {each.pid for each in psutil.Process(started.pid).children()} - {leader}
    os.kill(follower, signal.SIGKILL)
    os.kill(leader, signal.SIGCONT)
    _, said = started.communicate(timeout=SECONDS)
    assert started.returncode == 0, said[-3000:]
    assert run.state()["status"] == "stopped" and not run.commands()
    assert [event["step"] for event in told(run, AGAIN)] == list(run.checkpoints())[-1:], "stopped where it went on"

    started = torchrun("--standalone", "--nproc-per-node", 2, "--max-restarts", 1, "resume", path)
    until(lambda: run.state()["status"] == "running" and told(run, "resumed")[1:], SECONDS)
    os.kill(run.state()["pid"], signal.SIGKILL)
    printed, said = started.communicate(timeout=SECONDS)
    assert started.returncode == 0, said[-3000:]
    assert "done at step 12 of 12" in printed
    assert len(told(run, AGAIN)) == 2
    assert_same_steps(run, alone)
    assert same_masks(run, alone, 12)


def test_what_failed_with_a_reason_is_not_tried_again(job, tmp_path):  # noqa: F811
    (tmp_path / "short.txt").write_text("Too short.")
    wanted = learn_flags(job(2), tmp_path / "run", corpus=tmp_path / "short.txt")
    started = torchrun("--standalone", "--nproc-per-node", 2, "--max-restarts", 1, *wanted)
    _, said = started.communicate(timeout=SECONDS)
    run = Run(tmp_path / "run")
    assert started.returncode != 0 and run.state()["status"] == "failed"
    assert said.count(f"error: {run.state()['error']}") == 2, "at once, in the same words"
    assert len(told(run, "failed")) == 1

    set_launch(run, 2, 3)
    run.start()
    until(lambda: len(told(run, "failed")) == 2 and not run.is_alive(), SECONDS)
    assert run.state()["status"] == "failed" and "text" in run.state()["error"]
    assert len(told(run, "failed")) == 2 and not told(run, AGAIN)


def test_a_run_that_another_command_has_begun_is_left_alone(job, tmp_path):  # noqa: F811
    run = Run.create(job(2), tmp_path / "run")
    wanted = learn_flags(job(2), run.path, seed=5)
    started = torchrun("--standalone", "--nproc-per-node", 2, "--max-restarts", 1, *wanted)
    _, said = started.communicate(timeout=SECONDS)
    assert started.returncode != 0 and said.count("exists and is not empty: give the run another name") == 2
    assert run.state()["status"] == "new"


MACHINE = """
import os, pathlib, socket

if "RANK" in os.environ and "MACHINE" in os.environ:
    socket.gethostname = lambda: os.environ["MACHINE"]
    if os.environ["MACHINE"] == "blind" and os.environ["RANK"] == "1":
        is_file = pathlib.Path.is_file
        pathlib.Path.is_file = lambda path: path.name != "run.json" and is_file(path)
"""  # which every process of the run imports when it starts


@pytest.fixture
def on_machines(tmp_path, monkeypatch):
    """Names of machines, and a command → what the torchrun of each ended with, all of them on this machine."""
    (tmp_path / "sitecustomize.py").write_text(MACHINE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        endpoint = f"localhost:{free.getsockname()[1]}"

    def ended(names: tuple[str, ...], words: list[str]) -> list[tuple[int, str, str]]:
        own = ["--nnodes", len(names), "--nproc-per-node", 1, "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]
        started = [torchrun(*own, *words, environment={"MACHINE": name}) for name in names]
        said = [each.communicate(timeout=SECONDS) for each in started]
        return [(each.returncode, *both) for each, both in zip(started, said, strict=True)]

    return ended


def test_two_machines_learn_what_one_process_learns(job, alone, tmp_path, on_machines):  # noqa: F811
    ends = on_machines(("a", "b"), learn_flags(job(2), tmp_path / "run"))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert sum("done at step 12 of 12" in printed for _, printed, _ in ends) == 1
    run = Run(tmp_path / "run")
    assert_same_steps(run, alone)
    assert same_masks(run, alone, 12)
    assert run.state()["device"].startswith("2 × cpu") and run.state()["device"].endswith(", 2 machines")
    assert {path.name for path in (tmp_path / ".queue").iterdir()} == {"a-cpu", "b-cpu"}


def test_a_machine_that_does_not_see_the_run_says_so(job, tmp_path, on_machines):  # noqa: F811
    ends = on_machines(("blind", "blind"), learn_flags(job(2), tmp_path / "run"))
    sentence = (
        f"Process 1 of 2 (from 0), on blind: there is no run at {tmp_path / 'run'} here: give --out a folder that all"
    )
    for code, _, said in ends:
        assert code != 0 and sentence in said


def test_each_machine_reads_the_same_text_and_weights(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    model, text = tiny_model("llama"), SimpleNamespace(name="text.txt", sha256="this")
    assert difference(text, model, "this", fingerprint(model)) == ""
    assert "the text text.txt is not that of process 0" in difference(text, model, "that", fingerprint(model))
    assert "are not those of process 0" in difference(text, model, "this", "others")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert difference(text, model, "this", "others") == "", "another process of this machine has looked"


def test_each_machine_counts_for_itself_how_often_it_started_again(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert Start.of([("a", 1), ("a", 1), ("b", 2)]) == Start({"a": 2, "b": 1}, 2, 2, False)


def test_on_several_machines_they_are_started_again_only_where_they_find_each_other(monkeypatch):
    said = {
        "LOCAL_WORLD_SIZE": "1",
        "WORLD_SIZE": "2",
        "TORCHELASTIC_MAX_RESTARTS": "1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ProxSparseError, match="only with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        require_fresh_store()
    with pytest.raises(ProxSparseError, match="say with --out where it lies"):
        require_place(None)
    for name, value in (
        ("TORCHELASTIC_USE_AGENT_STORE", "False"),
        ("WORLD_SIZE", "1"),
        ("TORCHELASTIC_MAX_RESTARTS", "0"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            require_fresh_store()


@pytest.mark.parametrize(
    ("events", "paused"),
    [("", False), ("paused", True), ("paused checkpoint", True), ("paused stopped", False), ("paused resumed", False)],
)
def test_whether_it_was_paused(tmp_path, events, paused):
    run = Run.create(LearnJob(), tmp_path / "run")
    lines = [f'{{"time": 1.0, "step": 0, "event": "{event}"}}\n' for event in events.split()]
    (run.path / "events.jsonl").write_text("".join(lines))
    assert was_paused(run) is paused


def test_how_often_is_refused_in_one_sentence_and_part_of_the_command(tmp_path):
    with pytest.raises(ProxSparseError, match="max-restarts is -1: give 0 or more"):
        LearnJob(launch=2, max_restarts=-1)
    with pytest.raises(ProxSparseError, match="max-restarts is 3 and launch 1: a process that is alone"):
        LearnJob(max_restarts=3)
    run = Run.create(LearnJob(launch=2, max_restarts=3), tmp_path / "run")
    assert command_line(run).endswith("--launch 2 --max-restarts 3")
    with pytest.raises(ProxSparseError, match="max-restarts is -1"):
        set_launch(run, None, -1)
    set_launch(run, 4)
    assert (run.job().launch, run.job().max_restarts) == (4, 3)
    set_launch(run, 1)
    assert run.job().max_restarts == 0, "one process is not started again"
    with pytest.raises(ProxSparseError, match="max-restarts is 2 and launch 1"):
        set_launch(run, None, 2)
