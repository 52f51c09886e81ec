// Keeps a page true: fragments are fetched again when the server says that they changed, ages go on counting, and a lost stream is said aloud.
"use strict";
(() => {
  const body = document.body;
  const words = JSON.parse(body.dataset.words || "{}");
  const NAMES = ["tick", "rows", "counts", "touched", "orders", "ages", "platform", "alarm", "resync"];
  const LOST_AFTER_MS = 5000;
  let skew = Number(body.dataset.now) - Date.now();
  let heard = 0; // by this machine's clock; 0: not yet
  let lost = false;
  let stale = false;
  let polling = 0; // seconds between two looks, where the server has no room for another stream
  let fell = 0; // since when an answer is missing that this page needs to be true; 0: nothing is

  const serverNow = () => Date.now() + skew;
  const { fill } = ages;
  const duration = (ms) => ages.duration(words, ms);

  // ---- ages -----------------------------------------------------------------------------------------------------------------------

  function count() {
    const now = serverNow();
    for (const time of document.querySelectorAll("time.tick")) {
      const at = Number(time.dataset.at);
      const length = time.dataset.form === "until" ? at - now : now - at;
      const text = time.dataset.form === "ago" ? fill(words.ago, { duration: duration(length) }) : duration(length);
      if (time.textContent !== text) time.textContent = text;
      if (time.dataset.form === "ago") time.classList.toggle("strong", length > 90000);
    }
  }

  function showLive() {
    const box = document.getElementById("live");
    const bar = document.getElementById("lost");
    if (!box || !bar) return;
    const silent = fell ? Date.now() - fell : heard ? Date.now() - heard : Date.now() - started;
    const now = silent > LOST_AFTER_MS + polling * 1000 || Boolean(fell) || (lost && catching);
    if (now !== lost) {
      lost = now;
      box.classList.toggle("lost", lost);
      bar.hidden = !lost;
      const at = new Date(serverNow() - silent);
      const time = at.toLocaleTimeString("en-GB", { timeZone: body.dataset.zone || undefined, hour12: false });
      bar.textContent = lost ? fill(words.lost, { time }) : "";
    }
    const text = box.querySelector("[data-live-text]");
    const said = lost ? words.off : polling ? fill(words.poll, { n: polling }) : heard ? fill(words.on, { age: fill(words.ago, { duration: duration(silent) }) }) : text.textContent;
    if (text.textContent !== said) text.textContent = said;
  }
  const started = Date.now();

  let catching = false;
  const awaited = new Set();
  function caughtUp() {
    if (!catching || awaited.size || overdue()) return;
    catching = false;
    showLive();
  }
  document.addEventListener("htmx:beforeRequest", (event) => { if (catching) awaited.add(event.detail.xhr); });
  for (const name of ["htmx:sendError", "htmx:timeout", "htmx:responseError"]) {
    document.addEventListener(name, (event) => {
      const { xhr, requestConfig } = event.detail;
      const refused = xhr && xhr.status >= 400 && xhr.status < 500;
      if (requestConfig && requestConfig.headers["X-Live"] && !refused) fallBehind();
    });
  }
  document.addEventListener("htmx:afterRequest", (event) => { if (awaited.delete(event.detail.xhr)) caughtUp(); });

  // The stream may live while an answer fails: what is on the page is then older than it looks. Say so, and ask again.
  let asking = 0;
  function fallBehind() {
    if (!fell) fell = Math.min(Date.now(), heard || Date.now());
    catching = true;
    showLive();
    clearTimeout(asking);
    asking = setTimeout(() => { fell = 0; shared.catchUp(); }, LOST_AFTER_MS);
  }

  // ---- parts ----------------------------------------------------------------------------------------------------------------------

  // A part names in data-live the news that it is fetched again for, and in data-pace-s how long it lets news of the stream gather. While it is being
  // fetched it cannot be asked: htmx would note the request on the element that the answer replaces, and the last news would never be shown.
  const BUSY = ".htmx-request, .htmx-swapping, .htmx-added";
  const due = new Map(); // id of a part → from when on it may be asked, by this machine's clock
  const asked = new Map(); // id of a part → when it was
  let pacing = 0;

  function want(part, paceMs) {
    const from = Math.max(Date.now(), (asked.get(part.id) || 0) + paceMs);
    due.set(part.id, Math.min(from, due.get(part.id) || from));
  }
  function wake(name) {
    const paced = name !== "resync" && name !== "acted"; // a person, or a page that lost the stream, does not wait
    for (const part of document.querySelectorAll(`[data-live~="${CSS.escape(name)}"]`)) want(part, paced ? 1000 * (part.dataset.paceS || 0) : 0);
    askDue();
  }
  function askDue() {
    clearTimeout(pacing);
    const now = Date.now();
    let next = Infinity;
    for (const [id, from] of [...due]) {
      const part = document.getElementById(id);
      if (!part) { due.delete(id); continue; }
      if (part.matches(BUSY)) continue; // its answer leads here again
      if (from > now) { next = Math.min(next, from); continue; }
      due.delete(id);
      asked.set(id, now);
      htmx.trigger(part, "kf:live");
    }
    if (next < Infinity) pacing = setTimeout(askDue, next - now);
    caughtUp();
  }
  const overdue = () => [...due.values()].some((from) => from <= Date.now());
  for (const name of ["htmx:afterRequest", "htmx:afterSettle"]) document.addEventListener(name, () => setTimeout(askDue, 0));
  document.addEventListener("kf:acted", () => wake("acted"));

  // ---- the stream -----------------------------------------------------------------------------------------------------------------

  // The server's news, from the worker that all tabs share.
  class SharedSource {
    constructor() {
      this.opened = false;
      this.connect();
    }

    connect() {
      if (window.SharedWorker) {
        this.worker = new SharedWorker(body.dataset.worker, { name: "kiosk-fleet-live" });
        this.worker.port.onmessage = (message) => this.receive(message.data.name, message.data.data, message.data.id);
        window.addEventListener("pagehide", () => this.worker.port.postMessage("bye"));
        window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
        return;
      }
      // No shared worker: this tab has a stream of its own, and gives it back while nobody looks.
      let newest = "";
      let retry = 0;
      const close = () => { clearTimeout(retry); if (this.direct) this.direct.close(); this.direct = null; };
      const open = () => {
        close();
        if (document.hidden) return;
        const source = new EventSource("/live" + (newest ? `?after=${encodeURIComponent(newest)}` : ""));
        this.direct = source;
        source.onopen = () => this.receive("open");
        source.onerror = async () => {
          this.receive("error");
          if (source.readyState !== EventSource.CLOSED || source !== this.direct) return;
          close();
          let wait = 2;
          try {
            const answer = await fetch("/live/room", { headers: { "X-Live": "1" }, cache: "no-store" });
            if (answer.status === 503) {
              wait = Number(answer.headers.get("Retry-After")) || 15;
              this.receive("full", String(wait));
            }
          } catch {
            // The server is away; the bar says so.
          }
          clearTimeout(retry);
          retry = setTimeout(open, wait * 1000);
        };
        for (const name of NAMES) {
          source.addEventListener(name, (event) => {
            newest = event.lastEventId || newest;
            this.receive(name, event.data, event.lastEventId);
          });
        }
      };
      document.addEventListener("visibilitychange", () => { if (document.hidden) close(); else { stale = true; open(); } });
      open();
    }

    receive(name, data, id) {
      // The page was made before this stream spoke: if something was committed in between, nobody else would tell.
      if (id && !this.placed) {
        this.placed = true;
        if (Number(id) > Number(body.dataset.change)) setTimeout(() => this.pass("resync"), 0);
      }
      if (name === "full") {
        // No room for a stream: every refusal is a look at the database instead.
        polling = Number(data);
        heard = Date.now();
        this.opened = true;
        if (document.hidden) { stale = true; return; }
        this.catchUp();
        showLive();
        return;
      }
      if (name === "open") {
        heard = Date.now();
        polling = 0;
        if (this.opened) this.catchUp(); // what changed meanwhile is asked of the database, not guessed
        this.opened = true;
        return;
      }
      if (name === "error") return;
      showLive(); // a laptop that slept notices here how long nothing was heard, before it believes the next word
      const missed = lost && !catching;
      heard = Date.now();
      if (missed) this.catchUp();
      if (name === "tick") { skew = Number(data) - Date.now(); showLive(); return; }
      if (document.hidden) { stale = true; if (name !== "ages") return; }
      if (name === "ages") return heardOf(JSON.parse(data));
      if (name === "alarm") return announce(JSON.parse(data));
      if (name === "touched") {
        for (const id of JSON.parse(data)) this.pass(`t-${id}`);
        return;
      }
      if (name === "rows") return rowsChanged(JSON.parse(data));
      if (name === "resync") return missed ? undefined : this.catchUp();
      this.pass(name);
    }

    // After a loss the bar stays until everything that was asked for again has arrived: old data is never shown as new.
    catchUp() {
      if (!catching) awaited.clear(); // the server repeats itself after a reconnect: the first answers still count
      catching = true;
      this.pass("resync");
    }

    pass(name) {
      if (name === "resync") for (const list of document.querySelectorAll("[data-list]")) clearPill(list);
      wake(name);
    }
  }

  let shared = null;
  document.addEventListener("DOMContentLoaded", () => { shared = new SharedSource(); }); // htmx has looked at the parts by then
  document.addEventListener("visibilitychange", () => {
    if (document.hidden || !stale || !shared) return;
    stale = false;
    showLive();
    shared.pass("resync");
  });

  function heardOf(changed) {
    for (const [id, [reported, seen]] of Object.entries(changed)) {
      for (const time of document.querySelectorAll(`[data-age-of="${id}"] time.tick`)) time.dataset.at = Math.max(reported || 0, seen || 0);
      for (const time of document.querySelectorAll(`[data-seen-of="${id}"] time.tick`)) time.dataset.at = Math.max(reported || 0, seen || 0);
    }
  }

  function announce(faults) {
    const said = faults.map((fault) => fill(words.newFault, { problem: `${fault.label} ${fault[words.lang]}` })).join(" ");
    document.getElementById("say").textContent = said;
  }

  // ---- lists: rows change in place, nothing moves under a pointer -------------------------------------------------------------------

  function held(list) {
    if (list.contains(document.activeElement) && document.activeElement !== document.body) return true;
    const fine = window.matchMedia("(hover: hover)").matches;
    const table = list.querySelector("table");
    return fine ? Boolean(table && table.matches(":hover")) : window.scrollY > 160;
  }

  function rowsChanged(ids) {
    for (const list of document.querySelectorAll("[data-list]")) {
      list.changed = list.changed || new Set();
      for (const id of ids) list.changed.add(id);
      if (!held(list)) { refresh(list); continue; }
      const visible = ids.filter((id) => document.getElementById(`row-${id}`));
      if (list.dataset.rows && visible.length) {
        flashing = new Set(visible);
        htmx.ajax("GET", list.dataset.rows + (list.dataset.rows.includes("?") ? "&" : "?") + "ids=" + visible.join(","), { source: list, swap: "none", headers: { "X-Live": "1" } });
      }
      const pill = list.querySelector("[data-pill]");
      if (pill) {
        pill.hidden = false;
        pill.textContent = list.changed.size === 1 ? words.pill1 : fill(words.pill, { n: list.changed.size });
      }
    }
  }

  let flashing = new Set();
  function refresh(list) {
    flashing = list.changed || new Set();
    clearPill(list);
    want(list, 0);
    askDue();
  }
  function clearPill(list) {
    list.changed = new Set();
    const pill = list.querySelector("[data-pill]");
    if (pill) pill.hidden = true;
  }
  function flash() {
    for (const id of flashing) {
      for (const row of document.querySelectorAll(`tr[data-row="${CSS.escape(id)}"], tr[data-terminal="${CSS.escape(id)}"]`)) row.classList.add("flash");
    }
  }

  // ---- around htmx ----------------------------------------------------------------------------------------------------------------

  document.addEventListener("htmx:configRequest", (event) => {
    const cause = event.detail.triggeringEvent;
    const live = cause && (cause.type === "kf:live" || cause.type === "every");
    // A page that refreshes itself is nobody's presence: it must not keep a session alive.
    if (live) event.detail.headers["X-Live"] = "1";
  });

  let opened = [];
  let focused = "";
  document.addEventListener("htmx:beforeSwap", (event) => {
    const target = event.detail.target;
    if (!target) return;
    opened = [...target.querySelectorAll("details[open][id]")].map((element) => element.id);
    const row = document.activeElement && document.activeElement.closest ? document.activeElement.closest("tr[data-row]") : null;
    focused = row && target.contains(row) ? row.dataset.row : "";
  });
  // At once, not when the answer has settled: by then another part's answer may have come, and its own menus and rows stand in these two.
  document.addEventListener("htmx:afterSwap", () => {
    for (const id of opened) { const element = document.getElementById(id); if (element) element.open = true; }
    if (focused) { const row = document.querySelector(`tr[data-row="${CSS.escape(focused)}"]`); if (row) row.focus({ preventScroll: true }); }
  });
  document.addEventListener("htmx:afterSettle", () => {
    flash();
    count();
    needsChanged();
    openDialog();
    focusDrawer();
  });

  function needsChanged() {
    const state = document.getElementById("needs-state");
    const icon = document.getElementById("icon");
    if (!state || !icon) return;
    const n = Number(state.dataset.n);
    const title = (n ? `(${n}) ` : "") + body.dataset.title;
    if (document.title !== title) document.title = title;
    const href = n ? icon.dataset.alert : icon.dataset.calm;
    if (icon.getAttribute("href") !== href) icon.setAttribute("href", href);
    for (const badge of document.querySelectorAll("[data-open-faults]")) {
      badge.textContent = state.dataset.faults;
      badge.hidden = state.dataset.faults === "0";
    }
    for (const badge of document.querySelectorAll("span[data-approvals]")) {
      badge.textContent = state.dataset.approvals;
      badge.hidden = state.dataset.approvals === "0";
    }
  }

  function openDialog() {
    const dialog = document.querySelector("#dialog dialog[open-modal]:not([open])");
    if (!dialog) return;
    dialog.addEventListener("close", () => { document.getElementById("dialog").replaceChildren(); });
    dialog.showModal();
  }

  // ---- drawer ---------------------------------------------------------------------------------------------------------------------

  let opener = null;
  let shown = null;
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.target && event.detail.target.id === "drawer") opener = document.activeElement;
  });
  function focusDrawer() {
    const drawer = document.querySelector("[data-drawer]");
    if (drawer && drawer !== shown) drawer.focus({ preventScroll: true });
    shown = drawer;
  }
  function closeDrawer() {
    const place = document.getElementById("drawer");
    if (!place || !place.firstChild) return false;
    place.replaceChildren();
    shown = null;
    const address = new URL(location.href);
    if (address.searchParams.has("evidence")) {
      address.searchParams.delete("evidence");
      history.replaceState(history.state, "", address);
    }
    if (opener && document.contains(opener)) opener.focus();
    return true;
  }
  window.kfCloseDrawer = closeDrawer;

  // ---- clicks ---------------------------------------------------------------------------------------------------------------------

  document.addEventListener("click", (event) => {
    const target = event.target.closest ? event.target : event.target.parentElement;
    if (!target) return;
    const pill = target.closest("[data-pill]");
    if (pill) { document.activeElement.blur(); refresh(pill.closest("[data-list]")); }
    const close = target.closest("[data-close]");
    if (close) close.closest("dialog").close();
    if (target.closest("[data-close-drawer]")) closeDrawer();
    if (target.closest("[data-help]")) document.getElementById("help").showModal();
    const copy = target.closest("[data-copy]");
    if (copy) copyText(copy);
    const menu = document.querySelector("details.account[open]");
    if (menu && !menu.contains(target)) menu.open = false;
  });

  async function copyText(button) {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Plain HTTP on a local network has no clipboard interface.
      const area = document.createElement("textarea");
      area.value = text;
      button.after(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const before = button.textContent;
    button.textContent = words.copied;
    setTimeout(() => { button.textContent = before; }, 1500);
  }

  document.addEventListener("htmx:responseError", (event) => {
    const toast = document.getElementById("toast");
    const text = event.detail.xhr.responseText;
    if (!toast || !text || text.length > 300) return;
    toast.textContent = text;
    toast.hidden = false;
    setTimeout(() => { toast.hidden = true; }, 6000);
    wake("acted"); // what was refused may be refused because it changed
  });

  // What was done is said on every page.
  document.addEventListener("kf:toast", (event) => {
    const toast = document.getElementById("toast");
    if (!toast || !event.detail || !event.detail.text) return;
    toast.textContent = event.detail.text;
    toast.hidden = false;
    setTimeout(() => { toast.hidden = true; }, 4000);
  });

  // A person who reads without clicking is still there: say so, at most every two minutes.
  let said = Date.now();
  for (const name of ["pointermove", "keydown", "touchstart"]) {
    document.addEventListener(name, () => {
      if (Date.now() - said < 120000) return;
      said = Date.now();
      fetch("/here", { method: "POST", headers: JSON.parse(body.getAttribute("hx-headers")) });
    }, { passive: true });
  }

  setInterval(() => { count(); showLive(); }, 1000);
})();
