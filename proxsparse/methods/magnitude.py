"""Magnitude pruning: keep the largest weights of every group (Han et al. 2015, arXiv 1506.02626, on N:M groups)."""

from __future__ import annotations

from torch import Tensor

from proxsparse.layers import PrunableLayers, prunable_layers
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.methods.result import Pruned
from proxsparse.progress import Progress, no_progress


def magnitude(
    model,
    windows: Tensor | None = None,
    n: int = 2,
    m: int = 4,
    *,
    layers: PrunableLayers | None = None,
    progress: Progress = no_progress,
) -> Pruned:
    """The n largest |w| of every group of m, layer by layer.

    Parameters
    ----------
    model : transformers model
        A causal language model; left as it came.
    windows : Tensor, optional
        Not looked at, may be None.
    n, m : int
        The pattern: n of every m weights along the input dimension are kept.
    layers : PrunableLayers, optional
        What is pruned; default: `prunable_layers(model, m)`.
    progress : Progress
        Called before each piece of work; what it raises ends the method.

    Returns
    -------
    Pruned
        Masks for the original weights.

    References
    ----------
    Han et al. 2015, arXiv 1506.02626.
    """
    layers = layers if layers is not None else prunable_layers(model, m)
    masks = MaskSet()
    for index, layer in enumerate(layers.in_turn()):
        progress(index, len(layers), "comparing magnitudes")
        masks[layer.name] = Mask.project(layer.matrix, n, m)
    return Pruned(masks)
