"""What a history is of: layers, recorded blocks, tiles, pattern. It is written once, and read by both sides."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from proxsparse.errors import ProxSparseError
from proxsparse.files import check_version, written_whole
from proxsparse.runs.history.coding import patterns

VERSION = 1
MASKS = "masks.safetensors"


@dataclass(frozen=True)
class RecordedLayer:
    """One prunable layer. tile: first row, first column, rows, columns. unit: a power of two, of which the tile's float16
    numbers are multiples, so that they fit whatever the scale of the weights and the metric."""

    name: str
    block: int
    rows: int
    columns: int
    tile: tuple[int, int, int, int]
    unit: float

    @property
    def weights_in_tile(self) -> int:
        return self.tile[2] * self.tile[3]


@dataclass(frozen=True)
class Layout:
    """Everything that the parts of a row are read with.

    layers: all prunable layers, in the model's order. block_stride: every how many decoder blocks one is recorded, from
    the first. wanda: whether the start mask is Wanda's, as it is where magnitudes compete in the metric `activation`;
    in the metric `weight` the start mask is the magnitude mask.
    """

    n: int
    m: int
    wanda: bool
    block_stride: int
    layers: tuple[RecordedLayer, ...]

    @cached_property
    def by_name(self) -> dict[str, RecordedLayer]:
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def blocks(self) -> dict[int, list[RecordedLayer]]:
        """{recorded block: its layers}."""
        return recorded_blocks(self.layers, self.block_stride)

    @cached_property
    def recorded(self) -> dict[str, RecordedLayer]:
        """The layers of recorded blocks, in the model's order."""
        return {layer.name: layer for layer in self.layers if layer.block in self.blocks}

    @property
    def parts(self) -> int:
        """In a row: the summary, the flips of each recorded block, the tiles of each."""
        return 1 + 2 * len(self.blocks)

    def flips_part(self, layer: RecordedLayer) -> tuple[int, int]:
        """The part of a recorded layer's flips, and the index in it of the layer's first group."""
        before = sum(other.rows * other.columns for other in self._before(layer))
        return 1 + self._place(layer), before // self.m

    def tile_part(self, layer: RecordedLayer) -> tuple[int, int]:
        """The part of a recorded layer's tile, and the index in it of the tile's first weight."""
        return 1 + len(self.blocks) + self._place(layer), sum(other.weights_in_tile for other in self._before(layer))

    @cached_property
    def first_groups(self) -> dict[str, int]:
        """The index of each layer's first group, counted through all layers."""
        ends = accumulate((layer.rows * layer.columns // self.m for layer in self.layers), initial=0)
        return dict(zip(self.by_name, ends, strict=False))  # the end of the last begins no layer

    def patterns(self) -> list[int]:
        """The codes of the patterns that summaries count."""
        return patterns(self.n, self.m)

    def _place(self, layer: RecordedLayer) -> int:
        return list(self.blocks).index(layer.block)

    def _before(self, layer: RecordedLayer) -> list[RecordedLayer]:
        block = self.blocks[layer.block]
        return block[: block.index(layer)]

    def save(self, directory: Path, tensors: dict[str, np.ndarray]) -> None:
        """Write `masks.safetensors`: the layout, and the coded masks by the names `start/LAYER` and `magnitude/LAYER`."""
        about = {"format": "pt", "version": str(VERSION), "history": json.dumps(asdict(self))}
        with written_whole(directory / MASKS) as temporary:
            save_file(tensors, temporary, about)

    @classmethod
    def load(cls, directory: Path) -> Layout | None:
        """The layout of the history in `directory`; None where there is none. Raises ProxSparseError for a file that is
        damaged, or that a newer version wrote."""
        try:
            with safe_open(directory / MASKS, "np") as file:
                about = file.metadata() or {}
            check_version(int(about["version"]), VERSION, f"The history of run {directory.parent.name}")
            values = json.loads(about["history"])
            layers = tuple(RecordedLayer(**layer | {"tile": tuple(layer["tile"])}) for layer in values.pop("layers"))
            return cls(layers=layers, **values)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ProxSparseError(
                f"The history of run {directory.parent.name} is damaged ({directory.name}/{MASKS} cannot be read): resume the run, and "
                "the steps to come are recorded anew."
            ) from error


def recorded_blocks(layers: Iterable[RecordedLayer], stride: int) -> dict[int, list[RecordedLayer]]:
    """{block: its layers} of every `stride`-th decoder block that has layers, from the first."""
    found: dict[int, list[RecordedLayer]] = {}
    for layer in layers:
        found.setdefault(layer.block, []).append(layer)
    return {block: found[block] for block in list(found)[::stride]}
