"""Card readers of the older CREATOR protocol: what moves a card. For the holder of a claim; framing and sources in `codecs.card_stx`."""

from __future__ import annotations

from enum import Enum

from protocols.codecs.card_stx import START, StxReader
from protocols.codecs.card_unit import ETX
from protocols.codecs.common import xor8

MOTION_TIMEOUT_S, RESET_TIMEOUT_S = 15.0, 30.0


class Command(Enum):
    """CM and PM, as characters: `2/` is CM 32, PM 2F."""

    RESET_IN_PLACE = b"00"
    RESET_TO_FRONT = b"01"
    RESET_TO_REAR = b"02"
    EJECT = b"20"
    HOLD_AT_FRONT = b"21"
    HOLD_AT_REAR = b"22"
    OUT_AT_REAR = b"23"
    EJECT_ABNORMAL = b"24"
    TO_CONTACTS = b"2/"
    TO_ANTENNA = b"2."


def encode(command: Command) -> bytes:
    body = bytes((START, 0, 2)) + command.value + bytes((ETX,))
    return body + bytes((xor8(body),))


MOVED, FAILED, NO_CARD, WRONG_PLACE = 0x59, 0x4E, 0x45, 0x57
"""First data byte of the result of a move: Y, N, E, W."""


class CardReader(StxReader):
    """As the monitoring decoder, but DATA is kept."""

    keeps_content = True
