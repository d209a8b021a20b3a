"""The page: its two screens, and what happens when something is pressed or time passes."""

from __future__ import annotations

import functools

import gradio as gr

from app import export_screen, learn_screen, status
from app.live_plot import as_value
from app.operator import CORPORA, EXAMPLE, EXAMPLE_ID, Operator
from app.settings_form import SETTINGS, job_from, values_of
from app.view import RunView, view_of
from proxsparse import PRESETS, ProxSparseError, figures
from proxsparse.runs import Run, list_runs, new_run_path, start_export

TICK_SECONDS = 1.0
FORKABLE = (
    "steps", "lambda1", "learning_rate", "warmup", "decay", "batch", "accumulation", "clip", "lambda2", "epsilon", "precision",
)  # fmt: skip
# The address names the run: it can be reloaded, kept and passed on.
REMEMBER = """(id) => {
  const address = new URL(window.location);
  if (id) address.searchParams.set('run', id); else address.searchParams.delete('run');
  window.history.replaceState(null, '', address);
}"""


def said_on_page(handler):
    """Turn what the user can mend into one sentence on the page, which stays until it is closed."""

    @functools.wraps(handler)
    def wrapped(*arguments):
        try:
            return handler(*arguments)
        except ProxSparseError as error:
            raise gr.Error(str(error), duration=None, title="Not possible", print_exception=False) from error

    return wrapped


class Page:
    """Handlers of one page. They hold no state of a visitor: that lives in the page, and the runs on disk."""

    def __init__(self, operator: Operator):
        self.operator = operator

    # Looking

    def view(self, id: str) -> RunView | None:
        return view_of(self.operator.find(id).path.resolve()).refresh() if id else None

    def choices(self) -> list[tuple[str, str]]:
        entries = []
        for run in list_runs(self.operator.runs, "learn"):
            state, job = run.state(), run.job()
            label = f"{run.id}: {state['status']}, step {state['step']}/{job.learn.steps}"
            entries.append((label, run.id))
        if (EXAMPLE / "run.json").is_file():
            entries.append(("recorded example", EXAMPLE_ID))
        return entries

    def open(self, request: gr.Request):
        """What a fresh page shows: the run of its address, else the newest, else the recorded example."""
        id = request.query_params.get("run", "")
        if id:
            try:
                self.operator.find(id)
            except ProxSparseError as error:
                gr.Warning(str(error))
                id = ""
        choices = self.choices()
        id = id or (choices[0][1] if choices else "")
        return id, gr.update(choices=choices, value=id or None)

    @said_on_page
    def show(self, id: str, seen: dict, quantity: str, scrubbed: float):
        """Everything on the screen that belongs to the run; nothing at all when nothing changed."""
        view = self.view(id)
        version = None if view is None else view.version
        export = None if view is None else view.run.export()
        exported = None if export is None else export.state()
        now = {"id": id, "version": version, "quantity": quantity, "exported": exported}
        newest = view.steps[-1]["step"] if view and view.steps else 0
        follow = seen.get("id") != id or scrubbed >= seen.get("newest", 0)
        shown_step = newest if follow else int(scrubbed)
        now |= {"newest": newest, "shown_step": shown_step}
        if now == {key: seen.get(key) for key in now}:
            return gr.skip()
        same_run = seen.get("id") == id
        moved = not same_run or seen.get("version") != version
        strength = None if view is None else view.strength
        # While it grows by itself the slider stays where a hand may be: it follows what was set, and rests when the run does.
        by_hand = 0 if view is None else sum(event["event"] == "lambda1" for event in view.events)
        grows = view is not None and view.state.get("status") == "running" and seen.get("by_hand") == by_hand
        now |= {"strength": strength, "by_hand": by_hand}
        charts = self._charts(view) if moved else [gr.skip()] * 4
        words = (
            [status.banner(view, id), status.tiles(view), status.result(view), status.log(view)]
            if moved
            else [gr.skip()] * 4
        )
        return (
            now, *words, *charts, self._heatmap(view, quantity, None if follow else shown_step),
            # Its value only when it moves: an answer on its way must not undo what somebody has just chosen.
            gr.update(maximum=max(newest, 1), **({"value": newest} if follow and scrubbed != newest else {})),
            self._strength(view, strength, same_run and (grows or seen.get("strength") == strength)),
            gr.update(interactive=not (view and view.is_active)),
            *self._buttons(view, id), export_screen.summary(view, id), export_screen.code(view, id),
            gr.update(interactive=self._can_export(view, id, exported)),
        )  # fmt: skip

    def _charts(self, view: RunView | None) -> list[str]:
        if view is None:
            return [""] * 4
        steps, perplexity = view.steps_table(), view.perplexity_table()
        drawn = (
            figures.learning_curve(steps, perplexity), figures.composition(steps),
            figures.flips(steps, view.weights), figures.strength(steps),
        )  # fmt: skip
        return [as_value(figure) for figure in drawn]

    def _heatmap(self, view: RunView | None, quantity: str, step: int | None) -> str:
        if view is None:
            return ""
        record = view.layer_record(step)
        return as_value(figures.layer_heatmap(view.layers, record, quantity, view.limits.get(quantity)))

    def _strength(self, view: RunView | None, strength: float | None, unchanged: bool):
        if view is None:
            return gr.update(interactive=False)
        most = max(0.2, 4 * view.job.learn.lambda1, strength)
        changes = {} if unchanged else {"value": float(f"{strength:.4g}"), "maximum": most, "step": most / 2000}
        return gr.update(interactive=view.is_active, **changes)

    def _buttons(self, view: RunView | None, id: str) -> list:
        state = {} if view is None or id == EXAMPLE_ID else view.state
        word, phase = state.get("status"), state.get("phase")
        waiting = word == "paused"
        enabled = (
            word == "running",
            word in ("paused", "stopped", "interrupted", "failed", "new"),
            waiting,
            waiting and phase == "gradient",
            waiting and phase == "prox",
            word in ("starting", "running", "paused"),
            bool(state) and bool(view.run.checkpoints()),
        )
        return [gr.update(interactive=value) for value in enabled]

    def _can_export(self, view: RunView | None, id: str, exported: dict | None) -> bool:
        busy = exported is not None and exported["status"] in ("new", "starting", "running")
        return view is not None and id != EXAMPLE_ID and bool(view.run.masks()) and not busy

    # Doing

    @said_on_page
    def start(self, model: str, corpus: str, *values):
        job = job_from(
            self.operator.check_model(model),
            self.operator.check_corpus(corpus),
            dict(zip(SETTINGS, values, strict=True)),
        )
        run = Run.create(job, new_run_path(self.operator.runs, job.model))
        run.start()
        return run.id, gr.update(choices=self.choices(), value=run.id)

    @said_on_page
    def fork(self, id: str, *values):
        job = job_from("embedded", "bundled", dict(zip(SETTINGS, values, strict=True)))
        changes = {name: getattr(job.learn, name) for name in FORKABLE}
        parent = self.operator.find(id)
        run = parent.fork(new_run_path(self.operator.runs, f"{parent.job().model}-fork"), **changes)
        run.start()
        return run.id, gr.update(choices=self.choices(), value=run.id)

    @said_on_page
    def send(self, command: str, id: str) -> None:
        run = self.operator.find(id)
        if command == "resume" and run.state()["status"] != "paused":
            run.start()
        else:
            run.send(command)

    @said_on_page
    def set_strength(self, id: str, strength: float) -> None:
        self.operator.find(id).send("set", lambda1=strength)

    @said_on_page
    def export(self, id: str, format: str) -> None:
        if id == EXAMPLE_ID:
            raise ProxSparseError("The recorded example has no weights: learn a mask of your own, then export it.")
        start_export(self.operator.find(id), format)

    @said_on_page
    def upload(self, path: str):
        name = self.operator.keep_upload(path)
        return gr.update(choices=[*CORPORA, name], value=name)

    def use_preset(self, name: str) -> list:
        return values_of(PRESETS[name])


