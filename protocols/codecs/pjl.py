"""PJL status of A4 printers: INFO STATUS, ID, PAGECOUNT and unsolicited device status. Sends no job and keeps no text of one.

Source: HP Printer Job Language Technical Reference Manual, chapters "Status readback" and appendix "Printer status codes"; Brother and Lexmark
manuals agree on what is used here. Branch on CODE only: DISPLAY is localised. DISPLAY and NAME may carry a document's name, which can be a
citizen's; the reader blanks every quoted text before an event or an error exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from protocols.canon.words import CoverState, DeviceState, PaperState, TonerState
from protocols.codecs.common import Explanation, PrinterReading, StreamDecoder
from protocols.errors import EncodeError, FrameError

CODEC = "pjl"
UEL = b"\x1b%-12345X"
"""Universal exit language."""
FORM_FEED = 0x0C
ANSWER_MAX_BYTES = 4096
"""INFO VARIABLES of large machines is longer, and never asked for."""


class Info(StrEnum):
    """What may be asked."""

    STATUS = "STATUS"
    ID = "ID"
    PAGECOUNT = "PAGECOUNT"


def encode_info(what: Info) -> bytes:
    """`@PJL INFO …` in a job of its own."""
    return UEL + b"@PJL \r\n@PJL INFO " + Info(what).value.encode() + b"\r\n" + UEL


def encode_echo(token: str) -> bytes:
    """`@PJL ECHO token`: everything answered before the echo is stale. Letters, digits, `-`, at most 32."""
    if not re.fullmatch(r"[A-Za-z0-9-]{1,32}", token):
        raise EncodeError("an echo token has 1-32 letters, digits or dashes")
    return UEL + b"@PJL \r\n@PJL ECHO " + token.encode() + b"\r\n" + UEL


def encode_unsolicited(*, on: bool, timed_s: int | None = None) -> bytes:
    """USTATUS DEVICE=VERBOSE (a push at every change, and each `timed_s` seconds, 5-300), or USTATUSOFF. JOB and PAGE stay off."""
    if not on:
        return UEL + b"@PJL \r\n@PJL USTATUSOFF\r\n" + UEL
    timed = b""
    if timed_s is not None:
        if not 5 <= timed_s <= 300:
            raise EncodeError(f"USTATUS TIMED takes 5-300 s, not {timed_s}")
        timed = b"@PJL USTATUS TIMED=%d\r\n" % timed_s
    return UEL + b"@PJL \r\n@PJL USTATUS DEVICE=VERBOSE\r\n" + timed + UEL


@dataclass(frozen=True, slots=True)
class Status:
    """A status code; `online` is None where the answer does not say. `reply` and `masked` go into evidence as they are."""

    code: int
    online: bool | None
    pushed: bool
    reply: bytes
    masked: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Model:
    """Answer to INFO ID: the maker's model text."""

    text: str


@dataclass(frozen=True, slots=True)
class PageCount:
    pages: int


