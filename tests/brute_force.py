"""The proximal operator by its definition: the objective, a search that knows nothing of its structure, and groups."""

import itertools

import torch

from proxsparse.proximal.regularizer import elementary_symmetric

KINDS = ("normal", "uniform", "tied", "nearly tied", "alike", "heavy", "one large", "zeros")
STRENGTHS = (1e-6, 0.005, 0.05, 0.1, 0.25, 0.4, 0.5, 0.7, 1.0, 1.5, 3.0, 40.0)


def objective(w, v, lam, n=2):
    """½‖w − v‖² + λR(w) of every group; w, v: (groups, m), float64."""
    magnitude = w.abs()
    products = (magnitude[:, chosen].prod(1) for chosen in itertools.combinations(range(w.shape[1]), n + 1))
    return ((w - v) ** 2).sum(1) / 2 + lam * sum(products)


def brute_force(v, lam, n=2, starts=6, sweeps=120):
    """The least objective that cyclic minimization finds from many starts; (groups,), float64.

    It knows nothing of supports, roots or convexity: each start ends in a local minimum, and the least of them counts.
    """
    generator = torch.Generator().manual_seed(7)
    magnitude, m = v.abs(), v.shape[1]
    ranks = magnitude.argsort(1, descending=True).argsort(1)
    beginnings = [magnitude * torch.rand(v.shape, generator=generator, dtype=torch.float64) for _ in range(starts)]
    beginnings += [magnitude * (ranks < size) for size in range(m + 1)]
    w, target = torch.cat(beginnings).t().contiguous(), magnitude.repeat(len(beginnings), 1).t().contiguous()
    for _ in range(sweeps):
        for i in range(m):
            others = torch.cat((w[:i], w[i + 1 :]))
            w[i] = (target[i] - lam * elementary_symmetric(others, n)).clamp(min=0)
    return objective(w.t(), target.t(), lam, n).view(len(beginnings), -1).amin(0)


def excess(w, v, lam, n=2, **search):
    """How far the objective of w lies above what brute force finds, in units of ‖v‖²; (groups,)."""
    above = objective(w, v, lam, n) - brute_force(v, lam, n, **search)
    return above / (v**2).sum(1).clamp(min=1e-300)


def random_groups(kind, m=4, count=200):
    """(count, m), float64. Ties are whole halves; nearly tied ones differ by less than a thousandth."""
    generator = torch.Generator().manual_seed(len(kind) * 31 + ord(kind[0]))
    v = torch.randn(count, m, generator=generator, dtype=torch.float64)
    if kind == "uniform":
        v = v.abs().frac() + 0.01
    if kind == "tied":
        v = (v * 2).round() / 2
    if kind == "nearly tied":
        v = (v * 2).round() / 2 + 2e-4 * v
    if kind == "alike":
        v = 1 + 0.02 * v
    if kind == "heavy":
        v = v**3
    if kind == "one large":
        v[:, 1:] *= 0.05
    if kind == "zeros":
        v[torch.rand(count, m, generator=generator) < 0.4] = 0
    return v
