"""The strict form of a profile file (TOML). Unknown keys, wrong types and contradictions are refused with the exact path.

A profile decides which bytes reach hardware. It therefore travels inside signed artefacts, and it cannot name a question that asks for a card,
a scan or a print: queries are limited to the status forms of their family.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from protocols.canon.faults import FAULTS
from protocols.canon.words import Ownership
from protocols.codecs.callpad import FrameRules, PadAction
from protocols.codecs.escpos import MechanicalBit
from protocols.codecs.modbus import ReadRequest
from protocols.contract.records import ProfileId
from protocols.errors import EncodeError, ProtocolError
from protocols.privacy import MakerText

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


class Family(StrEnum):
    """Which codec and driver speak to it."""

    ESCPOS = "escpos"
    PJL = "pjl"
    USB_PRINTER = "usb-printer"
    SDT = "sdt"
    SCANNER_KEYBOARD = "scanner-keyboard"
    SCANNER_SERIAL = "scanner-serial"
    KEYS = "keys"
    CALLPAD = "callpad"
    MODBUS = "modbus"
    PRESENCE = "presence"


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
}

HexText = Annotated[str, Meta(pattern=r"^[0-9a-f]{2}( [0-9a-f]{2}){0,31}$")]
"""`10 04 04`: lower case, one blank between bytes."""
HexOrNone = Annotated[str, Meta(pattern=r"^([0-9a-f]{2}( [0-9a-f]{2}){0,7})?$")]
Word16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
Byte = Annotated[int, Meta(ge=0, le=0xFF)]
Regex = Annotated[str, Meta(pattern=r"^\^", max_length=160)]
"""Anchored at the start, so that it cannot match somewhere in the middle of another maker's text."""
Millis = Annotated[int, Meta(ge=1, le=120_000)]
Version = Annotated[str, Meta(pattern=r"^(?!.*[0-9]{9})[A-Za-z0-9][A-Za-z0-9 ._+()/:~-]{0,63}\Z")]


def hex_bytes(text: HexText) -> bytes:
    return bytes.fromhex(text)


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file: immutable, and unknown keys are refused."""


# --- who it is ---


class UsbId(_Table, frozen=True, kw_only=True):
    vid: Word16
    pid: Word16


class UsbMatch(_Table, frozen=True, kw_only=True, tag_field="bus", tag="usb"):
    """A USB device. Without `pid` the product text must tell the model."""

    vid: Word16
    pid: Word16 | None = None
    serial: Regex | None = None
    product: Regex | None = None

    def __post_init__(self) -> None:
        if self.pid is None and self.product is None:
            raise ValueError("needs pid or product")
        _compile(self.serial, "serial")
        _compile(self.product, "product")


class Probe(_Table, frozen=True, kw_only=True):
    """A harmless question that only this family answers. Sent only to a port that the terminal's inventory lists."""

    send: HexText
    reply: Annotated[str, Meta(pattern=r"^\^", max_length=160)]
    """Regular expression over the reply's hex digits, lower case without blanks."""
    within_ms: Millis
    bauds: Annotated[tuple[Annotated[int, Meta(ge=300, le=921600)], ...], Meta(max_length=8)] = ()
    """Speeds to try in order; empty: the transport's."""

    def __post_init__(self) -> None:
        _compile(self.reply, "reply")


class SerialMatch(_Table, frozen=True, kw_only=True, tag_field="bus", tag="serial"):
    """A serial port. An adapter identifies nobody, so the device is asked (`probe`) or the inventory decides (the others)."""

    adapters: Annotated[tuple[UsbId, ...], Meta(max_length=16)] = ()
    """Empty: any serial port."""
    probe: Probe | None = None
    by_slot: bool = False
    """Only where the inventory names this kind at this port."""
    by_name: bool = False
    """Only where the inventory names this very profile."""

    def __post_init__(self) -> None:
        if (self.probe is not None) + self.by_slot + self.by_name != 1:
            raise ValueError("needs one of probe, by_slot and by_name")


class CdcMatch(_Table, frozen=True, kw_only=True, tag_field="bus", tag="cdc"):
    """A serial port whose USB ids are the device's own (CDC-ACM), so they identify it."""

    vid: Word16
    pid: Word16


