"""What is drawn of a group agrees with the operator's definition, searched on a grid or by brute force."""

import itertools

import numpy as np
import pytest
import torch
from brute_force import brute_force, objective

from proxsparse import ProxSparseError, prox, regularizer
from proxsparse.proximal import explain
from proxsparse.proximal.explain import Group

GROUPS = (
    (1.2, -0.8, 0.6, 0.3), (0.5, 0.5, 0.5, 0.5), (-1.0, 0.9, -0.85, 0.1), (2.0, 0.1, 0.1, 0.0), (0.3, 0.2, 1.5, -1.4),
)  # fmt: skip
STRENGTHS = (0.01, 0.2, 0.5, 1.0, 3.0)
PATTERNS = (1, 2, 3)


def cost(point, group):
    """½‖w − u‖² + λR(w) by its definition, in the metric."""
    w, v = (torch.tensor(np.asarray(each) * group.units)[None] for each in (point, group.weights))
    return objective(w, v, group.lam, group.n).item()


@pytest.mark.parametrize("weights", GROUPS)
@pytest.mark.parametrize("lam", STRENGTHS)
@pytest.mark.parametrize("n", PATTERNS)
def test_the_point_is_the_least_that_a_search_finds(weights, lam, n):
    group = Group(weights, lam, n)
    least = brute_force(torch.tensor([weights], dtype=torch.float64), lam, n).item()
    assert cost(group.prox, group) <= least + 1e-6 * sum(each**2 for each in weights)
    table = explain.by_nonzeros(group)
    assert table["objective"].iloc[-1] == pytest.approx(cost(group.prox, group), abs=1e-9)
    assert np.allclose(table.iloc[-1, -4:].astype(float), group.prox, atol=1e-6)


@pytest.mark.parametrize(("weights", "lam"), [(GROUPS[0], 0.3), (GROUPS[2], 0.6), (GROUPS[1], 0.4)])
def test_what_each_number_of_nonzeros_costs_agrees_with_a_grid(weights, lam):
    """Every support of k weights, every point of a grid on it: no formula of ours."""
    group, steps = Group(weights, lam), np.linspace(0, 1, 61)
    table = explain.by_nonzeros(group).set_index("nonzeros")
    spacing = max(map(abs, weights)) / 60
    for k in (2, 3):
        least = np.inf
        for support in itertools.combinations(range(4), k):
            grid = np.zeros((61**k, 4))
            axes = np.meshgrid(*(steps * weights[each] for each in support), indexing="ij")
            for position, axis in zip(support, axes, strict=True):
                grid[:, position] = axis.ravel()
            values = objective(
                torch.tensor(grid), torch.tensor([weights], dtype=torch.float64).expand(len(grid), 4), lam
            )
            least = min(least, values.min().item())
        assert table["objective"][k] <= least + 1e-12
        assert table["objective"][k] >= least - 10 * spacing**2 * k, "and the grid comes as near as its spacing allows"
    assert (table["above"] >= 0).all() and table["above"].iloc[-1] == 0


@pytest.mark.parametrize("n", PATTERNS)
def test_the_path_is_the_operator_at_each_strength(n):
    lams, group = np.logspace(-2, 1, 13), Group(GROUPS[0], 0.1, n, scale=(1.0, 2.0, 0.5, 1.5))
    points = explain.path(group, lams)
    for lam, point in zip(lams, points, strict=True):
        v, scale = (torch.tensor([each], dtype=torch.float64) for each in (group.weights, group.scale))
        assert np.allclose(point, prox(v, float(lam), n, 4, scale[0])[0], atol=1e-6)


@pytest.mark.parametrize("n", PATTERNS)
def test_the_phases_count_what_the_operator_leaves(n):
    lams, shapes, group = np.array([0.05, 0.4, 2.0]), np.array([0.0, 0.5, 1.0]), Group(GROUPS[0], 0.1, n)
    counts = explain.phases(group, lams, shapes)
    assert counts.shape == (3, 3) and counts.max() <= 4 and (counts[:, -1] <= n).all()
    ordered = sorted(map(abs, group.weights), reverse=True)
    for row, shape in zip(counts, shapes, strict=True):
        rest = [shape * ordered[n - 1] * each / ordered[n] for each in ordered[n:]]
        v = torch.tensor([[*ordered[:n], *rest]], dtype=torch.float64)
        assert [int((prox(v, lam, n, 4) > 0).sum()) for lam in lams.tolist()] == row.tolist()
    here = explain.phases(group, [group.lam], [explain.shape_of(group)])
    assert here[0, 0] == (group.prox != 0).sum(), "at its own place the diagram says what happens to the group"


def test_the_slice_is_the_regularizer_of_the_library():
    group = Group((1.2, -0.8, 0.6, 0.3), 0.1, scale=(1.0, 2.0, 0.5, 1.5))
    values = explain.slice_of(group, [0.6, -0.2, 0.0], [0.3, 0.0])
    assert values.shape == (2, 3) and values[0, 0] == pytest.approx(group.regularizer) and values[1, 2] == 0
    w = torch.tensor([[1.2, -0.8, -0.2, 0.3]], dtype=torch.float64)
    assert values[0, 1] == pytest.approx(regularizer(w, scale=torch.tensor(group.scale, dtype=torch.float64)).item())


def test_nothing_moves_without_strength_and_zeros_stay():
    assert np.array_equal(Group(GROUPS[0], 0.0).prox, GROUPS[0])
    assert Group((0.0, 0.0, 0.0, 0.0), 1.0).prox.tolist() == [0, 0, 0, 0]
    assert explain.shape_of(Group((0.0, 0.0, 0.0, 0.0), 1.0)) == 0
    assert explain.phases(Group((1.0, 0.5, 0.0, 0.0), 1.0), [1e-3], [0.9])[0, 0] == 4


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"weights": (1.0, float("nan"), 1.0)}, "not a finite number"), ({"lam": -1.0}, "λ is -1"), ({"lam": float("inf")}, "λ is inf"),
        ({"n": 4}, "pattern is 4:4"), ({"n": 0}, "pattern is 0:4"), ({"scale": (1.0, 1.0)}, "give 4 positive numbers"),
        ({"scale": (1.0, 0.0, 1.0, 1.0)}, "give 4 positive numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_group_is_refused(asked, words):
    with pytest.raises(ProxSparseError, match=words):
        Group(**({"weights": GROUPS[0], "lam": 0.1} | asked))
