"""The Sweep screen: what is asked for, what is shown, and what a trial becomes; without a browser, then in one."""

import json
import re

import gradio as gr
import pytest
from explorer import served
from playwright.sync_api import expect
from starlette.applications import Starlette
from starlette.testclient import TestClient
from test_app import choose
from test_screens import Page
from waiting import until

from app.downloads import routes
from app.limits import Limits
from app.operator import Operator
from app.screens.sweep import picked_trial
from app.settings_form import values_of
from app.views import sweep as views
from app.views.sweep import snapshot_of
from proxsparse import LearnConfig, LearnJob, ProxSparseError, Run, Sweep, list_runs
from proxsparse.config import SweepPlan
from proxsparse.files import read_json, write_json
from proxsparse.runs.presets import read_preset

JOB = LearnJob(learn=LearnConfig(steps=40))
PLAN = {"rungs": 2, "lambdas": (0.1, 0.2), "learning_rates": (1e-3, 1e-2)}
STARTED = "proxsparse.runs.run.launch.start"


def made_sweep(path, rows=(), status="running", step=0, job=JOB, **plan):
    """A sweep as its worker would have written it; rows: (trial, state, rung, λ1, learning rate, perplexity)."""
    content = {"sweep": job.to_dict(), "plan": SweepPlan(**PLAN | plan).to_dict()}
    run = Run.create_kind("sweep", content, path)
    write_trials(run, rows, status, step)
    return run


def write_trials(run, rows, status="running", step=0):
    names = ("trial", "state", "rung", "lambda1", "learning_rate", "perplexity")
    write_json(
        run.path / "trials.json",
        [dict(zip(names, row, strict=True)) | {"steps": 20 << row[2], "stderr": 1.0, "seconds": 2.0} for row in rows],
    )
    state = {"status": status, "step": step, "steps": 4, "doing": "trial 1 of 4: step 3/20"}
    write_json(run.path / "state.json", read_json(run.path / "state.json") | state)


ROWS = [
    (0, "complete", 0, 0.1, 1e-3, 90.0), (0, "complete", 1, 0.1, 1e-3, 60.0), (1, "pruned", 0, 0.2, 1e-2, 95.0),
    (2, "running", 0, 0.1, 1e-2, 80.0),
]  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return made_sweep(tmp_path / "swept", ROWS, step=2)


@pytest.fixture
def page(run, monkeypatch):
    monkeypatch.setattr("proxsparse.runs.directory.is_held", lambda path: True)  # as if its worker lived
    page = Page(run.path.parent, "", "sweep")
    page.tick()
    page.tick()  # the sweep that is shown has come back
    return page


def test_the_newest_sweep_is_shown_and_a_tick_in_which_nothing_happened_sends_nothing(page, run):
    screen = page.screen
    sent = page.shell.show(dict(page.values) | {page.shell.seen: {}})
    assert "<b>2</b> of 4 trials ended" in sent[screen.banner] and "20 → 40 steps" in sent[screen.banner]
    assert {trace["name"] for trace in json.loads(sent[screen.parallel])["data"]} == {"trial 0", "trial 1", "trial 2"}
    assert re.findall(r"data-trial='(\d)'", sent[screen.table]) == ["0", "2", "1"], "the best ones first"
    assert "Trial 0</b>: λ1 0.1, learning rate 0.001, with the sweep's 40 steps" in sent[screen.chosen]
    assert (sent[screen.pause]["interactive"], sent[screen.resume]["interactive"]) == (True, False)
    assert page.tick() == set()


def test_a_trial_that_others_tie_with_is_not_called_best(page, run):
    rows = [(trial, "complete", 1, 0.1, 1e-3, 60.0 + trial) for trial in range(3)]
    write_trials(run, rows, status="done", step=4)
    losses = ([4.0, 4.2, 3.9], [4.1, 4.1, 3.95], [5.0, 5.2, 4.9])
    trials = read_json(run.path / "trials.json")
    write_json(run.path / "trials.json", [trial | {"losses": each} for trial, each in zip(trials, losses, strict=True)])
    view = snapshot_of(run)
    states = re.findall(r"</button></td><td>(.*?)</td>", views.table(view, None))
    assert states == ["lowest, tied", "tied with the lowest", "complete"]
    assert "not told apart from trial 1:" in views.chosen(view, view.trial(""))


