"""The full memory plan: all gradients first, then their norm, then one AdamW step in float32. Activations are kept for backward, or, where
the configuration says `recompute`, computed again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from proxsparse.config import LearnConfig
from proxsparse.learning.clock import clock
from proxsparse.learning.frozen_weights import frozen_weight_gradient
from proxsparse.learning.gradients import summed_gradients
from proxsparse.learning.originals import LossWeight, holding
from proxsparse.learning.recomputed import recomputed
from proxsparse.learning.update import Taken

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def adamw(parameters: list[nn.Parameter], betas: tuple[float, float] = (0.9, 0.999)) -> torch.optim.AdamW:
    """AdamW without weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101), fused where torch has that."""
    fused = parameters[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(parameters, betas=betas, weight_decay=0.0, fused=fused)


class FullUpdate:
    """See `proxsparse.learning.update.Update`. make_optimizer: takes the place of AdamW."""

    memory = "full"
    recompute = False  # whether blocks are computed again whatever the configuration says

    def __init__(
        self,
        model: nn.Module,
        originals: dict[nn.Parameter, Tensor],
        config: LearnConfig,
        make_optimizer: MakeOptimizer = adamw,
    ):
        self.model, self.originals, self.config = model, originals, config
        self._become_soft(model)
        self.device = next(iter(originals)).device
        self.optimizer = make_optimizer(list(originals))

    def _become_soft(self, model: nn.Module) -> None:
        """Give the parameters float32 weights of their own."""
        model.float()
        for parameter, original in self.originals.items():
            if parameter.data_ptr() == original.data_ptr():  # it was float32 already
                parameter.data = original.clone()

    def step(
        self, index: int, learning_rate: float, backward: Callable[[], float], loss_weight: LossWeight | None
    ) -> Taken:
        """See `Update`."""
        self.optimizer.param_groups[0]["lr"] = learning_rate
        try:
            again = recomputed(self.model, ()) if self.recompute or self.config.recompute else nullcontext()
            with self._gradients_at(loss_weight), again:
                loss = backward()
            norm = self._clip()
            started = clock(self.device)
            if math.isfinite(loss) and math.isfinite(norm):
                self._take_step(index)
            return Taken(loss, norm, clock(self.device) - started)
        finally:
            self.optimizer.zero_grad()

    def _take_step(self, index: int) -> None:
        self.optimizer.step()

    @contextmanager
    def _gradients_at(self, loss_weight: LossWeight | None) -> Iterator[None]:
        """While open, the loss is taken at these weights; afterwards the parameters have its gradient."""
        held = nullcontext() if loss_weight is None else holding(self.originals, loss_weight)
        with summed_gradients({parameter: parameter for parameter in self.originals}), held:
            yield

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        return nn.utils.get_total_norm(gradients)

    @torch.no_grad()
    def _clip(self) -> float:
        """Add the frozen-weight penalty's gradient, and clip. Returns the norm before clipping."""
        if self.config.lambda2 > 0:
            for parameter, original in self.originals.items():
                penalty = frozen_weight_gradient(parameter.float(), original, self.config.epsilon).mul_(
                    self.config.lambda2
                )
                if parameter.grad is None:
                    parameter.grad = penalty.to(parameter.dtype)
                else:
                    parameter.grad.add_(penalty)
        trained = [parameter for parameter in self.originals if parameter.grad is not None]  # an idle expert has none
        norm = self._norm([parameter.grad for parameter in trained])
        if self.config.clip > 0:
            nn.utils.clip_grads_with_norm_(trained, self.config.clip, norm)
        return norm.item()
