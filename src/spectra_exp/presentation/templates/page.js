"use strict";
// Sorting, filtering, choices, copying, the theme and the words under the pointer. Without it all content is shown.
document.documentElement.classList.add("js");

const stored = {
  get() { try { return localStorage.getItem("theme"); } catch { return null; } },
  // A browser may refuse storage to files.
  set(value) { try { localStorage.setItem("theme", value); } catch { return; } },
};
if (stored.get()) document.documentElement.dataset.theme = stored.get();

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  stored.set(root.dataset.theme);
}

// The number that a cell begins with, or null: "4.97 ± 0.12 **", "−0.3", "[0.1, 0.2]", "1.2M", "3.1e-05".
const NUMBER = /^\[?([+−-]?)(\d+(?:\.\d+)?(?:e[+-]?\d+)?)([kMG]?)(?: ± \S+|, \S+\])?(?: \*{1,3})?$/;
const SIZES = { "": 1, k: 1e3, M: 1e6, G: 1e9 };
function cellNumber(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const found = NUMBER.exec(cell.textContent.trim());
  if (!found) return null;
  return (found[1] === "−" || found[1] === "-" ? -1 : 1) * Number(found[2]) * SIZES[found[3]];
}

// Numbers by value, then words, then empty cells, which stay last in both directions.
function compareCells(a, b, direction) {
  const [textA, textB] = [a.textContent.trim(), b.textContent.trim()];
  if (!textA || !textB) return (textA ? 0 : 1) - (textB ? 0 : 1);
  const [numberA, numberB] = [cellNumber(a), cellNumber(b)];
  if (numberA !== null && numberB !== null) return direction * (numberA - numberB);
  if (numberA !== null || numberB !== null) return numberA !== null ? -1 : 1;
  return direction * textA.localeCompare(textB, "en", { numeric: true });
}

function sortBy(head) {
  const table = head.closest("table");
  const body = table.tBodies[0];
  const column = head.cellIndex;
  const rising = head.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const rows = [...body.rows];
  rows.sort((a, b) => compareCells(a.cells[column], b.cells[column], rising ? 1 : -1));
  body.append(...rows);
}

function filterRows(field) {
  const box = field.closest(".grid-box");
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...box.querySelector("tbody").rows];
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  const unit = rows.length === 1 ? "row" : "rows";
  box.querySelector("output").textContent = words.length ? `${shown} of ${rows.length} ${unit}` : `${rows.length} ${unit}`;
}

function choose(select) {
  const panels = [...select.closest(".choice").children].filter((child) => child.classList.contains("panel"));
  panels.forEach((panel, index) => panel.classList.toggle("chosen", index === select.selectedIndex));
}

async function copy(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select it and copy";
  }
  setTimeout(() => { button.textContent = before; }, 1500);
}

// What stands in an SVG title is shown at once, also for the keyboard.
function prepareTips() {
  for (const mark of document.querySelectorAll(".mark")) {
    const title = mark.querySelector(":scope > title");
    mark.dataset.tip = title.textContent;
    title.remove();
  }
}

function showTip(mark) {
  const tip = document.getElementById("tip");
  tip.textContent = mark.dataset.tip;
  tip.hidden = false;
  const box = mark.getBoundingClientRect();
  const width = document.documentElement.clientWidth;
  const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), width - tip.offsetWidth - 8);
  const above = box.top - tip.offsetHeight - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 0 ? above : box.bottom + 8}px`;
}

function hideTip() { document.getElementById("tip").hidden = true; }

// A link into a folded or filtered place opens it.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const details = target.closest("details");
  if (details) details.open = true;
  const row = target.closest("tr");
  for (const marked of document.querySelectorAll("tr.marked")) marked.classList.remove("marked");
  if (!row) return;
  row.classList.add("marked");
  const field = row.closest(".grid-box").querySelector("input");
  if (row.hidden) { field.value = ""; filterRows(field); }
  row.scrollIntoView({ block: "center" });
}

document.addEventListener("DOMContentLoaded", () => {
  prepareTips();
  document.getElementById("theme").addEventListener("click", toggleTheme);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.closest("thead")) sortBy(button.closest("th"));
    else if (button.classList.contains("copy")) copy(button, button.previousElementSibling.textContent);
    else if (button.classList.contains("copy-all")) copy(button, button.dataset.copy);
  });
  document.addEventListener("input", (event) => {
    if (event.target.matches(".filter input")) filterRows(event.target);
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches(".chooser select")) choose(event.target);
  });
  // Some browsers keep what was chosen and typed when a page is loaded again.
  document.querySelectorAll(".chooser select").forEach(choose);
  document.querySelectorAll(".filter input").forEach(filterRows);
  for (const kind of ["pointerover", "focusin"]) {
    document.addEventListener(kind, (event) => {
      const mark = event.target.closest(".mark") || event.target.querySelector?.(":scope > .mark");
      if (mark && mark.dataset.tip) showTip(mark); else hideTip();
    });
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  document.addEventListener("scroll", hideTip, { passive: true, capture: true });
  window.addEventListener("hashchange", reveal);
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
  reveal();
});
