"""The Compare screen without a browser: what is shown is what was measured, and what is clicked is what is done."""

import json
import runpy
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pandas as pd
import pytest
import test_address
import torch
from made_runs import add_result, made_comparison, made_run, set_state
from recorded_run import recorded_run
from test_masks_screen import array

from app import comparison_page
from app.screens.compare import chosen_in_table
from app.screens.compare_charts import chosen_pair
from app.screens.compare_form import SETTINGS
from app.screens.compare_row import STARTS_AT, learning_from
from app.screens.masks import OTHER_METHOD
from app.views.comparison import compared
from app.visitors import Rights
from proxsparse import CompareJob, Comparison, Mask, MaskSet, ProxSparseError, Run, list_runs
from proxsparse.config import METHODS
from proxsparse.files import read_json, write_json
from proxsparse.runs.readers.known_masks import method_masks

METHODS_SHOWN = ("magnitude", "wanda", "sparsegpt-update", "proxsparse")


class Visitor(test_address.Visitor):
    """Remembers the charts it was sent."""

    def __init__(self, root, **asked):
        self.charts = {}
        super().__init__(root, **asked)

    def take(self, sent):
        super().take(sent)
        self.charts |= sent


class Page(Visitor):
    """A visitor of the Compare screen."""

    def __init__(self, root, **asked):
        self.sent = {}
        super().__init__(root, screen="compare", **asked)

    def take(self, sent):
        super().take(sent)
        self.sent = sent

    @property
    def compare(self):
        return self.screen("compare")

    def text(self, name):
        return self.sent.get(getattr(self.compare, name))


@pytest.fixture
def run(tmp_path):
    return made_comparison(tmp_path / "compared", METHODS_SHOWN)


@pytest.fixture
def page(run):
    page = Page(run.path.parent, compare="compared")
    page.first = dict(page.sent)
    page.look()  # what was filled in has come back
    return page


def rows_of(html):
    body = html.split("<tbody>")[1]
    return [row.split("</td>")[0].removesuffix("</button>").split(">")[-1] for row in body.split("<tr ")[1:]]


def test_the_table_is_the_comparisons_and_sorts_by_what_was_clicked(page, run):
    table = Comparison(run).table()
    assert rows_of(page.first[page.compare.table]) == list(table["method"])
    for asked, column, ascending in (
        ("seconds", "seconds", True),
        ("-ratio", "ratio", False),
        ("-perplexity", "perplexity", False),
    ):
        page.chooses("compare", "sort", asked)
        assert rows_of(page.text("table")) == list(
            table.sort_values(column, ascending=ascending, kind="stable")["method"]
        )
        assert f"aria-sort='{'ascending' if ascending else 'descending'}'" in page.text("table")
    page.chooses("compare", "sort", "nonsense")
    assert rows_of(page.text("table")) == list(table["method"]), "an address may ask for anything"


@pytest.mark.parametrize("column", ("method", "perplexity", "over ours", "on other.txt", "over ours on other.txt", "weights",
                                    "seconds", "memory, GB", "kept as ours", "output error"))  # fmt: skip
def test_every_column_can_be_sorted_by(run, column):
    found = compared(run)
    assert column in found.shown and comparison_page.sort_key(column) in found.table
    assert f"data-sort='{comparison_page.sort_key(column)}'" in comparison_page.table(found, "overlap", None).replace(
        "data-sort='-overlap'", "data-sort='overlap'"
    )


def test_names_from_outside_are_escaped(tmp_path):
    run = made_comparison(tmp_path / "compared", ("magnitude",), prompts=("<b>Once",))
    html = comparison_page.completions(compared(run))
    assert "&lt;b&gt;Once" in html and "&lt;magnitude&gt;" in html and "<b>" not in html


