"""What the codecs share: the stream decoder's shape, a printer's reading, the explanation of decisive bits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from protocols.canon.words import CoverState, DeviceState, PaperState, TonerState
from protocols.errors import BufferOverflow

E = TypeVar("E")

BACKLOG_MAX_BYTES = 16 * 1024
"""Bytes a decoder keeps undecoded. The longest frame of any family has 2,321; the rest is room for a driver that was held up."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a reply means what it means: `length` bytes at `offset` of the reply, the bits `mask` of each, a key of `explain.MEANINGS`."""

    offset: int
    mask: int
    key: str
    length: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PrinterReading:
    """A printer's canonical state. `conditions` are the tails of fault codes (`PAPER_OUT`), most decisive first."""

    device: DeviceState = DeviceState.UNKNOWN
    paper: PaperState = PaperState.UNKNOWN
    toner: TonerState = TonerState.NOT_SUPPORTED
    cover: CoverState = CoverState.UNKNOWN
    conditions: tuple[str, ...] = ()
    explanations: tuple[Explanation, ...] = ()


_ORDER = (
    "HARDWARE", "CUTTER", "JAM", "PRINT_ERROR", "HEAD_HOT", "HEAD_UP", "COVER_OPEN", "PAPER_OUT", "TONER_EMPTY", "BLACK_MARK",
    "OFFLINE", "OUTPUT_NOT_TAKEN", "PAPER_NEAR_END", "TONER_LOW",
)  # fmt: skip
_BROKEN = frozenset({"HARDWARE", "CUTTER", "JAM", "PRINT_ERROR", "HEAD_HOT", "BLACK_MARK"})


def printer_reading(
    conditions: Iterable[str], explanations: tuple[Explanation, ...] = (), *, knows_paper: bool, knows_cover: bool
) -> PrinterReading:
    """Canonical words of a set of conditions. Paper has its own word, so a printer that is offline only for paper is a device that works."""
    held = frozenset(conditions)
    device = DeviceState.ONLINE
    if held & _BROKEN:
        device = DeviceState.HARDWARE_ERROR
    elif held & {"COVER_OPEN", "HEAD_UP"}:
        device = DeviceState.USER_ERROR
    elif "OFFLINE" in held:
        device = DeviceState.OFFLINE
    paper = PaperState.FULL if knows_paper else PaperState.UNKNOWN
    for condition, word in (("PAPER_OUT", PaperState.OUT), ("JAM", PaperState.JAMMED), ("PAPER_NEAR_END", PaperState.LOW)):
        if condition in held:
            paper = word
            break
    cover = CoverState.CLOSED if knows_cover else CoverState.UNKNOWN
    ordered = [condition for condition in _ORDER if condition in held]
    return PrinterReading(
        device=device,
        paper=paper,
        cover=CoverState.OPEN if "COVER_OPEN" in held else cover,
        conditions=(*ordered, *sorted(held - set(_ORDER))),
        explanations=explanations,
    )


class StreamDecoder(ABC, Generic[E]):
    """Feed bytes in any cut, take events out. After a raised LineError the spoiled bytes are gone and decoding goes on."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._overflowed = 0
        self.noise_bytes = 0
        """Bytes thrown away so far because they belonged to no frame."""

    def feed(self, data: bytes) -> None:
        if len(self._buffer) + len(data) > BACKLOG_MAX_BYTES:
            self._overflowed += len(self._buffer) + len(data)
            self.reset()
        else:
            self._buffer += data

    def next_event(self) -> E | None:
        """The next complete event, None when more bytes are needed. Raises ProtocolError, never anything else."""
        if self._overflowed:
            lost, self._overflowed = self._overflowed, 0
            self.noise_bytes += lost
            raise BufferOverflow(f"{lost} bytes arrived faster than they were decoded")
        return self._parse()

    def reset(self) -> None:
        """Forget what was fed and is not decoded (after a timeout, before a new question)."""
        self._buffer.clear()

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not complete."""
        return len(self._buffer)

    @abstractmethod
    def _parse(self) -> E | None: ...

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _seek(self, start: bytes) -> bool:
        """Throw away what stands before the next `start`; False if it is not there yet, and what may be its beginning is kept."""
        at = self._buffer.find(start)
        if at >= 0:
            self._discard(at)
            return True
        keep = next((n for n in range(len(start) - 1, 0, -1) if self._buffer.endswith(start[:n])), 0)
        self._discard(len(self._buffer) - keep)
        return False

    def _discard(self, count: int) -> None:
        self.noise_bytes += count
        del self._buffer[:count]


def xor8(data: bytes | bytearray) -> int:
    total = 0
    for byte in data:
        total ^= byte
    return total


def sum8(data: bytes | bytearray) -> int:
    return sum(data) & 0xFF
