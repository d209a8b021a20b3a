"""ADMM pruning: weights that make up best for those that a mask drops, and a mask chosen on the way.

For one layer, with the weights W as (out, in) and the moments of its inputs G = XᵀX, it minimizes ‖(W − Ŵ)Xᵀ‖² over
matrices Ŵ that are zero where the mask drops, by the alternating direction method of multipliers (Boža 2024, arXiv
2401.02938). Inputs are divided by their norms first, and weights multiplied by them: then magnitudes are Wanda's scores,
and one ρ suits every layer. With V = W·diag(‖x_j‖), C the inputs' G so normalised, C_λ = C + λ1, and U = 0 at first:

    Z ← V̂ + U where the mask keeps, else 0
    U ← U + V̂ − Z
    V̂ ← (V·C_λ + ρ(Z − U))·(C_λ + ρ1)⁻¹

One inverse serves all rows and all steps. While the mask is chosen, its share of dropped weights grows from step to step
as a cubic (Zhu & Gupta 2017, arXiv 1710.01878): the n largest |V̂ + U| of every group stay, and of all others in the layer
the smallest go. The last of these steps leaves n of m; after it the mask is fixed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from proxsparse.errors import ProxSparseError
from proxsparse.layers import PrunableLayer, PrunableLayers, prunable_layers
from proxsparse.masks.groups import check_groups, from_planes, in_planes, keep_largest, magnitudes
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.masks.packing import pack
from proxsparse.methods.blockwise import prune_blocks
from proxsparse.methods.result import Pruned
from proxsparse.models.activations import SecondMoments, check_finite
from proxsparse.progress import Progress, no_progress

DAMPING, RHO = 0.1, 1.0  # λ and ρ above, where every input has the norm 1
STEPS, CHOOSING = 20, 15  # all steps, and the first of them, in which the mask is chosen


def admm(
    model,
    windows: Tensor,
    n: int = 2,
    m: int = 4,
    *,
    layers: PrunableLayers | None = None,
    progress: Progress = no_progress,
    steps: int = STEPS,
    choosing: int = CHOOSING,
    precision: str = "auto",
    batch: int = 4,
) -> Pruned:
    """Masks and updated weights by ADMM with gradual mask selection, block by block.

    An input that was never active is dropped first, and keeps its weights where it is kept: an expert that saw no token
    gets its magnitude mask.

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
    steps, choosing : int
        How many steps ADMM takes in a layer, and in how many of them, the first ones, the mask is chosen.
    precision : {"auto", "fp32", "bf16"}
        Arithmetic of the matrix products; see `proxsparse.models.forward.autocast`.
    batch : int
        Windows in one forward pass.

    Returns
    -------
    Pruned
        Masks and weights.

    Raises
    ------
    ProxSparseError
        When weights or activations are not finite.

    References
    ----------
    Boža 2024, "Fast and Effective Weight Update for Pruned Large Language Models", arXiv 2401.02938.
    """
    layers = layers if layers is not None else prunable_layers(model, m)
    masks, weights = MaskSet(), {}

    def prune(layer: PrunableLayer, inputs: SecondMoments) -> Tensor:
        kept, updated = alternate(layer.matrix, inputs.sum, n, m, steps, choosing)
        masks[layer.name] = Mask(pack(kept), tuple(kept.shape), n, m)
        weights[layer.name] = updated.to(layer.matrix.dtype)
        return weights[layer.name]

    prune_blocks(model, windows, layers, SecondMoments, prune, precision, progress, batch)
    return Pruned(masks, weights)


def alternate(
    matrix: Tensor,
    moments: Tensor,
    n: int = 2,
    m: int = 4,
    steps: int = STEPS,
    choosing: int = CHOOSING,
    damping: float = DAMPING,
    rho: float = RHO,
) -> tuple[Tensor, Tensor]:
    """Which weights stay, bool (out, in), and what they become, (out, in) in at least float32, zero elsewhere.

    matrix: (out, in). moments: XᵀX (in, in), in any scale: no factor changes the result. steps, choosing: see `admm`.
    damping: λ, which holds weights near the original ones where the inputs say little. rho: ρ, for speed only once the
    mask is fixed.
    """
    check_groups(matrix, n, m)
    check_finite(matrix, moments)
    if not 1 <= choosing <= steps:
        raise ProxSparseError(f"ADMM cannot choose a mask in {choosing} of {steps} steps: give 1 ≤ choosing ≤ steps.")
    dtype = torch.promote_types(matrix.dtype, torch.float32)  # enough: no eigenvalue of C_λ + ρ1 is below λ + ρ
    norms = moments.diagonal().double().sqrt()
    scale = norms.masked_fill(norms == 0, 1)
    correlations = moments.double() / scale / scale.unsqueeze(1)
    identity = torch.eye(len(norms), dtype=torch.float64, device=norms.device)
    damped = correlations + damping * identity
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped + rho * identity)).to(dtype)
    original = matrix.double() * norms
    target, weights = (original @ damped).to(dtype), original.to(dtype)
    duals = torch.zeros_like(weights)
    sizes, in_the_end = magnitudes(matrix), matrix.numel() // m * (m - n)
    for step in range(1, steps + 1):
        moved = weights + duals
        if step <= choosing:
            dropped = in_the_end * (choosing**3 - (choosing - step) ** 3) // choosing**3
            kept = choose(moved.abs(), n, m, dropped, sizes)
        sparse = moved.masked_fill(~kept, 0)
        duals = moved - sparse
        weights = (target + rho * (sparse - duals)) @ inverse
    updated = torch.where(norms > 0, (weights + duals) / scale.to(dtype), matrix)
    return kept, updated.masked_fill_(~kept, 0)


def choose(scores: Tensor, n: int, m: int, dropped: int, ties: Tensor) -> Tensor:
    """The mask that drops the `dropped` lowest scores, but none of the n highest of a group; bool (out, in).

    scores: (out, in). Of equal ones in a group those that are larger in `ties` are the highest. Of scores equal to the
    lowest that stays, all stay.
    """
    largest = from_planes(keep_largest(in_planes(scores, m), n, in_planes(ties, m)), scores.shape)
    left = scores.masked_fill(largest, torch.inf)
    return left >= left.flatten().kthvalue(dropped + 1).values
