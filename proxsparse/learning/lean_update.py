"""The lean memory plan: each parameter is updated inside backward, as soon as its gradient is there.

The norm of all gradients is not known then: each one is clipped to clip/√(number of parameters), so that all of them
together are never above clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from proxsparse.config import LearnConfig
from proxsparse.learning.frozen_weights import frozen_weight_gradient
from proxsparse.learning.originals import LossWeight
from proxsparse.learning.recomputed import recomputed
from proxsparse.learning.schedule import seed_at
from proxsparse.learning.stochastic_adamw import StochasticAdamW
from proxsparse.learning.update import Taken


class LeanUpdate:
    """See `proxsparse.learning.update.Update`. Of the masked weights, too, those of one block exist at a time."""

    memory = "lean"

    def __init__(self, model: nn.Module, originals: dict[nn.Parameter, Tensor], config: LearnConfig):
        self.model, self.originals, self.config = model, originals, config
        for parameter, original in originals.items():
            parameter.data = original.to(torch.bfloat16, copy=True)
        self.optimizer = StochasticAdamW(list(originals))
        self.device = next(iter(originals)).device
        self.generator = torch.Generator(self.device)
        self.squares: list[Tensor] = []

    def step(
        self, index: int, learning_rate: float, backward: Callable[[], float], loss_weight: LossWeight | None
    ) -> Taken:
        """See `Update`. Rounding depends on seed and index alone, so that a resumed run rounds alike."""
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.generator.manual_seed(seed_at(index, self.config))
        self.squares = []
        try:
            with self.updating_at_once(), recomputed(self.model, self.originals, loss_weight):
                loss = backward()
        finally:
            self.optimizer.zero_grad()  # after an exception there may be one
        norm = torch.stack(self.squares).sum().sqrt().item() if self.squares else 0.0
        return Taken(loss, norm, 0.0)

    @contextmanager
    def updating_at_once(self) -> Iterator[None]:
        """While open, each parameter is updated as soon as its gradient is there."""
        hooks = [parameter.register_post_accumulate_grad_hook(self._update) for parameter in self.originals]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def _update(self, parameter: nn.Parameter) -> None:
        gradient, parameter.grad = parameter.grad.float(), None
        if self.config.lambda2 > 0:
            penalty = frozen_weight_gradient(parameter.float(), self.originals[parameter], self.config.epsilon)
            gradient.add_(penalty, alpha=self.config.lambda2)
        square = gradient.square().sum()
        self.squares.append(square)
        gradient.nan_to_num_(0, 0, 0)  # the norm tells the learner, which ends; the weights stay finite
        if self.config.clip > 0:
            limit = self.config.clip / len(self.originals) ** 0.5
            gradient.mul_((limit / square.sqrt().clamp(min=1e-12)).clamp(max=1).nan_to_num(0))
        self.optimizer.update(parameter, gradient, self.generator)
