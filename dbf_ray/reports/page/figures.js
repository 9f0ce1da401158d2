// The page's figures, drawn with Plotly from the data that stands in the page (data.py says what that is).
"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const { rows, studies, columns, palette, axes } = page;
const several = studies.length > 1;
const byId = new Map(rows.map((row) => [row.id, row]));
const MOST = palette.runs.length; // timelines at once: each has a colour of its own
const FEW = 24; // settings whose costs are shown without being asked for
const state = { chosen: page.chosen.slice(0, MOST), allCosts: false };

const get = (id) => document.getElementById(id);
const narrow = () => document.documentElement.clientWidth < 700;
// Plotly reads texts as a kind of HTML
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const nameOf = (row) => (several ? `${studies[row.study].name}: ` : "") + row.name;
const colorOf = (row) => (several ? studies[row.study].color : page.policies[row.policy].color);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// ---- one style ----
const touch = window.matchMedia("(pointer: coarse)").matches; // there a finger scrolls the page, no figure
const settings = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
const size = () => (narrow() ? 11 : 12.5);
const legendName = (text) => plain(cut(text, narrow() ? 19 : 48));
const note = (text) => [{ text, showarrow: false, x: 0.5, y: 0.5, xref: "paper", yref: "paper",
  font: { color: palette.muted } }];

function axis(title, more = {}) {
  return { gridcolor: palette.grid, zeroline: false, linecolor: palette.line, tickcolor: palette.line,
    ticks: "outside", automargin: true, fixedrange: touch,
    title: { text: plain(title), standoff: 8, font: { size: size() } }, ...more };
}

function draw(id, traces, layout) {
  const legend = narrow()
    ? { orientation: "h", x: 0, y: -0.2, yanchor: "top", entrywidthmode: "fraction", entrywidth: 0.5 }
    : { x: 1.01, y: 1 };
  return Plotly.react(id, traces, {
    template: "none", autosize: true, hovermode: "closest", dragmode: touch ? false : "zoom", legend,
    font: { family: getComputedStyle(document.body).fontFamily, color: palette.ink, size: size() },
    margin: { l: narrow() ? 48 : 64, r: narrow() ? 8 : 20, t: 14, b: 46 },
    hoverlabel: { bgcolor: "white", font: { color: palette.ink }, bordercolor: palette.muted, align: "left" },
    ...layout,
  }, settings);
}

// ---- trade-off ----
function drawScatter() {
  const shown = rows.filter((row) => row.x !== null);
  const ranges = rangesOf(shown);
  const strong = shown.filter((row) => row.mark === "front" || row.baseline);
  const title = (one) => (narrow() ? one.name : one.title);
  draw("scatter", [
    ...studies.flatMap(studyLines),
    ...barTraces(shown),
    ...pointTraces(shown, labelPlaces(strong, shown, ranges)),
    ...ringTraces(shown),
  ], {
    height: narrow() ? 580 : 500,
    xaxis: axis(title(axes.cost), { range: ranges.x }),
    yaxis: axis(title(axes.accuracy), { range: ranges.y }),
    annotations: shown.length ? [] : note("no finished trial yet"),
  });
}

function lineTrace(points, name, line, more = {}) {
  return points.length ? [{ x: points.map((p) => p[0]), y: points.map((p) => p[1]), mode: "lines", line,
    name: legendName(name), hoverinfo: "skip", legendrank: 1001, ...more }] : [];
}

function studyLines(study) {
  const of = several ? `, ${study.name}` : "";
  const color = several ? study.color : palette.front;
  const area = { fill: "toself", fillcolor: palette.region };
  const cross = { symbol: "cross-thin", size: 10, line: { color: palette.muted, width: 1.8 } };
  return [
    ...lineTrace(several ? [] : study.region, "hypervolume", { width: 0 }, area),
    ...lineTrace(study.front, `front${of}`, { color, width: 2 }),
    ...lineTrace(several ? [] : study.believed, "front by posterior mean",
      { color, width: 1.4, dash: "dot" }),
    ...lineTrace(study.shorter, `full, cut short${of}`,
      { color: several ? color : palette.muted, width: 1.6, dash: "dash" }),
    ...lineTrace(study.reference && !several ? [study.reference] : [], "reference point", {},
      { mode: "markers", marker: cross, hoverinfo: "name", legendrank: 1003 }),
  ];
}

