"""A sparse checkpoint that any tool made (Wanda, SparseGPT, ModelOpt, an export of ours), as one of the methods."""

from __future__ import annotations

import torch
from torch import Tensor

from proxsparse.errors import ProxSparseError
from proxsparse.layers import PrunableLayers, prunable_layers
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.masks.packing import pack
from proxsparse.methods.result import Pruned
from proxsparse.models.load import load_model
from proxsparse.models.sparsity import PATTERNS, most_in_a_group, sparsity_of
from proxsparse.progress import Progress, no_progress

ROUNDING = 0.02  # relative; tensors that differ by less were only kept in another dtype


@torch.no_grad()
def from_checkpoint(
    directory: str,
    model,
    n: int = 2,
    m: int = 4,
    *,
    layers: PrunableLayers | None = None,
    progress: Progress = no_progress,
) -> Pruned:
    """Take the zeros of a checkpoint as masks of `model`, once they are proven to be n:m in every group.

    Parameters
    ----------
    directory : str
        A sparse model, dense with zeros or compact; what `load_model` takes. It is read on the CPU, in the dtype of
        `model`.
    model : transformers model
        The one that the checkpoint was made from, with its original weights. It is only read.
    n, m : int
        The pattern that the checkpoint has to have.
    layers : PrunableLayers, optional
        The prunable layers of `model`; default: `prunable_layers(model, m)`.

    Returns
    -------
    Pruned
        Masks on the original weights where every nonzero weight is the original one, else with the checkpoint's own
        weights.

    Raises
    ------
    ProxSparseError
        Where the checkpoint is not sparse, has another pattern, leaves a layer dense, or belongs to another model.
    """
    layers = prunable_layers(model, m) if layers is None else layers
    progress(0, len(layers), f"reading {directory}")
    other = load_model(directory, "cpu", model.dtype).model
    theirs = prunable_layers(other, m)
    _check_same_model(directory, model, other, layers, theirs)
    _check_pattern(directory, theirs, n, m)
    masks, weights, updated = MaskSet(), {}, False
    for index, (name, layer) in enumerate(layers.items()):
        progress(index, len(layers), "reading masks, layer")
        weight = theirs[name].matrix
        kept = weight != 0
        masks[name], weights[name] = Mask(pack(kept), tuple(weight.shape), n, m), weight
        updated = updated or bool((kept & (weight != layer.matrix.cpu())).any())
    return Pruned(masks, weights if updated else None)


def _check_same_model(directory: str, model, other, layers: PrunableLayers, theirs: PrunableLayers) -> None:
    """Raise ProxSparseError unless both models have the same tensors, equal ones outside the layers."""
    ours, found = model.state_dict(keep_vars=True), other.state_dict()
    for name in [*ours, *found]:
        if name not in ours or name not in found or ours[name].shape != found[name].shape:
            raise ProxSparseError(
                f"{directory} has another architecture than the model of this comparison ({name} is not in both, or not of "
                "one shape): give --model the model it was made from, or leave it out."
            )
    if layers.keys() != theirs.keys():
        raise ProxSparseError(
            f"{directory} has {len(theirs)} prunable layers and the model of this comparison {len(layers)}: give --model the "
            "model it was made from, or leave it out."
        )
    pruned = {id(layer.parameter) for layer in layers.values()}
    for name, tensor in ours.items():
        if id(tensor) not in pruned and not _nearly_equal(tensor.detach().cpu(), found[name]):
            raise ProxSparseError(
                f"{directory} differs from the model of this comparison outside the pruned layers, first in {name}: give "
                "--model the model it was made from, or leave it out."
            )


def _nearly_equal(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.double(), b.double(), rtol=ROUNDING, atol=1e-6, equal_nan=True)


def _check_pattern(directory: str, layers: PrunableLayers, n: int, m: int) -> None:
    """Raise ProxSparseError unless every group of every layer is n:m, and no tighter pattern describes them."""
    found = sparsity_of((layer.matrix for layer in layers.values()), dict.fromkeys((*PATTERNS, (n, m))))
    if not found.is_sparse:
        raise ProxSparseError(
            f"{directory} is not sparse ({found.zeros:.1%} of its weights are zero): give a directory with an n:m sparse model."
        )
    if found.pattern is None:
        raise ProxSparseError(f"{directory} is {found}, and this comparison is {n}:{m}: leave it out.")
    if found.pattern != (n, m):
        raise ProxSparseError(
            f"{directory} is {found}, and this comparison is {n}:{m}: give --n {found.pattern[0]} and --m "
            f"{found.pattern[1]}, or leave it out."
        )
    if found.matching < found.layers:
        dense = next(name for name, layer in layers.items() if most_in_a_group(layer.matrix, m) > n)
        raise ProxSparseError(
            f"{directory} is {found}; {dense} is not {n}:{m}, and a comparison needs all layers: leave it out."
        )
