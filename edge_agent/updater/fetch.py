"""Owns how bytes of the update repositories reach this process: one origin, one connection at a time, no redirects, never longer than allowed.

Every byte passes `_PacedStream`, below all buffering. Buffers that fill a block before they return hide a server that drips one byte a second: each
byte resets the time-out between bytes, and the caller's own check never runs. So the pace is kept where the bytes come in, headers included.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Self, cast
from urllib.parse import quote, urlsplit

from tuf.api import exceptions as tuf_errors
from tuf.ngclient.fetcher import FetcherInterface

CHUNK_BYTES = 64 * 1024
HEAD_MAX_BYTES = 256 * 1024
"""Until the head of an answer is complete: ends a server that says "100 Continue" for ever. Our own server's head is below 1 KiB, and what the
buffer holds of the body counts here as well."""
_AS_IT_IS = "/%:@!$&'()*+,;=~-._?"
"""Characters of a path that are sent as they are (RFC 3986, 3.3); everything else is percent-encoded."""


class Unreachable(tuf_errors.DownloadError):
    """The connection could not be made, or ended too early."""


class CertificateRefused(tuf_errors.DownloadError):
    """Whoever answered has no certificate of the terminal's CA for that name, or one that is no longer good."""


class OriginRefused(tuf_errors.DownloadError):
    """An address outside the configured server was asked for."""


class Redirected(tuf_errors.DownloadHTTPError):
    """The server sent us elsewhere. Nobody goes there: where updates come from is configured."""


class Slow(tuf_errors.SlowRetrievalError):
    """The server sends slower than it must, or has gone silent."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """ValueError if `url` is no http(s) address, or carries a user name."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError("not an http or https address of a server")
        return cls(parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))


@dataclass(frozen=True, slots=True)
class Pace:
    """How slow a server may be. Time that our own rate limit waits is not counted."""

    connect_s: float = 15.0
    silence_s: float = 20.0
    """Longest time without any byte."""
    window_s: float = 10.0
    min_bytes_s: int = 1024
    """Less than this on average over a window ends the transfer: chosen well below the slowest line that carries an update at all."""
    deadline_s: float | None = 300.0
    """For the whole request; None: as long as bytes come fast enough. Metadata are small, so they have one."""


