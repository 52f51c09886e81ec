"""Printers through the owner API, in virtual time: "success" means printed, a job is sent once, and what was printed is with nobody."""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import Any

import pytest

from protocols.contract.records import Fault
from simulators.models.base import Model
from simulators.models.escpos import USB_SNBC, USB_TM_T88V, EscposPrinter
from simulators.models.laser import USB_LJ2650, USB_PANTUM, LaserPrinter
from simulators.models.presenter import USB_VKP80, PresenterPrinter
from simulators.models.star import USB_TSP650, StarPrinter
from simulators.ports.slots import CH340, Slot
from tests.edge_agent.owner.talk import Desk, Talker, code_of
from tests.edge_agent.owner.test_services import on_a_desk

PRINT, CONTROL, RETRACT, RESET = (f"Printer.{name}" for name in ("PrintRaw", "ControlMedia", "RetractMedia", "Reset"))
SLIP = b"\x1b@" + b"PLANTED-SLIP line\n" * 40 + b"\x1dV\x42\x00"
STAR_SLIP = b"\x1b@" + b"PLANTED-SLIP line\n" * 40 + b"\x1b\x64\x03"
PAGES = b"PLANTED-PAGE one\x0cPLANTED-PAGE two\x0c"


def usb(model: Model) -> Slot:
    return Slot("prn", model, "usb", "1-1.2", "1-1.2")


def epson() -> EscposPrinter:
    return EscposPrinter(usb=USB_TM_T88V)


def snbc() -> EscposPrinter:
    return EscposPrinter(usb=USB_SNBC, maker="SNBC", model_name="BTP-R880", has_process_id=False)


def payload(data: bytes, **more: Any) -> dict[str, Any]:
    return {"data": base64.b64encode(data).decode()} | more


async def holder(desk: Desk) -> Talker:
    one = desk.connect("prn")
    await one.claim(leaseS=120)
    return one


RECEIPTS = {
    "process-id": (epson, SLIP),
    "gs-r": (snbc, SLIP),
    "presenter": (lambda: PresenterPrinter(usb=USB_VKP80), SLIP),
    "star": (lambda: StarPrinter(usb=USB_TSP650), STAR_SLIP),
}


@pytest.mark.parametrize("form", RECEIPTS)
def test_success_means_printed(form: str) -> None:
    make, slip = RECEIPTS[form]
    model = make()

    async def test(desk: Desk) -> None:
        one = await holder(desk)
        for count in (1, 2, 3):
            done = await one.ask(PRINT, payload(slip))
            assert code_of(done) == "success", done
            assert (model.cuts, model.lines_printed, model.buffered_bytes) == (count, 40 * count, 0)
            assert model.dropped_bytes == 0

    on_a_desk(usb(model), test=test)


def test_on_a_serial_line_too() -> None:
    model = EscposPrinter()
    slot = Slot("receipt-printer", model, "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340)

    async def test(desk: Desk) -> None:
        one = desk.connect("receipt-printer")
        await one.claim()
        assert code_of(await one.ask(PRINT, payload(SLIP))) == "success"
        assert (model.cuts, model.lines_printed) == (1, 40)

    on_a_desk(slot, test=test)


def test_a_slip_longer_than_the_printers_buffer() -> None:
    model = epson()

    async def test(desk: Desk) -> None:
        one = await holder(desk)
        raster = b"\x1dv0\x00\x48\x00\xe8\x03" + bytes(72 * 1000)
        assert code_of(await one.ask(PRINT, payload(raster + SLIP))) == "success"
        assert (model.cuts, model.dropped_bytes) == (1, 0)

    on_a_desk(usb(model), test=test)


@pytest.mark.parametrize("form", RECEIPTS)
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("paper-out", "paperOut"),
        ("jam", "paperJammed"),
        ("cover-open", "userError"),
        ("cutter", "hardwareError"),
        ("silence", "deviceNotReady"),
    ],
)
def test_a_printer_that_cannot_print_is_sent_nothing(form: str, fault: str, code: str) -> None:
    make, slip = RECEIPTS[form]
    model = make()

    async def test(desk: Desk) -> None:
        one = await holder(desk)
        desk.bench.terminal.do(["fault", "prn", fault])
        assert code_of(await one.ask(PRINT, payload(slip))) == code
        desk.bench.terminal.do(["clear", "prn", fault])
        await desk.bench.until(lambda: not desk.bench.records.open_codes(), within_s=600)
        assert model.lines_printed == 0
        assert code_of(await one.ask(PRINT, payload(slip))) == "success"
        assert model.lines_printed == 40

    on_a_desk(usb(model), test=test)


