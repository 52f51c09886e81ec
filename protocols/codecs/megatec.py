"""UPS status after Megatec's protocol (Q1, F, I): 2400 8N1, or carried in the reports of a USB HID bridge. Asks three questions and nothing else.

Sources: Megatec Systems, "UPS communication protocol" V1.1 (status `Q1`, ratings `F`, identity `I`, bit meanings); Network UPS Tools, driver
nutdrv_qx, subdrivers megatec and cypress (answer lengths, SET_REPORT in chunks of eight). The protocol's tests and shutdowns are commands of the
same line; they have no encoder here. The protocol has no check value, so an answer counts only if every one of its characters is in its place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from protocols.codecs.common import Explanation, StreamDecoder
from protocols.errors import DeviceRefused, EncodeError, FrameError, UnexpectedReply

CODEC = "megatec"
ANSWER_TIMEOUT_S = 1.0
USB_WRITE_TIMEOUT_S = 5.0
LINE_MAX_BYTES = 80
"""The longest answer has 47 characters. Beyond this no end of line is waited for."""
USB_CHUNK_BYTES = 8
SET_REPORT = (0x21, 0x09, 0x0200, 0)
"""bmRequestType, bRequest, wValue (output report 0), wIndex."""


class Query(Enum):
    """All that can be asked."""

    STATUS = b"Q1\r"
    RATING = b"F\r"
    IDENTITY = b"I\r"


def encode(query: Query) -> bytes:
    if not isinstance(query, Query):
        raise EncodeError("only status, ratings and identity can be asked")
    return query.value


def usb_chunks(query: Query) -> tuple[bytes, ...]:
    """The question in output reports of eight bytes, filled with zeros."""
    line = encode(query)
    return tuple(line[at : at + USB_CHUNK_BYTES].ljust(USB_CHUNK_BYTES, b"\x00") for at in range(0, len(line), USB_CHUNK_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The eight digits, b7 first."""

    utility_fail: bool
    battery_low: bool
    bypass_or_boost: bool
    """Bypass of an online unit, boost or buck of a line-interactive one: the protocol has one bit for the three."""
    failed: bool
    line_interactive: bool
    testing: bool
    shutting_down: bool
    beeper: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Tenths of V, Hz and °C; None where the unit measures nothing. `battery_mv` is of the pack or of one cell (`per_cell`)."""

    input_tenths: int | None
    fault_tenths: int | None
    output_tenths: int | None
    load_pct: int | None
    frequency_tenths: int | None
    battery_mv: int | None
    per_cell: bool
    temperature_tenths: int | None
    flags: Flags
    reply: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """Tenths of V and Hz, A; None where the unit says nothing."""

    voltage_tenths: int | None
    current_a: int | None
    battery_tenths: int | None
    frequency_tenths: int | None
    reply: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    maker: str
    model: str
    version: str
    reply: bytes = field(repr=False)


class Echo(DeviceRefused):
    """The unit sent the question back: it does not know it."""


class NotKnown(DeviceRefused):
    """The unit said N or NAK."""


class MegatecReader(StreamDecoder[Status | Rating | Identity]):
    """Reads the answer to the question named by `expect`. Raises Echo, NotKnown, FrameError for a line that is no answer, UnexpectedReply."""

    def __init__(self) -> None:
        super().__init__()
        self._query = Query.STATUS

    def expect(self, query: Query) -> None:
        """Forget what came before and wait for the answer to `query`."""
        self.reset()
        self._query = query

    def give_up(self) -> FrameError | None:
        """After the timeout: what an unfinished line amounts to, None if nothing came."""
        seen = bytes(self._buffer[:LINE_MAX_BYTES]).strip(b"\x00")
        self.reset()
        return FrameError(f"{len(seen)} bytes without an end of line", evidence=_shown(seen)) if seen else None

    def _parse(self) -> Status | Rating | Identity | None:
        padding = len(self._buffer) - len(self._buffer.lstrip(b"\x00\n"))
        if padding:
            self._discard(padding)
        end = self._buffer.find(b"\r")
        if end < 0 or end > LINE_MAX_BYTES:
            if len(self._buffer) <= LINE_MAX_BYTES:
                return None
            seen = bytes(self._buffer[:LINE_MAX_BYTES])
            self._discard(len(self._buffer) if end < 0 else end + 1)
            raise FrameError("a line without an end", evidence=_shown(seen))
        return self._read(self._take(end + 1))

    def _read(self, line: bytes) -> Status | Rating | Identity:
        body = line[:-1]
        if body == encode(self._query)[:-1]:
            raise Echo("the question came back", code=0, evidence=line)
        if body.lstrip(b"(#") in _REFUSALS:
            raise NotKnown("the unit does not know the question", code=1, evidence=line)
        answer = read_answer(line)
        if answer is None:
            raise FrameError(f"a line of {len(line)} characters that is no answer", evidence=_shown(line))
        if not isinstance(answer, _ANSWERS[self._query]):
            raise UnexpectedReply("the answer to another question", evidence=line)
        return answer


_REFUSALS = frozenset({b"N", b"NAK"})
_STATUS = re.compile(
    rb"\((?P<input>[0-9]{3}\.[0-9]|---\.-) (?P<fault>[0-9]{3}\.[0-9]|---\.-) (?P<output>[0-9]{3}\.[0-9]|---\.-) (?P<load>[0-9]{3}|---)"
    rb" (?P<hertz>[0-9]{2}\.[0-9]|--\.-) (?P<battery>[0-9]{2}\.[0-9]|[0-9]\.[0-9]{2}|--\.-|-\.--)"
    rb" (?P<celsius>[0-9]{2}\.[0-9]|--\.-) (?P<flags>[01]{8})\r"
)
_RATING = re.compile(
    rb"#(?P<volt>[0-9]{3}\.[0-9]|---\.-) (?P<ampere>[0-9]{3}|---) (?P<battery>[0-9]{3}\.[0-9]|[0-9]{2}\.[0-9]{2}|---\.-|--\.--)"
    rb" (?P<hertz>[0-9]{2}\.[0-9]|--\.-)\r"
)
_IDENTITY = re.compile(rb"#(?P<maker>[\x20-\x7e]{15}) (?P<model>[\x20-\x7e]{10}) (?P<version>[\x20-\x7e]{10})\r")
_ANSWERS: dict[Query, type] = {Query.STATUS: Status, Query.RATING: Rating, Query.IDENTITY: Identity}


def read_answer(line: bytes) -> Status | Rating | Identity | None:
    """The meaning of one whole line with its carriage return; None if it is none of the three answers to the last character."""
    if found := _STATUS.fullmatch(line):
        digits = [digit == 0x31 for digit in found["flags"]]
        names = (
            "utility_fail", "battery_low", "bypass_or_boost", "failed", "line_interactive", "testing", "shutting_down", "beeper",
        )  # fmt: skip
        return Status(
            input_tenths=_scaled(found["input"], 10),
            fault_tenths=_scaled(found["fault"], 10),
            output_tenths=_scaled(found["output"], 10),
            load_pct=_scaled(found["load"], 1),
            frequency_tenths=_scaled(found["hertz"], 10),
            battery_mv=_scaled(found["battery"], 1000),
            per_cell=found["battery"][1:2] == b".",
            temperature_tenths=_scaled(found["celsius"], 10),
            flags=Flags(**dict(zip(names, digits, strict=True))),
            reply=line,
        )
    if found := _RATING.fullmatch(line):
        return Rating(
            voltage_tenths=_scaled(found["volt"], 10),
            current_a=_scaled(found["ampere"], 1),
            battery_tenths=_scaled(found["battery"], 10),
            frequency_tenths=_scaled(found["hertz"], 10),
            reply=line,
        )
    if found := _IDENTITY.fullmatch(line):
        return Identity(
            maker=found["maker"].decode("ascii").strip(),
            model=found["model"].decode("ascii").strip(),
            version=found["version"].decode("ascii").strip(),
            reply=line,
        )
    return None


_MEASURED = re.compile(rb"[(#][0-9., -]*\r?")


def _shown(line: bytes) -> bytes:
    """A line that is no answer, for evidence: blanked unless it looks like a UPS's figures. A port has no name, and what is plugged in there by
    mistake may be a scanner."""
    return line if _MEASURED.fullmatch(line) else bytes(len(line))


def conditions_of(status: Status, *, overload_above_pct: int = 100) -> tuple[str, ...]:
    """Tails of fault codes, most decisive first. A unit's own test runs on the battery and is no outage: it keeps the utility bit at 0."""
    flags = status.flags
    found = []
    if flags.failed:
        found.append("UPS_FAILED")
    if flags.utility_fail:
        found.append("ON_BATTERY")
    if flags.battery_low:
        found.append("BATTERY_LOW")
    if status.load_pct is not None and status.load_pct > overload_above_pct:
        found.append("OVERLOAD")
    if flags.bypass_or_boost and not flags.line_interactive and not flags.utility_fail:
        found.append("BYPASS")
    return tuple(found)


