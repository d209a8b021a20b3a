"""The Compare screen: start a comparison, watch it, and decide between masks."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from app import comparison_page
from app.address import Entry
from app.clicks import clicked_text
from app.operator import EXAMPLE_COMPARISON_ID, RECORDED, Operator
from app.screens.compare_add import CompareAdd
from app.screens.compare_charts import CompareCharts
from app.screens.compare_form import CompareForm
from app.screens.compare_row import CompareRow
from app.screens.shown import Shown
from app.steering import buttons, steer
from app.views.comparison import compared
from app.views.listing import Listing
from proxsparse import LearnConfig, LearnJob
from proxsparse.config import CompareJob
from proxsparse.runs import Run, new_run_path
from proxsparse.runs.directory import ACTIVE

INTRODUCTION = """
**Which mask is best?** Every method makes a mask of the same model from the same text, and all are judged on the same held-out windows,
also of texts of another kind. **Click a name** in the table for what can be done with its mask, **a heading** to sort by it.
"""
FIRST_ORDER = "perplexity"
CLICKS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) trigger('select', {method: button.dataset.method ?? null, sort: button.dataset.sort ?? null});
});
"""


class CompareScreen:
    """Starts comparisons, and shows the one chosen."""

    name, title, keys = "compare", "Compare", ()
    css = (
        """
.stages { display: flex; flex-wrap: wrap; gap: 4px 8px; list-style: none; margin: 8px 0 0; padding: 0; font-size: .85em; }
.stages li { border: 1px solid var(--border-color-primary); border-radius: 4px; padding: 0 8px; margin: 0; }
.stages li.working { border-color: #0072B2; font-weight: 650; } .stages li.failed { border-color: #D55E00; }
.stages li.waiting { opacity: .75; }
#compare-table :is(th, td) button { font: inherit; color: inherit; background: none; text-align: left; cursor: pointer; padding: 2px 0; }
#compare-table td button { text-decoration: underline; } #compare-table tr.chosen { background: rgba(0, 114, 178, .14); }
#compare-table :is(th, td):first-child { position: sticky; left: 0; background: var(--body-background-fill); z-index: 1; }
#compare-table th.number button { text-align: right; } #compare-table tr.chosen td:first-child { background: #dce9f3; }
.dark #compare-table tr.chosen td:first-child { background: #1c3246; }
#compare-table th button { white-space: nowrap; } #compare-table :is(th, td) { white-space: nowrap; }
.methods .wrap { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)); gap: 4px; }
.completions { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; font-size: .92em; }
.completions .said-by { font-weight: 600; } .completions .said { overflow-wrap: anywhere; min-height: 0; margin: 0; }
#compare-words { font-size: .88em; }
@media (max-width: 640px) { .completions { grid-template-columns: 1fr; } .completions .said { margin-bottom: 8px; } }
"""
        + CompareRow.css
    )

    def __init__(self, operator: Operator, listing: Listing):
        self.operator, self.listing = operator, listing
        self.form, self.adding = CompareForm(operator), CompareAdd(operator)
        self.row, self.charts = CompareRow(operator, listing), CompareCharts()

    # The page

    def build(self, shell) -> None:
        gr.Markdown(INTRODUCTION)
        with gr.Accordion("New comparison", open=False, elem_id="compare-new"):
            self.form.build()
            self.start = gr.Button("Compare them", variant="primary", elem_id="compare-start")
        with gr.Row(equal_height=False):
            self.chosen = gr.Dropdown(
                [], label="Comparison shown", allow_custom_value=True, elem_id="compare-chosen", scale=3, min_width=260
            )
            self.buttons = {
                name: gr.Button(label, size="sm", interactive=False, min_width=90, elem_id=f"compare-{name}")
                for name, label in (("pause", "Pause"), ("resume", "Resume"), ("stop", "Stop"))
            }
        self.banner = gr.HTML(elem_id="compare-banner")
        self.table = gr.HTML(elem_id="compare-table", js_on_load=CLICKS)
        self.words = gr.HTML(elem_id="compare-words")
        self.row.build()
        self.adding.build()
        self.charts.build()
        self.completions = gr.HTML(elem_id="compare-completions")
        # Clicked in the table: hidden, and in the address.
        self.method, self.order = (
            gr.Textbox(visible="hidden", elem_id=f"compare-{name}") for name in ("method", "order")
        )
        self.inputs = [self.chosen, self.method, self.order, *self.charts.inputs]
        self.outputs = [
            self.chosen, self.banner, self.table, self.words, self.completions, self.form.contestants.runs,
            *self.buttons.values(), *self.charts.outputs, *self.row.outputs, *self.adding.outputs,
        ]  # fmt: skip
        self.address = {
            self.name: Entry(self.chosen, self._asked),  # by this name the page asks whether it changed
            "method": self.method,
            "sort": self.order,
        } | self.charts.address

    def wire(self, shell) -> None:
        """Buttons start and steer; what is clicked in the table or a chart is a choice."""
        shell.on(self.start.click, self.begin, self.form.values, [self.chosen], then_to="compare-banner")
        for command, button in self.buttons.items():
            shell.on(button.click, lambda id, command=command: self.send(command, id), [self.chosen])
        shell.on(self.table.select, chosen_in_table, [self.method, self.order], [self.method, self.order])
        self.charts.wire(shell, self.method)
        gr.on([self.chosen.input, *(each.input for each in self.charts.inputs)], **shell.looking(self))
        self.row.wire(shell, self.chosen, self.method)
        self.adding.wire(shell, self.chosen)

    # Looking

    def render(self, shown: Shown) -> dict[Component, Any]:
        """Each part when what it shows has changed."""
        rows = self.listing.rows()
        updates: dict[Component, Any] = {}
        offered = self.form.offered(rows)
        if shown.changed("offered", offered):
            updates[self.form.contestants.runs] = gr.update(choices=offered)
        choices = [(row.label, row.id) for row in rows if row.kind == "compare"]
        choices += [("recorded example", EXAMPLE_COMPARISON_ID)] if EXAMPLE_COMPARISON_ID in RECORDED else []
        chosen, known = shown.values[self.chosen], [id for _, id in choices]
        chosen = chosen if chosen in known else known[0] if known else None
        if shown.changed("choices", (choices, chosen)) or chosen != shown.values[self.chosen]:
            updates[self.chosen] = gr.update(choices=choices, value=chosen)
        if chosen is None:
            return updates | self._nothing(shown)
        run = self.operator.find_any(chosen)
        found, state = compared(run), run.state()
        asked = tuple(command["command"] for _, command in run.commands()) if state["status"] in ACTIVE else ()
        if shown.changed("state", (chosen, state, asked, found.signature)):
            updates[self.banner] = comparison_page.banner(found, state, asked)
            updates |= self._buttons(run, state["status"], asked)
        method, order = shown.values[self.method] or "", shown.values[self.order] or FIRST_ORDER
        if shown.changed("table", (chosen, found.signature, method, order)):
            updates[self.table] = comparison_page.table(found, order, method)
        if shown.changed("words", (chosen, found.signature)):
            updates |= {self.words: comparison_page.words(found), self.completions: comparison_page.completions(found)}
        updates |= self.row.render(shown, found, method, rows)
        updates |= self.adding.render(shown, found, state["status"], offered)
        return updates | self.charts.render(shown, found)

    def _buttons(self, run: Run, status: str, asked: tuple[str, ...]) -> dict[Component, Any]:
        recorded = bool(run.header().get("recorded"))
        return {self.buttons[name]: update for name, update in buttons(status, asked, not recorded).items()}

    def _nothing(self, shown: Shown) -> dict[Component, Any]:
        if not shown.changed("state", None):
            return {}
        empty = dict.fromkeys((self.table, self.words, self.completions), "") | self.charts.nothing()
        off = {button: gr.update(interactive=False) for button in self.buttons.values()}
        return {self.banner: comparison_page.EMPTY} | empty | off | self.row.nothing() | self.adding.nothing()

    def _asked(self, id: str):
        """A comparison that an address names. Raises ProxSparseError where there is none."""
        compared(self.operator.find_any(id))
        return gr.update(choices=[id], value=id)

    # Doing

    def begin(self, *values) -> Any:
        """Start a comparison of what stands in the form; returns which one is shown from now on."""
        self.operator.rights.require_acting()
        job = self.form.job(*values)
        self.operator.require_room(_as_a_run(job))
        self.form.check(job)
        path = new_run_path(self.operator.runs, "compare")
        run = Run.create_kind("compare", {"compare": job.to_dict()}, path, self.operator.rights.owner)
        run.start()
        return gr.update(choices=[run.id], value=run.id)

    def send(self, command: str, id: str) -> None:
        """Pause, resume, stop."""
        steer(self.operator.find_to_change(id), command)


def _as_a_run(job: CompareJob) -> LearnJob:
    """A run as large as the largest method of a comparison, for the operator's limits."""
    learn = LearnConfig(steps=job.steps, batch=job.batch, n=job.n, m=job.m)
    return LearnJob(job.model, length=job.length, context=job.context, learn=learn)


def chosen_in_table(event: gr.EventData, method: str, order: str) -> tuple[str, str]:
    """What was clicked in the table: a name, or a heading; the other stays."""
    return clicked_text(event, "method") or method or "", clicked_text(event, "sort") or order or ""
