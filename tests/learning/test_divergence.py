"""Learning that diverges ends with one sentence, whichever way it shows."""

import math
import re

import pytest
import torch
from tiny_models import FAMILIES, random_windows, tiny_model

from proxsparse import LearnConfig, MaskLearner
from proxsparse.errors import DivergedError
from proxsparse.methods import maskllm
from proxsparse.methods.maskllm import MaskLLMOptions

SENTENCE = r"^At step \d+ .*: lower the learning rate \(.*\) or λ1 \(.*\)\.$"
PLANS = [("full", "fp32"), ("full", "bf16"), ("lean", "bf16")]


@pytest.mark.parametrize("learning_rate", [1e3, 1e10, 1e30])
@pytest.mark.parametrize(("memory", "precision"), PLANS)
@pytest.mark.parametrize("loss_at", ["masked", "soft"])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_learning_rate_that_is_far_too_large(learning_rate, memory, precision, loss_at, clip):
    """With the loss at the masked original weights, no soft weight, however large, ever shows in the loss."""
    config = LearnConfig(
        steps=8, learning_rate=learning_rate, memory=memory, precision=precision, loss_at=loss_at, clip=clip
    )
    learner = MaskLearner(tiny_model(), random_windows(), config)
    with pytest.raises(DivergedError, match=SENTENCE):
        list(learner)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (2, 8)])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_weight_that_is_not_finite(bad, n, m):
    learner = MaskLearner(tiny_model(), random_windows(), LearnConfig(steps=3, n=n, m=m))
    learner.gradient_step()
    name, layer = list(learner.layers.items())[3]
    layer.matrix[0, 0] = bad
    with pytest.raises(DivergedError, match=f"At step 1 the weights of {re.escape(name)} have moved"):
        learner.prox_step()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("memory", ["full", "lean"])
def test_the_default_settings_do_not_raise(family, memory):
    reports = list(MaskLearner(tiny_model(family), random_windows(), LearnConfig(steps=20, memory=memory)))
    assert reports[-1].drift < 10


def test_layers_of_zeros_may_move():
    """A layer without a size of its own, and a whole model of such layers, are no divergence."""
    for zeros in (1, None):
        model = tiny_model()
        learner = MaskLearner(model, random_windows(), LearnConfig(steps=1))
        learner.restore()
        with torch.no_grad():
            for layer in list(learner.layers.values())[:zeros]:
                layer.matrix.zero_()
        reports = list(MaskLearner(model, random_windows(), LearnConfig(steps=3)))
        assert math.isfinite(reports[-1].drift)


def test_maskllm_too():
    with pytest.raises(DivergedError, match="MaskLLM's loss is"):
        maskllm(
            tiny_model(),
            random_windows(),
            budget=LearnConfig(steps=4),
            options=MaskLLMOptions(scale=(math.nan, math.nan)),
        )
