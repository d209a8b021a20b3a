// What is shown, and how people change it: the step, the quantity, the layer, the colours, the group.
"use strict";

const PLAY_MILLISECONDS = 400;
const steps = masks ? masks.steps : data.layers ? data.layers.quantities[0].steps : [];
const shown = {at: Math.max(0, steps.length - 1), layer: null, chosen: [0, 0]};
let timer = null;

// Only the newest wish is drawn: a layer takes a moment to unpack, and people go on.
let wish = 0;
async function openLayer(entry) {
  const mine = ++wish, layer = await readLayer(entry);
  if (mine !== wish) return;
  shown.layer = layer;
  shown.chosen = [layer.top, layer.left / masks.m];
  find("layer").value = layer.name;
  find("said").textContent = "";
  const options = (count, first) => Array.from({length: count}, (_, i) => new Option(first + i));
  find("row").replaceChildren(...options(layer.rows, layer.top));
  find("group").replaceChildren(...options(layer.columns / masks.m, shown.chosen[1]));
  showMasks();
}

function choose(row, group) {
  shown.chosen = [row, group];
  find("row").value = row;
  find("group").value = group;
  drawTile(shown.layer, shown.at, find("coloring").value, shown.chosen);
  if (shown.layer.weights) drawPath(shown.layer, shown.at, shown.chosen);
}

function showMasks() {
  choose(...shown.chosen);
  drawPatterns(shown.layer, shown.at);
  drawAgreement(shown.layer, shown.at);
}

function goTo(at) {
  shown.at = Math.min(Math.max(at, 0), steps.length - 1);
  const step = steps[shown.at];
  find("step").value = shown.at;
  find("step").setAttribute("aria-valuetext", `step ${step}`);
  find("at").value = `step ${step} of ${steps.at(-1)}`;
  markCurves(step);
  drawLayers(find("quantity").value, step);
  if (shown.layer) showMasks();
}

function play(go) {
  clearInterval(timer);
  timer = null;
  if (go) {
    if (shown.at === steps.length - 1) goTo(0);
    timer = setInterval(() => {
      goTo(shown.at + 1);
      if (shown.at === steps.length - 1) play(false);
    }, PLAY_MILLISECONDS);
  }
  find("play").textContent = go ? "Stop" : "Play";
  find("play").setAttribute("aria-pressed", String(go));
}

function searchLayer() {
  const text = find("layer").value.trim(), names = masks.layers.map((layer) => layer.name);
  const found = names.includes(text) ? names.indexOf(text) : names.findIndex((name) => name.toLowerCase().includes(text.toLowerCase()));
  if (found < 0) find("said").textContent = `No recorded layer has “${text}” in its name.`;
  else openLayer(masks.layers[found]);
}

function pressed(event) {
  const target = event.target, kind = target.closest("button, a, summary, select, textarea, input");
  if (event.altKey || event.ctrlKey || event.metaKey || (kind && kind.id !== "step")) return;
  if (event.key === " ") play(timer === null);
  else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
    play(false);
    goTo(shown.at + (event.key === "ArrowRight" ? 1 : -1));
  } else return;
  event.preventDefault();
}

async function begin() {
  await drawCurves();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", async () => {
    await drawCurves();
    if (steps.length) goTo(shown.at);
  });
  if (!data.layers) return;
  await readLayers();
  find("layers").hidden = find("scrubber").hidden = false;
  find("quantity").replaceChildren(...data.layers.quantities.map((quantity) => new Option(quantity.name)));
  find("quantity").addEventListener("change", () => drawLayers(find("quantity").value, steps[shown.at]));
  find("step").max = steps.length - 1;
  find("step").addEventListener("input", () => { play(false); goTo(Number(find("step").value)); });
  find("play").addEventListener("click", () => play(timer === null));
  document.addEventListener("keydown", pressed);
  for (const mention of document.querySelectorAll(".with-masks")) mention.hidden = !masks;
  goTo(shown.at);
  if (masks) await beginMasks();
}

async function beginMasks() {
  find("masks").hidden = false;
  find("path").hidden = !masks.layers[0].weights;
  find("pattern").textContent = `${masks.n} of every ${masks.m}`;
  find("chance").textContent = `${Math.round((100 * masks.n) / masks.m)}%`;
  find("names").replaceChildren(...masks.layers.map((layer) => new Option(layer.name)));
  find("coloring").replaceChildren(...colorings().map((name) => new Option(name)));
  find("coloring").addEventListener("change", () => choose(...shown.chosen));
  for (const id of ["row", "group"]) find(id).addEventListener("change", () => choose(Number(find("row").value), Number(find("group").value)));
  find("layer").addEventListener("change", searchLayer);
  find("layer").addEventListener("focus", () => find("layer").select());
  await openLayer(masks.layers[0]);
  find("chart-tile").on("plotly_click", ({points}) => choose(points[0].y, Math.floor(points[0].x / masks.m)));
  find("chart-layers").on("plotly_click", ({points}) => {
    const entry = masks.layers.find((layer) => layer.name === points[0].customdata);
    if (entry) openLayer(entry);
    else find("said").textContent = `The masks of ${points[0].customdata} were not recorded.`;
  });
}

begin();
