"""The full memory plan on several ranks: each updates the rows that it holds, as one process updates all of them.

What learns lies beside the optimizer's state, and the model's shards hold the masked original weights. So nothing but weights, gathered
to compute a block, their gradients, and a few sums travels between ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from proxsparse.config import LearnConfig
from proxsparse.learning.full_update import FullUpdate, MakeOptimizer, adamw
from proxsparse.learning.gradients import summed_gradients
from proxsparse.learning.originals import LossWeight
from proxsparse.learning.sharded_originals import ShardedOriginals


class ShardedUpdate(FullUpdate):
    """See `proxsparse.learning.update.Update`."""

    learned_in = torch.float32

    def __init__(
        self,
        held: ShardedOriginals,
        model: nn.Module,
        originals: dict[nn.Parameter, Tensor],
        config: LearnConfig,
        make_optimizer: MakeOptimizer = adamw,
    ):
        self.held, self.ranks = held, held.layers.ranks
        super().__init__(model, originals, config, make_optimizer)

    def _become_soft(self, model: nn.Module) -> None:
        for parameter, original in self.originals.items():
            parameter.data = original.to(self.learned_in, copy=True)

    @contextmanager
    def _gradients_at(self, loss_weight: LossWeight | None) -> Iterator[None]:
        owners = {placed: own for own, placed in self.held.layers.model_parameters.items()}
        with self.held.holding(loss_weight or _soft), summed_gradients(owners, self.learned_in):
            yield

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        squares = [gradient.float().square().sum() for gradient in gradients] or [torch.zeros((), device=self.device)]
        return self.ranks.sum_(torch.stack(squares).sum()).sqrt()


def _soft(parameter: nn.Parameter) -> Tensor:
    return parameter.data
