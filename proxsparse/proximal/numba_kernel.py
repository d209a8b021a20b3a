"""The 2:4 proximal operator and everything that is counted of it, in one pass over float32 weights, compiled by numba.

The mathematics is explained in `proxsparse.proximal.operator`; here is its arrangement. A row is read in tiles of groups that
stay in the first-level cache, laid out in planes: plane k of a tile holds the k-th weight of every group, so that each
step below is a plain loop over groups, which the compiler turns into vector instructions (a zmm register holds
sixteen groups). Only the support of four is rare and dear enough to be worth collecting its groups first. Steps are
functions of their own, never inlined: compiled alone, each loop is simple enough to be vectorized.

`p` and `x` are λ·u, where u = |scale · weight|. p is kept within [LEAST, MOST]: nothing underflows to a zero that the
operator would take for a dropped weight, and where p reaches MOST only the two largest survive anyway (a support of
three needs p1 ≤ 5/4).
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from torch import Tensor

from proxsparse.masks.mask import Mask
from proxsparse.proximal.counts import CHUNK, Counts
from proxsparse.proximal.stochastic_rounding import writer

TILE, LANES = 256, 16
_F = np.float32
ZERO, HALF, ONE, TWO, THREE, FOUR = (_F(value) for value in (0, 0.5, 1, 2, 3, 4))
SMALL, ROOT_HALF = _F(0.25), _F(math.sqrt(0.5))
LEAST, MOST, GONE = _F(1e-37), _F(4), _F(-3e38)

_FLAGS = {"contract", "nsz", "reassoc", "arcp"}
_step = numba.njit(error_model="numpy", fastmath=_FLAGS, inline="never", cache=True)
_ordered = numba.njit(error_model="numpy", fastmath=_FLAGS | {"nnan"}, inline="never", cache=True)
_piece = numba.njit(error_model="numpy", fastmath=_FLAGS, inline="always")


@_step
def _load(weight, scale, lam, u, p, total, width):
    """Returns 0, or NaN when a weight is not finite."""
    not_finite = ZERO
    for i in range(width):
        u1, u2 = abs(weight[4 * i]) * scale[4 * i], abs(weight[4 * i + 1]) * scale[4 * i + 1]
        u3, u4 = abs(weight[4 * i + 2]) * scale[4 * i + 2], abs(weight[4 * i + 3]) * scale[4 * i + 3]
        not_finite += (u1 + u2) * ZERO + (u3 + u4) * ZERO
        p1, p2 = min(max(u1 * lam, LEAST), MOST), min(max(u2 * lam, LEAST), MOST)
        p3, p4 = min(max(u3 * lam, LEAST), MOST), min(max(u4 * lam, LEAST), MOST)
        u[0, i], u[1, i], u[2, i], u[3, i] = u1, u2, u3, u4
        p[0, i], p[1, i], p[2, i], p[3, i] = p1, p2, p3, p4
        total[i] = p1 + p2 + p3 + p4
    return not_finite


@_ordered
def _least_and_most(total, width):
    least, most = total[0], total[0]
    for i in range(width):
        least, most = min(least, total[i]), max(most, total[i])
    return least, most


# Small groups: cyclic minimization. How many sweeps leave less than half a unit in the last place: see `_minimize`.


@_piece
def _sweep(x1, x2, x3, x4, p1, p2, p3, p4):
    product, total = x1 * x2, x1 + x2
    x4 = max(p4 - product - x3 * total, ZERO)
    x3 = max(p3 - product - x4 * total, ZERO)
    product, total = x3 * x4, x3 + x4
    x2 = max(p2 - product - x1 * total, ZERO)
    x1 = max(p1 - product - x2 * total, ZERO)
    return x1, x2, x3, x4


def _sweeps(count):
    @_step
    def sweeps(p, x, width):
        for i in range(width):
            p1, p2, p3, p4 = p[0, i], p[1, i], p[2, i], p[3, i]
            x1, x2, x3, x4 = p1, p2, p3, p4
            for _ in range(count):  # a constant here: the compiler unrolls it
                x1, x2, x3, x4 = _sweep(x1, x2, x3, x4, p1, p2, p3, p4)
            x[0, i], x[1, i], x[2, i], x[3, i] = x1, x2, x3, x4

    return sweeps


_three_sweeps, _four_sweeps, _six_sweeps, _eight_sweeps = _sweeps(3), _sweeps(4), _sweeps(6), _sweeps(8)


@_step
def _minimize(p, x, largest, width):
    if largest < _F(0.03):
        _three_sweeps(p, x, width)
    elif largest < _F(0.1):
        _four_sweeps(p, x, width)
    elif largest < _F(0.2):
        _six_sweeps(p, x, width)
    else:
        _eight_sweeps(p, x, width)


# Large groups: the best of three candidates, in descending order of magnitude.


@_piece
def _objective(x1, x2, x3, x4, p1, p2, p3, p4):
    d1, d2, d3, d4 = x1 - p1, x2 - p2, x3 - p3, x4 - p4
    return HALF * (d1 * d1 + d2 * d2 + d3 * d3 + d4 * d4) + x1 * x2 * (x3 + x4) + x3 * x4 * (x1 + x2)


@_step
def _sort(p, q, width):
    for i in range(width):
        a, b, c, d = p[0, i], p[1, i], p[2, i], p[3, i]
        a, b = max(a, b), min(a, b)
        c, d = max(c, d), min(c, d)
        a, c = max(a, c), min(a, c)
        b, d = max(b, d), min(b, d)
        b, c = max(b, c), min(b, c)
        q[0, i], q[1, i], q[2, i], q[3, i] = a, b, c, d


@_step
def _support_of_three(q, y, least, width):
    """The better of the supports of two and of three: point y, objective least. Halley's method on g, cleared of
    fractions: g = value/determinant², g' = slope/determinant³, g'' = 6 bend/determinant⁴."""
    for i in range(width):
        p1, p2, p3, p4 = q[0, i], q[1, i], q[2, i], q[3, i]
        turning = p2 / (p1 + math.sqrt(max(p1 * p1 - p2 * p2, ZERO)))
        a = min(min(turning, (math.sqrt(ONE + FOUR * p3) - ONE) * HALF), ROOT_HALF)
        for _ in range(4):
            determinant = ONE - a * a
            square = determinant * determinant
            n1, n2 = p1 - a * p2, p2 - a * p1
            value = (a - p3) * square + n1 * n2
            slope = square * determinant - n1 * n1 - n2 * n2 + TWO * a * n1 * n2
            bend = (n2 - a * n1) * (n1 - a * n2)
            step = value * slope * determinant / (slope * slope - THREE * value * bend)
            a = min(max(a - step, ZERO), ROOT_HALF) if slope > ZERO else a
        inverse = ONE / (ONE - a * a)
        x1, x2 = max((p1 - a * p2) * inverse, ZERO), max((p2 - a * p1) * inverse, ZERO)
        of_two = HALF * (p3 * p3 + p4 * p4)
        of_three = _objective(x1, x2, a, ZERO, p1, p2, p3, p4)
        better = of_three < of_two
        least[i] = of_three if better else of_two
        y[0, i], y[1, i] = x1 if better else p1, x2 if better else p2
        y[2, i], y[3, i] = a if better else ZERO, ZERO


