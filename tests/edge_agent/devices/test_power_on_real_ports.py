"""UPS and position receiver over real transports: pyusb's control and interrupt pipes, pyserial on pseudo terminals."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edge_agent.config import DeviceEntry
from edge_agent.transports.openers import SystemOpener
from edge_agent.transports.serial import LineSetting, open_serial
from edge_agent.transports.udev import UdevDiscoverer
from edge_agent.transports.usb import BackendDiscoverer
from protocols.contract.records import Device, Reading
from simulators.models.gps import GpsReceiver
from simulators.models.ups import USB_CYPRESS, Ups
from simulators.ports.pty import AsyncPty
from simulators.ports.slots import Slot
from simulators.ports.usb_backend import SimulatedUsbBackend
from tests.edge_agent.devices.test_real_ports import states, until, watching


async def test_a_ups_behind_its_usb_bridge() -> None:
    """The kernel's HID driver has the interface; questions go out as reports, answers come by the interrupt pipe."""
    model = Ups(usb=USB_CYPRESS)
    now = asyncio.get_running_loop().time
    backend = SimulatedUsbBackend([Slot("ups", model, "usb", "1-1.2", "1-1.2")], clock=now)
    entries = [DeviceEntry(slot="ups", family="ups", port="1-1.2")]
    opener = SystemOpener(usb_backend=backend)
    async with watching(entries, BackendDiscoverer(backend, every_s=0.05), opener) as (monitor, records):
        await until(lambda: states(monitor) == {"ups": "online"})
        told = records.of(Device, "ups")[-1]
        assert (told.profile, told.firmware) == ("cypress-usb-serial", "V1.20")
        assert {one.quantity for one in monitor.close_span(0, 1) if isinstance(one, Reading)} >= {"load", "batteryVoltage"}
        model.unplug(now())
        await until(lambda: "PWR.UNPLUGGED" in records.open_codes())
        model.replug(now())
        await until(lambda: states(monitor) == {"ups": "online"})
    assert model.commands == []


async def test_on_serial_lines(tmp_path: Path) -> None:
    lines = [AsyncPty(Ups(), tmp_path / "ups"), AsyncPty(GpsReceiver(), tmp_path / "gps")]
    entries = [
        DeviceEntry(slot="ups", family="ups", port=str(tmp_path / "ups"), profile="megatec-serial"),
        DeviceEntry(slot="gps", family="gps", port=str(tmp_path / "gps"), profile="atgm336h"),
    ]
    discoverer = UdevDiscoverer([str(tmp_path / "ups"), str(tmp_path / "gps")], extra_every_s=0.05)
    async with watching(entries, discoverer, SystemOpener()) as (monitor, records):
        await until(lambda: states(monitor) == {"ups": "online", "gps": "online"})
        assert records.open_codes() == set()
    for line in lines:
        line.close()


async def test_the_lines_that_power_a_cable(tmp_path: Path) -> None:
    """A pseudo terminal has no such wires, which must not keep the port from opening; what was set is what pyserial holds."""
    line = AsyncPty(Ups(), tmp_path / "ups")
    for dtr, rts in ((True, False), (False, True), (None, None)):
        port = await open_serial(str(tmp_path / "ups"), LineSetting(baud=2400, dtr=dtr, rts=rts))
        assert (port._line.dtr, port._line.rts) == (dtr is not False, rts is not False)
        await port.close()
    line.close()
