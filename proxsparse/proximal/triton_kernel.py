"""The 2:4 proximal operator and everything that is counted of it, in one pass over the weights of a GPU, by Triton.

The mathematics is explained in `proxsparse.proximal.operator`; here is its arrangement. The pass is bound by instructions as
much as by memory, so what matters is how few of them a group takes:

- A program is one warp. Its tile has LANES bytes of the packed mask, that is LANES pairs of groups: every lane loads
  and stores eight neighbouring weights (16 bytes of bf16 at once). Each variable below is a tensor (LANES, 2), one entry
  a group; w1 … w4 are the four weights of every group.
- What no group of the warp needs is skipped by the warp: sweeps for small groups, sorting for large ones, the support
  of three, the support of four. To ask costs next to nothing, because a warp has one instruction for the maximum of
  integers (and the bits of positive floats are ordered like integers).
- A program writes what it counts to a line of its own, and torch sums the lines in float64: no atomics, and the same
  sums every time.

`p`, `x` and `y` are λ·u, where u = |scale · weight|. LEAST is added to p, so that nothing underflows to a zero that the
operator would take for a dropped weight.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from proxsparse.masks.mask import Mask
from proxsparse.proximal.counts import Counts

LANES, TILES = tl.constexpr(32), tl.constexpr(8)  # of a program; a lane keeps a byte of each tile, in 64 bits
SMALL, LEAST = tl.constexpr(0.25), tl.constexpr(1e-37)
ROOT_HALF, GONE, SIGN = tl.constexpr(0.5**0.5), tl.constexpr(float("-inf")), tl.constexpr(-(2**31))


@triton.jit
def _any(condition):
    return tl.max(condition.to(tl.int32)) > 0


@triton.jit
def _over(a, b):
    """a / b, b > 0, to three units in the last place: a real division has more than twice the instructions."""
    root = tl.rsqrt(b)
    return a * (root * root)


@triton.jit
def _objective(x1, x2, x3, x4, p1, p2, p3, p4):
    d1, d2, d3, d4 = x1 - p1, x2 - p2, x3 - p3, x4 - p4
    return 0.5 * (d1 * d1 + d2 * d2 + d3 * d3 + d4 * d4) + x1 * x2 * (x3 + x4) + x3 * x4 * (x1 + x2)


# Euler's method goes to the root of the parabola that has the function's value, slope and bend. Near a double root,
# where Newton's method crawls, it loses nothing, and so three steps are enough.


@triton.jit
def _support_of_three(p1, p2, p3):
    """Euler's method on g, cleared of fractions: g = value/det², g' = slope/det³, g'' = 6 bend/det⁴."""
    turning = _over(p2, p1 + tl.sqrt(tl.maximum(p1 * p1 - p2 * p2, 0.0)))
    a = tl.minimum(tl.minimum(turning, 0.5 * tl.sqrt(1 + 4 * p3) - 0.5), ROOT_HALF)
    for _ in tl.static_range(3):
        det = 1 - a * a
        n1, n2 = p1 - a * p2, p2 - a * p1
        product = n1 * n2
        value = product + (a - p3) * (det * det)
        slope = det * det * det - n1 * n1 - n2 * n2 + 2 * a * product
        bend = (n2 - a * n1) * (n1 - a * n2)
        root = tl.sqrt(tl.maximum(slope * slope - 12 * value * bend, 0.0))
        a -= _over(2 * det * value, slope + root)
    x2 = _over(p2 - a * p1, 1 - a * a)
    return p1 - a * x2, x2, a


@triton.jit
def _point(s, e1, e2, e3):
    """The point of s, and 1/r_i."""
    square = tl.maximum(s * s, 1e-20)  # no r is zero
    q1, q2, q3 = tl.rsqrt(square + e1), tl.rsqrt(square + e2), tl.rsqrt(square + e3)
    r1, r2, r3 = (square + e1) * q1, (square + e2) * q2, (square + e3) * q3
    t = 0.5 - 0.5 * (r1 + r2 + r3 + s)
    return t + r1, t + r2, t + r3, t + s, q1, q2, q3


@triton.jit
def _support_of_four(p1, p2, p3, p4):
    """Euler's method on φ, from the solution for four equal p, to first order in how they differ."""
    e1, e2, e3 = p1 - p4, p2 - p4, p3 - p4
    mean = 0.25 * (p1 + p2 + p3 + p4)
    x = tl.sqrt(1 / 36 + mean * (1 / 3)) - 1 / 6
    s = tl.minimum(tl.maximum(0.5 - x + _over(p4 - mean, 1 - 2 * x), 0.01), 0.5)
    for _ in tl.static_range(3):
        x1, x2, x3, x4, q1, q2, q3 = _point(s, e1, e2, e3)
        g1, g2, g3 = s * q1, s * q2, s * q3
        h1, h2, h3 = q1 - q1 * g1 * g1, q2 - q2 * g2 * g2, q3 - q3 * g3 * g3  # derivatives of g
        drift = -0.5 - 0.5 * (g1 + g2 + g3)
        d1, d2, d3 = drift + g1, drift + g2, drift + g3  # derivatives of x
        value = x4 - p4 + x1 * x2 + x3 * (x1 + x2)
        slope = drift + 1 + d1 * (x2 + x3) + d2 * (x1 + x3) + d3 * (x1 + x2)
        bend = 2 * (d1 * d2 + d3 * (d1 + d2)) - 0.5 * (h1 + h2 + h3) - h1 * x1 - h2 * x2 - h3 * x3
        root = tl.sqrt(tl.maximum(slope * slope - 2 * value * bend, 0.0))
        s = tl.minimum(tl.maximum(s + _over(2 * value, root - slope), -0.1), 0.5)
    x1, x2, x3, x4, q1, q2, q3 = _point(s, e1, e2, e3)
    return x1, x2, x3, x4


