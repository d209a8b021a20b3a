"""Figures of masks: a tile weight by weight, one group over the steps, a whole layer, and how its patterns change.

They take numpy arrays and tables as `Run.mask`, `Run.tile`, `Run.flips` and `Run.patterns` give them. A pattern is written
as the positions that it keeps: ●●○○ keeps the first two of four.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from proxsparse.figures.look import BLUE, GREEN, GRID, INK, ORANGE, PURPLE, RED, SKY, dressed

COLORINGS = ("kept or dropped", "soft weight", "pattern", "against another mask")
DROPPED = "rgba(128,128,128,0.22)"
PATTERN_COLORS = (BLUE, ORANGE, GREEN, RED, SKY, PURPLE, INK)
AGAINST = (
    ("neither keeps it", DROPPED),
    ("only the other mask keeps it", ORANGE),
    ("only this mask keeps it", BLUE),
    ("both keep it", GREEN),
)
MOST_PIXELS = 256  # of a whole layer's picture, along each side
NAMED_PATTERNS = 12  # with more, only the commonest have a colour of their own


def pattern_name(code: int, m: int) -> str:
    """●●○○ for a pattern given as a bit mask: bit 0 is the first weight of the group."""
    return "".join("●" if code >> i & 1 else "○" for i in range(m))


def pattern_codes(kept: np.ndarray, m: int) -> np.ndarray:
    """The pattern of every group as a bit mask; kept bool (rows, columns) → int (rows, columns / m)."""
    rows, columns = kept.shape
    return (kept.reshape(rows, columns // m, m).astype(np.int64) << np.arange(m)).sum(-1)


def mask_tile(
    kept: np.ndarray,
    m: int,
    coloring: str = "kept or dropped",
    weights: np.ndarray | None = None,
    other: np.ndarray | None = None,
    corner: tuple[int, int] = (0, 0),
    chosen: tuple[int, int] | None = None,
    title: str = "",
) -> go.Figure:
    """A piece of a layer weight by weight, with the borders of the groups.

    Parameters
    ----------
    kept : ndarray
        Bool (rows, columns), columns a multiple of m.
    m : int
        Weights in a group.
    coloring : str
        One of `COLORINGS`.
    weights : ndarray, optional
        (rows, columns), the soft weights in the metric: needed to colour by them, shown under the pointer.
    other : ndarray, optional
        Bool (rows, columns), the mask to compare with; needed for that colouring.
    corner : (int, int)
        Row and column of the piece's first weight in the layer.
    chosen : (int, int), optional
        Row in the layer and group in that row: framed.
    title : str
        What is shown, and when.

    Returns
    -------
    plotly Figure
        Each cell's customdata is its group in the row.
    """
    rows, columns = kept.shape
    y, x = (np.arange(size) + first for size, first in zip(kept.shape, corner, strict=True))
    groups = np.broadcast_to(x // m, kept.shape)
    text = np.where(kept, "kept", "dropped").astype(object)
    if weights is not None:
        text = text + np.array([[f", soft weight {value:+.3g}" for value in line] for line in weights], dtype=object)
    figure = go.Figure()
    common = {
        "x": x, "y": y, "customdata": groups, "text": text, "xgap": 1, "ygap": 1,
        "hovertemplate": "row %{y}, column %{x} (group %{customdata})<br>%{text}<extra></extra>",
    }  # fmt: skip
    if coloring == "soft weight" and weights is not None:
        most = float(np.abs(weights).max()) or 1.0
        figure.add_heatmap(
            z=weights, zmin=-most, zmax=most, colorscale=[(0, RED), (0.5, "rgba(128,128,128,0.12)"), (1, BLUE)], **common,
            colorbar={"title": {"text": "soft weight", "side": "right"}, "thickness": 12, "outlinewidth": 0},
        )  # fmt: skip
        dropped_rows, dropped_columns = np.nonzero(~kept)
        figure.add_scatter(
            x=x[dropped_columns], y=y[dropped_rows], mode="markers", name="dropped", hoverinfo="skip",
            marker={"symbol": "x-thin", "size": 6, "line": {"width": 1.2, "color": INK}}, showlegend=True,
        )  # fmt: skip
    else:
        values, named = _categories(kept, m, coloring, other)
        _add_categories(figure, values, named, common)
    _add_borders(figure, m, corner, (rows, columns), chosen)
    figure.update_xaxes(title_text="input (column)", showgrid=False, tickformat="d", constrain="domain")
    figure.update_yaxes(title_text="output (row)", showgrid=False, tickformat="d", autorange="reversed")
    return dressed(figure, title, height=170 + 32 * rows)


def _categories(kept: np.ndarray, m: int, coloring: str, other: np.ndarray | None):
    """Each weight's category as an index, and the (name, colour) of each."""
    if coloring == "pattern":
        codes = pattern_codes(kept, m)
        found = np.unique(codes)
        index = np.searchsorted(found, codes)
        named = [(pattern_name(int(code), m), PATTERN_COLORS[i % len(PATTERN_COLORS)]) for i, code in enumerate(found)]
        return np.repeat(index, m, axis=1), named
    if coloring == "against another mask" and other is not None:
        return 2 * kept.astype(int) + other.astype(int), list(AGAINST)
    return kept.astype(int), [("dropped", DROPPED), ("kept", BLUE)]


