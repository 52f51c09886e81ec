"""A device model for a profile: what a unit of that profile would do, under the identity that the profile is found by.

The catalogue's type is the one that carries the family's name, or one of the few below whose model has to be told how the profile's units differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from protocols.profile.places import CdcMatch, InputMatch, SerialMatch, UsbMatch, bus_of
from protocols.profile.schema import Family, Kind, Profile
from simulators.catalogue import DEVICE_TYPES
from simulators.errors import unknown
from simulators.models.base import Model, UsbIdentity
from simulators.models.callpad import CallPadBus, PadDialect
from simulators.models.card_d1801 import Crt541Dispenser, D1801Dispenser
from simulators.models.card_f2 import F2CardReader, F2CardUnit
from simulators.models.card_stx import StxCardReader
from simulators.models.ccid import USB_ACR39U, USB_R502, USB_TWO_SLOTS, CcidReader
from simulators.models.escpos import USB_SNBC, EscposPrinter
from simulators.models.gps import GpsReceiver
from simulators.models.ipp import IppPrinter
from simulators.models.keys import EmergencyButton, EvaluatorPad, HelpButton, HidScanner, Keypad
from simulators.models.laser import USB_LJ2650, LaserPrinter
from simulators.models.modbus import ClimateModule, DoorModule, HoldingClimateModule, ModbusBus, RelayBoard
from simulators.models.pcsc import PcscService
from simulators.models.presence import Camera, Display, Microphone, SeenDevice, Speaker, TouchScreen
from simulators.models.presenter import USB_VKP80, PresenterPrinter
from simulators.models.rating import BYTE_FORM, FRAME_FORM, THREE_KEYS, RatingPad
from simulators.models.scanner import HONEYWELL_IDENTITY, SerialScanner
from simulators.models.sdt import USB_SPLIT, SdtReader
from simulators.models.star import USB_TSP650, StarPrinter
from simulators.models.ups import USB_CYPRESS, Ups
from simulators.ports.slots import CH340, Bus, Slot

TTY, USB_PLACE, EVENT = "/dev/ttyUSB0", "1-1.2", "/dev/input/event3"


def slot_for(profile: Profile, *, model: Model | None = None, seed: int = 0) -> Slot:
    """A healthy unit of `profile` in a place of its own; UnknownName if no model speaks its family. `model`: this one instead."""
    rule = next((one for one in profile.match if not isinstance(one, SerialMatch)), profile.match[0])
    model = _model(profile, seed) if model is None else model
    name = profile.kind.value
    if isinstance(rule, UsbMatch | InputMatch):
        base = model.usb or UsbIdentity(0xFFFF, 0x0001, ())
        model.usb = _identity(base, rule, profile)
        bus: Bus = "usb" if isinstance(rule, UsbMatch) else "input"
        return Slot(name, model, bus, USB_PLACE if bus == "usb" else EVENT, USB_PLACE)
    if isinstance(rule, CdcMatch):
        return Slot(name, model, "serial", "/dev/ttyACM0", USB_PLACE, adapter=UsbIdentity(rule.vid, rule.pid, ()))
    if isinstance(rule, SerialMatch):
        adapters = rule.adapters
        adapter = UsbIdentity(adapters[0].vid, adapters[0].pid, ()) if adapters else CH340
        return Slot(name, model, "serial", TTY, USB_PLACE, adapter=adapter)
    return Slot(name, model, *_PLACES[bus_of(rule)])


_PLACES: Mapping[str, tuple[Bus, str]] = {
    "ipp": ("ipp", "ipp://127.0.0.1:60000/ipp/print"),
    "pcsc": ("pcsc", "/run/pcscd/pcscd.comm"),
    "video": ("video", "/dev/video0"),
    "sound": ("sound", "/dev/snd/controlC0"),
    "display": ("display", "card0-HDMI-A-1"),
}
"""Buses on which a device has no place in the USB tree, or none that matters."""


def has_model(profile: Profile) -> bool:
    """Whether a device model speaks the profile's family."""
    return profile.family in _BY_FAMILY or str(profile.family) in DEVICE_TYPES


def _model(profile: Profile, seed: int) -> Model:
    build = _BY_FAMILY.get(profile.family)
    if build is not None:
        return build(profile, seed)
    kind = DEVICE_TYPES.get(str(profile.family))
    if kind is None:
        raise unknown("device model for the family", str(profile.family), list(_BY_FAMILY))
    return kind.make(seed, profile.transport.serial.baud if profile.transport.serial else None)


