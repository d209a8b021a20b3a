"""The Masks screen: from the map of the layers to one layer, one tile of it, and one group of four weights."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd
from gradio.components import Component

from app import html, scrubber
from app.address import Entry
from app.clicks import clicked
from app.keyboard import Key, scrubbing
from app.live_plot import as_value, live_plot
from app.operator import Operator
from app.screens.shown import Shown
from app.views import mask_charts
from app.views.branches import learned_beside
from app.views.comparison import methods_beside
from app.views.listing import Listing
from app.views.mask_charts import REFERENCES
from app.views.masks import MasksView, masks_of
from app.views.run import RunSnapshot
from proxsparse import ProxSparseError, figures
from proxsparse.runs import Comparison
from proxsparse.runs.readers.known_masks import method_masks

INTRODUCTION = """
A **mask** keeps two of every group of four neighbouring weights. Below is every mask of the run shown, at every step: **click** a cell
of the map to open a layer, a weight of the tile to follow its group, a point of a curve to go to its step.
"""
OTHER_STEP, OTHER_RUN, OTHER_METHOD = "another step", "another run", "a method of a comparison"
OTHER = "otherstep"  # in the address
PLAY_SECONDS = 0.7
MOST_MAPPED = 200_000_000  # weights whose masks are laid beside any other for the map, some 20 million a second
Masks = Callable[[str], np.ndarray]  # layer → bool (rows, columns)


class MasksScreen:
    """Shows the masks that a run recorded."""

    name, title = "masks", "Masks"
    keys = (
        Key(" ", "play the steps, or stop playing", "#masks-play"),
        *scrubbing("masks-step", "step"),
        Key("/", "search a layer", "#masks-layer-name input", "focus"),
    )
    css = """
