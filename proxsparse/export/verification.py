"""Proof, from the files on disk, that a model is N:M and that nothing but zeros was put into it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from proxsparse.errors import ProxSparseError
from proxsparse.files import MASKS_FILE, ORDER_FILE, PROVENANCE_FILE, local_path, read_json
from proxsparse.layers import PrunableLayer, PrunableLayers, prunable_layers
from proxsparse.layers.stored import in_memory
from proxsparse.masks.groups import in_planes
from proxsparse.masks.mask_set import MaskSet
from proxsparse.models.channel_order import change_of_outputs, order_of, within_rounding
from proxsparse.models.language_model import dtype_name
from proxsparse.models.load import load_model
from proxsparse.progress import Progress, no_progress


@dataclass(frozen=True)
class Verification:
    """What was found.

    layers: one dict a layer (name, rows, columns, groups, bad_groups, changed_weights, ok); changed_elsewhere: names of
    parameters and buffers outside the masked layers that differ from the original's, or that only one of the
    two models has. reordered: of an export whose channels stand in another order than the original's, the largest relative
    change of an output of the original that this order makes.
    """

    layers: list[dict]
    changed_elsewhere: list[str]
    pattern: str
    dtype: str
    original: str
    reordered: float | None = None

    @property
    def ok(self) -> bool:
        weights = bool(self.layers) and all(layer["ok"] for layer in self.layers) and not self.changed_elsewhere
        return weights and self.same_function

    @property
    def same_function(self) -> bool:
        """Whether the order of the channels changes nothing that the original computes, but for rounding."""
        return self.reordered is None or within_rounding(self.reordered)

    @property
    def summary(self) -> str:
        """The outcome in one sentence."""
        groups = sum(layer["groups"] for layer in self.layers)
        if self.ok:
            return (
                f"Proven: all {groups:,} groups of {len(self.layers)} layers are {self.pattern}, and every kept weight equals "
                f"that of {self.original} bit for bit ({self.dtype}); everything outside these layers is unchanged (parameters "
                "and buffers)." + self._order
            )
        if not self.same_function:
            return (
                f"Not proven: the order of the channels in {ORDER_FILE} changes an output of {self.original} by "
                f"{self.reordered:.0e} of its size."
            )
        bad = [layer for layer in self.layers if not layer["ok"]]
        if bad:
            first = bad[0]
            return (
                f"Not proven: {len(bad)} of {len(self.layers)} layers fail, first {first['name']}: {first['bad_groups']:,} groups "
                f"are not {self.pattern} or break their mask, {first['changed_weights']:,} kept weights differ from {self.original}."
            )
        return (
            f"Not proven: {self.changed_elsewhere[0]} lies outside the masked layers and is not as in {self.original}."
        )

    @property
    def _order(self) -> str:
        if self.reordered is None:
            return ""
        return (
            f" Its channels stand in another order, as {ORDER_FILE} says; that changes no output of the original by more than "
            f"{self.reordered:.0e} of its size, which is rounding."
        )

    def to_dict(self) -> dict:
        return {
            "ok": self.ok, "summary": self.summary, "pattern": self.pattern, "dtype": self.dtype,
            "original": self.original, "changed_elsewhere": self.changed_elsewhere, "reordered": self.reordered, "layers": self.layers,
        }  # fmt: skip


def verify(
    directory: str | Path, original: str | None = None, progress: Progress = no_progress, stream: bool = False
) -> Verification:
    """Read the weights in `directory` and compare them with the original model's, layer by layer.

    Proven is, for each layer that the packed masks name: no group keeps more than n of m, no weight that the mask drops
    is nonzero, and every weight that it keeps has the original's bits (in the saved dtype). All other parameters and
    buffers have the original's bits as well. Where the export holds an order of channels, the original is reordered by it first, and its
    outputs must stay what they were.

    Parameters
    ----------
    directory : str or Path
        What `export_model` wrote, dense or compact.
    original : str, optional
        What `load_model` takes; default: what the directory's provenance file names.
    progress : Progress
        Called before each layer.
    stream : bool
        Read both models tensor by tensor, in the memory of a few of them; not for a compact export, nor for a reordered one.

    Returns
    -------
    Verification
        `ok`, `summary`, and what was found layer by layer.

    Raises
    ------
    ProxSparseError
        Where there is nothing to verify, the two models do not have the same layers, or they cannot be streamed.

    Examples
    --------
    >>> verify("sparse").ok  # doctest: +SKIP
    True
    """
    directory = local_path(directory)
    if not (directory / MASKS_FILE).is_file():
        raise ProxSparseError(f"{directory} holds no {MASKS_FILE}: give a directory that `export` wrote.")
    original = original or (read_json(directory / PROVENANCE_FILE, default={}) or {}).get("model")
    if not original:
        raise ProxSparseError(f"{directory} does not say which model it came from: name it with --original.")
    order, reordered = order_of(directory), None
    if stream and order is not None:
        raise ProxSparseError(
            f"{directory} is of a reordered model, which is run to be proven: verify it without streaming."
        )
    exported = load_model(str(directory), "cpu", stream=stream).model
    dtype = next(exported.parameters()).dtype
    base = load_model(original, "cpu", dtype, stream=stream)
    reference = base.model
    if order is not None and order_of(base.source) is None:
        reordered = change_of_outputs(reference, order)
    masks = MaskSet.load(directory / MASKS_FILE)
    found, expected = prunable_layers(exported, masks.m), prunable_layers(reference, masks.m)
    for name in masks:
        if name not in found or name not in expected or found[name].matrix.shape != expected[name].matrix.shape:
            raise ProxSparseError(
                f"{original} and {directory} do not both have the layer {name!r}: name the right original."
            )
    results = []
    for parameter, layers in found.by_parameter().items():
        masked = [layer for layer in layers if layer.name in masks]
        with in_memory([parameter, expected[masked[0].name].parameter] if masked else []):
            for layer in masked:
                progress(len(results), len(masks), "verifying")
                results.append(_compare(layer.name, layer.matrix, expected[layer.name].matrix, masks[layer.name]))
    pattern, names = masks.pattern, frozenset(masks)
    del masks  # before the largest parameters, the embeddings, are read
    outside = _changed_elsewhere(exported, reference, found, expected, names)
    return Verification(results, outside, pattern, dtype_name(dtype), original, reordered)


def _compare(name: str, weight: Tensor, reference: Tensor, mask) -> dict:
    kept = mask.dense()
    nonzero = in_planes(weight != 0, mask.m)
    outside_mask = in_planes((weight != 0) & ~kept, mask.m)
    bad = int(((nonzero.sum(0) > mask.n) | outside_mask.any(0)).sum())
    changed = int((kept & (_bits(weight) != _bits(reference))).sum())
    return {
        "name": name, "rows": weight.shape[0], "columns": weight.shape[1], "groups": weight.numel() // mask.m,
        "bad_groups": bad, "changed_weights": changed, "ok": bad == 0 and changed == 0,
    }  # fmt: skip


def _changed_elsewhere(
    exported, reference, found: PrunableLayers, expected: PrunableLayers, masks: Collection[str]
) -> list[str]:
    """Names of the parameters and buffers without a mask that only one of the two models has, or that differ.

    Buffers that no checkpoint holds are compared as well: they are computed from config.json.
    """
    masked = {id(found[name].parameter) for name in masks}
    parameters = dict(exported.named_parameters(remove_duplicate=False))
    ours, theirs = _tensors(exported), _tensors(reference)
    names = [name for name in ours if id(parameters.get(name)) not in masked]
    outside = [name for name in names if name not in theirs or not _same_values(ours[name], theirs[name])]
    outside += [name for name in theirs if name not in ours]
    return outside + [  # experts without a mask that share a parameter with masked ones
        name
        for name, layer in found.items()
        if id(layer.parameter) in masked and name not in masks and not _same_layer(layer, expected[name])
    ]


def _same_layer(ours: PrunableLayer, theirs: PrunableLayer) -> bool:
    with in_memory([ours.parameter, theirs.parameter]):
        return _same_bits(ours.matrix, theirs.matrix)


def _same_values(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two parameters or buffers have the same bits."""
    with in_memory([ours, theirs]):
        return _same_bits(ours.detach(), theirs.detach())


def _tensors(model) -> dict[str, Tensor]:
    return model.state_dict(keep_vars=True) | dict(model.named_buffers(remove_duplicate=False))


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes an element


def _bits(tensor: Tensor) -> Tensor:
    """The bits of every entry as an integer, in the shape of `tensor`; of a complex one, of both parts."""
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return tensor.contiguous().view(_INTEGERS[tensor.element_size()])


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(_bits(a), _bits(b))
