"""Call pads (叫号器) and evaluators (评价器) on RS-485 or RS-232: configurable framing, keys, ratings. Polls, never talks to citizens.

No public standard exists. The default rules are the frame of one published call-pad specification, which is the long frame of IEC 60870-5-1
FT1.2 (M-Bus, EN 13757-2) behind one FF: `FF 68 | L | L | 68 | ADDR | FUNC | DATA… | CS | 16`, L from ADDR to before CS, CS the 8-bit sum of
the same bytes. Key codes and function 11 (rating) are those of a deployed window system. What vendors do otherwise is data (`FrameRules`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from protocols.codecs.common import Explanation, StreamDecoder, sum8, xor8
from protocols.errors import ChecksumError, EncodeError, FrameError

CODEC = "callpad"
LengthRule = Literal["double", "single", "fixed"]
ChecksumRule = Literal["sum8", "xor8", "none"]


class PadAction(StrEnum):
    """What the staff member wants; words of the `queue` record. Digits only serve the two-key actions and never leave this module."""

    CALL_NEXT = "callNext"
    RECALL = "recall"
    EVALUATE = "evaluate"
    CANCEL = "cancel"
    CONFIRM = "confirm"
    ONE_METRE = "oneMetre"
    PAUSE = "pause"
    TRANSFER = "transfer"
    DROP = "drop"
    HOLD = "hold"
    CALL_BACK = "callBack"


DEFAULT_KEYS: Mapping[int, str] = MappingProxyType({
    **{digit: str(digit) for digit in range(10)},
    0x0B: PadAction.EVALUATE.value,
    0x0C: PadAction.CALL_NEXT.value,
    0x0D: PadAction.RECALL.value,
    0x0E: PadAction.CANCEL.value,
    0x0F: PadAction.CONFIRM.value,
    0x11: PadAction.ONE_METRE.value,
    0x12: PadAction.PAUSE.value,
    0x13: PadAction.TRANSFER.value,
})  # fmt: skip
DEFAULT_SEQUENCES: Mapping[str, PadAction] = MappingProxyType(
    {"6": PadAction.DROP, "0": PadAction.HOLD, "3": PadAction.CALL_BACK}
)
"""Digit, then confirm."""
DEFAULT_RATINGS: Mapping[int, int] = MappingProxyType({level: level for level in range(6)})
"""Data byte of function 11 to level (GB/T 39735: 5 is best; 0 asked, not answered)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRules:
    """How one vendor frames. `double` writes the length twice with `separator` behind it; `fixed` writes none and has `fixed_bytes` bytes.

    The length counts ADDR, FUNC and DATA; the checksum runs over the same bytes, or from the first length byte with `sum_from_length`.
    """

    start: bytes = b"\xff\x68"
    length: LengthRule = "double"
    fixed_bytes: int = 0
    separator: bytes = b"\x68"
    checksum: ChecksumRule = "sum8"
    sum_from_length: bool = False
    end: bytes = b"\x16"
    poll_function: int = 0x01
    key_function: int = 0x01
    display_function: int = 0x02
    rating_function: int = 0x11
    keys: Mapping[int, str] = field(default_factory=lambda: DEFAULT_KEYS)
    ratings: Mapping[int, int] = field(default_factory=lambda: DEFAULT_RATINGS)
    max_body_bytes: int = 64

    def __post_init__(self) -> None:
        if not self.start:
            raise EncodeError("a frame needs at least one start byte to be found by")
        if self.length == "fixed" and not 2 <= self.fixed_bytes <= self.max_body_bytes:
            raise EncodeError(
                f"a fixed frame has 2-{self.max_body_bytes} bytes from ADDR to before the checksum, not {self.fixed_bytes}"
            )
        if not 2 <= self.max_body_bytes <= 255:
            raise EncodeError("max_body_bytes is 2-255")


DEFAULT_RULES = FrameRules()


@dataclass(frozen=True, slots=True)
class PadFrame:
    """One frame of the bus. `raw` may be echoed as it is and kept as evidence: staff keys and ratings, no citizen's data."""

    address: int
    function: int
    data: bytes
    raw: bytes = field(repr=False)


def encode_frame(address: int, function: int, data: bytes = b"", rules: FrameRules = DEFAULT_RULES) -> bytes:
    """One frame; EncodeError for numbers that do not fit."""
    if not 0 <= address <= 0xFF or not 0 <= function <= 0xFF:
        raise EncodeError(f"address {address} and function {function} are bytes")
    body = bytes((address, function)) + data
    if len(body) > rules.max_body_bytes or (rules.length == "fixed" and len(body) != rules.fixed_bytes):
        raise EncodeError(f"{len(body)} bytes do not fit this frame")
    length = {"double": bytes((len(body), len(body))), "single": bytes((len(body),)), "fixed": b""}[rules.length]
    head = length + rules.separator
    return rules.start + head + body + _check(head + body if rules.sum_from_length else body, rules) + rules.end


def encode_poll(address: int, rules: FrameRules = DEFAULT_RULES) -> bytes:
    """Ask one pad: it echoes the poll when nothing happened, else it sends its key or rating."""
    return encode_frame(address, rules.poll_function, b"", rules)


def encode_display(address: int, ticket: str, rules: FrameRules = DEFAULT_RULES) -> bytes:
    """Show the last three digits of a ticket number."""
    digits = ticket[-3:].rjust(3, "0")
    if not (digits.isascii() and digits.isdigit()):
        raise EncodeError("a pad shows digits only")
    return encode_frame(address, rules.display_function, digits.encode(), rules)


