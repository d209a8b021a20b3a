"""The learner on two-layer models of every family."""

import copy
import doctest
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, random_windows, tiny_model

from proxsparse import LearnConfig, Mask, MaskLearner, ProxSparseError, magnitude, perplexity, prox, prunable_layers
from proxsparse.learning import frozen_weights
from proxsparse.learning.frozen_weights import frozen_weight_gradient
from proxsparse.learning.report import pattern_share
from proxsparse.learning.schedule import learning_rate_at, passes_at

METRICS, PATTERNS = ("weight", "activation"), ((1, 4), (2, 8), (4, 8))
FAST = {"steps": 5, "learning_rate": 1e-2, "lambda1": 0.05, "ramp": 1.0, "precision": "fp32", "metric_windows": 4}


def make(family="llama", windows=None, **changes):
    windows = random_windows() if windows is None else windows
    return MaskLearner(tiny_model(family), windows, LearnConfig(**(FAST | changes)))


@pytest.mark.parametrize(
    ("family", "n", "m"), [(family, 2, 4) for family in FAMILIES] + [("llama", *pattern) for pattern in PATTERNS]
)
@pytest.mark.parametrize("metric", METRICS)
def test_a_whole_run(family, n, m, metric):
    model = tiny_model(family)
    before = copy.deepcopy(model.state_dict())
    learner = MaskLearner(model, random_windows(), LearnConfig(**FAST, metric=metric, n=n, m=m))
    reports = list(learner)
    assert [report.step for report in reports] == [1, 2, 3, 4, 5]
    assert all(math.isfinite(report.loss) for report in reports)
    assert reports[-1].flips_from_start > 0
    assert reports[-1].nonzeros[m] < reports[0].nonzeros[m], "groups get sparser"
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items()), "originals are back"
    masks = learner.masks()
    masks.apply_(model)
    for name, layer in prunable_layers(model, m).items():
        kept = masks[name].dense()
        assert (kept.reshape(-1, m).sum(1) == n).all()
        assert (layer.matrix[~kept] == 0).all()
        owner = layer.matrix_of(
            before[next(key for key, value in model.named_parameters() if value is layer.parameter)]
        )
        assert torch.equal(layer.matrix[kept], owner[kept]), "kept weights are the original's"


def test_it_learns():
    """Trained on one text, the learned mask beats the one it started from on that text."""
    torch.manual_seed(0)
    model = tiny_model("llama")
    windows = random_windows(32, 32)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(150):  # a model that knows something, so that a mask can spoil it
        optimizer.zero_grad()
        batch = windows[(step * 4) % 32 : (step * 4) % 32 + 4]
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    learner = MaskLearner(
        model, windows, LearnConfig(steps=40, learning_rate=5e-3, lambda1=0.05, ramp=1.0, precision="fp32", batch=4)
    )
    with learner.dense():
        dense = perplexity(model, windows).value
    with learner.projected():
        start = perplexity(model, windows).value
    with learner.projected(magnitude(model, layers=learner.layers).masks):
        assert perplexity(model, windows).value > dense
    for _ in range(40):
        learner.step()
    with learner.projected():
        learned = perplexity(model, windows).value
    assert dense < learned < start


def test_the_halves_make_the_step():
    whole, halves = make(), make()
    report = whole.step()
    loss = halves.gradient_step()
    assert halves.phase == "prox" and halves.step_index == 0
    other = halves.prox_step()
    assert loss == report.loss == other.loss and other.step == 1 and halves.phase == "gradient"
    assert other.layers == report.layers
    with pytest.raises(ProxSparseError, match="gradient half of step 2 comes first"):
        halves.prox_step()
    halves.gradient_step()
    with pytest.raises(ProxSparseError, match="prox half of step 2 comes first"):
        halves.gradient_step()
    assert halves.step().step == 2, "step() completes a step that was begun"


