"""Figures of a comparison, drawn from the tables of `proxsparse.runs.Comparison`; each returns a plotly figure."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from proxsparse.figures.look import (
    BLUE,
    GREEN,
    INK,
    LEGEND,
    MARGIN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    axis,
    color_bar,
    edge_of,
    made,
    one_two_five,
    short,
)

ON = "perplexity on "  # begins the names of the columns of further texts


def perplexities(table: pd.DataFrame) -> go.Figure:
    """Perplexity of every method on a logarithmic axis, best at the top, with standard errors; on further texts as open marks.

    Parameters
    ----------
    table : DataFrame
        As `Comparison.table`.

    Returns
    -------
    plotly Figure
    """
    data, methods, ticks = [], [], None
    texts = [column.removeprefix(ON) for column in table.columns if column.startswith(ON)]
    if len(table):
        edge = edge_of(table["perplexity"])
        kinds = (
            ("dense", GREEN, table["method"] == "dense"),
            ("original weights", BLUE, (table["method"] != "dense") & ~table["weights_changed"].astype(bool)),
            ("updated weights", ORANGE, table["weights_changed"].astype(bool)),
        )
        data = [
            {
                "type": "scatter", "x": table["perplexity"][chosen].clip(upper=edge), "y": table["method"][chosen], "name": name,
                "mode": "markers+text", "customdata": table["perplexity"][chosen],
                "textposition": "top center",  # not beside the mark, where its error bar is
                "text": [short(value) for value in table["perplexity"][chosen]],
                "marker": {"color": color, "size": 11, "symbol": _symbols(table["perplexity"][chosen], edge, "circle")},
                "cliponaxis": False,
                "error_x": {"array": _errors(table, "perplexity", "stderr", edge)[chosen], "color": color, "thickness": 1.5},
                "hovertemplate": "%{y}: %{customdata:.5g}<extra>" + name + "</extra>",
            }
            for name, color, chosen in kinds
            if chosen.any()
        ]  # fmt: skip
        symbols = itertools.cycle(("diamond-open", "square-open", "triangle-up-open", "cross-open", "star-open"))
        known = [
            (text, symbol, table[table[f"{ON}{text}"].notna()]) for text, symbol in zip(texts, symbols, strict=False)
        ]
        data += [
            {
                "type": "scatter", "x": rows[f"{ON}{text}"].clip(upper=edge), "y": rows["method"], "name": f"on {text}",
                "customdata": rows[f"{ON}{text}"], "textposition": "bottom center",
                "mode": "markers+text" if len(texts) == 1 else "markers",  # the numbers of several would cover each other
                "text": [short(value) for value in rows[f"{ON}{text}"]],
                "marker": {"color": INK, "size": 10, "symbol": _symbols(rows[f"{ON}{text}"], edge, symbol)}, "cliponaxis": False,
                "error_x": {"array": _errors(rows, f"{ON}{text}", f"stderr on {text}", edge), "color": INK, "thickness": 1},
                "hovertemplate": "%{y}: %{customdata:.5g}<extra>on " + text + "</extra>",
            }
            for text, symbol, rows in known
        ]  # fmt: skip
        methods = list(table["method"])
        shown = pd.concat([table["perplexity"], *(rows[f"{ON}{text}"] for text, _, rows in known)])
        ticks = one_two_five(shown.clip(upper=edge))
    return made(
        data, "Perplexity, ± standard error over windows", 140 + (50 if texts else 36) * max(len(table), 4),
        "A row is a method, the best at the top; further left is better. A bar spans one standard error over the windows to each side: it "
        "says how hard the windows are, and is mostly shared by all methods, so compare two by the paired ratio in the table. A triangle "
        "at the right edge lies beyond it.",
        margin=MARGIN | {"r": 30},  # for the numbers above the marks
        xaxis=axis("perplexity (lower is better)", type="log", tickvals=ticks),
        yaxis=axis(type="category", categoryorder="array", categoryarray=methods[::-1], automargin=True),
    )  # fmt: skip


def overlap_matrix(overlaps: pd.DataFrame, chance: float = 0.5) -> go.Figure:
    """Share of the kept weights that two masks have in common.

    Parameters
    ----------
    overlaps : DataFrame
        As `Comparison.overlaps`.
    chance : float
        What two random masks share, n/m; the colours begin there.

    Returns
    -------
    plotly Figure
    """
    data = []
    if len(overlaps):
        # What each mask has in common with itself need not be said: without it the others are larger on a narrow screen.
        shares = (100 * overlaps).round().astype(int).astype(str).mask(np.eye(len(overlaps), dtype=bool), "").to_numpy()
        data = [{
            "type": "heatmap", "z": overlaps.to_numpy(), "x": list(overlaps.columns), "y": list(overlaps.index),
            "zmin": chance, "zmax": 1, "colorscale": "Cividis", "text": shares, "texttemplate": "%{text}", "xgap": 1, "ygap": 1,
            "hovertemplate": "%{y} and %{x} keep %{z:.1%} in common<extra></extra>",
            "colorbar": color_bar("kept weights in common", tickformat=".0%"),
        }]  # fmt: skip
    names = {"showgrid": False, "type": "category", "automargin": True}
    return made(
        data, f"Kept weights in common, % (two random masks: {chance:.0%})", 180 + 36 * max(len(overlaps), 4),
        "A cell is a pair of methods: the share of the weights kept by one that the other keeps too. Two masks may be equally good and "
        "have little in common.",
        xaxis=axis(side="top", tickangle=-45, **names), yaxis=axis(autorange="reversed", **names),
    )  # fmt: skip


def overlap_by_layer(layers: pd.DataFrame, ours: str) -> go.Figure:
    """Per decoder block, the share of the kept weights that each method has in common with `ours`.

    Parameters
    ----------
    layers : DataFrame
        As `Comparison.layers`.
    ours : str
        The method that the others are compared with.

    Returns
    -------
    plotly Figure
    """
    others = layers[layers["method"] != ours] if len(layers) else layers
    read = f"A line is a method: how much of what its mask keeps in a block is kept by {ours} too, as a mean over the block's layers."
    return _by_block(others, "overlap", f"Kept weights in common with {ours}", ".0%", read)


def output_errors(layers: pd.DataFrame) -> go.Figure:
    """Per decoder block, the mean over its layers of ‖WX − ŴX‖ / ‖WX‖, with the inputs of the dense model.

    Parameters
    ----------
    layers : DataFrame
        As `Comparison.layers`.

    Returns
    -------
    plotly Figure
    """
    read = (
        "A line is a method: how far the outputs of a block's layers are off under its mask, each layer fed with the inputs of the dense "
        "model. Lower is closer to the dense layer, which need not be a better model."
    )
    return _by_block(layers, "output_error", "Output error of the layers: ‖WX − ŴX‖ / ‖WX‖", ".2f", read)


def _symbols(values: pd.Series, edge: float, symbol: str) -> list[str]:
    return ["triangle-right" if value > edge else symbol for value in values]


def _errors(rows: pd.DataFrame, values: str, errors: str, edge: float) -> pd.Series:
    """Standard errors; none of what is drawn at the edge."""
    return rows[errors].where(rows[values] <= edge)


def _by_block(layers: pd.DataFrame, column: str, title: str, form: str, read: str) -> go.Figure:
    colors, dashes = (
        itertools.cycle((BLUE, ORANGE, GREEN, RED, SKY, PURPLE, INK)),
        itertools.cycle(["solid"] * 7 + ["dash"] * 7),
    )
    data = []
    for method, rows in layers.groupby("method", sort=False) if len(layers) else ():
        means = rows.groupby("block")[column].mean()
        data.append({
            "type": "scatter", "x": means.index, "y": means, "name": method, "mode": "lines+markers", "marker": {"size": 5},
            "line": {"color": next(colors), "width": 1.8, "dash": next(dashes)},
            "hovertemplate": "block %{x}: %{y:" + form + "}<extra>" + str(method) + "</extra>",
        })  # fmt: skip
    return made(
        data, title, 360, read, xaxis=axis("decoder block"),
        yaxis=axis(tickformat=form, rangemode="tozero" if column == "output_error" else "normal"),
        legend=LEGEND | {"orientation": "v", "yref": "paper", "x": 1.01, "y": 1},  # names are many
    )  # fmt: skip
