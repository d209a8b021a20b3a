"""The look that all figures share."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go

# Okabe & Ito's palette, told apart by the colour-blind; middle greys are readable on white and on black.
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
INK, GRID = "#7d838c", "rgba(128,128,128,0.22)"
MOST_TICKS = 14
FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif"


def one_two_five(values: pd.Series) -> list[float] | None:
    """1, 2, 5, 10 … around the values: on a logarithmic axis plotly's own labels crowd. None where these are too few."""
    low, high = values.min() / 1.3, values.max() * 1.3
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [digit * 10.0**exponent for exponent in exponents for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) > MOST_TICKS:
        ticks = [10.0**exponent for exponent in exponents if low <= 10.0**exponent <= high]
    return ticks if len(ticks) >= 3 else None


AXIS = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "title_standoff": 6}


def layout_of(title: str, height: int) -> dict:
    """The layout that all figures share, without axes."""
    return {
        "template": "none", "height": height,
        "title": {"text": title, "font": {"size": 14}, "x": 0, "xref": "paper", "y": 0.98},
        "font": {"family": FONT, "size": 12, "color": INK}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 62, "r": 24, "t": 62, "b": 44}, "hovermode": "closest",
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "xanchor": "left", "font": {"size": 11}},
    }  # fmt: skip


def dressed(figure: go.Figure, title: str, height: int, read: str = "") -> go.Figure:
    """The look that all figures share. read: how to read the figure, in one line; it travels with it, in `layout.meta`."""
    figure.update_layout(layout_of(title, height))
    if read:
        figure.update_layout(meta={"read": read})
    figure.update_xaxes(AXIS)
    figure.update_yaxes(AXIS)
    return figure


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


def color_bar(title: str, **more) -> dict:
    """The scale of a heatmap's colours. title: what they are, written along it."""
    return {"title": {"text": title, "side": "right"}, "thickness": 12, "outlinewidth": 0} | more


def layer_label(name: str) -> str:
    """A layer's name as it stands in titles: model.layers.3.mlp.up_proj is "block 3, mlp.up_proj"."""
    found = re.search(r"(?:^|\.)(\d+)\.(.+)$", name)
    return f"block {found[1]}, {found[2]}" if found else name


def made(data: list[dict], title: str, height: int, xaxis: dict, yaxis: dict, read: str, **layout) -> go.Figure:
    """A figure in the same look, made in one go: ten times as fast as step by step, which counts where a hand drags."""
    axes = {"xaxis": AXIS | xaxis, "yaxis": AXIS | yaxis, "meta": {"read": read}}
    return go.Figure({"data": data, "layout": layout_of(title, height) | axes | layout})
