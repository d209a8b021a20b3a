"""A plotly chart that updates in place: zoom, hover and hidden traces survive, which `gr.Plot` cannot do."""

from __future__ import annotations

import gradio as gr
import plotly.graph_objects as go

TEMPLATE = "<h4 class='chart-title'></h4><div class='live-plot'></div>"
SCRIPT = """
const target = element.querySelector('.live-plot');
// It says what is so without it. With it plotly writes the address into the references to its gradients and clips, which point
// nowhere once the address changes: colour bars are empty then, and curves leave their axes.
document.querySelector("base[href='./']")?.remove();
const draw = () => {
  if (!props.value) return;
  if (!window.Plotly) { setTimeout(draw, 100); return; }
  const {data, layout: {title, ...layout}} = JSON.parse(props.value);
  element.querySelector('.chart-title').textContent = title.text;  // a title in the page wraps on narrow screens
  Plotly.react(target, data, {uirevision: 'kept', ...layout, margin: {...layout.margin, t: 34}, autosize: true},
               {responsive: true, displaylogo: false, showSendToCloud: false, displayModeBar: 'hover',
                modeBarButtonsToRemove: ['select2d', 'lasso2d']})
    .then(() => { if (!target.hears) { target.hears = true; target.on('plotly_click', picked); } });
};
const picked = ({points: [{x, y, customdata}]}) => trigger('select', {x, y, customdata});
watch('value', draw);
draw();
// A chart that was drawn in a hidden tab has no width: it is measured again when it comes into sight.
new ResizeObserver(() => { if (target.offsetWidth && target.data) Plotly.Plots.resize(target); }).observe(element);
"""


def live_plot(elem_id: str, height: int) -> gr.HTML:
    """A place for a chart. Its value is what `as_value` makes of a figure; a click on a point is the event `select`, whose data
    are the point's x, y and customdata."""
    return gr.HTML(
        value="", html_template=TEMPLATE, js_on_load=SCRIPT, elem_id=elem_id, elem_classes="chart", min_height=height
    )


def as_value(figure: go.Figure) -> str:
    return figure.to_json()
