// The map's page: hands what the server says to the drawing, and leads from it to the lists.
"use strict";
(() => {
  const host = document.getElementById("map");
  const say = document.getElementById("map-say");
  if (!host || !window.echarts) return;
  let map = null;

  const feed = () => JSON.parse(document.getElementById("map-feed").dataset.feed);

  fetch(host.dataset.outline).then((answer) => answer.json()).then((outline) => {
    outline.squeeze = Number(host.dataset.squeeze);
    const fine = window.matchMedia("(hover: hover)").matches;
    map = window.kfCityMap.create(host, outline, {
      // A finger scrolls the page; the buttons and a tap on a group come nearer.
      roam: fine ? "move" : false,
      onOpen: (address) => location.assign(address),
      onPick: (text) => { say.textContent = text.replaceAll("\n", "，"); },
    });
    map.update(feed());
    host.dataset.drawn = "yes";
    window.kfMap = map;
  }).catch(() => { host.dataset.drawn = "no"; });

  document.addEventListener("htmx:afterSettle", () => { if (map) map.update(feed()); });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-map]");
    if (button && map) map[button.dataset.map]();
  });
})();
