from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from edge_agent.clock import ClockReading
from edge_agent.config import DeviceEntry
from edge_agent.faults import Condition
from edge_agent.outbox.errors import CaptureRefused, OutboxFull
from edge_agent.transports.base import PortGone, PortStalled
from edge_agent.transports.base import Sighting as SeenDevice
from protocols.canon.words import Ownership
from protocols.contract.records import ClockQuality, Consumable, Counters, Device, Fault, Queue, Rating, Reading, Sighting
from simulators.models.callpad import CallPadBus
from simulators.models.escpos import USB_SNBC, EscposPrinter
from simulators.models.keys import EvaluatorPad, HidScanner
from simulators.models.laser import USB_LJ2650, LaserPrinter
from simulators.models.modbus import ClimateModule, DoorModule, ModbusBus
from simulators.models.sdt import USB_SPLIT, SdtReader, SyntheticCard
from simulators.ports.slots import CH340, Slot
from tests.edge_agent.devices.bench import KIT, PROFILES, Bench, Memory, in_virtual_time

MARK = "PLANTEDMARK"


def printer() -> Slot:
    return Slot("receipt-printer", EscposPrinter(usb=USB_SNBC, firmware="FV1.040"), "usb", "1-1.2", "1-1.2")


def reader() -> Slot:
    return Slot("id-reader", SdtReader(usb=USB_SPLIT), "usb", "1-1.1", "1-1.1")


def pads() -> Slot:
    return Slot("call-pad", CallPadBus(addresses=(1, 2, 3)), "serial", "/dev/ttyUSB0", "1-1.3", adapter=CH340)


def evaluator() -> Slot:
    return Slot("evaluator", EvaluatorPad(), "input", "/dev/input/event3", "1-1.4")


# ------------------------------------------------------------------------------------------------------------------ detection


def test_an_empty_roll_is_told_at_once_with_its_bytes() -> None:
    async def story() -> None:
        async with Bench(printer()) as bench:
            await bench.until_state("receipt-printer", "online")
            bench.terminal.set("receipt-printer", "paper-out")
            await bench.until(lambda: "PRN.PAPER_OUT" in bench.records.open_codes(), within_s=0.5)
            fault = bench.records.of(Fault)[-1]
            assert fault.evidence is not None
            assert (fault.evidence.codec, fault.evidence.reply[-1:]) == ("escpos", b"\x7e")
            assert fault.profile == "snbc-btp"
            assert bench.device("receipt-printer").paper == "out"
            (level,) = bench.records.of(Consumable)
            assert (level.event, level.remaining) == ("level", 0)

    in_virtual_time(story())


def test_what_the_console_names_is_in_the_device_record() -> None:
    async def story() -> None:
        async with Bench(printer(), reader()) as bench:
            await bench.until(lambda: len(bench.states()) == 2)
            told = bench.device("receipt-printer")
            assert (told.family, told.profile, told.port, told.vid, told.firmware, told.owner) == (
                "receipt-printer", "snbc-btp", "1-1.2", 0x154F, "FV1.040", "owner",
            )  # fmt: skip
            assert bench.device("id-reader").asset == "05.01-20120101-0012345678-0087654321"

    in_virtual_time(story())


@pytest.mark.parametrize(
    ("test", "fault", "result", "state"),
    [
        ("query", None, "ok", "online"),
        ("print", None, "ok", "online"),
        ("query", "silence", "timeout", "offline"),
        ("query", "unplug", "device", "noDevice"),
    ],
)
def test_a_test_asked_for_at_the_start_waits_for_the_first_look(test: str, fault: str | None, result: str, state: str) -> None:
    """An order that waited for a terminal is there before its devices were asked anything."""

    async def story() -> None:
        slot = printer()
        if fault is not None:
            slot.model.set(fault, 0.0)
        async with Bench(slot) as bench:
            assert bench.states() == {}
            assert await bench.monitor.test("receipt-printer", test) == result
            assert bench.states() == {"receipt-printer": state}

    in_virtual_time(story())


def test_a_re_enumeration_of_two_seconds_is_no_fault() -> None:
    async def story() -> None:
        async with Bench(reader()) as bench:
            await bench.until_state("id-reader", "online")
            for _ in range(3):
                bench.terminal.set("id-reader", "unplug")
                await asyncio.sleep(2.0)
                bench.terminal.clear("id-reader", "unplug")
                await bench.until_state("id-reader", "online")
                await asyncio.sleep(5.0)
            assert bench.records.of(Fault) == []

    in_virtual_time(story())


