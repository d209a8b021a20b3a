"""Figures are drawn from tables, and show what stands in them."""

import json

import numpy as np
import pandas as pd
import pytest

from proxsparse import figures
from proxsparse.figures.tradeoffs import LINE
from proxsparse.learning.report import pattern_share

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
COMPARED = pd.DataFrame(
    {
        "method": ["dense", "sparsegpt-update", "proxsparse", "wanda"], "perplexity": [25.0, 89.0, 90.5, 191.0],
        "stderr": [1.0, 4.0, 3.0, 9.0], "weights_changed": [False, True, False, False],
    }
)  # fmt: skip
OVERLAPS = pd.DataFrame([[1.0, 0.75], [0.75, 1.0]], index=["wanda", "proxsparse"], columns=["wanda", "proxsparse"])
BY_LAYER = pd.DataFrame(
    [
        {
            "method": method,
            "name": f"{block}.{name}",
            "block": block,
            "output_error": error + block + more,
            "overlap": overlap - more,
        }
        for method, error, overlap in (("wanda", 0.2, 0.7), ("proxsparse", 0.1, 1.0))
        for block in (0, 1)
        for name, more in (("q", 0.0), ("k", 0.2))
    ]
)
TRIALS = pd.DataFrame(
    [
        {
            "trial": trial, "state": "complete" if trial < 2 else "pruned", "rung": rung, "steps": 20 << rung, "lambda1": lambda1,
            "learning_rate": rate, "perplexity": value, "stderr": 2.0, "seconds": 1.0,
        }
        for trial, rung, lambda1, rate, value in (
            (0, 0, 0.04, 1e-3, 80.0), (1, 0, 0.01, 1e-3, 70.0), (2, 0, 0.01, 1e-2, 95.0), (3, 0, 0.04, 1e-2, np.inf),
            (1, 1, 0.01, 1e-3, 60.0), (0, 1, 0.04, 1e-3, 65.0),
        )
    ]
)  # fmt: skip


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


def test_the_strength_to_come_is_dotted_up_to_the_last_step_and_the_title_says_where_it_ends():
    figure = figures.strength(STEPS, ahead={4: 0.1, 5: 0.2}, planned={1: 0.01, 5: 0.05})
    traces = {trace.name: trace for trace in figure.data}
    ahead, planned = traces["λ1 to come, by its ramp"], traces["λ1 as planned"]
    assert (list(ahead.x), list(ahead.y), ahead.line.dash) == ([4, 5], [0.1, 0.2], "dot")
    assert (list(planned.x), list(planned.y), planned.line.dash) == ([1, 5], [0.01, 0.05], "dot")
    assert figure.layout.title.text == "λ1 is 0.1 at step 4 and will be 0.2 at the last, 5"
    assert figures.strength(STEPS, ahead={3: 0.1}).data[-1].mode == "markers", "one point is no line"


def test_titles_state_what_was_found():
    titles = [
        figure.layout.title.text
        for figure in (
            figures.learning_curve(STEPS, PERPLEXITY),
            figures.composition(STEPS),
            figures.flips(STEPS, 1000),
        )
    ]
    assert titles[0] == "Perplexity under the learned mask, on 4 held-out windows: 180 at first, 90 at step 2; dense 25"
    assert titles[1] == "60.0% of the groups are 2:4 at step 3"
    assert titles[2] == "1.30% of the weights flipped between kept and dropped since the start"


@pytest.mark.parametrize("count", [1, 3])
def test_few_steps_are_marks_and_bars_and_a_longer_run_is_lines(count):
    few, many = STEPS.iloc[:count], pd.concat([STEPS, STEPS.assign(step=STEPS["step"] + 3)])
    course = figures.Course("one", few, PERPLEXITY)
    for figure in (
        figures.learning_curve(few, PERPLEXITY), figures.strength(few), figures.flips(few, 1000), figures.learning_curves([course]),
    ):  # fmt: skip
        over_steps = [trace for trace in figure.data if len(trace.x) == count and trace.name != "dense"]
        assert over_steps and all("markers" in trace.mode for trace in over_steps)
    bars = figures.composition(few)
    assert (
        {trace.type for trace in bars.data} == {"bar"}
        and bars.layout.barmode == "stack"
        and bars.layout.xaxis.dtick == 1
    )
    assert {trace.mode for trace in figures.flips(many, 1000).data} == {"lines"}
    assert {trace.stackgroup for trace in figures.composition(many).data} == {"groups"}


