"""What printers tell beside their faults: slips in a presenter, counters, toner, test slips, sleep; and the device that no queue can stand in for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from edge_agent.config import DesiredState, DeviceEntry, parse, with_desired
from edge_agent.errors import ConfigError
from edge_agent.transports.openers import SystemOpener
from edge_agent.transports.udev import UdevDiscoverer
from protocols.canon.words import MediaState, Ownership
from protocols.codecs import pjl
from protocols.contract.records import Consumable, Device, Fault
from simulators.models.base import Model
from simulators.models.escpos import USB_SNBC, USB_TM_T88V, EscposPrinter
from simulators.models.ipp import IppPrinter
from simulators.models.laser import USB_LJ2650, LaserPrinter
from simulators.models.presenter import USB_VKP80, PresenterPrinter
from simulators.models.star import USB_TSP650, StarPrinter
from simulators.ports.http import IppServer
from simulators.ports.slots import Slot
from tests.edge_agent.devices.bench import Bench, in_virtual_time
from tests.edge_agent.devices.test_real_ports import until, watching

ADDRESS = "ipp://127.0.0.1:60000/ipp/print"


def usb(model: Model) -> Slot:
    return Slot("prn", model, "usb", "1-1.2", "1-1.2")


def service(model: IppPrinter) -> Slot:
    return Slot("prn", model, "ipp", ADDRESS)


async def ready(bench: Bench) -> None:
    await bench.until(lambda: bench.states() == {"prn": "online"})


def test_a_slip_that_nobody_takes_is_a_fault_after_a_minute() -> None:
    async def story() -> None:
        model = PresenterPrinter(usb=USB_VKP80)
        async with Bench(usb(model)) as bench:
            await ready(bench)
            assert bench.device("prn").media is MediaState.NOT_PRESENT
            bench.terminal.do(["press", "prn", "print", "5"])
            await bench.until(lambda: bench.device("prn").media is MediaState.PRESENT, within_s=10)
            await bench.until(lambda: bench.device("prn").media is MediaState.NOT_PRESENT, within_s=20)
            assert model.taken == 1
            bench.terminal.do(["fault", "prn", "not-taken"])
            await bench.until(lambda: bench.device("prn").media is MediaState.PRESENT, within_s=10)
            assert await bench.until(lambda: "PRN.OUTPUT_NOT_TAKEN" in bench.records.open_codes(), within_s=120) > 50
            bench.terminal.do(["press", "prn", "take"])
            await bench.until(lambda: not bench.records.open_codes(), within_s=120)
            assert {fault.code for fault in bench.records.of(Fault)} == {"PRN.OUTPUT_NOT_TAKEN"}

    in_virtual_time(story())


def test_the_printers_own_counter_of_cuts() -> None:
    async def story() -> None:
        model = EscposPrinter(usb=USB_TM_T88V)
        async with Bench(usb(model)) as bench:
            await ready(bench)
            await asyncio.sleep(30)
            for _ in range(3):
                bench.terminal.do(["press", "prn", "print", "5"])
                await asyncio.sleep(5)
            await asyncio.sleep(900)
            assert bench.monitor.close_span(0, 1)
            counters = bench.monitor._book._usage.lifetime("prn")
            assert counters == 1207

    in_virtual_time(story())


FORMS: dict[str, Callable[[], EscposPrinter]] = {
    "process-id": lambda: EscposPrinter(usb=USB_TM_T88V),
    "gs-r-gbk": lambda: EscposPrinter(usb=USB_SNBC, maker="SNBC", model_name="BTP-R880"),
    "presenter": lambda: PresenterPrinter(usb=USB_VKP80),
    "star": lambda: StarPrinter(usb=USB_TSP650),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_test_slip_is_done_when_it_is_printed(form: str) -> None:
    async def story() -> None:
        model = FORMS[form]()
        async with Bench(usb(model)) as bench:
            await ready(bench)
            assert await bench.monitor.test("prn", "print") == "ok"
            assert (model.cuts, model.buffered_bytes) == (1, 0)
            bench.terminal.do(["fault", "prn", "paper-out"])
            assert await bench.monitor.test("prn", "print") == "device"
            assert model.cuts == 1

    in_virtual_time(story())


@pytest.mark.parametrize("make", [lambda: usb(LaserPrinter(usb=USB_LJ2650)), lambda: service(IppPrinter())], ids=["pjl", "ipp"])
def test_a_printer_that_sleeps_is_not_dead(make: Callable[[], Slot]) -> None:
    async def story() -> None:
        slot = make()
        async with Bench(slot) as bench:
            await ready(bench)
            for _ in range(5):
                bench.terminal.do(["fault", "prn", "sleep"])
                await asyncio.sleep(60)
                assert bench.terminal.faults() == {}, "it was not asked"
            assert bench.records.of(Fault) == []
            assert len(bench.records.of(Device)) == 1

    in_virtual_time(story())


def test_a_drop_off_the_bus_while_warming_up_is_no_fault() -> None:
    async def story() -> None:
        async with Bench(usb(LaserPrinter(usb=USB_LJ2650))) as bench:
            await ready(bench)
            bench.terminal.set("prn", "unplug")
            await bench.until(lambda: bench.states() == {"prn": "noDevice"}, within_s=2)
            await asyncio.sleep(1.5)
            bench.terminal.clear("prn", "unplug")
            await bench.until(lambda: bench.states() == {"prn": "starting"}, within_s=10)
            await bench.until(lambda: bench.states() == {"prn": "online"}, within_s=30)
            assert bench.records.of(Fault) == []

    in_virtual_time(story())


def test_an_answer_that_comes_late_is_not_the_next_ones() -> None:
    """A status that was still on its way says what was, not what is."""

    async def story() -> None:
        model = LaserPrinter(usb=USB_LJ2650)
        async with Bench(usb(model)) as bench:
            await ready(bench)
            model.set("cover-open", asyncio.get_running_loop().time())
            model.stall(25.0, asyncio.get_running_loop().time())
            await asyncio.sleep(5)
            model.clear("cover-open", asyncio.get_running_loop().time())
            await asyncio.sleep(120)
            assert bench.states() == {"prn": "online"}
            assert bench.records.open_codes() == set()

    in_virtual_time(story())


def test_pages_and_toner_of_the_device() -> None:
    async def story() -> None:
        model = IppPrinter()
        async with Bench(service(model)) as bench:
            await ready(bench)
            levels = [body for body in bench.records.of(Consumable) if body.item == "toner"]
            assert [(body.event, body.remaining, body.source) for body in levels] == [("level", 80, "sensor")]
            bench.terminal.do(["press", "prn", "print", "10"])
            await asyncio.sleep(120)
            assert bench.monitor._book._usage.lifetime("prn") == 4331
            model.toner = 41.0
            await asyncio.sleep(30)
            bench.terminal.do(["press", "prn", "replace-toner"])
            await asyncio.sleep(60)
            levels = [body for body in bench.records.of(Consumable) if body.item == "toner"]
            assert [(body.event, body.remaining) for body in levels[1:]] == [("level", 41), ("refill", 100)]
            assert bench.device("prn").firmware == "2409.1 20240812"

    in_virtual_time(story())


def test_an_observer_asks_the_service_too() -> None:
    async def story() -> None:
        async with Bench(service(IppPrinter()), ownership=Ownership.OWNER) as bench:
            await ready(bench)
            device = bench.device("prn")
            assert (device.owner, device.profile, device.port) == (Ownership.OBSERVER, "ipp-a4", ADDRESS)
            assert device.evidence is not None and device.evidence.codec == "ipp"
            bench.terminal.do(["fault", "prn", "idle-while-jammed"])
            fault = await bench.until_open("LSR.JAM")
            assert fault.evidence is not None and b"media-jam-error" in fault.evidence.reply

    in_virtual_time(story())


async def test_a_real_service_goes_and_comes_back() -> None:
    model = IppPrinter()
    async with IppServer(model) as server:
        address, port = server.uri, int(server.uri.split(":")[2].split("/")[0])
        entries = [DeviceEntry(slot="prn", family="a4-printer", port=address)]

        def state() -> str | None:
            return next((view.state.device.value for view in monitor.slot_views() if view.state is not None), None)

        async with contextlib.AsyncExitStack() as stack:
            monitor, records = await stack.enter_async_context(watching(entries, UdevDiscoverer((address,)), SystemOpener()))
            await until(lambda: state() == "online")
            await server.__aexit__()
            monitor._hasten("prn")
            await until(lambda: state() == "noDevice")
            again = await stack.enter_async_context(IppServer(model, port=port))
            assert again.uri == address
            await until(lambda: state() == "online")
            assert {device.port for device in records.of(Device)} == {address}


def test_paper_codes_name_tray_and_size() -> None:
    reply = b"@PJL INFO STATUS\r\nCODE=41204\r\nONLINE=FALSE\r\n\x0c"
    named = {hit.key: reply[hit.offset : hit.offset + hit.length] for hit in pjl.explain(b"", reply)}
    assert named == {"pjl.load_paper": b"41204", "pjl.tray": b"2", "pjl.size": b"04", "pjl.not_online": b"FALSE"}


CONFIG = b'schema = 1\n[server]\nurl = "https://fleet.example.org"\n'


def test_only_the_file_names_addresses_beyond_this_machine() -> None:
    """A server that was taken over must not be able to send the agent around in the network."""
    for port in ("ipp://192.0.2.7/ipp/print", "ipp://10.0.0.1:631/x"):
        device = f'[[devices]]\nslot = "laser"\nfamily = "a4-printer"\nport = "{port}"\n'.encode()
        assert parse(CONFIG + device, "agent.toml").devices[0].port == port
        desired = DesiredState(devices=(DeviceEntry(slot="laser", family="a4-printer", port=port),))
        with pytest.raises(ConfigError, match="loopback"):
            with_desired(parse(CONFIG, "agent.toml"), desired)
    local = DesiredState(devices=(DeviceEntry(slot="laser", family="a4-printer", port=ADDRESS),))
    assert with_desired(parse(CONFIG, "agent.toml"), local).devices[0].port == ADDRESS
    for port in ("ipp://printer.example/", "ipp://127.0.0.1:99999/"):
        device = f'[[devices]]\nslot = "laser"\nfamily = "a4-printer"\nport = "{port}"\n'.encode()
        with pytest.raises(ConfigError, match="literal address"):
            parse(CONFIG + device, "agent.toml")
