"""SparseGPT: prune a layer so that its output changes least (Frantar & Alistarh 2023, arXiv 2301.00774).

For one output row, dropping weight w_p and moving the later ones to make up for it costs w_p² / [H_p⁻¹]_pp, where H is
XᵀX and H_p its part that belongs to column p and those behind it; the best move is −w_p / [H_p⁻¹]_pp · [H_p⁻¹]_p. All
these inverses are rows of one upper triangular U with UᵀU = H⁻¹: [H_p⁻¹]_p = U_pp·U_p. Columns are gone through once,
from left to right, and each group is decided when its first column is reached.
"""

from __future__ import annotations

import torch
from torch import Tensor

from proxsparse.layers import PrunableLayer, PrunableLayers, prunable_layers
from proxsparse.masks.groups import check_groups, keep_largest, magnitudes
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.masks.packing import pack
from proxsparse.methods.blockwise import prune_blocks
from proxsparse.methods.result import Pruned
from proxsparse.models.activations import SecondMoments, check_finite
from proxsparse.progress import Progress, no_progress

DAMPING = 0.01  # added to the diagonal of H, as a share of its mean


def sparsegpt(
    model,
    windows: Tensor,
    n: int = 2,
    m: int = 4,
    *,
    layers: PrunableLayers | None = None,
    progress: Progress = no_progress,
    update: bool = True,
    damping: float = DAMPING,
    blocksize: int = 128,
    precision: str = "auto",
    batch: int = 4,
) -> Pruned:
    """Masks and updated weights (update=True), or the masks chosen on the way, for the original weights: then these go
    on to the next block, masked.

    An input that was never active is dropped first; equal scores are ranked by the original |w|, so an expert that saw no
    token gets its magnitude mask and keeps its weights.

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
    update : bool
        Whether the kept weights are moved to make up for the dropped ones.
    damping, blocksize : float, int
        See `prune_columns`.
    precision : {"auto", "fp32", "bf16"}
        Arithmetic of the matrix products; see `proxsparse.models.forward.autocast`.
    batch : int
        Windows in one forward pass.

    Returns
    -------
    Pruned
        Masks; with `update` the weights too.

    Raises
    ------
    ProxSparseError
        When weights or activations are not finite.

    References
    ----------
    Frantar & Alistarh 2023, arXiv 2301.00774, algorithm 1.
    """
    layers = layers if layers is not None else prunable_layers(model, m)
    masks, weights = MaskSet(), {}

    def prune(layer: PrunableLayer, inputs: SecondMoments) -> Tensor:
        kept, updated = prune_columns(layer.matrix, inputs.sum, n, m, damping, blocksize)
        mask = masks[layer.name] = Mask(pack(kept), tuple(kept.shape), n, m)
        if not update:
            return mask.applied_to(layer.matrix)
        weights[layer.name] = updated.to(layer.matrix.dtype)
        return weights[layer.name]

    prune_blocks(model, windows, layers, SecondMoments, prune, precision, progress, batch)
    return Pruned(masks, weights if update else None)


def prune_columns(
    matrix: Tensor, moments: Tensor, n: int = 2, m: int = 4, damping: float = DAMPING, blocksize: int = 128
) -> tuple[Tensor, Tensor]:
    """Which weights stay, bool (out, in), and what they become, float64 (out, in), zero elsewhere.

    matrix: (out, in). moments: XᵀX (in, in), in any scale: no factor changes the result. damping: share of the mean
    of its diagonal that is added to it; ten times as much where it stays singular. blocksize: columns between two
    updates of all later columns, for speed only.
    """
    check_groups(matrix, n, m)
    check_finite(matrix, moments)
    never_active = moments.diagonal() == 0
    factor = inverse_factor(moments.double(), damping)
    pivots = factor.diagonal().masked_fill(never_active, torch.inf)  # scores 0, and nothing has to make up for it
    weights = matrix.t().contiguous().to(torch.float64, copy=True)  # (in, out): a column is a contiguous row
    sizes = magnitudes(matrix).t()
    kept = torch.empty(weights.shape, dtype=torch.bool, device=weights.device)
    size = max(blocksize - blocksize % m, m)  # no group is cut
    for begin in range(0, len(weights), size):
        end = min(begin + size, len(weights))
        errors = torch.empty_like(weights[begin:end])
        for column in range(begin, end):
            if column % m == 0:
                group = slice(column, column + m)
                scores = (weights[group] / pivots[group].unsqueeze(1)).square()
                kept[group] = keep_largest(scores, n, sizes[group])
            error = errors[column - begin] = weights[column].masked_fill(kept[column], 0) / pivots[column]
            weights[column].masked_fill_(~kept[column], 0)
            weights[column + 1 : end].addr_(factor[column, column + 1 : end], error, alpha=-1)
        weights[end:].addmm_(factor[begin:end, end:].t(), errors, alpha=-1)
    return kept.t().contiguous(), weights.t().contiguous()


def inverse_factor(moments: Tensor, damping: float = DAMPING) -> Tensor:
    """Upper triangular U with UᵀU = (H + damping·mean(diag H)·1)⁻¹; float64 (in, in).

    H is `moments`, with the mean of the diagonal in the place of its zeros. Damping grows tenfold until H has a
    Cholesky factor.
    """
    diagonal = moments.diagonal()
    active = diagonal > 0
    mean = diagonal[active].mean() if bool(active.any()) else diagonal.new_ones(())
    while True:
        damped = moments + torch.diag(torch.where(active, 0, mean) + damping * mean)
        # H = R·Rᵀ with R upper triangular is a Cholesky factorization from the last column to the first; U = R⁻¹.
        lower, failed = torch.linalg.cholesky_ex(damped.flip(0, 1))
        if not failed:
            identity = torch.eye(len(damped), dtype=damped.dtype, device=damped.device)
            return torch.linalg.solve_triangular(lower.flip(0, 1), identity, upper=True)
        damping = max(10 * damping, 1e-9)