def test_a_port_in_use_is_neutral_and_taken_over_when_it_is_free() -> None:
    async def story() -> None:
        slot = printer()
        slot.model.set("in-use", 0.0)
        async with Bench(slot) as bench:
            await bench.until_state("receipt-printer", "inUse")
            await asyncio.sleep(600)
            assert bench.records.of(Fault) == []
            bench.terminal.clear("receipt-printer", "in-use")
            await bench.until_state("receipt-printer", "online")

    in_virtual_time(story())


def test_missing_hardware_is_a_fault_from_the_start_and_one_for_a_whole_bus() -> None:
    async def story() -> None:
        here = [printer(), pads()]
        entries = [
            DeviceEntry(slot="receipt-printer", family="receipt-printer", port="1-1.7"),
            *(
                DeviceEntry(slot=f"call-pad-{n}", family="call-pad", port="1-1.8", address=n, profile="call-pad-ft12")
                for n in (1, 2, 3)
            ),
        ]
        async with Bench(*here, entries=entries) as bench:
            await bench.until_open("PRN.UNPLUGGED")
            await bench.until_open("CAL.BUS_DOWN")
            await asyncio.sleep(120)
            assert sorted((fault.slot, fault.code) for fault in bench.records.of(Fault)) == [
                ("call-pad-1", "CAL.BUS_DOWN"),
                ("receipt-printer", "PRN.UNPLUGGED"),
            ]
            assert set(bench.states().values()) == {"noDevice"}

    in_virtual_time(story())


def test_unknown_hardware_is_reported_when_it_comes_and_when_it_goes_and_never_opened() -> None:
    class Discoverer:
        def __init__(self) -> None:
            self.found = [SeenDevice("usb", "1-1.9", 0xDEAD, 0xBEEF, usb_path="1-1.9")]
            self.changed = asyncio.Event()

        def sightings(self) -> list[SeenDevice]:
            return self.found

        async def changes(self) -> None:
            await self.changed.wait()
            self.changed.clear()

    class Opener:
        async def open(self, *_: object) -> Any:
            raise AssertionError("unknown hardware was opened")

    async def story() -> None:
        discoverer = Discoverer()
        async with Bench(entries=[], discoverer=discoverer, opener=Opener()) as bench:
            await bench.until(lambda: len(bench.records.of(Sighting)) == 1)
            await asyncio.sleep(300)
            assert [one.port for one in bench.monitor.unknown_devices()] == ["1-1.9"]
            discoverer.found = []
            discoverer.changed.set()
            await bench.until(lambda: len(bench.records.of(Sighting)) == 2)
            assert [(one.port, one.present) for one in bench.records.of(Sighting)] == [("1-1.9", True), ("1-1.9", False)]

    in_virtual_time(story())


# ------------------------------------------------------------------------------------------------------------------ keys, ratings, counts


def test_keys_and_ratings_become_records_once_each() -> None:
    async def story() -> None:
        async with Bench(pads(), evaluator()) as bench:
            await bench.until(lambda: len(bench.states()) == 4)
            bench.terminal.press("call-pad 2", "call-next")
            await bench.until(lambda: len(bench.records.of(Queue)) == 1)
            bench.terminal.press("call-pad 2", "drop")
            await bench.until(lambda: len(bench.records.of(Queue)) == 2)
            bench.terminal.press("call-pad 1", "rate", "4")
            await bench.until(lambda: len(bench.records.of(Rating)) == 1)
            bench.terminal.press("evaluator", "rate", "5")
            await bench.until(lambda: len(bench.records.of(Rating)) == 2)
            await asyncio.sleep(30)
            assert [(key.slot, key.action) for key in bench.records.of(Queue)] == [
                ("call-pad-2", "callNext"),
                ("call-pad-2", "drop"),
            ]
            assert [(rating.slot, rating.level) for rating in bench.records.of(Rating)] == [("call-pad-1", 4), ("evaluator", 5)]

    in_virtual_time(story())


