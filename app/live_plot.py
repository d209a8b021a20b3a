"""A plotly chart that updates in place: zoom, hover and hidden traces survive, which `gr.Plot` cannot do.

Every chart brings along what belongs to it: its title as a heading, how to read it in one line (`layout.meta["read"]`, see
`figures.look.made`), its numbers as a table, and both as PNG and CSV. What the buttons do happens in the browser.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import plotly.graph_objects as go

TEMPLATE = """<div class='chart-body' hidden>
<div class='chart-head'><h3 class='chart-title'></h3>
<div class='chart-tools'><button type='button' class='chart-read' aria-expanded='false'>How to read this</button>
<button type='button' class='chart-table' aria-expanded='false'>Table</button>
<button type='button' class='chart-png' title='Download the chart as a picture'>PNG</button>
<button type='button' class='chart-csv' title='Download the numbers'>CSV</button></div></div>
<p class='chart-reading' hidden></p><div class='live-plot'></div>
<div class='chart-data' tabindex='0' hidden><table><caption></caption><thead></thead><tbody></tbody></table>
<p class='chart-more'></p></div></div>"""
CSS = """
.chart-head { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline; gap: 2px 10px; margin: 4px 0 0 4px; }
.chart-title { margin: 0; font-size: .95rem; font-weight: 600; color: var(--body-text-color); }
.chart-tools { display: flex; gap: 4px; }
.chart:has(.chart-body[hidden]) { display: none; } /* nothing to draw: no gap either */
.chart-tools button { margin: 0 !important; padding: 1px 8px; font-size: .78rem;
  border: 1px solid var(--border-color-primary); border-radius: 4px;
  background: var(--background-fill-primary); color: var(--body-text-color); cursor: pointer; }
.chart-tools button[aria-expanded=true] { border-color: #0072B2; }
.chart-reading, .chart-more { margin: 4px; font-size: .85rem; color: var(--body-text-color); max-width: 60em; }
.live-plot { color: var(--body-text-color); background: var(--body-background-fill); }
.chart-data { overflow: auto; max-height: 320px; font-size: .82rem; }
.chart-data table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.chart-data caption { text-align: left; padding: 2px 6px; color: var(--body-text-color); }
.chart-data :is(th, td) { padding: 2px 10px; text-align: right; color: var(--body-text-color);
  border: 1px solid var(--border-color-primary); }
.chart-data th { position: sticky; top: 0; background: var(--background-fill-secondary); }
@media (hover: none) { .chart-tools button { padding: 6px 10px; } }
"""
HEAD = f"<script>{(Path(__file__).parent / 'live_plot.js').read_text(encoding='utf-8')}</script>"
SCRIPT = "window.livePlot({element, props, watch, select: (point) => trigger('select', point)});"


def live_plot(elem_id: str, height: int) -> gr.HTML:
    """A place for a chart. Its value is what `as_value` makes of a figure; "" while there is nothing to draw. A click on a point is
    the event `select`, whose data are the point's x, y and customdata."""
    return gr.HTML(
        value="", html_template=TEMPLATE, js_on_load=SCRIPT, elem_id=elem_id, elem_classes="chart",
        min_height=height,
    )  # fmt: skip


def as_value(figure: go.Figure) -> str:
    return figure.to_json()
