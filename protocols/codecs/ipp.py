"""IPP status of a printer: one question (Get-Printer-Attributes) and what its answer means. Sends no job and reads no job's attributes.

Source: RFC 8010 (encoding), RFC 8011 5.4.11 and 5.4.12 (printer-state, printer-state-reasons and the suffixes -report, -warning, -error),
PWG 5100.9 (reasons of the Printer MIB) and PWG 5100.13 (marker levels), PWG 5100.22 (impressions). Only what was asked for by name is taken;
collections, texts and everything else is stepped over by its length, so an answer of any size costs one pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from protocols.canon.words import DeviceState, TonerState
from protocols.codecs.common import Explanation, PrinterReading, printer_reading
from protocols.errors import EncodeError, FrameError

CODEC = "ipp"
ANSWER_MAX_BYTES = 64 * 1024
"""A whole answer with every attribute of a large machine has about 40 KiB; the few that are asked for have one."""
VALUES_MAX = 64
"""Values of one attribute that are read."""
EVIDENCE_BYTES = 480

_GET_PRINTER_ATTRIBUTES = 0x000B
_OPERATION, _END, _PRINTER = 0x01, 0x03, 0x04
_INTEGER, _ENUM, _KEYWORD, _URI, _CHARSET, _LANGUAGE = 0x21, 0x23, 0x44, 0x45, 0x47, 0x48
_INTEGERS = (_INTEGER, _ENUM)

STATE, REASONS, LEVELS = "printer-state", "printer-state-reasons", "marker-levels"
ASKED = (
    STATE, REASONS, "marker-types", LEVELS, "marker-low-levels", "printer-impressions-completed", "printer-firmware-string-version",
)  # fmt: skip
_DECISIVE = (STATE, REASONS, LEVELS)


@dataclass(frozen=True, slots=True)
class PrinterStatus:
    """What the device says of itself. `reply` (header and the deciding attributes) and `masked` go into evidence as they are."""

    state: int
    reasons: tuple[str, ...]
    """Keywords that this module knows; a maker's own ones are left out and blanked in `reply`."""
    strange_reasons: int
    levels: tuple[tuple[str, int, int | None], ...]
    """(marker type, level, low level): 0-100, -1 and -2 unknown, -3 "some"."""
    impressions: int | None
    firmware: str | None = field(repr=False)
    reply: bytes = field(repr=False)
    masked: tuple[tuple[int, int], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a printer answers. No names: what a name means is decided elsewhere, and may change between two questions."""

    host: str
    port: int
    path: str

    @property
    def is_loopback(self) -> bool:
        return ip_address(self.host).is_loopback


def address_of(uri: str) -> Address:
    """`ipp://127.0.0.1:60000/ipp/print` taken apart; EncodeError unless it has a literal address and nothing but a path behind it."""
    try:
        parts = urlsplit(uri)
        host = "127.0.0.1" if parts.hostname == "localhost" else str(ip_address(parts.hostname or ""))
        port = parts.port or 631
    except ValueError:
        raise EncodeError("not ipp:// with a literal address, a port and a path") from None
    extra = parts.username or parts.password or parts.query or parts.fragment
    if parts.scheme != "ipp" or extra or not re.fullmatch(r"(/[\x21-\x7e]{0,200})?", parts.path):
        raise EncodeError("not ipp:// with a literal address, a port and a path")
    return Address(host, port, parts.path or "/")


def encode_status_query(uri: str, request: int) -> bytes:
    """Get-Printer-Attributes, IPP 1.1, for these attributes only. EncodeError for an address or number that does not fit."""
    if not re.fullmatch(r"ipps?://[\x21-\x7e]{1,512}", uri):
        raise EncodeError("not an address that starts with ipp:// or ipps://")
    if not 1 <= request <= 0x7FFFFFFF:
        raise EncodeError(f"request number {request} is out of range")
    head = b"\x01\x01" + _GET_PRINTER_ATTRIBUTES.to_bytes(2, "big") + request.to_bytes(4, "big") + bytes((_OPERATION,))
    parts = [
        _attribute(_CHARSET, "attributes-charset", b"utf-8"),
        _attribute(_LANGUAGE, "attributes-natural-language", b"en"),
        _attribute(_URI, "printer-uri", uri.encode("ascii")),
        *(_attribute(_KEYWORD, "" if at else "requested-attributes", name.encode("ascii")) for at, name in enumerate(ASKED)),
    ]
    return head + b"".join(parts) + bytes((_END,))


def decode_status(answer: bytes, request: int | None = None) -> PrinterStatus:
    """The answer's status. FrameError if it is no sound answer (to `request`), tells of a failure, or names no state."""
    if len(answer) > ANSWER_MAX_BYTES:
        raise FrameError(f"an answer of more than {ANSWER_MAX_BYTES} bytes")
    if len(answer) < 9 or answer[0] not in (1, 2):
        raise FrameError("not an IPP answer", evidence=answer[:8])
    code = int.from_bytes(answer[2:4], "big")
    if code >= 0x0100:
        raise FrameError(f"the printer answers with status {code:04x}", evidence=answer[:8], retryable=code >= 0x0500)
    if request is not None and int.from_bytes(answer[4:8], "big") != request:
        raise FrameError("an answer to another question", evidence=answer[:8])
    found: dict[str, list[_Value]] = {}
    for value in _values(answer):
        if value.group == _PRINTER and value.name in ASKED and len(found.setdefault(value.name, [])) < VALUES_MAX:
            found[value.name].append(value)
    states = _integers(found, STATE)
    if len(states) != 1 or states[0] not in (3, 4, 5):
        raise FrameError("an answer without a printer-state", evidence=answer[:8])
    words = [value.data.decode("ascii", "replace") for value in found.get(REASONS, []) if value.tag == _KEYWORD]
    known = tuple(word for word in words if word == "none" or base_of(word)[0] in _MEANINGS)
    impressions = _integers(found, "printer-impressions-completed")
    firmware = found.get("printer-firmware-string-version", [])
    reply, masked = _evidence(answer, found)
    return PrinterStatus(
        state=states[0],
        reasons=known,
        strange_reasons=len(words) - len(known),
        levels=_levels(found),
        impressions=impressions[0] if impressions and impressions[0] >= 0 else None,
        firmware=firmware[0].data.decode("utf-8", "replace") if firmware else None,
        reply=reply,
        masked=masked,
    )


@dataclass(frozen=True, slots=True)
class _Value:
    group: int
    tag: int
    name: str
    data: bytes = field(repr=False)
    start: int
    """Offset of the whole value (tag, name, data) in the answer."""
    data_start: int


def _values(answer: bytes) -> Iterator[_Value]:
    """Every value outside collections, in order. FrameError where a length points outside or the end tag is missing."""
    at, group, name, depth = 8, 0, "", 0
    while at < len(answer):
        tag = answer[at]
        if tag == _END:
            return
        if tag < 0x10:
            group, name, at = tag, "", at + 1
            continue
        name_end = at + 3 + int.from_bytes(answer[at + 1 : at + 3], "big")
        data_start = name_end + 2
        end = data_start + int.from_bytes(answer[name_end:data_start], "big")
        if end > len(answer):
            raise FrameError("a value that is longer than the answer")
        if name_end > at + 3:
            name = answer[at + 3 : name_end].decode("ascii", "replace")
        depth += {0x34: 1, 0x37: -1}.get(tag, 0)
        if depth == 0 and tag != 0x37:
            yield _Value(group, tag, name, answer[data_start:end], at, data_start)
        at = end
    raise FrameError("an answer without its end tag")


def _integers(found: Mapping[str, list[_Value]], name: str) -> list[int]:
    return [
        int.from_bytes(value.data, "big", signed=True)
        for value in found.get(name, [])
        if value.tag in _INTEGERS and len(value.data) == 4
    ]


def _levels(found: Mapping[str, list[_Value]]) -> tuple[tuple[str, int, int | None], ...]:
    """Markers by place in their lists, which are as long as each other."""
    types = [value.data.decode("ascii", "replace") for value in found.get("marker-types", [])]
    levels, lows = _integers(found, LEVELS), _integers(found, "marker-low-levels")
    if len(types) != len(levels):
        return ()
    known_lows = [low if 0 <= low <= 100 else None for low in lows] if len(lows) == len(levels) else [None] * len(levels)
    return tuple(zip(types, levels, known_lows, strict=True))


def _evidence(answer: bytes, found: Mapping[str, list[_Value]]) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """Header, the group's tag and the deciding attributes, cut after a whole value; keywords that are not known here are blanked."""
    kept = bytearray(answer[:8] + bytes((_PRINTER,)))
    masked: list[tuple[int, int]] = []
    for name in _DECISIVE:
        for value in found.get(name, []):
            whole = bytearray(answer[value.start : value.data_start + len(value.data)])
            if len(kept) + len(whole) > EVIDENCE_BYTES or len(masked) >= 16:
                break
            text = value.data.decode("ascii", "replace")
            if value.tag not in _INTEGERS and text != "none" and base_of(text)[0] not in _MEANINGS:
                offset = value.data_start - value.start
                whole[offset:] = bytes(len(value.data))
                if value.data:
                    masked.append((len(kept) + offset, len(kept) + len(whole)))
            kept += whole
    kept.append(_END)
    return bytes(kept), tuple(masked)


# --- meaning ---

_SUFFIX = re.compile(r"-(report|warning|error)\Z")
_MEANINGS: Mapping[str, tuple[str, str, str]] = {
    "media-needed": ("ipp.media", "PAPER_OUT", "PAPER_NEAR_END"),
    "media-empty": ("ipp.media", "PAPER_OUT", "PAPER_NEAR_END"),
    "media-low": ("ipp.media_low", "PAPER_NEAR_END", "PAPER_NEAR_END"),
    "media-jam": ("ipp.jam", "JAM", "JAM"),
    "door-open": ("ipp.cover", "COVER_OPEN", "COVER_OPEN"),
    "cover-open": ("ipp.cover", "COVER_OPEN", "COVER_OPEN"),
    "interlock-open": ("ipp.cover", "COVER_OPEN", "COVER_OPEN"),
    "input-tray-missing": ("ipp.tray", "PAPER_OUT", "PAPER_NEAR_END"),
    "output-tray-missing": ("ipp.output", "OUTPUT_NOT_TAKEN", ""),
    "output-area-full": ("ipp.output", "OUTPUT_NOT_TAKEN", "OUTPUT_NOT_TAKEN"),
    "output-area-almost-full": ("ipp.output", "", ""),
    "toner-low": ("ipp.toner_low", "TONER_LOW", "TONER_LOW"),
    "toner-empty": ("ipp.toner", "TONER_EMPTY", "TONER_LOW"),
    "marker-supply-low": ("ipp.toner_low", "TONER_LOW", "TONER_LOW"),
    "marker-supply-empty": ("ipp.toner", "TONER_EMPTY", "TONER_LOW"),
    "marker-waste-full": ("ipp.waste", "PRINT_ERROR", ""),
    "marker-waste-almost-full": ("ipp.waste", "", ""),
    "fuser-over-temp": ("ipp.fuser", "HARDWARE", "HARDWARE"),
    "fuser-under-temp": ("ipp.fuser", "HARDWARE", ""),
    "opc-near-eol": ("ipp.drum", "", ""),
    "opc-life-over": ("ipp.drum", "HARDWARE", ""),
    "developer-low": ("ipp.drum", "", ""),
    "developer-empty": ("ipp.drum", "HARDWARE", ""),
    "spool-area-full": ("ipp.spool", "PRINT_ERROR", ""),
    "paused": ("ipp.paused", "OFFLINE", ""),
    "moving-to-paused": ("ipp.paused", "", ""),
    "stopping": ("ipp.paused", "", ""),
    "stopped-partly": ("ipp.other", "", ""),
    "shutdown": ("ipp.shutdown", "OFFLINE", ""),
    "connecting-to-device": ("ipp.other", "", ""),
    "timed-out": ("ipp.other", "OFFLINE", ""),
    "other": ("ipp.other", "", ""),
}
"""Reason without its suffix: (meaning key, condition as an error or without a suffix, condition as a warning). A report is none."""
REASON_WORDS = tuple(_MEANINGS)
_BY_STOP = {"PAPER_OUT", "JAM", "COVER_OPEN", "TONER_EMPTY", "HARDWARE", "PRINT_ERROR", "OFFLINE", "OUTPUT_NOT_TAKEN"}
_TONER_TYPES = frozenset({"toner", "toner-cartridge", "toner-ink-cartridge", "ink", "ink-cartridge", "ink-ribbon"})


def base_of(reason: str) -> tuple[str, str]:
    """A reason's keyword and its suffix: report, warning, error, or nothing."""
    match = _SUFFIX.search(reason)
    return (reason[: match.start()], match.group(1)) if match else (reason, "")


def condition_of(reason: str) -> str:
    """The condition of a reason, empty where it is none. A warning still prints; a report only informs."""
    base, suffix = base_of(reason)
    if suffix == "report" or base not in _MEANINGS:
        return ""
    return _MEANINGS[base][2 if suffix == "warning" else 1]


def reading_of(status: PrinterStatus) -> PrinterReading:
    """Canonical state of the device itself. State 5 that no reason explains is a printing error; 4 is at work."""
    conditions = {condition for reason in status.reasons if (condition := condition_of(reason))}
    for kind, level, low in status.levels:
        if kind in _TONER_TYPES and level >= 0 and low is not None and level <= low:
            conditions.add("TONER_EMPTY" if level == 0 and status.state == 5 else "TONER_LOW")
    if status.state == 5 and not conditions & _BY_STOP:
        conditions.add("PRINT_ERROR")
    if "TONER_EMPTY" in conditions:
        conditions.discard("TONER_LOW")
    if "PAPER_OUT" in conditions:
        conditions.discard("PAPER_NEAR_END")
    explanations = explain(b"", status.reply)
    reading = printer_reading(conditions, explanations, knows_paper=True, knows_cover=True)
    device = DeviceState.HARDWARE_ERROR if "TONER_EMPTY" in conditions else reading.device
    if device is DeviceState.ONLINE and status.state == 4:
        device = DeviceState.BUSY
    return PrinterReading(
        device=device,
        paper=reading.paper,
        toner=_toner(conditions, status.levels),
        cover=reading.cover,
        conditions=reading.conditions,
        explanations=explanations,
    )


def toner_percent(status: PrinterStatus) -> int | None:
    """The lowest level of a colour that the device measures."""
    return min((level for kind, level, _ in status.levels if kind in _TONER_TYPES and 0 <= level <= 100), default=None)


def _toner(conditions: set[str], levels: tuple[tuple[str, int, int | None], ...]) -> TonerState:
    if "TONER_EMPTY" in conditions:
        return TonerState.OUT
    if "TONER_LOW" in conditions:
        return TonerState.LOW
    known = any(kind in _TONER_TYPES and level >= 0 for kind, level, _ in levels)
    return TonerState.FULL if known else TonerState.UNKNOWN


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """The state's number where it is not idle, and every reason that means something."""
    if len(reply) < 9 or reply[0] not in (1, 2):
        return ()
    found: list[Explanation] = []
    try:
        for value in _values(reply):
            if value.name == STATE and value.data in (b"\0\0\0\4", b"\0\0\0\5"):
                key = "ipp.stopped" if value.data[3] == 5 else "ipp.processing"
                found.append(Explanation(value.data_start + 3, 0xFF, key))
            elif value.name == REASONS and value.data:
                base, _ = base_of(value.data.decode("ascii", "replace"))
                if base in _MEANINGS:
                    found.append(Explanation(value.data_start, 0xFF, _MEANINGS[base][0], len(value.data)))
    except FrameError:
        return tuple(found)
    return tuple(found)


def _attribute(tag: int, name: str, data: bytes) -> bytes:
    return bytes((tag,)) + len(name).to_bytes(2, "big") + name.encode("ascii") + len(data).to_bytes(2, "big") + data
