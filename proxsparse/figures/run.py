"""Figures of a run, drawn from its tables; the app and the notebooks both draw with these.

Each takes pandas tables as `Run.table` and `Run.layers` give them, and returns a plotly figure.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from proxsparse.figures.look import BLUE, GREEN, GRID, INK, ORANGE, PURPLE, RED, SKY, dressed, one_two_five
from proxsparse.learning.report import pattern_share

QUANTITIES = {
    "pattern share": ("share of groups with no more nonzero soft weights than the pattern keeps", ".1%"),
    "flips": ("weights that changed state in this step", ",.0f"),
    "flips from start": ("weights whose state differs from the starting mask", ",.0f"),
    "drift": ("‖W − W0‖ / ‖W0‖", ".3f"),
    "regularizer": ("R of the soft weights, in the metric", ".3g"),
}


def learning_curve(steps: pd.DataFrame, perplexity: pd.DataFrame, given: str = "dense") -> go.Figure:
    """Held-out perplexity of the masked original model (log scale, dense and magnitude as lines) above the training
    loss. given: what the model was as it came, as `Run.given` says."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.6, 0.4])
    live = perplexity[perplexity["scope"] == "live"] if len(perplexity) else perplexity
    measured_on = ""
    if len(live):
        first = live.iloc[0]
        measured_on = f" ({first['windows']:.0f} × {first['context']:.0f} tokens)"
        learned = live[live["mask"] == "learned"].drop_duplicates("step", keep="last")
        figure.add_scatter(
            x=learned["step"], y=learned["perplexity"], name="learned mask", mode="lines+markers",
            line={"color": BLUE, "width": 2.5}, hovertemplate="step %{x}: perplexity %{y:.2f}<extra>learned mask</extra>",
            row=1, col=1,
        )  # fmt: skip
        last = max(_last(steps, "step", 1), 1)
        for mask, color, dash in (("magnitude", RED, "dash"), ("dense", GREEN, "dot")):
            values = live[live["mask"] == mask]["perplexity"]
            name = f"{mask} mask" if mask == "magnitude" else given.partition(",")[0]
            if len(values):
                figure.add_scatter(
                    x=[0, last], y=[values.iloc[-1]] * 2, name=name,
                    mode="lines", line={"color": color, "dash": dash, "width": 1.5},
                    hovertemplate=f"{given if mask == 'dense' else mask}: %{{y:.2f}}<extra></extra>", row=1, col=1,
                )  # fmt: skip
    if len(steps):
        figure.add_scatter(
            x=steps["step"], y=steps["loss"], name="training loss", mode="lines", line={"color": ORANGE, "width": 1.5},
            hovertemplate="step %{x}: loss %{y:.3f}<extra></extra>", row=2, col=1,
        )  # fmt: skip
    ticks = one_two_five(live["perplexity"]) if len(live) else None
    figure.update_yaxes(title_text=f"perplexity{measured_on}", type="log", tickvals=ticks, row=1, col=1)
    figure.update_yaxes(title_text="loss, nats", row=2, col=1)
    figure.update_xaxes(title_text="step", row=2, col=1)
    return dressed(figure, "Held-out perplexity and training loss", height=430)


def composition(steps: pd.DataFrame) -> go.Figure:
    """How many nonzero soft weights the groups have, as stacked shares over the steps."""
    figure = go.Figure()
    counts = sorted(int(name.removeprefix("nonzeros_")) for name in steps if name.startswith("nonzeros_"))
    if len(steps):
        fewer, n, *more = counts
        names = [
            (fewer, f"at most {fewer} nonzero" if fewer else "none nonzero", PURPLE),
            (n, f"{n} nonzero: {n}:{counts[-1]}", BLUE),
        ]
        between = itertools.cycle((SKY, GREEN, ORANGE, RED, INK))
        names += [(k, f"{k} nonzero", GRID if k == counts[-1] else next(between)) for k in more]
        for k, name, color in names:
            column = f"nonzeros_{k}"
            figure.add_scatter(
                x=steps["step"], y=steps[column] * 100, name=name, mode="lines", stackgroup="groups",
                line={"width": 0.5, "color": color}, fillcolor=color,
                hovertemplate="step %{x}: %{y:.1f}%<extra>" + name + "</extra>",
            )  # fmt: skip
    figure.update_yaxes(title_text="groups, %", range=[0, 100])
    figure.update_xaxes(title_text="step")
    return dressed(figure, "Composition of the groups", height=300)