@triton.jit
def _best_candidate(p1, p2, p3, p4, wanted):
    """The best of the supports of two, three and four for the groups `wanted`; p in descending order.

    Where a support has no minimum the candidate may be anything, also not a number: then it is not feasible (x1 ≥ x2
    and x3 ≥ x4, so two signs or one tell) or not better.
    """
    y1, y2, y3, y4 = p1, p2, tl.zeros_like(p3), tl.zeros_like(p4)
    least = 0.5 * (p3 * p3 + p4 * p4)
    x1, x2, x3 = _support_of_three(p1, p2, p3)
    value = _objective(x1, x2, x3, 0.0, p1, p2, p3, p4)
    better = (x2 >= 0) & (x3 >= 0) & (value < least)
    least = tl.where(better, value, least)
    y1, y2, y3 = tl.where(better, x1, y1), tl.where(better, x2, y2), tl.where(better, x3, y3)
    pull = y1 * y2 + y3 * (y1 + y2)
    found = (p1 + p2 + p3 <= 1) & (p4 <= pull)
    if _any(wanted & (p1 <= 1) & (p3 > p1 * p2) & (p4 > 0.8 * pull) & ~found):
        x1, x2, x3, x4 = _support_of_four(p1, p2, p3, p4)
        better = (x4 >= 0) & (_objective(x1, x2, x3, x4, p1, p2, p3, p4) < least)
        y1, y2 = tl.where(better, x1, y1), tl.where(better, x2, y2)
        y3, y4 = tl.where(better, x3, y3), tl.where(better, x4, y4)
    return y1, y2, y3, y4


@triton.jit
def _ordered(a, b):
    return tl.maximum(a, b), tl.minimum(a, b)


@triton.jit
def _exchange(swap, a, b):
    return tl.where(swap, b, a), tl.where(swap, a, b)


@triton.jit
def _back_in_place(b1, b2, b3, b4, u1, u2, u3, u4):
    """What belongs to u in descending order, in the order of u: the exchanges that sort u, undone."""
    swap1, swap2 = u2 > u1, u4 > u3
    v1, v2 = _ordered(u1, u2)
    v3, v4 = _ordered(u3, u4)
    swap3, swap4 = v3 > v1, v4 > v2
    v2, v3 = tl.maximum(v2, v4), tl.minimum(v1, v3)
    # Among equals the lower index comes first: v3 has it exactly where one of the two exchanges before swapped.
    swap5 = (v3 > v2) | ((v3 == v2) & (swap3 | swap4))
    b2, b3 = _exchange(swap5, b2, b3)
    b2, b4 = _exchange(swap4, b2, b4)
    b1, b3 = _exchange(swap3, b1, b3)
    b3, b4 = _exchange(swap2, b3, b4)
    b1, b2 = _exchange(swap1, b1, b2)
    return b1, b2, b3, b4


@triton.jit
def _change(x, p):
    return tl.where(x > 0, x - p, GONE)


