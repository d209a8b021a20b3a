"""Exporting and verifying a streamed model: the same tensors, file by file."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import random_windows, save_tiny_model

from proxsparse import Mask, MaskSet, ProxSparseError, export_model, load_model, prunable_layers, verify
from proxsparse.export import streamed as writer
from proxsparse.methods import METHODS

FAMILIES = {
    "llama": ("llama", {"num_hidden_layers": 4}),
    "tied": ("llama", {"num_hidden_layers": 3, "tie_word_embeddings": True}),
    "gpt2": ("gpt2", {}),
    "mixtral": ("mixtral", {}),
}


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request, tmp_path_factory):
    """The export of a streamed model, in several files, and that of the same model in memory: to read alone."""
    family, changes = FAMILIES[request.param]
    place = tmp_path_factory.mktemp(request.param)
    directory = str(save_tiny_model(place / "model", family, **changes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "LEAST_SHARD_BYTES", 1)
        for name, stream in (("streamed", True), ("whole", False)):
            lm = load_model(directory, "cpu", torch.bfloat16, stream=stream)
            masks = METHODS["wanda"](lm.model, random_windows(4, 16)).masks
            export_model(lm, masks, place / name)
    return place / "streamed", place / "whole"


@pytest.fixture
def copied(exported, tmp_path):
    """The streamed export, to change."""
    return shutil.copytree(exported[0], tmp_path / "copied")


def tensors_in(directory):
    files = sorted(directory.glob("model*.safetensors"))
    return files, {name: tensor for file in files for name, tensor in load_file(file).items()}


def test_the_same_tensors_are_written_in_several_files(exported):
    streamed, whole = exported
    files, found = tensors_in(streamed)
    wanted = tensors_in(whole)[1]
    assert len(files) > 1
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    for name in ("config.json", "generation_config.json", "tokenizer.json", "provenance.json"):
        assert (streamed / name).read_bytes() == (whole / name).read_bytes(), name


def test_both_ways_of_verifying_agree(exported):
    for directory in exported:
        found = [verify(directory, stream=stream).to_dict() for stream in (True, False)]
        assert found[0] == found[1] and found[0]["ok"]


@pytest.mark.parametrize("kind", ["kept", "dropped", "elsewhere"])
def test_a_tampered_file_is_found(copied, kind):
    lm = load_model(str(copied), "cpu")
    masks = MaskSet.load(copied / "masks.safetensors")
    layer = prunable_layers(lm.model)[list(masks)[-1]]
    with torch.no_grad():
        if kind == "elsewhere":
            lm.model.get_input_embeddings().weight[3, 5] += 1
        else:
            kept = masks[layer.name].dense() == (kind == "kept")
            layer.matrix[tuple(kept.nonzero()[0])] += 1
    for file in copied.glob("model*.safetensors*"):
        file.unlink()
    lm.model.save_pretrained(copied)
    found = verify(copied, stream=True)
    assert not found.ok
    assert bool(found.changed_elsewhere) == (kind == "elsewhere")
    assert [each["name"] for each in found.layers if not each["ok"]] == ([] if kind == "elsewhere" else [layer.name])


def test_what_is_changed_in_one_file_alone_is_found(copied):
    file = sorted(copied.glob("model*.safetensors"))[-1]
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, file, {"format": "pt"})
    assert not verify(copied, stream=True).ok


def test_an_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "LEAST_SHARD_BYTES", 1)
    lm = load_model(str(save_tiny_model(tmp_path / "model")), "cpu", stream=True)
    masks = METHODS["magnitude"](lm.model).masks
    asked, read = [], writer._Masked.__getitem__

    def interrupted(self, name):
        asked.append(name)
        if len(asked) == 12:
            raise KeyboardInterrupt
        return read(self, name)

    monkeypatch.setattr(writer._Masked, "__getitem__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_model(lm, masks, tmp_path / "sparse")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_experts_without_a_mask_are_compared(tmp_path):
    directory = str(save_tiny_model(tmp_path / "model", "mixtral"))
    lm = load_model(directory, "cpu", stream=True)
    masks = MaskSet({layer.name: Mask.project(layer.matrix) for layer in prunable_layers(lm.model).in_turn()})
    name = "model.layers.0.mlp.experts.down_proj.2"
    del masks[name]
    assert export_model(lm, masks, tmp_path / "sparse")["verification"]["ok"]
    changed = load_model(str(tmp_path / "sparse"), "cpu").model
    prunable_layers(changed)[name].matrix[1, 1] += 1
    changed.save_pretrained(tmp_path / "sparse")
    assert verify(tmp_path / "sparse", stream=True).changed_elsewhere == [name]


def test_what_is_not_streamed_is_one_sentence(tmp_path):
    directory = str(save_tiny_model(tmp_path / "model"))
    lm = load_model(directory, "cpu", stream=True)
    masks = METHODS["magnitude"](lm.model).masks
    with pytest.raises(ProxSparseError, match="a compact export is not written so"):
        export_model(lm, masks, tmp_path / "sparse", format="compact")
    export_model(load_model(directory, "cpu"), masks, tmp_path / "compact", format="compact")
    with pytest.raises(ProxSparseError, match="is a compact export, which cannot be streamed"):
        verify(tmp_path / "compact", stream=True)
