"""The repositories over HTTP, read-only: `/updates/{image,director}/{metadata,targets}/…`, whole or one range, in bounded memory.

Files are immutable but for `timestamp.json`. Their names are of a narrow alphabet, so a path that is not plain is simply not there; symbolic
links are not followed, nothing is listed, and keys lie outside of what can be named.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import stat
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from fleet_server.updates.layout import REPOSITORIES, UpdatesLayout

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREFIX = "/updates/"
CHUNK_BYTES = 32 * 1024
"""TLS keeps buffers of this size for each reader (measured: 400 readers 45 MiB; with 64 KiB 56 MiB, with 16 KiB 39 MiB)."""
READ_THREADS = 4
MAX_TRANSFERS = 1500
"""At a time, for all; whoever comes then is asked to come back, and enrolment keeps its share of the listener's connections."""
KEPT_FOR_PEERS = 300
"""Of them, for terminals that show their certificate."""
PER_ADDRESS = 600
"""Without a certificate, from one address (of IPv6: one /64): a fleet behind one address fits, and nobody takes all from a single one."""
PER_PEER = 8
"""With a certificate; an honest terminal has one or two, and one that is not must not take what is kept for the others."""
RETRY_AFTER_S = 30
_PART = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9._+-]{0,200}")
_RANGE = re.compile(r"bytes=(?:(?P<first>[0-9]{1,15})-(?P<last>[0-9]{1,15})?|-(?P<suffix>[0-9]{1,15}))")
MAX_DEPTH = 8


class Span(NamedTuple):
    first: int
    length: int


