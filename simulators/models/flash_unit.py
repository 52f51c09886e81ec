"""A device whose firmware can be exchanged: an application that answers questions, and a boot loader that receives XMODEM or YMODEM.

The receiver is written from the protocol's description (Forsberg, XMODEM/YMODEM Protocol Reference, 1988; CRC-16 of polynomial 1021 hex) and from
nothing of the agent or its libraries. Like many real ones it repeats `C` until the sender begins, refuses the first EOT once, and erases the old
application at the first block: whoever cuts the power then has a unit that only knows its boot loader.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from simulators.models.base import Model, UsbIdentity
from simulators.ports.slots import Found, Slot

SOH, STX, EOT, ACK, NAK, CAN = 0x01, 0x02, 0x04, 0x06, 0x15, 0x18
ASK_VERSION, ASK_PART, ENTER, IDENTIFY, START = b"\x1bV\r", b"\x1bP\r", b"\x1bB\r", b"?\r", b"L\r"
MAGIC = b"KFW1"
_HEADER_BYTES = 4 + 16 + 16 + 4 + 4
BLOCK_WITHIN_S = 1.0
"""A block that stops in the middle is refused after this time."""
CRC_TRIES = 6
"""Asks so often for blocks with CRC, then for those with a checksum."""

Protocol = Literal["xmodem", "xmodem-1k", "ymodem"]


def make_image(part: str, version: str, size_bytes: int = 5000, *, seed: int = 1) -> bytes:
    """An image that the boot loader accepts: part, version, length and CRC-32, then a body that ends in bytes which look like padding."""
    body = (
        bytes((seed * 31 + index * 7 + (index >> 8)) & 0xFF for index in range(size_bytes - _HEADER_BYTES - 3)) + b"\x1a\x1a\x00"
    )
    head = MAGIC + part.encode().ljust(16, b"\x00") + version.encode().ljust(16, b"\x00") + len(body).to_bytes(4, "big")
    return head + zlib.crc32(head + body).to_bytes(4, "big") + body


@dataclass(frozen=True)
class _Image:
    part: str
    version: str


def _parse(data: bytes) -> _Image | None:
    """What a boot loader finds in its flash: the length in the header counts, what follows is padding."""
    if len(data) < _HEADER_BYTES or data[:4] != MAGIC:
        return None
    length = int.from_bytes(data[36:40], "big")
    body = data[_HEADER_BYTES : _HEADER_BYTES + length]
    if len(body) != length or zlib.crc32(data[:40] + body) != int.from_bytes(data[40:44], "big"):
        return None
    return _Image(data[4:20].rstrip(b"\x00").decode("ascii"), data[20:36].rstrip(b"\x00").decode("ascii"))


def crc16(data: bytes) -> int:
    """CRC-16 of XMODEM, bit by bit."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return crc


