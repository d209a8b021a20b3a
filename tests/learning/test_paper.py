"""The paper's algorithm, written out plainly, step by step beside the learner set as `proxsparse-paper`.

Written from Liu et al. 2025 (arXiv 2502.00258), sections 3.1 to 3.3 and algorithm 1, without the library's learner, operator,
penalty or masks. Where the library departs from the reference code knowingly, `paper_steps` departs too, or a test says so:

- Only prunable weights are trained, so that the gradient's norm is theirs too; the reference trains everything and throws the
  rest away.
- The learning rate of the first step is above 0: `test_the_schedule_is_the_usual_one_but_in_warm_up`.
- A step takes a window of the text, packed, where the reference takes one document, truncated.
- The operator finds the global minimum of every group: `test_operator` shows where alternating minimization from zero does not.
"""

import dataclasses
import itertools
import math

import pytest
import torch
from tiny_models import random_windows, tiny_model
from transformers import get_linear_schedule_with_warmup

from proxsparse import LearnConfig, MaskLearner
from proxsparse.config import METHODS
from proxsparse.learning.schedule import learning_rate_at, passes_at

STEPS, WARM_UP = 12, 2
LAMBDA1, RATE = 10.0, 2e-3  # weights of a tiny model are about 0.02, and twelve steps must move much
# Of losses of about 4.9, and of weights that move by up to 0.04. Both sides round in float32, and agree to about 1e-6.
TOLERANCE = 1e-5
CONFIG = LearnConfig(
    **METHODS["proxsparse-paper"].options
    | {"steps": STEPS, "relative": False, "lambda1": LAMBDA1, "learning_rate": RATE, "batch": 1, "precision": "fp32"}
)


def paper_steps(model, batches, lambda2, epsilon):
    """Take the paper's steps on `model`; after each one (loss, {name: weights})."""
    # As the reference chooses them, by name.
    weights = {name: weight for name, weight in model.named_parameters() if "_proj" in name}
    originals = {name: weight.detach().clone() for name, weight in weights.items()}
    first, second = ({name: torch.zeros_like(weight) for name, weight in weights.items()} for _ in range(2))
    for step, batch in enumerate(batches, start=1):
        loss = model(input_ids=batch, labels=batch).loss
        penalty = sum(frozen_weight_penalty(weights[name], originals[name], epsilon) for name in weights)
        gradients = torch.autograd.grad(loss + lambda2 * penalty, list(weights.values()))
        norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
        warm_up, decay = step / (WARM_UP + 1), (STEPS - step + 1) / (STEPS - WARM_UP)
        with torch.no_grad():
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                gradient = gradient / max(norm, 1.0)
                first[name] += 0.1 * (gradient - first[name])
                second[name] += 0.001 * (gradient.square() - second[name])
                mean, spread = first[name] / (1 - 0.9**step), (second[name] / (1 - 0.999**step)).sqrt()
                weight -= RATE * min(warm_up, decay) * mean / (spread + 1e-8)
                weight.copy_(paper_prox(weight, LAMBDA1))
        yield loss.item(), {name: weight.detach().clone() for name, weight in weights.items()}


def frozen_weight_penalty(weight, original, epsilon):
    """‖W/(W0 + ε·sign W0) ⊙ (W − W0)‖²_F, with sign(0) = 1."""
    sign = torch.where(original < 0, -1.0, 1.0)
    return (weight / (original + epsilon * sign) * (weight - original)).square().sum()


def paper_prox(v, lam, sweeps=2000):
    """argmin_w ½‖w − v‖² + λR(w) of every group, in float64.

    Alternating minimization over one weight at a time, from several starts, among them all of v, its largest weights alone, and
    zero; of the minima in which they end the least counts.
    """
    p = v.double().abs().view(-1, 4)
    ranks = p.argsort(1, descending=True).argsort(1)
    starts = [p * (ranks < size) for size in range(5)] + [p / 2]
    target, w = p.repeat(len(starts), 1), torch.cat(starts)
    for _ in range(sweeps):
        before = w.clone()
        for i in range(4):
            a, b, c = (w[:, j] for j in range(4) if j != i)
            w[:, i] = (target[:, i] - lam * (a * b + b * c + c * a)).clamp(min=0)
        if (w - before).abs().max() <= 1e-12:
            break
    a, b, c, d = w.unbind(1)
    objective = (w - target).square().sum(1) / 2 + lam * (a * b * c + b * c * d + c * d * a + d * a * b)
    best = objective.view(len(starts), -1).argmin(0)
    least = w.view(len(starts), -1, 4)[best, torch.arange(len(p))]
    return (least.view(v.shape) * v.sign()).to(v.dtype)


