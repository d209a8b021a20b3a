"""What the Try it screen sends to a page, and what it leaves for the worker; no worker is started here."""

import json

import pandas as pd
import pytest
from made_runs import made_run, set_state
from test_screens import Page

from app import answers
from app.operator import EXAMPLE_ID
from proxsparse import ProxSparseError, Run, figures
from proxsparse.files import append_record
from proxsparse.runs import Probe
from proxsparse.runs.requests import PromptRequest, RankingRequest, WhatIfRequest, as_json

LAYER = "layers.0.q_proj"


@pytest.fixture
def run(tmp_path):
    return made_run(tmp_path / "first", steps=2)


@pytest.fixture
def page(run, monkeypatch):
    monkeypatch.setattr("proxsparse.runs.launch.start", lambda directory: None)
    page = Page(run.path.parent, run.id, "try")
    page.tick()
    page.tick()
    return page


def leave_answer(page, request, *lines, id=f"{5:020d}-00000000"):
    probe = page.screen.probe(page.values[page.shell.id])
    if probe.directory is None:
        Run.create_kind("probe", {"run": "..", "idle": 1.0}, probe.path)
    for line in ({"request": as_json(request)}, *lines):
        append_record(probe.path / "answers" / f"{id}.jsonl", line) if (probe.path / "answers").is_dir() else None
    return f"{page.values[page.shell.id]}:{id}"


@pytest.fixture
def answered(page, run):
    """A prompt that two models have gone on with."""
    Run.create_kind("probe", {"run": "..", "idle": 1.0}, run.path / "probe")
    (run.path / "probe" / "answers").mkdir()
    rows = [{"token": place, "text": f" <b>{place}", "probability": 0.1, "reference": 0.1} for place in range(10)]
    lines = [
        line
        for name in ("dense", "wanda")
        for line in ({"model": name, "next": rows, "divergence": 0.5}, {"model": name, "piece": " <i>and"})
    ]
    return leave_answer(page, PromptRequest(prompt="<script>alert(1)</script>"), *lines, {"done": True})


def test_a_tick_in_which_nothing_happened_sends_nothing(page):
    assert page.tick() == set()


def test_a_page_shows_what_it_asked_and_no_other_does(page, answered):
    assert page.tick() == set(), "others' answers are not shown"
    page.values[page.screen.own_prompt] = answered
    assert {page.screen.question, *page.screen.cards.values(), *page.screen.bars.values()} <= page.tick()
    sent = page.shell.show(page.values | {page.shell.seen: {}})
    assert "&lt;script&gt;" in sent[page.screen.question] and "<script>" not in sent[page.screen.question]
    assert "&lt;i&gt;and" in sent[page.screen.cards["wanda"]]
    assert "no learned masks on disk" in sent[page.screen.cards["learned"]]
    figure = json.loads(sent[page.screen.bars["wanda"]])
    assert figure["data"][0]["type"] == "bar" and sent[page.screen.bars["learned"]] == ""
    assert page.tick() == set()


@pytest.mark.parametrize("own", ["first:../../x", "first:", ":", "other:1", "first:00000000000000000001-00000000"])
def test_an_address_may_name_any_answer(page, own):
    for field in (page.screen.own_prompt, page.screen.own_changes, page.screen.own_ranking):
        page.values[field] = own
    assert page.tick() <= {page.screen.stop, page.shell.address}


def test_requests_are_left_for_the_worker_and_bad_ones_are_refused(page, run):
    own = page.screen.asked_prompt(run.id, "Once", "last", 8)
    probe = Probe(run)
    assert probe.waiting() == [own.split(":")[1]]
    changes = page.screen.asked_change(run.id, "magnitude", "last", LAYER, "group", 3, 2, [0, 3], 4, "")
    changes = page.screen.asked_change(run.id, "magnitude", "last", LAYER, "dense", 3, 2, [0, 3], 4, changes)
    first, second = (probe.answer(line.split(":")[1]).request for line in reversed(changes.split("\n")))
    assert first == WhatIfRequest(base="magnitude", layer=LAYER, row=3, group=2, kept=(0, 3), windows=4)
    assert second == WhatIfRequest(base="magnitude", layer=LAYER, to="dense", windows=4)
    for act, words in (
        (lambda: page.screen.asked_prompt(run.id, " ", "last", 8), "prompt is empty"),
        (lambda: page.screen.asked_prompt(run.id, "a" * 3000, "last", 8), "3,000 characters"),
        (lambda: page.screen.asked_prompt(run.id, "a", "1", 8), "no learned masks on disk"),
        (lambda: page.screen.asked_prompt(run.id, "a", "../1", 8), "choose one from the list"),
        (lambda: page.screen.asked_prompt("../first", "a", "last", 8), "no run named"),
        (lambda: page.screen.asked_ranking(run.id, "learned", "last", 4), "no learned masks on disk"),
        (lambda: page.screen.asked_ranking(run.id, "dense", "last", 4), "no masks that could cost"),
    ):
        with pytest.raises(ProxSparseError, match=words):
            act()
    assert len(probe.waiting()) == 3


