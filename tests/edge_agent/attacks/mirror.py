"""A web server that stands for whoever carries the updates: honest by default, and as hostile as a test wants it to be."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any, cast
from urllib.parse import unquote

Behaviour = Callable[["Handler"], None]


class Mirror(ThreadingHTTPServer):
    """Serves `files` by path, with ranges and ETags; a callable in place of bytes answers as it likes."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, tls: SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes | Behaviour] = {}
        self.requests: list[tuple[str, str | None]] = []
        """Path and Range header of each request."""
        self.released = threading.Event()
        """Set when the test is over: whoever sends without end stops then."""
        self.scheme = "http" if tls is None else "https"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what most of these tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True
    """Head and body are two writes: the second would wait 40 ms for the acknowledgement of the first."""

    @property
    def mirror(self) -> Mirror:
        return cast("Mirror", self.server)

    def do_GET(self) -> None:
        path = unquote(self.path)
        self.mirror.requests.append((path, self.headers.get("Range")))
        found = self.mirror.files.get(path)
        if found is None:
            self.send(404, b"")
        elif callable(found):
            found(self)
        else:
            self.serve(found)

    def serve(self, data: bytes) -> None:
        """As an honest server does."""
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        wanted = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range") or "")
        if wanted and self.headers.get("If-Range", etag) == etag:
            at = int(wanted[1])
            if at >= len(data):
                self.send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            self.send(206, data[at:], {"ETag": etag, "Content-Range": f"bytes {at}-{len(data) - 1}/{len(data)}"})
        else:
            self.send(200, data, {"ETag": etag})

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class calls it so
        """Silent."""


@contextmanager
def running(tls: SSLContext | None = None) -> Iterator[Mirror]:
    mirror = Mirror(tls)
    thread = threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        mirror.released.set()
        mirror.shutdown()
        thread.join()
        mirror.server_close()


def endless(handler: Handler) -> None:
    """Bytes without end and without a length."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    while not handler.mirror.released.is_set():
        handler.wfile.write(b" " * 65536)


def dripping(data: bytes, *, every_s: float = 0.02, headers_too: bool = False) -> Behaviour:
    """One byte at a time, for as long as anybody listens."""

    def behave(handler: Handler) -> None:
        handler.close_connection = True
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        if not headers_too:
            handler.wfile.write(head)
        for byte in (head if headers_too else b"") + data:
            if handler.mirror.released.wait(every_s):
                return
            handler.wfile.write(bytes((byte,)))

    return behave


def silent(handler: Handler) -> None:
    """Takes the request and never answers."""
    handler.close_connection = True
    handler.mirror.released.wait(30)


def continuing(handler: Handler) -> None:
    """Says "100 Continue" without end."""
    handler.close_connection = True
    while not handler.mirror.released.is_set():
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def redirecting(to: str) -> Behaviour:
    return lambda handler: handler.send(302, b"", {"Location": to})


def cut_after(data: bytes, count: int) -> Behaviour:
    """Honest, but each connection ends after `count` bytes of body."""

    def behave(handler: Handler) -> None:
        handler.close_connection = True
        real = handler.wfile

        class Cutting:
            left = count
            in_body = False

            def write(self, piece: bytes) -> int:
                if self.in_body or not piece.startswith(b"HTTP/"):
                    self.in_body = True
                    piece, self.left = piece[: self.left], self.left - len(piece[: self.left])
                    for at in range(0, len(piece), 65536):
                        real.write(piece[at : at + 65536])
                    return len(piece)
                return real.write(piece)

            def flush(self) -> None:
                real.flush()

        handler.wfile = cast("Any", Cutting())
        handler.serve(data)
        handler.wfile = real

    return behave
