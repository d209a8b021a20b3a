"""λ1 at the steps to come: known, because it grows by its ramp until somebody sets it."""

from __future__ import annotations

from app.views.run import RunSnapshot
from proxsparse.learning.ramp import left_of, strengths_ahead
from proxsparse.runs.readers.records import BINS


def strength_to_come(view: RunSnapshot) -> float:
    """λ1 at the half step that comes: what was set by hand last, also where the worker has not heard of it yet."""
    waiting = [command for _, command in view.run.commands() if command and command["command"] == "set"]
    return float(waiting[-1]["lambda1"]) if waiting else view.strength


def strengths_to_come(view: RunSnapshot) -> dict[int, float]:
    """{step: λ1} of the steps that are still to be taken; empty where there are none, or where it is not written down how far a
    fork had grown."""
    learn, state = view.job.learn, view.state
    growth_left = state.get("growth_left")
    if growth_left is None:
        if view.run.header().get("parent"):
            return {}
        growth_left = left_of(learn.ramp, state["step"], learn.steps)
    return _thinned(strengths_ahead(strength_to_come(view), growth_left, state["step"], learn.steps))


def planned_strengths(view: RunSnapshot) -> dict[int, float]:
    """{step: λ1} of the whole run as it was planned at its start, where it was set by hand since; else empty."""
    learn = view.job.learn
    set_by_hand = any(event["event"] == "lambda1" for event in view.events)
    if view.run.header().get("parent") or not set_by_hand:
        return {}
    return _thinned(strengths_ahead(learn.lambda1 / learn.ramp, learn.ramp, 0, learn.steps))


def _thinned(strengths: dict[int, float]) -> dict[int, float]:
    """At most BINS + 1 of them, the first and the last among them: the curve between them is smooth."""
    every, last = max(1, len(strengths) // BINS), max(strengths, default=0)
    return {step: value for index, (step, value) in enumerate(strengths.items()) if index % every == 0 or step == last}
