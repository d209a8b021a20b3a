"""The Learn screen: settings on the left, the run on the right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
import plotly.graph_objects as go
from gradio.components import Component

from app import scrubber, status
from app.keyboard import Key, scrubbing
from app.live_plot import live_plot
from app.messages import warn
from app.operator import EXAMPLE_ID, Operator
from app.screens.branches import BESIDE, Branches
from app.screens.learn_form import LearnForm, toggle
from app.screens.shown import Shown
from app.settings_form import SETTINGS, job_from
from app.steering import buttons, steer
from app.views.ahead import planned_strengths, strength_to_come, strengths_to_come
from app.views.drawn import SHARED
from app.views.listing import Listing
from app.views.run import RunSnapshot
from proxsparse import figures
from proxsparse.figures import QUANTITIES

STEEP = 3.0  # times that λ1 grows from here on: more than one expects of a slider
COMMANDS = ("pause", "resume", "step", "gradient", "prox", "stop")
CHARTS = ("curve", "composition", "flips", "lambda_curve")
PACES = {
    0.0: "as fast as it goes",
    1.0: "a half step every second",
    3.0: "every 3 s",
    10.0: "every 10 s",
    30.0: "every 30 s",
}

WHAT = """
**2:4 sparsity** keeps two of every four neighbouring weights; other patterns keep n of every m. A **mask** says which. ProxSparse
*learns* it: while the model reads text, a regularizer of strength **λ1** pulls every group towards as few nonzeros as its pattern
keeps, and the loss of the masked model decides which.
"""
GLOSSARY = """
- **Soft weights** are what is being learned. The **mask** keeps the n largest of each group of m, and is applied to the
  *original* weights: no weight is updated in the end.
- **One step**: the *gradient half* (loss, gradient, AdamW) moves the soft weights so that the loss falls; the *prox half* pulls
  every group towards its pattern. The loss is that of the masked original model, which is the result (`loss at`: masked), or of the
  soft weights, as in the paper. Both can be taken one at a time while the run is paused.
- **λ1** is the strength of the regularizer. It grows over the run by its *ramp*, from weak to strong, so that the loss decides first and
  groups become 2:4 later. Too weak at the end: groups stay dense. Too strong at the start: groups become 2:4 before the loss moved them.
- **Perplexity** is measured on held-out text; lower is better.
- **Flips** are weights that change between kept and dropped.
"""

AT_WORK = "takes effect at the next half step and grows on by the rest of the ramp: the dotted line below"
NOT_AT_WORK = "only while it is at work; the λ1 of the next run is among its settings"


class LearnScreen:
    """Starts runs, shows the one chosen, and steers it."""

    name, title = "learn", "Learn"
    keys = (Key(" ", "pause the run, or let it go on", "#pause, #resume"), *scrubbing("scrubber", "step"))
    css = (
        LearnForm.css
        + """
