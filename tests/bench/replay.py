"""Terminals coming back after an outage, as a process of its own: sends what real outboxes sealed, over real mutual TLS, in the contract's window.

Not the agent: it checks no signature of the server and writes nothing to disk, because in the field that work is done by the terminals' own
processors, not by the machine that is being measured. It speaks just enough MQTT 3.1.1 (OASIS, sections 3.1 to 3.12) for that.

Run with a file that says what to do; says `ready`, waits for a line, sends, says `done` when everything is acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_agent.clock import SystemClock
from edge_agent.outbox import Outbox
from fleet_server.authority.authority import Ed25519Signer
from fleet_server.broker.mqtt import Connect, encode_connect, encode_length
from protocols.contract import envelope as cose
from protocols.contract import messages, topics, wire
from protocols.contract.limits import CONTROL_MAX_BYTES, WINDOW_BATCHES, WINDOW_BYTES
from tests.bench.stage import FLEET, client_context

PUBLISH, PUBLISH_QOS1, PUBACK, SUBSCRIBE = 0x30, 0x32, 0x40, 0x82


@dataclass
class Load:
    """What one terminal has to send."""

    stream: bytes
    birth: messages.Birth
    envelopes: list[bytes]


def load(path: Path, signer: Ed25519Signer, terminal: str) -> Load:
    outbox = Outbox(path, signer, FLEET, terminal, SystemClock(), durable=False)
    held, more = outbox.held()
    assert len(held) == 1
    assert not more
    birth = messages.Birth(
        nonce=bytes(16),
        agent="0.1.0",
        boot_no=outbox.boot_no,
        boot_id=bytes(range(16)),
        stream=outbox.stream,
        wall_ms=SystemClock().wall_ms(),
        boot_ms=SystemClock().boot_ms(),
        quality=SystemClock().quality(),
        held=held,
    )
    outbox.close(clean=False)
    with closing(sqlite3.connect(path)) as db:
        envelopes = [bytes(row[0]) for row in db.execute("SELECT envelope FROM batch ORDER BY no")]
    return Load(held[0].stream, birth, envelopes)


@dataclass
class Replayer(asyncio.Protocol):
    terminal: str
    signer: Ed25519Signer
    load: Load
    greeted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    finished: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def __post_init__(self) -> None:
        self._in = bytearray()
        self._sent = self._acknowledged = self._under_way = 0
        self._sending = False
        self._topic = topics.up(self.terminal, "batch").encode()

    # -- what happens on the wire -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._wire = transport
        transport.write(encode_connect(Connect(keepalive_s=600), self.terminal))
        filter_ = topics.down(self.terminal, "+").encode()
        body = b"\x00\x01" + len(filter_).to_bytes(2, "big") + filter_ + b"\x01"
        transport.write(bytes((SUBSCRIBE,)) + encode_length(len(body)) + body)
        self._publish(topics.up(self.terminal, "hello"), wire.dump(messages.Hello(connection=os.urandom(8))))

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in (self.greeted, self.finished):
            if not waiting.done():
                waiting.set_exception(ConnectionResetError(f"the broker hung up on {self.terminal}: {exc}"))

    def data_received(self, data: bytes) -> None:
        buffer = self._in
        buffer += data
        at = 0
        while (packet := _packet(buffer, at)) is not None:
            kind, start, at = packet
            if kind & 0xF0 == PUBLISH:
                end = start + 2 + int.from_bytes(buffer[start : start + 2], "big")
                self._on_message(buffer[start + 2 : end].decode(), bytes(buffer[end + (2 if kind & 0x06 else 0) : at]))
        del buffer[:at]

    def _publish(self, topic: str, payload: bytes) -> None:
        name = topic.encode()
        body = len(name).to_bytes(2, "big") + name + b"\xff\xff" + payload
        self._wire.write(bytes((PUBLISH_QOS1,)) + encode_length(len(body)) + body)

    # -- the contract, as the agent keeps it --------------------------------------------------------------------------

    def _on_message(self, topic: str, payload: bytes) -> None:
        message = cbor2.loads(cose.parse(payload, CONTROL_MAX_BYTES).payload)
        match topic.rpartition("/")[2]:
            case "challenge":
                birth = messages.Birth(**{**_fields(self.load.birth), "nonce": message["n"]})
                self._publish(
                    topics.up(self.terminal, "birth"), wire.seal(birth, self.signer, messages.BIRTH_CONTEXT, FLEET, self.terminal)
                )
            case "head":
                if not self.greeted.done():
                    self.greeted.set_result(None)
            case "ack":
                self._on_ack(message["a"])

    def _on_ack(self, entries: list[list[object]]) -> None:
        for _, no, _, mode in entries:
            if mode == messages.AckMode.BACK:
                raise RuntimeError(
                    f"the server went back to {no} of {self.terminal}: nothing was lost, so nothing may be asked again"
                )
            assert isinstance(no, int)
            for place in range(self._acknowledged, no):
                self._under_way -= len(self.load.envelopes[place])
            self._acknowledged = max(self._acknowledged, no)
        if self._acknowledged == len(self.load.envelopes):
            self.finished.set_result(None)
        else:
            self.send()

    def send(self) -> None:
        """Fill the window: at most 64 batches or 1 MiB unacknowledged."""
        envelopes, out = self.load.envelopes, []
        while (
            self._sent < len(envelopes)
            and self._sent - self._acknowledged < WINDOW_BATCHES
            and (not self._under_way or self._under_way + len(envelopes[self._sent]) <= WINDOW_BYTES)
        ):
            envelope = envelopes[self._sent]
            self._sent += 1
            self._under_way += len(envelope)
            identifier = (self._sent % 60_000 + 1).to_bytes(2, "big")
            length = encode_length(4 + len(self._topic) + len(envelope))
            out += [bytes((PUBLISH_QOS1,)), length, len(self._topic).to_bytes(2, "big"), self._topic, identifier, envelope]
        self._wire.write(b"".join(out))


def _same(made: Replayer) -> Callable[[], Replayer]:
    return lambda: made


def _fields(birth: messages.Birth) -> dict[str, object]:
    return {name: getattr(birth, name) for name in birth.__struct_fields__}


def _packet(buffer: bytearray, at: int) -> tuple[int, int, int] | None:
    """(first byte, where the variable header starts, where the next packet starts) of the packet at `at`; None if it is not complete."""
    length = shift = 0
    place = at + 1
    while True:
        if place >= len(buffer):
            return None
        byte = buffer[place]
        place += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return (buffer[at], place, place + length) if place + length <= len(buffer) else None


async def main(order: dict[str, object]) -> None:
    loop = asyncio.get_running_loop()
    terminals = order["terminals"]
    assert isinstance(terminals, list)
    replayers = []
    for item in terminals:
        signer = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(item["key"])))
        replayer = Replayer(item["id"], signer, load(Path(item["spool"]), signer, item["id"]))
        context = client_context(Path(str(order["ca"])), Path(item["tls"]))
        await loop.create_connection(_same(replayer), "127.0.0.1", int(str(order["port"])), ssl=context)
        replayers.append(replayer)
    await asyncio.gather(*(replayer.greeted for replayer in replayers))
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    for replayer in replayers:
        replayer.send()
    await asyncio.gather(*(replayer.finished for replayer in replayers))
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text("utf-8"))))
