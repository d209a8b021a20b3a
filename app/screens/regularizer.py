"""The Regularizer screen: one group of weights, dragged by hand, and what the proximal operator makes of it."""

from __future__ import annotations

import functools
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component

from app import bars, html
from app.address import Entry, number
from app.keyboard import scrubbing
from app.live_plot import as_value, live_plot
from app.screens.shown import Shown
from proxsparse import ProxSparseError, figures

PATTERNS = ("2:4", "1:4", "3:4", "1:2", "2:8")
WEIGHTS = (1.2, -0.8, 0.6, 0.3, 0.5, -0.4, 0.2, 0.1)
WEAKEST, STRONGEST, FIRST = -2.5, 1.0, -0.5  # of log10 λ
LAMBDAS = np.logspace(WEAKEST, STRONGEST, 141)
SHAPES = np.linspace(0, 1, 41)
MOST = 2.0  # of a weight
SLICE = np.linspace(-MOST, MOST, 41)
CHARTS = ("point", "supports", "path", "phases", "slice")

INTRODUCTION = """
The regularizer **R** is zero exactly when at most n of the m weights of a group are nonzero, and the *proximal half* of a step replaces
a group v by the w with the least ½‖w − v‖² + λ R(w). **Drag the bars and λ**: below is that w, computed by the operator that runs use.
"""
METRICS = {
    "weight": "R and the distance are taken of the weights as they are, as in the paper.",
    "activation": """R and the distance are taken of s·w: each weight counts as much as its input is large. Drag the scales s and see
other weights survive.""",
}


class RegularizerScreen:
    """Shows R, the proximal point, its supports and its path for a group that the visitor makes."""

    name, title = "regularizer", "Regularizer"
    keys = scrubbing("reg-lambda", "λ")
    css = (
        bars.CSS
        + """
#reg-numbers .tiles { grid-template-columns: repeat(auto-fit, minmax(110px, 1fr)); }
"""
    )

    def build(self, shell) -> None:
        """The controls on the left, the charts on the right."""
        gr.Markdown(INTRODUCTION)
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300):
                self.weights = bars.bars(
                    "Weights of the group", WEIGHTS[:4], "w", -MOST, MOST, 0.01, elem_id="reg-weights"
                )
                self.lam = gr.Slider(
                    WEAKEST, STRONGEST, value=FIRST, step=0.01, label="log10 λ", elem_id="reg-lambda",
                    info="strength of R. With weights in units of their layer's RMS it is the λ1 of a run (relative)",
                )  # fmt: skip
                self.pattern = gr.Radio(list(PATTERNS), value="2:4", label="Pattern n:m", elem_id="reg-pattern")
                self.metric = gr.Radio(list(METRICS), value="weight", label="Metric", elem_id="reg-metric")
                self.scales = bars.bars("Scales s", [1.0] * 4, "s", 0.1, 3.0, 0.01, elem_id="reg-scales")
                self.about = gr.HTML(elem_id="reg-about")
            with gr.Column(scale=3, min_width=320):
                self.numbers = gr.HTML(elem_id="reg-numbers")
                self.charts = {}
                for row in (("point", "supports"), ("path",), ("phases", "slice")):
                    with gr.Row():
                        for name in row:
                            with gr.Column(min_width=320):
                                height = 340 if name in ("phases", "slice") else 300
                                self.charts[name] = live_plot(f"reg-{name}", height)
        self.inputs = [self.weights, self.lam, self.pattern, self.metric, self.scales]
        self.outputs = [self.numbers, self.about, self.weights, self.scales, *self.charts.values()]
        self.address = {
            "weights": _numbers_entry(self.weights), "lambda": Entry(self.lam, _asked_strength, _kept_strength),
            "pattern": self.pattern, "metric": self.metric, "scales": _numbers_entry(self.scales),
        }  # fmt: skip

    def wire(self, shell) -> None:
        """Whatever moves, the charts follow; while they are computed only the last move counts."""
        for place in (self.weights, self.scales):
            place.moved(**shell.looking(self))
        gr.on([self.lam.change, self.pattern.input, self.metric.input], **shell.looking(self))

    def render(self, shown: Shown) -> dict[Component, Any]:
        """All of it when one of the controls moved."""
        values = shown.values
        n, m = (int(part) for part in values[self.pattern].split(":"))
        updates: dict[Component, Any] = {}
        given = {}
        for place, rest in ((self.weights, WEIGHTS), (self.scales, (1.0,) * len(WEIGHTS))):
            standing = bars.numbers(values[place])
            given[place] = tuple(standing[:m]) + tuple(rest[len(standing) : m])
            if len(standing) != m:
                updates[place] = bars.with_numbers(values[place], given[place])
        metric = values[self.metric]
        if shown.changed("metric", metric):
            updates[self.about] = html.note(METRICS[metric])
            updates[self.scales] = gr.update(visible=metric == "activation", value=values[self.scales])
        scale = given[self.scales] if metric == "activation" else None
        view = (given[self.weights], 10 ** values[self.lam], n, scale)
        if shown.changed("group", view):
            updates |= self._drawn(*view)
        return updates

    def _drawn(
        self, weights: tuple[float, ...], lam: float, n: int, scale: tuple[float, ...] | None
    ) -> dict[Component, Any]:
        from proxsparse.proximal import explain  # here: the other screens need no torch

        group = explain.Group(weights, lam, n, scale)
        table = explain.by_nonzeros(group)
        point = table.iloc[-1, -group.m :].to_numpy()
        left, after = int((point != 0).sum()), explain.Group(tuple(point), lam, n, scale).regularizer
        path, counts, values = _whatever_the_strength(weights, n, scale)
        drawn = (
            figures.proximal_point(weights, point, lam), figures.best_by_nonzeros(table, left),
            figures.proximal_path(LAMBDAS, path, lam),
            figures.phase_diagram(LAMBDAS[::2], SHAPES, counts, lam, explain.shape_of(group), n, group.m),
            figures.regularizer_slice(SLICE, SLICE, values, weights, point),
        )  # fmt: skip
        moved = float(np.sqrt(np.square((point - weights) * group.units).sum()))
        tiles = (
            html.tile("λ", f"{lam:.3g}", "strength of the regularizer", lead=True),
            html.tile("R before", f"{group.regularizer:.3g}", f"0 exactly when the group is {n}:{group.m}"),
            html.tile("R after", f"{after:.3g}", "of the proximal point"),
            html.tile("weights left", f"{left} of {group.m}", "nonzero in the proximal point"),
            html.tile("moved", f"{moved:.3g}", "‖w − v‖, in the metric"),
        )
        texts = {self.numbers: f"<div class='tiles'>{''.join(tiles)}</div>"}
        return texts | {self.charts[name]: as_value(each) for name, each in zip(CHARTS, drawn, strict=True)}


