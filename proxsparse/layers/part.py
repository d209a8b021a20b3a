"""A part of a tensor, which lies on several ranks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """`tensor` is what one rank holds of a whole of `shape`, beginning at `offsets`; it may be empty."""

    tensor: Tensor
    offsets: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor | Part) -> Part:
        """A tensor as the part of itself that is all of it."""
        return tensor if isinstance(tensor, Part) else cls(tensor, (0,) * tensor.dim(), tuple(tensor.shape))