function barTraces(shown) {
  const spans = shown.filter((row) => row.span);
  const ends = [
    ...shown.filter((row) => row.interval).map((row) => row.interval.map((end) => [row.x, end])),
    ...spans.map((row) => row.span.map((end) => [end, row.y])),
  ].flatMap((pair) => [...pair, [null, null]]);
  const name = spans.length ? "90 % interval, range of cost" : "90 % interval";
  return lineTrace(ends, name, { color: palette.bar, width: 1.1 }, { legendrank: 1002 });
}

// A trace for each policy (and study) and way of marking, so that the legend explains all of them.
function pointTraces(shown, places) {
  const rank = { dominated: 0, hollow: 1, front: 2 };
  const policies = Object.keys(page.policies);
  return grouped(shown).sort((a, b) => rank[a[0].mark] - rank[b[0].mark]).map((group) => {
    const { policy, mark, study, baseline, control } = group[0];
    const style = page.policies[policy];
    const color = colorOf(group[0]);
    const fill = { front: color, hollow: "white", dominated: several ? `${color}66` : style.pale }[mark];
    const edge = baseline ? { color, width: 2 } : { color: "white", width: mark === "front" ? 1 : 0.5 };
    const called = [control ? `shorter ${policy}` : policy, ...(several ? [studies[study].name] : [])];
    return {
      x: group.map((row) => row.x), y: group.map((row) => row.y), mode: "markers+text",
      name: legendName(called.join(", ") + (mark === "front" ? "" : " (dominated)")),
      text: group.map((row) => (places.has(row.id) ? `<b>${plain(row.label)}</b>` : "")),
      textposition: group.map((row) => places.get(row.id) || "top center"), textfont: { color, size: 12 },
      marker: { symbol: style.symbol, size: mark === "dominated" ? 9 : 12, color: fill, line: edge },
      customdata: group.map((row) => row.id), hovertext: group.map(hoverOf), hoverinfo: "text",
      cliponaxis: false, legendrank: 2 * policies.indexOf(policy) + (mark !== "front"),
    };
  });
}

function grouped(list) {
  const groups = new Map();
  for (const row of list) {
    const key = [row.study, row.policy, row.mark, row.baseline, row.control].join("\n");
    groups.set(key, [...(groups.get(key) || []), row]);
  }
  return [...groups.values()];
}

function ringTraces(shown) {
  const ring = (list, name, marker) => lineTrace(list.map((row) => [row.x, row.y]), name, {},
    { mode: "markers", marker, legendrank: 1004, cliponaxis: false });
  const below = state.chosen.map((id) => byId.get(id)).filter((row) => row.x !== null);
  const colors = chosenColors();
  return [
    ...ring(shown.filter((row) => row.first === "recommended"), "recommended",
      { symbol: "circle-open", size: 27, color: palette.ink, line: { width: 1.8 } }),
    ...ring(below, "timeline below",
      { symbol: "square-open", size: 19, color: below.map((row) => colors.get(row.id)), line: { width: 2 } }),
  ];
}

function hoverOf(row) {
  const told = columns.map((column, place) => [column, row.cells[place]])
    .filter(([column, cell]) => cell[1] !== null && !["setting", "rho"].includes(column.key))
    .map(([column, cell]) => `${plain(column.title)}: ${plain(cell[0])}`);
  return [`<b>${plain(row.name)}</b>`, ...told].join("<br>");
}

function rangesOf(shown) {
  const crosses = several ? [] : studies.filter((study) => study.reference).map((study) => study.reference);
  const range = (values) => {
    if (!values.length) return [0, 1];
    const low = Math.min(...values), high = Math.max(...values), pad = 0.08 * (high - low || 0.1);
    return [low - pad, high + pad];
  };
  const places = (value, ends, place) => [
    ...shown.flatMap((row) => [row[value], ...(row[ends] || [])]), ...crosses.map((cross) => cross[place])];
  return { x: range(places("x", "span", 0)), y: range(places("y", "interval", 1)) };
}

