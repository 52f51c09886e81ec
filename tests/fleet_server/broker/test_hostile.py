"""A terminal with a valid certificate that wants to fill the broker: it harms itself, and nobody else is shut out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from fleet_server.authority.authority import INGEST_NAME
from fleet_server.broker import mqtt
from fleet_server.broker.access import MESSAGE_MAX_BYTES
from fleet_server.broker.mosquitto import configuration
from protocols.contract import topics
from tests.fleet_server.broker.conftest import Bench
from tests.fleet_server.broker.test_behaviour import reaches, refused, within
from tests.support.processes import Processes

pytestmark = pytest.mark.broker

LIMIT_MIB = 32
OTHERS_MIB = 24
"""Program, libraries and TLS sessions, which the broker's own limit does not count (measured: 12)."""
CONNECTIONS = 12


@pytest.fixture
def small(tmp_path: Path, processes: Processes, free_port: Callable[[], int]) -> Iterator[Bench]:
    """A mosquitto with little memory."""
    bench = Bench("mosquitto", tmp_path, free_port(), processes, memory_limit_mib=LIMIT_MIB, max_connections=CONNECTIONS)
    yield bench
    with suppress(ProcessLookupError):
        bench.child.stop()


class Raw:
    """A connection that reads only if it is asked to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def publish(self, topic: str, payload: bytes, qos: int = 0) -> None:
        head = len(topic).to_bytes(2, "big") + topic.encode() + (b"\0\1" if qos else b"")
        self.writer.write(bytes((0x30 | qos << 1,)) + mqtt.encode_length(len(head) + len(payload)) + head + payload)

    def subscribe(self, *filters: str, qos: int = 0) -> None:
        body = b"\0\1" + b"".join(len(one).to_bytes(2, "big") + one.encode() + bytes((qos,)) for one in filters)
        self.writer.write(b"\x82" + mqtt.encode_length(len(body)) + body)


@asynccontextmanager
async def raw(bench: Bench, name: str) -> AsyncIterator[Raw]:
    files = bench.authority.ingest_files if name == INGEST_NAME else bench.certificate(name)
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.port, ssl=bench.context(*files), limit=1024)
    try:
        writer.write(mqtt.encode_connect(mqtt.Connect(60), name))
        assert await within(reader.readexactly(4)) == mqtt.connack(mqtt.ACCEPTED)
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


def memory_mib(bench: Bench) -> int:
    pages = int(Path(f"/proc/{bench.child.popen.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


async def flood(bench: Bench, name: str, *, size: int, count: int) -> None:
    """Send so much, however often the broker hangs up."""
    for _ in range(4):
        with suppress(OSError, AssertionError, asyncio.IncompleteReadError, TimeoutError):
            async with raw(bench, name) as attacker:
                for _ in range(count // 4):
                    attacker.publish(topics.up(name, "batch"), bytes(size), qos=1)
                    await within(attacker.writer.drain(), 5)


@pytest.mark.parametrize(("size", "count"), [(100_000, 1_200), (1, 120_000)])
async def test_whoever_floods_a_stalled_ingest_shuts_nobody_out(small: Bench, size: int, count: int) -> None:
    await small.ready()
    async with raw(small, INGEST_NAME) as ingest:
        ingest.subscribe("kf/1/#", qos=1)
        await within(ingest.reader.readexactly(5))
        await flood(small, "kiosk-1", size=size, count=count)
        assert memory_mib(small) <= LIMIT_MIB + OTHERS_MIB
        assert not ingest.writer.is_closing()
        assert not await refused(small, small.context(*small.certificate("kiosk-2")), "kiosk-2"), "others still get in"
        async with small.client("kiosk-2") as honest:
            await within(honest.subscribe(topics.down("kiosk-2", "ack"), qos=1))
            await within(honest.publish(topics.up("kiosk-2", "hb"), b"while it is full", qos=1))
    async with small.ingest() as again, small.client("kiosk-2") as honest:
        await again.subscribe("kf/1/#", qos=1)
        await reaches(again, honest, "kiosk-2")


async def test_a_packet_of_any_kind_beyond_the_limit_ends_its_sender(small: Bench) -> None:
    await small.ready()
    async with raw(small, "kiosk-1") as attacker:
        attacker.subscribe(*(f"a/{number:06d}" for number in range(20_000)))
        with pytest.raises((asyncio.IncompleteReadError, OSError)):
            await within(attacker.reader.readexactly(5))
    async with small.ingest() as ingest, small.client("kiosk-2") as honest:
        await ingest.subscribe("kf/1/#", qos=1)
        await reaches(ingest, honest, "kiosk-2")
        await within(honest.publish(topics.up("kiosk-2", "batch"), bytes(MESSAGE_MAX_BYTES - 100), qos=1))


async def test_who_does_not_read_its_answers_fills_nothing(small: Bench) -> None:
    """The server answers whoever asks; what a terminal does not take must not wait for it without end."""
    await small.ready()
    async with raw(small, "kiosk-1") as deaf:
        deaf.subscribe(topics.down("kiosk-1", "challenge"))
        await within(deaf.reader.readexactly(5))
        async with raw(small, INGEST_NAME) as server:
            for _ in range(150_000):
                server.publish(topics.down("kiosk-1", "challenge"), bytes(450))
                await within(server.writer.drain())
            server.subscribe("kf/1/+/kiosk-2/up/#")
            assert (await within(server.reader.readexactly(5)))[:1] == b"\x90", "the server itself is not hung up on"
        assert memory_mib(small) <= LIMIT_MIB + OTHERS_MIB
        async with small.ingest() as ingest, small.client("kiosk-2") as honest:
            await ingest.subscribe("kf/1/+/kiosk-2/up/#", qos=1)
            await reaches(ingest, honest, "kiosk-2")


def test_every_limit_is_set(small: Bench, tmp_path: Path) -> None:
    said = dict(line.split(" ", 1) for line in configuration(small.settings, small.authority, tmp_path / "acl").splitlines())
    limits = {
        name: int(said[name]) for name in ("max_packet_size", "max_inflight_bytes", "max_queued_bytes", "max_queued_messages")
    }
    assert all(0 < value < int(said["memory_limit"]) for value in limits.values())
    assert limits["max_packet_size"] > MESSAGE_MAX_BYTES
    assert int(said["max_connections"]) == CONNECTIONS
    assert (said["persistent_client_expiration"], said["max_qos"]) == ("1h", "1")
