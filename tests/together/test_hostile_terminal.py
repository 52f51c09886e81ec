"""One enrolled terminal that does what it likes with its own certificate and key, and another one that must not notice.

Real broker, real ingest. Each attempt is refused as the specification says; a rightful terminal's records are acknowledged meanwhile, and in the
heavy cases a fault of a real device is at the server within its usual time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiomqtt
import cbor2
import pytest

from fleet_server.evidence.ledger import QUARANTINE_PER_SENDER
from protocols.contract import batch as batches
from protocols.contract import envelope as cose
from protocols.contract import messages, topics, wire
from protocols.contract.limits import ENVELOPE_MAX_BYTES
from protocols.contract.records import ClockQuality
from simulators import control
from tests.support.contract import FLEET, STRANGER, Chain, encoded, notice
from tests.support.server import RunningServer, now_ms
from tests.support.terminal import RealTerminal
from tests.support.waiting import until, wait_until
from tests.together.poison import poisoned_births, poisoned_payloads
from tests.together.road import (
    Enrolled,
    Sender,
    check_chain,
    decode,
    enrolled,
    open_alarms,
    stored_numbers,
    whole_server,
)

pytestmark = [pytest.mark.broker, pytest.mark.slow]

USUAL_S = 2.0
"""A fault is a tenth of a second away on a quiet machine, a second by the budget with 400 terminals; the rest is for a loaded test machine."""
POISONS = 400
SOAK_POISONS = int(os.environ.get("KF_SOAK_POISONS", "20000"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with whole_server(tmp_path_factory.mktemp("hostile"), fleet=FLEET) as running:
        yield running


@pytest.fixture(scope="module")
def rightful(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTerminal]:
    """A real agent with real devices."""
    made = RealTerminal(tmp_path_factory.mktemp("rightful"), server.processes, server, "rightful")
    made.plug_in()
    made.write_config()
    made.enrol()
    made.start()
    online = "SELECT count(*) FROM device WHERE terminal = 'rightful' AND device = 'online'"
    wait_until(lambda: server.rows(online)[0][0] >= 3, "its devices are known", timeout_s=40)
    yield made
    made.close()


@pytest.fixture
def neighbour(server: RunningServer, tmp_path: Path) -> Enrolled:
    return enrolled(server, tmp_path, f"neighbour-{os.urandom(3).hex()}")


@pytest.fixture
def me(server: RunningServer, tmp_path: Path) -> Enrolled:
    """The hostile one."""
    return enrolled(server, tmp_path, f"hostile-{os.urandom(3).hex()}")


# Tools ----------------------------------------------------------------------------------------------------------------------------------


@dataclass
class Attacker:
    """An MQTT client with the terminal's own certificate, and what it hears."""

    client: aiomqtt.Client
    me: Enrolled
    heard: list[aiomqtt.Message] = field(default_factory=list)

    async def say(self, kind: str, payload: bytes, *, name: str | None = None, topic: str | None = None, qos: int = 1) -> None:
        await self.client.publish(topic or topics.up(name or self.me.terminal, kind), payload, qos=qos)

    async def greet(self) -> messages.Challenge:
        """Everything said before is behind the ingest when this returns."""
        before = len(self.heard)
        await self.say("hello", wire.dump(messages.Hello(connection=os.urandom(8))))
        found = await until(
            lambda: [m for m in self.heard[before:] if str(m.topic).endswith("/challenge")], "a challenge", timeout_s=20
        )
        return wire.read(cose.parse(_bytes(found[-1]), 1 << 20).payload, messages.Challenge)

    async def be_born(self) -> messages.Challenge:
        challenge = await self.greet()
        await self.say("birth", birth(self.me, challenge.nonce))
        await until(lambda: any(str(m.topic).endswith("/head") for m in self.heard), "a head")
        return challenge

    @property
    def acknowledged(self) -> list[messages.AckEntry]:
        entries: list[messages.AckEntry] = []
        for message in self.heard:
            if str(message.topic).endswith("/ack"):
                entries += wire.read(cose.parse(_bytes(message), 1 << 20).payload, messages.Ack).entries
        return entries


