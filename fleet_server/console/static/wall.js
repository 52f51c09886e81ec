// A screen that nobody touches for weeks: it turns its views, asks for its data anew when the server says that something changed, says when it
// cannot, and gets over a server that restarts. Everything it keeps is kept once: one chart, one stream, three timers.
"use strict";
(() => {
  const body = document.body;
  const byId = (id) => document.getElementById(id);
  const TICK_MS = 1000;
  const LOST_AFTER_MS = 5000;
  const ASK_AT_MOST_EVERY_MS = 2000;
  const ASK_AT_LEAST_EVERY_MS = 30000;
  const TRY_AGAIN_MS = 5000;
  const SHIFT_EVERY_MS = 60000;

  // ---- the door: a token in the address's fragment, which no server and no log ever sees, becomes a cookie ---------------------------------

  async function enter(token) {
    const answer = await fetch("/wall/enter", { method: "POST", body: new URLSearchParams({ token }), referrerPolicy: "no-referrer" });
    return answer.status;
  }
  const token = location.hash.slice(1);
  if (token) history.replaceState(null, "", "/wall");

  if ("door" in body.dataset) {
    const say = (text) => { byId("door").textContent = text; };
    if (!token) { say(body.dataset.need); return; }
    const knock = async () => {
      const status = await enter(token).catch(() => 0);
      if (status === 200) { location.replace("/wall"); return; }
      if (status === 401) { say(body.dataset.wrong); return; }
      say(status === 429 ? body.dataset.wait : body.dataset.far);
      setTimeout(knock, status === 429 ? 60000 : TRY_AGAIN_MS);
    };
    knock();
    return;
  }
  // A new address opened on a screen that had one already: the new one counts.
  if (token) { enter(token).catch(() => 0).finally(() => location.reload()); return; }

  // ---- what is known -----------------------------------------------------------------------------------------------------------------------

  const words = JSON.parse(body.dataset.words);
  const zone = body.dataset.zone || undefined;
  const { fill } = ages;
  const duration = (ms) => ages.duration(words, ms);
  let skew = Number(body.dataset.now) - Date.now();
  let state = null; // the newest answer
  let at = 0; // which view stands
  let turned = Date.now();
  let paused = false;
  let heard = Date.now(); // the stream, by this machine's clock
  let asked = 0;
  let got = 0; // when the newest answer came
  let asking = false;
  let stale = true;
  let over = false;
  const shown = {}; // view → the markup that stands in it
  let map = null;
  let mapComing = false;
  let drawn = null; // the feed that the map has

  const serverNow = () => Date.now() + skew;
  const timeFormat = new Intl.DateTimeFormat("en-GB", { timeZone: zone, hour12: false, hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const dateFormat = new Intl.DateTimeFormat(document.documentElement.lang, { timeZone: zone, month: "short", day: "numeric", weekday: "short" });

  function set(element, text) { if (element.textContent !== text) element.textContent = text; }
  function put(element, markup) { const part = document.createElement("template"); part.innerHTML = markup; element.replaceChildren(part.content); }

  // ---- asking ------------------------------------------------------------------------------------------------------------------------------

  async function ask() {
    if (asking || over) return;
    asking = true;
    stale = false;
    asked = Date.now();
    try {
      const answer = await fetch("/wall/state", { headers: { Accept: "application/json" }, referrerPolicy: "no-referrer", signal: AbortSignal.timeout(15000) });
      if (answer.status === 401) { end(); return; }
      if (!answer.ok) throw new Error(String(answer.status));
      take(await answer.json());
    } catch {
      stale = true; // asked again with the next tick that allows it; until then what stands is old, and its age says so
    } finally {
      asking = false;
    }
  }

  function take(found) {
    if (found.version !== body.dataset.version || found.lang !== (document.documentElement.lang === "en" ? "en" : "zh")) { location.reload(); return; }
    state = found;
    got = Date.now();
    skew = found.now_ms - got;
    if (at >= state.order.length) at = 0;
    set(byId("name"), state.name);
    set(byId("calendar"), state.calendar);
    keep("counts", byId("counts"), state.counts);
    keepBars(state.bars);
    dots();
    draw();
  }

  function keep(name, element, markup) {
    if (shown[name] === markup) return;
    shown[name] = markup;
    put(element, markup);
  }
  function keepBars(bars) {
    const said = JSON.stringify(bars);
    if (shown.bars === said) return;
    shown.bars = said;
    byId("bars").replaceChildren(...bars.map((bar) => {
      const line = document.createElement("p");
      line.className = `bar ${bar.kind}`;
      line.textContent = bar.text;
      return line;
    }));
  }

  function end() {
    over = true;
    byId("over").hidden = false;
    byId("screen").hidden = true;
    if (source) source.close();
    source = null;
    for (const view of document.querySelectorAll("[data-content]")) view.replaceChildren();
    if (map) { map.dispose(); map = null; }
  }

  // ---- views -------------------------------------------------------------------------------------------------------------------------------

  function draw() {
    if (!state) return;
    const view = state.order[at];
    for (const section of document.querySelectorAll(".view")) section.hidden = section.id !== `view-${view}`;
    keep(view, document.querySelector(`#view-${view} [data-content]`), state.views[view]);
    if (view === "map") drawMap();
    count();
  }

  async function drawMap() {
    if (!map) {
      if (mapComing) return;
      mapComing = true;
      try {
        const answer = await fetch(body.dataset.outline);
        if (!answer.ok) throw new Error(String(answer.status));
        const outline = await answer.json();
        outline.squeeze = Number(body.dataset.squeeze);
        map = window.kfCityMap.create(byId("map"), outline, { still: true, scale: Math.min(window.innerWidth / 960, window.innerHeight / 540) });
        window.kfMap = map;
      } catch {
        return;
      } finally {
        mapComing = false;
      }
    }
    if (drawn !== state.map) { drawn = state.map; map.update(state.map); }
  }

  function turn(by) {
    if (!state) return;
    at = (at + by + state.order.length) % state.order.length;
    turned = Date.now();
    dots();
    draw();
    if (Date.now() - asked >= ASK_AT_MOST_EVERY_MS) ask();
  }

  function dots() {
    const box = byId("dots");
    while (box.children.length > state.order.length) box.lastChild.remove();
    while (box.children.length < state.order.length) box.append(document.createElement("i"));
    [...box.children].forEach((dot, index) => dot.classList.toggle("on", index === at));
  }

  // ---- time --------------------------------------------------------------------------------------------------------------------------------

  function count() {
    const now = serverNow();
    for (const time of document.querySelectorAll(".view:not([hidden]) time.tick")) set(time, duration(now - Number(time.dataset.at)));
  }

  function tick() {
    if (over) { if (Date.now() - asked > 60000) { asked = Date.now(); fetch("/wall/state").then((answer) => { if (answer.ok) location.reload(); }, () => {}); } return; }
    const now = new Date(serverNow());
    set(byId("clock"), timeFormat.format(now));
    set(byId("date"), dateFormat.format(now));
    set(byId("age"), got ? fill(words.data, { duration: duration(Date.now() - Math.max(got, heard)) }) : "");
    const silent = Date.now() - heard;
    const lost = silent > LOST_AFTER_MS;
    const bar = byId("lost");
    if (bar.hidden === lost) {
      bar.hidden = !lost;
      set(bar, lost ? fill(words.lost, { time: timeFormat.format(new Date(serverNow() - silent)) }) : "");
    }
    body.dataset.shift = String(Math.floor(Date.now() / SHIFT_EVERY_MS) % 8);
    count();
    const since = Date.now() - asked;
    if ((stale && since >= ASK_AT_MOST_EVERY_MS) || since >= ASK_AT_LEAST_EVERY_MS) ask();
    if (state && !paused && state.order.length > 1 && Date.now() - turned >= state.interval_s * 1000) turn(1);
    if (!source && Date.now() - opened >= TRY_AGAIN_MS) listen();
  }

  // ---- the stream --------------------------------------------------------------------------------------------------------------------------

  let source = null;
  let opened = 0;
  function listen() {
    opened = Date.now();
    source = new EventSource("/wall/live");
    source.onopen = () => { heard = Date.now(); stale = true; };
    source.onerror = () => {
      // The browser connects again by itself after a broken connection, not after a refusal.
      if (source && source.readyState === EventSource.CLOSED) { source.close(); source = null; stale = true; }
    };
    source.addEventListener("tick", (event) => { heard = Date.now(); skew = Number(event.data) - heard; });
    source.addEventListener("changed", () => { heard = Date.now(); stale = true; });
    source.addEventListener("over", () => { heard = Date.now(); ask(); });
  }

  // ---- keys --------------------------------------------------------------------------------------------------------------------------------

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " || event.key === "p") {
      paused = !paused;
      turned = Date.now();
      byId("paused").hidden = !paused;
    } else if (event.key === "ArrowRight") turn(1);
    else if (event.key === "ArrowLeft") turn(-1);
    else return;
    event.preventDefault();
  });

  listen();
  tick();
  ask();
  setInterval(tick, TICK_MS);
})();
