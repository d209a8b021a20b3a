"""The tracked tiles: where they lie, and reading them from a model that learns."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from proxsparse.learning.learner import MaskLearner
from proxsparse.runs.history.layout import RecordedLayer


def tile_of(shape: tuple[int, int], rows: int, columns: int, m: int) -> tuple[int, int, int, int]:
    """First row, first column, rows, columns of a tile in the middle of a layer of this shape; groups are whole."""
    rows = min(rows, shape[0])
    columns = min(-(-columns // m) * m, shape[1])
    return (shape[0] - rows) // 2, (shape[1] - columns) // 2 // m * m, rows, columns


def unit_of(values: Tensor) -> float:
    """The power of two at or below the largest magnitude; 1 where all are zero."""
    largest = values.abs().max().item()
    return 2.0 ** math.floor(math.log2(largest)) if largest > 0 else 1.0


class Tiles:
    """Reads the weights of all tiles at once, in the metric. Where several ranks learn, all of them read, each the rows that it holds.

    Parameters
    ----------
    layers
        Whose tiles; in the order in which they are read.
    """

    def __init__(self, learner: MaskLearner, layers: list[RecordedLayer]):
        self.learner, self.layers = learner, layers
        self._factor = torch.cat([self._scale_of(layer).reshape(-1) / layer.unit for layer in layers])

    def read(self) -> Tensor:
        """The soft weights, float32 (weights of all tiles,), in units of each layer; on the device of what is learned."""
        return self._read(lambda name: self.learner.layers[name].matrix)

    def originals(self) -> Tensor:
        """As `read`, of the original weights."""
        return self._read(self.learner.originals.__getitem__)

    def _read(self, matrix_of: Callable[[str], Tensor]) -> Tensor:
        values = torch.cat([self._inside(layer, matrix_of(layer.name)).reshape(-1) for layer in self.layers])
        return self.learner.layers.ranks.sum_(values.float() * self._factor)

    def _inside(self, layer: RecordedLayer, matrix: Tensor) -> Tensor:
        """(rows, columns) of the tile: of a matrix of this rank's rows of the layer; zeros where other ranks have them."""
        row, column, rows, columns = layer.tile
        row -= self.learner.layers.first_row(layer.name)
        begin, end = (min(max(edge, 0), len(matrix)) for edge in (row, row + rows))
        own = matrix[begin:end, column : column + columns]
        before = min(max(-row, 0), rows)
        return nn.functional.pad(own, (0, 0, before, rows - before - len(own)))

    def _scale_of(self, layer: RecordedLayer) -> Tensor:
        """What the metric multiplies the tile by, float32 (rows, columns)."""
        scale, (_, column, rows, columns) = self.learner.scales[layer.name], layer.tile
        if scale is None:
            return torch.ones(rows, columns, device=self.learner.home)
        if scale.ndim == 2:
            return self._inside(layer, scale).float()
        return scale[column : column + columns].float().expand(rows, columns)
