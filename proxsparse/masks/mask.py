"""N:M masks: which weights of a layer are kept. Project, apply, pack, compare, save, load.

A mask is kept packed, one bit a weight. Nothing here knows about models, except that `MaskSet.apply_` writes into the
matrices it is given by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from proxsparse.errors import ProxSparseError
from proxsparse.masks.groups import check_groups, from_planes, in_planes, magnitudes

_BITS = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)


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


def pack(mask: Tensor) -> Tensor:
    """Bool (rows, columns) → uint8 (rows, ⌈columns/8⌉); bit k of a byte is column 8·byte + k."""
    rows, columns = mask.shape
    padded = torch.nn.functional.pad(mask, (0, -columns % 8)).view(rows, -1, 8)
    return (padded * _BITS.to(mask.device)).sum(-1, dtype=torch.uint8)


def pack_planes(kept: Tensor, shape: tuple[int, int]) -> Tensor:
    """`pack` of a mask that lies in planes: kept bool (m, groups), see `in_planes`; shape (out, in)."""
    m, columns = kept.shape[0], shape[1]
    if 8 % m or columns % 8:
        return pack(from_planes(kept, shape))
    codes = kept[0].to(torch.uint8)
    for i in range(1, m):
        codes |= kept[i].to(torch.uint8) << i
    codes = codes.view(-1, 8 // m)
    packed = codes[:, 0].clone()
    for i in range(1, 8 // m):
        packed |= codes[:, i] << (i * m)
    return packed.view(shape[0], -1)


def unpack(packed: Tensor, columns: int) -> Tensor:
    """The inverse of `pack`."""
    bits = (packed.unsqueeze(-1) & _BITS.to(packed.device)) != 0
    return bits.view(packed.shape[0], -1)[:, :columns]


def bits_set(packed: Tensor) -> Tensor:
    """How many bits of a uint8 tensor are set; a scalar tensor."""
    pairs = packed - ((packed >> 1) & 0x55)
    fours = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    return ((fours + (fours >> 4)) & 0x0F).sum(dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class Mask:
    """The mask of one layer. packed: uint8 (out, ⌈in/8⌉), see `pack`; shape: (out, in); at most n of m kept in a
    group."""

    packed: Tensor
    shape: tuple[int, int]
    n: int = 2
    m: int = 4

    @classmethod
    def project(cls, weight: Tensor, n: int = 2, m: int = 4, scale: Tensor | None = None) -> Mask:
        """Keep the n largest magnitudes of every group of m, in the metric `scale`; ties go to the lower index.

        weight: (out, in). scale: (in,) or (out, in), positive.

        >>> Mask.project(torch.tensor([[1.0, -3.0, 2.0, 0.5]])).dense()
        tensor([[False,  True,  True, False]])
        """
        check_groups(weight, n, m, scale)
        kept = keep_largest(in_planes(magnitudes(weight, scale), m), n)
        return cls(pack_planes(kept, weight.shape), tuple(weight.shape), n, m)

    @classmethod
    def of_scores(cls, scores: Tensor, n: int = 2, m: int = 4, ties: Tensor | None = None) -> Mask:
        """Keep the n highest scores of every group of m; of equal ones the weight that is larger in `ties`, then the
        lower index.

        scores, ties: (out, in). Zeros are fine, unlike in a `scale`. Raises ProxSparseError for a score that is not a
        number.

        >>> Mask.of_scores(torch.tensor([[0.0, 0.0, 5.0, 0.0]]), ties=torch.tensor([[1.0, 3.0, 2.0, 2.0]])).dense()
        tensor([[False,  True,  True, False]])
        """
        check_groups(scores, n, m)
        if bool(scores.isnan().any()):
            raise ProxSparseError("A score is not a number: the weights or the activations of this model are broken.")
        kept = keep_largest(in_planes(scores, m), n, None if ties is None else in_planes(ties, m))
        return cls(pack_planes(kept, scores.shape), tuple(scores.shape), n, m)

    def dense(self, device=None) -> Tensor:
        """Bool (out, in); True = kept."""
        return unpack(self.packed.to(device) if device is not None else self.packed, self.shape[1])

    def applied_to(self, weight: Tensor) -> Tensor:
        """A copy of `weight` (out, in), zero where the mask drops."""
        return weight.masked_fill(~self.dense(weight.device), 0)

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


class MaskSet(dict[str, Mask]):
    """The masks of a model by layer name."""

    def apply_(self, model) -> None:
        """Multiply every layer of `model` that has a mask by it, in place.

        model: a transformers model, or the prunable layers of one. Raises ProxSparseError when a name or a shape
        differs; then nothing is written.
        """
        from proxsparse.layers import prunable_layers  # here: masks stand below layers, and need them only for a model

        layers = model if isinstance(model, Mapping) else prunable_layers(model, next(iter(self.values())).m)
        self.check_fits(layers)
        for name, mask in self.items():
            matrix = layers[name].matrix
            matrix.masked_fill_(~mask.dense(matrix.device), 0)  # not a product: 0 · inf is not 0, and -0 is not 0

    def check_fits(self, layers: Mapping) -> None:
        """Raise ProxSparseError unless every mask has a layer of its name and shape among `layers`."""
        missing = [name for name in self if name not in layers]
        if missing:
            raise ProxSparseError(
                f"The model has no prunable layer {missing[0]!r}: these masks belong to another model."
            )
        for name, mask in self.items():
            if tuple(layers[name].matrix.shape) != mask.shape:
                raise ProxSparseError(
                    f"The mask of {name!r} has shape {mask.shape} and the layer {tuple(layers[name].matrix.shape)}: these "
                    "masks belong to another model."
                )

    def flips(self, other: MaskSet) -> dict[str, int]:
        """Layer by layer, how many weights are kept by one of the two sets and dropped by the other."""
        if self.keys() != other.keys():
            raise ProxSparseError("These mask sets name different layers: they belong to different models.")
        return {name: mask.flips(other[name]) for name, mask in self.items()}

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: one packed uint8 tensor a layer, shapes and pattern in the metadata."""
        tensors = {name: mask.packed.contiguous().cpu() for name, mask in self.items()}
        about = {name: [*mask.shape, mask.n, mask.m] for name, mask in self.items()}
        save_file(tensors, path, metadata={"format": "pt", "content": "packed N:M masks", "masks": json.dumps(about)})

    @classmethod
    def load(cls, path: str | Path) -> MaskSet:
        """Read what `save` wrote. Raises ProxSparseError for a file that is not a mask file or breaks its own
        pattern."""
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {}).get("masks", "null"))
                if about is None:
                    raise ProxSparseError(f"{path} holds no packed masks: give a file that MaskSet.save wrote.")
                masks = cls()
                for name, (rows, columns, n, m) in about.items():
                    masks[name] = Mask(file.get_tensor(name), (rows, columns), n, m)
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            raise ProxSparseError(
                f"{path} cannot be read as packed masks ({error}): give a file that MaskSet.save wrote."
            ) from error
        for name, mask in masks.items():
            if tuple(mask.packed.shape) != (mask.shape[0], -(-mask.shape[1] // 8)) or not mask.is_valid():
                raise ProxSparseError(f"The mask of {name!r} in {path} is not {mask.n}:{mask.m}: the file is damaged.")
        return masks
