"""Swaps: Wanda's mask, changed group by group while that brings the output of the layer nearer to the dense one.

Of an output row with the original weights w the mask m drops e = (1 − m)∘w, so that its output is off by Xe and its error
is ‖Xe‖² = eᵀGe with G = XᵀX. While all other groups stay, the errors under all patterns of one group follow from its own
m × m part of G and from Ge. The group takes the pattern with the least error, and the next one is asked. Every change
lowers the error, so this comes to an end: where no change of a single group lowers it.

SparseSwaps (Zimmer et al. 2025, arXiv 2512.10922) refines a mask by the same error of the original weights. It exchanges
one kept weight of a row for one dropped weight at a time, always the pair that lowers the error most; with N:M, a pair of
one group. Here groups are asked in turn, and one may exchange several weights at once: where this ends, no exchange of
theirs is left either. DSnoT (Zhang et al. 2024, arXiv 2310.08915) swaps by means and variances of the inputs, without G.
"""

from __future__ import annotations

import torch
from torch import Tensor

from proxsparse.config import check_patterns
from proxsparse.errors import ProxSparseError
from proxsparse.layers import PrunableLayer, PrunableLayers, prunable_layers
from proxsparse.masks.groups import check_groups, magnitudes, patterns_of
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.masks.packing import pack
from proxsparse.methods.blockwise import prune_blocks
from proxsparse.methods.result import Pruned
from proxsparse.models.activations import SecondMoments, check_finite
from proxsparse.progress import Progress, no_progress

SWEEPS = 5  # on the embedded model the first gains about 80% of what all sweeps would, and five 98% to 99%
ROUNDING = 1e-12  # as a share of Σ_j G_jj·w_j²: what an error is lowered by less may be rounding


def swaps(
    model,
    windows: Tensor,
    n: int = 2,
    m: int = 4,
    *,
    layers: PrunableLayers | None = None,
    progress: Progress = no_progress,
    sweeps: int = SWEEPS,
    precision: str = "auto",
    batch: int = 4,
) -> Pruned:
    """Wanda's mask of every layer, refined by exact coordinate descent on the layer's output error; block by block.

    An expert that saw no token keeps its magnitude mask.

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
    sweeps : int
        How often every group is asked at most.
    precision : {"auto", "fp32", "bf16"}
        Arithmetic of the matrix products; see `proxsparse.models.forward.autocast`.
    batch : int
        Windows in one forward pass.

    Returns
    -------
    Pruned
        Masks for the original weights.

    Raises
    ------
    ProxSparseError
        For too many patterns, or when weights or activations are not finite.

    References
    ----------
    After Zimmer et al. 2025, arXiv 2512.10922, "SparseSwaps: Tractable LLM Pruning Mask Refinement at Scale".
    """
    check_patterns(n, m, "swaps")
    layers = layers if layers is not None else prunable_layers(model, m)
    masks = MaskSet()

    def prune(layer: PrunableLayer, inputs: SecondMoments) -> Tensor:
        check_finite(layer.matrix, inputs.sum)
        sizes = magnitudes(layer.matrix)
        start = Mask.of_scores(sizes * inputs.sum.diagonal().sqrt(), n, m, ties=sizes)
        kept = refine(layer.matrix, inputs.sum, start.dense(), n, m, sweeps)
        mask = masks[layer.name] = Mask(pack(kept), start.shape, n, m)
        return mask.applied_to(layer.matrix)

    prune_blocks(model, windows, layers, SecondMoments, prune, precision, progress, batch)
    return Pruned(masks)


def refine(
    matrix: Tensor, moments: Tensor, mask: Tensor, n: int = 2, m: int = 4, sweeps: int = SWEEPS, blocksize: int = 64
) -> Tensor:
    """A mask with an output error of every row that is not above that of `mask`; bool (out, in), True = kept.

    matrix: the original weights, (out, in). moments: XᵀX (in, in), in any scale. mask: bool (out, in), n of every m kept.
    sweeps: how often every group is asked at most; fewer where no pattern changes any more. blocksize: columns between
    two products with all that is dropped, for speed only. Equal errors leave a group as it is; of equal better ones it
    takes the pattern that keeps lower positions. Raises ProxSparseError for another mask and for too many patterns.
    """
    check_groups(matrix, n, m)
    check_patterns(n, m, "swaps")
    if mask.shape != matrix.shape or bool((mask.reshape(-1, m).sum(1) != n).any()):
        raise ProxSparseError(f"The mask to refine keeps other than {n} of every {m} weights: give one that does.")
    kept = patterns_of(n, m).to(matrix.device)
    drops = (~kept).double()
    gram = moments.double()
    weights = matrix.t().contiguous().double()  # (in, out): a group is m contiguous rows
    dropped = weights.masked_fill(mask.t(), 0)  # e of all rows
    chosen = torch.stack([(drops @ group).max(0).indices for group in (~mask.t()).double().split(m)])  # (groups, out)
    least = ROUNDING * (gram.diagonal() @ weights.square())
    size = max(blocksize - blocksize % m, m)  # no group is cut
    for _ in range(sweeps):
        before = chosen.clone()
        for begin in range(0, len(weights), size):
            block = slice(begin, min(begin + size, len(weights)))
            products = gram[block] @ dropped  # Ge; kept up for the groups still to be asked
            for column in range(begin, block.stop, m):
                group = slice(column, column + m)
                own, choice = gram[group, group], chosen[column // m]
                others = torch.addmm(products[column - begin :][:m], own, dropped[group], alpha=-1)
                errors = errors_of_patterns(drops, weights[group], own, others)
                lowest, best = errors.min(0)
                better = lowest < errors.gather(0, choice.unsqueeze(0)).squeeze(0) - least
                torch.where(better, best, choice, out=choice)
                now = weights[group] * drops.t().index_select(1, choice)
                products[column - begin + m :].addmm_(gram[column + m : block.stop, group], now - dropped[group])
                dropped[group] = now
        if torch.equal(chosen, before):
            break
    return kept[chosen].permute(1, 0, 2).flatten(1)


def errors_of_patterns(drops: Tensor, weights: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """dᵀ·own·d + 2·dᵀ·others, which is all of eᵀGe that a group has a say in, for the d that each pattern drops of it.

    drops: 1 where a pattern drops, else 0, (patterns, m). weights: of one group, (m, out). own: the group's part of G,
    (m, m). others: what the dropped weights of all other groups have in Ge there, (m, out). Returns (patterns, out).
    """
    together = (drops.unsqueeze(2) * drops.unsqueeze(1) * own).flatten(1)
    pairs = (weights.unsqueeze(1) * weights).flatten(0, 1)
    return (together @ pairs).addmm_(drops, weights * others, alpha=2)