class InputMatch(_Table, frozen=True, kw_only=True, tag_field="bus", tag="input"):
    """An evdev node, by ids or by name."""

    vid: Word16 | None = None
    pid: Word16 | None = None
    product: Regex | None = None

    def __post_init__(self) -> None:
        if self.product is None and (self.vid is None or self.pid is None):
            raise ValueError("needs vid and pid, or product")
        _compile(self.product, "product")


class VideoMatch(_Table, frozen=True, kw_only=True, tag_field="bus", tag="video"):
    vid: Word16
    pid: Word16


Match = UsbMatch | SerialMatch | CdcMatch | InputMatch | VideoMatch


# --- how to reach it ---


class UsbTransport(_Table, frozen=True, kw_only=True):
    """Which interface to claim. What is not named is taken from the descriptors."""

    interface: Byte | None = None
    alternate: Byte | None = None
    out_endpoint: Byte | None = None
    in_endpoint: Byte | None = None
    detach_kernel_driver: bool = True
    read_timeout_ms: Millis = 500


class SerialTransport(_Table, frozen=True, kw_only=True):
    baud: Annotated[int, Meta(ge=300, le=921600)]
    data_bits: Literal[7, 8] = 8
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = 1
    flow_control: Literal["none", "rtscts", "dsrdtr", "xonxoff"] = "none"
    local_echo: bool = False
    """The adapter hears itself."""
    read_timeout_ms: Millis = 500


class InputTransport(_Table, frozen=True, kw_only=True):
    grab: bool = False
    """Take the keys away from the desktop. Only where the kiosk application reads them through the agent."""


class Transport(_Table, frozen=True, kw_only=True):
    """One table per bus that a match names."""

    usb: UsbTransport | None = None
    serial: SerialTransport | None = None
    input: InputTransport | None = None


class Poll(_Table, frozen=True, kw_only=True):
    every_s: Annotated[float, Meta(ge=0.05, le=3600)]
    offline_after_misses: Annotated[int, Meta(ge=1, le=100)] = 3
    wake_timeout_ms: Millis | None = None
    """A sleeping device may take this long for its first answer."""


# --- what its bytes mean ---


class Bit(_Table, frozen=True, kw_only=True):
    """`condition` holds where the byte at `at`, masked, equals `value`."""

    at: Annotated[int, Meta(ge=0, le=63)] = 0
    mask: Annotated[int, Meta(ge=1, le=0xFF)]
    value: Byte
    condition: Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9_]{1,31}$")]

    def __post_init__(self) -> None:
        if self.value & ~self.mask:
            raise ValueError(f"value {self.value:#04x} has bits outside mask {self.mask:#04x}, so it can never be met")


class Fixed(_Table, frozen=True, kw_only=True):
    """Bits that are constant in every sound reply; they turn noise into `unknown` instead of a fault."""

    at: Annotated[int, Meta(ge=0, le=63)] = 0
    mask: Annotated[int, Meta(ge=1, le=0xFF)]
    value: Byte

    def __post_init__(self) -> None:
        if self.value & ~self.mask:
            raise ValueError(f"value {self.value:#04x} has bits outside mask {self.mask:#04x}, so no reply is valid")


class Status(_Table, frozen=True, kw_only=True):
    """A status question beside those of the family, and the bits of its reply."""

    query: HexText
    reply_bytes: Annotated[int, Meta(ge=1, le=64)]
    valid: Annotated[tuple[Fixed, ...], Meta(max_length=64)] = ()
    bits: Annotated[tuple[Bit, ...], Meta(min_length=1, max_length=64)]


class EscPosOptions(_Table, frozen=True, kw_only=True):
    queries: Annotated[tuple[Literal[1, 2, 3, 4], ...], Meta(min_length=1, max_length=4)] = (1, 2, 3, 4)
    """Which DLE EOT questions the model answers."""
    auto_status: bool = True
    near_end_sensor: bool = True
    mechanical_bit: MechanicalBit = MechanicalBit.JAM
    fence: Literal["process-id", "gs-r", "none"] = "gs-r"
    """How to learn that a job is on paper."""
    identity: bool = True
    """Answers GS I 65-68."""


