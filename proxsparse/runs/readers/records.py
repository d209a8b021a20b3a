"""Long records, read as far as a chart needs them."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from proxsparse.files import parsed
from proxsparse.runs.records import FITS

_STEP = re.compile(rb'\{"step": (\d{1,9}),')
TRIED = 20  # of the lines nearest to a step, where those before are damaged
BINS = 200  # of a thinned curve; each keeps at most three rows


class LineIndex:
    """Where each line of the record `layers.jsonl` begins, and of which step it is; lines are read when they are asked for.

    A run of 5,000 steps writes some 75 MB about its layers, of which a chart shows one line at a time. A line that does not name
    a step is left out, and counted in `left_out`; what else may be wrong with a line is seen when it is read.
    """

    def __init__(self, path: Path):
        self.path = path
        self._forget()

    def _forget(self) -> None:
        # Both lists in one assignment: a reader beside `refresh` must not see one of before and one of after. They only grow.
        self._lines: tuple[list[int], list[tuple[int, int]]] = ([], [])
        self._end, self.left_out = 0, 0
        self._inode: int | None = None

    @property
    def steps(self) -> list[int]:
        """The step of each line."""
        return self._lines[0]

    def refresh(self) -> bool:
        """Index what was added. Returns whether the record was cut back or replaced, and is indexed anew."""
        if not self.path.is_file():
            restarted = bool(self.steps)
            self._forget()
            return restarted
        with open(self.path, "rb") as file:
            status, restarted = os.fstat(file.fileno()), False
            if status.st_size < self._end or (self._inode is not None and status.st_ino != self._inode):
                self._forget()
                restarted = True
            self._inode = status.st_ino
            steps, places = self._lines
            file.seek(self._end)
            for line in file:
                found = _STEP.match(line)
                if not line.endswith(b"\n"):  # still being written
                    break
                if found:
                    places.append((self._end, len(line)))
                    steps.append(int(found[1]))
                else:
                    self.left_out += 1
                self._end += len(line)
        return restarted

    def record(self, index: int) -> dict | None:
        """The record in line `index`; None where the line is damaged, or the file has changed since it was indexed."""
        return self._read(*self._lines[1][index])

    def nearest(self, step: int) -> dict | None:
        """The good record whose step is nearest; None where there is none. May be called while another thread refreshes."""
        steps, places = self._lines
        count = len(steps)
        nearest = np.abs(np.array(steps[:count]) - step).argsort(kind="stable")[:TRIED]
        return next(filter(None, (self._read(*places[index]) for index in nearest)), None)

    def _read(self, begin: int, length: int) -> dict | None:
        try:
            with open(self.path, "rb") as file:
                file.seek(begin)
                record = parsed(file.read(length))
        except FileNotFoundError:
            return None  # cut back meanwhile: the next look indexes it anew
        return record if FITS["layers"](record) else None


def thinned(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """At most 3 · BINS rows of a long table, in float32: of each bin the first row and those with the least and the largest
    value in `column`. Rows are left out, none is changed, and the first and last are kept."""
    if len(table) > 3 * BINS:
        edges = np.linspace(0, len(table), BINS + 1).astype(int)
        values = table[column].to_numpy(dtype=float, na_value=np.nan)
        values = np.nan_to_num(values, nan=0.0)
        keep = {len(table) - 1}
        for begin, end in itertools.pairwise(edges):
            keep |= {begin, begin + int(values[begin:end].argmin()), begin + int(values[begin:end].argmax())}
        table = table.iloc[sorted(keep)]
    floats = table.select_dtypes("float64").columns
    return table.astype(dict.fromkeys(floats, np.float32))


def thinned_measurements(perplexity: pd.DataFrame) -> pd.DataFrame:
    """The perplexities of a run, those of the learned mask while it was learned thinned to what a chart can show."""
    if perplexity.empty:
        return perplexity
    live = (perplexity["mask"] == "learned") & (perplexity["scope"] == "live")
    return pd.concat([perplexity[~live], thinned(perplexity[live], "perplexity")])