#masks-facts .tiles { margin-bottom: 4px; }
#masks-play { min-width: 96px; align-self: end; }
"""

    def __init__(self, operator: Operator, listing: Listing):
        self.operator, self.listing = operator, listing

    def build(self, shell) -> None:
        """Controls, then the map, then the layer from coarse to fine."""
        gr.Markdown(INTRODUCTION)
        self.note = gr.HTML(elem_id="masks-note")
        with gr.Row():
            self.layer = gr.Dropdown(
                [],
                label="Layer",
                allow_custom_value=True,
                elem_id="masks-layer-name",
                info="or click a cell of the map",
                scale=2,
                min_width=300,
            )
            self.against = gr.Dropdown(
                [*REFERENCES, OTHER_STEP, OTHER_RUN, OTHER_METHOD], value="magnitude", label="Compared with the mask of",
                elem_id="masks-against", info="in all pictures below; of a comparison, the methods whose masks it kept", min_width=280,
            )  # fmt: skip
            self.other_run = gr.Dropdown(
                [], label="Run compared with", allow_custom_value=True, elem_id="masks-other-run", visible=False
            )
            self.other_method = gr.Dropdown(
                [], label="Comparison and method", allow_custom_value=True, elem_id="masks-other-method", visible=False
            )
            self.other_step = gr.Slider(
                0, 1, value=0, step=1, label="Step compared with", elem_id="masks-other-step", visible=False
            )
        with gr.Row():
            self.play = gr.Button("Play", size="sm", elem_id="masks-play", scale=0)
            self.step = gr.Slider(
                0,
                1,
                value=1,
                step=1,
                label="Step shown (at the right end: the newest)",
                elem_id="masks-step",
                min_width=260,
            )
        self.facts = gr.HTML(elem_id="masks-facts")
        self.charts = {"map": live_plot("chart-masks-map", 320)}
        self.coloring = gr.Radio(
            list(figures.COLORINGS), value="kept or dropped", label="Colour the tile by", elem_id="masks-coloring"
        )
        with gr.Row():
            for name, height in (("tile", 430), ("group", 430)):
                with gr.Column(min_width=320):
                    self.charts[name] = live_plot(f"chart-masks-{name}", height)
        self.charts["layer"] = live_plot("chart-masks-layer", 440)
        with gr.Row():
            for name in ("patterns", "agreement", "composition"):
                with gr.Column(min_width=320):
                    self.charts[name] = live_plot(f"chart-masks-{name}", 300)
        self.group = gr.Textbox(visible="hidden", elem_id="masks-group")  # "row.group" in the layer
        self.clock = gr.Timer(PLAY_SECONDS, active=False)

        self.inputs = [
            self.layer, self.against, self.other_run, self.other_method, self.other_step, self.step, self.coloring, self.group,
        ]  # fmt: skip
        self.outputs = [
            self.note, self.facts, self.layer, self.against, self.other_run, self.other_method, self.other_step, self.step,
            *self.charts.values(),
        ]  # fmt: skip
        self.address = {
            "layer": self.layer,
            scrubber.NAME: scrubber.entry(self.step),
            "against": self.against,
            "otherrun": self.other_run,
            "othermask": self.other_method,
            OTHER: Entry(self.other_step, scrubber.asked_step, _kept_other, fills=False),
            "colour": self.coloring,
            "group": Entry(self.group, _asked_group),
        }

    def wire(self, shell) -> None:
        """Every choice renders; a click on a chart is a choice."""
        gr.on(
            [self.layer.input, self.against.input, self.other_run.input, self.other_method.input, self.other_step.input,
             self.step.input, self.coloring.input],
            **shell.looking(self),
        )  # fmt: skip
        for name, handler, target in (
            ("map", picked_layer, self.layer), ("tile", picked_group, self.group), ("group", picked_step, self.step),
            ("patterns", picked_step, self.step), ("agreement", picked_step, self.step), ("composition", picked_step, self.step),
        ):  # fmt: skip
            shell.on(self.charts[name].select, handler, None, [target])
        playing = [self.clock, self.play]
        self.play.click(lambda: (gr.update(active=True), "Stop"), None, playing, **shell.quietly)
        shell.on(self.clock.tick, self.advance, [shell.id, self.step], [self.step, *playing])

    def advance(self, id: str, step: float) -> list:
        """Go to the next recorded step; at the last one, stop playing."""
        later = [each for each in self._masks(id).steps if each > step]
        go_on = len(later) > 1
        return [later[0] if later else gr.skip(), gr.update(active=go_on), "Stop" if go_on else "Play"]

    # Looking

    def render(self, shown: Shown) -> dict[Component, Any]:
        """What depends on what changed: nothing on most ticks."""
        run_changed = shown.changed("run", (shown.id, shown.view and shown.view.created))
        masks = self._masks(shown.id) if shown.view else None
        if masks is None or masks.history is None:
            return self._nothing(shown, "There is no run to show." if masks is None else masks.why)
        updates: dict[Component, Any] = {}
        at = scrubber.scrub(self.step, shown, masks.steps[-1], run_changed)
        updates |= at.updates
        step = masks.recorded_step(at.step)
        layer = self._layer(shown, masks, run_changed, updates)
        name, other_step = self._compared(shown, masks, updates)
        others, other, said = None, None, ""
        chosen = _group_in_tile(shown.values[self.group], masks, layer)
        chosen_other = shown.values[self.other_run if name == OTHER_RUN else self.other_method]
        look = (shown.id, shown.view.created, layer, step, name, other_step, chosen_other)
        coloring, called = shown.values[self.coloring], self._called(shown, name, other_step)
        try:
            others = self._others(shown, masks, name, other_step)
            other = others and others(layer)
        except ProxSparseError as error:
            said = html.failure(str(error))
        if shown.changed("note", said):
            updates[self.note] = said
        if shown.changed("map", (look, other is None, shown.view.is_active)):
            values = None if other is None else _differing(shown.view, masks, look, others)
            updates[self.charts["map"]] = as_value(mask_charts.network(shown.view, masks, step, called, values))
        if shown.changed("tile", (look, coloring, chosen, other is None)):
            updates[self.charts["tile"]] = as_value(
                mask_charts.tile(masks, layer, step, coloring, other, called, chosen)
            )
        if shown.changed("group", (look[:4], chosen, len(masks.steps))):
            updates[self.charts["group"]] = as_value(mask_charts.group(masks, layer, step, chosen))
        if shown.changed("layer", (look, other is None)):
            mine = masks.mask(layer, step)
            updates[self.charts["layer"]] = (
                "" if other is None else as_value(mask_charts.whole(mine, other, step, called))
            )
            updates[self.facts] = mask_charts.facts(masks, layer, step, mine, other, called)
        if shown.changed("curves", (look[:4], len(masks.steps))):
            drawn = mask_charts.curves(shown.view, masks, layer, step)
            updates |= {self.charts[each]: as_value(figure) for each, figure in drawn.items()}
        return updates

    def _masks(self, id: str) -> MasksView:
        return masks_of(self.operator.find(id))

    def _nothing(self, shown: Shown, why: str) -> dict[Component, Any]:
        if not shown.changed("note", why):
            return {}
        shown.seen.update(dict.fromkeys(("map", "tile", "group", "layer", "curves")))
        return {self.note: html.note(why), self.facts: ""} | dict.fromkeys(self.charts.values(), "")

    def _layer(self, shown: Shown, masks: MasksView, run_changed: bool, updates: dict) -> str:
        layer, known = shown.values[self.layer], list(masks.layers)
        chosen = layer if layer in known else known[0]
        if shown.changed("layers", known) or run_changed or chosen != layer:
            updates[self.layer] = gr.update(choices=known, value=chosen)
        return chosen

    def _compared(self, shown: Shown, masks: MasksView, updates: dict) -> tuple[str, int]:
        """With which mask: a reference, or that of another step, which may be another run's. Their controls appear when they
        are chosen."""
        name, at = shown.values[self.against], int(shown.values[self.other_step])
        if shown.asked is not None:
            at = scrubber.asked_step(shown.asked.get(OTHER, "0"))
        chosen = shown.values[self.other_run]
        if name == OTHER_RUN:
            runs = learned_beside(shown.id, self.listing.rows())
            chosen = chosen if chosen in runs else runs[0] if runs else None
            if shown.changed("runs", (runs, chosen)):
                updates[self.other_run] = gr.update(choices=runs, value=chosen)
        if name == OTHER_METHOD:
            self._methods(shown, updates)
        steps = (self._masks(chosen) if name == OTHER_RUN and chosen else masks).steps
        end = max(steps[-1] if steps else 0, at, 1)
        if shown.changed("against", (name, end)) or shown.asked is not None:
            for control, of in ((self.other_run, OTHER_RUN), (self.other_method, OTHER_METHOD)):
                updates[control] = gr.update(**{**updates.get(control, {}), "visible": name == of})
            updates[self.other_step] = gr.update(visible=name in (OTHER_STEP, OTHER_RUN), maximum=end, value=at)
        return name, at

    def _methods(self, shown: Shown, updates: dict) -> None:
        """Which masks of comparisons can be laid beside those of the run shown."""
        choices = methods_beside(shown.view.job, self.listing.rows(), self.operator.find_any)
        given = shown.values[self.other_method]
        chosen = given if given in choices else choices[0] if choices else None
        if shown.changed("methods", (choices, chosen)) or chosen != given:
            updates[self.other_method] = gr.update(choices=choices, value=chosen)

    def _called(self, shown: Shown, name: str, other_step: int) -> str:
        """What titles call the mask compared with."""
        if name == OTHER_STEP:
            return f"step {other_step}"
        if name == OTHER_RUN:
            return f"run {shown.values[self.other_run]}, step {other_step}"
        if name == OTHER_METHOD and shown.values[self.other_method]:
            id, _, method = shown.values[self.other_method].partition("/")
            return f"{method} ({id})"
        return name

    def _others(self, shown: Shown, masks: MasksView, name: str, at: int) -> Masks | None:
        """The mask compared with, layer by layer; None where it is still to be chosen. Raises ProxSparseError, now or when it is asked,
        where it is not known."""
        if name in REFERENCES:
            return lambda layer: masks.reference_mask(layer, REFERENCES[name])
        if name == OTHER_STEP:
            return lambda layer: masks.mask(layer, masks.recorded_step(at))
        if name == OTHER_METHOD:
            return self._method_masks(masks, shown.values[self.other_method])
        id = shown.values[self.other_run]
        if not id:
            return None
        others = self._masks(id)
        if others.history is None:
            raise ProxSparseError(others.why)
        return _fitting(
            masks, lambda layer: others.mask(layer, others.recorded_step(at)), others.history.m, f"Run {id}"
        )

    def _method_masks(self, masks: MasksView, given: str | None) -> Masks | None:
        """Those of a method of a comparison, given as comparison/method."""
        if not given:
            return None
        id, _, method = given.partition("/")
        comparison = Comparison(self.operator.find_any(id))
        return _fitting(masks, method_masks(comparison, method), comparison.job.m, f"Comparison {id}")


def _fitting(masks: MasksView, others: Masks, m: int, whose: str) -> Masks:
    """The same masks, asked whether each is of the same model and pattern as the run's."""

    def mask(layer: str) -> np.ndarray:
        found = others(layer)
        if found.shape != masks.mask(layer, 0).shape or m != masks.history.m:
            raise ProxSparseError(f"{whose} has another model or pattern: its {layer} has the shape {found.shape}.")
        return found

    return mask


