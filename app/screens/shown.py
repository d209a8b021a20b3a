"""What the shell tells a screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradio.components import Component

from app.views.run import RunSnapshot


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