class Receiver:
    """The receiving end of one transfer. `feed` and `tick` return what to send; `image` is there when `done`."""

    def __init__(self, protocol: Protocol, *, crc: bool = True, ask_every_s: float = 1.0) -> None:
        self.protocol, self.crc = protocol, crc
        self.data = bytearray()
        self.blocks = 0
        self.bad_blocks = 0
        self.repeated_blocks = 0
        self.done = False
        self.cancelled = False
        self.name: str | None = None
        self.length: int | None = None
        self._ask_every_s = ask_every_s
        self._asked = 0
        self._ask_at: float | None = None
        self._buffer = bytearray()
        self._last_at = 0.0
        self._expect = 0 if protocol == "ymodem" else 1
        self._started = False
        self._eot_seen = False
        self._closing = False
        self._cans = 0

    @property
    def image(self) -> bytes:
        return bytes(self.data if self.length is None else self.data[: self.length])

    def begin(self, now: float) -> bytes:
        return self._ask(now)

    def due(self) -> float | None:
        if self._buffer:
            return self._last_at + BLOCK_WITHIN_S
        return self._ask_at

    def tick(self, now: float) -> bytes:
        if self._buffer and now >= self._last_at + BLOCK_WITHIN_S:
            self._buffer.clear()
            self.bad_blocks += 1
            return bytes([NAK])
        if not self._buffer and self._ask_at is not None and now >= self._ask_at:
            return self._ask(now)
        return b""

    def feed(self, data: bytes, now: float, *, spoiled: Callable[[], bool] = lambda: False) -> bytes:
        """`spoiled`: whether the line spoils the block that was just received."""
        self._buffer += data
        self._last_at = now
        out = b""
        while self._buffer and not self.done and not self.cancelled:
            answer = self._next(now, spoiled)
            if answer is None:
                break
            out += answer
        return out

    def _ask(self, now: float) -> bytes:
        self._asked += 1
        if self._asked > CRC_TRIES and not self._started and self.protocol != "ymodem":
            self.crc = False
        self._ask_at = now + self._ask_every_s
        return b"C" if self.crc else bytes([NAK])

    def _next(self, now: float, spoiled: Callable[[], bool]) -> bytes | None:
        first = self._buffer[0]
        if first == CAN:
            self._cans += 1
            del self._buffer[0]
            self.cancelled = self._cans >= 2
            return b""
        self._cans = 0
        if first == EOT:
            del self._buffer[0]
            return self._end(now)
        if first not in (SOH, STX):
            self._buffer.clear()
            self.bad_blocks += 1
            return bytes([NAK]) if self._started else b""
        size = 128 if first == SOH else 1024
        whole = 3 + size + (2 if self.crc else 1)
        if len(self._buffer) < whole:
            return None
        block = bytes(self._buffer[:whole])
        del self._buffer[:whole]
        return self._block(block, size, now, spoiled())

    def _block(self, block: bytes, size: int, now: float, spoiled: bool) -> bytes:
        number, payload, check = block[1], block[3 : 3 + size], block[3 + size :]
        sound = block[1] ^ block[2] == 0xFF and check == (
            crc16(payload).to_bytes(2, "big") if self.crc else bytes([sum(payload) & 0xFF])
        )
        if spoiled or not sound:
            self._buffer.clear()
            self.bad_blocks += 1
            return bytes([NAK])
        self._started, self._ask_at = True, None
        if number == (self._expect - 1) & 0xFF and self.blocks:
            self.repeated_blocks += 1
            return bytes([ACK])
        if number != self._expect & 0xFF:
            self.cancelled = True
            return bytes([CAN, CAN])
        self.blocks += 1
        if self.protocol == "ymodem" and self._expect == 0:
            return self._name_block(payload, now)
        self._expect += 1
        self.data += payload
        return bytes([ACK])

    def _name_block(self, payload: bytes, now: float) -> bytes:
        name, _, rest = payload.partition(b"\x00")
        if not name:
            self.done = True
            return bytes([ACK])
        self.name = name.decode("ascii", "replace")
        self.length = int(rest.split(b"\x00")[0].split(b" ")[0] or b"0")
        self._expect = 1
        return bytes([ACK]) + self._ask(now)

    def _end(self, now: float) -> bytes:
        if not self._eot_seen:
            self._eot_seen = True
            return bytes([NAK])
        if self.protocol != "ymodem":
            self.done = True
            return bytes([ACK])
        self._expect, self._eot_seen = 0, False
        return bytes([ACK]) + self._ask(now)


