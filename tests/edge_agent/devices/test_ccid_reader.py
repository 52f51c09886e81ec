"""CCID readers under the monitor: what is told of cards over time, how a hang is met, who may hold the reader, and hostile units."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from edge_agent.devices.card_watch import FLUTTER_CHANGES, CardWatch
from edge_agent.transports.base import PortBusy, PortRefused, Sighting
from edge_agent.transports.openers import SystemOpener
from edge_agent.transports.usb import UsbSetting, open_usb
from protocols.canon.words import MediaState, Ownership
from protocols.codecs import ccid
from protocols.contract.records import Device, Fault
from protocols.profile.options.ccid import CcidOptions
from simulators.models.base import Endpoint
from simulators.models.ccid import (
    BULK_IN,
    INTERRUPT_IN,
    USB_ACR122U,
    USB_NO_NOTICES,
    USB_R502,
    USB_TWO_SLOTS,
    CcidReader,
    SyntheticChip,
)
from simulators.ports.slots import Slot
from simulators.ports.usb_backend import SimulatedUsbBackend
from tests.edge_agent.devices.bench import PROFILES, Bench, in_virtual_time


def usb(model: CcidReader) -> Slot:
    return Slot("card-reader", model, "usb", "1-1.2", "1-1.2")


def story(model: CcidReader, tell: Callable[[Bench, CcidReader], object], **more: object) -> Bench:
    benches: list[Bench] = []

    async def work() -> None:
        bench = Bench(usb(model), **more)  # type: ignore[arg-type]
        benches.append(bench)
        async with bench:
            await bench.until(lambda: bench.states() == {"card-reader": "online"})
            await tell(bench, model)  # type: ignore[misc]

    in_virtual_time(work())
    return benches[0]


def media(bench: Bench) -> MediaState:
    return bench.device("card-reader").media


@pytest.mark.parametrize(("identity", "within_s"), [(USB_R502, 0.5), (USB_NO_NOTICES, 20.0)], ids=["told", "asked"])
def test_a_card_is_seen_to_come_and_go(identity: object, within_s: float) -> None:
    async def tell(bench: Bench, model: CcidReader) -> None:
        assert media(bench) is MediaState.NOT_PRESENT
        bench.terminal.press("card-reader", "insert-card", "PLANTEDMARK")
        await bench.until(lambda: media(bench) is MediaState.PRESENT, within_s=within_s)
        bench.terminal.press("card-reader", "remove-card")
        await bench.until(lambda: media(bench) is MediaState.NOT_PRESENT, within_s=within_s)
        assert model.powered == [False]
        assert bench.records.of(Fault) == []

    story(CcidReader(usb=identity), tell)  # type: ignore[arg-type]


def test_a_card_that_lies_there_for_hours_is_stuck() -> None:
    async def tell(bench: Bench, model: CcidReader) -> None:
        bench.terminal.set("card-reader", "card-stuck")
        await asyncio.sleep(7100)
        assert bench.records.of(Fault) == []
        opened = await bench.until_open("CRD.CARD_STUCK", within_s=200)
        assert opened.evidence is not None
        assert bench.device("card-reader").action.value == "clear"
        bench.terminal.clear("card-reader", "card-stuck")
        await bench.until(lambda: not bench.records.open_codes(), within_s=60)

    story(CcidReader(), tell)


def test_a_contact_that_flutters_is_no_stream_of_records() -> None:
    async def tell(bench: Bench, model: CcidReader) -> None:
        bench.terminal.set("card-reader", "contact-flutter")
        await asyncio.sleep(3600)
        assert media(bench) is MediaState.UNKNOWN
        assert len(bench.records.of(Device)) <= FLUTTER_CHANGES + 3
        bench.terminal.clear("card-reader", "contact-flutter")
        await bench.until(lambda: media(bench) is MediaState.NOT_PRESENT, within_s=120)
        assert bench.records.of(Fault) == []

    story(CcidReader(), tell)


def test_a_missing_security_module() -> None:
    profile = PROFILES["watchdata-ccid"]
    two = msgspec.structs.replace(profile, ccid=CcidOptions(slots=2))

    async def tell(bench: Bench, model: CcidReader) -> None:
        await asyncio.sleep(60)
        assert bench.records.of(Fault) == []
        bench.terminal.set("card-reader", "module-missing")
        opened = await bench.until_open("CRD.PSAM_MISSING")
        assert opened.evidence is not None
        assert opened.evidence.reply[5] == 1
        bench.terminal.press("card-reader", "insert-card")
        await asyncio.sleep(5)
        assert bench.records.open_codes() == {"CRD.PSAM_MISSING"}
        bench.terminal.clear("card-reader", "module-missing")
        await bench.until(lambda: not bench.records.open_codes(), within_s=60)

    story(CcidReader(usb=USB_TWO_SLOTS, contactless=False), tell, profiles=PROFILES | {profile.id: two})


def test_a_hang_is_ended_by_a_reset_and_a_dead_reader_is_not_reset_again_and_again() -> None:
    class Counting(CcidReader):
        resets = 0

        def usb_reset(self, now: float) -> None:
            self.resets += 1
            super().usb_reset(now)

    async def hang(bench: Bench, model: CcidReader) -> None:
        bench.terminal.set("card-reader", "hang")
        await bench.until(lambda: bench.states() == {"card-reader": "offline"}, within_s=60)
        await bench.until(lambda: bench.states() == {"card-reader": "online"}, within_s=60)
        assert isinstance(model, Counting)
        assert model.resets == 1

    story(Counting(), hang)

    async def dead(bench: Bench, model: CcidReader) -> None:
        bench.terminal.set("card-reader", "dead-firmware")
        await asyncio.sleep(3600)
        assert isinstance(model, Counting)
        assert 5 <= model.resets <= 7  # one in ten minutes

    story(Counting(), dead)


def test_a_stalled_pipe_is_freed_without_anybody_noticing() -> None:
    async def tell(bench: Bench, model: CcidReader) -> None:
        bench.terminal.set("card-reader", "usb-halt")
        await asyncio.sleep(60)
        assert bench.records.of(Fault) == []
        assert bench.states() == {"card-reader": "online"}

    story(CcidReader(), tell)


@pytest.mark.parametrize("ownership", [Ownership.OWNER, Ownership.IDLE_PROBER])
def test_a_reader_that_another_program_holds_is_in_use_and_no_fault(ownership: Ownership) -> None:
    async def work() -> None:
        model = CcidReader()
        async with Bench(usb(model), ownership=ownership) as bench:
            bench.terminal.set("card-reader", "in-use")
            await bench.until(lambda: bench.states() == {"card-reader": "inUse"}, within_s=120)
            await asyncio.sleep(600)
            assert bench.records.of(Fault) == []

    in_virtual_time(work())


async def test_the_kernels_nfc_driver_keeps_its_reader() -> None:
    backend = SimulatedUsbBackend([usb(CcidReader(usb=USB_ACR122U))])
    place = Sighting("usb", "1-1.2", 0x072F, 0x2200, usb_path="1-1.2")
    with pytest.raises(PortBusy):
        await SystemOpener(usb_backend=backend).open(place, PROFILES["acs-acr122u"])


async def test_an_interface_of_another_class_is_not_taken_for_a_reader() -> None:
    backend = SimulatedUsbBackend([usb(CcidReader(usb=replace(USB_R502, interface_class=3)))])
    place = Sighting("usb", "1-1.2", 0x096E, 0x060D, usb_path="1-1.2")
    with pytest.raises(PortRefused):
        await SystemOpener(usb_backend=backend).open(place, PROFILES["feitian-r502"])


async def test_pipes_descriptor_halt_and_reset_over_pyusb() -> None:
    """The interrupt pipe stands first in this unit's descriptors."""
    model = CcidReader(usb=USB_R502)
    backend = SimulatedUsbBackend([usb(model)])
    port = await open_usb(Sighting("usb", "1-1.2", usb_path="1-1.2"), UsbSetting(interface_class=0x0B), backend=backend)
    assert (port.bulk_out, port.bulk_in, port.interrupt_in) == ((0x01,), (BULK_IN,), (INTERRUPT_IN,))
    assert port.endpoints_in[0] == BULK_IN
    said = ccid.parse_class_descriptor(port.class_descriptor(ccid.CLASS_DESCRIPTOR))
    assert said is not None
    assert said.level == "extended"
    assert port.class_descriptor(0x24) == b""
    model.insert(SyntheticChip(), backend._clock())
    assert ccid.decode_notice(await port.read_from(INTERRUPT_IN, max_bytes=8, timeout_s=1)) == ccid.SlotChange((True,), (True,))
    await port.control_out(0x21, 0x01, 0x0100, 0, b"", timeout_s=1)
    model.set("usb-halt", backend._clock())
    await port.clear_halt(BULK_IN)
    assert not model.halted
    model.powered = [True]
    await port.reset()
    assert model.powered == [False]
    await port.write(ccid.encode_slot_status(0, 1), timeout_s=1)
    assert (await port.read(max_bytes=64, timeout_s=1))[:1] == b"\x81"
    await port.close()


