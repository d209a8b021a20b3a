"""The Export screen: write the sparse model of the run shown, prove it, and take it home."""

from __future__ import annotations

import json
import re
from html import escape
from urllib.parse import quote

import gradio as gr

from app.operator import EXAMPLE_ID
from app.view import RunView

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


def report_of(view: RunView) -> dict | None:
    """What the last finished export of a run says of itself."""
    export = view.run.export()
    path = None if export is None else export.path / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else None


def summary(view: RunView | None, id: str) -> str:
    """The state of the export, the files, and the proof, as HTML."""
    if view is None:
        return "<p class='note'>There is no run to export yet.</p>"
    export = view.run.export()
    if export is None:
        if id == EXAMPLE_ID:
            return "<p class='note'>This is a recorded example without weights. Learn a mask of your own, then export it.</p>"
        if not view.run.masks():
            return "<p class='note'>This run has no masks yet: they are written with its first measurement.</p>"
        return f"<p class='note'>Not exported yet. The newest masks are of step {max(view.run.masks())}.</p>"
    state = export.state()
    if state["status"] in ("failed", "interrupted"):
        return f"<div class='failure' role='alert'>{escape(state.get('error') or state['doing'])}</div>"
    report = report_of(view)
    if report is None:
        doing = escape(state["doing"])
        return f"<div class='banner'><span class='status running'>exporting</span> <span class='doing'>{doing}</span></div>"
    # Exports of before there was a choice lack three of these.
    about = (
        WHAT_IT_IS[report.get("format", "dense")],
        report.get("size", {}).get("summary", ""),
        report.get("speed", ""),
    )
    what = "<h3>What this is</h3>" + "".join(f"<p>{_with_code(part)}</p>" for part in about if part)
    return _files(report, id, export.header()["step"]) + what + _proof(report["verification"])


def code(view: RunView | None, id: str) -> str:
    """How the last export is loaded; before there is one, how a dense one is."""
    export = None if view is None else view.run.export()
    format = "dense" if export is None else export.header().get("format", "dense")
    return CODE[format].format(folder=id or "run")


def size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def _with_code(text: str) -> str:
    """As HTML, with `code` between backticks."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _files(report: dict, id: str, step: int) -> str:
    address = f"download/{quote(id)}"
    rows = "".join(
        f"<tr><td><a href='{address}/{quote(file['name'])}' download>{escape(file['name'])}</a></td>"
        f"<td class='number'>{size(file['bytes'])}</td><td>{escape(file['about'])}</td></tr>"
        for file in report["files"]
    )
    return f"""<h3>Files, masks of step {step}</h3>
<p><a class='download' href='{address}.zip' download>Download all as one .zip ({size(report["bytes"])})</a></p>
<div class='scroll'><table><thead><tr><th>file</th><th class='number'>size</th><th>what it is</th></tr></thead>
<tbody>{rows}</tbody></table></div>"""


def _proof(verification: dict) -> str:
    rows = "".join(
        f"<tr><td>{escape(layer['name'])}</td><td class='number'>{layer['rows']} × {layer['columns']}</td>"
        f"<td class='number'>{layer['groups']:,}</td><td class='number'>{layer['bad_groups']}</td>"
        f"<td class='number'>{layer['changed_weights']}</td></tr>"
        for layer in verification["layers"]
    )
    verdict = "done" if verification["ok"] else "failed"
    return f"""<h3>Verification, read back from disk</h3>
<p><span class='status {verdict}'>{"proven" if verification["ok"] else "not proven"}</span> {escape(verification["summary"])}</p>
<details><summary>Layer by layer ({len(verification["layers"])})</summary><div class='scroll'><table><thead><tr><th>layer</th>
<th class='number'>shape</th><th class='number'>groups</th><th class='number'>groups not {verification["pattern"]}</th>
<th class='number'>kept weights changed</th></tr></thead><tbody>{rows}</tbody></table></div></details>"""


def build() -> dict[str, gr.components.Component]:
    """Lay out the screen; returns its components by name."""
    gr.Markdown(INTRODUCTION)
    format = gr.Radio(list(FORMATS), value="dense", label="Format", elem_id="export-format")
    button = gr.Button("Export this run", variant="primary", elem_id="export")
    report = gr.HTML(elem_id="export-report")
    gr.Markdown("### Load it")
    lines = gr.Code(language="python", label="Python", interactive=False, elem_id="export-code")
    return {"format": format, "export": button, "report": report, "code": lines}
