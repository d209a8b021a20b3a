"""What the page says was clicked: in a chart or in a table."""

from __future__ import annotations

from typing import Any

import gradio as gr

from proxsparse import ProxSparseError

LONGEST = 120  # characters of a name


def clicked(event: gr.EventData, name: str) -> Any:
    """What the page says of the click. Raises ProxSparseError where it says nothing."""
    try:
        return getattr(event, name)
    except (AttributeError, TypeError):  # TypeError: of an event without any data
        raise ProxSparseError("The page does not say what was clicked: click it again.") from None


def clicked_text(event: gr.EventData, name: str) -> str:
    """The same as a text, "" where it says that there is none."""
    value = clicked(event, name)
    return "" if value is None else str(value)[:LONGEST]