class FlashUnit(Model):
    """Application and boot loader of one unit. `boot`: the USB identity it has while in its boot loader, where that is another."""

    kind: ClassVar[str] = "flash-unit"
    own_faults: ClassVar[Mapping[str, str]] = {
        "spoiled-blocks": "every seventh block arrives spoiled",
        "lost-acks": "every ninth acknowledgement is lost",
        "power-cut": "the power fails in the middle of the next transfer; clearing it switches on again",
        "other-part": "the unit says another part number",
        "other-version": "the unit keeps saying its old version",
        "no-return": "the unit stays in its boot loader after the transfer",
        "boot-dead": "the boot loader never starts",
        "stops-receiving": "the boot loader goes silent in the middle of a transfer",
        "cancels": "the boot loader cancels in the middle of a transfer",
    }

    def __init__(
        self,
        *,
        part: str = "FU-100",
        version: str = "1.0.0",
        protocol: Protocol = "xmodem",
        crc: bool = True,
        baud: int | None = 115200,
        usb: UsbIdentity | None = None,
        boot: UsbIdentity | None = None,
        restart_s: float = 0.2,
        ask_every_s: float = 0.5,
        latency_s: float = 0.001,
        seed: int = 0,
    ) -> None:
        super().__init__(latency_s=latency_s, baud=baud, usb=usb, seed=seed)
        self.part, self.version, self.protocol, self.crc = part, version, protocol, crc
        self.boot = boot
        self.in_bootloader = False
        self.application_whole = True
        self.transfers = 0
        """Files that were received to their end."""
        self.begun = 0
        self.cuts = 0
        self.flashed = b""
        self.receiver: Receiver | None = None
        self.off = False
        self._restart_s, self._ask_every_s = restart_s, ask_every_s
        self._restart_until: float | None = None
        self._line = bytearray()
        self._count = 0

    # ------------------------------------------------------------------ life

    @property
    def is_mute(self) -> bool:
        return super().is_mute or self.off

    def is_restarting(self, now: float) -> bool:
        return self._restart_until is not None and now < self._restart_until

    def on_bytes(self, data: bytes, now: float) -> None:
        if self.is_restarting(now):
            return
        if self.receiver is not None:
            self._receive(data, now)
            return
        self._line += data
        while b"\r" in self._line:
            line, _, rest = bytes(self._line).partition(b"\r")
            self._line = bytearray(rest)
            self._command(line + b"\r", now)
        del self._line[:-64]

    def mechanism_due(self) -> float | None:
        if self._restart_until is not None:
            return self._restart_until
        return None if self.receiver is None else self.receiver.due()

    def run_mechanism(self, now: float) -> None:
        if self._restart_until is not None and now >= self._restart_until:
            self._restart_until = None
        if self.receiver is not None and not self.has("stops-receiving"):
            self.emit(self.receiver.tick(now), now)

    def on_power_cycle(self, now: float) -> None:
        self.receiver = None
        self._line.clear()
        self.in_bootloader = not self.application_whole

    def on_fault(self, name: str, active: bool, now: float) -> None:
        if name == "power-cut" and not active:
            self.off = False
            self.on_power_cycle(now)

    def identity(self) -> UsbIdentity | None:
        return self.boot if self.in_bootloader and self.boot is not None else None

    # ------------------------------------------------------------------ questions

    def _command(self, line: bytes, now: float) -> None:
        said_part = "XX-999" if self.has("other-part") else self.part
        if self.in_bootloader:
            if line == IDENTIFY:
                self.emit(f"BOOT {said_part}\r\n".encode(), now)
            elif line == START:
                self.begun += 1
                self.receiver = Receiver(self.protocol, crc=self.crc, ask_every_s=self._ask_every_s)
                self.emit(b"OK\r\n" + self.receiver.begin(now), now)
        elif line.endswith(ASK_VERSION):
            self.emit(f"V{self.version}\r\n".encode(), now)
        elif line.endswith(ASK_PART):
            self.emit(f"P{said_part}\r\n".encode(), now)
        elif line.endswith(ENTER):
            self.emit(bytes([ACK]), now)
            if not self.has("boot-dead"):
                self.in_bootloader = True
            self._restart(now)

    def _restart(self, now: float) -> None:
        self._restart_until = now + self._restart_s
        self.receiver = None
        self._line.clear()
        self.notify()

    # ------------------------------------------------------------------ transfer

    def _receive(self, data: bytes, now: float) -> None:
        assert self.receiver is not None
        if self.has("stops-receiving") and self.receiver.blocks > 3:  # in the middle
            if data.startswith(bytes([CAN, CAN])):
                self.receiver = None
            return
        answer = self.receiver.feed(data, now, spoiled=self._is_spoiled)
        if self.receiver.data:
            self.application_whole = False
        middle = len(self.receiver.data) >= 2048
        if self.has("power-cut") and middle and not self.off:
            self.off = True
            self.cuts += 1
            self.receiver = None
            self.drop_output()
            return
        if self.has("cancels") and middle:
            answer = bytes([CAN, CAN])
            self.receiver.cancelled = True
        if answer == bytes([ACK]) and self.has("lost-acks") and self._every(9):
            answer = b""
        self.emit(answer, now)
        if self.receiver.cancelled:
            self.receiver = None
        elif self.receiver.done:
            self._store(self.receiver, now)

    def _is_spoiled(self) -> bool:
        return self.has("spoiled-blocks") and self._every(7)

    def _every(self, times: int) -> bool:
        self._count += 1
        return self._count % times == 0

    def _store(self, receiver: Receiver, now: float) -> None:
        self.transfers += 1
        self.flashed = receiver.image
        image = _parse(self.flashed)
        self.receiver = None
        if image is None or image.part != self.part or self.has("no-return"):
            return
        self.application_whole = True
        self.in_bootloader = False
        if not self.has("other-version"):
            self.version = image.version
        self._restart(now)


@dataclass
class FlashSlot(Slot):
    """Where a flash unit sits: away while it restarts, with the ids of its boot loader while that runs."""

    clock: Callable[[], float] | None = None

    def found(self) -> Found | None:
        unit = self.model
        assert isinstance(unit, FlashUnit)
        if self.clock is not None:
            with unit.lock:
                unit.advance(self.clock())
                if unit.boot is not None and unit.is_restarting(self.clock()):
                    return None
        if not unit.plugged or (unit.off and unit.boot is not None):
            return None
        seen = unit.identity() or self.adapter or unit.usb
        if seen is None:
            return Found(self.bus, self.path, None, None, None, None, self.usb_path)
        return Found(self.bus, self.path, seen.vid, seen.pid, seen.serial or None, seen.product or None, self.usb_path)
