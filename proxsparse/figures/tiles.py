"""A piece of a mask weight by weight, with the borders of its groups.

A pattern is written as the positions that it keeps: ●●○○ keeps the first two of four.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from proxsparse.figures.look import BLUE, GREEN, INK, ORANGE, PURPLE, RED, SKY, axis, color_bar, made

COLORINGS = ("kept or dropped", "soft weight", "pattern", "against another mask")
DROPPED = "rgba(128,128,128,0.22)"
PATTERN_COLORS = (BLUE, ORANGE, GREEN, RED, SKY, PURPLE, INK)
AGAINST = (
    ("neither keeps it", DROPPED),
    ("only the other mask keeps it", ORANGE),
    ("only this mask keeps it", BLUE),
    ("both keep it", GREEN),
)


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
    called: str = "soft weight",
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
        (rows, columns), such as the soft weights in the metric: needed to colour by them, shown under the pointer.
    other : ndarray, optional
        Bool (rows, columns), the mask to compare with; needed for that colouring.
    corner : (int, int)
        Row and column of the piece's first weight in the layer.
    chosen : (int, int), optional
        Row in the layer and group in that row: framed.
    title : str
        What is shown, and when.
    called : str
        What `weights` are, beside the scale of colours and under the pointer.

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
        text = text + np.array([[f", {called} {value:+.3g}" for value in line] for line in weights], dtype=object)
    cells = {
        "type": "heatmap", "x": x, "y": y, "customdata": groups, "text": text, "xgap": 1, "ygap": 1,
        "hovertemplate": "row %{y}, column %{x} (group %{customdata})<br>%{text}<extra></extra>",
    }  # fmt: skip
    if coloring == "soft weight" and weights is not None:
        most = float(np.abs(weights).max()) or 1.0
        scale = [(0, RED), (0.5, "rgba(128,128,128,0.12)"), (1, BLUE)]
        cells |= {"z": weights, "zmin": -most, "zmax": most, "colorscale": scale, "colorbar": color_bar(called)}
        dropped_rows, dropped_columns = np.nonzero(~kept)
        named = [{
            "type": "scatter", "x": x[dropped_columns], "y": y[dropped_rows], "mode": "markers", "name": "dropped",
            "marker": {"symbol": "x-thin", "size": 6, "line": {"width": 1.2, "color": INK}}, "hoverinfo": "skip",
            "showlegend": True,
        }]  # fmt: skip
    else:
        values, categories = _categories(kept, m, coloring, other)
        cells |= _in_categories(values, categories)
        named = _legend(values, categories)
    read = (
        "Each square is a weight, the lines are the borders of the groups, and the frame is the group whose curves are drawn. Where a "
        "square changes from one step to the next, learning changed its mind about that weight."
    )
    return made(
        [cells, *named], title, 170 + 32 * rows, read, shapes=_borders(m, corner, (rows, columns), chosen),
        xaxis=axis("input (column)", showgrid=False, dtick=_between_ticks(columns, m), constrain="domain"),
        yaxis=axis("output (row)", showgrid=False, dtick=_between_ticks(rows, 4), autorange="reversed"),
    )  # fmt: skip


def _between_ticks(size: int, step: int) -> int:
    """Weights from one label of an axis to the next: each where they are few, else a multiple of step. Plotly's own may lie at halves."""
    return 1 if size <= 12 else step * -(-size // (12 * step))


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


def _in_categories(values: np.ndarray, named: list[tuple[str, str]]) -> dict:
    """What a heatmap draws of categories: a scale of as many even pieces, an index in the middle of its own."""
    count = len(named)
    scale = [(edge / count, color) for i, (_, color) in enumerate(named) for edge in (i, i + 1)]
    return {"z": values, "zmin": -0.5, "zmax": count - 0.5, "colorscale": scale, "showscale": False}


def _legend(values: np.ndarray, named: list[tuple[str, str]]) -> list[dict]:
    """A legend, which a heatmap has none of for categories: traces without points, with each category's share."""
    return [
        {
            "type": "scatter", "x": [None], "y": [None], "mode": "markers", "name": f"{name} ({(values == i).mean():.0%})",
            "marker": {"symbol": "square", "size": 11, "color": color},
        }
        for i, (name, color) in enumerate(named)
    ]  # fmt: skip


def _borders(m: int, corner, shape, chosen) -> list[dict]:
    """The borders of the groups, and the frame of the chosen one."""
    (top, left), (rows, columns) = corner, shape
    borders = [
        {
            "type": "line", "x0": edge - 0.5, "x1": edge - 0.5, "y0": top - 0.5, "y1": top + rows - 0.5,
            "line": {"color": INK, "width": 3},
        }
        for edge in range(left, left + columns + 1, m)
    ]  # fmt: skip
    if chosen is not None:
        row, group = chosen
        borders.append({
            "type": "rect", "x0": group * m - 0.5, "x1": (group + 1) * m - 0.5, "y0": row - 0.5, "y1": row + 0.5,
            "line": {"color": RED, "width": 3},
        })  # fmt: skip
    return borders