def _add_categories(figure: go.Figure, values: np.ndarray, named: list[tuple[str, str]], common: dict) -> None:
    count = len(named)
    scale = [(edge / count, color) for i, (_, color) in enumerate(named) for edge in (i, i + 1)]
    figure.add_heatmap(z=values, zmin=-0.5, zmax=count - 0.5, colorscale=scale, showscale=False, **common)
    shares = [(values == i).mean() for i in range(count)]
    for (name, color), share in zip(named, shares, strict=True):  # a legend: a heatmap has none for categories
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=f"{name} ({share:.0%})",
            marker={"symbol": "square", "size": 11, "color": color},
        )  # fmt: skip


def _add_borders(figure: go.Figure, m: int, corner, shape, chosen) -> None:
    (top, left), (rows, columns) = corner, shape
    for edge in range(left, left + columns + 1, m):
        figure.add_shape(
            type="line",
            x0=edge - 0.5,
            x1=edge - 0.5,
            y0=top - 0.5,
            y1=top + rows - 0.5,
            line={"color": INK, "width": 3},
        )
    if chosen is not None:
        row, group = chosen
        figure.add_shape(
            type="rect", x0=group * m - 0.5, x1=(group + 1) * m - 0.5, y0=row - 0.5, y1=row + 0.5,
            line={"color": RED, "width": 3},
        )  # fmt: skip


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
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.72, 0.28])
    tile = tile.assign(at=tile["step"] - np.where(tile["half"] == "gradient", 0.5, 0.0)).sort_values("at")
    for index, (_, rows) in enumerate(tile.groupby("column")):
        color, name = PATTERN_COLORS[index % len(PATTERN_COLORS)], f"weight {index + 1}"
        at, size, half = rows["at"].to_numpy(), rows["weight"].abs().to_numpy(), rows["half"].to_numpy()
        for kind, width, dash in (("gradient", 1.2, "dot"), ("prox", 3, "solid")):
            ends = np.flatnonzero(half[1:] == kind) + 1
            figure.add_scatter(
                x=_segments(at, ends), y=_segments(size, ends), mode="lines", name=name, legendgroup=name,
                showlegend=kind == "prox", line={"color": color, "width": width, "dash": dash},
                hovertemplate=f"{name}, {kind} half<br>step %{{x}}: %{{y:.4g}}<extra></extra>", row=1, col=1,
            )  # fmt: skip
    m = tile["column"].nunique()
    sizes = tile.pivot_table(index="at", columns="column", values="weight").abs()
    products = (sizes.to_numpy()[:, list(chosen)].prod(axis=1) for chosen in itertools.combinations(range(m), n + 1))
    figure.add_scatter(
        x=sizes.index, y=sum(products), mode="lines", name="R of the group", line={"color": INK, "width": 1.5},
        hovertemplate="step %{x}: R = %{y:.3g}<extra></extra>", row=2, col=1,
    )  # fmt: skip
    for step, before, after in flips[["step", "before", "after"]].itertuples(index=False):
        figure.add_vline(x=step, line={"color": INK, "width": 1, "dash": "dash"})
        figure.add_annotation(
            x=step, y=1, yref="paper", yanchor="bottom", showarrow=False, font={"size": 10},
            text=f"{pattern_name(int(before), m)} → {pattern_name(int(after), m)}" if len(flips) <= 4 else "",
        )  # fmt: skip
    figure.update_yaxes(title_text="|soft weight|, in the metric", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title_text="R", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text="step", row=2, col=1)
    figure = marked(dressed(figure, title, height=430), shown)
    return figure.update_layout(legend_y=1.06, margin_t=80)


