"""The Export screen: choose a format by what it weighs, write the sparse model of the run shown, prove it, and take it home."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from app.operator import Operator
from app.screens import export_parts as parts
from app.screens.shown import Shown
from app.views.export import ExportView, export_view, key_of
from proxsparse.export.card import RUN_AS_TWO_FOUR
from proxsparse.runs import start_bench, start_export

INTRODUCTION = """
The export is the **original model with every weight that the mask drops set to zero**. Before you get it, every weight is read back
from disk and compared with the original.
"""
FORMATS = (("Dense, with zeros: loads anywhere", "dense"), ("Compact, without them: smaller on disk", "compact"))
CODE = {
    "dense": """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}")  # the unpacked zip
tokenizer = AutoTokenizer.from_pretrained("{folder}")

inputs = tokenizer("The lighthouse keeper", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))
""",
    "compact": """from proxsparse import load_compact

lm = load_compact("{folder}")  # the unpacked zip
model, tokenizer = lm.model, lm.tokenizer

inputs = tokenizer("The lighthouse keeper", return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))
""",
}
ACCELERATE = """
# On an NVIDIA GPU of compute capability 8.0 or above: 2:4 layers run on sparse tensor cores.
import torch
from proxsparse import accelerate

print(accelerate(model.to("cuda", torch.bfloat16)).summary)  # which layers, and why not the others
"""


def code(shown: ExportView, chosen: str) -> str:
    """How an export is loaded and made faster; before there is one, how one in the chosen format will be."""
    lines = CODE[shown.format or chosen].format(folder=shown.id)
    return lines + (ACCELERATE if shown.pattern in RUN_AS_TWO_FOUR else "")


class ExportScreen:
    """Starts an export of the run shown, and shows what comes out: ahead of it what is known, then files and proof."""

    name, title, keys = "export", "Export", ()
    css = """
a.download { display: inline-block; padding: 8px 16px; border-radius: 6px; background: #0072B2;
  color: #fff !important; text-decoration: none; }
#export-report code, #export-runtimes code { overflow-wrap: anywhere; } #export-report td:last-child { min-width: 9em; }
.formats { display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); gap: 10px; }
.formats h3 { margin: 0; } .formats p { margin: 6px 0 0; }
.tiles.three { grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); max-width: 720px; }
.status.theory { background: #6b4c9a; }
#export-runtimes td { vertical-align: top; } #export-runtimes td:last-child { min-width: 10em; }
#export-card img { display: none; }
#export-card table { display: block; overflow-x: auto; } #export-card :is(td, th) { white-space: nowrap; }
"""

    def __init__(self, operator: Operator):
        self.operator = operator

    def build(self, shell) -> None:
        """The formats, a button, the report, the card, what it can gain, and how the result is loaded."""
        gr.Markdown(INTRODUCTION)
        self.formats = gr.HTML(elem_id="export-formats")
        self.format = gr.Radio(list(FORMATS), value="dense", label="Format", elem_id="export-format")
        self.button = gr.Button("Export this run", variant="primary", elem_id="export")
        self.report = gr.HTML(elem_id="export-report")
        self.card_title = gr.HTML(elem_id="export-card-title")
        with gr.Accordion("Model card", open=False, elem_id="export-card-fold") as self.card_fold:
            self.metadata = gr.Code(
                language="yaml", label="Metadata (YAML)", interactive=False, elem_id="export-metadata"
            )
            self.card = gr.Markdown(sanitize_html=True, elem_id="export-card")
        self.speed = gr.HTML(elem_id="export-speed")
        self.measure = gr.Button("Measure on this machine's GPU", visible=False, elem_id="export-bench")
        gr.HTML(parts.runtimes(), elem_id="export-runtimes")
        self.lines = gr.Code(language="python", label="Load it", interactive=False, elem_id="export-code")
        self.inputs = [self.format]
        self.outputs = [
            self.formats, self.button, self.report, self.card_title, self.card_fold, self.metadata, self.card, self.speed, self.measure,
            self.lines,
        ]  # fmt: skip
        self.address = {"format": self.format}

    def wire(self, shell) -> None:
        """One button starts an export of the run shown, the other times it."""
        shell.on(self.button.click, self.export, [shell.id, self.format])
        shell.on(self.measure.click, self.bench, [shell.id])
        self.format.change(**shell.looking(self))

    def render(self, shown: Shown) -> dict[Component, Any]:
        """All of it when the export, its timing, the chosen format, or what would be exported changed."""
        chosen = shown.values[self.format] or "dense"
        if not shown.changed("export", (shown.id, *key_of(shown.view, chosen))):
            return {}
        if shown.view is None:
            nothing = {self.formats: "", self.card_title: "", self.speed: "", self.report: parts.outcome(None)}
            hidden = (self.card_fold, self.measure, self.lines)
            return (
                nothing
                | {self.button: gr.update(interactive=False)}
                | {each: gr.update(visible=False) for each in hidden}
            )
        view = export_view(shown.view, shown.id, chosen)
        metadata, text = view.card or ("", "")
        return {
            self.formats: parts.formats(view),
            self.button: gr.update(interactive=view.can_start),
            self.report: parts.outcome(view),
            self.card_title: parts.about_card(view),
            self.card_fold: gr.update(visible=view.card is not None),
            self.metadata: metadata,
            self.card: text,
            self.speed: parts.speed(view),
            self.measure: gr.update(visible=view.can_time),
            self.lines: gr.update(value=code(view, chosen), visible=not view.is_example),
        }

    def export(self, id: str, format: str) -> None:
        """Start it. Raises ProxSparseError where the run has no masks, or another export is being written."""
        start_export(self.operator.find_to_change(id), format)

    def bench(self, id: str) -> None:
        """Time the export. Raises ProxSparseError where there is none."""
        start_bench(self.operator.find_to_change(id))
