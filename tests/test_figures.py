"""Figures are drawn from tables, and show what stands in them."""

import json

import numpy as np
import pandas as pd
import pytest

from proxsparse import figures
from proxsparse.report import pattern_share

STEPS = pd.DataFrame(
    {
        "step": [1, 2, 3], "loss": [4.0, 3.5, 3.0], "lambda1": [0.02, 0.02, 0.05], "learning_rate": [1e-4, 2e-4, 1e-4],
        "nonzeros_4": [0.9, 0.5, 0.1], "nonzeros_3": [0.1, 0.4, 0.3], "nonzeros_2": [0.0, 0.1, 0.6],
        "nonzeros_1": [0.0, 0.0, 0.0], "flips": [10, 0, 5], "flips_from_start": [10, 10, 13],
    }
)  # fmt: skip
PERPLEXITY = pd.DataFrame(
    [
        {"step": step, "mask": mask, "scope": "live", "perplexity": value, "windows": 4, "context": 512}
        for step, mask, value in (
            (0, "dense", 25.0),
            (0, "magnitude", 1900.0),
            (0, "learned", 180.0),
            (2, "learned", 90.0),
        )
    ]
)
LAYERS = pd.DataFrame(
    [
        {"name": f"{block}.{name}{expert}", "block": block, "projection": name, "rows": rows, "columns": 8}
        for block in (0, 1)
        for name, rows, expert in (("q_proj", 8, ""), ("experts.up", 8, ".0"), ("experts.up", 24, ".1"))
    ]
)
RECORD = {
    "step": 3, "nonzeros_2": [0.1, 0.2, 0.6, 0.3, 0.4, 0.8], "nonzeros_1": [0.0] * 6, "flips": [1, 2, 3, 4, 5, 6],
    "flips_from_start": [1] * 6, "drift": [0.1] * 6, "regularizer": [1.0] * 6,
}  # fmt: skip


def test_curves_show_the_measurements_and_say_on_how_much_text():
    figure = figures.learning_curve(STEPS, PERPLEXITY)
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces["learned mask"].y) == [180.0, 90.0] and list(traces["training loss"].y) == [4.0, 3.5, 3.0]
    assert set(traces["dense"].y) == {25.0} and set(traces["magnitude mask"].y) == {1900.0}
    assert figure.layout.yaxis.title.text == "perplexity (4 × 512 tokens)" and figure.layout.yaxis.type == "log"


def test_composition_adds_up_to_all_groups():
    stacked = sum(np.array(trace.y) for trace in figures.composition(STEPS).data)
    assert np.allclose(stacked, 100)


@pytest.mark.parametrize(
    ("n", "m", "fewest"),
    [(1, 2, "none nonzero"), (1, 4, "none nonzero"), (2, 8, "at most 1 nonzero"), (4, 8, "at most 3 nonzero")],
)
def test_composition_and_pattern_share_know_the_pattern_from_the_columns(n, m, fewest):
    columns = {f"nonzeros_{k}": [1 / (m - n + 2)] * 2 for k in range(m, n - 2, -1)}
    traces = figures.composition(pd.DataFrame({"step": [1, 2], **columns})).data
    assert [trace.name for trace in traces[:2]] == [fewest, f"{n} nonzero: {n}:{m}"] and len(traces) == m - n + 2
    assert np.allclose(sum(np.array(trace.y) for trace in traces), 100)
    assert np.allclose(pattern_share(columns), 2 / (m - n + 2))


def test_strength_and_flips():
    assert list(figures.strength(STEPS).data[0].y) == [0.02, 0.02, 0.05]
    since, each = figures.flips(STEPS, weights=1000).data
    assert list(since.y) == [1.0, 1.0, 1.3] and each.y[0] == 1.0 and np.isnan(each.y[1])


def test_layers_are_blocks_by_projections_with_experts_together():
    shares = figures.layer_values(LAYERS, RECORD, "pattern share")
    assert list(shares.index) == ["q_proj", "experts.up"] and list(shares.columns) == [0, 1]
    assert shares.loc["experts.up", 0] == pytest.approx((0.2 * 8 + 0.6 * 24) / 32), "the mean, weighted by size"
    assert figures.layer_values(LAYERS, RECORD, "flips").loc["experts.up", 1] == 11, "counts are added"
    heatmap = figures.layer_heatmap(LAYERS, RECORD, "flips", limits=(0, 50)).data[0]
    assert (heatmap.zmin, heatmap.zmax) == (0, 50) and "2 experts" in heatmap.customdata[1][0]


@pytest.mark.parametrize("quantity", figures.QUANTITIES)
def test_every_axis_has_a_title_and_nothing_is_fetched(quantity):
    empty = pd.DataFrame()
    drawn = [
        figures.learning_curve(STEPS, PERPLEXITY), figures.composition(STEPS), figures.strength(STEPS),
        figures.flips(STEPS, 1000), figures.layer_heatmap(LAYERS, RECORD, quantity),
        figures.learning_curve(empty, empty), figures.composition(empty), figures.strength(empty), figures.flips(empty, 0),
    ]  # fmt: skip
    for figure in drawn:
        layout = json.loads(figure.to_json())["layout"]
        assert layout["title"]["text"] and "http" not in json.dumps(layout)
    for figure in drawn[:4]:
        assert all(axis.title.text for axis in figure.select_yaxes())