def test_what_did_not_change_is_not_sent_again_and_what_was_measured_is(tmp_path, monkeypatch):
    monkeypatch.setattr("proxsparse.runs.directory.is_held", lambda path: True)
    run = made_comparison(tmp_path / "compared", METHODS_SHOWN, status="running", measured=2)
    page = Page(tmp_path, compare="compared")
    stages = page.sent[page.compare.banner]
    for name, word in (
        ("dense", "measured"),
        ("wanda", "measured"),
        ("sparsegpt-update", "working"),
        ("proxsparse", "waiting"),
    ):
        assert f"<li class='{word}'>{name} " in stages
    page.look()
    page.sent = {}
    page.look()
    assert page.sent == {}, "nothing happened"
    add_result(run, "sparsegpt-update", 3.0)
    set_state(run, "running", 4, doing="completing", steps=7)
    page.look()
    assert "<li class='measured'>sparsegpt-update " in page.text("banner") and "sparsegpt-update" in page.text("table")


def test_the_row_says_what_can_be_done_with_a_mask(tmp_path, monkeypatch):
    made_comparison(tmp_path / "compared", METHODS_SHOWN, masks=True)
    learned = made_run(tmp_path / "learned", steps=2)
    page = Page(tmp_path, compare="compared", method="wanda")
    row = page.compare.row
    assert "Open its mask, beside that of the recorded example" in page.sent[row.about], (
        "a run without history shows none"
    )
    assert "against=a+method+of+a+comparison&amp;othermask=compared%2Fwanda" in page.sent[row.about]
    assert page.sent[row.learn]["value"] == "Learn from its mask" and page.sent[row.learn]["interactive"]
    page.chooses("compare", "method", "sparsegpt-update")
    assert not page.sent[row.learn]["interactive"], "no run starts at its mask"
    page.chooses("compare", "method", "dense")
    assert page.sent[row.place]["visible"] is False
    made_comparison(tmp_path / "of-runs", ("magnitude",), runs=(str(learned.path),))
    add_result(Run(tmp_path / "of-runs"), "learned", 3.0)
    page = Page(tmp_path, compare="of-runs", method="learned")
    assert (
        "?run=learned&amp;screen=masks" in page.sent[row_of(page).about] and "fork it" in page.sent[row_of(page).about]
    )
    page = Page(tmp_path, compare="of-runs", method="magnitude")
    assert "Its mask is not on disk." in page.sent[row_of(page).about]


def row_of(page):
    return page.compare.row


@pytest.mark.parametrize("method", STARTS_AT)
def test_a_run_is_learned_from_the_mask_of_a_method(method):
    asked = CompareJob(corpus="bundled", steps=7, batch=2, seed=3, n=1, m=4, length=64, context=128, evaluate_on=())
    job = learning_from(asked, method)
    for name in ("corpus", "length", "context", "windows", "evaluate_on"):
        assert getattr(job, name) == getattr(asked, name)
    assert (job.learn.steps, job.learn.batch, job.learn.seed, job.learn.pattern) == (7, 2, 3, "1:4")
    assert job.learn.metric == ("weight" if method in ("magnitude", "proxsparse-paper") else "activation")
    assert job.learn.loss_at == ("soft" if method == "proxsparse-paper" else "masked")


def test_no_run_is_learned_from_other_masks(run):
    for method in {*METHODS} - {*STARTS_AT}:
        with pytest.raises(ProxSparseError, match=f"'{method}' is no start"):
            learning_from(CompareJob(), method)


def values(page, **changes):
    form = page.compare.form
    found = {name: getattr(form, name).value for name in ("model", "corpus", "prompts", "tasks")}
    found |= {name: getattr(form.contestants, name).value for name in ("methods", "runs", "masks", "evaluate_on")}
    fields = dict(zip(SETTINGS, (field.value for field in form.fields), strict=True))
    fields |= {name: value for name, value in changes.items() if name in fields}
    return [*(found | {name: value for name, value in changes.items() if name in found}).values(), *fields.values()]


def test_the_form_as_it_stands_is_the_default_comparison(page):
    assert page.compare.form.job(*values(page)) == CompareJob(evaluate_on=CompareJob().judged_on)


