// Draws the page from the data that stands in it (page_data in data.py says what is in there), with Plotly.
"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const { rows, studies, columns, palette, axes } = page;
  const several = studies.length > 1;
  const byId = new Map(rows.map((row) => [row.id, row]));
  const MOST = palette.runs.length; // timelines at once: each has a colour of its own
  const FEW = 24; // settings whose costs are shown without asking
  let chosen = page.chosen.slice(0, MOST);
  let order = { column: null, down: false };

  const get = (id) => document.getElementById(id);
  const say = (text) => { get("said").textContent = text; };
  const narrow = () => document.documentElement.clientWidth < 700;
  // Plotly reads texts as a kind of HTML
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
  const nameOf = (row) => (several ? `${studies[row.study].name}: ` : "") + row.name;
  const colorOf = (row) => (several ? studies[row.study].color : page.policies[row.policy].color);

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  // ---- drawing, in one style ----
  const touch = window.matchMedia("(pointer: coarse)").matches; // a finger scrolls the page, no figure
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  const line = { gridcolor: palette.grid, zeroline: false, linecolor: "#b4bcc5", ticks: "outside",
    tickcolor: "#b4bcc5", automargin: true };

  function draw(id, traces, layout) {
    const below = narrow();
    const legend = below ? { orientation: "h", y: -0.22, x: 0, font: { size: 11 } } : { x: 1.01, y: 1 };
    return Plotly.react(id, traces, {
      template: "none", autosize: true, hovermode: "closest", dragmode: touch ? false : "zoom",
      font: { family: getComputedStyle(document.body).fontFamily, color: palette.ink, size: below ? 11 : 12.5 },
      margin: { l: below ? 48 : 64, r: below ? 8 : 20, t: 14, b: 46 }, legend,
      hoverlabel: { bgcolor: "white", font: { color: palette.ink }, bordercolor: palette.muted, align: "left" },
      ...layout,
    }, config);
  }

  const axis = (title, more = {}) => ({ ...line, title: { text: narrow() ? title.name : plain(title.title),
    standoff: 8, font: { size: narrow() ? 11 : 12.5 } }, ...more });

  function hoverOf(row) {
    const told = columns.map((column, i) => [column, row.cells[i]])
      .filter(([column, cell]) => cell[1] !== null && !["setting", "rho"].includes(column.key))
      .map(([column, cell]) => `${plain(column.title)}: ${plain(cell[0])}`);
    return [`<b>${plain(row.name)}</b>`, ...told].join("<br>");
  }

  // ---- trade-off ----
  function drawScatter() {
    const shown = rows.filter((row) => row.x !== null);
    const traces = [];
    const path = (points, name, style, more = {}) => points.length && traces.push({
      x: points.map((p) => p[0]), y: points.map((p) => p[1]), mode: "lines", name, line: style,
      hoverinfo: "skip", legendrank: 1001, ...more });
    studies.forEach((study) => {
      const of = several ? `, ${study.name}` : "";
      const color = several ? study.color : palette.front;
      if (!several) {
        path(study.region, "hypervolume", { width: 0 }, { fill: "toself", fillcolor: palette.region });
      }
      path(study.front, plain(`front${of}`), { color, width: 2 });
      path(study.believed, plain(`front by posterior mean${of}`), { color, width: 1.4, dash: "dot" });
      path(study.shorter, plain(`full, cut short${of}`),
        { color: several ? color : palette.muted, width: 1.6, dash: "dash" });
      if (study.reference && !several) {
        traces.push({ x: [study.reference[0]], y: [study.reference[1]], mode: "markers", name: "reference point",
          hoverinfo: "name", legendrank: 1003,
          marker: { symbol: "cross-thin", size: 10, line: { color: palette.muted, width: 1.8 } } });
      }
    });
    const bars = [
      ...shown.filter((row) => row.interval).map((row) => row.interval.map((end) => [row.x, end])),
      ...shown.filter((row) => row.span).map((row) => row.span.map((end) => [end, row.y])),
    ].flatMap((ends) => [...ends, [null, null]]);
    path(bars, "90 % interval" + (shown.some((row) => row.span) ? ", range of cost" : ""),
      { color: palette.bar, width: 1.1 });
    const ranges = rangesOf(shown, studies);
    const places = labelPlaces(shown.filter((row) => row.mark === "front" || row.baseline), shown, ranges);
    traces.push(...pointTraces(shown, places));
    const ring = (list, name, size, width, colors, symbol = "circle-open") => list.length && traces.push({
      x: list.map((row) => row.x), y: list.map((row) => row.y), mode: "markers", name, hoverinfo: "skip",
      legendrank: 1004, cliponaxis: false, marker: { symbol, size, color: colors, line: { width } } });
    ring(shown.filter((row) => row.first === "recommended"), "recommended", 26, 1.8, palette.ink);
    const below = chosen.map((id) => byId.get(id)).filter((row) => row.x !== null);
    ring(below, "shown below", 19, 2.2, below.map((row) => chosenColors().get(row.id)), "square-open");
    draw("scatter", traces, {
      height: narrow() ? 560 : 500,
      xaxis: axis(axes.cost, { range: ranges.x, fixedrange: touch }),
      yaxis: axis(axes.accuracy, { range: ranges.y, fixedrange: touch }),
      annotations: shown.length ? [] : [{ text: "no finished trial yet", showarrow: false, x: 0.5, y: 0.5,
        xref: "paper", yref: "paper", font: { color: palette.muted } }],
    });
  }

  // One trace for each policy (and study) and way of marking, so that the legend explains all of them.
  function pointTraces(shown, places) {
    const groups = new Map();
    for (const row of shown) {
      const key = [row.study, row.policy, row.mark].join("\u0000");
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(row);
    }
    const rank = { dominated: 0, hollow: 1, front: 2 };
    return [...groups.values()].sort((a, b) => rank[a[0].mark] - rank[b[0].mark]).map((group) => {
      const { policy, mark, study } = group[0];
      const style = page.policies[policy];
      const color = colorOf(group[0]);
      const strong = mark !== "dominated";
      const pale = several ? color + "66" : style.pale;
      return {
        x: group.map((row) => row.x), y: group.map((row) => row.y),
        name: plain(policy + (several ? `, ${studies[study].name}` : "") + (mark === "front" ? "" : " (dominated)")),
        mode: "markers+text", text: group.map((row) => (places.has(row.id) ? `<b>${plain(row.label)}</b>` : "")),
        textposition: group.map((row) => places.get(row.id) || "top center"), textfont: { color, size: 12 },
        marker: { symbol: style.symbol, size: strong ? 12 : 9, color: mark === "front" ? color : mark === "hollow" ? "white" : pale,
          line: { color: mark === "hollow" || group[0].baseline ? color : "white", width: mark === "hollow" ? 2 : 1 } },
        customdata: group.map((row) => row.id), hovertext: group.map(hoverOf), hoverinfo: "text",
        cliponaxis: false, legendrank: Object.keys(page.policies).indexOf(policy) * 2 + (mark !== "front"),
      };
    });
  }

  function rangesOf(shown, all) {
    const references = all.filter((study) => study.reference && !several).map((study) => study.reference);
    const xs = [...shown.flatMap((row) => [row.x, ...(row.span || [])]), ...references.map((r) => r[0])];
    const ys = [...shown.flatMap((row) => [row.y, ...(row.interval || [])]), ...references.map((r) => r[1])];
    const range = (values) => {
      if (!values.length) return [0, 1];
      const low = Math.min(...values), high = Math.max(...values), pad = 0.08 * (high - low || 0.1);
      return [low - pad, high + pad];
    };
    return { x: range(xs), y: range(ys) };
  }

  // Where the labels of points stand without covering a point or another label; a label without room is left out.
  function labelPlaces(wanted, shown, ranges) {
    const width = get("scatter").clientWidth - (narrow() ? 60 : 260), height = narrow() ? 360 : 430;
    const at = (row) => [(row.x - ranges.x[0]) / (ranges.x[1] - ranges.x[0]) * width,
      (ranges.y[1] - row.y) / (ranges.y[1] - ranges.y[0]) * height];
    const taken = shown.map((row) => { const [x, y] = at(row); return [x - 6, y - 6, x + 6, y + 6]; });
    const places = new Map();
    const first = (row) => (row.first === "recommended" ? 0 : row.baseline ? 1 : 2);
    for (const row of [...wanted].sort((a, b) => first(a) - first(b))) {
      const [x, y] = at(row), long = 7.2 * row.label.length + 4;
      for (const [side, rise] of [["top center", 0], ["top left", 0], ["top right", 0], ["bottom right", 1],
        ["bottom left", 1], ["bottom center", 1], ["middle right", 2], ["middle left", 2]]) {
        const left = side.endsWith("left") ? x - 7 - long : side.endsWith("right") ? x + 7 : x - long / 2;
        const top = rise === 0 ? y - 23 : rise === 1 ? y + 8 : y - 8;
        const box = [left, top, left + long, top + 15];
        const free = box[0] >= 0 && box[2] <= width && box[1] >= 0 && box[3] <= height
          && !taken.some((t) => t[0] < box[2] && box[0] < t[2] && t[1] < box[3] && box[1] < t[3]);
        if (free) { taken.push(box); places.set(row.id, side); break; }
      }
    }
    return places;
  }

  // ---- timelines ----
  // A chosen trial has its policy's colour, or the next free one where another chosen one has that.
  function chosenColors() {
    const colors = new Map();
    for (const id of chosen) {
      const used = [...colors.values()], own = page.policies[byId.get(id).policy].color;
      colors.set(id, used.includes(own) ? palette.runs.find((color) => !used.includes(color)) || own : own);
    }
    return colors;
  }

  function toggle(id) {
    const row = byId.get(id);
    if (!row.runs.length) { say(`of ${nameOf(row)} no epochs are known`); return; }
    if (chosen.includes(id)) chosen = chosen.filter((other) => other !== id);
    else chosen = [...chosen, id].slice(-MOST);
    say(`${nameOf(row)} ${chosen.includes(id) ? "added to" : "removed from"} the timelines`);
    drawChosen();
    drawScatter();
    drawCosts();
    for (const button of document.querySelectorAll("[data-toggle]")) {
      button.setAttribute("aria-pressed", chosen.includes(button.dataset.toggle));
    }
  }

  function drawChosen() {
    const colors = chosenColors();
    get("chosen").replaceChildren(...(chosen.length ? chosen.map((id) => make("button", { type: "button",
      style: `border-color: ${colors.get(id)}`, "aria-label": `remove ${nameOf(byId.get(id))} from the timelines`,
      onclick: () => toggle(id) }, `${nameOf(byId.get(id))} ×`)) : [make("span", { class: "muted" },
      rows.some((row) => row.runs.length) ? "none chosen" : "of no trial epochs are known")]));
    const runs = chosen.map((id) => byId.get(id));
    const curve = 260, gap = 34, foot = 48, bar = narrow() ? 9 : 12;
    const heights = runs.map((row) => bar * row.runs[0].trained.length);
    const height = 20 + curve + foot + heights.reduce((sum, one) => sum + one + gap, 0);
    const inner = height - 20 - foot;
    const epochs = Math.max(0, ...runs.flatMap((row) => row.runs.flatMap((run) => run.epochs)));
    const traces = [], notes = [], shapes = [];
    const layout = { height, margin: { l: narrow() ? 44 : 64, r: narrow() ? 8 : 20, t: 20, b: foot }, showlegend: false,
      xaxis: { ...line, title: { text: "epoch (0-based)", standoff: 6 }, range: [-0.6, epochs + 0.6], fixedrange: touch,
        anchor: runs.length ? `y${runs.length + 1}` : "y", showgrid: false },
      yaxis: axis(axes.accuracy, { title: { text: plain(axes.accuracy.name), standoff: 6 }, fixedrange: touch,
        domain: [1 - curve / inner, 1], rangemode: "tozero" }) };
    let top = curve;
    runs.forEach((row, place) => {
      const color = colors.get(row.id), y = `y${place + 2}`, stages = row.runs[0].trained;
      row.runs.forEach((run, seed) => {
        const known = run.epochs.map((_, i) => i).filter((i) => run.accuracy[i] !== null);
        traces.push({ x: known.map((i) => run.epochs[i]), y: known.map((i) => run.accuracy[i]),
          mode: known.length > 40 || seed ? "lines" : "lines+markers", opacity: seed ? 0.45 : 1,
          line: { color, width: seed ? 1 : 2 }, marker: { size: 6 }, name: plain(nameOf(row)),
          hovertemplate: `${plain(nameOf(row))}, seed ${run.seed}<br>epoch %{x}: %{y:.4f}<extra></extra>` });
      });
      traces.push({ type: "heatmap", x: row.runs[0].epochs, y: stages.map((_, i) => i + 1), z: stages, yaxis: y,
        zmin: 0, zmax: 1, colorscale: [[0, "#e1e6eb"], [1, color]], showscale: false, ygap: 1, xgap: epochs > 60 ? 0 : 1,
        text: stages.map((shares) => shares.map((share) => (share === 1 ? "trained" : share === 0 ? "frozen"
          : `trained in ${Math.round(100 * share)} % of its steps`))),
        hovertemplate: "epoch %{x}, stage %{y}: %{text}<extra></extra>" });
      top += gap;
      const from = 1 - (top + heights[place]) / inner;
      layout[`yaxis${place + 2}`] = { domain: [Math.max(0, from), 1 - top / inner], ticks: "", showgrid: false, zeroline: false,
        tickvals: [1, stages.length], fixedrange: true, tickfont: { size: 10, color: palette.muted } };
      notes.push({ text: `<b>${plain(cut(nameOf(row), narrow() ? 26 : 60))}</b>, trial ${row.number}`
        + (row.shared ? (narrow() ? "" : `; ${plain(row.shared)}`) : ""), font: { color, size: narrow() ? 11 : 12 }, showarrow: false,
      xref: "paper", yref: "paper", x: 0, xanchor: "left", y: 1 - top / inner, yanchor: "bottom" });
      if (row.runs[0].inherited) {
        const x = row.runs[0].inherited - 0.5;
        shapes.push({ type: "line", xref: "x", yref: `${y} domain`, x0: x, x1: x, y0: 0, y1: 1,
          line: { color: palette.ink, width: 2, dash: "dot" } });
      }
      top += heights[place];
    });
    draw("timelines", traces, { ...layout, annotations: notes, shapes });
  }

  // ---- the search, costs, seeds ----
  function drawHistory() {
    const traces = [], shapes = [];
    for (const study of studies) {
      const known = study.history.filter((entry) => entry[1] !== null);
      const color = several ? study.color : palette.front;
      traces.push({ x: known.map((entry) => entry[0]), y: known.map((entry) => entry[1]), mode: "lines+markers",
        line: { color, shape: "hv", width: 2 }, marker: { size: 5 }, name: plain(study.name),
        customdata: known.map((entry) => entry[2]),
        hovertemplate: "%{customdata} trials, %{x} epochs: %{y:.4f}<extra></extra>" });
      if (study.baselines !== null && known.length) {
        traces.push({ x: [0, known.at(-1)[0]], y: [study.baselines, study.baselines], mode: "lines",
          name: plain("baselines alone" + (several ? `, ${study.name}` : "")), hoverinfo: "skip",
          line: { color, width: 1.2, dash: "dot" } });
      }
    }
    const empty = !traces.some((trace) => trace.x.length);
    draw("history", traces, { height: 300, shapes, showlegend: true,
      xaxis: { ...line, title: { text: "epochs trained by all trials", standoff: 8 }, rangemode: "tozero", fixedrange: touch },
      yaxis: { ...line, title: { text: "hypervolume", standoff: 8 }, rangemode: "tozero", fixedrange: touch },
      annotations: empty ? [{ text: "no hypervolume until the baselines are complete", showarrow: false, x: 0.5,
        y: 0.5, xref: "paper", yref: "paper", font: { color: palette.muted } }] : [] });
  }

  let allCosts = false;
  function drawCosts() {
    const done = rows.filter((row) => row.x !== null).sort((a, b) => a.x - b.x);
    const strong = done.filter((row) => row.mark === "front" || row.baseline || chosen.includes(row.id)
      || row.cells.some((cell) => /control/.test(cell[0])));
    const shown = allCosts || done.length <= FEW ? done : strong;
    get("all-costs").textContent = `show all ${done.length}`;
    get("all-costs").setAttribute("aria-pressed", allCosts);
    get("all-costs").hidden = done.length <= FEW;
    const missing = [];
    for (const cost of page.costs) {
      const known = shown.filter((row) => row.costs[cost.key]);
      const id = `cost-${cost.key}`;
      if (!known.some((row) => row.costs[cost.key][0])) { missing.push(cost.title); get(id)?.remove(); continue; }
      if (!get(id)) {
        get("costs").append(make("div", { id, class: "plot", role: "img", "aria-label": `${cost.title} of each setting` }));
      }
      const texts = known.map((row) => plain(row.costs[cost.key][1]));
      draw(id, [{ type: "bar", orientation: "h", x: known.map((row) => row.costs[cost.key][0]),
        y: known.map((row) => row.id), text: texts, textposition: "auto", insidetextanchor: "end", cliponaxis: false,
        textangle: 0, marker: { color: known.map(colorOf) }, customdata: known.map((row) => row.id),
        hovertext: known.map((row, i) => `${plain(nameOf(row))}<br>${texts[i]}`), hoverinfo: "text" }], {
        height: 76 + 21 * known.length, margin: { l: 20, r: 12, t: 34, b: 28 }, showlegend: false, bargap: 0.25,
        title: { text: plain(cost.title), font: { size: 13 }, x: 0, xanchor: "left", y: 1, yanchor: "top", pad: { t: 8 } },
        xaxis: { ...line, ticksuffix: "", tickformat: "~s", nticks: 5, fixedrange: true },
        yaxis: { automargin: true, type: "category", autorange: "reversed", fixedrange: true, tickfont: { size: 11 },
          tickvals: known.map((row) => row.id), ticktext: known.map((row) => plain(cut(nameOf(row), 22))) } });
    }
    get("no-costs").textContent = missing.length ? `None, with these workers and devices: ${missing.join(", ")}.` : "";
  }

  function drawSeeds() {
    const shown = rows.filter((row) => row.seeds.length > 1).sort((a, b) => a.y - b.y);
    get("seeds-note").textContent = shown.length
      ? `Each seed a point, the mean a bar with its 90 % interval; settings with one seed are left out.`
      : "Every setting has one seed, so what a seed changes is not known: dbf search ... --seeds-on-front 3 adds "
        + "further ones to the front, baselines and controls.";
    get("seeds").hidden = !shown.length;
    if (!shown.length) return;
    const points = shown.flatMap((row) => row.seeds.map(([seed, value]) => [row, seed, value]));
    const name = axes.accuracy.name;
    draw("seeds", [
      { x: shown.map((row) => row.y), y: shown.map((row) => row.id), mode: "markers", hoverinfo: "text", name: "mean",
        marker: { symbol: "line-ns", size: 16, line: { width: 3, color: shown.map(colorOf) } },
        error_x: { type: "data", symmetric: false, thickness: 1.2, width: 3, color: palette.bar,
          array: shown.map((row) => (row.interval ? row.interval[1] - row.y : 0)),
          arrayminus: shown.map((row) => (row.interval ? row.y - row.interval[0] : 0)) },
        hovertext: shown.map((row) => `${plain(nameOf(row))}<br>mean ${plain(name)} ${row.y.toFixed(4)}`) },
      { x: points.map((p) => p[2]), y: points.map((p) => p[0].id), mode: "markers", hoverinfo: "text", name: "seed",
        marker: { size: 8, color: points.map((p) => colorOf(p[0])), opacity: 0.65, line: { color: "white", width: 1 } },
        hovertext: points.map((p) => `${plain(nameOf(p[0]))}, seed ${p[1]}<br>${plain(name)} ${p[2].toFixed(4)}`) },
    ], { height: 80 + 26 * shown.length, showlegend: false, margin: { l: 20, r: 20, t: 10, b: 46 },
      xaxis: axis({ name, title: name }, { fixedrange: touch }),
      yaxis: { automargin: true, type: "category", fixedrange: true, gridcolor: palette.grid, tickfont: { size: 11 },
        tickvals: shown.map((row) => row.id), ticktext: shown.map((row) => plain(cut(nameOf(row), narrow() ? 20 : 44))) } });
  }

  // ---- table ----
  const parse = (text) => text.split(/\s+/).filter(Boolean).map((word) => {
    const found = /^(.+?)(<=|>=|<|>|=)(.+)$/.exec(word);
    const place = found ? columns.findIndex((column) => column.key === found[1] || column.title === found[1]) : -1;
    return place < 0 ? { word: word.toLowerCase() } : { place, sign: found[2], value: found[3] };
  });

  function matches(row, wanted) {
    return wanted.every(({ word, place, sign, value }) => {
      if (word !== undefined) return row.cells.some((cell) => String(cell[0]).toLowerCase().includes(word));
      const own = row.cells[place][1];
      if (own === null) return false;
      if (typeof own !== "number") return sign === "=" && String(own).toLowerCase() === value.toLowerCase();
      const bound = Number(value);
      return { "<": own < bound, ">": own > bound, "<=": own <= bound, ">=": own >= bound, "=": own === bound }[sign];
    });
  }

  // What is not known comes last, whichever way it is sorted.
  function sorted(list) {
    if (order.column === null) return list;
    const sign = order.down ? -1 : 1;
    return [...list].sort((a, b) => {
      const [one, other] = [a.cells[order.column][1], b.cells[order.column][1]];
      if (one === null || other === null) return (one === null) - (other === null);
      return sign * (typeof one === "number" && typeof other === "number" ? one - other
        : String(one).localeCompare(String(other), undefined, { numeric: true }));
    });
  }

  function drawTable() {
    const wanted = parse(get("filter").value);
    const shown = sorted(rows.filter((row) => matches(row, wanted)));
    document.querySelector("tbody").replaceChildren(...shown.map((row) => make("tr",
      { class: row.first === "recommended" ? "strong" : null },
      make("td", { class: "shown" }, make("button", { type: "button", "data-toggle": row.id, "aria-pressed": chosen.includes(row.id),
        disabled: row.runs.length ? null : "", "aria-label": `timeline of ${nameOf(row)}` }, "timeline")),
      ...row.cells.map((cell, i) => make("td", { class: columns[i].numeric ? "number" : null,
        title: i === 0 && row.failure ? row.failure : null }, cell[0])),
      make("td", { class: "line" }, ...(row.command ? [make("button", { type: "button", "data-copy": row.command,
        "aria-label": `copy the command of ${nameOf(row)}` }, "copy"), " ", make("code", { title: row.command }, row.command)] : [])))));
    get("count").textContent = shown.length === rows.length ? `${rows.length} trials` : `${shown.length} of ${rows.length} trials`;
    document.querySelectorAll("th[data-column]").forEach((head) => {
      const mine = Number(head.dataset.column) === order.column;
      head.setAttribute("aria-sort", mine ? (order.down ? "descending" : "ascending") : "none");
    });
  }

  function sortBy(place) {
    // the first click on a number brings the largest to the top
    order = { column: place, down: order.column === place ? !order.down : columns[place].numeric };
    drawTable();
  }

  async function copy(button) {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // a page that is no secure one has no clipboard
      const area = make("textarea", { class: "hidden" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = "copied";
    say("command copied");
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  }

  // ---- begin ----
  document.querySelector("thead tr").append(make("th", { scope: "col", class: "shown" }, make("span", { class: "hidden" }, "timeline")),
    ...columns.map((column, place) => make("th", { scope: "col", "data-column": place, title: column.about,
      class: column.numeric ? "number" : null }, make("button", { type: "button", onclick: () => sortBy(place) }, column.title))),
    make("th", { scope: "col" }, "command"));
  get("filter-example").textContent = `${axes.accuracy.name}>0.5 ${axes.cost.name}<0.8`;
  get("filter").addEventListener("input", drawTable);
  get("all-costs").addEventListener("click", () => { allCosts = !allCosts; drawCosts(); });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.toggle) toggle(button.dataset.toggle);
    if (button?.dataset.copy) copy(button);
  });
  function drawAll() {
    drawScatter();
    drawChosen();
    drawHistory();
    drawCosts();
    drawSeeds();
  }
  drawTable();
  drawAll();
  get("scatter").on("plotly_click", (event) => {
    const id = event.points[0].customdata;
    if (byId.has(id)) toggle(id);
  });
  let width = window.innerWidth, soon = null;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return; // phones: the address bar comes and goes
    width = window.innerWidth;
    clearTimeout(soon);
    soon = setTimeout(drawAll, 150);
  });
  window.addEventListener("beforeprint", drawAll);
  window.addEventListener("afterprint", drawAll);
})();