@_step
def _may_have_support_of_four(q, y, total, wanted, width):
    """Whether a support of four may win: see `proxsparse.proximal.operator`, "When the support of four is not tried"."""
    for i in range(width):
        p1, p2, p3, p4 = q[0, i], q[1, i], q[2, i], q[3, i]
        x1, x2, x3 = y[0, i], y[1, i], y[2, i]
        pull = x1 * x2 + x3 * (x1 + x2)
        found = (p1 + p2 + p3 <= ONE) & (p4 <= pull)
        wanted[i] = np.uint8((total[i] > SMALL) & (p3 > p1 * p2) & (p4 > _F(0.8) * pull) & (p1 <= ONE) & (not found))


@_step
def _collect(wanted, chosen, width):
    count = 0
    for i in range(width):
        chosen[count] = i
        count += wanted[i]
    return count


@_step
def _gather(q, least, chosen, r, bound, count):
    for j in range(count):
        i = chosen[j]
        r[0, j], r[1, j], r[2, j], r[3, j], bound[j] = q[0, i], q[1, i], q[2, i], q[3, i], least[i]


@_step
def _support_of_four(r, z, bound, width):
    """Newton's method on φ; z[0] is −1 where the point is not better than `bound`."""
    for j in range(width):
        p1, p2, p3, p4 = r[0, j], r[1, j], r[2, j], r[3, j]
        e1, e2, e3 = p1 - p4, p2 - p4, p3 - p4
        s = min(max((ONE - p1 - p2 - p3 - p4) * HALF + p4, _F(0.01)), HALF)
        for _ in range(4):
            square = s * s
            r1, r2, r3 = math.sqrt(square + e1), math.sqrt(square + e2), math.sqrt(square + e3)
            t = (ONE - r1 - r2 - r3 - s) * HALF
            x1, x2, x3 = t + r1, t + r2, t + r3
            value = t + s - p4 + x1 * x2 + x3 * (x1 + x2)
            product = r2 * r3
            pull = s / max(r1 * product, LEAST)
            g1, g2, g3 = product * pull, r1 * r3 * pull, r1 * r2 * pull  # s/r1, s/r2, s/r3 by one division
            drift = -HALF * (ONE + g1 + g2 + g3)
            slope = drift + ONE + (drift + g1) * (x2 + x3) + (drift + g2) * (x1 + x3) + (drift + g3) * (x1 + x2)
            s = min(max(s - value / slope, _F(-0.1)), HALF)
        square = s * s
        r1, r2, r3 = math.sqrt(square + e1), math.sqrt(square + e2), math.sqrt(square + e3)
        t = (ONE - r1 - r2 - r3 - s) * HALF
        x1, x2, x3, x4 = max(t + r1, ZERO), max(t + r2, ZERO), max(t + r3, ZERO), max(t + s, ZERO)
        better = _objective(x1, x2, x3, x4, p1, p2, p3, p4) < bound[j]
        z[0, j], z[1, j], z[2, j], z[3, j] = x1 if better else -ONE, x2, x3, x4


