"""The curves of a run, drawn by `proxsparse.figures`, which says what each shows and how to read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from proxsparse import figures
from proxsparse.runs import Run
from proxsparse.runs.readers.judged import judged_table
from proxsparse.runs.readers.records import thinned, thinned_measurements


@dataclass(frozen=True)
class Curve:
    """id: of its element. title: what it shows. reading: one line. figure: as plotly's JSON, without a title of its own."""

    id: str
    title: str
    reading: str
    figure: dict[str, Any]


def curves(run: Run) -> list[Curve]:
    """Learning curve, composition, flips and strength, thinned to what a chart can show; none before the first step."""
    steps, perplexity, layers = run.table("steps"), run.table("perplexity"), run.layers()
    if steps.empty:
        return []
    weights = int((layers["rows"] * layers["columns"]).sum())
    judged = judged_table(run.table("judged").to_dict("records"))
    few = thinned(steps, "loss")
    drawn = {
        "learning-curve": figures.learning_curve(few, thinned_measurements(perplexity), run.given(), judged),
        "composition": figures.composition(few),
        "flips": figures.flips(few, weights),
        "strength": figures.strength(few),
    }
    return [_curve(id, figure) for id, figure in drawn.items()]


def _curve(id: str, figure: go.Figure) -> Curve:
    title, reading = figure.layout.title.text, f"How to read: {figure.layout.meta['read']}"
    figure.update_layout(title=None, margin_t=48, legend={"yref": "paper", "y": 1, "yanchor": "bottom"})
    return Curve(id, title, reading, json.loads(figure.to_json()))