def _identity(base: UsbIdentity, rule: UsbMatch | InputMatch, profile: Profile) -> UsbIdentity:
    """The model's pipes under the ids of the profile; a product text only where the profile is found by one."""
    product = _text_for(rule.product) if rule.product else profile.display_name
    serial = _text_for(rule.serial) if isinstance(rule, UsbMatch) and rule.serial else base.serial
    vid = base.vid if rule.vid is None else rule.vid
    pid = base.pid if rule.pid is None else rule.pid
    return replace(base, vid=vid, pid=pid, product=product, serial=serial)


def _text_for(pattern: str) -> str:
    """A product's text that such a pattern of a profile fits."""
    for sample in _SAMPLES:
        if re.search(pattern, sample):
            return sample
    raise unknown("text of a product that fits", pattern, list(_SAMPLES))


_SAMPLES = (
    "LJ2650DN", "LJ2206W", "TSP650II (STR_T-001)", "USB Keypad", "Evaluator Pad", "评价器", "Help Button", "USB Emergency Button",
)  # fmt: skip
"""Texts of products that profiles are found by; a profile with another pattern needs one more."""


def _usb_or_line(profile: Profile, usb: UsbIdentity) -> UsbIdentity | None:
    return usb if profile.transport.usb is not None else None


def _baud(profile: Profile, usual: int) -> int:
    return profile.transport.serial.baud if profile.transport.serial else usual


def _receipt_printer(profile: Profile, seed: int) -> Model:
    options = profile.escpos
    assert options is not None
    if options.dialect == "star":
        usb = _usb_or_line(profile, USB_TSP650)
        return StarPrinter(usb=usb, baud=None if usb else _baud(profile, 9600), seed=seed)
    if options.presenter == "custom":
        usb = _usb_or_line(profile, USB_VKP80)
        return PresenterPrinter(usb=usb, baud=None if usb else _baud(profile, 115200), seed=seed)
    usb = _usb_or_line(profile, USB_SNBC)
    return EscposPrinter(
        usb=usb,
        baud=None if usb else _baud(profile, 38400),
        seed=seed,
        has_text_ids=options.identity,
        has_near_end_sensor=options.near_end_sensor,
    )


def _a4_printer(profile: Profile, seed: int) -> Model:
    return LaserPrinter(usb=USB_LJ2650, pjl=profile.family is Family.PJL, seed=seed)


def _reader(profile: Profile, seed: int) -> Model:
    usb = _usb_or_line(profile, USB_SPLIT)
    return SdtReader(usb=usb, seed=seed) if usb else SdtReader(seed=seed, baud=_baud(profile, 115200))


def _chip_reader(profile: Profile, seed: int) -> Model:
    assert profile.ccid is not None
    contactless = profile.ccid.contact == "contactless"
    usb = USB_TWO_SLOTS if profile.ccid.slots > 1 else USB_R502 if contactless else USB_ACR39U
    if not profile.ccid.notices:
        usb = replace(usb, endpoints=tuple(pipe for pipe in usb.endpoints if pipe.transfer != INTERRUPT))
    return CcidReader(usb=usb, contactless=contactless, seed=seed)


def _card_f2(profile: Profile, seed: int) -> Model:
    assert profile.card is not None
    if profile.kind is Kind.CARD_READER:
        reader = F2CardReader(baud=_baud(profile, 9600), seed=seed)
        reader.address = profile.card.address
        return reader
    return F2CardUnit(baud=_baud(profile, 9600), address=profile.card.address, seed=seed)


def _card_d1801(profile: Profile, seed: int) -> Model:
    assert profile.card is not None
    if profile.card.form == "addressed":
        return Crt541Dispenser(baud=_baud(profile, 9600), address=profile.card.address, seed=seed)
    return D1801Dispenser(baud=_baud(profile, 9600), seed=seed)


def _serial_scanner(profile: Profile, seed: int) -> Model:
    dialect = profile.scanner.dialect if profile.scanner else "none"
    cdc = any(isinstance(rule, CdcMatch) for rule in profile.match)
    if dialect == "honeywell":
        return SerialScanner(
            baud=_baud(profile, 115200), engine="honeywell", identity=HONEYWELL_IDENTITY, rs232=not cdc, seed=seed
        )
    return SerialScanner(baud=_baud(profile, 9600), engine="em" if dialect == "zone" else "unified", rs232=not cdc, seed=seed)


