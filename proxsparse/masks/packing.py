"""Masks in memory and on disk: one bit a weight."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from proxsparse.masks.groups import from_planes

_BITS = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)


def pack(mask: Tensor) -> Tensor:
    """Bool (rows, columns) → uint8 (rows, ⌈columns/8⌉); bit k of a byte is column 8·byte + k."""
    rows, columns = mask.shape
    padded = torch.nn.functional.pad(mask, (0, -columns % 8)).view(rows, -(-columns // 8), 8)
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
    return packed.view(shape[0], columns // 8)


def unpack(packed: Tensor, columns: int) -> Tensor:
    """The inverse of `pack`."""
    return _entries(packed, torch.bool)[:, :columns]


def masked(values: Tensor, packed: Tensor, out: Tensor | None = None) -> Tensor:
    """Of `values` (rows, columns) those whose bit is set, and zeros; into `out` where that is given, which may be `values`.

    Their bits are masked: a product is none, 0 · inf is not 0 and 0 · −1 is −0; and it is a tenth of the work of
    `masked_fill`, which takes values one at a time.
    """
    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    chosen = _entries(packed, bits)[:, : values.shape[1]]
    return torch.bitwise_and(values.view(bits), chosen, out=None if out is None else out.view(bits)).view(values.dtype)


def _entries(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """(rows, 8 · bytes): each bit as True or False, or as an integer whose bits are all set or none."""
    words = _table(dtype, packed.device).index_select(0, packed.flatten().int())
    return words.view(dtype).view(packed.shape[0], 8 * packed.shape[1])


@functools.cache
def _table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What the eight bits of every byte become. A row is one entry, or some, of 64 bits: so it is copied as fast as it can be."""
    bits = (torch.arange(256, device=device).unsqueeze(1) & _BITS.to(device)) != 0
    return (bits if dtype == torch.bool else -bits.to(dtype)).view(torch.int64)


def bits_set(packed: Tensor) -> Tensor:
    """How many bits of a uint8 tensor are set; a scalar tensor."""
    pairs = packed - ((packed >> 1) & 0x55)
    fours = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    return ((fours + (fours >> 4)) & 0x0F).sum(dtype=torch.int64)
