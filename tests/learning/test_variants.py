"""The variants of the quality study: each runs, on what the learner shows to everybody, and changes what it says."""

import math
import re
from pathlib import Path

import pytest
import torch
from tiny_models import random_windows, tiny_model

from benchmarks import quality
from proxsparse import LearnConfig, MaskLearner
from proxsparse.learning.loss import language_model_loss
from proxsparse.learning.schedule import passes_at

SETTINGS = {"steps": 4, "metric_windows": 4, "precision": "fp32"}


def learned(name):
    """(losses, drifts, final masks) of one variant on a tiny Llama."""
    variant = quality.VARIANTS[name]
    config = LearnConfig(**(quality.BASE | SETTINGS | variant.changes))
    with variant.learner(tiny_model(), random_windows(), config, **variant.given) as learner:
        reports = list(learner)
    masks = torch.cat([mask.packed.flatten() for mask in learner.masks().values()])
    return [report.loss for report in reports], [report.drift for report in reports], masks


@pytest.fixture(scope="module")
def base():
    return learned("base")


@pytest.mark.parametrize("name", [name for name in quality.VARIANTS if name != "base"])
def test_every_variant_learns_and_differs_from_the_base(name, base, monkeypatch):
    monkeypatch.setattr(quality.Remeasured, "every", 1)
    monkeypatch.setattr(quality.Averaged, "share", 0.9)
    losses, drifts, masks = learned(name)
    assert all(math.isfinite(value) for value in losses + drifts)
    assert losses != base[0] or drifts != base[1] or not torch.equal(masks, base[2])


@pytest.mark.parametrize(("memory", "precision"), [("full", "fp32"), ("full", "bf16"), ("lean", "auto")])
def test_a_loss_may_ask_the_dense_model_in_between(memory, precision):
    config, asked = LearnConfig(**SETTINGS | {"memory": memory, "precision": precision, "distill": 0.0}), []

    def asks(learner, windows):
        with torch.no_grad(), learner.dense():
            asked.append(language_model_loss(learner, windows).item())
        return language_model_loss(learner, windows)

    with MaskLearner(tiny_model().bfloat16(), random_windows(), config, loss=asks) as learner:
        loss = learner.step().loss
        with learner.dense(), torch.no_grad():
            expected = language_model_loss(learner, learner.windows[next(passes_at(0, 12, config))]).item()
    assert asked == pytest.approx([expected], rel=5e-5), "the dense model it was"
    with MaskLearner(tiny_model().bfloat16(), random_windows(), config) as plain:
        assert plain.step().loss == loss != asked[0], "and the loss is taken where it was"


def test_benchmarks_and_notebooks_use_no_private_attribute():
    for path in [*Path("benchmarks").glob("*.py"), *Path("notebooks").glob("*.ipynb")]:
        assert not re.search(r"\b(?:self|learner)\._[a-z]", path.read_text(encoding="utf-8")), path
