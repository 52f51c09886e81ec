"""Commands of the kiosk application on card units: each is said once, and the completion says what is known."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.clock import read
from edge_agent.devices.base import SlotBinding
from edge_agent.devices.card_unit import CardUnit
from edge_agent.devices.guard import guarded
from edge_agent.owner.base import CommandFailed, Request
from edge_agent.owner.card_unit import CardUnitServer, MotionUnconfirmed
from edge_agent.owner.factory import server_for
from edge_agent.transports.base import BytePort, Port, PortGone
from protocols.canon.words import MediaState
from protocols.codecs import card_d1801, card_f2, card_stx
from simulators.models.card_d1801 import Crt541Dispenser, D1801Dispenser
from simulators.models.card_f2 import F2CardReader, F2CardUnit
from simulators.models.card_mechanism import CardMechanism, ChipCard
from simulators.models.card_stx import StxCardReader
from simulators.ports.slots import CH340, Slot
from simulators.terminal import VirtualTerminal
from tests.edge_agent.devices.bench import KIT, PROFILES, Bench, LoopClock, in_virtual_time

OUT = {"from": "unitStacker", "to": "exit"}
CAPTURE = {"from": "exit", "to": "unitBin"}
MOTION_S = 3.0


@dataclass
class Line:
    """A wire with a plan: each write and each read takes the next word of it. `writes` is what the agent said, whether it arrived or not."""

    port: Any
    plan: list[str] = field(default_factory=list)
    writes: list[bytes] = field(default_factory=list)

    def _next(self) -> str:
        return self.plan.pop(0) if self.plan else "good"

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        self.writes.append(data)
        fate = self._next()
        if fate == "flip":
            data = data[:-1] + bytes((data[-1] ^ 0x10,))
        if fate != "lost":
            await self.port.write(data, timeout_s=timeout_s)
        if fate == "echo":
            self._pending = data

    _pending: bytes = b""

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        if self._pending:
            heard, self._pending = self._pending, b""
            return heard
        data: bytes = await self.port.read(max_bytes=max_bytes, timeout_s=timeout_s)
        if not data:
            return data
        fate = self._next()
        if fate == "lost":
            return b""
        if fate == "flip":
            return bytes((data[0] ^ 0x10,)) + data[1:]
        noise = {"ack": b"\x06", "nak": b"\x15", "half": b"\xf2\x00", "stx": b"\x02"}.get(fate, b"")
        return (noise + data)[:max_bytes]

    async def close(self) -> None:
        await self.port.close()


@dataclass
class Counter:
    """One unit, the server of its profile, and an application that counts what it ordered."""

    model: CardMechanism
    line: Line
    server: CardUnitServer
    bound: SlotBinding
    told: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    ordered: int = 0

    async def do(self, name: str, payload: Mapping[str, Any], *, timeout_s: float = 60.0) -> Mapping[str, Any]:
        self.ordered += 1
        request = Request(name=f"CardReader.{name}", payload=payload, timeout_s=timeout_s)
        port = guarded(self.line)
        return await self.server.serve(port, self.bound, request, lambda event, what: self.told.append((event, what)))

    async def fails(self, name: str, payload: Mapping[str, Any], *, timeout_s: float = 60.0) -> CommandFailed:
        with pytest.raises(CommandFailed) as caught:
            await self.do(name, payload, timeout_s=timeout_s)
        return caught.value

    def said(self, frame: bytes) -> int:
        return sum(written == frame for written in self.line.writes)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()


async def counter(model: CardMechanism, profile: str, plan: list[str] | None = None) -> Counter:
    loop = asyncio.get_running_loop()
    slot = Slot("card", model, "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340)
    terminal = VirtualTerminal("kiosk", [slot], clock=loop.time)
    bound = SlotBinding(slot="card", profile=PROFILES[profile])
    (sighting,) = terminal.discoverer(KIT).sightings()
    port = await terminal.opener(KIT).open(sighting, PROFILES[profile])
    assert isinstance(port, BytePort)
    server = server_for(bound)
    assert isinstance(server, CardUnitServer)
    return Counter(model, Line(port, plan or []), server, bound)


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await story()

    in_virtual_time(whole())


class TestF2:
    def test_a_card_is_handed_out_and_captured(self) -> None:
        async def story() -> None:
            unit = F2CardUnit(stacker=2)
            shop = await counter(unit, "crt-591")
            assert await shop.do("Move", OUT) == {}
            assert (unit.place, unit.dispensed) == ("gate", 1)
            assert (await shop.fails("Move", OUT)).code == "occupied"
            assert await shop.do("Move", CAPTURE) == {}
            assert (unit.captured, unit.motions) == (1, 2)
            await shop.do("Move", OUT)
            unit.act("take-card", shop.now)
            assert (await shop.fails("Move", OUT)).code == "noMedia"
            assert (unit.dispensed, unit.motions) == (2, 3)

        run(story)

    def test_a_missing_card_is_not_replaced_from_the_stacker(self) -> None:
        """The unit feeds a new card when it is told to move one that is not there, so it is not told."""

        async def story() -> None:
            unit = F2CardUnit()
            shop = await counter(unit, "crt-591")
            for origin, target in (("transport", "exit"), ("exit", "transport"), ("transport", "unitBin"), ("exit", "unitBin")):
                assert (await shop.fails("Move", {"from": origin, "to": target})).code == "noMedia"
            assert unit.motions == 0

        run(story)

    @pytest.mark.parametrize(
        ("fault", "code", "plain"),
        [
            ("jam", "mediaJam", False),
            ("motor", "hardwareError", True),
            ("power-cycled", "deviceNotReady", True),
            ("stacker-empty", "noMedia", False),
            ("silence", "deviceNotReady", True),
            ("nak", "deviceNotReady", True),
        ],
    )
    def test_what_is_known_before_is_said_and_nothing_moves(self, fault: str, code: str, plain: bool) -> None:
        async def story() -> None:
            unit = F2CardUnit()
            shop = await counter(unit, "crt-591")
            unit.set(fault, shop.now)
            failed = await shop.fails("Move", OUT)
            assert (failed.code, failed.plain, unit.motions) == (code, plain, 0)

        run(story)

    def test_a_full_bin(self) -> None:
        async def story() -> None:
            unit = F2CardUnit()
            shop = await counter(unit, "crt-591")
            await shop.do("Move", OUT)
            unit.set("bin-full", shop.now)
            assert (await shop.fails("Move", CAPTURE)).code == "full"
            assert (await shop.fails("Reset", {"to": "retain"})).code == "retainBinFull"
            assert (unit.captured, unit.place) == (0, "gate")

        run(story)

    def test_a_lost_answer_is_made_up_by_looking(self) -> None:
        """The card came out and the result was lost: the card at the gate is the proof, and the command was said once."""

        async def story() -> None:
            unit = F2CardUnit()
            shop = await counter(unit, "crt-591")
            say = unit._send
            unit._send = lambda frame, now: say(frame, now) if frame[5:6] == b"1" else None  # type: ignore[method-assign]
            assert await shop.do("Move", OUT) == {}
            assert (unit.motions, unit.dispensed) == (1, 1)
            assert shop.said(bytes.fromhex("f200000343323003b3")) == 1

        run(story)

    def test_a_lost_command_is_not_repeated(self) -> None:
        async def story() -> None:
            unit = F2CardUnit()
            shop = await counter(unit, "crt-591")
            unit._move = lambda words, now: None  # type: ignore[method-assign]  # acknowledged, and then nothing
            failed = await shop.fails("Move", OUT)
            assert isinstance(failed, MotionUnconfirmed)
            assert failed.known == {"commandSent": True, "acknowledged": True, "position": "none"}
            assert shop.told == [], "there is no card to tell of"
            assert shop.said(bytes.fromhex("f200000343323003b3")) == 1

        run(story)

    def test_a_card_that_is_still_where_it_was_is_told_of(self) -> None:
        async def story() -> None:
            unit = F2CardUnit()
            shop = await counter(unit, "crt-591")
            await shop.do("Move", {"from": "unitStacker", "to": "transport"})
            unit._move = lambda words, now: None  # type: ignore[method-assign]
            failed = await shop.fails("Move", {"from": "transport", "to": "exit"})
            assert isinstance(failed, MotionUnconfirmed)
            assert shop.told == [("CardReader.MediaDetectedEvent", {"position": "transport"})]

        run(story)

    def test_a_card_pulled_by_hand(self) -> None:
        async def story() -> None:
            unit = F2CardUnit()
            shop = await counter(unit, "crt-591")
            await shop.do("Move", OUT)
            moving = asyncio.create_task(shop.fails("Move", CAPTURE))
            while not unit.is_moving:
                await asyncio.sleep(0.05)
            unit.act("take-card", shop.now)
            assert (await moving).code == "noMedia"
            assert (unit.captured, unit.taken) == (0, 1)

        run(story)

    def test_two_cards_at_once(self) -> None:
        async def story() -> None:
            unit = F2CardUnit()
            shop = await counter(unit, "crt-591")
            unit._feed = lambda words, target, now: unit._stall(words, b"13", now)  # type: ignore[method-assign]
            assert (await shop.fails("Move", OUT)).code == "mediaJam"
            assert unit.motions == 1
            assert (await shop.fails("Move", OUT)).code == "mediaJam"
            assert unit.motions == 1, "a jam that is known is not stirred"

        run(story)

    def test_reset(self) -> None:
        async def story() -> None:
            unit = F2CardUnit()
            shop = await counter(unit, "crt-591")
            unit.set("power-cycled", shop.now)
            unit._faults.discard("power-cycled")
            assert (await shop.fails("Move", OUT)).code == "deviceNotReady"
            assert await shop.do("Reset", {}) == {}
            await shop.do("Move", OUT)
            assert await shop.do("Reset", {"to": "currentPosition"}) == {}
            assert unit.place == "gate"
            assert shop.told[-1] == ("CardReader.MediaDetectedEvent", {"position": "exit"})
            assert await shop.do("Reset", {"to": "retain"}) == {}
            assert (unit.place, unit.captured) == ("none", 1)
            assert (await shop.fails("Reset", {"to": "somewhere"})).code == "invalidData"

        run(story)

    def test_a_chip(self) -> None:
        async def story() -> None:
            unit = F2CardUnit()
            shop = await counter(unit, "crt-591")
            assert (await shop.fails("ChipPower", {"chipPower": "cold"})).code == "noMedia"
            await shop.do("Move", {"from": "unitStacker", "to": "transport"})
            unit.card = ChipCard("PLANTED9")
            power = await shop.do("ChipPower", {"chipPower": "cold"})
            assert base64.b64decode(power["chipData"]).endswith(b"PLANTED9")
            apdu = base64.b64encode(bytes.fromhex("00a4040000")).decode()
            answer = await shop.do("ChipIO", {"chipProtocol": "chipT0", "chipData": apdu})
            assert base64.b64decode(answer["chipData"]) == b"PLANTED9\x90\x00"
            first, shop.server = shop.server, CardUnitServer(PROFILES["crt-591"])  # another claim; the chip is still powered
            other = await shop.fails("ChipIO", {"chipProtocol": "chipT0", "chipData": apdu})
            assert other.code == "atrNotObtained"
            shop.server = first
            assert await shop.do("ChipPower", {"chipPower": "off"}) == {}
            failed = await shop.fails("ChipIO", {"chipProtocol": "chipT0", "chipData": apdu})
            assert failed.code == "atrNotObtained"
            assert (await shop.fails("ChipIO", {"chipProtocol": "chipTypeB", "chipData": apdu})).code == "protocolNotSupported"
            assert (await shop.fails("ChipIO", {"chipProtocol": "chipT0", "chipData": "%"})).code == "invalidData"
            assert "PLANTED" not in repr(vars(shop.server)) + str(failed) + repr(shop.told)

        run(story)

    @pytest.mark.parametrize(("profile", "entry"), [("crt-591", "30-permits"), ("crt-310-f2", "30-prohibits")])
    def test_a_person_puts_a_card_in(self, profile: str, entry: str) -> None:
        async def story() -> None:
            unit = F2CardUnit(entry=entry, stacker=None if profile == "crt-310-f2" else 5)  # type: ignore[arg-type]
            shop = await counter(unit, profile)
            reading = asyncio.create_task(shop.do("ReadRawData", {"chip": True, "track1": None}))
            await asyncio.sleep(2)
            assert unit.entry_open
            unit.act("insert-card", shop.now, "M1")
            data = (await reading)["chip"][0]["data"]
            assert base64.b64decode(data).endswith(b"M1")
            assert [event for event, _ in shop.told] == ["CardReader.InsertCardEvent", "CardReader.MediaInsertedEvent"]
            assert not unit.entry_open
            assert unit.place == "inside"

        run(story)

    def test_nobody_comes(self) -> None:
        async def story() -> None:
            unit = F2CardUnit()
            shop = await counter(unit, "crt-591")
            failed = await shop.fails("ReadRawData", {"chip": True}, timeout_s=5)
            assert (failed.code, failed.plain, unit.entry_open, unit.motions) == ("timeOut", True, False, 0)
            assert (await shop.fails("ReadRawData", {"track2": True})).code == "unsupportedData"

        run(story)

    def test_eject_is_used_only_where_the_profile_says_so(self) -> None:
        """On one unit in the field the eject command fills the bin; its profile holds cards at the gate."""

        async def story() -> None:
            unit = F2CardUnit(baud=115200, eject_goes_to_bin=True, entry="30-prohibits", negative_head=b"E")
            shop = await counter(unit, "crt-591-r02")
            await shop.do("Move", {"from": "unitStacker", "to": "transport"})
            await shop.do("Move", {"from": "transport", "to": "exit"})
            assert (unit.place, unit.captured) == ("gate", 0)
            assert not {"CardReader.ChipIO", "CardReader.ReadRawData"} & shop.server.commands

        run(story)


class TestOthers:
    def test_the_older_reader(self) -> None:
        async def story() -> None:
            unit = StxCardReader()
            shop = await counter(unit, "crt-310-old")
            unit.act("insert-card", shop.now)
            await asyncio.sleep(MOTION_S)
            assert await shop.do("Move", {"from": None, "to": "exit"}) == {}
            assert unit.place == "gate"
            assert await shop.do("Move", {"from": "exit", "to": "transport"}) == {}
            assert await shop.do("Move", {"from": "transport", "to": "unitBin"}) == {}
            assert unit.captured == 1
            assert (await shop.fails("Move", OUT)).code == "unsupportedData"
            assert await shop.do("Reset", {"to": "auto"}) == {}

        run(story)

    def test_without_an_acknowledgement_there_is_no_enquiry_and_no_motion(self) -> None:
        async def story() -> None:
            for unit, profile, command in (
                (StxCardReader(), "crt-310-old", {"from": "transport", "to": "exit"}),
                (D1801Dispenser(), "qu-cd-720m", OUT),
            ):
                shop = await counter(unit, profile)
                if isinstance(unit, StxCardReader):
                    unit.place = "inside"
                reading = await shop.server._unit(shop.line, shop.bound).reading()
                assert reading is not None
                frames: list[bytes] = []
                emit = unit.emit

                def without_ack(data: bytes, now: float, keep: Any = emit, seen: list[bytes] = frames, **more: Any) -> None:
                    seen.append(data)
                    if data != b"\x06" or len(seen) <= 2:
                        keep(data, now, **more)

                unit.emit = without_ack  # type: ignore[method-assign]
                failed = await shop.fails("Move", command)
                assert (failed.code, failed.plain, unit.motions) == ("deviceNotReady", True, 0)

        run(story)

    def test_a_board_without_results(self) -> None:
        async def story() -> None:
            unit = D1801Dispenser(stacker=1)
            shop = await counter(unit, "qu-cd-720m")
            await shop.do("Move", OUT)
            assert (unit.place, unit.dispensed) == ("gate", 1)
            failed = await shop.fails("Move", CAPTURE)
            assert isinstance(failed, MotionUnconfirmed), "from the mouth a person may have taken it as well"
            assert (failed.known["position"], unit.captured) == ("none", 1)
            assert (await shop.fails("Move", OUT)).code == "noMedia"
            assert await shop.do("Reset", {"to": "auto"}) == {}
            assert (await shop.fails("Reset", {"to": "exit"})).code == "unsupportedData"

        run(story)

    def test_dispensing_fails_on_a_board(self) -> None:
        async def story() -> None:
            unit = D1801Dispenser()
            shop = await counter(unit, "k720-simple")
            moving = asyncio.create_task(shop.fails("Move", OUT))
            while not unit.is_moving:
                await asyncio.sleep(0.05)
            unit.set("jam", shop.now)
            assert (await moving).code == "mediaJam"
            assert (unit.motions, unit.dispensed) == (1, 0)

        run(story)

    def test_a_unit_that_never_says_where_a_card_is(self) -> None:
        async def story() -> None:
            unit = Crt541Dispenser()
            shop = await counter(unit, "crt-541")
            assert await shop.do("Move", OUT) == {}
            assert unit.dispensed == 1
            assert (await shop.fails("Move", OUT)).code == "deviceNotReady"
            unit.act("take-card", shop.now)
            assert await shop.do("Move", OUT) == {}
            assert unit.motions == 2
            assert (await shop.fails("Move", CAPTURE)).code == "unsupportedData"

        run(story)

    def test_what_the_servers_say_they_can(self) -> None:
        for profile in ("crt-591", "crt-310-f2", "crt-310-old", "qu-cd-720m", "crt-541"):
            bound = SlotBinding(slot="card", profile=PROFILES[profile])
            server = server_for(bound)
            assert server is not None
            capabilities = server.capabilities(bound)
            assert capabilities["cardReader"]["type"] == "motor"
            assert ("unitStacker" in capabilities["storage"]) == (PROFILES[profile].kind == "card-dispenser")
            assert ("CardReader.ChipIO" in server.commands) == capabilities["cardReader"]["chipProtocols"]["chipT0"]

    def test_a_command_goes_between_two_looks_of_the_monitor(self) -> None:
        async def story() -> None:
            unit = F2CardUnit()
            slot = Slot("card-dispenser", unit, "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340)
            async with Bench(slot) as bench:
                await bench.until_state(slot.name, "online")

                async def work(port: Port, bound: SlotBinding) -> Mapping[str, Any]:
                    server = server_for(bound)
                    assert server is not None
                    request = Request(name="CardReader.Move", payload=OUT, timeout_s=60)
                    return await server.serve(port, bound, request, lambda event, what: None)

                assert await bench.monitor.perform(slot.name, work, within_s=60) == {}
                await bench.until(lambda: bench.device(slot.name).media is MediaState.ENTERING, within_s=30)
                assert (unit.motions, bench.records.open_codes()) == (1, set())

        run(story)

    def test_a_pulled_cable_is_said_as_such(self) -> None:
        async def story() -> None:
            unit = F2CardUnit()
            shop = await counter(unit, "crt-591")
            unit.set("unplug", shop.now)
            with pytest.raises(PortGone):
                await shop.do("Move", OUT)

        run(story)


FORMS: dict[str, tuple[Callable[[], CardMechanism], str]] = {
    "f2": (lambda: F2CardUnit(stacker=100), "crt-591"),
    "f2-reader": (F2CardReader, "crt-310-f2"),
    "stx": (StxCardReader, "crt-310-old"),
    "d1801": (lambda: D1801Dispenser(stacker=100), "qu-cd-720m"),
    "d1801-state": (lambda: D1801Dispenser(stacker=100), "k720-simple"),
    "addressed": (lambda: Crt541Dispenser(stacker=100), "crt-541"),
}
ORDERS: list[tuple[str, dict[str, Any]]] = [
    ("Move", OUT),
    ("Move", {"from": "unitStacker", "to": "transport"}),
    ("Move", {"from": "transport", "to": "exit"}),
    ("Move", CAPTURE),
    ("Move", {"from": None, "to": "unitBin"}),
    ("Reset", {"to": "auto"}),
    ("Reset", {"to": "retain"}),
]
fates = st.lists(st.sampled_from(["good", "good", "good", "lost", "flip", "ack", "nak", "half", "stx", "echo"]), max_size=60)
steps = st.lists(st.tuples(st.integers(0, len(ORDERS) - 1), st.booleans(), st.booleans()), min_size=1, max_size=4)


@pytest.mark.parametrize("form", sorted(FORMS))
@settings(max_examples=60, deadline=None)
@given(plan=fates, orders=steps)
def test_no_motion_but_those_that_were_ordered(form: str, plan: list[str], orders: list[tuple[int, bool, bool]]) -> None:
    """Whatever the wire does to frames, acknowledgements and results, and though the unit is watched in between: the motor turns at most as often
    as the application said, no command frame is said twice, and a success is true."""

    async def story() -> None:
        make, profile = FORMS[form]
        unit = make()
        unit.place = "inside" if unit.stacker is None else "none"
        shop = await counter(unit, profile, list(plan))
        watcher = CardUnit(guarded(shop.line), shop.bound)  # type: ignore[arg-type]
        clock = LoopClock()
        for number, takes, watches in orders:
            name, payload = ORDERS[number]
            writes_before, motions_before, out_before = len(shop.line.writes), unit.motions, unit.dispensed
            try:
                await shop.do(name, payload)
            except CommandFailed:
                pass
            else:
                assert name == "Reset" or unit.motions == motions_before + 1
                assert payload != OUT or unit.dispensed == out_before + 1
            said = [frame for frame in shop.line.writes[writes_before:] if is_command(frame)]
            assert len(said) <= 1
            await asyncio.sleep(MOTION_S)
            assert unit.motions <= shop.ordered
            if takes:
                unit.act("take-card", shop.now)
            if watches:
                await watcher.poll(read(clock))
                assert unit.motions <= shop.ordered

    run(story)


QUESTIONS = {
    *(card_f2.encode(query) for query in card_f2.Query),
    *(card_stx.encode(query) for query in card_stx.Query),
    *(card_d1801.encode(query) for query in card_d1801.Query if query is not card_d1801.Query.ENQUIRY),
    card_d1801.encode(card_d1801.Query.ENQUIRY, 0),
}


def is_command(frame: bytes) -> bool:
    return len(frame) > 1 and frame not in QUESTIONS
