"""What one pass of the proximal operator counts of its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from proxsparse.errors import ProxSparseError
from proxsparse.masks.mask import Mask

NOT_FINITE = "A weight is not a finite number: lower the learning rate, or check the model."


CHUNK = 1 << 18  # weights handled at a time: temporaries stay in the cache, and small beside the model


@dataclass(frozen=True)
class Counts:
    """What one pass of the operator saw of its result, in the metric; nothing is waited for on a GPU.

    mask: the projected mask. sums: float64, on the device of the weights: R; ‖w − original‖²; weights whose
    kept/dropped state differs from `previous`, and from `start` (0 where these were not given); not a number when a
    weight was not finite; then how many groups have m, m − 1, …, n and at most n − 1 nonzero weights.
    """

    mask: Mask
    sums: Tensor

    def read(self) -> Sums:
        """The sums as numbers. Raises ProxSparseError when a weight was not finite."""
        return read_sums(self.sums.tolist())


class Sums(NamedTuple):
    """See `Counts.sums`."""

    regularizer: float
    squared_drift: float
    flips: int
    flips_from_start: int
    nonzeros: tuple[int, ...]


def read_sums(values: list[float]) -> Sums:
    """`Counts.sums`, as a list, by name. Raises ProxSparseError when a weight was not finite."""
    regularizer, squared_drift, flips, flips_from_start, not_finite, *nonzeros = values
    if not_finite != 0:
        raise ProxSparseError(NOT_FINITE)
    return Sums(regularizer, squared_drift, int(flips), int(flips_from_start), tuple(map(int, nonzeros)))
