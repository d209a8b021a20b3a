"""The masks of a whole layer, and of all layers: where they differ from others, and which patterns their groups have."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from proxsparse.figures.look import BLUE, GREEN, GRID, RED, color_bar, dressed
from proxsparse.figures.tiles import PATTERN_COLORS

MOST_PIXELS = 256  # of a whole layer's picture, along each side
NAMED_PATTERNS = 12  # with more, only the commonest have a colour of their own


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
        colorbar=color_bar("weights that differ", ticksuffix="%", len=0.8, y=0.4),
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
    read = (
        f"Each pixel is the share of {height} × {width} weights that one mask keeps and the other drops; the curves are the means of its "
        "rows and columns. Stripes are inputs or outputs that the two masks treat differently."
    )
    return dressed(figure, title, height=440, read=read)


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
    read = "Each band is the share of the layer's groups that keep these positions (●) and drop the others (○)."
    return dressed(figure, title, height=300, read=read)


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
    read = (
        "Of the weights that the learned mask keeps, the share that the other mask keeps too. Wanda's mask here is that of its score on "
        "the activations of the dense model; a comparison of methods goes block by block instead, each on what the pruned blocks before "
        "it hand on."
    )
    return dressed(figure, title, height=300, read=read)


def by_place(layers: pd.DataFrame, values: pd.Series | None = None) -> pd.DataFrame:
    """A number of each layer, projection by block; experts of one projection are averaged. Without values: the layers' names.

    Parameters
    ----------
    layers : DataFrame
        As `run.layers()`.
    values : Series, optional
        By layer name.

    Returns
    -------
    DataFrame
        Index: projections in model order; columns: blocks. Of several experts the first one's name; nan where there is none.
    """
    table = layers.assign(value=layers["name"] if values is None else layers["name"].map(values))
    chosen = "first" if values is None else "mean"
    placed = table.pivot_table(index="projection", columns="block", values="value", aggfunc=chosen, dropna=False)
    return placed.reindex(list(dict.fromkeys(layers["projection"])))


def layer_map(layers: pd.DataFrame, values: pd.Series, meaning: str, title: str, read: str = "") -> go.Figure:
    """One number a layer over blocks and projections; grey where it is not known. Experts of one projection are averaged.

    Parameters
    ----------
    layers : DataFrame
        As `run.layers()`.
    values : Series
        By layer name, shares from 0 to 1.
    meaning : str
        What the number is: of the colour bar, and for the pointer.
    title : str
        Of the chart.
    read : str
        How to read it, in one line.

    Returns
    -------
    plotly Figure
        Each cell's customdata is the name of its (first) layer.
    """
    means, names = by_place(layers, values), by_place(layers)
    order = list(means.index)
    figure = go.Figure()
    figure.add_heatmap(
        z=means.to_numpy(), x=[f"{block}" for block in means.columns], y=order, customdata=names.to_numpy(), xgap=1, ygap=1,
        colorscale="Cividis", zmin=0, zmax=float(np.nanmax([*values, 0.01])),
        colorbar=color_bar(meaning, tickformat=".0%"),
        hovertemplate="%{customdata}<br>" + meaning + ": %{z:.1%}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text="decoder block", type="category", showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category", automargin=True)
    return dressed(figure, title, height=120 + 26 * max(len(order), 4), read=read)