@pytest.mark.parametrize(("n", "m"), [(2, 4), *PATTERNS])
def test_the_prox_half_is_the_operator_in_the_metric(n, m):
    learner = make(lambda1=0.3, n=n, m=m)
    learner.gradient_step()
    name, layer = next(iter(learner.layers.items()))
    before, scale = layer.matrix.clone(), learner.scales[name]
    original = learner.originals[name]
    rms = (original * scale).square().mean().sqrt().item()
    strength = 0.3 / rms ** (n - 1)  # relative: as if the scaled weights had the RMS 1
    assert learner.absolute_lambda1(name) == pytest.approx(strength, rel=1e-5)
    learner.prox_step()
    assert torch.allclose(layer.matrix, prox(before, strength, n, m, scale), atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_relative_strength_does_not_depend_on_the_scale_of_weights(metric):
    config = LearnConfig(**(FAST | {"metric": metric}))
    model, scaled = tiny_model(), tiny_model()
    for layer in prunable_layers(scaled).values():
        layer.matrix.mul_(8)
    learners = [MaskLearner(each, random_windows(), config) for each in (model, scaled)]
    if metric == "weight":  # (the activation metric measures other activations in the other model)
        for name in learners[0].layers:
            a, b = (learner.absolute_lambda1(name) for learner in learners)
            assert a == pytest.approx(8 * b, rel=1e-5)
    absolute = MaskLearner(
        tiny_model(), random_windows(), LearnConfig(**(FAST | {"relative": False, "metric": metric}))
    )
    assert {absolute.absolute_lambda1(name) for name in absolute.layers} == {0.05}


@pytest.mark.parametrize(("n", "m"), [(2, 4), *PATTERNS])
def test_at_step_0_the_mask_is_magnitude_s_or_wanda_s(n, m):
    by_weight, by_activation = (make(metric=metric, n=n, m=m) for metric in METRICS)
    by_magnitude = magnitude(by_weight.model, None, n, m, layers=by_weight.layers).masks
    assert set(by_weight.masks().flips(by_magnitude).values()) == {0}
    for name, layer in by_activation.layers.items():
        wanda = Mask.project(layer.matrix.abs() * by_activation.scales[name], n, m)
        assert by_activation.masks()[name].flips(wanda) == 0


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (2, 8)])
def test_reports_count_what_is_there(n, m):
    learner = make(steps=3, n=n, m=m)
    start = {name: mask.dense() for name, mask in learner.masks().items()}
    previous = start
    for _ in range(3):
        report = learner.step()
        now = {name: mask.dense() for name, mask in learner.masks().items()}
        for index, (name, layer) in enumerate(learner.layers.items()):
            nonzeros = (layer.matrix.reshape(-1, m) != 0).sum(1)
            for k in range(n, m + 1):
                share = (nonzeros == k).float().mean().item()
                assert report.layers[f"nonzeros_{k}"][index] == pytest.approx(share)
            sparse = pattern_share(report.layers)[index]
            assert sparse == pytest.approx((nonzeros <= n).float().mean().item())
            assert report.layers["flips"][index] == (now[name] != previous[name]).sum()
            assert report.layers["flips_from_start"][index] == (now[name] != start[name]).sum()
            original = learner.originals[name]
            drift = (layer.matrix - original).norm() / original.norm()
            assert report.layers["drift"][index] == pytest.approx(drift.item(), rel=1e-4)
        assert report.flips == sum(report.layers["flips"])
        assert list(report.nonzeros) == list(range(m, n - 2, -1)) and sum(report.nonzeros.values()) == pytest.approx(1)
        assert report.seconds >= report.seconds_gradient > 0
        previous = now
    assert "layers" not in report.record() and report.layer_record()["step"] == 3


@pytest.mark.parametrize(
    ("family", "metric", "n", "m"),
    [
        *((family, metric, 2, 4) for family in ("llama", "gpt2", "mixtral") for metric in METRICS),
        ("gpt2", "weight", 1, 4),
        ("llama", "activation", 2, 8),
    ],
)
def test_a_resumed_run_is_bit_identical(family, metric, n, m, tmp_path):
    settings = {"metric": metric, "steps": 6, "accumulation": 2, "n": n, "m": m}
    undisturbed = make(family, **settings)
    for step in range(6):
        if step == 2:
            undisturbed.lambda1 = 0.08
        undisturbed.step()
    first = make(family, **settings)
    for step in range(3):
        if step == 2:
            first.lambda1 = 0.08
        first.step()
    tensors, rest = first.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "state.safetensors")
    second = make(family, **settings)
    second.load_state_dict(load_file(tmp_path / "state.safetensors"), rest)
    assert second.step_index == 3 and second.lambda1 == 0.08
    for _ in range(3):
        report = second.step()
    for name, layer in second.layers.items():
        assert torch.equal(layer.matrix, undisturbed.layers[name].matrix)
    assert set(second.masks().flips(undisturbed.masks()).values()) == {0}
    assert report.flips_from_start == sum(undisturbed.start.flips(undisturbed.masks()).values())