@_step
def _scatter(z, chosen, y, count):
    for j in range(count):
        if z[0, j] >= ZERO:
            i = chosen[j]
            y[0, i], y[1, i], y[2, i], y[3, i] = z[0, j], z[1, j], z[2, j], z[3, j]


@_piece
def _ranks(u1, u2, u3, u4):
    """How many of the others are larger; among equals the lower index is first."""
    r1 = np.int32(u2 > u1) + np.int32(u3 > u1) + np.int32(u4 > u1)
    r2 = np.int32(u1 >= u2) + np.int32(u3 > u2) + np.int32(u4 > u2)
    r3 = np.int32(u1 >= u3) + np.int32(u2 >= u3) + np.int32(u4 > u3)
    return r1, r2, r3, np.int32(6) - r1 - r2 - r3


@_piece
def _pick(rank, y1, y2, y3, y4):
    """y of that rank. Compared by <: from a chain of == the compiler makes a jump, and no vector instructions."""
    low, high = y1 if rank < 1 else y2, y3 if rank < 3 else y4
    return low if rank < 2 else high


@_step
def _place(u, y, x, total, width):
    """Large groups: from descending order back to their places."""
    for i in range(width):
        r1, r2, r3, r4 = _ranks(u[0, i], u[1, i], u[2, i], u[3, i])
        y1, y2, y3, y4 = y[0, i], y[1, i], y[2, i], y[3, i]
        x1, x2, x3, x4 = x[0, i], x[1, i], x[2, i], x[3, i]  # read whether needed or not: no branch
        small = total[i] <= SMALL
        y1, y2, y3, y4 = (
            _pick(r1, y1, y2, y3, y4), _pick(r2, y1, y2, y3, y4), _pick(r3, y1, y2, y3, y4), _pick(r4, y1, y2, y3, y4)
        )  # fmt: skip
        x[0, i], x[1, i] = x1 if small else y1, x2 if small else y2
        x[2, i], x[3, i] = x3 if small else y3, x4 if small else y4


# What is written and counted.


@_step
def _patterns(u, codes, width):
    """Which two of each group are kept, as four bits."""
    for i in range(width):
        r1, r2, r3, r4 = _ranks(u[0, i], u[1, i], u[2, i], u[3, i])
        low = np.int32(r1 < 2) + np.int32(r2 < 2) * np.int32(2)
        codes[i] = np.uint8(low + np.int32(r3 < 2) * np.int32(4) + np.int32(r4 < 2) * np.int32(8))


