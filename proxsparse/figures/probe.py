"""Figures of what a model was asked: what comes next, and which layers' masks cost most. Each takes a table and returns a
plotly figure."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from proxsparse.figures.look import BLUE, GREEN, INK, MARGIN, ORANGE, PURPLE, axis, layer_label, made, upright

MODEL_COLORS = {"dense": GREEN, "magnitude": ORANGE, "wanda": PURPLE, "learned": BLUE}
MOST_LAYERS = 24


def next_tokens(table: pd.DataFrame, model: str = "dense", most: float | None = None) -> go.Figure:
    """The most probable next tokens as bars, with a mark where the dense model puts the same token.

    Parameters
    ----------
    table : DataFrame
        As `proxsparse.next_tokens`, `reference` included where it is known.
    model : str
        Under which mask, for the colour.
    most : float, optional
        The right end of the axis, so that several models share one.

    Returns
    -------
    plotly Figure
    """
    shown = table.iloc[::-1]
    labels = [visible(text) for text in shown["text"]]
    places = list(range(len(shown)))  # two tokens may read alike: places are numbers, and labels are put at them
    data = [{
        "type": "bar", "x": shown["probability"], "y": places, "orientation": "h", "name": model, "showlegend": False,
        "marker": {"color": MODEL_COLORS.get(model, BLUE)}, "customdata": labels,
        "hovertemplate": "%{customdata}: %{x:.2%}<extra>" + model + "</extra>",
    }]  # fmt: skip
    if model != "dense" and "reference" in shown:
        data.append({
            "type": "scatter", "x": shown["reference"], "y": places, "mode": "markers", "name": "dense gives the same token",
            "marker": {"symbol": "line-ns", "size": 13, "line": {"width": 2.5, "color": INK}}, "customdata": labels,
            "hovertemplate": "%{customdata}: %{x:.2%}<extra>dense</extra>",
        })  # fmt: skip
    end = most or table["probability"].max()
    title = f"Next: {visible(table['text'].iloc[0])}, {table['probability'].iloc[0]:.0%}"
    read = "The bars are the most probable next tokens (␣ is a space); the upright mark is what the dense model gives the same token."
    return made(
        data, title, 300, read, margin=MARGIN | {"l": 8}, bargap=0.25,
        xaxis=axis("probability of the next token", tickformat=".0%", range=[0, 1.05 * end]),
        yaxis=axis(tickvals=places, ticktext=labels, automargin=True, showgrid=False),
    )  # fmt: skip


def layer_costs(table: pd.DataFrame) -> go.Figure:
    """The layers at the top of `table` with the change of the loss when each alone is dense again: hollow where it is an
    estimate, with the standard error over windows where it was measured.

    Parameters
    ----------
    table : DataFrame
        layer, estimate, measured, measured_stderr; nan where not known; in the order to be shown.

    Returns
    -------
    plotly Figure
    """
    shown = table.head(MOST_LAYERS).iloc[::-1]
    names = [layer_label(name) for name in shown["layer"]]
    data = [
        {
            "type": "scatter", "x": shown["estimate"], "y": names, "mode": "markers", "name": "estimated, to first order",
            "marker": {"symbol": "circle-open", "size": 9, "color": ORANGE, "line": {"width": 2}},
            "hovertemplate": "%{y}: %{x:+.4f}<extra>estimated</extra>",
        },
        {
            "type": "scatter", "x": shown["measured"], "y": names, "mode": "markers", "name": "measured, ± standard error",
            "marker": {"size": 9, "color": BLUE},
            "error_x": {"array": shown["measured_stderr"], "color": BLUE, "thickness": 1.5},
            "hovertemplate": "%{y}: %{x:+.4f}<extra>measured</extra>",
        },
    ]  # fmt: skip
    top = layer_label(table["layer"].iloc[0]) if len(table) else ""
    known = "measured" if table["measured"].notna().any() else "estimated"
    title = (
        f"The mask of {top} costs most: change of the loss when a layer is dense again ({known})"
        if top
        else "What the mask of each layer costs"
    )
    read = (
        "How much the loss on held-out windows changes when this layer alone gets all its weights back: the further to the left, the more "
        "its mask costs. Estimates are the gradient times what the mask removed."
    )
    return made(
        data, title, 160 + 20 * max(len(shown), 4), read, margin=MARGIN | {"l": 8},
        xaxis=axis("Δ loss, nats a token"), yaxis=axis(type="category", automargin=True),
        shapes=[upright(0, color=INK, width=1)],
    )  # fmt: skip


def visible(text: str) -> str:
    """A token so that its spaces and line ends can be seen."""
    shown = text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣")
    return shown if shown.strip() else repr(text)
