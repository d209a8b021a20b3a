"""The loss that looks at the dense model: against its definition, under both memory plans, in pieces, over a resume."""

import copy

import pytest
import torch
from tiny_models import random_windows, tiny_model

from proxsparse import LearnConfig, MaskLearner
from proxsparse.learning.loss import configured_loss, distillation_loss, language_model_loss
from proxsparse.models import forward

SETTINGS = {"steps": 3, "metric_windows": 4, "precision": "fp32"}


def by_definition(student, teacher, windows, share):
    """Σ p log(p/q) and −log q of the next token, written out in float64."""
    p, q = (logits[:, :-1].double().softmax(-1) for logits in (teacher, student))
    divergence = (p * (p.log() - q.log())).sum(-1).mean()
    language = -q.gather(-1, windows[:, 1:, None]).log().mean()
    return (share * divergence + (1 - share) * language).item()


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_loss_is_the_divergence_from_the_dense_model_at_the_masked_weights(family, share):
    windows = random_windows()
    config = LearnConfig(**SETTINGS, distill=share)
    with MaskLearner(tiny_model(family), windows, config) as learner:
        with torch.no_grad(), learner.dense():
            teacher = learner.model(input_ids=windows[:2]).logits
        with torch.no_grad(), learner.projected():
            student = learner.model(input_ids=windows[:2]).logits
            loss = distillation_loss(learner, windows[:2]).item()
        assert loss == pytest.approx(by_definition(student, teacher, windows[:2], share), rel=1e-4, abs=1e-6)


def test_the_dense_model_is_no_distance_from_itself():
    windows = random_windows()
    with MaskLearner(tiny_model(), windows, LearnConfig(**SETTINGS, distill=1.0)) as learner, learner.dense():
        assert distillation_loss(learner, windows[:2]).item() == pytest.approx(0, abs=1e-6)


def test_without_a_share_it_is_the_language_model_loss():
    windows = random_windows()
    with MaskLearner(tiny_model(), windows, LearnConfig(**SETTINGS, distill=0.0)) as learner:
        assert configured_loss(learner, windows[:2]).item() == language_model_loss(learner, windows[:2]).item()
        learner.config = LearnConfig(**SETTINGS, distill=1e-9)
        language = language_model_loss(learner, windows[:2]).item()
        assert configured_loss(learner, windows[:2]).item() == pytest.approx(language, rel=1e-5)


def learned(**settings):
    with MaskLearner(tiny_model(), random_windows(), LearnConfig(**SETTINGS | {"distill": 0.7} | settings)) as learner:
        return [report.loss for report in learner], learner.masks()


def test_in_pieces_the_loss_and_what_is_learned_are_the_same(monkeypatch):
    losses, masks = learned()
    monkeypatch.setattr(forward, "MOST_LOGITS", 1000)  # a few tokens at a time
    in_pieces, others = learned()
    assert in_pieces == pytest.approx(losses, rel=1e-5)
    assert all((masks[name].packed == others[name].packed).double().mean() > 0.99 for name in masks)


def test_the_lean_plan_learns_with_it_too_and_the_loss_is_the_same_at_first():
    full, lean = learned(precision="bf16"), learned(memory="lean", precision="auto")
    assert lean[0][0] == pytest.approx(full[0][0], rel=0.05)


def test_a_resumed_learner_takes_the_same_steps():
    config, windows = LearnConfig(**SETTINGS, distill=0.5), random_windows()
    with MaskLearner(tiny_model(), windows, config) as learner:
        learner.step()
        state = copy.deepcopy(learner.state_dict())
        losses = [learner.step().loss, learner.step().loss]
    with MaskLearner(tiny_model(), windows, config, state=state) as learner:
        assert [learner.step().loss, learner.step().loss] == losses


def test_the_original_weights_are_not_written_to():
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with MaskLearner(model, random_windows(), LearnConfig(**SETTINGS, distill=1.0)) as learner:
        learner.step()
        with learner.projected():
            pass
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
