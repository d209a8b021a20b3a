"""The layout of the Learn screen: settings on the left, the run on the right."""

from __future__ import annotations

import gradio as gr

from app.live_plot import live_plot
from app.operator import CORPORA
from app.settings_form import BASIC, MACHINE, OPTIMIZER, REGULARIZER, TEXT, settings
from proxsparse import PRESETS
from proxsparse.figures import QUANTITIES

WHAT = """
**2:4 sparsity** keeps two of every four neighbouring weights; other patterns keep n of every m. A **mask** says which. ProxSparse
*learns* it: while the model reads text, a regularizer of strength **λ1** pulls every group towards as few nonzeros as its pattern
keeps, and the language-model loss decides which.
"""
GLOSSARY = """
- **Soft weights** are what is being learned. The **mask** keeps the n largest of each group of m, and is applied to the
  *original* weights: no weight is updated in the end.
- **One step**: the *gradient half* (loss, gradient, AdamW) moves the soft weights where the text wants them; the *prox half* pulls
  every group towards its pattern. The loss is that of the masked original model, which is the result (`loss at`: masked), or of the
  soft weights, as in the paper. Both can be taken one at a time while the run is paused.
- **λ1** is the pull's strength. It grows over the run by its *ramp*: first the text speaks, then groups commit. Too weak at the end:
  groups stay dense, and the mask is a guess. Too strong at the start: groups collapse before the text has spoken.
- **Perplexity** is measured on held-out text; lower is better.
- **Flips** are weights that change between kept and dropped: the pulse of the run.
"""


def build() -> dict[str, gr.components.Component]:
    """Lay out the screen; returns its components by name. Settings are under `settings`."""
    parts: dict = {}
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=300, elem_id="settings"):
            gr.Markdown(WHAT)
            parts["preset"] = gr.Dropdown(
                list(PRESETS), value="Quick", label="Preset", elem_id="preset",
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
                    parts[name] = gr.Button(label, size="sm", interactive=False, min_width=84, elem_id=name)
            parts["strength"] = gr.Slider(
                0, 0.2, value=0.02, step=0.001, label="Set λ1", interactive=False, elem_id="lambda-now",
                info="strength of the regularizer; takes effect when released, at the next half step, and grows on by the rest of the ramp",
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
    return parts
