"""The Learn screen: settings on the left, the run on the right."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from app import status
from app.address import Entry, number
from app.keyboard import Key, scrubbing
from app.live_plot import as_value, live_plot
from app.operator import CORPORA, EXAMPLE_ID, Operator
from app.screens.screen import Shown
from app.settings_form import BASIC, MACHINE, OPTIMIZER, REGULARIZER, SETTINGS, TEXT, job_from, settings, values_of
from app.views.run import RunSnapshot
from proxsparse import PRESETS, LearnConfig, LearnJob, ProxSparseError, figures
from proxsparse.figures import QUANTITIES
from proxsparse.runs import Run, new_run_path
from proxsparse.settings import settings_of

COMMANDS = ("pause", "resume", "step", "gradient", "prox", "stop")
AS_SHOWN = "as the run shown"  # in the list of presets: the form holds the settings of a run
CHARTS = ("curve", "composition", "flips", "lambda_curve")

WHAT = """
**2:4 sparsity** keeps two of every four neighbouring weights; other patterns keep n of every m. A **mask** says which. ProxSparse
*learns* it: while the model reads text, a regularizer of strength **λ1** pulls every group towards as few nonzeros as its pattern
keeps, and the language-model loss decides which.
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


class LearnScreen:
    """Starts runs, shows the one chosen, and steers it."""

    name, title = "learn", "Learn"
    keys = (Key(" ", "pause the run, or let it go on", "#pause, #resume"), *scrubbing("scrubber", "step"))
    css = """
#controls { gap: 6px; flex-wrap: wrap; }
.chart { overflow: hidden; }
.chart-title { margin: 4px 0 0 4px; font-size: .95rem; font-weight: 600; }
.result tr.learned { font-weight: 650; } .result p { opacity: .75; font-size: .88em; }
.log { margin: 0; padding-left: 1em; font-size: .88em; }
@media (max-width: 760px) { #settings { order: 2; } #board { order: 1; } }
"""

    def __init__(self, operator: Operator):
        self.operator = operator

    def build(self, shell) -> None:
        parts: dict = {}
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300, elem_id="settings"):
                gr.Markdown(WHAT)
                parts["preset"] = gr.Dropdown(
                    [*PRESETS, AS_SHOWN], value="Quick", label="Preset", elem_id="preset",
                    info="Quick: 80 steps of 2 × 256 tokens. Standard: 400 steps. Paper: the scripts' settings, made for the model named",
                )  # fmt: skip
                parts["model"] = gr.Textbox(
                    value="embedded", label="Model", max_lines=1, elem_id="model",
                    info="embedded (SmolLM2-135M), a Hub id, or a directory or .gguf file in a folder the operator allowed",
                )  # fmt: skip
                parts["corpus"] = gr.Dropdown(
                    list(CORPORA), value="bundled", allow_custom_value=True, label="Text", elem_id="corpus",
                    info="bundled works offline; wikitext2 and c4 come from the Hub; or upload your own",
                )  # fmt: skip
                parts["upload"] = gr.UploadButton(
                    "Upload a text (.txt, .jsonl)", file_count="single", size="sm", elem_id="upload"
                )
                parts["settings"] = settings(BASIC)
                with gr.Accordion("Text and measurement", open=False):
                    parts["settings"] |= settings(TEXT)
                with gr.Accordion("Optimizer", open=False):
                    parts["settings"] |= settings(OPTIMIZER)
                with gr.Accordion("Regularizer and metric", open=False):
                    parts["settings"] |= settings(REGULARIZER)
                with gr.Accordion("Machine", open=False):
                    parts["settings"] |= settings(MACHINE)
                with gr.Accordion("The words on this page", open=False):
                    gr.Markdown(GLOSSARY)
            with gr.Column(scale=3, min_width=320, elem_id="board"):
                parts["banner"] = gr.HTML(elem_id="banner")
                with gr.Row(elem_id="controls"):
                    parts["run"] = gr.Button("Run", variant="primary", size="sm", min_width=110, elem_id="run")
                    for name, label in (
                        ("pause", "Pause"), ("resume", "Resume"), ("step", "Step"), ("gradient", "Gradient half"),
                        ("prox", "Prox half"), ("stop", "Stop"), ("fork", "Fork with these settings"),
                    ):  # fmt: skip
                        parts[name] = gr.Button(
                            label, size="sm", interactive=False, min_width=190 if name == "fork" else 84, elem_id=name
                        )
                parts["strength"] = gr.Slider(
                    0, 0.2, value=0.02, step=0.001, label="Set λ1", interactive=False, elem_id="lambda-now",
                    info="strength of the regularizer; takes effect at the next half step, and grows on by the rest of the ramp",
                )  # fmt: skip
                parts["tiles"] = gr.HTML(elem_id="tiles")
                parts["result"] = gr.HTML(elem_id="result")
                parts["curve"] = live_plot("chart-curve", 430)
                with gr.Row():
                    with gr.Column(min_width=320):
                        parts["composition"] = live_plot("chart-composition", 300)
                    with gr.Column(min_width=320):
                        parts["flips"] = live_plot("chart-flips", 300)
                parts["lambda_curve"] = live_plot("chart-strength", 300)
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
        self.form = [parts["settings"][name] for name in SETTINGS]
        self.inputs = [parts["quantity"], parts["scrubber"]]
        self.address = {
            "quantity": parts["quantity"],
            "step": Entry(parts["scrubber"], _asked_step, _kept_step, fills=False),
        }
        self.outputs = [
            *(parts[name] for name in ("banner", "tiles", "result", "log", *CHARTS, "heatmap", "scrubber", "strength")),
            *(parts[name] for name in ("run", *COMMANDS, "fork", "preset", "model", "corpus")), *self.form,
        ]  # fmt: skip

    # Looking

    def render(self, shown: Shown) -> dict[Component, Any]:
        """Words when the state changed, charts when a curve would look different, the form when another run is shown."""
        parts, view, id = self.parts, shown.view, shown.id
        updates: dict[Component, Any] = {}
        run_changed = shown.changed("run", (id, view and view.created))
        if shown.changed("state", view and (view.state, view.records)):
            updates[parts["banner"]] = status.banner(view, id)
            updates |= self._buttons(view, id)
        if shown.changed("records", view and view.records) or run_changed:
            updates |= {parts[name]: getattr(status, name)(view) for name in ("tiles", "result", "log")}
        if shown.changed("drawn", view and view.drawn):
            updates |= self._charts(view)
        updates |= self._layers(shown, run_changed)
        updates |= self._strength(shown, run_changed)
        return updates

    def fill(self, id: str) -> dict[Component, Any]:
        """Put the settings of the run shown into the form: what a fork starts from, and a new run like it.

        Once for each run that the page comes to show, and not while it is shown: nothing that was typed is overwritten.
        """
        job, parts = self.operator.find(id).job() if id else LearnJob(), self.parts
        updates = dict(zip(self.form, values_of(job), strict=True))
        corpus = self.operator.shown_corpus(job.corpus)
        updates[parts["corpus"]] = gr.update(choices=list(dict.fromkeys((*CORPORA, corpus))), value=corpus)
        return updates | {parts["model"]: job.model, parts["preset"]: AS_SHOWN if id else "Quick"}

    def preset(self, name: str, id: str) -> list:
        """The settings of a preset, or again those of the run shown."""
        return values_of(PRESETS[name] if name != AS_SHOWN else self.operator.find(id).job() if id else LearnJob())

    def _charts(self, view: RunSnapshot | None) -> dict[Component, str]:
        if view is None:
            return {self.parts[name]: "" for name in CHARTS}
        steps, perplexity = view.curves(), view.measurements()
        drawn = (
            figures.learning_curve(steps, perplexity), figures.composition(steps), figures.flips(steps, view.weights),
            figures.strength(steps),
        )  # fmt: skip
        return {self.parts[name]: as_value(figure) for name, figure in zip(CHARTS, drawn, strict=True)}

    def _layers(self, shown: Shown, run_changed: bool) -> dict[Component, Any]:
        """The heatmap at the step that the slider names; at its right end it follows the newest."""
        view, parts = shown.view, self.parts
        quantity, scrubbed = shown.values[parts["quantity"]], shown.values[parts["scrubber"]]
        newest = view.newest if view else 0
        follows, wanted = run_changed or scrubbed >= shown.seen.get("newest", 0), scrubbed
        if shown.asked is not None:
            wanted = _asked_step(shown.asked.get("step", str(newest)))
            follows = wanted >= newest
        step = newest if follows else int(wanted)
        updates: dict[Component, Any] = {}
        # The slider's end comes down only once its value has: Gradio refuses a value, on its way here, beyond the end.
        end = max(newest, 1) if scrubbed <= max(newest, 1) else shown.seen.get("end", 1)
        if shown.changed("end", end) | shown.changed("newest", newest) | run_changed | (shown.asked is not None):
            # Its value only when it moves: an answer on its way must not undo what somebody has just chosen.
            moved = (follows or shown.asked is not None) and scrubbed != step
            value = {"value": step} if moved else {}
            updates[parts["scrubber"]] = gr.update(maximum=end, **value)
        drawn = view and (view.drawn if follows else step, quantity, view.created)
        if shown.changed("heatmap", drawn):
            record = view.layer_record(step) if view else None
            figure = view and figures.layer_heatmap(view.layers, record, quantity, view.limits.get(quantity))
            updates[parts["heatmap"]] = as_value(figure) if view else ""
        return updates

    def _strength(self, shown: Shown, run_changed: bool) -> dict[Component, Any]:
        """While λ1 grows by itself the slider stays where a hand may be: it moves when somebody set λ1, and when the run
        does not run."""
        view, slider = shown.view, self.parts["strength"]
        if view is None:
            return {slider: gr.update(interactive=False)} if shown.changed("strength", None) else {}
        by_hand = sum(event["event"] == "lambda1" for event in view.events)
        grows = view.state["status"] == "running" and shown.seen.get("by_hand") == by_hand and not run_changed
        shown.seen["by_hand"] = by_hand
        changes: dict[str, Any] = {}
        if not grows and (shown.changed("strength", view.strength) or run_changed):
            most = max(0.2, 4 * view.job.learn.lambda1, view.strength)
            changes = {"value": float(f"{view.strength:.4g}"), "maximum": most, "step": most / 2000}
        active = view.is_active and shown.id != EXAMPLE_ID
        return {slider: gr.update(interactive=active, **changes)} if shown.changed("active", active) or changes else {}

    def _buttons(self, view: RunSnapshot | None, id: str) -> dict[Component, Any]:
        state = {} if view is None or id == EXAMPLE_ID else view.state
        word, phase = state.get("status"), state.get("phase")
        enabled = {
            "run": not (view and view.is_active and id != EXAMPLE_ID),
            "pause": word == "running",
            "resume": word in ("paused", "stopped", "interrupted", "failed", "new"),
            "step": word == "paused",
            "gradient": word == "paused" and phase == "gradient",
            "prox": word == "paused" and phase == "prox",
            "stop": word in ("starting", "running", "paused"),
            "fork": bool(state) and bool(view.run.checkpoints()),
        }
        return {self.parts[name]: gr.update(interactive=value) for name, value in enabled.items()}

    # Doing

    def wire(self, shell) -> None:
        """Every button sends a command to the run shown, or makes a new run and shows that one."""
        parts = self.parts
        filled = [*self.form, parts["corpus"], parts["model"], parts["preset"]]
        shell.on(shell.id.change, self.fill, [shell.id], filled)
        gr.on([parts["quantity"].change, parts["scrubber"].input], **shell.looking())
        shell.on(parts["preset"].input, self.preset, [parts["preset"], shell.id], self.form)
        shell.on(parts["upload"].upload, self.upload, [parts["upload"]], [parts["corpus"]])
        shell.on(parts["run"].click, self.start, [parts["model"], parts["corpus"], *self.form], [shell.id])
        shell.on(parts["fork"].click, self.fork, [shell.id, *self.form], [shell.id])
        for command in COMMANDS:
            shell.on(parts[command].click, lambda id, command=command: self.send(command, id), [shell.id])
        shell.on(parts["strength"].release, self.set_strength, [shell.id, parts["strength"]])

    def start(self, model: str, corpus: str, *values) -> str:
        """Begin a run with what stands in the form; returns its id."""
        model, corpus = self.operator.check_model(model), self.operator.check_corpus(corpus)
        job = job_from(model, corpus, dict(zip(SETTINGS, values, strict=True)))
        run = Run.create(job, new_run_path(self.operator.runs, job.model))
        run.start()
        return run.id

    def fork(self, id: str, *values) -> str:
        """Go on from the last checkpoint with every setting of the form that differs from the run's; returns the fork's id.

        What a fork cannot change is refused by name.
        """
        parent = self.operator.find(id)
        before = parent.job()
        after = job_from(before.model, before.corpus, dict(zip(SETTINGS, values, strict=True)))
        changes = {
            name: value
            for config, old, new in ((LearnConfig, before.learn, after.learn), (LearnJob, before, after))
            for name in settings_of(config)
            if (value := getattr(new, name)) != getattr(old, name)
        }
        run = parent.fork(new_run_path(self.operator.runs, f"{before.model}-fork"), **changes)
        run.start()
        return run.id

    def send(self, command: str, id: str) -> None:
        """Pause, resume, take a step or a half, stop."""
        run = self.operator.find(id)
        if command == "resume" and run.state()["status"] != "paused":
            run.start()
        else:
            run.send(command)

    def set_strength(self, id: str, strength: float) -> None:
        """Change λ1 of the run shown, from its next half step on."""
        self.operator.find(id).send("set", lambda1=strength)

    def upload(self, path: str):
        """Keep a text, and choose it."""
        name = self.operator.keep_upload(path)
        return gr.update(choices=[*CORPORA, name], value=name)


def _asked_step(text: str) -> int:
    """The step that an address asks for. Raises ProxSparseError where it is none."""
    step = number(text)
    if not isinstance(step, int) or step < 0:
        raise ProxSparseError(f"{text!r} is no step.")
    return step


def _kept_step(step: float, shown: Shown) -> str:
    """The step of the scrubber, for the address; at its right end it follows the newest, and no step is meant."""
    if shown.asked is not None:
        return shown.asked.get("step", "")
    return "" if step >= shown.seen.get("newest", 0) else f"{step:.0f}"