@functools.lru_cache(maxsize=64)
def _whatever_the_strength(weights: tuple[float, ...], n: int, scale: tuple[float, ...] | None):
    """What does not change while λ alone is dragged: the path, the phases and the slice of R."""
    from proxsparse.proximal import explain

    group = explain.Group(weights, 1.0, n, scale)
    return (
        explain.path(group, LAMBDAS),
        explain.phases(group, LAMBDAS[::2], SHAPES),
        explain.slice_of(group, SLICE, SLICE),
    )


def _numbers_entry(place: gr.HTML) -> Entry:
    """Bars in the address: their numbers, with commas between."""

    def read(text: str) -> str:
        values = [float(number(part)) for part in text.split(",")]
        if not 2 <= len(values) <= len(WEIGHTS):
            raise ProxSparseError(
                f"{text[:40]!r} has {len(values)} numbers: give 2 to {len(WEIGHTS)}, with commas between."
            )
        kept = bars.with_numbers(first, values)
        if bars.numbers(kept) != values:
            raise ProxSparseError(f"{text[:40]!r} holds a number beyond the ends of the bars.")
        return kept

    first = place.value
    written = ",".join(f"{value:g}" for value in bars.numbers(first))

    def write(value: str, shown: Shown) -> str:
        text = ",".join(f"{each:g}" for each in bars.numbers(value))
        return "" if text == written else text

    return Entry(place, read, write, dragged=True)


def _asked_strength(text: str) -> float:
    """λ of an address, to what the slider holds."""
    lam = number(text)
    if not 10**WEAKEST * 0.999 <= lam <= 10**STRONGEST * 1.001:
        raise ProxSparseError(f"λ is {text[:20]}: the slider goes from {10**WEAKEST:.2g} to {10**STRONGEST:g}.")
    return min(max(round(float(np.log10(lam)), 2), WEAKEST), STRONGEST)


def _kept_strength(exponent: float, shown: Shown) -> str:
    """λ to four digits; nothing for the one that a fresh page shows."""
    return "" if exponent == FIRST else f"{10**exponent:.4g}"