class TokenBucket:
    """A rate limit. Pure but for the clock and sleep that are passed in."""

    def __init__(
        self, rate_bytes_s: int, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._rate = rate_bytes_s
        self._burst = max(1, min(rate_bytes_s, CHUNK_BYTES))
        self._clock = clock
        self._sleep = sleep
        self._tokens = float(self._burst)
        self._at_s = clock()

    def take(self, wanted: int) -> int:
        """Wait until something may be read, and return how much: 1 to `wanted` bytes."""
        while True:
            now_s = self._clock()
            self._tokens = min(float(self._burst), self._tokens + max(0.0, now_s - self._at_s) * self._rate)
            self._at_s = now_s
            enough = min(wanted, self._burst)
            if self._tokens >= enough:
                return enough
            self._sleep(max((enough - self._tokens) / self._rate, 0.001))

    def used(self, count: int) -> None:
        self._tokens -= count


class _Watch:
    """What one request has cost so far; raises Slow when it costs too much."""

    def __init__(self, pace: Pace, clock: Callable[[], float]) -> None:
        self._pace = pace
        self._clock = clock
        self._began_s = clock()
        self._waited_s = 0.0
        self._arrived = 0
        self._head_left: int | None = HEAD_MAX_BYTES

    def head_complete(self) -> None:
        self._head_left = None

    def timeout_s(self) -> float:
        """How long the next read may take."""
        left_s = [self._pace.silence_s]
        if self._pace.deadline_s is not None:
            left_s.append(self._began_s + self._pace.deadline_s - self._clock())
        if min(left_s) <= 0:
            raise Slow(f"not finished within {self._pace.deadline_s:g} s")
        return max(min(left_s), 0.001)

    def saw(self, count: int, waited_s: float) -> None:
        self._arrived += count
        self._waited_s += waited_s
        if self._head_left is not None:
            self._head_left -= count
            if self._head_left < 0:
                raise Unreachable("the answer's head does not end")
        if self._waited_s >= self._pace.window_s:
            rate = self._arrived / self._waited_s
            if rate < self._pace.min_bytes_s:
                raise Slow(f"{rate:.0f} bytes a second; at least {self._pace.min_bytes_s} are needed")
            self._arrived, self._waited_s = 0, 0.0


class _PacedStream(io.RawIOBase):
    """What http.client reads from: the socket, with the pace and the rate limit in front of each single read."""

    def __init__(self, sock: socket.socket, watch: _Watch, bucket: TokenBucket | None, clock: Callable[[], float]) -> None:
        super().__init__()
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket open until it is closed itself, as http.client expects
        self._watch = watch
        self._bucket = bucket
        self._clock = clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        if self._bucket is not None:
            view = view[: self._bucket.take(len(view))]
        self._sock.settimeout(self._watch.timeout_s())
        began_s = self._clock()
        try:
            count = self._raw.readinto(view) or 0
        except TimeoutError:
            self._watch.timeout_s()
            raise Slow("the server has gone silent") from None
        if self._bucket is not None:
            self._bucket.used(count)
        if count:
            self._watch.saw(count, self._clock() - began_s)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PacedSocket:
    """As much of a socket as http.client uses. `watch` is of the present request."""

    def __init__(self, sock: socket.socket, bucket: TokenBucket | None, clock: Callable[[], float]) -> None:
        self._sock = sock
        self._bucket = bucket
        self._clock = clock
        self.watch: _Watch | None = None

    def sendall(self, data: bytes) -> None:
        assert self.watch is not None
        self._sock.settimeout(self.watch.timeout_s())
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb" and self.watch is not None
        return io.BufferedReader(_PacedStream(self._sock, self.watch, self._bucket, self._clock), CHUNK_BYTES)

    def close(self) -> None:
        self._sock.close()


class Answer:
    """An open answer: status, headers that matter, body in pieces as they come."""

    def __init__(self, response: http.client.HTTPResponse, url: str) -> None:
        self._response = response
        self._url = url
        self.status = response.status
        self.etag = response.getheader("ETag")
        self.content_range = response.getheader("Content-Range")
        self.length = response.length

    def pieces(self) -> Iterator[bytes]:
        """The body. Unreachable if it ends before it should."""
        while self._response.length != 0:
            with _as_download_errors(self._url):
                piece = self._response.read1(CHUNK_BYTES)
            if not piece:
                break
            yield piece
        if self._response.length:
            raise Unreachable(f"the connection ended {self._response.length} bytes too early")


class Fetcher(FetcherInterface):
    """Gets files of the update repositories for python-tuf and for `download.Downloader`. Not thread-safe; keeps one connection.

    `origins`: the servers that may be asked. `tls`: None for plain HTTP (tests, the conformance suite); with a context only HTTPS is spoken.
    """

    def __init__(
        self,
        *origins: Origin,
        tls: ssl.SSLContext | None,
        pace: Pace = Pace(),
        rate_bytes_s: int | None = None,
        agent: str = "kiosk-fleet-updater",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._origins = frozenset(origins)
        self._tls = tls
        self._pace = pace
        self._agent = agent
        self._clock = clock
        self._sleep = sleep
        self._bucket: TokenBucket | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._connected: Origin | None = None
        self.bytes_received = 0
        self.limit(rate_bytes_s)

    def limit(self, rate_bytes_s: int | None) -> None:
        """From the next request on; None: as fast as it comes."""
        self.close()
        self._bucket = None if rate_bytes_s is None else TokenBucket(rate_bytes_s, clock=self._clock, sleep=self._sleep)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the next request makes a new one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._connected = None

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str] | None = None, *, pace: Pace | None = None) -> Iterator[Answer]:
        """Ask for `url`. DownloadError and its children; a redirect and every status from 400 is an error. Use the answer inside the block."""
        response = self._ask(url, headers or {}, pace or self._pace)
        try:
            yield Answer(response, url)
        finally:
            # What is left of a body is not waited for: a connection whose answer is not at its end is not used again.
            complete = response.length == 0 or response.isclosed()
            response.close()
            if not complete or response.will_close:
                self.close()

    def _fetch(self, url: str) -> Iterator[bytes]:
        body = self._body(url)
        first = next(body)  # FetcherInterface: an HTTP error shows when fetch() is called, not when its bytes are used
        assert first == b""
        return body

    def _body(self, url: str) -> Iterator[bytes]:
        with self.get(url) as answer:
            if answer.status != 200:
                raise tuf_errors.DownloadHTTPError(f"{_tail(url)}: the server answered {answer.status}", answer.status)
            yield b""
            for piece in answer.pieces():
                self.bytes_received += len(piece)
                yield piece

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """As the interface says, in memory: metadata have small limits, and a temporary file would be one more thing a full disk can break.

        Targets do not come this way: `download.Downloader` writes those.
        """
        data = bytearray()
        for piece in self.fetch(url):
            data += piece
            if len(data) > max_length:
                self.close()
                raise tuf_errors.DownloadLengthMismatchError(f"more than {max_length} bytes came for {_tail(url)}")
        yield io.BytesIO(data)

    def _ask(self, url: str, headers: Mapping[str, str], pace: Pace) -> http.client.HTTPResponse:
        try:
            origin = Origin.of(url)
        except ValueError:
            origin = Origin("", "", 0)
        if origin not in self._origins or (self._tls is None) != (origin.scheme == "http"):
            raise OriginRefused(f"{_tail(url)}: not at the configured server")
        reused = self._connection is not None and self._connected == origin
        with _as_download_errors(url):
            try:
                response = self._exchange(origin, url, headers, pace)
            except (http.client.RemoteDisconnected, ConnectionError):
                self.close()
                if not reused:
                    raise
                response = self._exchange(origin, url, headers, pace)  # the server closed an idle connection: no answer was lost
            except BaseException:
                self.close()
                raise
        if response.status in (200, 206, 416):
            if response.getheader("Content-Encoding", "identity") != "identity":
                self.close()
                raise Unreachable(f"{_tail(url)}: came in an encoding that was not asked for")
            return response
        self.close()
        kind = Redirected if 300 <= response.status < 400 else tuf_errors.DownloadHTTPError
        raise kind(f"{_tail(url)}: the server answered {response.status}", response.status)

    def _exchange(self, origin: Origin, url: str, headers: Mapping[str, str], pace: Pace) -> http.client.HTTPResponse:
        connection = self._connect(origin, pace)
        watch = _Watch(pace, self._clock)
        cast("_PacedSocket", connection.sock).watch = watch
        parts = urlsplit(url)
        path = quote(parts.path or "/", safe=_AS_IT_IS) + (f"?{quote(parts.query, safe=_AS_IT_IS)}" if parts.query else "")
        connection.request("GET", path, headers={"User-Agent": self._agent, **headers})
        response = connection.getresponse()
        watch.head_complete()
        return response

    def _connect(self, origin: Origin, pace: Pace) -> http.client.HTTPConnection:
        if self._connection is not None and self._connected == origin and self._connection.sock is not None:
            return self._connection
        self.close()
        sock = socket.create_connection((origin.host, origin.port), timeout=pace.connect_s)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=origin.host)  # the time-out is for the whole handshake
        except BaseException:
            sock.close()
            raise
        connection = http.client.HTTPConnection(origin.host, origin.port)
        connection.sock = cast("Any", _PacedSocket(sock, self._bucket, self._clock))
        connection.auto_open = 0
        self._connection, self._connected = connection, origin
        return connection


@contextmanager
def _as_download_errors(url: str) -> Iterator[None]:
    """Foreign errors of socket, TLS and HTTP as those of python-tuf's interface."""
    try:
        yield
    except tuf_errors.DownloadError:
        raise
    except ssl.SSLCertVerificationError as err:
        raise CertificateRefused(f"the server's certificate was refused: {err.verify_message}") from err
    except ssl.SSLError as err:
        refused = err.reason in ("TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_CERTIFICATE_EXPIRED", "SSLV3_ALERT_BAD_CERTIFICATE")
        kind = CertificateRefused if refused else Unreachable
        raise kind(f"{_tail(url)}: TLS failed ({err.reason})") from err
    except TimeoutError as err:
        raise Unreachable(f"{_tail(url)}: no connection in time") from err
    except (OSError, http.client.HTTPException, ValueError) as err:
        raise Unreachable(f"{_tail(url)}: {type(err).__name__}") from err


def _tail(url: str) -> str:
    """The path of an address, for messages."""
    return urlsplit(url).path[-120:] or "/"
