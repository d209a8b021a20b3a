"""What a history reads of a learner: all rows of each layer, of which a rank may hold a part.

Where several ranks learn, all of them make the same calls, and rank 0 is given what is recorded.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from proxsparse.learning.learner import MaskLearner
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.runs.history import coding
from proxsparse.runs.history.changes import Changed, KnownMasks
from proxsparse.runs.history.layout import RecordedLayer
from proxsparse.runs.history.reader import History
from proxsparse.runs.history.tiles import Tiles


class LayerShape(NamedTuple):
    """rows, columns: of the whole layer."""

    block: int
    rows: int
    columns: int


class WatchedLearner:
    """A learner, and what a history last recorded of it.

    Parameters
    ----------
    learner
        Whose rows are watched.
    magnitude
        The magnitude masks of these rows.

    Attributes
    ----------
    shapes
        {layer: its shape}.
    """

    def __init__(self, learner: MaskLearner, magnitude: MaskSet):
        self.learner, self.magnitude, layers = learner, magnitude, learner.layers
        self.shapes = {
            name: LayerShape(layer.block, layers.numel(name) // layer.in_features, layer.in_features)
            for name, layer in layers.items()
        }

    def original_tiles(self, layers: list[RecordedLayer]) -> Tensor:
        """See `Tiles.originals`."""
        return Tiles(self.learner, layers).originals()

    def packed(self, kind: str, names: list[str]) -> dict[str, Tensor]:
        """The packed masks of these layers. kind: `start`, or `magnitude`."""
        masks = self.learner.start if kind == "start" else self.magnitude
        return self.learner.layers.gathered({name: masks[name].packed for name in names})

    def begin(self, layers: list[RecordedLayer], run: Path, last: int | None) -> np.ndarray:
        """Read the tiles of these layers from now on, and count changes from what the history of `run` has of step `last` (None: from the
        start). Returns the counts, see `Changed`."""
        self._tiles = Tiles(self.learner, layers)
        masks = self.learner.start if last is None else self._recorded(layers, run, last)
        self._known = KnownMasks(masks, self.learner.start, self.magnitude)
        return self.learner.layers.ranks.sum_(torch.from_numpy(self._known.counts.copy())).numpy()

    def tiles(self) -> Tensor:
        """See `Tiles.read`."""
        return self._tiles.read()

    def advance(self) -> Changed:
        """See `KnownMasks.advance`."""
        ranks, changed = self.learner.layers.ranks, self._known.advance(self.learner.own_masks())
        if ranks.count == 1:
            return changed
        parts = ranks.gathered(changed._replace(groups=self._places_of(changed.groups)))
        if not parts:
            return changed
        groups, changes = (np.concatenate([part[index] for part in parts]) for index in (0, 1))
        order = groups.argsort()
        return Changed(groups[order], changes[order], sum(part.counts for part in parts))

    def _places_of(self, groups: np.ndarray) -> np.ndarray:
        """Groups counted through this rank's rows → the same counted through all rows."""
        layers, m = self.learner.layers, self.learner.config.m
        ends = np.cumsum([shape.rows * shape.columns // m for shape in self.shapes.values()])
        begins = np.concatenate([[0], ends[:-1]])
        before = np.array([layers.first_row(name) * shape.columns // m for name, shape in self.shapes.items()])
        layer = np.searchsorted(self._known.first_groups, groups, side="right") - 1
        return groups - self._known.first_groups[layer] + before[layer] + begins[layer]

    def _recorded(self, layers: list[RecordedLayer], run: Path, last: int) -> MaskSet:
        """The masks of the last recorded step. Of blocks that are not recorded, those of now: in the summary their changes
        since then are missing until the next row, and right from it on."""
        masks = MaskSet(self.learner.own_masks())
        if last < self.learner.step_index:
            history = History(run)
            for layer in layers:
                packed = torch.from_numpy(coding.packed(history.mask(layer.name, last)))
                own = self.learner.layers.own_rows(layer.name, packed).to(self.learner.home)
                masks[layer.name] = Mask(own, masks[layer.name].shape, masks.n, masks.m)
        return masks
