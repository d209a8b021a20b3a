"""The curves of a run: each drawn by `proxsparse.figures`, under a title that says what it shows, with a line on reading it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from proxsparse import figures
from proxsparse.report.about import number
from proxsparse.runs import Run
from proxsparse.runs.readers.records import thinned


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
    learn = run.job().learn
    weights = int((layers["rows"] * layers["columns"]).sum())
    few = thinned(steps, "loss")
    return [
        Curve(
            "learning-curve", _of_learning(perplexity),
            "How to read: lower is better. The blue line is the original model under the learned mask, on text that nothing "
            "was learned from; the green one is the model without a mask. Below, the loss on the windows it learns from.",
            _drawn(figures.learning_curve(few, _thinned(perplexity))),
        ),
        Curve(
            "composition", _of_composition(steps, learn.n),
            f"How to read: at each step the areas share out all groups of {learn.m} soft weights by how many of them are not "
            f"zero. The regularizer drives groups towards {learn.n}.",
            _drawn(figures.composition(few)),
        ),
        Curve(
            "flips", _of_flips(steps, weights),
            "How to read: a weight flips when it goes from kept to dropped or back. Orange counts one step, blue what differs "
            "from the starting mask; the scale is logarithmic.",
            _drawn(figures.flips(few, weights)),
        ),
        Curve(
            "strength", _of_strength(steps),
            "How to read: λ1, on the left, is how hard the proximal operator pulls each group towards its pattern; the learning "
            "rate, on the right, is how far a gradient moves a weight.",
            _drawn(figures.strength(few)),
        ),
    ]  # fmt: skip


def _thinned(perplexity: pd.DataFrame) -> pd.DataFrame:
    if perplexity.empty:
        return perplexity
    live = (perplexity["mask"] == "learned") & (perplexity["scope"] == "live")
    return pd.concat([perplexity[~live], thinned(perplexity[live], "perplexity")])


def _drawn(figure: go.Figure) -> dict[str, Any]:
    figure.update_layout(title=None, margin_t=48)
    return json.loads(figure.to_json())


def _of_learning(perplexity: pd.DataFrame) -> str:
    live = perplexity[perplexity["scope"] == "live"] if len(perplexity) else perplexity
    learned = live[live["mask"] == "learned"] if len(live) else live
    if len(learned) < 2:
        return "How does the model do under its mask while it learns?"
    first, last = learned.iloc[0], learned.iloc[-1]
    went = "fell" if last["perplexity"] < first["perplexity"] else "rose"
    windows = f"{last['windows']:.0f} held-out window{'s' if last['windows'] > 1 else ''}"
    said = (
        f"On {windows} perplexity {went} from {number(first['perplexity'])} to {number(last['perplexity'])} "
        f"in {last['step']:.0f} steps"
    )
    dense = live[live["mask"] == "dense"]
    return said + (f"; without a mask it is {number(dense['perplexity'].iloc[-1])}" if len(dense) else "")


def _of_composition(steps: pd.DataFrame, n: int) -> str:
    last = steps.iloc[-1]
    share = last[f"nonzeros_{n - 1}"] + last[f"nonzeros_{n}"]
    return f"At step {last['step']:.0f}, {share:.1%} of the groups have at most {n} nonzero soft weights"


def _of_flips(steps: pd.DataFrame, weights: int) -> str:
    if not weights:
        return "How much of the mask changes?"
    most = steps.loc[steps["flips"].idxmax()]
    return (
        f"{steps['flips_from_start'].iloc[-1] / weights:.2%} of the weights ended in another state than at the start; most "
        f"flips, {most['flips'] / weights:.2%}, came in step {most['step']:.0f}"
    )


def _of_strength(steps: pd.DataFrame) -> str:
    first, last = steps["lambda1"].iloc[0], steps["lambda1"].iloc[-1]
    if first == last and steps["lambda1"].nunique() == 1:
        return f"λ1 stayed at {first:.3g}"
    return f"λ1 went from {first:.3g} to {last:.3g}"
