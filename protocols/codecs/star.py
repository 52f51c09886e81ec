"""Star's line mode: the automatic status of seven to nine bytes, asked for by ESC ACK SOH or sent at every change. Prints nothing.

Source: Star Micronics, "STAR Line Mode Command Specifications", chapter 5 (automatic status: header 1 and 2, printer status 1-7) and the same
chapter for dot printers. Header 1 is the only byte with bit 0 set, and it says how many bytes come; XON and XOFF may stand anywhere. ETB raises a
five-bit counter in status 6 when everything before it is on paper: Star's way to say "really printed".
"""

from __future__ import annotations

from dataclasses import dataclass

from protocols.codecs.common import Explanation, PrinterReading, StreamDecoder, printer_reading
from protocols.errors import FrameError

CODEC = "star"
XON, XOFF = 0x11, 0x13
LENGTHS = range(7, 16)
"""Bytes of a status; models since 2000 send nine, the first line-mode printers seven."""
MEANT_BYTES = 9
"""What follows later bytes of newer models is not read."""


def encode_status_query() -> bytes:
    """ESC ACK SOH: the automatic status once, in real time."""
    return b"\x1b\x06\x01"


def encode_auto_status(*, on: bool) -> bytes:
    """ESC RS a n: 1 at every change, 0 never."""
    return b"\x1b\x1e\x61" + (b"\x01" if on else b"\x00")


def encode_mark() -> bytes:
    """ETB: counts one up when the printer comes to it."""
    return b"\x17"


def encode_clear_marks() -> bytes:
    """ESC RS E 0: the counter starts from zero."""
    return b"\x1b\x1e\x45\x00"


def encode_test_slip() -> bytes:
    """Fixed text, feed and partial cut (ESC d 3), in Star's own commands."""
    text = b"KIOSK FLEET\nTEST PRINT\n0123456789\nABCDEFGHIJKLMNOPQRSTUVWXYZ\nabcdefghijklmnopqrstuvwxyz\n"
    return b"\x1b\x40" + text + b"\x1b\x64\x03"


@dataclass(frozen=True, slots=True)
class StarStatus:
    """A whole status, headers included, at most the nine bytes that are read."""

    status: bytes

    @property
    def marks(self) -> int | None:
        """The counter of ETB, 0-31; None where the model sends no status 6."""
        if len(self.status) < 8:
            return None
        byte = self.status[7]
        return (byte >> 2) & 0x18 | (byte >> 1) & 0x07


class StarReader(StreamDecoder[StarStatus]):
    """Finds statuses by their header; bytes that fit none are noise."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = bytearray()

    def reset(self) -> None:
        super().reset()
        self._begun.clear()

    @property
    def pending_bytes(self) -> int:
        return len(self._buffer) + len(self._begun)

    def _parse(self) -> StarStatus | None:
        while self._buffer:
            byte = self._take(1)[0]
            if byte in (XON, XOFF):
                continue
            if byte & 0x91 == 0x01:
                cut, self._begun[:] = bytes(self._begun), bytes((byte,))
                if length_of(byte) not in LENGTHS:
                    self._begun.clear()
                    self.noise_bytes += 1
                if cut:
                    raise FrameError("a status was cut short by the next one", evidence=cut)
                continue
            if not self._begun or byte & 0x11:
                self.noise_bytes += 1 + len(self._begun)
                self._begun.clear()
                continue
            self._begun.append(byte)
            if len(self._begun) == length_of(self._begun[0]):
                status = bytes(self._begun[:MEANT_BYTES])
                self._begun.clear()
                if any(byte & 0x80 for byte in status[2:]):
                    raise FrameError("a status has wrong fixed bits", evidence=status)
                return StarStatus(status)
        return None


def length_of(header: int) -> int:
    """Bytes that header 1 promises, itself included: bits 1-3 and 5."""
    return (header >> 1) & 0x07 | (header >> 2) & 0x08


_Rule = tuple[int, str, str]
_RULES: tuple[tuple[_Rule, ...], ...] = (
    ((0x08, "star.offline", "offline"), (0x20, "star.cover", "COVER_OPEN"), (0x40, "star.switched_offline", "offline")),
    (
        (0x04, "star.mechanical", "JAM"),
        (0x08, "star.cutter", "CUTTER"),
        (0x20, "star.unrecoverable", "HARDWARE"),
        (0x40, "star.head_hot", "HEAD_HOT"),
    ),
    ((0x02, "star.head_up", "HEAD_UP"), (0x04, "star.presenter_jam", "JAM"), (0x08, "star.black_mark", "BLACK_MARK")),
    ((0x08, "star.paper_end", "PAPER_OUT"), (0x04, "star.paper_near_end", "PAPER_NEAR_END")),
)
"""Printer status 1-4: bytes 3-6."""


def reading_of(status: bytes, *, near_end_fitted: bool = True) -> PrinterReading:
    """Canonical state of a status."""
    hits = _hits(status)
    conditions = {condition for _, condition in hits if condition.isupper()}
    if "PAPER_OUT" in conditions or not near_end_fitted:
        conditions.discard("PAPER_NEAR_END")
    if not conditions - {"PAPER_NEAR_END"} and any(condition == "offline" for _, condition in hits):
        conditions.add("OFFLINE")
    return printer_reading(conditions, tuple(hit for hit, _ in hits), knows_paper=True, knows_cover=True)


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """Decisive bits of a status."""
    if len(reply) < min(LENGTHS) or reply[0] & 0x91 != 0x01:
        return ()
    return tuple(hit for hit, _ in _hits(reply))


def _hits(status: bytes) -> list[tuple[Explanation, str]]:
    return [
        (Explanation(offset, mask, key), condition)
        for offset, rules in enumerate(_RULES, start=2)
        for mask, key, condition in rules
        if status[offset] & mask
    ]
