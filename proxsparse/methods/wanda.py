"""Wanda: weights and activations (Sun et al. 2023, arXiv 2306.11695)."""

from __future__ import annotations

from torch import Tensor

from proxsparse.layers import PrunableLayer, PrunableLayers, prunable_layers
from proxsparse.masks.groups import magnitudes
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.methods.blockwise import prune_blocks
from proxsparse.methods.result import Pruned
from proxsparse.models.activations import InputNorms
from proxsparse.progress import Progress, no_progress


def wanda(
    model,
    windows: Tensor,
    n: int = 2,
    m: int = 4,
    *,
    layers: PrunableLayers | None = None,
    progress: Progress = no_progress,
    precision: str = "auto",
    batch: int = 4,
) -> Pruned:
    """The n largest |w_ij|·‖x_j‖₂ of every group of m (equation 1 of the paper), block by block.

    Equal scores, such as those of inputs that were never active, are ranked by |w|: an expert that saw no token gets
    its magnitude mask.

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
    Sun et al. 2023, arXiv 2306.11695, equation 1.
    """
    layers = layers if layers is not None else prunable_layers(model, m)
    masks = MaskSet()

    def prune(layer: PrunableLayer, inputs: InputNorms) -> Tensor:
        sizes = magnitudes(layer.matrix)
        mask = masks[layer.name] = Mask.of_scores(sizes * inputs.norms(), n, m, ties=sizes)
        return mask.applied_to(layer.matrix)

    prune_blocks(model, windows, layers, InputNorms, prune, precision, progress, batch)
    return Pruned(masks)
