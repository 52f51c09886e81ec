"""The strict form of a profile file (TOML). Unknown keys, wrong types and contradictions are refused with the exact path.

A profile decides which bytes reach hardware. It therefore travels inside signed artefacts, and it cannot name a question that asks for a card,
a scan or a print: queries are limited to the status forms of their family.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from protocols.canon.faults import FAULTS
from protocols.canon.words import Ownership
from protocols.contract.records import ProfileId
from protocols.errors import ProtocolError
from protocols.privacy import MakerText
from protocols.profile.consumables import Consumable
from protocols.profile.firmware import SERIAL_METHODS, Firmware
from protocols.profile.options.callpad import CallPadOptions
from protocols.profile.options.card import CardOptions
from protocols.profile.options.ccid import CcidOptions
from protocols.profile.options.escpos import EscPosOptions, Quirks, Status
from protocols.profile.options.ipp import IppOptions
from protocols.profile.options.keys import KeysOptions
from protocols.profile.options.megatec import MegatecOptions
from protocols.profile.options.modbus import ModbusOptions
from protocols.profile.options.nmea import NmeaOptions
from protocols.profile.options.pcsc import PcscOptions
from protocols.profile.options.pjl import PjlOptions
from protocols.profile.options.presence import PresenceOptions
from protocols.profile.options.rating import RatingOptions
from protocols.profile.options.scanner import ScannerOptions
from protocols.profile.options.sdt import SdtOptions
from protocols.profile.places import Match, Poll, Transport, bus_of
from protocols.profile.tables import Table, hex_bytes

PROFILE_MAX_BYTES = 64 * 1024


class ProfileError(ProtocolError):
    """A profile that cannot be used; the message is `profile <id>: <path>: <rule>`."""


class Kind(StrEnum):
    """What a device is to the people who use it; the word of an inventory entry."""

    RECEIPT_PRINTER = "receipt-printer"
    A4_PRINTER = "a4-printer"
    ID_READER = "id-reader"
    SCANNER = "scanner"
    KEYPAD = "keypad"
    CALL_PAD = "call-pad"
    EVALUATOR = "evaluator"
    CLIMATE = "climate"
    CONTACTS = "contacts"
    CAMERA = "camera"
    DOCUMENT_CAMERA = "document-camera"
    FINGERPRINT_READER = "fingerprint-reader"
    SIGNATURE_PAD = "signature-pad"
    TOUCH_SCREEN = "touch-screen"
    DISPLAY = "display"
    MICROPHONE = "microphone"
    SPEAKER = "speaker"
    HELP_BUTTON = "help-button"
    EMERGENCY_BUTTON = "emergency-button"
    WINDOW_SCREEN = "window-screen"
    MODEM = "modem"
    CARD_READER = "card-reader"
    CARD_DISPENSER = "card-dispenser"
    UPS = "ups"
    GPS = "gps"


class Family(StrEnum):
    """Which codec and driver speak to it."""

    ESCPOS = "escpos"
    PJL = "pjl"
    USB_PRINTER = "usb-printer"
    SDT = "sdt"
    CCID = "ccid"
    PCSC = "pcsc"
    IPP = "ipp"
    CARD_F2 = "card-f2"
    CARD_STX = "card-stx"
    CARD_D1801 = "card-d1801"
    SCANNER_KEYBOARD = "scanner-keyboard"
    SCANNER_SERIAL = "scanner-serial"
    KEYS = "keys"
    CALLPAD = "callpad"
    MODBUS = "modbus"
    RATING_SERIAL = "rating-serial"
    PRESENCE = "presence"
    MEGATEC = "megatec"
    NMEA = "nmea"


FAULT_FAMILY: Mapping[Kind, str] = {
    Kind.RECEIPT_PRINTER: "PRN",
    Kind.A4_PRINTER: "LSR",
    Kind.ID_READER: "IDR",
    Kind.SCANNER: "SCN",
    Kind.KEYPAD: "KPD",
    Kind.CALL_PAD: "CAL",
    Kind.EVALUATOR: "EVA",
    Kind.CLIMATE: "ENV",
    Kind.CONTACTS: "ENV",
    Kind.CAMERA: "CAM",
    Kind.DOCUMENT_CAMERA: "DOC",
    Kind.FINGERPRINT_READER: "FPR",
    Kind.SIGNATURE_PAD: "SIG",
    Kind.TOUCH_SCREEN: "TCH",
    Kind.DISPLAY: "DSP",
    Kind.MICROPHONE: "AUD",
    Kind.SPEAKER: "AUD",
    Kind.HELP_BUTTON: "BTN",
    Kind.EMERGENCY_BUTTON: "BTN",
    Kind.WINDOW_SCREEN: "LED",
    Kind.MODEM: "NET",
    Kind.CARD_READER: "CRD",
    Kind.CARD_DISPENSER: "CRD",
    Kind.UPS: "PWR",
    Kind.GPS: "GPS",
}


class Profile(Table, frozen=True, kw_only=True):
    """One model, or one group of models that nobody can tell apart on the wire."""

    schema: Literal[1]
    id: ProfileId
    family: Family
    kind: Kind
    display_name: MakerText
    grade: Literal["verified", "expected", "known-bad"]
    """verified: a capture of a real unit is in the tests; expected: written from documents; known-bad: recognised, not to be bought."""
    source: MakerText
    limited: bool = False
    """The model shows only part of its state; pages say so instead of guessing."""
    ownership: Ownership = Ownership.OWNER
    """Default where the inventory does not say."""
    match: Annotated[tuple[Match, ...], Meta(min_length=1, max_length=32)]
    transport: Transport = Transport()
    poll: Poll | None = None
    escpos: EscPosOptions | None = None
    pjl: PjlOptions | None = None
    sdt: SdtOptions | None = None
    ccid: CcidOptions | None = None
    pcsc: PcscOptions | None = None
    ipp: IppOptions | None = None
    card: CardOptions | None = None
    scanner: ScannerOptions | None = None
    keys: KeysOptions | None = None
    callpad: CallPadOptions | None = None
    modbus: ModbusOptions | None = None
    rating: RatingOptions | None = None
    presence: PresenceOptions | None = None
    megatec: MegatecOptions | None = None
    nmea: NmeaOptions | None = None
    status: Annotated[tuple[Status, ...], Meta(max_length=16)] = ()
    consumable: Annotated[tuple[Consumable, ...], Meta(max_length=8)] = ()
    firmware: Firmware = Firmware()
    quirks: Quirks = Quirks()

    @property
    def fault_family(self) -> str:
        return FAULT_FAMILY[self.kind]

    def fault_code(self, condition: str) -> str:
        """Full code of a condition tail, `PAPER_OUT` to `PRN.PAPER_OUT`."""
        return f"{self.fault_family}.{condition}"


_FAMILY_RULES: Mapping[Family, tuple[frozenset[Kind], frozenset[str], str | None]] = {
    Family.ESCPOS: (frozenset({Kind.RECEIPT_PRINTER}), frozenset({"usb", "serial", "cdc"}), "escpos"),
    Family.PJL: (frozenset({Kind.A4_PRINTER}), frozenset({"usb"}), "pjl"),
    Family.USB_PRINTER: (frozenset({Kind.A4_PRINTER, Kind.RECEIPT_PRINTER}), frozenset({"usb"}), None),
    Family.SDT: (frozenset({Kind.ID_READER}), frozenset({"usb", "serial"}), "sdt"),
    Family.CCID: (frozenset({Kind.CARD_READER}), frozenset({"usb"}), "ccid"),
    Family.PCSC: (frozenset({Kind.CARD_READER}), frozenset({"pcsc"}), "pcsc"),
    Family.IPP: (frozenset({Kind.A4_PRINTER}), frozenset({"ipp"}), "ipp"),
    Family.CARD_F2: (frozenset({Kind.CARD_READER, Kind.CARD_DISPENSER}), frozenset({"serial", "cdc"}), "card"),
    Family.CARD_STX: (frozenset({Kind.CARD_READER}), frozenset({"serial", "cdc"}), "card"),
    Family.CARD_D1801: (frozenset({Kind.CARD_DISPENSER}), frozenset({"serial", "cdc"}), "card"),
    Family.SCANNER_KEYBOARD: (frozenset({Kind.SCANNER}), frozenset({"input"}), "scanner"),
    Family.SCANNER_SERIAL: (frozenset({Kind.SCANNER}), frozenset({"serial", "cdc"}), "scanner"),
    Family.KEYS: (
        frozenset({Kind.KEYPAD, Kind.EVALUATOR, Kind.HELP_BUTTON, Kind.EMERGENCY_BUTTON}),
        frozenset({"input"}),
        "keys",
    ),
    Family.CALLPAD: (
        frozenset({Kind.CALL_PAD, Kind.EVALUATOR, Kind.WINDOW_SCREEN}),
        frozenset({"serial", "cdc"}),
        "callpad",
    ),
    Family.RATING_SERIAL: (frozenset({Kind.EVALUATOR}), frozenset({"serial", "cdc"}), "rating"),
    Family.MODBUS: (frozenset({Kind.CLIMATE, Kind.CONTACTS}), frozenset({"serial"}), "modbus"),
    Family.MEGATEC: (frozenset({Kind.UPS}), frozenset({"usb", "serial"}), "megatec"),
    Family.NMEA: (frozenset({Kind.GPS}), frozenset({"serial", "cdc"}), "nmea"),
    Family.PRESENCE: (frozenset(Kind), frozenset({"usb", "video", "input", "sound", "display"}), "presence"),
}
"""Kinds, buses and the options table (with default values where it is left out) of each family."""


_OPTION_TABLES = (
    "presence", "rating", "escpos", "pjl", "sdt", "scanner", "keys", "callpad", "modbus", "megatec", "nmea",
    "ccid", "pcsc", "card", "ipp",
)  # fmt: skip


_DEFAULTS: Mapping[str, type[msgspec.Struct]] = {
    "escpos": EscPosOptions,
    "pjl": PjlOptions,
    "sdt": SdtOptions,
    "scanner": ScannerOptions,
    "keys": KeysOptions,
    "callpad": CallPadOptions,
    "rating": RatingOptions,
    "presence": PresenceOptions,
    "megatec": MegatecOptions,
    "nmea": NmeaOptions,
    "ccid": CcidOptions,
    "pcsc": PcscOptions,
    "ipp": IppOptions,
    "card": CardOptions,
}


_BUS_TRANSPORT = {"usb": "usb", "serial": "serial", "cdc": "serial", "input": "input"}


_POLLED = frozenset({
    Family.ESCPOS, Family.PJL, Family.USB_PRINTER, Family.SDT, Family.CALLPAD, Family.MODBUS, Family.MEGATEC,
    Family.NMEA, Family.CCID, Family.PCSC, Family.IPP, Family.CARD_F2, Family.CARD_STX, Family.CARD_D1801,
})  # fmt: skip


def parse_profile(raw: bytes, name: str) -> Profile:
    """Read one file called `name` (its path without `.toml`); ProfileError with the exact path of what is wrong."""
    who = name.rpartition("/")[2]
    if len(raw) > PROFILE_MAX_BYTES:
        raise ProfileError(f"profile {who}: larger than {PROFILE_MAX_BYTES // 1024} KiB")
    try:
        tree = tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as err:
        raise ProfileError(f"profile {who}: not UTF-8 at byte {err.start}") from None
    except tomllib.TOMLDecodeError as err:
        raise ProfileError(f"profile {who}: not TOML: {err}") from None
    except (RecursionError, ValueError):
        # tomllib lets Python's own limits through: deep nesting, numbers of thousands of digits.
        raise ProfileError(f"profile {who}: not TOML: a value is too deep or too long") from None
    return check_tree(tree, who)


def check_tree(tree: Mapping[str, Any], who: str) -> Profile:
    """The profile of a parsed file whose name is `who`; ProfileError with the exact path of what is wrong."""
    try:
        profile = _with_defaults(msgspec.convert(tree, Profile))
    except msgspec.ValidationError as err:
        raise ProfileError(f"profile {who}: {_located(str(err))}") from None
    for path, rule in _contradictions(profile, who):
        raise ProfileError(f"profile {who}: {path}: {rule}")
    return profile


def parse_all(files: Mapping[str, bytes]) -> dict[str, Profile]:
    """All profiles by id, from `{path without .toml: text}`; ProfileError for the first that is wrong or named like another."""
    profiles: dict[str, Profile] = {}
    for name, raw in sorted(files.items()):
        profile = parse_profile(raw, name)
        if profile.id in profiles:
            raise ProfileError(f"profile {profile.id}: id: there is another file with this name")
        profiles[profile.id] = profile
    return profiles


def json_schema() -> dict[str, Any]:
    """JSON Schema of a profile file, for editors and other implementations."""
    return msgspec.json.schema(Profile)


def _with_defaults(profile: Profile) -> Profile:
    """A family's options table is there even if the file leaves it out, so drivers need not care."""
    table = _FAMILY_RULES[profile.family][2]
    if table is not None and table in _DEFAULTS and getattr(profile, table) is None:
        return msgspec.structs.replace(profile, **{table: _DEFAULTS[table]()})
    return profile


