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
    """The projected masks of `MaskLearner` after all its steps.

    For reports of every step, and a state that can be saved, use the learner itself.

    Parameters
    ----------
    model : transformers model
        A causal language model; left as it came.
    windows : Tensor
        Calibration text, int64 (count, length) tokens.
    n, m : int
        The pattern: n of every m weights along the input dimension are kept.
    layers : PrunableLayers, optional
        What is pruned; default: `prunable_layers(model, m)`.
    progress : Progress
        Called before each piece of work; what it raises ends the method.
    budget : LearnConfig, optional
        How it learns; default: `LearnConfig()`.
    **changes
        Fields of `LearnConfig`, put over `budget`, as n and m are.

    Returns
    -------
    Pruned
        Masks for the original weights.

    Raises
    ------
    ProxSparseError, DivergedError
        As `MaskLearner`.

    References
    ----------
    Liu et al. 2025, arXiv 2502.00258, section 3.
    """
    config = dataclasses.replace(budget or LearnConfig(), n=n, m=m, **changes)
    with MaskLearner(model, windows, config, layers, progress) as learner:
        while not learner.done:
            progress(learner.step_index, config.steps, "learning, step")
            learner.step()
        return Pruned(learner.masks())