// Where labels stand without covering a point or another label; one without room is left out.
function labelPlaces(wanted, shown, ranges) {
  const [width, height] = [get("scatter").clientWidth - (narrow() ? 60 : 260), narrow() ? 340 : 430];
  const at = (row) => [width * (row.x - ranges.x[0]) / (ranges.x[1] - ranges.x[0]),
    height * (ranges.y[1] - row.y) / (ranges.y[1] - ranges.y[0])];
  const taken = shown.map(at).map(([x, y]) => [x - 6, y - 6, x + 6, y + 6]);
  const sides = { left: (x, long) => x - 7 - long, center: (x, long) => x - long / 2, right: (x) => x + 7 };
  const tops = { top: -23, bottom: 8, middle: -8 };
  const positions = ["top center", "top left", "top right", "bottom right", "bottom left", "bottom center",
    "middle right", "middle left"];
  const rank = (row) => (row.first === "recommended" ? 0 : row.baseline ? 1 : 2);
  const places = new Map();
  for (const row of [...wanted].sort((a, b) => rank(a) - rank(b))) {
    const [x, y] = at(row), long = 7.2 * row.label.length + 4;
    for (const position of positions) {
      const [rise, side] = position.split(" ");
      const left = sides[side](x, long), top = y + tops[rise];
      const inside = left >= 0 && left + long <= width && top >= 0 && top + 15 <= height;
      if (inside && !taken.some((t) => t[0] < left + long && left < t[2] && t[1] < top + 15 && top < t[3])) {
        taken.push([left, top, left + long, top + 15]);
        places.set(row.id, position);
        break;
      }
    }
  }
  return places;
}

// ---- timelines ----
// A chosen trial has its policy's colour, or where another one has that (or colours tell studies) a free one.
function chosenColors() {
  const others = new Set((several ? studies : Object.values(page.policies)).map((style) => style.color));
  const colors = new Map();
  const first = (id) => Number(byId.get(id).control);
  for (const id of [...state.chosen].sort((a, b) => first(a) - first(b))) {
    const used = [...colors.values()], own = page.policies[byId.get(id).policy].color;
    const free = palette.runs.filter((color) => !used.includes(color));
    const other = free.find((color) => !others.has(color)) || free[0];
    colors.set(id, several || used.includes(own) ? other : own);
  }
  return colors;
}

function drawTimelines() {
  const colors = chosenColors();
  const chosen = state.chosen.map((id) => byId.get(id));
  const [curve, gap, head, foot, cell] = [260, 34, 20, 48, narrow() ? 9 : 12];
  const inner = curve + chosen.reduce((sum, row) => sum + gap + cell * row.runs[0].trained.length, 0);
  const last = Math.max(0, ...chosen.flatMap((row) => row.runs.flatMap((run) => run.epochs)));
  const traces = [], annotations = [], shapes = [];
  const layout = {
    height: head + inner + foot, showlegend: false, annotations, shapes,
    margin: { l: narrow() ? 48 : 64, r: narrow() ? 8 : 20, t: head, b: foot },
    xaxis: axis("epoch (0-based)", { range: [-0.6, last + 0.6], showgrid: false,
      anchor: chosen.length ? `y${chosen.length + 1}` : "y" }),
    yaxis: axis(axes.accuracy.name, { domain: [1 - curve / inner, 1], rangemode: "tozero" }),
  };
  let top = curve;
  chosen.forEach((row, place) => {
    const [color, name, run] = [colors.get(row.id), `y${place + 2}`, row.runs[0]];
    top += gap;
    const bottom = top + cell * run.trained.length;
    traces.push(...row.runs.map((one, seed) => curveTrace(row, one, color, seed > 0)),
      strip(run, name, color, last));
    layout[`yaxis${place + 2}`] = { domain: [Math.max(0, 1 - bottom / inner), 1 - top / inner], ticks: "",
      showgrid: false, zeroline: false, fixedrange: true, tickvals: [1, run.trained.length],
      tickfont: { size: 10, color: palette.muted } };
    const shared = row.shared && !narrow() ? `; ${plain(row.shared)}` : "";
    const called = `<b>${plain(cut(nameOf(row), narrow() ? 28 : 60))}</b>`;
    annotations.push({ text: `${called}, trial ${row.number}${shared}`, font: { color, size: size() },
      showarrow: false, xref: "paper", yref: "paper", x: 0, xanchor: "left",
      y: 1 - top / inner, yanchor: "bottom" });
    if (run.inherited) {
      shapes.push({ type: "line", yref: `${name} domain`, x0: run.inherited - 0.5, x1: run.inherited - 0.5,
        y0: -0.12, y1: 1.12, line: { color: palette.ink, width: 2, dash: "dot" } });
    }
    top = bottom;
  });
  draw("timelines", traces, layout);
}