class PjlOptions(_Table, frozen=True, kw_only=True):
    unsolicited: bool = True
    page_count: bool = True


class SdtOptions(_Table, frozen=True, kw_only=True):
    bauds: Annotated[tuple[Literal[115200, 57600, 38400, 19200, 9600], ...], Meta(min_length=1, max_length=5)] = (
        115200, 57600, 38400, 19200, 9600,
    )  # fmt: skip


class OtherMode(_Table, frozen=True, kw_only=True):
    """The same unit after a setup code switched its interface."""

    vid: Word16
    pid: Word16
    mode: Literal["keyboard", "serial", "hid-pos"]


class ScannerOptions(_Table, frozen=True, kw_only=True):
    terminators: Annotated[
        tuple[Literal["enter", "kpEnter", "tab", "cr", "lf", "etx"], ...], Meta(min_length=1, max_length=6)
    ] = ("enter",)
    """What ends a code as the unit is set up here; others count as a lost suffix."""
    dialect: Literal["unified", "zone", "none"] = "none"
    """How a unit in serial mode is asked: Newland unified commands, the older engines' zone reads, or not at all."""
    other_mode: Annotated[tuple[OtherMode, ...], Meta(max_length=16)] = ()


class NamedKey(_Table, frozen=True, kw_only=True):
    code: Annotated[int, Meta(ge=1, le=767)]
    name: Annotated[str, Meta(pattern=r"^[a-z]{2,24}(-[a-z]{1,24}){0,3}(-[0-9])?$")]
    rating: Annotated[int, Meta(ge=1, le=5)] | None = None


class KeysOptions(_Table, frozen=True, kw_only=True):
    """Only named keys are ever told apart; a citizen's keypad names none."""

    key: Annotated[tuple[NamedKey, ...], Meta(max_length=32)] = ()
    stuck_after_s: Annotated[float, Meta(ge=1, le=600)] = 10.0

    def __post_init__(self) -> None:
        codes = [key.code for key in self.key]
        if len(codes) != len(set(codes)):
            raise ValueError("a key code is named twice")

    def names(self) -> dict[int, str]:
        return {key.code: key.name for key in self.key}

    def ratings(self) -> dict[str, int]:
        return {key.name: key.rating for key in self.key if key.rating is not None}


class CallPadOptions(_Table, frozen=True, kw_only=True):
    """Framing, functions and keys of one vendor; defaults in `codecs.callpad`."""

    start: HexText = "ff 68"
    length: Literal["double", "single", "fixed"] = "double"
    fixed_bytes: Annotated[int, Meta(ge=0, le=64)] = 0
    separator: HexOrNone = "68"
    checksum: Literal["sum8", "xor8", "none"] = "sum8"
    sum_from_length: bool = False
    end: HexOrNone = "16"
    poll_function: Byte = 0x01
    key_function: Byte = 0x01
    display_function: Byte = 0x02
    rating_function: Byte = 0x11
    keys: dict[str, str] | None = None
    """Key code as two hex digits to an action of `codecs.callpad.PadAction` or a digit."""
    ratings: dict[str, int] | None = None
    """Rating byte as two hex digits to a level 0-5."""
    addresses: Annotated[tuple[Annotated[int, Meta(ge=0, le=255)], ...], Meta(min_length=1, max_length=64)] = (1,)
    """Pads to poll where the inventory names no address."""
    polled: bool = False
    """Keys wait for the poll; otherwise the pad sends them by itself."""
    echo_ack: bool = True
    """Each frame is acknowledged by sending it back."""

    def __post_init__(self) -> None:
        for code, action in (self.keys or {}).items():
            _hex_key(code, "keys")
            if action not in _PAD_WORDS:
                raise ValueError(f"keys: {action!r} is neither a digit nor an action")
        for code, level in (self.ratings or {}).items():
            _hex_key(code, "ratings")
            if not 0 <= level <= 5:
                raise ValueError(f"ratings: {level} is not a level 0-5")
        try:
            self.rules()
        except EncodeError as err:
            raise ValueError(str(err)) from None

    def rules(self) -> FrameRules:
        standard = FrameRules()
        return FrameRules(
            start=hex_bytes(self.start),
            length=self.length,
            fixed_bytes=self.fixed_bytes,
            separator=bytes.fromhex(self.separator),
            checksum=self.checksum,
            sum_from_length=self.sum_from_length,
            end=bytes.fromhex(self.end),
            poll_function=self.poll_function,
            key_function=self.key_function,
            display_function=self.display_function,
            rating_function=self.rating_function,
            keys=standard.keys if self.keys is None else {int(code, 16): word for code, word in self.keys.items()},
            ratings=standard.ratings if self.ratings is None else {int(code, 16): level for code, level in self.ratings.items()},
        )


