"""Owns the bytes: HTTP/1.1 (h11) on a Unix socket and on loopback. Small bodies, short waits, few connections; what is in a body is never logged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h11

from edge_agent.local_api import schema
from edge_agent.local_api.gate import Caller, Gate, Scope, admit_peer, cors, preflight
from edge_agent.local_api.refusal import ApiRefused
from edge_agent.local_api.service import Answer, KioskService, encode
from edge_agent.outbox.errors import OutboxFull

if TYPE_CHECKING:  # not loaded where no updater runs, or no application asks for devices
    from edge_agent.local_api.guides import FilePart, Guides
    from edge_agent.local_api.websocket import Bucket, Lines, Socket, SocketLimits

log = logging.getLogger(__name__)

PREFIX = "/v1/content"
DEVICES_PREFIX = "/xfs4iot/v1.0"
"""Where XFS4IoT services have their addresses (CWA 17852, part 1)."""

BODY_MAX_BYTES = 4096
HEADERS_MAX_BYTES = 8192
MAX_CONNECTIONS = 32
"""At each door: a browser opens six per origin; a hall's box serves a handful of programs."""
MAX_STRANGERS = 4
"""Connections of users who may not pass: they hear so, and take no place of those who may."""
REQUEST_WITHIN_S = 5.0
"""From the first byte of a request to its last."""
IDLE_S = 30.0
ANSWER_WITHIN_S = 5.0
FILE_BLOCK_BYTES = 64 * 1024
FILE_BLOCK_WITHIN_S = 60.0
"""A video that is paused takes nothing; after this it has to ask again for the rest."""
_PEERCRED = struct.Struct("3i")
_DEVICES_PATH = re.compile(rf"{DEVICES_PREFIX}(?:/([a-z0-9-]{{1,64}}))?/?")
_SESSION_PATH = re.compile(r"/v1/sessions/([0-9a-f]{32})/(renew|end)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    body_max_bytes: int = BODY_MAX_BYTES
    max_connections: int = MAX_CONNECTIONS
    request_within_s: float = REQUEST_WITHIN_S
    idle_s: float = IDLE_S
    sockets: SocketLimits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpDoor:
    """Loopback HTTP: port (0: any) and what browsers must show."""

    port: int
    gate: Gate


class LocalApi:
    """`start`, `stop`, nothing else. `allowed_uids`: besides root and the agent's own user."""

    def __init__(
        self,
        service: KioskService,
        *,
        socket_path: Path | None,
        allowed_uids: frozenset[int] = frozenset(),
        http: HttpDoor | None = None,
        limits: Limits | None = None,
        own_uid: int | None = None,
        guides: Guides | None = None,
        devices: Lines | None = None,
    ) -> None:
        """`devices`: who serves the owner API; without it there is nothing at its addresses."""
        self._service, self._guides, self._devices = service, guides, devices
        self._socket_path, self._http = socket_path, http
        self._uids = allowed_uids | {0, os.geteuid() if own_uid is None else own_uid}
        self._limits = limits or Limits()
        self._servers: list[asyncio.Server] = []
        self._open: dict[asyncio.Task[None], str] = {}
        self._pace: Bucket | None = None
        self.http_port: int | None = None

    async def start(self) -> None:
        """Listen. Raises OSError if a port or path cannot be had."""
        try:
            if self._socket_path is not None:
                self._servers.append(await self._listen_unix(self._socket_path))
            if self._http is not None:
                server = await asyncio.start_server(
                    lambda reader, writer: self._accept(reader, writer, self._browser, "browsers"), "127.0.0.1", self._http.port
                )
                self._servers.append(server)
                self.http_port = server.sockets[0].getsockname()[1]
        except BaseException:
            await self.stop()
            raise

    async def _listen_unix(self, path: Path) -> asyncio.Server:
        server = await asyncio.start_unix_server(self._knock, path)
        _let_anybody_knock(path)
        return server

    async def stop(self) -> None:
        """Close everything; requests under way are cut off, what they recorded is recorded."""
        for server in self._servers:
            server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        if self._socket_path is not None:
            with contextlib.suppress(OSError):
                self._socket_path.unlink()

    # ------------------------------------------------------------------------------------------------------------- connections

    def _knock(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        room = "programs" if _peer_uid(writer) in self._uids else "strangers"
        self._accept(reader, writer, self._native, room)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, door: _Door, room: str) -> None:
        """`room`: whose places the connection takes; nobody can take all of another's."""
        places = MAX_STRANGERS if room == "strangers" else self._limits.max_connections
        if sum(taken == room for taken in self._open.values()) >= places:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, door))
        self._open[task] = room
        task.add_done_callback(lambda done: self._open.pop(done, None))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, door: _Door) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADERS_MAX_BYTES)
        wire = _Wire(connection, reader, writer)
        try:
            while await self._one_request(wire, door):
                connection.start_next_cycle()
        except (OSError, TimeoutError, h11.LocalProtocolError):
            pass  # the client went away or was too slow; what it may have been told is recorded
        finally:
            writer.transport.abort()

    async def _one_request(self, wire: _Wire, door: _Door) -> bool:
        """Serve one request; whether the connection can take another."""
        try:
            request = await self._head(wire)
            if request is None:
                return False
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
            if self._devices is not None and request.target.startswith(DEVICES_PREFIX.encode("ascii")):
                reply = await self._upgrade(wire, door, request, headers, self._devices)
            else:
                reply = await self._reply(wire, door, request, headers)
            if reply is None:
                return False
        except h11.RemoteProtocolError as err:
            await wire.send(
                err.error_status_hint, [], ApiRefused(0, "http", "This is not an HTTP request that can be read.").body()
            )
            return False
        log.debug("local api", extra={"status": reply.status})
        if reply.file is not None:
            await wire.send_file(reply.file, reply.headers, with_body=request.method != b"HEAD")
        else:
            await wire.send(reply.status, reply.headers, reply.body)
        return wire.reusable

    async def _upgrade(
        self, wire: _Wire, door: _Door, request: h11.Request, headers: Mapping[str, str], devices: Lines
    ) -> _Reply | None:
        """A WebSocket to a service, until it ends; or a refusal, before anything is switched."""
        from edge_agent.local_api import websocket

        try:
            if _repeated(request):
                raise ApiRefused(
                    400, "headers", "Host, Origin, Authorization and the WebSocket's own headers may be there only once."
                )
            match = _DEVICES_PATH.fullmatch(request.target.decode("latin-1"))
            caller = door(wire, websocket.with_token(headers)).enter()
            caller.need(Scope.DEVICES)
            if request.method != b"GET" or match is None:
                raise ApiRefused(404, "path", "There is nothing at this address.")
            answer = websocket.accept(headers)
            if not self._take_socket_room():
                raise ApiRefused(429, "tooMany", "Too many connections to devices are open.")
            base = f"ws://{headers.get('host', '') if caller.origin is not None else 'localhost'}{DEVICES_PREFIX}"
            self._pace = self._pace or websocket.shared_pace(self._limits.sockets)
            socket = wire.socket(self._limits.sockets, self._pace)
            line = devices.open(match[1], name=caller.name, base=base, send=socket.send)
            if line is None:
                raise ApiRefused(404, "path", "There is no such service; ServicePublisher.GetServices says which there are.")
        except ApiRefused as refused:
            more = [("upgrade", "websocket"), ("sec-websocket-version", "13")] if refused.status == 426 else []
            return _Reply(refused.status, more, refused.body())
        await socket.run(line, lambda: wire.switch(answer))
        return None

    def _take_socket_room(self) -> bool:
        """WebSockets have places of their own, so that they leave those of requests free."""
        task = asyncio.current_task()
        assert task is not None
        room = f"{self._open.get(task, '')} on devices"
        if sum(taken == room for taken in self._open.values()) >= self._limits.max_connections:
            return False
        self._open[task] = room
        return True

    async def _head(self, wire: _Wire) -> h11.Request | None:
        """The next request's head. Waiting for its first byte may take long, the rest may not."""
        async with asyncio.timeout(self._limits.idle_s):
            if not await wire.something():
                return None
        async with asyncio.timeout(self._limits.request_within_s):
            event = await wire.event()
        return event if isinstance(event, h11.Request) else None

    async def _reply(self, wire: _Wire, door: _Door, request: h11.Request, headers: Mapping[str, str]) -> _Reply:
        allowed_origin: list[tuple[str, str]] = []
        try:
            method, target = request.method.decode("ascii"), request.target.decode("latin-1")
            if _repeated(request):
                raise ApiRefused(400, "headers", "Host, Origin and Authorization may be there only once.")
            if self._guides is not None and target.startswith(f"{PREFIX}/") and method in ("GET", "HEAD"):
                origin = self._admit_embedded(wire, door, headers)
                allowed_origin = [] if origin is None else cors(origin)
                file = self._guides.file(target, headers)
                return _Reply(file.status, allowed_origin, b"", file)
            visit = door(wire, headers)
            if visit.origin is not None:
                allowed_origin = cors(visit.origin)
                if method == "OPTIONS":
                    return _Reply(204, preflight(headers, visit.origin), b"")
            caller = visit.enter()
            act = self._route(method, target, caller)
            async with asyncio.timeout(self._limits.request_within_s):
                body = await wire.body(self._limits.body_max_bytes, headers) if method == "POST" else b""
            answer = act(body)
            return _Reply(answer.status, allowed_origin, encode(answer))
        except ApiRefused as refused:
            return _Reply(refused.status, allowed_origin, refused.body())
        except OutboxFull:
            full = ApiRefused(503, "full", "The agent's disk is full, so nothing was recorded; try again later.")
            return _Reply(503, allowed_origin, full.body())
        except TimeoutError:
            return _Reply(408, allowed_origin, ApiRefused(408, "slow", "The request took too long to arrive.").body())
        except (OSError, h11.RemoteProtocolError):
            raise
        except Exception as err:  # noqa: BLE001 -- one request must not end the door; its text may quote the body, so only the kind is logged
            log.error("local api request failed", extra={"kind": type(err).__name__})
            return _Reply(
                500,
                allowed_origin,
                ApiRefused(500, "internal", "The agent failed; nothing can be said about the request.").body(),
            )

    # ------------------------------------------------------------------------------------------------------------------- doors

    def _native(self, wire: _Wire, _headers: Mapping[str, str]) -> _Visit:
        uid = wire.peer_uid()
        return _Visit(None, lambda: admit_peer(uid, self._uids))

    def _browser(self, _wire: _Wire, headers: Mapping[str, str]) -> _Visit:
        assert self._http is not None
        gate = self._http.gate
        origin = gate.admit_origin(headers)
        return _Visit(origin, lambda: gate.admit_token(headers, origin))

    def _admit_embedded(self, wire: _Wire, door: _Door, headers: Mapping[str, str]) -> str | None:
        if door != self._browser:
            admit_peer(wire.peer_uid(), self._uids)
            return None
        assert self._http is not None
        return self._http.gate.admit_embedded(headers)

    # ------------------------------------------------------------------------------------------------------------------ routes

    def _route(self, method: str, target: str, caller: Caller) -> Callable[[bytes], Answer]:
        """The operation behind a path, after the caller's scope was checked. Nothing of the path is repeated in a refusal."""
        service = self._service
        if "?" in target:
            raise ApiRefused(400, "query", "Addresses here take no query; tokens and ids do not belong into an address.")
        if target == "/v1/status":
            _only(method, "GET")
            caller.need(Scope.STATUS)
            return lambda _body: service.status()
        if target == "/v1/sessions":
            _only(method, "POST")
            caller.need(Scope.SESSIONS)
            return lambda body: service.begin(schema.read(body, schema.Begin))
        if match := _SESSION_PATH.fullmatch(target):
            _only(method, "POST")
            caller.need(Scope.SESSIONS)
            session = match[1]
            if match[2] == "renew":
                return lambda body: service.renew(session, schema.read(body or b"{}", schema.Renew))
            return lambda body: service.end(session, schema.read(body, schema.End))
        if target == "/v1/ratings":
            _only(method, "POST")
            caller.need(Scope.RATINGS)
            return lambda body: service.rate(schema.read(body, schema.Rate))
        if target == "/v1/uses":
            _only(method, "POST")
            caller.need(Scope.SESSIONS)
            return lambda body: service.use(schema.read(body, schema.Use))
        if target == "/v1/refills":
            _only(method, "POST")
            caller.need(Scope.REFILLS)
            return lambda body: service.refill(schema.read(body, schema.Refill))
        if self._guides is not None:
            return self._route_guides(self._guides, method, target, caller)
        raise ApiRefused(404, "path", "There is nothing at this address.")

    def _route_guides(self, guides: Guides, method: str, target: str, caller: Caller) -> Callable[[bytes], Answer]:
        if target in ("/v1/items", PREFIX):
            _only(method, "GET")
            caller.need(Scope.STATUS)
            return lambda _body: Answer(200, guides.list_items() if target == "/v1/items" else guides.list_packages())
        if target == "/v1/plays":
            _only(method, "POST")
            caller.need(Scope.SESSIONS)
            return lambda body: self._service.showing(schema.read(body, schema.Showing), guides.play)
        raise ApiRefused(404, "path", "There is nothing at this address.")


