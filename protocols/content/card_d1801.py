"""Card dispensers with two-letter commands: what moves a card. For the holder of a claim; framing and sources in `codecs.card_d1801`."""

from __future__ import annotations

from enum import Enum

from protocols.codecs.card_d1801 import ETX, START
from protocols.codecs.common import xor8
from protocols.errors import EncodeError

MOTION_TIMEOUT_S, RESET_TIMEOUT_S = 15.0, 30.0


class Command(Enum):
    """What a board does when it is enquired (simple form) or at once (addressed form)."""

    DISPENSE = "DC"
    """The card that is ready, or at the reader, goes to the mouth."""
    CAPTURE = "CP"
    RESET = "ST"
    """A card in the path goes into the bin."""
    RESET_ADDRESSED = "RS"


def encode(command: Command, address: int | None = None) -> bytes:
    """EncodeError for what the form does not have: the addressed one dispenses and resets, no more."""
    addressed = (Command.DISPENSE, Command.RESET_ADDRESSED)
    if (address is None and command is Command.RESET_ADDRESSED) or (address is not None and command not in addressed):
        raise EncodeError(f"{command.name} does not exist in this form")
    if address is not None and not 0 <= address <= 15:
        raise EncodeError("an address is 00 to 15")
    place = b"" if address is None else b"%02d" % address
    body = bytes((START,)) + place + command.value.encode("ascii") + bytes((ETX,))
    return body + bytes((xor8(body),))
