// One event stream for all tabs of this browser: over HTTP/1.1 a host gives six connections, and a seventh tab would stall.
"use strict";
const NAMES = ["tick", "rows", "counts", "touched", "orders", "ages", "platform", "alarm", "resync"];
const ports = new Set();
let source = null;
let retry = 0;
let newest = ""; // id of the last event: how far this stream has told

function tell(message) {
  for (const port of ports) port.postMessage(message);
}

function open() {
  if (source || ports.size === 0) return;
  source = new EventSource("/live" + (newest ? `?after=${encodeURIComponent(newest)}` : ""));
  source.onopen = () => tell({ name: "open" });
  source.onerror = () => {
    tell({ name: "error" });
    // A refused stream (signed out, no room, server starting) is closed for good by the browser: ask again ourselves.
    if (source && source.readyState === EventSource.CLOSED) {
      close();
      again();
    }
  };
  for (const name of NAMES) {
    source.addEventListener(name, (event) => {
      newest = event.lastEventId || newest;
      tell({ name, data: event.data, id: newest });
    });
  }
}

// An EventSource is not told why it was refused: ask. Where there is no room the pages are told, and fetch their parts meanwhile.
async function again() {
  clearTimeout(retry);
  let wait = 2;
  try {
    const answer = await fetch("/live/room", { headers: { "X-Live": "1" }, cache: "no-store" });
    if (answer.status === 503) {
      wait = Number(answer.headers.get("Retry-After")) || 15;
      tell({ name: "full", data: String(wait) });
    }
  } catch {
    // The server is away; pages say so themselves.
  }
  clearTimeout(retry);
  retry = setTimeout(open, wait * 1000);
}

function close() {
  if (source) source.close();
  source = null;
}

self.onconnect = (event) => {
  const port = event.ports[0];
  ports.add(port);
  port.onmessage = (message) => {
    if (message.data !== "bye") return;
    ports.delete(port);
    if (ports.size === 0) close();
  };
  if (source && source.readyState === EventSource.OPEN) port.postMessage({ name: "open", id: newest });
  open();
};