def has_the_two_largest(kept, weight):
    """Whether `kept` is the paper's projection: two of every group, those of the largest magnitudes, to the tolerance."""
    kept, magnitudes = kept.view(-1, 4), weight.abs().view(-1, 4)
    least, most = magnitudes.where(kept, math.inf).amin(1), magnitudes.where(~kept, 0).amax(1)
    return (kept.sum(1) == 2).all() and (least >= most - 2 * TOLERANCE).all()


def batches_of(windows, config):
    """The windows of each step; the text has as many as there are steps, each is drawn once."""
    return [windows[next(passes_at(step, len(windows), config))] for step in range(config.steps)]


@pytest.mark.parametrize(("lambda2", "epsilon"), [(0.0, 0.1), (0.25, 0.5), (1.0, 0.1)])
def test_losses_soft_weights_and_masks_are_those_of_the_papers_algorithm(lambda2, epsilon):
    config = dataclasses.replace(CONFIG, lambda2=lambda2, epsilon=epsilon)
    model, windows = tiny_model(), random_windows(STEPS, 32)
    plain = paper_steps(tiny_model(), batches_of(windows, config), lambda2, epsilon)
    sizes = set()
    with MaskLearner(model, windows, config) as learner:
        for loss, weights in plain:
            report = learner.step()
            assert report.loss == pytest.approx(loss, abs=TOLERANCE)
            assert distance(model, weights) < TOLERANCE
            sizes |= {size for size, share in report.nonzeros.items() if share > 0}
        assert learner.done
    assert sizes >= {2, 3, 4} and report.flips_from_start > 1000, "every support wins somewhere, and much is learned"
    assert report.nonzeros[2] < 1, "and the projection still has something to do"
    learner.masks().apply_(model)
    for name, original in tiny_model().named_parameters():
        result = model.get_parameter(name)
        kept = result != 0 if name in weights else True
        assert torch.equal(result, original * kept), "the mask, on the original weights"
        assert name not in weights or has_the_two_largest(kept, weights[name])


@pytest.fixture(scope="module")
def papers():
    """The paper's soft weights after four steps, without the frozen-weight penalty."""
    *_, (_, weights) = itertools.islice(
        paper_steps(tiny_model(), batches_of(random_windows(STEPS, 32), CONFIG), 0.0, 0.1), 4
    )
    return weights


@pytest.mark.parametrize(
    "change",
    [
        {"lambda1": 1.01 * LAMBDA1}, {"relative": True}, {"ramp": 1.1}, {"lambda2": 0.25}, {"loss_at": "masked"},
        {"metric": "activation"}, {"learning_rate": 1.01 * RATE}, {"warmup": 0.2}, {"decay": "cosine"}, {"clip": 0.0},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_every_setting_of_the_paper_counts(change, papers):
    """So that what agrees above does not agree whatever is set."""
    model, config = tiny_model(), dataclasses.replace(CONFIG, **change)
    with MaskLearner(model, random_windows(STEPS, 32), config) as learner:
        for _ in range(4):
            learner.step()
        assert distance(model, papers) > 10 * TOLERANCE


def test_the_schedule_is_the_usual_one_but_in_warm_up():
    """There it is that of a warm-up one step longer, begun at its second step: the first step of the usual one has rate 0, and would
    shrink weights before a gradient has spoken."""
    config = LearnConfig(steps=400, learning_rate=RATE)

    def usual(warm_up, steps):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=RATE)
        schedule = get_linear_schedule_with_warmup(optimizer, warm_up, steps)
        for _ in range(steps):
            yield schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()

    rates = [learning_rate_at(step, config) for step in range(400)]
    assert rates[40:] == pytest.approx([*usual(40, 400)][40:])
    assert rates[:40] == pytest.approx([*usual(41, 401)][1:41]) and rates[0] > 0 == next(usual(40, 400))


def distance(model, weights):
    """The largest distance of a weight of `model` from its place in `weights`."""
    return max((model.get_parameter(name) - weight).abs().max().item() for name, weight in weights.items())
