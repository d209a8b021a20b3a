"""The Masks screen: what it draws are the masks that the learner had, and a click leads from layer to group to number."""

import base64
import json
from types import SimpleNamespace

import gradio as gr
import numpy as np
import plotly.graph_objects as go
import pytest
from explorer import served
from playwright.sync_api import expect
from recorded_run import recorded_run, unpacked
from test_address import Visitor
from tiny_models import tiny_model

from app.screens.masks import picked_group, picked_layer, picked_step
from app.views.masks import masks_of
from proxsparse import ProxSparseError, magnitude
from proxsparse.figures.tiles import AGAINST

STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recorded")


@pytest.fixture(scope="module")
def recorded(folder):
    return recorded_run(folder / "learned", steps=STEPS)


def array(value):
    """What plotly wrote as text or as a list."""
    if not isinstance(value, dict):
        return np.array(value)
    shape = [int(size) for size in str(value.get("shape", "-1")).split(",")]
    return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).reshape(shape)


class Page(Visitor):
    """A visitor of the Masks screen."""

    @property
    def masks(self):
        return self.screen("masks")

    def take(self, sent):
        super().take(sent)
        self.charts = getattr(self, "charts", {})
        if hasattr(self.masks, "charts"):
            drawn = {name: sent[chart] for name, chart in self.masks.charts.items() if chart in sent}
            self.charts |= drawn
            self.drawn = set(drawn)
            self.said = sent.get(self.masks.note, getattr(self, "said", ""))

    def choose(self, **values):
        for name, value in values.items():
            self.values[getattr(self.masks, name)] = value
        self.look()

    def chart(self, name):
        return go.Figure(json.loads(self.charts[name]))

    def cells(self, name):
        return array(self.chart(name).data[0].z)


@pytest.fixture
def page(folder, recorded):
    return Page(folder, run="learned", screen="masks")


def inside(masks, layer):
    row, column, rows, columns = masks.history.tile_position(layer)
    return np.s_[row : row + rows, column : column + columns]


def test_the_tile_is_the_mask_of_the_step_shown(page, recorded):
    run, masks = recorded
    layers, view = run.history().layers, masks_of(run)
    for layer in (layers[0], layers[-1]):
        for step in (0, 3, STEPS):
            page.choose(layer=layer, step=step)
            assert (page.cells("tile") == masks[step][layer][inside(view, layer)]).all(), (layer, step)
            assert f"Step {step}:" in page.chart("tile").layout.title.text


def test_the_colours_against_magnitude_agree_with_masks_computed_independently(page, recorded):
    run, masks = recorded
    others, view = unpacked(magnitude(tiny_model("llama")).masks), masks_of(run)
    layer = run.history().layers[1]
    page.choose(layer=layer, coloring="against another mask", against="magnitude", step=STEPS)
    mine, other = masks[STEPS][layer], others[layer]
    assert (page.cells("tile") == (2 * mine + other)[inside(view, layer)]).all()
    assert [name.split(" (")[0] for name in (trace.name for trace in page.chart("tile").data[1:5])] == [
        name for name, _ in AGAINST
    ]
    differing = {name: 1 - (masks[STEPS][name] & others[name]).sum() / others[name].sum() for name in others}
    shown = page.chart("map").data[0]
    for cell, name in zip(array(shown.z).flat, array(shown.customdata).flat, strict=True):
        assert cell == pytest.approx(differing[name]), name
    assert f"{(mine != other).mean():.1%}" in page.chart("layer").layout.title.text


def test_another_step_and_another_run_can_be_compared_with(page, recorded, folder):
    run, masks = recorded
    _, others = recorded_run(folder / "other", steps=2, lambda1=0.5, seed=3)
    layer, view = run.history().layers[0], masks_of(run)
    page.choose(layer=layer, coloring="against another mask", against="another step", other_step=0, step=STEPS)
    assert (page.cells("tile") == (2 * masks[STEPS][layer] + masks[0][layer])[inside(view, layer)]).all()
    assert_map(page, masks[STEPS], masks[0])
    page.choose(against="another run")
    assert page.values[page.masks.other_run] == "other"
    page.choose(other_step=2)
    assert (page.cells("tile") == (2 * masks[STEPS][layer] + others[2][layer])[inside(view, layer)]).all()
    assert_map(page, masks[STEPS], others[2])


def test_while_a_run_needs_the_cores_the_map_knows_what_it_records_itself(page, recorded, monkeypatch):
    _, masks = recorded
    monkeypatch.setattr("app.views.run.RunSnapshot.is_active", True)
    page.choose(against="another step", other_step=2, step=STEPS)
    assert "differs most from the start" in page.chart("map").layout.title.text
    assert_map(page, masks[STEPS], masks[0])


def assert_map(page, mine, other):
    """The map shows how many of the kept weights the other mask drops."""
    names = np.array(page.chart("map").data[0].customdata)
    expected = [[1 - (mine[name] & other[name]).sum() / mine[name].sum() for name in row] for row in names]
    assert np.allclose(page.cells("map"), expected)


