// The citizens' pages work without this file. With it: sorting by distance, fresh states, and the memory of elder mode.
//
// Where somebody is never leaves this script. It is held in a variable, put into no request, no address and no storage; the list that is sorted is
// the same for everybody. (tests/browser/test_public.py watches every request that the page makes.)
"use strict";

(() => {
  const REFRESH_MS = 30_000;
  const LOST_MS = 90_000;
  const FIRST = 20;
  const FIRST_ELDER = 6;
  const EARTH_KM = 6371.0088;
  const body = document.body;
  const words = JSON.parse(body.dataset.words);
  const elder = body.dataset.mode === "elder";
  const MODE_KEY = "kf-public-mode";

  const fill = (key, values) => words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const id = (name) => document.getElementById(name);

  // ---- elder mode: the address decides, the memory asks for it ---------------------------------------------------------------------

  function remembered(change) {
    try {
      if (change !== undefined) localStorage.setItem(MODE_KEY, change);
      return localStorage.getItem(MODE_KEY);
    } catch {
      return null; // a browser that stores nothing still has the address
    }
  }

  const address = new URL(location.href);
  if (!address.searchParams.has("mode") && remembered() === "elder") {
    address.searchParams.set("mode", "elder");
    location.replace(address);
    return;
  }
  if (elder) remembered("elder");
  document.querySelector("[data-switch]")?.addEventListener("click", (event) => remembered(event.currentTarget.dataset.switch));

  // ---- distance --------------------------------------------------------------------------------------------------------------------

  let here = null;
  let shown = elder ? FIRST_ELDER : FIRST;

  function kilometres(lat, lon) {
    const rad = Math.PI / 180;
    const up = (lat - here.lat) * rad;
    const across = (lon - here.lon) * rad;
    const half = Math.sin(up / 2) ** 2 + Math.cos(here.lat * rad) * Math.cos(lat * rad) * Math.sin(across / 2) ** 2;
    return 2 * EARTH_KM * Math.asin(Math.min(1, Math.sqrt(half)));
  }

  function distance(km) {
    const metres = Math.round(km * 100) * 10;
    return metres < 1000 ? fill("distance.m", { n: metres }) : fill("distance.km", { n: km.toFixed(1) });
  }

  function sorted(results) {
    const cards = [...results.querySelectorAll(".card[data-lat]")].map((card) => ({
      card, km: kilometres(Number(card.dataset.lat), Number(card.dataset.lon)), usable: card.dataset.usable === "1",
    }));
    cards.sort((one, other) => one.km - other.km);
    for (const { card, km } of cards) {
      const label = card.querySelector("[data-distance]");
      label.textContent = distance(km);
      label.hidden = false;
    }
    const nearest = cards.findIndex((one) => one.usable);
    const first = nearest >= 0 ? cards.splice(nearest, 1)[0] : null;
    if (first) {
      const tag = document.createElement("p");
      tag.className = "tag";
      tag.textContent = words["list.nearest"];
      first.card.prepend(tag);
      first.card.classList.add("first");
      cards.unshift(first);
    }
    return { cards, first };
  }

  function arrange(results) {
    const { cards, first } = sorted(results);
    const list = document.createElement("ul");
    list.className = "cards";
    list.append(...cards.slice(0, shown).map((one) => one.card));
    const title = document.createElement("h2");
    title.textContent = words["list.byDistance"];
    title.className = "result-head";
    results.querySelectorAll(":scope > :not(.notice)").forEach((part) => part.remove());
    results.append(title, list);
    if (cards.length > shown) {
      const more = document.createElement("p");
      more.className = "more";
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = words["list.more"];
      button.addEventListener("click", () => {
        shown += elder ? FIRST_ELDER : FIRST;
        renew();
      });
      more.append(button);
      results.append(more);
    }
    return first;
  }

  function announce(first) {
    id("said").textContent = first
      ? fill("list.located", { name: first.card.querySelector("h3").textContent.trim(), distance: distance(first.km) })
      : words["list.locatedNone"];
  }

  // The whole list, whoever asks: a list of what is near would tell where near is.
  function wholeList() {
    const all = new URL(body.dataset.cards, location.href);
    all.searchParams.set("all", "1");
    return all;
  }

  const panel = id("locate");
  if (panel && "geolocation" in navigator && window.isSecureContext) {
    const button = panel.querySelector("[data-locate]");
    const back = panel.querySelector("[data-unlocate]");
    panel.hidden = false;
    button.addEventListener("click", () => {
      button.disabled = true;
      id("said").textContent = words["list.locating"];
      navigator.geolocation.getCurrentPosition(
        async (position) => {
          here = { lat: position.coords.latitude, lon: position.coords.longitude };
          shown = elder ? FIRST_ELDER : FIRST;
          const first = await renew();
          button.disabled = false;
          back.hidden = false;
          body.classList.add("located");
          if (first !== undefined) announce(first);
          const top = id("results").getBoundingClientRect().top;
          if (top > window.innerHeight * 0.6) id("said").scrollIntoView({ block: "start" });
        },
        (error) => {
          button.disabled = false;
          id("said").textContent = words[error.code === error.PERMISSION_DENIED ? "list.locateDenied" : "list.locateFailed"];
        },
        { enableHighAccuracy: false, timeout: 15_000, maximumAge: 300_000 },
      );
    });
    back.addEventListener("click", () => {
      here = null;
      back.hidden = true;
      body.classList.remove("located");
      id("said").textContent = "";
      renew();
    });
  }

  // ---- staying fresh ---------------------------------------------------------------------------------------------------------------

  let freshAt = Date.now(); // when the states on the page were read from the database, as far as is known
  let isAgeKnown = false;

  async function renew() {
    const results = id("results");
    if (!results) return undefined;
    const isSite = "site" in results.dataset;
    const asked = isSite ? location.href : here ? wholeList() : new URL(body.dataset.cards, location.href);
    let answer;
    let text;
    try {
      answer = await fetch(asked, { cache: "no-cache", credentials: "omit", referrerPolicy: "no-referrer" });
      if (!answer.ok) throw new Error(String(answer.status));
      text = await answer.text();
    } catch {
      tellAge();
      return undefined;
    }
    const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("results");
    const focused = results.contains(document.activeElement) ? document.activeElement.closest("[data-code]")?.dataset.code : undefined;
    const first = here && !isSite ? arrange(fresh) : null;
    if (here || fresh.outerHTML !== results.outerHTML) results.replaceWith(fresh);
    if (focused !== undefined) fresh.querySelector(`[data-code="${CSS.escape(focused)}"] h3 a`)?.focus({ preventScroll: true });
    freshAt = Date.now() - 1000 * (Number(answer.headers.get("Snapshot-Age")) + Number(answer.headers.get("Age") ?? 0));
    isAgeKnown = true;
    tellAge();
    return first;
  }

  function tellAge() {
    const age = Date.now() - freshAt;
    const line = id("age");
    if (line && isAgeKnown) {
      const seconds = Math.max(0, Math.round(age / 1000));
      line.textContent = seconds < 60 ? fill("age.ago", { seconds }) : fill("age.minutes", { minutes: Math.floor(seconds / 60) });
    }
    const lost = id("lost");
    const isLost = age > LOST_MS;
    if (isLost !== !lost.hidden) {
      const time = new Date(freshAt).toLocaleTimeString(document.documentElement.lang, { hour: "2-digit", minute: "2-digit" });
      lost.textContent = isLost ? fill("age.lost", { time }) : "";
      lost.hidden = !isLost;
    }
  }

  if (id("results")) {
    setInterval(tellAge, 1000);
    setInterval(() => {
      if (!document.hidden) renew();
    }, REFRESH_MS);
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && Date.now() - freshAt > REFRESH_MS) renew();
    });
  }
})();
