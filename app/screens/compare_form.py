"""What a comparison is started with: methods, runs, masks of other tools, texts, prompts, and every setting."""

from __future__ import annotations

import importlib.util
from typing import Any

import gradio as gr
from gradio.components import Component

from app.operator import Operator
from app.screens.learn_form import TEXTS, model_box, text_box
from app.settings_form import input_of, meant, pattern_input
from app.views.listing import Row
from proxsparse import CompareJob, ProxSparseError
from proxsparse.config import METHODS
from proxsparse.evaluation.zero_shot import PAPER_TASKS, check_tasks
from proxsparse.runs.readers.comparison import check_masks, check_runs
from proxsparse.settings import settings_of

TEXT = ("windows", "context", "length", "calibration", "bos", "new_tokens")
LEARNING = ("steps", "batch", "seed")
GROUPS = (("Text and measurement", TEXT), ("Methods that learn", LEARNING))
SETTINGS = (*TEXT, *LEARNING, "pattern", "device")
_SETTINGS = settings_of(CompareJob)


class CompareForm:
    """Makes a `CompareJob` of what was chosen; values: its inputs, in the order of `job`."""

    def __init__(self, operator: Operator):
        self.operator = operator

    def build(self) -> None:
        first = CompareJob()
        self.methods = gr.CheckboxGroup(
            [(f"{name}: {method.about}", name) for name, method in METHODS.items()], value=list(first.methods), label="Methods",
            elem_id="compare-methods",
            info="each makes a mask of the model below, from the same text; all are judged on the same held-out windows",
        )  # fmt: skip
        with gr.Row():
            self.runs = gr.Dropdown(
                [], value=[], multiselect=True, label="Runs", allow_custom_value=True, elem_id="compare-runs", min_width=280,
                info="their newest masks take part; the first is what the others are compared with",
            )  # fmt: skip
            self.masks = gr.Textbox(
                label="Masks of other tools", lines=1, max_lines=4, elem_id="compare-masks", min_width=280,
                info="sparse checkpoints made from this model, a directory a line, in a folder that the operator allowed",
            )  # fmt: skip
        with gr.Row():
            self.model, self.corpus = model_box("compare-model"), text_box("compare-corpus")
            self.evaluate_on = gr.Dropdown(
                list(TEXTS), value=list(first.judged_on), multiselect=True, allow_custom_value=True, label="Judge also on",
                elem_id="compare-evaluate-on", min_width=220, info="further texts: a mask does best on text like its own",
            )  # fmt: skip
        self.prompts = gr.Textbox(
            value="\n".join(first.prompts), lines=3, max_lines=6, label="Prompts", elem_id="compare-prompts",
            info="beginnings that every model completes, one a line",
        )  # fmt: skip
        fields: dict[str, Component] = {}
        for title, names in GROUPS:
            with gr.Accordion(title, open=False), gr.Row():
                fields |= {name: _field(name) for name in names}
        with gr.Accordion("Pattern, device and zero-shot tasks", open=False), gr.Row():
            fields |= {"pattern": pattern_input("compare-pattern"), "device": _field("device")}
            installed = importlib.util.find_spec("lm_eval") is not None
            self.tasks = gr.Dropdown(
                list(PAPER_TASKS), value=[], multiselect=True, label="Zero-shot tasks", elem_id="compare-tasks",
                interactive=installed,
                info="of lm-eval; their data come from the Hub" if installed else "need pip install 'proxsparse[eval]'",
            )  # fmt: skip
        self.fields = [fields[name] for name in SETTINGS]

    @property
    def values(self) -> list[Component]:
        return [
            self.methods, self.runs, self.masks, self.model, self.corpus, self.evaluate_on, self.prompts, self.tasks, *self.fields,
        ]  # fmt: skip

    def offered(self, rows: tuple[Row, ...]) -> list[str]:
        """The runs that can be chosen."""
        return [row.id for row in rows if row.kind == "learn"]

    def job(self, methods, runs, masks, model, corpus, evaluate_on, prompts, tasks, *fields) -> CompareJob:
        """What is asked for. Raises ProxSparseError with the first value that cannot be."""
        settings: dict[str, Any] = dict(zip(SETTINGS, fields, strict=True))
        settings["n"], _, settings["m"] = settings.pop("pattern").partition(":")
        settings = {name: meant(_SETTINGS[name], value) for name, value in settings.items()}
        return CompareJob(
            model=self.operator.check_model(model), corpus=self.operator.check_corpus(corpus), tasks=tuple(tasks or ()),
            prompts=tuple(line.strip() for line in (prompts or "").splitlines() if line.strip()),
            **self.added(methods, runs, masks, evaluate_on), **settings,
        )  # fmt: skip

    @staticmethod
    def check(job: CompareJob) -> None:
        """Raise ProxSparseError for what the worker would only find out later."""
        check_runs(job, job.runs)
        check_masks(job.masks)
        if not set(job.tasks) <= set(PAPER_TASKS):
            raise ProxSparseError(
                f"The tasks {', '.join(job.tasks)[:120]} are not all on the list: choose among {', '.join(PAPER_TASKS)}."
            )
        if job.tasks:
            check_tasks(job.tasks)

    def added(self, methods, runs, masks, evaluate_on) -> dict[str, tuple[str, ...]]:
        """What of it can be added to a comparison that is there."""
        directories = [line.strip() for line in (masks or "").splitlines() if line.strip()]
        return {
            "methods": tuple(methods or ()),
            "runs": tuple(str(self.operator.find(id).path.resolve()) for id in runs or ()),
            "masks": tuple(map(self.operator.check_masks, directories)),
            "evaluate_on": self.operator.check_texts(evaluate_on),
        }


def _field(name: str) -> Component:
    return input_of(_SETTINGS[name], f"compare-{name}")
