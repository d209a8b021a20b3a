"""Figures that follow sliders where widgets run, and stand still where none do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import plotly.graph_objects as go
import plotly.io
from IPython.display import display

WIDGET = "application/vnd.jupyter.widget-view+json"
FIGURE = "application/vnd.plotly.v1+json"


class Exploration:
    """Sliders, and figures that are drawn anew whenever one of them moves.

    draw: takes the values of all sliders by name, and returns a list of plotly figures, always as many, with as many traces. sliders:
    {name: ipywidgets slider}.
    """

    def __init__(self, draw: Callable[..., Sequence[go.Figure]], sliders: dict):
        self.draw, self.sliders = draw, sliders
        self.figures = [go.FigureWidget(figure) for figure in self._drawn()]
        for slider in sliders.values():
            slider.observe(self._redraw, names="value")

    def _drawn(self) -> Sequence[go.Figure]:
        return self.draw(**{name: slider.value for name, slider in self.sliders.items()})

    def _redraw(self, _change) -> None:
        for shown, figure in zip(self.figures, self._drawn(), strict=True):
            with shown.batch_update():
                for old, new in zip(shown.data, figure.data, strict=True):
                    old.update(new.to_plotly_json(), overwrite=True)
                shown.layout.update(figure.layout.to_plotly_json(), overwrite=True)

    def show(self) -> None:
        """Sliders, then figures, each an output of its own that also carries a picture of the start: a page that runs no widgets,
        such as a notebook on a code host, shows that."""
        from ipywidgets import VBox

        display(VBox(list(self.sliders.values())))
        for figure in self.figures:
            still = plotly.io.renderers["plotly_mimetype"].to_mimebundle(figure.to_dict())
            display(figure._repr_mimebundle_() | {FIGURE: still[FIGURE]}, raw=True)


def explore(draw: Callable[..., Sequence[go.Figure]], **ranges: tuple[float, float, float]) -> None:
    """Show the figures of `draw`, with a slider for each of its arguments.

    ranges: argument = (least, most, start). Without ipywidgets, or anywidget, the figures of the start are shown.
    """
    try:
        from ipywidgets import FloatSlider, Layout

        sliders = {
            name: FloatSlider(
                value=start, min=least, max=most, step=(most - least) / 200, description=name, readout_format=".2f",
                layout=Layout(width="28em"),
            )
            for name, (least, most, start) in ranges.items()
        }  # fmt: skip
        exploration = Exploration(draw, sliders)
    except ImportError:  # plotly raises it too, where anywidget is missing
        for figure in draw(**{name: start for name, (_, _, start) in ranges.items()}):
            display(figure)
        return
    exploration.show()
