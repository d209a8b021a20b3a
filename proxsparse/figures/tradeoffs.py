"""What a mask costs, or how far its layers' outputs are off, against the perplexity that it leaves."""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from proxsparse.figures.look import BLUE, GREEN, GRID, MARGIN, ORANGE, axis, edge_of, made, one_two_five, short

HEIGHT, ROOM, LINE = 420, 120, 0.05  # pixels; pixels for names, on the right; least distance of two names, of the axis
QUANTITIES = {  # column of `Comparison.table` → (name of the axis, whether it is logarithmic, title, how to read it)
    "seconds": (
        "seconds to make the mask", True, "What a mask costs in time",
        "A point is a method: the further down, the better its mask; the further left, the sooner it is made. What lies left of and below "
        "another point is better in both. The dashed line is the model before it was pruned.",
    ),
    "memory_GB": (
        "peak memory while making the mask, GB", False, "What a mask costs in memory",
        "A point is a method: the further down, the better its mask; the further left, the less memory it takes to make. The dashed line "
        "is the model before it was pruned.",
    ),
    "output_error": (
        "output error, mean over layers", False, "Output error of the layers beside perplexity",
        "A point is a method. Across: ‖WX − ŴX‖ / ‖WX‖. "
        "If the error of the layers' outputs told how good a mask is, the points would lie on a rising line: where "
        "one lies further left and yet higher, it does not.",
    ),
}  # fmt: skip


def against_perplexity(table: pd.DataFrame, quantity: str = "seconds", base: str = "dense") -> go.Figure:
    """Perplexity of every method over what its mask cost or its output error; methods of which that is not known are left out.

    Parameters
    ----------
    table : DataFrame
        As `Comparison.table`.
    quantity : str
        A column of it: seconds, memory_GB or output_error.
    base : str
        What the table calls the model as it came.

    Returns
    -------
    plotly Figure
        Perplexity on a logarithmic axis, ± standard error over windows; a dashed line at the model as it came. The names stand on the
        right, each joined to its point by a thin line: points may lie close together, names must not.
    """
    label, is_log, title, read = QUANTITIES[quantity]
    columns = ["method", "perplexity", "stderr", "weights_changed", quantity]
    table = table if len(table) else pd.DataFrame(columns=columns)
    known = table[table[quantity].notna()] if quantity in table else table[:0]
    if is_log:  # which has no place for zero
        known = known[known[quantity] > 0]
    known = known.sort_values("perplexity")
    edge, changed = edge_of(known["perplexity"]), known["weights_changed"].astype(bool)
    data = [
        {
            "type": "scatter", "x": rows[quantity], "y": rows["perplexity"].clip(upper=edge), "name": name, "mode": "markers",
            "customdata": rows["method"], "cliponaxis": False,
            "marker": {"color": color, "size": 10, "symbol": ["triangle-up" if value > edge else "circle" for value in rows["perplexity"]]},
            "error_y": {"array": rows["stderr"].where(rows["perplexity"] <= edge), "color": color, "thickness": 1.2},
            "hovertext": [short(value) for value in rows["perplexity"]],
            "hovertemplate": "%{customdata}<br>%{x:.3g}, perplexity %{hovertext}<extra></extra>",
        }
        for name, color, rows in (("original weights", BLUE, known[~changed]), ("updated weights", ORANGE, known[changed]))
        if len(rows)
    ]  # fmt: skip
    dense = table[table["method"] == base]
    if data and len(dense):
        value, ends = dense["perplexity"].iloc[0], [known[quantity].min(), known[quantity].max()]
        data.append({
            "type": "scatter", "x": ends, "y": [value, value], "name": base, "mode": "lines",
            "line": {"color": GREEN, "dash": "dash", "width": 1.5}, "hovertemplate": "perplexity %{y:.2f}",
        })  # fmt: skip
    shown = pd.concat([known["perplexity"].clip(upper=edge), dense["perplexity"]])
    axes = {"xaxis": axis(label), "yaxis": axis("perplexity", type="log")}
    if data:
        across, heights = _range(known[quantity], is_log), _range(shown, True)
        axes["xaxis"] |= {"range": across} | (
            {"type": "log", "tickvals": one_two_five(known[quantity])} if is_log else {}
        )
        axes["yaxis"] |= {"range": heights, "tickvals": one_two_five(shown)}
        end = 10 ** across[1] if is_log else across[1]
        data = _named(known[quantity], known["perplexity"].clip(upper=edge), known["method"], end, heights) + data
    return made(
        data, title, HEIGHT, f"{read} A triangle at the upper edge lies beyond it.", margin=MARGIN | {"r": ROOM}, **axes
    )  # fmt: skip


def _range(values: pd.Series, is_log: bool) -> list[float]:
    """Of an axis, as plotly has it: in powers of ten where it is logarithmic."""
    ends = [math.log10(end) if is_log else end for end in (values.min(), values.max())]
    room = 0.06 * (ends[1] - ends[0]) or 0.1
    return [ends[0] - room, ends[1] + room]


def _named(x: pd.Series, y: pd.Series, names: pd.Series, end: float, heights: list[float]) -> list[dict]:
    """Names at the right end of the axis, apart from each other, and lines from the points to them. y: ascending."""
    least = LINE * (heights[1] - heights[0])
    places = [10**height for height in spread([math.log10(value) for value in y], least, heights[1])]
    lines = [
        {
            "type": "scatter", "x": [at, end], "y": [value, place], "mode": "lines", "line": {"color": GRID, "width": 1},
            "showlegend": False, "hoverinfo": "skip",
        }
        for at, value, place in zip(x, y, places, strict=True)
    ]  # fmt: skip
    return [*lines, {
        "type": "scatter", "x": [end] * len(names), "y": places, "text": names, "customdata": names, "mode": "text",
        "textposition": "middle right", "cliponaxis": False, "showlegend": False, "hoverinfo": "skip",
    }]  # fmt: skip


def spread(wanted: list[float], least: float, high: float) -> list[float]:
    """Places as near as can be above or at `wanted`, which ascends, with `least` between two; below that where `high` is reached.

    >>> spread([1.0, 1.1, 3.0], 0.5, 3.2)
    [1.0, 1.5, 3.0]
    >>> spread([2.9, 3.0, 3.1], 0.5, 3.0)
    [2.0, 2.5, 3.0]
    """
    places: list[float] = []
    for value in wanted:
        places.append(max(value, places[-1] + least) if places else value)
    for index in reversed(range(len(places))):
        places[index] = min(places[index], high)
        high = places[index] - least
    return places
