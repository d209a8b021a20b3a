"""What a screen is, and what it may use of the page around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import gradio as gr
from gradio.components import Component

from app.address import Entry
from app.keyboard import Key
from app.screens.shown import Shown


class Page(Protocol):
    """The page around the screens.

    id: the hidden field with the run shown; tabs: where the screens are chosen. quietly: how every handler is called.
    """

    id: gr.Textbox
    tabs: gr.Tabs
    quietly: dict[str, Any]

    def looking(self, screen: Screen | None = None) -> dict[str, Any]:
        """How an event asks for the screen in sight to be rendered. screen: which one it is, where the event is one of its own."""

    def on(self, event: Any, handler: Callable, inputs: Any, outputs: Any = None) -> None:
        """Call `handler` on `event`, say on the page what it refuses, and render what came of it."""


class Screen(Protocol):
    """One tab of the page.

    name: in the address. title: on the tab. css: of its own elements. keys: what they do while it is in sight. inputs: components
    whose values `render` looks at; outputs: those that it may update. address: what of its view a link is to reproduce, name
    in the address → component; they count among the inputs. Other screens may use the same names; `run` and `screen` are the shell's.
    """

    name: str
    title: str
    css: str
    keys: tuple[Key, ...]
    inputs: Iterable[Component]
    outputs: Iterable[Component]
    address: Mapping[str, Component | Entry]

    def build(self, shell: Page) -> None:
        """Lay out the components, inside the tab."""

    def wire(self, shell: Page) -> None:
        """Connect the components with what they do, when all screens are laid out."""

    def render(self, shown: Shown) -> dict[Component, Any]:
        """What is to be updated; nothing for what has not changed. Called about once a second while in sight."""
