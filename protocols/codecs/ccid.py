"""USB smart-card readers (CCID): slot status, notices of insertion, hardware errors. Cannot power a card and keeps nothing of one.

USB Device Class Specification for Integrated Circuit(s) Cards Interface Devices, revision 1.1: messages on the bulk pipes (chapter 6.1, 6.2) have a
header of ten bytes, numbers are little-endian:
    host   type | dwLength(4) | bSlot | bSeq | three bytes of the type | data
    reader type | dwLength(4) | bSlot | bSeq | bStatus | bError | one byte of the type | data
An answer belongs to the question with the same slot and sequence number. Notices come on the interrupt pipe (6.3).

Privacy is built in: the only questions are GetSlotStatus and Abort, which carry no data; what an answer to somebody else's exchange carries (an
answer to reset, a response of a card) is blanked while the message is taken apart.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from protocols.codecs.common import Explanation, StreamDecoder
from protocols.errors import EncodeError, FrameError, UnexpectedReply

CODEC = "ccid"
HEADER_BYTES = 10
MAX_DATA_BYTES = 4096
"""Of a message that is taken apart. A whole extended APDU is longer; the monitor never asked for one, and finds its place again behind it."""
ANSWER_TIMEOUT_S = 1.0
"""For GetSlotStatus: the reader answers from what it knows, without a card."""
INTERFACE_CLASS = 0x0B
CLASS_DESCRIPTOR, CLASS_DESCRIPTOR_BYTES = 0x21, 0x36
ABORT_REQUEST_TYPE, ABORT_REQUEST = 0x21, 0x01
"""Control request ABORT (5.3.1): goes before the bulk message Abort, with slot and sequence number in wValue."""
OVER_CURRENT = 0x01
_GET_SLOT_STATUS, _ABORT = 0x65, 0x72
_NOTIFY_SLOT_CHANGE, _HARDWARE_ERROR = 0x50, 0x51


class MessageType(IntEnum):
    """What a reader sends on bulk-IN."""

    DATA_BLOCK = 0x80
    SLOT_STATUS = 0x81
    PARAMETERS = 0x82
    ESCAPE = 0x83
    CLOCK = 0x84


class Card(StrEnum):
    """Bits 1-0 of bStatus: what is in the slot."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    ABSENT = "absent"
    UNKNOWN = "unknown"

    @property
    def is_present(self) -> bool:
        return self in (Card.ACTIVE, Card.INACTIVE)


class Outcome(StrEnum):
    """Bits 7-6 of bStatus: what became of the command."""

    DONE = "done"
    FAILED = "failed"
    TIME_EXTENSION = "timeExtension"
    """The card works; bError says how many of its waiting times more."""
    RESERVED = "reserved"


_CARDS = (Card.ACTIVE, Card.INACTIVE, Card.ABSENT, Card.UNKNOWN)
_OUTCOMES = (Outcome.DONE, Outcome.FAILED, Outcome.TIME_EXTENSION, Outcome.RESERVED)
ERROR_NAMES = {
    0xFF: "aborted",
    0xFE: "mute",
    0xFD: "parity",
    0xFC: "overrun",
    0xFB: "hardware",
    0xF8: "bad_ts",
    0xF7: "bad_tck",
    0xF6: "protocol",
    0xF5: "class",
    0xF4: "procedure",
    0xF3: "deactivated",
    0xF2: "busy_auto",
    0xF0: "pin_timeout",
    0xEF: "pin_cancelled",
    0xE0: "slot_busy",
    0x00: "unsupported",
}
"""bError of a failed command (table 6.2-2). 01 to 7F is the place of a bad byte in our message, the rest is the maker's."""
ERROR_HARDWARE, ERROR_MUTE, ERROR_SLOT_BUSY = 0xFB, 0xFE, 0xE0


def encode_slot_status(slot: int, sequence: int) -> bytes:
    """GetSlotStatus: harmless in every state of slot and card."""
    return _message(_GET_SLOT_STATUS, slot, sequence)


def encode_abort(slot: int, sequence: int) -> bytes:
    """Abort: gives up what the slot still works on. Only after the control request ABORT with the same numbers."""
    return _message(_ABORT, slot, sequence)


def abort_value(slot: int, sequence: int) -> int:
    """wValue of the control request ABORT."""
    return sequence << 8 | slot


