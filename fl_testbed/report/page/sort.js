"use strict";
// A click on a heading sorts its table: largest first, then smallest first; empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const first = column === 0 ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows];
      const number = (row) => parseFloat(row.cells[column].dataset.value);
      const text = (row) => row.cells[column].textContent;
      const compare = (a, b) => {
        if (column === 0) return sign * text(a).localeCompare(text(b), "en", { numeric: true });
        const [x, y] = [number(a), number(b)];
        if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
        return sign * (x - y);
      };
      table.tBodies[0].append(...rows.sort(compare));
    });
  });
}