def test_before_the_first_step_charts_say_what_will_be_there():
    none = STEPS.iloc[:0]
    assert "drawn from its first measurement" in said(figures.learning_curve(none, PERPLEXITY.iloc[:0]))
    assert said(figures.learning_curve(none, PERPLEXITY)) == "The training loss is drawn from the first step on."
    for figure in (figures.composition(none), figures.flips(none, 1000), figures.layer_heatmap(LAYERS, None)):
        assert said(figure) == "Drawn from the first step on."
    still = STEPS.assign(flips=0, flips_from_start=0)
    assert said(figures.flips(still, 1000)) == "No weight has flipped yet."
    for figure in (
        figures.learning_curve(STEPS, PERPLEXITY), figures.composition(STEPS), figures.flips(STEPS, 1000),
        figures.layer_heatmap(LAYERS, RECORD),
    ):  # fmt: skip
        assert said(figure) == ""


def said(figure):
    return " ".join(note.text.replace("<br>", " ") for note in figure.layout.annotations)


def test_a_composition_takes_the_title_it_is_given():
    assert figures.composition(STEPS, "Of one layer").layout.title.text == "Of one layer"


def test_a_step_is_marked_in_each_chart_of_a_figure():
    upper, lower = figures.marked(figures.learning_curve(STEPS, PERPLEXITY), 2).layout.shapes
    assert (upper.x0, upper.x1, upper.xref, upper.yref) == (2, 2, "x", "y domain")
    assert (lower.x0, lower.x1, lower.xref, lower.yref) == (2, 2, "x2", "y2 domain")
    assert len(figures.marked(figures.strength(STEPS), 2).layout.shapes) == 1, "two scales in one chart"
    assert not figures.marked(figures.composition(STEPS), None).layout.shapes


def course(name, factor=1.0, **more):
    measured = PERPLEXITY.assign(perplexity=PERPLEXITY["perplexity"] * factor)
    return figures.Course(name, STEPS, measured, **more)


def test_runs_laid_over_each_other_have_a_colour_each():
    courses = [course("λ1 0.1", forked_at=2), course("λ1 0.2", 0.5), course("other text", 0.1, comparable=False)]
    figure = figures.learning_curves(courses)
    curves = {trace.name: trace for trace in figure.data if trace.showlegend is not False}
    assert list(curves["λ1 0.1"].y) == [180.0, 90.0] and list(curves["λ1 0.2"].y) == [90.0, 45.0]
    assert len({curve.line.color for curve in curves.values()}) == 4 and list(curves["dense"].y) == [25.0, 25.0]
    assert (curves["other text"].line.dash, curves["λ1 0.2"].line.dash) == ("dash", "solid")
    assert [trace.name for trace in figure.data][-3] == "λ1 0.1", (
        "the one in the foreground is drawn last, before dense"
    )
    assert figure.layout.title.text == "Lowest at its newest measurement: 45 at step 2, λ1 0.2", "what compares"
    assert {shape.x0 for shape in figure.layout.shapes} == {2}
    empty = pd.DataFrame()
    assert "Which run" in figures.learning_curves([figures.Course("new", empty, empty)]).layout.title.text
    assert figures.learning_curves([]).layout.title.text


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
        assert layout["meta"]["read"].endswith("."), "how to read it travels with it"
    for figure in drawn[:4]:
        assert all(axis.title.text for axis in figure.select_yaxes())


def test_perplexities_by_kind_best_at_the_top():
    figure = figures.perplexities(COMPARED)
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces) == ["dense", "original weights", "updated weights"]
    assert list(traces["original weights"].y) == ["proxsparse", "wanda"]
    assert list(traces["original weights"].x) == [90.5, 191.0]
    assert list(traces["original weights"].error_x.array) == [3.0, 9.0]
    assert list(traces["updated weights"].y) == ["sparsegpt-update"] and list(traces["dense"].x) == [25.0]
    assert list(figure.layout.yaxis.categoryarray) == ["wanda", "proxsparse", "sparsegpt-update", "dense"]
    assert figure.layout.xaxis.type == "log" and list(figure.layout.xaxis.tickvals) == [20, 50, 100, 200]


def test_what_lies_far_beyond_the_others_is_drawn_at_the_edge():
    far = pd.concat(
        [COMPARED, pd.DataFrame([{"method": "random", "perplexity": 2e9, "stderr": 1e9, "weights_changed": False}])]
    )
    far = far.assign(seconds=[np.nan, 40.0, 300.0, 30.0, 1.0]).reset_index(drop=True)
    drawn = (  # the second without the dense model, for which nothing was made
        (figures.perplexities(far), "x", "error_x", 90.5), (figures.against_perplexity(far), "y", "error_y", (90.5 + 191) / 2),
    )  # fmt: skip
    for figure, axis, error, median in drawn:
        trace = next(trace for trace in figure.data if trace.name == "original weights")
        assert max(trace[axis]) == 30 * median and list(trace.marker.symbol).count("circle") == len(trace[axis]) - 1
        assert np.isnan(np.array(trace[error].array, float)).sum() == 1, "no error bar at the edge"
        assert "2.0e9" in [text.strip() for text in (trace.hovertext if trace.hovertext is not None else trace.text)]


