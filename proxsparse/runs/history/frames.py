"""Rows of compressed parts in a file that only grows, with an index beside it: any part of any row is one read."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np

from proxsparse.errors import ProxSparseError
from proxsparse.files import written_whole

DATA, INDEX = "frames.bin", "frames.index"


class Frames:
    """The rows that are whole, as they are on disk now; see `proxsparse.runs.history` for the files.

    Parameters
    ----------
    directory
        The folder of the two files, which need not be there.
    parts
        How many parts a row has.

    Attributes
    ----------
    steps, every
        int64 (rows,): the step of each row, and every how many steps were recorded when it was written.
    """

    def __init__(self, directory: Path, parts: int):
        self.directory, self.parts = directory, parts
        self._load()

    def _load(self) -> None:
        directory, parts = self.directory, self.parts
        try:
            raw = (directory / INDEX).read_bytes()
            size = (directory / DATA).stat().st_size
        except FileNotFoundError:  # of a history that begins
            raw, size = b"", 0
        except OSError as error:  # a folder in its place
            raise ProxSparseError(
                f"The history of run {directory.parent.name} is damaged ({error.strerror}): resume the run, and the steps to come are "
                "recorded anew."
            ) from error
        width = 2 + parts
        rows = np.frombuffer(raw, "<u4", len(raw) // (4 * width) * width).reshape(-1, width).astype(np.int64)
        ends = rows[:, 2:].sum(1).cumsum()
        rows = rows[: int(np.searchsorted(ends, size, side="right"))]  # of the others the data are torn
        self.steps, self.every, self._lengths = rows[:, 0], rows[:, 1], rows[:, 2:]
        before = np.concatenate([[0], ends[: len(rows)]])
        self.bytes = int(before[-1])
        starts = np.cumsum(self._lengths, axis=1) - self._lengths
        self._starts = starts + before[:-1, None]

    def __len__(self) -> int:
        return len(self.steps)

    def read(self, part: int, last: int | None = None) -> list[bytes]:
        """One part of every row up to step `last` (default: all), decompressed; empty where a row has none of it."""
        count = len(self) if last is None else int(np.searchsorted(self.steps, last, side="right"))
        places = zip(self._starts[:count, part].tolist(), self._lengths[:count, part].tolist(), strict=True)
        found = []
        try:
            with open(self.directory / DATA, "rb") as file:
                for start, length in places:
                    file.seek(start)
                    found.append(file.read(length) if length else b"")
            return [zlib.decompress(data) if data else b"" for data in found]
        except (OSError, zlib.error) as error:
            raise ProxSparseError(
                f"The history of run {self.directory.parent.name} was cut back while it was read, or is damaged: read it again."
            ) from error

    def lately(self, rows: int) -> float:
        """Mean bytes of the last rows, the first of all left out."""
        return float(self._lengths[1:][-rows:].sum(1).mean()) if len(self) > 1 else 0.0

    def part_bytes(self) -> np.ndarray:
        """int64 (parts,): what each part takes on disk over all rows."""
        return self._lengths.sum(0)

    def cut(self, step: int) -> None:
        """Drop the rows after `step`, and what was left half written."""
        keep = int(np.searchsorted(self.steps, step, side="right"))
        with written_whole(self.directory / INDEX) as temporary:
            temporary.write_bytes(self._index_of(slice(keep)))
        data = self.directory / DATA
        if data.exists():
            os.truncate(data, int(self._lengths[:keep].sum()))
        self._load()

    def append(self, step: int, every: int, parts: list[bytes]) -> None:
        """Add a row: first its data, then its place in the index. Call `cut` once before the first row is added."""
        lengths = np.array([len(part) for part in parts], np.int64)
        with open(self.directory / DATA, "ab") as file:
            file.write(b"".join(parts))
        row = np.array([step, every, *lengths], "<u4")
        with open(self.directory / INDEX, "ab") as file:
            file.write(row.tobytes())
        starts = self.bytes + lengths.cumsum() - lengths
        self.steps, self.every = np.append(self.steps, step), np.append(self.every, every)
        self._lengths, self._starts = np.vstack([self._lengths, lengths]), np.vstack([self._starts, starts])
        self.bytes += int(lengths.sum())

    def _index_of(self, rows: slice) -> bytes:
        whole = np.column_stack([self.steps[rows], self.every[rows], self._lengths[rows]])
        return whole.astype("<u4").tobytes()