def test_a_stuck_pad_does_not_fill_the_spool() -> None:
    async def story() -> None:
        async with Bench(pads()) as bench:
            await bench.until(lambda: len(bench.states()) == 3)
            bench.terminal.do(["fault", "call-pad", "2", "stuck-key"])
            await asyncio.sleep(600)
            assert len(bench.records.of(Queue)) < 20
            assert bench.records.open_codes() == {"CAL.STUCK_KEY"}

    in_virtual_time(story())


def test_a_flood_of_valid_keys_is_cut_to_what_a_clerk_can_press() -> None:
    class Flooding(Hostile):
        async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
            self.reads += 1
            key = (0x0C, 0x0D)[self.reads % 2]
            await asyncio.sleep(0.01)
            return bytes((0xFF, 0x68, 3, 3, 0x68, 1, 1, key, (2 + key) & 0xFF, 0x16))

    async def story() -> None:
        slot = Slot("call-pad", CallPadBus(addresses=(1,)), "serial", "/dev/ttyUSB0", "1-1.9", adapter=CH340)
        bench = Bench(slot)
        opener = OneHostile(bench.terminal.opener(KIT), "1-1.9", "")

        async def open_port(*_: object) -> Hostile:
            return Flooding("")

        opener.open = open_port  # type: ignore[method-assign, assignment]
        bench.monitor._opener = opener
        async with bench:
            await asyncio.sleep(300)
            assert 60 <= len(bench.records.of(Queue)) <= 60 * 6 + 1

    in_virtual_time(story())


@pytest.mark.parametrize("fault", ["sleep", "usb-halt"])
def test_a_sleeping_or_halted_printer_is_woken_and_no_fault(fault: str) -> None:
    async def story() -> None:
        laser = Slot("laser-printer", LaserPrinter(usb=USB_LJ2650), "usb", "1-1.6", "1-1.6")
        async with Bench(laser) as bench:
            await bench.until_state("laser-printer", "online")
            bench.terminal.set("laser-printer", fault)
            await asyncio.sleep(600)
            assert bench.records.of(Fault) == []
            assert bench.states() == {"laser-printer": "online"}

    in_virtual_time(story())


def test_a_span_brings_counters_and_readings() -> None:
    async def story() -> None:
        sensors = Slot("sensors", ModbusBus(ClimateModule(1), DoorModule(2)), "serial", "/dev/ttyUSB1", "1-1.5", adapter=CH340)
        laser = Slot("laser-printer", LaserPrinter(usb=USB_LJ2650, page_count=1000), "usb", "1-1.6", "1-1.6")
        async with Bench(sensors, laser, reader()) as bench:
            await bench.until(lambda: len(bench.states()) == 4)
            bench.monitor.note_use("id-reader", ok=True)
            bench.monitor.note_use("id-reader", ok=False)
            bench.monitor.note_use("nobody", ok=True)
            await asyncio.sleep(5)
            bench.terminal.press("laser-printer", "print", "7")
            await asyncio.sleep(900)
            bodies = bench.monitor.close_span(0, 900_000)
            (counters,) = [body for body in bodies if isinstance(body, Counters)]
            rows = {row.slot: (row.total, row.ok, row.failed, row.derived) for row in counters.slots}
            assert rows == {"id-reader": (2, 1, 1, False), "laser-printer": (7, 7, 0, True)}
            quantities = {(body.slot, body.quantity) for body in bodies if isinstance(body, Reading)}
            assert quantities == {("climate", "temperature"), ("climate", "humidity")}
            assert bench.monitor.close_span(900_000, 900_001) == []

    in_virtual_time(story())


def test_a_refill_said_by_hand_is_a_record() -> None:
    async def story() -> None:
        async with Bench(printer()) as bench:
            await bench.until_state("receipt-printer", "online")
            item = PROFILES["snbc-btp"].consumable[0].name
            bench.monitor.note_refill("receipt-printer", item)
            (refill,) = bench.records.of(Consumable)
            assert (refill.event, refill.source) == ("refill", "manual")

    in_virtual_time(story())


# ------------------------------------------------------------------------------------------------------------------ restarts, full disk


