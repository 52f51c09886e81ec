"""A device in its place: the model, the name people call it by, and the hardware address under which it is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from simulators.models.base import Controllable, Model, UsbIdentity
from simulators.models.keys import USB_SCANNER_HID, USB_SCANNER_HID_POS, HidScanner
from simulators.models.presence import SeenDevice
from simulators.models.scanner import USB_NEWLAND_CDC, SerialScanner

Bus = Literal["usb", "serial", "input", "video", "sound", "display", "pcsc", "ipp", "pipe"]


@dataclass(frozen=True)
class Found:
    """What discovery says about a device that is plugged in."""

    bus: Bus
    path: str
    vid: int | None
    pid: int | None
    serial: str | None
    product: str | None
    usb_path: str | None
    role: str | None = None
    heads: int = 1
    mbps: int | None = None


@dataclass
class Slot:
    """One device of a terminal. `adapter` is the USB-serial chip in front of a serial device, which is all that USB sees of it."""

    name: str
    model: Model
    bus: Bus
    path: str
    usb_path: str | None = None
    adapter: UsbIdentity | None = None
    mandatory: bool = True
    opened: bool = False
    profile: str | None = None
    """Named in the terminal's inventory, where the hardware cannot say what it is."""

    @property
    def place(self) -> str:
        return self.usb_path or self.path

    @property
    def is_present(self) -> bool:
        return self.model.plugged or self.switched_identity is not None

    @property
    def switched_identity(self) -> UsbIdentity | None:
        """A USB scanner that was switched by a set-up code stays plugged in, as another kind of device."""
        if self.model.has("unplug") or not (self.model.has("mode-switched") or self.model.has("hid-pos")):
            return None
        if self.model.has("hid-pos") and not self.model.plugged:
            return USB_SCANNER_HID_POS
        if isinstance(self.model, HidScanner):
            return USB_NEWLAND_CDC
        return USB_SCANNER_HID if isinstance(self.model, SerialScanner) and not self.model.plugged else None

    def found(self) -> Found | None:
        """None while unplugged."""
        switched = self.switched_identity
        if switched is not None:
            bus: Bus = "usb" if switched is USB_SCANNER_HID_POS else "serial" if switched is USB_NEWLAND_CDC else "input"
            path = self.place if bus == "usb" else f"{self.path}.switched"
            return Found(bus, path, switched.vid, switched.pid, switched.serial or None, switched.product, self.usb_path)
        if not self.model.plugged:
            return None
        identity = self.adapter or self.model.usb
        if isinstance(self.model, SeenDevice):
            return self._seen(self.model, identity)
        if identity is None:
            return Found(self.bus, self.path, None, None, None, None, self.usb_path)
        return Found(
            self.bus, self.path, identity.vid, identity.pid, identity.serial or None, identity.product or None, self.usb_path
        )

    def _seen(self, model: SeenDevice, identity: UsbIdentity | None) -> Found:
        vid, pid = (identity.vid, identity.pid) if identity else (None, None)
        product = identity.product or None if identity else None
        return Found(self.bus, self.path, vid, pid, None, product, self.usb_path, model.role, model.heads, model.mbps)

    def target(self, unit: str | None) -> Controllable:
        """The device, or one unit of its bus."""
        return self.model if unit is None else self.model.units[unit]


CH340 = UsbIdentity(0x1A86, 0x7523, (), product="USB Serial")
"""No serial number, the same id on every adapter: only the port path tells two of them apart."""
CP2102 = UsbIdentity(0x10C4, 0xEA60, (), product="CP2102 USB to UART Bridge Controller", serial="0001")
FT232 = UsbIdentity(0x0403, 0x6001, (), product="FT232R USB UART", serial="A5069RR4")
