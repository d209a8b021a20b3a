"""Masked weights that are bf16 already, where matrices are multiplied in bf16: autocast has nothing to cast, and nothing changes."""

import pytest
import torch
from tiny_models import FAMILIES, random_windows, tiny_model

from proxsparse import LearnConfig, MaskLearner, prunable_layers
from proxsparse.learning import learner as module
from proxsparse.learning.gradients import summed_gradients
from proxsparse.learning.originals import Originals
from proxsparse.masks.mask_set import MaskSet

SETTINGS = {"steps": 3, "metric_windows": 4, "precision": "bf16", "lambda1": 0.05, "ramp": 1.0}


def learned(family, dtype, **settings):
    """(losses and norms, soft weights, masks)."""
    with MaskLearner(tiny_model(family).to(dtype), random_windows(), LearnConfig(**SETTINGS | settings)) as learner:
        reports = [learner.step() for _ in range(3)]
        weights = [parameter.data.clone() for parameter in learner.originals.values]
        masks = [mask.packed for mask in learner.masks().values()]
    return [(report.loss, report.gradient_norm) for report in reports], weights, masks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("family", "settings"),
    [(family, {}) for family in FAMILIES]
    + [
        ("llama", {"accumulation": 3}),
        ("llama", {"lambda2": 1.0}),
        ("llama", {"distill": 0.5}),
        ("llama", {"n": 2, "m": 8}),
    ],
)
def test_every_step_is_what_autocast_makes_of_float32_weights(family, settings, dtype, monkeypatch):
    steps, weights, masks = learned(family, dtype, **settings)
    monkeypatch.setattr(module, "arithmetic", lambda device, precision: torch.float32)
    expected_steps, expected_weights, expected_masks = learned(family, dtype, **settings)
    assert steps == expected_steps
    assert all(map(torch.equal, weights, expected_weights))
    assert all(map(torch.equal, masks, expected_masks))


def test_only_what_autocast_casts_is_held_in_its_arithmetic():
    """Not what is multiplied by something else than a linear map, here all experts at once."""
    model = tiny_model("mixtral")
    layers = prunable_layers(model)
    originals = Originals(model, layers)
    for layer in layers.values():
        masked = originals.under(layer.parameter, MaskSet(), torch.bfloat16)
        together = layer.stored is not None
        assert masked.dtype == (torch.float32 if together else torch.bfloat16)
        assert torch.equal(masked, layer.parameter.data.to(masked.dtype)), "without a mask it stays dense"
    assert {layer.stored is None for layer in layers.values()} == {True, False}


def test_gradients_are_summed_in_float32_whatever_parameters_hold():
    parameter, idle = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    soft, passes = parameter.data, (1.0, 2**-9, 2**-9)
    with summed_gradients({parameter: parameter, idle: idle}):
        parameter.data = soft.bfloat16()
        for factor in passes:
            (parameter * factor).sum().backward()
        parameter.data = soft
    assert parameter.grad.dtype == torch.float32 and idle.grad is None
    assert parameter.grad.tolist() == [1 + 2**-8] * 3, "a sum in bf16 would have lost the small ones"
    parameter.sum().backward()
    assert parameter.grad.tolist() == [2 + 2**-8] * 3, "nothing is left attached"
