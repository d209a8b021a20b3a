"""Figures of one group of weights under the regularizer, drawn from what `proxsparse.proximal.explain` computes.

Each returns a plotly figure whose title states what is to be seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from proxsparse.figures.look import BLUE, GREEN, INK, ORANGE, PURPLE, RED, SKY, axis, color_bar, made, upright

WORDS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight")
LINES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, INK, BLUE)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "solid", "dash", "dot")


def number_word(count: int) -> str:
    """A count as a sentence begins with it."""
    return WORDS[count] if count < len(WORDS) else str(count)


def proximal_point(weights: Sequence[float], point: Sequence[float], lam: float) -> go.Figure:
    """The weights of a group, and the proximal point beside them.

    Parameters
    ----------
    weights, point : (m,) numbers
        Before and after the step.
    lam : float
        λ of the step, for the title.

    Returns
    -------
    plotly Figure
    """
    names = _names(len(weights))
    zeroed = [name for name, before, after in zip(names, weights, point, strict=True) if before != 0 and after == 0]
    moved = np.abs(np.subtract(weights, point)).max() > 1e-3
    said = (
        f"sets {_listed(zeroed)} to zero" if zeroed else "shrinks weights and drops none" if moved else "moves nothing"
    )
    data = [
        {
            "type": "bar", "x": names, "y": list(values), "name": name, "marker": {"color": color},
            "text": [_short(value) for value in values], "textposition": "outside", "cliponaxis": False,
            "hovertemplate": "%{x}: %{y:.4f}<extra>" + name + "</extra>",
        }
        for name, values, color in (("weight v", weights, INK), ("prox(v)", point, BLUE))
    ]  # fmt: skip
    read = "Grey: the weights that go in; blue: what one proximal step makes of them. 0.00 is small, 0 is exactly zero."
    most = 1.25 * max(np.abs(weights).max(), np.abs(point).max(), 0.1)
    title = f"At λ = {lam:.3g} one proximal step {said}"
    return made(
        data, title, 300, read, barmode="group", bargap=0.25, xaxis=axis("position in the group"),
        yaxis=axis("weight", range=[-most, most], zeroline=True, zerolinecolor=INK),
    )  # fmt: skip


def best_by_nonzeros(table: pd.DataFrame, left: int) -> go.Figure:
    """What allowing only k nonzeros costs.

    Parameters
    ----------
    table : DataFrame
        As `proxsparse.proximal.explain.by_nonzeros` gives it.
    left : int
        How many weights the operator leaves.

    Returns
    -------
    plotly Figure
    """
    n, tied = int(table["nonzeros"].iloc[0]), table["above"].iloc[0] <= 1e-12
    if tied:
        title = f"{number_word(left)} nonzeros win: no point with more is better"
    else:
        title = (
            f"{number_word(left)} nonzeros win: the best point with at most {n} costs {table['above'].iloc[0]:.3g} more"
        )
    kept = max(left, n)
    data = {
        "type": "bar", "x": list(table["above"]), "y": [f"at most {k}" for k in table["nonzeros"]], "orientation": "h",
        "marker": {"color": [BLUE if k == kept else INK for k in table["nonzeros"]]},
        "text": [
            "best" if k == kept else "no better" if k > kept else f"+{above:.3g}"
            for k, above in zip(table["nonzeros"], table["above"], strict=True)
        ],
        "textposition": "outside", "cliponaxis": False, "customdata": list(table["objective"]),
        "hovertemplate": "%{y} nonzeros: objective %{customdata:.5g}, %{x:.3g} above the least<extra></extra>",
    }  # fmt: skip
    read = (
        "The least objective that a point with at most k nonzeros can have, above the least of all. The first bar of no length is how many "
        "weights stay."
    )
    most = max(float(table["above"].max()), 1e-12)
    return made(
        [data], title, 300, read,
        xaxis=axis("½‖w − v‖² + λR(w), above the least", range=[0, 1.3 * most], nticks=5, showticklabels=not tied),
        yaxis=axis("nonzeros", autorange="reversed", type="category", automargin=True, showgrid=False),
    )  # fmt: skip


def proximal_path(lams: Sequence[float], points: np.ndarray, lam: float) -> go.Figure:
    """The weights of the proximal point as λ grows.

    Parameters
    ----------
    lams : numbers
        λ, rising.
    points : (λ, m) array
        The proximal point at each.
    lam : float
        Where the group is now: a line.

    Returns
    -------
    plotly Figure
    """
    names = _names(points.shape[1])
    data = [
        {
            "type": "scatter", "x": list(lams), "y": points[:, index], "name": name, "mode": "lines",
            "line": {"color": LINES[index % 8], "dash": DASHES[index % 8], "width": 2.2},
            "hovertemplate": "λ = %{x:.3g}: %{y:.4f}<extra>" + name + "</extra>",
        }
        for index, name in enumerate(names)
    ]  # fmt: skip
    zero = points == 0
    gone = sorted(
        (float(lams[int(column.argmax())]), name)
        for name, column in zip(names, zero.T, strict=True)
        if column.any() and not column.all()
    )
    said = ", ".join(f"{name} at {at:.2g}" for at, name in gone[:4]) + (" …" if len(gone) > 4 else "")
    title = f"As λ grows, weights reach zero: {said}" if gone else "As λ grows, no weight of this group reaches zero"
    read = "Each line is one weight; where it joins the zero line it is dropped. The orange line is the λ chosen."
    return made(
        data, title, 300, read, xaxis=axis("λ", type="log", dtick=1), yaxis=axis("weight after the step"),
        shapes=[upright(lam, color=ORANGE, width=2)],
    )  # fmt: skip


def phase_diagram(
    lams: Sequence[float], shapes: Sequence[float], counts: np.ndarray, lam: float, shape: float, n: int, m: int
) -> go.Figure:
    """How many weights the operator leaves, over λ and the shape of the group.

    Parameters
    ----------
    lams, shapes : numbers
        λ, rising; and the ratio of the (n+1)-th largest magnitude to the n-th, in 0 … 1.
    counts : (shapes, λ) array
        How many weights are left.
    lam, shape : float
        Where the group is now: a mark.
    n, m : int
        The pattern.

    Returns
    -------
    plotly Figure
    """
    kinds = list(range(int(min(counts.min(), n)), m + 1))
    between = iter((SKY, GREEN, ORANGE, RED, PURPLE, INK))
    colors = [INK if k < n else BLUE if k == n else "#c9ccd1" if k == m else next(between) for k in kinds]
    steps = [[edge / len(kinds), color] for i, color in enumerate(colors) for edge in (i, i + 1)]
    areas = {
        "type": "heatmap", "x": list(lams), "y": list(shapes), "z": counts.astype(np.int8), "colorscale": steps,
        "zmin": kinds[0] - 0.5, "zmax": kinds[-1] + 0.5, "showscale": False,
        "hovertemplate": "λ = %{x:.3g}, ratio %{y:.2f}: %{z} weights left<extra></extra>",
    }  # fmt: skip
    names = [  # what the colours mean: a legend, since a scale of colours would suggest values in between
        {
            "type": "scatter", "x": [None], "y": [None], "mode": "markers", "name": f"{k} left",
            "marker": {"symbol": "square", "size": 12, "color": color},
        }
        for k, color in zip(kinds, colors, strict=True)
    ]  # fmt: skip
    rings = [
        {
            "type": "scatter", "x": [lam], "y": [shape], "mode": "markers", "showlegend": False, "cliponaxis": False,
            "marker": {"symbol": "circle", "size": size, "color": color},
            "hovertemplate": "this group: λ = %{x:.3g}, ratio %{y:.2f}<extra></extra>",
        }
        for size, color in ((17, "#000"), (11, "#fff"))
    ]  # fmt: skip
    title = f"How many weights are left, over λ and the ratio of the {_ordinal(n + 1)} to the {_ordinal(n)} magnitude"
    read = (
        "The ring is this group; it moves to the right with λ, up and down with the weights. The other weights keep their ratios to each "
        "other."
    )
    ends = [float(np.log10(lams[0])), float(np.log10(lams[-1]))]
    return made(
        [areas, *names, *rings], title, 340, read, xaxis=axis("λ", type="log", showgrid=False, range=ends, dtick=1),
        yaxis=axis(f"{_ordinal(n + 1)} ÷ {_ordinal(n)} magnitude", showgrid=False, range=[0, 1]),
    )  # fmt: skip


def regularizer_slice(
    first: Sequence[float],
    second: Sequence[float],
    values: np.ndarray,
    weights: Sequence[float],
    point: Sequence[float],
) -> go.Figure:
    """R over the last two weights, the others fixed.

    Parameters
    ----------
    first, second : numbers
        Values of the last but one, and of the last weight.
    values : (second, first) array
        R.
    weights, point : (m,) numbers
        The group before and after the step: two marks.

    Returns
    -------
    plotly Figure
    """
    x_name, y_name = _names(len(weights))[-2:]
    surface = {
        "type": "contour", "x": list(first), "y": list(second), "z": values, "colorscale": "Cividis", "zmin": 0,
        "line": {"width": 0.5}, "ncontours": 14,
        "hovertemplate": f"{x_name} = %{{x:.2f}}, {y_name} = %{{y:.2f}}: R = %{{z:.3g}}<extra></extra>",
        "colorbar": color_bar("R"),
    }  # fmt: skip
    step = {
        "type": "scatter", "x": [weights[-2], point[-2]], "y": [weights[-1], point[-1]], "mode": "lines+markers",
        "showlegend": False, "line": {"color": "#fff", "width": 2}, "text": ["v", "prox(v)"],
        "marker": {
            "symbol": ["circle", "diamond"], "size": 12, "color": ["#fff", ORANGE], "line": {"color": "#000", "width": 1.5},
        },
        "hovertemplate": f"%{{text}}: {x_name} = %{{x:.3f}}, {y_name} = %{{y:.3f}}<extra></extra>",
    }  # fmt: skip
    others = ", ".join(
        f"{name} = {_short(value)}" for name, value in zip(_names(len(weights)), weights[:-2], strict=False)
    )
    fixed = f" ({others} fixed)" if others else ""
    title = f"R over {x_name} and {y_name}{fixed}: least where they vanish, with kinks on the axes"
    read = "Dark is a small R. The circle is the group, the diamond where the step moves these two weights."
    return made(
        [surface, step], title, 340, read, xaxis=axis(x_name, showgrid=False, range=[first[0], first[-1]]),
        yaxis=axis(y_name, showgrid=False, range=[second[0], second[-1]]),
    )  # fmt: skip


def _names(m: int) -> list[str]:
    return [f"w{position}" for position in range(1, m + 1)]


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:.2f}"


def _ordinal(rank: int) -> str:
    words = ("largest", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
    return words[rank - 1] if rank <= len(words) else f"{rank}th"
