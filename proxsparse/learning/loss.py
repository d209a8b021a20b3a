"""The loss that a learner is given: what its gradient is taken of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from proxsparse.learning.seen import Learner
from proxsparse.models.forward import autocast, next_token_divergences, next_token_losses, next_token_states

Loss = Callable[[Learner, Tensor], Tensor]
"""(learner, windows int64 (count, length) on its device) → loss, a scalar in nats a token.

It runs `learner.model`, which holds the weights at which the loss is taken, in bf16 where matrices are multiplied in it, and
opens autocast itself: what autocast has cast is reused while it is open, so weights must not be exchanged inside.
`learner.dense()` gives the dense model; use it under `torch.no_grad()`.
"""


def language_model_loss(learner: Learner, windows: Tensor) -> Tensor:
    """Mean cross-entropy of the next token."""
    with autocast(learner.device, learner.precision):
        return next_token_losses(learner.model, windows).mean()


def distillation_loss(learner: Learner, windows: Tensor) -> Tensor:
    """Mean KL divergence of the next token's distribution from that of the dense model, which reads the same windows; of it a share,
    `LearnConfig.distill`, the rest is the language-model loss.

    It takes a second forward pass, at the dense weights and without gradients.

    References
    ----------
    Hinton et al. 2015, arXiv 1503.02531, section 2.
    """
    with torch.no_grad(), learner.dense(), autocast(learner.device, learner.precision):
        teacher = next_token_states(learner.model, windows)
    with autocast(learner.device, learner.precision):
        states = next_token_states(learner.model, windows)
        return next_token_divergences(learner.model, states, teacher, windows[:, 1:], learner.config.distill).mean()


def configured_loss(learner: Learner, windows: Tensor) -> Tensor:
    """What the configuration asks for."""
    loss = distillation_loss if learner.config.distill > 0 else language_model_loss
    return loss(learner, windows)
