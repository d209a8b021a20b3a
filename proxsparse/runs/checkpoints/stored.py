"""Reading checkpoints of either kind: each tensor, or the slice of it that is asked for, when it is asked for.

The parts of several processes are put together by `torch.distributed.checkpoint`, from safetensors files whose headers say where in its
tensor a part lies. Nothing of it is a pickle: torch's own layout, which has one, is neither written nor read.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from proxsparse.files import check_version
from proxsparse.runs.checkpoints.checksums import compare, header_checksum, json_checksum
from proxsparse.runs.checkpoints.places import INDEX, VERSION, files_of

if TYPE_CHECKING:  # a worker that waits for its turn needs none of it
    from torch import Tensor

DAMAGE = (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Stored:
    """A tensor on disk. Slices of it are read as they are asked for, and not kept.

    read : callable
        (offsets, sizes): the values there.
    """

    shape: tuple[int, ...]
    read: Callable[[list[int], list[int]], Tensor]

    def __getitem__(self, index: slice | tuple[slice, ...]) -> Tensor:
        index = index if isinstance(index, tuple) else (index,)
        every = itertools.zip_longest(index, self.shape, fillvalue=slice(None))
        bounds = [each.indices(size)[:2] for each, size in every]
        return self.read([first for first, _ in bounds], [max(0, last - first) for first, last in bounds])


class StoredFile:
    """What one process wrote. tensors: {name: Stored}; rest: what is no tensor."""

    def __init__(self, path: Path):
        self._file = safe_open(path, "pt")
        about = self._file.metadata() or {}
        self.rest: dict = json.loads(about["learner"])
        self._checksums: dict[str, int] = json.loads(about.get("crc32", "{}"))
        self.tensors: Mapping[str, Stored] = {name: self._stored(name) for name in self._file.keys()}  # noqa: SIM118

    def check(self, index: int = 0, count: int = 1) -> None:
        """Raise an error of DAMAGE where values are not those that were written; of `count` shares, look at that of `index`."""
        for name, written in list(self._checksums.items())[index::count]:
            compare(name, self._file.get_tensor(name), written)

    def _stored(self, name: str) -> Stored:
        def read(offsets: list[int], sizes: list[int]) -> Tensor:
            return self._file.get_slice(name)[_slices(offsets, sizes)]

        return Stored(tuple(self._file.get_slice(name).get_shape()), read)


class StoredParts:
    """What several processes wrote. See `StoredFile`."""

    def __init__(self, path: Path):
        from proxsparse.runs.checkpoints.parts import PartsReader

        index = _index(path)
        check_version(index["version"], VERSION, f"Checkpoint {path.name}")
        self.rest: dict = index["learner"]
        self._path, self._written = path, index["files"]
        if json_checksum(self.rest, self._written) != index["crc32"]:
            raise ValueError(f"{INDEX} is not what was written")
        if {file.name for file in path.glob("*.safetensors")} != self._written.keys():
            raise ValueError("there are other files than were written")
        reader = PartsReader(path)
        self.tensors: Mapping[str, Stored] = {
            name: Stored(shape, partial(reader.read, name)) for name, shape in reader.shapes().items()
        }

    def check(self, index: int = 0, count: int = 1) -> None:
        """See `StoredFile.check`."""
        for name, written in sorted(self._written.items())[index::count]:
            if header_checksum(self._path / name) != written["header"]:
                raise ValueError(f"the header of {name} is not the one that was written")
            with safe_open(self._path / name, "pt") as file:
                for tensor, checksum in written["tensors"].items():
                    compare(tensor, file.get_tensor(tensor), checksum)


def opened(checkpoint: Path) -> StoredFile | StoredParts:
    """Raises an error of DAMAGE where it cannot be read, and ProxSparseError where a newer version wrote it."""
    return StoredParts(checkpoint) if checkpoint.is_dir() else StoredFile(checkpoint)


def opens(checkpoint: Path) -> bool:
    """Whether its files are as long as their headers say, so that a fork can begin with it."""
    files = [file for file in files_of(checkpoint) if file.name != INDEX]
    try:
        for file in files:
            with safe_open(file, "np"):
                pass
        return not checkpoint.is_dir() or {file.name for file in files} == _index(checkpoint)["files"].keys()
    except DAMAGE:
        return False


def _index(checkpoint: Path) -> dict:
    return json.loads((checkpoint / INDEX).read_text(encoding="utf-8"))


def _slices(offsets: Sequence[int], sizes: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(first, first + size) for first, size in zip(offsets, sizes, strict=True))
