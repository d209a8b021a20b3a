"""Cutting a weight matrix into groups of M consecutive input weights, with the checks that every room needs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from proxsparse.errors import ProxSparseError


def check_groups(weight: Tensor, n: int, m: int, scale: Tensor | None = None) -> None:
    """Raise `ProxSparseError` unless `weight` is a floating (out, in) matrix that N:M groups divide, and `scale` fits
    it.

    `scale` is the metric: shape (in,) or (out, in), every entry positive and finite.
    """
    if not 0 < n < m <= 255:  # what is counted of a group is counted in bytes
        raise ProxSparseError(f"There is no pattern {n}:{m}: give 0 < n < m ≤ 255, as in 2:4.")
    if weight.ndim != 2 or not weight.is_floating_point():
        raise ProxSparseError(
            f"A weight has shape {tuple(weight.shape)}, {weight.dtype}: give a floating (out, in) matrix."
        )
    if weight.shape[1] % m:
        raise ProxSparseError(
            f"The input dimension {weight.shape[1]} is not a multiple of {m}: this layer has no {n}:{m} groups."
        )
    if scale is not None:
        if scale.shape not in (weight.shape, weight.shape[1:]):
            raise ProxSparseError(
                f"The scale has shape {tuple(scale.shape)} and the weight {tuple(weight.shape)}: give one scale an input "
                "feature, or one a weight."
            )
        if not bool(((scale > 0) & scale.isfinite()).all()):
            raise ProxSparseError(
                "The scale has an entry that is not positive and finite: magnitudes cannot be compared in it."
            )


def magnitudes(weight: Tensor, scale: Tensor | None = None) -> Tensor:
    """|weight| in the metric: |w_ij|·s_j, in at least float32; shape of `weight`."""
    wide = weight.abs().to(torch.promote_types(weight.dtype, torch.float32))
    return wide if scale is None else wide * scale


def patterns_of(n: int, m: int) -> Tensor:
    """All ways to keep n of m, bool (C(m,n), m), in lexicographic order."""
    kept = torch.tensor(list(combinations(range(m), n)))
    return torch.zeros(len(kept), m, dtype=torch.bool).scatter_(1, kept, True)


def in_planes(matrix: Tensor, m: int) -> Tensor:
    """(out, in) → (m, out·in/m), contiguous: plane i holds the i-th weight of every group, row by row."""
    return matrix.reshape(-1, m).t().contiguous()


def from_planes(planes: Tensor, shape: Sequence[int]) -> Tensor:
    """The inverse of `in_planes`."""
    return planes.t().reshape(shape)


def keep_largest(planes: Tensor, n: int, ties: Tensor | None = None) -> Tensor:
    """Which n of each column of `planes` (m, groups) are largest; of equal ones the one that is larger in `ties`, then
    the lower index. Bool, same shape.

    Every pair of planes is compared once: an entry is kept iff fewer than n others beat it. For groups of four this is
    much faster than sorting.
    """
    m = planes.shape[0]
    beaten_by = torch.zeros(planes.shape, dtype=torch.uint8, device=planes.device)
    for i in range(m):
        for j in range(i + 1, m):
            first_wins = planes[i] >= planes[j]
            if ties is not None:
                first_wins &= (planes[i] > planes[j]) | (ties[i] >= ties[j])
            beaten_by[j] += first_wins
            beaten_by[i] += ~first_wins
    return beaten_by < n
