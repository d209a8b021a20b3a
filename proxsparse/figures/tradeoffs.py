"""What a mask costs, or how far its layers' outputs are off, against the perplexity that it leaves."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from proxsparse.figures.look import BLUE, GREEN, LEGEND, MARGIN, ORANGE, axis, edge_of, made, one_two_five

PLACES = (
    "top center",
    "bottom center",
    "middle right",
)  # of names, from one point to the next: they cover each other less
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
        "output error, ‖WX − ŴX‖ / ‖WX‖, mean over layers", False, "Output error of the layers beside perplexity",
        "A point is a method. If the error of the layers' outputs told how good a mask is, the points would lie on a rising line: where "
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
        Perplexity on a logarithmic axis, ± standard error over windows; a dashed line at the model as it came.
    """
    label, is_log, title, read = QUANTITIES[quantity]
    columns = ["method", "perplexity", "stderr", "weights_changed", quantity]
    table = table if len(table) else pd.DataFrame(columns=columns)
    known = table[table[quantity].notna()] if quantity in table else table[:0]
    if is_log:  # which has no place for zero
        known = known[known[quantity] > 0]
    known = known.sort_values("perplexity")
    edge, changed = edge_of(known["perplexity"]), known["weights_changed"].astype(bool)
    places = pd.Series([PLACES[rank % len(PLACES)] for rank in range(len(known))], known.index, dtype=object)
    data = [
        {
            "type": "scatter", "x": rows[quantity], "y": rows["perplexity"].clip(upper=edge), "name": name, "mode": "markers+text",
            "text": rows["method"], "textposition": places[rows.index], "customdata": rows["method"], "cliponaxis": False,
            "marker": {"color": color, "size": 10, "symbol": ["triangle-up" if value > edge else "circle" for value in rows["perplexity"]]},
            "error_y": {"array": rows["stderr"].where(rows["perplexity"] <= edge), "color": color, "thickness": 1.2},
            "hovertext": [f"{value:.5g}" for value in rows["perplexity"]],
            "hovertemplate": "%{customdata}<br>%{x:.3g}, perplexity %{hovertext}<extra></extra>",
        }
        for name, color, rows in (("weights as they were", BLUE, known[~changed]), ("weights updated", ORANGE, known[changed]))
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
    return made(
        data, title, 420, f"{read} A triangle at the upper edge lies beyond it.", margin=MARGIN | {"r": 60}, legend=LEGEND,
        xaxis=axis(label, **({"type": "log", "tickvals": one_two_five(known[quantity]) if len(known) else None} if is_log else {})),
        yaxis=axis("perplexity", type="log", tickvals=one_two_five(shown) if len(shown) else None),
    )  # fmt: skip
