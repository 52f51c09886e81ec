"""ESC/POS receipt printers: status questions and the demultiplexing of one inbound byte stream. Prints nothing.

Bit meanings agree in the programming manuals of Epson (TM series), Citizen CT-S310, Samsung/Bixolon SRP-350, HPRT TP80K, SNBC BTP-M300 and
Axiohm; where they differ, a parameter says which reading a profile wants.

How one stream is taken apart (Citizen's table, "transmission status identification"): an answer to DLE EOT is `0xx1xx10`; the first byte of
an automatic status (ASB) is `0xx1xx00` and three bytes `0xx0xxxx` follow; answers to GS r, GS I and ESC v are `0xx0xxxx`; XON is 11, XOFF 13;
blocks start with 5F, 37 or 53 and end with 00. The answer to DLE EOT does not repeat its question, so the reader is told what was asked.
Four bytes of an automatic status are consecutive but for XON and XOFF (Samsung SRP-500, GS a), and while a block is sent the printer answers no
real-time command and sends no automatic status (Citizen CT-S2000 and TransAct iTherm 280, GS g 2): so every honest interleaving comes apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from protocols.canon.words import PaperState
from protocols.codecs import slip
from protocols.codecs.common import Explanation, PrinterReading, StreamDecoder, printer_reading
from protocols.errors import EncodeError, FrameError

CODEC = "escpos"
XON, XOFF = 0x11, 0x13
AUTO_STATUS_USEFUL = 0x0E
"""GS a bits 1-3: on/offline, errors, paper."""
BLOCK_MAX_BYTES = 96
"""GS I answers are at most 80 characters; longer means that the end byte was lost."""
_BLOCK_STARTS = (0x5F, 0x37, 0x53)


class MechanicalBit(StrEnum):
    """How a model means bit 04 of the error byte: Epson (old) mechanical, Epson (new) recoverable, Axiohm slip jam, Samsung undefined."""

    JAM = "jam"
    ERROR = "error"
    IGNORE = "ignore"


# --- questions ---


def encode_status_query(n: int) -> bytes:
    """DLE EOT n, answered in real time even when the buffer is full or the printer offline; n = 1 printer, 2 offline, 3 error, 4 paper."""
    if n not in (1, 2, 3, 4):
        raise EncodeError(f"DLE EOT {n} is not one of 1-4")
    return bytes((0x10, 0x04, n))


def encode_auto_status(mask: int = AUTO_STATUS_USEFUL) -> bytes:
    """GS a: four bytes at once and on every change; 0 switches it off."""
    if not 0 <= mask <= 0xFF:
        raise EncodeError(f"GS a mask {mask} is not a byte")
    return bytes((0x1D, 0x61, mask))


def encode_queued_status(n: int) -> bytes:
    """GS r n (1 paper, 2 drawer): answered when the printer reaches it, so never while it is offline for paper end."""
    if n not in (1, 2):
        raise EncodeError(f"GS r {n} is not 1 or 2")
    return bytes((0x1D, 0x72, n))


def encode_paper_query() -> bytes:
    """ESC v, the paper question of SNBC and of clones without GS r."""
    return b"\x1b\x76"


def encode_identity_query(n: int) -> bytes:
    """GS I n: 1-3 one byte (model, type, version); 65-69 a block (firmware, maker, model, serial, fonts)."""
    if n not in (1, 2, 3, 65, 66, 67, 68, 69):
        raise EncodeError(f"GS I {n} is not one of 1-3, 65-69")
    return bytes((0x1D, 0x49, n))


class Count(IntEnum):
    """Maintenance counters that no command resets (GS g 2); a restart of the printer keeps them, a new main board does not."""

    LINES_FED = 148
    CUTS = 178
    HOURS = 198


def encode_counter_query(count: Count) -> bytes:
    """GS g 2 0 nL nH (Epson TM series, Citizen CT-S2000, TransAct, HCC POS80B): answered by a block of one to ten digits, when it is reached."""
    return b"\x1d\x67\x32\x00" + Count(count).to_bytes(2, "little")


def encode_fence(job: bytes) -> bytes:
    """GS ( H function 48: the printer answers with these four bytes when everything before them is printed."""
    if len(job) != 4 or not all(0x20 <= byte <= 0x7E for byte in job):
        raise EncodeError("a process id is four printable ASCII characters")
    return b"\x1d\x28\x48\x06\x00\x30\x30" + job


def encode_recover(*, clear_buffers: bool) -> bytes:
    """DLE ENQ: go on (1) or go on with empty buffers (2) after a cutter or mechanical error was cleared."""
    return bytes((0x10, 0x05, 2 if clear_buffers else 1))


def encode_initialise() -> bytes:
    """ESC @: default settings; does not clear errors."""
    return b"\x1b\x40"


def encode_test_slip(*, gbk: bool = False) -> bytes:
    """A slip of fixed text, feed and partial cut (GS V 66). `gbk`: with Chinese in Kanji mode, for firmware that has the characters."""
    return slip.GBK if gbk else slip.PLAIN


# --- events ---


@dataclass(frozen=True, slots=True)
class RealTimeStatus:
    """Answer to DLE EOT `n`; n is 0 when nobody asked."""

    n: int
    status: int


@dataclass(frozen=True, slots=True)
class AutoStatus:
    """The four bytes of an automatic status."""

    status: bytes


@dataclass(frozen=True, slots=True)
class QueuedStatus:
    """One-byte answer to GS r, GS I 1-3 or ESC v; `query` is the question's bytes."""

    query: bytes
    status: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Block answer to GS I 65-69; `n` is 0 when nobody asked. Printable ASCII of the maker, not of citizens."""

    n: int
    text: str


@dataclass(frozen=True, slots=True)
class Counter:
    """Answer to GS g 2."""

    count: Count
    value: int


@dataclass(frozen=True, slots=True)
class JobPrinted:
    """The fence with this process id was reached: everything before it is on paper."""

    job: bytes


@dataclass(frozen=True, slots=True)
class FlowControl:
    """XON (`may_send`) or XOFF."""

    may_send: bool


EscPosEvent = RealTimeStatus | AutoStatus | QueuedStatus | Identity | Counter | JobPrinted | FlowControl


class EscPosReader(StreamDecoder[EscPosEvent]):
    """Takes the printer's byte stream apart. Call `expect(query)` with every question that was written."""

    def __init__(self) -> None:
        super().__init__()
        self._real_time: deque[int] = deque(maxlen=16)
        self._queued: deque[bytes] = deque(maxlen=16)
        self._blocks: deque[int | Count] = deque(maxlen=16)
        self._auto = bytearray()

    def expect(self, query: bytes) -> None:
        """Remember a question; one call may hold several questions in a row."""
        at = 0
        while at < len(query):
            three = query[at : at + 3]
            if three[:2] == b"\x10\x04" and len(three) == 3:
                self._real_time.append(three[2])
                at += 3
            elif three[:2] == b"\x1d\x49" and len(three) == 3 and three[2] >= 65:
                self._blocks.append(three[2])
                at += 3
            elif three == b"\x1d\x67\x32" and query[at + 4 : at + 5]:
                self._blocks.append(Count(query[at + 4]))
                at += 6
            elif three[:2] in (b"\x1d\x49", b"\x1d\x72") and len(three) == 3:
                self._queued.append(three)
                at += 3
            elif three[:2] == b"\x1b\x76":
                self._queued.append(b"\x1b\x76")
                at += 2
            else:
                at += 1

    def reset(self) -> None:
        super().reset()
        self._auto.clear()
        self._real_time.clear()
        self._queued.clear()
        self._blocks.clear()

    def _parse(self) -> EscPosEvent | None:
        while self._buffer:
            first = self._buffer[0]
            if first in (XON, XOFF):
                self._take(1)
                return FlowControl(first == XON)
            if first & 0x93 == 0x12:
                self._take(1)
                return RealTimeStatus(self._real_time.popleft() if self._real_time else 0, first)
            if first & 0x93 == 0x10:
                if self._auto:
                    cut = bytes(self._auto)
                    self._auto.clear()
                    raise FrameError("an automatic status was cut short by the next one", evidence=cut)
                self._auto += self._take(1)
            elif first & 0x90 == 0x00:
                event = self._low_byte(self._take(1)[0])
                if event is not None:
                    return event
            elif first in _BLOCK_STARTS:
                return self._block()
            else:
                self._discard(1)
        return None

    def _low_byte(self, byte: int) -> EscPosEvent | None:
        if self._auto:
            self._auto.append(byte)
            if len(self._auto) < 4:
                return None
            status = bytes(self._auto)
            self._auto.clear()
            return AutoStatus(status)
        if self._queued:
            return QueuedStatus(self._queued.popleft(), byte)
        self.noise_bytes += 1
        return None

    def _block(self) -> EscPosEvent | None:
        end = self._buffer.find(0x00)
        if end < 0 and len(self._buffer) <= BLOCK_MAX_BYTES:
            return None
        if end < 0 or end > BLOCK_MAX_BYTES:
            # Only the header is given up: a status byte behind a lost end byte is still found.
            head = bytes(self._buffer[:1])
            self._discard(1)
            raise FrameError("a block answer has no end byte", evidence=head)
        block = self._take(end + 1).translate(None, bytes((XON, XOFF)))
        if block[0] == 0x5F:
            return self._identity(block[1:-1])
        if block[:2] == b"\x37\x22" and len(block) == 7:
            return JobPrinted(block[2:6])
        raise FrameError(f"unknown block answer {block[0]:02X} of {len(block)} bytes", evidence=block[:2], retryable=False)

    def _identity(self, text: bytes) -> Identity | Counter:
        n = self._blocks.popleft() if self._blocks else 0
        if isinstance(n, Count):
            if not 1 <= len(text) <= 10 or not text.isdigit():
                raise FrameError("a counter is not one to ten digits", evidence=b"\x5f")
            return Counter(n, int(text))
        if not all(0x20 <= byte <= 0x7E for byte in text):
            raise FrameError("an identity answer holds control characters", evidence=b"\x5f")
        return Identity(n, text.decode("ascii"))


# --- meaning ---

_Rule = tuple[int, str, str]
"""Mask, meaning key, condition."""

_OFFLINE = 0x08
_REAL_TIME_RULES: Mapping[int, tuple[_Rule, ...]] = {
    1: ((_OFFLINE, "escpos.offline", "offline"), (0x20, "escpos.waiting", ""), (0x40, "escpos.feed", "")),
    2: (
        (0x04, "escpos.cover", "COVER_OPEN"),
        (0x08, "escpos.feed", ""),
        (0x20, "escpos.paper_stop", "PAPER_OUT"),
        (0x40, "escpos.error", "error"),
    ),
    3: (
        (0x04, "escpos.mechanical", "mechanical"),
        (0x08, "escpos.cutter", "CUTTER"),
        (0x20, "escpos.unrecoverable", "HARDWARE"),
        (0x40, "escpos.head_hot", "HEAD_HOT"),
    ),
    4: ((0x60, "escpos.paper_end", "PAPER_OUT"), (0x0C, "escpos.paper_near_end", "PAPER_NEAR_END")),
}
_AUTO_RULES: tuple[tuple[_Rule, ...], ...] = (
    ((_OFFLINE, "escpos.offline", "offline"), (0x20, "escpos.cover", "COVER_OPEN"), (0x40, "escpos.feed", "")),
    (
        (0x01, "escpos.waiting", ""),
        (0x04, "escpos.mechanical", "mechanical"),
        (0x08, "escpos.cutter", "CUTTER"),
        (0x20, "escpos.unrecoverable", "HARDWARE"),
        (0x40, "escpos.head_hot", "HEAD_HOT"),
    ),
    ((0x0C, "escpos.paper_end", "PAPER_OUT"), (0x03, "escpos.paper_near_end", "PAPER_NEAR_END")),
    (),  # reserved: Epson answers 00 or 0F, SNBC 0F; means nothing
)


def reading_of_real_time(
    replies: Mapping[int, int], *, mechanical: MechanicalBit = MechanicalBit.JAM, near_end_fitted: bool = True
) -> PrinterReading:
    """Canonical state of answers to DLE EOT, `{n: byte}`; missing answers leave their part unknown.

    Offsets of the explanations count the answers in ascending order of n. Raises FrameError for a byte without the fixed bits.
    """
    found: list[tuple[Explanation, str]] = []
    for offset, n in enumerate(sorted(replies)):
        byte = replies[n]
        if byte & 0x93 != 0x12:
            raise FrameError(f"DLE EOT {n} answer {byte:02X} has wrong fixed bits", evidence=bytes((byte & 0xFF,)))
        found += _hits(offset, byte, _REAL_TIME_RULES.get(n, ()))
    knows_paper, knows_cover = 4 in replies or 2 in replies, 2 in replies
    return _reading(found, mechanical, knows_paper=knows_paper, knows_cover=knows_cover, near_end_fitted=near_end_fitted)


def reading_of_auto_status(
    status: bytes, *, mechanical: MechanicalBit = MechanicalBit.JAM, near_end_fitted: bool = True
) -> PrinterReading:
    """Canonical state of the four bytes of an automatic status; FrameError if their fixed bits are wrong."""
    if len(status) != 4 or status[0] & 0x93 != 0x10 or any(byte & 0x90 for byte in status[1:]):
        raise FrameError("an automatic status has wrong fixed bits", evidence=status[:4])
    found: list[tuple[Explanation, str]] = []
    for offset, rules in enumerate(_AUTO_RULES):
        found += _hits(offset, status[offset], rules)
    return _reading(found, mechanical, knows_paper=True, knows_cover=True, near_end_fitted=near_end_fitted)


def paper_of_queued(status: int, *, query: bytes = b"\x1d\x72\x01") -> PaperState:
    """Paper word of the answer to GS r 1 or ESC v. Silence is the usual answer at paper end, so the caller keeps a timeout.

    Some clones answer ESC v with 0F for empty (seen in the field); both near-end bits are then set as well, and end wins.
    """
    if query not in (b"\x1d\x72\x01", b"\x1b\x76") or status & 0x90:
        return PaperState.UNKNOWN
    if status & 0x0C:
        return PaperState.OUT
    return PaperState.LOW if status & 0x03 else PaperState.FULL


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """Decisive bits of an evidence pair: a row of DLE EOT questions with their answers, an automatic status, or GS r 1."""
    if len(query) >= 3 and query[:2] == b"\x10\x04" and len(query) == 3 * len(reply):
        ns = query[2::3]
        return tuple(hit for offset, n in enumerate(ns) for hit, _ in _hits(offset, reply[offset], _REAL_TIME_RULES.get(n, ())))
    if len(reply) == 4 and reply[0] & 0x93 == 0x10:
        return tuple(hit for offset, rules in enumerate(_AUTO_RULES) for hit, _ in _hits(offset, reply[offset], rules))
    if query in (b"\x1d\x72\x01", b"\x1b\x76") and len(reply) == 1:
        return tuple(hit for hit, _ in _hits(0, reply[0], _AUTO_RULES[2]))
    return ()


def _hits(offset: int, byte: int, rules: tuple[_Rule, ...]) -> list[tuple[Explanation, str]]:
    return [(Explanation(offset, mask, key), condition) for mask, key, condition in rules if byte & mask]


def _reading(
    found: list[tuple[Explanation, str]],
    mechanical: MechanicalBit,
    *,
    knows_paper: bool,
    knows_cover: bool,
    near_end_fitted: bool,
) -> PrinterReading:
    raw = {condition for _, condition in found if condition}
    conditions = {condition for condition in raw if condition.isupper()}
    if "mechanical" in raw and mechanical is not MechanicalBit.IGNORE:
        conditions.add("JAM" if mechanical is MechanicalBit.JAM else "PRINT_ERROR")
    if "COVER_OPEN" in conditions:
        # On some models the auto-recoverable bit is also set by a cover opened while printing.
        conditions.discard("HEAD_HOT")
    if "PAPER_OUT" in conditions or not near_end_fitted:
        conditions.discard("PAPER_NEAR_END")
    if "error" in raw and not conditions & {"HARDWARE", "CUTTER", "JAM", "PRINT_ERROR", "HEAD_HOT", "COVER_OPEN"}:
        conditions.add("PRINT_ERROR")
    if "offline" in raw and not conditions - {"PAPER_NEAR_END"}:
        conditions.add("OFFLINE")
    return printer_reading(conditions, tuple(hit for hit, _ in found), knows_paper=knows_paper, knows_cover=knows_cover)
