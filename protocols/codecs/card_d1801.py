"""Card dispensers with two-letter commands (D1801 boards: QU-CD-720M, K720, KCDF; CRT-540/541 with an address): questions only.

QU-CD-720M/820M manual 3.19, section 3.5 ("simple"):
    host  02 C1 C2 03 BCC, unit 06 or 15, host 05 (only now it acts), unit 02 R1 R2 D1 D2 D3 03 BCC where there is something to say
CRT-541 specification 1.0 (2010-01-10), section 4.4 ("addressed", two ASCII digits):
    host  02 A A C1 C2 03 BCC, unit 06 A A or 15 A A and acts at once; to an enquiry then 02 A A WORK STACK 03 BCC
BCC is the XOR of all before it.

Neither form can carry anything about a card but where it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from protocols.canon.words import DeviceState, PaperState
from protocols.codecs.card_unit import MARKS, CardPlace, CardReading, Mark, device_of, nothing_known
from protocols.codecs.common import Explanation, StreamDecoder, xor8
from protocols.errors import ChecksumError, EncodeError, FrameError

CODEC = "card_d1801"
START, ETX = 0x02, 0x03
POLL_GAP_S = 0.2
"""No faster (CRT-541 specification 5.1.2)."""
_FRAME_BYTES, _COMMAND_BYTES, _ADDRESSED_BYTES = 8, 5, 7


class Query(StrEnum):
    """All this module can ask: the state in one word, all flags at once, the version, and the enquiry of the addressed form."""

    STATE = "RF"
    FLAGS = "PB"
    VERSION = "GV"
    ENQUIRY = "AP"


_REPLY_OF = {Query.STATE: "SF", Query.FLAGS: "PB", Query.VERSION: "GV"}


def encode(query: Query, address: int | None = None) -> bytes:
    """The question's frame. The addressed form knows AP only, the simple one all others; EncodeError for what does not go together."""
    if (address is not None) != (query is Query.ENQUIRY):
        raise EncodeError(f"{query} does not exist in this form")
    if address is not None and not 0 <= address <= 15:
        raise EncodeError("an address is 00 to 15")
    body = bytes((START,)) + (b"" if address is None else b"%02d" % address) + query.encode("ascii") + bytes((ETX,))
    return body + bytes((xor8(body),))


@dataclass(frozen=True, slots=True)
class Answer:
    """One result: `SF`, `PB` or `GV` with three characters; addressed, `AP` with work and stacker state."""

    kind: str
    value: bytes
    address: int | None
    evidence: bytes = field(repr=False)

    def answers(self, query: Query, address: int | None) -> bool:
        return self.address == address and self.kind == _REPLY_OF.get(query, query.value)


class D1801Reader(StreamDecoder[Mark | Answer]):
    """Handshake bytes and results of one form. What the host itself said (an echo) is dropped and is no noise; so is our own 05."""

    def __init__(self, *, addressed: bool = False) -> None:
        super().__init__()
        self._addressed = addressed

    def _parse(self) -> Mark | Answer | None:
        while self._buffer:
            first = self._buffer[0]
            if first in MARKS:
                if not self._addressed or first == 0x04:
                    self._take(1)
                    return MARKS[first]
                if len(self._buffer) < 3:
                    return None
                digits = bytes(self._buffer[1:3])
                if digits.isdigit():
                    self._take(3)
                    return MARKS[first]
                self._discard(1)
            elif first == 0x05 and not self._addressed:
                self._take(1)
            elif first != START:
                self._discard(1)
            else:
                size = self._size()
                if size is None:
                    return None
                answer = self._addressed_answer(size) if self._addressed else self._simple_answer(size)
                if answer is not None:
                    return answer
        return None

    def _size(self) -> int | None:
        """Bytes of the frame that begins the buffer; None while it is not complete."""
        if self._addressed:
            return _ADDRESSED_BYTES if len(self._buffer) >= _ADDRESSED_BYTES else None
        if len(self._buffer) < _COMMAND_BYTES:
            return None
        if self._buffer[3] == ETX:  # the digits of a result begin with 3
            return _COMMAND_BYTES
        return _FRAME_BYTES if len(self._buffer) >= _FRAME_BYTES else None

    def _checked(self, size: int) -> bytes:
        frame = bytes(self._buffer[:size])
        if frame[-2] != ETX:
            self._discard(1)
            raise FrameError("a result has another length", evidence=frame)
        if xor8(frame[:-1]) != frame[-1]:
            self._discard(size)  # whole: a byte inside it may look like a handshake, and the host would answer it
            raise ChecksumError("a result's check byte is wrong", evidence=frame)
        self._take(size)
        return frame

    def _simple_answer(self, size: int) -> Answer | None:
        frame = self._checked(size)
        if size == _COMMAND_BYTES:
            return None
        kind, value = frame[1:3].decode("latin-1"), frame[3:6]
        if kind not in _REPLY_OF.values() or any(byte & 0xF0 != 0x30 for byte in value):
            self.noise_bytes += size
            raise FrameError("no such result", evidence=frame)
        return Answer(kind, value, None, frame)

    def _addressed_answer(self, size: int) -> Answer | None:
        frame = self._checked(size)
        if frame[3:5].isalpha() or frame[3:4].isalpha():
            return None
        if not frame[1:3].isdigit():
            self.noise_bytes += size
            raise FrameError("no such result", evidence=frame)
        return Answer(Query.ENQUIRY.value, frame[3:5], int(frame[1:3]), frame)