@dataclass(frozen=True, slots=True)
class Echo:
    token: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A sound answer that nobody here reads (a job's or page's push, another INFO). `topic` is a word of the protocol."""

    topic: str


PjlEvent = Status | Model | PageCount | Echo | Ignored

_HEAD = re.compile(rb"@PJL[ \t]+(INFO|USTATUS|ECHO)[ \t]+([^\r\n]*)\r?\n?")
_HARMLESS = re.compile(
    rb"[ \t]*(@PJL[ \t]+(INFO[ \t]+STATUS|USTATUS[ \t]+(DEVICE|TIMED))|CODE[ \t]*=[ \t]*[0-9]{5,6}|ONLINE[ \t]*=[ \t]*(TRUE|FALSE))[ \t]*\r?\n?\x0c?"
)
_TOPICS = frozenset(
    {"STATUS", "ID", "PAGECOUNT", "DEVICE", "JOB", "PAGE", "TIMED", "CONFIG", "VARIABLES", "SUPPLIES", "MEMORY", "FILESYS"}
)


class PjlReader(StreamDecoder[PjlEvent]):
    """Cuts the back channel at form feeds and reads each answer. Bytes before `@PJL` are noise."""

    def _parse(self) -> PjlEvent | None:
        while True:
            end = self._buffer.find(FORM_FEED)
            if end < 0:
                if len(self._buffer) > ANSWER_MAX_BYTES:
                    lost = len(self._buffer)
                    self._discard(lost)
                    raise FrameError(f"{lost} bytes without the form feed that ends an answer")
                return None
            answer = self._take(end + 1)
            starts = [match.start() for match in re.finditer(rb"@PJL[ \t]", answer)]
            if not starts:
                self.noise_bytes += len(answer)
                continue
            # A cut answer may stand before a whole one in the same span: the last head owns the form feed.
            self.noise_bytes += starts[-1]
            return _read_answer(answer[starts[-1] :])


def _read_answer(answer: bytes) -> PjlEvent:
    head = _HEAD.match(answer)
    if head is None:
        raise FrameError("an answer without INFO, USTATUS or ECHO")
    kind = head.group(1).decode()
    body = answer[head.end() : -1].replace(UEL, b"")
    words = head.group(2).split()
    topic = words[0].decode("ascii", "replace") if words else ""
    if kind == "ECHO":
        token = topic if re.fullmatch(r"[A-Za-z0-9-]{1,32}", topic) else ""
        return Echo(token)
    if topic in ("STATUS", "DEVICE", "TIMED"):
        return _read_status(answer, body, pushed=kind == "USTATUS")
    if topic == "ID":
        text = re.sub(r"[^\x20-\x7e]", "?", body.decode("ascii", "replace").strip())
        return Model(text.strip('"').strip()[:96])
    if topic == "PAGECOUNT":
        # Some models answer `PAGECOUNT=123`, some the bare number; both may repeat it on the head line.
        number = re.search(rb"[0-9]{1,9}(?![0-9])", body + b" " + b" ".join(words[1:]))
        if number is None:
            raise FrameError("a page count without a number")
        return PageCount(int(number.group()))
    return Ignored(topic if topic in _TOPICS else "")


def _read_status(answer: bytes, body: bytes, *, pushed: bool) -> Status:
    reply, masked = mask_quoted(answer)
    code = re.search(rb"^[ \t]*CODE[ \t]*=[ \t]*([0-9]{5,6})[ \t]*\r?$", body, re.MULTILINE)
    if code is None:
        raise FrameError("a status answer without CODE", evidence=reply[:512])
    online = re.search(rb"^[ \t]*ONLINE[ \t]*=[ \t]*(TRUE|FALSE)[ \t]*\r?$", body, re.MULTILINE)
    return Status(int(code.group(1)), None if online is None else online.group(1) == b"TRUE", pushed, reply, masked)


def mask_quoted(answer: bytes) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """The first 512 bytes of an answer, all values but CODE and ONLINE blanked by zero bytes, and the blanked [start, end) spans."""
    blanked = bytearray(answer[:512])
    spans: list[tuple[int, int]] = []
    at = 0
    for line in bytes(blanked).splitlines(keepends=True):
        if _HARMLESS.fullmatch(line) is None:
            key = re.match(rb"[ \t]*[A-Z0-9]{1,16}[ \t]*=", line)
            start, end = (key.end() if key else 0), len(line.rstrip(b"\r\n\x0c"))
            if end > start:
                spans.append((at + start, at + end))
        at += len(line)
    for start, end in spans:
        blanked[start:end] = bytes(end - start)
    return _merge(bytes(blanked), spans)


def _merge(blanked: bytes, spans: list[tuple[int, int]]) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """At most 16 spans fit into a record; a longer list becomes one span from the first to the last."""
    if len(spans) > 16:
        start, end = spans[0][0], spans[-1][1]
        return blanked[:start] + bytes(end - start) + blanked[end:], ((start, end),)
    return blanked, tuple(spans)


# --- meaning ---

_EXACT: dict[int, tuple[str, str]] = {
    10001: ("pjl.ready", ""),
    10003: ("pjl.warming", ""),
    10006: ("pjl.toner_low", "TONER_LOW"),
    10023: ("pjl.printing", ""),
    35078: ("pjl.sleep", ""),
    40000: ("pjl.sleep", ""),
    40010: ("pjl.no_cartridge", "TONER_EMPTY"),
    40021: ("pjl.cover", "COVER_OPEN"),
    40022: ("pjl.jam", "JAM"),
    40038: ("pjl.toner_low", "TONER_LOW"),
    40050: ("pjl.fuser", "HARDWARE"),
}
_RANGES: tuple[tuple[int, int, str, str], ...] = (
    (10000, 10999, "pjl.info", ""),
    (11000, 11999, "pjl.tray_empty", "PAPER_NEAR_END"),
    (20000, 27999, "pjl.language_error", ""),
    (30000, 30999, "pjl.auto_continue", ""),
    (35000, 35999, "pjl.attention", ""),
    (40000, 40999, "pjl.stopped", "PRINT_ERROR"),
    (41000, 41999, "pjl.load_paper", "PAPER_OUT"),
    (42000, 42999, "pjl.jam", "JAM"),
    (43000, 43999, "pjl.paper_handling", "PRINT_ERROR"),
    (44000, 44999, "pjl.jam", "JAM"),
    (50000, 50999, "pjl.hardware", "HARDWARE"),
)
"""Classes of the manual's appendix: 10 information, 11 background paper, 20-27 language, 30 auto-continue, 35 attention, 40 operator,
41 load paper (x tray, yy size), 42 and 44 jam, 43 paper handling, 50 hardware."""


def meaning_of(code: int) -> tuple[str, str]:
    """(meaning key, condition) of a status code; condition is empty where the code is no fault."""
    exact = _EXACT.get(code)
    if exact is not None:
        return exact
    for low, high, key, condition in _RANGES:
        if low <= code <= high:
            return key, condition
    return "pjl.unknown", ""


def reading_of(status: Status) -> PrinterReading:
    """Canonical state of one status answer."""
    return reading_of_code(status.code, online=status.online, explanations=explain(b"", status.reply))


def reading_of_code(code: int, *, online: bool | None = None, explanations: tuple[Explanation, ...] = ()) -> PrinterReading:
    """Canonical state of a status code. A code shows one condition at a time, so what it does not name stays unknown when it stops."""
    key, condition = meaning_of(code)
    conditions = (condition,) if condition else ()
    if not condition and online is False and key not in ("pjl.sleep", "pjl.warming"):
        conditions = ("OFFLINE",)
    known = key not in ("pjl.unknown", "pjl.language_error") and not (
        condition and condition not in ("TONER_LOW", "PAPER_NEAR_END")
    )
    return PrinterReading(
        device=_device_of(key, conditions),
        paper={"PAPER_OUT": PaperState.OUT, "PAPER_NEAR_END": PaperState.LOW, "JAM": PaperState.JAMMED}.get(
            condition, PaperState.FULL if known else PaperState.UNKNOWN
        ),
        toner={"TONER_LOW": TonerState.LOW, "TONER_EMPTY": TonerState.OUT}.get(
            condition, TonerState.FULL if known else TonerState.UNKNOWN
        ),
        cover=CoverState.OPEN if condition == "COVER_OPEN" else CoverState.CLOSED if known else CoverState.UNKNOWN,
        conditions=conditions,
        explanations=explanations,
    )


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """The digits of CODE (of a paper code also tray and size, 11xyy and 41xyy) and the word of ONLINE."""
    found = []
    code = re.search(rb"CODE[ \t]*=[ \t]*([0-9]{5,6})", reply)
    if code is not None:
        key, _ = meaning_of(int(code.group(1)))
        found.append(Explanation(code.start(1), 0xFF, key, len(code.group(1))))
        if len(code.group(1)) == 5 and key in ("pjl.load_paper", "pjl.tray_empty"):
            # Lexmark, "Tray Codes" and "Media Size Codes": x and yy mean the same as HP's, which number of which size differs by maker.
            found.append(Explanation(code.start(1) + 2, 0xFF, "pjl.tray", 1))
            found.append(Explanation(code.start(1) + 3, 0xFF, "pjl.size", 2))
    online = re.search(rb"ONLINE[ \t]*=[ \t]*(FALSE)", reply)
    if online is not None:
        found.append(Explanation(online.start(1), 0xFF, "pjl.not_online", len(online.group(1))))
    return tuple(found)


def _device_of(key: str, conditions: tuple[str, ...]) -> DeviceState:
    if "OFFLINE" in conditions:
        return DeviceState.OFFLINE
    if set(conditions) & {"HARDWARE", "JAM", "PRINT_ERROR", "TONER_EMPTY"}:
        return DeviceState.HARDWARE_ERROR
    if "COVER_OPEN" in conditions:
        return DeviceState.USER_ERROR
    return {
        "pjl.warming": DeviceState.STARTING,
        "pjl.printing": DeviceState.BUSY,
        "pjl.unknown": DeviceState.UNKNOWN,
    }.get(key, DeviceState.ONLINE)