def test_overlaps_as_a_matrix_that_begins_at_chance():
    heatmap = figures.overlap_matrix(OVERLAPS, chance=0.25).data[0]
    assert np.array_equal(heatmap.z, OVERLAPS.to_numpy()) and (heatmap.zmin, heatmap.zmax) == (0.25, 1)
    assert list(heatmap.x) == list(heatmap.y) == ["wanda", "proxsparse"]
    assert heatmap.text.tolist() == [["", "75"], ["75", ""]]
    assert "25%" in figures.overlap_matrix(OVERLAPS, chance=0.25).layout.title.text


def test_a_single_mask_has_a_matrix_as_well():
    alone = figures.overlap_matrix(OVERLAPS.iloc[:1, :1]).data[0]
    assert alone.text.tolist() == [[""]] and alone.z.tolist() == [[1.0]]


def test_layers_by_block_are_means_over_its_layers():
    (overlap,) = figures.overlap_by_layer(BY_LAYER, "proxsparse").data
    assert overlap.name == "wanda" and list(overlap.x) == [0, 1] and list(overlap.y) == pytest.approx([0.6, 0.6])
    errors = {trace.name: list(trace.y) for trace in figures.output_errors(BY_LAYER).data}
    assert errors["wanda"] == pytest.approx([0.3, 1.3]) and errors["proxsparse"] == pytest.approx([0.2, 1.2])
    assert len({trace.line.color for trace in figures.output_errors(BY_LAYER).data}) == 2


def test_sweep_is_a_line_a_learning_rate_and_the_last_rung_stands_out():
    figure = figures.sweep(TRIALS)
    lines = {trace.name: trace for trace in figure.data}
    assert set(lines) == {
        "rate 0.001, 20 steps", "rate 0.01, 20 steps", "rate 0.001, 40 steps",
    }  # fmt: skip
    last, first, other = (lines[f"rate {name} steps"] for name in ("0.001, 40", "0.001, 20", "0.01, 20"))
    assert list(last.x) == [0.01, 0.04] and list(last.y) == [60.0, 65.0] and list(last.error_y.array) == [2.0, 2.0]
    assert list(first.y) == [70.0, 80.0], "in the order of λ1"
    assert list(other.y) == [95.0], "what diverged is not drawn"
    assert last.opacity == 1 > first.opacity and last.line.color == first.line.color != other.line.color
    assert figure.layout.xaxis.type == "log" and list(figure.layout.xaxis.tickvals) == [0.01, 0.04]
    with_zero = TRIALS.assign(lambda1=TRIALS["lambda1"].replace(0.04, 0.0))
    assert figures.sweep(with_zero).layout.xaxis.type != "log", "a logarithmic axis has no zero"


def test_methods_lie_at_their_cost_and_perplexity():
    table = COMPARED.assign(
        seconds=[np.nan, 40.0, 300.0, 0.0], output_error=[np.nan, 0.2, 0.24, 0.25], memory_GB=np.nan
    )
    figure = figures.against_perplexity(table, "seconds")
    points = {
        name: (x, y)
        for trace in figure.data
        if trace.mode == "markers"
        for name, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    }
    (names,) = (trace for trace in figure.data if trace.mode == "text")
    assert list(names.text) == ["sparsegpt-update", "proxsparse"], "by perplexity"
    gap = LINE * (figure.layout.yaxis.range[1] - figure.layout.yaxis.range[0])
    assert np.diff(np.log10(names.y)) == pytest.approx(gap), "the points lie closer together than names may"
    joined = [
        (trace.x[0], trace.y[0], trace.y[1])
        for trace in figure.data
        if trace.showlegend is False and trace.mode == "lines"
    ]
    assert joined == [(*points[name], place) for name, place in zip(names.text, names.y, strict=True)]
    assert points == {"sparsegpt-update": (40.0, 89.0), "proxsparse": (300.0, 90.5)}, (
        "what took no time has no place on a log axis"
    )
    base = next(trace for trace in figure.data if trace.name == "dense")
    assert list(base.y) == [25.0, 25.0] and list(base.x) == [40.0, 300.0] and figure.layout.xaxis.type == "log"
    errors = figures.against_perplexity(table, "output_error")
    assert (
        sum(len(trace.x) for trace in errors.data if trace.mode == "markers") == 3 and errors.layout.xaxis.type != "log"
    )
    for empty in (table[:0], table.drop(columns="memory_GB"), table):
        assert not figures.against_perplexity(empty, "memory_GB").data