function curveTrace(row, run, color, further) {
  const known = run.epochs.map((_, place) => place).filter((place) => run.accuracy[place] !== null);
  return { x: known.map((place) => run.epochs[place]), y: known.map((place) => run.accuracy[place]),
    mode: further || known.length > 40 ? "lines" : "lines+markers", opacity: further ? 0.5 : 1,
    line: { color, width: further ? 1 : 2 }, marker: { size: 6 }, name: plain(nameOf(row)),
    hovertemplate: `${plain(nameOf(row))}, seed ${run.seed}<br>epoch %{x}: %{y:.4f}<extra></extra>` };
}

function strip(run, yaxis, color, last) {
  const said = (share) => (share === 1 ? "trained" : share === 0 ? "frozen"
    : `trained in ${Math.round(100 * share)} % of its steps`);
  return { type: "heatmap", x: run.epochs, y: run.trained.map((_, stage) => stage + 1), z: run.trained, yaxis,
    zmin: 0, zmax: 1, colorscale: [[0, palette.frozen], [1, color]], showscale: false, ygap: 1,
    xgap: last > 60 ? 0 : 1, text: run.trained.map((shares) => shares.map(said)),
    hovertemplate: "epoch %{x}, stage %{y}: %{text}<extra></extra>" };
}

// ---- the search, costs, seeds ----
function drawHistory() {
  const traces = studies.flatMap((study) => {
    const known = study.history.filter((entry) => entry[1] !== null);
    const color = several ? study.color : palette.front;
    const of = several ? `, ${study.name}` : "";
    const alone = known.length ? [[0, study.baselines], [known.at(-1)[0], study.baselines]] : [];
    return [
      ...lineTrace(known, several ? study.name : "all trials", { color, shape: "hv", width: 2 },
        { mode: "lines+markers", marker: { size: 5 }, hoverinfo: "all",
          customdata: known.map((entry) => entry[2]),
          hovertemplate: "%{customdata} trials, %{x} epochs: %{y:.4f}<extra></extra>" }),
      ...lineTrace(alone, `baselines alone${of}`, { color, width: 1.2, dash: "dot" }),
    ];
  });
  draw("history", traces, { height: 300, showlegend: true,
    xaxis: axis("epochs trained by all trials", { rangemode: "tozero" }),
    yaxis: axis("hypervolume", { rangemode: "tozero" }),
    annotations: traces.length ? [] : note("no hypervolume until the baselines are complete") });
}

function drawCosts() {
  const done = rows.filter((row) => row.x !== null).sort((a, b) => a.x - b.x);
  const asked = (row) => row.mark === "front" || row.baseline || row.control || state.chosen.includes(row.id);
  const shown = state.allCosts || done.length <= FEW ? done : done.filter(asked);
  get("all-costs").textContent = `show all ${done.length}`;
  get("all-costs").setAttribute("aria-pressed", state.allCosts);
  get("all-costs").hidden = done.length <= FEW;
  const some = page.costs.filter((cost) => shown.some((row) => row.costs[cost.key]?.[0]));
  const none = page.costs.filter((cost) => !some.includes(cost)).map((cost) => cost.title).join(", ");
  get("no-costs").textContent = none ? `None, with these workers and devices: ${none}.` : "";
  if (get("costs").childElementCount !== some.length) {
    get("costs").replaceChildren(...some.map((cost) => make("div", { id: `cost-${cost.key}`, class: "plot",
      role: "img", "aria-label": `${cost.title} of each setting` })));
  }
  for (const cost of some) drawBars(cost, shown.filter((row) => row.costs[cost.key]));
}

