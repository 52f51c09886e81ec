"""Framing of NMEA 0183: sentences out of a stream that may also carry a receiver's binary messages. What a field means is not decided here.

Sources: NMEA 0183 as reprinted in u-blox, "Receiver Description including Protocol Specification" (sentence form, checksum, RMC, GGA; UBX frames
`B5 62 class id length payload check`); SiRF, "NMEA Reference Manual". Where a van stands is nobody's business who only wants to know whether its
receiver works, so evidence is always blanked: of a sound sentence the coordinates, of a spoiled line everything behind its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from protocols.codecs.common import Explanation, StreamDecoder, xor8
from protocols.errors import ChecksumError, FrameError

CODEC = "nmea"
SENTENCE_MAX_BYTES = 120
"""The standard says 82; some receivers write longer ones."""
UBX_SYNC = b"\xb5\x62"
UBX_MAX_PAYLOAD_BYTES = 1024
_NAME = re.compile(rb"([A-Z]{1,3})([A-Z0-9]{3}),")
_COORDINATES = {
    b"RMC": (3, 4, 5, 6, 7, 8, 10, 11),
    b"GGA": (2, 3, 4, 5, 9, 11),
    b"GLL": (1, 2, 3, 4),
    b"GNS": (2, 3, 4, 5, 9, 10),
}
"""Fields, counted from the name, that tell the place: coordinates, and what narrows them down (height, geoid, speed, course, variation)."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with a sound checksum. `talker` GP, BD, GB, GL, GA, GN and others; `raw` from `$` to the end of the line."""

    talker: str
    kind: str
    raw: bytes = field(repr=False)


class NmeaReader(StreamDecoder[Sentence]):
    """Takes sentences of any talker out of a stream. Raises ChecksumError and FrameError, whose evidence is blanked."""

    def __init__(self) -> None:
        super().__init__()
        self.binary_frames = 0
        """Sound binary messages that were skipped."""

    def _parse(self) -> Sentence | None:
        while self._buffer:
            if self._buffer[0] == 0x24:
                end = self._buffer.find(b"\n", 0, SENTENCE_MAX_BYTES)
                again = self._buffer.find(b"$", 1, end if end >= 0 else SENTENCE_MAX_BYTES)
                if again > 0:
                    # The rest of this line was lost, for instance when the plug was pulled.
                    spoiled = self._take(again)
                    self.noise_bytes += again
                    raise FrameError("half a sentence", evidence=_name_only(spoiled))
                if end >= 0:
                    return self._sentence(self._take(end + 1))
                if len(self._buffer) < SENTENCE_MAX_BYTES:
                    return None
                spoiled = bytes(self._buffer)
                self._discard(len(self._buffer))
                raise FrameError("a line without an end", evidence=_name_only(spoiled))
            if self._buffer[0] == UBX_SYNC[0]:
                if not self._skip_binary():
                    return None
                continue
            starts = [at for at in (self._buffer.find(b"$"), self._buffer.find(UBX_SYNC[:1])) if at >= 0]
            self._discard(min(starts, default=len(self._buffer)))
        return None

    def _skip_binary(self) -> bool:
        """Past a binary message, or past its first byte if it is none; False while it is not complete."""
        head = self._buffer[:6]
        if len(head) >= 2 and head[:2] != UBX_SYNC:
            self._discard(1)
            return True
        if len(head) < 6:
            return False
        size = int.from_bytes(head[4:6], "little")
        if size > UBX_MAX_PAYLOAD_BYTES:
            self._discard(2)
            return True
        if len(self._buffer) < size + 8:
            return False
        if bytes(self._buffer[size + 6 : size + 8]) == _fletcher(self._buffer[2 : size + 6]):
            del self._buffer[: size + 8]
            self.binary_frames += 1
        else:
            self._discard(2)
        return True

    def _sentence(self, raw: bytes) -> Sentence:
        body, star, check = raw.strip(b"\r\n")[1:].rpartition(b"*")
        name = _NAME.match(body)
        if not star or len(check) != 2 or not body.isascii() or name is None:
            raise FrameError("a line that is no sentence", evidence=_name_only(raw))
        if f"{xor8(body):02X}".encode() != check.upper():
            raise ChecksumError("a sentence with a wrong checksum", evidence=_name_only(raw))
        return Sentence(name[1].decode("ascii"), name[2].decode("ascii"), raw)


def blanked(raw: bytes) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """The sentence with its coordinates as zero bytes, and the spans that were blanked. One of a kind without coordinates stays as it is."""
    kind = raw[1:].split(b",", 1)[0][-3:]
    fields = _COORDINATES.get(kind)
    if fields is None:
        return raw, ()
    star = raw.rfind(b"*")
    # A sentence may be shorter than others of its kind: its last field ends at the checksum.
    ends = [*(at for at, byte in enumerate(raw) if byte == 0x2C), len(raw) if star < 0 else star]
    spans = tuple((ends[at - 1] + 1, ends[at]) for at in fields if at < len(ends) and ends[at] - ends[at - 1] > 1)
    shown = bytearray(raw)
    for start, end in spans:
        shown[start:end] = bytes(end - start)
    return bytes(shown), spans


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """The status of an RMC, the quality of a GGA."""
    kind = reply[1:].split(b",", 1)[0][-3:]
    commas = [at for at, byte in enumerate(reply) if byte == 0x2C]
    if kind == b"RMC" and len(commas) > 2 and commas[2] - commas[1] == 2:
        words = {0x41: "nmea.valid", 0x56: "nmea.no_fix"}
        return (Explanation(commas[1] + 1, 0xFF, words.get(reply[commas[1] + 1], "nmea.unknown")),)
    if kind == b"GGA" and len(commas) > 8 and commas[6] - commas[5] == 2:
        quality = reply[commas[5] + 1]
        word = "nmea.no_fix" if quality == 0x30 else "nmea.valid" if quality in b"1245" else "nmea.unknown"
        hits = [Explanation(commas[5] + 1, 0xFF, word)]
        if commas[8] - commas[7] > 1:
            hits.append(Explanation(commas[7] + 1, 0xFF, "nmea.hdop", commas[8] - commas[7] - 1))
        return tuple(hits)
    return (Explanation(0, 0xFF, "nmea.spoiled", len(reply)),) if b"\x00" in reply and not reply.endswith(b"\n") else ()


def _name_only(raw: bytes) -> bytes:
    name = raw[:6] if raw[1:6].isalpha() and raw[1:6].isupper() else b""
    return name + bytes(min(len(raw), SENTENCE_MAX_BYTES) - len(name))


def _fletcher(data: bytes | bytearray) -> bytes:
    first = second = 0
    for byte in data:
        first = (first + byte) & 0xFF
        second = (second + first) & 0xFF
    return bytes((first, second))
