"""Watching card units: who is there is found by questions, what is wrong is named, and no question moves anything."""

from __future__ import annotations

import asyncio
import re

import msgspec
import pytest

from edge_agent.clock import read
from edge_agent.config import DeviceEntry
from edge_agent.devices.base import SlotBinding
from edge_agent.devices.card_unit import CardUnit
from edge_agent.devices.guard import guarded
from protocols.canon.words import MediaState, SuggestedAction
from protocols.codecs import card_d1801, card_f2, card_stx
from protocols.content import card_f2 as f2_content
from protocols.contract.records import Consumable, Device, Fault
from simulators.models.card_d1801 import Crt541Dispenser, D1801Dispenser
from simulators.models.card_f2 import F2CardReader, F2CardUnit
from simulators.models.card_mechanism import CardMechanism
from simulators.models.card_stx import StxCardReader
from simulators.ports.slots import CH340, Slot
from tests.edge_agent.devices.bench import PROFILES, Bench, LoopClock, in_virtual_time

MODELS = {
    "f2": F2CardUnit,
    "f2-reader": F2CardReader,
    "stx": StxCardReader,
    "d1801": D1801Dispenser,
    "addressed": Crt541Dispenser,
}
HARMLESS = {
    *(card_f2.encode(query) for query in card_f2.Query),
    *(card_stx.encode(query) for query in card_stx.Query),
    *(card_d1801.encode(query) for query in card_d1801.Query if query is not card_d1801.Query.ENQUIRY),
    card_d1801.encode(card_d1801.Query.ENQUIRY, 0),
    b"\x06",
    b"\x15",
    b"\x05",
}


