"""Smart cards for the application that holds the claim: power and exchange on simulated CCID readers, once each; and for nobody else."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from edge_agent.devices.attempts import Met
from edge_agent.devices.base import SlotBinding
from edge_agent.owner.base import CommandFailed, Request
from edge_agent.owner.smart_card import SmartCard
from edge_agent.transports.base import PortStalled
from simulators.models.ccid import USB_ACR39U, USB_R502, CcidReader, SyntheticChip, class_descriptor
from simulators.ports.slots import Slot
from tests.edge_agent.devices.bench import PROFILES, Bench, in_virtual_time
from tests.edge_agent.owner.talk import Desk, Talker, code_of

READ, IO, POWER = "CardReader.ReadRawData", "CardReader.ChipIO", "CardReader.ChipPower"
MARK = "PLANTEDCHIP"
CHIP = SyntheticChip(MARK)
UID = base64.b64encode(bytes.fromhex("ffca000000")).decode()
BINARY = base64.b64encode(bytes.fromhex("00b0000000")).decode()
SELECT = base64.b64encode(bytes.fromhex("00a4040002 3f00".replace(" ", ""))).decode()


def contactless() -> Slot:
    return Slot("card-reader", CcidReader(usb=USB_R502), "usb", "1-1.2", "1-1.2")


def contact() -> Slot:
    return Slot("card-reader", CcidReader(usb=USB_ACR39U, contactless=False), "usb", "1-1.2", "1-1.2")


def on_a_desk(slot: Slot, test: Callable[[Desk, Talker, CcidReader], Awaitable[None]]) -> Bench:
    benches: list[Bench] = []

    async def work() -> None:
        bench = Bench(slot)
        benches.append(bench)
        async with bench, Desk(bench) as desk:
            await bench.until(lambda: bench.states() == {"card-reader": "online"})
            one = desk.connect("card-reader")
            await one.claim()
            assert isinstance(slot.model, CcidReader)
            await test(desk, one, slot.model)

    in_virtual_time(work())
    return benches[0]


async def powered(desk: Desk, one: Talker) -> None:
    desk.bench.terminal.press("card-reader", "insert-card", MARK)
    done = await one.ask(READ, {"chip": True}, timeout_ms=10_000)
    assert code_of(done) == "success"
    assert base64.b64decode(done["payload"]["chip"][0]["data"]) == CHIP.atr


def data_of(message: dict[str, dict[str, str]]) -> bytes:
    return base64.b64decode(message["payload"]["chipData"])


def test_a_card_is_waited_for_powered_and_spoken_to() -> None:
    async def test(desk: Desk, one: Talker, reader: CcidReader) -> None:
        number = one.post(READ, {"chip": True}, timeout_ms=20_000)
        await asyncio.sleep(2)
        desk.bench.terminal.press("card-reader", "insert-card", MARK)
        assert code_of(await one.answer(number)) == "success"
        assert [len(one.events(f"CardReader.{name}Event")) for name in ("InsertCard", "MediaInserted")] == [1, 1]
        assert data_of(await one.ask(IO, {"chipData": UID})) == CHIP.uid + b"\x90\x00"
        assert data_of(await one.ask(IO, {"chipData": BINARY})) == MARK.encode() * 4 + b"\x90\x00"
        assert data_of(await one.ask(IO, {"chipData": SELECT, "chipProtocol": "chipTypeAPart4"})) == b"\x90\x00"
        assert code_of(await one.ask(POWER, {"chipPower": "off"})) == "success"
        assert code_of(await one.ask(IO, {"chipData": UID})) == "atrNotObtained"
        assert data_of(await one.ask(POWER, {"chipPower": "cold"})) == CHIP.atr
        assert data_of(await one.ask(POWER, {"chipPower": "warm"})) == CHIP.atr
        desk.bench.terminal.press("card-reader", "remove-card")
        assert code_of(await one.ask(IO, {"chipData": UID})) == "noMedia"

    on_a_desk(contactless(), test)


def test_commands_of_t0_below_the_level_of_apdus() -> None:
    async def test(desk: Desk, one: Talker, reader: CcidReader) -> None:
        await powered(desk, one)
        assert data_of(await one.ask(IO, {"chipData": BINARY, "chipProtocol": "chipT0"})) == MARK.encode() * 4 + b"\x90\x00"
        long = base64.b64encode(bytes.fromhex("00b00000") + b"\x00\x01\x00" + b"x" * 256).decode()
        assert code_of(await one.ask(IO, {"chipData": long})) == "invalidData"

    on_a_desk(contact(), test)


@pytest.mark.parametrize(
    ("fault", "card", "command", "payload", "ends"),
    [
        ("", False, READ, {"chip": True}, "timeOut"),
        ("", False, POWER, {"chipPower": "cold"}, "noMedia"),
        ("", False, IO, {"chipData": UID}, "noMedia"),
        ("", True, IO, {"chipData": UID}, "atrNotObtained"),
        ("", True, IO, {"chipData": "no base64"}, "invalidData"),
        ("", True, READ, {"memoryChip": True}, "unsupportedData"),
        ("antenna", True, READ, {"chip": True}, "timeOut"),
        ("card-mute", True, READ, {"chip": True}, "invalidMedia"),
        ("card-mute", True, POWER, {"chipPower": "cold"}, "atrNotObtained"),
        ("hardware-error", True, POWER, {"chipPower": "warm"}, "hardwareError"),
        ("silence", True, READ, {"chip": True}, "hardwareError"),
        ("dead-firmware", True, POWER, {"chipPower": "cold"}, "hardwareError"),
        ("unplug", True, READ, {"chip": True}, "deviceNotReady"),
    ],
    ids=lambda value: str(value.get("chipPower", "")) if isinstance(value, dict) else str(value),
)
def test_how_a_command_ends(fault: str, card: bool, command: str, payload: dict[str, object], ends: str) -> None:
    async def test(desk: Desk, one: Talker, reader: CcidReader) -> None:
        if card:
            reader.insert(CHIP, asyncio.get_running_loop().time())
        if fault:
            desk.bench.terminal.set("card-reader", fault)
        assert code_of(await one.ask(command, payload, timeout_ms=6_000)) == ends

    on_a_desk(contactless(), test)


def test_a_card_that_asks_for_time_gets_it() -> None:
    async def test(desk: Desk, one: Talker, reader: CcidReader) -> None:
        await powered(desk, one)
        desk.bench.terminal.set("card-reader", "slow-card")
        before = reader.exchanges
        assert data_of(await one.ask(IO, {"chipData": BINARY}, timeout_ms=20_000)).endswith(b"\x90\x00")
        assert reader.exchanges == before + 1

    on_a_desk(contactless(), test)


def test_an_exchange_that_takes_too_long_is_aborted_and_not_repeated() -> None:
    async def test(desk: Desk, one: Talker, reader: CcidReader) -> None:
        await powered(desk, one)
        desk.bench.terminal.set("card-reader", "slow-card")
        before = reader.exchanges
        assert code_of(await one.ask(IO, {"chipData": BINARY}, timeout_ms=400)) == "timeOut"
        await asyncio.sleep(30)
        assert reader.exchanges == before + 1
        assert desk.bench.states() == {"card-reader": "online"}

    on_a_desk(contactless(), test)


def test_mute_cards_become_a_rate() -> None:
    async def test(desk: Desk, one: Talker, reader: CcidReader) -> None:
        desk.bench.terminal.set("card-reader", "card-mute")
        for _ in range(6):
            desk.bench.terminal.press("card-reader", "insert-card")
            assert code_of(await one.ask(READ, {"chip": True}, timeout_ms=5_000)) == "invalidMedia"
            desk.bench.terminal.press("card-reader", "remove-card")
            await one.ask("KioskFleet.Renew")
            await asyncio.sleep(15)
        await desk.bench.until_open("CRD.READ_FAIL_RATE", within_s=60)

    on_a_desk(contact(), test)


class Scripted:
    """An interface whose reader answers a list of messages, each to the question of that place; `{}` takes the question's sequence number."""

    endpoints_out, endpoints_in = (0x01,), (0x82, 0x83)
    bulk_out, bulk_in, interrupt_in = (0x01,), (0x82,), (0x83,)

    def __init__(self, answers: list[str]) -> None:
        self._answers = answers
        self._said = bytearray()
        self.sent: list[bytes] = []

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        self.sent.append(data)
        if self._answers:
            self._said += bytes.fromhex(self._answers.pop(0).replace("{}", f"{data[6]:02x}").replace(" ", ""))

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        said = bytes(self._said[:max_bytes])
        del self._said[:max_bytes]
        if not said:
            await asyncio.sleep(timeout_s)
        return said

    async def write_to(self, endpoint: int, data: bytes, *, timeout_s: float) -> None:
        await self.write(data, timeout_s=timeout_s)

    async def read_from(self, endpoint: int, *, max_bytes: int, timeout_s: float) -> bytes:
        return await self.read(max_bytes=max_bytes, timeout_s=timeout_s)

    async def control_in(self, *numbers: int, timeout_s: float) -> bytes:
        return b""

    async def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, *, timeout_s: float
    ) -> None:
        self.sent.append(bytes((request_type, request)))

    def class_descriptor(self, kind: int) -> bytes:
        return class_descriptor(level="extended")

    async def clear_halt(self, endpoint: int) -> None:
        return

    async def reset(self) -> None:
        return

    async def close(self) -> None:
        return


