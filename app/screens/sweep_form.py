"""The settings on the Sweep screen: what is tried, and with what of it all trials are alike."""

from __future__ import annotations

import re

import gradio as gr

from app.operator import Operator
from app.screens.learn_form import LearnForm, model_box, text_box
from app.settings_form import SETTINGS, job_from
from proxsparse import LearnJob, ProxSparseError
from proxsparse.config import CORPORA, SweepPlan
from proxsparse.runs.readers.sweep import check_plan
from proxsparse.settings import settings_of

PLAN = settings_of(SweepPlan)
LISTS = {"lambdas": "λ1 at the end", "learning_rates": "learning rates"}
ELSEWHERE = "Every other setting (batch, metric, length, device …) is what stands in the form of the Learn screen."


class SweepForm:
    """What a sweep is started with. values: the components of `plan`, in its order; learn: the form of the Learn screen."""

    def __init__(self, operator: Operator, learn: LearnForm):
        self.operator, self.learn = operator, learn

    def build(self) -> None:
        plan = SweepPlan()
        self.lambdas, self.learning_rates = (
            gr.Textbox(
                " ".join(f"{value:g}" for value in getattr(plan, name)), label=label, max_lines=1, elem_id=f"sweep-{name}",
                info="values, of which a grid tries all pairs; the samplers tpe and random choose between the least and the largest",
            )
            for name, label in LISTS.items()
        )  # fmt: skip
        self.sampler, self.pruner = (
            gr.Dropdown(
                list(PLAN[name].choices), value=PLAN[name].default, label=name, info=PLAN[name].help, elem_id=f"sweep-{name}"
            )
            for name in ("sampler", "pruner")
        )  # fmt: skip
        self.trials = self._number("trials", "trials", "")
        self.steps = gr.Textbox(
            str(LearnJob().learn.steps), label="steps", max_lines=1, elem_id="sweep-steps", info="of a trial's last run"
        )
        self.model, self.corpus = model_box("sweep-model"), text_box("sweep-corpus")
        with gr.Accordion("Rungs and windows", open=False):
            self.rungs = self._number("rungs", "rungs", str(plan.rungs))
            self.windows = self._number("windows", "windows set apart", str(plan.windows))
        gr.Markdown(ELSEWHERE, elem_id="sweep-elsewhere")

    def wire(self, shell) -> None:
        """Model and text follow the form of the Learn screen, where a text can be uploaded; they may be chosen otherwise here."""
        self.learn.model.change(lambda model: model, [self.learn.model], [self.model], **shell.quietly)
        self.learn.corpus.change(self._as_learned_on, [self.learn.corpus], [self.corpus], **shell.quietly)

    @staticmethod
    def _as_learned_on(corpus: str | None):
        return gr.update(choices=list(dict.fromkeys((*CORPORA, corpus or CORPORA[0]))), value=corpus)

    @staticmethod
    def _number(name: str, label: str, value: str) -> gr.Textbox:
        return gr.Textbox(value, label=label, max_lines=1, info=PLAN[name].help, elem_id=f"sweep-{name}")

    @property
    def values(self) -> list:
        """What `asked` takes."""
        plan = [
            self.lambdas, self.learning_rates, self.sampler, self.pruner, self.trials, self.rungs, self.windows,
        ]  # fmt: skip
        return [*plan, self.model, self.corpus, self.steps, *self.learn.values]

    def asked(self, lambdas, learning_rates, sampler, pruner, trials, rungs, windows, model, corpus, steps, *learn):
        """(job, plan) of what stands in the form. Raises ProxSparseError where that cannot be, or is more than the operator allows."""
        given = {"sampler": sampler, "pruner": pruner, "rungs": rungs, "windows": windows, "trials": trials}
        given = {name: value.strip() if isinstance(value, str) else value for name, value in given.items()}
        if sampler == "grid" or not given["trials"]:
            del given["trials"]  # a grid has as many as it has pairs, whatever was typed for another sampler
        plan = SweepPlan(**given, lambdas=_listed(lambdas), learning_rates=_listed(learning_rates))
        self.operator.limits.check_sweep(plan)
        model, corpus = self.operator.check_model(model), self.operator.check_corpus(corpus)
        job = job_from(model, corpus, (), dict(zip(SETTINGS, learn, strict=True)) | {"steps": steps})
        check_plan(plan, job)
        self.operator.require_room(job)
        return job, plan


def _listed(text: str | None) -> tuple[str, ...]:
    """The numbers of a text, apart by blanks, commas or semicolons; they are read and checked where the plan is made."""
    values = tuple(filter(None, re.split(r"[\s,;]+", text or "")))
    if len(values) > 1000:
        raise ProxSparseError(f"{len(values):,} values are more than anybody can mean: give fewer.")
    return values