@_step
def _finish(u, p, x, inverse, change, width):
    """The change of every magnitude, GONE where it falls to zero; R, and how many groups have 4, 3 and 2 nonzeros."""
    regularizer = ZERO
    four, three, two = np.int32(0), np.int32(0), np.int32(0)
    for i in range(width):
        x1, x2, x3, x4 = x[0, i], x[1, i], x[2, i], x[3, i]
        c1, c2 = (x1 - p[0, i]) * inverse, (x2 - p[1, i]) * inverse
        c3, c4 = (x3 - p[2, i]) * inverse, (x4 - p[3, i]) * inverse
        u1, u2 = u[0, i] + c1 if x1 > ZERO else ZERO, u[1, i] + c2 if x2 > ZERO else ZERO
        u3, u4 = u[2, i] + c3 if x3 > ZERO else ZERO, u[3, i] + c4 if x4 > ZERO else ZERO
        regularizer += u1 * u2 * (u3 + u4) + u3 * u4 * (u1 + u2)
        nonzeros = np.int32(u1 > ZERO) + np.int32(u2 > ZERO) + np.int32(u3 > ZERO) + np.int32(u4 > ZERO)
        four += np.int32(nonzeros == 4)
        three += np.int32(nonzeros == 3)
        two += np.int32(nonzeros == 2)
        # Not x > 0: a weight that is zero has p = LEAST, and must not come out as something tiny.
        change[4 * i], change[4 * i + 1] = c1 if u1 > ZERO else GONE, c2 if u2 > ZERO else GONE
        change[4 * i + 2], change[4 * i + 3] = c3 if u3 > ZERO else GONE, c4 if u4 > ZERO else GONE
    return regularizer, four, three, two


@_step
def _store(weight, scale, change, count):
    """Added, not replaced: a weight that is left alone keeps its very bits."""
    for c in range(count):
        moved = weight[c] + math.copysign(change[c] / scale[c], -weight[c])
        weight[c] = moved if change[c] > GONE else ZERO


@_step
def _pack(codes, packed, count):
    for b in range(count):
        packed[b] = codes[2 * b] | (codes[2 * b + 1] << 4)


@_step
def _differing_bits(one, other, count):
    total = np.int32(0)
    for b in range(count):
        bits = one[b] ^ other[b]
        bits = bits - ((bits >> np.uint8(1)) & np.uint8(0x55))
        bits = (bits & np.uint8(0x33)) + ((bits >> np.uint8(2)) & np.uint8(0x33))
        total += np.int32((bits + (bits >> np.uint8(4))) & np.uint8(0x0F))
    return total


@_step
def _squared_distance(weight, original, count):
    total = ZERO
    for c in range(count):
        difference = weight[c] - original[c]
        total += difference * difference
    return total


@_step
def _squared_distance_to_bf16(weight, original, count):
    total = ZERO
    for c in range(count):
        difference = weight[c] - np.uint32(np.uint32(original[c]) << np.uint32(16)).view(np.float32)
        total += difference * difference
    return total