def _contradictions(profile: Profile, name: str) -> Iterator[tuple[str, str]]:
    if profile.id != name:
        yield "id", f"{profile.id!r} differs from the file's name {name!r}"
    kinds, buses, table = _FAMILY_RULES[profile.family]
    if profile.kind not in kinds:
        yield "kind", f"{profile.kind} is not a kind of family {profile.family}"
    for index, rule in enumerate(profile.match):
        bus = bus_of(rule)
        if bus not in buses:
            yield f"match[{index}].bus", f"family {profile.family} is not spoken on {bus}"
        wanted = _BUS_TRANSPORT.get(bus)
        if wanted and profile.family is not Family.PRESENCE and getattr(profile.transport, wanted) is None:
            yield f"transport.{wanted}", f"missing, although match[{index}] names that bus"
    used = {_BUS_TRANSPORT.get(bus_of(rule)) for rule in profile.match}
    for bus in ("usb", "serial", "input"):
        if getattr(profile.transport, bus) is not None and bus not in used:
            yield f"transport.{bus}", "no match names that bus"
    for option in _OPTION_TABLES:
        if option != table and getattr(profile, option) is not None:
            yield option, f"family {profile.family} has no such table"
    if profile.poll is None and profile.family in _POLLED:
        yield "poll", "missing"
    yield from _status_contradictions(profile)
    if profile.firmware.method in SERIAL_METHODS and profile.transport.serial is None:
        yield "firmware.method", f"{profile.firmware.method} needs a serial line, and no match names one"
    if (
        profile.firmware.method == "usb-dfu"
        and profile.transport.usb is None
        and not {"cdc", "input"} & {bus_of(rule) for rule in profile.match}
    ):
        yield "firmware.method", "usb-dfu needs a USB device, and no match names one"
    if profile.family is Family.MODBUS:
        yield from _modbus_contradictions(profile)