def test_a_trial_that_went_on_draws_and_one_that_works_only_says_so(page, run):
    state = read_json(run.path / "state.json")
    write_json(run.path / "state.json", state | {"doing": "trial 3 of 4: step 4/40"})
    assert page.tick() == {page.screen.banner, page.screen.pause, page.screen.resume, page.screen.stop}
    write_trials(run, [*ROWS, (2, "running", 1, 0.1, 1e-2, 50.0)], step=2)
    assert {page.screen.curve, page.screen.parallel, page.screen.table, page.screen.chosen} <= page.tick()


def test_the_sweep_and_the_trial_in_sight_are_in_the_address(page, run):
    made_sweep(run.path.parent / "another", ROWS[:1])
    page.values |= {page.screen.shown: "swept", page.screen.trial: "1"}
    sent = page.shell.show(dict(page.values))
    assert "Trial 1</b>: λ1 0.2" in sent[page.screen.chosen]
    assert json.loads(sent[page.shell.address])["query"] == "screen=sweep&sweep=swept&trial=1"
    entries = page.shell.entries["sweep"]
    assert entries["sweep"].read("swept")["value"] == "swept" and entries["trial"].read("3") == "3"
    for name, wrong in (("sweep", "none"), ("sweep", "example"), ("trial", "-1"), ("trial", "1" * 9), ("trial", "²")):
        with pytest.raises(ProxSparseError):
            entries[name].read(wrong)


@pytest.mark.parametrize("data", [None, {}, {"customdata": "x"}, {"customdata": [1]}, {"customdata": "9" * 99}])
def test_a_click_that_says_no_trial_is_refused(data):
    with pytest.raises(ProxSparseError):
        picked_trial(gr.EventData(None, data))


def test_what_comes_from_outside_is_escaped(tmp_path):
    job = LearnJob(model="<b>m</b>", corpus="bundled", learn=LearnConfig(steps=40))
    view = snapshot_of(made_sweep(tmp_path / "swept", [(0, "<i>", 0, 0.1, 1e-3, None)], job=job))
    shown = views.banner(view) + views.table(view, None) + views.chosen(view, view.trial("0"))
    assert "<b>m" not in shown and "<i>" not in shown and "not finite" in shown


@pytest.mark.parametrize(
    "content", ['{"trial": 3}', "[3]", '[{"trial": 0}]', '[{"trial": 0, "perplexity": "x"}]', "[", "\x00"]
)
def test_a_damaged_sweep_is_one_sentence_and_hides_nothing_else(page, run, content):
    (run.path / "trials.json").write_text(content)
    said = page.shell.show(dict(page.values))[page.screen.banner]
    assert "trials.json" in said and "is damaged" in said
    rows = page.shell.listing.rows()
    assert [row.id for row in rows] == ["swept"] and "damaged" in rows[0].result


def asked(screen, **changes):
    """The values of the form, some of them typed."""
    values = {each: each.value for each in screen.form.values}
    return list((values | {getattr(screen.form, name): value for name, value in changes.items()}).values())


def test_a_sweep_is_started_with_what_stands_in_both_forms(page, monkeypatch):
    monkeypatch.setattr(STARTED, lambda run: None)
    batch = next(each for each in page.screen.learn.values if each.elem_id == "setting-batch")
    values = asked(page.screen, lambdas="0.1, 0.3;0.1", sampler="tpe", trials=" 7", steps="16", corpus="bundled")
    values[page.screen.form.values.index(batch)] = "2"
    update, trial = page.screen.start(*values)
    sweep = Sweep(page.screen.operator.find_any(update["value"]))
    assert (sweep.plan.lambdas, sweep.plan.count, sweep.plan.sampler, trial) == ((0.1, 0.3), 7, "tpe", "")
    assert (sweep.base.learn.steps, sweep.base.learn.batch, sweep.base.corpus) == (16, 2, "bundled")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ({"lambdas": "0.1 x"}, "lambdas is 'x': give a number"), ({"lambdas": " "}, "There is nothing to try"),
        ({"learning_rates": "0"}, "learning-rate is 0"), ({"steps": "3"}, "steps is 3 and rungs 3"),
        ({"steps": "99999"}, "may take 10,000 here"), ({"corpus": "/etc/passwd"}, "not in a folder that may be read here"),
        ({"model": "/etc"}, "not in a folder that may be read here"), ({"sampler": "tpe", "trials": "101"}, "has 101 trials and may"),
        ({"lambdas": " ".join(map(str, range(1, 99)))}, "has 294 trials and may have 100 here"), ({"rungs": "x"}, "rungs is 'x'"),
        ({"lambdas": "1 " * 2000}, "2,000 values are more than"),
    ],
)  # fmt: skip
def test_what_cannot_be_or_is_too_much_is_refused_before_anything_is_made(page, run, typed, words):
    with pytest.raises(ProxSparseError, match=words):
        page.screen.start(*asked(page.screen, **typed))
    assert [each.id for each in list_runs(run.path.parent)] == ["swept"]


