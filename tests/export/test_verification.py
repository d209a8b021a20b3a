"""What `verify` proves, and what it finds: every parameter and every buffer counts, whatever its dtype."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import LLAMA_LIKE, tiny_model, tiny_tokenizer
from transformers import Glm4MoeConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from proxsparse import Mask, MaskSet, export_model, load_model, prunable_layers, verify
from proxsparse.export.verification import _changed_elsewhere, _same_bits

ROUTER_BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A tiny mixture of experts whose routers keep a bias as a persistent buffer."""
    directory = tmp_path_factory.mktemp("models") / "glm4-moe"
    config = Glm4MoeConfig(
        **LLAMA_LIKE, head_dim=8, moe_intermediate_size=16, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2,
        n_group=1, topk_group=1, first_k_dense_replace=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.get_buffer(ROUTER_BIAS).normal_()
    model.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


def masks_of(model):
    return MaskSet({name: Mask.project(layer.matrix) for name, layer in prunable_layers(model).items()})


@pytest.fixture(params=("dense", "compact"))
def exported(request, original, tmp_path):
    """An export, and the file that holds its weights."""
    lm = load_model(str(original), "cpu")
    export_model(lm, masks_of(lm.model), tmp_path / "sparse", format=request.param)
    return tmp_path / "sparse", "model.safetensors" if request.param == "dense" else "compact.safetensors"


def test_a_changed_persistent_buffer_is_found(exported):
    directory, file = exported
    assert verify(directory).ok
    with safe_open(directory / file, "pt") as opened:
        about = opened.metadata()
    tensors = {name: tensor.clone() for name, tensor in load_file(directory / file).items()}
    tensors[ROUTER_BIAS][2] += 1
    save_file(tensors, directory / file, about)
    found = verify(directory)
    assert not found.ok and found.changed_elsewhere == [ROUTER_BIAS]
    assert f"{ROUTER_BIAS} lies outside the masked layers and is not as in" in found.summary


def test_what_the_configuration_computes_is_compared(exported):
    path = exported[0] / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"]["rope_theta"] *= 2
    path.write_text(json.dumps(config))
    assert "model.rotary_emb.inv_freq" in verify(exported[0]).changed_elsewhere


def test_tensors_that_only_one_of_two_models_has_are_named():
    ours, theirs = tiny_model("llama"), tiny_model("llama")
    masks = masks_of(ours)
    layers = prunable_layers(ours), prunable_layers(theirs)
    assert _changed_elsewhere(ours, theirs, *layers, masks) == []
    ours.register_buffer("more", torch.zeros(2, dtype=torch.int64))
    theirs.model.norm.register_buffer("less", torch.ones(1, dtype=torch.bool), persistent=False)
    assert _changed_elsewhere(ours, theirs, *layers, masks) == ["more", "model.norm.less"]


EIGHT_BITS = [torch.bool, torch.uint8, torch.int8, torch.float8_e4m3fn, torch.float8_e5m2]
MORE_BITS = [torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", [*EIGHT_BITS, *MORE_BITS, torch.complex64, torch.complex128])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_bits_of_every_dtype_are_compared(dtype, shape):
    zeros = torch.zeros(shape, dtype=dtype)
    ones = torch.ones(shape).to(dtype)
    assert _same_bits(zeros, zeros.clone()) and _same_bits(ones, ones.clone()) and not _same_bits(zeros, ones)
    assert not _same_bits(zeros, zeros[None])
    if dtype.is_floating_point:
        not_a_number = torch.full(shape, float("nan")).to(dtype)
        assert _same_bits(not_a_number, not_a_number.clone()) and not _same_bits(
            zeros, torch.full(shape, -0.0).to(dtype)
        )
