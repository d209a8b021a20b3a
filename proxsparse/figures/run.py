"""Figures of a run, drawn from its tables; the app and the notebooks both draw with these.

Each takes pandas tables as `Run.table` and `Run.layers` give them, and returns a plotly figure.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from proxsparse.figures.look import (
    BLUE,
    FEW,
    GREEN,
    GRID,
    INK,
    LOWER,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    axis,
    color_bar,
    line_mode,
    made,
    note,
    one_two_five,
    short,
    stacked,
    step_axis,
)
from proxsparse.learning.report import pattern_share

QUANTITIES = {
    "pattern share": ("share of groups with no more nonzero soft weights than the pattern keeps", ".1%"),
    "flips": ("weights that changed state in this step", ",.0f"),
    "flips from start": ("weights whose state differs from the starting mask", ",.0f"),
    "drift": ("‖W − W0‖ / ‖W0‖", ".3f"),
    "regularizer": ("R of the soft weights, in the metric", ".3g"),
}


def learning_curve(
    steps: pd.DataFrame, perplexity: pd.DataFrame, given: str = "dense", judged: pd.DataFrame | None = None
) -> go.Figure:
    """Held-out perplexity of the masked original model (log scale, dense and magnitude as lines) above the training
    loss; open marks at the end where the mask was judged on further texts.

    Parameters
    ----------
    steps : DataFrame
        As `run.table("steps")`.
    perplexity : DataFrame
        As `run.table("perplexity")`.
    given : str
        What the model was as it came, as `Run.given` says.
    judged : DataFrame, optional
        As `proxsparse.runs.readers.judged.judged_table`.

    Returns
    -------
    plotly Figure
    """
    elsewhere = pd.DataFrame(columns=["text", "mask", "step", "perplexity"]) if judged is None else judged
    data, live, measured_on, last = [], _measured(perplexity, "live"), "", max(_last(steps, "step", 1), 1)
    if len(live):
        first = live.iloc[0]
        measured_on = f" ({first['windows']:.0f} × {first['context']:.0f} tokens)"
        learned = live[live["mask"] == "learned"].drop_duplicates("step", keep="last")
        data.append({
            "type": "scatter", "x": learned["step"], "y": learned["perplexity"], "name": "learned mask", "mode": "lines+markers",
            "line": {"color": BLUE, "width": 2.5}, "hovertemplate": "step %{x}: perplexity %{y:.2f}<extra>learned mask</extra>",
        })  # fmt: skip
        for mask, color, dash in (("magnitude", RED, "dash"), ("dense", GREEN, "dot")):
            values = live[live["mask"] == mask]["perplexity"]
            if len(values):
                data.append({
                    "type": "scatter", "x": [0, last], "y": [values.iloc[-1]] * 2, "mode": "lines",
                    "name": f"{mask} mask" if mask == "magnitude" else given.partition(",")[0],
                    "line": {"color": color, "dash": dash, "width": 1.5},
                    "hovertemplate": f"{given if mask == 'dense' else mask}: %{{y:.2f}}<extra></extra>",
                })  # fmt: skip
    final = _measured(perplexity, "final")
    final = final[final["mask"] == "learned"] if len(final) else final
    if len(final):
        data.append({
            "type": "scatter", "x": final["step"], "y": final["perplexity"], "mode": "markers",
            "name": f"final, {final['windows'].iloc[-1]:.0f} windows",
            "marker": {"symbol": "diamond", "size": 11, "color": BLUE, "line": {"width": 1.5, "color": "#fff"}},
            "hovertemplate": "step %{x}, final: perplexity %{y:.2f}<extra>learned mask</extra>",
        })  # fmt: skip
    for row in elsewhere.itertuples():
        called = "learned mask" if row.mask == "learned" else given.partition(",")[0]
        color = BLUE if row.mask == "learned" else GREEN
        data.append({
            "type": "scatter", "x": [row.step], "y": [row.perplexity], "name": f"{called} on {row.text}", "mode": "markers",
            "marker": {"color": color, "symbol": "diamond-open", "size": 10, "line": {"width": 2}}, "cliponaxis": False,
            "hovertemplate": "%{y:.2f}<extra>" + f"{called} on {row.text}</extra>",
        })  # fmt: skip
    if len(steps):
        data.append({
            "type": "scatter", "x": steps["step"], "y": steps["loss"], "name": "training loss", "mode": line_mode(len(steps)),
            "line": {"color": ORANGE, "width": 1.5}, "hovertemplate": "step %{x}: loss %{y:.3f}<extra></extra>", **LOWER,
        })  # fmt: skip
    title = "Does the masked model get better? Held-out perplexity and training loss"
    if len(live) and len(learned) > 1:
        now, dense = learned.iloc[-1], live[live["mask"] == "dense"]["perplexity"]
        title = (
            f"Perplexity under the learned mask, on {now['windows']:.0f} held-out windows: {short(learned['perplexity'].iloc[0])} at "
            f"first, {short(now['perplexity'])} at step {now['step']}"
            + (f"; dense {short(dense.iloc[-1])}" if len(dense) else "")
        )
    ticks = one_two_five(pd.concat([live["perplexity"], elsewhere["perplexity"].astype(float)])) if len(live) else None
    read = (
        "Above, how badly the original weights under the mask predict text that nothing was learned from: lower is better, "
        "equal distances are equal factors, and the dense model is the floor to approach. The curve is measured on few windows, so that "
        "learning waits little; the diamond is the final measurement, on many. Below, the loss on the text of each step: as far as it is "
        "the divergence from the dense model's predictions (`distill`), it is no logarithm of the perplexity above."
    )
    if len(elsewhere):
        read += " Open marks: the mask at the end, and the model without it, on text that the mask was not made on."
    upper = axis(f"perplexity{measured_on}", type="log", tickvals=ticks)
    axes = stacked(0.6, upper, axis("loss, nats a token"), last)
    notes = [] if len(steps) else [note("The training loss is drawn<br>from the first step on.", 0.18)]
    notes += [] if data else [note("Perplexity is drawn from its<br>first measurement on.", 0.7)]
    return made(data, title, 430, read, annotations=notes, **axes)


def composition(steps: pd.DataFrame, title: str = "") -> go.Figure:
    """How many nonzero soft weights the groups have, as stacked shares over the steps.

    Parameters
    ----------
    steps : DataFrame
        As `run.table("steps")`.
    title : str
        Of the chart; without one it says how many groups have the pattern at the last step.

    Returns
    -------
    plotly Figure
    """
    data, found = [], "How many nonzero soft weights do the groups have?"
    counts = sorted(int(name.removeprefix("nonzeros_")) for name in steps if name.startswith("nonzeros_"))
    if len(steps):
        fewer, n, *more = counts
        names = [
            (fewer, f"at most {fewer} nonzero" if fewer else "none nonzero", PURPLE),
            (n, f"{n} nonzero: {n}:{counts[-1]}", BLUE),
        ]
        between = itertools.cycle((SKY, GREEN, ORANGE, RED, INK))
        names += [(k, f"{k} nonzero", GRID if k == counts[-1] else next(between)) for k in more]
        is_few = len(steps) <= FEW
        data = [
            {
                "x": steps["step"], "y": steps[f"nonzeros_{k}"] * 100, "name": name, **(_bar(color) if is_few else _band(color)),
                "hovertemplate": "step %{x}: %{y:.1f}%<extra>" + name + "</extra>",
            }
            for k, name, color in names
        ]  # fmt: skip
        share = steps[f"nonzeros_{n}"].iloc[-1] + steps[f"nonzeros_{fewer}"].iloc[-1]
        found = f"{share:.1%} of the groups are {n}:{counts[-1]} at step {steps['step'].iloc[-1]}"
    read = (
        "Every group of neighbouring weights falls into one band, by how many nonzero soft weights it has; the bands add up "
        "to 100%. The regularizer moves groups down, band by band, until they have the pattern."
    )
    return made(
        data, title or found, 300, read, xaxis=step_axis(len(steps)), yaxis=axis("groups, %", range=[0, 100]), barmode="stack",
        annotations=[] if data else [note("Drawn from the first step on.")],
    )  # fmt: skip


def _band(color: str) -> dict:
    """A share over the steps, on top of those before it."""
    line = {"width": 0.5, "color": color}
    return {"type": "scatter", "mode": "lines", "stackgroup": "groups", "line": line, "fillcolor": color}


def _bar(color: str) -> dict:
    """The same at each of a few steps, between which a band has no room."""
    return {"type": "bar", "width": 0.6, "marker": {"color": color}}


def strength(
    steps: pd.DataFrame, ahead: Mapping[int, float] | None = None, planned: Mapping[int, float] | None = None
) -> go.Figure:
    """λ1 over the steps and, dotted, at those to come; the learning rate on an axis of its own.

    Parameters
    ----------
    steps : DataFrame
        As `run.table("steps")`.
    ahead, planned : {step: λ1}, optional
        As `learning.ramp.strengths_ahead` gives it: from where the run stands, and from its start. What was planned is drawn
        where somebody set λ1 by hand since.

    Returns
    -------
    plotly Figure
    """
    data = []
    if len(steps):
        data += [
            {
                "type": "scatter", "x": steps["step"], "y": steps["lambda1"], "name": "λ1", "mode": line_mode(len(steps)),
                "line": {"color": BLUE, "width": 2, "shape": "vh"}, "hovertemplate": "step %{x}: λ1 = %{y:g}<extra></extra>",
            },
            {
                "type": "scatter", "x": steps["step"], "y": steps["learning_rate"], "name": "learning rate", "mode": line_mode(len(steps)),
                "line": {"color": ORANGE, "width": 1.5}, "yaxis": "y2",
                "hovertemplate": "step %{x}: learning rate %{y:.2e}<extra></extra>",
            },
        ]  # fmt: skip
    data += [
        {
            "type": "scatter", "x": list(values), "y": list(values.values()), "name": name,
            "mode": "lines" if len(values) > 1 else "markers", "line": {"color": color, "width": width, "dash": "dot"},
            "hovertemplate": "step %{x}: λ1 = %{y:.4g}<extra>" + name + "</extra>",
        }
        for values, name, color, width in ((planned, "λ1 as planned", INK, 1.5), (ahead, "λ1 to come, by its ramp", BLUE, 2))
        if values
    ]  # fmt: skip
    title = "How strong is the pull towards the pattern?"
    if ahead:
        step, (last, end) = min(ahead), max(ahead.items())
        title = f"λ1 is {ahead[step]:.3g} at step {step} and will be {end:.3g} at the last, {last}"
    elif len(steps):
        title = f"λ1 went from {steps['lambda1'].iloc[0]:.3g} to {steps['lambda1'].iloc[-1]:.3g}"
    to_come = (
        "Dotted: as it will be if nobody sets it, known exactly because it grows by one factor a step; set λ1 and the dotted line "
        "moves at once. "
    )
    read = (
        f"Solid: λ1 as it was taken. {to_come if ahead else ''}No unit: λ1 relative to each layer's weights, or the paper's "
        "absolute one."
    )
    powers = {"rangemode": "tozero", "exponentformat": "power", "automargin": True}
    return made(
        data, title, 300, read, xaxis=step_axis(len(steps) + len(ahead or ()), domain=[0, 0.94]), yaxis=axis("λ1", **powers),
        yaxis2=axis("learning rate", overlaying="y", side="right", showgrid=False, **powers),
    )  # fmt: skip


def flips(steps: pd.DataFrame, weights: int) -> go.Figure:
    """How much of the mask changes: a step, and since the start.

    Parameters
    ----------
    steps : DataFrame
        As `run.table("steps")`.
    weights : int
        How many prunable weights the model has.

    Returns
    -------
    plotly Figure
    """
    data, title = [], "How fast does the mask change?"
    if len(steps) and weights:
        for column, name, color in (("flips_from_start", "since the start", BLUE), ("flips", "in one step", ORANGE)):
            shares = (steps[column] / weights * 100).replace(0, np.nan)  # a logarithmic axis has no zero
            data.append({
                "type": "scatter", "x": steps["step"], "y": shares, "name": name, "mode": line_mode(len(steps)),
                "line": {"color": color, "width": 2},
                "hovertemplate": "step %{x}: %{y:.3f}% of the weights<extra>" + name + "</extra>",
            })  # fmt: skip
        share = steps["flips_from_start"].iloc[-1] / weights
        title = f"{share:.2%} of the weights flipped between kept and dropped since the start"
    read = (
        "Each step up is ten times as many weights. Few flips in a step mean that the mask settles; those since the start say how far "
        "it is from the mask that needs no learning."
    )
    none_yet = "No weight has flipped yet." if data else "Drawn from the first step on."
    drawn = data and not (steps[["flips", "flips_from_start"]] == 0).all(axis=None)
    return made(
        data, title, 300, read, xaxis=step_axis(len(steps)), yaxis=axis("weights flipped, %", type="log", dtick=1),
        annotations=[] if drawn else [note(none_yet)],
    )  # fmt: skip


def layer_values(layers: pd.DataFrame, record: dict, quantity: str) -> pd.DataFrame:
    """One quantity of one step, block by projection; experts of one projection are taken together.

    Parameters
    ----------
    layers : DataFrame
        As `run.layers()`.
    record : dict
        One line of `layers.jsonl`.
    quantity : str
        A key of `QUANTITIES`.

    Returns
    -------
    DataFrame
        Index: projections in model order; columns: blocks.
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
        sums, weights = (np.bincount(cell, each, np.prod(shape)) for each in (values * sizes, sizes))
        known = weights > 0  # a block may lack a projection
        table = np.divide(sums, weights, out=np.full(len(sums), np.nan), where=known)
    return pd.DataFrame(table.reshape(shape), index=projections, columns=blocks)