@numba.njit(parallel=True, error_model="numpy", cache=True)
def prox_rows(weight, scale, lam, packed, previous, start, original, original_bf16, sums):
    """In place on weight (rows, columns).

    weight, original: float32; original_bf16: uint16, the bits of a bf16; scale: float32 (1 or rows, columns); packed,
    previous, start: uint8 (rows, ⌈columns/8⌉), packed is written. lam: float32, not negative. All C-contiguous;
    previous, start, original, original_bf16 may each have no rows: then what needs it is not counted. sums: float64
    (parts, 9), zero on entry, one line for each part of the rows: R, squared distance to the original, flips, flips from
    the start, NaN when a weight was not finite, groups with 4, 3, 2 and at most 1 nonzeros.
    """
    rows, columns = weight.shape
    groups, parts = columns // 4, len(sums)
    inverse = ONE / lam if lam > ZERO else ZERO
    share = -(-rows // parts)
    for part in numba.prange(parts):
        u, p, x, q, y, r, z = [np.zeros((4, TILE), np.float32) for _ in range(7)]
        total, least, bound = np.zeros(TILE, np.float32), np.zeros(TILE, np.float32), np.zeros(TILE, np.float32)
        change = np.zeros(4 * TILE, np.float32)
        codes, wanted = np.zeros(TILE + 1, np.uint8), np.zeros(TILE, np.uint8)
        chosen = np.zeros(TILE + 1, np.int32)
        for row in range(part * share, min((part + 1) * share, rows)):
            scale_row = scale[row % len(scale)]
            for first in range(0, groups, TILE):
                width = min(TILE, groups - first)
                padded = -(-width // LANES) * LANES  # what lies beyond is computed and ignored: no scalar remainder
                columns_here, bytes_here = (
                    slice(4 * first, 4 * (first + width)),
                    slice(first // 2, first // 2 + (width + 1) // 2),
                )
                w, s, mask = weight[row, columns_here], scale_row[columns_here], packed[row, bytes_here]
                sums[part, 4] += _load(w, s, lam, u, p, total, width)
                smallest, largest = _least_and_most(total, width)
                if smallest <= SMALL:
                    _minimize(p, x, min(largest, SMALL), padded)
                if largest > SMALL:
                    _sort(p, q, padded)
                    _support_of_three(q, y, least, padded)
                    _may_have_support_of_four(q, y, total, wanted, width)
                    count = _collect(wanted, chosen, width)
                    _gather(q, least, chosen, r, bound, count)
                    _support_of_four(r, z, bound, -(-count // LANES) * LANES)
                    _scatter(z, chosen, y, count)
                    _place(u, y, x, total, width)
                _patterns(u, codes, width)
                regularizer, four, three, two = _finish(u, p, x, inverse, change, width)
                _store(w, s, change, 4 * width)
                codes[width] = 0  # the other half of the last byte
                _pack(codes, mask, len(mask))
                sums[part, 0] += regularizer
                if len(previous):
                    sums[part, 2] += _differing_bits(mask, previous[row, bytes_here], len(mask))
                if len(start):
                    sums[part, 3] += _differing_bits(mask, start[row, bytes_here], len(mask))
                if len(original):
                    sums[part, 1] += _squared_distance(w, original[row, columns_here], 4 * width)
                if len(original_bf16):
                    sums[part, 1] += _squared_distance_to_bf16(w, original_bf16[row, columns_here], 4 * width)
                sums[part, 5] += four
                sums[part, 6] += three
                sums[part, 7] += two
                sums[part, 8] += width - four - three - two


def prox_and_count_cpu_(
    v: Tensor,
    lam: float,
    scale: Tensor | None,
    previous: Mask | None,
    start: Mask | None,
    original: Tensor | None,
    seed: int | None = None,
) -> Counts:
    """See `proxsparse.proximal.operator.prox_and_count_`. Weights that are not contiguous float32 (a transposed matrix, bf16)
    pass through a small float32 copy, some rows at a time."""
    rows, columns = v.shape
    packed = torch.empty(rows, -(-columns // 8), dtype=torch.uint8)
    sums = torch.zeros(9, dtype=torch.float64)
    scale = torch.ones(1, columns) if scale is None else scale.reshape(-1, columns).float().contiguous()
    direct = v.dtype == torch.float32 and v.is_contiguous() and (original is None or original.is_contiguous())
    step, write = rows if direct else max(1, CHUNK // columns), writer(v, seed)
    for begin in range(0, rows, step):
        part = slice(begin, begin + step)
        block = v[part] if direct else v[part].float().contiguous()
        partial = np.zeros((max(1, min(4 * torch.get_num_threads(), len(block))), 9))
        prox_rows(
            block.detach().numpy(),
            (scale if len(scale) == 1 else scale[part]).numpy(),
            _F(min(lam, 1e30)),  # beyond, λ·u is clipped to the same values
            packed[part].numpy(),
            _rows_of(previous, part, packed),
            _rows_of(start, part, packed),
            *_originals(original, part, columns),
            partial,
        )
        if not direct:
            write(v[part], block)
        sums += torch.from_numpy(partial.sum(0))
    return Counts(Mask(packed, (rows, columns)), sums)


def _rows_of(mask: Mask | None, part: slice, like: Tensor) -> np.ndarray:
    return (like[:0] if mask is None else mask.packed[part].contiguous()).numpy()


def _originals(original: Tensor | None, part: slice, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """(as float32, as the bits of bf16): one of the two without rows."""
    wide, narrow = np.empty((0, columns), np.float32), np.empty((0, columns), np.uint16)
    if original is None:
        return wide, narrow
    if original.dtype == torch.bfloat16:
        return wide, original[part].detach().contiguous().view(torch.uint16).numpy()
    return original[part].detach().float().contiguous().numpy(), narrow
