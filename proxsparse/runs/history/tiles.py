"""The tracked tiles: where they lie, and reading them from a model that learns."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from proxsparse.layers import PrunableLayer
from proxsparse.learning.learner import MaskLearner
from proxsparse.runs.history.layout import RecordedLayer


def tile_of(layer: PrunableLayer, rows: int, columns: int, m: int) -> tuple[int, int, int, int]:
    """First row, first column, rows, columns of a tile in the middle of the layer; groups are whole."""
    rows = min(rows, layer.out_features)
    columns = min(-(-columns // m) * m, layer.in_features)
    return (layer.out_features - rows) // 2, (layer.in_features - columns) // 2 // m * m, rows, columns


def unit_of(values: Tensor) -> float:
    """The power of two at or below the largest magnitude; 1 where all are zero."""
    largest = values.abs().max().item()
    return 2.0 ** math.floor(math.log2(largest)) if largest > 0 else 1.0


def original_tile(learner: MaskLearner, name: str, tile: tuple[int, int, int, int]) -> Tensor:
    """float32 (rows, columns): the original weights in the metric."""
    scale = _scale(learner, name, tile)
    values = learner.originals[name][_inside(tile)].float()
    return values if scale is None else values * scale


class Tiles:
    """Reads the soft weights of all tiles at once.

    Parameters
    ----------
    layers
        Whose tiles; in the order in which they are read.
    """

    def __init__(self, learner: MaskLearner, layers: list[RecordedLayer]):
        self.learner, self.layers = learner, layers
        factors = []
        for layer in layers:
            scale = _scale(learner, layer.name, layer.tile)
            ones = torch.ones(layer.tile[2:], device=learner.device)
            factors.append((ones if scale is None else ones * scale).reshape(-1) / layer.unit)
        self._factor = torch.cat(factors)

    def read(self) -> Tensor:
        """float32 (weights of all tiles,), in the metric, in units of each layer; on the device of the model."""
        matrices = self.learner.layers
        values = [matrices[layer.name].matrix[_inside(layer.tile)].reshape(-1) for layer in self.layers]
        return torch.cat(values).float() * self._factor

    def originals(self) -> Tensor:
        """As `read`, of the original weights."""
        values = [original_tile(self.learner, layer.name, layer.tile).reshape(-1) / layer.unit for layer in self.layers]
        return torch.cat(values)


def _inside(tile: tuple[int, int, int, int]) -> tuple[slice, slice]:
    row, column, rows, columns = tile
    return slice(row, row + rows), slice(column, column + columns)


def _scale(learner: MaskLearner, name: str, tile: tuple[int, int, int, int]) -> Tensor | None:
    """What the metric multiplies the tile by, (columns,) or (rows, columns)."""
    scale = learner.scales[name]
    if scale is None:
        return None
    inside = _inside(tile)
    return scale[inside if scale.ndim == 2 else inside[1]].float()