def test_an_open_fault_survives_a_restart_with_its_id() -> None:
    async def story() -> None:
        memory, slot = Memory(), printer()
        async with Bench(slot, memory=memory) as bench:
            await bench.until_state("receipt-printer", "online")
            bench.terminal.set("receipt-printer", "paper-out")
            first = await bench.until_open("PRN.PAPER_OUT")
        again = Bench(slot, memory=memory)
        (known,) = again.monitor.open_for_birth()
        assert (known.id, known.since_ms, known.slot) == (first.id, first.since_ms, "receipt-printer")
        async with again:
            await again.until_state("receipt-printer", "online")
            await asyncio.sleep(30)
            assert again.records.of(Fault) == []
            slot.model.clear("paper-out", asyncio.get_running_loop().time())
            await again.until(lambda: bool(again.records.of(Fault)))
            (cleared,) = again.records.of(Fault)
            assert (cleared.id, cleared.change) == (first.id, "clear")

    in_virtual_time(story())


def test_a_fault_that_had_no_room_is_told_later_even_after_a_restart() -> None:
    async def story() -> None:
        memory, slot = Memory(), printer()
        async with Bench(slot, memory=memory) as bench:
            await bench.until_state("receipt-printer", "online")
            bench.records.refuse_with = OutboxFull("no space")
            bench.terminal.set("receipt-printer", "paper-out")
            await bench.until(lambda: bool(bench.monitor.open_faults()))
            (opened,) = bench.monitor.open_faults()
            assert bench.records.of(Fault) == []
        async with Bench(slot, memory=memory) as again:
            await again.until(lambda: bool(again.records.of(Fault)), within_s=1)
            assert again.records.of(Fault)[0].id == opened.id
            await asyncio.sleep(30)
            assert len(again.records.of(Fault)) == 1

    in_virtual_time(story())


def test_a_state_that_had_no_room_is_told_when_there_is_some() -> None:
    async def story() -> None:
        bench = Bench(printer())
        bench.records.refuse_with = OutboxFull("no space")
        async with bench:
            await bench.until_state("receipt-printer", "online")
            bench.records.refuse_with = None
            await bench.until(lambda: bool(bench.records.of(Device)))

    in_virtual_time(story())


def test_a_refused_record_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        bench = Bench(printer())
        bench.records.refuse_with = CaptureRefused("no")
        async with bench:
            await bench.until_state("receipt-printer", "online")
            bench.terminal.set("receipt-printer", "paper-out")
            await bench.until(lambda: bool(bench.monitor.open_faults()))

    in_virtual_time(story())
    assert any(record.getMessage() == "a fault record was refused" for record in caplog.records)


@pytest.mark.parametrize("key", ["devices.faults", "devices.usage", "devices.profiles"])
def test_spoiled_memory_is_set_aside(key: str) -> None:
    async def story() -> None:
        memory = Memory()
        memory.put(key, b"\xc1spoiled")
        async with Bench(printer(), memory=memory) as bench:
            await bench.until_state("receipt-printer", "online")

    in_virtual_time(story())


def test_faults_of_slots_that_left_the_inventory_are_closed() -> None:
    async def story() -> None:
        memory, slot = Memory(), printer()
        async with Bench(slot, memory=memory) as bench:
            bench.terminal.set("receipt-printer", "paper-out")
            opened = await bench.until_open("PRN.PAPER_OUT")
        async with Bench(slot, memory=memory, entries=[]) as again:
            await again.until(lambda: bool(again.records.of(Fault)))
            (closed,) = again.records.of(Fault)
            assert (closed.id, closed.change) == (opened.id, "clear")

    in_virtual_time(story())


def test_conditions_of_the_terminal_itself_go_the_same_way() -> None:
    async def story() -> None:
        async with Bench(printer()) as bench:
            judged = frozenset({"HOST.DISK_FULL"})
            bench.monitor.observe_terminal([Condition("HOST.DISK_FULL")], judged=judged)
            (fault,) = bench.records.of(Fault)
            assert (fault.slot, fault.mandatory) == (None, True)
            bench.monitor.observe_terminal([], judged=judged)
            await bench.until(lambda: not bench.records.open_codes())

    in_virtual_time(story())


# ------------------------------------------------------------------------------------------------------------------ ownership


def test_an_observer_opens_nothing() -> None:
    class Opener:
        async def open(self, *_: object) -> Any:
            raise AssertionError("an observer opened a port")

    async def story() -> None:
        slot = printer()
        async with Bench(slot, ownership=Ownership.OBSERVER, opener=Opener()) as bench:
            told = await bench.until_state("receipt-printer", "online")
            assert (told.owner, told.paper, told.cover) == ("observer", "unknown", "unknown")
            bench.terminal.set("receipt-printer", "unplug")
            await bench.until_open("PRN.UNPLUGGED")

    in_virtual_time(story())


