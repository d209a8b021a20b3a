r"""The 2:M operator, exactly: one candidate for each support, and the least objective decides.

What holds for groups of four (see `proxsparse.proximal.operator`) holds for any M. The Hessian of ½‖x − p‖² + e3(x) has 1 on its
diagonal and e1(all but i, j) beside it; it is linear in x, so each support holds at most one local minimum. The
operator keeps order, so a support is the k largest, k = 2 … M.

*Support of k ≥ 4.* Stationarity x_i + e2(the others) = p_i is the same quadratic x² + (1 − E1) x + E2 − p_i = 0 for
all i. With s = (1 − E1)/2 + x_k and r_i = √(s² + p_i − p_k) its roots are x_i = t + r_i (r_k = s), and since
E1 = 1 + 2t is also their sum, t = (1 − Σ r_i)/(k − 2). One equation in s remains, φ(s) = x_k − p_k + e2(the others) = 0;
a minimum lies where φ falls, at s ≤ ½. Where φ(0) ≥ 0, bisection from [0, ½], taken over by Newton's method, finds it;
where φ(0) < 0 the root, if there is one, lies just below 0.

*Support of three.* There s is often far below 0, and another equation is better: with a = x3 fixed, (x1, x2) solve a
2×2 linear system, which leaves g(a) = a − p3 + x1 x2 = 0. The minimum is the root where g rises; `proxsparse.proximal.operator`
says why Newton's method descends to it from the right.
"""

from __future__ import annotations

import torch
from torch import Tensor

from proxsparse.proximal.regularizer import elementary_symmetric


def best_of_supports(p: Tensor) -> Tensor:
    """argmin over x ≥ 0 of ½‖x − p‖² + e3(x), column by column. p, result: float64 (m, groups), p > 0 in any order."""
    ordered, order = p.sort(dim=0, descending=True, stable=True)
    best = ordered.clone()
    best[2:] = 0
    least = objective(best, ordered, 2)
    for size in range(3, len(p) + 1):
        candidate = torch.zeros_like(ordered)
        candidate[:size] = (_support_of_three if size == 3 else _support_of_more)(ordered[:size])
        value = objective(candidate, ordered, 2)
        better = value < least  # never for a candidate that is not a number
        best, least = torch.where(better, candidate, best), torch.where(better, value, least)
    return torch.zeros_like(p).scatter_(0, order, best)


def objective(x: Tensor, p: Tensor, n: int) -> Tensor:
    """½‖x − p‖² + e_{n+1}(x) of every column."""
    return (x - p).square().sum(0) / 2 + elementary_symmetric(x, n + 1)


def _support_of_three(p: Tensor, steps: int = 12) -> Tensor:
    p1, p2, p3 = p
    ratio = p2 / p1
    turning = ratio / (1 + (1 - ratio * ratio).clamp(min=0).sqrt())  # where x2 = a x1
    a = torch.minimum(turning, ((1 + 4 * p3).sqrt() - 1) / 2).clamp(max=0.5**0.5)
    for _ in range(steps):
        determinant = 1 - a * a
        x1, x2 = (p1 - a * p2) / determinant, (p2 - a * p1) / determinant
        value, slope = a - p3 + x1 * x2, 1 - (x1 * x1 + x2 * x2 - 2 * a * x1 * x2) / determinant
        a = torch.where(slope > 0, a - value / slope, a).clamp(min=0, max=0.5**0.5)
    determinant = 1 - a * a
    return torch.stack(((p1 - a * p2) / determinant, (p2 - a * p1) / determinant, a)).clamp(min=0)


def _support_of_more(p: Tensor, steps: int = 16) -> Tensor:
    k, smallest = len(p), p[-1]
    excess = p[:-1] - smallest

    def point(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, φ and its slope."""
        r = (s * s + excess).sqrt()
        t = (1 - r.sum(0) - s) / (k - 2)
        others, last = t + r, t + s
        pull = s / r.clamp(min=1e-300)
        drift = -(1 + pull.sum(0)) / (k - 2)
        slope = drift + 1 + ((drift + pull) * (others.sum(0) - others)).sum(0)
        return torch.cat((others, last.unsqueeze(0))), last - smallest + elementary_symmetric(others, 2), slope

    s = torch.zeros_like(smallest)
    positive_root = point(s)[1] >= 0
    low, high = torch.where(positive_root, s, s - 0.1), torch.where(positive_root, s + 0.5, s)
    s = torch.where(positive_root, (low + high) / 2, s)
    for _ in range(steps):
        _, value, slope = point(s)
        low, high = torch.where(value >= 0, s, low), torch.where(value < 0, s, high)
        newton = s - value / slope
        s = torch.where((low <= newton) & (newton <= high), newton, (low + high) / 2)
    return point(s)[0].clamp(min=0)
