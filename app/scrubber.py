"""A slider over the steps of a run. At its right end it follows the newest step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from app.address import Entry, number
from app.screens.shown import Shown
from proxsparse import ProxSparseError

NAME = "step"  # in the address


def asked_step(text: str) -> int:
    """The step that an address asks for. Raises ProxSparseError where it is none."""
    step = number(text)
    if not isinstance(step, int) or step < 0:
        raise ProxSparseError(f"{text!r} is no step.")
    return step


def entry(slider: gr.Slider) -> Entry:
    """For the address. At the right end of the slider no step is meant."""

    def kept(step: float, shown: Shown) -> str:
        if shown.asked is not None:
            return shown.asked.get(NAME, "")
        return "" if _follows(step, shown) else f"{_meant(step, shown):.0f}"

    return Entry(slider, asked_step, kept, fills=False)


@dataclass(frozen=True)
class Scrubbed:
    """Which step is shown; whether that is the newest, whichever it is; and what moves the slider."""

    step: int
    follows: bool
    updates: dict[Component, Any]


def scrub(slider: gr.Slider, shown: Shown, newest: int, run_changed: bool) -> Scrubbed:
    """Look where the slider stands, and move it where the run went on, or an address asked for a step."""
    at = shown.values[slider]
    follows, wanted = run_changed or _follows(at, shown), _meant(at, shown)
    if shown.asked is not None:
        wanted = asked_step(shown.asked.get(NAME, str(newest)))
        follows = wanted >= newest
    step = newest if follows else int(wanted)
    # The slider's end comes down only once its value has: Gradio refuses a value, on its way here, beyond the end.
    end = max(newest, 1) if at <= max(newest, 1) else shown.seen.get("end", 1)
    sent = shown.seen.get("sent", (at,))
    sent = sent if at in sent and at != sent[-1] else (at,)
    updates: dict[Component, Any] = {}
    if shown.changed("end", end) | shown.changed("newest", newest) | run_changed | (shown.asked is not None):
        # Its value only when it moves: an answer on its way must not undo what somebody has just chosen.
        moved = (follows or shown.asked is not None) and step not in (at, sent[-1])
        sent = (*sent, step) if moved else sent
        updates[slider] = gr.update(maximum=end, **({"value": step} if moved else {}))
    shown.seen.update(sent=sent, follows=follows)
    return Scrubbed(step, follows, updates)


def _follows(at: float, shown: Shown) -> bool:
    """Whether the newest step is meant. A page still sends a value of before while ours is on its way to it: only one that we
    did not send was chosen by somebody."""
    if at in shown.seen.get("sent", (at,)):
        return shown.seen.get("follows", True)
    return at >= shown.seen.get("newest", 0)


def _meant(at: float, shown: Shown) -> float:
    """The value that the slider will have once all that we sent has arrived."""
    sent = shown.seen.get("sent", (at,))
    return sent[-1] if at in sent else at
