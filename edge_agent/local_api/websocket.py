"""WebSocket (RFC 6455, wsproto) for the owner API: the handshake's words, and one open connection with its limits.

A peer that sends too much, too often, too slowly or not at all is closed; one that does not read is cut off. No extension is offered: what is
compressed may be larger than any limit. What passes is never logged.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, generate_accept_token

from edge_agent.local_api.refusal import ApiRefused

log = logging.getLogger(__name__)

SUBPROTOCOL = "kiosk-fleet.devices.v1"
TOKEN_PREFIX = "kiosk-fleet.bearer."  # noqa: S105 -- what stands before a token, not one


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketLimits:
    """`ping_every_s`: a peer that says nothing for so long is asked, and closed if it says nothing again.

    `message_within_s`: from a message's first frame to its last. `slow_reader_s`: how long what was written may stay untaken.
    """

    ping_every_s: float = 20.0
    message_within_s: float = 30.0
    frames_max: int = 1024
    control_per_s: float = 10.0
    control_burst: int = 40
    messages_per_s: float = 100.0
    messages_burst: int = 100
    all_per_s: float = 200.0
    """Of all connections together: what they ask is answered on the loop that watches the devices."""
    queue_max: int = 256
    queue_max_bytes: int = 4 * 1024 * 1024
    slow_reader_s: float = 10.0
    read_bytes: int = 16 * 1024


class Line(Protocol):
    """What a connection is for."""

    @property
    def limit_bytes(self) -> int: ...
    def receive(self, text: str) -> None: ...
    async def close(self) -> None: ...


class Lines(Protocol):
    """Opens them: the owner service."""

    def open(self, slot: str | None, *, name: str | None, base: str, send: Callable[[bytes], None]) -> Line | None: ...


def with_token(headers: Mapping[str, str]) -> Mapping[str, str]:
    """A browser's script cannot give a WebSocket an Authorization header, but it can offer subprotocols: one of them carries the token."""
    if "authorization" in headers:
        return headers
    tokens = [one.removeprefix(TOKEN_PREFIX) for one in _offered(headers) if one.startswith(TOKEN_PREFIX)]
    return {**headers, "authorization": f"Bearer {tokens[0]}"} if len(tokens) == 1 else headers


