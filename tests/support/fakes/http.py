"""A small HTTP server on a thread: takes POST requests, remembers them, and answers what a fake platform says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol
from urllib.parse import SplitResult, parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """`at_ms` is the fake's clock."""

    url: SplitResult
    headers: dict[str, str]
    body: bytes
    at_ms: int

    def query(self, name: str) -> str:
        return parse_qs(self.url.query).get(name, [""])[0]


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


class Platform(Protocol):
    def answer(self, request: Request) -> Answer: ...


@dataclass
class Served:
    """`url` is where the platform answers."""

    port: int
    requests: list[Request]
    now_ms: Callable[[], int]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def serve(platform: Platform, *, now_ms: Callable[[], int] | None = None) -> Iterator[Served]:
    clock = now_ms or (lambda: time.time_ns() // 1_000_000)
    requests: list[Request] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(urlsplit(self.path), headers, body, clock())
            with lock:
                requests.append(request)
            answer = platform.answer(request)
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def handle(self) -> None:
            with suppress(ConnectionError):  # who asked may hang up or die, as some tests want
                super().handle()

        def finish(self) -> None:
            with suppress(ConnectionError):
                super().finish()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Served(server.server_address[1], requests, clock)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