def _status_contradictions(profile: Profile) -> Iterator[tuple[str, str]]:
    if profile.status and profile.family is not Family.ESCPOS:
        yield "status", f"family {profile.family} takes no status tables"
    if profile.status and profile.escpos and (profile.escpos.auto_status or profile.escpos.dialect == "star"):
        yield "status", "a reply of its own form cannot be told from an automatic status: needs escpos.auto_status = false"
    for i, status in enumerate(profile.status):
        if not any(hex_bytes(status.query).startswith(prefix) for prefix in _STATUS_QUERIES):
            yield f"status[{i}].query", "not a status question of ESC/POS or Star"
        for j, fixed in enumerate(status.valid):
            if fixed.at >= status.reply_bytes:
                yield f"status[{i}].valid[{j}].at", f"outside a reply of {status.reply_bytes} bytes"
        for j, bit in enumerate(status.bits):
            if bit.at >= status.reply_bytes:
                yield f"status[{i}].bits[{j}].at", f"outside a reply of {status.reply_bytes} bytes"
            if profile.fault_code(bit.condition) not in FAULTS:
                yield f"status[{i}].bits[{j}].condition", f"{profile.fault_code(bit.condition)} is not in the fault catalogue"
            for fixed in status.valid:
                if fixed.at == bit.at and (fixed.value ^ bit.value) & fixed.mask & bit.mask:
                    yield f"status[{i}].bits[{j}].value", "contradicts the reply's fixed bits, so it can never be met"


