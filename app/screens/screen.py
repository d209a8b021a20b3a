"""What a screen is, and what the shell tells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gradio.components import Component

from app.keyboard import Key
from app.views.run import RunSnapshot

if TYPE_CHECKING:
    from app.address import Entry
    from app.shell import Shell


@dataclass
class Shown:
    """What a screen is to show now.

    id, view: the run shown, "" and None where there is none. values: of the components that the screen listed as inputs.
    seen: what the screen remembers of its last rendering on this page, empty at first; it may change it. asked: what an address
    gave of the view, name → text, in the first rendering after it filled the screen (a page was opened, or somebody went back or
    forward); else None.
    """

    id: str
    view: RunSnapshot | None
    values: dict[Component, Any]
    seen: dict[str, Any] = field(default_factory=dict)
    asked: Mapping[str, str] | None = None

    def changed(self, name: str, value: Any) -> bool:
        """Whether `value` differs from what was seen under `name`; it is remembered."""
        if name in self.seen and self.seen[name] == value:
            return False
        self.seen[name] = value
        return True


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

    def build(self, shell: Shell) -> None:
        """Lay out the components, inside the tab."""

    def wire(self, shell: Shell) -> None:
        """Connect the components with what they do, when all screens are laid out."""

    def render(self, shown: Shown) -> dict[Component, Any]:
        """What is to be updated; nothing for what has not changed. Called about once a second while in sight."""
