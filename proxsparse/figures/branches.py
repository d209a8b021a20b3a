"""Runs laid over each other: a run, the forks of it, or any others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from proxsparse.figures.look import BLUE, GREEN, INK, ORANGE, PURPLE, RED, SKY, dressed, one_two_five

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
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.6, 0.4])
    ends, values = {}, []
    # The first is drawn last, above the others: forks begin with the same steps.
    for course, color in reversed(list(zip(courses, COLORS, strict=False))):
        dash, width = ("solid", 2.5 if course is courses[0] else 1.8) if course.comparable else ("dash", 1.8)
        learned = _live(course.perplexity, "learned").drop_duplicates("step", keep="last")
        if len(learned):
            figure.add_scatter(
                x=learned["step"], y=learned["perplexity"], name=course.name, legendgroup=course.name, mode="lines+markers",
                line={"color": color, "width": width, "dash": dash}, legendrank=1 + list(courses).index(course),
                hovertemplate="step %{x}: perplexity %{y:.2f}<extra>" + course.name + "</extra>", row=1, col=1,
            )  # fmt: skip
            values.append(learned["perplexity"])
            if course.comparable:
                ends[course.name] = learned.iloc[-1]
        if len(course.steps):
            figure.add_scatter(
                x=course.steps["step"], y=course.steps["loss"], name=course.name, legendgroup=course.name, mode="lines",
                line={"color": color, "width": 1.2}, showlegend=not len(learned), opacity=0.85,
                hovertemplate="step %{x}: loss %{y:.3f}<extra>" + course.name + "</extra>", row=2, col=1,
            )  # fmt: skip
        if course.forked_at is not None:
            figure.add_vline(x=course.forked_at, line={"color": color, "dash": "dot", "width": 1})
    dense = _live(courses[0].perplexity, "dense") if courses else pd.DataFrame()
    if len(dense):
        last = max(max((course.steps["step"].iloc[-1] for course in courses if len(course.steps)), default=1), 1)
        figure.add_scatter(
            x=[0, last], y=[dense["perplexity"].iloc[-1]] * 2, name="dense", mode="lines", legendrank=99,
            line={"color": INK, "dash": "dot", "width": 1.5}, hovertemplate="dense: %{y:.2f}<extra></extra>", row=1, col=1,
        )  # fmt: skip
        values.append(dense["perplexity"])
    title = "Which run gets lower? Held-out perplexity and training loss"
    if len(ends) > 1:
        best = min(ends, key=lambda name: ends[name]["perplexity"])
        title = f"Lowest at its newest measurement: {ends[best]['perplexity']:.4g} at step {ends[best]['step']}, {best}"
    figure.update_yaxes(
        title_text="perplexity, learned mask", type="log", tickvals=one_two_five(pd.concat(values)) if values else None,
        row=1, col=1,
    )  # fmt: skip
    figure.update_yaxes(title_text="loss, nats a token", row=2, col=1)
    figure.update_xaxes(title_text="step", row=2, col=1)
    read = (
        "One colour a run; the legend says in what the runs differ. A dotted upright is where a fork left its parent: before it, both "
        "are the same run. A dashed curve was measured on another text, model or number of windows: its height does not compare."
    )
    return dressed(figure, title, height=430, read=read)


def _live(perplexity: pd.DataFrame, mask: str) -> pd.DataFrame:
    if perplexity.empty:
        return pd.DataFrame(columns=["step", "perplexity"])
    return perplexity[(perplexity["scope"] == "live") & (perplexity["mask"] == mask)]
