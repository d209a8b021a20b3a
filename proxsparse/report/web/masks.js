// The masks of one layer: its tile, one group of it over the steps, its patterns, what it shares with other masks.
"use strict";

const masks = data.masks;
const [KEPT, SOFT, PATTERN] = data.look.colorings;
const dots = (bits) => Array.from(bits, (bit) => (bit ? "●" : "○")).join("");

// A layer as it is drawn: kept 0/1 [step][row][column], weights [step][before, gradient, prox][row][column], both flat.
async function readLayer(entry) {
  const others = {};
  for (const name of masks.references) others[name] = await unpacked(entry.others[name]);
  const [top, left, rows, columns] = entry.tile;
  return {
    name: entry.name, shape: entry.shape, top, left, rows, columns, size: rows * columns, others,
    kept: await unpacked(entry.kept), weights: entry.weights && (await unpacked(entry.weights)), whole: await unpacked(entry.whole),
  };
}

const keptAt = (layer, at) => layer.kept.subarray(at * layer.size, (at + 1) * layer.size);
const weightAt = (layer, at, half, cell) => layer.weights[(3 * at + half) * layer.size + cell];
const cellsOf = (layer, row, group) => Array.from({length: masks.m}, (_, k) => (row - layer.top) * layer.columns + group * masks.m - layer.left + k);
const short = (name) => name.replace(/^(?:.*?\.)?(\d+)\.(.+)$/, "block $1, $2");  // as figures.look.layer_label
const colorings = () => [
  KEPT, ...(masks.layers[0].weights ? [SOFT] : []), PATTERN, ...masks.references.map((name) => `against ${name === "start" ? masks.start : name}`),
];

// Each weight's category, and [name, colour] of each category.
function categories(layer, kept, coloring, reference) {
  if (coloring === PATTERN) {
    const codes = [], index = new Map(masks.patterns.map((name, i) => [name, i]));
    for (let first = 0; first < layer.size; first += masks.m) {
      const name = kept.subarray(first, first + masks.m).join("");
      if (!index.has(name)) index.set(name, index.size);
      for (let k = 0; k < masks.m; k++) codes.push(index.get(name));
    }
    return [codes, [...index.keys()].map((name, i) => [dots(name.split("").map(Number)), data.look.patterns[i % data.look.patterns.length]])];
  }
  if (reference) return [Array.from(kept, (bit, i) => 2 * bit + layer.others[reference][i]), data.look.against];
  return [Array.from(kept), [["dropped", data.look.dropped], ["kept", data.look.kept]]];
}

function showLegend(values, named) {
  const counts = named.map((_, i) => values.filter((value) => value === i).length);
  find("legend").replaceChildren(...named.flatMap(([name, color], i) => {
    if (!counts[i] && named.length > 4) return [];
    const item = document.createElement("li"), box = document.createElement("i");
    box.style.background = color;
    item.append(box, `${name} (${Math.round((100 * counts[i]) / values.length)}%)`);
    return [item];
  }));
}

const rowsOf = (layer, values) => Array.from({length: layer.rows}, (_, row) => Array.from(values.slice(row * layer.columns, (row + 1) * layer.columns)));