@pytest.mark.parametrize("form", RECEIPTS)
def test_paper_that_ends_in_the_middle_leaves_nothing_for_the_next_person(form: str) -> None:
    make, slip = RECEIPTS[form]
    model = make()

    async def test(desk: Desk) -> None:
        one = await holder(desk)
        model.roll_mm = 60.0
        done = await one.ask(PRINT, payload(slip))
        assert code_of(done) == "paperOut", done
        printed = model.lines_printed
        assert 0 < printed < 40
        desk.bench.terminal.do(["press", "prn", "refill"])
        await desk.bench.until(lambda: "PRN.PAPER_OUT" not in desk.bench.records.open_codes(), within_s=600)
        await asyncio.sleep(600)
        assert model.lines_printed == printed, "the rest came out in front of somebody else"
        assert model.cuts == 0
        await one.claim()
        assert code_of(await one.ask(PRINT, payload(slip))) == "success"

    on_a_desk(usb(model), test=test)


@pytest.mark.spec("D-404, D-206")
@pytest.mark.parametrize("form", RECEIPTS)
@pytest.mark.parametrize("how", ["cut off", "cancelled"])
def test_a_job_whose_application_goes_away_is_not_finished_in_front_of_the_next_person(form: str, how: str) -> None:
    make, slip = RECEIPTS[form]
    model = make()

    async def test(desk: Desk) -> None:
        one = await holder(desk)
        number = one.post(PRINT, payload(slip))
        await desk.bench.until(lambda: model.lines_printed > 2)
        if how == "cancelled":
            await one.ask("Common.Cancel", {"requestIds": [number]})
            assert code_of(await one.answer(number)) == "canceled"
        await one.line.close()
        printed = model.lines_printed
        assert printed < 40
        await asyncio.sleep(600)
        assert model.lines_printed <= printed + 1, "the rest came out in front of somebody else"
        assert model.cuts == 0
        two = await holder(desk)
        assert code_of(await two.ask(PRINT, payload(slip))) == "success"
        assert model.cuts == 1

    on_a_desk(usb(model), test=test)


def test_questions_inside_a_job_are_not_taken_for_its_fence() -> None:
    model = snbc()

    async def test(desk: Desk) -> None:
        one = await holder(desk)
        done = await one.ask(PRINT, payload(b"\x1dr\x01\x1bv" + SLIP + b"\x1dI\x01" + SLIP))
        assert code_of(done) == "success", done
        assert (model.cuts, model.lines_printed, model.buffered_bytes) == (2, 80, 0)
        assert code_of(await one.ask(PRINT, payload(b"\x1dr\x01" * 20 + SLIP))) == "unsupportedData"
        assert model.cuts == 2

    on_a_desk(usb(model), test=test)


SET_UP = {
    "process-id": (epson, b"\x1da\x00"),
    "star": (lambda: StarPrinter(usb=USB_TSP650), b"\x1b\x1ea\x00"),
    "laser": (lambda: LaserPrinter(usb=USB_LJ2650), b"\x1b%-12345X@PJL DEFAULT COPIES=9\r\n"),
}


