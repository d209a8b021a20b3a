"""Sparse checkpoints of other tools as masks: proven, or refused in one sentence."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model, tiny_model, tiny_tokenizer

from proxsparse import Mask, MaskSet, ProxSparseError, export_model, load_model, magnitude, prunable_layers, random_mask
from proxsparse.methods.checkpoint import from_checkpoint


def written(model, directory):
    model.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return str(directory)


def sparse(tmp_path, change=None, family="llama", n=2, m=4):
    """A checkpoint that magnitude pruning made from the tiny model, in which `change` was changed."""
    model = tiny_model(family)
    magnitude(model, None, n, m).masks.apply_(model)
    if change is not None:
        with torch.no_grad():
            change(model)
    return written(model, tmp_path / "sparse")


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "phi3"])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8)])
def test_the_masks_are_the_zeros(family, n, m, tmp_path):
    model = tiny_model(family)
    found = from_checkpoint(sparse(tmp_path, family=family, n=n, m=m), model, n, m)
    assert found.weights is None and found.masks.pattern == f"{n}:{m}"
    assert set(found.masks.flips(magnitude(model, None, n, m).masks).values()) == {0}


def test_weights_that_were_updated_come_along(tmp_path):
    def update(model):
        prunable_layers(model)["model.layers.1.mlp.up_proj"].matrix.mul_(1.5)

    model = tiny_model()
    found = from_checkpoint(sparse(tmp_path, update), model)
    name = "model.layers.1.mlp.up_proj"
    weight = prunable_layers(model)[name].matrix
    assert torch.equal(found.weights[name], found.masks[name].applied_to(weight) * 1.5)
    assert found.weights.keys() == found.masks.keys() == prunable_layers(model).keys()


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
def test_own_weights_can_be_written_although_they_are_views(family, tmp_path):
    """Transposed, or an expert's part of one parameter: what a comparison keeps of them on disk."""

    def update(model):
        for layer in prunable_layers(model).values():
            layer.matrix.mul_(2)

    found = from_checkpoint(sparse(tmp_path, update, family), tiny_model(family))
    save_file({name: weight.contiguous() for name, weight in found.weights.items()}, tmp_path / "weights.safetensors")
    for name, weight in load_file(tmp_path / "weights.safetensors").items():
        assert torch.equal(weight, found.weights[name]), name


@pytest.mark.parametrize("format", ["dense", "compact"])
def test_our_own_exports(format, tmp_path):
    save_tiny_model(tmp_path / "original")
    lm = load_model(str(tmp_path / "original"), "cpu")
    masks = random_mask(lm.model, None, seed=3).masks
    export_model(lm, masks, tmp_path / "sparse", format=format)
    found = from_checkpoint(str(tmp_path / "sparse"), lm.model)
    assert found.weights is None and set(found.masks.flips(masks).values()) == {0}


def one_more(model):
    prunable_layers(model)["model.layers.0.mlp.gate_proj"].matrix[3, 4:8] = 1.0


def other_norm(model):
    model.model.norm.weight.add_(1)


def at_random(model):
    for layer in prunable_layers(tiny_model()).items():
        prunable_layers(model)[layer[0]].matrix.copy_(layer[1].matrix)
    generator = torch.Generator().manual_seed(0)
    for layer in prunable_layers(model).values():
        layer.matrix.mul_(torch.rand(layer.matrix.shape, generator=generator) < 0.5)


def as_it_came(model):
    for name, layer in prunable_layers(tiny_model()).items():
        prunable_layers(model)[name].matrix.copy_(layer.matrix)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (as_it_came, "is not sparse (0.0% of its weights are zero): give a directory with"),
        (at_random, "zeros in no pattern), and this comparison is 2:4: leave it out."),
        (
            one_more,
            "is sparse (2:4 in 13 of 14 layers); model.layers.0.mlp.gate_proj is not 2:4, and a comparison needs",
        ),
        (other_norm, "outside the pruned layers, first in model.norm.weight: give --model"),
    ],
)
def test_what_is_not_a_mask_of_this_model_is_refused(change, words, tmp_path):
    with pytest.raises(ProxSparseError) as error:
        from_checkpoint(sparse(tmp_path, change), tiny_model())
    assert words in str(error.value) and "\n" not in str(error.value)


def test_another_pattern_or_architecture_is_refused(tmp_path):
    directory = sparse(tmp_path, n=1)
    with pytest.raises(
        ProxSparseError, match=r"is sparse \(1:4 in 14 .* is 2:4: give --n 1 and --m 4, or leave it out"
    ):
        from_checkpoint(directory, tiny_model())
    for other in (tiny_model("gpt2"), tiny_model("llama", intermediate_size=32)):
        with pytest.raises(ProxSparseError, match=r"another architecture than .*: give --model the model it was made"):
            from_checkpoint(directory, other, 1, 4)
    with pytest.raises(ProxSparseError, match="There is no directory"):
        from_checkpoint(str(tmp_path / "missing"), tiny_model())


def test_weights_kept_in_another_dtype_are_not_another_model(tmp_path):
    model = tiny_model().to(torch.float16)
    masks = MaskSet({name: Mask.project(layer.matrix) for name, layer in prunable_layers(model).items()})
    masks.apply_(model)
    found = from_checkpoint(written(model, tmp_path / "half"), tiny_model())
    assert found.masks.flips(masks) and found.weights is not None, "the rounded weights are the checkpoint's own"
