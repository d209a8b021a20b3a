"""The original weights of a model that several ranks share, each of which has its own rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from proxsparse.layers import PrunableLayer
from proxsparse.layers.sharded import ShardedLayers
from proxsparse.learning.originals import LossWeight, Originals


class ShardedOriginals(Originals):
    """See `Originals`. The parameters are the rank's own, and what the model holds is written into its shards: they are what is
    gathered when a block runs. Between one `holding` and the next they keep what they held last."""

    def __init__(self, model: nn.Module, layers: ShardedLayers):
        self.layers = layers
        # A rank may hold nothing of a parameter, such as no expert; it takes part in what the others do with it.
        self._layers_of = {own: list[PrunableLayer]() for own in layers.model_parameters} | layers.by_parameter()
        self.values = {parameter: parameter.data for parameter in self._layers_of}
        named = {parameter: name for name, parameter in model.named_parameters()}
        self.parameters = {named[placed]: own for own, placed in layers.model_parameters.items()}
        linear = {module.weight for module in model.modules() if isinstance(module, nn.Linear | Conv1D)}
        self._linear = {own for own, placed in layers.model_parameters.items() if placed in linear}
        self._held: list[LossWeight] = []

    @contextmanager
    def holding(self, value: LossWeight) -> Iterator[None]:
        """See `Originals.holding`."""
        self._held.append(value)
        self._write()
        try:
            yield
        finally:
            self._held.pop()
            if self._held:
                self._write()

    def put_back(self) -> None:
        """Bring the original weights back, in the dtype in which the model multiplies them."""
        for parameter, original in self.values.items():
            parameter.data = original
        self._held = [self.read]
        self._write()

    @torch.no_grad()
    def _write(self) -> None:
        for own, placed in self.layers.model_parameters.items():
            placed.to_local().copy_(self._held[-1](own))
