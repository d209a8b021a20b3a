"""What a loss and a saved state see of a learner: the part of `MaskLearner` that they may read."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from proxsparse.config import LearnConfig
from proxsparse.layers import PrunableLayers
from proxsparse.learning.originals import Originals
from proxsparse.learning.update import Update
from proxsparse.masks.mask_set import MaskSet


class Learner(Protocol):
    """See `proxsparse.learning.learner.MaskLearner`."""

    model: nn.Module
    device: torch.device
    home: torch.device
    config: LearnConfig
    layers: PrunableLayers
    originals: Originals
    update: Update
    scales: Mapping[str, Tensor | None]
    unseen: tuple[str, ...]
    start: MaskSet
    step_index: int
    growth_left: float
    lambda1: float
    memory: str
    precision: str

    def masks(self) -> MaskSet:
        """The projected masks of the soft weights."""

    def dense(self) -> AbstractContextManager:
        """While open, the model holds the original weights, to be read only."""
