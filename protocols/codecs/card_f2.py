"""Card readers and dispensers of the F2 protocol (CREATOR CRT-591 and others of its time, QUIO QU-TK-F3): questions only, nothing moves a card.

CRT-591-M001 communication protocol 1.0 (2013-07-02), QU-TK-F3 communication protocol 1.03 (2019-01-10):
    host  F2 ADDR LENH LENL | 43 CM PM DATA         | 03 BCC      LEN counts from 43 to before 03, BCC is the XOR of all before it
    unit  06 or 15, then
          F2 ADDR LENH LENL | 50 CM PM ST0 ST1 ST2 DATA | 03 BCC  or  4E CM PM E1 E0 DATA (one print says 45 for 4E; both are taken)

Privacy is built in: DATA is blanked while the frame is taken apart, unless it answers a question about the unit itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from protocols.canon.words import DeviceState, PaperState
from protocols.codecs.card_unit import ETX, CardPlace, CardReading, CountedFrames, nothing_known, only_this
from protocols.codecs.common import Explanation, xor8
from protocols.errors import ChecksumError, EncodeError, FrameError

CODEC = "card_f2"
START = 0xF2
LEN_MIN, LEN_MAX = 3, 518
"""An empty command; head, CM, PM, three status bytes and 512 bytes of data."""
EVIDENCE_BYTES = 512
"""What a record carries of a reply (contract)."""
BAUD_RATES = (115200, 9600, 19200, 38400, 57600)
"""In the order to try: 115200 is what later units come with, the others are documented."""


class Query(StrEnum):
    """All this module can ask."""

    STATUS = "status"
    SENSORS = "sensors"
    VERSION = "version"


_WIRE = {Query.STATUS: b"10", Query.SENSORS: b"11", Query.VERSION: b"\xa40"}
_ABOUT_THE_UNIT = frozenset({*_WIRE.values(), b"00", b"01", b"03", b"04", b"05", b"07"})
"""Commands whose DATA is the unit's own: barriers, versions (the reset answers with one)."""


def encode(query: Query, address: int = 0) -> bytes:
    """The question's frame; EncodeError for an address that no switch can set."""
    if not 0 <= address <= 15:
        raise EncodeError("an address is 0 to 15")
    body = bytes((START, address, 0, 3, 0x43)) + _WIRE[Query(query)] + bytes((ETX,))
    return body + bytes((xor8(body),))


@dataclass(frozen=True, slots=True)
class Answer:
    """One result. `status` is ST0 ST1 ST2 of a positive one, E1 E0 of a negative one; `evidence` the frame, blanked at `masked`."""

    address: int
    positive: bool
    command: bytes
    status: bytes
    data: bytes = field(repr=False)
    evidence: bytes = field(repr=False)
    masked: tuple[tuple[int, int], ...] = ()

    def answers(self, query: Query, address: int) -> bool:
        return self.address == address and self.command == _WIRE[query]


class F2Reader(CountedFrames[Answer]):
    """Handshake bytes and results."""

    start = START
    head_bytes = 4
    lengths = range(LEN_MIN, LEN_MAX + 1)
    keeps_content = False
    """Whether DATA of commands that concern a card is kept; never here."""

    def _answer(self, frame: bytes) -> Answer | None:
        head, command, rest = frame[4], frame[5:7], frame[7:-2]
        if head == 0x43:
            return None
        positive = head == 0x50
        status_bytes = 3 if positive else 2
        if head not in (0x50, 0x4E, 0x45) or len(rest) < status_bytes:
            self.noise_bytes += len(frame)
            raise FrameError("neither a positive nor a negative result", evidence=frame[:7])
        status, data = rest[:status_bytes], rest[status_bytes:]
        if not data or self.keeps_content or command in _ABOUT_THE_UNIT:
            return Answer(frame[1], positive, command, status, data, frame[:EVIDENCE_BYTES])
        data_at = 7 + status_bytes
        kept = frame[:data_at] + bytes(min(len(data), 64))
        return Answer(frame[1], positive, command, status, b"", kept, ((data_at, len(kept)),))


