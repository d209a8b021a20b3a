r"""The proximal operator of the general N:M regularizer, e_{N+1} of the M magnitudes of a group.

*1:M, exactly.* e2(x) = ((Σx)² − Σx²)/2, so for a given sum S the objective ½‖x − u‖² + λ e2(x) has curvature 1 − λ in
every direction that keeps the sum. For λ ≥ 1 it is concave there: the minimum lies in a corner, and only the
largest magnitude remains, unchanged. For λ < 1 it is convex, and stationarity x_i = u_i − λ(S − x_i) gives a soft
threshold. Written in the gaps to the largest, d_i = (u_1 − u_i)/(1 − λ), it does not cancel where λ is close to 1:
x_i = max(0, x_1 − d_i) with x_1 = (u_1 + λ Σ_{j≤k} d_j)/(1 + λ(k − 1)), where k is the largest number whose k-th entry
is positive.

*2:M, exactly.* See `proxsparse.proximal.supports`.

*N:M for N ≥ 3, to stated accuracy.* The operator keeps order, so a minimum lives on the k largest magnitudes for some
k = N … M. For k = N it is the hard projection. For each k > N the minimum of those k is followed, while the strength
rises, by cyclic minimization (exact in each coordinate: x_i = max(0, p_i − e_N(the others)), as e_{N+1} is linear in
each); the least objective of all k counts. Nothing proves that this is the global minimum: near the strength at which
the minimum of a support ends, cyclic minimization may lose it early, which costs little, since another candidate is
then nearly as good. The objective is within 1e-6·‖v‖² of the least that brute force finds; the tests say for which
patterns. (In float64, the worst found in searches was 5e-7, for nearly equal entries; it is 1e-13 on most groups.)

*Small groups.* The Hessian has 1 on its diagonal and e_{N−1}(all but i, j) beside it; a row of these adds up to
(M − N) e_{N−1}(all but i). Where that is at most 1 on all of the box 0 ≤ x ≤ p, which it is if it is at x = p without
the smallest, f is convex there, has one minimum, and cyclic minimization from p is all that is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from proxsparse.proximal.regularizer import elementary_symmetric
from proxsparse.proximal.supports import best_of_supports, objective

RISING = tuple(step / 80 for step in range(1, 80))  # shares of the strength, one sweep each; fewer lose minima of ties
SWEEPS, TOLERANCE = 200, 1e-7


def one_of_m(u: Tensor, lam: float | Tensor) -> Tensor:
    """argmin over x ≥ 0 of ½‖x − u‖² + λ e2(x), column by column. u, result: (m, groups), u ≥ 0. lam: one λ, or one a group,
    (groups,)."""
    if isinstance(lam, Tensor):
        return torch.where(lam >= 1, one_of_m(u, 1.0), _soft(u, torch.where(lam < 1, lam.double(), 0.0)))
    if lam >= 1:
        return torch.zeros_like(u).scatter_(0, first_largest(u), u.amax(0, keepdim=True))
    return _soft(u, lam)


def _soft(u: Tensor, lam: float | Tensor) -> Tensor:
    """The soft threshold of λ < 1."""
    wide = u.double()
    gaps = (wide.amax(0, keepdim=True) - wide) / (1 - lam)
    ordered = gaps.sort(dim=0).values
    others = torch.arange(len(u), device=u.device, dtype=torch.float64).unsqueeze(1)
    largest = (wide.amax(0, keepdim=True) + lam * ordered.cumsum(0)) / (1 + lam * others)  # x_1, for every k
    size = (ordered < largest).sum(0, keepdim=True).clamp_(min=1)
    return (largest.gather(0, size - 1) - gaps).clamp_(min=0).to(u.dtype)


def first_largest(u: Tensor) -> Tensor:
    """Index (1, groups) of the largest entry of each column; among equals, the first."""
    return (u == u.amax(0, keepdim=True)).to(torch.uint8).argmax(0, keepdim=True)


def n_of_m(p: Tensor, n: int) -> Tensor:
    """argmin over x ≥ 0 of ½‖x − p‖² + e_{n+1}(x), column by column, n ≥ 2. p, result: (m, groups), p > 0."""
    m = len(p)
    ordered, order = p.double().sort(dim=0, descending=True, stable=True)
    small = (m - n) * elementary_symmetric(ordered[:-1], n - 1) <= 1
    best, large = torch.empty_like(ordered), ordered[:, ~small]
    best[:, small] = _settle(ordered[:, small], ordered[:, small], n)
    best[:, ~small] = best_of_supports(large) if n == 2 else _best_followed(large, n)
    return torch.zeros_like(ordered).scatter_(0, order, best).to(p.dtype)


def _best_followed(p: Tensor, n: int) -> Tensor:
    """The least of the minima of all supports; p in descending order."""
    best = p.clone()
    best[n:] = 0
    least = objective(best, p, n)
    for size in range(len(p), n, -1):
        trying = (p[size:].square().sum(0) / 2 < least).nonzero().squeeze(1)  # what is left out costs that much alone
        target = p[:, trying]
        candidate = torch.zeros_like(target)
        candidate[:size] = _follow(target[:size], n)
        value = objective(candidate, target, n)
        better = value < least[trying]  # never for a candidate that is not a number
        best[:, trying[better]], least[trying[better]] = candidate[:, better], value[better]
    return best


def _follow(p: Tensor, n: int) -> Tensor:
    """From p, where it is at no strength, to the minimum at full strength."""
    x = p
    for share in RISING:
        x = _sweep(x, p, n, share)
    return _settle(x, p, n)


def _settle(x: Tensor, p: Tensor, n: int) -> Tensor:
    """Cyclic minimization from x; groups that have settled are left."""
    x, left = x.clone(), torch.arange(p.shape[1], device=p.device)
    for _ in range(SWEEPS):
        before, target = x[:, left], p[:, left]
        after = _sweep(before, target, n)
        x[:, left] = after
        left = left[(after - before).abs().amax(0) > TOLERANCE * target[0]]
        if not len(left):
            break
    return x


def _sweep(x: Tensor, p: Tensor, n: int, share: float = 1.0) -> Tensor:
    """Every coordinate once. e_n of the others is made of the e_k of those before and of those after: nothing is
    subtracted, so that nothing cancels."""
    after = [[torch.ones_like(p[0])]]
    for plane in x[1:].flip(0):
        after.append(_with(plane, after[-1], n))
    x, before = x.clone(), after[0]
    for i in range(len(x)):
        behind = after.pop()
        pull = sum(before[k] * behind[n - k] for k in range(len(before)) if n - k < len(behind))
        x[i] = (p[i] - share * pull).clamp_(min=0)
        before = _with(x[i], before, n)
    return x


def _with(plane: Tensor, sums: list[Tensor], n: int) -> list[Tensor]:
    """e_0, e_1, … of some planes, up to e_n → the same with one plane more."""
    more = [torch.addcmul(sums[k], plane, sums[k - 1]) for k in range(1, len(sums))]
    return [sums[0], *more, *([plane * sums[-1]] if len(sums) <= n else [])]
