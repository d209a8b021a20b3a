"""What a tick sends to a page: nothing that has not changed."""

import gradio as gr
import pytest
from explorer import take
from made_runs import add_steps, made_run, set_state

from app.operator import EXAMPLE_ID, Operator
from app.shell import Shell
from proxsparse import ProxSparseError, list_runs

CHARTS = ("curve", "composition", "flips", "lambda_curve", "heatmap")


class Page:
    """One visitor's page: the values that its components hold, changed by what the shell sends."""

    def __init__(self, root, id, screen="learn"):
        self.shell = Shell(Operator(root))
        self.shell.build()
        self.screen = next(each for each in self.shell.screens if each.name == screen)
        self.values = {component: getattr(component, "value", None) for component in self.shell.looking()["inputs"]}
        self.values |= {self.shell.id: id, self.shell.screen: screen, self.shell.seen: {}}
        self.values |= {
            self.shell.filling: '["", {}]',
            self.shell.asked: '["", {}]',
        }  # filled from an address without more

    def tick(self):
        """Let a second pass; returns what was sent."""
        sent = self.shell.show(dict(self.values))
        assert sent, "Gradio takes an empty answer for a wrong one"
        if sent == gr.skip():
            return set()
        take(self.values, sent)
        return sent.keys() - {self.shell.seen, self.shell.pulse}


@pytest.fixture
def run(tmp_path):
    run = made_run(tmp_path / "first", steps=5)
    set_state(run, "running", 5, elapsed=10.0, remaining=90.0)
    return run


@pytest.fixture
def page(run, monkeypatch):
    monkeypatch.setattr("proxsparse.runs.directory.is_held", lambda path: True)  # as if its worker lived
    page = Page(run.path.parent, run.id)
    page.charts = {page.screen.parts[name] for name in CHARTS}
    assert page.charts <= page.tick()
    page.tick()  # the slider's own value has come back
    return page


def test_a_tick_in_which_nothing_happened_sends_nothing(page):
    assert page.tick() == set()


def test_a_tick_in_which_only_the_clock_moved_draws_no_chart(page, run):
    set_state(run, "running", 5, elapsed=11.0, remaining=89.0, doing="prox half", updated=2.0)
    sent = page.tick()
    assert page.screen.parts["banner"] in sent
    assert not sent & page.charts
    assert not sent & {page.screen.parts[name] for name in ("tiles", "result", "log", "strength", "scrubber")}


def test_a_step_draws_the_charts(page, run):
    add_steps(run, 6, 6)
    set_state(run, "running", 6)
    assert page.charts <= page.tick()


def test_a_measurement_draws_the_learning_curve_and_the_tiles(page, run):
    from made_runs import measurement

    from proxsparse.files import append_record

    append_record(run.path / "perplexity.jsonl", measurement(5, "learned"))
    sent = page.tick()
    assert {page.screen.parts["curve"], page.screen.parts["tiles"]} <= sent


def test_only_the_screen_in_sight_is_rendered(page, run):
    add_steps(run, 6, 6)
    page.values[page.shell.screen] = "runs"
    sent = page.tick()
    others = {component for each in page.shell.screens if each.name != "runs" for component in each.outputs}
    assert sent and not sent & others


@pytest.mark.parametrize("screen", ["learn", "export", "runs"])
def test_a_run_that_is_deleted_while_it_is_shown(page, run, screen):
    import shutil

    shutil.rmtree(run.path)
    page.values[page.shell.screen] = screen
    page.tick()


def test_another_run_under_the_same_name_is_drawn_anew(page, run):
    import shutil

    shutil.rmtree(run.path)
    made_run(run.path, steps=5)
    assert page.charts <= page.tick()


@pytest.mark.parametrize("command", ["pause", "resume", "step", "gradient", "prox", "stop"])
def test_the_recorded_example_takes_no_action(page, command):
    with pytest.raises(ProxSparseError, match="recorded example"):
        page.screen.send(command, EXAMPLE_ID)


def test_the_recorded_example_is_neither_changed_nor_exported(page):
    export = next(each for each in page.shell.screens if each.name == "export")
    with pytest.raises(ProxSparseError):
        page.screen.set_strength(EXAMPLE_ID, 0.1)
    with pytest.raises(ProxSparseError):
        export.export(EXAMPLE_ID, "dense")
    runs = next(each for each in page.shell.screens if each.name == "runs")
    for act in (lambda: runs.renamed(EXAMPLE_ID, "mine", ""), lambda: runs.deleted(EXAMPLE_ID, "")):
        with pytest.raises(ProxSparseError):
            act()


def test_a_fork_sends_what_differs_and_nothing_else(page, run, monkeypatch):
    from app.settings_form import SETTINGS, values_of

    asked = {}
    monkeypatch.setattr(
        "proxsparse.Run.fork", lambda self, path, step, owner, **changes: asked.update(step=step, **changes) or self
    )
    monkeypatch.setattr("proxsparse.Run.start", lambda self: None)
    values = dict(zip(SETTINGS, values_of(run.job()), strict=True))
    texts = ["bundled-other"]
    page.screen.branches.fork(run.id, "3", texts, *values.values())
    assert asked == {"step": 3}
    page.screen.branches.fork(run.id, "3", None, *values.values())
    assert asked == {"step": 3, "evaluate_on": ()}
    asked.clear()
    page.screen.branches.fork(
        run.id, None, texts, *(values | {"relative": False, "lambda1": "20", "metric": "weight"}).values()
    )
    assert asked == {"step": None, "relative": False, "lambda1": 20.0, "metric": "weight"}
    with pytest.raises(ProxSparseError, match="The step to fork from is 'last'"):
        page.screen.branches.fork(run.id, "last", texts, *values.values())
    assert [each.id for each in list_runs(run.path.parent)] == [run.id]


def test_the_run_that_was_asked_about_is_deleted_whatever_is_chosen_since(page, run, monkeypatch):
    monkeypatch.undo()  # no worker lives any more
    set_state(run, "done", 5)
    made_run(run.path.parent / "second", steps=2)
    runs = next(each for each in page.shell.screens if each.name == "runs")
    asked, confirm, _ = runs.ask("first")
    assert asked == "first" and "first" in confirm["value"]
    assert runs.answered()[0] is None, "choosing another run takes the question away"
    _, shown = runs.deleted(asked, "first")
    assert shown == "second" and [each.id for each in list_runs(run.path.parent)] == ["second"]
