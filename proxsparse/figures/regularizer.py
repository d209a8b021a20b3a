"""Figures of one group of weights under the regularizer, drawn from what `proxsparse.proximal.explain` computes.

Each returns a plotly figure whose title states what is to be seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from proxsparse.figures.look import BLUE, GREEN, INK, ORANGE, PURPLE, RED, SKY, dressed

WORDS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight")
LINES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, INK, BLUE)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "solid", "dash", "dot")


def number_word(count: int) -> str:
    """A count as a sentence begins with it."""
    return WORDS[count] if count < len(WORDS) else str(count)


def proximal_point(weights: Sequence[float], point: Sequence[float], lam: float) -> go.Figure:
    """The weights of a group, and the proximal point beside them. weights, point: (m,)."""
    names = _names(len(weights))
    zeroed = [name for name, before, after in zip(names, weights, point, strict=True) if before != 0 and after == 0]
    moved = np.abs(np.subtract(weights, point)).max() > 1e-3
    said = (
        f"sets {_listed(zeroed)} to zero" if zeroed else "shrinks weights and drops none" if moved else "moves nothing"
    )
    figure = go.Figure()
    for name, values, color in (("weight v", weights, INK), ("prox(v)", point, BLUE)):
        figure.add_bar(
            x=names, y=list(values), name=name, marker_color=color, text=[_short(value) for value in values],
            textposition="outside", cliponaxis=False, hovertemplate="%{x}: %{y:.4f}<extra>" + name + "</extra>",
        )  # fmt: skip
    most = 1.25 * max(np.abs(weights).max(), np.abs(point).max(), 0.1)
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_yaxes(title_text="weight", range=[-most, most])
    figure.update_xaxes(title_text="position in the group")
    figure.add_hline(y=0, line={"color": INK, "width": 1})
    return dressed(figure, f"At λ = {lam:.3g} one proximal step {said}", height=300)


def best_by_nonzeros(table: pd.DataFrame, left: int) -> go.Figure:
    """What allowing only k nonzeros costs. table: as `explain.by_nonzeros`. left: how many the operator leaves."""
    n, tied = int(table["nonzeros"].iloc[0]), table["above"].iloc[0] <= 1e-12
    if tied:
        title = f"{number_word(left)} nonzeros win: no point with more is better"
    else:
        title = (
            f"{number_word(left)} nonzeros win: the best point with at most {n} costs {table['above'].iloc[0]:.3g} more"
        )
    figure = go.Figure()
    figure.add_bar(
        x=list(table["above"]), y=[f"at most {k}" for k in table["nonzeros"]], orientation="h",
        marker_color=[BLUE if k == max(left, n) else INK for k in table["nonzeros"]],
        text=["best" if above <= 1e-12 else f"+{above:.3g}" for above in table["above"]], textposition="outside",
        cliponaxis=False, customdata=list(table["objective"]),
        hovertemplate="%{y} nonzeros: objective %{customdata:.5g}, %{x:.3g} above the least<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text="½‖w − v‖² + λR(w), above the least", rangemode="tozero", nticks=5)
    if table["above"].max() <= 1e-12:
        figure.update_xaxes(range=[0, 1], showticklabels=False)
    figure.update_yaxes(title_text="nonzeros", autorange="reversed", type="category", automargin=True, showgrid=False)
    figure = dressed(figure, title, height=300)
    return figure.update_layout(margin_r=60)  # for the numbers beside the bars


def proximal_path(lams: Sequence[float], points: np.ndarray, lam: float) -> go.Figure:
    """The weights of the proximal point as λ grows. points: (λ, m). lam: where the group is now, a line."""
    names, figure, gone = _names(points.shape[1]), go.Figure(), []
    for index, name in enumerate(names):
        figure.add_scatter(
            x=list(lams), y=points[:, index], name=name, mode="lines",
            line={"color": LINES[index % 8], "dash": DASHES[index % 8], "width": 2.2},
            hovertemplate="λ = %{x:.3g}: %{y:.4f}<extra>" + name + "</extra>",
        )  # fmt: skip
        zero = points[:, index] == 0
        if zero.any() and not zero.all():
            gone.append((float(lams[int(zero.argmax())]), name))
    said = ", ".join(f"{name} at {at:.2g}" for at, name in sorted(gone)[:4])
    title = f"As λ grows, weights reach zero: {said}" if gone else "As λ grows, no weight of this group reaches zero"
    figure.add_vline(x=lam, line={"color": ORANGE, "width": 2})
    figure.update_xaxes(title_text="λ", type="log", dtick=1)
    figure.update_yaxes(title_text="weight after the step")
    return dressed(figure, title, height=300)


def phase_diagram(
    lams: Sequence[float], shapes: Sequence[float], counts: np.ndarray, lam: float, shape: float, n: int, m: int
) -> go.Figure:
    """How many weights the operator leaves, over λ and the shape of the group. counts: (shapes, λ). lam, shape: where the
    group is now, a mark."""
    kinds = list(range(int(min(counts.min(), n)), m + 1))
    between = iter((SKY, GREEN, ORANGE, RED, PURPLE, INK))
    colors = [PURPLE if k < n else BLUE if k == n else "#c9ccd1" if k == m else next(between) for k in kinds]
    steps = [
        (edge, color) for i, color in enumerate(colors) for edge in (i / len(kinds), (i + 1) / len(kinds))
    ]  # fmt: skip
    figure = go.Figure()
    figure.add_heatmap(
        x=list(lams), y=list(shapes), z=counts.astype(np.int8), colorscale=steps, zmin=kinds[0] - 0.5, zmax=kinds[-1] + 0.5,
        hovertemplate="λ = %{x:.3g}, ratio %{y:.2f}: %{z} weights left<extra></extra>",
        colorbar={"tickvals": kinds, "title": {"text": "left", "side": "top"}, "thickness": 12, "outlinewidth": 0},
    )  # fmt: skip
    figure.add_scatter(
        x=[lam], y=[shape], mode="markers", name="this group", showlegend=False,
        marker={"symbol": "circle-open", "size": 16, "color": "#000", "line": {"width": 3}},
        hovertemplate="this group: λ = %{x:.3g}, ratio %{y:.2f}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[lam], y=[shape], mode="markers", showlegend=False, hoverinfo="skip",
        marker={"symbol": "circle", "size": 8, "color": "#fff"},
    )  # fmt: skip
    ends = [float(lams[0]), float(lams[-1])]
    figure.update_xaxes(title_text="λ", type="log", showgrid=False, range=list(np.log10(ends)), dtick=1)
    figure.update_yaxes(title_text=f"{_ordinal(n + 1)} ÷ {_ordinal(n)} magnitude", showgrid=False, range=[0, 1])
    title = f"How many weights are left, over λ and the ratio of the {_ordinal(n + 1)} to the {_ordinal(n)} magnitude"
    return dressed(figure, title, height=340)


def regularizer_slice(
    first: Sequence[float],
    second: Sequence[float],
    values: np.ndarray,
    weights: Sequence[float],
    point: Sequence[float],
) -> go.Figure:
    """R over the last two weights, the others fixed. values: (second, first). weights, point: before and after the step."""
    x_name, y_name = _names(len(weights))[-2:]
    figure = go.Figure()
    figure.add_contour(
        x=list(first), y=list(second), z=values, colorscale="Cividis", zmin=0, line={"width": 0.5}, ncontours=14,
        hovertemplate=f"{x_name} = %{{x:.2f}}, {y_name} = %{{y:.2f}}: R = %{{z:.3g}}<extra></extra>",
        colorbar={"title": {"text": "R", "side": "top"}, "thickness": 12, "outlinewidth": 0},
    )  # fmt: skip
    figure.add_scatter(
        x=[weights[-2], point[-2]], y=[weights[-1], point[-1]], mode="lines+markers", showlegend=False,
        line={"color": "#fff", "width": 2}, text=["v", "prox(v)"],
        marker={"symbol": ["circle", "diamond"], "size": 12, "color": ["#fff", ORANGE], "line": {"color": "#000", "width": 1.5}},
        hovertemplate=f"%{{text}}: {x_name} = %{{x:.3f}}, {y_name} = %{{y:.3f}}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text=x_name, showgrid=False, range=[first[0], first[-1]])
    figure.update_yaxes(title_text=y_name, showgrid=False, range=[second[0], second[-1]])
    others = ", ".join(
        f"{name} = {_short(value)}" for name, value in zip(_names(len(weights)), weights[:-2], strict=False)
    )
    fixed = f" ({others} fixed)" if others else ""
    title = f"R over {x_name} and {y_name}{fixed}: least where they vanish, with kinks on the axes"
    return dressed(figure, title, height=340)


def _names(m: int) -> list[str]:
    return [f"w{position}" for position in range(1, m + 1)]


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:.2f}"


def _ordinal(rank: int) -> str:
    words = ("largest", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
    return words[rank - 1] if rank <= len(words) else f"{rank}th"
