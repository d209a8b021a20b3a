"""The 2:4 operator, eager and compiled, with what it counts, and the regularizer against its formula.

What the operator promises for every pattern, 2:4 among them, is tested in `test_prox_general`.
"""

import itertools

import pytest
import torch
from brute_force import KINDS, STRENGTHS, excess, objective, random_groups

from benchmarks.reference import alternating_prox
from proxsparse import Mask, ProxSparseError, prox, prox_, regularizer
from proxsparse.masks.groups import from_planes, in_planes
from proxsparse.proximal.operator import prox_and_count_


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_is_never_above_the_reference_algorithm_s(kind):
    v = random_groups(kind, count=1000).float()
    for lam in STRENGTHS:
        reference, compiled, exact = (
            objective(w.double(), v.double(), lam) / v.double().square().sum(1).clamp(min=1e-300)
            for w in (alternating_prox(v, lam), prox(v, lam), prox(v.double(), lam))
        )
        assert (exact <= reference + 1e-12).all()
        assert (compiled <= reference + 1e-6).all()


def test_the_reference_algorithm_misses_a_minimum_that_the_operator_finds():
    """(1, 1, 1, 0) at λ = 1: from zero, two weights grow to 1 and hold the third at 0. On all three x = 1 − x² is better."""
    v, golden = torch.tensor([[1.0, 1.0, 1.0, 0.0]]), (5**0.5 - 1) / 2
    reference, exact = alternating_prox(v, 1.0), prox(v, 1.0)
    assert reference.count_nonzero() == 2 and torch.equal(reference.sum(), torch.tensor(2.0))
    assert exact.tolist() == [pytest.approx([golden, golden, golden, 0])]
    assert objective(exact, v, 1.0) < 0.46 < objective(reference, v, 1.0)


@pytest.mark.parametrize(("largest", "misses"), [(0.4, False), (1.5, True)])
def test_the_reference_algorithm_misses_minima_where_strength_times_weight_is_large(largest, misses):
    v = largest * torch.rand(8_000, 4, generator=torch.Generator().manual_seed(3))
    above, ours = (excess(w.double(), v.double(), 1.0) for w in (alternating_prox(v, 1.0), prox(v, 1.0)))
    assert ours.max() < 1e-6
    assert above.max() > 1e-3 if misses else above.max() < 1e-6


def competing_groups(kind, count=60_000):
    """(count, 4), float32, to be taken at λ = 1: in 0.2 … 1.5, where supports of two, three and four win side by side."""
    generator = torch.Generator().manual_seed(len(kind))
    p = torch.rand(count, 4, generator=generator)
    if kind == "alike":
        p = 1 - 0.3 * p
    if kind == "nearly tied":
        p[:, 1:] = p[:, :1] * (1 + 0.001 * p[:, 1:])
    if kind == "two large":
        p[:, 2:] *= p[:, :1] * p[:, 1:2]
    if kind == "one small":
        p[:, 3] *= 0.3
    return p / p.amax(1, keepdim=True) * (0.2 + 1.3 * torch.rand(count, 1, generator=generator))


@pytest.mark.parametrize("kind", ["uniform", "alike", "nearly tied", "two large", "one small"])
def test_the_compiled_pass_leaves_out_no_support_that_wins(kind):
    """It tries the support of four only within margins that were found by search: see `proxsparse.proximal.operator`."""
    v = competing_groups(kind).view(-1, 400)
    compiled, exact = (w.double().view(-1, 4) for w in (prox(v, 1.0), prox(v.double(), 1.0)))
    sizes = (exact != 0).sum(1)
    assert {2, 3, 4} <= set(sizes.tolist())
    groups = v.double().view(-1, 4)
    above = objective(compiled, groups, 1.0) - objective(exact, groups, 1.0)
    assert (above <= 1e-6 * groups.square().sum(1)).all(), above.max()


@pytest.mark.parametrize("per_weight", [False, True])
def test_the_metric_is_a_change_of_variables(per_weight):
    generator = torch.Generator().manual_seed(5)
    v = torch.randn(16, 32, generator=generator, dtype=torch.float64)
    scale = torch.rand(16, 32, generator=generator, dtype=torch.float64) + 0.1
    scale = scale if per_weight else scale[0]
    assert torch.allclose(prox(v, 0.4, scale=scale), prox(v * scale, 0.4) / scale, atol=1e-12)


@pytest.mark.parametrize("path", ["compiled", "eager"])
def test_in_place_on_a_transposed_view(path, monkeypatch):
    monkeypatch.setattr("proxsparse.proximal.operator.available", lambda *_: path == "compiled")
    monkeypatch.setattr("proxsparse.proximal.operator.CHUNK", 64)
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
    monkeypatch.setattr("proxsparse.proximal.operator.available", lambda *_: False)
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