CELL_V = 2
"""A lead cell's nominal voltage; a pack of 24 V has twelve."""


def battery_of(status: Status, nominal_tenths: int | None) -> tuple[int | None, int | None]:
    """(millivolts of the pack, millivolts of one cell); each None where it cannot be known without the nominal voltage."""
    if status.battery_mv is None:
        return None, None
    cells = max(1, round(nominal_tenths / (10 * CELL_V))) if nominal_tenths else None
    if status.per_cell:
        return (status.battery_mv * cells if cells else None), status.battery_mv
    return status.battery_mv, (round(status.battery_mv / cells) if cells else None)


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """The flags that are set, or why the line is no answer."""
    if not reply:
        return ()
    if reply == query:
        return (Explanation(0, 0xFF, "megatec.echo", len(reply)),)
    if reply.rstrip(b"\r").lstrip(b"(#") in _REFUSALS:
        return (Explanation(0, 0xFF, "megatec.refused", len(reply)),)
    answer = read_answer(reply)
    if answer is None:
        return (Explanation(0, 0xFF, "megatec.no_answer", len(reply)),)
    if isinstance(answer, Status):
        return tuple(
            Explanation(_FLAGS_AT + index, 0xFF, key) for index, key in enumerate(_FLAG_KEYS) if reply[_FLAGS_AT + index] == 0x31
        )
    return (Explanation(0, 0xFF, "megatec.told", len(reply) - 1),)


_FLAGS_AT = 38
_FLAG_KEYS = (
    "megatec.utility_fail", "megatec.battery_low", "megatec.bypass", "megatec.failed", "megatec.line_interactive", "megatec.testing",
    "megatec.shutting_down", "megatec.beeper",
)  # fmt: skip


def _scaled(text: bytes, factor: int) -> int | None:
    """Exact: digits only, no float."""
    if text.startswith(b"-"):
        return None
    whole, _, part = text.partition(b".")
    return int(whole) * factor + (int(part) * factor // 10 ** len(part) if part else 0)
