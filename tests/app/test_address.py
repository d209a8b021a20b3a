"""The address holds the view: what is written into it, what it fills, and what becomes of an address that asks for what is
not there."""

import json
from contextlib import closing
from urllib.parse import parse_qsl

import gradio as gr
import pytest
from explorer import served, take
from made_runs import made_run
from playwright.sync_api import expect

from app.address import Entry, fill, read_for
from app.operator import Operator
from app.shell import Shell
from proxsparse import ProxSparseError
from proxsparse.files import read_json, write_json


class Visitor:
    """One visitor's page, opened at an address, without a browser: it holds values, and sends them."""

    def __init__(self, root, **asked):
        self.shell = Shell(Operator(root))
        self.shell.build()
        self.values = {component: getattr(component, "value", None) for component in self.shell.looking()["inputs"]}
        self.values |= {self.shell.seen: {}}
        self.history, self.visits = [], -1
        self.go(asked)

    def go(self, asked):
        self.visits += 1
        self.take(self.shell.go(asked, self.visits))
        assert self.shell.show(dict(self.values)) == gr.skip(), "nothing is rendered of a page that is half filled"
        self.values[self.shell.asked] = self.values[self.shell.filling]
        return self.look()

    def look(self):
        """What the address is afterwards; None where nothing was written."""
        sent = self.shell.show(dict(self.values))
        if sent == gr.skip():
            return None
        self.take(sent)
        if self.shell.address not in sent:
            return None
        written = json.loads(sent[self.shell.address])
        assert written["visit"] == self.visits
        self.history.append(written["push"])
        return dict(parse_qsl(written["query"]))

    def take(self, sent):
        take(self.values, sent)

    def screen(self, name):
        return next(each for each in self.shell.screens if each.name == name)

    def chooses(self, screen, name, value):
        self.values[self.shell.entries[screen][name].component] = value
        return self.look()


@pytest.fixture
def root(tmp_path):
    for name in ("first", "second"):
        made_run(tmp_path / name, steps=5)
    return tmp_path


@pytest.fixture
def said(monkeypatch):
    sentences = []
    monkeypatch.setattr("app.shell.warn", sentences.append)
    return sentences


def test_a_page_without_an_address_gets_the_one_of_its_run_and_no_history(root):
    visitor = Visitor(root)
    assert visitor.history == [False]
    assert visitor.look() is None, "what did not change is not written again"


def test_a_choice_leaves_an_entry_in_the_history_and_a_drag_none(root):
    visitor = Visitor(root, run="first")
    assert visitor.chooses("learn", "quantity", "drift") == {"run": "first", "quantity": "drift"}
    assert visitor.chooses("learn", "step", 1) == {"run": "first", "quantity": "drift", "step": "1"}
    assert visitor.chooses("learn", "quantity", "pattern share") == {"run": "first", "step": "1"}, (
        "a default is left out"
    )
    assert visitor.history == [False, True, False, True]


def test_the_address_of_a_view_reproduces_it(root):
    visitor = Visitor(root, run="first", step="3", quantity="drift")
    learn = visitor.screen("learn")
    visitor.look()
    assert visitor.values[learn.parts["scrubber"]] == 3 and visitor.values[learn.parts["quantity"]] == "drift"
    assert json.loads(visitor.shell.show(visitor.values | {visitor.shell.seen: {}})[learn.parts["heatmap"]])["layout"][
        "title"
    ]["text"].startswith("drift at step ")
    assert visitor.history == [False], "and leaves no entry of its own in the history"


def test_back_restores_what_the_earlier_address_left_out(root):
    visitor = Visitor(root, run="first", step="2", quantity="drift")
    assert visitor.go({"run": "second"}) == {"run": "second"}
    learn = visitor.screen("learn")
    assert visitor.values[learn.parts["quantity"]] == "pattern share"
    assert visitor.values[learn.parts["scrubber"]] == 5, "without a step the newest is shown"
    assert visitor.go({"run": "first", "step": "2"}) == {"run": "first", "step": "2"}
    assert visitor.values[learn.parts["scrubber"]] == 2
    assert visitor.look() is None and not any(visitor.history)


