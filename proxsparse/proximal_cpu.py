"""The 2:4 proximal operator and its counts in one pass over float32 weights on a CPU, compiled by numba.

The mathematics is that of `proxsparse.proximal`, group by group in float64; there each step is explained.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from proxsparse.proximal import SMALL

_FASTMATH = {"contract", "nsz"}
_INLINE = numba.njit(inline="never", error_model="numpy", cache=True, fastmath=_FASTMATH)


@_INLINE
def _cyclic(p1, p2, p3, p4):
    x1, x2, x3, x4 = p1, p2, p3, p4
    accuracy = 1e-9 * (p1 + p2 + p3 + p4)
    for _ in range(16):
        before1, before3 = x1, x3
        product, total = x1 * x2, x1 + x2
        x4 = max(p4 - product - x3 * total, 0.0)
        x3 = max(p3 - product - x4 * total, 0.0)
        product, total = x3 * x4, x3 + x4
        x2 = max(p2 - product - x1 * total, 0.0)
        x1 = max(p1 - product - x2 * total, 0.0)
        if abs(x1 - before1) + abs(x3 - before3) <= accuracy:
            break
    return x1, x2, x3, x4


@_INLINE
def _support_of_three(p1, p2, p3):
    ratio = p2 / p1
    turning = ratio / (1 + math.sqrt(max(1 - ratio * ratio, 0.0)))
    a = min(turning, (math.sqrt(1 + 4 * p3) - 1) / 2, math.sqrt(0.5))
    for _ in range(12):
        determinant = 1 - a * a
        x1, x2 = (p1 - a * p2) / determinant, (p2 - a * p1) / determinant
        slope = 1 - (x1 * x1 + x2 * x2 - 2 * a * x1 * x2) / determinant
        if not slope > 0:
            break
        step = (a - p3 + x1 * x2) / slope
        a = min(max(a - step, 0.0), math.sqrt(0.5))
        if abs(step) <= 1e-10:
            break
    determinant = 1 - a * a
    return max((p1 - a * p2) / determinant, 0.0), max((p2 - a * p1) / determinant, 0.0), a


@_INLINE
def _point(s, e1, e2, e3):
    r1, r2, r3 = math.sqrt(s * s + e1), math.sqrt(s * s + e2), math.sqrt(s * s + e3)
    return r1, r2, r3, (1 - r1 - r2 - r3 - s) / 2


@_INLINE
def _support_of_four(p1, p2, p3, p4):
    e1, e2, e3 = p1 - p4, p2 - p4, p3 - p4
    low, high, s = -0.1, 0.0, 0.0
    for iteration in range(17):
        r1, r2, r3, t = _point(s, e1, e2, e3)
        x1, x2, x3 = t + r1, t + r2, t + r3
        value = t + s - p4 + x1 * x2 + x2 * x3 + x3 * x1
        if iteration == 0 and value >= 0:  # the root is positive
            low, high, s = 0.0, 0.5, 0.25
            continue
        if value >= 0:
            low = s
        else:
            high = s
        g1, g2, g3 = s / max(r1, 1e-300), s / max(r2, 1e-300), s / max(r3, 1e-300)
        drift = -(1 + g1 + g2 + g3) / 2
        slope = drift + 1 + (drift + g1) * (x2 + x3) + (drift + g2) * (x1 + x3) + (drift + g3) * (x1 + x2)
        following = s - value / slope
        if not low <= following <= high:
            following = (low + high) / 2
        if abs(following - s) <= 1e-12:
            break
        s = following
    r1, r2, r3, t = _point(s, e1, e2, e3)
    return max(t + r1, 0.0), max(t + r2, 0.0), max(t + r3, 0.0), max(t + s, 0.0)


@_INLINE
def _objective(x1, x2, x3, x4, p1, p2, p3, p4):
    square = (x1 - p1) ** 2 + (x2 - p2) ** 2 + (x3 - p3) ** 2 + (x4 - p4) ** 2
    return square / 2 + x1 * x2 * (x3 + x4) + x3 * x4 * (x1 + x2)


@_INLINE
def _best_candidate(p1, p2, p3, p4):
    """For p1 ≥ p2 ≥ p3 ≥ p4."""
    best, least = (p1, p2, 0.0, 0.0), (p3 * p3 + p4 * p4) / 2
    if p3 > 0:
        x1, x2, x3 = _support_of_three(p1, p2, p3)
        value = _objective(x1, x2, x3, 0.0, p1, p2, p3, p4)
        if value < least:
            best, least = (x1, x2, x3, 0.0), value
    if p4 > 0:
        x1, x2, x3, x4 = _support_of_four(p1, p2, p3, p4)
        if _objective(x1, x2, x3, x4, p1, p2, p3, p4) < least:
            best = (x1, x2, x3, x4)
    return best


@numba.njit(parallel=True, error_model="numpy", cache=True, fastmath=_FASTMATH)
def prox_rows(weight, scale, lam, packed, regularizer, nonzeros):
    """In place on weight (rows, columns), float32, any strides. scale: float32 (columns,). Per row: packed (rows,
    ⌈columns/8⌉) uint8 and zero on entry, regularizer (rows,) float64, nonzeros (rows, 4) int64. Returns whether every
    weight was finite.
    """
    rows, columns = weight.shape
    finite = np.ones(rows, dtype=np.bool_)
    for row in numba.prange(rows):
        total, four, three, two, one = 0.0, 0, 0, 0, 0
        for column in range(0, columns, 4):
            u1 = abs(np.float64(weight[row, column])) * scale[column]
            u2 = abs(np.float64(weight[row, column + 1])) * scale[column + 1]
            u3 = abs(np.float64(weight[row, column + 2])) * scale[column + 2]
            u4 = abs(np.float64(weight[row, column + 3])) * scale[column + 3]
            size = u1 + u2 + u3 + u4
            if not size < np.inf:
                finite[row] = False
                continue
            x1, x2, x3, x4 = u1, u2, u3, u4
            # Ranks: how many of the others are larger; among equals the lower index is first. The operator keeps order.
            r1 = (u2 > u1) + (u3 > u1) + (u4 > u1)
            r2 = (u1 >= u2) + (u3 > u2) + (u4 > u2)
            r3 = (u1 >= u3) + (u2 >= u3) + (u4 > u3)
            r4 = 6 - r1 - r2 - r3
            if lam > 0:
                p1, p2, p3, p4 = u1 * lam, u2 * lam, u3 * lam, u4 * lam
                if size * lam <= SMALL:
                    y1, y2, y3, y4 = _cyclic(p1, p2, p3, p4)
                else:
                    a, b, c, d = max(p1, p2), min(p1, p2), max(p3, p4), min(p3, p4)
                    a, c = max(a, c), min(a, c)
                    b, d = max(b, d), min(b, d)
                    b, c = max(b, c), min(b, c)
                    best = _best_candidate(a, b, c, d)
                    y1, y2, y3, y4 = best[r1], best[r2], best[r3], best[r4]
                x1 = u1 + (y1 - p1) / lam if y1 > 0 else 0.0
                x2 = u2 + (y2 - p2) / lam if y2 > 0 else 0.0
                x3 = u3 + (y3 - p3) / lam if y3 > 0 else 0.0
                x4 = u4 + (y4 - p4) / lam if y4 > 0 else 0.0
                for k, u, x in ((0, u1, x1), (1, u2, x2), (2, u3, x3), (3, u4, x4)):
                    old = weight[row, column + k]
                    if x <= 0:
                        weight[row, column + k] = 0.0
                    elif x != u:  # what the operator leaves alone keeps its very bits
                        weight[row, column + k] = math.copysign(x / scale[column + k], old)
            total += x1 * x2 * (x3 + x4) + x3 * x4 * (x1 + x2)
            count = (x1 > 0) + (x2 > 0) + (x3 > 0) + (x4 > 0)
            four += count == 4
            three += count == 3
            two += count == 2
            one += count <= 1
            code = (r1 < 2) | ((r2 < 2) << 1) | ((r3 < 2) << 2) | ((r4 < 2) << 3)
            packed[row, column >> 3] |= np.uint8(code << (column & 4))
        regularizer[row] = total
        nonzeros[row, 0], nonzeros[row, 1], nonzeros[row, 2], nonzeros[row, 3] = four, three, two, one
    return finite.all()