def layer_heatmap(
    layers: pd.DataFrame,
    record: dict | None,
    quantity: str = "pattern share",
    limits: tuple[float, float] | None = None,
) -> go.Figure:
    """One quantity at one step over blocks and projections.

    Parameters
    ----------
    layers : DataFrame
        As `run.layers()`.
    record : dict or None
        One line of `layers.jsonl`; None: an empty chart.
    quantity : str
        A key of `QUANTITIES`.
    limits : (float, float), optional
        Of the colours; give the whole run's, so that steps compare.

    Returns
    -------
    plotly Figure
    """
    meaning, form = QUANTITIES[quantity]
    title, data = f"{quantity}, layer by layer", []
    if record is not None and len(layers):
        table = layer_values(layers, record, quantity)
        shapes = layers.groupby("projection", sort=False)[["rows", "columns"]].first().reindex(table.index)
        counts = layers.groupby("projection", sort=False).size().reindex(table.index) // table.shape[1]
        about = [
            f"{rows} × {columns}{f', {count} experts' if count > 1 else ''}"
            for rows, columns, count in zip(shapes["rows"], shapes["columns"], counts, strict=True)
        ]
        low, high = limits or (None, None)
        data = [{
            "type": "heatmap", "z": table.to_numpy(np.float32), "x": [f"{block}" for block in table.columns], "y": list(table.index),
            "zmin": low, "zmax": high, "colorscale": "Cividis", "customdata": [[text] * table.shape[1] for text in about],
            "xgap": 1, "ygap": 1, "colorbar": color_bar(quantity, tickformat=form),
            "hovertemplate": "block %{x}, %{y} (%{customdata})<br>" + meaning + ": %{z:" + form + "}<extra></extra>",
        }]  # fmt: skip
        title = f"{quantity} at step {record['step']}: {meaning}"
    blocks = axis("decoder block", type="category", showgrid=False)
    projections = axis(autorange="reversed", showgrid=False, type="category", automargin=True)
    read = (
        "A column is a decoder block, from the first at the left; a row is one linear map in it. The colours span the whole run, so "
        "that steps compare. Point at a cell for its number."
    )
    notes = [] if data else [note("Drawn from the first step on.")]
    return made(data, title, 320, read, xaxis=blocks, yaxis=projections, annotations=notes)


def _measured(perplexity: pd.DataFrame, scope: str) -> pd.DataFrame:
    return perplexity[perplexity["scope"] == scope] if len(perplexity) else perplexity


def _last(table: pd.DataFrame, column: str, default):
    return table[column].iloc[-1] if len(table) else default
