// Tables that are sorted by their headings: numbers by value, everything else as text; missing values come last.
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

  window.addEventListener("DOMContentLoaded", () => {
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
