"""Modules of several makers on one pair: each by its profile; silence, spoiled answers, refusals and a talking module stay apart."""

from __future__ import annotations

import asyncio

import pytest

from edge_agent.config import DeviceEntry
from protocols.canon.words import Ownership
from protocols.codecs import modbus
from protocols.contract.records import Fault, Reading
from simulators.models.modbus import ClimateModule, DoorModule, HoldingClimateModule, ModbusBus, Module, RelayBoard
from simulators.ports.slots import CH340, Slot
from tests.edge_agent.devices.bench import Bench, in_virtual_time


def module_of(profile: str) -> Module:
    match profile:
        case "ebyte-e831":
            return DoorModule(2, first_input=0x10, inputs=4)
        case "n4d8b08":
            return RelayBoard(2, first_input=0x81)
        case "l-com-srth100":
            return HoldingClimateModule(2)
        case "xy-md02":
            return ClimateModule(2)
    return DoorModule(2)


def bench(profile: str, module: Module | None = None) -> Bench:
    kind = "climate" if profile in ("xy-md02", "l-com-srth100") else "contacts"
    slot = Slot("sensors", ModbusBus(module or module_of(profile)), "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340)
    entry = DeviceEntry(
        slot=kind, family=kind, profile=profile, port="1-1.1", address=2, ownership=Ownership.OWNER, mandatory=False
    )
    return Bench(slot, entries=[entry])


def open_at(watched: Bench) -> set[tuple[str | None, str]]:
    return {(one.slot, one.code) for one in watched.monitor.open_faults()}


INPUTS = {
    "door-open": "ENV.DOOR_OPEN",
    "tamper": "ENV.TAMPER",
    "water": "ENV.WATER",
    "smoke": "ENV.SMOKE",
    "mains-lost": "PWR.MAINS_LOST",
}


@pytest.mark.parametrize(
    ("profile", "faults"),
    [
        ("di-module-8", ["door-open", "tamper", "water", "smoke"]),
        ("ebyte-e831", ["door-open", "tamper", "water"]),
        ("n4d8b08", ["door-open", "tamper", "water", "smoke"]),
        ("waveshare-io-8ch", ["door-open", "tamper", "water", "smoke", "mains-lost"]),
    ],
)
def test_each_input_of_each_module(profile: str, faults: list[str]) -> None:
    async def story() -> None:
        async with bench(profile) as watched:
            await watched.until(lambda: watched.states() == {"contacts": "online"})
            for fault in faults:
                watched.terminal.do(["fault", "sensors", fault])
                opened = await watched.until_open(INPUTS[fault])
                assert opened.evidence is not None
                assert watched.records.open_codes() == {INPUTS[fault]}
                watched.terminal.do(["clear", "sensors", fault])
                await watched.until(lambda: not watched.records.open_codes())

    in_virtual_time(story())


@pytest.mark.parametrize("profile", ["xy-md02", "l-com-srth100"])
def test_climate_of_each_module(profile: str) -> None:
    async def story() -> None:
        async with bench(profile) as watched:
            await watched.until(lambda: watched.states() == {"climate": "online"})
            told = {body.quantity: body.mean_tenths for body in watched.monitor.close_span(0, 1) if isinstance(body, Reading)}
            assert told["temperature"] in (256, 257)
            assert told["humidity"] in (512, 513)
            watched.terminal.do(["fault", "sensors", "too-cold"])
            await watched.until_open("ENV.TEMP", within_s=300)

    in_virtual_time(story())


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        ("bus-cut", "ENV.NO_REPLY", lambda reply: reply == b""),
        (
            "corrupt",
            "ENV.BUS_CRC",
            lambda reply: reply[:2] == b"\x02\x02" and modbus.crc16(reply[:-2]).to_bytes(2, "little") != reply[-2:],
        ),
        ("wrong-module", "ENV.WRONG_MODULE", lambda reply: reply[:3] == b"\x02\x82\x02"),
        ("streaming", "ENV.WRONG_MODULE", lambda reply: reply.isascii() and b"%RH" in reply),
    ],
    ids=["silence", "bad check value", "refusal", "text"],
)
def test_four_troubles_have_four_faces(fault: str, code: str, says: object) -> None:
    """One code each (a refusal and text are both a module that is not what the inventory says), and the bytes tell which."""

    async def story() -> None:
        module = DoorModule(2)
        async with bench("di-module-8", module) as watched:
            await watched.until(lambda: watched.states() == {"contacts": "online"})
            if fault in module.fault_help:
                module.set(fault, 0)
            else:
                watched.terminal.do(["fault", "sensors", fault])
            opened = await watched.until_open(code, within_s=120)
            await asyncio.sleep(60)
            assert watched.records.open_codes() == {code}
            assert opened.evidence is not None
            assert says(opened.evidence.reply)  # type: ignore[operator]
            assert {one.code for one in watched.records.of(Fault)} == {code}

    in_virtual_time(story())