_PLACES = {0x30: CardPlace.NONE, 0x31: CardPlace.GATE, 0x32: CardPlace.INSIDE}
_STOCKS = {0x30: PaperState.OUT, 0x31: PaperState.LOW, 0x32: PaperState.FULL}
_STOCK_TAILS = {PaperState.OUT: "STACKER_EMPTY", PaperState.LOW: "STACKER_LOW"}

TAIL_OF_ERROR = {
    "10": "CARD_STUCK",
    "12": "MECHANISM",
    "13": "CARD_STUCK",
    "14": "CARD_STUCK",
    "16": "CARD_STUCK",
    "41": "MECHANISM",
    "43": "CARD_STUCK",
    "50": "BIN_FULL",
    "51": "MECHANISM",
    "A0": "STACKER_EMPTY",
    "A1": "BIN_FULL",
    "B0": "NOT_READY",
}
"""What an error pair says about the unit. Other pairs are about a request or a card; a table that repeats its neighbour's text for the
numbers between (11, A2 to A9, …) is padding and proves nothing."""
_NAMED = frozenset(
    {*TAIL_OF_ERROR, "00", "01", "02", "03", "04", "05", "40", "45", "60", "61", "62", "65", "66", "67", "68", "69"}
)


def reading_of(answer: Answer, *, stacker: bool, bin_sensor: bool) -> CardReading:
    """Of an answer to STATUS. `stacker`, `bin_sensor`: whether the model has them, else their status bytes mean nothing."""
    explanations = _explained(answer)
    if not answer.positive:
        tail = TAIL_OF_ERROR.get(answer.status.decode("latin-1"))
        return nothing_known(explanations) if tail is None else only_this(tail, explanations)
    place, stock = _PLACES.get(answer.status[0]), _STOCKS.get(answer.status[1])
    if place is None:
        return nothing_known(explanations)
    tails = []
    if stacker and stock in _STOCK_TAILS:
        tails.append(_STOCK_TAILS[stock])
    bin_full = answer.status[2] == 0x31 if bin_sensor else None
    if bin_full:
        tails.append("BIN_FULL")
    return CardReading(
        device=DeviceState.ONLINE,
        place=place,
        stock=(stock or PaperState.UNKNOWN) if stacker else PaperState.NOT_SUPPORTED,
        bin_full=bin_full,
        conditions=tuple(tails),
        explanations=explanations,
    )


def barriers_of(answer: Answer) -> tuple[bool, ...] | None:
    """Light barriers S1, S2, … of an answer to SENSORS, True where something covers it; None if they were not told."""
    if not answer.positive or not answer.data or not set(answer.data) <= {0x30, 0x31}:
        return None
    return tuple(byte == 0x31 for byte in answer.data)


def version_text(answer: Answer) -> str:
    """The unit's own word for its firmware, e.g. `CRT-591-V1.00`."""
    return answer.data.decode("latin-1") if answer.positive else ""


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """The status bytes or the error pair of a stored result."""
    reader = F2Reader()
    reader.feed(reply[: LEN_MAX + 6])
    try:
        event = reader.next_event()
    except (ChecksumError, FrameError):
        return ()
    if not isinstance(event, Answer):
        return ()
    hits = _explained(event)
    # An answer to anything but the status has status bytes too, but they did not decide.
    return hits if event.command == _WIRE[Query.STATUS] or not event.positive else ()


def _explained(answer: Answer) -> tuple[Explanation, ...]:
    if not answer.positive:
        code = answer.status.decode("latin-1")
        return (Explanation(7, 0xFF, f"card_f2.e_{code.lower()}" if code in _NAMED else "card_f2.e_unknown", 2),)
    keys = (
        {0x30: "card_none", 0x31: "card_gate", 0x32: "card_inside"}.get(answer.status[0]),
        {0x30: "stacker_empty", 0x31: "stacker_low", 0x32: "stacker_enough"}.get(answer.status[1]),
        {0x30: "bin_ok", 0x31: "bin_full"}.get(answer.status[2]),
    )
    return tuple(Explanation(7 + at, 0xFF, f"card_f2.{key}") for at, key in enumerate(keys) if key is not None)