def test_a_sweep_without_a_grid_is_points():
    scattered = TRIALS.assign(learning_rate=[1e-3, 2e-3, 3e-3, 4e-3, 2e-3, 1e-3])
    figure = figures.sweep(scattered)
    assert {trace.name: trace.mode for trace in figure.data} == {"20 steps": "markers", "40 steps": "markers"}
    assert list(figure.data[1].customdata) == [1, 0], "a click says which trial it was on"
    longer = scattered.assign(rung=2, steps=80)
    looks = [(trace.opacity, trace.marker.size) for trace in figures.sweep(pd.concat([scattered, longer])).data]
    assert len(looks) == 3 and looks == sorted(set(looks)) and looks[-1][0] == 1, (
        "each rung looks different, the last one the strongest"
    )


def test_all_trials_of_a_sweep_are_lines_through_parallel_axes():
    reached = TRIALS[TRIALS["rung"] == 1].sort_values("trial")
    figure = figures.sweep_trials(pd.concat([reached, TRIALS[2:4]]).reset_index(drop=True))
    lines = {trace.name: trace for trace in figure.data if trace.name}
    assert list(lines) == ["trial 2", "trial 3", "trial 0", "trial 1"], "the best on top"
    assert [label.replace("<br>", " ") for label in figure.layout.xaxis.ticktext] == [
        "λ1", "learning rate", "steps", "perplexity",
    ]  # fmt: skip
    assert list(lines["trial 1"].y) == [0.0, 0.0, 1.0, 0.0], "λ1 and rate the least, all steps, the least perplexity"
    assert list(lines["trial 0"].y)[:3] == [1.0, 0.0, 1.0] and 0 < lines["trial 0"].y[3] < 1
    assert lines["trial 3"].y[3] > 1 and "not finite" in lines["trial 3"].text[0]
    assert lines["trial 1"].line.width > lines["trial 0"].line.width
    assert lines["trial 2"].line.dash == "dot" != lines["trial 1"].line.dash
    assert all(set(trace.customdata) == {int(name.split()[1])} for name, trace in lines.items())
    notes = {(note.x, note.text): note.y for note in figure.layout.annotations}
    assert figure.layout.meta["table"]["rows"][0] == [0, "complete", 0.04, 1e-3, 40, 65.0], "its numbers, not heights"
    assert figure.layout.meta["table"]["rows"][3][-1] is None
    assert notes[0, "0.01"] == 0 and notes[0, "0.04"] == 1 and (3, "not finite") in notes and (2, "20") in notes


def test_the_axes_of_many_trials_have_few_labels():
    count = 40
    many = pd.DataFrame(
        {
            "trial": range(count), "state": "complete", "rung": 2, "steps": 80, "lambda1": np.geomspace(0.01, 1, count),
            "learning_rate": 1e-3, "perplexity": np.linspace(40, 90, count), "stderr": 1.0, "seconds": 1.0,
        }
    )  # fmt: skip
    notes = [note for note in figures.sweep_trials(many).layout.annotations if note.x == 0]
    assert 4 <= len(notes) <= 8 and {"0.01", "1"} <= {note.text for note in notes}
    heights = sorted(note.y for note in notes)
    assert min(np.diff(heights)) > 0.05, "they do not cover each other"


def test_comparisons_and_sweeps_are_drawn_before_they_have_values():
    empty = pd.DataFrame()
    drawn = [
        figures.perplexities(empty), figures.overlap_matrix(empty), figures.overlap_by_layer(empty, "proxsparse"),
        figures.output_errors(empty), figures.sweep(empty), figures.output_errors(BY_LAYER[:0]),
        figures.overlap_by_layer(BY_LAYER[:0], "wanda"), figures.sweep(TRIALS[:0]), figures.sweep(TRIALS[3:4]),
        figures.perplexities(COMPARED[:0]), figures.perplexities(COMPARED[:1].assign(stderr=np.nan)),
        figures.overlap_by_layer(BY_LAYER[BY_LAYER["method"] == "wanda"], "wanda"), figures.sweep_trials(empty),
        figures.sweep_trials(TRIALS[3:4]),
    ]  # fmt: skip
    for figure in drawn:
        layout = json.loads(figure.to_json())["layout"]
        assert layout["title"]["text"] and "http" not in json.dumps(layout)
    assert [len(figure.data) for figure in drawn] == [0] * 10 + [1, 0, 0, 1]