@pytest.mark.parametrize(
    "descriptors",
    [(), (b"\x36\x21" + bytes(10),), (b"\x00\x21",), (b"\xff\x21" + bytes(52),), (bytes((0x36, 0x21)) + b"\xff" * 52,)],
    ids=["none", "cut", "zero-length", "too-long", "all-ones"],
)
def test_descriptors_that_lie_change_nothing(descriptors: tuple[bytes, ...]) -> None:
    model = CcidReader(usb=USB_R502)
    assert model.usb is not None
    model.usb = replace(model.usb, class_descriptors=descriptors)

    async def tell(bench: Bench, model: CcidReader) -> None:
        await asyncio.sleep(60)
        assert bench.states() == {"card-reader": "online"}

    story(model, tell)


def test_a_reader_without_pipes_is_refused_and_told() -> None:
    async def work() -> None:
        model = CcidReader(usb=replace(USB_R502, endpoints=(Endpoint(INTERRUPT_IN, 8, transfer=3),)))
        async with Bench(usb(model)) as bench:
            await asyncio.sleep(60)
            assert bench.states()["card-reader"] in ("offline", "unknown")

    in_virtual_time(work())


def test_an_endless_stream_on_both_pipes_ends_in_a_clear_state() -> None:
    async def tell(bench: Bench, model: CcidReader) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(120):
            model.garbage(4096, loop.time(), endpoint=BULK_IN)
            model.garbage(64, loop.time(), endpoint=INTERRUPT_IN)
            await asyncio.sleep(0.5)
        assert bench.states()["card-reader"] in ("online", "offline")
        assert {fault.code for fault in bench.records.of(Fault)} <= {"CRD.OPEN_FAIL"}
        await bench.until(lambda: bench.states() == {"card-reader": "online"} and not bench.records.open_codes(), within_s=600)

    story(CcidReader(), tell)


