"""Opens the port that a profile and a sighting name together. Libraries are loaded when the first port of their kind is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_agent.transports.base import Port, PortRefused, Sighting

if TYPE_CHECKING:
    from protocols.profile.schema import Profile


class SystemOpener:
    """Ports of this machine. `usb_backend`: a pyusb backend object, None for libusb."""

    def __init__(self, *, usb_backend: Any = None) -> None:
        self._usb_backend = usb_backend

    async def open(self, sighting: Sighting, profile: Profile) -> Port:
        """Raises PortError. Kernel drivers are detached and keys grabbed only where the profile says so."""
        transport = profile.transport
        if sighting.bus == "usb" and transport.usb is not None:
            return await self._open_usb(sighting, transport.usb)
        if sighting.bus in ("serial", "pipe") and transport.serial is not None:
            from edge_agent.transports.serial import LineSetting, open_serial

            line = transport.serial
            setting = LineSetting(
                baud=line.baud,
                data_bits=line.data_bits,
                parity=line.parity,
                stop_bits=line.stop_bits,
                flow_control=line.flow_control,
                dtr=_level(line.dtr),
                rts=_level(line.rts),
            )
            return await open_serial(sighting.path, setting)
        if sighting.bus == "pcsc":
            from edge_agent.transports.pcsc import open_pcsc

            return open_pcsc(sighting.path)
        if sighting.bus == "ipp":
            from edge_agent.transports.ipp import open_ipp

            return open_ipp(sighting)
        if sighting.bus == "input":
            from edge_agent.transports.input import open_input

            return await open_input(sighting.path, grab=transport.input is not None and transport.input.grab)
        raise PortRefused(f"{sighting.place}: profile {profile.id} names no transport for {sighting.bus}")

    async def _open_usb(self, sighting: Sighting, usb: Any) -> Port:
        from edge_agent.transports.usb import UsbSetting, open_usb

        setting = UsbSetting(
            interface=usb.interface,
            alternate=usb.alternate,
            interface_class=usb.interface_class,
            out_endpoint=usb.out_endpoint,
            in_endpoint=usb.in_endpoint,
            detach_kernel_driver=usb.detach_kernel_driver,
        )
        return await open_usb(sighting, setting, backend=self._usb_backend)


def _level(word: str | None) -> bool | None:
    return None if word is None else word == "high"
