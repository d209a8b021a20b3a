// One chart of the page: drawn anew in place, with a table of its numbers, and PNG and CSV to take away. Defined once for all charts;
// each calls it with its element, its properties, `watch` for their changes, and what to do when a point is clicked.
window.livePlot = ({element, props, watch, select}) => {
  const part = (name) => element.querySelector(name);
  const target = part('.live-plot');
  let figure = null, waiting = false;

  // It says what is so without it. With it plotly writes the address into the references to its gradients and clips, which point
  // nowhere once the address changes: colour bars are empty then, and curves leave their axes.
  document.querySelector("base[href='./']")?.remove();

  const picked = ({points: [{x, y, customdata}]}) => select({x, y, customdata});

  // On a narrow screen the scale of the colours lies below the chart, which needs the width.
  const narrow = window.matchMedia('(max-width: 760px)');
  const withoutMouse = window.matchMedia('(hover: none)');  // there plotly's tools would always lie on the chart
  const lying = {orientation: 'h', y: 0, yref: 'container', yanchor: 'bottom', x: 0.5, xanchor: 'center', len: 0.9, thickness: 8};
  const fitting = (trace) => trace.colorbar && narrow.matches
    ? {...trace, colorbar: {...trace.colorbar, ...lying, title: {...trace.colorbar.title, side: 'bottom'}}} : trace;
  const hasScale = (trace) => trace.colorbar && trace.showscale !== false;
  const SCALE_HEIGHT = 56;

  const draw = () => {
    part('.chart-body').hidden = !props.value;
    if (!props.value) {
      if (figure) Plotly.purge(target);
      figure = null, target.hears = false;
      return;
    }
    if (!window.Plotly) { setTimeout(draw, 100); return; }
    waiting = !target.offsetWidth;  // in a hidden tab, where plotly would find no room for the axes
    if (waiting) return;
    figure = JSON.parse(props.value);
    const {title, meta, ...layout} = figure.layout;
    part('.chart-title').textContent = title.text;  // a title in the page wraps on narrow screens
    part('.chart-reading').textContent = meta?.read ?? '';
    part('.chart-read').hidden = !meta?.read;
    const font = {...layout.font, color: getComputedStyle(target).color};  // readable in the light and the dark theme
    const margin = {...layout.margin, t: 34};
    const above = {yref: 'paper', y: 1, yanchor: 'bottom'};  // a legend over the chart, where no title is in its way
    if (layout.legend.orientation === 'h') layout.legend = {...layout.legend, ...above};
    if (narrow.matches) {
      const isNamed = figure.data.some(({x}) => Array.from(x ?? []).some(isNaN));  // by names, which are all to be read, not by numbers
      if (!figure.data.some(({mode}) => mode?.includes('text'))) margin.r = 8;  // names and numbers may stand on the right
      const longest = Math.max(...figure.data.map(({name, showlegend}) => showlegend === false ? 0 : name?.length ?? 0));  // of the legend's names; 20 letters fit into half a phone
      const entrywidth = longest > 20 || target.offsetWidth - margin.l - margin.r < 200 ? 1 : 0.5;
      layout.legend = {...layout.legend, ...above, orientation: 'h', x: -0.15, entrywidth, entrywidthmode: 'fraction', font: {size: 10}};
      for (const [name, axis] of Object.entries(layout)) {
        if (/^yaxis/.test(name) && axis.title?.text) axis.title.font = {size: 10};
        const powers = (axis.tickvals ?? []).filter((tick) => /^[0.]*1[0.]*$/.test(tick));  // of ten: 1, 2, 5, 10 … would lie askew
        if (/^xaxis/.test(name) && axis.type === 'log' && powers.length > 1) axis.tickvals = powers;
        if (axis.type === 'category') axis.tickfont = {size: 10};
        if (/^xaxis/.test(name) && axis.type === 'category') Object.assign(axis, isNamed ? {tickangle: -90} : {tickangle: 0, nticks: 8});
      }
      if (figure.data.some(hasScale)) margin.b += SCALE_HEIGHT, layout.height += SCALE_HEIGHT;
    }
    Plotly.react(target, figure.data.map(fitting), {uirevision: 'kept', ...layout, font, margin, autosize: true, modebar: {orientation: 'v'}},  // beside the legend, not over it
                 {responsive: true, displaylogo: false, showSendToCloud: false, displayModeBar: withoutMouse.matches ? false : 'hover', modeBarButtonsToRemove: ['select2d', 'lasso2d']})
      .then(() => { if (!target.hears) { target.hears = true; target.on('plotly_click', picked); } });
    const picture = part('.main-svg');
    picture.setAttribute('role', 'img');
    picture.setAttribute('aria-label', title.text);
    if (!part('.chart-data').hidden) showTable();
  };

  // The numbers of the chart, as the chart has them now: {header, rows}.
  const list = (values) => Array.from(values ?? []);
  const axisTitle = (trace, letter) => target.layout[`${letter}axis${(trace[`${letter}axis`] ?? '').slice(1)}`]?.title?.text ?? '';
  const isMatrix = (values) => Boolean(values?.length) && typeof values[0] === 'object';
  const named = (trace) => [...new Set([trace.name, axisTitle(trace, 'y')])].filter(Boolean).join(', ');
  const points = (trace) => {
    const y = list(trace.y), x = trace.x ? list(trace.x) : y.map((_, index) => index);
    return x.map((value, index) => [value, y[index]]);
  };

  const matrix = (trace) => {
    const z = list(trace.z).map(list), x = isMatrix(trace.x) ? [] : list(trace.x), y = isMatrix(trace.y) ? [] : list(trace.y);
    return {
      header: [axisTitle(trace, 'y') || 'row', ...z[0].map((_, column) => String(x[column] ?? column))],
      rows: z.map((row, index) => [y[index] ?? index, ...row]),
    };
  };

  const sideBySide = (traces) => {
    const columns = traces.map((trace) => new Map(points(trace)));
    const steps = [...new Set(columns.flatMap((column) => [...column.keys()]))].sort((a, b) => a - b);
    const x = traces.map((trace) => axisTitle(trace, 'x')).find(Boolean) ?? 'x';
    return {header: [x, ...traces.map(named)], rows: steps.map((step) => [step, ...columns.map((column) => column.get(step))])};
  };

  const oneBelowTheOther = (traces) => ({
    header: ['series', axisTitle(traces[0], 'x') || 'x', axisTitle(traces[0], 'y') || 'y'],
    rows: traces.flatMap((trace) => points(trace).map((point) => [trace.name ?? '', ...point])),
  });

  const tableOf = () => {
    if (figure.layout.meta?.table) return figure.layout.meta.table;  // of a chart whose places are not its numbers
    const traces = target._fullData;  // where plotly has unpacked what came packed
    if (!traces?.length) return {header: [], rows: []};
    const pictures = traces.filter((trace) => isMatrix(trace.z));
    if (pictures.length) return matrix(pictures[0]);
    const numeric = traces.every((trace) => {
      const x = points(trace).map(([value]) => value);
      return x.every((value) => typeof value === 'number') && new Set(x).size === x.length;
    });
    return numeric ? sideBySide(traces) : oneBelowTheOther(traces);
  };

  const MOST_ROWS = 1000, MOST_COLUMNS = 60;
  const shownAs = (value) => typeof value === 'number' && !Number.isInteger(value) ? String(Number(value.toPrecision(5))) : String(value ?? '');
  const filled = (row, values, tag) => {
    for (const value of values.slice(0, MOST_COLUMNS)) {
      const cell = document.createElement(tag);
      cell.textContent = shownAs(value);
      if (tag === 'th') cell.scope = 'col';
      row.append(cell);
    }
    return row;
  };
  const showTable = () => {
    const {header, rows} = tableOf(), create = (tag) => document.createElement(tag);
    part('.chart-data caption').textContent = part('.chart-title').textContent;
    part('.chart-data thead').replaceChildren(filled(create('tr'), header, 'th'));
    part('.chart-data tbody').replaceChildren(...rows.slice(0, MOST_ROWS).map((row) => filled(create('tr'), row, 'td')));
    const more = rows.length > MOST_ROWS || header.length > MOST_COLUMNS;
    part('.chart-more').textContent = more ? `The first of ${rows.length} rows and ${header.length} columns; the CSV has them all.` : '';
  };

  const quoted = (value) => /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  const csv = () => {
    const {header, rows} = tableOf();
    return [header, ...rows].map((row) => row.map((value) => quoted(String(value ?? ''))).join(',')).join('\n') + '\n';
  };
  const png = () => {
    const {title, margin, legend} = figure.layout, paper = getComputedStyle(target).backgroundColor;  // light letters need dark paper
    const layout = {...target.layout, title, margin, legend, paper_bgcolor: paper};
    const {width, height} = target._fullLayout;
    return Plotly.toImage({data: target.data, layout}, {format: 'png', width, height, scale: 2});
  };
  const download = (address, ending) => {
    const link = document.createElement('a'), run = new URLSearchParams(window.location.search).get('run');
    const {id: name} = element.closest('[id]:not([id^=html-])');  // Gradio gives the element inside a name of its own
    link.href = address;
    link.download = [name.replace('chart-', ''), run].filter(Boolean).join('-') + ending;
    link.click();
  };

  const toggled = (button, shown) => () => {
    shown.hidden = !shown.hidden;
    button.setAttribute('aria-expanded', String(!shown.hidden));
  };
  part('.chart-read').addEventListener('click', toggled(part('.chart-read'), part('.chart-reading')));
  part('.chart-table').addEventListener('click', () => {
    toggled(part('.chart-table'), part('.chart-data'))();
    if (!part('.chart-data').hidden) showTable();
  });
  part('.chart-csv').addEventListener('click', () => {
    const address = URL.createObjectURL(new Blob(['\ufeff', csv()], {type: 'text/csv'}));  // the mark tells spreadsheets that it is UTF-8
    download(address, '.csv');
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });
  part('.chart-png').addEventListener('click', async () => download(await png(), '.png'));

  watch('value', draw);
  draw();
  narrow.addEventListener('change', draw);
  // A chart of a hidden tab is drawn when it comes into sight, and measured again whenever its room changes.
  new ResizeObserver(() => {
    if (!target.offsetWidth) return;
    if (waiting) draw();
    else if (target.data) Plotly.Plots.resize(target);
  }).observe(element);
  new MutationObserver(draw).observe(document.body, {attributeFilter: ['class']});  // the theme changed
};