def test_an_observer_sees_that_another_program_holds_a_line() -> None:
    async def story() -> None:
        slot = Slot("receipt-printer", EscposPrinter(), "serial", "/dev/ttyUSB0", "1-1.2", adapter=CH340)
        async with Bench(slot, ownership=Ownership.OBSERVER, port_holders=lambda path: path == "/dev/ttyUSB0") as bench:
            await bench.until_state("receipt-printer", "inUse")
            await asyncio.sleep(300)
            assert bench.records.of(Fault) == []

    in_virtual_time(story())


def test_an_idle_prober_looks_only_while_nobody_is_served_and_lets_go() -> None:
    async def story() -> None:
        free = [False]
        slot = printer()
        async with Bench(slot, ownership=Ownership.IDLE_PROBER, lease_free=lambda: free[0]) as bench:
            await asyncio.sleep(120)
            assert bench.states() == {}
            assert not slot.opened
            free[0] = True
            await bench.until_state("receipt-printer", "online")
            await bench.until(lambda: not slot.opened)
            bench.terminal.set("receipt-printer", "paper-out")
            await bench.until_open("PRN.PAPER_OUT")
            assert bench.device("receipt-printer").owner == "idleProber"
            free[0] = False
            frames = slot.model.frames_in
            await asyncio.sleep(300)
            assert slot.model.frames_in == frames
            assert bench.records.open_codes() == {"PRN.PAPER_OUT"}

    in_virtual_time(story())


def test_a_citizen_who_comes_during_a_probe_gets_the_port_at_once() -> None:
    async def story() -> None:
        free = [True]
        slot = reader()
        slot.model.set("silence", 0.0)  # the probe will wait for an answer
        async with Bench(slot, ownership=Ownership.IDLE_PROBER, lease_free=lambda: free[0]) as bench:
            await bench.until(lambda: slot.opened)
            free[0] = False
            assert await bench.until(lambda: not slot.opened, within_s=1) < 0.5

    in_virtual_time(story())


# ------------------------------------------------------------------------------------------------------------------ hostile devices


class Hostile:
    """A byte port that misbehaves in one way."""

    def __init__(self, manner: str) -> None:
        self.manner = manner
        self.reads = 0
        self.closed = False

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        if self.manner == "never takes":
            await asyncio.sleep(timeout_s)
            raise PortStalled("takes no bytes")

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        self.reads += 1
        if self.manner == "endless stream":
            return b"\xaa" * max_bytes
        if self.manner == "ten megabyte line":
            return b"A" * max_bytes if self.reads < 10_000_000 // max_bytes else b""
        if self.manner == "raises":
            raise RuntimeError(f"{MARK} in a driver's exception")
        if self.manner == "hangs":
            await asyncio.sleep(10**9)
        await asyncio.sleep(timeout_s)
        return b""

    async def close(self) -> None:
        self.closed = True
        if self.manner == "hangs":
            await asyncio.sleep(10**9)


class OneHostile:
    """Opens a hostile port for one slot and the simulated ones for the rest."""

    def __init__(self, inner: Any, place: str, manner: str) -> None:
        self.inner, self.place, self.manner = inner, place, manner
        self.ports: list[Hostile] = []

    async def open(self, sighting: Any, profile: Any) -> Any:
        if sighting.place == self.place:
            self.ports.append(Hostile(self.manner))
            return self.ports[-1]
        return await self.inner.open(sighting, profile)


