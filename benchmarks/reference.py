"""The proximal operator as the reference code computes it, written plainly: what ours is compared with.

Liu et al. 2025 (arXiv 2502.00258), section 3.2: magnitudes are sorted; on the supports of three and of four, alternating
minimization over one weight at a time starts from zero and sweeps, the smallest weight first, until the change of the whole
tensor is small, a hundred times at most; the best of the supports of two, three and four wins. The order decides in which
minimum it ends: with the largest weight first it misses the least one in many more groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

SWEEPS = 100
TOLERANCE = 1e-5  # summed change of a sweep over the summed magnitudes


def alternating_prox(v: Tensor, lam: float) -> Tensor:
    """prox_{λR}(v) for 2:4, to the accuracy of alternating minimization. v: (out, in); returns a new tensor."""
    groups = v.float().reshape(-1, 4)
    ordered, order = groups.abs().sort(dim=1, descending=True)
    best = ordered.clone()
    best[:, 2:] = 0
    least = _objective(best, ordered, lam)
    for support in (3, 4):
        candidate = _alternate(ordered, lam, support)
        value = _objective(candidate, ordered, lam)
        better = value < least
        best = torch.where(better.unsqueeze(1), candidate, best)
        least = torch.where(better, value, least)
    unsorted = torch.zeros_like(best).scatter_(1, order, best)
    return (unsorted * groups.sign()).reshape(v.shape).to(v.dtype)


def _alternate(p: Tensor, lam: float, support: int) -> Tensor:
    w = torch.zeros_like(p)
    enough = TOLERANCE * p.sum()
    for _ in range(SWEEPS):
        before = w.clone()
        for i in reversed(range(support)):
            a, b, c = (w[:, j] for j in range(4) if j != i)
            w[:, i] = (p[:, i] - lam * (a * b + b * c + c * a)).clamp(min=0)
        if (w - before).abs().sum() < enough:  # one number for the whole tensor: a GPU is waited for
            break
    return w


def _objective(w: Tensor, p: Tensor, lam: float) -> Tensor:
    a, b, c, d = w.unbind(1)
    return (w - p).square().sum(1) / 2 + lam * (a * b * (c + d) + c * d * (a + b))