class ModbusRead(_Table, frozen=True, kw_only=True):
    """One question; `start` is the address on the wire, counted from 0."""

    function: Literal[1, 2, 3, 4]
    start: Word16
    count: Annotated[int, Meta(ge=1, le=2000)]

    def __post_init__(self) -> None:
        try:
            self.request(1)
        except EncodeError as err:
            raise ValueError(str(err)) from None

    def request(self, address: int) -> ReadRequest:
        return ReadRequest(address, self.function, self.start, self.count)


class ModbusValue(_Table, frozen=True, kw_only=True):
    """A quantity in tenths of its unit; outside [alarm_below_tenths, alarm_above_tenths] it is a fault."""

    quantity: Literal["temperature", "humidity"]
    read: Annotated[int, Meta(ge=0, le=15)] = 0
    register: Annotated[int, Meta(ge=0, le=124)]
    """Index in the answer, from 0."""
    signed: bool = True
    alarm_below_tenths: int | None = None
    alarm_above_tenths: int | None = None


class ModbusInput(_Table, frozen=True, kw_only=True):
    """A contact. `ok_when` tells the state of the healthy wire: closed, so that a cut wire raises the alarm."""

    name: Literal["door", "tamper", "water", "smoke", "mains"]
    read: Annotated[int, Meta(ge=0, le=15)] = 0
    index: Annotated[int, Meta(ge=0, le=1999)]
    ok_when: Literal["closed", "open"] = "closed"


class ModbusOptions(_Table, frozen=True, kw_only=True):
    address: Annotated[int, Meta(ge=1, le=247)] = 1
    """Factory address, where the inventory names none."""
    read: Annotated[tuple[ModbusRead, ...], Meta(min_length=1, max_length=16)]
    value: Annotated[tuple[ModbusValue, ...], Meta(max_length=8)] = ()
    input: Annotated[tuple[ModbusInput, ...], Meta(max_length=32)] = ()


# --- what it uses up, and its firmware ---


class Consumable(_Table, frozen=True, kw_only=True):
    name: Literal["paper", "roll", "toner", "drum", "ribbon", "cards", "booklets", "labels"]
    unit: Literal["sheet", "mm", "percent", "piece"]
    capacity: Annotated[int, Meta(ge=1, le=10_000_000)]
    counts: Literal["pages", "printed-length-mm", "jobs", "sensor"]
    per_job: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    """Units that one job takes on average, where only jobs can be counted."""
    warn_below_pct: Annotated[int, Meta(ge=1, le=99)] = 15

    def __post_init__(self) -> None:
        if (self.counts == "jobs") != (self.per_job is not None):
            raise ValueError('per_job belongs to counts = "jobs" and only there')


class KnownBad(_Table, frozen=True, kw_only=True):
    version: Version
    reason: MakerText


FlashMethod = Literal["xmodem", "xmodem-1k", "ymodem", "usb-dfu"]
"""Methods by which the agent itself writes firmware."""
SERIAL_METHODS = frozenset({"xmodem", "xmodem-1k", "ymodem"})
FLASH_METHODS = SERIAL_METHODS | {"usb-dfu"}
NAMED_GROUPS = ("part", "version")


