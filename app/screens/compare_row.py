"""What can be done with one method of a comparison: open its mask, export it, learn from it."""

from __future__ import annotations

from html import escape
from typing import Any
from urllib.parse import quote, urlencode

import gradio as gr
from gradio.components import Component

from app import html
from app.operator import EXAMPLE_ID, HAS_EXAMPLE, Operator
from app.screens.export_parts import verdict
from app.screens.masks import OTHER_METHOD
from app.screens.shown import Shown
from app.views.comparison import Compared, compared, run_beside
from app.views.listing import Listing, Row
from proxsparse import LearnConfig, LearnJob, ProxSparseError
from proxsparse.config import EXPORT_FORMATS, METHODS, CompareJob
from proxsparse.files import read_json
from proxsparse.runs import Run, start_export
from proxsparse.runs.directory import ACTIVE

# Where learning starts at the mask of a method: the metric in which it ranks the weights.
STARTS_AT = {"magnitude": "weight", "wanda": "activation", "proxsparse-paper": "weight", "proxsparse": "activation"}
NOT_FROM = (
    "Learning starts at the mask of magnitude (metric weight) or of Wanda (metric activation): choose one of these, or a run, which can be "
    "forked."
)


class CompareRow:
    """The part of the Compare screen that belongs to the method chosen in the table."""

    css = """
#compare-row { border-left: 4px solid #0072B2; padding-left: 12px; align-items: center; flex-wrap: wrap; }
#compare-about { min-width: min(300px, 100%) !important; } #compare-row h3 { margin: 4px 0; font-size: 1rem; }
"""

    def __init__(self, operator: Operator, listing: Listing):
        self.operator, self.listing = operator, listing

    def build(self) -> None:
        with gr.Row(visible=False, elem_id="compare-row") as self.place:
            self.about = gr.HTML(elem_id="compare-about", min_height=20)
            with gr.Column(scale=0, min_width=180):
                self.learn = gr.Button("Learn from it", size="sm", elem_id="compare-learn")
                self.export = gr.Button("Export it", size="sm", elem_id="compare-export")
            self.format = gr.Radio(
                list(EXPORT_FORMATS),
                value="dense",
                label="Format of the export",
                scale=0,
                min_width=200,
                elem_id="compare-format",
            )
        self.outputs = [self.place, self.about, self.learn, self.export, self.format]

    def wire(self, shell, chosen: gr.Dropdown, method: gr.Textbox) -> None:
        shell.on(self.learn.click, self.learn_from, [chosen, method], [shell.id, shell.tabs])
        shell.on(self.export.click, self.export_it, [chosen, method, self.format])

    # Looking

    def render(self, shown: Shown, found: Compared, method: str, rows: tuple[Row, ...]) -> dict[Component, Any]:
        """Shown while a method of the table is chosen."""
        if method == found.base or found.ended.get(method) != "measured":
            return self.nothing() if shown.changed("row", None) else {}
        export = found.run.export(method)
        state = export and export.state()
        if not shown.changed("row", (found.run.id, found.signature, method, tuple(row.id for row in rows), state)):
            return {}
        run = self._run_of(found, method)
        links = [self._masks(found, method, run, shown.id, rows)]
        if run is not None:
            links.append(f"<a href='?{escape(urlencode({'run': run}))}'>Open the run, to go on or fork it</a>")
        about = (
            METHODS[method].about if method in METHODS else "a run" if run else "a sparse checkpoint of another tool"
        )
        words = f"<h3>{escape(method)}</h3><p class='note'>{escape(about)}</p><p>{' · '.join(filter(None, links))}</p>"
        words += _exported(found, method, export)
        possible, recorded = method in STARTS_AT and run is None, bool(found.run.header().get("recorded"))
        busy = state is not None and state["status"] in ACTIVE
        exportable = method in found.masks() and not _changes_weights(found, method) and not recorded
        return {
            self.place: gr.update(visible=True), self.about: words,
            self.learn: gr.update(visible=run is None, interactive=possible, value=_label(method)),
            self.export: gr.update(interactive=exportable and not busy),
            self.format: gr.update(visible=exportable),
        }  # fmt: skip

    def nothing(self) -> dict[Component, Any]:
        """While none is chosen."""
        return {self.place: gr.update(visible=False)}

    def _run_of(self, found: Compared, method: str) -> str | None:
        """The run of this folder that is compared under this name, if it is one."""
        path = found.job.run_names().get(method)
        return method if path is not None and (self.operator.runs / method / "run.json").is_file() else None

    def _masks(self, found: Compared, method: str, run: str | None, shown: str, rows: tuple[Row, ...]) -> str:
        """A link to the mask on the Masks screen, or why there is none."""
        if run is not None:
            return f"<a href='?{escape(urlencode({'run': run, 'screen': 'masks'}))}'>Open its masks, step by step</a>"
        if method not in found.masks():
            return "Its mask is not on disk."
        beside = run_beside(found.job, rows, shown, EXAMPLE_ID if HAS_EXAMPLE else "", self.operator.find)
        if beside is None:
            return (
                "To open its mask, learn one of the same model first: the Masks screen lays the two beside each other."
            )
        view = {
            "run": beside,
            "screen": "masks",
            "against": OTHER_METHOD,
            "othermask": f"{found.run.id}/{method}",
            "colour": "against another mask",
        }
        whose = "that of the recorded example" if beside == EXAMPLE_ID else f"that of run {beside}"
        return f"<a href='?{escape(urlencode(view))}'>Open its mask, beside {escape(whose)}</a>"

    # Doing

    def export_it(self, id: str, method: str, format: str) -> None:
        """Write the model under the mask of this method, and prove it."""
        start_export(self.operator.find_to_change(id), format, method)

    def learn_from(self, id: str, method: str) -> tuple[str, Any]:
        """Start a run with the settings of this method; returns which run is shown from now on, and where."""
        self.operator.rights.require_acting()
        job = learning_from(compared(self.operator.find_any(id)).job, method)
        return self.operator.learn(job), gr.update(selected="learn")


