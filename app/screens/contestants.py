"""What takes part in a comparison, as inputs: methods, runs, masks of other tools, and the texts to judge on besides its own."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from app.operator import Operator
from app.screens.learn_form import TEXTS
from proxsparse.config import METHODS


class Contestants:
    """values: its inputs, in the order in which `chosen` takes what they hold."""

    def __init__(self, operator: Operator, name: str):
        self.operator, self.name = operator, name

    def build(self, methods: tuple[str, ...], info: str) -> None:
        """methods: chosen at first."""
        self.methods = gr.CheckboxGroup(
            described(METHODS), value=list(methods), label="Methods", elem_id=f"{self.name}-methods", info=info,
            elem_classes="methods",
        )  # fmt: skip
        with gr.Row():
            self.runs = gr.Dropdown(
                [], value=[], multiselect=True, label="Runs", allow_custom_value=True, elem_id=f"{self.name}-runs", min_width=280,
                info="their newest masks take part; the first is what the others are compared with",
            )  # fmt: skip
            self.masks = gr.Textbox(
                label="Masks of other tools", lines=1, max_lines=4, elem_id=f"{self.name}-masks", min_width=280,
                info="sparse checkpoints made from this model, a directory a line, in a folder that the operator allowed",
            )  # fmt: skip

    def build_texts(self, texts: tuple[str, ...]) -> None:
        """texts: chosen at first."""
        self.evaluate_on = gr.Dropdown(
            list(TEXTS), value=list(texts), multiselect=True, allow_custom_value=True, label="Judge also on",
            elem_id=f"{self.name}-evaluate-on", min_width=220, info="further texts: a mask does best on text like its own",
        )  # fmt: skip

    @property
    def values(self) -> list[Component]:
        return [self.methods, self.runs, self.masks, self.evaluate_on]

    def chosen(self, methods, runs, masks, evaluate_on) -> dict[str, Any]:
        """As settings of a `CompareJob`. Raises ProxSparseError for a run, a directory or a text that nobody may read."""
        directories = [line.strip() for line in (masks or "").splitlines() if line.strip()]
        return {
            "methods": tuple(methods or ()),
            "runs": tuple(str(self.operator.find(id).path.resolve()) for id in runs or ()),
            "masks": tuple(map(self.operator.check_masks, directories)),
            "evaluate_on": self.operator.check_texts(evaluate_on),
        }


def described(methods) -> list[tuple[str, str]]:
    """Methods as choices: (name and what it does, name)."""
    return [(f"{name}: {METHODS[name].about}", name) for name in methods]