@pytest.mark.parametrize("victim", ["receipt", "reader", "scanner", "pads", "sensors"])
@pytest.mark.parametrize("manner", ["endless stream", "ten megabyte line", "raises", "hangs", "never takes"])
def test_a_hostile_device_harms_only_itself(manner: str, victim: str, caplog: pytest.LogCaptureFixture) -> None:
    families = {
        "receipt": ("receipt-printer", "receipt-printer-serial", None),
        "reader": ("id-reader", "sdt-serial", None),
        "scanner": ("scanner", "newland-uart", None),
        "pads": ("call-pad", "call-pad-ft12", 1),
        "sensors": ("climate", "xy-md02", 1),
    }
    family, profile, address = families[victim]

    async def story() -> None:
        good = Slot("receipt-printer", EscposPrinter(usb=USB_SNBC), "usb", "1-1.2", "1-1.2")
        bad = Slot("bad", EscposPrinter(), "serial", "/dev/ttyUSB0", "1-1.9", adapter=CH340)
        entries = [
            DeviceEntry(slot="bad", family=family, port="1-1.9", profile=profile, address=address),
            DeviceEntry(slot="receipt-printer", family="receipt-printer", port="1-1.2"),
        ]
        bench = Bench(good, bad, entries=entries)
        opener = OneHostile(bench.terminal.opener(KIT), "1-1.9", manner)
        bench.monitor._opener = opener
        async with bench:
            await bench.until_state("receipt-printer", "online", within_s=5)
            await asyncio.sleep(60)
            bench.terminal.set("receipt-printer", "paper-out")
            await bench.until(lambda: "PRN.PAPER_OUT" in bench.records.open_codes(), within_s=6)
            assert opener.ports
            # Bounded work: a port is not read more often than its budget allows, nor opened in a tight loop.
            assert sum(port.reads for port in opener.ports) < 20_000
            assert len(opener.ports) < 60
            codes = {fault.code for fault in bench.records.of(Fault, "bad")}
            assert not codes & {"PRN.PAPER_OUT", "PRN.JAM", "IDR.SELF_TEST", "ENV.TAMPER"}

    in_virtual_time(story())
    assert MARK not in caplog.text


class Vanishing(Hostile):
    """Gives the beginning of an answer, then is pulled."""

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        self.reads += 1
        if self.reads == 1:
            return bytes.fromhex("aaaaaa9669000400")
        raise PortGone("pulled in the middle of a frame")


def test_an_unplug_in_the_middle_of_a_frame_is_an_unplug() -> None:
    async def story() -> None:
        slot = Slot("id-reader", SdtReader(), "serial", "/dev/ttyUSB0", "1-1.9", adapter=CH340)
        bench = Bench(slot)
        opener = OneHostile(bench.terminal.opener(KIT), "1-1.9", "")
        opener.open = lambda *_: _ready(Vanishing(""))  # type: ignore[method-assign]
        bench.monitor._opener = opener
        async with bench:
            await bench.until_open("IDR.UNPLUGGED")

    async def _ready(port: Hostile) -> Hostile:
        return port

    in_virtual_time(story())


# ------------------------------------------------------------------------------------------------------------------ privacy


class Whispering(Hostile):
    """A reader port on which answers to somebody else's card questions are still under way."""

    def __init__(self, card: SyntheticCard) -> None:
        super().__init__("")
        text = card.text_block()
        body = b"\x00\x00\x90" + b"\x01\x00\x04\x00" + text + card.photo()
        head = (len(body) + 1).to_bytes(2, "big")
        check = 0
        for byte in head + body:
            check ^= byte
        self.frame = bytes.fromhex("aaaaaa9669") + head + body + bytes((check,))
        self.pending = b""

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        self.pending += self.frame + self.frame[:700] + MARK.encode("utf-16-le") * 8

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        if not self.pending:
            await asyncio.sleep(timeout_s)
        taken, self.pending = self.pending[:max_bytes], self.pending[max_bytes:]
        return taken


def _holds_mark(haystack: bytes | str) -> bool:
    if isinstance(haystack, str):
        return MARK in haystack
    return (
        any(MARK.encode(code) in haystack for code in ("utf-8", "utf-16-le", "utf-16-be"))
        or MARK.encode().hex().encode() in haystack
    )


def test_a_card_in_the_readers_answers_is_found_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    kept: list[bytes] = []

    async def story() -> None:
        slot = Slot("id-reader", SdtReader(), "serial", "/dev/ttyUSB0", "1-1.9", adapter=CH340)
        bench = Bench(slot)
        opener = OneHostile(bench.terminal.opener(KIT), "1-1.9", "")
        port = Whispering(SyntheticCard(MARK))

        async def open_port(*_: object) -> Hostile:
            return port

        opener.open = open_port  # type: ignore[method-assign, assignment]
        bench.monitor._opener = opener
        async with bench:
            await asyncio.sleep(600)
            assert bench.records.of(Device)
        kept.append(bytes(bench.records.encoded))
        kept.append(repr(bench.records.bodies).encode())
        kept.append(repr(bench.monitor.status()).encode())
        kept.extend(bench.memory.values.values())

    in_virtual_time(story())
    assert not any(_holds_mark(one) for one in kept)
    assert not _holds_mark(caplog.text)


