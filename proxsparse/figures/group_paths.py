"""One group of weights over the steps, as `Run.tile` and `Run.flips` remember it."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from proxsparse.figures.look import INK, LOWER, axis, made, marked, stacked, upright
from proxsparse.figures.tiles import PATTERN_COLORS, pattern_name

MOST_NAMED = 4  # changes of the pattern, whose names would run into each other if they were more


def group_path(tile: pd.DataFrame, flips: pd.DataFrame, n: int, title: str = "", shown: int | None = None) -> go.Figure:
    """The weights of one group over the steps: what the gradient half and what the prox half moved, and R of the group.

    Parameters
    ----------
    tile : DataFrame
        The rows of `Run.tile` that belong to the group: step, half, column, weight.
    flips : DataFrame
        The rows of `Run.flips` that belong to it: step, before, after.
    n : int
        How many weights a group keeps; R is the sum over all products of n + 1 sizes.
    title : str
        Which group it is.
    shown : int, optional
        A step to mark.

    Returns
    -------
    plotly Figure
        The size of each weight, |soft weight in the metric|; thin where the gradient moved it, thick where the prox did.
    """
    tile = tile.assign(at=tile["step"] - np.where(tile["half"] == "gradient", 0.5, 0.0)).sort_values("at")
    data = []
    for index, (_, rows) in enumerate(tile.groupby("column")):
        color, name = PATTERN_COLORS[index % len(PATTERN_COLORS)], f"weight {index + 1}"
        at, size, half = rows["at"].to_numpy(), rows["weight"].abs().to_numpy(), rows["half"].to_numpy()
        for kind, width, dash in (("gradient", 1.2, "dot"), ("prox", 3, "solid")):
            ends = np.flatnonzero(half[1:] == kind) + 1
            data.append({
                "type": "scatter", "x": _segments(at, ends), "y": _segments(size, ends), "mode": "lines", "name": name,
                "legendgroup": name, "showlegend": kind == "prox", "line": {"color": color, "width": width, "dash": dash},
                "hovertemplate": f"{name}, {kind} half<br>step %{{x}}: %{{y:.4g}}<extra></extra>",
            })  # fmt: skip
    m = tile["column"].nunique()
    sizes = tile.pivot_table(index="at", columns="column", values="weight").abs()
    products = (sizes.to_numpy()[:, list(chosen)].prod(axis=1) for chosen in itertools.combinations(range(m), n + 1))
    data.append({
        "type": "scatter", "x": sizes.index, "y": sum(products), "mode": "lines", "name": "R of the group",
        "line": {"color": INK, "width": 1.5}, "hovertemplate": "step %{x}: R = %{y:.3g}<extra></extra>", **LOWER,
    })  # fmt: skip
    lines = [upright(step, chart, color=INK, width=1, dash="dash") for step in flips["step"] for chart in ("", "2")]
    changes = [
        {
            "x": step, "y": 1, "yref": "paper", "yanchor": "top", "showarrow": False, "font": {"size": 10},
            "text": f"{pattern_name(int(before), m)} → {pattern_name(int(after), m)}",
        }
        for step, before, after in flips[["step", "before", "after"]].itertuples(index=False)
    ]  # fmt: skip
    read = (
        "Each line is the size of one weight, in the metric in which sizes are compared. Dotted pieces are what the gradient half moved, "
        "solid ones what the prox half did. The mask keeps the largest; a dashed line is a change of the pattern. R is the regularizer of "
        f"this group: 0 as soon as it has no more than {n} nonzero weights."
    )
    named = changes if len(changes) <= MOST_NAMED else []
    above, below = axis("|soft weight|, in the metric", rangemode="tozero"), axis("R", rangemode="tozero")
    axes = stacked(0.72, above, below, len(sizes))
    if named:
        axes["yaxis"]["domain"][1] -= 0.05  # the line of their names
    figure = made(data, title, 430, read, shapes=lines, annotations=named, **axes)
    return marked(figure, shown)


def _segments(values: np.ndarray, ends: np.ndarray) -> list:
    """start, end, gap, for every move that ends at one of `ends`."""
    return [entry for end in ends for entry in (float(values[end - 1]), float(values[end]), None)]
