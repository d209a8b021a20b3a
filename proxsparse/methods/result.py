"""What every method returns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from proxsparse.layers import PrunableLayer, PrunableLayers
from proxsparse.masks.mask_set import MaskSet


@dataclass(frozen=True, eq=False)
class Pruned:
    """masks: what is kept. weights: {layer name: (out, in), in the layer's dtype, zero where the mask drops} when the
    method also updates what it keeps, else None: then the masks apply to the original weights."""

    masks: MaskSet
    weights: dict[str, Tensor] | None = None

    def weight_of(self, layer: PrunableLayer) -> Tensor:
        """The pruned weight of a layer that holds its original one; (out, in)."""
        if self.weights is None:
            return self.masks[layer.name].applied_to(layer.matrix)
        return self.weights[layer.name].to(layer.matrix.device)

    @contextmanager
    def placed_in(self, layers: PrunableLayers) -> Iterator[None]:
        """While open, the model holds the pruned weights."""
        with layers.on_copies():
            with torch.no_grad():
                for layer in layers.values():
                    layer.matrix.copy_(self.weight_of(layer))
            yield
