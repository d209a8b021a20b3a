"""What enters every prunable layer on calibration text: seen one layer at a time, and as the activation metric."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from proxsparse.errors import ProxSparseError
from proxsparse.layers import PrunableLayer, PrunableLayers
from proxsparse.layers.ranks import Ranks
from proxsparse.layers.trace import experts_one_by_one
from proxsparse.models.forward import autocast
from proxsparse.progress import Progress, no_progress


class Statistic(Protocol):
    """What is gathered of the inputs of one layer."""

    def add(self, inputs: Tensor) -> None:
        """inputs: (tokens, in), as they enter the layer; no tokens for an expert that was not chosen."""


PRODUCTS = {  # function: which of its arguments are multiplied
    torch.addmm: (1, 2), torch.baddbmm: (1, 2),
    torch.mm: (0, 1), torch.Tensor.mm: (0, 1), torch.bmm: (0, 1), torch.Tensor.bmm: (0, 1),
    torch.matmul: (0, 1), torch.Tensor.matmul: (0, 1), torch.Tensor.__matmul__: (0, 1),
}  # fmt: skip


class InputObserver(TorchFunctionMode):
    """While open, adds what a prunable matrix is about to be multiplied with, (tokens, in), to the layer's statistic.

    It looks at the multiplication itself, not at modules, so that a `Linear`, a `Conv1D` and one expert inside a fused
    parameter are all seen in the same way: the weight is recognised by where it lies in memory. Inputs come as they are
    before autocast, and autocast is off where they are added.
    """

    def __init__(self, layers: Mapping[str, PrunableLayer], statistics: Mapping[str, Statistic]):
        super().__init__()
        self.names = {layer.matrix.data_ptr(): name for name, layer in layers.items()}
        self.statistics = statistics

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.linear:
            self._look(args[0], args[1] if len(args) > 1 else kwargs["weight"])
        elif function in PRODUCTS:
            left, right = (args[place] for place in PRODUCTS[function])
            self._look(left, right)
            if left.ndim > 1 and right.ndim > 1:
                self._look(right.mT, left)  # weights may stand on the left, before columns
        elif function is torch.functional.einsum:
            self._look_at_einsum(*args)
        return function(*args, **(kwargs or {}))

    def _look(self, inputs: Tensor, weight: Tensor) -> None:
        name = self.names.get(weight.data_ptr())
        if name is None:
            return
        if weight.ndim > 2:  # one product an expert, which may be broadcast over batches
            inputs = inputs.expand(*weight.shape[: max(0, weight.ndim - inputs.ndim)], *inputs.shape)
            at = inputs.ndim - weight.ndim
            for index, expert in enumerate(weight):
                alone = len(weight) == 1
                self._look(inputs if alone else inputs.select(at, index if inputs.shape[at] > 1 else 0), expert)
            return
        with torch.autocast(inputs.device.type, enabled=False):
            self.statistics[name].add(inputs.reshape(-1, inputs.shape[-1]))

    def _look_at_einsum(self, equation, *operands) -> None:
        """Of two operands without an index that both of them and the result have: a plain product of matrices."""
        if not isinstance(equation, str) or "." in equation or len(operands) != 2:
            return
        terms, _, result = equation.replace(" ", "").partition("->")
        terms = terms.split(",")
        if set(terms[0]) & set(terms[1]) & set(result):
            return
        for own, other, weight, inputs in ((*terms, *operands), (*terms[::-1], *operands[::-1])):
            summed = [letter for letter in own if letter in other]  # in the order in which the weight has them
            order = [*(letter for letter in other if letter not in summed), *summed]
            self._look(
                inputs.permute([other.index(letter) for letter in order]).flatten(-len(summed)), weight.flatten()
            )


class InputNorms:
    """‖x_j‖₂ of every input feature of one layer, over all tokens that were added."""

    def __init__(self, layer: PrunableLayer):
        self.squares = torch.zeros(layer.in_features, device=layer.matrix.device)
        self.tokens = 0

    def add(self, inputs: Tensor) -> None:
        """inputs: (tokens, in)."""
        self.tokens += len(inputs)
        self.squares += inputs.float().square().sum(0)

    def add_those_of(self, ranks: Ranks) -> None:
        """Add what the other ranks have seen."""
        ranks.sum_(self.squares)
        self.tokens = int(ranks.sum_(torch.tensor(self.tokens, device=self.squares.device)))

    def norms(self) -> Tensor:
        """float32 (in,)."""
        return self.squares.sqrt()


class SecondMoments:
    """XᵀX of the inputs of one layer, over all tokens that were added; float32 (in, in)."""

    def __init__(self, layer: PrunableLayer):
        self.sum = torch.zeros(layer.in_features, layer.in_features, device=layer.matrix.device)

    def add(self, inputs: Tensor) -> None:
        """inputs: (tokens, in)."""
        wide = inputs.float()
        self.sum.addmm_(wide.t(), wide)


def check_windows(windows: Tensor | None) -> None:
    """Raise ProxSparseError unless `windows` are (count, length) and there is one."""
    if windows is None or windows.ndim != 2 or windows.numel() == 0:
        raise ProxSparseError("There is no calibration text: give windows of tokens, int64 (count, length).")


def check_finite(matrix: Tensor, moments: Tensor) -> None:
    """Raise ProxSparseError unless a layer's weights (out, in) and the moments of its inputs are finite numbers."""
    if not bool(moments.isfinite().all() and matrix.isfinite().all()):
        raise ProxSparseError("A weight or an activation is not a finite number: this model is broken.")