#controls { gap: 6px; flex-wrap: wrap; }
.chart { overflow: hidden; }
.result tr.learned { font-weight: 650; } .result p { font-size: .88em; }
.log { margin: 0; padding-left: 1em; font-size: .88em; }
/* Narrow: one column in the order of use, whatever side it stands on otherwise. */
@media (max-width: 760px) {
  #learn-sides { flex-direction: column; flex-wrap: nowrap; } #settings, #board { display: contents !important; }
  #learn-sides > * , #board > *, #settings > * { width: 100% !important; min-width: 0 !important; order: 9; }
  #banner { order: 1; } #controls { order: 2; } #settings-toggle { order: 3; } #form { order: 4; } #pace { order: 5; }
  #tiles { order: 6; } #result { order: 7; } #chart-curve { order: 8; }
  :is(#pace, #branches, #heatmap-controls) { flex-direction: column; }
  :is(#pace, #branches, #heatmap-controls) > * { width: 100% !important; }
  :is(#lambda-now, #scrubber) .head { flex-wrap: wrap; }
  #controls button { flex: 1 1 28% !important; min-width: 0 !important; min-height: 40px; }
}
"""
    )

    def __init__(self, operator: Operator, listing: Listing):
        self.operator = operator
        self.form, self.branches = LearnForm(operator), Branches(operator, listing)

    def build(self, shell) -> None:
        parts: dict = {}
        with gr.Row(equal_height=False, elem_id="learn-sides"):
            with gr.Column(scale=1, min_width=300, elem_id="settings"):
                gr.Markdown(WHAT, elem_id="what")
                with gr.Column(elem_id="form", elem_classes="folded"):
                    self.form.build()
                with gr.Accordion("The words on this page", open=False):
                    gr.Markdown(GLOSSARY)
            with gr.Column(scale=3, min_width=320, elem_id="board"):
                parts["banner"] = gr.HTML(elem_id="banner")
                with gr.Row(elem_id="controls"):
                    parts["run"] = gr.Button("Run", variant="primary", size="sm", min_width=110, elem_id="run")
                    for name, label in (
                        ("pause", "Pause"), ("resume", "Resume"), ("step", "Step"), ("gradient", "Gradient half"),
                        ("prox", "Prox half"), ("stop", "Stop"),
                    ):  # fmt: skip
                        parts[name] = gr.Button(label, size="sm", interactive=False, min_width=84, elem_id=name)
                toggle()
                with gr.Row(elem_id="pace"):
                    parts["strength"] = gr.Slider(
                        0, 0.2, value=0.02, step=0.001, label="Set λ1 of the run shown", interactive=False, elem_id="lambda-now",
                        scale=3, min_width=260, info=NOT_AT_WORK,
                    )  # fmt: skip
                    parts["delay"] = gr.Dropdown(
                        [(label, seconds) for seconds, label in PACES.items()], value=0.0, label="Slow motion", interactive=False,
                        info="the run rests between two halves, for all who watch it", min_width=180, elem_id="delay",
                    )  # fmt: skip
                parts["tiles"] = gr.HTML(elem_id="tiles")
                parts["result"] = gr.HTML(elem_id="result")
                parts["curve"] = live_plot("chart-curve", 430)
                self.branches.build()
                parts["lambda_curve"] = live_plot("chart-strength", 300)
                with gr.Row():
                    with gr.Column(min_width=320):
                        parts["composition"] = live_plot("chart-composition", 300)
                    with gr.Column(min_width=320):
                        parts["flips"] = live_plot("chart-flips", 300)
                with gr.Row(elem_id="heatmap-controls"):
                    parts["quantity"] = gr.Radio(
                        list(QUANTITIES), value="pattern share", label="Layer by layer", elem_id="quantity"
                    )
                    parts["scrubber"] = gr.Slider(
                        0, 1, value=1, step=1, label="Step shown (at the right end: the newest)", elem_id="scrubber"
                    )
                parts["heatmap"] = live_plot("chart-heatmap", 320)
                with gr.Accordion("What happened", open=False):
                    parts["log"] = gr.HTML(elem_id="log")

        self.parts = parts
        self.inputs = [parts["quantity"], parts["scrubber"], self.branches.step, self.branches.others]
        self.address = {
            "quantity": parts["quantity"],
            scrubber.NAME: scrubber.entry(parts["scrubber"]),
            BESIDE: self.branches.entry(),
        }
        self.outputs = [
            *(parts[name] for name in ("banner", "tiles", "result", "log", *CHARTS, "heatmap", "scrubber", "strength", "delay")),
            *(parts[name] for name in ("run", *COMMANDS)), self.branches.step, self.branches.button, self.branches.others,
        ]  # fmt: skip

    # Looking

    def render(self, shown: Shown) -> dict[Component, Any]:
        """Words when the state changed, charts when a curve would look different, the form when another run is shown."""
        parts, view, id = self.parts, shown.view, shown.id
        updates: dict[Component, Any] = {}
        run_changed = shown.changed("run", (id, view and view.created))
        if shown.changed("state", view and (view.state, view.asked, view.records)):
            updates[parts["banner"]] = status.banner(view, id)
            updates |= self._buttons(view, id)
        if shown.changed("records", view and view.records) or run_changed:
            updates |= {parts[name]: self._words(name, view) for name in ("tiles", "result", "log")}
        more, others = self.branches.render(shown, run_changed)
        updates |= more
        updates |= self._charts(shown, others)
        updates |= self._layers(shown, run_changed)
        updates |= self._strength(shown, run_changed)
        updates |= self._delay(shown)
        return updates

    @staticmethod
    def _words(name: str, view: RunSnapshot | None) -> str:
        write = getattr(status, name)
        if view is None:
            return write(None)
        look = (name, view.run.path, view.created, view.records, view.strength, view.state["status"])
        return SHARED.text(look, lambda: write(view))

    def _charts(self, shown: Shown, others: list[RunSnapshot]) -> dict[Component, str]:
        """Each chart when it would look different: the learning curve also when another run in it went on, the strength
        when somebody set λ1."""
        view, parts = shown.view, self.parts
        if view is None:
            shown.seen.update(curves=None, ahead=None)
            return {parts[name]: "" for name in CHARTS} if shown.changed("drawn", None) else {}
        updates: dict[Component, str] = {}

        def draw(name: str, looks: tuple, figure: Callable[[], go.Figure]) -> None:
            updates[parts[name]] = SHARED.chart((name, view.run.path, *looks), figure)

        if shown.changed("drawn", view.drawn):
            draw("composition", view.drawn, lambda: figures.composition(view.curves()))
            draw("flips", view.drawn, lambda: figures.flips(view.curves(), view.weights))
        beside = tuple((other.run.path, other.drawn) for other in others)
        if shown.changed("curves", (view.drawn, beside)):
            draw("curve", (view.drawn, beside), lambda: self.branches.curves(view, others))
        coming, planned = strengths_to_come(view), planned_strengths(view)
        end = f"{coming[max(coming)]:.5g}" if coming else None  # stays the same until somebody sets λ1
        if shown.changed("ahead", (view.drawn, end)):
            draw("lambda_curve", (view.drawn, end), lambda: figures.strength(view.curves(), coming, planned))
        return updates

    def _layers(self, shown: Shown, run_changed: bool) -> dict[Component, Any]:
        """The heatmap at the step that the slider names; at its right end it follows the newest."""
        view, parts = shown.view, self.parts
        quantity = shown.values[parts["quantity"]]
        at = scrubber.scrub(parts["scrubber"], shown, view.newest if view else 0, run_changed)
        updates = dict(at.updates)
        drawn = view and (view.drawn if at.follows else at.step, quantity, view.created)
        if shown.changed("heatmap", drawn):
            updates[parts["heatmap"]] = self._heatmap(view, at.step, quantity) if view else ""
        return updates

    def _heatmap(self, view: RunSnapshot, step: int, quantity: str) -> str:
        limits = view.limits.get(quantity)

        def draw() -> go.Figure:
            return figures.layer_heatmap(view.layers, view.layer_record(step), quantity, limits)

        return SHARED.chart(("heatmap", view.run.path, view.created, view.records, step, quantity, limits), draw)

    def _strength(self, shown: Shown, run_changed: bool) -> dict[Component, Any]:
        """While λ1 grows by itself the slider stays where a hand may be: it moves when somebody set λ1, and when the run
        does not run."""
        view, slider = shown.view, self.parts["strength"]
        if view is None:
            return {slider: gr.update(interactive=False, info=NOT_AT_WORK)} if shown.changed("strength", None) else {}
        by_hand = sum(event["event"] == "lambda1" for event in view.events)
        grows = view.state["status"] == "running" and shown.seen.get("by_hand") == by_hand and not run_changed
        shown.seen["by_hand"] = by_hand
        changes: dict[str, Any] = {}
        strength = strength_to_come(view)
        if not grows and (shown.changed("strength", strength) or run_changed):
            value, most = (
                float(f"{number:.4g}") for number in (strength, max(0.2, 4 * view.job.learn.lambda1, strength))
            )
            changes = {"value": value, "maximum": most, "step": most / 2000}
        active = view.is_active and shown.id != EXAMPLE_ID
        if shown.changed("active", active):
            changes["info"] = AT_WORK if active else NOT_AT_WORK
        return {slider: gr.update(interactive=active, **changes)} if changes else {}

    def _delay(self, shown: Shown) -> dict[Component, Any]:
        view = shown.view
        active = view is not None and view.is_active and shown.id != EXAMPLE_ID
        delay = float(view.state.get("delay", 0.0)) if active else 0.0
        if not shown.changed("delay", (shown.id, delay, active)):
            return {}
        choices = [
            (label, seconds) for seconds, label in (PACES | {delay: PACES.get(delay, f"every {delay:g} s")}).items()
        ]
        return {self.parts["delay"]: gr.update(choices=choices, value=delay, interactive=active)}

    def _buttons(self, view: RunSnapshot | None, id: str) -> dict[Component, Any]:
        state = {} if view is None or id == EXAMPLE_ID else view.state
        word, phase, asked = state.get("status"), state.get("phase"), () if view is None else view.asked
        enabled = {
            self.parts["run"]: not (view and view.is_active and id != EXAMPLE_ID),
            self.parts["step"]: word == "paused",
            self.parts["gradient"]: word == "paused" and phase == "gradient",
            self.parts["prox"]: word == "paused" and phase == "prox",
            self.branches.button: bool(state) and bool(view.run.checkpoints()),
        }
        steering = {self.parts[name]: update for name, update in buttons(word, asked).items()}
        return {button: gr.update(interactive=value) for button, value in enabled.items()} | steering

    # Doing

    def wire(self, shell) -> None:
        """Every button sends a command to the run shown, or makes a new run and shows that one."""
        parts, form = self.parts, self.form
        shell.on(shell.id.change, form.fill, [shell.id], form.filled)
        gr.on([parts["quantity"].change, parts["scrubber"].input, self.branches.others.input], **shell.looking(self))
        form.wire(shell)
        self.branches.wire(shell, [form.evaluate_on, *form.values])
        shell.on(parts["run"].click, self.start, [form.model, form.corpus, form.evaluate_on, *form.values], [shell.id])
        for command in COMMANDS:
            shell.on(parts[command].click, lambda id, command=command: self.send(command, id), [shell.id])
        shell.on(parts["strength"].release, self.set_strength, [shell.id, parts["strength"]])
        shell.on(parts["delay"].input, self.set_delay, [shell.id, parts["delay"]])

    def start(self, model: str, corpus: str, evaluate_on: list[str] | None, *values) -> str:
        """Begin a run with what stands in the form; returns its id."""
        self.operator.rights.require_acting()
        model, corpus = self.operator.check_model(model), self.operator.check_corpus(corpus)
        texts = self.operator.check_texts(evaluate_on)
        job = job_from(model, corpus, texts, dict(zip(SETTINGS, values, strict=True)))
        return self.operator.learn(job)

    def send(self, command: str, id: str) -> None:
        """Pause, resume, take a step or a half, stop."""
        steer(self.operator.find_to_change(id), command)

    def set_strength(self, id: str, strength: float) -> None:
        """Change λ1 of the run shown, from its next half step on."""
        run = self.operator.find_to_change(id)
        run.send("set", lambda1=strength)
        left = run.state().get("growth_left") or 1.0
        if left > STEEP:
            warn(
                f"λ1 is {strength:g} from the next half step on, and grows by the rest of the ramp to {strength * left:.3g} at the last: "
                f"for that strength at the end set {strength / left:.2g} now, or start a run with ramp 1, which is constant.",
                stays=True,
            )

    def set_delay(self, id: str, seconds: float) -> None:
        """Let the run shown rest so long between two half steps."""
        self.operator.find_to_change(id).send("delay", seconds=seconds)
