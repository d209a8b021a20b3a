r"""The proximal operator of the general N:M regularizer, e_{N+1} of the M magnitudes of a group.

*1:M, exactly.* e2(x) = ((Σx)² − Σx²)/2, so for a given sum S the objective ½‖x − u‖² + λ e2(x) has curvature 1 − λ in
every direction that keeps the sum. For λ ≥ 1 it is concave there: the minimum lies in a corner, and only the
largest magnitude remains, unchanged. For λ < 1 it is convex, and stationarity x_i = u_i − λ(S − x_i) gives a soft
threshold, x_i = max(0, (u_i − λS)/(1 − λ)), with S = Σ_{j≤k} u_j / (1 − λ + λk) for the k largest; k is the largest
number whose k-th entry is positive.

*N:M for N ≥ 2, to stated accuracy.* The operator keeps order, so a minimum lives on the k largest magnitudes for some
k = N … M. For k = N it is the hard projection. For each k > N the problem on those k is followed from a tenth of
the strength to the full one by cyclic minimization (exact in each coordinate: x_i = max(0, p_i − e_N(the others)), as
e_{N+1} is linear in each), which stays on the branch of local minima of that support as long as there is one; the least
objective of all k counts. The objective is then within 1e-6·‖v‖² of the least that brute force finds; the tests say for
which patterns. That the minimum of each support is unique holds for N = 2 (see `proxsparse.proximal`); beyond, the
tests are the evidence.

*Small groups.* The Hessian has 1 on its diagonal and e_{N−1}(all but i, j) beside it; a row of these adds up to
(M − N) e_{N−1}(all but i). Where that is at most 1 on all of the box 0 ≤ x ≤ p, which it is if it is at x = p without
the smallest, f is convex there, has one minimum, and cyclic minimization from p is all that is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from proxsparse.regularization import elementary_symmetric

STAGES = (0.1, 0.3, 0.5, 0.7, 0.85, 1.0)  # strengths, as shares of the full one, at which the branch is followed
SWEEPS, TOLERANCE = 200, 1e-7


def one_of_m(u: Tensor, lam: float) -> Tensor:
    """argmin over x ≥ 0 of ½‖x − u‖² + λ e2(x), column by column. u, result: (m, groups), u ≥ 0."""
    if lam >= 1:
        return torch.zeros_like(u).scatter_(0, first_largest(u), u.amax(0, keepdim=True))
    ordered = u.sort(dim=0, descending=True).values
    count = torch.arange(1, len(u) + 1, device=u.device, dtype=u.dtype).unsqueeze(1)
    sums = ordered.cumsum(0) / (1 - lam + lam * count)
    size = (ordered > lam * sums).sum(0, keepdim=True).clamp_(min=1)
    return ((u - lam * sums.gather(0, size - 1)) / (1 - lam)).clamp_(min=0)


def first_largest(u: Tensor) -> Tensor:
    """Index (1, groups) of the largest entry of each column; among equals, the first."""
    return (u == u.amax(0, keepdim=True)).to(torch.uint8).argmax(0, keepdim=True)


def n_of_m(p: Tensor, n: int) -> Tensor:
    """argmin over x ≥ 0 of ½‖x − p‖² + e_{n+1}(x), column by column, n ≥ 2. p, result: (m, groups), p ≥ 0."""
    m = len(p)
    ordered, order = p.double().sort(dim=0, descending=True, stable=True)
    best = ordered.clone()
    large = (m - n) * elementary_symmetric(ordered[:-1], n - 1) > 1
    best[:, ~large] = _minimize(ordered[:, ~large], n, (1.0,))
    if bool(large.any()):
        best[:, large] = _best_support(ordered[:, large], n)
    return torch.zeros_like(ordered).scatter_(0, order, best).to(p.dtype)


def _best_support(p: Tensor, n: int) -> Tensor:
    best = p.clone()
    best[n:] = 0
    least = objective(best, p, n)
    for size in range(n + 1, len(p) + 1):
        candidate = torch.zeros_like(p)
        candidate[:size] = _minimize(p[:size], n, STAGES)
        value = objective(candidate, p, n)
        better = value < least
        best, least = torch.where(better, candidate, best), torch.where(better, value, least)
    return best


def objective(x: Tensor, p: Tensor, n: int) -> Tensor:
    """½‖x − p‖² + e_{n+1}(x) of every column."""
    return (x - p).square().sum(0) / 2 + elementary_symmetric(x, n + 1)


def _minimize(p: Tensor, n: int, stages: tuple[float, ...]) -> Tensor:
    """Cyclic minimization from p, at one share of the strength after the other; groups that have settled are left."""
    x = p.clone()
    for share in stages:
        left = torch.arange(p.shape[1], device=p.device)
        for _ in range(SWEEPS):
            before, target = x[:, left], p[:, left]
            after = _sweep(before, target, n, share)
            x[:, left] = after
            left = left[(after - before).abs().amax(0) > TOLERANCE * target[0]]
            if not len(left):
                break
    return x


def _sweep(x: Tensor, p: Tensor, n: int, share: float) -> Tensor:
    """Every coordinate once. e_k of all entries loses x_i by e_k(others) = e_k − x_i e_{k−1}(others), and gains the new."""
    x = x.clone()
    sums = [elementary_symmetric(x, k) for k in range(n + 1)]
    for i in range(len(x)):
        others = [torch.ones_like(x[0])]
        for k in range(1, n + 1):
            others.append(sums[k] - x[i] * others[k - 1])
        x[i] = (p[i] - share * others[n]).clamp_(min=0)
        for k in range(1, n + 1):
            sums[k] = others[k] + x[i] * others[k - 1]
    return x