@triton.jit
def _solve(u1, u2, u3, u4, code, lam):
    """λ times the change of every magnitude, GONE where it falls to zero. code: the two largest, see `_pattern`."""
    p1, p2, p3, p4 = u1 * lam + LEAST, u2 * lam + LEAST, u3 * lam + LEAST, u4 * lam + LEAST
    c1, c2, c3, c4 = tl.zeros_like(p1), tl.zeros_like(p2), tl.zeros_like(p3), tl.zeros_like(p4)
    total = p1 + p2 + p3 + p4
    smallest = tl.min(total.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)
    largest = tl.max(total.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)
    if smallest <= SMALL:
        # As many sweeps as leave less than half a unit in the last place.
        sweeps = tl.where(largest < 0.03, 3, tl.where(largest < 0.1, 4, tl.where(largest < 0.2, 6, 8)))
        x1, x2, x3, x4 = p1, p2, p3, p4
        for _ in range(sweeps):
            x4 = tl.maximum(p4 - x1 * x2 - x3 * (x1 + x2), 0.0)
            x3 = tl.maximum(p3 - x1 * x2 - x4 * (x1 + x2), 0.0)
            x2 = tl.maximum(p2 - x3 * x4 - x1 * (x3 + x4), 0.0)
            x1 = tl.maximum(p1 - x3 * x4 - x2 * (x3 + x4), 0.0)
        c1, c2, c3, c4 = _change(x1, p1), _change(x2, p2), _change(x3, p3), _change(x4, p4)
    if largest > SMALL:
        large = total > SMALL
        c1 = tl.where(large, tl.where((code & 1) != 0, 0.0, GONE), c1)
        c2 = tl.where(large, tl.where((code & 2) != 0, 0.0, GONE), c2)
        c3 = tl.where(large, tl.where((code & 4) != 0, 0.0, GONE), c3)
        c4 = tl.where(large, tl.where((code & 8) != 0, 0.0, GONE), c4)
        p1, p2 = _ordered(p1, p2)
        p3, p4 = _ordered(p3, p4)
        p1, p3 = _ordered(p1, p3)
        p2, p4 = _ordered(p2, p4)
        p2, p3 = _ordered(p2, p3)
        # A support of three that is better has x1² + x2² ≤ 1 and x3 ≤ x2, so p1 ≤ x1 + x2² ≤ 5/4 and p3 > 0.82 p1 p2.
        wanted = large & (p1 <= 1.25) & (p3 > 0.8 * p1 * p2)
        if _any(wanted):
            y1, y2, y3, y4 = _best_candidate(p1, p2, p3, p4, wanted)
            b1, b2, b3, b4 = _change(y1, p1), _change(y2, p2), _change(y3, p3), _change(y4, p4)
            b1, b2, b3, b4 = _back_in_place(b1, b2, b3, b4, u1, u2, u3, u4)
            c1, c2 = tl.where(wanted, b1, c1), tl.where(wanted, b2, c2)
            c3, c4 = tl.where(wanted, b3, c3), tl.where(wanted, b4, c4)
    return c1, c2, c3, c4


@triton.jit
def _below(a, b):
    """Bit 31 is set where a < b; a subtraction, because a GPU adds faster than it compares."""
    return (a - b).to(tl.int32, bitcast=True)


@triton.jit
def _majority(a, b, c):
    """1 where bit 31 is set in two of the three."""
    return (((a & b) | (c & (a | b))) >> 31) & 1


@triton.jit
def _pattern(u1, u2, u3, u4):
    """Which two of each group are kept, as four bits: those that win two of their three comparisons."""
    a, b, c, d, e, f = _below(u1, u2), _below(u1, u3), _below(u1, u4), _below(u2, u3), _below(u2, u4), _below(u3, u4)
    kept = (_majority(c, e, f) << 1) | _majority(b, d, ~f)
    return (((kept << 1) | _majority(a, ~d, ~e)) << 1) | _majority(~a, ~b, ~c)


@triton.jit
def _load(pointer, offsets, inside, other: tl.constexpr):
    """The four weights of each group, float32; + 0 makes −0 a 0."""
    block = tl.load(pointer + offsets, mask=inside, other=other).to(tl.float32) + 0.0
    even, odd = tl.split(tl.reshape(block, (LANES, 2, 2, 2)))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def _magnitude(w, s):
    """|s·w|: not |w|·s, which could be fused with the subtraction in `_below`, and then equals would differ."""
    if s is not None:
        w = w * s
    return tl.abs(w)


