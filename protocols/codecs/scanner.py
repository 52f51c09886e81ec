"""Code scanners: that they read and that they live, never what they read.

Keyboard mode: `BurstCounter` sees key events and tells length and terminator of each burst. Serial mode: `ScannerReader` does the same with
bytes, and takes the answers to health questions out of the stream. Newland unified commands: NLS-HR52 manual, "serial commands";
older Newland engines (EM2000, EM3095): frame with CRC-CCITT (polynomial 1021, start 0000), programming manual, "zone bits".
Honeywell, and Mindeo after it: `16 4D 0D`, a command, a full stop; the unit repeats the command with ACK, ENQ or NAK before the stop (Voyager 1250g
and Xenon 1900 user's guides, "Serial Programming Commands").
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from protocols.codecs.common import Explanation, StreamDecoder
from protocols.codecs.keys import DOWN, EV_KEY, EV_SYN, SYN_DROPPED, KeyEvent
from protocols.errors import BufferOverflow, ChecksumError, EncodeError, FrameError

CODEC = "scanner"

KEY_ENTER, KEY_KPENTER, KEY_TAB = 28, 96, 15
_MODIFIERS = frozenset({42, 54, 29, 97, 56, 100, 125, 126, 58, 69})
"""Shift, Ctrl, Alt, Meta of both sides, CapsLock, NumLock: they shape a character and are none."""


class Terminator(StrEnum):
    """What ended a scan."""

    ENTER = "enter"
    KP_ENTER = "kpEnter"
    TAB = "tab"
    CR = "cr"
    LF = "lf"
    ETX = "etx"
    SILENCE = "silence"
    """No terminator within the flush time: the suffix was lost, usually by a factory-reset setup code."""


@dataclass(frozen=True, slots=True)
class Scan:
    """One code was read; `length` counts its characters (bytes in serial mode) without the terminator."""

    length: int
    terminator: Terminator
    readable: bool = True
    """False: the bytes are no text in UTF-8 or GBK, as noise on a cable makes them."""


_KEY_TERMINATORS = {KEY_ENTER: Terminator.ENTER, KEY_KPENTER: Terminator.KP_ENTER, KEY_TAB: Terminator.TAB}
FLUSH_AFTER_S = 0.1
"""Scanners send a key every few milliseconds, people slower than one in 30 ms: 100 ms of silence ends a burst."""


class BurstCounter:
    """Counts bursts of a scanner in keyboard mode. Time is passed in; no key code outlives the call that brought it."""

    def __init__(self, *, flush_after_s: float = FLUSH_AFTER_S) -> None:
        self._flush_after_s = flush_after_s
        self._length = 0
        self._last_key_s = 0.0
        self.dropped = 0
        """Times the kernel's queue overflowed; the burst in progress is then not counted."""

    def feed(self, events: Iterable[KeyEvent], now_s: float) -> list[Scan]:
        found = self.tick(now_s)
        for event in events:
            if event.type == EV_SYN and event.code == SYN_DROPPED:
                self.dropped += 1
                self._length = 0
            elif event.type == EV_KEY and event.value == DOWN and event.code not in _MODIFIERS:
                terminator = _KEY_TERMINATORS.get(event.code)
                self._last_key_s = now_s
                if terminator is None:
                    self._length += 1
                elif self._length:
                    found.append(self._end(terminator))
        return found

    def tick(self, now_s: float) -> list[Scan]:
        """Ends a burst that fell silent."""
        if self._length and now_s - self._last_key_s >= self._flush_after_s:
            return [self._end(Terminator.SILENCE)]
        return []

    def _end(self, terminator: Terminator) -> Scan:
        length, self._length = self._length, 0
        return Scan(length, terminator)


# --- serial: questions ---

