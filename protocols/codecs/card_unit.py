"""What motorised card readers and card dispensers have in common, whatever they speak: where a card is, how many are left, what is broken."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, TypeVar

from protocols.canon.words import DeviceState, MediaState, PaperState, SuggestedAction
from protocols.codecs.common import Explanation, StreamDecoder, xor8
from protocols.errors import ChecksumError, FrameError

ETX = 0x03
_TAIL_BYTES = 2
ACK_BYTE, NAK_BYTE, ENQ_BYTE, EOT_BYTE = b"\x06", b"\x15", b"\x05", b"\x04"
ACK_TIMEOUT_S = 0.3
"""From the last byte of a frame to the handshake byte (CRT-591-M001 protocol 1.4, QU-TK-F3 protocol 5.2)."""
ASK_TIMES = 3
"""How often one question is put. Only questions: what moves a card is said once."""
QUERY_TIMEOUT_S = 2.0


class Mark(StrEnum):
    """One byte that is no frame."""

    ACK = "ack"
    NAK = "nak"
    EOT = "eot"


MARKS = {0x06: Mark.ACK, 0x15: Mark.NAK, 0x04: Mark.EOT}


A = TypeVar("A")


class CountedFrames(StreamDecoder[Mark | A]):
    """Handshake bytes, and frames that begin with `start` and tell their length in the last two bytes of a head of `head_bytes`.

    What the host itself said (an echo) is dropped and is no noise; so are the bytes in `ignored`.
    """

    start: ClassVar[int]
    head_bytes: ClassVar[int]
    lengths: ClassVar[range]
    ignored: ClassVar[frozenset[int]] = frozenset()

    def _parse(self) -> Mark | A | None:
        while self._buffer:
            first = self._buffer[0]
            if first in MARKS:
                self._take(1)
                return MARKS[first]
            if first in self.ignored:
                self._take(1)
                continue
            if first != self.start:
                self._discard(1)
                continue
            head = bytes(self._buffer[: self.head_bytes])
            if len(head) < self.head_bytes:
                return None
            length = int.from_bytes(head[-2:], "big")
            if length not in self.lengths:
                self._discard(1)
                raise FrameError("a result cannot have that length", evidence=head)
            size = self.head_bytes + length + _TAIL_BYTES
            if len(self._buffer) < size:
                return None
            answer = self._answer(self._checked(size))
            if answer is not None:
                return answer
        return None

    @abstractmethod
    def _answer(self, frame: bytes) -> A | None:
        """What a sound frame means; None for what the host said."""

    def _checked(self, size: int) -> bytes:
        frame = bytes(self._buffer[:size])
        if frame[-2] != ETX:
            self._discard(1)
            raise FrameError("a result does not end where its length says", evidence=frame[: self.head_bytes])
        if xor8(frame[:-1]) != frame[-1]:
            self._discard(size)  # whole: a byte inside it may look like a handshake, and the host would answer it
            raise ChecksumError("a result's check byte is wrong", evidence=frame[: self.head_bytes + 2])
        return self._take(size)


class CardPlace(StrEnum):
    """Where the card is that the unit holds."""

    NONE = "none"
    GATE = "gate"
    """In the mouth, where a person can take it."""
    INSIDE = "inside"
    JAMMED = "jammed"
    UNKNOWN = "unknown"


MEDIA_OF = {
    CardPlace.NONE: MediaState.NOT_PRESENT,
    CardPlace.GATE: MediaState.ENTERING,
    CardPlace.INSIDE: MediaState.PRESENT,
    CardPlace.JAMMED: MediaState.JAMMED,
    CardPlace.UNKNOWN: MediaState.UNKNOWN,
}
"""XFS4IoT CardReader.Status `media`: `entering` is a card at the entry/exit slot of a motorised device."""

TAILS = frozenset({"CARD_STUCK", "STACKER_EMPTY", "STACKER_LOW", "BIN_FULL", "MECHANISM", "CARD_LEFT", "POWER", "NOT_READY"})
"""Tails of the fault codes that these units can have, beside those of the link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardReading:
    """One answer in canonical words. `conditions` are tails of fault codes; `judged` the tails it can take back, None for all of them."""

    device: DeviceState = DeviceState.ONLINE
    place: CardPlace | None = CardPlace.UNKNOWN
    """None: a unit that never says where its card is."""
    stock: PaperState = PaperState.NOT_SUPPORTED
    """Cards in the stacker: full, low, out."""
    bin_full: bool | None = None
    conditions: tuple[str, ...] = ()
    judged: frozenset[str] | None = None
    explanations: tuple[Explanation, ...] = ()

    @property
    def media(self) -> MediaState:
        return MediaState.NOT_SUPPORTED if self.place is None else MEDIA_OF[self.place]

    @property
    def action(self) -> SuggestedAction:
        """XFS4IoT's advice: a person clears a card, a bin and a stacker; a unit that forgot itself needs a reset by the application."""
        held = set(self.conditions)
        if held & {"MECHANISM", "POWER"}:
            return SuggestedAction.MAINTENANCE
        if held & {"CARD_STUCK", "STACKER_EMPTY", "BIN_FULL"}:
            return SuggestedAction.CLEAR
        return SuggestedAction.RESET if "NOT_READY" in held else SuggestedAction.NONE


_DEVICE_OF = {
    "CARD_STUCK": DeviceState.HARDWARE_ERROR,
    "MECHANISM": DeviceState.HARDWARE_ERROR,
    "POWER": DeviceState.HARDWARE_ERROR,
    "NOT_READY": DeviceState.OFFLINE,
}
"""An empty stacker or a full bin stops one job of a unit that works."""


def device_of(tail: str) -> DeviceState:
    return _DEVICE_OF.get(tail, DeviceState.ONLINE)


def only_this(
    tail: str,
    explanations: tuple[Explanation, ...] = (),
    *,
    place: CardPlace | None = CardPlace.UNKNOWN,
    device: DeviceState | None = None,
) -> CardReading:
    """A unit that says one thing instead of its state: whatever else was wrong may still be."""
    return CardReading(
        device=device_of(tail) if device is None else device,
        place=CardPlace.JAMMED if tail == "CARD_STUCK" else place,
        conditions=(tail,),
        judged=frozenset({tail, "NOT_READY"}),
        explanations=explanations,
    )


def nothing_known(explanations: tuple[Explanation, ...] = (), *, device: DeviceState = DeviceState.UNKNOWN) -> CardReading:
    """An answer that proves nothing but that somebody answers."""
    return CardReading(device=device, judged=frozenset(), explanations=explanations)
