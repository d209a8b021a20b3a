"""The Learn screen without a browser: branches, λ1 to come, tiles, and what the form differs in."""

import json

import gradio as gr
import pytest
from made_runs import add_steps, made_run, measurement, set_state
from test_screens import Page

from app import status
from app.operator import Operator
from app.screens.learn_form import LearnForm
from app.settings_form import SETTINGS, differences, nearest_preset, values_of
from app.views.ahead import planned_strengths, strengths_to_come
from app.views.branches import family, names
from app.views.listing import Listing
from app.views.run import snapshot_of
from proxsparse import PRESETS, LearnConfig, LearnJob, ProxSparseError, Run
from proxsparse.config import METHODS, PRESET_NOTES
from proxsparse.files import append_record, read_json, write_json


def forked(parent, name, step, **learn):
    """As a fork would lie beside its parent."""
    run = made_run(parent.path.parent / name, steps=step + 2, total=10)
    header = read_json(run.path / "run.json")
    header["job"]["learn"] |= learn
    write_json(run.path / "run.json", header | {"parent": {"run": parent.id, "step": step, "changed": sorted(learn)}})
    return run


@pytest.fixture
def parent(tmp_path):
    return made_run(tmp_path / "parent", steps=5, total=10)


@pytest.fixture
def child(parent):
    return forked(parent, "child", 4, lambda1=0.05)


# Branches


def test_a_family_is_what_a_run_comes_from_and_what_came_from_it(parent, child, tmp_path):
    grandchild = forked(child, "grandchild", 5)
    made_run(tmp_path / "stranger", steps=1)
    rows = Listing(tmp_path).rows()
    assert family("child", rows) == ["parent", "grandchild"]
    assert family(grandchild.id, rows) == ["child", "parent"] and family("parent", rows) == ["child"]
    assert family("stranger", rows) == []


def test_runs_are_named_by_what_they_differ_in(parent, child):
    append_record(
        parent.path / "events.jsonl", {"time": 1.0, "step": 3, "event": "lambda1", "lambda1": 0.7, "phase": "prox"}
    )
    both = [snapshot_of(child), snapshot_of(parent)]
    assert names(both) == ["λ1 0.05, from step 4 (shown)", "λ1 0.2, λ1 set to 0.7 after step 3"]
    twin = made_run(parent.path.parent / "twin", steps=1, total=10)
    assert names([snapshot_of(twin), snapshot_of(made_run(twin.path.parent / "other", steps=1, total=10))]) == [
        "twin (shown)", "other",
    ]  # fmt: skip


def curve(page):
    return json.loads(page.values_sent[page.screen.parts["curve"]])


def ticked(page):
    """What a tick sent, by component."""
    sent = page.shell.show(dict(page.values))
    page.values_sent = {} if sent == gr.skip() else sent
    page.values[page.shell.seen] = page.values_sent.get(page.shell.seen, page.values[page.shell.seen])
    return page.values_sent


def test_the_curve_of_a_fork_comes_with_its_parents_and_goes_on_when_they_do(parent, child):
    page = Page(parent.path.parent, "child")
    sent = ticked(page)
    others = page.screen.branches.others
    assert sent[others]["value"] == ["parent"] and sent[others]["choices"][0] == "parent"
    assert {trace["name"] for trace in curve(page)["data"]} == {"λ1 0.05, from step 4 (shown)", "λ1 0.2", "dense"}

    page.values[others] = ["parent"]  # it has come back from the browser
    add_steps(parent, 6, 6)
    set_state(parent, "done", 6)
    sent = ticked(page)
    assert page.screen.parts["curve"] in sent and page.screen.parts["composition"] not in sent
    page.values[others] = []
    ticked(page)
    assert {trace["name"] for trace in curve(page)["data"]} == {
        "learned mask",
        "magnitude mask",
        "dense",
        "training loss",
    }
    assert ticked(page) == {}


def test_a_run_that_is_deleted_leaves_the_comparison(parent, child):
    import shutil

    page = Page(parent.path.parent, "child")
    ticked(page)
    page.values[page.screen.branches.others] = ["parent"]
    shutil.rmtree(parent.path)
    sent = ticked(page)
    assert sent[page.screen.branches.others]["value"] == []
    assert "learned mask" in {trace["name"] for trace in curve(page)["data"]}


def test_any_checkpoint_can_be_forked_and_the_choice_is_kept(parent):
    (parent.path / "checkpoints").mkdir()
    for step in (2, 4):
        (parent.path / "checkpoints" / f"step-{step:06d}.safetensors").touch()
    page = Page(parent.path.parent, "parent")
    step = page.screen.branches.step
    assert ticked(page)[step] == {"choices": ["2", "4"], "value": "4", "__type__": "update"}
    page.values[step] = "2"
    (parent.path / "checkpoints" / "step-000006.safetensors").touch()
    assert "value" not in ticked(page)[step], "what somebody chose stays chosen"
    (parent.path / "checkpoints" / "step-000002.safetensors").unlink()
    assert ticked(page)[step]["value"] == "6", "until it is gone"