def _changes_weights(found: Compared, method: str) -> bool:
    return bool(found.table.set_index("method")["weights_changed"].get(method, False))


def _exported(found: Compared, method: str, export: Run | None) -> str:
    """How far the export of the method's mask is, and where it can be had."""
    if _changes_weights(found, method):
        return "<p class='note'>It updates the weights that it keeps. An export is the original weights under a mask, so it has none.</p>"
    if export is None:
        return ""
    state, report = export.state(), read_json(export.path / "report.json")
    if state["status"] in ("failed", "interrupted"):
        return html.failure(state.get("error") or state["doing"])
    if report is None:
        return (
            f"<p><span class='status running'>exporting</span> <span class='doing'>{escape(state['doing'])}</span></p>"
        )
    address = f"download/{quote(found.run.id)}/of/{quote(method)}.zip"
    about = f"Download the {escape(report['format'])} export ({html.size(report['bytes'])})"
    return f"{verdict(report['verification'])}<p><a class='download' href='{address}' download>{about}</a></p>"


def learning_from(job: CompareJob, method: str) -> LearnJob:
    """A run on the model and texts of a comparison that starts at the mask of a method, and learns as that method does where it
    learns. Raises ProxSparseError for a method at whose mask no run starts."""
    if method not in STARTS_AT:
        raise ProxSparseError(f"{method!r} is no start: {NOT_FROM}")
    options = METHODS[method].options if METHODS[method].learns else {"metric": STARTS_AT[method]}
    learn = LearnConfig(steps=job.steps, batch=job.batch, seed=job.seed, n=job.n, m=job.m, **options)
    return LearnJob(
        job.model, job.corpus, length=job.length, context=job.context, bos=job.bos, windows=job.windows, device=job.device,
        evaluate_on=job.evaluate_on, learn=learn,
    )  # fmt: skip


def _label(method: str) -> str:
    return "Learn as it does" if method in METHODS and METHODS[method].learns else "Learn from its mask"
