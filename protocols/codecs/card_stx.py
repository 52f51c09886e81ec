"""Card readers of the older CREATOR protocol (CRT-310 before F2, CRT-188): questions only, nothing moves a card.

As in public drivers of the CRT-310, and the CRT-188 additional command specification 1.0 (2006-07-16) for the frame:
    host  02 LENH LENL | CM PM DATA | 03 BCC         LEN counts CM to DATA, BCC is the XOR of all before it
    unit  06 or 15; host 05 (only now the command is carried out); unit 02 LENH LENL | CM PM DATA | 03 BCC  or  4E CM ERROR; host 06

Privacy is built in: DATA is blanked while the frame is taken apart, unless it answers a question about the unit itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from protocols.canon.words import DeviceState
from protocols.codecs.card_unit import ETX, CardPlace, CardReading, CountedFrames, nothing_known, only_this
from protocols.codecs.common import Explanation, xor8
from protocols.errors import ChecksumError, FrameError

CODEC = "card_stx"
START, NEGATIVE = 0x02, 0x4E
LEN_MIN, LEN_MAX = 2, 514
EVIDENCE_BYTES = 512
"""What a record carries of a reply (contract)."""
BAUD_RATES = (9600, 19200, 38400, 57600, 115200)


class Query(StrEnum):
    """All this module can ask."""

    STATUS = "status"
    SENSORS = "sensors"


_WIRE = {Query.STATUS: b"10", Query.SENSORS: b"1/"}
_ABOUT_THE_UNIT = frozenset({*_WIRE.values(), b"00", b"01", b"02"})
"""Commands whose DATA is the unit's own; the reset answers with a version."""


def encode(query: Query) -> bytes:
    body = bytes((START, 0, 2)) + _WIRE[Query(query)] + bytes((ETX,))
    return body + bytes((xor8(body),))


@dataclass(frozen=True, slots=True)
class Answer:
    """One result. A negative one repeats CM only; `evidence` is the frame, blanked at `masked`."""

    positive: bool
    command: bytes
    error: int | None
    data: bytes = field(repr=False)
    evidence: bytes = field(repr=False)
    masked: tuple[tuple[int, int], ...] = ()

    def answers(self, query: Query) -> bool:
        return _WIRE[query].startswith(self.command)


class StxReader(CountedFrames[Answer]):
    """Handshake bytes and results."""

    start = START
    head_bytes = 3
    lengths = range(LEN_MIN, LEN_MAX + 1)
    ignored = frozenset({0x05})
    """Our own request for the answer, heard again."""
    keeps_content = False

    def _answer(self, frame: bytes) -> Answer | None:
        body = frame[3:-2]
        if body[0] == NEGATIVE and len(body) >= 3:
            return Answer(False, body[1:2], body[2], b"", frame[:6] + frame[-2:] if len(body) == 3 else frame[:6])
        command, data = body[:2], body[2:]
        if not data:
            return None
        if self.keeps_content or command in _ABOUT_THE_UNIT:
            return Answer(True, command, None, data, frame[:EVIDENCE_BYTES])
        kept = frame[:5] + bytes(min(len(data), 64))
        return Answer(True, command, None, b"", kept, ((5, len(kept)),))


_PLACES = {
    0x46: CardPlace.JAMMED,
    0x47: CardPlace.JAMMED,
    0x48: CardPlace.GATE,
    0x49: CardPlace.GATE,
    0x4A: CardPlace.INSIDE,
    0x4B: CardPlace.INSIDE,
    0x4C: CardPlace.INSIDE,
    0x4D: CardPlace.INSIDE,
    0x4E: CardPlace.NONE,
}
"""Too long, too short, front not held, front held, inside, at the contacts, rear held, rear not held, none."""
_PLACE_KEYS = {
    0x46: "too_long", 0x47: "too_short", 0x48: "front_loose", 0x49: "front_held", 0x4A: "inside", 0x4B: "contacts", 0x4C: "rear_held",
    0x4D: "rear_loose", 0x4E: "none",
}  # fmt: skip
_ERROR_KEYS = {0: "command", 1: "parameter", 2: "not_now", 4: "data", 5: "voltage", 6: "abnormal_card", 7: "main_power_lost"}


def reading_of(answer: Answer) -> CardReading:
    """Of an answer to STATUS."""
    explanations = _explained(answer)
    if not answer.positive:
        if answer.error == 5:
            return only_this("POWER", explanations)
        if answer.error == 6:
            return only_this("CARD_STUCK", explanations)
        if answer.error == 7:
            return only_this("POWER", explanations, device=DeviceState.POWER_OFF)
        return nothing_known(explanations, device=DeviceState.BUSY if answer.error == 2 else DeviceState.UNKNOWN)
    place = _PLACES.get(answer.data[0])
    if place is None:
        return nothing_known(explanations)
    if place is CardPlace.JAMMED:
        return CardReading(device=DeviceState.HARDWARE_ERROR, place=place, conditions=("CARD_STUCK",), explanations=explanations)
    return CardReading(place=place, explanations=explanations)


def barriers_of(answer: Answer) -> tuple[bool, ...] | None:
    """The five light barriers of an answer to SENSORS, True where something covers it; None if they were not told."""
    if not answer.positive or len(answer.data) < 5 or not set(answer.data[:5]) <= {0x30, 0x31}:
        return None
    return tuple(byte == 0x31 for byte in answer.data[:5])


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """The card's position or the error byte of a stored result."""
    reader = StxReader()
    reader.feed(reply[: LEN_MAX + 5])
    try:
        event = reader.next_event()
    except (ChecksumError, FrameError):
        return ()
    return _explained(event) if isinstance(event, Answer) else ()


def _explained(answer: Answer) -> tuple[Explanation, ...]:
    if not answer.positive:
        return (Explanation(5, 0xFF, f"card_stx.e_{_ERROR_KEYS.get(answer.error or 0, 'unknown')}"),)
    if answer.command != _WIRE[Query.STATUS]:
        return ()
    key = _PLACE_KEYS.get(answer.data[0])
    return () if key is None else (Explanation(5, 0xFF, f"card_stx.{key}"),)
