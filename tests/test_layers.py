"""Which weights are found, in nine families."""

import pytest
import torch
from tiny_models import FAMILIES, random_windows, tiny_model

from proxsparse import ProxSparseError, prunable_layers
from proxsparse.models.activations import activation_scales

LLAMA = {
    "q_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32), "o_proj": (32, 32),
    "gate_proj": (64, 32), "up_proj": (64, 32), "down_proj": (32, 64),
}  # fmt: skip
EXPECTED = {
    "llama": LLAMA, "qwen2": LLAMA, "mistral": LLAMA, "gemma": LLAMA,
    "gpt2": {"c_attn": (96, 32), "attn.c_proj": (32, 32), "c_fc": (128, 32), "mlp.c_proj": (32, 128)},
    "opt": {
        "q_proj": (32, 32), "k_proj": (32, 32), "v_proj": (32, 32), "out_proj": (32, 32), "fc1": (64, 32), "fc2": (32, 64),
    },
    "gpt_neox": {
        "query_key_value": (96, 32), "dense": (32, 32), "dense_h_to_4h": (64, 32), "dense_4h_to_h": (32, 64),
    },
    "phi3": {"qkv_proj": (64, 32), "o_proj": (32, 32), "gate_up_proj": (128, 32), "down_proj": (32, 64)},
    "mixtral": {name: LLAMA[name] for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
    | {"mlp.experts.gate_up_proj": (128, 32), "mlp.experts.down_proj": (32, 64)},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_map_of_the_blocks_and_nothing_else(family):
    model = tiny_model(family)
    layers = prunable_layers(model)
    shapes = {layer.projection: (layer.out_features, layer.in_features) for layer in layers.values()}
    assert shapes == EXPECTED[family]
    copies = 4 if family == "mixtral" else 1
    experts = sum("experts" in projection for projection in shapes)
    assert len(layers) == 2 * (len(shapes) - experts + experts * copies)
    assert {layer.block for layer in layers.values()} == {0, 1}
    assert all(layer.transposed == (family == "gpt2") for layer in layers.values())
    owned = {id(parameter) for parameter in layers.parameters()}
    left = [name for name, parameter in model.named_parameters() if id(parameter) not in owned and parameter.ndim > 1]
    allowed = ("embed", "wte", "wpe", "lm_head", "project_in", "project_out", "mlp.gate.weight")
    assert all(any(part in name for part in allowed) for name in left), left
    routers = {"model.layers.0.mlp.gate", "model.layers.1.mlp.gate"} if family == "mixtral" else set()
    assert set(layers.skipped) == routers
    assert all("router" in reason for reason in layers.skipped.values())


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_matrix_is_a_view_and_its_columns_are_input_features(family):
    """Dropping column j of a matrix must do what dropping input feature j does."""
    model = tiny_model(family)
    layers = prunable_layers(model)
    windows = random_windows(2, 16)
    before = model(input_ids=windows).logits
    name, layer = next(iter(layers.items()))
    module = model.get_submodule(name)
    feature = 5

    def drop(_, inputs):
        dropped = inputs[0].clone()
        dropped[..., feature] = 0
        return (dropped, *inputs[1:])

    handle = module.register_forward_pre_hook(drop)
    expected = model(input_ids=windows).logits
    handle.remove()
    layer.matrix[:, feature] = 0
    result = model(input_ids=windows).logits
    assert not torch.allclose(result, before)
    assert torch.allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_activation_scales_are_the_norms_of_what_each_matrix_multiplies(family):
    model = tiny_model(family)
    layers = prunable_layers(model)
    windows = random_windows(6, 16)
    scales = activation_scales(model, layers, windows, precision="fp32")
    assert scales.keys() == layers.keys()
    for name, scale in scales.items():
        assert scale.shape == (layers[name].in_features,)
        assert (scale > 0).all() and scale.log().mean().abs() < 1e-4
    name = next(iter(layers))  # by hand, for a module of its own
    squares = torch.zeros(layers[name].in_features)

    def add(_, inputs):
        squares.add_(inputs[0].detach().flatten(0, -2).square().sum(0))

    handle = model.get_submodule(name).register_forward_pre_hook(add)
    with torch.no_grad():
        for window in windows:
            model(input_ids=window.unsqueeze(0))
    handle.remove()
    norms = squares.sqrt()
    assert torch.allclose(scales[name], norms / norms.log().mean().exp(), rtol=1e-3)


def test_the_experts_of_one_projection_have_scales_of_their_own():
    model = tiny_model("mixtral")
    layers = prunable_layers(model)
    scales = activation_scales(model, layers, random_windows(6, 16), precision="fp32")
    first, second = (scales[f"model.layers.0.mlp.experts.down_proj.{expert}"] for expert in (0, 1))
    assert not torch.allclose(first, second)


def test_what_groups_do_not_divide_is_reported():
    layers = prunable_layers(tiny_model("llama", intermediate_size=34))
    assert layers.skipped == {
        f"model.layers.{block}.mlp.down_proj": "input dimension 34 is not a multiple of 4" for block in (0, 1)
    }
    assert len(layers) == 12
    wide = prunable_layers(tiny_model("llama"), m=64)
    assert {layer.projection for layer in wide.values()} == {"down_proj"} and len(wide.skipped) == 12
    assert set(wide.skipped.values()) == {"input dimension 32 is not a multiple of 64"}


def test_a_model_without_prunable_layers_is_one_sentence():
    with pytest.raises(ProxSparseError, match=r"no prunable layer .*multiple of 48.*another model or pattern\.$"):
        prunable_layers(tiny_model("gpt_neox"), m=48)
