"""Long records, read as far as a chart needs them."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

_STEP = re.compile(rb'\{"step": (\d+)')
BINS = 200  # of a thinned curve; each keeps at most three rows


class LineIndex:
    """Where each line of a JSON-lines record begins, and of which step it is; lines are read when they are asked for.

    A run of 5,000 steps writes some 75 MB about its layers, of which a chart shows one line at a time.
    """

    def __init__(self, path: Path):
        self.path = path
        self._forget()

    def _forget(self) -> None:
        # Both lists in one assignment: a reader beside `refresh` must not see one of before and one of after. They only grow.
        self._lines: tuple[list[int], list[int]] = ([], [0])
        self._inode: int | None = None

    @property
    def steps(self) -> list[int]:
        """The step of each line."""
        return self._lines[0]

    def refresh(self) -> bool:
        """Index what was added. Returns whether the record was cut back or replaced, and is indexed anew."""
        if not self.path.exists():
            restarted = bool(self.steps)
            self._forget()
            return restarted
        with open(self.path, "rb") as file:
            status, restarted = os.fstat(file.fileno()), False
            if status.st_size < self._lines[1][-1] or (self._inode is not None and status.st_ino != self._inode):
                self._forget()
                restarted = True
            self._inode = status.st_ino
            steps, begins = self._lines
            file.seek(begins[-1])
            for line in file:
                found = _STEP.match(line)
                if not line.endswith(b"\n"):  # still being written
                    break
                begins.append(begins[-1] + len(line))
                steps.append(int(found[1]) if found else -1)
        return restarted

    def record(self, index: int) -> dict | None:
        """The record in line `index`; None where the file has changed since it was indexed, and the line is gone."""
        _, begins = self._lines
        return self._read(begins[index], begins[index + 1])

    def nearest(self, step: int) -> dict | None:
        """The record whose step is nearest; None where there is none. May be called while another thread refreshes."""
        steps, begins = self._lines
        count = len(steps)
        if not count:
            return None
        index = int(np.abs(np.array(steps[:count]) - step).argmin())
        return self._read(begins[index], begins[index + 1])

    def _read(self, begin: int, end: int) -> dict | None:
        try:
            with open(self.path, "rb") as file:
                file.seek(begin)
                return json.loads(file.read(end - begin))
        except (FileNotFoundError, json.JSONDecodeError):
            return None  # cut back meanwhile: the next look indexes it anew


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
