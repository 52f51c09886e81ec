"""Resident-ID readers (SAM_V/SAM_A modules, "SDT" framing): status, module number, reset. Cannot ask for a card and keeps nothing of one.

Frames agree in module vendors' documents and public drivers (standards GA 450, GA/T 467-2019 name the module, not the wire):
    host   AA AA AA 96 69 | LenH LenL | CMD PARA        | XOR
    reader AA AA AA 96 69 | LenH LenL | SW1 SW2 SW3 DATA | XOR
Len counts what follows it, XOR included; XOR runs over Len and everything behind it, not over the preamble. SW3 is the reader's own word.

Privacy is built in: there is no encoder for search, select or read; DATA is blanked while the frame is taken apart, unless the module number
was asked for and exactly its 16 bytes came; the check byte of a blanked frame is blanked too, since it is a function of the data.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

from protocols.codecs.common import Explanation, StreamDecoder, xor8
from protocols.errors import ChecksumError, FrameError

CODEC = "sdt"
PREAMBLE = b"\xaa\xaa\xaa\x96\x69"
SYNC = PREAMBLE[1:]
"""The first three bytes exist for bit synchronisation: two of them are enough to find a frame."""
BAUD_RATES = (115200, 57600, 38400, 19200, 9600)
"""115200 is the default; a tool may have stored another one. In the order to try."""
ANSWER_TIMEOUT_S = 1.0
"""For the three health commands (vendor document)."""
LEN_MIN, LEN_MAX = 4, 2400
"""SW1-3 and XOR; the longest known answer (text, photo, fingerprint) has 2,321 bytes."""
MODULE_NUMBER_BYTES = 16
SPLIT_OUT_ENDPOINTS, SPLIT_IN_ENDPOINTS = (0x02, 0x06), (0x81, 0x85)
"""Units with four bulk pipes take header and body apart; units with two take whole frames. The descriptors tell which one it is."""


class Command(StrEnum):
    """All this module can ask."""

    STATUS = "status"
    MODULE_NUMBER = "moduleNumber"
    RESET = "reset"


_WIRE = {Command.RESET: b"\x10\xff", Command.STATUS: b"\x11\xff", Command.MODULE_NUMBER: b"\x12\xff"}


def encode(command: Command) -> bytes:
    body = b"\x00\x03" + _WIRE[Command(command)]
    return PREAMBLE + body + bytes((xor8(body),))


def encode_status() -> bytes:
    """SAM status: the health question, harmless in every state of a card on the reader."""
    return encode(Command.STATUS)


def encode_sam_number() -> bytes:
    """Number of the security module: an asset number, not a person's."""
    return encode(Command.MODULE_NUMBER)


def encode_reset() -> bytes:
    """Restart the module; a card session of the kiosk application is lost, so only when no application uses the reader."""
    return encode(Command.RESET)


def split_request(frame: bytes) -> tuple[bytes, bytes]:
    """Header (preamble and length) for OUT 02 and body (command to check byte) for OUT 06 of a four-pipe unit."""
    return frame[:7], frame[7:]


class Sw3Class(StrEnum):
    """Whom an SW3 word is about."""

    OK = "ok"
    NO_CARD = "noCard"
    CARD = "card"
    """Reading a card went wrong: moved, foreign, worn, or the antenna is weak. Counted, judged by rate."""
    LINK = "link"
    REQUEST = "request"
    HARDWARE = "hardware"
    LICENCE = "licence"
    UNKNOWN = "unknown"


_SW3: dict[int, Sw3Class] = {
    0x90: Sw3Class.OK,
    0x9F: Sw3Class.OK,
    0x91: Sw3Class.OK,
    0x80: Sw3Class.NO_CARD,
    0x81: Sw3Class.CARD,
    0x10: Sw3Class.LINK,
    0x11: Sw3Class.LINK,
    0x21: Sw3Class.REQUEST,
    0x23: Sw3Class.REQUEST,
    0x24: Sw3Class.REQUEST,
    0x31: Sw3Class.CARD,
    0x32: Sw3Class.CARD,
    0x33: Sw3Class.CARD,
    0x40: Sw3Class.CARD,
    0x41: Sw3Class.CARD,
    0x47: Sw3Class.CARD,
    0x60: Sw3Class.HARDWARE,
    0x66: Sw3Class.LICENCE,
}
CONDITION_OF = {Sw3Class.HARDWARE: "SELF_TEST", Sw3Class.LICENCE: "NOT_AUTHORISED", Sw3Class.LINK: "LINK_NOISE"}
"""Tail of the fault code that one answer of a class proves; other classes prove nothing by themselves."""