_UNIFIED_HEAD = b"\x7e\x01"
_UNIFIED_ANSWER = b"\x02\x01"
_UNIFIED_END = b"\x3b\x03"
_PERMANENT, _TEMPORARY = b"@", b"#"
SYSTEM_INFORMATION = "QRYSYS"
EVIDENCE_BYTES = 512
"""What a record carries of a reply (contract)."""
SCAN_MAX_BYTES = 7168
"""Longer than the largest QR code (7,089 digits)."""


def encode_query(tag: str = SYSTEM_INFORMATION) -> bytes:
    """A unified command that asks and changes nothing: a QRY tag by itself, any other tag with `*` ("current value?").

    There is no encoder for triggers or settings: the health path must not be able to start a scan.
    """
    if not re.fullmatch(r"[A-Z0-9]{6}", tag):
        raise EncodeError("a unified tag has six capital letters or digits")
    return _unified(tag.encode() + (b"" if tag.startswith("QRY") else b"*"))


def encode_zone_read(address: int, count: int = 1) -> bytes:
    """Older engines: read `count` configuration bytes at `address` (type 07)."""
    if not 0 <= address <= 0xFFFF or not 1 <= count <= 0xFF:
        raise EncodeError("a zone read has a 16-bit address and 1-255 bytes")
    body = b"\x07\x01" + address.to_bytes(2, "big") + bytes((count,))
    return b"\x7e\x00" + body + crc_ccitt(body).to_bytes(2, "big")


_HONEYWELL_HEAD = b"\x16\x4d\x0d"
REVISION = "REVINF"
_REVISION_HEAD = b"Product Name:"


def encode_honeywell_query(tag: str = REVISION) -> bytes:
    """A menu command that asks and changes nothing: the revision, or any other tag with `?` ("current value").

    There is no encoder for 16 54 0D (trigger) or for a setting: the health path must not be able to start a scan.
    """
    if not re.fullmatch(r"[A-Z0-9]{6}", tag):
        raise EncodeError("a menu command's tag has six capital letters or digits")
    return _HONEYWELL_HEAD + tag.encode() + (b"." if tag == REVISION else b"?.")


