"""Smart cards through a CCID reader: power, exchange, and what comes back. For the holder of a claim; monitoring has `protocols.codecs.ccid`.

CCID revision 1.1, 6.1.1 (IccPowerOn), 6.1.2 (IccPowerOff), 6.1.4 (XfrBlock). A reader that works at the level of APDUs takes a command as it is. One
at the level of TPDUs is given the commands of T=0 (ISO/IEC 7816-3, 10.3 and 12.2), which fetch a response that waits and correct a wrong length.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from protocols.codecs.ccid import HEADER_BYTES, Answer, CcidReader
from protocols.errors import EncodeError, FrameError

POWER_TIMEOUT_S, EXCHANGE_TIMEOUT_S = 5.0, 5.0
"""Until the reader answers or asks for more time; a card with contacts has up to 40,000 clock cycles for each byte of its answer to reset."""
MAX_DATA_BYTES = 15_000
"""Of one message here: within what a decoder keeps. Longer responses come in parts."""
MAX_RESPONSE_BYTES = 65_538
MAX_TPDUS = 300
"""Of one command; a card that says "more" without end is no card."""
GET_UID = bytes((0xFF, 0xCA, 0x00, 0x00, 0x00))
"""Pseudo-APDU of contactless readers (PC/SC part 3, 3.2.2.1.3): the reader answers it, with the card's serial number."""
CHAIN_BEGINS, CHAIN_ENDS, CHAIN_GOES_ON = 0x01, 0x02, 0x03
_CONTINUE = 0x0010
_POWER_ON, _POWER_OFF, _EXCHANGE = 0x62, 0x63, 0x6F


def encode_power_on(slot: int, sequence: int) -> bytes:
    """The reader chooses the voltage. Answered with the answer to reset."""
    return struct.pack("<BIBBBBB", _POWER_ON, 0, slot, sequence, 0, 0, 0)


def encode_power_off(slot: int, sequence: int) -> bytes:
    return struct.pack("<BIBBBBB", _POWER_OFF, 0, slot, sequence, 0, 0, 0)


def encode_exchange(slot: int, sequence: int, data: bytes, *, more: bool = False, longest: int = 65_556) -> bytes:
    """`more`: nothing to send, the next part of a response is wanted. EncodeError if it is longer than the reader takes."""
    if HEADER_BYTES + len(data) > longest:
        raise EncodeError("longer than the reader takes")
    return struct.pack("<BIBBBH", _EXCHANGE, len(data), slot, sequence, 0, _CONTINUE if more else 0) + data


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with its data, which is a card's."""

    answer: Answer = field(repr=False)
    data: bytes = field(repr=False)

    @property
    def chain(self) -> int:
        return self.answer.evidence[9]


class ContentReader(CcidReader):
    """Finds messages as `CcidReader` does, and keeps the data of each apart from the event, until it is taken."""

    max_data_bytes = MAX_DATA_BYTES

    def __init__(self) -> None:
        super().__init__()
        self._data = b""

    def take_reply(self) -> Reply | None:
        """The next answer with its data; raises ProtocolError. Nothing of it stays here."""
        answer = self.next_event()
        if answer is None:
            return None
        data, self._data = self._data, b""
        return Reply(answer, data)

    def reset(self) -> None:
        super().reset()
        self._data = b""

    def _take(self, count: int) -> bytes:
        message = super()._take(count)
        self._data = message[HEADER_BYTES:]
        return message


class T0Command:
    """One short APDU as commands of T=0. Take `tpdu` to the card and give `take` its response, until `tpdu` is None; then `response` is whole."""

    def __init__(self, apdu: bytes) -> None:
        """EncodeError for bytes that are no short APDU."""
        if len(apdu) < 4:
            raise EncodeError("shorter than any command")
        header, body = apdu[:4], apdu[4:]
        self._wanted: int | None = None
        if len(body) <= 1:
            first = header + (body or b"\x00")
        elif len(body) == 1 + body[0]:
            first = apdu
        elif len(body) == 2 + body[0] and body[0]:
            first, self._wanted = apdu[:-1], apdu[-1]
        else:
            raise EncodeError("lengths that no short command has")
        self._header = header
        self._asks = len(body) == 1
        self._count = 0
        self.tpdu: bytes | None = first
        self.response = b""

    def __repr__(self) -> str:
        """Without a byte of it."""
        return f"T0Command(done={self.tpdu is None})"

    def take(self, answer: bytes) -> None:
        """FrameError for an answer without status words, or one that never ends."""
        self._count += 1
        if len(answer) < 2 or self._count > MAX_TPDUS or len(self.response) + len(answer) > MAX_RESPONSE_BYTES:
            raise FrameError("a card's answer has no end")
        data, (sw1, sw2) = answer[:-2], answer[-2:]
        if sw1 == 0x6C and self._asks:
            self.tpdu = self._header + bytes((sw2,))
            return
        self.response += data
        waiting = sw2 if sw1 == 0x61 else self._wanted if sw1 == 0x90 and self._wanted is not None else None
        if waiting is None:
            self.response += answer[-2:]
            self.tpdu = None
            return
        # GET RESPONSE on the same logical channel; from here on it is this command whose length may be corrected.
        self._wanted, self._asks = None, True
        self._header = bytes((self._header[0] & 0x03, 0xC0, 0x00, 0x00))
        self.tpdu = self._header + bytes((waiting,))


def offers_t0(atr: bytes) -> bool:
    """Whether the first protocol that an answer to reset offers is T=0 (ISO/IEC 7816-3, 8.2.3: no TD1 means T=0)."""
    if len(atr) < 2 or not atr[1] & 0x80:
        return True
    at = 2 + (atr[1] & 0x70).bit_count()
    return len(atr) <= at or not atr[at] & 0x0F
