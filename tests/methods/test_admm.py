"""ADMM's weights and masks, against the algorithm of its paper written out and against least squares."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from proxsparse import ProxSparseError
from proxsparse.methods.admm import DAMPING, alternate, choose
from proxsparse.methods.sparsegpt import prune_columns


def layer(seed, rows=6, columns=24):
    """Weights (rows, columns) and inputs (tokens, columns) that depend on each other, float64."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    weights = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return weights, torch.randn(60, columns, generator=generator, dtype=torch.float64) @ mixed


def admm_by_hand(weights, inputs, n, m, steps=20, choosing=15):
    """The paper's W ← …, Z ← …, U ← …, with inputs as columns that have norm 1, one weight after another."""
    norms = np.linalg.norm(inputs, axis=0)
    unit = inputs / norms
    hessian = unit.T @ unit + 0.1 * np.eye(len(norms))
    start = (weights * norms).T  # (in, out), as in the paper
    w, u, size = start.copy(), np.zeros_like(start), start.size
    for step in range(steps):
        moved = np.abs(w + u)
        if step < choosing:
            sparsity = (1 - Fraction(n, m)) * (1 - (1 - Fraction(step + 1, choosing)) ** 3)
            protected = np.zeros(start.shape, dtype=bool)
            for row in range(start.shape[1]):
                for begin in range(0, len(start), m):
                    protected[begin + np.argsort(moved[begin : begin + m, row])[m - n :], row] = True
            others = sorted((moved[place], place) for place in zip(*np.nonzero(~protected), strict=True))
            mask = np.ones(start.shape, dtype=bool)
            for _, place in others[: int(sparsity * size)]:
                mask[place] = False
        z = (w + u) * mask
        u = u + w - z
        w = np.linalg.solve(hessian + np.eye(len(norms)), hessian @ start + z - u)
    return mask.T, ((w + u) * mask).T / norms


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (2, 6), (1, 2), (7, 12)])
def test_it_is_the_papers_algorithm(n, m):
    weights, inputs = layer(10 * n + m)
    for schedule in ((20, 15), (5, 5), (3, 1)):
        kept, updated = alternate(weights, inputs.T @ inputs, n, m, *schedule)
        expected_kept, expected = admm_by_hand(weights.numpy(), inputs.numpy(), n, m, *schedule)
        assert np.array_equal(kept.numpy(), expected_kept)
        np.testing.assert_allclose(updated.numpy(), expected, atol=1e-9)


def test_with_its_mask_fixed_it_goes_to_the_least_squares_weights():
    weights, inputs = layer(0)
    kept, updated = alternate(weights, inputs.T @ inputs, steps=2000)
    norms = inputs.norm(dim=0)
    damped = torch.cat([inputs, DAMPING**0.5 * torch.diag(norms)])  # ‖X(ŵ − w)‖² + λ‖diag(‖x_j‖)(ŵ − w)‖²
    for row, places in enumerate(kept):
        best = torch.linalg.lstsq(damped[:, places], damped @ weights[row]).solution
        torch.testing.assert_close(updated[row, places], best, atol=1e-6, rtol=1e-6)
    assert not updated[~kept].any()


def test_its_output_error_is_below_that_of_sparsegpt():
    for seed in range(5):
        weights, inputs = layer(seed, 64, 64)
        moments = inputs.T @ inputs
        errors = [(inputs @ (weights - prune(weights, moments)[1]).T).norm() for prune in (alternate, prune_columns)]
        assert errors[0] < errors[1]


def test_the_mask_grows_from_the_lowest_scores_that_no_group_needs():
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0], [8.0, 7.0, 6.0, 5.0], [0.0, 0.0, 0.0, 0.5]])
    assert choose(scores, 2, 4, 0, scores).all()
    half = choose(scores, 2, 4, 3, scores)
    assert half.tolist() == [[True, True, True, False], [True] * 4, [True, False, False, True]]
    whole = choose(scores, 2, 4, 6, torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [1, 3, 2, 2]]))
    assert whole.tolist() == [[True, True, False, False], [True, True, False, False], [False, True, False, True]]


def test_inputs_that_were_never_active_are_dropped_first_and_disturb_nothing():
    weights, inputs = layer(3)
    inputs[:, [1, 8, 9, 10]] = 0
    kept, updated = alternate(weights, inputs.T @ inputs)
    assert not kept[:, 1].any() and kept[:, 11].all()
    left = weights[:, 8:11].abs().argmax(1) + 8  # of three dead inputs the largest weight stays, and stays as it is
    rows = torch.arange(len(weights))
    assert kept[rows, left].all() and torch.equal(updated[rows, left], weights[rows, left])
    inputs[:, [0, 1, 2, 3]] = 0  # no group is dead in part now
    inputs[:, 11] = 0
    moments, living = inputs.T @ inputs, inputs.any(0)
    kept, updated = alternate(weights, moments, choosing=1)
    others_kept, others = alternate(weights[:, living], moments[living][:, living], choosing=1)
    assert torch.equal(kept[:, living], others_kept)
    torch.testing.assert_close(updated[:, living], others)


def test_no_factor_of_the_moments_changes_anything():
    weights, inputs = layer(4)
    (kept, updated), (again, scaled) = (alternate(weights, inputs.T @ inputs * factor) for factor in (1, 1e-6))
    assert torch.equal(kept, again)
    torch.testing.assert_close(updated, scaled)


@pytest.mark.parametrize("choosing", [0, 21])
def test_a_mask_cannot_be_chosen_in_no_step_or_in_more_than_there_are(choosing):
    with pytest.raises(ProxSparseError, match=f"in {choosing} of 20 steps"):
        alternate(torch.ones(1, 4), torch.eye(4), choosing=choosing)