def test_the_runs_compared_with_are_part_of_the_view(root):
    visitor = Visitor(root, run="first")
    others = visitor.screen("learn").branches.others
    assert visitor.chooses("learn", "beside", ["second"]) == {"run": "first", "beside": "second"}
    again = Visitor(root, run="first", beside="second")
    assert again.values[again.screen("learn").branches.others] == ["second"] and again.look() is None
    assert visitor.go({"run": "second"}) == {"run": "second"} and visitor.values[others] == []
    assert visitor.look() is None, "of the run shown before nothing is left in the address"

    fork = made_run(root / "fork", steps=5)
    write_json(
        fork.path / "run.json",
        read_json(fork.path / "run.json") | {"parent": {"run": "first", "step": 2, "changed": []}},
    )
    assert visitor.go({"run": "fork"}) == {"run": "fork"} and visitor.values[others] == ["first"], (
        "its family, by itself"
    )
    assert visitor.chooses("learn", "beside", []) == {"run": "fork", "beside": "none"}
    assert (
        visitor.go({"run": "fork", "beside": "none"}) == {"run": "fork", "beside": "none"}
        and visitor.values[others] == []
    )


def test_screens_have_names_of_their_own_in_the_address(root):
    visitor = Visitor(root, run="first", screen="runs", chosen="second", quantity="drift")
    assert visitor.look() is None
    assert visitor.values[visitor.screen("runs").chosen] == "second"
    assert visitor.values[visitor.screen("learn").parts["quantity"]] == "pattern share"
    assert visitor.chooses("runs", "chosen", "first") == {"run": "first", "screen": "runs"}, (
        "the run shown goes without saying"
    )


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"run": "nothing"}, "nothing"),
        ({"run": "../../etc"}, "etc"),
        ({"screen": "nowhere"}, "There is no screen 'nowhere': the screens are learn"),
        ({"quantity": "beauty"}, "quantity=beauty: 'beauty' is none of pattern share"),
        ({"beside": ",".join("abcdefghij")}, "It names 10 runs"),
        ({"step": "many"}, "step=many: 'many' is not a number."),
        ({"step": "-1"}, "'-1' is no step"),
        ({"step": "1.5"}, "'1.5' is no step"),
        ({"step": "nan"}, "'nan' is not a finite number"),
        ({"screen": "runs", "chosen": "nothing"}, "chosen=nothing"),
        ({"screen": "export", "format": "zip"}, "format=zip: 'zip' is none of dense, compact"),
        ({"quantity": "x" * 1000}, "has 1000 characters"),
    ],
)  # fmt: skip
def test_what_an_address_cannot_mean_is_one_sentence_and_the_default_is_shown(root, said, asked, words):
    visitor = Visitor(root, **({"run": "first"} | asked))
    assert len(said) == 1 and words in said[0] and len(said[0]) < 300
    for _ in range(3):
        visitor.look()
    expected = {"run": visitor.values[visitor.shell.id]} | {"screen": asked.get("screen", "")}
    allowed = {name: value for name, value in expected.items() if value and value != "nowhere"}
    assert visitor.shell.show(visitor.values | {visitor.shell.seen: {}})[visitor.shell.address] and allowed["run"]
    assert visitor.values[visitor.screen("learn").parts["quantity"]] == "pattern share"
    assert not any(visitor.history)


def test_a_step_beyond_the_end_shows_the_newest(root):
    visitor = Visitor(root, run="first", step="999")
    for _ in range(3):
        visitor.look()
    scrubber = visitor.screen("learn").parts["scrubber"]
    assert visitor.values[scrubber] == 5
    assert visitor.values[visitor.shell.seen]["address"] == {"run": "first"}


