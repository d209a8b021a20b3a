"""What a plan needs to know of a model: sizes, and what a pass keeps, from its configuration alone."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn

from proxsparse.errors import ProxSparseError
from proxsparse.layers import PrunableLayers, decoder_blocks, outside_of, prunable_layers
from proxsparse.learning.dry_run import pass_bytes
from proxsparse.learning.room import least_pass_bytes
from proxsparse.learning.update import BYTES
from proxsparse.models.without_weights import without_weights

FEW = 2, 4  # blocks of a shallower model, from which those of a deep one follow in proportion


@dataclass
class Shapes:
    """A model on the meta device with its prunable layers."""

    name: str
    model: nn.Module
    layers: PrunableLayers
    _passes: dict[tuple, Pass] = field(default_factory=dict, init=False)

    @property
    def item(self) -> int:
        """Bytes of an original weight."""
        return self.model.dtype.itemsize

    @cached_property
    def prunable(self) -> int:
        """Weights of the parameters that are learned."""
        return sum(parameter.numel() for parameter in self.layers.parameters())

    @cached_property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def others(self) -> int:
        return self.parameters - self.prunable

    @cached_property
    def outside(self) -> int:
        """Parameters that lie outside the blocks, such as the embedding and the head."""
        blocks = (block for _, _, block in decoder_blocks(self.model))
        return sum(parameter.numel() for parameter in outside_of(blocks, self.model))

    @cached_property
    def largest_block(self) -> int:
        """Parameters of it."""
        blocks = (block for _, _, block in decoder_blocks(self.model))
        return max(sum(parameter.numel() for parameter in block.parameters()) for block in blocks)

    @cached_property
    def vocabulary(self) -> int:
        return (self.model.get_output_embeddings() or self.model.get_input_embeddings()).weight.shape[0]

    @cached_property
    def _shallow(self) -> tuple[Shapes, Shapes] | None:
        """Two models with FEW blocks; None where the blocks are not all alike, or few."""
        if len({_signature(block) for _, _, block in decoder_blocks(self.model)}) > 1:
            return None
        with suppress(ProxSparseError, ValueError, TypeError, AttributeError):
            few, more = (self._with_blocks(count) for count in FEW)
            return few, more
        return None

    def _with_blocks(self, count: int) -> Shapes:
        config = copy.deepcopy(self.model.config)
        text = config.get_text_config(decoder=True)
        if text.num_hidden_layers <= FEW[-1]:
            raise ValueError(f"{text.num_hidden_layers} blocks are few")
        text.num_hidden_layers = count
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:count]
        model = without_weights(self.name, config)
        if len(list(decoder_blocks(model))) != count:
            raise ValueError("the configuration counts its blocks otherwise")
        return Shapes(self.name, model, prunable_layers(model))

    def pass_bytes(
        self, windows: tuple[int, int], memory: str, loss_at: str, arithmetic: torch.dtype, recompute: bool = False
    ) -> Pass:
        """What a pass over (count, length) tokens takes. Where blocks are alike, in proportion to those of two shallower models.
        recompute: whether each block is computed again in backward, as it always is in the lean plan."""
        how = (windows, memory, loss_at, arithmetic, recompute or memory == "lean")
        if how not in self._passes:
            self._passes[how] = self._run(*how)
        return self._passes[how]

    def _run(self, windows: tuple[int, int], memory: str, *how) -> Pass:
        try:
            if self._shallow is None:
                return _passed(self, windows, memory, *how)
            few, more = (_passed(shapes, windows, memory, *how) for shapes in self._shallow)
            blocks = len(list(decoder_blocks(self.model)))
            return few.towards(more, (blocks - FEW[0]) / (FEW[1] - FEW[0]))
        except Exception:  # whatever a kernel without a formula for shapes raises
            return Pass(least_pass_bytes(self.layers, how[-1], windows[0] * windows[1]), 0, least=True)


@dataclass(frozen=True)
class Pass:
    """kept: bytes that forward leaves for backward. further: what is needed besides at the worst moment, when either these are all there,
    or all gradients. least: the pass could not be run without memory, and only the inputs of the linear maps are counted."""

    kept: int
    further: int
    least: bool = False

    def towards(self, other: Pass, share: float) -> Pass:
        """What lies at `share` of the way to another, or beyond it: both numbers grow by the token and by the block."""
        kept = self.kept + (other.kept - self.kept) * share
        further = self.further + (other.further - self.further) * share
        return Pass(int(kept), max(0, int(further)), self.least or other.least)


def _passed(shapes: Shapes, windows: tuple[int, int], memory: str, *how) -> Pass:
    found = pass_bytes(shapes.model, shapes.layers, windows, memory, *how)
    gradients = BYTES[memory]["gradient"] * shapes.prunable
    return Pass(found.kept, max(0, found.peak - max(found.kept, gradients)))


def _signature(block: nn.Module) -> tuple:
    return tuple((name, tuple(parameter.shape)) for name, parameter in block.named_parameters())
