"""Whose turn it is: on each device of a machine so many workers at a time, one by default, the others in the order they came.

There is no daemon. Under `.queue/MACHINE-DEVICE/` in the folder of the runs, which machines may share, lie

slot-0 …       whoever holds the lock of one works; it holds the name of its run
*.ticket       one for each worker that waits, named by the time it came; the worker holds its lock

A process that dies lets go of its locks, so that nobody waits for the dead.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from proxsparse.config import MOST_PROCESSES
from proxsparse.errors import ProxSparseError
from proxsparse.runs.directory import RunDirectory, launched
from proxsparse.runs.lock import held, is_held

WORKERS = "PROXSPARSE_WORKERS"  # how many at a time, in the environment of every worker
POLL_SECONDS = 0.2

Wait = Callable[[list[str]], None]
"""Called again and again with the runs that come first, those that work before those that wait; what it raises ends the
waiting."""


def workers_at_a_time() -> int:
    """How many workers a device may have. Raises ProxSparseError where $PROXSPARSE_WORKERS is no whole number above 0."""
    text = os.environ.get(WORKERS, "1")
    if not text.isascii() or not text.isdecimal() or not 1 <= len(text) <= 4 or int(text) < 1:
        raise ProxSparseError(f"workers is {text[:40]!r}: give a whole number from 1 to 9999.")
    return int(text)


def allow_workers(count: int | None) -> None:
    """Let the workers that this process starts share a device with so many; None: as $PROXSPARSE_WORKERS says. Raises
    ProxSparseError for less than one."""
    if count is not None:
        os.environ[WORKERS] = str(count)
    workers_at_a_time()


def device_of(run: RunDirectory) -> str | None:
    """The device that a run works on, such as cpu or cuda-0; None for kinds that do not wait: an export takes seconds, and
    answers are asked for while a run learns."""
    job = run.asked()
    if job is None:
        return None
    chosen = job.get("device")
    if chosen is None:  # as torch will choose, known without importing it
        chosen = "cuda" if Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != "" else "cpu"
    name = str(chosen).replace(":", "-")
    return "cuda-0" if name == "cuda" else name


def devices_of(run: RunDirectory, count: int | None = None) -> list[str]:
    """All devices of a machine that a run works on, in their order: a GPU for each of its processes, or the one of `device_of`; none for
    kinds that do not wait. count: of processes on the machine; None: all that run.json asks for."""
    first = device_of(run)
    if first is None:
        return []
    launch = (launched(run.header()) or {}).get("launch") if count is None else count
    several = first.startswith("cuda") and isinstance(launch, int) and 1 < launch <= MOST_PROCESSES
    return [f"cuda-{number}" for number in range(launch)] if several else [first]


def places_of(run: RunDirectory, machines: Mapping[str, int] | None = None) -> list[str]:
    """MACHINE-DEVICE of each device that a run works on. machines: {name: how many of the run's processes it has}; None: this one has
    all."""
    counts: Mapping[str, int | None] = machines or {socket.gethostname(): None}
    # All runs in the same order, so that no two wait for each other.
    return [f"{machine}-{device}" for machine, count in sorted(counts.items()) for device in devices_of(run, count)]


@contextmanager
def turn(run: RunDirectory, wait: Wait, machines: Mapping[str, int] | None = None) -> Iterator[None]:
    """Hold a place on each of the run's devices while open; first wait until one is free there and nobody who came earlier waits.

    machines: see `places_of`; one process holds the places of all of them, since all see the folder of the runs.
    """
    with ExitStack() as places:
        for place in places_of(run, machines):
            folder = _folder(run, place)
            folder.mkdir(parents=True, exist_ok=True)
            with _ticket(folder, run.id) as ticket:
                while (ahead := _waiting(folder, before=ticket.name)) or not _take_a_slot(folder, run.id, places):
                    wait(_working(folder) + ahead)
                    time.sleep(POLL_SECONDS)
        yield


def waiting_behind(run: RunDirectory) -> list[str]:
    """The runs that wait for the devices which `run` works on, in their order."""
    return [each for place in places_of(run) for each in _waiting(_folder(run, place))]


def _folder(run: RunDirectory, place: str) -> Path:
    return run.path.resolve().parent / ".queue" / place


@contextmanager
def _ticket(folder: Path, id: str) -> Iterator[Path]:
    """A place in the line while open. It takes its name only once it is locked: unlocked ones are swept away."""
    name = f"{time.time_ns():020d}-{os.getpid()}"
    ticket, unlocked = folder / f"{name}.ticket", folder / f".{name}"
    with held(unlocked):
        unlocked.write_text(id, encoding="utf-8")
        unlocked.rename(ticket)
        try:
            yield ticket
        finally:
            ticket.unlink(missing_ok=True)


def _waiting(folder: Path, before: str | None = None) -> list[str]:
    """The runs that wait, in their order; with `before` only those that came earlier. Tickets of the dead are removed."""
    found = []
    for path in sorted(folder.glob("*.ticket")):
        if before is not None and path.name >= before:
            break
        if is_held(path):
            found.append(_name_in(path))
        else:
            path.unlink(missing_ok=True)
    return found


def _working(folder: Path) -> list[str]:
    return [_name_in(path) for path in sorted(folder.glob("slot-*")) if is_held(path)]


def _take_a_slot(folder: Path, id: str, places: ExitStack) -> bool:
    for number in range(workers_at_a_time()):
        slot = folder / f"slot-{number}"
        try:
            places.enter_context(held(slot))
        except BlockingIOError:
            continue
        slot.write_text(id, encoding="utf-8")
        return True
    return False


def _name_in(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:128]
    except FileNotFoundError:  # its turn has come meanwhile
        return "another run"