_STATUS_QUERIES = (b"\x10\x04", b"\x1d\x72", b"\x1b\x76", b"\x1b\x1e\x61", b"\x1b\x06\x01", b"\x05")
"""DLE EOT, GS r, ESC v; Star's ESC RS a, ESC ACK SOH and ENQ. Nothing here can move paper or print."""


def _modbus_contradictions(profile: Profile) -> Iterator[tuple[str, str]]:
    options = profile.modbus
    if options is None:
        yield "modbus", "missing"
        return
    for index, value in enumerate(options.value):
        if value.read >= len(options.read):
            yield f"modbus.value[{index}].read", f"there is no modbus.read[{value.read}]"
        elif value.register >= options.read[value.read].count:
            yield f"modbus.value[{index}].register", f"outside modbus.read[{value.read}]"
        elif options.read[value.read].function in (1, 2):
            yield f"modbus.value[{index}].read", "reads bits, a quantity needs registers"
    for index, contact in enumerate(options.input):
        if contact.read >= len(options.read):
            yield f"modbus.input[{index}].read", f"there is no modbus.read[{contact.read}]"
        elif contact.index >= options.read[contact.read].count:
            yield f"modbus.input[{index}].index", f"outside modbus.read[{contact.read}]"
    if profile.kind is Kind.CLIMATE and not options.value:
        yield "modbus.value", "missing: a climate module measures something"
    if profile.kind is Kind.CONTACTS and not options.input:
        yield "modbus.input", "missing: a contact module has inputs"


def _located(text: str) -> str:
    """`Expected `int`, got `str` - at `$.status[1].bits[0].mask`` becomes `status[1].bits[0].mask: expected `int`, got `str``."""
    rule, found, path = text.rpartition(" - at `$")
    if not found:
        rule, path = text, ""
    path = path.rstrip("`").lstrip(".")
    rule = rule[:1].lower() + rule[1:]
    return f"{path}: {rule}" if path else rule
