"""Where weights come from, and what is said when they do not come."""

import shutil
import time

import pytest
import torch
from tiny_models import tiny_model

from proxsparse import ProxSparseError, load_model, prunable_layers
from proxsparse.cli import main
from proxsparse.models import load
from proxsparse.models.gguf import embedded_gguf
from proxsparse.models.language_model import resolve_device


def test_a_directory(tiny_directory):
    lm = load_model(str(tiny_directory))
    assert lm.context == 64 and lm.name == str(tiny_directory)
    assert not lm.model.training and lm.model.dtype == torch.float32
    assert lm.tokenizer("AB")["input_ids"] == [65, 66]
    assert load_model(str(tiny_directory), dtype=torch.bfloat16).model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nothing-here", "There is no directory"),
        ("a/b/c", "There is no directory"),
        ("missing.gguf", "There is no file"),
        ("nobody/nothing", "cannot be reached"),
        ("not a name", "neither a directory nor a Hub id"),
    ],
)
def test_a_wrong_name_is_one_sentence(name, words):
    with pytest.raises(ProxSparseError, match=words) as caught:
        load_model(name)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_a_directory_without_a_model(tmp_path):
    with pytest.raises(ProxSparseError, match=r"no config\.json: give that of a transformers model"):
        load_model(str(tmp_path))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ProxSparseError, match="it is a run, export it first"):
        load_model(str(tmp_path))


def test_what_looks_like_a_path_is_never_asked_of_the_hub(tmp_path, monkeypatch, tiny_directory, capsys):
    def asked():
        raise AssertionError("the Hub is asked")

    monkeypatch.setattr(load, "hub_answers", asked)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "file").touch()
    for name in ("runs/misspelt", "models/misspelt", "./misspelt", "~/misspelt", "a/b/c", "file", ""):
        with pytest.raises(ProxSparseError, match=f"There is no directory '{name}': give `embedded`, a Hub id"):
            load_model(name)
    assert main(["eval", "runs/misspelt"]) == 2
    assert capsys.readouterr().err.startswith("error: There is no directory 'runs/misspelt'")
    (tmp_path / "models" / "tiny").symlink_to(tiny_directory)
    assert load_model("models/tiny").context == 64


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch, capfd):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert not load.hub_answers()
    with pytest.raises(ProxSparseError, match=r"^'nobody/nothing' is neither .* and the Hub cannot be reached"):
        load_model("nobody/nothing")
    assert "Retry" not in capfd.readouterr().err


def test_pickled_weights_are_refused(tmp_path, tiny_directory):
    target = tmp_path / "pickled"
    shutil.copytree(tiny_directory, target)
    (target / "model.safetensors").unlink()
    torch.save(tiny_model().state_dict(), target / "pytorch_model.bin")
    with pytest.raises(ProxSparseError, match="safetensors"):
        load_model(str(target))


def test_damaged_weights(tmp_path, tiny_directory):
    target = tmp_path / "damaged"
    shutil.copytree(tiny_directory, target)
    (target / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ProxSparseError, match="cannot be loaded"):
        load_model(str(target))


def test_an_unknown_architecture(tmp_path, tiny_directory):
    target = tmp_path / "unknown"
    shutil.copytree(tiny_directory, target)
    (target / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(ProxSparseError):
        load_model(str(target))


def test_a_file_that_is_not_gguf(tmp_path):
    path = tmp_path / "fake.gguf"
    path.write_bytes(b"something else entirely")
    with pytest.raises(ProxSparseError, match="not a GGUF file"):
        load_model(str(path))


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    for wrong in ("quantum", "cuda:99", "meta"):
        with pytest.raises(ProxSparseError, match="device is"):
            resolve_device(wrong)


@pytest.mark.embedded
def test_the_embedded_model():
    assert embedded_gguf().stat().st_size > 90e6
    load_model("embedded")  # converted by now
    started = time.perf_counter()
    lm = load_model("embedded")
    print(f"second load: {time.perf_counter() - started:.2f} s")
    layers = prunable_layers(lm.model)
    assert len(layers) == 210 and sum(layer.numel for layer in layers.values()) == 106_168_320
    assert lm.model.dtype == torch.bfloat16 and not layers.skipped
    inputs = lm.tokenizer("The capital of France is", return_tensors="pt")
    text = lm.tokenizer.decode(lm.model.generate(**inputs, max_new_tokens=4, do_sample=False)[0])
    assert "Paris" in text
