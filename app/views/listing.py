"""Every run, comparison and sweep of a folder as rows: read anew only where a file changed."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from app.html import number, with_error
from proxsparse import ProxSparseError
from proxsparse.runs import Comparison, Run, Sweep, look_at_runs
from proxsparse.runs.manage import command_line, size_on_disk

WATCHED = (
    "run.json",
    "state.json",
    "perplexity.jsonl",
    "trials.jsonl",
    "trials.json",
    "layers_compared.json",
    "results",
    "export",
)


@dataclass(frozen=True)
class Row:
    """One run at one moment."""

    id: str
    kind: str
    status: str
    step: int
    steps: int | None
    created: str
    bytes: int
    result: str
    command: str
    parent: str | None = None  # of which run it is a fork

    @property
    def label(self) -> str:
        """For a list to choose from."""
        return f"{self.id}: {self.status}, step {self.step}{f'/{self.steps}' if self.steps else ''}"


class Listing:
    """The rows of one folder, newest first; shared by all visitors."""

    def __init__(self, root: Path):
        self.root, self._lock = root, threading.Lock()
        self._known: dict[Path, tuple[tuple, Row]] = {}

    def rows(self) -> tuple[Row, ...]:
        """All runs as they are now."""
        with self._lock:
            known, rows = {}, []
            runs, unreadable = look_at_runs(self.root)
            for run in runs:
                signature = (*map(_changed, (run.path / name for name in WATCHED)), run.state()["status"])
                earlier = self._known.get(run.path)
                row = earlier[1] if earlier and earlier[0] == signature else _row_of(run)
                known[run.path] = (signature, row)
                rows.append(row)
            self._known = known
            rows += [_unreadable(name, reason) for name, reason in unreadable.items()]
            return tuple(rows)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _row_of(run: Run) -> Row:
    try:
        return _row(run)
    except ProxSparseError as error:  # what it was asked for, or what it found, is damaged
        return _unreadable(run.id, str(error))


def _row(run: Run) -> Row:
    state, kind, header = run.state(), run.kind, run.header()
    steps = header["job"]["learn"]["steps"] if kind == "learn" else state.get("steps")
    return Row(
        run.id, kind, state["status"], state["step"], steps, header["created"], size_on_disk(run), _result(run, kind),
        command_line(run), (header.get("parent") or {}).get("run"),
    )  # fmt: skip


def _unreadable(id: str, reason: str) -> Row:
    return Row(id, "?", "unreadable", step=0, steps=None, created="", bytes=0, result=reason, command="")


def _result(run: Run, kind: str) -> str:
    """What came out, as far as it is known."""
    if kind == "learn":
        table = run.table("perplexity")
        if table.empty:
            return ""
        learned = table[table["mask"] == "learned"]
        last = learned[learned["scope"] == "final"] if (learned["scope"] == "final").any() else learned
        if last.empty:
            return ""
        found = last.iloc[-1]
        return f"perplexity {with_error(found['perplexity'], found['stderr'])} ({found['scope']}, {found['windows']} windows)"
    if kind == "compare":
        table = Comparison(run).table()
        masks = table[table["method"] != "dense"] if len(table) else table
        return (
            ""
            if masks.empty
            else f"lowest: {masks.iloc[0]['method']}, perplexity {number(masks.iloc[0]['perplexity'])}"
        )
    if kind == "sweep":
        try:
            best = Sweep(run).best()
        except ProxSparseError as error:
            return str(error)
        return "" if best is None else f"lowest: λ1 {best['lambda1']:g}, learning rate {best['learning_rate']:g}"
    raise ProxSparseError(f"Run {run.id} is of an unknown kind {kind!r}.")
