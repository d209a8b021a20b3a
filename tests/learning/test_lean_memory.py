"""The lean memory plan: bf16 weights and moments, rounded stochastically, updated inside backward."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FAMILIES, random_windows, tiny_model

from proxsparse import LearnConfig, Mask, MaskLearner, MaskSet, ProxSparseError, perplexity
from proxsparse.learning.stochastic_adamw import StochasticAdamW
from proxsparse.proximal.operator import prox_and_count_
from proxsparse.proximal.stochastic_rounding import stochastic_round_

LEAN = {"steps": 5, "learning_rate": 1e-2, "lambda1": 0.05, "ramp": 1.0, "metric_windows": 4, "memory": "lean"}


def make(family="llama", **changes):
    return MaskLearner(tiny_model(family), random_windows(), LearnConfig(**(LEAN | changes)))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(st.floats(-(2.0**90), 2.0**90, width=32, allow_subnormal=False), st.integers(0, 99))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_number_is_rounded_to_one_of_its_neighbours_and_right_in_the_mean(value, seed):
    values = torch.full((4096,), value)
    rounded = stochastic_round_(torch.empty(4096, dtype=torch.bfloat16), values, generator(seed)).double()
    low, high = rounded.min(), rounded.max()
    assert low <= value <= high
    gap = max(abs(value) * 2**-7, 1e-38)  # at most one unit in the last place of bf16 apart
    assert high - low <= gap
    assert abs(rounded.mean() - value) <= 4 * gap / 2 / 64  # four standard errors


def test_what_bf16_holds_is_written_exactly():
    values = torch.randn(1000, generator=generator()).bfloat16().float()
    values[:4] = torch.tensor([0.0, -0.0, math.inf, -math.inf])
    rounded = stochastic_round_(torch.empty(1000, dtype=torch.bfloat16), values, generator())
    assert torch.equal(rounded.float(), values)
    assert stochastic_round_(torch.zeros(1, dtype=torch.bfloat16), torch.tensor([math.nan]), generator()).isnan().all()


def test_in_float32_the_optimizer_is_adamw():
    ours, theirs = (torch.nn.Parameter(torch.randn(7, 5, generator=generator())) for _ in range(2))
    optimizer, reference = StochasticAdamW([ours]), torch.optim.AdamW([theirs], lr=0.01, weight_decay=0)
    optimizer.param_groups[0]["lr"] = 0.01
    for step in range(10):
        gradient = torch.randn(7, 5, generator=generator(step))
        optimizer.update(ours, gradient, generator())
        theirs.grad = gradient
        reference.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_small_updates_arrive():
    """A hundred updates of a 10,000th of the weight: rounded to nearest, each one is lost."""
    weight = torch.nn.Parameter(torch.ones(20_000, dtype=torch.bfloat16))
    optimizer, random = StochasticAdamW([weight]), generator()
    optimizer.param_groups[0]["lr"] = 1e-4
    for _ in range(100):
        optimizer.update(weight, torch.ones(20_000), random)
    assert weight.float().mean().item() == pytest.approx(1 - 100 * 1e-4, abs=3e-4)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_weak_operator_still_pulls(compiled, monkeypatch):
    monkeypatch.setattr("proxsparse.proximal.operator.available", lambda *_: compiled)
    v = torch.ones(500, 64, dtype=torch.bfloat16)
    lam, expected = 1e-4, 1 - 50 * 3e-4  # x falls by λ(x² + x² + x²) a time
    for step in range(50):
        prox_and_count_(v, lam, seed=step)
    assert v.float().mean().item() == pytest.approx(expected, abs=1e-3)
    nearest = torch.ones(4, 64, dtype=torch.bfloat16)
    prox_and_count_(nearest, lam)
    assert torch.equal(nearest, torch.ones_like(nearest)), "rounded to nearest, the pull is lost"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_run(family):
    model = tiny_model(family).bfloat16()
    before = copy.deepcopy(model.state_dict())
    learner = MaskLearner(model, random_windows(), LearnConfig(**LEAN))
    assert {parameter.dtype for parameter in learner.layers.parameters()} == {torch.bfloat16}
    reports = list(learner)
    assert all(math.isfinite(report.loss) and report.gradient_norm > 0 for report in reports)
    assert reports[-1].flips_from_start > 0 and reports[-1].drift > 0
    assert reports[-1].nonzeros[4] < reports[0].nonzeros[4]
    assert all(mask.is_valid() for mask in learner.masks().values())
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "originals are back"


def test_no_two_gradients_exist_at_once():
    learner, seen = make(), []
    update = learner.update.optimizer.update

    def watched(parameter, gradient, random):
        seen.append(sum(other.grad is not None for other in learner.layers.parameters()))
        update(parameter, gradient, random)

    learner.update.optimizer.update = watched
    learner.gradient_step()
    assert seen == [0] * len(learner.layers.parameters())


def test_it_learns_what_the_full_plan_learns():
    lean, full = make(lambda1=0.01), make(lambda1=0.01, memory="full", precision="bf16")
    assert (lean.memory, full.memory) == ("lean", "full")
    first = [learner.step() for learner in (lean, full)]
    assert first[0].loss == pytest.approx(first[1].loss, rel=1e-2)
    assert first[0].gradient_norm == pytest.approx(first[1].gradient_norm, rel=5e-2), "no block's gradient is missing"
    last = [list(learner)[-1] for learner in (lean, full)]
    assert last[0].loss == pytest.approx(last[1].loss, rel=2e-2)
    total = sum(layer.numel for layer in full.layers.values())
    assert sum(lean.masks().flips(full.masks()).values()) < 0.1 * total


def test_all_gradients_together_stay_below_the_limit():
    learner, squares = make(clip=0.01), []
    learner.update.optimizer.update = lambda parameter, gradient, _: squares.append(gradient.square().sum().item())
    learner.gradient_step()
    assert learner.prox_step().gradient_norm > 0.01 and 0 < sum(squares) ** 0.5 <= 0.01 * (1 + 1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_a_resumed_run_is_bit_identical(family):
    undisturbed, stopped, resumed = make(family), make(family), make(family)
    for _ in range(2):
        undisturbed.step()
        stopped.step()
    tensors, rest = stopped.state_dict()
    resumed.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, rest)
    for _ in range(2):
        assert undisturbed.step().loss == resumed.step().loss
    one, other = undisturbed.state_dict()[0], resumed.state_dict()[0]
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["soft." + next(iter(undisturbed.originals.parameters))].dtype == torch.bfloat16


def test_a_gradient_that_is_not_finite_spoils_no_weight():
    learner = make()
    learner.step()
    parameter = learner.layers.parameters()[0]
    hook = parameter.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(ProxSparseError, match=r"At step 2 the loss is .* lower the learning rate"):
        learner.gradient_step()
    hook.remove()
    assert all(parameter.isfinite().all() for parameter in learner.layers.parameters())


def test_what_does_not_go_together_is_one_sentence():
    for changes, words in (
        ({"accumulation": 2}, "accumulation is 2 and memory lean"), ({"precision": "fp32"}, "precision is fp32 and memory lean"),
        ({"memory": "small"}, "memory is 'small': choose one of auto, full, lean"),
    ):  # fmt: skip
        with pytest.raises(ProxSparseError, match=words):
            LearnConfig(**(LEAN | changes))
    lean = make()
    full = make(memory="full")
    with pytest.raises(ProxSparseError, match="written with memory lean and this run has memory full"):
        full.load_state_dict(*lean.state_dict())
    assert make(memory="auto").memory == "full", "on a CPU"


def test_a_checkpoint_of_before_there_was_a_choice_is_a_full_one():
    tensors, rest = make(memory="full").state_dict()
    rest = {name: rest[name] for name in ("step", "lambda1", "updates")}
    make(memory="full").load_state_dict(tensors, rest)
    with pytest.raises(ProxSparseError, match="written with memory full and this run has memory lean"):
        make().load_state_dict(tensors, rest)


def test_what_is_measured_while_a_run_goes_on_is_not_the_masked_model_again():
    """The blocks put in the masked weights whatever the model was to hold: the dense model measured as the masked one."""
    learner = MaskLearner(tiny_model().bfloat16(), random_windows(), LearnConfig(**LEAN))
    other = tiny_model().bfloat16()
    learner.step()
    windows = random_windows(4, seed=3)
    with learner.dense():
        assert perplexity(learner.model, windows).value == perplexity(other, windows).value
    masks = MaskSet({name: Mask.project(1 / layer.matrix.float()) for name, layer in learner.layers.items()})
    masks.apply_(other)
    with learner.projected(masks):
        assert perplexity(learner.model, windows).value == perplexity(other, windows).value
