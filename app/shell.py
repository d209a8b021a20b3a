"""The page around the screens: the run bar, the address, errors, and the pulse, at which the screen in sight is rendered."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_type_hints

import gradio as gr

from app import address, keyboard, live_plot, pulse, tour
from app.keyboard import Key
from app.messages import refusal, warn
from app.operator import EXAMPLE_ID, HAS_EXAMPLE, Operator
from app.screens.compare import CompareScreen
from app.screens.export import ExportScreen
from app.screens.learn import LearnScreen
from app.screens.masks import MasksScreen
from app.screens.regularizer import RegularizerScreen
from app.screens.runs import RunsScreen
from app.screens.screen import Screen
from app.screens.shown import Shown
from app.screens.sweep import SweepScreen
from app.screens.try_it import TryItScreen
from app.views.listing import Listing
from app.visitors import acting_as
from proxsparse import ProxSparseError

RUN, SCREEN = "run", "screen"  # in every address
KEYS = (Key("/", "choose another run", "#runs input", "focus"),)


def screens(operator: Operator, listing: Listing) -> tuple[Screen, ...]:
    """All screens in the order of their tabs: a new one is one more line."""
    learn = LearnScreen(operator, listing)
    return (
        learn,
        MasksScreen(operator, listing),
        RegularizerScreen(),
        TryItScreen(operator),
        CompareScreen(operator, listing),
        SweepScreen(operator, listing, learn.form),
        RunsScreen(operator, listing),
        ExportScreen(operator),
    )


def said_on_page(handler, afterwards: Callable[[], None] = lambda: None):
    """A handler that acts for the visitor who clicked, and turns what they can mend into one sentence on the page, which stays
    until it is closed. afterwards: called when it is done, or refused."""

    def wrapped(request: gr.Request, *arguments):
        try:
            with acting_as(request.username):
                return handler(*arguments)
        except ProxSparseError as error:
            raise refusal(str(error)) from error
        finally:
            afterwards()

    # Gradio reads from the signature what else a handler is given: the request, and the event of those that ask for it.
    signature, first = inspect.signature(handler), inspect.signature(wrapped).parameters["request"]
    wrapped.__signature__ = signature.replace(parameters=[first, *signature.parameters.values()])
    wrapped.__annotations__ = {"request": gr.Request} | get_type_hints(handler)
    return wrapped


class Shell:
    """One page. It holds no state of a visitor: that lives in the page, and the runs on disk.

    id, screen: hidden fields with the run and the screen shown; tabs: which of them is selected. filling, asked: hidden fields
    with what an address asked for, and the number of the visit; the second gets it when all components have theirs, and while the
    two differ nothing is rendered. address: where the view is written into the address. pulse: what asks for the screen in sight.
    quietly: how every handler is called.
    """

    quietly = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "hidden"}  # noqa: RUF012

    def __init__(self, operator: Operator):
        self.operator, self.listing = operator, Listing(operator.runs)
        self.screens = screens(operator, self.listing)
        self.changes = pulse.Changes(operator, self.listing)

    @property
    def css(self) -> str:
        """Of all screens, of their charts, of the list of keys, and of the tour."""
        return keyboard.CSS + tour.CSS + live_plot.CSS + "".join(screen.css for screen in self.screens)

    def build(self) -> gr.Blocks:
        """The page, wired."""
        with gr.Blocks(title="ProxSparse Explorer", fill_width=True, analytics_enabled=False) as blocks:
            with gr.Row(elem_id="top"):
                gr.HTML(
                    "<header><h1>ProxSparse Explorer</h1><p>Watch a language model learn which two of every four weights to keep."
                    "</p></header>"
                )
                self.who = gr.HTML(elem_id="who")
                tour.tour([screen.name for screen in self.screens])
                keyboard.keyboard([key for screen in self.screens for key in screen.keys] + [*KEYS])
            self.runs = gr.Dropdown([], label="Run shown", elem_id="runs")
            self.id, self.screen, self.filling, self.asked = (
                gr.Textbox(visible="hidden", elem_id=name) for name in ("run-id", "screen-name", "filling", "asked")
            )
            self.seen = gr.State({})
            tabs = []
            with gr.Tabs() as self.tabs:
                for screen in self.screens:
                    with gr.Tab(screen.title, id=screen.name) as tab:
                        gr.HTML(f"<h2 class='heading'>{screen.title}</h2>")  # for who hears the page
                        screen.build(self)
                    tabs.append(tab)
            self.pulse = pulse.pulse([screen.name for screen in self.screens])
            self.entries = {
                screen.name: {name: address.entry(given) for name, given in screen.address.items()}
                for screen in self.screens
            }
            names = dict.fromkeys([RUN, SCREEN, *(name for entries in self.entries.values() for name in entries)])
            self.address, visits = address.components([*names])

            kept = [each for entries in self.entries.values() for each in entries.values()]
            filled = {self.id, self.screen, self.tabs}.union(each.component for each in kept if each.fills)
            for event, handler, given in (
                (blocks.load, self.opened, None), (visits.visited, said_on_page(self.visited), [visits]),
            ):  # fmt: skip
                went = event(
                    handler, given, [self.filling, self.who, *filled], trigger_mode="always_last", **self.quietly
                )
                went.then(None, [self.filling], [self.asked], js="(filled) => filled").then(**self.looking())
            self.runs.input(lambda chosen: chosen or "", [self.runs], [self.id], **self.quietly).then(**self.looking())
            for screen, tab in zip(self.screens, tabs, strict=True):
                # In the page, at once: an answer of the server could arrive after the next choice.
                tab.select(None, None, [self.screen], js=f"() => {json.dumps(screen.name)}").then(
                    **self.looking(screen)
                )
                getattr(self.pulse, screen.name)(**self.looking(screen))
                screen.wire(self)
        return blocks

    def looking(self, screen: Screen | None = None) -> dict[str, Any]:
        """How an event asks for the screen in sight to be rendered: of what comes while it is, the last counts.

        screen: which it is, where the event tells. Gradio makes every component anew that an answer could change.
        """
        screens = self.screens if screen is None else (screen,)
        inputs = {self.id, self.screen, self.filling, self.asked, self.seen, self.pulse}.union(
            (each.component for screen in screens for each in self.entries[screen.name].values()),
            *(screen.inputs for screen in screens),
        )
        outputs = {self.seen, self.runs, self.address, self.pulse}.union(*(screen.outputs for screen in screens))
        answer = {"fn": partial(self.show, only=screen), "inputs": inputs, "outputs": list(outputs)}
        return {**answer, "trigger_mode": "always_last", **self.quietly}

    def on(self, event, handler, inputs, outputs=None, then_to: str | None = None) -> None:
        """Call `handler` on `event`, say on the page what it refuses, and render what came of it. then_to: the id of what is brought
        into sight once it was done, where that lies far from what was clicked."""
        done = event(said_on_page(handler, self.changes.forget), inputs, outputs, **self.quietly)
        done.then(**self.looking())
        if then_to is not None:
            done.success(None, js=f"() => document.getElementById('{then_to}')?.scrollIntoView({{block: 'center'}})")

    def opened(self, request: gr.Request) -> dict:
        """Fill a fresh page from its address."""
        return self.go(dict(request.query_params), 0) | {self.who: self.operator.rights.told(request.username)}

    def visited(self, value: str) -> dict:
        """Fill the page again: the browser went back or forward."""
        return self.go(*address.visited(value))

    def go(self, asked: Mapping[str, str], visit: int) -> dict:
        """Show what an address asks for: its run, else the newest, or the recorded example; its screen, else the first; and that
        screen's view. Says what it cannot show, and shows the default there."""
        id, name = asked.get(RUN, ""), asked.get(SCREEN, self.screens[0].name)
        if id:
            try:
                self.operator.find(id)
            except ProxSparseError as error:
                warn(str(error))
                id = ""
        if name not in self.entries:
            warn(f"There is no screen {name[:40]!r}: the screens are {', '.join(self.entries)}.")
            name = self.screens[0].name
        filled = address.fill(self.entries[name], asked)
        for sentence in filled.refused:
            warn(sentence)
        choices = self._choices()
        id = id or (choices[0][1] if choices else "")
        return filled.updates | {
            self.id: id, self.screen: name, self.tabs: gr.update(selected=name),
            self.filling: json.dumps([visit, filled.given]),
        }  # fmt: skip

    def _remembered(self, shown: Shown, name: str, seen: dict, visit: int) -> dict:
        """The update of the address, where the view changed.

        What an address asked for, and what is dragged, leaves no entry in the history.
        """
        entries, before = self.entries[name], seen.get("address", {})
        own = {RUN: shown.id, SCREEN: "" if name == self.screens[0].name else name}
        view = address.written(entries, shown)
        if shown.asked is not None:
            view = {each: text for each, text in view.items() if each in shown.asked}
        parts = {each: text for each, text in own.items() if text} | view
        if parts == before and shown.asked is None:
            return {}
        seen["address"] = parts
        dragged = {each for each, entry in entries.items() if entry.dragged}
        changed = any(parts.get(each) != before.get(each) for each in {*parts, *before} - dragged)
        return {self.address: address.as_value(parts, changed and shown.asked is None, visit)}

    def _choices(self) -> list[tuple[str, str]]:
        rows = [(row.label, row.id) for row in self.listing.rows() if row.kind == "learn"]
        return rows + ([("recorded example", EXAMPLE_ID)] if HAS_EXAMPLE else [])

    def show(self, values: dict, only: Screen | None = None) -> dict:
        """What is to be updated on the page: nothing at all where nothing changed. only: the screen for which was asked; nothing where
        another is in sight by now."""
        id, name, seen = values[self.id] or "", values[self.screen], dict(values[self.seen])
        asked = values[self.asked]
        if not asked or asked != values[self.filling]:  # the page is being filled from its address
            return gr.skip()
        screen = next((screen for screen in self.screens if screen.name == name), None)
        if screen is None or only not in (None, screen):  # the page names none but those
            return gr.skip()
        updates, choices = {}, self._choices()
        if seen.get("choices") != (choices, id):
            seen["choices"] = (choices, id)
            updates[self.runs] = gr.update(choices=choices, value=id or None)
        visit, given = json.loads(asked)
        given = given if seen.get("visit") != visit else None
        seen["visit"] = visit
        shown = Shown(id, self.operator.snapshot(id), values, dict(seen.get(name, {})), given)
        updates |= self._remembered(shown, name, seen, visit) | screen.render(shown)
        # A control that the answer moves is looked at again when it has moved.
        if not updates.keys().isdisjoint(values) or values[self.pulse].split()[0] != name:
            updates[self.pulse] = pulse.next_value(values[self.pulse], name)
        if shown.seen != seen.get(name):
            seen[name] = shown.seen
        if seen != values[self.seen]:
            updates[self.seen] = seen
        return updates or gr.skip()  # Gradio takes an empty answer for a wrong one
