"""What a code scanner read: bytes from its line, or text from key events by an explicit US layout. For the holder of a claim only.

A code whose end did not arrive is never handed on: half of a number is another number. Newland trigger: NLS-HR52 manual, "serial commands"; key
codes: linux/input-event-codes.h. Which symbology a code had is not told: scanners prefix it (ISO/IEC 15424) only if they are set up so, and a code
may begin with the same characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from protocols.codecs.keys import DOWN, EV_KEY, EV_SYN, SYN_DROPPED, UP, KeyEvent
from protocols.codecs.scanner import FLUSH_AFTER_S, SCAN_MAX_BYTES
from protocols.errors import BufferOverflow

Trouble = Literal["noEnd", "tooLong", "dropped", "notText"]
"""No terminator within the flush time; longer than any code; the kernel lost events; keys that mean no character."""


@dataclass(frozen=True, slots=True)
class Code:
    """One code, without its terminator."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Spoilt:
    """Something was read and cannot be handed on."""

    why: Trouble


Found = Code | Spoilt

_ENDS = {"cr": 0x0D, "lf": 0x0A, "etx": 0x03, "tab": 0x09}
_STX = 0x02
_HEAD, _ANSWER_HEAD, _TAIL = b"\x7e\x010000#", b"\x02\x010000#", b"\x3b\x03"


def encode_trigger(*, on: bool) -> bytes:
    """Newland unified commands: start or end one reading, until the next power cycle at most (`#`)."""
    return _HEAD + (b"SCNTRG1" if on else b"SCNTRG0") + _TAIL


class LineScan:
    """Codes out of a serial scanner's bytes. Time is passed in (seconds of any steady clock)."""

    def __init__(self, terminators: Iterable[str], *, flush_after_s: float = FLUSH_AFTER_S) -> None:
        """`terminators`: of a profile; those of keyboards mean nothing here."""
        self._ends = frozenset(_ENDS[word] for word in terminators if word in _ENDS) or frozenset(
            _ENDS[word] for word in ("cr", "lf")
        )
        self._flush_after_s = flush_after_s
        self._buffer = bytearray()
        self._last_s = 0.0
        self._answers = 0

    @property
    def pending(self) -> bool:
        return bool(self._buffer)

    def expect_answer(self) -> None:
        """A trigger was sent: one answer to it is no code."""
        self._answers += 1

    def feed(self, data: bytes, now_s: float) -> None:
        """Raises BufferOverflow when far more came than a code can have; nothing is kept then."""
        if data:
            self._last_s = now_s
        self._buffer += data
        if len(self._buffer) > 4 * SCAN_MAX_BYTES:
            self._buffer.clear()
            raise BufferOverflow("more bytes than any code has")

    def next(self, now_s: float) -> Found | None:
        self._strip_answer()
        while self._buffer:
            at = next((index for index, byte in enumerate(self._buffer) if byte in self._ends), -1)
            if at < 0:
                break
            data = bytes(self._buffer[:at])
            del self._buffer[: at + 1]
            data = data.removeprefix(bytes((_STX,)))
            if len(data) > SCAN_MAX_BYTES:
                return Spoilt("tooLong")
            if data:  # nothing stands between CR and LF
                return Code(data)
        if len(self._buffer) > SCAN_MAX_BYTES:
            self._buffer.clear()
            return Spoilt("tooLong")
        if self._buffer and now_s - self._last_s >= self._flush_after_s:
            self._buffer.clear()
            return Spoilt("noEnd")
        return None

    def _strip_answer(self) -> None:
        """An answer is taken out only where one is expected and only as a whole frame."""
        while self._answers:
            start = self._buffer.find(_ANSWER_HEAD + b"SCNTRG")
            end = self._buffer.find(_TAIL, start) if start >= 0 else -1
            if end < 0 or end - start > len(_ANSWER_HEAD) + 8:
                return
            del self._buffer[start : end + len(_TAIL)]
            self._answers -= 1


