"""How much a pruned layer changes what it computes, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from proxsparse.layers import PrunableLayer, PrunableLayers
from proxsparse.methods.blockwise import prune_blocks
from proxsparse.methods.result import Pruned
from proxsparse.models.activations import SecondMoments
from proxsparse.progress import Progress, no_progress


def output_errors(
    model,
    windows: Tensor,
    layers: PrunableLayers,
    candidates: Mapping[str, Pruned],
    precision: str = "auto",
    progress: Progress = no_progress,
) -> dict[str, list[float]]:
    """‖W X − Ŵ X‖_F / ‖W X‖_F for every layer under every candidate, in the order of `layers`.

    X are the inputs that the layer sees in the dense model on `windows`, int64 (count, length): errors of earlier
    layers do not add up in it. A layer that saw no token, or whose outputs are zero, has the error nan. Memory: the
    second moments of one block.
    """
    errors: dict[str, list[float]] = {name: [] for name in candidates}

    def measure(layer: PrunableLayer, inputs: SecondMoments) -> Tensor:
        weight = layer.matrix.float()
        whole = _norm(weight, inputs.sum)
        for name, found in candidates.items():
            lost = _norm(weight - found.weight_of(layer).float(), inputs.sum)
            errors[name].append(lost / whole if whole > 0 else math.nan)
        return layer.matrix

    prune_blocks(model, windows, layers, SecondMoments, measure, precision, progress)
    return errors


def _norm(weight: Tensor, moments: Tensor) -> float:
    """‖weight · X‖_F, from X·Xᵀ."""
    return math.sqrt(max(((weight @ moments) * weight).sum(dtype=torch.float64).item(), 0.0))
