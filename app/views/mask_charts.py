"""What the Masks screen draws of a run's masks: each chart with a title that says what is to be seen."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app import html
from app.views.masks import MasksView
from app.views.run import RunSnapshot
from proxsparse import figures
from proxsparse.figures.look import layer_label

REFERENCES = {
    "magnitude": "magnitude",
    "Wanda": "wanda",
    "the start": "start",
}  # as people call them → as a run records them


def network(view: RunSnapshot, masks: MasksView, step: int, called: str, values: pd.Series | None) -> go.Figure:
    """In which layers the mask differs from another one. values: by layer, the share of the kept weights that it drops; where they are
    not known the mask is laid beside that of the start."""
    if values is None or values.isna().all():
        called, values = "the start", masks.differing("start", step)
    worst = values.idxmax()
    title = f"Step {step}: the mask differs most from {called} in {layer_label(worst)} ({values[worst]:.0%} of the kept weights)"
    read = (
        f"A cell is a layer: a decoder block from left to right, a linear map in it from top to bottom. The brighter, the more of the "
        f"weights that the learned mask keeps are dropped by the mask of {called}. Click a cell to open its layer."
    )
    return figures.layer_map(view.layers, values, f"dropped by {called}", title, read)


def tile(
    masks: MasksView, layer: str, step: int, coloring: str, other: np.ndarray | None, name: str, chosen: tuple[int, int]
) -> go.Figure:
    """The tracked piece of the layer."""
    row, column, rows, columns = masks.history.tile_position(layer)
    inside = np.s_[row : row + rows, column : column + columns]
    table = masks.tile(layer)
    now = table[(table["step"] == step) & (table["half"] == "prox")]
    weights = now["weight"].to_numpy().reshape(rows, columns) if len(now) else None
    against = f" against {name}" if coloring == "against another mask" else ""
    return figures.mask_tile(
        masks.mask(layer, step)[inside], masks.history.m, coloring, weights, None if other is None else other[inside],
        (row, column), chosen, f"Step {step}: {rows} × {columns} weights of {layer_label(layer)}{against}",
    ).update_layout(uirevision=layer)  # fmt: skip


def group(masks: MasksView, layer: str, step: int, chosen: tuple[int, int]) -> go.Figure:
    """The weights of one group of the tile over the steps."""
    row, place = chosen
    table, flips = masks.tile(layer), masks.flips(layer)
    table = table[(table["row"] == row) & (table["column"] // masks.history.m == place)]
    flips = flips[(flips["row"] == row) & (flips["group"] == place)]
    changes = {0: "its pattern never changed", 1: "its pattern changed once"}
    title = f"Row {row}, group {place}: {changes.get(len(flips), f'its pattern changed {len(flips)} times')}"
    return figures.group_path(table, flips, masks.history.n, title, step).update_layout(uirevision=f"{layer} {chosen}")


def whole(mine: np.ndarray, other: np.ndarray, step: int, name: str) -> go.Figure:
    """Where the layer's mask and another differ."""
    title = f"Step {step}: the mask and that of {name} differ in {(mine != other).mean():.1%} of the layer's weights"
    return figures.layer_picture(mine, other, ("this mask", name), title).update_layout(uirevision=str(mine.shape))


def curves(view: RunSnapshot, masks: MasksView, layer: str, step: int) -> dict[str, go.Figure]:
    """The layer over the steps: its patterns, what it has in common with other masks, its composition."""
    table = masks.patterns(layer)
    title = f"How many soft weights of the groups of {layer_label(layer)} are not zero"
    drawn = {
        "patterns": figures.pattern_shares(table, f"Patterns of the groups of {layer_label(layer)}"),
        "agreement": figures.agreement(table, f"Kept weights that {layer_label(layer)} has in common with other masks"),
        "composition": figures.composition(masks.composition(view, layer), title),
    }
    return {name: figures.marked(figure, step) for name, figure in drawn.items()}


def facts(masks: MasksView, layer: str, step: int, mine: np.ndarray, other: np.ndarray | None, name: str) -> str:
    """The layer in four numbers, as HTML."""
    rows, columns = mine.shape
    m, start, flips = masks.history.m, masks.reference_mask(layer, "start"), masks.flips(layer)
    changed = (mine != start).reshape(rows, columns // m, m).any(-1).mean()
    tiles = [
        html.tile("layer", f"{rows} × {columns}", f"{escape(layer)}: {rows * columns // m:,} groups"),
        html.tile("changed since the start", f"{changed:.1%}", f"of the groups keep other weights at step {step}"),
        html.tile("changed at this step", f"{(flips['step'] == step).sum():,}", "groups that took another pattern"),
    ]
    if other is not None:
        kept = (mine & other).sum() / mine.sum()
        tiles.insert(1, html.tile(f"in common with {escape(name)}", f"{kept:.1%}", "of the kept weights", lead=True))
    return f"<div class='tiles'>{''.join(tiles)}</div>"
