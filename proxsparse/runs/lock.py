"""The lock that a worker holds as long as it lives: the operating system lets go of it when the process dies, whatever any
clock says. Whoever starts a worker takes the lock first and hands it over, so that of two who start one only the first does.

Whoever only wants to know whether a worker lives takes the lock shared, for a moment: any number of readers may ask at
once without making a dead run look alive, which with an exclusive lock two of them would do.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

RETRY_SECONDS = 0.05


@contextmanager
def held(path: Path, timeout: float = 0.0) -> Iterator[BinaryIO]:
    """Hold the lock file at `path` while open. A process that inherits the file holds the lock as well, and goes on holding
    it. Raises BlockingIOError when another process holds it for `timeout` seconds."""
    deadline = time.monotonic() + timeout
    with open(path, "ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(RETRY_SECONDS)
        yield file


@contextmanager
def inherited(descriptor: int) -> Iterator[BinaryIO]:
    """Keep the lock that whoever started this process handed over, while open; processes started from here do not get it."""
    os.set_inheritable(descriptor, False)
    with open(descriptor, "ab") as file:
        yield file


def is_held(path: Path) -> bool:
    """Whether a process holds the lock file at `path`."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
