"""How much a pruned layer changes what it computes, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from proxsparse.blockwise import prune_blocks
from proxsparse.layers import PrunableLayer, PrunableLayers
from proxsparse.methods.result import Pruned


class _Products:
    """Σ x·xᵀ over the tokens that enter a layer; float32 (in, in)."""

    def __init__(self, layer: PrunableLayer):
        self.sum = torch.zeros(layer.in_features, layer.in_features, device=layer.matrix.device)

    def add(self, inputs: Tensor) -> None:
        inputs = inputs.float()
        self.sum.addmm_(inputs.t(), inputs)


def output_errors(
    model,
    windows: Tensor,
    layers: PrunableLayers,
    candidates: Mapping[str, Pruned],
    precision: str = "auto",
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, list[float]]:
    """‖W X − Ŵ X‖_F / ‖W X‖_F for every layer under every candidate, in the order of `layers`.

    X are the inputs that the layer sees in the dense model on `windows`, int64 (count, length): errors of earlier
    layers do not add up in it. A layer that saw no token, or
    whose outputs are zero, has the error nan. Memory: the inputs' products of one block.
    """
    errors: dict[str, list[float]] = {name: [] for name in candidates}

    def measure(layer: PrunableLayer, products: _Products) -> Tensor:
        weight = layer.matrix.float()
        whole = _norm(weight, products.sum)
        for name, found in candidates.items():
            errors[name].append(_norm(weight - found.weight_of(layer).float(), products.sum) / whole)
        return layer.matrix

    prune_blocks(model, windows, layers, _Products, measure, precision, progress)
    return errors


def _norm(weight: Tensor, products: Tensor) -> float:
    """‖weight · X‖_F, from X·Xᵀ."""
    square = ((weight @ products) * weight).sum(dtype=torch.float64).clamp(min=0)
    return square.sqrt().item() if square > 0 else float("nan") if not products.any() else 0.0
