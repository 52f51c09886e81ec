"""A wire that is cut, held, slowed, and messages that are lost, doubled, late or out of order: with the real broker and ingest, every record once."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from edge_agent.uplink import client, conversation
from tests.support.server import RunningServer
from tests.support.waiting import until, wait_until
from tests.together.relay import Direction, Packet, PacketRelay, Wire, publish_packet, server_side
from tests.together.road import (
    Cases,
    Enrolled,
    Sender,
    Traffic,
    check_cases,
    check_chain,
    check_evidence,
    enrolled,
    make_lean,
    stored_numbers,
    through,
    wait_cases,
    whole_server,
)

CUTS = 10
SOAK_CUTS = int(os.environ.get("KF_SOAK_WIRE_CUTS", "500"))
SEEDS = (1, 2, 3)
SOAK_SEEDS = int(os.environ.get("KF_SOAK_WIRE_SEEDS", "60"))

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with whole_server(tmp_path_factory.mktemp("bad-wire")) as running:
        yield running


# Cuts -----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.spec("C-401", "C-308", "C-503")
@pytest.mark.timeout(180)
def test_ten_random_cuts(server: RunningServer, tmp_path: Path) -> None:
    cut_at_random(server, tmp_path, CUTS, seed=11)


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
def test_hundreds_of_random_cuts(server: RunningServer, tmp_path: Path) -> None:
    cut_at_random(server, tmp_path, SOAK_CUTS, seed=12)


def cut_at_random(server: RunningServer, folder: Path, cuts: int, seed: int) -> None:
    """A real agent behind a wire that breaks in every way a wire can, while cases are entered."""
    rng = random.Random(seed)
    with Wire(server.settings.broker.port) as wire:
        terminal = make_lean(folder, server, f"cut-{seed}", tables=through(wire.port))
        cases = Cases(terminal)
        traffic = Traffic(cases)
        connections = 0
        for _ in range(cuts):
            # Some cuts hit the greeting, some the batches, some a connection that is not there yet.
            if rng.random() < 0.7:
                wait_until(lambda before=connections: wire.connections > before, "a connection", timeout_s=30)  # type: ignore[misc]
            trouble = rng.choice(("nothing", "hold up", "hold down", "drip"))
            if trouble == "drip":
                wire.drip(0.001)
            elif trouble != "nothing":
                wire.hold("up" if trouble == "hold up" else "down")
            some = len(cases.confirmed) + rng.randrange(1, 12)
            wait_until(lambda some=some: len(cases.confirmed) >= some, "cases go on without a wire")  # type: ignore[misc]
            connections = wire.connections
            wire.cut()
            wire.drip(0)
            wire.let_go()
        traffic.stop()
        wait_cases(server, terminal.terminal, len(cases.confirmed))
        wait_until(lambda: terminal.depth() == 0, "the queue is empty", timeout_s=40)
        assert wire.connections > cuts / 2
    check_cases(server, cases)
    check_chain(server, terminal.terminal)
    check_evidence(server, terminal.terminal, folder)
    terminal.close()


# Messages -------------------------------------------------------------------------------------------------------------------------------


class BadRoad:
    """Loses, doubles, delays and reorders publications, by seed, until `fair` is set."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._late: list[tuple[Direction, bytes]] = []
        self.fair = False
        self.done = dict.fromkeys(("lost", "doubled", "late"), 0)

    def judge(self, packet: Packet) -> Iterable[tuple[Direction, bytes]] | None:
        if self.fair or not packet.is_publish:
            return None
        chance, out = self._rng.random(), [(packet.direction, packet.raw)]
        if chance < 0.15:
            self.done["lost"] += 1
            # As of a broker that takes a message and drops it: nobody sends it again but the terminal itself.
            return [("down", packet.puback())] if packet.qos else []
        if chance < 0.25:
            self.done["doubled"] += 1
            out *= 2
        elif chance < 0.45:
            self.done["late"] += 1
            self._late += out
            out = [("down", packet.puback())] if packet.qos else []
        if self._late and self._rng.random() < 0.3:
            self._rng.shuffle(self._late)
            out += self._late
            self._late.clear()
        return out


