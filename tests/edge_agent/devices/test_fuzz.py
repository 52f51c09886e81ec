"""Whatever bytes or key events a device sends, a driver returns observations within its budget and raises nothing."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.clock import read
from edge_agent.devices.base import Observation, SlotBinding
from edge_agent.devices.factory import make_driver
from edge_agent.devices.guard import guarded
from edge_agent.devices.window import RateWindow
from edge_agent.transports.base import CardReaders
from protocols.codecs.keys import InputEvent
from protocols.contract.records import Device, encode_record
from tests.edge_agent.devices.bench import PROFILES, LoopClock, in_virtual_time

SERIAL = [
    "honeywell-serial", "evaluator-serial-byte", "evaluator-serial-frame", "window-screen-ft12",
    "receipt-printer-serial", "sdt-serial", "newland-uart", "newland-em-uart", "call-pad-ft12", "xy-md02", "di-module-8",
    "megatec-serial", "nmea-serial", "crt-591", "crt-310-old", "qu-cd-720m", "k720-simple", "crt-541",
]  # fmt: skip
USB = [
    "cypress-usb-serial", "snbc-btp", "star-tsp650-line", "custom-vkp80iii", "sdt-usb", "lenovo-lj2650dn", "pantum-p2000",
    "feitian-r502", "acs-acr39u",
]  # fmt: skip
KEYS = ["numeric-keypad", "evaluator-keys", "newland-fm430-keyboard", "help-button", "emergency-button"]

FRAGMENTS = [
    bytes.fromhex("aaaaaa96690004000090 94".replace(" ", "")), bytes.fromhex("aaaaaa9669050800009001000400"), b"\x12", b"\x1c\x00\x0f\x0f",
    b"\x5fFV1\x00", bytes.fromhex("230608000008000000"), bytes.fromhex("100f21000000"),
    b"@PJL INFO STATUS\r\nCODE=40021\r\nONLINE=FALSE\r\n\x0c", b"@PJL ECHO kf-1\r\n\x0c", b"\x020000QRYSYS\x06\x3b\x03",
    bytes.fromhex("ff68030368010c0e1b16"), bytes.fromhex("0104040131 02222ace".replace(" ", "")), bytes.fromhex("018402c2c1"), b"HELLO\r",
    bytes.fromhex("81000000000001020000"), bytes.fromhex("80060000000003000000504c4e449000"), bytes.fromhex("5003"), bytes.fromhex("51000001"),
    b"Product Name: x\r\nREVINF\x06.", b"REVINF\x15.", b"\xaa\x01\x55", b"\x01", bytes.fromhex("ff6803036801110518 16".replace(" ", "")),
    b"\x06", b"\x15", b"\x04", b"\x05", bytes.fromhex("f20000065031303032300394"), bytes.fromhex("f20000054e3130423003c9"),
    bytes.fromhex("f200000343313003b0"), bytes.fromhex("02000531304e494a0348"), bytes.fromhex("0200034e3102037f"),
    bytes.fromhex("0253463032300326"), b"\x0600", bytes.fromhex("02303030300301"),
    b"(226.0 195.0 226.0 014 50.0 27.5 30.0 11001000\r", b"#220.0 000 024.0 50.0\r", b"Q1\r", b"(NAK\r",
    b"$GNRMC,023456.00,A,3112.3456,N,12128.7654,E,12.34,056.7,210126,,,A*4D\r\n", b"$GPRMC,,V,,,,,,,,,,N*53\r\n",
    b"$GNGGA,023456.00,3112.3456,N,12128.7654,E,1,12,0.80,15.2,M,8.0,M,,*4C\r\n", b"\xb5\x62\x01\x07\xff\xff",
]  # fmt: skip
IPP_HEAD = bytes.fromhex("010100000000000104")
chunks = st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(FRAGMENTS)), max_size=30)


class Babbling:
    """Sends the chunks one after the other, whatever it is asked."""

    endpoints_out: tuple[int, ...] = (0x02, 0x06)
    endpoints_in: tuple[int, ...] = (0x81, 0x85)

    def __init__(self, said: list[bytes]) -> None:
        self._said = said

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        return

    async def write_to(self, endpoint: int, data: bytes, *, timeout_s: float) -> None:
        return

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        if self._said:
            head = self._said[0]
            self._said[0] = head[max_bytes:]
            if not self._said[0]:
                self._said.pop(0)
            return head[:max_bytes]
        await asyncio.sleep(timeout_s)
        return b""

    async def read_from(self, endpoint: int, *, max_bytes: int, timeout_s: float) -> bytes:
        return await self.read(max_bytes=max_bytes, timeout_s=timeout_s)

    async def close(self) -> None:
        return


class BabblingLine(Babbling):
    endpoints_out = ()
    endpoints_in = ()

    async def set_baud(self, baud: int) -> None:
        return


class BabblingUsb(Babbling):
    async def control_in(self, *numbers: int, timeout_s: float) -> bytes:
        return await self.read(max_bytes=64, timeout_s=timeout_s)


class BabblingInterface(BabblingUsb):
    bulk_out: tuple[int, ...] = (0x02,)
    bulk_in: tuple[int, ...] = (0x81,)
    interrupt_in: tuple[int, ...] = (0x85,)

    def class_descriptor(self, kind: int) -> bytes:
        return self._said[0][:255] if self._said else b""

    async def control_out(self, *numbers: object, timeout_s: float) -> None:
        return

    async def clear_halt(self, endpoint: int) -> None:
        return

    async def reset(self) -> None:
        return


class BabblingService:
    """A PC/SC service that says anything."""

    def __init__(self, said: list[CardReaders]) -> None:
        self._said = said

    async def look(self, *, timeout_s: float) -> CardReaders:
        return self._said.pop(0) if self._said else CardReaders(0)

    async def changed(self, *, timeout_s: float) -> bool:
        await asyncio.sleep(0 if self._said else timeout_s)
        return bool(self._said)

    async def close(self) -> None:
        return


class BabblingPrinter:
    """Answers every message with the next chunk."""

    address = "ipp://127.0.0.1:60000/ipp/print"

    def __init__(self, said: list[bytes]) -> None:
        self._said = said

    async def ask(self, message: bytes, *, max_bytes: int, timeout_s: float) -> bytes:
        return self._said.pop(0)[:max_bytes] if self._said else b""

    async def close(self) -> None:
        return


class BabblingKeys:
    def __init__(self, said: list[list[InputEvent]]) -> None:
        self._said = said

    async def read_events(self, *, timeout_s: float) -> list[InputEvent]:
        if self._said:
            return self._said.pop(0)
        await asyncio.sleep(timeout_s)
        return []

    async def pressed_keys(self) -> frozenset[int]:
        return frozenset(event.code for events in self._said[:1] for event in events)

    async def close(self) -> None:
        return


async def drive(profile: str, port: object) -> list[Observation]:
    bound = SlotBinding(slot="victim", profile=PROFILES[profile], address=1)
    clock = LoopClock()
    driver = make_driver(guarded(port), [bound], clock, stays=True)  # type: ignore[arg-type]
    seen: list[Observation] = []
    for _ in range(3):
        async with asyncio.timeout(driver.poll_budget_s + 1):
            seen += await driver.poll(read(clock))
        seen += await driver.listen(2.0)
    await driver.stop()
    return seen


def check(observations: list[Observation]) -> None:
    """Everything that is observed fits into a record."""
    for one in observations:
        assert one.slot == "victim"
        body = Device(
            slot="victim", family="scanner", device=one.device, firmware=one.firmware, asset=one.asset, evidence=one.evidence
        )
        encode_record(body, wall_ms=0, quality=LoopClock.quality(None), boot_ms=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("profile", SERIAL)
@settings(max_examples=40, deadline=None)
@given(said=chunks)
def test_a_serial_device_may_say_anything(profile: str, said: list[bytes]) -> None:
    check(in_virtual_time(drive(profile, BabblingLine([chunk for chunk in said if chunk]))))


@pytest.mark.parametrize("profile", USB)
@settings(max_examples=40, deadline=None)
@given(said=chunks)
def test_a_usb_device_may_say_anything(profile: str, said: list[bytes]) -> None:
    check(in_virtual_time(drive(profile, BabblingUsb([chunk for chunk in said if chunk]))))


@pytest.mark.parametrize("profile", ["feitian-r502", "sdt-usb"])
@settings(max_examples=40, deadline=None)
@given(said=chunks)
def test_a_usb_device_with_every_kind_of_pipe_may_say_anything(profile: str, said: list[bytes]) -> None:
    check(in_virtual_time(drive(profile, BabblingInterface([chunk for chunk in said if chunk]))))


words = st.integers(-(2**31), 2**32 - 1)
services = st.builds(
    CardReaders, st.one_of(st.just(0), words), st.lists(st.tuples(st.text(max_size=8), words), max_size=4).map(tuple)
)


@settings(max_examples=40, deadline=None)
@given(said=st.lists(services, max_size=12))
def test_a_card_service_may_say_anything(said: list[CardReaders]) -> None:
    check(in_virtual_time(drive("pcsc-reader", BabblingService(said))))


@settings(max_examples=40, deadline=None)
@given(said=st.lists(st.one_of(st.binary(max_size=400), st.binary(max_size=400).map(lambda raw: IPP_HEAD + raw)), max_size=6))
def test_a_printers_service_may_say_anything(said: list[bytes]) -> None:
    check(in_virtual_time(drive("ipp-a4", BabblingPrinter(said))))


events = st.builds(
    InputEvent,
    st.integers(0, 2**31),
    st.integers(0, 999_999),
    st.sampled_from((0, 1, 4, 17)),
    st.integers(0, 767),
    st.integers(-1, 3),
)


@pytest.mark.parametrize("profile", KEYS)
@settings(max_examples=40, deadline=None)
@given(said=st.lists(st.lists(events, min_size=1, max_size=20), max_size=20))
def test_a_key_device_may_say_anything(profile: str, said: list[list[InputEvent]]) -> None:
    check(in_virtual_time(drive(profile, BabblingKeys(said))))


@given(st.lists(st.booleans(), max_size=200))
def test_a_rate_is_high_only_with_enough_bad_ones(outcomes: list[bool]) -> None:
    window = RateWindow(size=20, least=5, high=0.2)
    for index, bad in enumerate(outcomes):
        window.add(bad)
        recent = outcomes[max(0, index - 19) : index + 1]
        if window.is_high:
            assert sum(recent) / len(recent) >= 0.1
        elif window.is_clean:
            assert sum(recent) <= 1
