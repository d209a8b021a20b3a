"""What a folder of runs holds that nobody needs any more: found first, removed when somebody said so.

A run that is worked on, or whose export or questions are, is left alone; so is everything younger than an hour, which somebody may be
about to use.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path, temporaries_in, why_not_written
from proxsparse.runs.checkpoints.places import remove
from proxsparse.runs.checkpoints.stored import opens
from proxsparse.runs.lock import held
from proxsparse.runs.manage import delete, require_unused
from proxsparse.runs.run import Run, look_at_runs
from proxsparse.runs.uploads import unused

RECENT_SECONDS = 3600
DAY_SECONDS = 86400
UNREADABLE = ("checkpoints/*.unreadable", "masks/*.unreadable", "history.damaged-*")  # set aside by a worker


@dataclass(frozen=True)
class Prunable:
    """A file or directory that can go. run: to which it belongs, None for what belongs to none; whole: it is that run itself."""

    path: Path
    why: str
    run: Run | None = None
    whole: bool = False


def prunable(root: str | Path, older: float | None = None) -> list[Prunable]:
    """What can be removed under `root`: checkpoints that neither a fork nor an export of a finished run takes, what was half written or
    set aside, texts that no run was started with, and with `older` whole runs that ended more than so many days ago.

    Raises ProxSparseError for a number of days that is none.
    """
    if older is not None and not 0 <= older < float("inf"):
        raise ProxSparseError(f"older is {older:g}: give a number of days, 0 or more.")
    root, found = local_path(root), []
    for run in look_at_runs(root)[0]:
        if not _is_left_alone(run):
            found += _of_run(run, older)
    found += [Prunable(path, "a text that no run was started with") for path in unused(root) if _is_old(path)]
    found += [
        Prunable(path, "left by a deletion that was cut off") for path in root.glob(".deleted-*") if _is_old(path)
    ]
    return found


def prune(found: list[Prunable]) -> tuple[int, list[str]]:
    """Remove it; returns the bytes that were freed, and a sentence for each that stays, since somebody works on it by now or the
    system refuses."""
    freed, kept = 0, []
    for each in found:
        try:
            size = bytes_freed([each])
            _remove(each)
            freed += size
        except ProxSparseError as error:
            kept.append(str(error))
        except OSError as error:
            kept.append(f"{each.path} cannot be removed: {why_not_written(error)}.")
    return freed, kept


def bytes_freed(found: list[Prunable]) -> int:
    """Bytes that the disk gets back once all of it is removed: nothing for a checkpoint that a fork which stays shares."""
    links: dict[tuple[int, int], list[int]] = {}
    for each in found:
        for path in [each.path, *each.path.rglob("*")] if each.path.is_dir() else [each.path]:
            status = path.lstat()
            if not path.is_dir():
                links.setdefault((status.st_dev, status.st_ino), [status.st_size, status.st_nlink]).append(1)
    return sum(size for size, count, *names in links.values() if len(names) >= count)


def _is_left_alone(run: Run) -> bool:
    try:
        require_unused(run, "delete")
    except ProxSparseError:
        return True
    return False


def _of_run(run: Run, older: float | None) -> Iterator[Prunable]:
    state = run.state()
    last = run.path / "state.json"  # written as long as it is worked on
    if older is not None and _is_old(last if last.exists() else run.path / "run.json", older * DAY_SECONDS):
        yield Prunable(run.path, f"a run that is {state['status']}, untouched for {older:g} days", run, whole=True)
        return
    if state["status"] == "done":
        *earlier, newest = [*run.checkpoints().values()] or [None]
        if earlier and opens(newest):
            yield from (Prunable(path, "a checkpoint before the last of a run that is done", run) for path in earlier)
    for pattern in UNREADABLE:
        yield from (Prunable(path, "set aside as damaged", run) for path in sorted(run.path.glob(pattern)))
    export = run.export()
    if export is not None and not (export.path / "report.json").is_file() and _is_old(export.path):
        yield Prunable(export.path, "an export that was not finished", run)
    for path in temporaries_in(run.path):
        if _is_old(path) and (export is None or not path.is_relative_to(export.path)):
            yield Prunable(path, "half written by a process that was killed", run)


def _is_old(path: Path, seconds: float = 0.0) -> bool:
    return time.time() - path.stat().st_mtime > max(seconds, RECENT_SECONDS)


def _remove(each: Prunable) -> None:
    """Raises ProxSparseError where its run is worked on by now."""
    if each.run is not None and each.whole:
        delete(each.run)
        return
    with ExitStack() as locks:
        if each.run is not None:
            require_unused(each.run, "delete")
            try:
                locks.enter_context(held(each.run.path / "lock"))  # nobody starts it meanwhile
            except BlockingIOError:
                raise ProxSparseError(f"Run {each.run.id} is being worked on by now, and left as it is.") from None
        remove(each.path)
