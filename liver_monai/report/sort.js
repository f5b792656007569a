"use strict";

function makeSortable(table) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  if (body.rows.length < 2) return;
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim(), number = Number(text.replace("\u2212", "-"));
    return Number.isNaN(number) || text === "" ? text : number;
  };
  const before = (a, b, sign) => {
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // what is missing comes last, both ways
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      const rows = [...body.rows].sort((one, other) => before(value(one, column), value(other, column), sign));
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}

document.querySelectorAll("table").forEach(makeSortable);
