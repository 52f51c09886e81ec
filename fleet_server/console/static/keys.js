// Keyboard: one letter each, never inside a field, and a switch to turn the letters off.
"use strict";
(() => {
  const box = document.getElementById("letters");
  // The page comes with what the account chose; another choice is kept there.
  if (box) {
    box.addEventListener("change", () => {
      const headers = JSON.parse(document.body.getAttribute("hx-headers"));
      fetch("/account/letters", { method: "POST", headers, body: new URLSearchParams({ letters: box.checked ? "on" : "off" }) });
    });
  }
  const PLACES = { o: "/", t: "/terminals", f: "/faults", s: "/system" };
  let awaiting = 0;

  const rows = () => [...document.querySelectorAll("main tr[data-row]")].filter((row) => row.offsetParent !== null);
  const current = () => (document.activeElement ? document.activeElement.closest("tr[data-row]") : null);

  function step(by) {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(current());
    const next = all[Math.min(all.length - 1, Math.max(0, at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by))];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  }

  function press(key) {
    const scope = current() || document.getElementById("head") || document;
    const button = scope.querySelector(`[data-key="${key}"]`);
    if (button) button.click();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target.closest("input, textarea, select, [contenteditable]");
    if (event.key === "Escape") {
      if (field && field.id === "search") field.blur();
      else if (!document.querySelector("dialog[open]")) window.kfCloseDrawer();
      return;
    }
    if (field || document.querySelector("dialog[open]")) return;
    if (event.key === "Enter") {
      const row = current();
      if (!row || event.target !== row || !row.dataset.href) return;
      const link = row.querySelector(`a[href="${CSS.escape(row.dataset.href)}"]`) || row.querySelector(`a[href="${row.dataset.href}"]`);
      if (link) link.click(); else location.assign(row.dataset.href);
      return;
    }
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const link = document.querySelector(`#timeline [data-key="${event.key === "ArrowLeft" ? "left" : "right"}"]`);
      if (link && !event.target.closest(".tabs, details, .legend, .chips")) link.click();
      return;
    }
    if (box && !box.checked) return;
    if (awaiting && Date.now() - awaiting < 1200 && PLACES[event.key]) {
      awaiting = 0;
      location.assign(PLACES[event.key]);
      return;
    }
    awaiting = 0;
    switch (event.key) {
      case "/": event.preventDefault(); document.getElementById("search").focus(); break;
      case "g": awaiting = Date.now(); break;
      case "j": step(1); break;
      case "k": step(-1); break;
      case "c": case "n": press(event.key); break;
      case "?": document.getElementById("help").showModal(); break;
      default:
    }
  });
})();
