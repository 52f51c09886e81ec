"""A resident's card for the application that holds the claim, over every form of the wire; and for nobody else."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
from collections.abc import Awaitable, Callable

import pytest

from protocols.contract.records import Fault
from simulators.models.sdt import USB_SPLIT, USB_WHOLE, USB_WHOLE_AND_INTERRUPT, SdtReader, SyntheticCard
from simulators.ports.slots import CH340, Slot
from tests.edge_agent.devices.bench import Bench, Memory, in_virtual_time
from tests.edge_agent.owner.talk import Desk, Talker, code_of

READ = "CardReader.ReadRawData"
FORMS: dict[str, Callable[[], Slot]] = {
    "split": lambda: Slot("id-reader", SdtReader(usb=USB_SPLIT), "usb", "1-1.2", "1-1.2"),
    "whole": lambda: Slot("id-reader", SdtReader(usb=USB_WHOLE), "usb", "1-1.2", "1-1.2"),
    "whole-beside-interrupt": lambda: Slot("id-reader", SdtReader(usb=USB_WHOLE_AND_INTERRUPT), "usb", "1-1.2", "1-1.2"),
    "serial": lambda: Slot("id-reader", SdtReader(), "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340),
}
MARK = "PLANTEDMARK"
CARD = SyntheticCard(MARK, item_number=b"\xde\xad\xbe\xef", card_serial=b"PLANTED!", has_fingerprint=True)


def on_a_desk(slot: Slot, test: Callable[[Desk, Talker, SdtReader], Awaitable[None]], memory: Memory | None = None) -> Bench:
    benches: list[Bench] = []

    async def work() -> None:
        bench = Bench(slot, memory=memory)
        benches.append(bench)
        async with bench, Desk(bench) as desk:
            await bench.until(lambda: bench.states() == {"id-reader": "online"})
            one = desk.connect("id-reader")
            await one.claim()
            assert isinstance(slot.model, SdtReader)
            await test(desk, one, slot.model)

    in_virtual_time(work())
    return benches[0]


@pytest.mark.parametrize("form", FORMS)
def test_a_card_is_read_on_every_wire(form: str) -> None:
    async def test(desk: Desk, one: Talker, reader: SdtReader) -> None:
        number = one.post(READ, {"chip": True}, timeout_ms=20_000)
        await asyncio.sleep(3)
        assert not one.completions(number)
        reader.place_card(CARD)
        done = await one.answer(number)
        assert code_of(done) == "success"
        card = done["payload"]["kioskFleet"]["residentCard"]
        assert card["fields"]["name"] == MARK
        assert card["fields"]["validTo"] == "长期"
        assert base64.b64decode(card["photo"]) == CARD.photo()
        assert "fingerprint" not in card
        assert done["payload"]["chip"] == [{"status": "ok", "data": None}]
        assert [len(one.events(f"CardReader.{name}Event")) for name in ("InsertCard", "MediaInserted", "InvalidMedia")] == [
            1,
            1,
            0,
        ]
        assert reader.reads == 1
        await asyncio.sleep(60)
        assert desk.bench.states() == {"id-reader": "online"}

    on_a_desk(FORMS[form](), test)


@pytest.mark.parametrize(("form", "names"), [("permit", "passNumber"), ("foreigner", "englishName")])
def test_cards_of_other_kinds(form: str, names: str) -> None:
    async def test(desk: Desk, one: Talker, reader: SdtReader) -> None:
        desk.bench.terminal.press("id-reader", "place-card", MARK, form)
        done = await one.ask(READ, {"chip": True}, timeout_ms=20_000)
        card = done["payload"]["kioskFleet"]["residentCard"]
        assert (card["form"], card["fields"]["name"]) == (form, MARK)
        assert names in card["fields"]

    on_a_desk(FORMS["whole"](), test)


def test_the_fingerprint_only_if_it_is_asked_for() -> None:
    async def test(desk: Desk, one: Talker, reader: SdtReader) -> None:
        reader.place_card(CARD)
        done = await one.ask(READ, {"chip": True, "fingerprint": True}, timeout_ms=20_000)
        assert base64.b64decode(done["payload"]["kioskFleet"]["residentCard"]["fingerprint"]) == CARD.fingerprint()

    on_a_desk(FORMS["split"](), test)


@pytest.mark.parametrize(
    ("fault", "card", "ends"),
    [
        ("", False, "timeOut"),
        ("antenna", True, "timeOut"),
        ("select-failed", True, "invalidMedia"),
        ("read-failed", True, "invalidMedia"),
        ("old-sam", True, "invalidMedia"),
        ("sam-failure", True, "hardwareError"),
        ("sam-unlicensed", True, "hardwareError"),
        ("sam-dead", True, "hardwareError"),
        ("silence", True, "hardwareError"),
        ("unplug", True, "deviceNotReady"),
    ],
)
def test_how_a_command_ends(fault: str, card: bool, ends: str) -> None:
    async def test(desk: Desk, one: Talker, reader: SdtReader) -> None:
        if card:
            reader.place_card(CARD)
        if fault:
            desk.bench.terminal.set("id-reader", fault)
        loop = asyncio.get_running_loop()
        started = loop.time()
        done = await one.ask(READ, {"chip": True}, timeout_ms=12_000)
        assert code_of(done) == ends
        assert loop.time() - started < 20
        assert b"PLANTED" not in one.raw

    on_a_desk(FORMS["serial"](), test)


def test_only_a_chip_can_be_read_and_only_by_the_holder() -> None:
    async def test(desk: Desk, one: Talker, reader: SdtReader) -> None:
        assert code_of(await one.ask(READ, {"track2": True})) == "unsupportedData"
        assert code_of(await one.ask(READ, {"chip": "yes"})) == "invalidData"
        reader.place_card(CARD)
        other = desk.connect("id-reader", "other-app")
        assert code_of(await other.ask(READ, {"chip": True})) == "sequenceError"
        assert reader.reads == 0

    on_a_desk(FORMS["whole"](), test)


def test_a_cancelled_read_leaves_the_reader_to_its_driver() -> None:
    async def test(desk: Desk, one: Talker, reader: SdtReader) -> None:
        number = one.post(READ, {"chip": True}, timeout_ms=60_000)
        await asyncio.sleep(1)
        assert code_of(await one.ask("Common.Cancel", {"requestIds": [number]})) == "success"
        assert code_of(await one.answer(number)) == "canceled"
        reader.place_card(CARD)
        await asyncio.sleep(120)
        assert reader.reads == 0
        assert desk.bench.states() == {"id-reader": "online"}

    on_a_desk(FORMS["split"](), test)


def test_failed_reads_become_a_rate_and_the_rate_outlives_a_restart() -> None:
    memory = Memory()

    async def people(desk: Desk, one: Talker, reader: SdtReader) -> None:
        for number in range(12):
            # The window over uses knows failures only; that over visits tells cards that are not read from cards that are not accepted.
            desk.bench.terminal.set("id-reader", "read-failed" if number % 2 else "old-sam")
            reader.place_card(CARD)
            asked = one.post(READ, {"chip": True}, timeout_ms=3_000)
            await asyncio.sleep(2)
            reader.remove_card()
            assert code_of(await one.answer(asked)) == "invalidMedia"
            desk.bench.terminal.clear("id-reader", "read-failed" if number % 2 else "old-sam")
            await one.ask("KioskFleet.Renew")
            await asyncio.sleep(15)
        opened = await desk.bench.until_open("IDR.READ_FAIL_RATE", within_s=60)
        assert opened.evidence is None
        await desk.bench.until_open("IDR.AUTH_FAIL_RATE", within_s=60)
        await asyncio.sleep(40)

    on_a_desk(FORMS["serial"](), people, memory)

    async def after(desk: Desk, one: Talker, reader: SdtReader) -> None:
        await asyncio.sleep(1200)
        assert desk.bench.records.of(Fault) == []  # still open, so neither opened anew nor taken back

    on_a_desk(FORMS["serial"](), after, memory)


def test_a_broken_antenna_shows_after_a_working_day_of_people() -> None:
    """The reader itself says that all is well."""

    async def people(desk: Desk, one: Talker, reader: SdtReader) -> None:
        desk.bench.terminal.set("id-reader", "antenna")
        people_came = 0
        while not desk.bench.records.of(Fault):
            await one.claim()
            assert code_of(await one.ask(READ, {"chip": True}, timeout_ms=10_000)) == "timeOut"
            await asyncio.sleep(890)
            people_came += 1
        assert 7 * 4 <= people_came <= 10 * 4
        assert desk.bench.records.open_codes() == {"IDR.READ_FAIL_RATE"}
        desk.bench.terminal.clear("id-reader", "antenna")
        reader.place_card(CARD)
        await one.claim()
        assert code_of(await one.ask(READ, {"chip": True}, timeout_ms=10_000)) == "success"
        await desk.bench.until(lambda: not desk.bench.records.open_codes(), within_s=1200)

    on_a_desk(FORMS["split"](), people)


def test_documents_that_the_module_does_not_know_become_a_rate_of_their_own() -> None:
    async def people(desk: Desk, one: Talker, reader: SdtReader) -> None:
        for number in range(15):
            desk.bench.terminal.set("id-reader", "old-sam") if number % 3 == 0 else desk.bench.terminal.clear(
                "id-reader", "old-sam"
            )
            reader.place_card(CARD)
            await one.ask(READ, {"chip": True}, timeout_ms=3_000)
            reader.remove_card()
            await one.ask("KioskFleet.Renew")
            await asyncio.sleep(15)
        await desk.bench.until_open("IDR.AUTH_FAIL_RATE", within_s=60)

    on_a_desk(FORMS["split"](), people)


@pytest.mark.spec("C-206")
def test_planted_content_is_with_the_holder_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    memory = Memory()
    others: list[Talker] = []

    async def test(desk: Desk, one: Talker, reader: SdtReader) -> None:
        others.append(desk.connect("id-reader", "other-app"))
        for fault in ("", "garbage", "corrupt", "read-failed"):
            reader.place_card(CARD)
            if fault:
                desk.bench.terminal.set("id-reader", fault)
            await one.ask(READ, {"chip": True, "fingerprint": True}, timeout_ms=6_000)
            if fault:
                desk.bench.terminal.clear("id-reader", fault)
            await one.ask("KioskFleet.Renew")
            reader.remove_card()
            await asyncio.sleep(20)
        assert MARK in one.raw.decode()
        assert not _held(MARK, besides=(one, reader))

    bench = on_a_desk(FORMS["serial"](), test, memory)
    shown = [caplog.text, *(str(record.__dict__) for record in caplog.records), repr(bench.records.bodies), repr(memory.values)]
    stored = bytes(bench.records.encoded) + b"".join(memory.values.values()) + bytes(others[0].raw)
    for planted in (MARK, "PLANTED", "\xde\xad\xbe\xef", "deadbeef"):
        assert not any(planted in text for text in shown)
    for raw in (MARK.encode(), MARK.encode("utf-16-le"), b"PLANTED!", b"\xde\xad\xbe\xef", base64.b64encode(CARD.photo())[:40]):
        assert raw not in stored


def _held(mark: str, *, besides: tuple[Talker, SdtReader]) -> list[str]:
    """Objects of the agent that still hold the card's text after it was handed over."""
    gc.collect()
    found = []
    for one in gc.get_objects():
        if not str(type(one).__module__).startswith(("edge_agent", "protocols")):  # some classes have a descriptor there
            continue
        names = [*getattr(type(one), "__slots__", ()), *getattr(one, "__dict__", ())]
        for name in names:
            value = getattr(one, name, None)
            raw = (
                bytes(value)
                if isinstance(value, bytes | bytearray)
                else str(value).encode()
                if isinstance(value, str | dict)
                else b""
            )
            if mark.encode() in raw or mark.encode("utf-16-le") in raw:
                found.append(f"{type(one).__name__}.{name}")
    return found