def _message(kind: int, slot: int, sequence: int) -> bytes:
    if not 0 <= slot <= 0xFF or not 0 <= sequence <= 0xFF:
        raise EncodeError("slot and sequence number are bytes")
    return struct.pack("<BIBBBBB", kind, 0, slot, sequence, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """One message of the reader without its data. `evidence` is header and data with the data blanked at `masked`."""

    kind: MessageType
    slot: int
    sequence: int
    card: Card
    outcome: Outcome
    error: int
    data_length: int
    evidence: bytes
    masked: tuple[tuple[int, int], ...]

    @property
    def is_hardware_error(self) -> bool:
        return self.outcome is Outcome.FAILED and self.error == ERROR_HARDWARE


class CcidReader(StreamDecoder[Answer]):
    """Finds messages in what comes from bulk-IN, whatever was on the pipe before.

    `expect(slot, sequence)` before each question; a sound message with other numbers raises UnexpectedReply and is gone.
    """

    max_data_bytes = MAX_DATA_BYTES

    def __init__(self) -> None:
        super().__init__()
        self._asked: tuple[int, int] | None = None

    def expect(self, slot: int, sequence: int) -> None:
        self._asked = (slot, sequence)

    def _parse(self) -> Answer | None:
        self._skip_to_header()
        if len(self._buffer) < HEADER_BYTES:
            return None
        kind, length, slot, sequence, status, error, _ = struct.unpack_from("<BIBBBBB", self._buffer)
        if length > self.max_data_bytes:
            evidence = bytes(self._buffer[:HEADER_BYTES])
            self._discard(HEADER_BYTES)
            raise FrameError("a message is longer than any that was asked for", evidence=evidence)
        if len(self._buffer) < HEADER_BYTES + length:
            return None
        message = self._take(HEADER_BYTES + length)
        kept = min(length, 64)
        answer = Answer(
            kind=MessageType(kind),
            slot=slot,
            sequence=sequence,
            card=_CARDS[status & 3],
            outcome=_OUTCOMES[status >> 6],
            error=error,
            data_length=length,
            evidence=message[:HEADER_BYTES] + bytes(kept),
            masked=((HEADER_BYTES, HEADER_BYTES + kept),) if kept else (),
        )
        if self._asked is not None and (slot, sequence) != self._asked:
            raise UnexpectedReply("an answer to another question", evidence=answer.evidence)
        return answer

    def _skip_to_header(self) -> None:
        """Bytes that cannot begin a message are noise: a known type, and none of the bits that the standard reserves."""
        at = 0
        while at < len(self._buffer) and not _may_begin(self._buffer, at):
            at += 1
        self._discard(at)


def _may_begin(buffer: bytearray, at: int) -> bool:
    if not 0x80 <= buffer[at] <= 0x84:
        return False
    if buffer[at] == MessageType.SLOT_STATUS and any(buffer[at + 1 : at + 5]):
        return False
    return len(buffer) <= at + 7 or not buffer[at + 7] & 0x3C


@dataclass(frozen=True, slots=True)
class SlotChange:
    """NotifySlotChange: for each slot whether a card is there, and whether that changed since the last notice."""

    present: tuple[bool, ...]
    changed: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class HardwareError:
    """HardwareError: the reader switched something off to protect itself. The only code that the standard has is over-current."""

    slot: int
    sequence: int
    code: int


def decode_notice(packet: bytes, *, slots: int = 1) -> SlotChange | HardwareError:
    """One packet of the interrupt pipe; FrameError for anything else. What more it carries than `slots` need is ignored."""
    if len(packet) >= 1 + -(-slots // 4) and packet[0] == _NOTIFY_SLOT_CHANGE:
        pairs = [packet[1 + slot // 4] >> 2 * (slot % 4) & 3 for slot in range(slots)]
        return SlotChange(tuple(bool(pair & 1) for pair in pairs), tuple(bool(pair & 2) for pair in pairs))
    if len(packet) == 4 and packet[0] == _HARDWARE_ERROR and packet[1] < slots and packet[3] == OVER_CURRENT:
        return HardwareError(packet[1], packet[2], packet[3])
    raise FrameError("not a notice of a reader", evidence=packet[:16])


@dataclass(frozen=True, slots=True)
class ClassDescriptor:
    """What a reader says about itself (table 5.1-1), as far as anybody here asks."""

    slots: int
    protocols: int
    """Bit 0: T=0, bit 1: T=1."""
    features: int
    max_message_bytes: int

    @property
    def level(self) -> str:
        """At which level XfrBlock takes what is meant for the card."""
        exchange = self.features & 0x00070000
        return {0x00010000: "tpdu", 0x00020000: "apdu", 0x00040000: "extended"}.get(exchange, "character")


def parse_class_descriptor(raw: bytes) -> ClassDescriptor | None:
    """None for bytes that are no CCID class descriptor, or one that says what cannot be."""
    if len(raw) < CLASS_DESCRIPTOR_BYTES or raw[0] < CLASS_DESCRIPTOR_BYTES or raw[1] != CLASS_DESCRIPTOR:
        return None
    (protocols,) = struct.unpack_from("<I", raw, 6)
    features, longest = struct.unpack_from("<II", raw, 40)
    if longest < HEADER_BYTES or raw[4] > 15:
        return None
    return ClassDescriptor(slots=raw[4] + 1, protocols=protocols, features=features, max_message_bytes=min(longest, 65_556))


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """bStatus of a message, bError where the command failed; the error code of a hardware notice."""
    if len(reply) >= 4 and reply[0] == _HARDWARE_ERROR:
        return (Explanation(3, 0xFF, "ccid.overcurrent" if reply[3] == 1 else "ccid.notice"),)
    if len(reply) < HEADER_BYTES or not 0x80 <= reply[0] <= 0x84:
        return ()
    card = Explanation(7, 0x03, f"ccid.{_CARDS[reply[7] & 3]}")
    if _OUTCOMES[reply[7] >> 6] is not Outcome.FAILED:
        return (card,)
    return card, Explanation(8, 0xFF, f"ccid.error_{error_name(reply[8])}")


def error_name(error: int) -> str:
    if error in ERROR_NAMES:
        return ERROR_NAMES[error]
    return "bad_byte" if 0x01 <= error <= 0x7F else "maker"