class Exchange(_Table, frozen=True, kw_only=True):
    """One question and the form of its answer. Without `send` the device speaks by itself (a boot loader's banner)."""

    send: HexText | None = None
    reply: Annotated[str, Meta(pattern=r"^\^", max_length=320)] | None = None
    """Regular expression over the reply's hex digits, lower case without blanks. A group named `part` or `version` holds ASCII text."""
    within_ms: Millis = 1000

    def __post_init__(self) -> None:
        if self.send is None and self.reply is None:
            raise ValueError("needs send, reply or both")
        _compile(self.reply, "reply")
        strange = self.groups() - set(NAMED_GROUPS)
        if strange:
            raise ValueError(f"reply: group {min(strange)!r} is neither part nor version")

    def groups(self) -> set[str]:
        return set() if self.reply is None else set(re.compile(self.reply).groupindex)

    def fits(self, reply: bytes) -> bool:
        return self.reply is None or re.match(self.reply, reply.hex()) is not None

    def text(self, reply: bytes, group: Literal["part", "version"]) -> str | None:
        """What the group of that name holds, as ASCII without blanks and zero bytes around it; None if the reply does not fit or is no text."""
        found = None if self.reply is None else re.match(self.reply, reply.hex())
        digits = found.groupdict().get(group) if found else None
        try:
            return None if not digits else bytes.fromhex(digits).decode("ascii").strip(" \x00\r\n\t")
        except (ValueError, UnicodeDecodeError):
            return None


class DfuOptions(_Table, frozen=True, kw_only=True):
    """Where a USB DFU boot loader stores the image (USB DFU 1.1; `address` for the DfuSe form of ST, AN3156)."""

    alt: Byte = 0
    address: Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)] | None = None
    reset: bool = True
    """The boot loader starts the new firmware after a USB reset; otherwise by itself."""


class Firmware(_Table, frozen=True, kw_only=True):
    """How the unit's firmware is read and changed. A version that is neither good nor bad is unknown.

    Of the methods the agent itself does xmodem, xmodem-1k, ymodem and usb-dfu; for the others a person comes.
    """

    method: Literal["none", "vendor-tool", "setup-code"] | FlashMethod = "none"
    version_query: HexText | None = None
    version_format: Literal["plain", "triplet", "pair", "number", "date"] = "plain"
    known_good: Annotated[tuple[Version, ...], Meta(max_length=64)] = ()
    known_bad: Annotated[tuple[KnownBad, ...], Meta(max_length=64)] = ()
    min_current_version: Version | None = None
    bootloader: UsbId | None = None
    """USB ids of the unit while its boot loader runs, where they change: the unit is then plugged in anew at the same USB port."""
    part_number: Version | None = None
    """What the unit must call itself, so that nothing is written into another one."""
    enter: Exchange | None = None
    """Makes the running firmware start its boot loader. Left out for usb-dfu: dfu-util detaches by the standard's own request."""
    identify: Exchange | None = None
    """How a serial boot loader shows that it is there: a banner or an answer, with a group `part` where it names the part number."""
    start: Exchange | None = None
    """What makes the boot loader wait for the file, where it does not wait from the beginning."""
    part: Exchange | None = None
    """Asks the running firmware for its part number (group `part`)."""
    version: Exchange | None = None
    """Asks the running firmware for its version (group `version`): before, and to read back afterwards."""
    line: SerialTransport | None = None
    """Line settings of the boot loader, where they differ from the transport's."""
    pad: Byte = 0x1A
    """Fills the last XMODEM block; YMODEM tells the true length."""
    dfu: DfuOptions | None = None
    install_duration_s: Annotated[int, Meta(ge=1, le=7200)] | None = None
    """The longest that transfer and storing may take."""
    replug_timeout_s: Annotated[int, Meta(ge=1, le=600)] | None = None
    """The longest until the unit is back: as its boot loader, and with its new firmware."""

    def __post_init__(self) -> None:
        both = set(self.known_good) & {bad.version for bad in self.known_bad}
        if both:
            raise ValueError(f"version {min(both)} is both good and bad")
        if self.method in FLASH_METHODS:
            self._check_flash()
        else:
            stray = [name for name in _OF_FLASHING if getattr(self, name) is not None]
            if stray:
                raise ValueError(f"{stray[0]} has no effect with method {self.method}")

    def verdict(self, version: str) -> Literal["good", "bad", "unknown"]:
        if any(bad.version == version for bad in self.known_bad):
            return "bad"
        return "good" if version in self.known_good else "unknown"

    @property
    def flashable(self) -> bool:
        """The agent can write it."""
        return self.method in FLASH_METHODS

    def _check_flash(self) -> None:
        needed: tuple[str, ...] = ("bootloader",) if self.method == "usb-dfu" else ("enter", "identify")
        needed += ("part_number", "version", "install_duration_s", "replug_timeout_s")
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(
                f"{self.method} needs {' and '.join((', '.join(missing[:-1]), missing[-1]) if missing[1:] else missing)}"
            )
        foreign = ("start", "identify", "line") if self.method == "usb-dfu" else ("dfu",)
        stray = [name for name in foreign if getattr(self, name) is not None]
        if stray:
            raise ValueError(f"{stray[0]} does not belong to method {self.method}")
        for name, group in (("version", "version"), ("part", "part")):
            exchange: Exchange | None = getattr(self, name)
            if exchange is not None and group not in exchange.groups():
                raise ValueError(f"{name}: the reply needs a group named {group}")
        if self.enter is not None and self.enter.send is None:
            raise ValueError("enter: needs send")
        names_part = self.part is not None or (self.identify is not None and "part" in self.identify.groups())
        if not names_part:
            raise ValueError("the part number is asked nowhere: part, or a group part in identify")


