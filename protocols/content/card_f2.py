"""F2 card units: what moves a card, opens the mouth or speaks with a chip. For the holder of a claim; framing and sources in `codecs.card_f2`.

Chip commands: QU-TK-F3 communication protocol 1.03, section 9.6; moves and reset: sections 9.1 to 9.4.
"""

from __future__ import annotations

from enum import Enum

from protocols.codecs.card_f2 import START, F2Reader
from protocols.codecs.card_unit import ETX
from protocols.codecs.common import xor8
from protocols.errors import EncodeError

DATA_MAX_BYTES = 512
CHIP_TIMEOUT_S, MOTION_TIMEOUT_S, RESET_TIMEOUT_S = 8.0, 15.0, 30.0
"""From the acknowledgement to the result, as a field driver of the CRT-591 has them."""


class Command(Enum):
    """CM and PM, as characters: `20` is CM 32, PM 30; `Q0` is CM 51, PM 30."""

    RESET_TO_GATE = b"00"
    RESET_TO_BIN = b"01"
    RESET_IN_PLACE = b"03"
    """The card stays where it is; without a card the motor turns a little."""
    HOLD_AT_GATE = b"20"
    """Feeds a card from the stacker where there is none in the path; so do the next two."""
    TO_CONTACTS = b"21"
    TO_ANTENNA = b"22"
    TO_BIN = b"23"
    EJECT = b"29"
    ENTRY_30 = b"30"
    ENTRY_31 = b"31"
    ENTRY_32 = b"32"
    CHIP_COLD = b"Q0"
    CHIP_OFF = b"Q1"
    CHIP_T0 = b"Q3"
    CHIP_T1 = b"Q4"
    CHIP_WARM = b"Q8"
    CHIP_AUTO = b"Q9"


def encode(command: Command, address: int = 0, data: bytes = b"") -> bytes:
    """EncodeError for an address that no switch can set, or more data than a frame takes."""
    if not 0 <= address <= 15 or len(data) > DATA_MAX_BYTES:
        raise EncodeError("an address is 0 to 15, data 512 bytes at most")
    text = b"C" + command.value + data
    body = bytes((START, address)) + len(text).to_bytes(2, "big") + text + bytes((ETX,))
    return body + bytes((xor8(body),))


class CardReader(F2Reader):
    """As the monitoring decoder, but DATA is kept: the answer of a chip goes to whoever holds the claim."""

    keeps_content = True