@triton.jit
def _moved(w, u, c, s, inverse):
    """(weight, magnitude in the metric) after the change c/λ. Added, not replaced: a weight that is left alone keeps
    its very bits."""
    u = tl.maximum(u + c * inverse, 0.0)
    if s is None:
        signed = u.to(tl.int32, bitcast=True) | (w.to(tl.int32, bitcast=True) & SIGN)
        w = signed.to(tl.float32, bitcast=True) + 0.0
    else:
        c = c * inverse / s
        w = tl.where(u > 0, tl.where(w < 0, w - c, w + c), 0.0)
    return w, u


@triton.jit
def _round_stochastically(w, noise, groups):
    """To what bf16 holds, up or down at random: see `proxsparse.proximal.stochastic_rounding`. Of noise, one half is for each group."""
    bits = w.to(tl.uint32, bitcast=True) + ((noise.to(tl.uint32, bitcast=True)[:, None] >> (16 * groups)) & 0xFFFF)
    return (bits & 0xFFFF0000).to(tl.float32, bitcast=True)


@triton.jit
def _one(u):
    """1 where u > 0, else 0."""
    return tl.minimum(u.to(tl.int32, bitcast=True), 1)


@triton.jit
def _bits_set(x):
    x = x - ((x >> 1) & 0x5555555555555555)
    x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333)
    return ((((x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F) * 0x0101010101010101) >> 56).to(tl.int32)


@triton.jit(do_not_specialize=["seed"])
def _kernel(
    weight, weight_row, weight_column, scale, scale_row, scale_column, original, original_row, original_column,
    packed, previous, start, partial, lam, inverse, seed, rows, columns, PAIRS: tl.constexpr,
):  # fmt: skip
    """One program: TILES tiles, of PAIRS bytes of the mask in each of LANES // PAIRS rows.

    *_row, *_column: strides. packed, previous, start: uint8, contiguous (rows, ⌈columns/8⌉). partial: float32
    (programs, 9), see `Counts.sums`. inverse: 1/lam. scale, original, previous, start and seed may be None.
    """
    program, width, ROWS = tl.program_id(0), tl.cdiv(columns, 8), LANES // PAIRS
    parts = tl.cdiv(width, TILES * PAIRS)
    first_row, begin = program // parts * ROWS, program % parts * (TILES * PAIRS)
    lane, weights, groups = tl.arange(0, LANES), tl.arange(0, 8)[None, :], tl.arange(0, 2)[None, :]
    row = (first_row + lane // PAIRS).to(tl.int64)
    exists = row < rows
    regularizer, drift = tl.zeros((LANES, 2), tl.float32), tl.zeros((LANES, 2), tl.float32)
    not_finite = tl.zeros((LANES, 2), tl.float32)
    composition = tl.zeros((LANES, 2), tl.int32)  # five counters of six bits: groups with 0 … 4 nonzeros
    flips, flips_from_start = tl.zeros((LANES,), tl.uint64), tl.zeros((LANES,), tl.uint64)  # bits, counted at the end
    for first in range(begin, tl.minimum(begin + TILES * PAIRS, width), PAIRS):
        byte = first + lane % PAIRS
        column = (8 * byte[:, None] + weights).to(tl.int64)
        inside = (column < columns) & exists[:, None]
        complete = (8 * byte[:, None] + 4 * groups < columns) & exists[:, None]
        stored = (8 * byte < columns) & exists
        here = row[:, None] * weight_row + column * weight_column
        at = row * width + byte
        # All loads come before the first use of one.
        w1, w2, w3, w4 = _load(weight, here, inside, 0.0)
        s1, s2, s3, s4 = None, None, None, None
        if scale is not None:
            s1, s2, s3, s4 = _load(scale, row[:, None] * scale_row + column * scale_column, inside, 1.0)
        if original is not None:
            there = row[:, None] * original_row + column * original_column
            initially = tl.load(original + there, mask=inside, other=0.0)
        if previous is not None:
            previously = tl.load(previous + at, mask=stored, other=0)
        if start is not None:
            at_start = tl.load(start + at, mask=stored, other=0)
        u1, u2, u3, u4 = _magnitude(w1, s1), _magnitude(w2, s2), _magnitude(w3, s3), _magnitude(w4, s4)
        not_finite = not_finite + u1 * 0 + u2 * 0 + u3 * 0 + u4 * 0
        code = tl.where(complete, _pattern(u1, u2, u3, u4), 0)
        c1, c2, c3, c4 = _solve(u1, u2, u3, u4, code, lam)
        w1, u1 = _moved(w1, u1, c1, s1, inverse)
        w2, u2 = _moved(w2, u2, c2, s2, inverse)
        w3, u3 = _moved(w3, u3, c3, s3, inverse)
        w4, u4 = _moved(w4, u4, c4, s4, inverse)
        if seed is not None:
            n1, n2, n3, n4 = tl.randint4x(seed, at, 7)  # Philox with seven rounds passes the known tests
            w1, w2 = _round_stochastically(w1, n1, groups), _round_stochastically(w2, n2, groups)
            w3, w4 = _round_stochastically(w3, n3, groups), _round_stochastically(w4, n4, groups)
        block = tl.reshape(tl.join(tl.join(w1, w3), tl.join(w2, w4)), (LANES, 8)).to(weight.dtype.element_ty)
        bits = tl.sum(code << (4 * groups), axis=1).to(tl.uint8)
        tl.store(weight + here, block, mask=inside)
        tl.store(packed + at, bits, mask=stored)
        regularizer = regularizer + u1 * u2 * (u3 + u4) + u3 * u4 * (u1 + u2)
        composition += 1 << (6 * (_one(u1) + _one(u2) + _one(u3) + _one(u4)))
        if original is not None:
            difference = block.to(tl.float32) - initially.to(tl.float32)
            drift += tl.sum(tl.reshape(difference * difference, (LANES, 2, 4)), axis=2)
        if previous is not None:
            flips = (flips << 8) | (bits ^ previously)
        if start is not None:
            flips_from_start = (flips_from_start << 8) | (bits ^ at_start)
    groups_here = tl.minimum(rows - first_row, ROWS) * (tl.minimum(8 * TILES * PAIRS, columns - 8 * begin) // 4)
    four, three = tl.sum(composition >> 24), tl.sum((composition >> 18) & 63)
    two = tl.sum((composition >> 12) & 63)
    partial += 9 * program
    tl.store(partial, tl.sum(regularizer))
    tl.store(partial + 1, tl.sum(drift))
    tl.store(partial + 2, tl.sum(_bits_set(flips)).to(tl.float32))
    tl.store(partial + 3, tl.sum(_bits_set(flips_from_start)).to(tl.float32))
    tl.store(partial + 4, tl.sum(not_finite))
    tl.store(partial + 5, four.to(tl.float32))
    tl.store(partial + 6, three.to(tl.float32))
    tl.store(partial + 7, two.to(tl.float32))
    tl.store(partial + 8, (groups_here - four - three - two).to(tl.float32))


def prox_and_count_cuda_(
    v: Tensor,
    lam: float,
    scale: Tensor | None,
    previous: Mask | None,
    start: Mask | None,
    original: Tensor | None,
    seed: int | None = None,
) -> Counts:
    """See `proxsparse.proximal.operator.prox_and_count_`."""
    rows, columns = v.shape
    width = -(-columns // 8)
    # The lanes of a warp lie along whichever direction of the weights is contiguous.
    pairs = LANES.value if v.stride(1) <= v.stride(0) else 1
    programs = triton.cdiv(rows, LANES.value // pairs) * triton.cdiv(width, TILES.value * pairs)
    packed = torch.empty(rows, width, dtype=torch.uint8, device=v.device)
    partial = torch.empty(programs, 9, device=v.device)
    scale = None if scale is None else scale.expand(rows, columns)
    with torch.cuda.device_of(v):
        _kernel[(programs,)](
            v, *v.stride(),
            scale, *(scale.stride() if scale is not None else (0, 0)),
            original, *(original.stride() if original is not None else (0, 0)),
            packed,
            None if previous is None else previous.packed.contiguous(),
            None if start is None else start.packed.contiguous(),
            partial, float(lam), 1 / lam if lam > 0 else 0.0, seed if v.dtype == torch.bfloat16 else None,
            rows, columns, PAIRS=pairs, num_warps=1, enable_fp_fusion=True,
        )  # fmt: skip
    return Counts(Mask(packed, (rows, columns)), partial.sum(0, dtype=torch.float64))
