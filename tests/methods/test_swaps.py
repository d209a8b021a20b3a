"""Refined masks, against the output error by its definition and every pattern tried by brute force."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsparse import Mask, ProxSparseError, swaps
from proxsparse.methods.swaps import refine

PATTERNS = [(1, 2), (1, 4), (2, 4), (3, 4), (2, 6), (4, 8)]
LAYERS = ("plain", "tied", "alike", "one large", "few tokens", "inactive", "unseen")


def layer(kind, seed, rows=5, columns=24, tokens=60):
    """Weights (rows, columns) and inputs (tokens, columns), float64."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    inputs = torch.randn(2 if kind == "few tokens" else tokens, columns, generator=generator, dtype=torch.float64)
    if kind == "tied":  # and some weights are zero, kept or not
        weights, inputs = weights.round(), inputs.round()
    elif kind == "alike":
        inputs = inputs[:, :1] + 0.1 * inputs
    elif kind == "one large":
        inputs[:, 3] *= 1e4
    elif kind == "inactive":
        inputs[:, [1, 8, 9, 10, 11]] = 0
    elif kind == "unseen":
        inputs = inputs[:0]
    return weights, inputs


def errors(weights, inputs, kept):
    """‖X(w − m∘w)‖² of every row."""
    return (inputs @ (weights * ~kept).T).square().sum(0)


def dense_errors(weights, inputs):
    """What rounding is measured by: ‖X_j w_j‖² summed over j, of every row."""
    return weights.square() @ inputs.square().sum(0)


def after_changes_of_one_group(weights, inputs, kept, n, m):
    """The errors under every mask that differs in one group only, (masks, rows)."""
    found = []
    for begin in range(0, weights.shape[1], m):
        for places in combinations(range(begin, begin + m), n):
            changed = kept.clone()
            changed[:, begin : begin + m] = False
            changed[:, list(places)] = True
            found.append(errors(weights, inputs, changed))
    return torch.stack(found)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(PATTERNS), st.sampled_from(LAYERS), st.integers(0, 10_000), st.sampled_from([4, 12, 64]))
def test_it_ends_where_no_change_of_one_group_lowers_the_error(pattern, kind, seed, blocksize):
    n, m = pattern
    weights, inputs = layer(kind, seed)
    moments = inputs.T @ inputs
    start = Mask.of_scores(torch.rand_like(weights), n, m).dense()
    kept = refine(weights, moments, start, n, m, sweeps=1000, blocksize=blocksize)
    assert (kept.view(-1, m).sum(1) == n).all()
    rounding = 1e-11 * dense_errors(weights, inputs)
    reached = errors(weights, inputs, kept)
    assert (reached <= errors(weights, inputs, start) + rounding).all()
    assert (reached <= after_changes_of_one_group(weights, inputs, kept, n, m) + rounding).all()
    assert torch.equal(refine(weights, moments, kept, n, m), kept)


@pytest.mark.parametrize("kind", LAYERS)
def test_no_sweep_raises_the_error_and_the_speed_of_products_changes_nothing(kind):
    weights, inputs = layer(kind, 0, rows=40, columns=64)
    moments = inputs.T @ inputs
    kept = start = Mask.of_scores(weights.abs() * moments.diagonal().sqrt(), ties=weights.abs()).dense()
    rounding = 1e-11 * dense_errors(weights, inputs)
    assert torch.equal(refine(weights, moments, start, sweeps=0), start)
    for sweeps in range(1, 6):
        earlier, kept = kept, refine(weights, moments, start, sweeps=sweeps)
        assert (errors(weights, inputs, kept) <= errors(weights, inputs, earlier) + rounding).all()
        assert torch.equal(refine(weights, moments, earlier, sweeps=1), kept), "a sweep knows the mask and no more"
        assert torch.equal(refine(weights, moments * 8, start, sweeps=sweeps), kept)
    if kind in ("plain", "alike", "one large"):
        assert errors(weights, inputs, kept).sum() < 0.9 * errors(weights, inputs, start).sum()


def test_the_first_sweep_is_the_best_pattern_of_one_group_after_another():
    weights, inputs = layer("alike", 1)
    kept = start = Mask.of_scores(torch.rand_like(weights)).dense()
    for begin in range(0, 24, 4):
        tried = kept.repeat(6, 1, 1)
        for mask, places in zip(tried, combinations(range(begin, begin + 4), 2), strict=True):
            mask[:, begin : begin + 4] = False
            mask[:, list(places)] = True
        best = torch.stack([errors(weights, inputs, mask) for mask in tried]).argmin(0)
        kept = tried[best, torch.arange(5)]
    assert torch.equal(refine(weights, inputs.T @ inputs, start, sweeps=1, blocksize=8), kept)


def test_equal_errors_change_nothing_and_of_equal_better_ones_lower_positions_stay():
    identity = torch.eye(4)
    keeps_last = torch.tensor([[False, False, True, True]])
    assert torch.equal(refine(torch.ones(1, 4), identity, keeps_last), keeps_last)
    kept = refine(torch.tensor([[1.0, 3.0, 3.0, 3.0]]), identity, torch.tensor([[True, False, False, True]]))
    assert kept.tolist() == [[False, True, True, False]]
    three = torch.tensor([[True, True, True, False]])
    with pytest.raises(ProxSparseError, match="keeps other than 2 of every 4"):
        refine(torch.ones(1, 4), identity, three)


def test_too_many_patterns_are_refused_before_anything_is_measured():
    with pytest.raises(ProxSparseError, match="8:16 has 12,870 patterns a group and swaps has a number for each"):
        swaps(None, None, 8, 16)
