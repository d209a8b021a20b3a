"""Layers that the activation metric never saw are named, and where it saw none there is no metric."""

import warnings

import pytest
import torch
from tiny_models import random_windows, tiny_model

from proxsparse import LearnConfig, MaskLearner, ProxSparseError, prunable_layers
from proxsparse.models.activations import activation_scales


def test_idle_experts_are_counted_and_named():
    model = tiny_model("mixtral")
    layers = prunable_layers(model)
    with pytest.warns(UserWarning, match=r"8 of 24 layers saw no token .*experts.* the first: their weights compete"):
        scales = activation_scales(model, layers, random_windows(1, 1), "fp32")  # one token: two of the four experts
    assert len(scales.unseen) == 8 and all(".experts." in name for name in scales.unseen)
    for name, scale in scales.items():
        assert torch.equal(scale, torch.ones_like(scale)) == (name in scales.unseen)


def test_a_linear_map_that_never_runs_is_left_dense_and_listed():
    model = tiny_model()
    model.model.layers[1].extra = torch.nn.Linear(32, 32, bias=False)
    layers = prunable_layers(model)
    assert layers.skipped == {"model.layers.1.extra": "a text does not run it (tried with 64 tokens)"}
    assert activation_scales(model, layers, random_windows(), "fp32").unseen == ()


def test_where_no_layer_was_seen_there_is_no_metric():
    with pytest.raises(ProxSparseError, match="No token of the calibration text reached any of the 14 prunable layers"):
        activation_scales(tiny_model(), prunable_layers(tiny_model()), random_windows(), "fp32")


def test_where_every_layer_was_seen_nothing_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = tiny_model()
        assert activation_scales(model, prunable_layers(model), random_windows(), "fp32").unseen == ()


def test_where_no_gradient_arrives_no_mask_is_learned():
    with (
        MaskLearner(
            tiny_model(),
            random_windows(),
            LearnConfig(steps=2, batch=2),
            loss=lambda learner, windows: torch.tensor(1.0),
        ) as learner,
        pytest.raises(ProxSparseError, match=r"No gradient reaches the prunable weights of LlamaForCausalLM"),
    ):
        learner.step()
