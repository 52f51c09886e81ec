"""Receipt printer that speaks ESC/POS, behind a serial line or the USB printer class.

Written from the status tables that Epson, Citizen (CT-S310/CBM1000), SNBC (BTP-M300) and HPRT (TP80K) publish. Real-time commands (DLE EOT, DLE
ENQ) are picked out of the raw stream, even inside image data and while the printer is offline; everything else waits in the buffer until the
printer can print, which is why `GS r 1` never reports an empty roll. What is printed is counted in millimetres and never kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from simulators.models.base import Endpoint, Model, UsbIdentity

DLE, EOT, ENQ, ESC, FS, GS, LF = 0x10, 0x04, 0x05, 0x1B, 0x1C, 0x1D, 0x0A
XON, XOFF = b"\x11", b"\x13"
DC4 = 0x14
CLEAR_BUFFERS = bytes.fromhex("10140801031401060208")
"""DLE DC4 8 with its fixed parameters."""

ROLL_MM = 80_000
"""An 80 mm roll of 80 mm diameter holds about 80 m."""
NEAR_END_MM = 8_000
LINE_MM = 3.75
"""Default line spacing of 30 dots at 203 dpi."""
DOT_MM = 0.125
COLUMNS = 48
CUT_FEED_MM = 12
SPEED_MM_PER_S = 200.0
BUFFER_BYTES = 4096
RESERVE_BYTES = 16
HEAD_COOL_DOWN_S = 20.0
"""Head temperature is the one error that clears by itself; chosen short enough to watch."""

ASB_ALL = 0x0F

USB_POS58 = UsbIdentity(
    0x0416, 0x5011, (Endpoint(0x01), Endpoint(0x81)), 7, 1, 2, "STMicroelectronics", "POS58 Printer USB", kernel_driver="usblp"
)
"""The id that many unbranded 58/80 mm boards share; endpoint numbers differ between them, so they must be read from the descriptors."""
USB_SNBC = UsbIdentity(
    0x154F, 0x154F, (Endpoint(0x02), Endpoint(0x82)), 7, 1, 2, "SNBC CO., Ltd", "BTP-R880", kernel_driver="usblp"
)
USB_TM_T88V = UsbIdentity(
    0x04B8, 0x0202, (Endpoint(0x01), Endpoint(0x82)), 7, 1, 2, "EPSON", "TM-T88V", "J1QF000000", kernel_driver="usblp"
)

_FIXED_LENGTH: Mapping[tuple[int, int], int] = {
    **{(ESC, b): 2 for b in (0x40, 0x32, 0x69, 0x6D, 0x76, 0x4C, 0x53)},
    **{
        (ESC, b): 3
        for b in (
            0x61,
            0x45,
            0x21,
            0x2D,
            0x4D,
            0x64,
            0x65,
            0x4A,
            0x4B,
            0x33,
            0x74,
            0x52,
            0x7B,
            0x56,
            0x47,
            0x20,
            0x72,
            0x25,
            0x3D,
        )
    },
    **{(ESC, b): 4 for b in (0x24, 0x5C, 0x63)},
    (ESC, 0x70): 5,
    (FS, 0x26): 2,
    (FS, 0x2E): 2,
    **{(FS, b): 3 for b in (0x21, 0x2D, 0x43, 0x57)},
    (FS, 0x53): 4,
    **{(GS, b): 3 for b in (0x72, 0x49, 0x61, 0x21, 0x42, 0x68, 0x77, 0x48, 0x66, 0x62)},
    **{(GS, b): 4 for b in (0x4C, 0x57, 0x50)},
    (GS, 0x67): 6,
}
"""Whole length of commands that carry no data of variable size, by their first two bytes."""


class EscposPrinter(Model):
    """Receipt printer. Near-end and drawer inputs, text identity and process ids can be left out, as on cheap boards."""

    kind: ClassVar[str] = "receipt-printer"
    own_faults: ClassVar[Mapping[str, str]] = {
        "paper-out": "the roll is empty; clearing it puts a new roll in",
        "paper-low": "the near-end sensor sees the last metres",
        "cover-open": "the cover stands open",
        "cutter": "the cutter is blocked; clearing it frees it and restarts the printer",
        "jam": "paper is jammed, a mechanical error; clearing it restarts the printer",
        "head-hot": "the print head is too hot; cools down by itself after 20 s",
        "voltage": "supply voltage out of range, an unrecoverable error",
        "usb-only": "the mechanism is switched off behind a USB chip that still enumerates",
    }
    own_actions: ClassVar[Mapping[str, str]] = {
        "refill": "put a new roll in",
        "print": "print a ticket of so many lines: print 12",
        "open-cover": "open the cover",
        "close-cover": "close the cover",
        "feed": "press the feed button",
        "free": "free cutter and paper without a restart: the error stays until the host sends DLE ENQ 1 or 2",
    }

    def __init__(
        self,
        *,
        usb: UsbIdentity | None = None,
        baud: int | None = 38400,
        latency_s: float = 0.003,
        seed: int = 0,
        roll_mm: float = ROLL_MM,
        has_near_end_sensor: bool = True,
        drawer_pin_high: bool = False,
        has_text_ids: bool = True,
        has_process_id: bool = True,
        has_counters: bool = True,
        constant_port_status: int | None = None,
        asb_fourth: int = 0x0F,
        xon_xoff: bool = False,
        model_name: str = "TM-T88V",
        maker: str = "EPSON",
        firmware: str = "1.14 ESC/POS",
        serial_number: str = "J1QF000000",
    ) -> None:
        super().__init__(latency_s=latency_s, baud=None if usb else baud, usb=usb, seed=seed)
        self.roll_mm = roll_mm
        self.cuts = 0
        self.lines_printed = 0
        self.printed_mm = 0.0
        self.dropped_bytes = 0
        self._has_near_end_sensor = has_near_end_sensor
        self._drawer = 0x04 if drawer_pin_high else 0
        self._process_ids = has_process_id
        self._has_counters = has_counters
        self._lines_ever = 40_000
        self._cuts_ever = 1_204
        """What a used printer has behind it (GS g 2)."""
        self._constant_port_status = constant_port_status
        self._asb_fourth = asb_fourth
        self._xon_xoff = xon_xoff
        self._texts = (
            {0x41: firmware, 0x42: maker, 0x43: model_name, 0x44: serial_number, 0x45: "GB18030"} if has_text_ids else {}
        )
        self.device_id_text = f"MFG:{maker};CMD:ESC/POS;MDL:{model_name};CLS:PRINTER;"
        self._asb_mask = 0
        self._asb_sent = b""
        self._was_offline = False
        self._tail = b""
        self._buffer = bytearray()
        self._column = 0
        self._graphics_left = 0
        """Bytes of a picture that are still to come."""
        self._busy_until = 0.0
        self._starved = False
        """The buffer ends inside a command: nothing moves until the host sends more."""
        self._latched: set[str] = set()
        self._feed_button = False
        self._hot_until = 0.0

    # ------------------------------------------------------------------ state

    @property
    def paper_out(self) -> bool:
        return self.has("paper-out") or self.roll_mm <= 0

    @property
    def paper_low(self) -> bool:
        return self._has_near_end_sensor and (self.paper_out or self.has("paper-low") or self.roll_mm < NEAR_END_MM)

    @property
    def in_error(self) -> bool:
        return bool(self._latched) or self.has("voltage") or self.has("head-hot")

    @property
    def offline(self) -> bool:
        return self.paper_out or self.has("cover-open") or self.in_error

    def status_byte(self, n: int) -> int | None:
        """Answer to DLE EOT n: form 0xx1xx10. None for an n this printer does not know."""
        if n == 1:
            return (
                0x12
                | self._drawer
                | (0x08 if self.offline else 0)
                | (0x20 if self._latched else 0)
                | (0x40 if self._feed_button else 0)
            )
        if n == 2:
            return (
                0x12 | (0x04 if self.has("cover-open") else 0) | (0x20 if self.paper_out else 0) | (0x40 if self.in_error else 0)
            )
        if n == 3:
            return 0x12 | self._error_bits()
        if n == 4:
            return 0x12 | (0x0C if self.paper_low else 0) | (0x60 if self.paper_out else 0)
        return None

    def real_time_answer(self, n: int) -> bytes | None:
        """What DLE EOT n is answered with; None for an n this printer does not know."""
        status = self.status_byte(n)
        return None if status is None else bytes((status,))

    def asb(self) -> bytes:
        """Automatic status back, four bytes; the first has the form 0xx1xx00."""
        first = 0x10 | self._drawer | (0x08 if self.offline else 0) | (0x20 if self.has("cover-open") else 0)
        first |= 0x40 if self._feed_button else 0
        second = (0x01 if self._latched else 0) | self._error_bits()
        third = (0x03 if self.paper_low else 0) | (0x0C if self.paper_out else 0)
        return bytes((first, second, third, self._asb_fourth))

    def port_status(self) -> int:
        """GET_PORT_STATUS of the USB printer class: 20 paper empty, 10 selected, 08 no error. Clones return a constant."""
        if self._constant_port_status is not None:
            return self._constant_port_status
        error = self.in_error or self.has("cover-open")
        return 0x10 | (0x20 if self.paper_out else 0) | (0 if error else 0x08)

    def _error_bits(self) -> int:
        bits = 0x04 if "jam" in self._latched else 0
        bits |= 0x08 if "cutter" in self._latched else 0
        bits |= 0x20 if self.has("voltage") else 0
        return bits | (0x40 if self.has("head-hot") else 0)

    # ------------------------------------------------------------------ host side

    def takes(self, size_bytes: int) -> int:
        """A full buffer holds the host off; a few bytes are kept free for real-time commands."""
        return size_bytes if size_bytes <= RESERVE_BYTES else min(size_bytes, BUFFER_BYTES - len(self._buffer))

    def on_bytes(self, data: bytes, now: float) -> None:
        if self.has("usb-only"):
            return
        self._answer_real_time(data, now)
        room = BUFFER_BYTES + RESERVE_BYTES - len(self._buffer)
        self.dropped_bytes += max(0, len(data) - room)
        self._buffer += data[:room]
        self._starved = False
        self.run_mechanism(now)

    def on_control(
        self, request_type: int, request: int, value: int, index: int, length: int, data: bytes, now: float
    ) -> bytes | None:
        if (request_type, request) == (0xA1, 0x00):
            text = self.device_id_text.encode("ascii")
            return ((len(text) + 2).to_bytes(2, "big") + text)[:length]
        if (request_type, request) == (0xA1, 0x01):
            return bytes((self.port_status(),))[:length]
        if (request_type, request) == (0x21, 0x02):
            self._buffer.clear()
            return b""
        return None

    def on_power_cycle(self, now: float) -> None:
        self._buffer.clear()
        self._tail = b""
        self._asb_mask = 0
        self._column = 0
        self._graphics_left = 0
        self._latched.clear()
        self._latched |= {name for name in ("cutter", "jam") if self.has(name)}
        self._busy_until = now

    def on_fault(self, name: str, active: bool, now: float) -> None:
        if name in ("cutter", "jam"):
            (self._latched.add if active else self._latched.discard)(name)
        elif name == "head-hot":
            self._hot_until = now + HEAD_COOL_DOWN_S if active else 0.0
        elif name == "paper-out" and not active:
            self.roll_mm = ROLL_MM
        elif name == "paper-low":
            self.roll_mm = NEAR_END_MM / 2 if active else ROLL_MM
        self._report_change(now)

    def on_action(self, name: str, now: float, *args: str) -> None:
        if name == "refill":
            for fault in ("paper-out", "paper-low"):
                self._faults.discard(fault)
            self.roll_mm = ROLL_MM
        elif name == "print":
            lines = int(args[0]) if args else 12
            self._buffer += b"\n" * lines + b"\x1dV\x42\x00"
            self._starved = False
        elif name == "open-cover":
            self.set("cover-open", now)
        elif name == "close-cover":
            self.clear("cover-open", now)
        elif name == "feed":
            self._consume(LINE_MM, now)
        elif name == "free":
            self._faults -= {"cutter", "jam"}
        self._report_change(now)
        self.run_mechanism(now)

    # ------------------------------------------------------------------ mechanism

    def run_mechanism(self, now: float) -> None:
        if self.has("usb-only"):
            return
        if self.has("head-hot") and now >= self._hot_until:
            self._faults.discard("head-hot")
            self._report_change(now)
        while self._buffer and now >= self._busy_until and not self.offline:
            used = self._execute(self._buffer, max(now, self._busy_until))
            if used == 0:
                self._starved = True
                return
            del self._buffer[:used]
            self._report_change(now)

    def mechanism_due(self) -> float | None:
        if self.has("usb-only"):
            return None
        due = [self._hot_until] if self.has("head-hot") else []
        if self._buffer and not self.offline and not self._starved:
            due.append(self._busy_until)
        return min(due) if due else None

    def _report_change(self, now: float) -> None:
        """ASB and flow control follow every change of state, not only commands."""
        if self._xon_xoff and self.offline != self._was_offline:
            self.emit(XOFF if self.offline else XON, now)
        self._was_offline = self.offline
        if not self._asb_mask or self.has("usb-only"):
            return
        status = self.asb()
        if status != self._asb_sent:
            changed = _asb_groups(status, self._asb_sent)
            self._asb_sent = status
            if changed & self._asb_mask:
                self.emit(status, now)

    def _answer_real_time(self, data: bytes, now: float) -> None:
        """DLE EOT n and DLE ENQ n, wherever they stand: firmware watches the line, not the buffer."""
        window = self._tail + data
        position = 0
        while position + 3 <= len(window):
            lead, second, n = window[position : position + 3]
            if (lead, second, n) == (DLE, DC4, 8):
                if len(window) - position < len(CLEAR_BUFFERS):
                    break
                if window[position : position + len(CLEAR_BUFFERS)] == CLEAR_BUFFERS:
                    self._clear_buffer()
                    position += len(CLEAR_BUFFERS)
                    continue
            if lead != DLE or second not in (EOT, ENQ):
                position += 1
                continue
            if second == EOT:
                answer = self.real_time_answer(n)
                if answer is not None:
                    self.emit(answer, now)
            elif n in (1, 2):
                self._recover(clear_buffer=n == 2, now=now)
            position += 3
        self._tail = window[position:]

    def _clear_buffer(self) -> None:
        self._buffer.clear()
        self._graphics_left = 0

    def _recover(self, *, clear_buffer: bool, now: float) -> None:
        self._latched = {name for name in self._latched if self.has(name)}
        if clear_buffer:
            self._clear_buffer()
        self._report_change(now)

    def _execute(self, buffer: bytearray, now: float) -> int:
        """Run the first command in `buffer`; returns its length, 0 while it is incomplete."""
        if self._graphics_left > 0:
            used = min(self._graphics_left, len(buffer))
            self._graphics_left -= used
            return used
        lead = buffer[0]
        if lead == DLE:
            return _real_time_length(buffer)
        if lead not in (ESC, FS, GS):
            return self._print_text(buffer, now)
        if len(buffer) < 2:
            return 0
        length = self._command_size(buffer)
        if (lead, buffer[1]) == (GS, 0x76) and length > 0:
            # Rows are printed as they come: a picture may be larger than the buffer.
            self._run_command(bytes(buffer[:8]), now)
            self._graphics_left = length - 8
            return 8
        if length == 0 or len(buffer) < length:
            return 0
        self._run_command(bytes(buffer[:length]), now)
        return length

    def _command_size(self, buffer: bytearray) -> int:
        return _command_length(buffer)

    def _print_text(self, buffer: bytearray, now: float) -> int:
        byte = buffer[0]
        if byte == LF:
            self._new_line(now)
        elif byte >= 0x20:
            self._column += 1
            if self._column >= COLUMNS:
                self._new_line(now)
        return 1

    def _run_command(self, command: bytes, now: float) -> None:
        lead, name = command[0], command[1]
        if lead == ESC:
            if name == 0x64:
                self._consume(command[2] * LINE_MM, now)
            elif name == 0x4A:
                self._consume(command[2] * DOT_MM, now)
            elif name in (0x69, 0x6D):
                self._cut(now)
            elif name == 0x76:
                self._reply(bytes((0x03 if self.paper_low else 0,)), now)
            elif name == 0x40:
                self._column = 0
        elif lead == GS:
            self._run_gs(command, now)

    def _run_gs(self, command: bytes, now: float) -> None:
        name = command[1]
        if name == 0x72:
            if command[2] in (1, 0x31):
                self._reply(bytes((0x03 if self.paper_low else 0,)), now)
            elif command[2] in (2, 0x32):
                self._reply(bytes((1 if self._drawer else 0,)), now)
        elif name == 0x49:
            self._identify(command[2], now)
        elif name == 0x61:
            self._asb_mask = command[2]
            if self._asb_mask:
                self._asb_sent = self.asb()
                self._reply(self._asb_sent, now)
        elif name == 0x56:
            if command[2] in (0x41, 0x42):
                self._consume(command[3] * DOT_MM, now)
            self._cut(now)
        elif name == 0x76:
            rows = command[6] + 256 * command[7]
            self._consume(rows * DOT_MM, now)
        elif name == 0x6B:
            self._consume(162 * DOT_MM, now)
        elif name == 0x67 and command[2] == 0x32 and self._has_counters:
            self._transmit_counter(command[4], now)
        elif name == 0x28 and command[2] == 0x48 and self._process_ids and command[5:7] == b"\x30\x30":
            self._reply(b"\x37\x22" + command[7:11] + b"\x00", now)

    def _transmit_counter(self, number: int, now: float) -> None:
        """GS g 2: a block of digits; 20 and 148 lines, 50 and 178 cuts, 70 and 198 hours."""
        lines, cuts = self.lines_printed, self.cuts
        value = {20: lines, 50: cuts, 70: 3, 148: self._lines_ever + lines, 178: self._cuts_ever + cuts, 198: 2_900}.get(number)
        if value is not None:
            self._reply(b"\x5f" + str(value).encode("ascii") + b"\x00", now)

    def _identify(self, n: int, now: float) -> None:
        numbers = {0x01: 0x20, 0x31: 0x20, 0x02: 0x02, 0x32: 0x02, 0x03: 0x14, 0x33: 0x14}
        if n in numbers:
            self._reply(bytes((numbers[n],)), now)
        elif n in self._texts:
            self._reply(b"\x5f" + self._texts[n].encode("ascii") + b"\x00", now)

    def _reply(self, data: bytes, now: float) -> None:
        """Queued answers come when everything before them has been printed."""
        self.emit(data, max(now, self._busy_until))

    def _new_line(self, now: float) -> None:
        self._column = 0
        self.lines_printed += 1
        self._consume(LINE_MM, now)

    def _consume(self, length_mm: float, now: float) -> None:
        self.roll_mm = max(0.0, self.roll_mm - length_mm)
        self.printed_mm += length_mm
        self._busy_until = max(now, self._busy_until) + length_mm / SPEED_MM_PER_S

    def _cut(self, now: float) -> None:
        self._consume(CUT_FEED_MM, now)
        self.cuts += 1

    @property
    def buffered_bytes(self) -> int:
        """Accepted by the printer, not printed: what a host must not mistake for done."""
        return len(self._buffer)


def _real_time_length(buffer: bytearray) -> int:
    """Real-time commands were answered on arrival; in the buffer they are only skipped."""
    if len(buffer) < 2:
        return 0
    if buffer[1] not in (EOT, ENQ):
        return 1
    return 3 if len(buffer) >= 3 else 0


def _command_length(buffer: bytearray) -> int:
    """Whole length of the ESC/FS/GS command at the start, 0 while its length bytes are missing."""
    key = (buffer[0], buffer[1])
    if key in _FIXED_LENGTH:
        return _FIXED_LENGTH[key]
    if key == (GS, 0x56):
        return _sized(buffer, 3, lambda b: 4 if b[2] in (0x41, 0x42) else 3)
    if key == (GS, 0x28):
        return _sized(buffer, 5, lambda b: 5 + b[3] + 256 * b[4])
    if key == (GS, 0x76):
        return _sized(buffer, 8, lambda b: 8 + (b[4] + 256 * b[5]) * (b[6] + 256 * b[7]))
    if key == (ESC, 0x2A):
        return _sized(buffer, 5, lambda b: 5 + (b[3] + 256 * b[4]) * (3 if b[2] >= 32 else 1))
    if key == (GS, 0x6B):
        return _barcode_length(buffer)
    if key == (ESC, 0x44):
        end = buffer.find(0, 2)
        return end + 1 if end >= 0 else 0
    return 2


def _sized(buffer: bytearray, needed: int, length: object) -> int:
    assert callable(length)
    return int(length(buffer)) if len(buffer) >= needed else 0


def _barcode_length(buffer: bytearray) -> int:
    if len(buffer) < 4:
        return 0
    if buffer[2] >= 0x41:
        return 4 + buffer[3]
    end = buffer.find(0, 3)
    return end + 1 if end >= 0 else 0


def _asb_groups(new: bytes, old: bytes) -> int:
    """Which reporting groups of GS a n differ: 1 drawer, 2 on/offline and cover, 4 errors, 8 paper, 40 panel switch."""
    if len(old) != 4:
        return 0xFF
    first = new[0] ^ old[0]
    groups = 0x01 if first & 0x04 else 0
    groups |= 0x02 if first & 0x28 else 0
    groups |= 0x40 if first & 0x40 else 0
    groups |= 0x04 if new[1] != old[1] else 0
    return groups | (0x08 if new[2] != old[2] else 0)