def _bytes(message: aiomqtt.Message) -> bytes:
    assert isinstance(message.payload, bytes)
    return message.payload


@asynccontextmanager
async def attacking(
    server: RunningServer, me: Enrolled, *, client_id: str | None = None, tls: ssl.SSLContext | None = None, timeout_s: float = 20
) -> AsyncIterator[Attacker]:
    client = aiomqtt.Client(
        "127.0.0.1",
        server.settings.broker.port,
        identifier=client_id or me.terminal,
        tls_context=tls or me.tls(),
        timeout=timeout_s,
    )
    client.pending_calls_threshold = 10_000
    async with client:
        await client.subscribe(topics.down(me.terminal, "+"), qos=1)
        attacker = Attacker(client, me)

        async def listen() -> None:
            async for message in client.messages:
                attacker.heard.append(message)

        listening = asyncio.get_running_loop().create_task(listen())
        try:
            yield attacker
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError, aiomqtt.MqttError):
                await listening


def birth(me: Enrolled, nonce: bytes, **more: Any) -> bytes:
    values: dict[str, Any] = {
        "nonce": nonce, "agent": "1.0", "boot_no": 1, "boot_id": b"b" * 16, "stream": b"s" * 16, "wall_ms": 1, "boot_ms": 1,
        "quality": ClockQuality.SYNCED, "held": (),
    }  # fmt: skip
    body = messages.Birth(**(values | more))
    return wire.seal(body, me.keys.record_key(), messages.BIRTH_CONTEXT, me.who.fleet, me.terminal)


def own_chain(me: Enrolled, *, key: Any = None, terminal: str | None = None) -> Chain:
    signer: Any = key or me.keys.record_key()
    return Chain(os.urandom(16), signer, terminal or me.terminal, fleet=me.who.fleet)


def refused(server: RunningServer, sender: str) -> dict[str, int]:
    """Reason → how often."""
    return dict(server.rows("SELECT reason, count FROM quarantine_count WHERE terminal = ?", (sender,)))


def count_of(server: RunningServer, sender: str, reason: str, least: int) -> bool:
    return refused(server, sender).get(reason, 0) >= least


def stored(server: RunningServer, terminal: str) -> int:
    return int(server.rows("SELECT count(*) FROM batch WHERE terminal = ?", (terminal,))[0][0])


@asynccontextmanager
async def served_meanwhile(server: RunningServer, neighbour: Enrolled) -> AsyncIterator[None]:
    """A neighbour whose records are acknowledged before, during and after, each time within the usual time."""
    async with Sender(neighbour).running() as sender:
        sender.capture()
        await sender.drained()
        ending = asyncio.Event()

        async def work() -> None:
            while not ending.is_set():
                sender.capture()
                await sender.drained(timeout_s=10 * USUAL_S)
                await asyncio.sleep(0.1)

        working = asyncio.get_running_loop().create_task(work())
        try:
            yield
        finally:
            ending.set()
            await working
        sender.capture()
        began_s = time.monotonic()
        await sender.drained()
        assert time.monotonic() - began_s < USUAL_S
        assert stored_numbers(server, neighbour.terminal) == sender.captured
        assert sender.links == ["up"], "the neighbour lost its connection"
    check_chain(server, neighbour.terminal)


FAULTS = iter(("cover-open", "paper-out", "voltage", "cutter", "jam") * 2)
"""A third opening of one fault within ten minutes would be damped as flapping."""


async def fault_arrives(server: RunningServer, terminal: RealTerminal) -> None:
    """A fault of a real device of the rightful terminal, from the device to the database, within the usual time."""
    fault = next(FAULTS)
    # Episodes, not open faults: an earlier one may be taken back in the very moment in which this one opens.
    count = "SELECT count(*) FROM fault WHERE terminal = ? AND source = 'terminal'"

    def opened() -> int:
        return int(server.rows(count, (terminal.terminal,))[0][0])

    before, began_s = opened(), time.monotonic()
    await asyncio.to_thread(control.request, terminal.ports / "sim", {"do": "fault", "words": ["receipt-printer", fault]})
    await until(lambda: opened() > before, f"the fault {fault} is at the server")
    took_s = time.monotonic() - began_s
    await asyncio.to_thread(control.request, terminal.ports / "sim", {"do": "clear", "words": ["receipt-printer", fault]})
    assert took_s < USUAL_S