STATUS_ACTIVE, ATR = "81 00000000 00 {} 00 00 00", "80 04000000 00 {} 00 00 00 3b600000"
BOUND = SlotBinding(slot="card-reader", profile=PROFILES["feitian-r502"])


def talk(server: SmartCard, port: Scripted, name: str, payload: dict[str, object], timeout_s: float = 8.0) -> dict[str, object]:
    async def work() -> dict[str, object]:
        request = Request(name=name, payload=payload, timeout_s=timeout_s)
        return dict(await server.serve(port, BOUND, request, lambda *_: None))

    return in_virtual_time(work())


def test_a_response_in_parts_is_put_together() -> None:
    port = Scripted([
        STATUS_ACTIVE, ATR, STATUS_ACTIVE,
        "80 03000000 00 {} 00 00 01 010203", "80 02000000 00 {} 00 00 03 0405", "80 03000000 00 {} 00 00 02 069000",
    ])  # fmt: skip
    server = SmartCard()
    talk(server, port, READ, {"chip": True})
    said = talk(server, port, IO, {"chipData": BINARY})
    assert base64.b64decode(str(said["chipData"])) == bytes.fromhex("0102030405069000")
    assert [one[8:10] for one in port.sent[-2:]] == [b"\x10\x00", b"\x10\x00"]
    assert server.take_steps() == [Met.FOUND, Met.OK]
    assert server.take_steps() == []


