"""What one pass of the proximal operator counts of its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from proxsparse.errors import ProxSparseError
from proxsparse.masks.mask import Mask

CHUNK = 1 << 18  # weights handled at a time: temporaries stay in the cache, and small beside the model


@dataclass(frozen=True)
class Counts:
    """What one pass of the operator saw of its result, in the metric; nothing is waited for on a GPU.

    Attributes
    ----------
    mask
        The projected mask.
    sums
        float64, on the device of the weights: R; ‖w − original‖²; weights whose kept/dropped state differs from
        `previous`, and from `start` (0 where these were not given); not a number when a weight was not finite; then how
        many groups have m, m − 1, …, n and at most n − 1 nonzero weights.
    """

    mask: Mask
    sums: Tensor

    def read(self) -> Sums:
        """The sums as numbers. Raises ProxSparseError when a weight was not finite."""
        sums = read_sums(self.sums.tolist())
        if not sums.finite:
            raise ProxSparseError("A weight is not a finite number: check the model that it comes from.")
        return sums


class Sums(NamedTuple):
    """See `Counts.sums`. finite: whether every weight was."""

    regularizer: float
    squared_drift: float
    flips: int
    flips_from_start: int
    nonzeros: tuple[int, ...]
    finite: bool


def read_sums(values: list[float]) -> Sums:
    """`Counts.sums`, as a list, by name."""
    regularizer, squared_drift, flips, flips_from_start, not_finite, *nonzeros = values
    counted = int(flips), int(flips_from_start), tuple(map(int, nonzeros))
    return Sums(regularizer, squared_drift, *counted, finite=not_finite == 0)