function drawTile(layer, at, coloring, chosen) {
  const kept = keptAt(layer, at), step = masks.steps[at], m = masks.m, [row, group] = chosen;
  const reference = masks.references[colorings().indexOf(coloring) - colorings().length + masks.references.length];
  const weights = layer.weights && Array.from({length: layer.size}, (_, cell) => weightAt(layer, at, 2, cell));
  const text = Array.from(kept, (bit, i) => (bit ? "kept" : "dropped") + (weights ? `, soft weight ${Number(weights[i].toPrecision(3))}` : ""));
  const x = Array.from({length: layer.columns}, (_, i) => layer.left + i), y = Array.from({length: layer.rows}, (_, i) => layer.top + i);
  const cells = {type: "heatmap", x, y, text: rowsOf(layer, text), xgap: 1, ygap: 1, hovertemplate: "row %{y}, column %{x}<br>%{text}<extra></extra>"};
  const traces = [cells], dropped = [...kept.keys()].filter((i) => !kept[i]);
  if (coloring === SOFT) {
    const most = weights.reduce((largest, weight) => Math.max(largest, Math.abs(weight) || 0), 0) || 1;
    Object.assign(cells, {
      z: rowsOf(layer, weights), zmin: -most, zmax: most, colorscale: [[0, data.look.low], [0.5, data.look.dropped], [1, data.look.high]],
      colorbar: {thickness: 12, outlinewidth: 0, title: {text: "soft weight", side: "right"}},
    });
    traces.push({
      type: "scatter", mode: "markers", x: dropped.map((i) => x[i % layer.columns]), y: dropped.map((i) => y[Math.floor(i / layer.columns)]),
      hoverinfo: "skip", showlegend: false, marker: {symbol: "x-thin", size: 7, line: {width: 1.3, color: colour("--soft")}},
    });
    showLegend(Array.from(kept), [["× dropped", "transparent"], ["kept", "transparent"]]);
  } else {
    const [values, named] = categories(layer, kept, coloring, reference);
    const scale = named.flatMap(([, color], i) => [[i / named.length, color], [(i + 1) / named.length, color]]);
    Object.assign(cells, {z: rowsOf(layer, values), zmin: -0.5, zmax: named.length - 0.5, colorscale: scale, showscale: false});
    showLegend(values, named);
  }
  const line = (x0, x1, y0, y1, type, look) => ({type, x0: x0 - 0.5, x1: x1 - 0.5, y0: y0 - 0.5, y1: y1 - 0.5, line: look});
  const bottom = layer.top + layer.rows, border = {color: colour("--soft"), width: 2};
  const shapes = Array.from({length: layer.columns / m + 1}, (_, i) => line(layer.left + i * m, layer.left + i * m, layer.top, bottom, "line", border));
  shapes.push(line(group * m, (group + 1) * m, row, row + 1, "rect", {color: data.look.low, width: 3}));
  const groups = layer.size / m, first = keptAt(layer, 0);
  const changed = Array.from({length: groups}, (_, g) => g * m).filter((from) => kept.subarray(from, from + m).join() !== first.subarray(from, from + m).join());
  return draw("tile", traces, {
    height: 80 + Math.min(30 * layer.rows, 720), margin: {l: 56, r: 16, t: 12, b: 44}, shapes,
    xaxis: {title: {text: "input (column)"}, showgrid: false, tickformat: "d"},
    yaxis: {title: {text: "output (row)"}, showgrid: false, tickformat: "d", autorange: "reversed"},
  }, `Step ${step}: ${changed.length} of the ${groups} groups in this tile of ${short(layer.name)} keep other weights than at the start`);
}

// [step, pattern before, pattern after] of each change of a group's pattern, between the steps of the page.
function changesOf(layer, cells) {
  const patterns = masks.steps.map((_, at) => dots(cells.map((cell) => keptAt(layer, at)[cell])));
  return patterns.flatMap((after, at) => (at && after !== patterns[at - 1] ? [[masks.steps[at], patterns[at - 1], after]] : []));
}

// R of one group: the sum over all products of n + 1 sizes.
function regularizer(sizes, count = masks.n + 1, from = 0) {
  if (count === 0) return 1;
  let sum = 0;
  for (let i = from; i <= sizes.length - count; i++) sum += sizes[i] * regularizer(sizes, count - 1, i + 1);
  return sum;
}

const HALVES = [[0, "steps left out", 0.8, "solid"], [1, "gradient half", 1.4, "dot"], [2, "prox half", 3, "solid"]];
// Where a weight moved: in the gradient halves (1), in the prox halves (2), over the steps that the page leaves out (0).
function moves(layer, cell, half) {
  const x = [], y = [], size = (at, which) => Math.abs(weightAt(layer, at, which, cell));
  masks.steps.forEach((step, at) => {
    const previous = masks.steps[at - 1];
    if (at === 0 || (half === 0 && previous === step - 1)) return;
    x.push(...(half ? [step - 1 + (half - 1) / 2, step - 1 + half / 2] : [previous, step - 1]), null);
    y.push(...(half ? [size(at, half - 1), size(at, half)] : [size(at - 1, 2), size(at, 0)]), null);
  });
  return {x, y};
}

