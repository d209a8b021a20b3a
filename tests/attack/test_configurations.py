"""Whatever a configuration or a GGUF header asks for: a model that its files hold, or one sentence, before memory is taken."""

import json
import struct

import pytest
from tiny_models import save_tiny_model

from proxsparse import ProxSparseError, load_model
from proxsparse.models import gguf

VALUES = (0, -1, 10**7, 10**30, None, "x", [], {}, 1e300, True, [1] * 5, -0.5)
CONFIG = (
    "architectures", "attention_bias", "attention_dropout", "bos_token_id", "dtype", "eos_token_id", "head_dim", "hidden_act",
    "hidden_size", "initializer_range", "intermediate_size", "max_position_embeddings", "mlp_bias", "model_type",
    "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "pad_token_id", "pretraining_tp", "rms_norm_eps",
    "rope_parameters", "tie_word_embeddings", "transformers_version", "use_cache", "vocab_size",
)  # fmt: skip


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("asked") / "model")


def loaded_or_said(name):
    """Whether it was loaded; else the sentence is checked."""
    try:
        load_model(str(name), "cpu")
        return True
    except ProxSparseError as error:
        said = str(error)
        assert "\n" not in said and len(said) < 400 and said.endswith(".")
        return False


@pytest.mark.parametrize("key", CONFIG)
def test_a_value_that_no_model_has_is_taken_or_refused(directory, key):
    path = directory / "config.json"
    before = path.read_text()
    try:
        for value in VALUES:
            path.write_text(json.dumps(json.loads(before) | {key: value}))
            loaded_or_said(directory)
    finally:
        path.write_text(before)
    assert loaded_or_said(directory)


def test_the_keys_are_those_of_a_llama(directory):
    assert set(CONFIG) == set(json.loads((directory / "config.json").read_text()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 300_000}, "asks for 300,000 layers and its files hold"),
        ({"hidden_size": 10**7}, "parameters, more than its files have room for"),
        ({"vocab_size": 10**9}, "parameters, more than its files have room for"),
    ],
)
def test_more_than_the_files_hold_is_refused_before_it_is_built(directory, changes, words):
    path = directory / "config.json"
    before = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(before) | changes))
        with pytest.raises(ProxSparseError, match=words):
            load_model(str(directory), "cpu")
    finally:
        path.write_text(before)


def header(version=3, tensors=0, entries=0, rest=b""):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + rest


def text(value):
    return struct.pack("<Q", len(value)) + value


HEADERS = {
    "empty": b"GGUF",
    "nothing": header(),
    "tensors without end": header(tensors=2**60),
    "entries without end": header(entries=2**60),
    "version of the future": header(version=99),
    "version of the other end": header(version=3 << 24),
    "a name without end": header(entries=1, rest=struct.pack("<Q", 2**62)),
    "a value of no type": header(entries=1, rest=text(b"general.architecture") + struct.pack("<I", 4_000_000_000)),
    "an array without end": header(entries=1, rest=text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2**62)),
    "arrays in arrays": header(entries=1, rest=text(b"a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000),
    "no architecture": header(entries=1, rest=text(b"general.name") + struct.pack("<I", 8) + text(b"x")),
    "an unknown architecture": header(
        entries=1, rest=text(b"general.architecture") + struct.pack("<I", 8) + text(b"dreams")
    ),
    "half a character": header(entries=1, rest=text(b"\xff\xfe") + struct.pack("<I", 8) + text(b"\xed\xa0\x80")),
    "a tensor of no size": header(tensors=1, rest=text(b"x") + struct.pack("<IQIQ", 1, 0, 0, 0) + bytes(64)),
    "a tensor beyond the end": header(
        tensors=1, rest=text(b"x") + struct.pack("<IQIQ", 1, 2**50, 0, 2**55) + bytes(64)
    ),
    "a tensor of too many dimensions": header(tensors=1, rest=text(b"x") + struct.pack("<I", 2**31)),
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_a_gguf_header_that_promises_what_is_not_there(content, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "cache_dir", lambda: tmp_path / "cache")
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    assert not loaded_or_said(file)
