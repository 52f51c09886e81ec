"""What leaves a van of where it is: seldom, coarse, never while somebody is served, never in evidence; and what its UPS measures."""

from __future__ import annotations

import asyncio

import pytest

from protocols.contract.limits import POSITION_EVERY_S
from protocols.contract.records import Device, Position, Reading
from simulators.conformance.watch import WALL_OFFSET_MS
from simulators.models.gps import GpsReceiver, Stop
from simulators.models.ups import USB_CYPRESS, Ups
from simulators.ports.slots import CH340, Slot
from tests.edge_agent.devices.bench import Bench, in_virtual_time

HOME = Stop(29.123456, 119.654321, 86_400)
"""Somewhere precise, which must not come out."""


def van(model: GpsReceiver) -> Slot:
    return Slot("gps", model, "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340)


def receiver(*route: Stop) -> GpsReceiver:
    return GpsReceiver(epoch_s=WALL_OFFSET_MS / 1000, route=route or (HOME,))


@pytest.mark.spec("C-210", "C-211")
def test_a_place_is_told_coarsely_every_five_minutes_at_most() -> None:
    async def story() -> None:
        async with Bench(van(receiver())) as bench:
            await bench.until(lambda: bench.states().get("gps") == "online")
            await asyncio.sleep(POSITION_EVERY_S - 20)
            assert bench.records.of(Position) == []  # not soon after a start either
            await asyncio.sleep(3 * POSITION_EVERY_S)
            told = bench.records.of(Position, "gps")
            assert 2 <= len(told) <= 3
            assert {(one.lat_e4, one.lon_e4, one.fix) for one in told} == {(291_230, 1_196_540, "gps")}

    in_virtual_time(story())


@pytest.mark.spec("C-211")
def test_nothing_is_told_while_a_case_is_open() -> None:
    async def story() -> None:
        served = [False]
        async with Bench(van(receiver()), lease_free=lambda: not served[0]) as bench:
            served[0] = True
            await asyncio.sleep(3 * POSITION_EVERY_S)
            assert bench.records.of(Position) == []
            served[0] = False
            await asyncio.sleep(30)
            assert len(bench.records.of(Position)) == 1

    in_virtual_time(story())


@pytest.mark.spec("C-213")
@pytest.mark.parametrize(
    "fault", ["", "no-fix", "last-known", "poor-fix", "rollover", "half-lines", "bad-checksum", "ubx-noise", "garbage"]
)
def test_the_exact_place_is_in_no_record(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """29.123456 N, 119.654321 E is written 2907.4074 and 11939.2593 on the wire."""

    async def story() -> None:
        async with Bench(van(receiver())) as bench:
            await bench.until(lambda: bench.states().get("gps") == "online")
            if fault:
                bench.terminal.do(["fault", "gps", fault])
            await asyncio.sleep(1000 if fault in ("no-fix", "last-known") else 400)
            everything = bytes(bench.records.encoded) + repr(bench.monitor.status()).encode() + caplog.text.encode()
            everything += b"".join(bench.memory.values.values())
            for mark in (b"2907.4", b"11939.2", b"07.4074", b"39.2593", b"29.1234", b"119.654"):
                assert mark not in everything

    in_virtual_time(story())


def test_a_van_in_a_tunnel_is_no_fault_and_tells_no_place() -> None:
    async def story() -> None:
        slot = van(receiver())
        async with Bench(slot) as bench:
            await asyncio.sleep(POSITION_EVERY_S - 60)
            bench.terminal.do(["do", "gps", "tunnel"])
            await asyncio.sleep(80)
            assert bench.records.of(Position) == []
            await asyncio.sleep(600)
            assert bench.records.of(Position)
            assert bench.records.open_codes() == set()

    in_virtual_time(story())


def test_a_receiver_whose_speed_was_changed_is_found_again() -> None:
    async def story() -> None:
        async with Bench(van(receiver())) as bench:
            await bench.until(lambda: bench.states().get("gps") == "online")
            bench.terminal.do(["fault", "gps", "wrong-speed"])
            await bench.until_open("GPS.NO_REPLY")
            await bench.until(lambda: not bench.records.open_codes(), within_s=1200)

    in_virtual_time(story())


@pytest.mark.parametrize("usb", [False, True])
def test_a_ups_is_measured_and_left_alone(usb: bool) -> None:
    async def story() -> None:
        model = Ups(usb=USB_CYPRESS if usb else None, per_cell=True)
        place = ("usb", "1-1.2", "1-1.2", None) if usb else ("serial", "/dev/ttyUSB0", "1-1.1", CH340)
        slot = Slot("ups", model, place[0], place[1], place[2], adapter=place[3])  # type: ignore[arg-type]
        async with Bench(slot) as bench:
            await asyncio.sleep(600)
            summary = {one.quantity: one for one in bench.monitor.close_span(0, 900_000) if isinstance(one, Reading)}
            assert {name: (one.mean_tenths, one.unit) for name, one in summary.items()} == {
                "load": (140, "percent"),
                "batteryVoltage": (275, "volt"),  # told for one cell, 2.29 V of twelve
                "inputVoltage": (2260, "volt"),
                "temperature": (300, "celsius"),
            }
            assert bench.records.of(Device, "ups")[-1].firmware == "V1.20"
            assert model.commands == []
            assert b"SIMULATED" not in bench.records.encoded  # what a unit calls itself is not told

    in_virtual_time(story())


def test_a_ups_that_does_not_know_the_other_questions() -> None:
    """It echoes them, or says N: no fault, and it is not asked for ever."""

    async def story() -> None:
        for refusal in (b"", b"N", b"(NAK"):
            model = Ups(tells_identity=False, refuses_with=refusal)
            slot = Slot("ups", model, "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340)
            async with Bench(slot) as bench:
                await bench.until(lambda bench=bench: bench.states().get("ups") == "online")  # type: ignore[misc]
                asked = model.frames_in
                await asyncio.sleep(50)
                assert model.frames_in - asked <= 12
                assert bench.records.open_codes() == set()

    in_virtual_time(story())


def test_a_battery_empties_over_time_and_the_unit_goes_dark() -> None:
    async def story() -> None:
        slot = Slot("ups", Ups(), "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340)
        async with Bench(slot) as bench:
            await bench.until(lambda: bench.states().get("ups") == "online")
            bench.terminal.do(["fault", "ups", "mains-lost"])
            await bench.until_open("PWR.ON_BATTERY")
            took_s = await bench.until(lambda: "PWR.BATTERY_LOW" in bench.records.open_codes(), within_s=1800)
            assert took_s > 1200
            await bench.until_open("PWR.OFFLINE", within_s=900)
            bench.terminal.do(["clear", "ups", "mains-lost"])
            await bench.until(lambda: not bench.records.open_codes(), within_s=3600)

    in_virtual_time(story())


def test_a_units_own_test_is_no_outage() -> None:
    async def story() -> None:
        slot = Slot("ups", Ups(), "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340)
        async with Bench(slot) as bench:
            await bench.until(lambda: bench.states().get("ups") == "online")
            bench.terminal.do(["do", "ups", "self-test"])
            await asyncio.sleep(120)
            assert bench.records.open_codes() == set()

    in_virtual_time(story())
