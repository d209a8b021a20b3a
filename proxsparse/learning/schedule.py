"""What depends on the step's number alone: the learning rate, and which windows are drawn.

Both are computed from the number, not carried along, so that a resumed run draws what an undisturbed one would have
drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from proxsparse.config import LearnConfig


def learning_rate_at(step: int, config: LearnConfig) -> float:
    """The learning rate of the step with index `step` (0-based); never 0.

    Warm-up rises linearly to the peak. Its first step is already above 0: with a learning rate of 0 the prox half
    would shrink weights that no gradient has changed.
    """
    warmup = min(math.ceil(config.warmup * config.steps), config.steps - 1)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    progress = min(step - warmup, config.steps - warmup - 1) / (config.steps - warmup)
    factor = {"linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2, "none": 1.0}[config.decay]
    return config.learning_rate * factor


def seed_at(position: int, config: LearnConfig) -> int:
    """A seed that depends on the run's seed and a position in it: a step or an epoch."""
    return config.seed * 1_000_003 + position


def passes_at(step: int, count: int, config: LearnConfig) -> Iterator[Tensor]:
    """Indices of the windows of each forward pass of one step, int64 (batch,), drawn when they are needed: a new permutation
    of the text's `count` windows in every epoch."""
    first = step * config.windows_per_step
    for begin in range(first, first + config.windows_per_step, config.batch):
        yield _drawn(torch.arange(begin, begin + config.batch), count, config)


def _drawn(drawn: Tensor, count: int, config: LearnConfig) -> Tensor:
    """Indices of the windows that are drawn at these places of the whole run."""
    indices = torch.empty_like(drawn)
    for epoch in (drawn // count).unique().tolist():
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed_at(epoch, config)))
        within = drawn // count == epoch
        indices[within] = order[drawn[within] % count]
    return indices
