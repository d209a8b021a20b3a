"""The reader of compact exports that the documentation shows, numpy and json alone, reads what the library writes."""

import runpy

import pytest
import torch
from tiny_models import save_tiny_model

from proxsparse import Mask, MaskSet, export_model, load_compact, load_model, prunable_layers
from proxsparse.masks.packing import pack

READER = runpy.run_path("docs/reference/read_compact.py")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_reads_what_load_compact_reads(dtype, tmp_path):
    save_tiny_model(tmp_path / "model", dtype=dtype, tie_word_embeddings=True)
    lm = load_model(str(tmp_path / "model"), "cpu", dtype)
    layers = prunable_layers(lm.model)
    with torch.no_grad():
        next(iter(layers.values())).matrix[0, :3] = 0  # a group that keeps fewer than two
    masks = MaskSet()
    for name, layer in layers.items():
        kept = Mask.of_scores(layer.matrix.abs().float()).dense() & (layer.matrix != 0)
        masks[name] = Mask(pack(kept), tuple(layer.matrix.shape))
    lm.model.save_pretrained(tmp_path / "model")
    export_model(lm, masks, tmp_path / "compact", format="compact")

    found = READER["read_compact"](tmp_path / "compact")
    expected = load_compact(tmp_path / "compact", "cpu").model
    masked = {name: layer.matrix for name, layer in prunable_layers(expected).items()}
    parameters = {id(layer.parameter) for layer in prunable_layers(expected).values()}
    others = {
        name: tensor for name, tensor in expected.state_dict(keep_vars=True).items() if id(tensor) not in parameters
    }
    assert found.keys() == masked.keys() | others.keys() and "lm_head.weight" in found
    for name, tensor in {**masked, **others}.items():
        assert torch.equal(torch.from_numpy(found[name].copy()).float(), tensor.detach().float()), name
