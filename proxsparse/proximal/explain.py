"""What the regularizer and its proximal operator do to one group of weights: numbers in, numpy arrays and tables out.

For screens and lessons, which draw them. Everything is computed by the operator that learning uses, in float64: nothing is
approximated for the picture, and many groups or strengths take one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray

from proxsparse.errors import ProxSparseError
from proxsparse.proximal.n_of_m import one_of_m
from proxsparse.proximal.operator import prox_
from proxsparse.proximal.regularizer import elementary_symmetric

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """One group of weights under the regularizer of a pattern.

    Parameters
    ----------
    weights
        v, the m weights.
    lam
        λ ≥ 0, absolute. Of weights that are given in units of their layer's RMS it is the relative λ1 of a run, whatever n.
    n
        How many weights the pattern keeps; m is how many there are.
    scale
        The metric: one positive number a weight. None: all are 1.

    Raises
    ------
    ProxSparseError
        For a λ, a weight or a scale that cannot be, and for an n that is not between 1 and m.
    """

    weights: tuple[float, ...]
    lam: float
    n: int = 2
    scale: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.n < self.m:
            raise ProxSparseError(
                f"The pattern is {self.n}:{self.m}: give fewer weights to keep than there are, at least 1."
            )
        if not np.isfinite(self.weights).all():
            raise ProxSparseError("A weight is not a finite number.")
        if not 0 <= self.lam < np.inf:
            raise ProxSparseError(f"λ is {self.lam}: give a number that is 0 or more.")
        if self.scale is not None and (len(self.scale) != self.m or not (np.array(self.scale) > 0).all()):
            raise ProxSparseError(f"The scale is {self.scale}: give {self.m} positive numbers, one a weight.")

    @property
    def m(self) -> int:
        """How many weights the group has."""
        return len(self.weights)

    @property
    def scaled(self) -> Array:
        """u = scale · v, the weights in the metric, (m,)."""
        return np.array(self.weights, dtype=float) * self.units

    @property
    def units(self) -> Array:
        """The scale; ones where there is none, (m,)."""
        return np.ones(self.m) if self.scale is None else np.array(self.scale, dtype=float)

    @property
    def regularizer(self) -> float:
        """R of the group, in the metric."""
        return float(values_of(self.scaled, self.n))

    @property
    def prox(self) -> Array:
        """prox_{λR}(v), in the units of the weights, (m,)."""
        return proxes(self.scaled, self.lam, self.n) / self.units


def values_of(scaled: Array, n: int) -> Array:
    """R of every group. scaled: (…, m), in the metric; result: (…)."""
    planes = torch.from_numpy(np.abs(np.atleast_2d(scaled)).astype(float)).movedim(-1, 0)
    found = elementary_symmetric(planes.flatten(1), n + 1).numpy()
    return np.asarray(found.reshape(scaled.shape[:-1]))


def proxes(scaled: Array, lam: float | Array, n: int) -> Array:
    """The proximal point of every group, in the metric. scaled: (…, m). lam: one λ, or one a group, (…)."""
    m = scaled.shape[-1]
    rows = np.array(scaled, dtype=float).reshape(-1, m)
    strengths = np.broadcast_to(np.asarray(lam, dtype=float), scaled.shape[:-1]).reshape(-1, 1)
    if n == 1:
        magnitudes = torch.from_numpy(np.abs(rows.T))
        done = one_of_m(magnitudes, torch.from_numpy(strengths[:, 0].copy())).numpy().T * np.sign(rows)
    else:  # With w = x / c, c = λ^(1/(n−1)), the problem in x has λ = 1: all strengths in one call.
        unit = np.where(strengths > 0, strengths, 1.0) ** (1 / (n - 1))
        moved = prox_(torch.from_numpy(rows * unit), 1.0, n, m).numpy() / unit
        done = np.where(strengths > 0, moved, rows)
    return np.asarray(done.reshape(scaled.shape))


def by_nonzeros(group: Group) -> pd.DataFrame:
    """What the best point with at most k nonzeros costs, for k = n … m.

    The operator keeps the order of magnitudes, so these k are the k largest, and the best point is the operator's on them
    alone. The k at which the objective stops falling is how many weights the operator leaves.

    Returns
    -------
    pandas.DataFrame
        nonzeros: k; objective: ½‖w − u‖² + λR(w) of that point, in the metric; above: how much that is above the least; w1 … wm: the
        point, in the units of the weights. That of the last row is the proximal point.
    """
    u = group.scaled
    ranks = np.argsort(np.argsort(-np.abs(u), kind="stable"))
    sizes = np.arange(group.n, group.m + 1)
    points = proxes(np.where(ranks < sizes[:, None], u, 0.0), group.lam, group.n)
    objective = ((points - u) ** 2).sum(1) / 2 + group.lam * values_of(points, group.n)
    table = pd.DataFrame({"nonzeros": sizes, "objective": objective})
    # A larger support contains the smaller ones: what is above is rounding.
    table["objective"] = table["objective"].cummin()
    table["above"] = table["objective"] - table["objective"].min()
    names = [f"w{position}" for position in range(1, group.m + 1)]
    return table.join(pd.DataFrame(points / group.units, columns=names))


def path(group: Group, lams: Sequence[float] | Array) -> Array:
    """The proximal point for every λ, in the units of the weights; (λ, m)."""
    strengths = np.asarray(lams, dtype=float)
    points = proxes(np.broadcast_to(group.scaled, (len(strengths), group.m)), strengths, group.n)
    return np.asarray(points / group.units)


def shape_of(group: Group) -> float:
    """The (n+1)-th largest magnitude over the n-th, in the metric: 0 where the group is n:m, 1 where the two tie."""
    ordered = -np.sort(-np.abs(group.scaled))
    return float(ordered[group.n] / ordered[group.n - 1]) if ordered[group.n - 1] > 0 else 0.0


def phases(group: Group, lams: Sequence[float] | Array, shapes: Sequence[float] | Array) -> NDArray[np.int64]:
    """How many weights the operator leaves, over λ and the shape of the group; (shapes, λ), whole numbers.

    The n largest magnitudes of the group stay as they are. The others are scaled together so that `shape_of` is the shape;
    where they are all zero, they are equal.
    """
    ordered = -np.sort(-np.abs(group.scaled))
    large, small = ordered[: group.n], ordered[group.n :]
    small = small / small[0] if small[0] > 0 else np.ones_like(small)
    small = np.asarray(shapes, dtype=float)[:, None] * large[-1] * small
    groups = np.concatenate([np.broadcast_to(large, (len(small), group.n)), small], axis=1)
    strengths = np.asarray(lams, dtype=float)
    grid = np.broadcast_to(groups[:, None, :], (len(small), len(strengths), group.m))
    found = proxes(grid, np.broadcast_to(strengths, grid.shape[:2]), group.n)
    return np.asarray((found > 0).sum(-1))


def slice_of(group: Group, first: Sequence[float] | Array, second: Sequence[float] | Array) -> Array:
    """R over the last two weights of the group, the others fixed; (second, first). first, second: values of the last but one and
    of the last, in the units of the weights."""
    a, b = np.meshgrid(np.asarray(first, dtype=float), np.asarray(second, dtype=float))
    grid = np.broadcast_to(np.array(group.weights, dtype=float), (*a.shape, group.m)).copy()
    grid[..., -2], grid[..., -1] = a, b
    return values_of(grid * group.units, group.n)
