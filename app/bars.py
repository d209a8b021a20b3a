"""Bars that are dragged: one number each, moved by mouse, finger or keys.

Each bar is an upright range input, so that dragging, arrow keys and screen readers work as the browser provides them; the
page draws the bar that belongs to it. The value is JSON: `as_value` and `numbers` write and read it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import gradio as gr

CSS = """
.bars > div { display: flex; gap: 4px; justify-content: space-around; align-items: end; padding: 4px 0; }
.bars label { flex: 1 1 0; min-width: 0; max-width: 90px; display: flex; flex-direction: column; align-items: center; gap: 2px;
  color: var(--body-text-color); font-size: .9rem; }
.bars label:nth-child(n+5), .bars label:has(~ label:nth-child(n+5)) { font-size: .72rem; }
.bars output { font-variant-numeric: tabular-nums; font-weight: 600; }
.bars .well { position: relative; width: 100%; height: 190px; border-radius: 4px; background: rgba(128, 128, 128, .12); }
.bars .well::after { content: ''; position: absolute; left: 0;
  right: 0; bottom: var(--zero); border-top: 1px solid var(--body-text-color); }
.bars .bar { position: absolute; left: 14%; right: 14%; background: #0072B2; border-radius: 2px; }
.bars input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ns-resize; touch-action: none;
  writing-mode: vertical-lr; direction: rtl; }
.bars .well:focus-within { outline: 3px solid #E69F00; }
.bars .grip { position: absolute; left: 6%; right: 6%; height: 8px; margin-bottom: -4px; border-radius: 4px; background: #005a8c;
  border: 1px solid #fff; pointer-events: none; }
.bars-title { margin: 4px 0 0 4px; font-size: .95rem; font-weight: 600; }
"""
SCRIPT = """
const place = element.querySelector('.bars > div');
let shown = '';
const across = (value, {low, high}) => 100 * (value - low) / (high - low);
const draw = (column, value, spec) => {
  const [from, to] = [across(Math.max(spec.low, 0), spec), across(value, spec)];
  const bar = column.querySelector('.bar'), range = column.querySelector('input');
  bar.style.bottom = Math.min(from, to) + '%';
  bar.style.height = Math.abs(to - from) + '%';
  column.querySelector('.grip').style.bottom = to + '%';
  column.querySelector('output').textContent = value.toFixed(2);
  if (Number(range.value) !== value) range.value = value;
};
const build = (spec) => {
  place.replaceChildren(...spec.values.map((value, index) => {
    const column = document.createElement('label'), name = spec.name + (index + 1);
    column.innerHTML = `<output></output><span class='well'><span class='bar'></span><span class='grip'></span>
      <input type='range' aria-orientation='vertical'></span><span class='name'></span>`;
    column.querySelector('.name').textContent = name;
    column.querySelector('.well').style.setProperty('--zero', across(Math.max(spec.low, 0), spec) + '%');
    const range = column.querySelector('input');
    Object.assign(range, {min: spec.low, max: spec.high, step: spec.step, ariaLabel: name});
    range.value = value;
    range.addEventListener('input', () => {
      const now = JSON.parse(props.value);
      now.values[index] = Number(range.value);
      draw(column, now.values[index], now);
      shown = props.value = JSON.stringify(now);
      trigger('moved');
    });
    return column;
  }));
};
const update = () => {
  if (!props.value || props.value === shown) return;
  const spec = JSON.parse(props.value), columns = place.children;
  if (columns.length !== spec.values.length) build(spec);
  spec.values.forEach((value, index) => draw(place.children[index], value, spec));
  shown = props.value;
};
watch('value', update);
update();
"""


def bars(title: str, values: Sequence[float], name: str, low: float, high: float, step: float, elem_id: str) -> gr.HTML:
    """Bars from `low` to `high`, called name1, name2, … Its event `moved` comes while one is dragged."""
    template = (
        f"<h3 class='bars-title'>{title}</h3><div class='bars'><div role='group' aria-label='{title}'></div></div>"
    )
    value = json.dumps({"values": [*values], "low": low, "high": high, "step": step, "name": name})
    return gr.HTML(value=value, html_template=template, js_on_load=SCRIPT, elem_id=elem_id)


def numbers(value: str) -> list[float]:
    """The numbers that the bars show."""
    return [float(number) for number in json.loads(value)["values"]]


def with_numbers(value: str, values: Sequence[float]) -> str:
    """The same bars with other numbers, as many as are given, inside the ends."""
    spec = json.loads(value)
    return json.dumps(spec | {"values": [min(max(number, spec["low"]), spec["high"]) for number in values]})
