"""Device types by the name a person types, for starting a single device and for listing what can go wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from simulators.models.base import Model
from simulators.models.callpad import CallPadBus
from simulators.models.ccid import USB_ACR39U, USB_R502, CcidReader
from simulators.models.escpos import EscposPrinter
from simulators.models.flash_unit import FlashUnit
from simulators.models.gps import GpsReceiver
from simulators.models.keys import EvaluatorPad, HidScanner, Keypad
from simulators.models.laser import LaserPrinter
from simulators.models.modbus import ModbusBus
from simulators.models.pcsc import PcscService
from simulators.models.scanner import SerialScanner
from simulators.models.sdt import SdtReader
from simulators.models.ups import Ups


@dataclass(frozen=True)
class DeviceType:
    """How to make one, and whether it speaks over a byte line (else it has keys, sits on USB, or is a service)."""

    help: str
    make: Callable[[int, int | None], Model]
    """From seed and line speed (None: the model's usual one)."""
    on_line: bool = True


def _speed(baud: int | None, usual: int) -> int:
    return usual if baud is None else baud


DEVICE_TYPES: Mapping[str, DeviceType] = {
    "escpos": DeviceType("receipt printer, ESC/POS", lambda seed, baud: EscposPrinter(seed=seed, baud=_speed(baud, 38400))),
    "pjl": DeviceType("A4 printer, PJL (no line speed)", lambda seed, baud: LaserPrinter(usb=None, seed=seed)),
    "sdt": DeviceType("resident-ID reader, SDT module", lambda seed, baud: SdtReader(seed=seed, baud=_speed(baud, 115200))),
    "ccid": DeviceType(
        "contactless smart-card reader, CCID (USB)", lambda seed, baud: CcidReader(usb=USB_R502, seed=seed), on_line=False
    ),
    "ccid-contact": DeviceType(
        "smart-card reader with contacts, CCID (USB)",
        lambda seed, baud: CcidReader(usb=USB_ACR39U, contactless=False, seed=seed),
        on_line=False,
    ),
    "pcsc": DeviceType("PC/SC service with a reader, as its clients see it", lambda seed, baud: PcscService(seed=seed), on_line=False),
    "scanner": DeviceType("code scanner, unified commands", lambda seed, baud: SerialScanner(seed=seed, baud=_speed(baud, 9600))),
    "scanner-em": DeviceType(
        "code scanner, older engine with register frames",
        lambda seed, baud: SerialScanner(seed=seed, baud=_speed(baud, 9600), engine="em"),
    ),
    "callpad": DeviceType("four call pads on one RS-485 bus", lambda seed, baud: CallPadBus(seed=seed, baud=_speed(baud, 9600))),
    "modbus": DeviceType("climate and door modules on one bus", lambda seed, baud: ModbusBus(seed=seed, baud=_speed(baud, 9600))),
    "ups": DeviceType("UPS, Megatec Q1", lambda seed, baud: Ups(seed=seed, baud=_speed(baud, 2400))),
    "gps": DeviceType("position receiver, NMEA 0183", lambda seed, baud: GpsReceiver(seed=seed, baud=_speed(baud, 9600))),
    "flash-unit": DeviceType(
        "unit with a boot loader that receives XMODEM", lambda seed, baud: FlashUnit(seed=seed, baud=_speed(baud, 115200))
    ),
    "keypad": DeviceType("numeric keypad (keyboard)", lambda seed, baud: Keypad(seed=seed), on_line=False),
    "evaluator": DeviceType("evaluator pad (keyboard)", lambda seed, baud: EvaluatorPad(seed=seed), on_line=False),
    "scanner-hid": DeviceType("code scanner as a keyboard", lambda seed, baud: HidScanner(seed=seed), on_line=False),
}
