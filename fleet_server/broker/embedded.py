"""amqtt as the broker of a demonstration: MQTT 3.1.1 in Python, a few hundred terminals, no substitute for mosquitto.

We accept the connections ourselves, because amqtt neither insists on a client certificate nor checks
revocation, sizes, client ids or where a will may go, and leaves both sessions standing when a client connects twice. What it then sees is a CONNECT
packet that we wrote, whose client id is the certificate's name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import Action, BrokerConfig, ListenerConfig, ListenerType
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session
from cryptography import x509

from fleet_server.authority.authority import Authority
from fleet_server.broker import mqtt
from fleet_server.broker.access import MESSAGE_MAX_BYTES, may_publish, may_read
from fleet_server.enrolment.listener import common_name

log = logging.getLogger(__name__)

LISTENER = "default"
FIRST_PACKET_TIMEOUT_S = 10.0
_LENGTH_BYTES = 4
_PUBLISH, _RETAIN = 0x30, 0x01


class AnyAuthenticated(BaseAuthPlugin):  # type: ignore[misc]  # amqtt is typed but does not say so
    """Nobody reaches amqtt who has not been identified by `Door`."""

    @dataclass
    class Config:
        pass

    async def authenticate(self, *, session: Session) -> bool | None:
        return session.client_id is not None


class Topics(BaseTopicPlugin):  # type: ignore[misc]
    """The rules of `access`, on the client id that `Door` wrote."""

    @dataclass
    class Config:
        pass

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        if session is None or session.client_id is None or topic is None:
            return False
        rule = may_publish if action == Action.PUBLISH else may_read
        return rule(session.client_id, topic)


class PacketReader(StreamReaderAdapter):  # type: ignore[misc]
    """Gives amqtt the rewritten CONNECT, then the client's own bytes, and hangs up before a packet that is too large."""

    def __init__(self, reader: asyncio.StreamReader, first: bytes) -> None:
        super().__init__(reader)
        self._ready = first
        self._left = 0

    async def read(self, n: int = -1) -> bytes:
        if n < 0:
            raise ConnectionResetError("amqtt reads packets, never to the end")
        taken = b""
        while len(taken) < n:
            if self._ready:
                part, self._ready = self._ready[: n - len(taken)], self._ready[n - len(taken) :]
            elif self._left:
                part = await self._reader.readexactly(min(self._left, n - len(taken)))
                self._left -= len(part)
            else:
                header, self._left = await fixed_header(self._reader)
                if header[0] & 0xF0 == _PUBLISH:
                    # Nothing is retained, as at mosquitto.
                    header = bytes((header[0] & ~_RETAIN,)) + header[1:]
                self._ready = header
                continue
            taken += part
        return taken


async def fixed_header(reader: asyncio.StreamReader) -> tuple[bytes, int]:
    """The header's bytes and how many follow; ConnectionResetError if they are more than anybody may send."""
    header = await reader.readexactly(1)
    length = 0
    for place in range(_LENGTH_BYTES):
        byte = await reader.readexactly(1)
        header += byte
        length |= (byte[0] & 0x7F) << (7 * place)
        if not byte[0] & 0x80:
            if length > MESSAGE_MAX_BYTES:
                raise ConnectionResetError(f"a packet of {length} bytes")
            return header, length
    raise ConnectionResetError("a length of more than four bytes")


class Door:
    """Accepts TLS connections, decides who each is, and hands it to amqtt."""

    def __init__(self, broker: Broker, crl_file: Path) -> None:
        self._broker = broker
        self._crl_file = crl_file
        self._revoked: frozenset[int] = frozenset()
        self._present: dict[str, tuple[int, asyncio.StreamWriter]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.read_revoked()

    def read_revoked(self) -> None:
        """Read the revocation list again and end the sessions of everybody on it."""
        self._revoked = frozenset(entry.serial_number for entry in x509.load_pem_x509_crl(self._crl_file.read_bytes()))
        for name, (serial, writer) in list(self._present.items()):
            if serial in self._revoked:
                log.info("ending the session of %s: revoked", name)
                writer.close()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for _, writer in self._present.values():
            writer.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name, serial = identity(writer)
        if name is None or serial in self._revoked:
            writer.close()
            return
        try:
            async with asyncio.timeout(FIRST_PACKET_TIMEOUT_S):
                first = await self._first_packet(reader, writer, name)
        except (OSError, asyncio.IncompleteReadError, mqtt.NotConnect) as err:
            log.info("%s: no session: %s", name, err)
            writer.close()
            return
        older = self._present.get(name)
        self._present[name] = (serial, writer)
        if older is not None:
            log.info("%s connects again: ending its older session", name)
            older[1].close()
        try:
            await self._broker.external_connected(PacketReader(reader, first), StreamWriterAdapter(writer), LISTENER)
        except OSError as err:
            log.info("%s: %s", name, err)
        finally:
            if self._present.get(name) == (serial, writer):
                del self._present[name]
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()

    async def _first_packet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> bytes:
        header, length = await fixed_header(reader)
        if header[0] != mqtt.CONNECT:
            raise mqtt.NotConnect("the first packet is no CONNECT")
        try:
            connect = mqtt.decode_connect(await reader.readexactly(length))
            if connect.will_topic is not None and not may_publish(name, connect.will_topic):
                raise mqtt.NotConnect("a will where it may not publish", mqtt.connack(mqtt.NOT_AUTHORISED))
        except mqtt.NotConnect as err:
            writer.write(err.answer)
            await writer.drain()
            raise
        return mqtt.encode_connect(connect, name)


def identity(writer: asyncio.StreamWriter) -> tuple[str | None, int]:
    """(common name, serial) of the client certificate that TLS has verified."""
    certificate: dict[str, Any] = writer.get_extra_info("peercert") or {}
    return common_name(certificate), int(certificate.get("serialNumber", "0"), 16)


def tls_context(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*authority.server_files)
    context.load_verify_locations(authority.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def serve(authority: Authority, host: str, port: int, stop: asyncio.Event) -> None:
    """Run until `stop` is set; SIGHUP reads the revocation list again."""
    config = BrokerConfig(
        listeners={LISTENER: ListenerConfig(type=ListenerType.EXTERNAL)},
        plugins={f"{__name__}.{AnyAuthenticated.__name__}": {}, f"{__name__}.{Topics.__name__}": {}},
    )
    broker = Broker(config)
    await broker.start()
    door = Door(broker, authority.crl_file)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, door.read_revoked)
    server = await asyncio.start_server(
        door.connected, host, port, ssl=tls_context(authority), ssl_handshake_timeout=FIRST_PACKET_TIMEOUT_S
    )
    log.warning("the embedded broker serves %s:%d; it is meant for demonstrations", host, port)
    try:
        await stop.wait()
    finally:
        server.close()
        await door.close()
        await broker.shutdown()
