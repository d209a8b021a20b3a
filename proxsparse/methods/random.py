"""Random pruning: the baseline that uses neither weights nor data."""

from __future__ import annotations

import torch
from torch import Tensor

from proxsparse.layers import PrunableLayers, prunable_layers
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.methods.result import Pruned
from proxsparse.progress import Progress, no_progress


def random_mask(
    model,
    windows: Tensor | None = None,
    n: int = 2,
    m: int = 4,
    *,
    layers: PrunableLayers | None = None,
    progress: Progress = no_progress,
    seed: int = 0,
) -> Pruned:
    """n of every group of m, each choice equally likely; the same seed gives the same masks on every device.

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
    seed : int
        Of the generator that draws.

    Returns
    -------
    Pruned
        Masks for the original weights.
    """
    layers = layers if layers is not None else prunable_layers(model, m)
    generator = torch.Generator().manual_seed(seed)
    masks = MaskSet()
    for index, layer in enumerate(layers.in_turn()):
        progress(index, len(layers), "drawing masks")
        scores = torch.rand(layer.out_features, layer.in_features, generator=generator)
        masks[layer.name] = Mask.of_scores(scores.to(layer.matrix.device), n, m)
    return Pruned(masks)
