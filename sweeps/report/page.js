"use strict";
// Draws the figures in the reader's colour scheme and fills the table of trials. No library but Plotly.

const content = JSON.parse(document.getElementById("content").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const NARROW = 600, PRINTED = 680, GAP = 24;
const drawn = [];

const scheme = () => content.templates[dark.matches ? "dark" : "light"];

function fitted(figure, width) {
  // on a phone, colour bars lie below their figure
  if (width >= NARROW) return figure;
  const bars = figure.data.filter((trace) => trace.colorbar && trace.type !== "parcoords");
  for (const trace of bars) {
    trace.colorbar = {
      ...trace.colorbar, orientation: "h", x: 0.5, y: -0.22, yanchor: "top", len: 1,
      title: { ...trace.colorbar.title, text: (trace.colorbar.title.text || "").replace("<br>", " "), side: "top" },
    };
  }
  const margin = { ...figure.layout.margin, l: 44, r: 8 };
  if (bars.length) margin.b = 110;
  figure.layout = { ...figure.layout, margin };
  return figure;
}

function draw(box) {
  const figure = fitted(content.figures[box.dataset.figure], box.clientWidth);
  const layout = { ...figure.layout, template: scheme(), autosize: true, height: box.clientHeight };
  const touch = matchMedia("(pointer: coarse)").matches;
  const config = { responsive: true, displayModeBar: false, scrollZoom: false, doubleClick: "reset" };
  if (!touch && layout.dragmode === false) layout.dragmode = "zoom";
  drawn.push(box);
  return Plotly.newPlot(box, figure.data, layout, config);
}

function drawRest(boxes) {
  // one at a time, so that the page can be scrolled meanwhile
  const next = boxes.shift();
  if (!next) {
    document.documentElement.dataset.drawn = "all";
    return;
  }
  setTimeout(() => drawRest(boxes));
  draw(next);
}

dark.addEventListener("change", () => drawn.forEach((box) => Plotly.relayout(box, { template: scheme() })));
addEventListener("beforeprint", () => drawn.forEach((box) => {
  const half = box.parentElement.classList.contains("half");
  Plotly.relayout(box, { template: content.templates.light, width: half ? (PRINTED - GAP) / 2 : PRINTED });
}));
addEventListener("afterprint", () => drawn.forEach((box) =>
  Plotly.relayout(box, { template: scheme(), width: null, autosize: true })));

const PAGE = 25;

function fillTable(box, table) {
  const [head, body] = [box.querySelector("thead"), box.querySelector("tbody")];
  const [back, on, place, filter] = [".back", ".on", ".place", "input"].map((name) => box.querySelector(name));
  const all = table.rows.map((cells, i) => ({ cells, kind: table.classes[i] }));
  let rows = all, page = 0, sorted = null, up = false;

  const cell = (value, kind, name) => {
    const td = document.createElement("td");
    td.textContent = value === null ? "–" : String(value);
    if (kind === "number" && (typeof value === "number" || value === null)) td.className = "number";
    if (name === "why it ended") { td.className = "long"; td.title = td.textContent; }
    if (name === "state") {
      const dot = document.createElement("span");
      dot.className = "dot";
      td.prepend(dot);
    }
    return td;
  };
  const show = () => {
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    page = Math.min(page, pages - 1);
    body.replaceChildren(...rows.slice(page * PAGE, page * PAGE + PAGE).map((row) => {
      const tr = document.createElement("tr");
      tr.className = "is-" + row.kind;
      tr.append(...row.cells.map((value, i) => cell(value, table.columns[i][1], table.columns[i][0])));
      return tr;
    }));
    place.textContent = rows.length ? `${page * PAGE + 1}–${Math.min(rows.length, page * PAGE + PAGE)} of ${rows.length}` : "none";
    back.disabled = page === 0;
    on.disabled = page === pages - 1;
  };
  const arrange = () => {
    const wanted = filter.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
    rows = all.filter((row) => wanted.every((word) => (row.cells.join(" ") + " " + row.kind).toLowerCase().includes(word)));
    if (sorted !== null) {
      const order = (a, b) => {
        const [x, y] = [a.cells[sorted], b.cells[sorted]];
        if (x === null || y === null) return (x === null) - (y === null); // missing ones always last
        const less = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
        return up ? less : -less;
      };
      rows = [...rows].sort(order);
    }
    show();
  };
  const tr = document.createElement("tr");
  table.columns.forEach(([name, kind], i) => {
    const th = document.createElement("th");
    th.textContent = name;
    th.className = kind;
    th.tabIndex = 0;
    const sort = () => {
      up = sorted === i ? !up : kind === "text";
      sorted = i;
      page = 0;
      tr.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      arrange();
    };
    th.addEventListener("click", sort);
    th.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    tr.append(th);
  });
  head.append(tr);
  back.addEventListener("click", () => { page -= 1; show(); });
  on.addEventListener("click", () => { page += 1; show(); });
  filter.addEventListener("input", () => { page = 0; arrange(); });
  show();
}

document.querySelectorAll(".sortable").forEach((box) => fillTable(box, content.tables[box.dataset.table]));
drawRest([...document.querySelectorAll(".figure")]);