def test_bad_input_starts_nothing(page, run, tmp_path, monkeypatch):
    root = run.path.parent
    made_run(root / "learned", steps=2)
    before = len(list_runs(root))
    for changes, words in (
        ({"methods": []}, "There is nothing to compare"),
        ({"windows": "-1"}, "windows is -1"),
        ({"windows": ""}, "windows is empty"),
        ({"pattern": "4:4"}, "n is 4 and m is 4"),
        ({"model": "/etc"}, "not in a folder that may be read here"),
        ({"corpus": "/etc/passwd"}, "not in a folder that may be read here"),
        ({"evaluate_on": ["/etc/passwd"]}, "not in a folder that may be read here"),
        ({"masks": str(tmp_path)}, "not in a folder that may be read here"),
        ({"runs": ["../learned"]}, "There is no run named"),
        ({"runs": ["learned"]}, "Run learned has no masks yet"),
        ({"steps": "20000"}, "steps is 20,000 and a run may take 10,000 here"),
        ({"tasks": ["/tmp/task.yaml"]}, "are not all on the list"),
    ):
        with pytest.raises(ProxSparseError, match=words):
            page.compare.begin(*values(page, **changes))
    assert len(list_runs(root)) == before


def test_a_comparison_that_is_recorded_or_gone_is_not_changed(page, run):
    header = read_json(run.path / "run.json")
    write_json(run.path / "run.json", header | {"recorded": True})
    for act in (
        lambda: page.compare.send("resume", "compared"),
        lambda: page.compare.adding.grow("compared", ["ria"], [], "", []),
    ):
        with pytest.raises(ProxSparseError, match="is a recorded example"):
            act()
    page.look()
    assert not any(page.sent[button]["interactive"] for button in page.compare.buttons.values() if button in page.sent)
    assert not page.sent[page.compare.adding.part]["visible"]


def test_what_a_comparison_lacks_is_offered_to_be_added(page, run):
    made_run(run.path.parent / "learned", steps=2)
    page.look()
    part, contestants = page.compare.adding.part, page.compare.adding.contestants
    assert page.first[part]["visible"] is True and contestants.evaluate_on.value == contestants.methods.value == []
    assert [name for _, name in page.first[contestants.methods]["choices"]] == [
        name for name in METHODS if name not in METHODS_SHOWN
    ]
    assert page.sent[contestants.runs]["choices"] == ["learned"]
    with pytest.raises(ProxSparseError, match="There is no run named"):
        page.compare.adding.grow("nothing", ["ria"], [], "", [])


def test_a_read_only_page_starts_nothing(run):
    screen = Page(run.path.parent, compare="compared").compare
    object.__setattr__(screen.operator, "rights", Rights(read_only=True))
    for act in (
        lambda: screen.begin(*values(SimpleNamespace(compare=screen))),
        lambda: screen.adding.grow("compared", ["ria"], [], "", []),
        lambda: screen.send("stop", "compared"),
        lambda: screen.row.learn_from("compared", "wanda"),
    ):
        with pytest.raises(ProxSparseError, match="only shows runs"):
            act()


def test_a_comparison_belongs_to_who_started_it(run, monkeypatch):
    monkeypatch.setattr(Run, "start", lambda self: None)
    monkeypatch.setattr("app.visitors.Rights.owner", property(lambda self: "ann"))
    page = Page(run.path.parent, compare="compared")
    shown = page.compare.begin(*values(page, methods=["magnitude"]))
    assert Run(run.path.parent / shown["value"]).header()["owner"] == "ann"
    learned, _ = page.compare.row.learn_from("compared", "wanda")
    assert Run(run.path.parent / learned).header()["owner"] == "ann"


def test_clicks_say_what_was_clicked():
    event = gr.EventData(None, {"method": "wanda", "sort": None})
    assert chosen_in_table(event, "", "seconds") == ("wanda", "seconds")
    assert chosen_in_table(gr.EventData(None, {"method": None, "sort": "-ratio"}), "ria", "") == ("ria", "-ratio")
    assert chosen_pair(gr.EventData(None, {"x": "wanda", "y": "ria", "customdata": None})) == ("ria", "wanda")
    for broken in (None, {}, {"method": "wanda"}):
        with pytest.raises(ProxSparseError, match="does not say what was clicked"):
            chosen_in_table(gr.EventData(None, broken), "", "")


