"""Adding to the comparison shown: what it lacks, and nothing of what a new comparison would take."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from app.operator import Operator
from app.screens.contestants import Contestants, described
from app.screens.shown import Shown
from app.views.comparison import Compared, compared
from proxsparse.config import METHODS
from proxsparse.runs import add_to_comparison
from proxsparse.runs.directory import ACTIVE


class CompareAdd:
    """A part of the Compare screen. outputs: what `render` may update."""

    def __init__(self, operator: Operator):
        self.operator, self.contestants = operator, Contestants(operator, "compare-more")

    def build(self) -> None:
        with gr.Accordion(
            "Add to the comparison shown", open=False, elem_id="compare-adding", visible=False
        ) as self.part:
            self.contestants.build((), "what it lacks, or what failed; nothing that it has is measured again")
            self.contestants.build_texts(())
            self.button = gr.Button("Measure these too", variant="primary", elem_id="compare-add")
        self.outputs = [self.part, self.contestants.methods, self.contestants.runs]

    def wire(self, shell, chosen: Component) -> None:
        """chosen: the id of the comparison shown."""
        shell.on(self.button.click, self.grow, [chosen, *self.contestants.values], then_to="compare-banner")

    def render(self, shown: Shown, found: Compared, status: str, offered: list[str]) -> dict[Component, Any]:
        """There where something can be added: not while it is worked on, and not to the recorded example. offered: ids of runs."""
        addable = status not in ACTIVE and not found.run.header().get("recorded")
        lacking = [name for name in METHODS if found.ended.get(name) != "measured"]
        runs = [id for id in offered if id not in found.job.run_names()]
        updates: dict[Component, Any] = {}
        if shown.changed("addable", addable):
            updates[self.part] = gr.update(visible=addable)
        if shown.changed("lacking", (found.run.id, lacking)):
            updates[self.contestants.methods] = gr.update(choices=described(lacking), value=[])
        if shown.changed("runs it lacks", runs):
            updates[self.contestants.runs] = gr.update(choices=runs)
        return updates

    def nothing(self) -> dict[Component, Any]:
        return {self.part: gr.update(visible=False)}

    def grow(self, id: str, *values) -> None:
        """Measure what is chosen and the comparison lacks."""
        run = self.operator.find_to_change(id)
        given = self.contestants.chosen(*values)
        own = compared(run).job.corpus
        given["evaluate_on"] = tuple(text for text in given["evaluate_on"] if text != own)
        add_to_comparison(run, **given)
        run.start()
