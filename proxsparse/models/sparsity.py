"""Which zeros a model has: the n:m pattern of its layers, found in the weights and proven group by group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

PATTERNS = ((1, 2), (1, 4), (2, 4), (1, 8), (2, 8), (4, 8), (1, 16), (2, 16), (4, 16), (8, 16))
DENSE_BELOW = 0.2  # share of zeros; a dense model on a 4-bit grid has one weight in ten on the grid's zero


@dataclass(frozen=True)
class Sparsity:
    """What was found in the weights of some layers.

    pattern: (n, m) that most layers have, None where no layer has one. matching: how many layers have it in every group.
    layers: how many there are. zeros: share of their weights that are zero.
    """

    pattern: tuple[int, int] | None
    matching: int
    layers: int
    zeros: float

    @property
    def is_sparse(self) -> bool:
        return self.pattern is not None or self.zeros >= DENSE_BELOW

    def __str__(self) -> str:
        """`dense`, `sparse (2:4 in 210 of 210 layers)`, or `sparse (61.0% zeros in no pattern)`."""
        if self.pattern is not None:
            return "sparse ({}:{} in {:,} of {:,} layers)".format(*self.pattern, self.matching, self.layers)
        return f"sparse ({self.zeros:.1%} zeros in no pattern)" if self.is_sparse else "dense"


def sparsity_of(matrices: Iterable[Tensor], patterns: Iterable[tuple[int, int]] = PATTERNS) -> Sparsity:
    """Find the pattern of the zeros in some weight matrices. Every group of every matrix is looked at.

    Parameters
    ----------
    matrices : iterable of Tensor
        Weights (out, in) of the layers, in any floating dtype; groups run along `in`. Read one at a time.
    patterns : iterable of (n, m)
        What is looked for. Of patterns that equally many layers have, the one that keeps the smallest share is named,
        then the one with the smaller group: 2:4 is 4:8 as well, and 1:4 is 2:4.

    Returns
    -------
    Sparsity

    Examples
    --------
    >>> print(sparsity_of([torch.tensor([[1.0, 2, 0, 0, 0, 3, 0, 4]])]))
    sparse (2:4 in 1 of 1 layers)
    >>> print(sparsity_of([torch.ones(2, 8)]))
    dense
    """
    matching = {pattern: 0 for pattern in patterns}
    layers = zeros = weights = 0
    for matrix in matrices:
        nonzero = (matrix != 0).to(torch.uint8)
        layers, weights = layers + 1, weights + matrix.numel()
        zeros += matrix.numel() - int(nonzero.count_nonzero())
        most = {m: most_in_a_group(nonzero, m) for m in {m for _, m in matching}}
        for n, m in matching:
            matching[n, m] += most[m] is not None and most[m] <= n
    best = max(matching, key=lambda pattern: (matching[pattern], -pattern[0] / pattern[1], -pattern[1]))
    return Sparsity(best if matching[best] else None, matching[best], layers, zeros / weights if weights else 0.0)


def most_in_a_group(matrix: Tensor, m: int) -> int | None:
    """The largest number of nonzero weights in a group of `m`, of (out, in); None where m does not divide `in`."""
    if matrix.shape[1] % m:
        return None
    nonzero = (matrix != 0).to(torch.uint8)
    counts = nonzero[:, 0::m].clone()
    for place in range(1, m):
        counts += nonzero[:, place::m]
    return int(counts.max())
