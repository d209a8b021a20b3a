"""A streamed model computes, bit for bit, what the model in memory computes, and holds one block at a time."""

import json
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import random_windows, save_tiny_model

from proxsparse import ProxSparseError, load_model
from proxsparse.evaluation.perplexity import perplexity, window_losses
from proxsparse.layers.stored import Stored, in_memory
from proxsparse.methods import METHODS
from proxsparse.models import forward
from proxsparse.models.language_model import fingerprint
from proxsparse.models.twin import twin_of

FAMILIES = {
    "llama": ("llama", {"num_hidden_layers": 4}),
    "tied": ("llama", {"num_hidden_layers": 3, "tie_word_embeddings": True}),
    "gpt2": ("gpt2", {}),  # Conv1D, and a head tied to the embeddings
    "mixtral": ("mixtral", {"num_hidden_layers": 3}),  # experts that transformers fuses
    "opt": ("opt", {}),
    "gemma": ("gemma", {}),
}
WINDOWS = random_windows(10, 16)


@pytest.fixture(params=FAMILIES)
def directory(request, tmp_path):
    family, changes = FAMILIES[request.param]
    return str(save_tiny_model(tmp_path / "model", family, **changes))


@pytest.fixture
def llama(tmp_path):
    return str(save_tiny_model(tmp_path / "model", "llama", num_hidden_layers=4))


def both(directory, **options):
    return load_model(directory, "cpu").model, load_model(directory, "cpu", stream=True, **options).model


def same_masks(first, second):
    return list(first) == list(second) and all(torch.equal(first[name].packed, second[name].packed) for name in first)


@pytest.mark.parametrize(
    ("method", "precision"),
    [
        ("wanda", "fp32"),
        ("wanda", "bf16"),
        ("sparsegpt", "fp32"),
        ("sparsegpt", "bf16"),
        ("swaps", "auto"),
        ("admm", "auto"),
    ],
)
def test_masks_are_those_of_the_model_in_memory(directory, method, precision):
    whole, streamed = both(directory)
    wanted, found = (METHODS[method](model, WINDOWS, 2, 4, precision=precision) for model in (whole, streamed))
    assert same_masks(wanted.masks, found.masks)
    for name, weight in (wanted.weights or {}).items():
        assert torch.equal(weight, found.weights[name])
    assert all(parameter.is_meta for parameter in streamed.parameters())


