"""The N:M mask of one layer: which of its weights are kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from proxsparse.errors import ProxSparseError
from proxsparse.masks.groups import check_groups, in_planes, keep_largest, magnitudes
from proxsparse.masks.packing import bits_set, masked, pack_planes, unpack


@dataclass(frozen=True, eq=False)
class Mask:
    """The mask of one layer: at most n of every m consecutive input weights are kept.

    Parameters
    ----------
    packed : Tensor
        One bit a weight, uint8 (out, ⌈in/8⌉); see `proxsparse.masks.packing.pack`.
    shape : (int, int)
        (out, in) of the weight.
    n, m : int
        The pattern.

    Examples
    --------
    >>> mask = Mask.project(torch.tensor([[1.0, -3.0, 2.0, 0.5]]))
    >>> mask.density, mask.is_valid()
    (0.5, True)
    """

    packed: Tensor
    shape: tuple[int, int]
    n: int = 2
    m: int = 4

    @classmethod
    def project(cls, weight: Tensor, n: int = 2, m: int = 4, scale: Tensor | None = None) -> Mask:
        """Keep the n largest magnitudes of every group of m, in the metric `scale`; ties go to the lower index.

        Parameters
        ----------
        weight : Tensor
            (out, in), floating.
        n, m : int
            The pattern; m divides `in`.
        scale : Tensor, optional
            (in,) or (out, in), positive and finite; magnitudes compared are |weight|·scale.

        Returns
        -------
        Mask

        Raises
        ------
        ProxSparseError
            Where weight or scale has another shape, or m does not divide `in`.

        Examples
        --------
        >>> Mask.project(torch.tensor([[1.0, -3.0, 2.0, 0.5]])).dense()
        tensor([[False,  True,  True, False]])
        """
        check_groups(weight, n, m, scale)
        kept = keep_largest(in_planes(magnitudes(weight, scale), m), n)
        return cls(pack_planes(kept, weight.shape), (weight.shape[0], weight.shape[1]), n, m)

    @classmethod
    def of_scores(cls, scores: Tensor, n: int = 2, m: int = 4, ties: Tensor | None = None) -> Mask:
        """Keep the n highest scores of every group of m; of equal ones the weight that is larger in `ties`, then the
        lower index.

        Parameters
        ----------
        scores : Tensor
            (out, in), floating; zeros are allowed, unlike in a `scale`.
        n, m : int
            The pattern; m divides `in`.
        ties : Tensor, optional
            (out, in); decides between equal scores.

        Returns
        -------
        Mask

        Raises
        ------
        ProxSparseError
            For a score that is not a number.

        Examples
        --------
        >>> Mask.of_scores(torch.tensor([[0.0, 0.0, 5.0, 0.0]]), ties=torch.tensor([[1.0, 3.0, 2.0, 2.0]])).dense()
        tensor([[False,  True,  True, False]])
        """
        check_groups(scores, n, m)
        if bool(scores.isnan().any()):
            raise ProxSparseError("A score is not a number: the weights or the activations of this model are broken.")
        kept = keep_largest(in_planes(scores, m), n, None if ties is None else in_planes(ties, m))
        return cls(pack_planes(kept, scores.shape), (scores.shape[0], scores.shape[1]), n, m)

    def dense(self, device: torch.device | str | None = None) -> Tensor:
        """Bool (out, in); True = kept."""
        return unpack(self.packed.to(device) if device is not None else self.packed, self.shape[1])

    def applied_to(self, weight: Tensor, out: Tensor | None = None) -> Tensor:
        """A copy of `weight` (out, in), zero where the mask drops; `out`, which may be `weight` itself, takes it where given."""
        return masked(weight, self.packed.to(weight.device), out)

    def flips(self, other: Mask) -> int:
        """How many weights are kept by one of the two masks and dropped by the other."""
        if self.shape != other.shape:
            raise ProxSparseError(f"Masks of shapes {self.shape} and {other.shape} cannot be compared.")
        return int(bits_set(self.packed ^ other.packed.to(self.packed.device)))

    def overlap(self, other: Mask) -> float:
        """Share of the weights kept here that the other mask keeps too. Two masks that keep n of every m at random share
        n/m."""
        kept = int(bits_set(self.packed))
        shared = int(bits_set(self.packed & other.packed.to(self.packed.device)))
        return shared / kept if kept else float("nan")

    @property
    def density(self) -> float:
        """Share of the weights that are kept."""
        return int(bits_set(self.packed)) / (self.shape[0] * self.shape[1])

    def is_valid(self) -> bool:
        """Whether no group keeps more than n of m."""
        return bool((in_planes(self.dense(), self.m).sum(0) <= self.n).all())
