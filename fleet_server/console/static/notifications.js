// Reads the delivery log again now and then, but never under somebody who has opened one of its lines or stands in it.
(() => {
  "use strict";
  const EVERY_MS = 10000;
  setInterval(() => {
    const log = document.getElementById("deliveries");
    if (!log || document.hidden || log.contains(document.activeElement) || log.querySelector("details[open]")) return;
    htmx.trigger(log, "kf:read");
  }, EVERY_MS);
})();