class Flag(StrEnum):
    """One bit of the twelve; the state word RF has the first of them in the order of `_PRIORITY`."""

    DISPENSE_FAILED = "dispenseFailed"
    JAM = "jam"
    BIN_FULL = "binFull"
    DISPENSING = "dispensing"
    CAPTURING = "capturing"
    AT_MOUTH = "atMouth"
    AT_READER = "atReader"
    EMPTY = "empty"
    LOW = "low"
    TAKEN = "taken"
    CAPTURED = "captured"
    READY = "ready"


_BITS = {
    Flag.BIN_FULL: (0, 1), Flag.DISPENSE_FAILED: (0, 2), Flag.CAPTURING: (0, 4), Flag.DISPENSING: (0, 8),
    Flag.LOW: (1, 1), Flag.JAM: (1, 2), Flag.CAPTURED: (1, 4), Flag.TAKEN: (1, 8),
    Flag.READY: (2, 1), Flag.AT_READER: (2, 2), Flag.AT_MOUTH: (2, 4), Flag.EMPTY: (2, 8),
}  # fmt: skip
_PRIORITY = (
    Flag.DISPENSE_FAILED, Flag.JAM, Flag.BIN_FULL, Flag.DISPENSING, Flag.CAPTURING, Flag.AT_MOUTH, Flag.AT_READER, Flag.EMPTY, Flag.LOW,
)  # fmt: skip
_TAIL_OF = {
    Flag.DISPENSE_FAILED: "MECHANISM", Flag.JAM: "CARD_STUCK", Flag.BIN_FULL: "BIN_FULL", Flag.EMPTY: "STACKER_EMPTY", Flag.LOW: "STACKER_LOW",
}  # fmt: skip
READY_STATE, NOT_READY_STATE = b"000", b"001"


def flags_of(value: bytes) -> frozenset[Flag]:
    """Flags in three characters; of a state word there is one at most."""
    return frozenset(flag for flag, (at, bit) in _BITS.items() if value[at] & bit)


def reading_of(answer: Answer, *, low_means_empty: bool = False) -> CardReading:
    """Of an answer to STATE, FLAGS or ENQUIRY. `low_means_empty`: boards whose state 010 is an empty stacker (sources differ)."""
    explanations = _explained(answer)
    if answer.kind == "AP":
        return _reading_of_enquiry(answer, explanations)
    if answer.kind == "SF" and answer.value == NOT_READY_STATE:
        return CardReading(device=DeviceState.OFFLINE, place=CardPlace.NONE, conditions=("NOT_READY",), explanations=explanations)
    flags = flags_of(answer.value) - ({Flag.READY} if answer.kind == "SF" else frozenset())
    if low_means_empty and Flag.LOW in flags:
        flags = flags - {Flag.LOW} | {Flag.EMPTY}
    judged = None
    if answer.kind == "SF" and answer.value != READY_STATE:
        first = next((at for at, flag in enumerate(_PRIORITY) if flag in flags), None)
        if first is None:
            return nothing_known(explanations)
        # The word names the first only: what ranks behind it may be there as well.
        judged = frozenset({tail for flag in _PRIORITY[: first + 1] if (tail := _TAIL_OF.get(flag))} | {"NOT_READY", "CARD_LEFT"})
    tails = [_TAIL_OF[flag] for flag in _PRIORITY if flag in flags and flag in _TAIL_OF]
    if "STACKER_EMPTY" in tails:
        tails = [tail for tail in tails if tail != "STACKER_LOW"]
    idle = not flags & {Flag.DISPENSING, Flag.CAPTURING}
    if answer.kind == "PB" and Flag.READY not in flags and idle and not tails and not flags & {Flag.AT_MOUTH, Flag.AT_READER}:
        tails.append("NOT_READY")
    broken = next((device for tail in tails if (device := device_of(tail)) is not DeviceState.ONLINE), None)
    return CardReading(
        device=broken or (DeviceState.ONLINE if idle else DeviceState.BUSY),
        place=_place_of(flags, masked=judged is not None and Flag.AT_READER not in flags and Flag.AT_MOUTH not in flags),
        stock=_stock_of(flags, masked=judged is not None),
        bin_full=Flag.BIN_FULL in flags if judged is None or Flag.BIN_FULL in flags else None,
        conditions=tuple(tails),
        judged=judged,
        explanations=explanations,
    )


