// Choosing rows of a list for one action: boxes keep their marks while the list changes under them, and the bar says how many there are.
"use strict";
(() => {
  const chosen = new Set();
  let last = null;

  const boxes = () => [...document.querySelectorAll("#list input[data-pick]")];

  function show() {
    const all = boxes();
    const here = new Set(all.map((box) => box.value));
    for (const id of [...chosen]) if (!here.has(id)) chosen.delete(id);
    for (const box of all) {
      box.checked = chosen.has(box.value);
      box.closest("tr").classList.toggle("picked", box.checked);
    }
    const whole = document.querySelector("#list [data-pick-all]");
    if (whole) {
      whole.checked = all.length > 0 && chosen.size === all.length;
      whole.indeterminate = chosen.size > 0 && chosen.size < all.length;
    }
    const bar = document.querySelector("#list form[data-bulk]");
    if (!bar) return;
    const count = bar.querySelector("[data-bulk-count]");
    count.textContent = chosen.size === 1 ? count.dataset.one : count.dataset.many.replace("{n}", chosen.size);
    bar.hidden = chosen.size === 0;
    document.getElementById("list").classList.toggle("picking", chosen.size > 0);
  }

  function pick(box, on) {
    if (on) chosen.add(box.value); else chosen.delete(box.value);
  }

  document.addEventListener("change", (event) => {
    if (event.target.matches("input[data-pick-all]")) {
      for (const box of boxes()) pick(box, event.target.checked);
      show();
    } else if (event.target.matches("input[data-pick]")) {
      pick(event.target, event.target.checked);
      show();
    }
  });

  document.addEventListener("click", (event) => {
    const target = event.target.closest ? event.target : event.target.parentElement;
    if (!target) return;
    if (target.closest("[data-bulk-clear]")) { chosen.clear(); show(); }
    // Shift takes everything between two boxes along.
    if (target.matches("input[data-pick]")) {
      const all = boxes();
      const at = all.indexOf(target);
      const from = last ? all.findIndex((box) => box.value === last) : -1;
      if (event.shiftKey && from >= 0) {
        for (const box of all.slice(Math.min(at, from), Math.max(at, from) + 1)) pick(box, target.checked);
        show();
      }
      last = target.value;
    }
    // One open menu at a time, and none after a click elsewhere.
    const inside = target.closest("details.drop");
    for (const menu of document.querySelectorAll("details.drop[open]")) {
      if (menu !== inside || target.closest(".drop-panel button:not(.plain), .drop-panel a")) menu.open = false;
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      const menu = document.querySelector("details.drop[open]");
      if (menu) { menu.open = false; menu.querySelector("summary").focus(); }
      return;
    }
    const letters = document.getElementById("letters");
    if ((letters && !letters.checked) || event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]")) return;
    const row = document.activeElement ? document.activeElement.closest("tr[data-row]") : null;
    if (event.key === "x" && row) {
      const box = row.querySelector("input[data-pick]");
      if (box) { pick(box, !box.checked); last = box.value; show(); }
    } else if (event.key === "b") {
      const button = document.querySelector("#list form[data-bulk]:not([hidden]) button");
      if (button) button.focus();
    }
  });

  document.addEventListener("htmx:afterSettle", show);

  document.addEventListener("kf:acted", (event) => {
    if (event.target.closest && event.target.closest("[data-bulk]")) { chosen.clear(); show(); }
  });

  show();
})();
