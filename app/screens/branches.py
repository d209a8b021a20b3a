"""Branches on the Learn screen: fork a checkpoint of the run shown, and lay the curves of runs over each other."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from app.address import Entry
from app.operator import Operator
from app.screens.shown import Shown
from app.settings_form import SETTINGS, job_from
from app.views.branches import courses, family, learned_beside
from app.views.listing import Listing
from app.views.run import RunSnapshot
from proxsparse import LearnConfig, LearnJob, ProxSparseError, figures
from proxsparse.figures.branches import MOST
from proxsparse.runs import new_run_path
from proxsparse.settings import settings_of

BESIDE, NOBODY = "beside", "none"  # in the address: the runs compared with, by commas; no run, though there is a family


class Branches:
    """step: which checkpoint is forked. button: forks it. others: the runs whose curves are laid over that of the run shown."""

    def __init__(self, operator: Operator, listing: Listing):
        self.operator, self.listing = operator, listing

    def build(self) -> None:
        with gr.Row(elem_id="branches"):
            # Both take any value, and what is unknown is refused or left out here: a run may be deleted, and a checkpoint
            # replaced, while the page still holds it.
            self.step = gr.Dropdown(
                [], label="Fork from step", info="a run keeps its two newest checkpoints", allow_custom_value=True, min_width=150,
                elem_id="fork-step",
            )  # fmt: skip
            self.button = gr.Button(
                "Fork with these settings", size="sm", interactive=False, min_width=150, elem_id="fork"
            )
            self.others = gr.Dropdown(
                [], value=[], multiselect=True, label="Compare with", max_choices=MOST - 1, allow_custom_value=True,
                info="curves laid over that of the run shown; at first those of its parents and forks", scale=3, min_width=260,
                elem_id="compare",
            )  # fmt: skip

    def wire(self, shell, values: list[Component]) -> None:
        """values: of the form, the texts to judge on and the settings."""
        shell.on(self.button.click, self.fork, [shell.id, self.step, *values], [shell.id])

    def entry(self) -> Entry:
        """For the address. While the parents and forks are compared with, which is the default, nothing is written."""

        def kept(others: list[str] | None, shown: Shown) -> str:
            if shown.asked is not None:
                return shown.asked.get(BESIDE, "")
            if shown.seen.get("run", ("",))[0] != shown.id or (others or []) == shown.seen.get("family"):
                return ""
            return ",".join(others or [NOBODY])

        return Entry(self.others, _asked_runs, kept, fills=False)

    def render(self, shown: Shown, run_changed: bool) -> tuple[dict[Component, Any], list[RunSnapshot]]:
        """What is to be updated, and the runs to lay over the one shown."""
        view, id, updates = shown.view, shown.id, {}
        steps = tuple(map(str, view.run.checkpoints())) if view else ()
        if shown.changed("checkpoints", steps) or run_changed:
            keep = not run_changed and shown.values[self.step] in steps
            updates[self.step] = gr.update(
                choices=list(steps), **({} if keep else {"value": steps[-1] if steps else None})
            )
        rows = self.listing.rows()
        choices = learned_beside(id, rows)
        given = shown.values[self.others] or []
        if run_changed or shown.asked is not None:
            shown.seen["family"] = given = [each for each in family(id, rows) if each in choices][: MOST - 1]
        if BESIDE in (shown.asked or {}):
            given = _asked_runs(shown.asked[BESIDE])
        chosen = [each for each in given if each in choices][: MOST - 1]
        if shown.changed("choices", choices) or chosen != (shown.values[self.others] or []):
            updates[self.others] = gr.update(choices=choices, value=chosen)
        return updates, [other for each in chosen if (other := self.operator.snapshot(each)) is not None]

    def curves(self, view: RunSnapshot, others: list[RunSnapshot]):
        """The learning curve of the run shown, or of it and the others."""
        if not others:
            return figures.learning_curve(view.curves(), view.measurements(), view.run.given(), view.judged)
        return figures.learning_curves(courses([view, *others]))

    def fork(self, id: str, step: str | None, evaluate_on: list[str] | None, *values) -> str:
        """Go on from a checkpoint with every setting of the form that differs from the run's; returns the fork's id.

        What a fork cannot change is refused by name.
        """
        self.operator.rights.require_acting()
        parent = self.operator.find(id)
        if step and not str(step).isdecimal():
            raise ProxSparseError(f"The step to fork from is {str(step)[:40]!r}: choose one of the list.")
        before = parent.job()
        texts = self.operator.check_texts(evaluate_on)
        after = job_from(before.model, before.corpus, texts, dict(zip(SETTINGS, values, strict=True)))
        self.operator.require_room(after)
        changes = {
            name: value
            for config, old, new in ((LearnConfig, before.learn, after.learn), (LearnJob, before, after))
            for name in settings_of(config)
            if (value := getattr(new, name)) != getattr(old, name)
        }
        if after.judged_on != before.judged_on:
            changes["evaluate_on"] = texts
        path = new_run_path(self.operator.runs, f"{before.model}-fork")
        run = parent.fork(path, int(step) if step else None, self.operator.rights.owner, **changes)
        run.start()
        return run.id


def _asked_runs(text: str) -> list[str]:
    """The runs that an address asks for beside the one shown; those that are not there are left out when they are drawn."""
    ids = [] if text == NOBODY else text.split(",")
    if len(ids) >= MOST:
        raise ProxSparseError(f"It names {len(ids)} runs: beside the run shown at most {MOST - 1} are drawn.")
    return ids