class ActivationScales(dict[str, Tensor]):
    """{layer name: scale, float32 (in,)}. unseen: the layers that no token reached; their scale is 1."""

    def __init__(self, scales: Mapping[str, Tensor], unseen: tuple[str, ...] = ()):
        super().__init__(scales)
        self.unseen = unseen


@torch.no_grad()
def activation_scales(
    model,
    layers: PrunableLayers,
    windows: Tensor,
    precision: str = "auto",
    progress: Progress = no_progress,
    batch: int = 4,
) -> ActivationScales:
    """‖x_j‖₂ of every input feature of every layer, divided by the layer's geometric mean.

    This is the scale of Wanda's score |w_ij|·‖x_j‖₂ (Sun et al. 2023, arXiv 2306.11695, section 3); the common factor
    changes no choice within a layer. An input that was never active gets the smallest scale of its layer.

    Parameters
    ----------
    windows
        Tokens, int64 (count, length).
    batch
        Windows in one forward pass.

    Returns
    -------
    ActivationScales
        A positive scale for every layer, float32 (in,). A layer that no token reached, such as an expert that was never
        chosen, has the scale 1: it is named in `unseen`, and a warning counts such layers.

    Raises
    ------
    ProxSparseError
        When no token reached any layer.
    """
    device = next(model.parameters()).device
    decoder = model.base_model  # without the LM head: nobody asks for the next token here
    seen = {name: InputNorms(layer) for name, layer in layers.items()}
    observer, ranks = InputObserver({}, seen), layers.ranks
    with experts_one_by_one(model), layers.located(observer.names):
        for some in torch.arange(len(windows)).split(batch * ranks.count):
            progress(int(some[0]), len(windows), "measuring activations")
            own, share = ranks.share(some)
            with autocast(device, precision), observer if share else nullcontext():
                decoder(input_ids=windows[own].to(device), use_cache=False)
    for inputs in seen.values():
        inputs.add_those_of(ranks)
    unseen = tuple(name for name, inputs in seen.items() if not inputs.tokens)
    if len(unseen) == len(seen):
        raise ProxSparseError(
            f"No token of the calibration text reached any of the {len(seen)} prunable layers, {unseen[0]} the first: these "
            "layers are not of this model, or it does not use them. Take metric weight, or layers of this model."
        )
    if unseen:
        warnings.warn(
            f"{len(unseen)} of {len(seen)} layers saw no token of the calibration text, {unseen[0]} the first: their weights "
            "compete by magnitude alone; more or other text may reach them.",
            stacklevel=2,
        )
    return ActivationScales({name: _normalized(inputs.norms()) for name, inputs in seen.items()}, unseen)


def _normalized(norms: Tensor) -> Tensor:
    active = norms > 0
    if not bool(active.any()):
        return torch.ones_like(norms)
    norms = torch.where(active, norms, norms[active].min())
    return norms / norms.log().mean().exp()