def test_a_run_of_another_model_is_refused_in_a_sentence(page, folder):
    recorded_run(folder / "gpt", family="gpt2", steps=1)
    page.choose(against="another run", other_run="gpt")
    assert "choose one of history.layers" in page.said or "has another model" in page.said
    refused = page.said
    page.look()
    page.look()
    assert page.said == refused, "it stays as long as it holds"
    page.choose(against="magnitude")
    assert page.said == ""


def test_a_click_leads_from_the_map_to_a_layer_to_a_group(page, recorded):
    run, _ = recorded
    names = array(page.chart("map").data[0].customdata)
    layer = picked_layer(SimpleNamespace(customdata=names[2, 1]))
    page.choose(layer=layer)
    row, column, rows, columns = run.history().tile_position(layer)
    shown = page.chart("tile").data[0]
    at = (rows - 1, columns - 1)
    chosen = picked_group(SimpleNamespace(y=array(shown.y)[at[0]], customdata=array(shown.customdata)[at]))
    assert chosen == f"{row + rows - 1}.{(column + columns - 1) // 4}"
    page.choose(group=chosen)
    tile, m = run.tile(layer), 4
    group = tile[(tile["row"] == row + rows - 1) & (tile["column"] // m == (column + columns - 1) // m)]
    end = group[(group["step"] == STEPS) & (group["half"] == "prox")].sort_values("column")["weight"].abs()
    drawn = [
        array(trace.y)[-2] for trace in page.chart("group").data if trace.name.startswith("weight") and trace.showlegend
    ]
    assert drawn == pytest.approx(end.to_list())
    assert picked_step(SimpleNamespace(x=2.5)) == 3


@pytest.mark.parametrize(
    "said", [None, {}, {"x": None, "y": [], "customdata": {}}, {"x": "nan", "y": "a", "customdata": 1e400}]
)
@pytest.mark.parametrize("picked", [picked_group, picked_step])
def test_a_click_that_says_nothing_is_one_sentence(picked, said):
    with pytest.raises(ProxSparseError, match="click it again"):
        picked(gr.EventData(None, said))


def test_nothing_is_drawn_again_when_nothing_changed(page):
    page.choose(step=2)
    page.drawn = set()
    page.look()
    assert page.drawn == set()
    page.choose(coloring="pattern")
    assert page.drawn == {"tile"}


def test_playing_goes_from_step_to_step_and_stops_at_the_end(page):
    at = 0
    for _ in range(STEPS):
        at, clock, label = page.masks.advance("learned", at)
    assert at == STEPS and clock["active"] is False and label == "Play"


def test_the_address_reproduces_the_view(page, folder, recorded):
    layer = recorded[0].history().layers[3]
    page.choose(layer=layer, step=2, coloring="pattern", against="Wanda", group="")
    page.choose(against="the start")
    asked = {
        "run": "learned",
        "screen": "masks",
        "layer": layer,
        "step": "2",
        "against": "the start",
        "colour": "pattern",
    }
    again = Page(folder, **asked)
    assert again.charts.keys() == page.charts.keys()
    for name in again.charts:
        assert json.loads(again.charts[name]) == json.loads(page.charts[name]), name


def test_a_run_without_masks_says_so(folder, recorded):
    from made_runs import made_run

    made_run(folder / "old", steps=2)
    page = Page(folder, run="old", screen="masks")
    assert "recorded no masks" in page.said


@pytest.mark.browser
def test_in_a_browser_a_layer_and_a_group_are_found_by_clicking(browser, folder, recorded):
    run, _ = recorded
    with served(folder) as address:
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{address}/?run=learned&screen=masks")
        tile = page.locator("#chart-masks-tile .live-plot")
        expect(tile.locator(".heatmaplayer image")).to_have_count(1)
        tile.evaluate("node => { node.mark = 'the same node' }")
        page.locator("#chart-masks-map .nsewdrag").click(position={"x": 5, "y": 5})
        first = run.history().layers[0]
        expect(page.locator("#masks-facts")).to_contain_text(first)
        page.locator("#masks-step input[type=range]").focus()
        title = page.locator("#chart-masks-tile .chart-title")
        expect(title).to_contain_text(f"Step {STEPS}")
        page.locator("h1").click()
        page.keyboard.press("ArrowLeft")
        expect(title).to_contain_text(f"Step {STEPS - 1}")
        box = tile.locator(".nsewdrag").bounding_box()
        tile.locator(".nsewdrag").click(position={"x": box["width"] - 4, "y": box["height"] - 4})
        row, column, rows, columns = run.history().tile_position(first)
        name = f"Row {row + rows - 1}, group {(column + columns - 1) // 4}"
        expect(page.locator("#chart-masks-group .chart-title")).to_contain_text(name)
        assert tile.evaluate("node => node.mark") == "the same node"
        page.wait_for_url(lambda url: "group=" in url and f"step={STEPS - 1}" in url, timeout=120_000)
        link = page.url
        second = browser.new_page(viewport={"width": 1440, "height": 1000})
        second.goto(link)
        expect(second.locator("#chart-masks-group .chart-title")).to_contain_text(name)
        page.go_back()
        expect(page.locator("#chart-masks-group .chart-title")).not_to_contain_text(name)
        assert problems == []