def _differing(view: RunSnapshot, masks: MasksView, look: tuple, others: Masks) -> pd.Series | None:
    """By layer, the share of the kept weights that the other mask drops; None where it would take too long to tell: of a large model,
    and while the run needs the cores. look: what is shown, as in `render`."""
    _, _, _, step, name, *which = look
    if name in REFERENCES:
        return masks.differing(REFERENCES[name], step)
    sizes = view.layers[view.layers["name"].isin(masks.layers)]
    if view.is_active or (sizes["rows"] * sizes["columns"]).sum() > MOST_MAPPED:
        return None
    return masks.differing_from((name, *which), others, step)


def picked_layer(event: gr.EventData) -> str:
    """The layer of the cell that was clicked."""
    return str(clicked(event, "customdata"))


def picked_group(event: gr.EventData) -> str:
    """The group of the weight that was clicked."""
    return f"{int(_numberclicked(event, 'y'))}.{int(_numberclicked(event, 'customdata'))}"


def picked_step(event: gr.EventData) -> int:
    """The step of the point that was clicked."""
    return math.ceil(_numberclicked(event, "x"))


def _numberclicked(event: gr.EventData, name: str) -> float:
    value = clicked(event, name)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ProxSparseError(f"{str(value)[:40]!r} is no place in a chart: click it again.")
    return number


def _group_in_tile(text: str | None, masks: MasksView, layer: str) -> tuple[int, int]:
    """(row, group) as they were chosen, if they lie in the layer's tile; else its first."""
    row, column, rows, columns = masks.history.tile_position(layer)
    m = masks.history.m
    if text:
        chosen_row, group = map(int, text.split("."))
        if row <= chosen_row < row + rows and column // m <= group < (column + columns) // m:
            return chosen_row, group
    return row, column // m


def _asked_group(text: str) -> str:
    if not re.fullmatch(r"\d{1,7}\.\d{1,7}", text):
        raise ProxSparseError(f"{text!r} is no group: row.group is meant, such as 288.70.")
    return text


def _kept_other(step: float, shown: Shown) -> str:
    if shown.asked is not None:
        return shown.asked.get(OTHER, "")
    return f"{step:.0f}" if step else ""
