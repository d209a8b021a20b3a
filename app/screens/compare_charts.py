"""The charts of the Compare screen: perplexity, cost, output error, and where two masks differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
import plotly.graph_objects as go
from gradio.components import Component

from app.clicks import clicked_text
from app.live_plot import live_plot
from app.screens.shown import Shown
from app.views.comparison import Compared
from app.views.drawn import SHARED
from proxsparse import figures

COSTS = {"seconds": "seconds", "peak memory": "memory_GB"}
CHARTS = {"perplexity": 420, "cost": 420, "error": 420, "overlap": 420, "network": 320, "errors": 360, "common": 360}
PAIRS = ("overlap", "network", "errors", "common")  # drawn once masks have been laid beside each other


class CompareCharts:
    """Charts of the comparison shown, and what is chosen for them."""

    def build(self) -> None:
        self.charts: dict[str, gr.HTML] = {}
        self.charts["perplexity"] = live_plot("chart-compare-perplexity", CHARTS["perplexity"])
        with gr.Row():
            with gr.Column(min_width=320):
                self.cost = gr.Radio(list(COSTS), value="seconds", label="Cost", elem_id="compare-cost")
                self.charts["cost"] = live_plot("chart-compare-cost", CHARTS["cost"])
            with gr.Column(min_width=320):
                self.charts["error"] = live_plot("chart-compare-error", CHARTS["error"])
        with gr.Column(visible=False) as self.differences:
            gr.Markdown("## Where masks differ")
            with gr.Row():
                self.first = gr.Dropdown([], label="Kept by", allow_custom_value=True, elem_id="compare-first")
                self.second = gr.Dropdown(
                    [],
                    label="and dropped by",
                    allow_custom_value=True,
                    elem_id="compare-second",
                    info="or click a cell of the matrix",
                )
            with gr.Row():
                for name in ("network", "overlap"):
                    with gr.Column(min_width=320):
                        self.charts[name] = live_plot(f"chart-compare-{name}", CHARTS[name])
            with gr.Row():
                for name in ("errors", "common"):
                    with gr.Column(min_width=320):
                        self.charts[name] = live_plot(f"chart-compare-{name}", CHARTS[name])
        self.inputs = [self.cost, self.first, self.second]
        self.outputs = [self.differences, self.first, self.second, *self.charts.values()]
        self.address = {"cost": self.cost, "first": self.first, "second": self.second}

    def wire(self, shell, method: gr.Textbox) -> None:
        """A click on a point chooses its method, one on a cell of the matrix its two masks."""
        for name, handler in (("perplexity", chosen_row), ("cost", chosen_point), ("error", chosen_point)):
            shell.on(self.charts[name].select, handler, None, [method])
        shell.on(self.charts["overlap"].select, chosen_pair, None, [self.first, self.second])

    def render(self, shown: Shown, found: Compared) -> dict[Component, Any]:
        """Each chart when it would look different."""
        updates: dict[Component, Any] = {}

        def draw(name: str, figure: Callable[[], go.Figure], *look) -> None:
            key = (name, found.run.id, found.signature, *look)
            if shown.changed(f"chart {name}", key):
                updates[self.charts[name]] = SHARED.chart(("compare", found.run.path, *key), figure)

        cost = COSTS.get(shown.values[self.cost], "seconds")
        draw("perplexity", lambda: figures.perplexities(found.table))
        draw("cost", lambda: figures.against_perplexity(found.table, cost, found.base), cost)
        if "output_error" in found.table:
            draw("error", lambda: figures.against_perplexity(found.table, "output_error", found.base))
        else:
            updates |= self._without(("error",), shown, found)
        names = found.compared
        if shown.changed("differences", len(names) > 1):
            updates[self.differences] = gr.update(visible=len(names) > 1)
        if len(names) < 2:
            return updates | self._without(PAIRS, shown, found)
        first, second = self._pair(shown, found, names, updates)
        draw("overlap", lambda: figures.overlap_matrix(found.overlaps, found.job.n / found.job.m))
        draw("network", lambda: _network(found, first, second), first, second)
        draw("errors", lambda: figures.output_errors(found.layers))
        if found.ours not in names:
            return updates | self._without(("common",), shown, found)
        draw("common", lambda: figures.overlap_by_layer(found.layers, found.ours))
        return updates

    def nothing(self) -> dict[Component, Any]:
        """While there is no comparison."""
        return dict.fromkeys(self.charts.values(), "") | {self.differences: gr.update(visible=False)}

    def _without(self, names: tuple[str, ...], shown: Shown, found: Compared) -> dict[Component, Any]:
        changed = [name for name in names if shown.changed(f"chart {name}", (found.run.id, None))]
        return {self.charts[name]: "" for name in changed}

    def _pair(self, shown: Shown, found: Compared, names: list[str], updates: dict) -> tuple[str, str]:
        """The two masks whose difference is drawn: those chosen, else ours and the best other one."""
        ours = found.ours if found.ours in names else names[-1]
        best = next((name for name in found.table["method"] if name in names and name != ours), names[0])
        first, second = shown.values[self.first], shown.values[self.second]
        first = first if first in names else ours
        second = second if second in names else best if best != first else ours
        given = (shown.values[self.first], shown.values[self.second])
        if shown.changed("pairs", (found.run.id, names)) or given != (first, second):
            updates |= {
                self.first: gr.update(choices=names, value=first), self.second: gr.update(choices=names, value=second)
            }  # fmt: skip
        return first, second


def _network(found: Compared, first: str, second: str) -> go.Figure:
    values = found.comparison.differing(first, second)
    title = f"Kept by {first} and dropped by {second}: at most {values.max():.0%} of a layer's kept weights"
    read = (
        "A cell is a layer: a decoder block from left to right, a linear map in it from top to bottom. The brighter, the more of the "
        f"weights that {first} keeps are dropped by {second}."
    )
    return figures.layer_map(found.run.layers(), values, f"dropped by {second}", title, read)


def chosen_row(event: gr.EventData) -> str:
    """The method of the row of a chart that was clicked."""
    return clicked_text(event, "y")


def chosen_point(event: gr.EventData) -> str:
    """The method of the point that was clicked."""
    return clicked_text(event, "customdata")


def chosen_pair(event: gr.EventData) -> tuple[str, str]:
    """The two masks of the cell that was clicked."""
    return clicked_text(event, "y"), clicked_text(event, "x")
