"""Code scanner in its two lives: a serial/CDC unit that answers commands, and a HID keyboard (in `keys`).

Serial commands follow Newland's unified command set (NLS-HR52 manual) and, for older engines (EM2000/EM3095 manual), the 7E 00 register frames.
What is scanned passes through and is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from simulators.models.base import Endpoint, Model, UsbIdentity
from simulators.models.checksums import crc16_ccitt

TAIL = b"\x3b\x03"
ACK, BAD_DATA, NOT_SUPPORTED = 0x06, 0x15, 0x05
MAX_BUFFER_BYTES = 1024
FRAME_TIMEOUT_S = 0.2
"""Chosen: commands come in one piece; what is cut for so long never ends."""
STUCK_PERIOD_S = 0.4
TRIGGER_S = 5.0
"""A trigger session ends by itself after this time."""

USB_NEWLAND_CDC = UsbIdentity(
    0x1EAB,
    0x1D06,
    (Endpoint(0x02), Endpoint(0x82)),
    interface_class=0x0A,
    manufacturer="Newland Auto-ID",
    product="NLS-FM430 CDC",
    device_class=0x02,
    kernel_driver="cdc_acm",
)


HONEYWELL_IDENTITY = (
    "Product Name: Voyager 1602g\r\nBoot Revision: : 8992\r\nSoftware Part Number: CW000082BBA\r\n"
    "Software Revision: $ProjectRevision: 16345 \r\nSerial Number: N/A\r\nSupported IF: RS232\r\n"
)
"""Form of the answer to REVINF as public drivers show it."""


class SerialScanner(Model):
    """Scanner on a serial line. Not `rs232`: USB in CDC mode.

    `engine`: `unified` (tags such as SCNTRG1), `em` (7E 00 register frames) or `honeywell` (16 54 0D starts, 16 55 0D stops, 16 4D 0D commands).
    """

    kind: ClassVar[str] = "scanner"
    own_faults: ClassVar[Mapping[str, str]] = {
        "missing-suffix": "codes come without the closing CR, as after a factory-reset code",
        "stuck-trigger": "the trigger is stuck: endless partial reads",
        "mode-switched": "a set-up code turned it into a keyboard: a USB unit comes back as one, an RS-232 unit falls silent",
        "hid-pos": "a set-up code turned it to HID POS: a USB unit keeps only its USB id, an RS-232 unit falls silent",
        "lamp-dead": "the trigger is accepted, nothing is ever read",
        "cable-noise": "a bad RS-232 cable: codes arrive as bytes that are no text",
    }
    own_actions: ClassVar[Mapping[str, str]] = {"scan": "hold a code in front of it: scan HELLO-001"}

    def __init__(
        self,
        *,
        usb: UsbIdentity | None = None,
        baud: int = 9600,
        latency_s: float = 0.005,
        seed: int = 0,
        engine: str = "unified",
        suffix: bytes = b"\r",
        continuous: bool = True,
        rs232: bool = True,
        identity: str = "Product Name: NLS-FM430\r\nFirmware Version: 1.00.028\r\nDecoder Version: 2.11.3\r\n",
    ) -> None:
        super().__init__(latency_s=latency_s, baud=None if usb else baud, usb=usb, seed=seed)
        self.engine = engine
        self.scans = 0
        self._suffix = suffix
        self._continuous = continuous
        self._rs232 = rs232
        self._identity = identity
        self._buffer = bytearray()
        self._last_byte_at = 0.0
        self._triggered_until = 0.0
        self._next_stuck = 0.0
        self._registers = bytearray(256)
        self._settings: dict[bytes, bytes] = {}

    @property
    def is_mute(self) -> bool:
        return super().is_mute or (self._rs232 and (self.has("mode-switched") or self.has("hid-pos")))

    def on_bytes(self, data: bytes, now: float) -> None:
        if now - self._last_byte_at > FRAME_TIMEOUT_S:
            self._buffer.clear()  # half a command of another engine's kind, as a program sends that looks for who is there
        self._last_byte_at = now
        self._buffer += data
        del self._buffer[: max(0, len(self._buffer) - MAX_BUFFER_BYTES)]
        while self._next_command(now):
            pass

    def on_power_cycle(self, now: float) -> None:
        self._buffer.clear()
        self._triggered_until = 0.0

    def on_fault(self, name: str, active: bool, now: float) -> None:
        if name == "stuck-trigger":
            self._next_stuck = now
        elif name in ("mode-switched", "hid-pos"):
            self.plugged = self._rs232 or not active
            self.on_power_cycle(now)
            if active:
                self.drop_output()

    def on_action(self, name: str, now: float, *args: str) -> None:
        self.scan(" ".join(args).encode(), now)

    def scan(self, content: bytes, now: float) -> None:
        """A code is in view; it is read in continuous mode or while triggered."""
        if self.has("lamp-dead") or not (self._continuous or now < self._triggered_until):
            return
        self.scans += 1
        self._triggered_until = 0.0
        if self.has("cable-noise"):
            content = bytes(byte ^ self._random.choice((0x8A, 0x93, 0xC5, 0x1F)) for byte in content)
            content = content.replace(b"\r", b"\xff").replace(b"\n", b"\xff").replace(b"\x03", b"\xff") + b"\x80\xff"
        self.emit(content + (b"" if self.has("missing-suffix") else self._suffix), now)

    def run_mechanism(self, now: float) -> None:
        while self.has("stuck-trigger") and now >= self._next_stuck:
            self._next_stuck = max(self._next_stuck, now - STUCK_PERIOD_S) + STUCK_PERIOD_S
            self.emit(b"##", now)

    def mechanism_due(self) -> float | None:
        return self._next_stuck if self.has("stuck-trigger") else None

    # ------------------------------------------------------------------ commands

    def _next_command(self, now: float) -> bool:
        if self.engine == "honeywell":
            return self._next_menu_command(now)
        start = self._buffer.find(b"\x7e")
        if start < 0:
            self._buffer.clear()
            return False
        del self._buffer[:start]
        if len(self._buffer) < 2:
            return False
        if self.engine == "em":
            return self._next_register_frame(now)
        end = self._buffer.find(TAIL)
        if end < 0:
            return False
        frame = bytes(self._buffer[:end])
        del self._buffer[: end + len(TAIL)]
        if frame[1] == 0x01 and len(frame) >= 7:
            self._unified(frame[2:6], frame[6:7], frame[7:], now)
        return True

    def _next_menu_command(self, now: float) -> bool:
        """SYN T CR and SYN U CR for the trigger; SYN M CR, a command, and a stop (kept) or an exclamation mark (until power-off)."""
        start = self._buffer.find(b"\x16")
        if start < 0:
            self._buffer.clear()
            return False
        del self._buffer[:start]
        if len(self._buffer) < 3:
            return False
        if bytes(self._buffer[1:3]) in (b"T\r", b"U\r"):
            self._triggered_until = now + TRIGGER_S if self._buffer[1:2] == b"T" else 0.0
            del self._buffer[:3]
            return True
        if self._buffer[1:3] != b"M\r":
            del self._buffer[0]
            return True
        end = min((at for at in (self._buffer.find(b"."), self._buffer.find(b"!")) if at >= 0), default=-1)
        if end < 0:
            return False
        command, stop = bytes(self._buffer[3:end]).upper(), bytes(self._buffer[end : end + 1])
        del self._buffer[: end + 1]
        if command == b"REVINF":
            self.emit(self._identity.encode("ascii") + command + bytes((ACK,)) + stop, now)
        elif len(command) < 6 or not command[:6].isalnum():
            self.emit(command + bytes((NOT_SUPPORTED,)) + stop, now)
        elif command[6:] in (b"?", b"^"):
            self.emit(command[:6] + self._settings.get(command[:6], b"1") + bytes((ACK,)) + stop, now)
        else:
            self._settings[command[:6]] = command[6:]
            self.emit(command + bytes((ACK,)) + stop, now)
        return True

    def _unified(self, address: bytes, scope: bytes, command: bytes, now: float) -> None:
        tag, data = command[:6], command[6:]
        reply, status = command, ACK
        if tag == b"SCNTRG":
            self._triggered_until = now + TRIGGER_S if data == b"1" else 0.0
            status = ACK if data in (b"0", b"1") else BAD_DATA
        elif tag in (b"QRYSYS", b"QRYPDN", b"QRYFWV"):
            reply = tag + self._identity.encode("ascii")
        elif len(tag) < 6 or not tag.isalnum():
            status = NOT_SUPPORTED
        elif data == b"*":
            reply = tag + self._settings.get(tag, b"0")
        elif data:
            self._settings[tag] = data
        self.emit(b"\x02\x01" + address + scope + reply + bytes((status,)) + TAIL, now)

    def _next_register_frame(self, now: float) -> bool:
        """7E 00 | type | length | address (2) | data | CRC (2); type 07 reads, 08 writes."""
        if len(self._buffer) < 6:
            return False
        kind, size = self._buffer[2], self._buffer[3] or 256
        data_bytes = size if kind == 0x08 else 1
        end = 6 + data_bytes + 2
        if len(self._buffer) < end:
            return False
        frame = bytes(self._buffer[:end])
        del self._buffer[:end]
        checked, check = frame[2:-2], frame[-2:]
        if check not in (crc16_ccitt(checked), b"\xab\xcd"):
            self._register_reply(0x01, b"\x00", now)
        elif kind == 0x07:
            start, count = frame[5], frame[6] or 256
            self._register_reply(0x00, bytes(self._registers[start : start + count]), now)
        elif kind == 0x08:
            start, data = frame[5], frame[6:-2]
            self._registers[start : start + len(data)] = data
            if start == 0x02 and data[:1] == b"\x01":
                self._triggered_until = now + TRIGGER_S
            self._register_reply(0x00, b"\x00", now)
        else:
            self._register_reply(0x03, b"\x00", now)
        return True

    def _register_reply(self, status: int, data: bytes, now: float) -> None:
        """02 00 | status | length | data | CRC over status, length and data."""
        checked = bytes((status, len(data) & 0xFF)) + data
        self.emit(b"\x02\x00" + checked + crc16_ccitt(checked), now)