_LETTERS = {
    **dict(zip(range(16, 26), "qwertyuiop", strict=True)),
    **dict(zip(range(30, 39), "asdfghjkl", strict=True)),
    **dict(zip(range(44, 51), "zxcvbnm", strict=True)),
}
_PLAIN = {
    **dict(zip(range(2, 12), "1234567890", strict=True)), 12: "-", 13: "=", 26: "[", 27: "]", 39: ";", 40: "'", 41: "`", 43: "\\", 51: ",",
    52: ".", 53: "/", 57: " ",
}  # fmt: skip
_SHIFTED = {
    **dict(zip(range(2, 12), "!@#$%^&*()", strict=True)), 12: "_", 13: "+", 26: "{", 27: "}", 39: ":", 40: '"', 41: "~", 43: "|", 51: "<",
    52: ">", 53: "?", 57: " ",
}  # fmt: skip
_PAD = {
    71: "7", 72: "8", 73: "9", 75: "4", 76: "5", 77: "6", 79: "1", 80: "2", 81: "3", 82: "0", 83: ".", 74: "-", 78: "+", 55: "*", 98: "/",
}  # fmt: skip
_SHIFTS, _CAPS_LOCK = frozenset({42, 54}), 58
_SILENT = frozenset({69, 70})
"""NumLock and ScrollLock change nothing at this layer."""
_CHORDS = frozenset({29, 97, 56, 100, 125, 126})
"""Ctrl, Alt, Meta: scanners send control characters with them, which are no text."""
_KEY_ENDS = {"enter": 28, "kpEnter": 96, "tab": 15}


class KeyScan:
    """Text out of a keyboard scanner's events by the US layout, which is what such scanners are set to. Time is passed in."""

    def __init__(self, terminators: Iterable[str], *, flush_after_s: float = FLUSH_AFTER_S) -> None:
        self._ends = frozenset(_KEY_ENDS[word] for word in terminators if word in _KEY_ENDS) or frozenset({28})
        self._flush_after_s = flush_after_s
        self._held: set[int] = set()
        self._caps = False
        self._text: list[str] = []
        self._trouble: Trouble | None = None
        self._last_s = 0.0

    @property
    def pending(self) -> bool:
        return bool(self._text) or self._trouble is not None

    def feed(self, events: Iterable[KeyEvent], now_s: float) -> list[Found]:
        found: list[Found] = []
        for event in events:
            if event.type == EV_SYN and event.code == SYN_DROPPED:
                self._trouble, self._last_s = "dropped", now_s
            elif event.type == EV_KEY:
                found += self._key(event.code, event.value, now_s)
        return found + self.tick(now_s)

    def tick(self, now_s: float) -> list[Found]:
        """Ends what fell silent."""
        if self.pending and now_s - self._last_s >= self._flush_after_s:
            return self._end(self._trouble or "noEnd")
        return []

    def _key(self, code: int, value: int, now_s: float) -> list[Found]:
        if code in _SHIFTS or code in _CHORDS:
            (self._held.discard if value == UP else self._held.add)(code)
            return []
        if value != DOWN or code in _SILENT:
            return []
        if code == _CAPS_LOCK:
            self._caps = not self._caps
            return []
        self._last_s = now_s
        if code in self._ends:
            return self._end(self._trouble) if self.pending else []
        character = self._character(code)
        if character is None or self._held & _CHORDS:
            self._trouble = self._trouble or "notText"
        elif len(self._text) >= SCAN_MAX_BYTES:
            self._trouble = "tooLong"
        else:
            self._text.append(character)
        return []

    def _character(self, code: int) -> str | None:
        shifted = bool(self._held & _SHIFTS)
        if code in _LETTERS:
            return _LETTERS[code].upper() if shifted != self._caps else _LETTERS[code]
        if code in _PAD:
            return _PAD[code]
        return (_SHIFTED if shifted else _PLAIN).get(code)

    def _end(self, trouble: Trouble | None) -> list[Found]:
        text, self._text, self._trouble = self._text, [], None
        return [Code("".join(text).encode("ascii")) if trouble is None else Spoilt(trouble)]