def test_a_late_answer_to_another_question_is_not_taken() -> None:
    stale = "80 06000000 00 13 00 00 00 504c4e449000"
    port = Scripted([STATUS_ACTIVE, ATR, STATUS_ACTIVE, f"{stale} 80 02000000 00 {{}} 00 00 00 9000"])
    server = SmartCard()
    talk(server, port, READ, {"chip": True})
    assert base64.b64decode(str(talk(server, port, IO, {"chipData": BINARY})["chipData"])) == b"\x90\x00"


def test_a_reader_that_stops_answering_is_not_asked_again() -> None:
    port = Scripted([STATUS_ACTIVE, ATR, STATUS_ACTIVE])
    server = SmartCard()
    talk(server, port, READ, {"chip": True})
    with pytest.raises(PortStalled):
        talk(server, port, IO, {"chipData": BINARY})
    assert sum(one[0] == 0x6F for one in port.sent) == 1


def test_an_abort_goes_both_ways() -> None:
    endless = "80 00000000 00 {} 80 02 00"
    port = Scripted([STATUS_ACTIVE, ATR, STATUS_ACTIVE, endless])
    server = SmartCard()
    talk(server, port, READ, {"chip": True})
    with pytest.raises(CommandFailed, match="timeOut"):
        talk(server, port, IO, {"chipData": BINARY}, timeout_s=3.0)
    asked = next(one for one in port.sent if one[0] == 0x6F)
    assert port.sent[-2] == b"\x21\x01"
    assert (port.sent[-1][0], port.sent[-1][6]) == (0x72, asked[6])


