"""A comparison as a snapshot: read again only when a method was measured, handed out whole and never changed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from app.views.listing import Row
from proxsparse import ProxSparseError
from proxsparse.config import CompareJob, LearnJob
from proxsparse.runs import Comparison, Run
from proxsparse.runs.readers.comparison import stages
from proxsparse.runs.readers.comparison_words import about, notes, readable

KEPT = 8  # comparisons that stay in memory
RECORDS = ("result.json", "judged.json", "tasks.json")  # of each method


@dataclass(frozen=True)
class Compared:
    """What a comparison has found so far. signature: changes whenever it found more, or was asked for more.

    table: as `Comparison.table`; shown: the same as people read it; ended: {method: measured or failed}.
    """

    comparison: Comparison
    signature: str
    table: pd.DataFrame
    shown: pd.DataFrame
    about: str
    notes: tuple[str, ...]
    ended: dict[str, str]
    ours: str | None
    base: str

    @property
    def run(self) -> Run:
        return self.comparison.run

    @property
    def job(self) -> CompareJob:
        return self.comparison.job

    @cached_property
    def layers(self) -> pd.DataFrame:
        """As `Comparison.layers`."""
        return self.comparison.layers()

    @cached_property
    def overlaps(self) -> pd.DataFrame:
        """As `Comparison.overlaps`."""
        return self.comparison.overlaps()

    @cached_property
    def completions(self) -> pd.DataFrame:
        """As `Comparison.completions`."""
        return self.comparison.completions()

    def stages(self, status: str) -> dict[str, str]:
        """As `Comparison.progress`, while the comparison has that status; nothing is read."""
        return stages(self.comparison.names(), self.ended, status, self.job.launch)

    @property
    def compared(self) -> list[str]:
        """The methods whose masks have been laid beside each other."""
        return list(self.overlaps.index)

    def masks(self) -> list[str]:
        """The methods whose masks are on disk; a recorded comparison has none."""
        return [name for name in self.comparison.names()[1:] if self.comparison.masks_file(name).is_file()]


_known: OrderedDict[Path, Compared] = OrderedDict()
_lock = threading.Lock()


def compared(run: Run) -> Compared:
    """The comparison as it is now, through a view that all visitors share."""
    signature = _signature(run)
    with _lock:
        known = _known.get(run.path)
        if known is None or known.signature != signature:
            comparison = Comparison(run)
            table = comparison.table()
            known = _known[run.path] = Compared(
                comparison, signature, table, readable(table), about(comparison), tuple(notes(comparison)),
                dict.fromkeys(comparison.results(), "measured") | dict.fromkeys(comparison.failures(), "failed"),
                comparison.ours, comparison.base,
            )  # fmt: skip
        _known.move_to_end(run.path)
        while len(_known) > KEPT:
            _known.popitem(last=False)
        return known


def _signature(run: Run) -> str:
    files = [run.path / "run.json", run.path / "layers_compared.json", run.path / "layers.json"]
    files += sorted(path for path in run.path.glob("results/*/*.json") if path.name in RECORDS)
    found = []
    for path in files:
        try:
            status = path.stat()
        except FileNotFoundError:  # not yet there, or taken away meanwhile
            continue
        found.append((path.parent.name, path.name, status.st_mtime_ns, status.st_size))
    return f"{hash((run.header()['created'], *found)):x}"  # short: every page keeps it


def run_beside(
    job: CompareJob, rows: tuple[Row, ...], shown: str, example: str, find: Callable[[str], Run]
) -> str | None:
    """A run whose Masks screen can show a mask of the comparison: it remembers its masks, and has the model and pattern. The
    one shown where it does, else the newest, else the recorded example.

    example: its id, "" where there is none. find: id → Run.
    """
    for id in dict.fromkeys(filter(None, (shown, *(row.id for row in rows if row.kind == "learn"), example))):
        try:
            learned = find(id).job()
            fits = (learned.model, learned.learn.n, learned.learn.m) == (job.model, job.n, job.m)
            if fits and find(id).history().layers:
                return id
        except ProxSparseError:  # deleted meanwhile, or it remembers nothing
            continue
    return None


def methods_beside(job: LearnJob, rows: tuple[Row, ...], find: Callable[[str], Run]) -> list[str]:
    """Masks of comparisons of a run's model and pattern, each as comparison/method, the newest comparison first.

    find: id → Run.
    """
    wanted, found = (job.model, job.learn.n, job.learn.m), []
    for row in rows:
        if row.kind != "compare":
            continue
        try:
            each = compared(find(row.id))
        except ProxSparseError:  # deleted meanwhile
            continue
        if (each.job.model, each.job.n, each.job.m) == wanted:
            found += [f"{row.id}/{name}" for name in each.masks()]
    return found
