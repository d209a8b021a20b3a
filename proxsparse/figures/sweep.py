"""Figures of a sweep, drawn from the tables of `proxsparse.runs.Sweep`; each returns a plotly figure. Every point names its trial in
`customdata`, so that a page knows which one was clicked."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from proxsparse.figures.look import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    axis,
    made,
    one_two_five,
)

INFINITE = 1.09  # where an axis that ends at 1 shows what is not finite
SCALE = [[0.0, BLUE], [0.5, SKY], [1.0, ORANGE]]  # stands out from white and from black
AXES = {"lambda1": "λ1", "learning_rate": "learning<br>rate", "steps": "steps", "perplexity": "perplexity"}


def sweep(trials: pd.DataFrame) -> go.Figure:
    """Perplexity over λ1, a line a learning rate; small and pale where fewer steps were taken.

    Parameters
    ----------
    trials : DataFrame
        As `Sweep.table`.

    Returns
    -------
    plotly Figure
    """
    columns = ["trial", "rung", "steps", "lambda1", "learning_rate", "perplexity", "stderr"]
    trials = trials if len(trials) else pd.DataFrame(columns=columns)
    data, rungs = [], sorted(trials["rung"].unique())
    finite = trials[trials["perplexity"] < float("inf")]
    rates = sorted(trials["learning_rate"].unique())
    is_grid = len(rates) <= max(1, len(trials["trial"].unique()) // 2) or len(rates) == 1
    colors = dict(zip(rates, itertools.cycle((BLUE, ORANGE, GREEN, RED, SKY, PURPLE)), strict=False))
    for (rung, rate), rows in finite.groupby(["rung", "learning_rate"] if is_grid else ["rung", lambda _: 0.0]):
        rows, steps, last = rows.sort_values("lambda1"), rows["steps"].iloc[0], rung == rungs[-1]
        name = f"rate {rate:g}, {steps} steps" if is_grid else f"{steps} steps"
        color, place = colors[rate] if is_grid else BLUE, (rungs.index(rung) + 1) / len(rungs)  # 1: the last rung
        data.append({
            "type": "scatter", "x": rows["lambda1"], "y": rows["perplexity"], "name": name,
            "mode": "lines+markers" if is_grid else "markers", "customdata": rows["trial"],
            "line": {"color": color, "width": 2.5 if last else 1.5, "dash": "solid" if last else "dot"},
            "opacity": 0.2 + 0.8 * place, "error_y": {"array": rows["stderr"], "thickness": 1},
            "marker": {"color": color, "size": 3 + 6 * place},
            "hovertemplate": "trial %{customdata}, λ1 %{x:.3g}: %{y:.2f}<extra>" + name + "</extra>",
        })  # fmt: skip
    strengths = sorted(finite["lambda1"].unique())
    is_log = bool(strengths) and strengths[0] > 0  # a logarithmic axis has no zero
    ticks = strengths if is_grid else one_two_five(finite["lambda1"]) if is_log else None
    return made(
        data, "Perplexity over λ1", 420,
        "A point is a whole run of a trial, measured on calibration windows set apart, ± standard error over windows; the smaller and "
        "paler, the shorter the run. Lines join trials of one learning rate (rate).",
        xaxis=axis("λ1", **({"type": "log", "tickvals": ticks} if is_log else {})),
        yaxis=axis(
            "perplexity under the learned mask", type="log",
            tickvals=one_two_five(finite["perplexity"]) if len(finite) else None,
        ),
    )  # fmt: skip


def sweep_trials(trials: pd.DataFrame) -> go.Figure:
    """Parallel coordinates: every trial as a line through λ1, learning rate, steps taken and perplexity.

    Parameters
    ----------
    trials : DataFrame
        As `Sweep.trials`.

    Returns
    -------
    plotly Figure
        Trials that took all steps in colours by perplexity, the lowest one thick; those that were pruned, or are running, grey.
    """
    title = "All trials: what was set, and what came of it"
    if not len(trials):
        return made([], title, 440)
    places, notes = {}, []
    for position, name in enumerate(AXES):
        places[name], ticks = _placed(trials[name], name != "steps", ".4g" if name == "perplexity" else ".3g")
        if name == "perplexity" and np.isinf(trials[name]).any():
            ticks[INFINITE] = "not finite"
        notes += [_tick(position, height, text) for height, text in ticks.items()]
    complete = (trials["state"] == "complete") & (trials["perplexity"] < float("inf"))
    heights = places["perplexity"][complete]
    shares = (heights - heights.min()) / ((heights.max() - heights.min()) or 1.0)
    best = trials.loc[complete, "perplexity"].idxmin() if complete.any() else None
    data = []
    for index in [*trials.index[~complete], *heights.sort_values(ascending=False).index]:  # the best ones on top
        row = trials.loc[index]
        color = sample_colorscale(SCALE, float(shares[index]))[0] if complete[index] else INK
        data.append({
            "type": "scatter", "mode": "lines+markers", "x": [*range(len(AXES))], "y": [places[name][index] for name in AXES],
            "name": f"trial {row['trial']}", "showlegend": False, "customdata": [int(row["trial"])] * len(AXES),
            "line": {
                "color": color, "width": 4 if index == best else 1.8 if complete[index] else 1.2,
                "dash": "solid" if complete[index] else "dot",
            },
            "marker": {"size": 9 if index == best else 6, "color": color}, "opacity": 1 if complete[index] else 0.7,
            "text": [_said(row)] * len(AXES), "hovertemplate": "%{text}<extra></extra>",
        })  # fmt: skip
    figure = made(
        data, title, 440,
        "A line is a trial. Coloured: it took all steps; blue is lower than orange, and the thickest is lowest. Grey and dotted: it was "
        "pruned after the steps shown, with the perplexity it had there, or is not at its end.",
        margin={"l": 48, "r": 24, "t": 84, "b": 24}, annotations=notes,
        shapes=[
            {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "line": {"color": INK, "width": 1}, "layer": "below"}
            for at in range(len(AXES))
        ],
        xaxis=axis(
            side="top", tickangle=0, tickvals=[*range(len(AXES))], ticktext=[*AXES.values()], range=[-0.35, len(AXES) - 0.55],
            showgrid=False, fixedrange=True,
        ),
        yaxis=axis(range=[-0.05, INFINITE + 0.05], visible=False, fixedrange=True),
    )  # fmt: skip
    shown = trials[["trial", "state", *AXES]].replace([np.inf], None)
    figure.layout.meta = figure.layout.meta | {  # what a page shows as the chart's numbers, in place of heights
        "table": {
            "header": [name.replace("_", " ") for name in shown.columns],
            "rows": shown.astype(object).to_numpy().tolist(),
        }
    }
    return figure


def _placed(values: pd.Series, log: bool, form: str) -> tuple[pd.Series, dict[float, str]]:
    """Where values stand on an axis from 0 to 1, and its ticks {place: text}."""
    finite = values[np.isfinite(values.astype(float))].astype(float)
    log = log and len(finite) > 0 and finite.min() > 0
    scale = np.log10 if log else np.asarray
    low, high = (float(scale(end)) for end in (finite.min(), finite.max())) if len(finite) else (0.0, 1.0)

    def place(value):
        return (scale(value) - low) / (high - low) if high > low else np.asarray(value) * 0 + 0.5

    placed = pd.Series(np.full(len(values), INFINITE), index=values.index)
    placed[finite.index] = place(finite.to_numpy())
    distinct = sorted(finite.unique())
    if len(distinct) > 6:
        inner = one_two_five(finite) if log else None
        distinct = [distinct[0], *(tick for tick in inner or () if 0.08 < place(tick) < 0.92), distinct[-1]]
    return placed, {float(place(tick)): f"{tick:{form}}" for tick in distinct}


def _tick(position: int, height: float, text: str) -> dict:
    """The label of a value, to the left of its axis."""
    return {
        "x": position, "y": height, "text": text, "showarrow": False, "xanchor": "right", "xshift": -7, "yshift": 8,
        "font": {"size": 11, "color": INK},
    }  # fmt: skip


def _said(row: pd.Series) -> str:
    perplexity = f"{row['perplexity']:.2f}" if np.isfinite(row["perplexity"]) else "not finite"
    return (
        f"trial {row['trial']}, {row['state']}<br>λ1 {row['lambda1']:.3g}, learning rate {row['learning_rate']:.3g}<br>"
        f"after {row['steps']} steps: perplexity {perplexity}"
    )