def place(model: CardMechanism) -> Slot:
    return Slot(model.kind, model, "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340)


def entry(slot: Slot, profile: str | None) -> DeviceEntry:
    return DeviceEntry(slot=slot.name, family=slot.model.kind, profile=profile, port="1-1.1")


def listen_in(model: CardMechanism) -> list[bytes]:
    heard: list[bytes] = []
    take = model.on_bytes

    def on_bytes(data: bytes, now: float) -> None:
        heard.append(data)
        take(data, now)

    model.on_bytes = on_bytes  # type: ignore[method-assign]
    return heard


def understood(heard: list[bytes]) -> set[bytes]:
    """What came at the unit's own speed; at another one every byte arrives with its top bit set."""
    return {piece for piece in heard if not all(byte & 0x80 for byte in piece)}


@pytest.mark.parametrize(
    ("model", "profile"),
    [
        (F2CardUnit, "crt-591"),
        (lambda: F2CardUnit(baud=115200), "crt-591"),
        (D1801Dispenser, "qu-cd-720m"),
        (lambda: F2CardReader(baud=38400), "crt-310-f2"),
        (StxCardReader, "crt-310-old"),
        (lambda: StxCardReader(baud=19200), "crt-310-old"),
    ],
    ids=["f2", "f2-115200", "d1801", "f2-reader-38400", "stx", "stx-19200"],
)
def test_it_is_found_by_questions(model: object, profile: str) -> None:
    """The inventory knows the kind and the port only. Whatever speed it was found at, it is then spoken to."""

    async def story() -> None:
        unit = model()  # type: ignore[operator]
        heard = listen_in(unit)
        slot = place(unit)
        async with Bench(slot, entries=[entry(slot, None)]) as bench:
            state = await bench.until_state(slot.name, "online", within_s=120)
            assert state.profile == profile
            assert unit.motions == 0
        assert understood(heard) <= HARMLESS

    in_virtual_time(story())


def test_a_silent_port_is_a_silent_unit() -> None:
    async def story() -> None:
        unit = F2CardUnit()
        unit.set("silence", 0.0)
        slot = place(unit)
        async with Bench(slot, entries=[entry(slot, None)]) as bench:
            await bench.until_open("CRD.OPEN_FAIL", within_s=300)

    in_virtual_time(story())


@pytest.mark.parametrize("form", sorted(MODELS))
def test_watching_moves_nothing_whatever_goes_wrong(form: str) -> None:
    async def story() -> None:
        unit = MODELS[form]()
        heard = listen_in(unit)
        slot = place(unit)
        async with Bench(slot) as bench:
            await bench.until_state(slot.name, "online")
            for fault in unit.fault_help:
                bench.terminal.do(["fault", slot.name, fault])
                await asyncio.sleep(45)
                bench.terminal.do(["clear", slot.name, fault])
                await asyncio.sleep(15)
            assert unit.motions == 0
            assert understood(heard) <= HARMLESS

    in_virtual_time(story())


def test_a_unit_that_lost_power_is_reported_and_left_alone() -> None:
    async def story() -> None:
        unit = F2CardUnit()
        slot = place(unit)
        async with Bench(slot) as bench:
            await bench.until_state(slot.name, "online")
            bench.terminal.do(["fault", slot.name, "power-cycled"])
            fault = await bench.until_open("CRD.NOT_READY")
            assert fault.evidence is not None
            assert fault.evidence.reply.hex() == "f20000054e3130423003c9"
            state = await bench.until_state(slot.name, "offline")
            assert state.action is SuggestedAction.RESET
            await asyncio.sleep(3600)
            assert not unit.initialised
            bench.terminal.do(["press", slot.name, "initialise"])
            await bench.until(lambda: not bench.records.open_codes(), within_s=60)

    in_virtual_time(story())


@pytest.mark.parametrize("form", ["f2", "stx", "d1801"])
def test_a_forgotten_card(form: str) -> None:
    """Named a minute after it came to the mouth, not at once; taken back when somebody takes it."""

    async def story() -> None:
        unit = MODELS[form]()
        slot = place(unit)
        async with Bench(slot) as bench:
            await bench.until_state(slot.name, "online")
            bench.terminal.do(["fault", slot.name, "card-left"])
            await bench.until(lambda: bench.device(slot.name).media is MediaState.ENTERING, within_s=30)
            assert bench.records.of(Fault) == []
            waited_s = await bench.until(lambda: "CRD.CARD_LEFT" in bench.records.open_codes(), within_s=100)
            assert 55 <= waited_s <= 70
            bench.terminal.do(["press", slot.name, "take-card"])
            await bench.until(lambda: not bench.records.open_codes(), within_s=60)
            assert bench.device(slot.name).media is MediaState.NOT_PRESENT

    in_virtual_time(story())


def test_cards_in_the_stacker_are_a_consumable() -> None:
    async def story() -> None:
        unit = F2CardUnit()
        slot = place(unit)
        async with Bench(slot) as bench:
            await bench.until_state(slot.name, "online")
            told = bench.records.of
            bench.terminal.do(["fault", slot.name, "stacker-low"])
            await bench.until(lambda: [body.remaining for body in told(Consumable)] == [15])
            bench.terminal.do(["fault", slot.name, "stacker-empty"])
            await bench.until(lambda: [body.remaining for body in told(Consumable)] == [15, 0])
            bench.terminal.do(["press", slot.name, "refill"])
            await bench.until(lambda: bench.records.of(Consumable)[-1].event == "refill", within_s=120)
            last = bench.records.of(Consumable)[-1]
            assert (last.item, last.remaining, last.capacity, last.source) == ("cards", 150, 150, "sensor")

    in_virtual_time(story())


def test_a_barrier_that_stays_covered_without_a_card_is_broken() -> None:
    async def story() -> None:
        profile = PROFILES["crt-591"]
        assert profile.card is not None
        watched = msgspec.structs.replace(profile, card=msgspec.structs.replace(profile.card, path_barriers=(3, 4)))
        unit = F2CardUnit()
        slot = place(unit)
        async with Bench(slot, profiles={**PROFILES, "crt-591": watched}) as bench:
            await bench.until_state(slot.name, "online")
            await asyncio.sleep(120)
            assert bench.records.of(Fault) == []
            status = unit._status

            def blocked(words: bytes, now: float) -> None:
                if words == b"11":
                    unit._done(words, now, b"00010000")
                else:
                    status(words, now)

            unit._status = blocked  # type: ignore[method-assign]
            await bench.until_open("CRD.MECHANISM", within_s=60)
            unit._status = status  # type: ignore[method-assign]
            await bench.until(lambda: not bench.records.open_codes(), within_s=60)

    in_virtual_time(story())


def test_silence_noise_and_a_refusal_are_three_things() -> None:
    async def story() -> None:
        evidence: dict[str, tuple[str, bytes]] = {}
        for fault, code in (("silence", "CRD.OPEN_FAIL"), ("corrupt", "CRD.LINK_NOISE"), ("motor", "CRD.MECHANISM")):
            unit = F2CardUnit()
            slot = place(unit)
            async with Bench(slot) as bench:
                await bench.until_state(slot.name, "online")
                bench.terminal.do(["fault", slot.name, fault])
                opened = await bench.until_open(code, within_s=300)
                assert opened.evidence is not None
                evidence[fault] = (opened.code, opened.evidence.reply)
        assert evidence["silence"][1] == evidence["corrupt"][1] == b""
        assert evidence["motor"][1].hex(" ") == "f2 00 00 05 4e 31 30 35 31 03 bf"
        assert len({code for code, _ in evidence.values()}) == 3

    in_virtual_time(story())


def test_what_a_card_said_is_in_no_record() -> None:
    """A late answer to the application's question comes while the driver asks: it is passed over, and nothing of it is kept."""

    async def story() -> None:
        unit = F2CardUnit()
        slot = place(unit)
        async with Bench(slot) as bench:
            await bench.until_state(slot.name, "online")
            loop = asyncio.get_running_loop()
            command = unit._command

            def with_late_words(group: bytes, parameter: bytes, data: bytes, now: float) -> None:
                unit._result(b"PQ3" + b"220" + b"PLANTED-CARD-9", now)
                command(group, parameter, data, now)

            unit._command = with_late_words  # type: ignore[method-assign]
            await asyncio.sleep(300)
            unit.set("jam", loop.time())
            await bench.until_open("CRD.CARD_STUCK", within_s=60)
            assert b"PLANTED" not in bench.records.encoded
            assert not re.search("PLANTED", repr(bench.records.bodies))
            assert not any(b"PLANTED" in value for value in bench.memory.values.values())

    in_virtual_time(story())


def test_the_version_is_asked_once_from_a_unit_that_is_well() -> None:
    async def story() -> None:
        for model, version in ((F2CardUnit(), "CRT-591-V1.00"), (D1801Dispenser(), "3.19")):
            heard = listen_in(model)
            slot = place(model)
            async with Bench(slot) as bench:
                await bench.until(lambda b=bench, s=slot, v=version: any(d.firmware == v for d in b.records.of(Device, s.name)))  # type: ignore[misc]
                await asyncio.sleep(300)
            asked = {card_f2.encode(card_f2.Query.VERSION), card_d1801.encode(card_d1801.Query.VERSION)}
            assert sum(piece in asked for piece in heard) == 1

    in_virtual_time(story())


class Endless:
    """A port that never stops talking."""

    def __init__(self, pattern: bytes) -> None:
        self._pattern = pattern
        self.written = 0

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        self.written += len(data)

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        return (self._pattern * max_bytes)[:max_bytes]

    async def set_baud(self, baud: int) -> None:
        return

    async def close(self) -> None:
        return


@pytest.mark.parametrize(
    ("profile", "pattern"),
    [
        ("crt-591", b"\xf2\x00\x02\x06"),
        ("crt-591", b"A"),
        ("crt-310-old", b"\x02\x02\x00\x30"),
        ("qu-cd-720m", b"\x06"),
        ("crt-541", b"\x15"),
    ],
    ids=["f2-frames", "f2-letters", "stx-frames", "d1801-acks", "addressed-naks"],
)
def test_a_unit_that_never_stops_talking_costs_its_own_time_only(profile: str, pattern: bytes) -> None:
    async def story() -> None:
        port = Endless(pattern)
        unit = CardUnit(guarded(port), SlotBinding(slot="card", profile=PROFILES[profile]))  # type: ignore[arg-type]
        clock = LoopClock()
        for _ in range(2):
            async with asyncio.timeout(unit.poll_budget_s):
                (seen,) = await unit.poll(read(clock))
            assert seen.media is MediaState.UNKNOWN
        assert port.written < 2000, "it is not talked back to without end"

    in_virtual_time(story())


def test_no_command_is_among_the_questions() -> None:
    commands = {f2_content.encode(command) for command in f2_content.Command}
    assert not commands & HARMLESS
