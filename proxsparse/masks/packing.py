"""Masks in memory and on disk: one bit a weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from proxsparse.masks.groups import from_planes

_BITS = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)


def pack(mask: Tensor) -> Tensor:
    """Bool (rows, columns) → uint8 (rows, ⌈columns/8⌉); bit k of a byte is column 8·byte + k."""
    rows, columns = mask.shape
    padded = torch.nn.functional.pad(mask, (0, -columns % 8)).view(rows, -1, 8)
    return (padded * _BITS.to(mask.device)).sum(-1, dtype=torch.uint8)


def pack_planes(kept: Tensor, shape: Sequence[int]) -> Tensor:
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