# λ1 to come


def test_the_strength_to_come_follows_the_ramp_and_what_was_asked_for(parent, monkeypatch):
    monkeypatch.setattr("proxsparse.runs.directory.is_held", lambda path: True)
    set_state(parent, "running", 7, lambda1=0.1, growth_left=4.0)
    assert strengths_to_come(snapshot_of(parent)) == pytest.approx({8: 0.1, 9: 0.2, 10: 0.4})
    page = Page(parent.path.parent, "parent")
    ticked(page)
    page.screen.set_strength("parent", 0.01)  # the worker has not heard of it
    sent = ticked(page)
    assert page.screen.parts["lambda_curve"] in sent and page.screen.parts["composition"] not in sent
    figure = json.loads(sent[page.screen.parts["lambda_curve"]])
    assert figure["layout"]["title"]["text"] == "λ1 is 0.01 at step 8 and will be 0.04 at the last, 10"
    append_record(
        parent.path / "events.jsonl", {"time": 1.0, "step": 7, "event": "lambda1", "lambda1": 0.01, "phase": "prox"}
    )
    planned = planned_strengths(snapshot_of(parent))
    assert planned[1] == pytest.approx(0.2 / 1000) and planned[10] == pytest.approx(0.2)


def test_as_the_ramp_is_followed_the_end_stays_and_only_steps_draw_the_chart(parent, monkeypatch):
    monkeypatch.setattr("proxsparse.runs.directory.is_held", lambda path: True)
    set_state(parent, "running", 5, lambda1=0.1, growth_left=16.0)
    page = Page(parent.path.parent, "parent")
    ticked(page)
    set_state(parent, "running", 6, lambda1=0.2, growth_left=8.0)  # the step's record is still to come
    assert page.screen.parts["lambda_curve"] not in ticked(page)


def test_which_of_two_strengths_is_of_the_run_and_which_of_the_next_one(parent, monkeypatch):
    page = Page(parent.path.parent, "parent")
    slider = page.screen.parts["strength"]
    assert slider.label == "Set λ1 of the run shown"
    assert "only while it is at work" in ticked(page)[slider]["info"], "it is done"
    monkeypatch.setattr("proxsparse.runs.directory.is_held", lambda path: True)
    set_state(parent, "running", 5, lambda1=0.1, growth_left=16.0)
    sent = ticked(page)
    assert sent[slider]["interactive"] and "takes effect at the next half step" in sent[slider]["info"]
    set_state(parent, "running", 6, lambda1=0.2, growth_left=8.0)
    assert slider not in ticked(page), "where a hand may be nothing is moved"


def test_nothing_is_foreseen_where_it_is_not_known_how_far_a_fork_had_grown(child):
    set_state(child, "stopped", 4)
    assert strengths_to_come(snapshot_of(child)) == {} == planned_strengths(snapshot_of(child))


def test_a_pace_that_somebody_else_set_is_shown(parent, monkeypatch):
    monkeypatch.setattr("proxsparse.runs.directory.is_held", lambda path: True)
    set_state(parent, "running", 5, delay=7.0)
    page = Page(parent.path.parent, "parent")
    sent = ticked(page)[page.screen.parts["delay"]]
    assert sent["value"] == 7.0 and ("every 7 s", 7.0) in sent["choices"] and sent["interactive"]
    page.screen.set_delay("parent", 3.0)
    assert [command for _, command in parent.commands()] == [{"command": "delay", "seconds": 3.0}]


# Tiles


def test_tiles_show_the_final_measurement_once_it_is_of_this_mask(parent):
    assert "live: 2 held-out windows at step 0" in status.tiles(snapshot_of(parent))
    for mask in ("dense", "magnitude", "learned"):
        append_record(
            parent.path / "perplexity.jsonl", measurement(5, mask, "final") | {"windows": 40, "perplexity": 77.0}
        )
    tiles = status.tiles(snapshot_of(parent))
    assert "final: 40 held-out windows, ± 1 standard error" in tiles and tiles.count("77.0") == 3
    add_steps(parent, 6, 6)  # a fork with more steps carries its parent's final measurement along
    assert "live: 2 held-out windows" in status.tiles(snapshot_of(parent))


def judged(step, mask, text, losses):
    return {"step": step, "mask": mask, "text": text, "sha256": text, "context": 512, "losses": losses, "seconds": 1.0}