def test_t1_below_the_level_of_apdus_is_refused() -> None:
    port = Scripted([STATUS_ACTIVE, "80 05000000 00 {} 00 00 00 3b80018100", STATUS_ACTIVE])
    port.class_descriptor = lambda kind: class_descriptor(level="tpdu")  # type: ignore[method-assign]
    server = SmartCard()
    talk(server, port, READ, {"chip": True})
    with pytest.raises(CommandFailed, match="protocolNotSupported"):
        talk(server, port, IO, {"chipData": BINARY})


def test_what_the_reader_can_do() -> None:
    server = SmartCard()
    said = server.capabilities(BOUND)["cardReader"]
    assert (said["type"], set(said["chipProtocols"])) == ("contactless", {"chipTypeAPart4", "chipTypeB"})
    dip = server.capabilities(replace(BOUND, profile=PROFILES["acs-acr39u"]))["cardReader"]
    assert (dip["type"], set(dip["chipProtocols"])) == ("dip", {"chipT0", "chipT1"})


@pytest.mark.spec("C-206")
def test_planted_content_is_with_the_holder_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    others: list[Talker] = []

    async def test(desk: Desk, one: Talker, reader: CcidReader) -> None:
        others.append(desk.connect("card-reader", "other-app"))
        await powered(desk, one)
        for fault in ("", "garbage", "corrupt", "slow-card", "card-mute"):
            if fault:
                desk.bench.terminal.set("card-reader", fault)
            await one.ask(IO, {"chipData": BINARY}, timeout_ms=3_000)
            await one.ask(POWER, {"chipPower": "warm"}, timeout_ms=3_000)
            await one.ask("KioskFleet.Renew")
            if fault:
                desk.bench.terminal.clear("card-reader", fault)
        await asyncio.sleep(60)
        assert base64.b64encode(MARK.encode() * 4 + b"\x90\x00") in one.raw

    bench = on_a_desk(contactless(), test)
    shown = [
        caplog.text,
        *(str(record.__dict__) for record in caplog.records),
        repr(bench.records.bodies),
        repr(bench.memory.values),
    ]
    assert not any("PLANTED" in text for text in shown)
    stored = bytes(bench.records.encoded) + b"".join(bench.memory.values.values()) + bytes(others[0].raw)
    for raw in (MARK.encode(), base64.b64encode(CHIP.atr), CHIP.uid, base64.b64encode(CHIP.uid + b"\x90\x00")):
        assert raw not in stored


def test_what_is_asked_wrongly_says_nothing_about_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(desk: Desk, one: Talker, _reader: CcidReader) -> None:
        counted: list[bool] = []
        monkeypatch.setattr(desk.bench.monitor, "note_use", lambda _slot, *, ok, count=1: counted.append(ok))
        assert code_of(await one.ask(IO, {"chipData": BINARY}, timeout_ms=2_000)) == "noMedia"
        desk.bench.terminal.press("card-reader", "insert-card", MARK)
        await asyncio.sleep(1)
        assert code_of(await one.ask(IO, {"chipData": BINARY}, timeout_ms=2_000)) == "atrNotObtained"
        assert counted == []
        assert code_of(await one.ask(READ, {"chip": True}, timeout_ms=2_000)) == "success"
        assert counted == [True]

    on_a_desk(contact(), test)
