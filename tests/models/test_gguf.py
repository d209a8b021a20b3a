"""GGUF files: read as what they hold, or refused."""

import numpy as np
import pytest
import torch
from tiny_models import VOCABULARY, tiny_model

from proxsparse import ProxSparseError, load_model

gguf = pytest.importorskip("gguf")
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
INSIDE = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the tiny Llama as a GGUF file, without or with some more tensors; returns its path."""
    monkeypatch.setenv("PROXSPARSE_CACHE", str(tmp_path / "cache"))

    def write(without=(), more=()):
        path = tmp_path / "tiny.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_context_length(64)
        writer.add_embedding_length(32)
        writer.add_block_count(2)
        writer.add_feed_forward_length(64)
        writer.add_head_count(4)
        writer.add_head_count_kv(2)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_vocab_size(VOCABULARY)
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(["<pad>", "<s>", "</s>", *map(chr, range(3, VOCABULARY - 1)), "ab"])
        writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (VOCABULARY - 3))
        writer.add_token_merges(["a b"])
        names = OUTSIDE | {
            f"model.layers.{i}.{ours}": f"blk.{i}.{theirs}" for i in (0, 1) for ours, theirs in INSIDE.items()
        }
        for name, tensor in tiny_model().state_dict().items():
            stored = f"{names[name.removesuffix('.weight')]}.weight"
            if stored not in without:
                writer.add_tensor(stored, tensor.numpy())
        for name in more:
            writer.add_tensor(name, np.ones(32, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def refusal(path) -> str:
    with pytest.raises(ProxSparseError) as caught:
        load_model(str(path), "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_file(write):
    model, original = load_model(str(write()), "cpu").model, tiny_model().to(torch.bfloat16)
    for name, tensor in original.state_dict().items():
        if "q_proj" not in name and "k_proj" not in name:  # whose rows a GGUF file holds in another order
            assert torch.equal(model.state_dict()[name], tensor), name


def test_a_missing_tensor_is_refused_and_nothing_is_kept(write, tmp_path):
    said = refusal(write(without=["blk.1.ffn_up.weight"]))
    assert "tiny.gguf lacks 1 of the 21 tensors of LlamaForCausalLM, first model.layers.1.mlp.up_proj.weight" in said
    assert not list((tmp_path / "cache" / "models").glob("*/config.json"))


def test_what_is_not_read_is_refused(write):
    said = refusal(write(more=["blk.1.ffn_up.scale"]))
    assert said == "tiny.gguf holds 32 values that transformers does not read: give the model as safetensors instead."
    assert "32 values that transformers does not read (rope_freqs.weight, the" in refusal(
        write(more=["rope_freqs.weight"])
    )
    assert "first model.layers.0." in refusal(write(without=["blk.0.attn_norm.weight"], more=["blk.0.other.weight"]))


def test_a_pointer_of_git_lfs_is_called_so(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    assert "is a Git LFS pointer and not the file itself: run `git lfs pull`" in refusal(path)


def test_nothing_beside_a_file_is_read(write, monkeypatch):
    """Whoever may write beside it could bring an adapter, code, or a link to somebody's file."""
    path = write()
    code = '{"auto_map": {"AutoConfig": "x.X", "AutoTokenizer": ["x.X", null]}, "base_model_name_or_path": "x"}'
    for name in ("config", "tokenizer_config", "adapter_config", "generation_config", "tokenizer"):
        (path.parent / f"{name}.json").write_text(code)
    (path.parent / "special_tokens_map.json").symlink_to("/etc/passwd")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody is asked"))
    assert load_model(str(path), "cpu").context == 64
