// One event stream for all tabs of this browser: over HTTP/1.1 a host gives six connections, and a seventh tab would stall.
"use strict";
const NAMES = ["tick", "rows", "counts", "touched", "ages", "platform", "alarm", "resync"];
const ports = new Set();
let source = null;
let retry = 0;
let newest = ""; // id of the last event: how far this stream has told

function tell(message) {
  for (const port of ports) port.postMessage(message);
}

function open() {
  if (source || ports.size === 0) return;
  source = new EventSource("/live");
  source.onopen = () => tell({ name: "open" });
  source.onerror = () => {
    tell({ name: "error" });
    // A refused stream (signed out, server starting) is closed for good by the browser: ask again ourselves.
    if (source && source.readyState === EventSource.CLOSED) {
      close();
      clearTimeout(retry);
      retry = setTimeout(open, 2000);
    }
  };
  for (const name of NAMES) {
    source.addEventListener(name, (event) => {
      newest = event.lastEventId || newest;
      tell({ name, data: event.data, id: newest });
    });
  }
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