def _pads(profile: Profile, seed: int) -> Model:
    assert profile.callpad is not None
    lead = bytes.fromhex(profile.callpad.start)[0] == 0xFF
    addresses = tuple(profile.callpad.addresses)
    dialect = PadDialect(lead_byte=lead)
    if profile.kind is Kind.WINDOW_SCREEN:
        return CallPadBus(addresses=(), screens=len(addresses), dialect=dialect, baud=_baud(profile, 9600), seed=seed)
    return CallPadBus(addresses=addresses, dialect=dialect, baud=_baud(profile, 9600), seed=seed)


def _modules(profile: Profile, seed: int) -> Model:
    assert profile.modbus is not None
    address = profile.modbus.address
    by_register = profile.modbus.read[0].function == 3
    if profile.kind is Kind.CLIMATE:
        climate = HoldingClimateModule(address) if by_register else ClimateModule(address)
        return ModbusBus(climate, baud=_baud(profile, 9600), seed=seed)
    read = profile.modbus.read[0]
    make = RelayBoard if by_register else DoorModule
    return ModbusBus(make(address, first_input=read.start, inputs=read.count), baud=_baud(profile, 9600), seed=seed)


def _keys(profile: Profile, seed: int) -> Model:
    makers: Mapping[Kind, Callable[[], Model]] = {
        Kind.EVALUATOR: lambda: EvaluatorPad(seed=seed),
        Kind.HELP_BUTTON: lambda: HelpButton(seed=seed),
        Kind.EMERGENCY_BUTTON: lambda: EmergencyButton(seed=seed),
    }
    make = makers.get(profile.kind)
    return Keypad(seed=seed) if make is None else make()


def _rating_pad(profile: Profile, seed: int) -> Model:
    assert profile.rating is not None
    framed = profile.rating.framing == "frame"
    form = THREE_KEYS if profile.rating.scale.startswith("three") else FRAME_FORM if framed else BYTE_FORM
    return RatingPad(form=form, baud=_baud(profile, 9600), wait_s=profile.rating.wait_s, seed=seed)


def _ups(profile: Profile, seed: int) -> Model:
    usb = _usb_or_line(profile, USB_CYPRESS)
    return Ups(usb=usb, per_cell=usb is not None, seed=seed) if usb else Ups(baud=_baud(profile, 2400), online=True, seed=seed)


def _receiver(profile: Profile, seed: int) -> Model:
    cdc = any(isinstance(rule, CdcMatch) for rule in profile.match)
    return GpsReceiver(baud=None if cdc else _baud(profile, 9600), seed=seed)


def _seen(profile: Profile, seed: int) -> Model:
    makers: Mapping[Kind, Callable[[], Model]] = {
        Kind.CAMERA: lambda: Camera(heads=profile.presence.heads if profile.presence else 1, seed=seed),
        Kind.DOCUMENT_CAMERA: lambda: Camera("document-camera", seed=seed),
        Kind.DISPLAY: lambda: Display(seed=seed),
        Kind.TOUCH_SCREEN: lambda: TouchScreen(seed=seed),
        Kind.MICROPHONE: lambda: Microphone(seed=seed),
        Kind.SPEAKER: lambda: Speaker(seed=seed),
    }
    make = makers.get(profile.kind)
    return SeenDevice(profile.kind.value, seed=seed) if make is None else make()


_BY_FAMILY: Mapping[str, Callable[[Profile, int], Model]] = {
    "escpos": _receipt_printer,
    "pjl": _a4_printer,
    "usb-printer": _a4_printer,
    "ipp": lambda _, seed: IppPrinter(seed=seed),
    "sdt": _reader,
    "ccid": _chip_reader,
    "pcsc": lambda _, seed: PcscService(seed=seed),
    "card-f2": _card_f2,
    "card-stx": lambda profile, seed: StxCardReader(baud=_baud(profile, 9600), seed=seed),
    "card-d1801": _card_d1801,
    "scanner-serial": _serial_scanner,
    "scanner-keyboard": lambda _, seed: HidScanner(seed=seed),
    "keys": _keys,
    "callpad": _pads,
    "rating-serial": _rating_pad,
    "modbus": _modules,
    "megatec": _ups,
    "nmea": _receiver,
    "presence": _seen,
}
INTERRUPT = 3