def accept(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers of the 101 answer. The token is never among them. Raises ApiRefused 400 or 426."""
    wants = "websocket" in _words(headers.get("upgrade", "")) and "upgrade" in _words(headers.get("connection", ""))
    if not wants or headers.get("sec-websocket-version") != "13":
        raise ApiRefused(426, "upgrade", "This address speaks WebSocket, version 13.")
    key = headers.get("sec-websocket-key", "")
    try:
        sound = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        sound = False
    if not sound:
        raise ApiRefused(400, "headers", "Sec-WebSocket-Key must be 16 bytes in base64.")
    answer = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", generate_accept_token(key.encode("ascii")).decode("ascii")),
    ]
    if SUBPROTOCOL in _offered(headers):
        answer.append(("sec-websocket-protocol", SUBPROTOCOL))
    return answer


def _offered(headers: Mapping[str, str]) -> list[str]:
    return [one.strip() for one in headers.get("sec-websocket-protocol", "").split(",") if one.strip()]


def _words(value: str) -> set[str]:
    return {one.strip().lower() for one in value.split(",")}


class Closed(Exception):
    """The connection ends, for this reason."""

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(reason.name)
        self.reason = reason


@dataclass(slots=True)
class Bucket:
    per_s: float
    burst: float
    tokens: float
    counted_s: float

    def wait_s(self, now_s: float) -> float:
        """Take one; how long it is too early by."""
        self.tokens = min(self.burst, self.tokens + (now_s - self.counted_s) * self.per_s) - 1
        self.counted_s = now_s
        return max(0.0, -self.tokens / self.per_s)


def shared_pace(limits: SocketLimits | None = None) -> Bucket:
    """For all connections of an agent."""
    per_s = (limits or SocketLimits()).all_per_s
    return Bucket(per_s, per_s, per_s, asyncio.get_running_loop().time())


class Socket:
    """One open connection: `run` until it ends, `send` from anywhere on the loop."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        limits: SocketLimits | None = None,
        pace: Bucket | None = None,
    ) -> None:
        """`pace` is that of all connections together."""
        self._reader, self._writer, self._limits = reader, writer, limits or SocketLimits()
        self._ws = Connection(ConnectionType.SERVER)
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._more = asyncio.Event()
        now_s = asyncio.get_running_loop().time()
        limit = self._limits
        self._controls = Bucket(limit.control_per_s, limit.control_burst, limit.control_burst, now_s)
        self._messages = Bucket(limit.messages_per_s, limit.messages_burst, limit.messages_burst, now_s)
        self._pace = pace
        self._parts: list[str] = []
        self._part_bytes = self._frames = 0
        self._began_s: float | None = None

    def send(self, message: bytes) -> None:
        """Queue a message. Who does not read is cut off; nothing is kept for it."""
        if self._queued_bytes + len(message) > self._limits.queue_max_bytes or len(self._queue) >= self._limits.queue_max:
            self._writer.transport.abort()
            return
        self._queue.append(message)
        self._queued_bytes += len(message)
        self._more.set()

    async def run(self, line: Line, switch: Callable[[], bytes]) -> None:
        """Until the peer closes, goes away or breaks a limit. `switch` answers the handshake and gives what already came behind it."""
        try:
            self._ws.receive_data(switch())
        except BaseException:
            await line.close()
            raise
        sending = asyncio.get_running_loop().create_task(self._sending())
        try:
            await self._receiving(line)
        except Closed as closed:
            await self._say_goodbye(closed.reason)
        except (OSError, TimeoutError):
            pass
        except Exception as err:  # noqa: BLE001 -- its text may quote what passed, so only the kind is logged
            log.error("a connection to a device failed", extra={"kind": type(err).__name__})
            await self._say_goodbye(CloseReason.INTERNAL_ERROR)
        finally:
            sending.cancel()
            self._queue.clear()
            self._parts.clear()
            await asyncio.gather(sending, return_exceptions=True)
            await line.close()

    async def _receiving(self, line: Line) -> None:
        asked = False
        while True:
            for event in self._ws.events():
                if isinstance(event, Ping | Pong):
                    self._control(event)
                elif isinstance(event, TextMessage):
                    await self._text(event, line)
                elif isinstance(event, BytesMessage):
                    raise Closed(CloseReason.UNSUPPORTED_DATA)
                elif isinstance(event, CloseConnection):
                    broken = (
                        self._ws.state is ConnectionState.OPEN
                    )  # what came was no frame; a peer that closes is answered in kind
                    raise Closed(CloseReason(event.code) if broken else CloseReason.NORMAL_CLOSURE)
            try:
                async with asyncio.timeout(self._patience_s()):
                    data = await self._reader.read(self._limits.read_bytes)
            except TimeoutError:
                if asked or self._is_late():
                    raise Closed(CloseReason.POLICY_VIOLATION) from None
                asked = True
                self._write(self._ws.send(Ping(payload=b"?")))
                continue
            if not data:
                return
            asked = False
            if self._is_late():
                raise Closed(CloseReason.POLICY_VIOLATION)
            self._ws.receive_data(data)

    def _patience_s(self) -> float:
        if self._began_s is None:
            return self._limits.ping_every_s
        left_s = self._began_s + self._limits.message_within_s - asyncio.get_running_loop().time()
        return min(self._limits.ping_every_s, max(0.01, left_s))

    def _is_late(self) -> bool:
        return self._began_s is not None and asyncio.get_running_loop().time() - self._began_s >= self._limits.message_within_s

    def _control(self, event: Ping | Pong) -> None:
        if self._controls.wait_s(asyncio.get_running_loop().time()) > 0:
            raise Closed(CloseReason.POLICY_VIOLATION)
        if isinstance(event, Ping):
            if self._writer.transport.get_write_buffer_size() > self._limits.queue_max_bytes:
                raise Closed(CloseReason.POLICY_VIOLATION)
            self._write(self._ws.send(event.response()))

    async def _text(self, event: TextMessage, line: Line) -> None:
        loop = asyncio.get_running_loop()
        if self._began_s is None:
            self._began_s = loop.time()
        self._parts.append(event.data)
        self._part_bytes += len(event.data.encode("utf-8"))
        self._frames += 1 if event.frame_finished else 0
        if self._part_bytes > line.limit_bytes:
            raise Closed(CloseReason.MESSAGE_TOO_BIG)
        if self._frames > self._limits.frames_max:
            raise Closed(CloseReason.POLICY_VIOLATION)
        if not event.message_finished:
            return
        text = "".join(self._parts)
        self._parts.clear()
        self._part_bytes = self._frames = 0
        self._began_s = None
        wait_s = self._messages.wait_s(loop.time())
        if self._pace is not None:
            wait_s = max(wait_s, self._pace.wait_s(loop.time()))
        if wait_s > 0:
            await asyncio.sleep(wait_s)  # not read meanwhile: the kernel tells the sender to wait
        line.receive(text)

    async def _sending(self) -> None:
        try:
            while True:
                while self._queue:
                    message = self._queue.popleft()
                    self._queued_bytes -= len(message)
                    if self._ws.state is not ConnectionState.OPEN:
                        return
                    self._write(self._ws.send(TextMessage(data=message.decode("utf-8"))))
                    async with asyncio.timeout(self._limits.slow_reader_s):
                        await self._writer.drain()
                self._more.clear()
                await self._more.wait()
        except (OSError, TimeoutError):
            self._writer.transport.abort()

    async def _say_goodbye(self, reason: CloseReason) -> None:
        with contextlib.suppress(LocalProtocolError, OSError, TimeoutError):
            self._write(self._ws.send(CloseConnection(code=reason)))
            async with asyncio.timeout(1.0):
                await self._writer.drain()

    def _write(self, data: bytes) -> None:
        if data and not self._writer.is_closing():
            self._writer.write(data)
