"""The slider over the steps: it follows a run that goes on, and stays where somebody put it, however late answers arrive."""

import gradio as gr

from app.screens.shown import Shown
from app.scrubber import entry, scrub


class Slider:
    """One page with one slider: `arrive` is when the page gets what was sent."""

    def __init__(self):
        self.slider, self.seen, self.at, self.on_its_way = gr.Slider(0, 1, value=1, step=1), {}, 1, None
        self.entry = entry(self.slider)

    def tick(self, newest, run_changed=False, asked=None):
        """Returns the step shown, and what the address says."""
        shown = Shown("run", None, {self.slider: self.at}, dict(self.seen), asked)
        written = self.entry.write(self.at, shown)
        found = scrub(self.slider, shown, newest, run_changed)
        self.seen = shown.seen
        self.on_its_way = found.updates.get(self.slider, {}).get("value", self.on_its_way)
        return found.step, written

    def arrive(self):
        self.at, self.on_its_way = self.at if self.on_its_way is None else self.on_its_way, None


def test_it_follows_though_answers_arrive_late():
    page = Slider()
    assert page.tick(0, run_changed=True)[0] == 0
    page.arrive()
    for newest in range(1, 9):
        assert page.tick(newest) == (newest, "")
        assert page.tick(newest) == (newest, ""), "the page still sends the value of before"
        if newest % 3:
            page.arrive()


def test_who_moves_it_by_one_step_stays_there():
    page = Slider()
    page.tick(80, run_changed=True)
    page.arrive()
    assert page.tick(80) == (80, "")
    page.at = 79
    assert page.tick(80) == (79, "79") and page.tick(81) == (79, "79")
    page.at = 81
    assert page.tick(81) == (81, "") and page.tick(82) == (82, "")


def test_an_address_moves_it():
    page = Slider()
    page.tick(80, run_changed=True, asked={"step": "7"})
    assert page.tick(80) == (7, "7"), "while the slider is still on its way"
    page.arrive()
    assert page.at == 7 and page.tick(90) == (7, "7")
    assert page.tick(90, asked={})[0] == 90
