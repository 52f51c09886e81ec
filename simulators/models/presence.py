"""Devices that are only seen: cameras, screens, sound, readers and pads whose content is nobody's business here. They have no bytes at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from simulators.models.base import Model, UsbIdentity

Role = Literal["touch", "capture", "playback"]
_IN = ()
"""Their endpoints are nobody's business either."""

USB_TOUCH = UsbIdentity(0x0EEF, 0xC000, _IN, 3, 0, 0, "eGalax Inc.", "eGalaxTouch EXC3188", kernel_driver="usbhid")
USB_FACE_CAMERA = UsbIdentity(0x05A3, 0x9331, _IN, 0x0E, 1, 0, "Face", "Face Camera", device_class=0xEF, kernel_driver="uvcvideo")
USB_ROOM_CAMERA = UsbIdentity(
    0x046D, 0x0825, _IN, 0x0E, 1, 0, "Logitech", "Webcam C270", device_class=0xEF, kernel_driver="uvcvideo"
)
USB_DOCUMENT_CAMERA = UsbIdentity(
    0x1BCF, 0x2B97, _IN, 0x0E, 1, 0, "Sunplus", "Document Camera", device_class=0xEF, kernel_driver="uvcvideo"
)
USB_FINGERPRINT = UsbIdentity(0x05BA, 0x000A, _IN, 0xFF, 0, 0, "DigitalPersona, Inc.", "U.are.U 4500 Fingerprint Reader")
USB_SIGNATURE_PAD = UsbIdentity(0x056A, 0x00A2, _IN, 3, 0, 0, "Wacom Co., Ltd", "STU-300B", kernel_driver="usbhid")
USB_MICROPHONE = UsbIdentity(0x0D8C, 0x0014, _IN, 1, 1, 0, "C-Media", "USB Audio Device", kernel_driver="snd-usb-audio")
USB_MODEM = UsbIdentity(0x2C7C, 0x0125, _IN, 0xFF, 0, 0, "Quectel", "EC25-AF", kernel_driver="option")


class SeenDevice(Model):
    """Something of `kind` that is there or not. The line's faults but the pulled cable have no meaning for it."""

    own_faults: ClassVar[Mapping[str, str]] = {}
    unplug_help: ClassVar[str] = "the cable is pulled; clearing it plugs the device in again"
    role: ClassVar[Role | None] = None

    def __init__(self, kind: str, *, usb: UsbIdentity | None = None, seed: int = 0) -> None:
        super().__init__(usb=usb, seed=seed)
        self.kind = kind  # type: ignore[misc]  # one class for several kinds of device

    @property
    def fault_help(self) -> Mapping[str, str]:
        return {"unplug": self.unplug_help, **self.own_faults}

    @property
    def heads(self) -> int:
        """Nodes that deliver pictures."""
        return 1

    @property
    def mbps(self) -> int | None:
        """Speed of its USB link, where that matters."""
        return None


class Camera(SeenDevice):
    """A USB video camera. `whole_heads`: two for a visible and an infrared one behind one plug."""

    own_faults: ClassVar[Mapping[str, str]] = {
        "head-missing": "one of two heads has lost its inner cable: one capture node instead of two",
        "low-speed": "it came up with 12 Mbit/s: bad cable or a slow hub",
    }

    def __init__(self, kind: str = "camera", *, usb: UsbIdentity = USB_FACE_CAMERA, heads: int = 1, seed: int = 0) -> None:
        super().__init__(kind, usb=usb, seed=seed)
        self.whole_heads = heads

    @property
    def heads(self) -> int:
        return max(1, self.whole_heads - 1) if self.has("head-missing") else self.whole_heads

    @property
    def mbps(self) -> int | None:
        return 12 if self.has("low-speed") else 480


class Display(SeenDevice):
    """A screen at a connector of the graphics card."""

    unplug_help: ClassVar[str] = "the video cable is pulled, or the screen has no power: its connector says disconnected"

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__("display", seed=seed)


class TouchScreen(SeenDevice):
    role: ClassVar[Role | None] = "touch"

    def __init__(self, *, usb: UsbIdentity = USB_TOUCH, seed: int = 0) -> None:
        super().__init__("touch-screen", usb=usb, seed=seed)


class Microphone(SeenDevice):
    role: ClassVar[Role | None] = "capture"

    def __init__(self, *, usb: UsbIdentity | None = USB_MICROPHONE, seed: int = 0) -> None:
        super().__init__("microphone", usb=usb, seed=seed)


class Speaker(SeenDevice):
    role: ClassVar[Role | None] = "playback"

    def __init__(self, *, usb: UsbIdentity | None = None, seed: int = 0) -> None:
        super().__init__("speaker", usb=usb, seed=seed)
