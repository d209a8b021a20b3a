"""The Sweep screen: try many settings, see which were best, and go on with one of them."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from app import html
from app.address import LONGEST, Entry
from app.clicks import clicked_text
from app.keyboard import Key
from app.live_plot import live_plot
from app.operator import Operator
from app.screens.learn_form import LearnForm, toggle
from app.screens.shown import Shown
from app.screens.sweep_form import SweepForm
from app.steering import buttons, steer
from app.views import sweep as views
from app.views.drawn import SHARED
from app.views.listing import Listing
from app.views.sweep import SweepSnapshot, snapshot_of
from proxsparse import ProxSparseError
from proxsparse.runs import Run, Sweep, new_run_path

WHAT = """
A **sweep** learns one mask after another, each with another **λ1** and **learning rate**, and says which settings made the best one. They
are judged on calibration windows that nothing is learned from, never on the held-out text. Every trial takes short runs first; those in the
worse half end there, and the others go on with twice the steps.
"""
PICK = """element.addEventListener('click', (event) => {
  const pick = event.target.closest('[data-trial]');
  if (pick) trigger('select', {customdata: pick.dataset.trial});
});"""


class SweepScreen:
    """Starts sweeps, shows one, steers it, and makes a run of one of its trials."""

    name, title = "sweep", "Sweep"
    keys = (
        Key("/", "choose another sweep", "#sweep-shown input", "focus"),
        Key(" ", "pause the sweep, or let it go on", "#sweep-pause, #sweep-resume"),
    )
    css = """
#sweep-elsewhere { font-size: .85rem; } #sweep-controls, #sweep-actions { gap: 6px; flex-wrap: wrap; }
#sweep-table th { white-space: normal !important; vertical-align: bottom; }
#sweep-table tr.chosen { font-weight: 650; }
#sweep-table button { min-width: 2.6em; padding: 2px 8px; border: 1px solid var(--border-color-primary); border-radius: 4px;
  background: var(--background-fill-primary); color: var(--body-text-color); cursor: pointer; }
