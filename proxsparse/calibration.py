"""The activation metric: how large the inputs of every prunable layer are on calibration text."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from proxsparse.layers import PrunableLayers
from proxsparse.precision import autocast


class _InputNorms(TorchFunctionMode):
    """Adds up the squares of what every prunable matrix is multiplied with.

    It looks at the multiplication itself, not at modules, so that a `Linear`, a `Conv1D` and one expert inside a fused
    parameter are all seen in the same way: the weight is recognised by where it lies in memory.
    """

    def __init__(self, layers: PrunableLayers):
        super().__init__()
        self.names = {layer.matrix.data_ptr(): name for name, layer in layers.items()}
        self.squares = {
            name: torch.zeros(layer.in_features, device=layer.matrix.device) for name, layer in layers.items()
        }

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.linear:
            self._see(args[0], args[1] if len(args) > 1 else kwargs["weight"])
        elif function is torch.addmm:  # Conv1D: bias, input, weight
            self._see(args[1], args[2])
        elif function in (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__):  # experts stored (in, out)
            self._see(args[0], args[1])
        return function(*args, **(kwargs or {}))

    def _see(self, inputs: Tensor, weight: Tensor) -> None:
        name = self.names.get(weight.data_ptr())
        if name is not None:
            self.squares[name] += inputs.reshape(-1, inputs.shape[-1]).float().square().sum(0)


@torch.no_grad()
def activation_scales(
    model,
    layers: PrunableLayers,
    windows: Tensor,
    precision: str = "auto",
    progress: Callable[[int, int, str], None] | None = None,
    batch: int = 4,
) -> dict[str, Tensor]:
    """‖x_j‖₂ of every input feature of every layer, divided by the layer's geometric mean.

    windows: int64 (count, length). batch: windows in one forward pass. Returns {layer name: float32 (in,)}, positive.
    This is the scale of Wanda's score |w_ij|·‖x_j‖₂ (Sun et al. 2023, arXiv 2306.11695, section 3); the common factor
    changes no choice within a layer. An input that was never active gets the smallest scale of its layer, and a layer
    that saw no token (an idle expert) the scale 1.
    """
    device = next(model.parameters()).device
    decoder = model.base_model  # without the LM head: nobody asks for the next token here
    seen = _InputNorms(layers)
    with _experts_one_by_one(model):
        for index in range(0, len(windows), batch):
            if progress:
                progress(index, len(windows), "measuring activations")
            with autocast(device, precision), seen:
                decoder(input_ids=windows[index : index + batch].to(device), use_cache=False)
    return {name: _normalized(squares.sqrt()) for name, squares in seen.squares.items()}


@contextmanager
def _experts_one_by_one(model):
    """Fused kernels multiply all experts at once, where no single weight can be seen."""
    if not model._can_set_experts_implementation():
        yield
        return
    before = model.get_experts_implementation()
    model.set_experts_implementation("eager")
    try:
        yield
    finally:
        model.set_experts_implementation(before)


def _normalized(norms: Tensor) -> Tensor:
    active = norms > 0
    if not bool(active.any()):
        return torch.ones_like(norms)
    norms = torch.where(active, norms, norms[active].min())
    return norms / norms.log().mean().exp()