def test_a_run_that_is_learning_can_be_asked_and_the_page_says_what_that_costs(page, run, monkeypatch):
    assert "is learning right now" not in page.shell.show(page.values | {page.shell.seen: {}})[page.screen.worker]
    monkeypatch.setattr(
        "proxsparse.runs.directory.is_held", lambda path: path.parent == run.path
    )  # as if its worker lived
    set_state(run, "running", 2)
    assert "is learning right now" in page.shell.show(page.values | {page.shell.seen: {}})[page.screen.worker]
    assert page.screen.asked_prompt(run.id, "Once", "last", 8).startswith("first:")


def test_the_example_s_worker_lies_in_the_operator_s_folder(page, run):
    own = page.screen.asked_prompt(EXAMPLE_ID, "Once", "last", 8)
    assert own.startswith("example:")
    folder = run.path.parent / ".probes" / EXAMPLE_ID
    assert (folder / "run.json").is_file() and Run(folder).header()["run"].endswith("example-run")
    assert [row.id for row in page.shell.listing.rows()] == [run.id], "it is listed nowhere"


def test_a_first_look_at_the_example_shows_what_is_recorded(page):
    page.values[page.shell.id] = EXAMPLE_ID
    sent = page.shell.show(page.values | {page.shell.seen: {}})
    assert "recorded" in sent[page.screen.question]
    for name, card in page.screen.cards.items():
        assert "class='text'" in sent[card], name
        assert sent[page.screen.bars[name]]
    assert "dense, and under magnitude and Wanda masks" in sent[page.screen.worker], "what can be asked of it"
    bases = [value for _, value in sent[page.screen.base]["choices"]]
    assert bases == ["wanda", "magnitude", "dense"] and sent[page.screen.base]["value"] == "magnitude"
    assert answers.RECORDED in sent[page.screen.changes] and "is dense again" in sent[page.screen.changes]
    assert answers.RECORDED in sent[page.screen.ranking] and "24 of 210 layers measured" in sent[page.screen.ranking]


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0.00012345, 0.000023, "+0.000123 ± 0.000023"),
        (-1.5, 0.25, "-1.50 ± 0.25"),
        (12.0, 30.0, "+12 ± 30"),
        (0.1, None, "+0.1"),
    ],
)
def test_a_change_has_the_digits_that_its_error_allows(value, error, words):
    assert answers.signed(value, error) == words


def test_what_is_called_better_lies_beyond_two_standard_errors():
    assert [answers.verdict(*pair) for pair in ((-3.0, 1.0), (3.0, 1.0), (1.9, 1.0), (0.0, 0.0))] == [
        "better", "worse", "within 2 standard errors of none", "no change",
    ]  # fmt: skip


def test_the_figures_say_what_the_tables_say():
    table = pd.DataFrame({"text": ["a", " b"], "probability": [0.6, 0.1], "reference": [0.2, 0.3]})
    figure = figures.next_tokens(table, "wanda", most=0.9)
    assert list(figure.data[0].x) == [0.1, 0.6] and list(figure.data[1].x) == [0.3, 0.2]
    assert figure.layout.yaxis.ticktext == ("␣b", "a") and figure.layout.title.text == "Next: a, 60%"
    costs = pd.DataFrame(
        {
            "layer": ["m.layers.3.mlp.up", "m.layers.0.q"],
            "estimate": [-0.2, -0.3],
            "measured": [-0.5, None],
            "measured_stderr": [0.1, None],
        }
    )
    figure = figures.layer_costs(costs)
    assert figure.layout.title.text == (
        "The mask of block 3, mlp.up costs most: change of the loss when a layer is dense again (measured)"
    )
    assert list(figure.data[1].x)[-1] == -0.5 and figure.data[1].error_x.array[-1] == 0.1


def test_a_ranking_that_is_stopped_keeps_what_it_has_measured(page, answered, run):
    request = RankingRequest(base="magnitude", windows=2)
    id = f"{7:020d}-00000000"
    own = leave_answer(
        page, request, {"estimates": [[LAYER, -0.2, 0.01], ["layers.1.q_proj", -0.1, 0.01]]},
        {"layer": LAYER, "difference": -0.4, "stderr": 0.05}, {"stopped": True}, id=id,
    )  # fmt: skip
    page.values[page.screen.own_ranking] = own
    sent = page.shell.show(page.values | {page.shell.seen: {}})
    assert "1 of 2 layers measured" in sent[page.screen.ranking] and "Stopped on request" in sent[page.screen.ranking]
    assert "-0.400 ± 0.050" in sent[page.screen.ranking]