def strength(steps: pd.DataFrame) -> go.Figure:
    """λ1 over the steps, and the learning rate on an axis of its own."""
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    if len(steps):
        figure.add_scatter(
            x=steps["step"], y=steps["lambda1"], name="λ1", mode="lines", line={"color": BLUE, "width": 2, "shape": "vh"},
            hovertemplate="step %{x}: λ1 = %{y:g}<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=steps["step"], y=steps["learning_rate"], name="learning rate", mode="lines", line={"color": ORANGE, "width": 1.5},
            hovertemplate="step %{x}: learning rate %{y:.2e}<extra></extra>", secondary_y=True,
        )  # fmt: skip
    figure.update_yaxes(title_text="λ1", rangemode="tozero", secondary_y=False, exponentformat="power", automargin=True)
    figure.update_yaxes(
        title_text="learning rate",
        rangemode="tozero",
        secondary_y=True,
        showgrid=False,
        exponentformat="power",
        automargin=True,
    )
    figure.update_xaxes(title_text="step")
    return dressed(figure, "Strength of the regularizer", height=300)


def flips(steps: pd.DataFrame, weights: int) -> go.Figure:
    """How much of the mask changes: a step, and since the start. weights: how many prunable weights the model has."""
    figure = go.Figure()
    if len(steps) and weights:
        for column, name, color in (("flips_from_start", "since the start", BLUE), ("flips", "in one step", ORANGE)):
            shares = (steps[column] / weights * 100).replace(0, np.nan)  # a logarithmic axis has no zero
            figure.add_scatter(
                x=steps["step"], y=shares, name=name, mode="lines", line={"color": color, "width": 2},
                hovertemplate="step %{x}: %{y:.3f}% of the weights<extra>" + name + "</extra>",
            )  # fmt: skip
    figure.update_yaxes(title_text="weights flipped, %", type="log", dtick=1)
    figure.update_xaxes(title_text="step")
    return dressed(figure, "Flips: weights that change between kept and dropped", height=300)


def layer_values(layers: pd.DataFrame, record: dict, quantity: str) -> pd.DataFrame:
    """One quantity of one step, block by projection; experts of one projection are taken together.

    layers: as `Run.layers`. record: one line of `layers.jsonl`. Index: projections in model order; columns: blocks.
    """
    row, projections = pd.factorize(layers["projection"])
    column, blocks = pd.factorize(layers["block"], sort=True)
    cell, shape = row * len(blocks) + column, (len(projections), len(blocks))
    shared = quantity == "pattern share"
    values = pattern_share(record) if shared else np.array(record[quantity.replace(" ", "_")], dtype=float)
    if quantity in ("flips", "flips from start", "regularizer"):
        table = np.bincount(cell, values, np.prod(shape))
    else:  # shares and ratios: the mean, weighted by size
        sizes = (layers["rows"] * layers["columns"]).to_numpy()
        table = np.bincount(cell, values * sizes, np.prod(shape)) / np.bincount(cell, sizes, np.prod(shape))
    return pd.DataFrame(table.reshape(shape), index=projections, columns=blocks)


def layer_heatmap(
    layers: pd.DataFrame,
    record: dict | None,
    quantity: str = "pattern share",
    limits: tuple[float, float] | None = None,
) -> go.Figure:
    """One quantity at one step over blocks and projections. limits: of the colours; give the whole run's, so that
    steps compare."""
    meaning, form = QUANTITIES[quantity]
    figure = go.Figure()
    title = f"{quantity}, layer by layer"
    if record is not None and len(layers):
        table = layer_values(layers, record, quantity)
        shapes = layers.groupby("projection", sort=False)[["rows", "columns"]].first().reindex(table.index)
        counts = layers.groupby("projection", sort=False).size().reindex(table.index) // table.shape[1]
        about = [
            f"{rows} × {columns}{f', {count} experts' if count > 1 else ''}"
            for rows, columns, count in zip(shapes["rows"], shapes["columns"], counts, strict=True)
        ]
        low, high = limits or (None, None)
        figure.add_heatmap(
            z=table.to_numpy(), x=[f"{block}" for block in table.columns], y=list(table.index), zmin=low, zmax=high,
            colorscale="Cividis", customdata=[[text] * table.shape[1] for text in about], xgap=1, ygap=1,
            hovertemplate="block %{x}, %{y} (%{customdata})<br>" + meaning + ": %{z:" + form + "}<extra></extra>",
            colorbar={"tickformat": form, "thickness": 12, "outlinewidth": 0},
        )  # fmt: skip
        title = f"{quantity} at step {record['step']}: {meaning}"
    figure.update_xaxes(title_text="decoder block", type="category", showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category", automargin=True)
    return dressed(figure, title, height=320)


def _last(table: pd.DataFrame, column: str, default):
    return table[column].iloc[-1] if len(table) else default
