"""Several processes on one job, each with the whole model on a device of its own: whoever is free takes the next piece of work.

The run's worker deals the pieces out, and it alone writes the run's state and events and handles its commands. The other processes
are its helpers (see `proxsparse.runs.jobs.helping`). Nothing is decided in a helper, so that one that is killed costs what it was
calculating, which another one calculates again.
"""

from __future__ import annotations

import gc
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing import Pipe, connection, get_context
from multiprocessing.context import SpawnProcess
from typing import Any

from proxsparse.errors import ProxSparseError
from proxsparse.runs.jobs.base import POLL_SECONDS, Job
from proxsparse.runs.jobs.helping import help_with
from proxsparse.runs.ranks.launched import how_it_ended
from proxsparse.runs.recorder import describe_device

Call = tuple
"""The name of a method of the job, and its arguments."""
Work = Generator[Call, Any, None]
"""A piece of work, which runs in the run's worker: it yields calls, one after the other, and is sent what each returned."""


def one(name: str, *arguments: Any) -> Work:
    """The work that is a single call."""
    yield name, *arguments


def answered(work: Work, answer: Any = None) -> Call | None:
    """The next call of a work that was sent an answer; None where it has ended."""
    try:
        return work.send(answer)
    except StopIteration:
        return None


@contextmanager
def processes(job: Job, count: int) -> Iterator[Callable[[Iterator[Work]], None]]:
    """What does works to their end, one after the other as they become due: this process, which has loaded the model, or `count` others
    in its place. It raises what a call raised, and Stopped."""
    if count == 1:
        yield partial(do_here, job)
        return
    helpers = Helpers(job, count)
    try:
        yield helpers.do
    finally:
        helpers.end()


def do_here(job: Job, works: Iterator[Work]) -> None:
    for work in works:
        with closing(work):
            call = answered(work)
            while call is not None:
                name, *arguments = call
                call = answered(work, getattr(job, name)(*arguments))


def devices_of(job: Job, count: int) -> list[str]:
    """See `devices_of_processes`."""
    from proxsparse.runs.jobs.devices import devices_of_processes

    return devices_of_processes((job.run.asked() or {}).get("device"), count)


class Helper:
    """A helper as the worker sees it. start: starts its process, which is told through the pipe it is given; work, call: what it is at,
    if anything; doing: the same in its own words."""

    def __init__(self, number: int, start: Callable[[connection.Connection], SpawnProcess]):
        self.number, self.start = number, start
        self.process: SpawnProcess | None = None
        self.work: Work | None = None
        self.call: Call = ()
        self.doing = ""

    def begin(self) -> None:
        """Start its process, unless that has been done."""
        if self.process is None:
            self.pipe, its_end = Pipe()
            self.process = self.start(its_end)
            its_end.close()


class Helpers:
    """The helpers of a job, and what they are at."""

    def __init__(self, job: Job, count: int):
        import torch

        self.job, self.count = job, count
        devices, threads = devices_of(job, count), max(1, torch.get_num_threads() // count)
        job.lm = job.layers = None  # the model's device, and memory, are theirs now
        gc.collect()
        torch.cuda.empty_cache()
        torch.set_num_threads(threads)
        job.recorder.update(device=f"{count} × {describe_device(torch.device(devices[0]))}")
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see `GENTLE` of proxsparse.runs.launch

        def start(pipe: connection.Connection, device: str) -> SpawnProcess:
            about = (type(job), str(job.run.path), device, threads, pipe)
            process = get_context("spawn").Process(target=help_with, args=about)
            process.start()
            return process

        self.living = [Helper(number, partial(start, device=device)) for number, device in enumerate(devices)]
        self.left_behind: deque[tuple[Work, Call]] = deque()
        self.lost: list[str] = []

    def do(self, works: Iterator[Work]) -> None:
        self.deal(works)
        while any(helper.work for helper in self.living):
            self.look()
            self.deal(works)

    def deal(self, works: Iterator[Work]) -> None:
        """Give everybody who is free what was left behind, or else the next work."""
        while free := [helper for helper in self.living if helper.work is None]:
            if self.left_behind:
                self.give(free[0], *self.left_behind.popleft())
            elif (work := next(works, None)) is not None:
                self.give(free[0], work, answered(work))
            else:
                return

    def give(self, helper: Helper, work: Work, call: Call | None) -> None:
        """Let a helper make a call; None: its work has ended."""
        helper.work = None
        if call is not None:
            helper.begin()
            helper.work, helper.call, helper.doing = work, call, "beginning"
            self.tell(helper, "call", *call)

    def tell(self, helper: Helper, *message: Any) -> None:
        try:
            helper.pipe.send(message)
        except OSError:
            self.lose(helper)

    def look(self) -> None:
        """Say what is done, handle commands, and hear what helpers have to say."""
        self.job.stop_at_disk_limit()
        doing = [f"{helper.number}: {helper.doing}" for helper in self.living if helper.work]
        self.job.recorder.update(doing="; ".join(doing + self.lost), elapsed=self.job.total_elapsed)
        self.job.handle_commands()
        if self.job.is_waiting:
            self.tell_who_works("pause")
            while self.job.is_waiting:
                self.job.wait()
                self.job.handle_commands()
            self.tell_who_works("resume")
        at_work = {helper.pipe: helper for helper in self.living if helper.work}
        for pipe in connection.wait(at_work, POLL_SECONDS):
            self.hear(at_work[pipe])

    def tell_who_works(self, command: str) -> None:
        for helper in [each for each in self.living if each.work]:
            self.tell(helper, command)

    def hear(self, helper: Helper) -> None:
        try:
            kind, about = helper.pipe.recv()
        except (EOFError, OSError):
            self.lose(helper)
            return
        if kind == "doing":
            helper.doing = about
        elif kind == "event":
            self.job.recorder.event(**about)
        elif kind == "failed":
            raise ProxSparseError(about)
        elif kind == "returned":
            self.give(helper, helper.work, answered(helper.work, about))

    def lose(self, helper: Helper) -> None:
        """Let another one do what a process was at that is gone. Raises ProxSparseError where none is left."""
        self.living.remove(helper)
        self.left_behind.append((helper.work, helper.call))
        helper.process.join(5)
        helper.process.kill()  # should it live on without its pipe
        helper.process.join()
        ended = f"process {helper.number} of {self.count} (from 0) {how_it_ended(helper.process.exitcode)}"
        self.lost.append(ended)
        self.job.recorder.event("process lost", why=f"{ended} at {helper.doing!r}, which another one does again")
        if not self.living:
            raise ProxSparseError(
                f"All {self.count} processes were lost, the last one at {helper.doing!r}: {ended}; see worker.log, and the memory of "
                "its device; resume goes on with what is not done."
            )

    def end(self) -> None:
        """End all processes. What they were at is done from its beginning when the run goes on."""
        started = [helper.process for helper in self.living if helper.process is not None]
        for process in started:
            process.kill()
        for process in started:
            process.join()
        for work in [helper.work for helper in self.living if helper.work] + [work for work, _ in self.left_behind]:
            work.close()
