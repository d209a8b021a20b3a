"""The Runs screen: every run, comparison and sweep of the folder; open, rename, delete, make again."""

from __future__ import annotations

from html import escape
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.components import Component

from app import html
from app.address import Entry
from app.keyboard import Key
from app.operator import EXAMPLE_ID, HAS_EXAMPLE, Operator
from app.screens.shown import Shown
from app.views.listing import Listing, Row
from proxsparse.runs.manage import delete, rename

COLUMNS = ("name", "kind", "state", "step", "age", "on disk", "result")


class RunsScreen:
    """Lists what there is, and acts on the one that is chosen below the list."""

    name, title = "runs", "Runs"
    keys = (
        Key("/", "choose a run, a comparison or a sweep", "#runs-chosen input", "focus"),
        Key("o", "open it", "#runs-open a"),
    )
    css = """
#runs-list td { white-space: nowrap; } #runs-list td:last-child { white-space: normal; min-width: 12em; }
#runs-list td a { padding: 0; }
@media (max-width: 640px) {
  #runs-list :is(th, td):is(:nth-child(2), :nth-child(4), :nth-child(6)) { display: none; }
  #runs-list td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 7em; }
}
#runs-list tr.chosen { font-weight: 650; }
"""

    def __init__(self, operator: Operator, listing: Listing):
        self.operator, self.listing = operator, listing

    def build(self, shell) -> None:
        """The list, then what can be done with one of it."""
        gr.Markdown(
            "Every run, comparison and sweep of this folder, newest first. Choose one at **Act on** to open, rename or delete it."
        )
        self.list = gr.HTML(elem_id="runs-list")
        with gr.Row():
            self.chosen = gr.Dropdown([], label="Act on", allow_custom_value=True, elem_id="runs-chosen", scale=3)
            self.new_name = gr.Textbox(label="New name", max_lines=1, elem_id="runs-name", scale=2)
        with gr.Row():
            self.open = gr.HTML(elem_id="runs-open", min_height=32)
            self.rename = gr.Button("Rename", size="sm", elem_id="runs-rename")
            self.delete = gr.Button("Delete …", size="sm", elem_id="runs-delete")
            self.confirm = gr.Button(
                "Delete it for good", size="sm", variant="stop", visible=False, elem_id="runs-confirm"
            )
            self.keep = gr.Button("Keep it", size="sm", visible=False, elem_id="runs-keep")
        self.report = gr.HTML(elem_id="runs-report")
        self.asked = gr.State(None)  # which run the question below the list is about
        self.command = gr.Code(
            language="shell", label="The command that makes it again", interactive=False, wrap_lines=True,
            lines=1, elem_id="runs-command", visible=False,
        )  # fmt: skip
        self.inputs = [self.chosen]
        self.address = {"chosen": Entry(self.chosen, self._asked, lambda id, shown: "" if id == shown.id else id or "")}
        self.outputs = [self.list, self.chosen, self.command, self.open, self.report]

    def wire(self, shell) -> None:
        """Deleting asks first."""
        question = [self.asked, self.confirm, self.keep]
        gr.on([self.chosen.input], **shell.looking(self))
        shell.on(
            self.rename.click,
            self.renamed,
            [self.chosen, self.new_name, shell.id],
            [self.chosen, self.new_name, shell.id],
        )
        shell.on(self.delete.click, self.ask, [self.chosen], question)
        gr.on([self.keep.click, self.chosen.change], self.answered, None, question, **shell.quietly)
        shell.on(
            self.confirm.click,
            lambda *inputs: [*self.deleted(*inputs), *self.answered()],
            [self.asked, shell.id],
            [self.chosen, shell.id, *question],
        )

    def ask(self, id: str | None) -> list:
        """Ask whether the run is to be deleted, by its name: another may be chosen before somebody answers."""
        run = self.operator.find_any(id)
        return [run.id, gr.update(visible=True, value=f"Delete {run.id} for good"), gr.update(visible=True)]

    def answered(self) -> list:
        """Take the question away."""
        return [None, gr.update(visible=False), gr.update(visible=False)]

    def render(self, shown: Shown) -> dict[Component, Any]:
        """The list when one of its rows changed or a minute went by; the one chosen when it did."""
        rows, updates = self.listing.rows(), {}
        names = [row.id for row in rows]
        chosen = shown.values[self.chosen]
        chosen = chosen if chosen in names else shown.id if shown.id in names else names[0] if names else None
        ages = tuple(html.age(row.created) if row.created else "" for row in rows)
        if shown.changed("rows", (rows, ages, chosen)):
            updates |= {self.list: self._table(rows, ages, chosen), self.chosen: gr.update(choices=names, value=chosen)}
        row = next((row for row in rows if row.id == chosen), None)
        if shown.changed("chosen", row):
            command = row.command if row else ""
            updates[self.command] = gr.update(value=command, visible=bool(command))
            address = row and address_of(row)
            updates[self.open] = f"<a class='download' href='{address}'>Open</a>" if address else ""
            updates[self.report] = self._reports(row.id if row is not None and row.kind == "learn" else "")
        return updates

    def _table(self, rows: tuple[Row, ...], ages: tuple[str, ...], chosen: str | None) -> str:
        if not rows:
            return html.note(
                "There is no run yet: press `Run` on the Learn screen, or `proxsparse learn` in a terminal."
            )
        cells = [
            (
                f"<a href='{address}'>{escape(row.id)}</a>" if (address := address_of(row)) else escape(row.id), row.kind,
                f"<span class='status {row.status}'>{row.status}</span>", f"{row.step}{f' of {row.steps}' if row.steps else ''}",
                age or "–", html.size(row.bytes) if row.bytes else "–", escape(row.result) or "–",
            )
            for row, age in zip(rows, ages, strict=True)
        ]  # fmt: skip
        return html.table(COLUMNS, cells, numeric=(5,), classes=["chosen" if row.id == chosen else "" for row in rows])

    @staticmethod
    def _reports(id: str) -> str:
        """Links to the run, and to the recorded example, as one page each."""
        links = [f"<a class='download' href='report/{quote(id)}.html' download>Report (one page)</a>"] if id else []
        if HAS_EXAMPLE:
            links.append(f"<a href='report/{EXAMPLE_ID}.html' download>Report of the recorded example</a>")
        hint = "to explore without a server and without a network; it takes some seconds to make"
        return f"<p>{' '.join(links)} <span class='doing'>{hint}</span></p>" if links else ""

    def _asked(self, id: str):
        """A run that an address names. Raises ProxSparseError where there is none."""
        return gr.update(choices=[self.operator.find_any(id).id], value=id)

    def renamed(self, id: str | None, name: str, shown: str):
        """Rename it, and go on showing it where it was shown."""
        run = rename(self.operator.find_to_change(id), (name or "").strip())
        choices = [row.id for row in self.listing.rows()]
        return gr.update(choices=choices, value=run.id), "", run.id if shown == id else shown

    def deleted(self, id: str | None, shown: str):
        """Delete it; a page that showed it shows the newest run instead."""
        delete(self.operator.find_to_change(id))
        rows = self.listing.rows()
        newest = next((row.id for row in rows if row.kind == "learn"), "")
        choices = [row.id for row in rows]
        return gr.update(choices=choices, value=choices[0] if choices else None), newest if shown == id else shown


def address_of(row: Row) -> str:
    """Where a run is looked at: the screen of its kind; "" for what cannot be read."""
    if row.kind == "learn":
        return f"?run={quote(row.id)}"
    return f"?screen={row.kind}&amp;{row.kind}={quote(row.id)}" if row.kind in ("compare", "sweep") else ""
