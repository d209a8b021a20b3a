"""Runs laid over each other: a run, the forks of it, or any others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from proxsparse.figures.look import (
    BLUE,
    GREEN,
    INK,
    LOWER,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    axis,
    line_mode,
    made,
    one_two_five,
    short,
    stacked,
    upright,
)

COLORS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
MOST = len(COLORS)  # runs that one chart can tell apart


@dataclass(frozen=True)
class Course:
    """One run as it is drawn beside others.

    name: what tells it from the others. steps, perplexity: as `Run.table`. forked_at: the step from which it goes its own
    way, None where it began at the first. comparable: whether its perplexities were measured as the first run's were.
    """

    name: str
    steps: pd.DataFrame
    perplexity: pd.DataFrame
    forked_at: int | None = None
    comparable: bool = True


def learning_curves(courses: Sequence[Course]) -> go.Figure:
    """The learning curves of several runs, a colour each: held-out perplexity (log scale) above the training loss.

    Parameters
    ----------
    courses : sequence of Course
        The run in the foreground first; at most `MOST`.

    Returns
    -------
    plotly Figure
    """
    data, forks, ends, values = [], [], {}, []
    # The first is drawn last, above the others: forks begin with the same steps.
    for course, color in reversed(list(zip(courses, COLORS, strict=False))):
        dash, width = ("solid", 2.5 if course is courses[0] else 1.8) if course.comparable else ("dash", 1.8)
        learned = _live(course.perplexity, "learned").drop_duplicates("step", keep="last")
        common = {"type": "scatter", "name": course.name, "legendgroup": course.name}
        if len(learned):
            data.append(common | {
                "x": learned["step"], "y": learned["perplexity"], "mode": "lines+markers",
                "line": {"color": color, "width": width, "dash": dash}, "legendrank": 1 + list(courses).index(course),
                "hovertemplate": "step %{x}: perplexity %{y:.2f}<extra>" + course.name + "</extra>",
            })  # fmt: skip
            values.append(learned["perplexity"])
            if course.comparable:
                ends[course.name] = learned.iloc[-1]
        if len(course.steps):
            data.append(common | LOWER | {
                "x": course.steps["step"], "y": course.steps["loss"], "mode": line_mode(len(course.steps)),
                "line": {"color": color, "width": 1.2},
                "showlegend": not len(learned), "opacity": 0.85,
                "hovertemplate": "step %{x}: loss %{y:.3f}<extra>" + course.name + "</extra>",
            })  # fmt: skip
        if course.forked_at is not None:
            forks += [upright(course.forked_at, chart, color=color, dash="dot", width=1) for chart in ("", "2")]
    dense = _live(courses[0].perplexity, "dense") if courses else pd.DataFrame()
    last = max(max((course.steps["step"].iloc[-1] for course in courses if len(course.steps)), default=1), 1)
    if len(dense):
        data.append({
            "type": "scatter", "x": [0, last], "y": [dense["perplexity"].iloc[-1]] * 2, "name": "dense", "mode": "lines",
            "legendrank": 99, "line": {"color": INK, "dash": "dot", "width": 1.5},
            "hovertemplate": "dense: %{y:.2f}<extra></extra>",
        })  # fmt: skip
        values.append(dense["perplexity"])
    title = "Which run gets lower? Held-out perplexity and training loss"
    if len(ends) > 1:
        best = min(ends, key=lambda name: ends[name]["perplexity"])
        title = (
            f"Lowest at its newest measurement: {short(ends[best]['perplexity'])} at step {ends[best]['step']}, {best}"
        )
    ticks = one_two_five(pd.concat(values)) if values else None
    upper = axis("perplexity, learned mask", type="log", tickvals=ticks)
    read = (
        "One colour a run; the legend says in what the runs differ. A dotted upright is where a fork left its parent: before it, both "
        "are the same run. A dashed curve was measured on another text, model or number of windows: its height does not compare."
    )
    return made(data, title, 430, read, shapes=forks, **stacked(0.6, upper, axis("loss, nats a token"), last))


def _live(perplexity: pd.DataFrame, mask: str) -> pd.DataFrame:
    if perplexity.empty:
        return pd.DataFrame(columns=["step", "perplexity"])
    return perplexity[(perplexity["scope"] == "live") & (perplexity["mask"] == mask)]