def test_a_foreign_checkpoint_is_refused():
    tensors, rest = make("llama").state_dict()
    with pytest.raises(ProxSparseError, match="does not fit this run"):
        make("gpt2").load_state_dict(tensors, rest)


def test_the_strength_changes_at_any_step():
    learner = make(lambda1=0.0)
    assert learner.step().nonzeros[4] > 0.99
    learner.lambda1 = 5
    report = learner.step()
    assert report.lambda1 == 5 and report.nonzeros[2] + report.nonzeros[1] > 0.99
    for wrong in (-1, float("nan"), "x", True, None):
        with pytest.raises(ProxSparseError, match="lambda1 is"):
            learner.lambda1 = wrong
    assert learner.lambda1 == 5


def test_the_strength_grows_by_a_constant_factor_to_what_was_set():
    learner = make(lambda1=0.4, ramp=16.0)
    assert [report.lambda1 for report in learner] == pytest.approx([0.025, 0.05, 0.1, 0.2, 0.4])
    assert make(lambda1=0.4, ramp=16.0, steps=1).step().lambda1 == pytest.approx(0.025)


def test_a_strength_set_by_hand_grows_on_by_what_is_left():
    learner, resumed = make(lambda1=0.4, ramp=16.0), make(lambda1=0.4, ramp=16.0)
    learner.step()
    learner.lambda1 = 1.0
    assert learner.step().lambda1 == 1.0
    resumed.load_state_dict(*copy.deepcopy(learner.state_dict()))
    later = [learner.step().lambda1 for _ in range(3)]
    assert later == pytest.approx([2.0, 4.0, 8.0])
    assert [resumed.step().lambda1 for _ in range(3)] == later


def test_a_bf16_model_keeps_its_updates_and_comes_back_in_bf16():
    model = tiny_model().bfloat16()
    learner = MaskLearner(model, random_windows(), LearnConfig(**(FAST | {"learning_rate": 1e-5, "lambda1": 0.0})))
    before = {name: layer.matrix.clone() for name, layer in learner.layers.items()}
    assert all(matrix.dtype == torch.float32 for matrix in before.values())
    learner.step()
    moved = [(layer.matrix != before[name]).float().mean() for name, layer in learner.layers.items()]
    assert min(moved) > 0.95, "bf16 weights would have ignored most of these updates"
    learner.restore()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    with pytest.raises(ProxSparseError, match="has ended"):
        learner.step()


def test_bf16_autocast_is_close_to_fp32():
    losses = [make(precision=precision).step().loss for precision in ("fp32", "bf16")]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_accumulation_is_a_larger_batch():
    large, accumulated = make(batch=4), make(batch=2, accumulation=2)
    a, b = large.step(), accumulated.step()
    assert a.loss == pytest.approx(b.loss, rel=1e-5) and a.gradient_norm == pytest.approx(b.gradient_norm, rel=1e-4)


def test_the_frozen_weight_penalty_has_its_gradient_and_holds_weights():
    generator = torch.Generator().manual_seed(0)
    w, w0 = torch.randn(2, 6, 8, generator=generator, dtype=torch.float64)
    w0[0, 0] = 0
    w.requires_grad_()
    sign = torch.where(w0 < 0, -1.0, 1.0)
    ((w / (w0 + 0.1 * sign)) * (w - w0)).square().sum().backward()
    assert torch.allclose(frozen_weight_gradient(w.detach(), w0, 0.1), w.grad)
    assert doctest.testmod(frozen_weights) == (0, 2)
    free, held = make(steps=8, clip=0.0), make(steps=8, clip=0.0, lambda2=50.0)
    for _ in range(8):
        a, b = free.step(), held.step()
    assert b.drift < a.drift


def test_the_schedule_never_rests():
    for decay in ("linear", "cosine", "none"):
        config = LearnConfig(steps=50, warmup=0.2, decay=decay)
        rates = [learning_rate_at(step, config) for step in range(50)]
        assert min(rates) > 0 and max(rates) == config.learning_rate == rates[10]
        assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate_at(0, LearnConfig(steps=1, warmup=1)) == 1e-3


