// What a person does on the page: choose trials, sort and filter the table, copy a command.
const order = { place: null, down: false };
const say = (text) => { get("said").textContent = text; };

function toggle(id) {
  const row = byId.get(id);
  if (!row.runs.length) { say(`no epochs of ${nameOf(row)} are known`); return; }
  state.chosen = state.chosen.includes(id) ? state.chosen.filter((other) => other !== id)
    : [...state.chosen, id].slice(-MOST);
  say(`${nameOf(row)} ${state.chosen.includes(id) ? "added to" : "removed from"} the timelines`);
  drawChosen();
  drawScatter();
  drawCosts();
  for (const button of document.querySelectorAll("td [data-toggle]")) {
    button.setAttribute("aria-pressed", state.chosen.includes(button.dataset.toggle));
  }
}

function drawChosen() {
  const colors = chosenColors();
  const chips = state.chosen.map((id) => make("button", { type: "button", "data-toggle": id,
    style: `border-color: ${colors.get(id)}`,
    "aria-label": `remove ${nameOf(byId.get(id))} from the timelines` }, `${nameOf(byId.get(id))} ×`));
  const why = rows.some((row) => row.runs.length) ? "none chosen" : "no trial's epochs are known here";
  get("chosen").replaceChildren(...(chips.length ? chips : [make("span", { class: "muted" }, why)]));
  drawTimelines();
}

// ---- table ----
// Words, and comparisons of a column by its key or title: map50>0.6
function wantedOf(text) {
  return text.split(/\s+/).filter(Boolean).map((word) => {
    const [, name, sign, value] = /^(.+?)(<=|>=|<|>|=)(.+)$/.exec(word) || [];
    const place = columns.findIndex((column) => column.key === name || column.title === name);
    return place < 0 ? { word: word.toLowerCase() } : { place, sign, value };
  });
}

function matches(row, { word, place, sign, value }) {
  if (word !== undefined) return row.cells.some((cell) => String(cell[0]).toLowerCase().includes(word));
  const own = row.cells[place][1], bound = Number(value);
  if (own === null) return false;
  if (typeof own !== "number") return sign === "=" && own.toLowerCase() === value.toLowerCase();
  return { "<": own < bound, ">": own > bound, "<=": own <= bound, ">=": own >= bound,
    "=": own === bound }[sign];
}

// What is not known comes last, whichever way it is sorted.
function compare(a, b) {
  const [one, other] = [a.cells[order.place][1], b.cells[order.place][1]];
  if (one === null || other === null) return (one === null) - (other === null);
  const numbers = typeof one === "number" && typeof other === "number";
  const up = numbers ? one - other : String(one).localeCompare(String(other), undefined, { numeric: true });
  return order.down ? -up : up;
}

function drawTable() {
  const wanted = wantedOf(get("filter").value);
  const shown = rows.filter((row) => wanted.every((one) => matches(row, one)));
  if (order.place !== null) shown.sort(compare);
  document.querySelector("tbody").replaceChildren(...shown.map(tableRow));
  const all = `${rows.length} trial${rows.length === 1 ? "" : "s"}`;
  get("count").textContent = shown.length === rows.length ? all : `${shown.length} of ${all}`;
  for (const head of document.querySelectorAll("th[data-place]")) {
    const mine = Number(head.dataset.place) === order.place;
    head.setAttribute("aria-sort", mine ? (order.down ? "descending" : "ascending") : "none");
  }
}

function tableRow(row) {
  const timeline = make("button", { type: "button", "data-toggle": row.id,
    "aria-pressed": state.chosen.includes(row.id), disabled: row.runs.length ? null : "",
    "aria-label": `timeline of ${nameOf(row)}` }, "timeline");
  const copy = make("button", { type: "button", "data-copy": row.command, disabled: row.command ? null : "",
    "aria-label": `copy the command of ${nameOf(row)}`, title: row.command }, "copy");
  const cells = row.cells.map((cell, place) => make("td", { class: columns[place].numeric ? "number" : null,
    title: columns[place].key === "standing" ? row.failure : null }, cell[0]));
  return make("tr", { class: row.first === "recommended" ? "strong" : null },
    make("th", { scope: "row" }, row.cells[0][0]), make("td", { class: "tools" }, timeline, " ", copy),
    ...cells.slice(1), make("td", { class: "line" }, make("code", {}, row.command || "")));
}

function tableHead() {
  const heads = columns.map((column, place) => make("th", { scope: "col", "data-place": place,
    title: column.about, class: column.numeric ? "number" : null },
  make("button", { type: "button" }, column.title)));
  const tools = make("th", { scope: "col", class: "tools" },
    make("span", { class: "hidden" }, "timeline, command"));
  document.querySelector("thead tr").append(heads[0], tools, ...heads.slice(1),
    make("th", { scope: "col", class: "line" }, "command"));
}

function sortBy(place) {
  // the first click on a number brings the largest to the top
  order.down = order.place === place ? !order.down : columns[place].numeric;
  order.place = place;
  drawTable();
}

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch { // a page from elsewhere than https or a file has no clipboard
    const area = make("textarea", { class: "hidden" });
    area.value = button.dataset.copy;
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
function drawAll() {
  drawScatter();
  drawChosen();
  drawHistory();
  drawCosts();
  drawSeeds();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { place } = button.parentElement.dataset;
  if (button.dataset.toggle) toggle(button.dataset.toggle);
  else if (button.dataset.copy) copy(button);
  else if (place) sortBy(Number(place));
});
get("filter").addEventListener("input", drawTable);
get("all-costs").addEventListener("click", () => { state.allCosts = !state.allCosts; drawCosts(); });
get("filter-example").textContent = `${axes.accuracy.name}>0.5 ${axes.cost.name}<0.8`;
tableHead();
drawTable();
drawAll();
get("scatter").on("plotly_click", (event) => {
  const id = event.points[0].customdata;
  if (byId.has(id)) toggle(id);
});

let width = window.innerWidth, soon = null;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return; // on phones the address bar comes and goes
  width = window.innerWidth;
  clearTimeout(soon);
  soon = setTimeout(drawAll, 150);
});
for (const moment of ["beforeprint", "afterprint"]) {
  window.addEventListener(moment, () => { // figures are drawn for the width of the paper, not of the window
    document.body.classList.toggle("paper", moment === "beforeprint");
    drawAll();
  });
}