def test_the_mask_of_a_method_is_laid_beside_that_of_a_run(tmp_path):
    learned, *_ = recorded_run(tmp_path / "learned", steps=2)
    run, layers = made_comparison(tmp_path / "compared", ("magnitude", "wanda")), learned.layers()
    write_json(run.path / "layers.json", read_json(run.path / "layers.json") | {"layers": layers.to_dict("records")})
    assert compared(run).masks() == []
    torch.manual_seed(0)
    shapes = layers.set_index("name")[["rows", "columns"]].itertuples()
    masks = MaskSet({name: Mask.project(torch.randn(rows, columns)) for name, rows, columns in shapes})
    masks.save(run.path / "results" / "wanda" / "masks.safetensors")
    layer = layers["name"][0]
    assert (method_masks(Comparison(run), "wanda")(layer) == masks[layer].dense().numpy()).all()
    for method, name in (("wanda", "nothing"), ("magnitude", layer), ("../wanda", layer), ("dense", layer)):
        with pytest.raises(ProxSparseError, match=r"keeps no mask of|compares no"):
            method_masks(Comparison(run), method)(name)

    asked = {
        "run": "learned",
        "screen": "masks",
        "against": OTHER_METHOD,
        "othermask": "compared/wanda",
        "layer": layer,
    }
    visitor = Visitor(tmp_path, **asked)
    screen = visitor.screen("masks")
    assert visitor.values[screen.other_method] == "compared/wanda"
    differ = (masks[layer].dense().numpy() != learned.mask(layer, 2)).mean()
    assert f"that of wanda (compared) differ in {differ:.1%} of the layer" in json.loads(visitor.charts[screen.charts["layer"]])[
        "layout"]["title"]["text"]  # fmt: skip
    drawn = json.loads(visitor.charts[screen.charts["map"]])
    cells = dict(zip(np.ravel(drawn["data"][0]["customdata"]), array(drawn["data"][0]["z"]).ravel(), strict=True))
    for name in layers["name"]:
        mine = learned.mask(name, 2)
        assert cells[name] == pytest.approx(1 - (mine & masks[name].dense().numpy()).sum() / mine.sum())
    assert "differs most from wanda (compared)" in drawn["layout"]["title"]["text"]


def test_a_recorded_comparison_says_the_same_without_masks_and_places(tmp_path):
    text = tmp_path / "far" / "other.txt"
    text.parent.mkdir()
    text.write_text("text")
    run = made_comparison(tmp_path / "compared", METHODS_SHOWN, masks=True, evaluate_on=(str(text),))
    set_state(run, "done", 5, steps=7, elapsed=10.0, device="cpu")
    runpy.run_path("assets/record_comparison.py")["record"](run, tmp_path / "recorded")
    recorded = Run(tmp_path / "recorded")
    pd.testing.assert_frame_equal(Comparison(recorded).table(), Comparison(run).table())
    pd.testing.assert_frame_equal(Comparison(recorded).layers(), Comparison(run).layers())
    assert compared(recorded).masks() == [] and recorded.header()["recorded"]
    assert all(str(tmp_path) not in path.read_text() for path in recorded.path.rglob("*.json"))
    page = Page(tmp_path, compare="recorded")
    assert "A recorded comparison" in page.sent[page.compare.banner]


@pytest.mark.parametrize("measured", [-1, 0])
def test_a_comparison_that_has_measured_nothing_yet_is_shown(tmp_path, measured):
    """Before the dense model was measured, and before the first method was."""
    made_comparison(tmp_path / "begun", METHODS_SHOWN, measured=measured, status="running")
    page = Page(tmp_path, compare="begun", method="magnitude")
    assert page.text("banner") and not page.sent[page.compare.row.place]["visible"]