def test_every_window_is_drawn_once_an_epoch():
    config = LearnConfig(batch=3, seed=5)
    drawn = torch.cat([drawn for step in range(8) for drawn in passes_at(step, 12, config)])
    assert sorted(drawn[:12].tolist()) == sorted(drawn[12:].tolist()) == list(range(12))
    assert drawn[:12].tolist() != drawn[12:].tolist()
    assert not torch.equal(
        drawn, torch.cat([drawn for step in range(8) for drawn in passes_at(step, 12, LearnConfig(batch=3))])
    )


def test_what_cannot_be_learned_is_one_sentence():
    with pytest.raises(ProxSparseError, match="1 windows and one step takes 3"):
        make(windows=random_windows(1))
    learner = make(learning_rate=1e30, steps=20, clip=0.0, loss_at="soft")
    with pytest.raises(ProxSparseError, match="lower the learning rate"):
        for _ in range(20):
            learner.step()


@pytest.mark.parametrize("family", ("llama", "gpt2", "mixtral"))
@pytest.mark.parametrize("memory", ("full", "lean"))
@pytest.mark.parametrize("loss_at", ("masked", "soft"))
def test_the_gradient_is_the_loss_s_where_the_configuration_takes_it(family, memory, loss_at):
    """Against plain autograd on a model that holds those weights."""
    precision = "fp32" if memory == "full" else "bf16"
    learner = make(
        family, clip=0.0, memory=memory, loss_at=loss_at, precision=precision, lambda1=0.3, distill=0.0, batch=2
    )
    learner.step()
    masks, soft = learner.masks(), {parameter: parameter.data.clone() for parameter in learner.originals.values}
    before = {
        parameter: learner.update.optimizer.state[parameter]["exp_avg"].clone() for parameter in soft
        if parameter in learner.update.optimizer.state
    }  # fmt: skip
    loss = learner.gradient_step()

    model = tiny_model(family)
    if loss_at == "masked":
        masks.apply_(model)
    else:
        for (_, parameter), values in zip(learner.originals.parameters.items(), soft.values(), strict=True):
            name = next(name for name, other in learner.model.named_parameters() if other is parameter)
            model.get_parameter(name).data = values.float()
    windows = learner.windows[torch.cat([*passes_at(1, len(learner.windows), learner.config)])]
    model.requires_grad_(True)
    expected = model(input_ids=windows, labels=windows).loss
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5 if memory == "full" else 1e-2)
    for name, parameter in learner.originals.parameters.items():
        if parameter not in before:  # an idle expert
            continue
        moment = learner.update.optimizer.state[parameter]["exp_avg"].float() - 0.9 * before[parameter].float()
        gradient = model.get_parameter(name).grad
        error = (moment / 0.1 - gradient).norm() / gradient.norm()
        assert error < (1e-3 if memory == "full" else 0.1), name


def test_settings_are_checked():
    for values, words in (
        ({"lambda1": -1}, "lambda1 is -1"), ({"lambda1": "x"}, "lambda1 is 'x'"), ({"learning_rate": 0}, "learning-rate is 0"),
        ({"steps": 0}, "steps is 0"), ({"steps": 1.5}, "steps is 1.5"), ({"metric": "size"}, "choose one of activation, weight"),
        ({"warmup": 2}, "warmup is 2"), ({"clip": math.inf}, "clip is inf"), ({"n": 4}, "n is 4 and m is 4: keep fewer"),
        ({"n": 8, "m": 4}, "n is 8 and m is 4: keep fewer"), ({"n": 0}, "n is 0: give 1 or more"),
        ({"m": 1}, "m is 1: give 2 or more"), ({"m": 256}, "m is 256: give 255 or less"),
    ):  # fmt: skip
        with pytest.raises(ProxSparseError, match=words):
            LearnConfig(**values)


def test_attention_is_written_out_for_short_windows_and_the_model_gets_its_own_back():
    used = []
    for length in (16, 64):
        model = tiny_model("llama")
        learner = MaskLearner(
            model, random_windows(4, length), LearnConfig(**(FAST | {"metric": "weight", "distill": 0.0}))
        )
        model.model.layers[0].register_forward_pre_hook(
            lambda block, _: used.append(block.self_attn.config._attn_implementation)
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("proxsparse.models.forward.SHORT", 32)
            learner.gradient_step()
        assert model.config._attn_implementation == "sdpa"
    assert used == ["eager", "sdpa"]
