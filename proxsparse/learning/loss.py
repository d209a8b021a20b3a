"""The loss that a learner is given: what its gradient is taken of."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from proxsparse.learning.seen import Learner
from proxsparse.models.forward import autocast, next_token_losses

Loss = Callable[[Learner, Tensor], Tensor]
"""(learner, windows int64 (count, length) on its device) → loss, a scalar in nats a token.

It runs `learner.model`, which holds the weights at which the loss is taken, and opens autocast itself: what autocast has
cast is reused while it is open, so weights must not be exchanged inside. `learner.dense()` gives the dense model; use it
under `torch.no_grad()`.
"""


def language_model_loss(learner: Learner, windows: Tensor) -> Tensor:
    """Mean cross-entropy of the next token."""
    with autocast(learner.device, learner.precision):
        return next_token_losses(learner.model, windows).mean()
