"""The figures of one group show the numbers they are given, and their titles say what is to be seen."""

import json

import numpy as np
import pytest

from proxsparse import figures
from proxsparse.proximal import explain
from proxsparse.proximal.explain import Group

GROUP = Group((1.2, -0.8, 0.6, 0.3), 0.3)
LAMS, SHAPES, VALUES = np.logspace(-2, 1, 31), np.linspace(0, 1, 11), np.linspace(-2, 2, 9)


def numbers(values):
    return np.asarray(values, dtype=float)


def test_the_point_stands_beside_the_weights_and_the_title_names_what_is_dropped():
    figure = figures.proximal_point(GROUP.weights, GROUP.prox, GROUP.lam)
    before, after = figure.data
    assert np.array_equal(numbers(before.y), GROUP.weights) and np.array_equal(numbers(after.y), GROUP.prox)
    assert list(after.x) == ["w1", "w2", "w3", "w4"] and after.text[3] == "0"
    assert figure.layout.title.text == "At λ = 0.3 one proximal step sets w4 to zero"
    weak = Group(GROUP.weights, 0.05)
    assert figures.proximal_point(weak.weights, weak.prox, 0.05).layout.title.text.endswith("drops none")
    assert figures.proximal_point(weak.weights, weak.weights, 0).layout.title.text.endswith("moves nothing")


def test_the_supports_say_which_wins_and_by_how_much():
    table = explain.by_nonzeros(GROUP)
    figure = figures.best_by_nonzeros(table, 3)
    (bars,) = figure.data
    assert np.array_equal(numbers(bars.x), table["above"]) and list(bars.y) == ["at most 2", "at most 3", "at most 4"]
    assert list(bars.text)[1:] == ["best", "no better"]
    title = figure.layout.title.text
    assert title == f"Three nonzeros win: the best point with at most 2 costs {table['above'][0]:.3g} more"
    strong = explain.by_nonzeros(Group(GROUP.weights, 3.0))
    assert figures.best_by_nonzeros(strong, 2).layout.title.text == "Two nonzeros win: no point with more is better"


def test_the_path_says_where_weights_reach_zero():
    points = explain.path(GROUP, LAMS)
    figure = figures.proximal_path(LAMS, points, GROUP.lam)
    assert [trace.name for trace in figure.data] == ["w1", "w2", "w3", "w4"]
    assert all(np.array_equal(numbers(trace.y), points[:, index]) for index, trace in enumerate(figure.data))
    assert len({(trace.line.color, trace.line.dash) for trace in figure.data}) == 4
    first = LAMS[(points[:, 3] == 0).argmax()]
    assert figure.layout.title.text.startswith(f"As λ grows, weights reach zero: w4 at {first:.2g}, w3 at ")
    assert figure.layout.shapes[0].x0 == GROUP.lam and figure.layout.xaxis.type == "log"


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (1, 2), (2, 8)])
def test_phases_and_slice_of_every_pattern(n, m):
    group = Group((1.2, -0.8, 0.6, 0.3, 0.5, -0.4, 0.2, 0.1)[:m], 0.3, n)
    counts, shape = explain.phases(group, LAMS, SHAPES), explain.shape_of(group)
    figure = figures.phase_diagram(LAMS, SHAPES, counts, group.lam, shape, n, m)
    areas, *_, ring, _ = figure.data
    assert np.array_equal(numbers(areas.z), counts)
    assert (ring.x[0], ring.y[0]) == (group.lam, shape)
    assert [trace.name for trace in figure.data if trace.name] == [f"{k} left" for k in range(n, m + 1)]
    assert len({trace.marker.color for trace in figure.data if trace.name}) == m - n + 1
    assert "÷" in figure.layout.yaxis.title.text and "ratio of the" in figure.layout.title.text

    values = explain.slice_of(group, VALUES, VALUES)
    surface, step = figures.regularizer_slice(VALUES, VALUES, values, group.weights, group.prox).data
    assert np.array_equal(numbers(surface.z), values)
    assert list(step.x) == [group.weights[-2], group.prox[-2]] and list(step.y) == [group.weights[-1], group.prox[-1]]


def test_every_axis_has_a_title_and_nothing_is_fetched():
    zero = Group((0.0, 0.0, 0.0, 0.0), 0.3)
    for group in (GROUP, zero):
        drawn = [
            figures.proximal_point(group.weights, group.prox, group.lam),
            figures.best_by_nonzeros(explain.by_nonzeros(group), int((group.prox != 0).sum())),
            figures.proximal_path(LAMS, explain.path(group, LAMS), group.lam),
            figures.phase_diagram(
                LAMS, SHAPES, explain.phases(group, LAMS, SHAPES), group.lam, explain.shape_of(group), 2, 4
            ),
            figures.regularizer_slice(
                VALUES, VALUES, explain.slice_of(group, VALUES, VALUES), group.weights, group.prox
            ),
        ]
        for figure in drawn:
            layout = json.loads(figure.to_json())["layout"]
            assert layout["title"]["text"] and "http" not in json.dumps(layout)
            assert layout["xaxis"]["title"]["text"] and layout["yaxis"]["title"]["text"]