@pytest.mark.spec("D-510")
@pytest.mark.parametrize("form", SET_UP)
def test_a_job_that_would_outlast_itself_is_not_sent(form: str) -> None:
    """Each family by its own words; what they are, the walk's own tests say."""
    make, command = SET_UP[form]
    model = make()
    sent = bytearray()
    feed = model.feed

    def noting(data: bytes, now: float, **more: Any) -> None:
        sent.extend(data)
        feed(data, now, **more)

    async def test(desk: Desk) -> None:
        one = await holder(desk)
        model.feed = noting  # type: ignore[method-assign]
        done = await one.ask(PRINT, payload(b"PLANTED-SLIP" + command + b"PLANTED-SLIP"))
        assert code_of(done) == "unsupportedData"
        assert b"PLANTED-SLIP" not in sent
        assert code_of(await one.ask(PRINT, payload(PAGES if form == "laser" else b"PLANTED-SLIP\n"))) == "success"
        assert b"PLANTED" in sent

    on_a_desk(usb(model), test=test)


def test_silence_after_the_job_is_told_as_unknown_and_nothing_is_sent_again() -> None:
    model = snbc()
    sent: list[int] = []
    feed = model.feed

    def counting(data: bytes, now: float, **more: Any) -> None:
        sent.append(data.count(b"PLANTED-SLIP"))
        feed(data, now, **more)
        if b"PLANTED-SLIP" in data:
            model.set("silence", now)

    async def test(desk: Desk) -> None:
        one = await holder(desk)
        model.feed = counting  # type: ignore[method-assign]
        assert code_of(await one.ask(PRINT, payload(SLIP), timeout_ms=20_000)) == "timeOut"
        model.clear("silence", asyncio.get_running_loop().time())
        await asyncio.sleep(120)
        assert sum(sent) == 40

    on_a_desk(usb(model), test=test)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"data": "no base64!"}, "invalidData"),
        ({"data": ""}, "invalidData"),
        ({}, "invalidData"),
        (payload(b"x", inputData="yes"), "unsupportedData"),
        (payload(bytes(1024 * 1024 + 1)), "invalidData"),
    ],
    ids=["no-base64", "empty", "nothing", "wants-an-answer", "too-large"],
)
def test_what_is_no_job(sent: dict[str, Any], code: str) -> None:
    model = epson()

    async def test(desk: Desk) -> None:
        one = await holder(desk)
        assert code_of(await one.ask(PRINT, sent)) == code
        assert model.buffered_bytes == 0

    on_a_desk(usb(model), test=test)


def test_a_presenter_moves_its_slip() -> None:
    model = PresenterPrinter(usb=USB_VKP80)

    async def test(desk: Desk) -> None:
        one = await holder(desk)
        assert code_of(await one.ask(CONTROL, {"mediaControl": {"move": "retract"}}, version="3.0")) == "noMediaPresent"
        assert (await one.ask(RETRACT, {}, version="3.0"))["payload"]["result"] == "nomedia"
        desk.bench.terminal.do(["fault", "prn", "not-taken"])
        assert code_of(await one.ask(CONTROL, {"mediaControl": {"move": "eject"}}, version="3.0")) == "success"
        assert (model.thrown_out, model.slip_out) == (1, False)
        assert code_of(await one.ask(PRINT, payload(SLIP))) == "success"
        assert one.events("Printer.MediaPresentedEvent") == [{"wadIndex": 1, "totalWads": 1}]
        await desk.bench.until(lambda: "PRN.OUTPUT_NOT_TAKEN" in desk.bench.records.open_codes(), within_s=200)
        assert (await one.ask(RETRACT, {}, version="3.0"))["payload"]["result"] == "unitRetract1"
        assert (model.retracted, model.slip_out) == (1, False)
        assert code_of(await one.ask(CONTROL, {"mediaControl": {"partialCut": True}}, version="3.0")) == "success"
        assert model.cuts == 2
        desk.bench.terminal.do(["fault", "prn", "presenter-jam"])
        assert code_of(await one.ask(CONTROL, {"mediaControl": {"move": "eject"}}, version="3.0")) == "mediaJammed"

    on_a_desk(usb(model), test=test)