def _place_of(flags: frozenset[Flag], *, masked: bool) -> CardPlace:
    if Flag.JAM in flags:
        return CardPlace.JAMMED
    if Flag.AT_MOUTH in flags:
        return CardPlace.GATE
    if Flag.AT_READER in flags:
        return CardPlace.INSIDE
    # Empty and low rank behind every position, so they say that there is none.
    return CardPlace.UNKNOWN if masked and not flags & {Flag.EMPTY, Flag.LOW} else CardPlace.NONE


def _stock_of(flags: frozenset[Flag], *, masked: bool) -> PaperState:
    if Flag.EMPTY in flags:
        return PaperState.OUT
    if Flag.LOW in flags:
        return PaperState.LOW
    return PaperState.UNKNOWN if masked else PaperState.FULL


class Work(StrEnum):
    """Working state of the addressed form."""

    READY = "0"
    DISPENSING = "1"
    LAST_OK = "3"
    """Told once, to the first enquiry after a card came out."""
    FAILED = "4"
    PREPARING = "5"
    CANNOT = "6"
    """Empty, faulty, or waiting for a card to be taken: told once after a refused command."""


_STACKS = {0x30: PaperState.FULL, 0x31: PaperState.LOW, 0x32: PaperState.OUT}


def work_of(answer: Answer) -> Work | None:
    """The working state of an ENQUIRY's answer; None for a number without a meaning."""
    word = answer.value[:1].decode("latin-1")
    return Work(word) if word in {work.value for work in Work} else None


def _reading_of_enquiry(answer: Answer, explanations: tuple[Explanation, ...]) -> CardReading:
    work, stock = work_of(answer), _STACKS.get(answer.value[1], PaperState.UNKNOWN)
    if work is None:
        return nothing_known(explanations)
    tails = ["MECHANISM"] if work is Work.FAILED else []
    if stock in (PaperState.OUT, PaperState.LOW):
        tails.append("STACKER_EMPTY" if stock is PaperState.OUT else "STACKER_LOW")
    busy = work in (Work.DISPENSING, Work.PREPARING)
    device = DeviceState.HARDWARE_ERROR if work is Work.FAILED else DeviceState.BUSY if busy else DeviceState.ONLINE
    return CardReading(device=device, place=None, stock=stock, conditions=tuple(tails), explanations=explanations)


def version_text(answer: Answer) -> str:
    """`315` is version 3.15 (manual 3.5.5.2)."""
    digits = answer.value.decode("latin-1")
    return f"{digits[0]}.{digits[1:]}" if answer.kind == "GV" and digits.isdecimal() else ""


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """The state characters of a stored result; the query tells the form."""
    reader = D1801Reader(addressed=len(query) == _ADDRESSED_BYTES)
    reader.feed(reply[:64])
    try:
        event = reader.next_event()
    except (ChecksumError, FrameError):
        return ()
    return _explained(event) if isinstance(event, Answer) else ()


def _explained(answer: Answer) -> tuple[Explanation, ...]:
    if answer.kind == "AP":
        work = work_of(answer)
        words = [] if work is None else [Explanation(3, 0xFF, f"card_d1801.work_{work.value}")]
        stack = {0x30: "stack_enough", 0x31: "stack_low", 0x32: "stack_empty"}.get(answer.value[1])
        return (*words, Explanation(4, 0xFF, f"card_d1801.{stack}")) if stack else tuple(words)
    if answer.kind == "SF" and answer.value in (READY_STATE, NOT_READY_STATE):
        return (Explanation(3, 0xFF, "card_d1801.ready" if answer.value == READY_STATE else "card_d1801.not_ready", 3),)
    if answer.kind not in ("SF", "PB"):
        return ()
    flags = flags_of(answer.value)
    return tuple(
        Explanation(3 + at, bit, f"card_d1801.{_KEYS[flag]}")
        for flag, (at, bit) in _BITS.items()
        if flag in flags and flag in _KEYS
    )


_KEYS = {
    Flag.DISPENSE_FAILED: "dispense_failed", Flag.JAM: "jam", Flag.BIN_FULL: "bin_full", Flag.DISPENSING: "dispensing",
    Flag.CAPTURING: "capturing", Flag.AT_MOUTH: "at_mouth", Flag.AT_READER: "at_reader", Flag.EMPTY: "empty", Flag.LOW: "low",
    Flag.TAKEN: "taken", Flag.CAPTURED: "captured", Flag.READY: "flag_ready",
}  # fmt: skip
