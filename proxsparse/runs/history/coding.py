"""How masks, changed groups, tiles and summaries become bytes and come back. numpy only.

A group's *code* is the pattern as a number: bit k is set where the group keeps its k-th weight. Groups are counted row
by row; of several layers in one part, layer after layer. Everything is compressed by zlib, mostly by its Huffman code
alone: what is left after delta coding has no repetitions.

flips     the width in bytes of a gap; gaps between the changed groups (index − index of the one before − 1); the changes
          (code before XOR code after)
tile      float16, in units of the layer's `unit`: soft weights after the gradient half, how far the gradient half moved
          them, how far the prox half did, each a list over the layers of the block; at step 0 the original weights alone
summary   uint32 (layers, 2 + patterns): how many weights the mask keeps that the start mask, and the magnitude mask,
          keep too; how many groups have each pattern
masks     bits as `proxsparse.masks.packing` packs them; the magnitude mask XOR the start mask

Numbers of more than one byte are little-endian and lie in planes: first the lowest bytes of all of them, then the next.
"""

from __future__ import annotations

import math
import zlib
from itertools import combinations

import numpy as np

MOST_WEIGHTS = 16  # of a group: its code has two bytes
MOST_COUNTED = 100  # patterns that a summary counts: 70 for 4:8; more are a table that nobody reads
BITS_SET = np.array([value.bit_count() for value in range(1 << MOST_WEIGHTS)], np.uint8)


def code_type(m: int) -> np.dtype:
    """Of the codes of groups of m weights."""
    return np.dtype("u1" if m <= 8 else "<u2")


def patterns(n: int, m: int) -> list[int]:
    """The codes of all n:m patterns in ascending order; none where there are too many to count."""
    if math.comb(m, n) > MOST_COUNTED:
        return []
    return sorted(sum(1 << k for k in kept) for kept in combinations(range(m), n))


def pattern_name(code: int, m: int) -> str:
    """As people read it, the group's first weight first: 1 for kept.

    >>> pattern_name(3, 4)
    '1100'
    """
    return "".join(str(code >> k & 1) for k in range(m))


def bits_of(codes: np.ndarray, m: int) -> np.ndarray:
    """Codes (groups,) → bool (groups, m)."""
    return (codes[:, None] >> np.arange(m, dtype=codes.dtype)) & 1 == 1


def codes_of(bits: np.ndarray, m: int) -> np.ndarray:
    """Bool (rows, columns) → the codes of its groups, (rows · columns / m,)."""
    if 8 % m == 0:  # whole groups in a byte: packing row by row of so few bits takes several times as long
        packed, shifts = np.packbits(bits, bitorder="little"), np.arange(0, 8, m, dtype=np.uint8)
        return (packed[:, None] >> shifts & np.uint8(2**m - 1)).reshape(-1)[: bits.size // m]
    packed = np.packbits(bits.reshape(-1, m), axis=1, bitorder="little")
    return packed[:, 0] if m <= 8 else np.ascontiguousarray(packed).view("<u2")[:, 0]


def unpacked(packed: np.ndarray, columns: int) -> np.ndarray:
    """What `proxsparse.masks.packing.pack` packed: uint8 (rows, bytes) → bool (rows, columns)."""
    return np.unpackbits(packed, axis=1, count=columns, bitorder="little").view(bool)


def packed(bits: np.ndarray) -> np.ndarray:
    """The inverse of `unpacked`."""
    return np.packbits(bits, axis=1, bitorder="little")


def squeezed(raw: bytes) -> bytes:
    """Huffman-coded; `zlib.decompress` reads it."""
    coder = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)
    return coder.compress(raw) + coder.flush()


def to_planes(values: np.ndarray) -> bytes:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(-1, little.itemsize).T.tobytes()


def from_planes(raw: bytes, dtype: str | np.dtype) -> np.ndarray:
    dtype = np.dtype(dtype)
    planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(planes.T).view(dtype)[:, 0]


def coded_flips(groups: np.ndarray, changes: np.ndarray) -> bytes:
    """groups: which changed, ascending. changes: code before XOR code after. Nothing where no group changed."""
    if not len(groups):
        return b""
    gaps = np.diff(groups, prepend=-1) - 1
    width = next(width for width in (1, 2, 4, 8) if gaps.max() < 1 << 8 * width)
    return squeezed(bytes([width]) + to_planes(gaps.astype(f"<u{width}")) + to_planes(changes))


def read_flips(raw: bytes, m: int) -> tuple[np.ndarray, np.ndarray]:
    """What `coded_flips` coded, decompressed: groups int64, changes."""
    if not raw:
        return np.zeros(0, np.int64), np.zeros(0, code_type(m))
    width, size = raw[0], code_type(m).itemsize
    count = (len(raw) - 1) // (width + size)
    gaps = from_planes(raw[1 : 1 + count * width], f"<u{width}").astype(np.int64)
    return np.cumsum(gaps + 1) - 1, from_planes(raw[1 + count * width :], code_type(m))


def coded_tile(values: np.ndarray) -> bytes:
    """values: (kinds, weights), in units of the layer; beyond float16's range they become infinite."""
    with np.errstate(over="ignore"):
        return zlib.compress(to_planes(values.astype("<f2").reshape(-1)), 6)


def read_tile(raw: bytes, weights: int) -> np.ndarray:
    """What `coded_tile` coded, decompressed: float32 (kinds, weights)."""
    return from_planes(raw, "<f2").astype(np.float32).reshape(-1, weights)


def coded_summary(counts: np.ndarray) -> bytes:
    return zlib.compress(to_planes(counts.astype("<u4").reshape(-1)), 6)


def read_summary(raw: bytes, layers: int) -> np.ndarray:
    """int64 (layers, 2 + patterns)."""
    return from_planes(raw, "<u4").astype(np.int64).reshape(layers, -1)
