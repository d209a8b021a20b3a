"""What the proximal operator promises for every pattern, against its definition."""

import pytest
import torch
from brute_force import KINDS, STRENGTHS, excess, objective, random_groups
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsparse import prox

PATTERNS = [(1, 2), (1, 4), (1, 8), (2, 4), (3, 4), (2, 6), (2, 8), (4, 8)]
of_every_pattern = pytest.mark.parametrize(("n", "m"), PATTERNS)
derandomized = settings(deadline=None, derandomize=True)


def tolerance(n):
    """How far above the least objective the result may lie, in units of ‖v‖²: 1:M and 2:M are exact."""
    return 1e-12 if n <= 2 else 1e-6


def normal_groups(m, seed, count=200, dtype=torch.float64):
    return torch.randn(count, m, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@of_every_pattern
@pytest.mark.parametrize("lam", STRENGTHS)
def test_the_objective_is_never_above_brute_force(n, m, lam):
    v = torch.cat([random_groups(kind, m, count=240 // m) for kind in KINDS])
    assert excess(prox(v, lam, n, m), v, lam, n).max() <= tolerance(n)


@of_every_pattern
def test_near_ties_where_supports_compete(n, m):
    """Where the minimum of one support ends and another takes over, and entries are nearly equal, it is hardest."""
    generator = torch.Generator().manual_seed(n * m)
    v = (1 + 0.3 * torch.randn(600, m, generator=generator, dtype=torch.float64)).abs()
    near = 1 + 1e-4 * torch.randn(600, m, generator=generator, dtype=torch.float64)
    for i in range(1, m):
        v[:, i] = torch.where(torch.rand(600, generator=generator) < 0.4, v[:, i - 1] * near[:, i], v[:, i])
    v *= torch.rand(600, 1, generator=generator, dtype=torch.float64) + 0.2
    lam = {(2, 4): 0.6, (2, 6): 0.5, (2, 8): 0.4, (3, 4): 0.7, (4, 8): 0.3}.get((n, m), 0.7)
    assert excess(prox(v, lam, n, m), v, lam, n, starts=3).max() <= tolerance(n)


@st.composite
def problems(draw):
    """Any pattern; a group with ties, zeros and denormal numbers, of any size; a strength that does something to it."""
    n, m = draw(st.sampled_from(PATTERNS))
    entry = st.sampled_from([0.0, 0.5, 1.0, -1.0, 5e-324, 1e-200]) | st.floats(-1, 1)
    size = draw(st.sampled_from([1e-6, 1e-2, 1.0, 1e3, 1e6]))
    v = torch.tensor([draw(st.lists(entry, min_size=m, max_size=m))], dtype=torch.float64) * size
    return n, m, v, draw(st.sampled_from(STRENGTHS) | st.floats(0, 100)) / size ** (n - 1)


@given(problems())
@settings(derandomized, max_examples=200)
def test_any_group_any_strength(problem):
    n, m, v, lam = problem
    w = prox(v, lam, n, m)
    assert w.isfinite().all()
    assert (w.abs() <= v.abs() * (1 + 1e-12)).all(), "the operator shrinks"
    assert (w * v >= 0).all(), "and keeps signs"
    assert excess(w, v, lam, n, starts=4, sweeps=60).item() <= tolerance(n)


@given(st.sampled_from(PATTERNS), st.integers(0, 10_000), st.sampled_from(STRENGTHS), st.floats(0.01, 100))
@settings(derandomized, max_examples=60)
def test_symmetries_and_scaling(pattern, seed, lam, factor):
    n, m = pattern
    v = normal_groups(m, seed, count=20)
    w = prox(v, lam, n, m)
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(prox(v[:, order].contiguous(), lam, n, m), w[:, order], atol=1e-9)
    assert torch.equal(prox(-v, lam, n, m), -w)
    scaled = prox(factor * v, lam, n, m) / factor
    assert torch.allclose(scaled, prox(v, factor ** (n - 1) * lam, n, m), rtol=1e-6, atol=1e-7)


@of_every_pattern
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_strength_is_the_identity_and_a_large_one_the_hard_projection(n, m, dtype):
    v = normal_groups(m, seed=2, count=500, dtype=dtype)
    dropped = v.abs().sort(1, descending=True).indices[:, n:]
    for nothing in (0, 1e-300):
        assert torch.equal(prox(v, nothing, n, m), v)
    for large in (1e12, 1e300):
        assert torch.equal(prox(v, large, n, m), v.scatter(1, dropped, 0))


@of_every_pattern
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_groups_that_are_sparse_already_are_left_bit_for_bit(n, m, dtype):
    v = normal_groups(m, seed=3, dtype=dtype)
    v.scatter_(1, torch.rand(v.shape, generator=torch.Generator().manual_seed(4)).argsort(1)[:, n:], 0)
    scale = torch.rand(m, generator=torch.Generator().manual_seed(5)) + 0.5
    for lam in STRENGTHS:
        assert torch.equal(prox(v, lam, n, m, scale), v)


@of_every_pattern
@pytest.mark.parametrize("lam", [0.05, 0.4, 1.5])
def test_float32_and_bfloat16_agree_with_float64(n, m, lam, monkeypatch):
    v = normal_groups(m, seed=1, count=400, dtype=torch.float32)
    exact = objective(prox(v.double(), lam, n, m), v.double(), lam, n)
    for compiled in (True, False) if (n, m) == (2, 4) else (False,):
        monkeypatch.setattr("proxsparse.proximal.operator.available", lambda *_, compiled=compiled: compiled)
        rough = objective(prox(v, lam, n, m).double(), v.double(), lam, n)
        assert (rough - exact <= 1e-6 * (v**2).sum(1)).all()
    half = v.bfloat16()
    wide, narrow = prox(half.double(), lam, n, m), prox(half, lam, n, m).double()
    assert ((narrow - wide).abs() <= 2**-8 * wide.abs() + 1e-6).all(1).float().mean() > 0.99


@of_every_pattern
@pytest.mark.parametrize("path", ["compiled", "eager"])
def test_denormal_and_huge_weights_stay_finite(n, m, path, monkeypatch):
    monkeypatch.setattr("proxsparse.proximal.operator.available", lambda *_: path == "compiled")
    signs = normal_groups(m, seed=6).clamp(-1, 1)
    for dtype, tiny, huge in ((torch.float32, 1e-40, 1e37), (torch.float64, 1e-310, 1e300)):
        for lam in (0.5, 40.0):
            for size in (tiny, huge):
                v = (signs * size).to(dtype)
                w = prox(v, lam, n, m)
                assert w.isfinite().all() and (w.abs() <= v.abs()).all() and (w * signs >= 0).all()
                if n > 1:  # λ·|v|^(n−1) is next to nothing, or beyond all bounds; that of 1:M does not depend on |v|
                    assert torch.equal(w, v) if size == tiny else ((w != 0).sum(1) == n).all()


@pytest.mark.parametrize("m", [2, 4, 8])
@pytest.mark.parametrize("lam", [0.01, 0.3, 0.9, 1 - 1e-9])
def test_one_of_m_solves_its_equations(m, lam):
    """For λ < 1 the problem of 1:M is convex: whatever is stationary, x_i = max(0, |v_i| − λ Σ_{j≠i} x_j), is it."""
    v = torch.cat([random_groups(kind, m, count=50) for kind in KINDS])
    x = prox(v, lam, 1, m).abs()
    stationary = (v.abs() - lam * (x.sum(1, keepdim=True) - x)).clamp(min=0)
    assert torch.allclose(x, stationary, rtol=0, atol=1e-12)
