"""What a comparison is started with: methods, runs, masks of other tools, texts, prompts, and every setting."""

from __future__ import annotations

import importlib.util
from typing import Any

import gradio as gr
from gradio.components import Component

from app.operator import Operator
from app.screens.contestants import Contestants
from app.screens.learn_form import model_box, text_box
from app.settings_form import input_of, meant, pattern_input
from app.views.listing import Row
from proxsparse import CompareJob, ProxSparseError
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
        self.operator, self.contestants = operator, Contestants(operator, "compare")

    def build(self) -> None:
        first = CompareJob()
        self.contestants.build(
            first.methods,
            "each makes a mask of the model below, from the same text; all are judged on the same held-out windows",
        )
        with gr.Row():
            self.model, self.corpus = model_box("compare-model"), text_box("compare-corpus")
            self.contestants.build_texts(first.judged_on)
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
        return [self.model, self.corpus, self.prompts, self.tasks, *self.contestants.values, *self.fields]

    def offered(self, rows: tuple[Row, ...]) -> list[str]:
        """The runs that can be chosen."""
        return [row.id for row in rows if row.kind == "learn"]

    def job(self, model, corpus, prompts, tasks, methods, runs, masks, evaluate_on, *fields) -> CompareJob:
        """What is asked for. Raises ProxSparseError with the first value that cannot be."""
        settings: dict[str, Any] = dict(zip(SETTINGS, fields, strict=True))
        settings["n"], _, settings["m"] = settings.pop("pattern").partition(":")
        settings = {name: meant(_SETTINGS[name], value) for name, value in settings.items()}
        return CompareJob(
            model=self.operator.check_model(model), corpus=self.operator.check_corpus(corpus), tasks=tuple(tasks or ()),
            prompts=tuple(line.strip() for line in (prompts or "").splitlines() if line.strip()),
            **self.contestants.chosen(methods, runs, masks, evaluate_on), **settings,
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


def _field(name: str) -> Component:
    return input_of(_SETTINGS[name], f"compare-{name}")
