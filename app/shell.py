"""The page around the screens: the run bar, the address, errors, and the one timer, which renders the screen in sight."""

from __future__ import annotations

import functools
from typing import Any

import gradio as gr

from app.operator import EXAMPLE, EXAMPLE_ID, Operator
from app.screens.export import ExportScreen
from app.screens.learn import LearnScreen
from app.screens.runs import RunsScreen
from app.screens.screen import Screen, Shown
from app.screens.try_it import TryItScreen
from app.views.listing import Listing
from app.views.run import RunSnapshot, snapshot_of
from proxsparse import ProxSparseError

TICK_SECONDS = 1.0
# The address names the run and the screen: it can be reloaded, kept and passed on.
REMEMBER = """(id, screen) => {
  const address = new URL(window.location);
  for (const [name, value] of [['run', id], ['screen', screen === 'learn' ? '' : screen]]) {
    if (value) address.searchParams.set(name, value); else address.searchParams.delete(name);
  }
  window.history.replaceState(null, '', address);
}"""


def screens(operator: Operator, listing: Listing) -> tuple[Screen, ...]:
    """All screens in the order of their tabs: a new one is one more line."""
    return (
        LearnScreen(operator),
        RunsScreen(operator, listing),
        TryItScreen(operator),
        ExportScreen(operator),
    )


def said_on_page(handler):
    """Turn what the user can mend into one sentence on the page, which stays until it is closed."""

    @functools.wraps(handler)
    def wrapped(*arguments):
        try:
            return handler(*arguments)
        except ProxSparseError as error:
            raise gr.Error(str(error), duration=None, title="Not possible", print_exception=False) from error

    return wrapped


class Shell:
    """One page. It holds no state of a visitor: that lives in the page, and the runs on disk.

    id, screen: hidden fields with the run and the screen shown; tabs: which of them is selected. quietly: how every handler
    is called.
    """

    quietly = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "hidden"}  # noqa: RUF012

    def __init__(self, operator: Operator):
        self.operator, self.listing = operator, Listing(operator.runs)
        self.screens = screens(operator, self.listing)

    @property
    def css(self) -> str:
        """Of all screens."""
        return "".join(screen.css for screen in self.screens)

    def build(self) -> gr.Blocks:
        """The page, wired."""
        with gr.Blocks(title="ProxSparse Explorer", fill_width=True, analytics_enabled=False) as blocks:
            gr.HTML(
                "<header><h1>ProxSparse Explorer</h1><p>Watch a language model learn which two of every four weights to keep."
                "</p></header>"
            )
            self.runs = gr.Dropdown([], label="Run shown", elem_id="runs")
            self.id, self.screen = (gr.Textbox(visible="hidden", elem_id=name) for name in ("run-id", "screen-name"))
            self.seen = gr.State({})
            tabs = []
            with gr.Tabs() as self.tabs:
                for screen in self.screens:
                    with gr.Tab(screen.title, id=screen.name) as tab:
                        screen.build(self)
                    tabs.append(tab)
            timer = gr.Timer(TICK_SECONDS)

            self._inputs = {self.id, self.screen, self.seen}.union(*(screen.inputs for screen in self.screens))
            self._outputs = {self.seen, self.runs}.union(*(screen.outputs for screen in self.screens))
            blocks.load(self.opened, None, [self.id, self.screen, self.tabs], **self.quietly).then(**self.looking())
            timer.tick(**self.looking())
            gr.on([self.id.change, self.screen.change], None, [self.id, self.screen], None, js=REMEMBER)
            self.runs.input(lambda chosen: chosen or "", [self.runs], [self.id], **self.quietly).then(**self.looking())
            for screen, tab in zip(self.screens, tabs, strict=True):
                tab.select(lambda name=screen.name: name, None, [self.screen], **self.quietly).then(**self.looking())
                screen.wire(self)
        return blocks

    def looking(self) -> dict[str, Any]:
        """How an event asks for the screen in sight to be rendered."""
        return {"fn": self.show, "inputs": self._inputs, "outputs": list(self._outputs), **self.quietly}

    def on(self, event, handler, inputs, outputs=None) -> None:
        """Call `handler` on `event`, say on the page what it refuses, and render what came of it."""
        event(said_on_page(handler), inputs, outputs, **self.quietly).then(**self.looking())

    def opened(self, request: gr.Request):
        """What a fresh page shows: the run and the screen of its address; else the newest run, or the recorded example."""
        id, name = (request.query_params.get(key, "") for key in ("run", "screen"))
        if id:
            try:
                self.operator.find(id)
            except ProxSparseError as error:
                gr.Warning(str(error))
                id = ""
        name = name if name in [screen.name for screen in self.screens] else self.screens[0].name
        choices = self._choices()
        return id or (choices[0][1] if choices else ""), name, gr.update(selected=name)

    def _choices(self) -> list[tuple[str, str]]:
        rows = [(row.label, row.id) for row in self.listing.rows() if row.kind == "learn"]
        return rows + ([("recorded example", EXAMPLE_ID)] if (EXAMPLE / "run.json").is_file() else [])

    def _view(self, id: str) -> RunSnapshot | None:
        """The run shown; None where there is none, or it was deleted while it was shown."""
        try:
            return snapshot_of(self.operator.find(id)) if id else None
        except (ProxSparseError, FileNotFoundError):
            return None

    def show(self, values: dict) -> dict:
        """What is to be updated on the page: nothing at all where nothing changed."""
        id, name, seen = values[self.id] or "", values[self.screen], dict(values[self.seen])
        if not name:  # the timer was faster than the answer to what the address names
            return gr.skip()
        screen = next(screen for screen in self.screens if screen.name == name)
        updates, choices = {}, self._choices()
        if seen.get("choices") != (choices, id):
            seen["choices"] = (choices, id)
            updates[self.runs] = gr.update(choices=choices, value=id or None)
        shown = Shown(id, self._view(id), values, dict(seen.get(name, {})))
        updates |= screen.render(shown)
        if shown.seen != seen.get(name):
            seen[name] = shown.seen
        if seen != values[self.seen]:
            updates[self.seen] = seen
        return updates or gr.skip()  # Gradio takes an empty answer for a wrong one
