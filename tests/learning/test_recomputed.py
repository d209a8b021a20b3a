"""Activations that are computed again in backward: the same learning to the last bit, and less that is kept."""

import pytest
import torch
from tiny_models import random_windows, tiny_model

from proxsparse import LearnConfig, MaskLearner


def learned(family: str, **settings):
    """(losses, masks, bytes that autograd kept between forward and backward) of a run of five steps."""
    config = LearnConfig(steps=5, learning_rate=1e-2, metric_windows=4, memory="full", **settings)
    learner, kept = MaskLearner(tiny_model(family), random_windows(), config), []

    def keep(tensor):
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = [report.loss for report in learner]
    return losses, learner.masks(), sum(kept)


@pytest.mark.parametrize("loss_at", ["masked", "soft"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_it_learns_the_same_and_keeps_less(family, loss_at):
    losses, masks, kept = learned(family, loss_at=loss_at)
    again, same, less = learned(family, loss_at=loss_at, recompute=True)
    assert again == losses
    assert sum(masks.flips(same).values()) == 0
    assert 0 < less < 0.4 * kept
