"""ProxSparse as one of the methods: its learner, taken to its end (Liu et al. 2025, arXiv 2502.00258)."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from proxsparse.config import LearnConfig
from proxsparse.layers import PrunableLayers
from proxsparse.learning.learner import MaskLearner
from proxsparse.methods.result import Pruned
from proxsparse.progress import Progress, no_progress


def learned(
    model,
    windows: Tensor,
    n: int = 2,
    m: int = 4,
    *,
    layers: PrunableLayers | None = None,
    progress: Progress = no_progress,
    budget: LearnConfig | None = None,
    **changes,
) -> Pruned:
    """The projected masks of `MaskLearner` after the steps of `budget`, with n, m and `changes` (fields of LearnConfig)
    put over it. For reports of every step, and a state that can be saved, use the learner itself."""
    config = dataclasses.replace(budget or LearnConfig(), n=n, m=m, **changes)
    with MaskLearner(model, windows, config, layers, progress) as learner:
        while not learner.done:
            progress(learner.step_index, config.steps, "learning, step")
            learner.step()
        return Pruned(learner.masks())