@pytest.mark.spec("C-206")
def test_the_monitor_never_powers_a_card_and_tells_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    planted = SyntheticChip("PLANTEDCHIP")

    async def tell(bench: Bench, model: CcidReader) -> None:
        loop = asyncio.get_running_loop()
        for fault in ("", "garbage", "corrupt", "slow-card", "hang"):
            model.insert(planted, loop.time())
            if fault:
                bench.terminal.set("card-reader", fault)
            # What somebody else's exchange left on the pipe.
            model._message(0x80, 0, 7, 0, 0, planted.atr + b"PLANTEDCHIP", loop.time(), 0.0)
            await asyncio.sleep(30)
            if fault:
                bench.terminal.clear("card-reader", fault)
            bench.terminal.press("card-reader", "remove-card")
            await asyncio.sleep(30)
        assert (model.powered, model.exchanges) == ([False], 0)

    bench = story(CcidReader(), tell)
    shown = caplog.text + "".join(str(record.__dict__) for record in caplog.records) + repr(bench.records.bodies)
    assert "PLANTED" not in shown
    assert b"PLANTED" not in bytes(bench.records.encoded)
    assert planted.atr[:8] not in bytes(bench.records.encoded)


def test_a_watch_over_one_slot() -> None:
    watch = CardWatch(stuck_after_s=600)
    assert watch.see(None, 0) is MediaState.UNKNOWN
    assert watch.see(True, 1_000) is MediaState.PRESENT
    assert not watch.is_stuck(600_999)
    assert watch.is_stuck(601_000)
    assert watch.see(False, 700_000) is MediaState.NOT_PRESENT
    assert not watch.is_stuck(10_000_000)
    seen = [watch.see(change % 2 == 0, 800_000 + change * 1000) for change in range(FLUTTER_CHANGES + 1)]
    assert seen[-1] is MediaState.UNKNOWN
    assert watch.see(True, 900_000) is MediaState.PRESENT
