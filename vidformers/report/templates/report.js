"use strict";
// Tables are complete without this script; it adds sorting and, for long ones, a filter.
function sortValue(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.firstChild?.textContent ?? "";
  const number = parseFloat(text.replace("\u2212", "-"));
  if (!Number.isNaN(number) && cell.tagName === "TD") return number;
  return cell.tagName === "TD" ? null : text.toLowerCase();
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null); // missing numbers last, either way
  if (typeof a === "string") return sign * a.localeCompare(b, undefined, { numeric: true });
  return sign * (a - b);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => ({ row, value: sortValue(row, column) }));
      rows.sort((a, b) => compare(a.value, b.value, descending ? -1 : 1));
      body.append(...rows.map((entry) => entry.row));
    });
  });
  if (table.classList.contains("filtered") && body.rows.length > 20) {
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "Filter by name";
    input.setAttribute("aria-label", "Filter the rows by name");
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      for (const row of body.rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    });
    table.parentElement.before(input);
  }
}
