"""The masks of a whole layer, and of all layers: where they differ from others, and which patterns their groups have."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from proxsparse.figures.look import BLUE, GREEN, GRID, RED, axis, color_bar, made
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
    x, y = (np.arange(count) * size for count, size in ((image.shape[1], width), (image.shape[0], height)))
    cells = {
        "type": "heatmap", "z": np.rint(image * 100).astype(np.uint8), "x": x, "y": y, "zmin": 0,
        "zmax": max(100 * float(image.max()), 1), "colorscale": "Cividis",
        "hovertemplate": f"rows %{{y}} to +{height}, columns %{{x}} to +{width}: %{{z}}% differ<extra></extra>",
        "colorbar": color_bar("weights that differ", ticksuffix="%", len=0.8, y=0.4),
    }  # fmt: skip
    curve = {"type": "scatter", "mode": "lines", "line": {"color": BLUE, "width": 1.2}, "showlegend": False}
    of_columns = curve | {
        "x": x, "y": image.mean(axis=0), "xaxis": "x2", "yaxis": "y2",
        "hovertemplate": "column %{x}: %{y:.1%} differ<extra></extra>",
    }  # fmt: skip
    of_rows = curve | {
        "x": image.mean(axis=1), "y": y, "xaxis": "x3", "yaxis": "y3",
        "hovertemplate": "row %{y}: %{x:.1%} differ<extra></extra>",
    }  # fmt: skip
    title = title or f"{names[0]} and {names[1]} differ in {differs.mean():.1%} of the weights"
    read = (
        f"Each pixel is the share of {height} × {width} weights that one mask keeps and the other drops; the curves are the means of its "
        "rows and columns. Stripes are inputs or outputs that the two masks treat differently."
    )
    left, right, above, below = [0, 0.8232], [0.8432, 1], [0.806, 1], [0, 0.776]
    return made(
        [cells, of_columns, of_rows], title, 440, read,
        xaxis=axis("input (column)", domain=left), yaxis=axis("output (row)", domain=below, autorange="reversed"),
        xaxis2=axis(domain=left, anchor="y2", matches="x", showticklabels=False),
        yaxis2=axis(domain=above, anchor="x2", tickformat=".0%"),
        xaxis3=axis(domain=right, anchor="y3", tickformat=".0%"),
        yaxis3=axis(domain=below, anchor="x3", matches="y", showticklabels=False),
    )  # fmt: skip


def _shrunk(differs: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Shares of rectangles so that neither side has more than MOST_PIXELS; and the rectangles' size. What is left of the
    last rectangle at an edge is averaged by itself."""
    sizes = [-(-length // MOST_PIXELS) for length in differs.shape]
    image = differs.astype(np.float64)
    for along, size in enumerate(sizes):
        edges = np.arange(0, differs.shape[along], size)
        counts = np.diff([*edges, differs.shape[along]])
        image = np.add.reduceat(image, edges, along) / np.expand_dims(counts, 1 - along)
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
    names = [name for name in patterns.columns if set(name) <= {"0", "1"}]
    commonest = sorted(names, key=lambda name: -patterns[name].iloc[-1])[:NAMED_PATTERNS]
    rest = [name for name in names if name not in commonest]
    bands = [
        (name.replace("1", "●").replace("0", "○"), patterns[name], color)
        for name, color in zip(
            (name for name in names if name in commonest), itertools.cycle(PATTERN_COLORS), strict=False
        )
    ]
    if rest:
        bands += [(f"{len(rest)} other patterns", patterns[rest].sum(axis=1), GRID)]
    data = [
        {
            "type": "scatter", "x": patterns["step"], "y": shares * 100, "name": name, "mode": "lines", "stackgroup": "patterns",
            "line": {"width": 0.5, "color": color}, "fillcolor": color,
            "hovertemplate": "step %{x}: %{y:.2f}%<extra>" + name + "</extra>",
        }
        for name, shares, color in bands
    ]  # fmt: skip
    read = "Each band is the share of the layer's groups that keep these positions (●) and drop the others (○)."
    return made(data, title, 300, read, xaxis=axis("step"), yaxis=axis("groups, %", range=[0, 100]))


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
    start, wanda = patterns["agreement_start"], patterns["agreement_wanda"]
    is_wanda = start.equals(wanda)  # of a run in the metric `activation`
    drawn = [("start, which is Wanda's" if is_wanda else "start", start, BLUE, "solid")]
    drawn += [("magnitude", patterns["agreement_magnitude"], RED, "dash")]
    drawn += [] if is_wanda else [("Wanda", wanda, GREEN, "dot")]
    data = [
        {
            "type": "scatter", "x": patterns["step"], "y": shares, "name": name, "mode": "lines",
            "line": {"color": color, "width": 2, "dash": dash},
            "hovertemplate": "step %{x}: %{y:.2%} in common<extra>" + name + "</extra>",
        }
        for name, shares, color, dash in drawn
        if shares.notna().any()
    ]  # fmt: skip
    read = (
        "Of the weights that the learned mask keeps, the share that the other mask keeps too. Wanda's mask here is that of its score on "
        "the activations of the dense model; a comparison of methods goes block by block instead, each on what the pruned blocks before "
        "it hand on."
    )
    return made(data, title, 300, read, xaxis=axis("step"), yaxis=axis("kept weights in common", tickformat=".0%"))


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
    cells = {
        "type": "heatmap", "z": means.to_numpy(), "x": [f"{block}" for block in means.columns], "y": order,
        "customdata": names.to_numpy(), "xgap": 1, "ygap": 1, "colorscale": "Cividis",
        "zmin": 0, "zmax": float(np.nanmax([*values, 0.01])), "colorbar": color_bar(meaning, tickformat=".0%"),
        "hovertemplate": "%{customdata}<br>" + meaning + ": %{z:.1%}<extra></extra>",
    }  # fmt: skip
    return made(
        [cells], title, 120 + 26 * max(len(order), 4), read,
        xaxis=axis("decoder block", type="category", showgrid=False),
        yaxis=axis(autorange="reversed", showgrid=False, type="category", automargin=True),
    )  # fmt: skip
