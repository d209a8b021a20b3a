"""Whose turn it is: processes that come at once, die, and are withdrawn."""

import multiprocessing
import subprocess
import sys
import time

import pytest
from made_runs import made_run
from test_workers import new_run, one_thread, stop  # noqa: F401
from waiting import until

from proxsparse import CompareJob, LearnJob, ProxSparseError, Run
from proxsparse.cli.main import main
from proxsparse.config import SweepPlan
from proxsparse.runs import queue


class Enough(Exception):
    """Somebody does not wait."""


def gives_up(ahead):
    raise Enough(ahead)


def work_until(path, log, released):
    with queue.turn(Run(path), lambda ahead: None), open(log, "a") as file:
        print(f"begin {path.name} {time.time_ns()}", file=file, flush=True)
        released.wait(120)
        time.sleep(0.2)
        print(f"end {path.name} {time.time_ns()}", file=file, flush=True)


def events(log):
    return [line.split()[:2] for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def runs(tmp_path):
    return [made_run(tmp_path / f"run-{index}", device="cpu") for index in range(4)]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_than_allowed_work_and_they_come_in_their_order(runs, tmp_path, monkeypatch, workers):
    monkeypatch.setenv(queue.WORKERS, str(workers))
    context, log = multiprocessing.get_context("spawn"), tmp_path / "log"
    released = context.Event()
    processes = [context.Process(target=work_until, args=(run.path, log, released)) for run in runs]
    for index, process in enumerate(processes):
        process.start()
        arrived = index + 1
        until(lambda: len(events(log)) + len(queue.waiting_behind(runs[0])) >= arrived, 60)  # noqa: B023
    released.set()
    for process in processes:
        process.join(60)
    begun = [name for what, name in events(log) if what == "begin"]
    assert begun == [run.id for run in runs]
    at_once, most = 0, 0
    for what, _ in events(log):
        at_once += 1 if what == "begin" else -1
        most = max(most, at_once)
    assert most == workers


def test_the_dead_are_not_waited_for(runs, tmp_path):
    context, log = multiprocessing.get_context("spawn"), tmp_path / "log"
    never = context.Event()
    first = context.Process(target=work_until, args=(runs[0].path, log, never))
    first.start()
    until(lambda: events(log), 60)
    second = context.Process(target=work_until, args=(runs[1].path, log, never))
    second.start()
    until(lambda: queue.waiting_behind(runs[0]) == [runs[1].id], 60)
    with pytest.raises(Enough, match=r"run-0.*run-1"), queue.turn(runs[2], gives_up):
        pass
    second.kill()
    second.join()
    assert queue.waiting_behind(runs[0]) == []
    first.kill()
    first.join()
    with queue.turn(runs[2], gives_up):
        pass


def test_another_device_is_another_queue(runs, tmp_path):
    other = made_run(tmp_path / "other", device="cuda:1")
    assert queue.device_of(other) == "cuda-1" and queue.device_of(runs[0]) == "cpu"
    both = queue.turn(runs[0], gives_up), queue.turn(other, gives_up)
    with both[0], both[1], pytest.raises(Enough), queue.turn(runs[1], gives_up):
        pass
    assert queue.device_of(made_run(tmp_path / "default")) in ("cpu", "cuda-0")
    assert queue.device_of(Run.create_kind("export", {}, tmp_path / "export")) is None
    assert (
        queue.device_of(Run.create_kind("sweep", {"sweep": LearnJob(device="cuda").to_dict()}, tmp_path / "sweep"))
        == "cuda-0"
    )


def test_a_run_of_several_processes_holds_all_their_gpus(tmp_path):
    second, third = (made_run(tmp_path / device, device=device) for device in ("cuda:1", "cuda:2"))
    compared = Run.create_kind(
        "compare", {"compare": CompareJob(launch=2, device="cuda").to_dict()}, tmp_path / "compared"
    )
    job, plan = LearnJob(device="cuda"), SweepPlan(launch=2)
    swept = Run.create_kind("sweep", {"sweep": job.to_dict(), "plan": plan.to_dict()}, tmp_path / "swept")
    for run in (made_run(tmp_path / "shared", device="cuda", launch=2), compared, swept):
        assert queue.devices_of(run) == ["cuda-0", "cuda-1"]
        with queue.turn(run, gives_up), queue.turn(third, gives_up), pytest.raises(Enough, match=run.id):
            queue.turn(second, gives_up).__enter__()
        with queue.turn(second, gives_up):
            with pytest.raises(Enough, match="cuda:1"):
                queue.turn(run, gives_up).__enter__()
            assert queue.waiting_behind(second) == [], "who gave up has let go of the first, too"
    on_cpu = Run.create_kind("compare", {"compare": CompareJob(launch=2, device="cpu").to_dict()}, tmp_path / "on-cpu")
    assert queue.devices_of(on_cpu) == ["cpu"]


def test_a_run_of_several_machines_holds_the_gpus_of_all(tmp_path, monkeypatch):
    shared, other = (
        made_run(tmp_path / "shared", device="cuda", launch=3),
        made_run(tmp_path / "other", device="cuda:1"),
    )
    assert queue.places_of(shared, {"b": 2, "a": 1}) == ["a-cuda-0", "b-cuda-0", "b-cuda-1"]
    for machine, taken in (("a", False), ("b", True)):
        monkeypatch.setattr("socket.gethostname", lambda machine=machine: machine)
        with queue.turn(shared, gives_up, {"b": 2, "a": 1}):
            if taken:
                with pytest.raises(Enough, match="shared"), queue.turn(other, gives_up):
                    pass
            else:
                with queue.turn(other, gives_up):
                    pass


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "", "9" * 30, "²"])
def test_a_number_of_workers_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv(queue.WORKERS, text)
    with pytest.raises(ProxSparseError, match="workers is"):
        queue.workers_at_a_time()


def test_waiting_needs_no_torch():
    """A worker that waits has imported what it needs to wait, not what it will work with."""
    code = "import sys, proxsparse.runs.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_the_command_line_refuses_it_before_anything_is_made(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(queue.WORKERS, "1")
    assert main(["learn", "--workers", "0", "--out", str(tmp_path / "run")]) == 2
    assert "workers is '0': give a whole number" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_run_that_waits_says_for_whom_and_can_be_withdrawn(new_run):  # noqa: F811
    first, second, third = new_run("first"), new_run("second", steps=3), new_run("third")
    first.start()
    until(lambda: first.state()["status"] == "running")
    second.start()
    until(lambda: second.state()["status"] == "waiting")
    assert second.state()["doing"] == "waits for cpu: 1 before it, first first"
    third.start()
    until(lambda: third.state()["doing"] == "waits for cpu: 2 before it, first first")
    with pytest.raises(ProxSparseError, match="waits for its turn"):
        third.send("pause")
    third.send("stop")
    until(lambda: not third.is_alive())
    assert third.state()["status"] == "stopped" and third.state()["doing"].startswith("withdrawn")
    first.send("pause")
    until(lambda: "waits" in first.state()["doing"])
    phase = first.state()["phase"]  # it pauses between any two halves
    assert first.state()["doing"] == f"the {phase} half comes next; second waits for cpu: stop this run to let it begin"
    assert second.state()["status"] == "waiting"
    stop(first)
    until(lambda: second.state()["status"] == "done")
    until(lambda: not second.is_alive())