def _segments(values: np.ndarray, ends: np.ndarray) -> list:
    """start, end, gap, for every move that ends at one of `ends`."""
    return [entry for end in ends for entry in (float(values[end - 1]), float(values[end]), None)]


def layer_picture(kept: np.ndarray, other: np.ndarray, names: tuple[str, str], title: str = "") -> go.Figure:
    """Where two masks of a whole layer differ: an image at screen resolution, and its margins.

    Parameters
    ----------
    kept, other : ndarray
        Bool (rows, columns).
    names : (str, str)
        What the two masks are called.
    title : str
        Of the chart.

    Returns
    -------
    plotly Figure
        Each cell is the share of the weights in a rectangle that one mask keeps and the other drops.
    """
    differs = kept != other
    image, (height, width) = _shrunk(differs)
    figure = make_subplots(
        rows=2, cols=2, shared_xaxes=True, shared_yaxes=True, column_widths=[0.84, 0.16], row_heights=[0.2, 0.8],
        horizontal_spacing=0.02, vertical_spacing=0.03,
    )  # fmt: skip
    x, y = (np.arange(count) * size for count, size in ((image.shape[1], width), (image.shape[0], height)))
    figure.add_heatmap(
        z=np.rint(image * 100).astype(np.uint8), x=x, y=y, zmin=0, zmax=max(100 * float(image.max()), 1), row=2, col=1,
        colorscale="Cividis",
        hovertemplate=f"rows %{{y}} to +{height}, columns %{{x}} to +{width}: %{{z}}% differ<extra></extra>",
        colorbar={"ticksuffix": "%", "thickness": 12, "outlinewidth": 0, "len": 0.8, "y": 0.4},
    )  # fmt: skip
    for margin, axis, place in ((0, {"x": x}, (1, 1)), (1, {"y": y}, (2, 2))):
        share = image.mean(axis=margin)
        values = {"y": share} if margin == 0 else {"x": share}
        figure.add_scatter(
            **axis, **values, mode="lines", line={"color": BLUE, "width": 1.2}, showlegend=False, row=place[0], col=place[1],
            hovertemplate=f"{'column %{x}: %{y:.1%}' if margin == 0 else 'row %{y}: %{x:.1%}'} differ<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="input (column)", row=2, col=1)
    figure.update_yaxes(title_text="output (row)", autorange="reversed", row=2, col=1)
    figure.update_yaxes(autorange="reversed", row=2, col=2)
    figure.update_xaxes(tickformat=".0%", row=2, col=2)
    figure.update_yaxes(tickformat=".0%", row=1, col=1)
    title = title or f"{names[0]} and {names[1]} differ in {differs.mean():.1%} of the weights"
    return dressed(figure, title, height=440)


def _shrunk(differs: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Shares of rectangles so that neither side has more than MOST_PIXELS; and the rectangles' size. What is left of the
    last rectangle at an edge is averaged by itself."""
    sizes = [-(-length // MOST_PIXELS) for length in differs.shape]
    image = differs.astype(np.float64)
    for axis, size in enumerate(sizes):
        edges = np.arange(0, differs.shape[axis], size)
        counts = np.diff([*edges, differs.shape[axis]])
        image = np.add.reduceat(image, edges, axis) / np.expand_dims(counts, 1 - axis)
    return image, (sizes[0], sizes[1])


def marked(figure: go.Figure, step: int | None) -> go.Figure:
    """The figure with a line at the step that other charts show.

    Parameters
    ----------
    figure : plotly Figure
        With steps along x.
    step : int or None
        None: no line.

    Returns
    -------
    plotly Figure
        The same.
    """
    return figure if step is None else figure.add_vline(x=step, line={"color": RED, "width": 1.5})


def pattern_shares(patterns: pd.DataFrame, title: str = "Which patterns the groups have") -> go.Figure:
    """How many groups have each pattern, as stacked shares over the steps.

    Parameters
    ----------
    patterns : DataFrame
        As `Run.patterns`: step, and a column for each pattern, such as 1100, with the share of groups that have it.
    title : str
        Of the chart.

    Returns
    -------
    plotly Figure
        With many patterns the commonest in the end have a colour of their own.
    """
    figure = go.Figure()
    names = [name for name in patterns.columns if set(name) <= {"0", "1"}]
    commonest = sorted(names, key=lambda name: -patterns[name].iloc[-1])[:NAMED_PATTERNS]
    rest = [name for name in names if name not in commonest]
    for index, name in enumerate(name for name in names if name in commonest):
        written = name.replace("1", "●").replace("0", "○")
        _stack(figure, patterns["step"], patterns[name] * 100, written, PATTERN_COLORS[index % len(PATTERN_COLORS)])
    if rest:
        _stack(figure, patterns["step"], patterns[rest].sum(axis=1) * 100, f"{len(rest)} other patterns", GRID)
    figure.update_yaxes(title_text="groups, %", range=[0, 100])
    figure.update_xaxes(title_text="step")
    return dressed(figure, title, height=300)


def _stack(figure: go.Figure, steps: pd.Series, shares: pd.Series, name: str, color: str) -> None:
    figure.add_scatter(
        x=steps, y=shares, name=name, mode="lines", stackgroup="patterns", line={"width": 0.5, "color": color},
        fillcolor=color, hovertemplate="step %{x}: %{y:.2f}%<extra>" + name + "</extra>",
    )  # fmt: skip


def agreement(patterns: pd.DataFrame, title: str = "Kept weights in common with other masks") -> go.Figure:
    """How much of a layer's mask is that of the start, of magnitude and of Wanda, over the steps.

    Parameters
    ----------
    patterns : DataFrame
        As `Run.patterns`: step, and agreement_start, agreement_magnitude, agreement_wanda.
    title : str
        Of the chart.

    Returns
    -------
    plotly Figure
    """
    figure = go.Figure()
    start, wanda = patterns["agreement_start"], patterns["agreement_wanda"]
    is_wanda = start.equals(wanda)  # of a run in the metric `activation`
    drawn = [("start, which is Wanda's" if is_wanda else "start", start, BLUE, "solid")]
    drawn += [("magnitude", patterns["agreement_magnitude"], RED, "dash")]
    drawn += [] if is_wanda else [("Wanda", wanda, GREEN, "dot")]
    for name, shares, color, dash in drawn:
        if shares.notna().any():
            figure.add_scatter(
                x=patterns["step"], y=shares, name=name, mode="lines", line={"color": color, "width": 2, "dash": dash},
                hovertemplate="step %{x}: %{y:.2%} in common<extra>" + name + "</extra>",
            )  # fmt: skip
    figure.update_yaxes(title_text="kept weights in common", tickformat=".0%")
    figure.update_xaxes(title_text="step")
    return dressed(figure, title, height=300)


def layer_map(layers: pd.DataFrame, values: pd.Series, meaning: str, title: str) -> go.Figure:
    """One number a layer over blocks and projections; grey where it is not known. Experts of one projection are averaged.

    Parameters
    ----------
    layers : DataFrame
        As `run.layers()`.
    values : Series
        By layer name, shares from 0 to 1.
    meaning : str
        What the number is, for the pointer.
    title : str
        Of the chart.

    Returns
    -------
    plotly Figure
        Each cell's customdata is the name of its (first) layer.
    """
    table = layers.assign(value=layers["name"].map(values))
    order = list(dict.fromkeys(layers["projection"]))
    means = table.pivot_table(index="projection", columns="block", values="value", dropna=False).reindex(order)
    names = table.pivot_table(index="projection", columns="block", values="name", aggfunc="first").reindex(
        index=order, columns=means.columns
    )
    figure = go.Figure()
    figure.add_heatmap(
        z=means.to_numpy(), x=[f"{block}" for block in means.columns], y=order, customdata=names.to_numpy(), xgap=1, ygap=1,
        colorscale="Cividis", zmin=0, zmax=float(np.nanmax([*values, 0.01])),
        colorbar={"tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
        hovertemplate="%{customdata}<br>" + meaning + ": %{z:.1%}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text="decoder block", type="category", showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category", automargin=True)
    return dressed(figure, title, height=120 + 26 * max(len(order), 4))
