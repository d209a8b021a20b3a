"""The lean memory plan on several ranks: what is learned is bf16, and each block is computed again in backward.

A rank holds its part of all gradients, as they arrive in the dtype of the arithmetic. So their norm is known before the update, and they
are clipped as in the full plan; which a single process, that has one gradient at a time, cannot do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from proxsparse.config import LearnConfig
from proxsparse.learning.schedule import seed_at
from proxsparse.learning.sharded_originals import ShardedOriginals
from proxsparse.learning.sharded_update import ShardedUpdate
from proxsparse.learning.stochastic_adamw import StochasticAdamW


class ShardedLeanUpdate(ShardedUpdate):
    """See `proxsparse.learning.update.Update`."""

    memory, learned_in, recompute = "lean", torch.bfloat16, True

    def __init__(
        self, held: ShardedOriginals, model: nn.Module, originals: dict[nn.Parameter, Tensor], config: LearnConfig
    ):
        super().__init__(held, model, originals, config, StochasticAdamW)
        self.generator = torch.Generator(self.device)

    def _take_step(self, index: int) -> None:
        """Rounding depends on seed, index and rank, so that a run resumed on as many ranks rounds alike."""
        self.generator.manual_seed(self.ranks.own_seed(seed_at(index, self.config)))
        for parameter in self.originals:
            if parameter.grad is not None:
                self.optimizer.update(parameter, parameter.grad, self.generator)
