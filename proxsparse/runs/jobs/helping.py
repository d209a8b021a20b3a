"""A helper: one of several processes that calculate for a run, each with the whole model on a device of its own.

It loads the model as the run's job does, calls what the run's worker tells it through a pipe, and says how far it is. One whose worker is
gone ends.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from multiprocessing import connection
from pathlib import Path
from typing import Any

from proxsparse.runs.explain import explain
from proxsparse.runs.jobs.base import Job
from proxsparse.runs.recorder import STATE_SECONDS
from proxsparse.runs.run import Run


class Relay:
    """In the place of a run's recorder: the worker is told, and decides what is written."""

    def __init__(self, pipe: connection.Connection):
        self.pipe, self.state, self.told, self.has_loaded = pipe, {}, 0.0, False

    def update(self, doing: str = "", **_: Any) -> None:
        if doing and time.monotonic() - self.told > STATE_SECONDS:
            self.told = time.monotonic()
            self.pipe.send(("doing", doing))

    def event(self, event: str, **about: Any) -> None:
        if self.has_loaded:  # what happens before has happened in the worker, too
            self.pipe.send(("event", {"event": event, **about}))


class Helping:
    """A job in a helper: put before a kind of job, it takes commands from the worker, and leaves to it what the run's directory says."""

    recorder: Relay
    paused: bool

    def describe(self, layers, text, model) -> None:
        """The worker has done it."""

    def stop_at_disk_limit(self) -> None:
        """The worker does."""

    def handle_commands(self) -> None:
        while self.recorder.pipe.poll():
            (command,) = told(self.recorder.pipe)
            self.paused = command == "pause"

    def wait(self) -> None:
        self.idle()


def told(pipe: connection.Connection) -> tuple:
    """What the worker tells. Where it is gone, the helper ends."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        sys.exit(1)


def help_with(kind: type[Job], path: str, device: str, threads: int, pipe: connection.Connection) -> None:
    """What a helper does: calls of a job of this kind, as it is told them, until the worker ends it."""
    os.environ.setdefault("NUMBA_NUM_THREADS", str(threads))  # which numba reads when it is imported
    import torch

    torch.set_num_threads(threads)
    if device != "cpu":
        torch.cuda.set_device(device)
    job = type("Helping", (Helping, kind), {})(Run(Path(path)), Relay(pipe))
    for number in (signal.SIGTERM, signal.SIGINT):  # it has nothing to save
        signal.signal(number, signal.SIG_DFL)
    job.own_device = device
    while True:
        message, *call = told(pipe)
        if message != "call":  # a pause that began and ended between two calls
            continue
        name, *arguments = call
        try:
            if not job.recorder.has_loaded:
                job.load()
                job.recorder.has_loaded = True
            pipe.send(("returned", getattr(job, name)(*arguments)))
        except BrokenPipeError:
            sys.exit(1)
        except Exception as error:  # whatever it was, the worker is told
            traceback.print_exc()
            pipe.send(("failed", explain(error, job.run)))