@dataclass(frozen=True, slots=True)
class _Visit:
    """Somebody at a door: the origin that may read refusals, and the rest of the checks."""

    origin: str | None
    enter: Callable[[], Caller]


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    file: FilePart | None = None


_Door = Callable[["_Wire", Mapping[str, str]], _Visit]


class _Wire:
    """h11 over one connection."""

    def __init__(self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._h11, self._reader, self._writer = connection, reader, writer

    @property
    def reusable(self) -> bool:
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    def peer_uid(self) -> int:
        return _peer_uid(self._writer)

    async def something(self) -> bool:
        """Wait for bytes of a next request; False at the end of the connection."""
        if self._h11.trailing_data[0]:
            return True
        data = await self._reader.read(4096)
        if data:
            self._h11.receive_data(data)
        return bool(data)

    async def event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]  # NEED_DATA was sorted out
            self._h11.receive_data(await self._reader.read(4096))

    def socket(self, limits: SocketLimits | None, pace: Bucket) -> Socket:
        from edge_agent.local_api.websocket import Socket

        return Socket(self._reader, self._writer, limits, pace)

    def switch(self, headers: list[tuple[str, str]]) -> bytes:
        """Answer 101; from here on the connection is a WebSocket. What already came of it."""
        self._write(h11.InformationalResponse(status_code=101, headers=headers))
        self._writer.transport.set_write_buffer_limits(high=64 * 1024)
        return self._h11.trailing_data[0]

    async def body(self, limit_bytes: int, headers: Mapping[str, str]) -> bytes:
        """A JSON body of at most `limit_bytes`. A form of a foreign page cannot send this content type without being asked first (CORS)."""
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiRefused(415, "contentType", "Send application/json.")
        if self._h11.they_are_waiting_for_100_continue:
            self._write(h11.InformationalResponse(status_code=100, headers=[]))
        body = bytearray()
        while isinstance(event := await self.event(), h11.Data):
            body += event.data
            if len(body) > limit_bytes:
                raise ApiRefused(413, "tooLarge", f"The body is larger than {limit_bytes} bytes.")
        return bytes(body)

    async def send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        state: object = self._h11.our_state
        if state is not h11.IDLE and state is not h11.SEND_RESPONSE:
            return
        fixed = [("cache-control", "no-store"), ("x-content-type-options", "nosniff")]
        if status != 204:
            fixed += [("content-type", "application/json; charset=utf-8"), ("content-length", str(len(body)))]
        if status == 405:
            fixed.append(("allow", "GET, POST"))
        if status == 401:
            fixed.append(("www-authenticate", "Bearer"))
        if self._h11.their_state is not h11.DONE:
            self._drain_small()
        if self._h11.their_state is not h11.DONE:
            fixed.append(("connection", "close"))
        self._write(h11.Response(status_code=status, headers=[*fixed, *headers]))
        if body and status != 204:
            self._write(h11.Data(data=body))
        self._write(h11.EndOfMessage())
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await self._writer.drain()
            if not self.reusable:
                await self._close_softly()

    async def send_file(self, part: FilePart, headers: list[tuple[str, str]], *, with_body: bool) -> None:
        """Block by block, as the client takes it. A file that ends early breaks the connection: what was promised cannot be sent."""
        if self._h11.their_state is not h11.DONE:
            self._drain_small()
        fields = [*part.headers, *headers]
        if self._h11.their_state is not h11.DONE:
            fields.append(("connection", "close"))
        fd = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self._write(h11.Response(status_code=part.status, headers=fields))
            at, end = part.start, part.start + (part.length if with_body else 0)
            while at < end:
                block = os.pread(fd, min(FILE_BLOCK_BYTES, end - at), at)
                if not block:
                    raise OSError("the file is shorter than its manifest says")
                self._write(h11.Data(data=block))
                at += len(block)
                async with asyncio.timeout(FILE_BLOCK_WITHIN_S):
                    await self._writer.drain()
        finally:
            os.close(fd)
        self._write(h11.EndOfMessage())
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await self._writer.drain()
            if not self.reusable:
                await self._close_softly()

    def _drain_small(self) -> None:
        """Take in what already arrived of a refused request, so that the connection can stay."""
        with contextlib.suppress(h11.RemoteProtocolError):
            for _ in range(4):
                event = self._h11.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED or self._h11.their_state is h11.DONE:
                    return

    async def _close_softly(self) -> None:
        """Let the answer arrive before the connection breaks: the peer may still be sending what nobody reads."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        for _ in range(64):
            if not await self._reader.read(4096):
                return

    def _write(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            self._writer.write(data)


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    """Who opened the other end of a Unix socket, on the kernel's word."""
    sock: socket.socket = writer.get_extra_info("socket")
    _pid, uid, _gid = _PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    return int(uid)


def _let_anybody_knock(path: Path) -> None:
    path.chmod(0o666)  # the kernel's word on the user id decides, not the mode of the socket


def _only(method: str, allowed: str) -> None:
    if method != allowed:
        raise ApiRefused(405, "method", f"Only {allowed} works here.")


def _repeated(request: h11.Request) -> bool:
    names = [name for name, _ in request.headers]
    return any(names.count(name) > 1 for name in _ONLY_ONCE)


_ONLY_ONCE = (
    b"host", b"origin", b"authorization", b"content-type", b"upgrade", b"sec-websocket-key", b"sec-websocket-version",
    b"sec-websocket-protocol",
)  # fmt: skip
