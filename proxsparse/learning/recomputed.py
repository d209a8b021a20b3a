"""Decoder blocks whose activations, and masked weights, exist for one block at a time.

Each block is run by `torch.utils.checkpoint`: forward keeps only its inputs, and backward computes the rest again (Chen et
al. 2016, arXiv 1604.06174). Transformers has a switch for this too, but it works in training mode only, where dropout is
on, and leaves no place to exchange the weights of a block while it runs. A block that several ranks share is gathered for its backward
anyway, and what it computes again runs on the same weights.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from proxsparse.layers import decoder_blocks
from proxsparse.learning.originals import LossWeight, holding


class Recomputed(nn.Module):
    """A block in place of which this module stands in the model's list of blocks.

    Where a gradient is asked for, the block runs with the values that `loss_weight` gives for its trained parameters
    (None: with those that they hold), in forward and again in backward. What autograd saves of these values keeps them
    until the block's backward is done.
    """

    def __init__(self, block: nn.Module, trained: Container[nn.Parameter], loss_weight: LossWeight | None):
        super().__init__()
        self.block, self.loss_weight, self.training = block, loss_weight, block.training
        self.trained = [parameter for parameter in block.parameters() if parameter in trained]

    def forward(self, *arguments, **named):
        if not torch.is_grad_enabled():  # somebody asks something else of the model, such as what the dense one says
            return self.block(*arguments, **named)
        return checkpoint(self._run, *arguments, use_reentrant=False, **named)

    def _run(self, *arguments, **named):
        with nullcontext() if self.loss_weight is None else holding(self.trained, self.loss_weight):
            return self.block(*arguments, **named)

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:  # a model may read attributes of its blocks
            return getattr(super().__getattr__("block"), name)


@contextmanager
def recomputed(
    model: nn.Module, trained: Container[nn.Parameter], loss_weight: LossWeight | None = None
) -> Iterator[None]:
    """While open, the decoder blocks of `model` are computed again in backward; see `Recomputed`."""
    blocks = [
        (model.get_submodule(path.rpartition(".")[0]), index, block) for path, index, block in decoder_blocks(model)
    ]
    try:
        for holder, index, block in blocks:
            holder[index] = Recomputed(block, trained, loss_weight)
        yield
    finally:
        for holder, index, block in blocks:
            holder[index] = block