# Envelopes that are not what they say ---------------------------------------------------------------------------------------------------

Make = Callable[[RunningServer, Enrolled, Enrolled], tuple[str, bytes]]
"""(server, hostile, neighbour) → (kind, payload)."""


def forged_by_a_stranger(_server: RunningServer, me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    return "batch", own_chain(me, key=STRANGER).seal()


class _Pretender:
    """Signs with one key and names another."""

    def __init__(self, kid: bytes) -> None:
        self.kid = kid

    def sign(self, data: bytes) -> bytes:
        return STRANGER.sign(data)


def forged_under_its_own_key_id(_server: RunningServer, me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    return "batch", own_chain(me, key=_Pretender(me.keys.record_key().kid)).seal()


def signature_taken_from_another(_server: RunningServer, me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    chain = own_chain(me)
    first, second = chain.seal(), chain.seal()
    return "batch", first[:-64] + second[-64:]


def one_bit_changed(_server: RunningServer, me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    raw = bytearray(own_chain(me).seal())
    raw[len(raw) // 2] ^= 0x01
    return "batch", bytes(raw)


def cut_off(_server: RunningServer, me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    return "batch", own_chain(me).seal()[:-1]


def cut_to_its_head(_server: RunningServer, me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    return "batch", own_chain(me).seal()[:30]


def empty(_server: RunningServer, _me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    return "batch", b""


def with_something_behind(_server: RunningServer, me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    return "batch", own_chain(me).seal() + b"\x00"


def larger_than_an_envelope(_server: RunningServer, me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    key = me.keys.record_key()
    return "batch", cose.seal(bytes(ENVELOPE_MAX_BYTES), key, batches.BATCH_CONTEXT, me.who.fleet, me.terminal)[0]


def batch_as_a_loss_notice(_server: RunningServer, me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    return "loss", own_chain(me).seal()


def signed_for_another_terminal(_server: RunningServer, me: Enrolled, other: Enrolled) -> tuple[str, bytes]:
    return "batch", own_chain(me, terminal=other.terminal).seal()


def signed_for_another_fleet(_server: RunningServer, me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    signer: Any = me.keys.record_key()
    return "batch", Chain(os.urandom(16), signer, me.terminal, fleet="another-fleet").seal()


def of_another_terminal(server: RunningServer, _me: Enrolled, other: Enrolled) -> tuple[str, bytes]:
    """The neighbour's own authentic batch, carried to this topic."""
    return "batch", own_chain(other).seal()


def authentic_and_unreadable(_server: RunningServer, me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    key = me.keys.record_key()
    return "batch", cose.seal(b"\xff\xff", key, batches.BATCH_CONTEXT, me.who.fleet, me.terminal)[0]


def bytes_behind_the_payload(_server: RunningServer, me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    chain = own_chain(me)
    payload = cose.parse(chain.seal(), ENVELOPE_MAX_BYTES).payload
    return "batch", cose.seal(payload + b"\x00", me.keys.record_key(), batches.BATCH_CONTEXT, me.who.fleet, me.terminal)[0]


def birth_of_no_connection(_server: RunningServer, me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    return "birth", birth(me, os.urandom(16))


def birth_of_another_key(_server: RunningServer, me: Enrolled, other: Enrolled) -> tuple[str, bytes]:
    return "birth", birth(other, os.urandom(16))


def hello_that_says_nothing(_server: RunningServer, _me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    return "hello", b"\xff" * 20


def hello_without_end(_server: RunningServer, _me: Enrolled, _other: Enrolled) -> tuple[str, bytes]:
    return "hello", bytes(4096)


REFUSALS: dict[str, tuple[Make, str]] = {
    "forged by a stranger": (forged_by_a_stranger, "unknownKey"),
    "forged under its own key id": (forged_under_its_own_key_id, "signature"),
    "signature taken from another batch": (signature_taken_from_another, "signature"),
    "one bit changed": (one_bit_changed, "signature"),
    "cut off": (cut_off, "malformed"),
    "cut to its head": (cut_to_its_head, "malformed"),
    "empty": (empty, "malformed"),
    "something behind the envelope": (with_something_behind, "trailing"),
    "larger than an envelope": (larger_than_an_envelope, "oversized"),
    "a batch as a loss notice": (batch_as_a_loss_notice, "signature"),
    "signed for another terminal": (signed_for_another_terminal, "signature"),
    "signed for another fleet": (signed_for_another_fleet, "signature"),
    "another terminal's batch": (of_another_terminal, "foreignKey"),
    "authentic and unreadable": (authentic_and_unreadable, "unreadable"),
    "bytes behind the payload": (bytes_behind_the_payload, "unreadable"),
    "a birth of no connection": (birth_of_no_connection, "staleNonce"),
    "a birth under another key": (birth_of_another_key, "foreignKey"),
    "a hello that says nothing": (hello_that_says_nothing, "unreadable"),
    "a hello without end": (hello_without_end, "oversized"),
}


@pytest.mark.spec("C-102", "C-105", "C-107", "C-108", "C-109", "C-406", "C-517", "C-1004")
@pytest.mark.parametrize("name", REFUSALS)
async def test_it_is_kept_aside_with_its_reason_and_not_acknowledged(
    name: str, server: RunningServer, me: Enrolled, neighbour: Enrolled
) -> None:
    make, reason = REFUSALS[name]
    async with served_meanwhile(server, neighbour), attacking(server, me) as attacker:
        await attacker.be_born()
        kind, payload = make(server, me, neighbour)
        await attacker.say(kind, payload)
        await until(lambda: refused(server, me.terminal), "it is kept aside")
        assert refused(server, me.terminal) == {reason: 1}
        rows = server.rows("SELECT reason, size, envelope FROM quarantine WHERE terminal = ?", (me.terminal,))
        assert rows == [(reason, len(payload), payload[:ENVELOPE_MAX_BYTES])]
        # Behind it the same terminal's honest batch is served as ever.
        honest = own_chain(me)
        await attacker.be_born()
        await attacker.say("batch", honest.seal())
        await until(lambda: attacker.acknowledged, "the honest batch is acknowledged")
        assert [(entry.stream, entry.no) for entry in attacker.acknowledged] == [(honest.stream, 1)]
        assert stored(server, me.terminal) == 1
    assert refused(server, neighbour.terminal) == {}


@pytest.mark.spec("C-902")
async def test_a_shard_that_does_not_fit(server: RunningServer, me: Enrolled, neighbour: Enrolled) -> None:
    async with served_meanwhile(server, neighbour), attacking(server, me) as attacker:
        await attacker.be_born()
        before = refused(server, "?").get("topic", 0)
        right = topics.shard(me.terminal)
        wrong = f"{int(right, 16) ^ 1:02x}"
        await attacker.say(
            "batch", own_chain(me).seal(), topic=topics.up(me.terminal, "batch").replace(f"/{right}/", f"/{wrong}/", 1)
        )
        await until(lambda: refused(server, "?").get("topic", 0) > before, "it is kept aside")
        await attacker.greet()
        assert not attacker.acknowledged
        assert stored(server, me.terminal) == 0


@pytest.mark.spec("C-507")
async def test_a_replayed_batch_is_stored_once_and_acknowledged_each_time(
    server: RunningServer, me: Enrolled, neighbour: Enrolled
) -> None:
    async with served_meanwhile(server, neighbour), attacking(server, me) as attacker:
        await attacker.be_born()
        raw = own_chain(me).seal(notice(7))
        for _ in range(50):
            await attacker.say("batch", raw)
        await attacker.greet()
        await until(lambda: attacker.acknowledged, "it is acknowledged")
        assert stored_numbers(server, me.terminal) == [7]
        assert refused(server, me.terminal) == {}


@pytest.mark.spec("C-406")
async def test_a_replayed_birth_says_nothing_about_this_connection(
    server: RunningServer, me: Enrolled, neighbour: Enrolled
) -> None:
    async with served_meanwhile(server, neighbour), attacking(server, me) as attacker:
        challenge = await attacker.greet()
        old = birth(me, challenge.nonce)
        await attacker.say("birth", old)
        await attacker.be_born()
        await attacker.say("birth", old)
        await until(lambda: refused(server, me.terminal) == {"staleNonce": 1}, "the old birth is kept aside")


# What the broker does not carry ---------------------------------------------------------------------------------------------------------


@pytest.mark.spec("C-903")
async def test_publishing_under_another_name_goes_nowhere(
    server: RunningServer, rightful: RealTerminal, me: Enrolled, neighbour: Enrolled
) -> None:
    victim = rightful.terminal
    before = server.rows("SELECT stream, head_no FROM stream WHERE terminal = ?", (victim,))
    foreign = own_chain(me, terminal=victim).seal()
    attempts = [(topics.up(victim, kind), payload) for kind in sorted(topics.UP_KINDS) for payload in (foreign, b"junk")]
    attempts += [(topics.down(victim, kind), b"junk") for kind in sorted(topics.DOWN_KINDS)]
    attempts += [(topics.SERVER_STATE, b"junk"), (topics.up(victim, "batch") + "/more", b"junk")]
    async with served_meanwhile(server, neighbour):
        for topic, payload in attempts:
            with contextlib.suppress(aiomqtt.MqttError):  # a broker may hang up on such a one, or take it and drop it
                async with attacking(server, me) as attacker:
                    await attacker.say("", payload, topic=topic)
        async with attacking(server, me) as attacker:
            await attacker.greet()
        await fault_arrives(server, rightful)
    assert refused(server, victim) == {}
    assert dict(server.rows("SELECT stream, head_no FROM stream WHERE terminal = ?", (victim,))).keys() == dict(before).keys()
    assert rightful.api.request("GET", "/v1/status")[1]["uplink"]["connected"]


def lent_certificate(server: RunningServer, name: str, folder: Path) -> ssl.SSLContext:
    """A certificate in another's name, which nobody gets in the field: what a broker that checks nothing would make of any."""
    file = folder / f"lent-{name}.pem"
    file.write_bytes(server.authority.issue_own_client(name, now_ms=now_ms()))
    context = ssl.create_default_context(cafile=str(server.authority.ca_file))
    context.load_cert_chain(file)
    return context


@pytest.mark.spec("C-903", "C-1004")
async def test_a_broken_broker_cannot_forge(server: RunningServer, me: Enrolled, neighbour: Enrolled, tmp_path: Path) -> None:
    """As if the broker let everybody say everything: the ingest looks at signatures itself."""
    victim = enrolled(server, tmp_path, f"victim-{os.urandom(3).hex()}")
    async with served_meanwhile(server, neighbour):
        # Names that nobody has are counted under one heading, or a broken broker could fill the disk with them.
        for name, heading, reason in (
            (victim.terminal, victim.terminal, "foreignKey"),
            ("nobody-at-all", "?", "unknownTerminal"),
        ):
            async with attacking(server, me, client_id=name, tls=lent_certificate(server, name, tmp_path)) as attacker:
                await attacker.say("batch", own_chain(me).seal(), name=name)
                await attacker.say("batch", own_chain(me, terminal=name).seal(), name=name)
                await until(partial(count_of, server, heading, reason, 2), "both are kept aside")
        assert stored(server, victim.terminal) == 0


async def test_listening_to_everything_hears_only_what_is_its_own(
    server: RunningServer, rightful: RealTerminal, me: Enrolled, neighbour: Enrolled
) -> None:
    async with attacking(server, me) as attacker:
        for everything in (
            "#",
            "kf/#",
            "kf/1/#",
            topics.up(rightful.terminal, "+"),
            topics.down(rightful.terminal, "+"),
            "kf/1/+/+/down/ack",
        ):
            with contextlib.suppress(aiomqtt.MqttError):  # a broker may refuse the subscription, or grant it and deliver nothing
                await attacker.client.subscribe(everything, qos=1)
        async with served_meanwhile(server, neighbour):
            await fault_arrives(server, rightful)
        await attacker.greet()
        heard = {str(message.topic) for message in attacker.heard}
    own = {topics.down(me.terminal, kind) for kind in topics.DOWN_KINDS} | {topics.SERVER_STATE}
    assert heard <= own


async def test_holding_the_client_id_of_another_does_not_end_its_session(
    server: RunningServer, rightful: RealTerminal, me: Enrolled, neighbour: Enrolled
) -> None:
    async with served_meanwhile(server, neighbour):
        for victim in (rightful.terminal, neighbour.terminal, "ingest"):
            async with attacking(server, me, client_id=victim) as attacker:
                await attacker.greet()
        await fault_arrives(server, rightful)
    downs = server.rows("SELECT count(*) FROM link_event WHERE terminal = ? AND state = 'down'", (rightful.terminal,))
    assert downs == [(0,)]


@pytest.mark.spec("C-107")
async def test_a_message_larger_than_the_broker_takes_is_nobody_s_trouble(
    server: RunningServer, rightful: RealTerminal, me: Enrolled, neighbour: Enrolled
) -> None:
    async with served_meanwhile(server, neighbour):
        for size in (128 * 1024 + 1, 300 * 1024, 4 * 1024 * 1024):
            with contextlib.suppress(aiomqtt.MqttError):  # dropped or hung up on, as the broker likes
                async with attacking(server, me, timeout_s=0.5) as attacker:
                    await attacker.say("batch", bytes(size), qos=0)
                    await attacker.say("batch", bytes(size))
        async with attacking(server, me) as attacker:
            await attacker.greet()
        await fault_arrives(server, rightful)
    assert set(refused(server, me.terminal)) <= {"oversized"}
    assert server.rows("SELECT max(length(envelope)) FROM quarantine WHERE terminal = ?", (me.terminal,))[0][0] in {
        None,
        ENVELOPE_MAX_BYTES,
    }


# Floods ---------------------------------------------------------------------------------------------------------------------------------

JUNK = 3000


@pytest.mark.serial
@pytest.mark.spec("C-517")
async def test_a_flood_of_junk_is_counted_and_kept_within_bounds(
    server: RunningServer, rightful: RealTerminal, me: Enrolled, neighbour: Enrolled
) -> None:
    rng = random.Random(5)
    ingest = server.pid("ingest")
    async with served_meanwhile(server, neighbour), attacking(server, me) as attacker:

        async def flood() -> None:
            for _ in range(JUNK):
                await attacker.say("batch", rng.randbytes(rng.choice((1, 40, 400, 4000))), qos=0)

        flooding = asyncio.get_running_loop().create_task(flood())
        await fault_arrives(server, rightful)
        await flooding
        await attacker.greet()
        await until(lambda: sum(refused(server, me.terminal).values()) == JUNK, "everything is counted", timeout_s=40)
    kept = server.rows("SELECT count(*) FROM quarantine WHERE terminal = ?", (me.terminal,))[0][0]
    assert kept == QUARANTINE_PER_SENDER
    assert server.pid("ingest") == ingest
    assert refused(server, rightful.terminal) == {}


@pytest.mark.serial
async def test_connections_that_say_nothing_do_not_shut_others_out(
    server: RunningServer, rightful: RealTerminal, neighbour: Enrolled
) -> None:
    dumb = [socket.create_connection(("127.0.0.1", server.settings.broker.port), 5) for _ in range(200)]
    try:
        async with served_meanwhile(server, neighbour):
            await fault_arrives(server, rightful)
    finally:
        for one in dumb:
            one.close()


# Authentic nonsense ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
async def test_authentic_nonsense_stops_nobody(
    server: RunningServer, rightful: RealTerminal, me: Enrolled, neighbour: Enrolled
) -> None:
    """Well signed by an enrolled key, and made to hurt: numbers that fit no database, times at both ends of the world, wrong shapes."""
    await poison(server, rightful, me, neighbour, POISONS, seed=21)


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
async def test_a_great_deal_of_authentic_nonsense(
    server: RunningServer, rightful: RealTerminal, me: Enrolled, neighbour: Enrolled
) -> None:
    await poison(server, rightful, me, neighbour, SOAK_POISONS, seed=22)


async def poison(server: RunningServer, rightful: RealTerminal, me: Enrolled, neighbour: Enrolled, count: int, seed: int) -> None:
    rng, key = random.Random(seed), me.keys.record_key()
    ingest = server.pid("ingest")
    async with served_meanwhile(server, neighbour), attacking(server, me) as attacker:
        for number, (context, kind, payload) in enumerate(poisoned_payloads(rng, count)):
            raw, _ = cose.seal(payload, key, context, me.who.fleet, me.terminal)
            await attacker.say(kind, raw)
            if number % 100 == 99:
                await attacker.greet()
                assert server.pid("ingest") == ingest, f"ingest ended within the hundred before {number}"
        for spoilt in poisoned_births(rng, count // 10):
            challenge = await attacker.greet()
            value: dict[str, Any] = {**spoilt, "n": challenge.nonce}
            raw, _ = cose.seal(cbor2.dumps(value, canonical=True), key, messages.BIRTH_CONTEXT, me.who.fleet, me.terminal)
            await attacker.say("birth", raw)
        await fault_arrives(server, rightful)
        await attacker.be_born()
        honest = own_chain(me)
        await attacker.say("batch", honest.seal(notice(424242)))
        await until(
            lambda: any(entry.stream == honest.stream for entry in attacker.acknowledged), "an honest batch is acknowledged"
        )
        envelope = server.rows("SELECT envelope FROM batch WHERE stream = ?", (honest.stream,))[0][0]
        assert [record.value["count"] for record in decode(envelope)] == [424242]
    assert server.pid("ingest") == ingest
    # Also what works on the facts afterwards: the day's figures are computed, nothing stays behind.
    await until(lambda: server.rows("SELECT count(*) FROM dirty_day") == [(0,)], "the figures are computed", timeout_s=60)
    assert server.pid("ingest") == ingest


def test_poison_would_be_noticed() -> None:
    """The test of the test: among the payloads are numbers that SQLite cannot take, in the places where they would be stored."""
    found = [payload for _, _, payload in poisoned_payloads(random.Random(21), POISONS)]
    assert sum(b"\xc2\x49\x01" in payload or b"\xc2\x48" in payload or b"\x1b\xff" in payload for payload in found) > POISONS / 20
    assert encoded()


# Revoked --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.spec("C-518")
async def test_a_revoked_terminal_is_shut_out_and_its_backlog_kept_aside(
    server: RunningServer, rightful: RealTerminal, me: Enrolled, neighbour: Enrolled, tmp_path: Path
) -> None:
    chain = own_chain(me)
    async with served_meanwhile(server, neighbour):
        async with attacking(server, me) as attacker:
            await attacker.be_born()
            await attacker.say("batch", chain.seal(notice(1)))
            await until(lambda: attacker.acknowledged, "it was served before")
            child = server.command("revoke", me.terminal)
            assert await asyncio.to_thread(child.popen.wait, 20) == 0, child.output()
            # Its session ends while it stands.
            with contextlib.suppress(aiomqtt.MqttError):
                await asyncio.wait_for(_talk_until_gone(attacker), 30)
        with pytest.raises(aiomqtt.MqttError):
            async with attacking(server, me, timeout_s=3):
                pass
        # What still comes, by a broker that does not know: kept, not acknowledged, and no alarm.
        lent = lent_certificate(server, me.terminal, tmp_path)
        async with attacking(server, me, tls=lent) as other:
            for number in (2, 3):
                await other.say("batch", chain.seal(notice(number)))
                await until(partial(count_of, server, me.terminal, "revoked", number - 1), "it is kept aside")
            assert not other.acknowledged
        assert set(refused(server, me.terminal)) == {"revoked"}
        assert open_alarms(server, me.terminal) == []
        await fault_arrives(server, rightful)
    assert stored_numbers(server, me.terminal) == [1]


async def _talk_until_gone(attacker: Attacker) -> None:
    while True:
        await attacker.say("hb", wire.dump(messages.Heartbeat(boot_no=1)))
        await asyncio.sleep(0.1)