@pytest.mark.parametrize("keyboard", [True, False])
def test_a_scanned_code_is_found_nowhere(keyboard: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    kept: list[bytes] = []

    async def story() -> None:
        from simulators.models.scanner import SerialScanner

        model = HidScanner() if keyboard else SerialScanner()
        slot = (
            Slot("scanner", model, "input", "/dev/input/event3", "1-1.4")
            if keyboard
            else Slot("scanner", model, "serial", "/dev/ttyUSB0", "1-1.4", adapter=CH340)
        )
        async with Bench(slot) as bench:
            await bench.until_state("scanner", "online")
            for fault in (None, "missing-suffix", "garbage"):
                if fault is not None:
                    bench.terminal.set("scanner", fault)
                for _ in range(5):
                    bench.terminal.press("scanner", "scan", MARK.lower() if keyboard else MARK)
                    await asyncio.sleep(2)
            (counters,) = bench.monitor.close_span(0, 1)
            assert isinstance(counters, Counters)
            assert counters.slots[0].total >= 10
            assert "SCN.NO_SUFFIX" in {fault.code for fault in bench.records.of(Fault)}
            kept.append(bytes(bench.records.encoded))
            kept.append(repr(bench.records.bodies).encode())
            kept.append(repr([task.get_coro() for task in asyncio.all_tasks()]).encode())
            kept.append(repr((bench.monitor.__dict__, bench.monitor._book.__dict__)).encode())
            kept.extend(bench.memory.values.values())

    in_virtual_time(story())
    assert not any(_holds_mark(one) or MARK.lower().encode() in one for one in kept)
    assert not _holds_mark(caplog.text)
    assert MARK.lower() not in caplog.text


# ------------------------------------------------------------------------------------------------------------------ the rest


def test_status_says_state_since_and_faults() -> None:
    async def story() -> None:
        async with Bench(printer()) as bench:
            assert bench.monitor.status()[0].view.state is None
            await bench.until_state("receipt-printer", "online")
            (report,) = bench.monitor.status()
            since_ms = report.since_ms
            assert since_ms > 0
            await asyncio.sleep(60)
            assert bench.monitor.status()[0].since_ms == since_ms
            bench.terminal.set("receipt-printer", "cover-open")
            await bench.until_open("PRN.COVER_OPEN")
            (report,) = bench.monitor.status()
            assert report.since_ms > since_ms
            assert [fault.code for fault in report.faults] == ["PRN.COVER_OPEN"]

    in_virtual_time(story())


def test_many_terminals_share_a_loop() -> None:
    """No globals: forty monitors side by side, each with its own records."""

    async def story() -> None:
        benches = [Bench(printer(), reader(), pads(), evaluator()) for _ in range(40)]
        async with contextlib_all(benches):
            for bench in benches:
                await bench.until(lambda bench=bench: len(bench.states()) == 6)  # type: ignore[misc]
            benches[7].terminal.set("receipt-printer", "paper-out")
            await benches[7].until_open("PRN.PAPER_OUT")
            assert [bench.records.open_codes() for bench in benches].count(set()) == 39

    in_virtual_time(story())


class contextlib_all:  # noqa: N801 - reads like the library's own
    def __init__(self, benches: list[Bench]) -> None:
        self._benches = benches

    async def __aenter__(self) -> None:
        for bench in self._benches:
            await bench.__aenter__()

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(bench.__aexit__() for bench in self._benches))


def test_a_clock_that_jumps_changes_no_fault() -> None:
    async def story() -> None:
        async with Bench(printer()) as bench:
            await bench.until_state("receipt-printer", "online")
            real = bench.clock.wall_ms
            bench.clock.wall_ms = lambda: real() - 86_400_000 * 365 * 60 if real() > 86_400_000 * 365 * 60 else 0  # type: ignore[method-assign]
            bench.clock.quality = lambda: ClockQuality.UNSET  # type: ignore[method-assign]
            bench.terminal.set("receipt-printer", "paper-out")
            fault = await bench.until_open("PRN.PAPER_OUT")
            assert fault.since_ms >= 0
            assert isinstance(msgspec.to_builtins(fault), dict)
            assert ClockReading(0, 0, ClockQuality.UNSET).offset_ms == 0

    in_virtual_time(story())