_OF_FLASHING = ("part_number", "enter", "identify", "start", "part", "version", "line", "dfu")


class Quirks(_Table, frozen=True, kw_only=True):
    """Declared deviations; each is read by a driver."""

    port_status_is_constant: bool = False
    """GET_PORT_STATUS answers the same byte whatever happens: it proves presence only."""


class Profile(_Table, frozen=True, kw_only=True):
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
    scanner: ScannerOptions | None = None
    keys: KeysOptions | None = None
    callpad: CallPadOptions | None = None
    modbus: ModbusOptions | None = None
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
    Family.SCANNER_KEYBOARD: (frozenset({Kind.SCANNER}), frozenset({"input"}), "scanner"),
    Family.SCANNER_SERIAL: (frozenset({Kind.SCANNER}), frozenset({"serial", "cdc"}), "scanner"),
    Family.KEYS: (frozenset({Kind.KEYPAD, Kind.EVALUATOR}), frozenset({"input"}), "keys"),
    Family.CALLPAD: (frozenset({Kind.CALL_PAD, Kind.EVALUATOR}), frozenset({"serial", "cdc"}), "callpad"),
    Family.MODBUS: (frozenset({Kind.CLIMATE, Kind.CONTACTS}), frozenset({"serial"}), "modbus"),
    Family.PRESENCE: (frozenset(Kind), frozenset({"usb", "video", "input"}), None),
}
"""Kinds, buses and the options table (with default values where it is left out) of each family."""
_OPTION_TABLES = ("escpos", "pjl", "sdt", "scanner", "keys", "callpad", "modbus")
_DEFAULTS: Mapping[str, type[msgspec.Struct]] = {
    "escpos": EscPosOptions,
    "pjl": PjlOptions,
    "sdt": SdtOptions,
    "scanner": ScannerOptions,
    "keys": KeysOptions,
    "callpad": CallPadOptions,
}
_BUS_TRANSPORT = {"usb": "usb", "serial": "serial", "cdc": "serial", "input": "input"}
_PAD_WORDS = frozenset({str(action) for action in PadAction} | {str(digit) for digit in range(10)})
_POLLED = frozenset({Family.ESCPOS, Family.PJL, Family.USB_PRINTER, Family.SDT, Family.CALLPAD, Family.MODBUS})


def bus_of(rule: Match) -> str:
    return str(rule.__struct_config__.tag)


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


def _compile(pattern: str | None, where: str) -> None:
    if pattern is not None:
        try:
            re.compile(pattern)
        except re.error as err:
            raise ValueError(f"{where}: not a regular expression ({err.msg})") from None


def _hex_key(code: str, where: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{2}", code):
        raise ValueError(f"{where}: {code!r} is not two lower-case hex digits")
