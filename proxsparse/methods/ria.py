"""RIA: relative importance and activations (Zhang et al. 2024, "Plug-and-Play", ICLR 2024).

Without the channel permutation of that paper: it moves input features between groups, so that its result is no mask of
the model as it came.
"""

from __future__ import annotations

import torch
from torch import Tensor

from proxsparse.layers import PrunableLayer, PrunableLayers, prunable_layers
from proxsparse.masks.groups import magnitudes
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.methods.blockwise import prune_blocks
from proxsparse.methods.result import Pruned
from proxsparse.models.activations import InputNorms
from proxsparse.progress import Progress, no_progress


def ria(
    model,
    windows: Tensor,
    n: int = 2,
    m: int = 4,
    *,
    layers: PrunableLayers | None = None,
    progress: Progress = no_progress,
    power: float = 0.5,
    precision: str = "auto",
    batch: int = 4,
) -> Pruned:
    """The n largest (|w_ij| / Σ_j |w_ij| + |w_ij| / Σ_i |w_ij|)·‖x_j‖₂^power of every group of m, block by block.

    Equal scores, such as those of inputs that were never active, are ranked by |w|: an expert that saw no token gets its
    magnitude mask.

    Parameters
    ----------
    model : transformers model
        A causal language model; left as it came.
    windows : Tensor
        Calibration text, int64 (count, length) tokens.
    n, m : int
        The pattern: n of every m weights along the input dimension are kept.
    layers : PrunableLayers, optional
        What is pruned; default: `prunable_layers(model, m)`.
    progress : Progress
        Called before each piece of work; what it raises ends the method.
    power : float
        The paper's a, which the norms of the inputs are raised to.
    precision : {"auto", "fp32", "bf16"}
        Arithmetic of the matrix products; see `proxsparse.models.forward.autocast`.
    batch : int
        Windows in one forward pass.

    Returns
    -------
    Pruned
        Masks for the original weights.

    References
    ----------
    Zhang et al. 2024, "Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models", ICLR 2024.
    """
    layers = layers if layers is not None else prunable_layers(model, m)
    masks = MaskSet()

    def prune(layer: PrunableLayer, inputs: InputNorms) -> Tensor:
        sizes = magnitudes(layer.matrix)
        scores = relative_importance(sizes) * inputs.norms() ** power
        mask = masks[layer.name] = Mask.of_scores(scores, n, m, ties=sizes)
        return mask.applied_to(layer.matrix)

    prune_blocks(model, windows, layers, InputNorms, prune, precision, progress, batch)
    return Pruned(masks)


def relative_importance(sizes: Tensor) -> Tensor:
    """Each |w_ij| as a share of its row, plus as a share of its column; 0 where these are all zero. (out, in)."""
    smallest = torch.finfo(sizes.dtype).tiny
    return sum(sizes / sizes.sum(dimension, keepdim=True).clamp_min(smallest) for dimension in (0, 1))
