"""What a change of the masks does to the held-out loss: of one group, of a whole layer, of every layer in turn.

Every difference is paired: the same windows before and after, so that what makes a window hard does not count. Losses are
taken with matrix products in fp32: what one group does is lost in the rounding of bf16.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from proxsparse.errors import ProxSparseError
from proxsparse.evaluation.perplexity import window_losses
from proxsparse.layers import PrunableLayers, only_these_learn, prunable_layers
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.masks.packing import pack, unpack
from proxsparse.models.forward import autocast, next_token_losses
from proxsparse.progress import Progress, no_progress


@dataclass(frozen=True)
class Change:
    """Mean losses in nats a token before and after, their difference (after minus before), and its standard error over
    `windows` paired windows: the standard deviation of the differences over √windows, nan for one window."""

    before: float
    after: float
    difference: float
    stderr: float
    windows: int

    @classmethod
    def of(cls, before: Tensor, after: Tensor) -> Change:
        """Of the losses of the same windows, float64 (count,) each."""
        differences, count = after - before, len(before)
        stderr = differences.std().item() / math.sqrt(count) if count > 1 else math.nan
        return cls(before.mean().item(), after.mean().item(), differences.mean().item(), stderr, count)

    def __str__(self) -> str:
        return f"{self.difference:+.3g} ± {self.stderr:.2g} nats a token ({self.windows} windows)"


def with_group(mask: Mask, row: int, group: int, kept: Iterable[int]) -> Mask:
    """A copy of `mask` in which one group keeps other weights.

    Parameters
    ----------
    row, group : int
        The output row, and which group of it, both from 0.
    kept : iterable of int
        Positions in the group, 0 to m − 1. There may be more or fewer than n: what a third weight would be worth is a
        question, too.

    Raises
    ------
    ProxSparseError
        For a row, a group or a position that the layer does not have.
    """
    kept, m = sorted(set(kept)), mask.m
    rows, groups = mask.shape[0], mask.shape[1] // m
    for name, value, count in (("row", row, rows), ("group", group, groups), *(("kept", at, m) for at in kept)):
        if not 0 <= value < count:
            raise ProxSparseError(f"{name} is {value}, and this layer has 0 to {count - 1}: give one of these.")
    packed = mask.packed.clone()
    bits = unpack(packed[row : row + 1], mask.shape[1])
    bits[0, group * m : (group + 1) * m] = False
    bits[0, [group * m + position for position in kept]] = True
    packed[row] = pack(bits)[0]
    return Mask(packed, mask.shape, mask.n, mask.m)


def keeping_all(shape: tuple[int, int], n: int, m: int) -> Mask:
    """A mask of (rows, columns) that drops nothing: from where a group of a dense layer is changed."""
    return Mask(pack(torch.ones(shape, dtype=torch.bool)), shape, n, m)


def masked_losses(
    model,
    masks: Mapping[str, Mask | None],
    windows: Tensor,
    layers: PrunableLayers,
    precision: str = "fp32",
    progress: Progress = no_progress,
) -> Tensor:
    """Mean loss of each window, float64 (count,), of the original weights under `masks`; layers without a mask, or with
    None, are dense. The model is left as it came."""
    present = MaskSet({name: mask for name, mask in masks.items() if mask is not None})
    with layers.on_copies():
        present.apply_(layers)
        return window_losses(model, windows, batch=1, precision=precision, progress=progress)


def what_if(
    model,
    masks: Mapping[str, Mask | None],
    changes: Mapping[str, Mask | None],
    windows: Tensor,
    *,
    layers: PrunableLayers | None = None,
    before: Tensor | None = None,
    precision: str = "fp32",
    progress: Progress = no_progress,
) -> Change:
    """How the loss changes when some layers get other masks.

    Parameters
    ----------
    model : transformers model
        With its original weights; left as it came.
    masks, changes : mappings
        {layer name: Mask, or None for dense}: those of the model, and those put over them.
    windows : Tensor
        Held-out token ids, int64 (count, length).
    layers : PrunableLayers, optional
        By default all of the model that groups of the masks divide.
    before : Tensor, optional
        `masked_losses` of `masks` on `windows`, where they are known already.
    precision : {"fp32", "bf16", "auto"}
        Arithmetic of the matrix products.
    progress : Progress
        Called before each window; what it raises ends the measurement.

    Returns
    -------
    Change

    Raises
    ------
    ProxSparseError
        For a mask that does not fit, without a window, and where a loss is not finite.

    Examples
    --------
    >>> what_if(model, masks, {"model.layers.0.mlp.up_proj": None}, windows)  # doctest: +SKIP
    """
    layers = layers if layers is not None else _layers_of(model, masks, changes)
    if before is None:
        before = masked_losses(model, masks, windows, layers, precision, progress)
    return Change.of(before, masked_losses(model, {**masks, **changes}, windows, layers, precision, progress))


def layer_costs(
    model,
    masks: Mapping[str, Mask | None],
    windows: Tensor,
    names: Iterable[str] | None = None,
    *,
    layers: PrunableLayers | None = None,
    before: Tensor | None = None,
    precision: str = "fp32",
    progress: Progress = no_progress,
) -> Iterator[tuple[str, Change]]:
    """What the mask of each layer costs, measured: how the loss changes when that layer alone is dense again.

    Between two layers the model is as it came.

    Parameters
    ----------
    model, masks, windows, layers, before, precision, progress
        As `what_if` takes them.
    names : iterable of str, optional
        The layers, in the order in which they are measured; default: all that have a mask.

    Returns
    -------
    Iterator
        (layer name, Change), one after the other as they are measured.

    Raises
    ------
    ProxSparseError
        As `what_if`.
    """
    layers = layers if layers is not None else _layers_of(model, masks)
    if before is None:
        before = masked_losses(model, masks, windows, layers, precision, progress)
    for name in names if names is not None else [name for name, mask in masks.items() if mask is not None]:
        found = what_if(
            model, masks, {name: None}, windows, layers=layers, before=before, precision=precision, progress=progress
        )
        yield name, found


def estimated_layer_costs(
    model,
    masks: Mapping[str, Mask | None],
    windows: Tensor,
    *,
    layers: PrunableLayers | None = None,
    precision: str = "fp32",
    progress: Progress = no_progress,
) -> dict[str, Change]:
    """What `layer_costs` would give, to first order: the gradient at the masked weights times what the mask drops,
    ⟨∂loss/∂W, W0 − W⟩, summed over the layer.

    One forward and backward pass a window for all layers together, and one layer's gradient in memory at a time. A ranking
    to begin with: where a mask drops much, the loss is far from linear in it. Arguments as for `what_if`.
    """
    layers = layers if layers is not None else _layers_of(model, masks)
    originals = {name: layer.matrix for name, layer in layers.items()}
    sharing, device = layers.by_parameter(), next(model.parameters()).device
    estimates = {name: torch.zeros(len(windows), dtype=torch.float64) for name in layers}
    losses = torch.zeros(len(windows), dtype=torch.float64)

    def gather(parameter: nn.Parameter) -> None:
        for layer in sharing[parameter]:
            dropped = originals[layer.name] - layer.matrix
            product = layer.matrix_of(parameter.grad) * dropped
            estimates[layer.name][window] = product.sum(dtype=torch.float64).item()
        parameter.grad = None

    with layers.on_copies(), only_these_learn(model, layers.parameters()):
        MaskSet({name: mask for name, mask in masks.items() if mask is not None}).apply_(layers)
        handles = [parameter.register_post_accumulate_grad_hook(gather) for parameter in sharing]
        try:
            for window in range(len(windows)):
                progress(window, len(windows), "estimating what each layer's mask costs, window")
                with autocast(device, precision):
                    loss = next_token_losses(model, windows[window : window + 1].to(device)).mean()
                loss.backward()
                losses[window] = loss.item()
        finally:
            for handle in handles:
                handle.remove()
    return {name: Change.of(losses, losses + found) for name, found in estimates.items() if masks.get(name) is not None}


def _layers_of(model, *several: Mapping[str, Mask | None]) -> PrunableLayers:
    """The layers that groups of these masks divide."""
    mask = next((mask for masks in several for mask in masks.values() if mask is not None), None)
    if mask is None:
        raise ProxSparseError("There is no mask, before or after: give one, or the layers.")
    return prunable_layers(model, mask.m)