def test_without_a_limit_a_sweep_may_be_large():
    Limits(max_trials=0).check_sweep(SweepPlan(sampler="random", trials=5000))


def test_a_trial_becomes_a_run_fills_the_form_or_is_downloaded(page, run, tmp_path, monkeypatch):
    monkeypatch.setattr(STARTED, lambda run: None)
    screen, wanted = page.screen, LearnConfig(steps=40, lambda1=0.2, learning_rate=1e-2)
    id, _ = screen.run("swept", "1")
    assert screen.operator.find(id).job() == LearnJob(learn=wanted)
    assert screen.operator.find(screen.run("swept", "")[0]).job().learn.lambda1 == 0.1, "of the best one"
    filled = screen.fill("swept", "1", "")
    assert [filled[each] for each in screen.learn.values] == values_of(LearnJob(learn=wanted))
    client = TestClient(Starlette(routes=routes(Operator(run.path.parent))))
    answer = client.get("/preset/swept/1.json")
    (tmp_path / "preset.json").write_text(answer.text)
    assert read_preset(tmp_path / "preset.json") == LearnJob(learn=wanted)
    assert answer.headers["content-disposition"] == 'attachment; filename="swept-trial-1.json"'
    for address in ("/preset/swept/9.json", "/preset/none/1.json", "/preset/example/1.json", "/preset/swept/x.json"):
        assert client.get(address).status_code == 404
    empty = made_sweep(run.path.parent / "empty")
    with pytest.raises(ProxSparseError, match="No trial of sweep empty was measured yet"):
        screen.run(empty.id, "")


@pytest.mark.browser
@pytest.mark.parametrize("width", [1440, 390])
def test_before_any_trial_words_stand_where_charts_will_and_names_end_before_the_arrow(width, tmp_path, browser):
    made_sweep(tmp_path / "a-sweep-with-a-name-that-is-longer-than-the-list-is-wide", status="stopped")
    with served(tmp_path) as address:
        page = browser.new_page(viewport={"width": width, "height": 1000})
        page.goto(f"{address}/?screen=sweep")
        expect(page.locator("#sweep-chosen")).to_contain_text("No trial has been measured yet")
        expect(page.locator("#sweep-to-run")).to_be_hidden()
        above, words = (page.locator(name).bounding_box() for name in ("#sweep-controls", "#sweep-chosen"))
        assert words["y"] - (above["y"] + above["height"]) < 30, "no gap where the charts will be"
        inner = "(all) => all[0].getBoundingClientRect().right - parseFloat(getComputedStyle(all[0]).paddingRight)"
        end = page.locator("#sweep-shown input").evaluate_all(inner)
        assert end <= page.locator("#sweep-shown .icon-wrap").bounding_box()["x"]
        page.close()