def crc_ccitt(data: bytes) -> int:
    """Polynomial 1021, start 0000, most significant bit first (XMODEM)."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def _unified(body: bytes, storage: bytes = _PERMANENT) -> bytes:
    return _UNIFIED_HEAD + b"0000" + storage + body + _UNIFIED_END


# --- serial: what comes back ---


class UnifiedResult(StrEnum):
    OK = "ok"
    BAD_DATA = "badData"
    UNKNOWN_COMMAND = "unknownCommand"


_RESULTS = {0x06: UnifiedResult.OK, 0x15: UnifiedResult.BAD_DATA, 0x05: UnifiedResult.UNKNOWN_COMMAND}


@dataclass(frozen=True, slots=True)
class UnifiedAnswer:
    """Answer to a unified or menu command; `value` is the maker's text and only kept for the tag that was asked.

    A printed code can imitate an answer to just this question, so `reply` is for evidence with the text blanked at `masked`.
    """

    tag: str
    result: UnifiedResult
    value: str = field(repr=False)
    reply: bytes
    masked: tuple[tuple[int, int], ...] = ()


class ZoneResult(StrEnum):
    OK = "ok"
    CRC_ERROR = "crcError"
    INVALID = "invalid"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ZoneAnswer:
    """Answer of an older engine; `reply` is for evidence, data and CRC blanked at `masked`, since a code can imitate this as well."""

    result: ZoneResult
    data: bytes = field(repr=False)
    reply: bytes
    masked: tuple[tuple[int, int], ...] = ()


ScannerEvent = Scan | UnifiedAnswer | ZoneAnswer
_ENDS = {0x0D: Terminator.CR, 0x0A: Terminator.LF, 0x03: Terminator.ETX}
_ZONE_RESULTS = {0x00: ZoneResult.OK, 0x01: ZoneResult.CRC_ERROR, 0x03: ZoneResult.INVALID}


_MENU_END = {
    True: lambda tag: re.compile(re.escape(tag) + rb"[\x05\x06\x15]\."),
    False: lambda tag: re.compile(rb"\A" + re.escape(tag) + rb"[^\x05\x06\x15]{0,64}[\x05\x06\x15]\."),
}
"""Ends of the answers to a question for the revision and to any other."""

_TEXT_CONTROLS = re.compile(rb"[\x00-\x03\x05-\x08\x0b\x0c\x0e-\x1b\x7f]")
"""Control characters that no code carries; ISO/IEC 15434 and GS1 use 04, 1C-1F."""


def is_text(data: bytes | bytearray) -> bool:
    """Whether these bytes are text as codes carry it. Looked at and forgotten."""
    if _TEXT_CONTROLS.search(data):
        return False
    for encoding in ("utf-8", "gb18030"):
        try:
            data.decode(encoding)
        except UnicodeDecodeError:
            continue
        return True
    return False


class ScannerReader(StreamDecoder[ScannerEvent]):
    """Takes answers out of a scanner's byte stream and counts the rest as scans.

    An answer is only looked for after `expect`: a printed code that imitates one is a scan like any other. A scan's bytes leave memory with
    the call that ends it; `flush()` ends one that has no terminator.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tag: str | None = None
        self._menu: str | None = None
        self._zone = False

    def expect(self, query: bytes) -> None:
        """Remember what `encode_query`, `encode_zone_read` or `encode_honeywell_query` built."""
        if query.startswith(_UNIFIED_HEAD) and len(query) >= 13:
            self._tag = query[7:13].decode("ascii", "replace")
        elif query.startswith(_HONEYWELL_HEAD) and len(query) >= 10:
            self._menu = query[3:9].decode("ascii", "replace")
        elif query.startswith(b"\x7e\x00"):
            self._zone = True

    def reset(self) -> None:
        super().reset()
        self._tag, self._menu, self._zone = None, None, False

    def flush(self) -> Scan | None:
        """The driver saw silence: what is pending was a scan without a terminator. An expected answer is given up."""
        self._tag, self._menu, self._zone = None, None, False
        length, readable = len(self._buffer), is_text(self._buffer)
        self._buffer.clear()
        return Scan(length, Terminator.SILENCE, readable) if length else None

    def _parse(self) -> ScannerEvent | None:
        while self._buffer:
            answers = self._answers_at()
            if answers is not None and answers[0] == 0:
                return answers[1]
            limit = len(self._buffer) if answers is None else answers[0]
            at = next((index for index in range(limit) if self._buffer[index] in _ENDS), -1)
            if at < 0:
                if answers is not None:
                    return self._scan(answers[0], Terminator.SILENCE, eat=0)
                if len(self._buffer) > SCAN_MAX_BYTES:
                    lost = len(self._buffer)
                    self._discard(lost)
                    raise BufferOverflow(f"{lost} bytes without a terminator")
                return None
            if at == 0 or (at == 1 and self._buffer[0] == 0x02):
                # CR LF, STX … ETX CR: what stands between two ends is no scan.
                del self._buffer[: at + 1]
                continue
            return self._scan(at, _ENDS[self._buffer[at]], eat=1)
        return None

    def _scan(self, length: int, terminator: Terminator, *, eat: int) -> Scan:
        framed = 1 if self._buffer[0] == 0x02 else 0
        readable = is_text(self._buffer[framed:length])
        del self._buffer[: length + eat]
        return Scan(length - framed, terminator, readable)

    def _answers_at(self) -> tuple[int, UnifiedAnswer | ZoneAnswer | None] | None:
        """Where an expected answer stands and, if complete and at the front, the answer itself (taken)."""
        if self._tag is not None:
            at = self._buffer.find(_UNIFIED_ANSWER + b"0000")
            if at >= 0:
                return at, self._unified_answer() if at == 0 else None
        if self._zone:
            at = self._buffer.find(b"\x02\x00")
            if at >= 0:
                return at, self._zone_answer() if at == 0 else None
        if self._menu is not None:
            # The revision comes as lines of text before the repeated command.
            at = self._buffer.find(_REVISION_HEAD) if self._menu == REVISION else -1
            at = at if at >= 0 else self._buffer.find(self._menu.encode())
            if at >= 0:
                return at, self._menu_answer() if at == 0 else None
        return None

    def _menu_answer(self) -> UnifiedAnswer | None:
        asked = self._menu or ""
        said = _MENU_END[asked == REVISION](asked.encode()).search(self._buffer)
        if said is None:
            if len(self._buffer) > 1024:
                self._menu = None
                self._discard(len(asked))
                raise FrameError("an answer to a menu command has no end")
            return None
        reply = self._take(said.end())
        self._menu = None
        told = reply[: said.start()] if asked == REVISION else reply[len(asked) : -2]
        value = re.sub(r"[^\x20-\x7e]+", " ", told.decode("ascii", "replace")).strip()
        start = 0 if asked == REVISION else len(asked)
        return UnifiedAnswer(asked, _RESULTS[reply[-2]], value[:256], *_blanked(reply, start, start + len(told)))

    def _unified_answer(self) -> UnifiedAnswer | None:
        end = self._buffer.find(_UNIFIED_END)
        if end < 0:
            if len(self._buffer) > 1024:
                self._tag = None
                self._discard(6)
                raise FrameError("an answer to a unified command has no end")
            return None
        reply = self._take(end + 2)
        asked, self._tag = self._tag, None
        tag, payload, result = reply[7:13].decode("ascii", "replace"), reply[13:-3], _RESULTS.get(reply[-3])
        if len(reply) < 16 or result is None or tag != asked:
            raise FrameError("an answer to a unified command does not fit its question")
        value = re.sub(r"[^\x20-\x7e]+", " ", payload.decode("ascii", "replace")).strip()
        return UnifiedAnswer(tag, result, value[:256], *_blanked(reply, 13, len(reply) - 3))

    def _zone_answer(self) -> ZoneAnswer | None:
        if len(self._buffer) < 4 or len(self._buffer) < 6 + self._buffer[3]:
            return None
        reply = self._take(6 + self._buffer[3])
        self._zone = False
        if crc_ccitt(reply[2:-2]).to_bytes(2, "big") != reply[-2:]:
            raise ChecksumError("an answer of a scan engine has a wrong CRC", evidence=reply[:4])
        return ZoneAnswer(_ZONE_RESULTS.get(reply[2], ZoneResult.UNKNOWN), reply[4:-2], *_blanked(reply, 4, len(reply)))


def _blanked(reply: bytes, start: int, end: int) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """The first EVIDENCE_BYTES of `reply` with [start, end) zeroed, and that span as it lies in what is left."""
    blanked = (reply[:start] + bytes(end - start) + reply[end:])[:EVIDENCE_BYTES]
    end = min(end, len(blanked))
    return blanked, ((start, end),) if start < end else ()


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """The result byte of an answer."""
    if reply.startswith(_UNIFIED_ANSWER) and reply.endswith(_UNIFIED_END) and len(reply) >= 16:
        result = _RESULTS.get(reply[-3])
        return (Explanation(len(reply) - 3, 0xFF, f"scanner.{result.value}"),) if result else ()
    if query.startswith(_HONEYWELL_HEAD) and len(reply) >= 2 and reply.endswith(b"."):
        result = _RESULTS.get(reply[-2])
        return (Explanation(len(reply) - 2, 0xFF, f"scanner.{result.value}"),) if result else ()
    if reply.startswith(b"\x02\x00") and len(reply) >= 6:
        return (Explanation(2, 0xFF, f"scanner.zone_{_ZONE_RESULTS.get(reply[2], ZoneResult.UNKNOWN).value}"),)
    return ()