function drawBars(cost, shown) {
  const texts = shown.map((row) => plain(row.costs[cost.key][1]));
  draw(`cost-${cost.key}`, [{ type: "bar", orientation: "h", x: shown.map((row) => row.costs[cost.key][0]),
    y: shown.map((row) => row.id), text: texts, textposition: "auto", insidetextanchor: "end", textangle: 0,
    constraintext: "none", textfont: { size: 11 },
    marker: { color: shown.map(colorOf) }, cliponaxis: false, hoverinfo: "text",
    hovertext: shown.map((row, place) => `${plain(nameOf(row))}<br>${texts[place]}`) }], {
    height: 76 + 21 * shown.length, margin: { l: 20, r: 12, t: 34, b: 28 }, showlegend: false, bargap: 0.25,
    title: { text: plain(cost.title), font: { size: 13 }, x: 0, xanchor: "left", y: 1, yanchor: "top",
      pad: { t: 8 } },
    xaxis: axis("", { tickformat: "~s", ticksuffix: cost.unit, nticks: 4, fixedrange: true,
      rangemode: "tozero" }),
    yaxis: categories(shown, 22, { autorange: "reversed" }) });
}

// An axis with a line for each row, by its id: two rows may have the same name.
function categories(shown, most, more = {}) {
  return { type: "category", automargin: true, fixedrange: true, gridcolor: palette.grid,
    tickfont: { size: 11 }, tickvals: shown.map((row) => row.id),
    ticktext: shown.map((row) => plain(cut(nameOf(row), most))), ...more };
}

function drawSeeds() {
  const shown = rows.filter((row) => row.seeds.length > 1).sort((a, b) => a.y - b.y);
  get("seeds-note").textContent = shown.length
    ? "Each seed a point, the mean a bar with its 90 % interval; settings with one seed are left out."
    : "Every setting has one seed, so what a seed changes is not known; dbf search ... --seeds-on-front 3 "
      + "trains the front, baselines and controls with further ones.";
  get("seeds").hidden = !shown.length;
  if (!shown.length) return;
  const points = shown.flatMap((row) => row.seeds.map(([seed, value]) => ({ row, seed, value })));
  const of = plain(axes.accuracy.name);
  const bars = { type: "data", symmetric: false, thickness: 1.2, width: 3, color: palette.bar,
    array: shown.map((row) => (row.interval ? row.interval[1] - row.y : 0)),
    arrayminus: shown.map((row) => (row.interval ? row.y - row.interval[0] : 0)) };
  draw("seeds", [
    { x: shown.map((row) => row.y), y: shown.map((row) => row.id), mode: "markers", hoverinfo: "text",
      marker: { symbol: "line-ns", size: 16, line: { width: 3, color: shown.map(colorOf) } }, error_x: bars,
      hovertext: shown.map((row) => `${plain(nameOf(row))}<br>mean ${of} ${row.y.toFixed(4)}`) },
    { x: points.map((one) => one.value), y: points.map((one) => one.row.id), mode: "markers",
      hoverinfo: "text",
      marker: { size: 8, color: points.map((one) => colorOf(one.row)), opacity: 0.65,
        line: { color: "white", width: 1 } },
      hovertext: points.map((one) => `${plain(nameOf(one.row))}, seed ${one.seed}<br>${of} `
        + one.value.toFixed(4)) },
  ], { height: 80 + 26 * shown.length, showlegend: false, margin: { l: 20, r: 20, t: 10, b: 46 },
    xaxis: axis(axes.accuracy.name), yaxis: categories(shown, narrow() ? 20 : 44) });
}