def build(operator: Operator) -> gr.Blocks:
    """The page, wired."""
    page = Page(operator)
    with gr.Blocks(title="ProxSparse Explorer", fill_width=True, analytics_enabled=False) as blocks:
        gr.HTML(
            "<header><h1>ProxSparse Explorer</h1><p>Watch a language model learn which two of every four weights to keep.</p></header>"
        )
        with gr.Row(elem_id="run-bar"):
            runs = gr.Dropdown([], label="Run shown", elem_id="runs", scale=4)
            refresh = gr.Button("Refresh the list", size="sm", scale=0, min_width=130, elem_id="refresh")
        id, seen = gr.Textbox(visible="hidden", elem_id="run-id"), gr.State({})
        with gr.Tab("Learn", id="learn"):
            learn = learn_screen.build()
        with gr.Tab("Export", id="export-tab"):
            export = export_screen.build()
        timer = gr.Timer(TICK_SECONDS)

        form = [learn["settings"][name] for name in SETTINGS]
        screen = [
            seen, learn["banner"], learn["tiles"], learn["result"], learn["log"],
            learn["curve"], learn["composition"], learn["flips"], learn["lambda_curve"], learn["heatmap"],
            learn["scrubber"], learn["strength"],
            *(learn[name] for name in ("run", "pause", "resume", "step", "gradient", "prox", "stop", "fork")),
            export["report"], export["code"], export["export"],
        ]  # fmt: skip
        looking = {
            "fn": page.show, "inputs": [id, seen, learn["quantity"], learn["scrubber"]], "outputs": screen,
            "show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private",
        }  # fmt: skip
        doing = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "hidden"}

        blocks.load(page.open, None, [id, runs], **doing).then(**looking)
        timer.tick(**looking)
        id.change(None, [id], None, js=REMEMBER)
        runs.input(lambda chosen: chosen or "", [runs], [id], **doing).then(**looking)
        refresh.click(lambda: gr.update(choices=page.choices()), None, [runs], **doing)
        gr.on([learn["quantity"].change, learn["scrubber"].input], **looking)

        learn["preset"].input(page.use_preset, [learn["preset"]], form, **doing)
        learn["upload"].upload(page.upload, [learn["upload"]], [learn["corpus"]], **doing)
        learn["run"].click(page.start, [learn["model"], learn["corpus"], *form], [id, runs], **doing).then(**looking)
        learn["fork"].click(page.fork, [id, *form], [id, runs], **doing).then(**looking)
        for command in ("pause", "resume", "step", "gradient", "prox", "stop"):
            learn[command].click(functools.partial(page.send, command), [id], None, **doing).then(**looking)
        learn["strength"].release(page.set_strength, [id, learn["strength"]], None, **doing)
        export["export"].click(page.export, [id, export["format"]], None, **doing).then(**looking)
    return blocks
