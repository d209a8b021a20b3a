"""Which weights are found, in nine families."""

import pytest
import torch
from families.tiny_configs import tiny_config
from tiny_models import FAMILIES, random_windows, tiny_model
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

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


def tiny_of(family, **changes):
    """A random model of any family that transformers registers. changes: attributes of its configuration."""
    config = tiny_config(family)
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(
    ("family", "ends"),
    [
        ("lfm2", ("conv.out_proj", "conv.in_proj")),
        ("mamba", ("mixer.dt_proj",)),
        ("jamba", ("mamba.dt_proj",)),
        ("recurrent_gemma", ("linear_x", "linear_y", "linear_out")),
        ("qwen3_5_text", ("linear_attn.in_proj_qkv",)),
    ],
)
def test_linear_maps_beside_a_convolution_are_pruned(family, ends):
    layers = prunable_layers(tiny_of(family))
    for end in ends:
        assert any(name.endswith(end) for name in layers), end
        assert not any(name.endswith(end) for name in layers.skipped)
    assert "the kernel of a convolution" in layers.skipped.values()


class Router(torch.nn.Module):
    """Two maps under names that tell nothing, two modules deep."""

    def __init__(self, gate):
        super().__init__()
        self.first = torch.nn.Sequential(torch.nn.Linear(32, 16), torch.nn.Tanh())
        self.second = torch.nn.Linear(16, 4, bias=False)
        self.top_k = gate.top_k

    def forward(self, hidden):
        logits = self.second(self.first(hidden.flatten(0, -2)))
        values, chosen = logits.softmax(-1).topk(self.top_k)
        return logits, values / values.sum(-1, keepdim=True), chosen


def test_a_router_is_found_by_what_it_does_at_any_depth_and_under_any_name():
    model = tiny_model("mixtral")
    for block in model.model.layers:
        block.mlp.gate = Router(block.mlp.gate)
    layers = prunable_layers(model)
    maps = {f"model.layers.{index}.mlp.gate.{name}" for index in (0, 1) for name in ("first.0", "second")}
    assert set(layers.skipped) == maps and len(layers) == 24
    assert all(reason.startswith("router: ") for reason in layers.skipped.values())


@pytest.mark.parametrize(
    ("family", "changes"), [("inkling_text", {}), ("zaya", {}), ("doge", {"is_moe": True, "num_experts": 16})]
)
def test_routers_of_unusual_kinds_stay_dense(family, changes):
    """Only some of the outputs are ranked; four maps deep; two sets of keys that are ranked apart."""
    layers = prunable_layers(tiny_of(family, **changes))
    routers = {name for name, reason in layers.skipped.items() if reason.startswith("router: ")}
    assert len(routers) == {"inkling_text": 2, "zaya": 8, "doge": 2}[family]
    assert not any("router" in name or name.endswith(".mlp.gate") for name in layers)


def test_a_router_by_a_table_weighs_experts_and_stays_dense():
    """DeepSeek-V4's first blocks take the experts of a token from a table, and only their weights from the router."""
    model = tiny_of("deepseek_v4")
    hashed = [index for index, kind in enumerate(model.config.mlp_layer_types) if kind == "hash_moe"]
    skipped = prunable_layers(model).skipped
    assert hashed and all(skipped[f"model.layers.{index}.mlp.gate"].startswith("router: ") for index in hashed)


def test_a_gate_that_scales_and_does_not_choose_is_pruned():
    assert "model.layers.0.mlp.shared_expert_gate" in prunable_layers(tiny_of("qwen2_moe"))


def test_what_only_chooses_tokens_is_listed():
    layers = prunable_layers(tiny_of("deepseek_v32"))
    indexers = {name: reason for name, reason in layers.skipped.items() if ".indexer." in name}
    assert len(indexers) == 6 and all("no gradient reaches it" in reason for reason in indexers.values())
    assert not any(".indexer." in name for name in layers)


def test_cross_attention_that_a_text_does_not_run_is_listed():
    layers = prunable_layers(tiny_of("bart"))
    cross = {name: reason for name, reason in layers.skipped.items() if ".encoder_attn." in name}
    assert len(cross) == 8 and all(reason.startswith("a text does not run it") for reason in cross.values())
    assert len(layers) == 12


def test_experts_that_lie_in_one_matrix_are_layers_of_their_own():
    model = tiny_of("dbrx")
    layers = prunable_layers(model)
    stored = model.transformer.blocks[0].ffn.experts.mlp
    assert torch.equal(layers["transformer.blocks.0.ffn.experts.mlp.w1.2"].matrix, stored.w1[128:192])
    assert torch.equal(layers["transformer.blocks.0.ffn.experts.mlp.w2.3"].matrix, stored.w2[192:].t())


def test_heads_that_are_stored_apart_make_one_matrix():
    model = tiny_of("xlnet")
    layers, attention = prunable_layers(model), model.transformer.layer[0].rel_attn
    assert torch.equal(layers["transformer.layer.0.rel_attn.q"].matrix, attention.q.flatten(1).t())
    assert "rearranged" in layers.skipped["transformer.layer.0.rel_attn.o"]


def test_a_block_that_is_used_again_is_pruned_once():
    layers = prunable_layers(tiny_of("zamba2"))
    assert len({id(layer.parameter) for layer in layers.values()}) == len(layers)


def test_blocks_in_several_lists_are_all_blocks():
    names = {name.split(".")[1] for name in prunable_layers(tiny_of("xlm"))}
    assert names == {"attentions", "ffns"}
    assert {layer.block for layer in prunable_layers(tiny_of("hrm_text")).values()} == {0, 1, 2, 3}


def test_looking_at_a_model_changes_nothing_and_draws_nothing():
    model = tiny_model("mixtral").train()
    before, seed = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    prunable_layers(model)
    assert torch.equal(torch.get_rng_state(), seed) and model.training and model.model.layers[0].mlp.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_a_text_alone_does_not_run_is_one_sentence():
    with pytest.raises(
        ProxSparseError, match=r"cannot be run on a text alone \(.*\): choose a causal language model of text\.$"
    ):
        prunable_layers(tiny_of("gemma4_assistant"))
