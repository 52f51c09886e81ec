"""Devices that say what nobody asked for: card contents after every question, codes in every form, firmware strings with a person in them."""

from __future__ import annotations

from simulators.models.escpos import USB_SNBC, EscposPrinter
from simulators.models.laser import USB_LJ2650, LaserPrinter
from simulators.models.scanner import ACK, TAIL, SerialScanner
from simulators.models.sdt import FOUND, OK, PREAMBLE, SdtReader, SyntheticCard
from tests.together.needles import ADDRESS, NAME, NUMBER, TEXT

CARD_TEXT = (NAME.ljust(15) + "197" + "19000101" + ADDRESS.ljust(35) + NUMBER + "机关".ljust(15) + "2000010120300101").ljust(128)
"""The 256 bytes of a card's text area: UTF-16LE, fixed fields (GA 490)."""
TEXT_BLOCK = CARD_TEXT.encode("utf-16-le")


class LeakyReader(SdtReader):
    """Before each answer something of a card, as if another program had asked: searched, selected, read, whole, cut off, spoilt, out of frame."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.place_card(SyntheticCard(NAME))
        self.turn = 0

    def _run(self, command: int, parameter: int, data: bytes, now: float) -> None:
        content = b"\x01\x00\x04\x00" + TEXT_BLOCK + bytes(1024)
        serial, number = NAME.encode("utf-16-le")[:8], NUMBER.encode("ascii")
        whole = PREAMBLE + (len(content) + 4).to_bytes(2, "big") + b"\x00\x00\x90" + content
        leaks = (
            lambda: self._answer(OK, content, now),
            lambda: self._answer(FOUND, number[:4], now),
            lambda: self._answer(OK, serial, now),
            lambda: self._answer(OK, number[:16], now),
            lambda: self.emit(TEXT_BLOCK, now),
            lambda: self.emit(whole + b"\x00", now),
            lambda: self.emit(whole[:200], now),
            lambda: self.emit(number + TEXT_BLOCK[:50] + PREAMBLE[:3] + TEXT_BLOCK, now),
            lambda: self.emit(PREAMBLE + b"\xff\xff" + TEXT_BLOCK, now),
            lambda: self._answer(0x41, number + NAME.encode("gbk"), now),
            lambda: self._answer(0x60, TEXT_BLOCK, now),
            lambda: self.emit(NAME.encode() + ADDRESS.encode("gbk"), now),
        )
        leaks[self.turn % len(leaks)]()
        self.turn += 1
        if self.turn % 5:
            super()._run(command, parameter, data, now)


class LeakyScanner(SerialScanner):
    """Between and within its own answers somebody holds codes in front of it."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.turn = 0

    def _unified(self, address: bytes, scope: bytes, command: bytes, now: float) -> None:
        codes = (
            TEXT.encode() + b"\r",
            NUMBER.encode() + b"\n",
            NAME.encode("gbk") + NUMBER.encode() + b"\r\n",
            f"https://example.invalid/?n={NAME}&id={NUMBER}".encode() + b"\r",
            TEXT.encode() * 40 + b"\x03",
            b"\x02" + TEXT.encode(),
        )
        if self.turn % 2:
            self.emit(codes[self.turn // 2 % len(codes)], now)
        self.turn += 1
        if self.turn % 4 == 1:
            # A printed code that imitates an answer to just this question.
            self.emit(
                b"\x02\x01" + address + scope + command[:6] + f"Firmware:{NUMBER} {TEXT}".encode() + bytes((ACK,)) + TAIL, now
            )
        if self.turn % 4 == 3:
            self.emit(b"\x02\x01" + address + scope + command[:6] + NAME.encode("gbk") + bytes((ACK,)) + TAIL, now)
        super()._unified(address, scope, command, now)


class TalkativeReceiptPrinter(EscposPrinter):
    """Somebody wrote a person into every text it has. A plain Latin word in the firmware text would pass: that field holds the maker's own words,
    and its rule (specification, C-202) keeps out Chinese signs and runs of nine digits."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(usb=USB_SNBC, seed=seed)
        self._texts = {
            0x41: f"V1.2 {NUMBER} {NAME}",
            0x42: f"{TEXT} {NAME}",
            0x43: f"{TEXT} {NUMBER}",
            0x44: NUMBER,
            0x45: f"GB18030 {ADDRESS}",
        }

    def _identify(self, n: int, now: float) -> None:
        if n in self._texts:
            self._reply(b"\x5f" + self._texts[n].encode("gbk") + b"\x00", now)
        else:
            super()._identify(n, now)


class LeakyLaserPrinter(LaserPrinter):
    """Its display shows what is being printed, and for whom; its answers carry job names."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(usb=USB_LJ2650, seed=seed, model_name=f"LJ {TEXT}")

    def _status_lines(self) -> list[str]:
        return [
            f"CODE={self.code}",
            f'DISPLAY="正在打印 {NAME} {NUMBER}.docx"',
            "ONLINE=TRUE",
            f'JOBNAME="{TEXT}"',
            f"OWNER={NUMBER}",
        ]
