"""A model is loaded as its checkpoint holds it, or refused in one sentence."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, save_tiny_model, tiny_model, tiny_tokenizer
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    DeepseekV3Config,
    MambaConfig,
    RecurrentGemmaConfig,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from proxsparse import Mask, MaskSet, ProxSparseError, export_model, load_model, prunable_layers, verify
from proxsparse.cli import main
from proxsparse.models.checks import check_causal


@pytest.fixture
def directory(tmp_path, tiny_directory):
    """A copy of the tiny Llama that a test may spoil."""
    return shutil.copytree(tiny_directory, tmp_path / "model")


def rename(directory, change):
    """Write the tensors as `change({name: tensor})` gives them."""
    save_file(change(load_file(directory / "model.safetensors")), directory / "model.safetensors", {"format": "pt"})


def refusal(directory) -> str:
    with pytest.raises(ProxSparseError) as caught:
        load_model(str(directory), "cpu")
    sentence = str(caught.value)
    assert str(directory) in sentence and "\n" not in sentence and sentence.endswith(".")
    return sentence


@pytest.mark.parametrize("wrapper", ["_orig_mod", "module", "_fsdp_wrapped_module"])
def test_names_of_a_wrapped_model_are_refused(directory, wrapper):
    rename(directory, lambda tensors: {f"{wrapper}.{name}": tensor for name, tensor in tensors.items()})
    said = refusal(directory)
    assert "lacks 21 of the 21 tensors of LlamaForCausalLM, first lm_head.weight, and random numbers" in said
    assert f"save the model inside, `model.{wrapper}`, or take `{wrapper}.` out of the names" in said


def test_a_wrapper_inside_is_found_as_well(directory):
    wrapped = "layers.1._checkpoint_wrapped_module."
    rename(directory, lambda tensors: {name.replace("layers.1.", wrapped): tensors[name] for name in tensors})
    assert "take `_checkpoint_wrapped_module.` out of the names" in refusal(directory)


def test_a_missing_block_is_refused(directory):
    rename(directory, lambda tensors: {k: v for k, v in tensors.items() if ".layers.1." not in k})
    assert "lacks 9 of the 21 tensors" in (said := refusal(directory))
    assert "first model.layers.1.input_layernorm.weight" in said and "give the complete checkpoint" in said


def test_one_missing_tensor_is_refused_and_a_tied_one_is_not_missing(tmp_path, directory):
    rename(directory, lambda tensors: {k: v for k, v in tensors.items() if k != "lm_head.weight"})
    assert "lacks 1 of the 21 tensors of LlamaForCausalLM, first lm_head.weight" in refusal(directory)
    save_tiny_model(tmp_path / "tied", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    load_model(str(tmp_path / "tied"), "cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_wrote_is_whole(family, tmp_path):
    lm = load_model(str(save_tiny_model(tmp_path, family)), "cpu")
    for name, tensor in tiny_model(family).state_dict().items():
        assert torch.equal(tensor, lm.model.state_dict()[name]), name


@pytest.mark.parametrize("name", ["weight_scale", "weight_scale_inv", "input_scale", "qzeros", "weight.absmax"])
def test_scales_of_a_quantization_that_was_not_undone_are_refused(directory, name):
    key = f"model.layers.0.mlp.up_proj.{name}"
    rename(directory, lambda tensors: tensors | {key: torch.ones(1)})
    said = refusal(directory)
    assert f"holds 1 tensors that LlamaForCausalLM has no place for, first {key}" in said
    assert "quantized" in said and "give the model's full-precision checkpoint" in said


@pytest.mark.parametrize("name", ["model.layers.2.mlp.up_proj.weight", "v_head.summary.weight", "score.weight"])
def test_other_tensors_without_a_place_are_refused(directory, name):
    rename(directory, lambda tensors: tensors | {name: torch.ones(2)})
    assert f"no place for, first {name}: give weights and config.json of one model" in refusal(directory)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.1.attn.masked_bias",
        "h.0.attn.bias",
        "model.embeddings.position_ids",
        "mtp.layers.0.mlp.up_proj.weight",
        "vision_tower.blocks.0.weight",
    ],
)
def test_what_a_forward_pass_over_text_never_takes_may_be_left_over(directory, name):
    rename(directory, lambda tensors: tensors | {name: torch.ones(2)})
    load_model(str(directory), "cpu")


def test_blocks_that_predict_further_tokens_may_be_left_over(tmp_path):
    config = DeepseekV3Config(
        vocab_size=128, hidden_size=32, intermediate_size=64, moe_intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1,
        kv_lora_rank=16, q_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, max_position_embeddings=64,
        num_nextn_predict_layers=1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    rename(tmp_path, lambda tensors: tensors | {"model.layers.2.eh_proj.weight": torch.ones(2)})
    load_model(str(tmp_path), "cpu")
    rename(tmp_path, lambda tensors: tensors | {"model.layers.3.eh_proj.weight": torch.ones(2)})
    assert "first model.layers.3.eh_proj.weight" in refusal(tmp_path)


def test_another_shape_is_refused(directory):
    rename(directory, lambda tensors: tensors | {"lm_head.weight": torch.ones(100, 32)})
    assert "1 tensors of" in (said := refusal(directory))
    assert "first lm_head.weight: (100, 32) instead of (128, 32)" in said


def test_an_encoder_decoder_is_refused(tmp_path):
    config = BartConfig(
        vocab_size=128, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert "is an encoder-decoder (bart), whose decoder alone is no language model" in refusal(tmp_path)


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_beside_the_model_is_refused(directory, file):
    (directory / file).write_text("{}")
    said = refusal(directory)
    assert f"holds an adapter ({file})" in said and "merge it first" in said
    (directory / "config.json").unlink()  # an adapter alone
    assert "merge it first" in refusal(directory)


def test_an_adapter_on_the_hub_is_refused(directory, monkeypatch):
    monkeypatch.setattr(
        "transformers.utils.find_adapter_config_file", lambda source, **_: f"{source}/adapter_config.json"
    )
    with pytest.raises(ProxSparseError, match=r"^org/model holds an adapter .* merge it first"):
        load_model("org/model", "cpu")


def test_weights_of_an_adapter_in_the_model_are_refused(directory):
    rename(directory, lambda tensors: tensors | {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 32)})
    assert "belong to an adapter: merge it first" in refusal(directory)


def bert(**changes):
    torch.manual_seed(0)
    return BertConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, **changes,
    )  # fmt: skip


def test_a_model_that_sees_later_tokens_is_refused(tmp_path):
    BertForMaskedLM(bert()).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert "is no causal language model: as BertLMHeadModel" in refusal(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_causal_models_of_every_kind_pass(dtype):
    recurrent = RecurrentGemmaConfig(
        vocab_size=128, hidden_size=32, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, lru_width=32,
        attention_window_size=16, block_types=("recurrent", "attention"),
    )  # fmt: skip
    state_space = MambaConfig(vocab_size=128, hidden_size=32, num_hidden_layers=2, state_size=8, time_step_rank=4)
    models = [AutoModelForCausalLM.from_config(config) for config in (recurrent, state_space, bert(is_decoder=True))]
    for model in (*models, *map(tiny_model, FAMILIES), tiny_model("mistral", sliding_window=2)):
        check_causal("a model", model.to(dtype).eval())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_a_mark_of_quantization_that_no_longer_holds_is_not_exported(directory, tmp_path):
    config = json.loads((directory / "config.json").read_text())
    marked = config | {"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}
    (directory / "config.json").write_text(json.dumps(marked))
    lm = load_model(str(directory), "cpu")
    masks = MaskSet({name: Mask.project(layer.matrix) for name, layer in prunable_layers(lm.model).items()})
    for format in ("dense", "compact"):
        export_model(lm, masks, tmp_path / format, format=format)
        assert "quantization_config" not in (tmp_path / format / "config.json").read_text()
        assert verify(tmp_path / format).ok


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows(tmp_path, text_file, capsys):
    model = tiny_model()
    model.resize_token_embeddings(100)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert "has 28 tokens beyond the 100 rows of the model's embedding, first 'd' (100)" in refusal(tmp_path)
    assert main(["eval", str(tmp_path), "--corpus", str(text_file), "--context", "32"]) == 2
    assert "error: The tokenizer of" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_of_git_lfs_is_called_so(directory, file):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (directory / file).write_text(pointer)
    assert f"{file} is a Git LFS pointer and not the file itself: run `git lfs pull`" in refusal(directory)


def test_a_compact_export_is_held_to_the_same(directory, tmp_path):
    lm = load_model(str(directory), "cpu")
    masks = MaskSet({name: Mask.project(layer.matrix) for name, layer in prunable_layers(lm.model).items()})
    target = tmp_path / "compact"
    export_model(lm, masks, target, format="compact")
    (target / "adapter_config.json").write_text("{}")
    assert "merge it first" in refusal(target)
    (target / "adapter_config.json").unlink()
    load_model(str(target), "cpu")
    file = target / "compact.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    assert "Git LFS pointer" in refusal(target)


def test_a_broken_tokenizer_is_one_sentence(directory):
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    tokenizer["model"]["type"] = "Other"
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "cannot be loaded (its tokenizer cannot be read: " in refusal(directory)