@pytest.mark.parametrize("method", ["magnitude", "random"])
def test_masks_that_need_no_text(directory, method):
    whole, streamed = both(directory)
    assert same_masks(METHODS[method](whole).masks, METHODS[method](streamed).masks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_are_those_of_the_model_in_memory(directory, dtype):
    whole, streamed = (load_model(directory, "cpu", dtype, stream=stream).model for stream in (False, True))
    assert torch.equal(window_losses(whole, WINDOWS, batch=4), window_losses(streamed, WINDOWS, batch=4))
    assert all(parameter.is_meta for parameter in streamed.parameters())


def test_losses_where_logits_come_in_pieces(directory, monkeypatch):
    monkeypatch.setattr(forward, "MOST_LOGITS", 1 << 10)
    whole, streamed = both(directory)
    assert torch.equal(window_losses(whole, WINDOWS, batch=4), window_losses(streamed, WINDOWS, batch=4))


def test_hidden_states_on_disk_change_nothing(llama):
    whole, streamed = both(llama, states_bytes=5000)  # of 20 kB: some batches in memory, others not
    assert same_masks(METHODS["wanda"](whole, WINDOWS).masks, METHODS["wanda"](streamed, WINDOWS).masks)
    assert perplexity(whole, WINDOWS).value == perplexity(streamed, WINDOWS).value


def test_one_block_at_a_time_is_in_memory(llama, monkeypatch):
    streamed = load_model(llama, "cpu", stream=True).model
    now, most, opened = 0, 0, Stored.values_in

    @contextmanager
    def counted(self, parameter):
        nonlocal now, most
        first = parameter.is_meta
        with opened(self, parameter):
            now += parameter.nbytes * first
            most = max(most, now)
            yield
            now -= parameter.nbytes * first

    monkeypatch.setattr(Stored, "values_in", counted)
    METHODS["wanda"](streamed, WINDOWS)
    perplexity(streamed, WINDOWS)
    blocks = [sum(parameter.nbytes for parameter in block.parameters()) for block in streamed.model.layers]
    outside = sum(parameter.nbytes for parameter in streamed.parameters()) - sum(blocks)
    assert 0 < most <= max(blocks) + outside and now == 0


def test_values_are_there_while_they_are_needed(llama):
    whole, streamed = both(llama)
    parameter = streamed.model.layers[1].mlp.up_proj.weight
    with in_memory([parameter]):
        with in_memory(streamed.model.layers[1].parameters()):
            assert torch.equal(parameter, whole.model.layers[1].mlp.up_proj.weight)
        assert not parameter.is_meta and parameter is streamed.model.layers[1].mlp.up_proj.weight
        assert streamed.model.layers[1].mlp.down_proj.weight.is_meta
    assert parameter.is_meta


def test_weights_that_the_configuration_ties_and_the_files_do_not(llama):
    path = f"{llama}/config.json"
    with open(path) as file:
        config = json.load(file)
    with open(path, "w") as file:
        json.dump(config | {"tie_word_embeddings": True}, file)
    whole, streamed = both(llama)
    assert whole.lm_head.weight is not whole.model.embed_tokens.weight  # so transformers loads it
    assert torch.equal(window_losses(whole, WINDOWS), window_losses(streamed, WINDOWS))


def test_the_fingerprint_is_the_same(directory):
    whole, streamed = both(directory)
    assert fingerprint(whole) == fingerprint(streamed)


def test_the_model_runs_as_a_whole(directory):
    whole, streamed = both(directory)
    with torch.inference_mode():
        assert torch.equal(whole(WINDOWS).logits, streamed(WINDOWS).logits)


def test_a_failure_leaves_no_block_in_memory(llama):
    streamed = load_model(llama, "cpu", stream=True).model

    def interrupt(done, total, what):
        if done > 14:
            raise KeyboardInterrupt

    for measure in (METHODS["wanda"], perplexity):
        with pytest.raises(KeyboardInterrupt):
            measure(streamed, WINDOWS, progress=interrupt)
        assert all(parameter.is_meta for parameter in streamed.parameters())


def test_a_twin_has_one_block_of_each_kind():
    from transformers import Glm4MoeConfig
    from transformers.models.auto.modeling_auto import AutoModelForCausalLM

    config = Glm4MoeConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, moe_intermediate_size=16, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, n_group=1,
        topk_group=1, first_k_dense_replace=2, pad_token_id=0,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    twin = twin_of(model)
    kinds = [type(block.mlp) for block in model.model.layers]
    assert [type(block.mlp) for block in twin.model.layers] == [kinds[0], kinds[-1]] and kinds[0] != kinds[-1]
    assert not any(parameter.is_meta for parameter in twin.parameters())


# What cannot be streamed


def refused(words, directory):
    with pytest.raises(ProxSparseError, match=words):
        load_model(directory, "cpu", stream=True)


def change_weights(directory, change):
    path = f"{directory}/model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_weights_of_another_shape_are_refused(llama):
    change_weights(llama, lambda tensors: tensors.update({"model.norm.weight": torch.ones(16)}))
    refused("model.norm.weight of .* has another shape", llama)


def test_missing_weights_are_refused(llama):
    change_weights(llama, lambda tensors: tensors.pop("model.norm.weight"))
    refused("lacks 1 of the", llama)


def test_a_weight_outside_of_the_blocks_may_be_used_from_everywhere(llama):
    whole, streamed = both(llama)
    for model in (whole, streamed):

        def use(_, inputs, model=model):
            model.model.embed_tokens.weight[3].sum().item()
            return tuple(states.to(model.model.norm.weight.device) for states in inputs) or None

        model.model.register_forward_pre_hook(use)
        model.lm_head.register_forward_pre_hook(use)
    assert torch.equal(window_losses(whole, WINDOWS), window_losses(streamed, WINDOWS))


@pytest.mark.parametrize(
    "used", [lambda weight, states: weight.sum().item(), lambda weight, states: states.to(weight.device)]
)
def test_a_weight_of_a_block_that_is_used_from_elsewhere_is_one_sentence(llama, used):
    streamed = load_model(llama, "cpu", stream=True).model
    weight = streamed.model.layers[1].input_layernorm.weight
    streamed.model.norm.register_forward_pre_hook(lambda _, inputs: (used(weight, inputs[0]),))
    with pytest.raises(ProxSparseError, match="LlamaForCausalLM uses a weight outside of the module that holds it"):
        perplexity(streamed, WINDOWS)


def test_hidden_states_that_change_between_blocks_are_refused(llama):
    streamed = load_model(llama, "cpu", stream=True).model
    streamed.model.layers[2].register_forward_pre_hook(lambda _, inputs: (2 * inputs[0], *inputs[1:]))
    with pytest.raises(ProxSparseError, match="computes with the hidden states between two blocks"):
        perplexity(streamed, WINDOWS)


def test_a_text_of_its_own_is_not_written_token_by_token(llama, tmp_path, monkeypatch):
    monkeypatch.setenv("PROXSPARSE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ProxSparseError, match="would be read from disk for every token"):
        load_model(llama, "cpu", stream=True).windows("self", 16)


def test_files_that_are_gone_are_one_sentence(llama, tmp_path):
    streamed = load_model(llama, "cpu", stream=True).model
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(ProxSparseError, match="can no longer be read"):
        METHODS["magnitude"](streamed)
