"""How the processes that share a run were started, and started again after one was lost. Nothing here imports torch."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from proxsparse.runs.run import Run

LEFT_TO_ITSELF = {"done": 0, "stopped": 0, "failed": 2}  # how a run ends that is not cut off, and the exit code of that


@dataclass(frozen=True)
class Start:
    """How the processes of a run were started.

    machines: {name: how many processes it has}, all machines of the run. again: how often all were started again. most: how often they may
    be. is_last: whether the launcher of this process would not start it again.
    """

    machines: dict[str, int]
    again: int
    most: int
    is_last: bool

    @classmethod
    def of(cls, said: Iterable[tuple[str, int]]) -> Start:
        """What all processes `said` of themselves. Each machine has a launcher, which counts only what its own processes gave rise to."""
        names, counts = zip(*said, strict=True)
        most = int(os.environ["TORCHELASTIC_MAX_RESTARTS"])
        return cls(dict(Counter(names)), max(counts), most, said_here()[1] >= most)


def said_here() -> tuple[str, int]:
    """This machine's name, and how often its launcher has started its processes again."""
    return socket.gethostname(), int(os.environ["TORCHELASTIC_RESTART_COUNT"])


def ended(run: Run) -> int | None:
    """The exit code of a run that came to an end of itself, be it that it failed and said why, so that starting again would not help;
    None of one that was cut off."""
    return LEFT_TO_ITSELF.get(run.state()["status"])