def test_a_profile_of_another_maker_is_refused_not_misread() -> None:
    """Inputs that start elsewhere, or that are registers: the module says no, and nobody takes a door for open."""

    async def story() -> None:
        for profile, module in (("di-module-8", module_of("ebyte-e831")), ("di-module-8", module_of("n4d8b08"))):
            async with bench(profile, module) as watched:
                await watched.until_open("ENV.WRONG_MODULE")
                assert watched.records.open_codes() == {"ENV.WRONG_MODULE"}

    in_virtual_time(story())


def test_a_value_that_never_changes_is_a_dead_element() -> None:
    async def story() -> None:
        async with bench("xy-md02") as watched:
            await watched.until(lambda: watched.states() == {"climate": "online"})
            watched.terminal.do(["fault", "sensors", "frozen"])
            took_s = await watched.until(lambda: "ENV.FROZEN" in watched.records.open_codes(), within_s=7 * 3600)
            assert took_s > 5.5 * 3600
            watched.terminal.do(["clear", "sensors", "frozen"])
            await watched.until(lambda: not watched.records.open_codes(), within_s=3600)

    in_virtual_time(story())


def test_noise_on_the_pair_is_one_fault_whoever_meets_it() -> None:
    async def story() -> None:
        bus = ModbusBus(ClimateModule(1), DoorModule(2), DoorModule(3))
        slot = Slot("sensors", bus, "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340)
        entries = [
            DeviceEntry(slot=name, family=family, profile=profile, port="1-1.1", address=address, ownership=Ownership.OWNER)
            for name, family, profile, address in (
                ("climate", "climate", "xy-md02", 1),
                ("door", "contacts", "di-module-8", 2),
                ("cellar", "contacts", "di-module-8", 3),
            )
        ]
        async with Bench(slot, entries=entries) as watched:
            await watched.until(lambda: set(watched.states().values()) == {"online"})
            watched.terminal.do(["fault", "sensors", "noise"])
            first = await watched.until_open("ENV.BUS_CRC", within_s=1200)
            await asyncio.sleep(1800)
            assert [one.slot for one in watched.records.of(Fault) if one.code == "ENV.BUS_CRC"] == [first.slot]
            watched.terminal.do(["clear", "sensors", "noise"])
            await watched.until(lambda: not watched.records.open_codes(), within_s=3600)
            # A module that is alone with it has it to itself, and hands it on when it is mended and another is not.
            bus.modules[2].set("corrupt", 0)
            await watched.until(lambda: open_at(watched) == {("door", "ENV.BUS_CRC")}, within_s=1200)
            bus.modules[1].set("corrupt", 0)
            await asyncio.sleep(1200)
            assert open_at(watched) == {("door", "ENV.BUS_CRC")}
            bus.modules[2].clear("corrupt", 0)
            await watched.until(lambda: open_at(watched) == {("climate", "ENV.BUS_CRC")}, within_s=3600)

    in_virtual_time(story())


def test_a_door_that_bounces_is_no_alarm() -> None:
    async def story() -> None:
        async with bench("di-module-8") as watched:
            watched.terminal.do(["fault", "sensors", "chatter"])
            await asyncio.sleep(300)
            assert watched.records.of(Fault) == []

    in_virtual_time(story())
