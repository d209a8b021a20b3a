"""The proximal operator against its definition, and the regularizer against its formula."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsparse import Mask, ProxSparseError, prox, prox_, regularizer
from proxsparse.groups import from_planes, in_planes
from proxsparse.proximal import prox_and_count_

STRENGTHS = [1e-6, 0.005, 0.05, 0.1, 0.25, 0.4, 0.5, 0.7, 1.0, 1.5, 3.0, 40.0]


def objective(w, v, lam):
    """½‖w − v‖² + λR(w) of every group; w, v: (groups, 4), float64."""
    a = w.abs()
    r = sum(a[:, i] * a[:, j] * a[:, k] for i, j, k in itertools.combinations(range(4), 3))
    return ((w - v) ** 2).sum(1) / 2 + lam * r


def brute_force(v, lam, starts=6, sweeps=120):
    """The least objective that cyclic minimization finds from many starts; (groups,), float64.

    It knows nothing of supports, roots or convexity: each start ends in a local minimum, and the least of them counts.
    """
    generator = torch.Generator().manual_seed(7)
    magnitude = v.abs()
    best = torch.full((len(v),), float("inf"), dtype=torch.float64)
    beginnings = [magnitude * torch.rand(v.shape, generator=generator, dtype=torch.float64) for _ in range(starts)]
    for pair in itertools.combinations(range(4), 2):  # and from every 2:4 point
        beginning = torch.zeros_like(magnitude)
        beginning[:, pair] = magnitude[:, pair]
        beginnings.append(beginning)
    for w in (*beginnings, magnitude.clone(), torch.zeros_like(magnitude)):
        for _ in range(sweeps):
            for i in range(4):
                a, b, c = (w[:, j] for j in range(4) if j != i)
                w[:, i] = (magnitude[:, i] - lam * (a * b + b * c + c * a)).clamp(min=0)
        best = torch.minimum(best, objective(w, magnitude, lam))
    return best


def random_groups(kind, count=200):
    generator = torch.Generator().manual_seed(len(kind) * 31 + ord(kind[0]))
    v = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    if kind == "uniform":
        v = v.abs().frac() + 0.01
    if kind == "tied":
        v = (v * 2).round() / 2
    if kind == "alike":
        v = 1 + 0.02 * v
    if kind == "heavy":
        v = v**3
    if kind == "one large":
        v[:, 1:] *= 0.05
    return v


@pytest.mark.parametrize("kind", ["normal", "uniform", "tied", "alike", "heavy", "one large"])
@pytest.mark.parametrize("lam", STRENGTHS)
def test_the_objective_is_never_above_brute_force(kind, lam):
    v = random_groups(kind)
    w = prox(v, lam)
    excess = objective(w, v, lam) - brute_force(v, lam)
    assert (excess <= 1e-12 * (v**2).sum(1)).all(), excess.max()


@pytest.mark.parametrize("lam", STRENGTHS)
def test_float32_and_bfloat16_agree_with_float64(lam, monkeypatch):
    v = torch.randn(2000, 4, generator=torch.Generator().manual_seed(1))
    exact = objective(prox(v.double(), lam), v.double(), lam)
    for compiled in (True, False):
        monkeypatch.setattr("proxsparse.proximal.available", lambda *_, compiled=compiled: compiled)
        rough = objective(prox(v, lam).double(), v.double(), lam)
        assert (rough - exact <= 1e-6 * (v**2).sum(1)).all()
    half = v.bfloat16()
    wide = prox(half.double(), lam)
    assert ((prox(half, lam).double() - wide).abs() <= 2**-8 * wide.abs() + 1e-6).all(1).float().mean() > 0.999


@given(
    st.lists(st.floats(-1e3, 1e3, allow_subnormal=True), min_size=4, max_size=4),
    st.floats(0, 100, allow_subnormal=False),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_group_any_strength(group, lam):
    v = torch.tensor([group], dtype=torch.float64)
    w = prox(v, lam)
    assert w.isfinite().all()
    assert (w.abs() <= v.abs() * (1 + 1e-12)).all(), "the operator shrinks"
    assert (w * v >= 0).all(), "and keeps signs"
    size = (v**2).sum().item()
    assert objective(w, v, lam).item() <= brute_force(v, lam, starts=4).item() + 1e-10 * size


@given(st.integers(0, 10_000), st.sampled_from(STRENGTHS), st.floats(0.01, 100))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_symmetries_and_scaling(seed, lam, factor):
    v = torch.randn(20, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    w = prox(v, lam)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(prox(v[:, order].contiguous(), lam), w[:, order], atol=1e-7)
    assert torch.equal(prox(-v, lam), -w)
    assert torch.allclose(prox(factor * v, lam), factor * prox(v, factor * lam), rtol=1e-6, atol=1e-7 * factor)


def test_no_strength_is_the_identity_and_a_large_one_is_the_hard_projection():
    v = torch.randn(500, 8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(prox(v, 0), v)
    w = prox(v, 1e8)
    for group, result in zip(v.view(-1, 4), w.view(-1, 4), strict=True):
        kept = group.abs().topk(2).indices
        expected = torch.zeros(4)
        expected[kept] = group[kept]
        assert torch.equal(result, expected)


def test_groups_that_are_two_four_are_left_bit_for_bit():
    v = torch.randn(100, 4, generator=torch.Generator().manual_seed(3))
    v[:, [0, 2]] = 0
    scale = torch.rand(4, generator=torch.Generator().manual_seed(4)) + 0.5
    assert torch.equal(prox(v, 0.3, scale=scale), v)


@pytest.mark.parametrize("per_weight", [False, True])
def test_the_metric_is_a_change_of_variables(per_weight):
    generator = torch.Generator().manual_seed(5)
    v = torch.randn(16, 32, generator=generator, dtype=torch.float64)
    scale = torch.rand(16, 32, generator=generator, dtype=torch.float64) + 0.1
    scale = scale if per_weight else scale[0]
    assert torch.allclose(prox(v, 0.4, scale=scale), prox(v * scale, 0.4) / scale, atol=1e-12)


@pytest.mark.parametrize("path", ["compiled", "eager"])
def test_in_place_on_a_transposed_view(path, monkeypatch):
    monkeypatch.setattr("proxsparse.proximal.available", lambda *_: path == "compiled")
    monkeypatch.setattr("proxsparse.proximal.CHUNK", 64)
    stored = torch.randn(32, 24, generator=torch.Generator().manual_seed(6))  # as a Conv1D holds it: (in, out)
    expected = prox(stored.t().double(), 0.3)
    returned = prox_(stored.t(), 0.3)
    assert returned.data_ptr() == stored.data_ptr()
    assert torch.allclose(stored.t().double(), expected, atol=1e-6)


@pytest.mark.parametrize("lam", [0, *STRENGTHS])
@pytest.mark.parametrize("metric", [False, True])
def test_the_compiled_and_the_eager_pass_agree_and_count_the_result(lam, metric, monkeypatch):
    generator = torch.Generator().manual_seed(11)
    v = torch.randn(60, 44, generator=generator)
    v[:20] = v[:20].round()
    scale = torch.rand(44, generator=generator) + 0.2 if metric else None
    fast, slow = v.clone(), v.clone()
    start = Mask.project(torch.randn(v.shape, generator=generator))
    previous = Mask.project(v, scale=scale)
    original = torch.randn(v.shape, generator=generator).bfloat16()
    about = {"scale": scale, "previous": previous, "start": start, "original": original}
    counts = prox_and_count_(fast, lam, **about)
    monkeypatch.setattr("proxsparse.proximal.available", lambda *_: False)
    eager = prox_and_count_(slow, lam, **about)
    assert torch.allclose(fast, slow, rtol=1e-4, atol=1e-5)
    assert counts.read().nonzeros == eager.read().nonzeros and sum(counts.read().nonzeros) == v.numel() // 4
    for result, mask, sums in ((fast, counts.mask, counts.read()), (slow, eager.mask, eager.read())):
        nonzeros = (result.view(-1, 4) != 0).sum(1)
        assert sums.nonzeros == (*tuple(int((nonzeros == k).sum()) for k in (4, 3, 2)), int((nonzeros <= 1).sum()))
        assert sums.regularizer == pytest.approx(regularizer(result, scale=scale).item(), rel=1e-4, abs=1e-4)
        assert sums.squared_drift == pytest.approx((result - original.float()).square().sum().item(), rel=1e-4)
        assert sums.flips == mask.flips(previous) <= 2  # order is kept; rounding may decide near-equals
        assert sums.flips_from_start == mask.flips(start) > 0
        assert ((result != 0) & ~mask.dense()).view(-1, 4).any(1).sum() == sum(sums.nonzeros[:2])


@pytest.mark.parametrize(
    "call",
    [
        lambda: prox(torch.zeros(2, 6), 0.1),
        lambda: prox(torch.zeros(8), 0.1),
        lambda: prox(torch.zeros(2, 8), -0.1),
        lambda: prox(torch.zeros(2, 8), float("nan")),
        lambda: prox(torch.zeros(2, 8), 0.1, n=4, m=4),
        lambda: prox(torch.zeros(2, 8), 0.1, scale=torch.zeros(8)),
        lambda: prox(torch.zeros(2, 8), 0.1, scale=torch.ones(4)),
        lambda: prox(torch.full((2, 8), float("nan")), 0.1),
        lambda: prox(torch.full((2, 8), float("inf")), 0.1),
        lambda: prox(torch.zeros(2, 8, dtype=torch.int32), 0.1),
    ],
)
def test_bad_input_is_one_sentence(call):
    with pytest.raises(ProxSparseError, match=r"\.$"):
        call()


@pytest.mark.parametrize(("n", "m"), [(1, 2), (1, 4), (2, 4), (2, 8), (4, 8)])
def test_the_regularizer_is_the_sum_over_all_products(n, m):
    w = torch.randn(6, 2 * m, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    scale = torch.rand(2 * m, generator=torch.Generator().manual_seed(9), dtype=torch.float64) + 0.2
    groups = (w * scale).abs().view(-1, m)
    expected = sum(groups[:, list(chosen)].prod(1).sum() for chosen in itertools.combinations(range(m), n + 1))
    assert torch.allclose(regularizer(w, n, m, scale), expected)


def test_the_regularizer_vanishes_exactly_on_two_four_and_has_its_gradient():
    w = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(10)).requires_grad_()
    assert regularizer(w) > 0
    assert torch.autograd.gradcheck(regularizer, (w,))
    sparse = w.detach().clone()
    sparse[:, 1:3] = 0
    assert regularizer(sparse) == 0


def test_planes_come_back():
    w = torch.arange(48.0).view(4, 12)
    planes = in_planes(w, 4)
    assert planes.shape == (4, 12) and planes[:, 0].tolist() == [0, 1, 2, 3]
    assert torch.equal(from_planes(planes, w.shape), w)
