"""A device model for a profile: what a unit of that profile would do, under the identity that the profile is found by.

The catalogue's type is the one that carries the family's name, or one of the few below whose model has to be told how the profile's units differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from protocols.profile.places import CdcMatch, InputMatch, SerialMatch, UsbMatch
from protocols.profile.schema import Family, Kind, Profile
from simulators.catalogue import DEVICE_TYPES
from simulators.errors import unknown
from simulators.models.base import Model, UsbIdentity
from simulators.models.callpad import CallPadBus, PadDialect
from simulators.models.escpos import USB_SNBC, EscposPrinter
from simulators.models.keys import EvaluatorPad, HidScanner, Keypad
from simulators.models.laser import USB_LJ2650, LaserPrinter
from simulators.models.modbus import ClimateModule, DoorModule, ModbusBus
from simulators.models.scanner import SerialScanner
from simulators.models.sdt import USB_SPLIT, SdtReader
from simulators.ports.slots import CH340, Slot

TTY, USB_PLACE, EVENT = "/dev/ttyUSB0", "1-1.2", "/dev/input/event3"


def slot_for(profile: Profile, *, model: Model | None = None, seed: int = 0) -> Slot:
    """A healthy unit of `profile` in a place of its own; UnknownName if no model speaks its family. `model`: this one instead."""
    rule = next((one for one in profile.match if not isinstance(one, SerialMatch)), profile.match[0])
    model = _model(profile, seed) if model is None else model
    name = profile.kind.value
    if isinstance(rule, UsbMatch):
        assert model.usb is not None, profile.id
        model.usb = _identity(model.usb, rule, profile)
        return Slot(name, model, "usb", USB_PLACE, USB_PLACE)
    if isinstance(rule, InputMatch):
        base = model.usb or UsbIdentity(0xFFFF, 0x0001, ())
        model.usb = _identity(base, rule, profile)
        return Slot(name, model, "input", EVENT, USB_PLACE)
    if isinstance(rule, CdcMatch):
        return Slot(name, model, "serial", "/dev/ttyACM0", USB_PLACE, adapter=UsbIdentity(rule.vid, rule.pid, ()))
    adapters = rule.adapters if isinstance(rule, SerialMatch) else ()
    adapter = UsbIdentity(adapters[0].vid, adapters[0].pid, ()) if adapters else CH340
    return Slot(name, model, "serial", TTY, USB_PLACE, adapter=adapter)


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
    """A text that such a pattern of a profile fits: these patterns are words with optional parts."""
    for sample in _SAMPLES:
        if re.search(pattern, sample):
            return sample
    plain = re.sub(r"\(\?[a-z]*:?|\([^()|]*\)\?|[\^$()?*.\\]", "", pattern.split("|", maxsplit=1)[0])
    return plain if re.search(pattern, plain) else pattern.strip("^$")


_SAMPLES = ("LJ2650DN", "LJ2206W", "USB Keypad", "Evaluator Pad", "评价器")


def _usb_or_line(profile: Profile, usb: UsbIdentity) -> UsbIdentity | None:
    return usb if profile.transport.usb is not None else None


def _baud(profile: Profile, usual: int) -> int:
    return profile.transport.serial.baud if profile.transport.serial else usual


def _receipt_printer(profile: Profile, seed: int) -> Model:
    identity = profile.escpos.identity if profile.escpos else True
    near_end = profile.escpos.near_end_sensor if profile.escpos else True
    usb = _usb_or_line(profile, USB_SNBC)
    return EscposPrinter(
        usb=usb, baud=None if usb else _baud(profile, 38400), seed=seed, has_text_ids=identity, has_near_end_sensor=near_end
    )


def _a4_printer(profile: Profile, seed: int) -> Model:
    return LaserPrinter(usb=USB_LJ2650, pjl=profile.family is Family.PJL, seed=seed)


def _reader(profile: Profile, seed: int) -> Model:
    usb = _usb_or_line(profile, USB_SPLIT)
    return SdtReader(usb=usb, seed=seed) if usb else SdtReader(seed=seed, baud=_baud(profile, 115200))


def _serial_scanner(profile: Profile, seed: int) -> Model:
    engine = "em" if profile.scanner and profile.scanner.dialect == "zone" else "unified"
    cdc = any(isinstance(rule, CdcMatch) for rule in profile.match)
    return SerialScanner(baud=_baud(profile, 9600), engine=engine, rs232=not cdc, seed=seed)


def _pads(profile: Profile, seed: int) -> Model:
    assert profile.callpad is not None
    lead = bytes.fromhex(profile.callpad.start)[0] == 0xFF
    return CallPadBus(
        addresses=tuple(profile.callpad.addresses), dialect=PadDialect(lead_byte=lead), baud=_baud(profile, 9600), seed=seed
    )


def _modules(profile: Profile, seed: int) -> Model:
    assert profile.modbus is not None
    address = profile.modbus.address
    if profile.kind is Kind.CLIMATE:
        return ModbusBus(ClimateModule(address), baud=_baud(profile, 9600), seed=seed)
    read = profile.modbus.read[0]
    return ModbusBus(DoorModule(address, first_input=read.start, inputs=read.count), baud=_baud(profile, 9600), seed=seed)


def _keys(profile: Profile, seed: int) -> Model:
    return EvaluatorPad(seed=seed) if profile.kind is Kind.EVALUATOR else Keypad(seed=seed)


_BY_FAMILY: Mapping[str, Callable[[Profile, int], Model]] = {
    "escpos": _receipt_printer,
    "pjl": _a4_printer,
    "usb-printer": _a4_printer,
    "sdt": _reader,
    "scanner-serial": _serial_scanner,
    "scanner-keyboard": lambda _, seed: HidScanner(seed=seed),
    "keys": _keys,
    "callpad": _pads,
    "modbus": _modules,
}