def test_kinds_of_components():
    with gr.Blocks():
        slider, box = gr.Slider(0, 2, value=1), gr.Checkbox(value=True)
        fixed, open_ = gr.Dropdown(["a", "b"], value="a"), gr.Dropdown([], value=None)
    assert read_for(slider, "1.5") == 1.5 and read_for(box, "0") is False and read_for(fixed, "b") == "b"
    assert read_for(open_, "model.layers.0") == gr.update(value="model.layers.0", choices=["model.layers.0"])
    for component, text in ((slider, "2.1"), (slider, "x"), (slider, "inf"), (box, "yes"), (fixed, "c")):
        with pytest.raises(ProxSparseError):
            read_for(component, text)
    filled = fill({"box": Entry(box), "slider": Entry(slider)}, {"slider": "9"})
    assert filled.updates == {box: True, slider: 1} and not filled.given and "slider=9" in filled.refused[0]


@pytest.mark.browser
def test_links_back_forward_and_keys_in_the_browser(tmp_path, browser):
    for name in ("first", "second"):
        made_run(tmp_path / name, steps=6)
    with served(tmp_path) as address, closing(browser.new_page(viewport={"width": 1440, "height": 1000})) as page:
        page.goto(f"{address}/?run=first&step=3&quantity=drift&from=paper")
        title = page.locator("#chart-heatmap .chart-title")
        expect(title).to_contain_text("drift at step 3")

        page.get_by_role("tab", name="Runs").click()
        page.wait_for_url("**screen=runs**", timeout=120_000)
        page.go_back()
        expect(title).to_be_visible()
        page.go_forward()
        expect(title).to_be_hidden()
        page.get_by_role("tab", name="Learn").click()
        page.wait_for_url("**step=3**", timeout=120_000)
        assert "screen=" not in page.url and "from=paper" in page.url, "what others put into the address stays"
        page.locator("#quantity").get_by_label("flips", exact=True).check()
        page.wait_for_url("**quantity=flips**", timeout=120_000)

        page.go_back()
        expect(title).to_contain_text("drift at step 3")
        expect(page.locator("#quantity").get_by_label("drift")).to_be_checked()
        page.go_back()
        expect(page.locator("#runs-list")).to_be_visible()
        page.go_forward()
        page.go_forward()  # at once: the answer to the first is overtaken
        expect(title).to_contain_text("flips at step 3")
        expect(title).to_be_visible()
        page.wait_for_timeout(1500)  # ticks later, nothing has been added to the history
        page.go_back()
        expect(title).to_contain_text("drift at step 3")

        # Arrows scrub, and leave no entry in the history.
        length = page.evaluate("history.length")
        page.locator("header").click()
        page.keyboard.press("ArrowLeft")
        expect(title).to_contain_text("drift at step 2")
        page.wait_for_url("**step=2**", timeout=120_000)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        expect(title).to_contain_text("drift at step 4")
        assert page.evaluate("history.length") == length

        # Keys do nothing while somebody types; / searches; ? lists the keys of the screen in sight.
        page.keyboard.press("/")
        expect(page.locator("#runs input")).to_be_focused()
        page.keyboard.press("?")
        expect(page.locator("#keys dialog")).to_be_hidden()
        page.keyboard.press("Escape")
        page.locator("#model textarea, #model input").first.focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(500)
        expect(title).to_contain_text("drift at step 4")
        page.locator("#model textarea, #model input").first.blur()
        page.keyboard.press("?")
        expect(page.locator("#keys dialog")).to_be_visible()
        expect(page.locator("#keys dialog")).to_contain_text("previous step")
        expect(page.locator("#keys dialog")).not_to_contain_text("open it")
        page.keyboard.press("Escape")
        expect(page.locator("#keys dialog")).to_be_hidden()

        # What cannot be meant is said, and the default is shown.
        page.goto(f"{address}/?run=first&quantity=beauty")
        expect(page.locator(".toast-body")).to_contain_text("'beauty' is none of")
        expect(title).to_contain_text("pattern share at step 6")