def classify_sw3(sw3: int) -> Sw3Class:
    return _SW3.get(sw3, Sw3Class.UNKNOWN)


def sw3_key(sw3: int) -> str:
    """Key of `explain.MEANINGS`."""
    return f"sdt.sw3_{sw3:02x}" if sw3 in _SW3 else "sdt.sw3_unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer without its data. `evidence` is the frame with data and check byte blanked at `masked`."""

    sw3: int
    data_length: int
    module_number: str | None
    evidence: bytes
    masked: tuple[tuple[int, int], ...]

    @property
    def verdict(self) -> Sw3Class:
        return classify_sw3(self.sw3)


class SdtReader(StreamDecoder[Answer]):
    """Finds answers in a byte stream, or in the header and body reads of a four-pipe unit fed one after the other.

    `expect(command)` before each request: an answer does not repeat its question, and only MODULE_NUMBER may keep data.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked: Command | None = None

    def expect(self, command: Command) -> None:
        self._asked = Command(command)

    def reset(self) -> None:
        super().reset()
        self._asked = None

    def _parse(self) -> Answer | None:
        while True:
            start = self._buffer.find(SYNC)
            if start < 0:
                # Up to three bytes may be the beginning of a preamble.
                self._discard(max(0, len(self._buffer) - _tail_of_sync(self._buffer)))
                return None
            # The preamble's first byte may have been lost on the wire, or be the byte before what was found.
            extra = 1 if start and self._buffer[start - 1] == 0xAA else 0
            self._discard(start - extra)
            header = extra + len(SYNC)
            if len(self._buffer) < header + 2:
                return None
            length = int.from_bytes(self._buffer[header : header + 2], "big")
            if not LEN_MIN <= length <= LEN_MAX:
                evidence = bytes(self._buffer[: header + 2])
                self._discard(header)
                raise FrameError(f"an answer cannot have {length} bytes", evidence=evidence)
            end = header + 2 + length
            if len(self._buffer) < end:
                return None
            # Length, SW1-3, data; the check byte closes the frame.
            if xor8(self._buffer[header : end - 1]) != self._buffer[end - 1]:
                evidence = bytes(self._buffer[: header + 5])
                self._discard(header)
                raise ChecksumError("an answer's check byte is wrong", evidence=evidence)
            return self._answer(self._take(end), header)

    def _answer(self, frame: bytes, header: int) -> Answer:
        asked, self._asked = self._asked, None
        data_at = header + 5
        data_length = len(frame) - 1 - data_at
        sw3 = frame[header + 4]
        if data_length == 0:
            return Answer(sw3, 0, None, frame, ())
        if asked is Command.MODULE_NUMBER and data_length == MODULE_NUMBER_BYTES and sw3 == 0x90:
            number = parse_module_number(frame[data_at:-1])
            if number is not None:
                return Answer(sw3, data_length, number, frame, ())
        kept = min(data_length + 1, 64)
        evidence = frame[:data_at] + bytes(kept)
        return Answer(sw3, data_length, None, evidence, ((data_at, data_at + kept),))


def parse_module_number(data: bytes) -> str | None:
    """`05.01-20120101-0012345678-0087654321`, or None for bytes that do not fit that form.

    The middle part is the module's date; a late answer about a card has 16 bytes as well in one case, and does not pass as a date.
    """
    if len(data) != MODULE_NUMBER_BYTES:
        return None
    first, second, date, middle, last = struct.unpack("<HHIII", data)
    month, day = date // 100 % 100, date % 100
    if first > 99 or second > 99 or not 1990 <= date // 10000 <= 2099 or not 1 <= month <= 12 or not 1 <= day <= 31:
        return None
    return f"{first:02d}.{second:02d}-{date:08d}-{middle:010d}-{last:010d}"


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """The SW3 byte of an answer."""
    start = reply.find(SYNC)
    at = start + len(SYNC) + 4
    if start < 0 or len(reply) <= at:
        return ()
    return (Explanation(at, 0xFF, sw3_key(reply[at])),)


def _tail_of_sync(buffer: bytearray) -> int:
    """How many of the last bytes could begin a preamble: `AA`, `AA AA`, `AA AA AA`, `AA AA 96`, …"""
    for count in range(min(len(PREAMBLE) - 1, len(buffer)), 0, -1):
        tail = buffer[-count:]
        if any(PREAMBLE[offset : offset + count] == tail for offset in (0, 1)):
            return count
    return 0
