"""An order of columns against brute force, and against exchanging any two."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsparse.reordering.assignment import best_order, kept


def random_scores(rows, columns, seed):
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) ** 4


def brute_force(scores, n, m):
    """The most that any division of the columns into two groups keeps."""
    columns = range(scores.shape[1])
    divisions = ([*one, *(each for each in columns if each not in one)] for one in itertools.combinations(columns, m))
    return max(kept(scores[:, order], n, m) for order in divisions)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 2), (3, 4)])
def test_what_is_kept_is_the_sum_of_the_largest_of_every_group(n, m):
    scores = random_scores(3, 3 * m, 0)
    groups = scores.numpy().reshape(-1, m)
    assert kept(scores, n, m) == pytest.approx(sum(sum(sorted(group)[-n:]) for group in groups.tolist()))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.sampled_from([(2, 4), (1, 4), (1, 2), (4, 8)]), st.integers(0, 2**30))
def test_every_column_stays_and_nothing_is_lost(rows, groups, pattern, seed):
    n, m = pattern
    scores = random_scores(rows, groups * m, seed)
    order = best_order(scores, n, m)
    assert order.sort().values.tolist() == list(range(groups * m))
    assert kept(scores[:, order], n, m) >= kept(scores, n, m)


@pytest.mark.parametrize("seed", range(12))
def test_two_groups_keep_nearly_what_the_best_division_keeps(seed):
    scores = random_scores(6, 8, seed)
    best = brute_force(scores, 2, 4)
    assert 0.95 * best <= kept(scores[:, best_order(scores, sweeps=20)], 2, 4) <= best * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_once_it_has_settled_no_exchange_at_a_place_keeps_more(seed):
    """Each place is dealt out by an assignment, which is exact: no two groups can gain by exchanging what stands there."""
    scores = random_scores(8, 24, seed)
    order = best_order(scores, sweeps=50)
    reached = kept(scores[:, order])
    assert reached > kept(scores)
    for place in range(4):
        for one, other in itertools.combinations(range(6), 2):
            exchanged = order.clone()
            exchanged[[4 * one + place, 4 * other + place]] = order[[4 * other + place, 4 * one + place]]
            assert kept(scores[:, exchanged]) <= reached * (1 + 1e-6)


def test_large_columns_that_share_a_group_are_parted():
    scores = torch.full((2, 8), 0.1)
    scores[:, :4] = 1.0  # a group of four large ones loses two of them
    assert kept(scores) == pytest.approx(2 * (2.0 + 0.2))
    assert kept(scores[:, best_order(scores)]) == pytest.approx(2 * 4.0)