class CallPadReader(StreamDecoder[PadFrame]):
    """Finds frames in the bus's byte stream."""

    def __init__(self, rules: FrameRules = DEFAULT_RULES) -> None:
        super().__init__()
        self._rules = rules
        self._echo = b""

    def expect_echo(self, sent: bytes) -> None:
        """Two-wire adapters hear themselves: drop exactly these bytes if they come next. Only for ports that are known to do so,
        because an idle pad answers with the same frame."""
        self._echo += sent

    def reset(self) -> None:
        super().reset()
        self._echo = b""

    def _parse(self) -> PadFrame | None:
        if self._echo and not self._drop_echo():
            return None
        rules = self._rules
        head_bytes = len(rules.start) + {"double": 2, "single": 1, "fixed": 0}[rules.length] + len(rules.separator)
        while True:
            if not self._seek(rules.start):
                return None
            if len(self._buffer) < head_bytes:
                return None
            length = self._body_length(head_bytes)
            if length is None:
                evidence = bytes(self._buffer[:head_bytes])
                self._discard(1)
                raise FrameError("the length bytes of a frame do not agree or are too large", evidence=evidence)
            check_bytes = 0 if rules.checksum == "none" else 1
            total = head_bytes + length + check_bytes + len(rules.end)
            if len(self._buffer) < total:
                return None
            return self._frame(head_bytes, length, check_bytes, total)

    def _body_length(self, head_bytes: int) -> int | None:
        rules, at = self._rules, len(self._rules.start)
        if rules.separator and self._buffer[head_bytes - len(rules.separator) : head_bytes] != rules.separator:
            return None
        if rules.length == "fixed":
            return rules.fixed_bytes
        length = self._buffer[at]
        if rules.length == "double" and self._buffer[at + 1] != length:
            return None
        return length if 2 <= length <= rules.max_body_bytes else None

    def _frame(self, head_bytes: int, length: int, check_bytes: int, total: int) -> PadFrame:
        rules = self._rules
        raw = bytes(self._buffer[:total])
        body = raw[head_bytes : head_bytes + length]
        summed = raw[len(rules.start) : head_bytes + length] if rules.sum_from_length else body
        if raw[head_bytes + length : head_bytes + length + check_bytes] != _check(summed, rules):
            # Only the start is given up: a cut frame may hide the beginning of a good one.
            self._discard(len(rules.start))
            raise ChecksumError(f"a frame of address {body[0]} has a wrong checksum", evidence=raw)
        if not raw.endswith(rules.end):
            self._discard(len(rules.start))
            raise FrameError("a frame does not end as it should", evidence=raw)
        del self._buffer[:total]
        return PadFrame(body[0], body[1], body[2:], raw)

    def _drop_echo(self) -> bool:
        """False while more of the echo may come."""
        count = min(len(self._echo), len(self._buffer))
        if self._buffer[:count] != self._echo[:count]:
            self._echo = b""
            return True
        del self._buffer[:count]
        self._echo = self._echo[count:]
        return not self._echo


class KeySequence:
    """Turns one pad's keys into actions; a digit waits for confirm at most `within_s`. Pure, time is passed in."""

    def __init__(self, *, sequences: Mapping[str, PadAction] = DEFAULT_SEQUENCES, within_s: float = 5.0) -> None:
        self._sequences = sequences
        self._within_s = within_s
        self._digit: str | None = None
        self._since_s = 0.0

    def press(self, key: str, now_s: float) -> PadAction | None:
        """The action that is complete with this key, if any; two digits in a row are a ticket number, not an action."""
        if len(key) == 1 and key.isdigit():
            fresh = self._digit is None or now_s - self._since_s > self._within_s
            self._digit, self._since_s = (key if fresh else ""), now_s
            return None
        digit, self._digit = self._digit, None
        if key == PadAction.CONFIRM:
            if digit is None or now_s - self._since_s > self._within_s:
                return PadAction.CONFIRM
            return self._sequences.get(digit, PadAction.CONFIRM)
        try:
            return PadAction(key)
        except ValueError:
            return None


def key_of(frame: PadFrame, rules: FrameRules = DEFAULT_RULES) -> str | None:
    """The key a frame reports; None for other functions and for codes the table does not have."""
    if frame.function != rules.key_function or len(frame.data) != 1:
        return None
    return rules.keys.get(frame.data[0])


def rating_of(frame: PadFrame, rules: FrameRules = DEFAULT_RULES) -> int | None:
    """The level 0-5 a frame reports; None for other functions and for values the table does not have."""
    if frame.function != rules.rating_function or not frame.data:
        return None
    return rules.ratings.get(frame.data[0])


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """Address and function of a frame under the default rules; the checksum byte if it is what is wrong."""
    reader = CallPadReader()
    reader.feed(reply)
    at = reply.find(DEFAULT_RULES.start)
    try:
        frame = reader.next_event()
    except ChecksumError:
        return (Explanation(at + 5 + reply[at + 2], 0xFF, "callpad.checksum"),)
    except FrameError:
        return (Explanation(at, 0xFF, "callpad.frame", len(DEFAULT_RULES.start)),)
    if frame is None:
        return ()
    return (Explanation(at + 5, 0xFF, "callpad.address"), Explanation(at + 6, 0xFF, "callpad.function"))


def _check(summed: bytes, rules: FrameRules) -> bytes:
    if rules.checksum == "none":
        return b""
    return bytes((sum8(summed) if rules.checksum == "sum8" else xor8(summed),))
