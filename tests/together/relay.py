"""Two things between a terminal and its broker, on loopback: a wire that can be cut, held or slowed, and a reader of every MQTT packet.

`Wire` passes bytes and cannot read them. `PacketRelay` ends TLS on both sides with the keys of server and terminal, which only a test has, and
lets each packet through, changes what passes, or keeps a copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, Self

from fleet_server.broker.mqtt import encode_length

Direction = Literal["up", "down"]
PUBLISH, PUBACK = 0x30, 0x40
DRIP_BYTES = 11


class _Loop:
    """An event loop on a thread of its own, because the test beside it waits with blocking calls."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], object]) -> None:
        """Run on the loop's thread and wait until it is done."""
        done = threading.Event()

        def run() -> None:
            try:
                work()
            finally:
                done.set()

        self.loop.call_soon_threadsafe(run)
        assert done.wait(10)

    def end(self) -> None:
        async def cancel_rest() -> None:
            rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel_rest(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class _Relay(ABC):
    """Listens on a free loopback port and connects each caller to `target_port`."""

    def __init__(
        self, target_port: int, *, listen_tls: ssl.SSLContext | None = None, target_tls: ssl.SSLContext | None = None
    ) -> None:
        self._target, self._target_tls = target_port, target_tls
        self._writers: set[asyncio.StreamWriter] = set()
        self._background = _Loop()
        self.connections = 0
        starting = asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=listen_tls)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._background.loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._background.call(self._server.close)
        self.cut()
        self._background.end()

    def cut(self) -> None:
        """Every connection is gone at once, without a word to either side that it was meant."""
        self._background.call(self._abort_all)

    def hang_up(self) -> None:
        """`cut`, for a caller on the relay's own thread."""
        self._background.loop.call_soon(self._abort_all)

    def _abort_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target, ssl=self._target_tls)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(back)
        try:
            pumps = [
                asyncio.ensure_future(self._pump(reader, back, "up")),
                asyncio.ensure_future(self._pump(there, writer, "down")),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            for end in (writer, back):
                end.transport.abort()
                self._writers.discard(end)

    @abstractmethod
    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, direction: Direction) -> None:
        """Carry one direction of one connection until it ends."""


class Wire(_Relay):
    """Bytes of TLS, untouched: they can only come late, or no more."""

    def __init__(self, target_port: int) -> None:
        self._open: dict[Direction, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
        for event in self._open.values():
            event.set()
        self._drip_pause_s = 0.0
        super().__init__(target_port)

    def hold(self, direction: Direction) -> None:
        """What goes this way stays on the wire until `let_go` (or is lost with the connection)."""
        self._background.call(self._open[direction].clear)

    def let_go(self) -> None:
        for event in self._open.values():
            self._background.call(event.set)

    def drip(self, pause_s: float) -> None:
        """A few bytes at a time with this pause between them; 0 for as fast as they come."""
        self._drip_pause_s = pause_s

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, direction: Direction) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(16 * 1024):
                while data:
                    size = DRIP_BYTES if self._drip_pause_s else len(data)
                    await self._open[direction].wait()
                    target.write(data[:size])
                    await target.drain()
                    data = data[size:]
                    if self._drip_pause_s:
                        await asyncio.sleep(self._drip_pause_s)


@dataclass
class Packet:
    """One MQTT control packet (OASIS MQTT 3.1.1, section 2)."""

    direction: Direction
    raw: bytes
    topic: str = field(init=False, default="")
    payload: bytes = field(init=False, default=b"", repr=False)

    def __post_init__(self) -> None:
        if self.is_publish:
            body = self.body
            end = 2 + int.from_bytes(body[:2], "big")
            self.topic = body[2:end].decode("utf-8", "replace")
            self.payload = body[end + (2 if self.qos else 0) :]

    @property
    def is_publish(self) -> bool:
        return self.raw[0] & 0xF0 == PUBLISH

    @property
    def qos(self) -> int:
        return self.raw[0] >> 1 & 0x03

    @property
    def body(self) -> bytes:
        start = 1
        while self.raw[start] & 0x80:
            start += 1
        return self.raw[start + 1 :]

    @property
    def kind(self) -> str:
        """The last word of the topic: `batch`, `ack`, …"""
        return self.topic.rpartition("/")[2]

    def puback(self) -> bytes:
        """What a broker says that takes this packet, and then perhaps loses it."""
        body = self.body
        at = 2 + int.from_bytes(body[:2], "big")
        return bytes((PUBACK, 2)) + body[at : at + 2]


def publish_packet(topic: str, payload: bytes) -> bytes:
    """QoS 0."""
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + payload
    return bytes((PUBLISH,)) + encode_length(len(body)) + body


Judge = Callable[[Packet], Iterable[tuple[Direction, bytes]] | None]
"""What to send on instead of a packet, in order; None: the packet as it is."""


class PacketRelay(_Relay):
    """Every packet passes `judge`, and a copy goes into `seen`."""

    def __init__(
        self, target_port: int, *, listen_tls: ssl.SSLContext, target_tls: ssl.SSLContext, judge: Judge | None = None
    ) -> None:
        self.seen: list[Packet] = []
        self.judge: Judge = judge or (lambda _packet: None)
        self._ends: dict[Direction, asyncio.StreamWriter] = {}
        super().__init__(target_port, listen_tls=listen_tls, target_tls=target_tls)

    def inject(self, direction: Direction, raw: bytes) -> None:
        """Say something on the newest connection."""
        self._background.call(lambda: self._ends[direction].write(raw))

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, direction: Direction) -> None:
        self._ends[direction] = target
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                packet = Packet(direction, await _read_packet(source))
                self.seen.append(packet)
                instead = self.judge(packet)
                for where, raw in ((direction, packet.raw),) if instead is None else instead:
                    self._ends[where].write(raw)
                await target.drain()


async def _read_packet(source: asyncio.StreamReader) -> bytes:
    raw = bytearray(await source.readexactly(2))
    length, shift = raw[1] & 0x7F, 7
    while raw[-1] & 0x80:
        raw += await source.readexactly(1)
        length |= (raw[-1] & 0x7F) << shift
        shift += 7
    return bytes(raw) + await source.readexactly(length)


def server_side(certificate_and_key: tuple[object, object], ca_file: object) -> ssl.SSLContext:
    """TLS as the broker speaks it: its certificate, and one asked of the terminal."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key = certificate_and_key
    context.load_cert_chain(str(certificate), str(key))
    context.load_verify_locations(str(ca_file))
    context.verify_mode = ssl.CERT_REQUIRED
    return context