function drawPath(layer, at, [row, group]) {
  const cells = cellsOf(layer, row, group), changes = changesOf(layer, cells);
  const times = changes.length === 1 ? "once, at step" : `${changes.length} times, last at step`;
  const last = changes.at(-1);
  const title = `Row ${row}, group ${group}: ` + (last ? `its pattern changed ${times} ${last[0]} (${last[1]} → ${last[2]})` : "its pattern never changed");
  const shapes = changes.map(([step]) => stepLine(step, {color: colour("--soft"), width: 1, dash: "dash"})).concat(shownLine(masks.steps[at]));
  const traces = [];
  cells.forEach((cell, k) => {
    const color = data.look.patterns[k % data.look.patterns.length], name = `weight ${k + 1}`;
    for (const [half, kind, width, dash] of HALVES) {
      const moved = moves(layer, cell, half);
      if (!moved.x.length) continue;
      traces.push({
        type: "scatter", mode: "lines", name, legendgroup: name, showlegend: half === 2, line: {color, width, dash}, ...moved,
        hovertemplate: `${name}, ${kind}<br>step %{x}: %{y:.4g}<extra></extra>`,
      });
    }
  });
  const halves = masks.steps.flatMap((step, i) => (i ? [[step - 1, i, 0], [step - 0.5, i, 1], [step, i, 2]] : [[step, 0, 2]]));
  traces.push({
    type: "scatter", mode: "lines", name: "R of the group", yaxis: "y2", line: {color: colour("--soft"), width: 1.5},
    x: halves.map(([step]) => step), y: halves.map(([, i, half]) => regularizer(cells.map((cell) => Math.abs(weightAt(layer, i, half, cell))))),
    hovertemplate: "step %{x}: R = %{y:.3g}<extra></extra>",
  });
  showNumbers(layer, at, cells);
  return draw("path", traces, {
    height: 430, shapes, xaxis: {title: {text: "step"}, anchor: "y2"},
    yaxis: {title: {text: "|soft weight|, in the metric"}, rangemode: "tozero", domain: [0.34, 1]},
    yaxis2: {title: {text: "R"}, rangemode: "tozero", exponentformat: "power", domain: [0, 0.26]},
  }, title);
}

function showNumbers(layer, at, cells) {
  const table = document.createElement("table"), kept = keptAt(layer, at);
  const head = [`step ${masks.steps[at]}`, "before", "after the gradient half", "after the prox half", "mask"];
  const lines = cells.map((cell, k) => [
    `weight ${k + 1}`, ...[0, 1, 2].map((half) => Number(weightAt(layer, at, half, cell).toPrecision(4)).toString()), kept[cell] ? "kept" : "dropped",
  ]);
  [head, ...lines].forEach((line, i) => line.forEach((text, k) => {
    if (k === 0) (i === 0 ? table.createTHead() : table.tBodies[0] || table.createTBody()).insertRow();
    const cell = document.createElement(i === 0 || k === 0 ? "th" : "td");
    if (i === 0 || k === 0) cell.scope = i === 0 ? "col" : "row";
    cell.textContent = text;
    table.rows[i].append(cell);
  }));
  find("numbers").replaceChildren(table);
}

const column = (layer, index) => masks.steps.map((_, at) => layer.whole[(at * layer.whole.length) / masks.steps.length + index]);

function drawPatterns(layer, at) {
  const shares = masks.patterns.map((_, i) => column(layer, i));
  const most = shares.reduce((best, share, i) => (share[at] > shares[best][at] ? i : best), 0);
  const traces = masks.patterns.map((name, i) => ({
    type: "scatter", mode: "lines", stackgroup: "patterns", name: dots(name.split("").map(Number)), x: masks.steps, y: shares[i].map((share) => 100 * share),
    line: {width: 0.5, color: data.look.patterns[i % data.look.patterns.length]}, fillcolor: data.look.patterns[i % data.look.patterns.length],
    hovertemplate: "step %{x}: %{y:.2f}%<extra>" + dots(name.split("").map(Number)) + "</extra>",
  }));
  const title = shares.length
    ? `Step ${masks.steps[at]}: most groups of ${short(layer.name)}, ${written(shares[most][at], ".1%")}, have the pattern ${traces[most].name}`
    : `${masks.n}:${masks.m} has too many patterns to count`;
  return draw("patterns", traces, {
    height: 300, shapes: [shownLine(masks.steps[at])], xaxis: {title: {text: "step"}}, yaxis: {title: {text: "groups, %"}, range: [0, 100]},
    showlegend: traces.length <= 12,
  }, title);
}

function drawAgreement(layer, at) {
  const looks = {start: [data.look.high, "solid"], magnitude: [data.look.low, "dash"]}, offset = masks.patterns.length;
  const lines = masks.references.map((name) => [name, column(layer, offset + ["start", "magnitude"].indexOf(name))]);
  const traces = lines.map(([name, y]) => ({
    type: "scatter", mode: "lines", x: masks.steps, y, name: name === "start" ? masks.start : name, line: {color: looks[name][0], dash: looks[name][1], width: 2},
    hovertemplate: `step %{x}: %{y:.2%} in common<extra>${name}</extra>`,
  }));
  const said = lines.map(([name, y]) => `${written(y[at], ".1%")} with ${name === "start" ? "the start" : name}`).join(", ");
  return draw("agreement", traces, {
    height: 300, shapes: [shownLine(masks.steps[at])], xaxis: {title: {text: "step"}}, yaxis: {title: {text: "kept weights in common"}, tickformat: ".0%"},
    showlegend: true,
  }, `Step ${masks.steps[at]}: the layer's mask has kept weights in common: ${said}`);
}
