"""Receipt printer in Star's line mode: the automatic status of nine (older: seven) bytes, ETB counter, Star's own commands.

Written from Star Micronics' "STAR Line Mode Command Specifications". The mechanism (roll, cutter, heat) is the ESC/POS printer's; only the
language differs: ENQ, EOT and ESC ACK SOH are answered on arrival, everything else waits for the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from simulators.models.base import Endpoint, UsbIdentity
from simulators.models.escpos import DOT_MM, ESC, LINE_MM, EscposPrinter

ENQ, EOT, ETB, FF, RS, ACK, SOH, CAN = 0x05, 0x04, 0x17, 0x0C, 0x1E, 0x06, 0x01, 0x18
_HEADER = {7: 0x0F, 8: 0x21, 9: 0x23}
_LENGTH: Mapping[int, int] = {
    **dict.fromkeys((64, 50, 69, 70), 2),
    **dict.fromkeys((100, 97, 73, 74, 109, 105, 6), 3),
    RS: 4,
}
"""Whole length of the ESC commands that are known; one that is not known has two bytes."""

USB_TSP650 = UsbIdentity(
    0x0519, 0x0001, (Endpoint(0x02), Endpoint(0x81)), 7, 1, 2, "Star", "TSP650II (STR_T-001)", "2550000000", kernel_driver="usblp"
)


class StarPrinter(EscposPrinter):
    """`status_bytes`: 7, 8 or 9, as models differ."""

    own_faults: ClassVar[Mapping[str, str]] = {
        **EscposPrinter.own_faults,
        "head-up": "the print head is lifted",
        "black-mark": "no black mark is found",
    }

    def __init__(self, *, usb: UsbIdentity | None = None, baud: int | None = 9600, seed: int = 0, status_bytes: int = 9) -> None:
        super().__init__(usb=usb, baud=baud, seed=seed, maker="Star", model_name="TSP650II", has_text_ids=False)
        self.marks = 0
        self._status_bytes = status_bytes
        self._pushes = False

    @property
    def in_error(self) -> bool:
        return super().in_error or self.has("head-up") or self.has("black-mark")

    def asb(self) -> bytes:
        """Header 1 with the length, header 2 with version 3, then printer status 1 to 7."""
        first = (0x08 if self.offline else 0) | (0x20 if self.has("cover-open") else 0)
        third = (0x02 if self.has("head-up") else 0) | (0x08 if self.has("black-mark") else 0)
        paper = (0x04 if self.paper_low else 0) | (0x08 if self.paper_out else 0)
        marks = (self.marks & 0x18) << 2 | (self.marks & 0x07) << 1
        whole = bytes((_HEADER[self._status_bytes], 0x06, first, self._error_bits(), third, paper, 0, marks, 0))
        return whole[: self._status_bytes]

    def on_power_cycle(self, now: float) -> None:
        super().on_power_cycle(now)
        self._pushes = False
        self.marks = 0

    def _answer_real_time(self, data: bytes, now: float) -> None:
        window = self._tail + data
        position = 0
        while position < len(window):
            if window[position] == ENQ:
                self.emit(bytes(((0x08 if self.paper_out else 0) | (0x04 if self.paper_low else 0),)), now)
            elif data == bytes((CAN,)):
                self._buffer.clear()
                self.marks = 0
            elif window[position : position + 3] == bytes((ESC, ACK, SOH)):
                self.emit(self.asb(), now)
                position += 2
            elif window[position] == ESC and len(window) - position < 3:
                break
            position += 1
        self._tail = window[position:]

    def _execute(self, buffer: bytearray, now: float) -> int:
        lead = buffer[0]
        if lead == ETB:
            self._mark(now)
            return 1
        if lead in (ENQ, EOT, FF):
            return 1
        if lead != ESC:
            return self._print_text(buffer, now)
        if len(buffer) < 2:
            return 0
        length = _LENGTH.get(buffer[1], 2)
        if len(buffer) < length:
            return 0
        self._run_star(bytes(buffer[:length]), now)
        return length

    def _run_star(self, command: bytes, now: float) -> None:
        name = command[1]
        if name == 0x64:
            self._cut(now)
        elif name == 0x61:
            self._consume(command[2] * LINE_MM, now)
        elif name in (0x49, 0x4A):
            self._consume(command[2] * DOT_MM, now)
        elif name == RS and command[2] == 0x61:
            self._pushes = command[3] not in (0, 0x30)
            self._asb_sent = self.asb()
            if self._pushes:
                self._reply(self._asb_sent, now)
        elif name == RS and command[2] == 0x45:
            self.marks = 0

    def _mark(self, now: float) -> None:
        """The counter is raised when everything before has been printed."""
        self.marks = (self.marks + 1) % 32
        if self._pushes:
            self._asb_sent = self.asb()
            self._reply(self._asb_sent, now)

    def _report_change(self, now: float) -> None:
        status = self.asb()
        if self._pushes and not self.has("usb-only") and status != self._asb_sent:
            self._asb_sent = status
            self.emit(status, now)
