"""Device types by the name a person types, for starting a single device and for listing what can go wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from simulators.models.base import Model
from simulators.models.callpad import CallPadBus
from simulators.models.card_d1801 import Crt541Dispenser, D1801Dispenser
from simulators.models.card_f2 import F2CardReader, F2CardUnit
from simulators.models.card_stx import StxCardReader
from simulators.models.ccid import USB_ACR39U, USB_R502, CcidReader
from simulators.models.escpos import EscposPrinter
from simulators.models.flash_unit import FlashUnit
from simulators.models.gps import GpsReceiver
from simulators.models.ipp import IppPrinter
from simulators.models.keys import EmergencyButton, EvaluatorPad, HelpButton, HidScanner, Keypad
from simulators.models.laser import LaserPrinter
from simulators.models.modbus import ModbusBus
from simulators.models.pcsc import PcscService
from simulators.models.presence import Camera, Display, Microphone, SeenDevice, Speaker, TouchScreen
from simulators.models.presenter import PresenterPrinter
from simulators.models.rating import RatingPad
from simulators.models.scanner import HONEYWELL_IDENTITY, SerialScanner
from simulators.models.sdt import SdtReader
from simulators.models.star import StarPrinter
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
    "presenter": DeviceType(
        "receipt printer with a presenter, ESC/POS of Custom",
        lambda seed, baud: PresenterPrinter(seed=seed, baud=_speed(baud, 115200)),
    ),
    "star": DeviceType("receipt printer, Star line mode", lambda seed, baud: StarPrinter(seed=seed, baud=_speed(baud, 9600))),
    "ipp": DeviceType("A4 printer that answers IPP about itself", lambda seed, baud: IppPrinter(seed=seed), on_line=False),
    "sdt": DeviceType("resident-ID reader, SDT module", lambda seed, baud: SdtReader(seed=seed, baud=_speed(baud, 115200))),
    "ccid": DeviceType(
        "contactless smart-card reader, CCID (USB)", lambda seed, baud: CcidReader(usb=USB_R502, seed=seed), on_line=False
    ),
    "ccid-contact": DeviceType(
        "smart-card reader with contacts, CCID (USB)",
        lambda seed, baud: CcidReader(usb=USB_ACR39U, contactless=False, seed=seed),
        on_line=False,
    ),
    "pcsc": DeviceType(
        "PC/SC service with a reader, as its clients see it", lambda seed, baud: PcscService(seed=seed), on_line=False
    ),
    "scanner": DeviceType("code scanner, unified commands", lambda seed, baud: SerialScanner(seed=seed, baud=_speed(baud, 9600))),
    "scanner-em": DeviceType(
        "code scanner, older engine with register frames",
        lambda seed, baud: SerialScanner(seed=seed, baud=_speed(baud, 9600), engine="em"),
    ),
    "scanner-honeywell": DeviceType(
        "code scanner, Honeywell menu commands",
        lambda seed, baud: SerialScanner(seed=seed, baud=_speed(baud, 115200), engine="honeywell", identity=HONEYWELL_IDENTITY),
    ),
    "card-f2": DeviceType(
        "card dispenser with reader, F2 protocol (CRT-591)", lambda seed, baud: F2CardUnit(seed=seed, baud=_speed(baud, 9600))
    ),
    "card-reader-f2": DeviceType(
        "motorised card reader, F2 protocol", lambda seed, baud: F2CardReader(seed=seed, baud=_speed(baud, 9600))
    ),
    "card-stx": DeviceType(
        "motorised card reader, older protocol (CRT-310)", lambda seed, baud: StxCardReader(seed=seed, baud=_speed(baud, 9600))
    ),
    "card-d1801": DeviceType(
        "card dispenser, two-letter commands (D1801 boards)",
        lambda seed, baud: D1801Dispenser(seed=seed, baud=_speed(baud, 9600)),
    ),
    "card-541": DeviceType(
        "card dispenser, two-letter commands with an address (CRT-541)",
        lambda seed, baud: Crt541Dispenser(seed=seed, baud=_speed(baud, 9600)),
    ),
    "callpad": DeviceType("four call pads on one RS-485 bus", lambda seed, baud: CallPadBus(seed=seed, baud=_speed(baud, 9600))),
    "hall-bus": DeviceType(
        "six call pads and six window screens on one RS-485 bus",
        lambda seed, baud: CallPadBus(addresses=tuple(range(1, 7)), screens=6, seed=seed, baud=_speed(baud, 9600)),
    ),
    "evaluator-serial": DeviceType(
        "evaluator pad on a serial line, a byte for each key", lambda seed, baud: RatingPad(seed=seed, baud=_speed(baud, 9600))
    ),
    "modbus": DeviceType("climate and door modules on one bus", lambda seed, baud: ModbusBus(seed=seed, baud=_speed(baud, 9600))),
    "ups": DeviceType("UPS, Megatec Q1", lambda seed, baud: Ups(seed=seed, baud=_speed(baud, 2400))),
    "gps": DeviceType("position receiver, NMEA 0183", lambda seed, baud: GpsReceiver(seed=seed, baud=_speed(baud, 9600))),
    "flash-unit": DeviceType(
        "unit with a boot loader that receives XMODEM", lambda seed, baud: FlashUnit(seed=seed, baud=_speed(baud, 115200))
    ),
    "keypad": DeviceType("numeric keypad (keyboard)", lambda seed, baud: Keypad(seed=seed), on_line=False),
    "evaluator": DeviceType("evaluator pad (keyboard)", lambda seed, baud: EvaluatorPad(seed=seed), on_line=False),
    "help-button": DeviceType("help button (keyboard encoder)", lambda seed, baud: HelpButton(seed=seed), on_line=False),
    "emergency-button": DeviceType(
        "emergency button that latches (keyboard encoder)", lambda seed, baud: EmergencyButton(seed=seed), on_line=False
    ),
    "camera": DeviceType("face camera with two heads", lambda seed, baud: Camera(heads=2, seed=seed), on_line=False),
    "display": DeviceType("screen at a connector", lambda seed, baud: Display(seed=seed), on_line=False),
    "touch-screen": DeviceType("touch screen", lambda seed, baud: TouchScreen(seed=seed), on_line=False),
    "microphone": DeviceType("microphone", lambda seed, baud: Microphone(seed=seed), on_line=False),
    "speaker": DeviceType("loudspeaker", lambda seed, baud: Speaker(seed=seed), on_line=False),
    "signature-pad": DeviceType(
        "signature pad, as any USB device that is only seen",
        lambda seed, baud: SeenDevice("signature-pad", seed=seed),
        on_line=False,
    ),
    "scanner-hid": DeviceType("code scanner as a keyboard", lambda seed, baud: HidScanner(seed=seed), on_line=False),
}
