"use strict";
// Sort a table by a column: within each tbody, so that controls stay set apart; cells without a value go last.
function sortable(table) {
  const headers = [...table.querySelectorAll("thead tr:last-child th")];
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const numeric = header.classList.contains("number");
      const before = header.getAttribute("aria-sort");
      const ascending = before ? before !== "ascending" : !numeric;
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      for (const body of table.tBodies) {
        const value = (row) => row.cells[column].dataset.sort;
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
          const order = numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true });
          return ascending ? order : -order;
        });
        body.append(...rows);
      }
    });
  });
}
document.querySelectorAll("table.sortable").forEach(sortable);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// A search field above what can be searched; says how much is left. `apply(words)` returns [shown, all].
function searchField(label, apply) {
  const count = element("output", { className: "count" });
  const input = element("input", { type: "search", placeholder: label, autocomplete: "off", spellcheck: false });
  input.setAttribute("aria-label", label);
  const update = () => {
    const [shown, all] = apply(input.value.trim().toLowerCase().split(/[\s,]+/).filter(Boolean));
    count.textContent = shown === all ? `${all} rows` : `${shown} of ${all} rows`;
  };
  input.addEventListener("input", update);
  update();
  return element("p", { className: "search" }, input, " ", count);
}

// Long tables can be searched: a row stays when any of the words begins a word of it.
for (const table of document.querySelectorAll("table")) {
  const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
  if (rows.length <= 15) continue;
  const texts = rows.map((row) => ` ${row.textContent.replace(/\s+/g, " ").toLowerCase()}`);
  const field = searchField("find a row", (words) => {
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = words.length > 0 && !words.some((word) => texts[i].includes(` ${word}`));
      shown += !row.hidden;
    });
    return [shown, rows.length];
  });
  table.closest(".scroll").before(field);
}

// Every gene: a table made here from the numbers in the page, a page of rows at a time.
for (const place of document.querySelectorAll(".genes")) {
  const { genes, columns, values } = JSON.parse(place.querySelector("script").textContent);
  const STEP = 25;
  let limit = STEP;
  let order = genes.map((_, i) => i);
  let words = [];
  const body = element("tbody");
  const number = (value) => (value === null ? "–" : value.toFixed(3).replace("-", "−"));
  const headers = ["gene", ...columns].map((name, column) => {
    const button = element("button", { type: "button" }, name, element("span", { className: "arrow" }));
    const header = element("th", { scope: "col", className: column ? "number" : "text" }, button);
    button.addEventListener("click", () => {
      const before = header.getAttribute("aria-sort");
      const ascending = before ? before !== "ascending" : column === 0;
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      order.sort((a, b) => {
        if (column === 0) return (ascending ? 1 : -1) * genes[a].localeCompare(genes[b], "en", { numeric: true });
        const [x, y] = [values[column - 1][a], values[column - 1][b]];
        if (x === null || y === null) return (x === null) - (y === null);
        return ascending ? x - y : y - x;
      });
      draw();
    });
    return header;
  });
  const more = element("button", { type: "button", className: "more" });
  more.addEventListener("click", () => {
    limit += 4 * STEP;
    draw();
  });
  function draw() {
    const found = order.filter((i) => !words.length || words.some((word) => genes[i].toLowerCase().startsWith(word)));
    const rows = found.slice(0, limit).map((i) => {
      const known = values.slice(0, columns.length).map((of) => of[i]);
      return element(
        "tr", {},
        element("th", { scope: "row", className: "text" }, genes[i]),
        ...known.map((value) => element("td", { className: "number" }, number(value))),
      );
    });
    body.replaceChildren(...rows);
    more.hidden = found.length <= limit;
    more.textContent = `show more (${found.length - rows.length} left)`;
    return [found.length, genes.length];
  }
  const table = element("table", { className: "sticky" }, element("thead", {}, element("tr", {}, ...headers)), body);
  const scroll = element("div", { className: "scroll" }, table);
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", place.dataset.label);
  const field = searchField("find genes, e.g. GNAS FASN", (typed) => {
    words = typed;
    limit = STEP;
    return draw();
  });
  place.replaceChildren(field, scroll, more);
}

// Choose what is shown: sections by dataset, split and target, columns by metric pack. Empty: everything.
const filters = [...document.querySelectorAll(".filters select")];
for (const select of filters) {
  select.addEventListener("change", () => {
    if (select.name === "pack") {
      document.body.dataset.pack = select.value;
      return;
    }
    const chosen = filters.filter((other) => other.name !== "pack" && other.value);
    for (const part of document.querySelectorAll("[data-dataset]")) {
      part.hidden = chosen.some((other) => part.dataset[other.name] !== other.value);
    }
  });
}

// Print everything: closed parts are opened for the printer and closed again.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach((part) => (part.open = true));
});
addEventListener("afterprint", () => closed.forEach((part) => (part.open = false)));
