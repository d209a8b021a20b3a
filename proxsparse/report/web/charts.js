// Drawing with plotly in the page's look, and the map of the layers. A chart's title is a heading of the page.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const CONFIG = {responsive: true, displaylogo: false, showSendToCloud: false, modeBarButtonsToRemove: ["lasso2d", "select2d"]};
const find = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function dressed(layout) {
  const axis = {gridcolor: data.look.grid, linecolor: data.look.grid, zeroline: false, automargin: true};
  const found = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: {l: 56, r: 16, t: 44, b: 44}, hovermode: "closest",
    legend: {orientation: "h", x: 0, y: 1, yanchor: "bottom", font: {size: 11}}, ...layout,
    font: {family: data.look.font, size: 12, color: colour("--soft")},
  };
  for (const name of Object.keys(found)) if (/^[xy]axis/.test(name)) found[name] = {...axis, ...found[name]};
  return found;
}

// Who scrubs sees some charts: the others are drawn when they come into sight, or are printed.
const inSight = new Set(), postponed = new Map();
const paint = (id) => { const wish = postponed.get(id); postponed.delete(id); return wish?.(); };
const sight = new IntersectionObserver((changes) => {
  for (const {target, isIntersecting} of changes) {
    if (isIntersecting) { inSight.add(target.id); paint(target.id); } else inSight.delete(target.id);
  }
}, {rootMargin: "200px"});
addEventListener("beforeprint", () => [...postponed.keys()].forEach(paint));

function whenInSight(id, wish) {
  postponed.set(id, wish);
  return inSight.has(id) ? paint(id) : undefined;
}

function draw(id, traces, layout, title) {
  if (title) find(`title-${id}`).textContent = title;
  const place = find(`chart-${id}`), now = () => Plotly.react(place, traces, dressed(layout), CONFIG);
  if (place.data) return whenInSight(place.id, now);
  sight.observe(place);  // the first time at once: it takes up its room, and hears clicks
  return now();
}

// A vertical line at a step, over the whole height of a chart.
const stepLine = (step, look) => ({type: "line", x0: step, x1: step, y0: 0, y1: 1, yref: "paper", line: look});
const shownLine = (step) => stepLine(step, {color: data.look.low, width: 1.5});

async function drawCurves() {
  for (const [id, figure] of Object.entries(data.curves)) await draw(id, figure.data, figure.layout);
}

function markCurves(step) {
  for (const id of Object.keys(data.curves)) whenInSight(`chart-${id}`, () => Plotly.relayout(`chart-${id}`, {shapes: [shownLine(step)]}));
}

// Numbers as d3 writes them, of the few forms that the quantities have: ".1%", ",.0f", ".3f", ".3g".
function written(value, form) {
  if (form.endsWith("%")) return `${(100 * value).toFixed(1)}%`;
  if (form === ",.0f") return Math.round(value).toLocaleString("en");
  return form.endsWith("f") ? value.toFixed(3) : Number(value.toPrecision(3)).toString();
}

// The last index whose step is not after `step`; the first where all are.
const upTo = (steps, step) => Math.max(0, steps.findLastIndex((each) => each <= step));

async function readLayers() {
  for (const quantity of data.layers.quantities) {
    quantity.values = await unpacked(quantity.values);
    const known = quantity.values.filter(Number.isFinite);
    quantity.ends = [Math.min(0, known.reduce((a, b) => Math.min(a, b), 0)), known.reduce((a, b) => Math.max(a, b), 0)];
  }
}

function drawLayers(name, step) {
  const {projections, blocks, layers, quantities} = data.layers;
  const quantity = quantities.find((each) => each.name === name);
  const at = upTo(quantity.steps, step), width = blocks.length, size = projections.length * width;
  const values = quantity.values.subarray(at * size, (at + 1) * size);
  const z = projections.map((_, row) => Array.from(values.subarray(row * width, (row + 1) * width), (v) => (Number.isFinite(v) ? v : null)));
  const most = values.reduce((best, value, i) => (value > values[best] || Number.isNaN(values[best]) ? i : best), 0);
  const where = `block ${blocks[most % width]}, ${projections[Math.floor(most / width)]}`;
  const title = `Step ${quantity.steps[at]}: ${name} is largest in ${where} (${written(values[most], quantity.form)}); it is the ${quantity.meaning}`
    .replace("is the ‖", "is ‖").replace("is the R ", "is R ");
  return draw("layers", [{
    type: "heatmap", z, x: blocks.map(String), y: projections, customdata: layers, xgap: 1, ygap: 1, colorscale: "Cividis",
    zmin: quantity.ends[0], zmax: quantity.ends[1], hovertemplate: `block %{x}, %{y}<br>${quantity.meaning}: %{z:${quantity.form}}<extra></extra>`,
    colorbar: {tickformat: quantity.form, thickness: 12, outlinewidth: 0},
  }], {
    height: 100 + 26 * Math.max(projections.length, 4), margin: {l: 56, r: 16, t: 8, b: 44},
    xaxis: {title: {text: "decoder block"}, type: "category", showgrid: false},
    yaxis: {type: "category", autorange: "reversed", showgrid: false},
  }, title);
}