class Files:
    """An ASGI application for what lies below `/updates/`. `sent` counts the bytes of bodies since the start, by repository and kind."""

    def __init__(self, layout: UpdatesLayout) -> None:
        self._public = layout.public
        self._threads = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="updates")
        self._transfers = 0
        self._strangers = 0
        self._held: dict[str, int] = {}
        self.sent: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, [(b"allow", b"GET, HEAD")])
            return
        parts = path_parts(scope)
        if parts is None:
            await _answer(send, 404)
            return
        peer = scope.get("kf_peer")
        holder = f"peer {peer}" if isinstance(peer, str) else f"address {_network(scope)}"
        if not self._has_room(holder, is_peer=isinstance(peer, str)):
            await _answer(send, 503, [(b"retry-after", b"%d" % RETRY_AFTER_S)])
            return
        self._count(holder, 1, is_peer=isinstance(peer, str))
        try:
            await self._transfer(scope, receive, send, parts)
        finally:
            self._count(holder, -1, is_peer=isinstance(peer, str))

    def _has_room(self, holder: str, *, is_peer: bool) -> bool:
        if self._transfers >= MAX_TRANSFERS or self._held.get(holder, 0) >= (PER_PEER if is_peer else PER_ADDRESS):
            return False
        return is_peer or self._strangers < MAX_TRANSFERS - KEPT_FOR_PEERS

    def _count(self, holder: str, by: int, *, is_peer: bool) -> None:
        self._transfers += by
        self._strangers += 0 if is_peer else by
        self._held[holder] = self._held.get(holder, 0) + by
        if not self._held[holder]:
            del self._held[holder]

    async def _transfer(self, scope: Scope, receive: Receive, send: Send, parts: list[str]) -> None:
        loop = asyncio.get_running_loop()
        opened = await loop.run_in_executor(self._threads, open_plain, self._public, parts)
        if opened is None:
            await _answer(send, 404)
            return
        descriptor, found = opened
        try:
            gone = asyncio.ensure_future(_disconnected(receive))
            try:
                await self._send_file(scope, send, descriptor, found, parts, gone)
            finally:
                gone.cancel()
        finally:
            os.close(descriptor)

    async def _send_file(
        self,
        scope: Scope,
        send: Send,
        descriptor: int,
        found: os.stat_result,
        parts: list[str],
        gone: asyncio.Future[None],
    ) -> None:
        tag = etag(found)
        headers = _headers(found, tag, parts)
        asked = {bytes(name).lower(): bytes(value).decode("latin-1") for name, value in scope["headers"]}
        if tag in [each.strip() for each in asked.get(b"if-none-match", "").split(",")]:
            await _answer(send, 304, headers)
            return
        span, status = choose(asked.get(b"range"), asked.get(b"if-range"), tag, found.st_size)
        if span is None:
            await _answer(send, 416, [*headers, (b"content-range", b"bytes */%d" % found.st_size)])
            return
        if status == 206:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (span.first, span.first + span.length - 1, found.st_size)))
        headers.append((b"content-length", b"%d" % span.length))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if scope["method"] == "HEAD" or not span.length:
            await send({"type": "http.response.body", "body": b""})
            return
        kind = "/".join(parts[:2])
        extend: Callable[[], None] = scope.get("kf_extend", _nothing)
        drained: Callable[[], Awaitable[None]] = scope.get("kf_drained", _at_once)
        at, end = span.first, span.first + span.length
        while at < end and not gone.done():
            # Nothing is read for a reader who has not taken what was sent: that bounds memory.
            await drained()
            sent = await self._send_part(send, descriptor, at, end)
            at += sent
            self.sent[kind] = self.sent.get(kind, 0) + sent
            extend()

    async def _send_part(self, send: Send, descriptor: int, at: int, end: int) -> int:
        """The next bytes; how many. They are not held beyond this call."""
        length = min(CHUNK_BYTES, end - at)
        part = _cached(descriptor, length, at)
        if part is None:
            loop = asyncio.get_running_loop()
            part = await loop.run_in_executor(self._threads, os.pread, descriptor, length, at)
        if not part:
            raise OSError("a published file became shorter")
        await send({"type": "http.response.body", "body": part, "more_body": at + len(part) < end})
        return len(part)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def mounted(application: Any, files: Files) -> Any:
    """`application`, with the repositories below `/updates/`."""

    async def route(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and str(scope["path"]).startswith(PREFIX):
            await files(scope, receive, send)
        else:
            await application(scope, receive, send)

    return route


def path_parts(scope: Scope) -> list[str] | None:
    """The parts of a plain path below `/updates/`; None for any other."""
    raw = scope.get("raw_path") or str(scope["path"]).encode("utf-8")
    raw = raw.partition(b"?")[0]
    # Decoded once and part by part, so that an encoded slash, dot or backslash ends in the alphabet's check and never becomes another path.
    parts = [unquote_to_bytes(part) for part in raw.removeprefix(PREFIX.encode()).split(b"/")]
    if not raw.startswith(PREFIX.encode()) or not 3 <= len(parts) <= MAX_DEPTH:
        return None
    if any(_PART.fullmatch(part) is None for part in parts):
        return None
    plain = [part.decode("ascii") for part in parts]
    return plain if plain[0] in REPOSITORIES and plain[1] in ("metadata", "targets") else None


def open_plain(public: Path, parts: list[str]) -> tuple[int, os.stat_result] | None:
    """Open a regular file step by step, following no link; None if it is not there."""
    try:
        folder = os.open(public, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = below
        # Not blocking: a pipe that somebody put there must not hold a thread.
        descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    finally:
        os.close(folder)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        return None
    return descriptor, found


def etag(found: os.stat_result) -> str:
    """Strong: files are replaced whole, never written in place, so another content is another inode or another time."""
    return f'"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"'


def choose(asked: str | None, if_range: str | None, tag: str, size: int) -> tuple[Span | None, int]:
    """Which bytes to send, and with which status; None: the range cannot be met (416).

    Several ranges, or nonsense, are answered whole (RFC 9110, 14.2).
    """
    whole = Span(0, size), 200
    if asked is None or (if_range is not None and if_range.strip() != tag):
        return whole
    match = _RANGE.fullmatch(asked.strip())
    if match is None:
        return whole
    if match["suffix"] is not None:
        length = min(int(match["suffix"]), size)
        return (Span(size - length, length), 206) if length else (None, 416)
    first = int(match["first"])
    last = int(match["last"]) if match["last"] is not None else size - 1
    if match["last"] is not None and last < first:
        return whole
    if first >= size:
        return None, 416
    return Span(first, min(last, size - 1) - first + 1), 206


def _headers(found: os.stat_result, tag: str, parts: list[str]) -> list[tuple[bytes, bytes]]:
    # The timestamp says what is new; everything else never changes under its name.
    changes = parts[1:] == ["metadata", "timestamp.json"]
    return [
        (b"etag", tag.encode("ascii")),
        (b"accept-ranges", b"bytes"),
        (b"content-type", b"application/json" if parts[1] == "metadata" else b"application/octet-stream"),
        (b"last-modified", formatdate(found.st_mtime, usegmt=True).encode("ascii")),
        (b"cache-control", b"no-cache" if changes else b"public, max-age=31536000, immutable"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _network(scope: Scope) -> str:
    """Who is at the other end, as far as an address says: whoever has one IPv6 address has a whole /64 of them."""
    host = str((scope.get("client") or ("?",))[0])
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
    return host


def _cached(descriptor: int, length: int, at: int) -> bytes | None:
    """What the system has in memory already; None where the disk must be waited for, or the file system cannot say."""
    part = bytearray(length)
    try:
        return bytes(part) if os.preadv(descriptor, [part], at, os.RWF_NOWAIT) == length else None
    except OSError:
        return None


async def _at_once() -> None:
    """Where no listener says when a reader has taken what was sent; others have their turn."""
    await asyncio.sleep(0)


def _nothing() -> None:
    """Where no listener limits how long a connection lives."""


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    length = [] if status == 304 else [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": [*(headers or []), *length]})
    await send({"type": "http.response.body", "body": b""})