#sweep-table button[aria-pressed=true] { border-color: #0072B2; border-width: 2px; }
@media (max-width: 760px) {
  #sweep-sides { flex-direction: column; } #sweep-sides > * { width: 100% !important; min-width: 0 !important; }
  #sweep-controls button { flex: 1 1 28% !important; min-width: 0 !important; min-height: 40px; }
  #sweep-table button { min-height: 32px; } #sweep-table :is(th, td):is(:nth-child(2), :nth-child(7)) { display: none; }
}
"""

    def __init__(self, operator: Operator, listing: Listing, learn: LearnForm):
        self.operator, self.listing = operator, listing
        self.learn, self.form = learn, SweepForm(operator, learn)

    def build(self, shell) -> None:
        gr.Markdown(WHAT)
        toggle("sweep-toggle", "sweep-settings", "Start a sweep …")
        with gr.Row(equal_height=False, elem_id="sweep-sides"):
            with gr.Column(scale=1, min_width=300, elem_id="sweep-settings", elem_classes="folded"):
                self.form.build()
                self.start_button = gr.Button("Start a sweep", variant="primary", elem_id="sweep-start")
            with gr.Column(scale=3, min_width=320, elem_id="sweep-board"):
                self.shown = gr.Dropdown([], label="Sweep shown", allow_custom_value=True, elem_id="sweep-shown")
                self.banner = gr.HTML(elem_id="sweep-banner")
                with gr.Row(elem_id="sweep-controls"):
                    self.pause, self.resume, self.stop = (
                        gr.Button(label, size="sm", interactive=False, min_width=84, elem_id=f"sweep-{label.lower()}")
                        for label in ("Pause", "Resume", "Stop")
                    )
                self.steering = {"pause": self.pause, "resume": self.resume, "stop": self.stop}
                self.curve = live_plot("chart-sweep", 420)
                self.parallel = live_plot("chart-sweep-trials", 440)
                self.chosen = gr.HTML(elem_id="sweep-chosen")
                with gr.Row(elem_id="sweep-actions"):
                    self.to_run = gr.Button(
                        "Start a run with this trial's settings", size="sm", visible=False, elem_id="sweep-to-run"
                    )
                    self.to_form = gr.Button(
                        "Put them into the Learn form", size="sm", visible=False, elem_id="sweep-to-form"
                    )
                self.table = gr.HTML(elem_id="sweep-table", js_on_load=PICK)
        self.trial = gr.Textbox(visible="hidden", elem_id="sweep-trial")  # its number; empty: the best one
        self.inputs = [self.shown, self.trial]
        self.outputs = [
            self.shown, self.banner, *self.steering.values(), self.curve, self.parallel, self.chosen, self.to_run,
            self.to_form, self.table,
        ]  # fmt: skip
        self.address = {
            "sweep": Entry(self.shown, self._asked, lambda id, shown: id or ""),
            "trial": Entry(self.trial, _asked_trial),
        }

    def wire(self, shell) -> None:
        """Every choice renders; a click in a chart or in the table chooses a trial."""
        gr.on([self.shown.input], **shell.looking(self))
        for place in (self.curve, self.parallel, self.table):
            shell.on(place.select, picked_trial, None, [self.trial])
        shell.on(
            self.start_button.click, self.start, self.form.values, [self.shown, self.trial], then_to="sweep-banner"
        )
        for command, button in self.steering.items():
            shell.on(button.click, lambda id, command=command: self.send(command, id), [self.shown])
        trial = [self.shown, self.trial]
        shell.on(self.to_run.click, self.run, trial, [shell.id, shell.tabs])
        filled = [*self.learn.filled, shell.tabs]
        there = {shell.tabs: gr.update(selected="learn")}
        shell.on(self.to_form.click, lambda *given: self.fill(*given) | there, [*trial, shell.id], filled)
        self.form.wire(shell)

    # Looking

    def render(self, shown: Shown) -> dict[Component, Any]:
        """The list when a sweep came or went; words when the state changed; charts and table when a trial went on."""
        names = [row.id for row in self.listing.rows() if row.kind == "sweep"]
        id = shown.values[self.shown]
        id = id if id in names else next(iter(names), None)
        updates: dict[Component, Any] = {}
        if shown.changed("names", (names, id)):
            updates[self.shown] = gr.update(choices=names, value=id)
        try:
            view = snapshot_of(self.operator.find_any(id)) if id else None
        except (ProxSparseError, FileNotFoundError) as error:  # damaged, or deleted meanwhile
            if shown.changed("state", str(error)):
                updates[self.banner] = html.failure(str(error))
            return updates
        if shown.changed("state", view and (id, view.state, view.asked)):
            updates[self.banner] = views.banner(view)
            updates |= self._buttons(view)
        if shown.changed("drawn", view and view.drawn):
            updates |= self._charts(view)
        trial = view and view.trial(shown.values[self.trial] or "")
        looks = view and (view.drawn, view.is_active, None if trial is None else int(trial["trial"]))
        if shown.changed("chosen", looks):
            updates |= {self.table: views.table(view, trial), self.chosen: views.chosen(view, trial)}
            updates |= {button: gr.update(visible=trial is not None) for button in (self.to_run, self.to_form)}
        return updates

    def _charts(self, view: SweepSnapshot | None) -> dict[Component, str]:
        if view is None or view.table.empty:
            return {self.curve: "", self.parallel: ""}
        return {
            self.curve: SHARED.chart(("sweep", view.drawn), view.sweep.figure),
            self.parallel: SHARED.chart(("parallel", view.drawn), view.sweep.parallel),
        }

    def _buttons(self, view: SweepSnapshot | None) -> dict[Component, Any]:
        word, asked = (view.state["status"], view.asked) if view else (None, ())
        updates = {self.steering[name]: update for name, update in buttons(word, asked).items()}
        if view is not None and view.sweep.is_former:  # it can be read, and not resumed
            updates[self.resume] = gr.update(interactive=False)
        return updates

    def _asked(self, id: str):
        """A sweep that an address names. Raises ProxSparseError where there is none."""
        return gr.update(choices=[Sweep(self.operator.find_any(id)).run.id], value=id)

    # Doing

    def start(self, *values) -> list:
        """Begin a sweep with what stands in the form, and show it."""
        self.operator.rights.require_acting()
        job, plan = self.form.asked(*values)
        content = {"sweep": job.to_dict(), "plan": plan.to_dict()}
        path = new_run_path(self.operator.runs, "sweep")
        run = Run.create_kind("sweep", content, path, self.operator.rights.owner)
        run.start()
        return [gr.update(choices=[run.id], value=run.id), ""]

    def send(self, command: str, id: str | None) -> None:
        """Pause, resume, stop."""
        steer(Sweep(self.operator.find_to_change(id)).run, command)

    def run(self, id: str | None, trial: str):
        """Begin a run with the settings of a trial, and show it on the Learn screen."""
        self.operator.rights.require_acting()
        return self.operator.learn(self._job(id, trial)), gr.update(selected="learn")

    def fill(self, id: str | None, trial: str, shown: str) -> dict:
        """Put the settings of a trial into the form of the Learn screen."""
        return self.learn.fill_with(self._job(id, trial), shown)

    def _job(self, id: str | None, trial: str):
        view = snapshot_of(self.operator.find_any(id))
        found = view.trial(trial or "")
        if found is None:
            raise ProxSparseError(f"No trial of sweep {view.run.id} was measured yet: wait for the first one.")
        return view.sweep.job(int(found["trial"]))


def picked_trial(event: gr.EventData) -> str:
    """The trial that was clicked, in a chart or in the table."""
    return _asked_trial(clicked_text(event, "customdata"))


def _asked_trial(text: str) -> str:
    """The number of a trial. Raises ProxSparseError for another text."""
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        raise ProxSparseError(f"{text[:LONGEST][:40]!r} is no number of a trial.")
    return text