def packet_relay(server: RunningServer, me: Enrolled) -> PacketRelay:
    listen = server_side(server.authority.server_files, server.authority.ca_file)
    return PacketRelay(server.settings.broker.port, listen_tls=listen, target_tls=me.tls())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an agent waits for in seconds or minutes happens in tenths."""
    monkeypatch.setattr(conversation, "RESEND_S", 0.4)
    monkeypatch.setattr(conversation, "REGREET_S", 1.5)
    monkeypatch.setattr(conversation, "GREETING_RETRY_S", (0.3, 0.5, 0.5))
    monkeypatch.setattr(conversation, "BACK_INTERVAL_S", 0.1)


@pytest.mark.spec("C-501", "C-503", "C-507", "C-510", "C-403", "C-404")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.usefixtures("impatient")
async def test_lost_doubled_late_and_swapped_messages(seed: int, server: RunningServer, tmp_path: Path) -> None:
    await through_a_bad_road(server, tmp_path, seed)


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
@pytest.mark.usefixtures("impatient")
async def test_many_bad_roads(server: RunningServer, tmp_path: Path) -> None:
    for seed in range(100, 100 + SOAK_SEEDS):
        await through_a_bad_road(server, tmp_path, seed)


async def through_a_bad_road(server: RunningServer, folder: Path, seed: int) -> None:
    rng, road = random.Random(seed), BadRoad(seed)
    me = enrolled(server, folder, f"road-{seed}")
    with packet_relay(server, me) as relay:
        relay.judge = road.judge
        async with Sender(me, port=relay.port, seed=seed).running() as sender:
            for _ in range(25):
                for _ in range(rng.randrange(1, 5)):
                    sender.capture(rng.randrange(1, 4))
                before = len(relay.seen)
                await until(lambda before=before: len(relay.seen) > before + 3, "the road is used")  # type: ignore[misc]
                if rng.random() < 0.1:
                    relay.cut()
            road.fair = True
            await sender.drained()
            assert stored_numbers(server, me.terminal) == sender.captured
    assert min(road.done.values()) > 5, road.done
    # A birth that came late was of another connection and is refused as such; nothing else is.
    reasons = {row[0] for row in server.rows("SELECT reason FROM quarantine_count WHERE terminal = ?", (me.terminal,))}
    assert reasons <= {"staleNonce"}
    assert server.rows("SELECT count(*) FROM hole WHERE terminal = ?", (me.terminal,)) == [(0,)]
    assert server.rows("SELECT count(*) FROM stream WHERE disputed = 1 AND terminal = ?", (me.terminal,)) == [(0,)]


@pytest.mark.spec("C-503", "C-502")
@pytest.mark.usefixtures("impatient")
async def test_an_acknowledgement_of_an_earlier_connection_releases_nothing(server: RunningServer, tmp_path: Path) -> None:
    """A server that is restored from a backup may have said yes to what it has not any more: only a yes of this connection counts."""
    me = enrolled(server, tmp_path, "stale-ack")
    kept: list[bytes] = []

    def swallow(packet: Packet) -> Iterable[tuple[Direction, bytes]] | None:
        if packet.kind != "ack":
            return None
        kept.append(packet.payload)
        return []

    with packet_relay(server, me) as relay:
        relay.judge = swallow
        async with Sender(me, port=relay.port).running() as sender:
            sender.capture(3)
            await until(lambda: kept, "an acknowledgement")
            assert sender.outbox.depth() > 0
            first, stale = relay.connections, list(kept)
            relay.cut()
            await until(lambda: relay.connections > first and len(kept) > len(stale), "another connection with acknowledgements")
            topic = next(packet.topic for packet in relay.seen if packet.kind == "ack")
            ignored = sender.conversation.counters.not_ours
            for payload in stale:
                relay.inject("down", publish_packet(topic, payload))
            await until(
                lambda: sender.conversation.counters.not_ours > ignored, "the stale acknowledgements are seen and ignored"
            )
            assert sender.outbox.depth() > 0
            relay.judge = lambda _packet: None
            await sender.drained()
        assert stored_numbers(server, me.terminal) == sender.captured


async def test_a_broker_that_hangs_up_before_it_answers_does_not_cost_a_timeout(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is killed between the handshake and its first word: 400 terminals must not sit out a timeout then."""
    monkeypatch.setattr(client, "CONNECT_TIMEOUT_S", 60.0)
    me = enrolled(server, tmp_path, "hung-up")
    with packet_relay(server, me) as relay:
        hung_up: list[Packet] = []

        def hang_up(packet: Packet) -> Iterable[tuple[Direction, bytes]] | None:
            if packet.direction == "down" and len(hung_up) < 3:
                hung_up.append(packet)
                relay.hang_up()
                return []
            return None

        relay.judge = hang_up
        async with Sender(me, port=relay.port).running() as sender:
            sender.capture(1)
            await sender.drained(timeout_s=10)
    assert len(hung_up) == 3
