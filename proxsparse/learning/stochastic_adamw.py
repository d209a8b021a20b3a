"""AdamW whose weights and moments are bf16, rounded stochastically: 6 bytes a weight, where float32 takes 12."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from proxsparse.proximal.stochastic_rounding import stochastic_round_

PIECE = 1 << 24  # weights updated at a time: float32 temporaries stay small beside the model


class StochasticAdamW(torch.optim.Optimizer):
    """AdamW without weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2), one parameter at a time.

    `update(parameter)` may be called inside backward, as soon as a gradient is there: no two gradients need ever exist
    at once. Moments have the dtype of their parameter.
    """

    def __init__(self, parameters, betas=(0.9, 0.999), eps: float = 1e-8):
        super().__init__(parameters, {"lr": 0.0, "betas": betas, "eps": eps})

    @torch.no_grad()
    def update(self, parameter: Tensor, gradient: Tensor, generator: torch.Generator) -> None:
        """One step of one parameter, with the learning rate of its group."""
        (group,) = self.param_groups
        (beta1, beta2), state = group["betas"], self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        count = state["step"].item()
        correction1, correction2 = 1 - beta1**count, (1 - beta2**count) ** 0.5
        whole = (parameter.data.view(-1), gradient.reshape(-1), state["exp_avg"].view(-1), state["exp_avg_sq"].view(-1))
        for weight, g, mean, square in self.pieces(*whole):
            g = g.float()
            first = mean.float().lerp_(g, 1 - beta1)
            second = square.float().mul_(beta2).addcmul_(g, g, value=1 - beta2)
            step = first / second.sqrt().div_(correction2).add_(group["eps"])
            stochastic_round_(weight, weight.float().sub_(step, alpha=group["lr"] / correction1), generator)
            stochastic_round_(mean, first, generator)
            stochastic_round_(square, second, generator)

    @staticmethod
    def pieces(*whole: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Flat tensors of one size, PIECE elements of each at a time."""
        return zip(*(tensor.split(PIECE) for tensor in whole), strict=True)
