"""The Export screen: write the sparse model of the run shown, prove it, and take it home."""

from __future__ import annotations

import json
from html import escape
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.components import Component

from app import html
from app.operator import EXAMPLE_ID, Operator
from app.screens.shown import Shown
from app.views.run import RunSnapshot
from proxsparse.runs import Run, start_export

INTRODUCTION = """
The export is the **original model with every weight that the mask drops set to zero**. Before you get it, every weight is read back
from disk and compared with the original.
"""
FORMATS = (("Dense, with zeros: loads anywhere", "dense"), ("Compact, without them: smaller on disk", "compact"))
WHAT_IT_IS = {
    "dense": """A dense checkpoint with zeros: it loads anywhere that loads the original, and by itself it is neither smaller nor
faster.""",
    "compact": """A compact checkpoint: the kept values and one bit a weight. proxsparse puts the zeros back when it loads the model,
which is then as large in memory as the original, and not faster by itself; other programs do not read this format.""",
}
CODE = {
    "dense": """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}")  # the unpacked zip
tokenizer = AutoTokenizer.from_pretrained("{folder}")

inputs = tokenizer("The lighthouse keeper", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))
""",
    "compact": """from proxsparse import load_compact

lm = load_compact("{folder}")  # the unpacked zip

inputs = lm.tokenizer("The lighthouse keeper", return_tensors="pt").to(lm.model.device)
print(lm.tokenizer.decode(lm.model.generate(**inputs, max_new_tokens=40)[0]))
""",
}


def report_of(view: RunSnapshot) -> dict | None:
    """What the last finished export of a run says of itself."""
    export = view.run.export()
    path = None if export is None else export.path / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else None


def summary(view: RunSnapshot | None, id: str) -> str:
    """The state of the export, the files, and the proof, as HTML."""
    if view is None:
        return html.note("There is no run to export yet.")
    export = view.run.export()
    if export is None:
        if id == EXAMPLE_ID:
            return html.note("This is a recorded example without weights. Learn a mask of your own, then export it.")
        if not view.run.masks():
            return html.note("This run has no masks yet: they are written with its first measurement.")
        return html.note(f"Not exported yet. The newest masks are of step {max(view.run.masks())}.")
    state = export.state()
    if state["status"] in ("failed", "interrupted"):
        return html.failure(state.get("error") or state["doing"])
    report = report_of(view)
    if report is None:
        doing, format = escape(state["doing"]), export.header()["format"]
        return (
            f"<div class='banner'><span class='status running'>exporting, {format}</span> "
            f"<span class='doing'>{doing}</span></div>"
        )
    # Exports of before there was a choice lack three of these.
    about = (
        WHAT_IT_IS[report.get("format", "dense")],
        report.get("size", {}).get("summary", ""),
        report.get("speed", ""),
    )
    what = "<h3>What this is</h3>" + "".join(f"<p>{html.with_code(part)}</p>" for part in about if part)
    return _files(report, id, export.header()["step"]) + what + _proof(report["verification"])


def code(export: Run | None, id: str) -> str:
    """How an export is loaded; before there is one, how a dense one is."""
    format = "dense" if export is None else export.header()["format"]
    return CODE[format].format(folder=id or "run")


def _files(report: dict, id: str, step: int) -> str:
    address = f"download/{quote(id)}"
    rows = (
        (
            f"<a href='{address}/{quote(file['name'])}' download>{escape(file['name'])}</a>",
            html.size(file["bytes"]),
            escape(file["about"]),
        )
        for file in report["files"]
    )
    return f"""<h3>Files, masks of step {step}</h3>
<p><a class='download' href='{address}.zip' download>Download all as one .zip ({html.size(report["bytes"])})</a></p>
{html.table(("file", "size", "what it is"), rows, numeric=(1,))}"""


def _proof(verification: dict) -> str:
    rows = (
        (
            escape(layer["name"]), f"{layer['rows']} × {layer['columns']}", f"{layer['groups']:,}", str(layer["bad_groups"]),
            str(layer["changed_weights"]),
        )
        for layer in verification["layers"]
    )  # fmt: skip
    columns = ("layer", "shape", "groups", f"groups not {verification['pattern']}", "kept weights changed")
    verdict, word = ("done", "proven") if verification["ok"] else ("failed", "not proven")
    return f"""<h3>Verification, read back from disk</h3>
<p><span class='status {verdict}'>{word}</span> {escape(verification["summary"])}</p>
<details><summary>Layer by layer ({len(verification["layers"])})</summary>
{html.table(columns, rows, numeric=(1, 2, 3, 4))}</details>"""


class ExportScreen:
    """Starts an export of the run shown, and shows what came out."""

    name, title, keys = "export", "Export", ()
    css = """
a.download { display: inline-block; padding: 8px 16px; border-radius: 6px; background: #0072B2;
  color: #fff !important; text-decoration: none; }
#export-report code { overflow-wrap: anywhere; } #export-report td:last-child { min-width: 9em; }
"""

    def __init__(self, operator: Operator):
        self.operator = operator

    def build(self, shell) -> None:
        """A choice of the format, a button, the report, and how the result is loaded."""
        gr.Markdown(INTRODUCTION)
        self.format = gr.Radio(list(FORMATS), value="dense", label="Format", elem_id="export-format")
        self.button = gr.Button("Export this run", variant="primary", elem_id="export")
        self.report = gr.HTML(elem_id="export-report")
        gr.Markdown("### Load it")
        self.lines = gr.Code(language="python", label="Python", interactive=False, elem_id="export-code")
        self.inputs, self.outputs = [], [self.button, self.report, self.lines]
        self.address = {"format": self.format}

    def wire(self, shell) -> None:
        """The button starts an export of the run shown."""
        shell.on(self.button.click, self.export, [shell.id, self.format])

    def render(self, shown: Shown) -> dict[Component, Any]:
        """All of it when the export, or the masks that it would take, changed."""
        view, id = shown.view, shown.id
        export = view and view.run.export()
        state, masks = export and export.state(), view and max(view.run.masks(), default=None)
        if not shown.changed("export", (id, view and view.created, state, masks)):
            return {}
        possible = view is not None and id != EXAMPLE_ID and masks is not None
        busy = state is not None and state["status"] in ("new", "starting", "running")
        return {
            self.report: summary(view, id),
            self.lines: code(export, id),
            self.button: gr.update(interactive=possible and not busy),
        }

    def export(self, id: str, format: str) -> None:
        """Start it. Raises ProxSparseError where the run has no masks, or another export is being written."""
        start_export(self.operator.find_to_change(id), format)
