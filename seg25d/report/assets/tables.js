// Tables that are sorted by their headings: numbers by value, everything else as text; missing values come last.
// Tables that are wider than their place become a block per row, so that no column is cut off.
(() => {
  "use strict";

  const valueOf = (cell) => {
    const text = cell.textContent.trim();
    const number = Number(text);
    return text !== "" && !Number.isNaN(number) ? number : text;
  };

  const isMissing = (value) => value === "–";

  const compare = (one, other) =>
    typeof one === "number" && typeof other === "number"
      ? one - other
      : String(one).localeCompare(String(other), undefined, { numeric: true });

  const sort = (table, heading) => {
    const column = [...heading.parentElement.children].indexOf(heading);
    const first = heading.classList.contains("number") ? "descending" : "ascending";
    const second = first === "descending" ? "ascending" : "descending";
    const order = heading.getAttribute("aria-sort") === first ? second : first;
    for (const each of heading.parentElement.children) each.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: valueOf(row.cells[column]) }));
    rows.sort((one, other) => {
      if (isMissing(one.value) || isMissing(other.value)) return isMissing(one.value) - isMissing(other.value);
      return sign * compare(one.value, other.value);
    });
    table.tBodies[0].append(...rows.map(({ row }) => row));
  };

  const describe = (table) => {
    // What is laid out as blocks is no table for a screen reader any more, unless it is said.
    const headings = [...table.tHead.rows[0].cells].map((heading) => heading.textContent.trim());
    table.setAttribute("role", "table");
    for (const row of table.rows) {
      row.setAttribute("role", "row");
      for (const [column, cell] of [...row.cells].entries()) {
        const heading = cell.scope === "row" ? "rowheader" : "columnheader";
        cell.setAttribute("role", cell.tagName === "TH" ? heading : "cell");
        if (cell.tagName === "TD") cell.dataset.heading = headings[column];
      }
    }
  };

  const fit = (place, table) => {
    place.classList.remove("stacked");
    place.classList.toggle("stacked", table.scrollWidth > place.clientWidth);
  };

  window.addEventListener("DOMContentLoaded", () => {
    for (const place of document.querySelectorAll(".scroll")) {
      const table = place.querySelector("table");
      let width = 0;
      describe(table);
      // Also when what was folded is opened.
      new ResizeObserver(() => {
        if (place.clientWidth === width) return;
        width = place.clientWidth;
        if (width > 0) fit(place, table);
      }).observe(place);
    }
    for (const table of document.querySelectorAll("table.sortable")) {
      for (const heading of table.tHead.rows[0].cells) {
        const button = document.createElement("button");
        button.type = "button";
        button.append(...heading.childNodes);
        heading.append(button);
        button.addEventListener("click", () => sort(table, heading));
      }
    }
  });
})();