def test_a_printer_without_presenter_moves_nothing() -> None:
    async def test(desk: Desk) -> None:
        one = await holder(desk)
        for wanted in ({"move": "eject"}, {"move": "retract"}, {"stamp": True}, {}):
            assert code_of(await one.ask(CONTROL, {"mediaControl": wanted}, version="3.0")) == "unsupportedData"
        assert code_of(await one.ask(RETRACT, {}, version="3.0")) == "unsupportedCommand"
        assert code_of(await one.ask(CONTROL, {"mediaControl": {"cut": True}}, version="3.0")) == "success"
        assert code_of(await one.ask(RESET, {}, version="3.0")) == "success"

    on_a_desk(usb(epson()), test=test)


def test_an_a4_job_is_done_when_its_last_page_is_out() -> None:
    model = LaserPrinter(usb=USB_LJ2650)

    async def test(desk: Desk) -> None:
        one = await holder(desk)
        before = model.page_count
        done = await one.ask(PRINT, payload(PAGES), timeout_ms=60_000)
        assert code_of(done) == "success", done
        assert (model.page_count, model.pages_waiting) == (before + 2, 0)
        desk.bench.terminal.do(["fault", "prn", "paper-out"])
        assert code_of(await one.ask(PRINT, payload(PAGES), timeout_ms=60_000)) == "paperOut"
        assert model.pages_waiting == 0

    on_a_desk(usb(model), test=test)


def test_an_a4_job_whose_paper_ends_leaves_nothing_for_the_next_person() -> None:
    model = LaserPrinter(usb=USB_LJ2650)

    async def test(desk: Desk) -> None:
        one = await holder(desk)
        model.sheets = 1
        assert code_of(await one.ask(PRINT, payload(PAGES), timeout_ms=60_000)) == "paperOut"
        printed = model.page_count
        desk.bench.terminal.do(["press", "prn", "refill"])
        await asyncio.sleep(60)
        assert model.page_count == printed, "the rest came out in front of somebody else"

    on_a_desk(usb(model), test=test)


def test_a_printer_without_a_back_channel_takes_the_job() -> None:
    model = LaserPrinter(usb=USB_PANTUM, maker="Pantum", model_name="P2000 series", pjl=False)

    async def test(desk: Desk) -> None:
        one = await holder(desk)
        before = model.page_count
        assert code_of(await one.ask(PRINT, payload(PAGES))) == "success"
        await desk.bench.until(lambda: model.page_count == before + 2)

    on_a_desk(usb(model), test=test)


def test_what_is_printed_is_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    """Planted words in every kind of job, also in those that fail: in no record, memory, log or answer."""
    caplog.set_level(logging.DEBUG)

    def story(model: Model, slip: bytes) -> None:
        async def test(desk: Desk) -> None:
            one = await holder(desk)
            await one.ask(PRINT, payload(slip), timeout_ms=60_000)
            desk.bench.terminal.do(["fault", "prn", "paper-out"])
            await one.ask(PRINT, payload(slip), timeout_ms=20_000)
            desk.bench.terminal.do(["clear", "prn", "paper-out"])
            desk.bench.terminal.do(["fault", "prn", "garbage"])
            await one.ask(PRINT, payload(slip), timeout_ms=20_000)
            await asyncio.sleep(60)
            kept = bytes(desk.bench.records.encoded) + b"".join(desk.bench.memory.values.values()) + bytes(one.raw)
            shown = repr(desk.bench.monitor.status()) + repr(vars(desk.service)) + repr(desk.bench.records.of(Fault))
            for planted in (b"PLANTED", base64.b64encode(b"PLANTED-SLIP line")[:20], base64.b64encode(b"PLANTED-PAGE one")[:18]):
                assert planted not in kept
                assert planted.decode() not in shown

        on_a_desk(usb(model), test=test)

    for make, slip in RECEIPTS.values():
        story(make(), slip)
    story(LaserPrinter(usb=USB_LJ2650), PAGES)
    assert "PLANTED" not in caplog.text
    assert base64.b64encode(b"PLANTED").decode()[:8] not in caplog.text
