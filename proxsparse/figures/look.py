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


FURTHEST = 30.0  # times the median that a logarithmic axis reaches: one mask of 10⁹ would leave the others no room


def edge_of(values: pd.Series) -> float:
    """Where a logarithmic axis ends for values of which a few may lie far beyond the others; those are drawn at its edge."""
    return FURTHEST * float(values.median()) if len(values) else np.inf


def short(value: float) -> str:
    """A number beside a mark, in a title or a tile: four digits, thousands with commas, and from a million on two digits as 2.0e9.

    >>> [short(value) for value in (43.4, 1604.8, 43210.0, 2.041e9)]
    ['43.4', '1605', '43,210', '2.0e9']
    """
    if abs(value) >= 1e6:
        return f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


MARGIN = {"l": 62, "r": 24, "t": 62, "b": 44}
TITLE = 26  # pixels from the top, in which a figure's title stands
LEGEND = {"orientation": "h", "yref": "container", "yanchor": "top", "x": 0, "xanchor": "left", "font": {"size": 11}}


def made(data: list[dict], title: str, height: int, read: str = "", **layout) -> go.Figure:
    """A figure in the look that all share. It is made of dicts in one go, ten times as fast as step by step: a page that is drawn anew
    at every step of a run, or while a hand drags, pays for it.

    data: its traces. read: how to read it, in one line; it travels with it, in `layout.meta`. layout: its axes, made by `axis`, and what
    differs from the look.

    The legend begins under the title and pushes the chart down, however many lines it takes. Where the title stands outside, in the page
    or in the report, they put it above the chart: there it may be as wide as the figure.
    """
    shared = {
        "template": "none", "height": height,
        "title": {"text": title, "font": {"size": 14}, "x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"l": 6, "t": 6}},
        "font": {"family": FONT, "size": 12, "color": INK}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": MARGIN, "hovermode": "closest", "legend": LEGEND | {"y": 1 - TITLE / height},
    }  # fmt: skip
    if read:
        shared["meta"] = {"read": read}
    return go.Figure({"data": data, "layout": shared | layout})


def axis(title: str = "", **more) -> dict:
    """An axis in the look that all figures share. more: what plotly calls it."""
    named = {"title": {"text": title, "standoff": 6}} if title else {}
    return {"gridcolor": GRID, "zeroline": False, "linecolor": GRID} | named | more


FEW = 3  # steps that a line is too little for


def step_axis(count: int, **more) -> dict:
    """The axis of so many steps: only whole numbers also where there are few."""
    return axis("step", **({"dtick": 1} if count <= FEW else {}), **more)


def line_mode(count: int) -> str:
    """How a curve over so many steps is drawn: with a mark at each where there are few, for a single one makes no line."""
    return "lines+markers" if count <= FEW else "lines"


def note(text: str, y: float = 0.5) -> dict:
    """Words in the middle of a chart in which there is nothing to draw yet, as one of the layout's annotations. y: as a share of the
    whole height."""
    return {
        "text": text, "x": 0.5, "y": y, "xref": "paper", "yref": "paper", "showarrow": False, "font": {"size": 13, "color": INK},
    }  # fmt: skip


LOWER = {"xaxis": "x2", "yaxis": "y2"}  # of a trace: in the lower one of two charts


def stacked(share: float, upper: dict, lower: dict, count: int) -> dict:
    """The axes of two charts above each other, over the same steps.

    share: of the height, for the upper one. upper, lower: their y axes, made by `axis`. count: of the steps. The traces of the lower
    chart name `LOWER`.
    """
    left = 0.92  # by the gap between the two
    return {
        "xaxis": axis(matches="x2", showticklabels=False),
        "xaxis2": step_axis(count, anchor="y2"),
        "yaxis": upper | {"domain": [1 - left * share, 1]},
        "yaxis2": lower | {"domain": [0, left * (1 - share)], "anchor": "x2"},
    }


def upright(x: float, chart: str = "", **line) -> dict:
    """A line at x from the bottom of a chart to its top, as one of the layout's shapes. chart: "2" for the lower one of two."""
    return {
        "type": "line", "x0": x, "x1": x, "xref": f"x{chart}", "y0": 0, "y1": 1, "yref": f"y{chart} domain", "line": line,
    }  # fmt: skip


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
        The same, with a line in each of its charts that shows anything.
    """
    if step is not None:
        for chart in dict.fromkeys((trace.xaxis or "x").removeprefix("x") for trace in figure.data):
            figure.add_shape(upright(step, chart, color=RED, width=1.5))  # add_vline takes ten times as long
    return figure


def color_bar(title: str, **more) -> dict:
    """The scale of a heatmap's colours. title: what they are, written along it."""
    return {"title": {"text": title, "side": "right"}, "thickness": 12, "outlinewidth": 0} | more


def layer_label(name: str) -> str:
    """A layer's name as it stands in titles: model.layers.3.mlp.up_proj is "block 3, mlp.up_proj"."""
    found = re.search(r"(?:^|\.)(\d+)\.(.+)$", name)
    return f"block {found[1]}, {found[2]}" if found else name