@pytest.mark.browser
def test_start_watch_reload_stop_resume_and_a_run_of_a_trial(tmp_path, tiny_directory, text_file, browser):
    with served(tmp_path, "--allow", str(tiny_directory.parent), "--allow", str(text_file.parent)) as address:
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{address}/?screen=learn")
        expect(page.locator("#differs")).to_contain_text("the preset Quick")  # the page fills its form first
        for name, value in (("length", "16"), ("context", "32"), ("metric_windows", "2"), ("device", "cpu")):
            place = page.locator(f"#setting-{name} :is(input, textarea)").first
            if not place.is_visible():
                page.locator(".label-wrap", has_text=GROUP_OF[name]).first.click()
            place.fill(value)
            place.press("Tab")
        page.get_by_role("tab", name="Sweep").click()
        expect(page.locator("#sweep-banner")).to_contain_text("No sweep yet")
        for name, value in (
            ("lambdas", "0.01 0.1"), ("learning_rates", "0.001 0.01"), ("steps", "nonsense"), ("model", str(tiny_directory)),
            ("corpus", str(text_file)),
        ):  # fmt: skip
            page.locator(f"#sweep-{name} :is(input, textarea)").first.fill(value)
            page.locator(f"#sweep-{name} :is(input, textarea)").first.press("Enter")
        page.locator("#sweep-start").click()
        expect(page.get_by_text("steps is 'nonsense': give a whole number").first).to_be_visible()
        assert list_runs(tmp_path) == []
        page.locator("#sweep-steps :is(input, textarea)").first.fill("600")
        page.locator("#sweep-start").click()
        expect(page.locator("#sweep-banner")).to_contain_text("trial 0 (1 of 4)", timeout=180_000)
        (run,) = list_runs(tmp_path, "sweep")
        page.wait_for_url(f"**/?*sweep={run.id}*")

        page.locator("#sweep-pause").click()
        expect(page.locator("#sweep-banner .status")).to_have_text("paused")
        page.reload()
        expect(page.locator("#sweep-banner .status")).to_have_text("paused")
        page.locator("#sweep-resume").click()
        expect(page.locator("#sweep-banner .status")).to_have_text("running")
        expect(page.locator("#sweep-table button").first).to_be_visible(timeout=180_000)
        page.locator("#sweep-stop").click()
        expect(page.locator("#sweep-banner .status")).to_have_text("stopped")
        until(lambda: not run.is_alive())
        measured = read_json(run.path / "trials.json")
        page.locator("#sweep-resume").click()
        expect(page.locator("#sweep-banner .status")).to_have_text("done", timeout=400_000)
        assert read_json(run.path / "trials.json")[: len(measured) - 1] == measured[:-1], "nothing is measured twice"
        expect(page.locator("#sweep-banner")).to_contain_text("4 of 4 trials ended")
        expect(page.locator("#chart-sweep .main-svg").first).to_be_visible()
        expect(page.locator("#sweep-table button")).to_have_count(4)

        # The numbers of the parallel axes are those of the trials; a click in the table and one in the chart choose a trial.
        page.locator("#chart-sweep-trials .chart-table").click()
        expect(page.locator("#chart-sweep-trials .chart-data tbody tr")).to_have_count(4)
        page.locator("#sweep-table button[data-trial='3']").click()
        expect(page.locator("#sweep-chosen")).to_contain_text("Trial 3:")
        page.wait_for_url("**/?*trial=3*")
        points = "#chart-sweep-trials .scatterlayer .trace:last-child .points path"
        at = page.locator(points).last.bounding_box()  # on the axis of perplexity, where no two lie at one place
        page.mouse.click(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
        best = Sweep(run).best()
        expect(page.locator("#sweep-chosen")).to_contain_text(f"Trial {int(best['trial'])}:")

        page.locator("#sweep-to-form").click()
        expect(page.locator("#setting-lambda1 input, #setting-lambda1 textarea").first).to_have_value(
            f"{best['lambda1']:g}"
        )
        page.get_by_role("tab", name="Sweep").click()
        page.locator("#sweep-to-run").click()
        page.wait_for_url("**/?*run=2*", timeout=120_000)
        (learning,) = list_runs(tmp_path, "learn")
        assert learning.job() == Sweep(run).job(int(best["trial"]))
        expect(page.locator("#banner")).to_contain_text(learning.id)
        until(lambda: learning.state()["status"] == "running")
        learning.send("stop")
        until(lambda: not learning.is_alive())

        # Another sweep is chosen from the list.
        made_sweep(tmp_path / "another", ROWS, status="stopped")
        page.get_by_role("tab", name="Sweep").click()
        page.wait_for_url(f"**/?*screen=sweep*sweep={run.id}*")
        choose(page, "sweep-shown", "another")
        page.wait_for_url("**/?*sweep=another*")
        expect(page.locator("#sweep-chosen")).to_contain_text("Trial 0:")
        page.go_back()
        expect(page.locator("#sweep-banner")).to_contain_text(run.id)
        assert problems == []
        page.close()


GROUP_OF = {
    "length": "Text and measurement",
    "context": "Text and measurement",
    "metric_windows": "Regularizer and metric",
    "device": "Machine",
}