def test_a_tile_and_a_row_for_each_further_text_once_the_mask_as_it_is_was_judged(parent):
    for mask in ("dense", "magnitude", "learned"):
        append_record(parent.path / "perplexity.jsonl", measurement(5, mask, "final"))
    record = parent.path / "judged.jsonl"
    for text in ("bundled-other", "<b>mine.txt"):
        append_record(record, judged(5, "dense", text, [3.6, 3.8]))
    assert "on text of another kind" not in status.tiles(snapshot_of(parent)), "half of it is not known yet"
    for text in ("bundled-other", "<b>mine.txt"):
        append_record(record, judged(5, "learned", text, [4.4, 4.8]))
    tiles, result = status.tiles(snapshot_of(parent)), status.result(snapshot_of(parent))
    assert (
        "on text of another kind</div><div class='value'>99.5" in tiles
        and "2.46 × dense, which has 40.4; learned mask, 2 windows" in tiles
    )
    assert "on &lt;b&gt;mine.txt" in tiles and "<b>" not in tiles
    assert "<td>bundled-other</td><td>99.5 ± 19.9</td><td>40.4 ± 4.04</td><td>2.46 ± 0.246 ×</td>" in result
    assert "&lt;b&gt;mine.txt" in result and "<b>" not in result
    add_steps(parent, 6, 6)  # of another mask than the one that was judged
    assert "text of another kind" not in status.tiles(snapshot_of(parent))


# The form


def test_the_texts_to_judge_on_are_those_of_the_form(parent, monkeypatch):
    page, made = Page(parent.path.parent, "parent"), []
    monkeypatch.setattr("proxsparse.Run.create", lambda job, path, owner: made.append(job) or parent)
    monkeypatch.setattr("proxsparse.Run.start", lambda self: None)
    form = values_of(LearnJob())
    page.screen.start("embedded", "c4", ["bundled-other", "wikitext2"], *form)
    page.screen.start("embedded", "bundled", None, *form)
    assert [job.judged_on for job in made] == [("bundled-other", "wikitext2"), ()]
    with pytest.raises(ProxSparseError, match="text '/etc/passwd' is not in a folder that may be read here"):
        page.screen.start("embedded", "bundled", ["/etc/passwd"], *form)
    with pytest.raises(ProxSparseError, match="nothing learns from"):
        page.screen.start("embedded", "bundled-other", [], *form)
    filled = page.screen.form.fill("parent")[page.screen.form.evaluate_on]
    assert filled["value"] == ["bundled-other"] and "wikitext2" in filled["choices"]


def test_what_differs_is_compared_as_numbers_where_it_is_one():
    values = dict(zip(SETTINGS, values_of(LearnJob()), strict=True)) | {"lambda1": "0.20", "steps": "81", "device": " "}
    assert differences(values.values(), LearnJob()) == {"steps": ("81", "80")}
    assert differences((values | {"relative": False}).values(), LearnJob())["relative"] == ("off", "on")
    for name, preset in PRESETS.items():
        assert nearest_preset(values_of(preset)) == name


def test_the_form_marks_what_differs_from_the_preset_and_says_what_a_fork_changes(parent):
    form = LearnForm(Operator(parent.path.parent))
    values = dict(zip(SETTINGS, values_of(parent.job()), strict=True)) | {"lambda1": "<b>"}
    marks = form.marks("Quick", "parent", *values.values())
    assert '#setting-lambda1 [data-testid="block-info"]::after { content: " · Quick: 0.2"; }' in marks
    assert "λ1 at the end &lt;b&gt; instead of 0.2" in marks and "<b>" not in marks
    assert "A fork of the run shown changes: λ1 at the end" in marks and "#setting-steps" in marks
    assert "As the preset Standard" in form.marks(None, "", *values_of(PRESETS["Standard"])), (
        "the nearest, where none is chosen"
    )


def test_presets_have_notes_and_the_papers_method_is_that_of_the_comparison():
    assert PRESET_NOTES.keys() == PRESETS.keys()
    learn = PRESETS["Paper: embedded"].learn
    assert learn == LearnConfig(**METHODS["proxsparse-paper"].options)
    assert (learn.metric, learn.loss_at, learn.ramp, learn.relative, learn.steps) == ("weight", "soft", 1.0, True, 80)


@pytest.mark.parametrize("model", ["Llama-2-13B", "Llama-3.1-8B"])
def test_where_the_paper_has_two_scripts_they_differ_in_the_frozen_weight_penalty(model):
    full, prox_only = PRESETS[f"Paper: {model}"], PRESETS[f"Paper: {model} (prox only)"]
    assert differences(values_of(prox_only), full).keys() - {"epsilon"} == {"lambda2"}
    assert full.learn.lambda2 > 0 == prox_only.learn.lambda2


@pytest.mark.parametrize(
    ("distill", "words"),
    (
        (0.0, "next-token loss, nats a token, at the masked weights"),
        (
            0.75,
            "75% divergence from the dense model's predictions, 25% next-token loss; nats a token, at the masked weights",
        ),
        (1.0, "100% divergence from the dense model's predictions; nats a token, at the masked weights"),
    ),
    ids=("next token", "mixed", "divergence"),
)
def test_the_training_loss_says_what_it_is_made_of(tmp_path, distill, words):
    job = LearnJob(learn=LearnConfig(distill=distill))
    assert words in status.tiles(snapshot_of(Run.create(job, tmp_path / "run")))
