"""A4 laser printer: USB printer class 7/1/2 with device id and port status, and PJL on the bulk pair (or on any byte line).

Written from the HP PJL reference and the USB printer class definition 1.1. DISPLAY texts are localised on purpose: only CODE may be relied upon.
Pages are printed at 20 a minute and counted; their content is dropped as it arrives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from simulators.models.base import Endpoint, Model, UsbIdentity

UEL = b"\x1b%-12345X"
CRLF = b"\r\n"
FORM_FEED = b"\x0c"

TRAY_SHEETS = 250
PAGES_PER_CARTRIDGE = 1500
TONER_LOW_PAGES = 150
PAGE_S = 3.0
WAKE_S = 8.0
"""Sleep to first answer; 5 to 20 s on real machines."""
WARM_UP_S = 5.0
MAX_LINE_BYTES = 4096

USB_LJ2650 = UsbIdentity(
    0x17EF, 0x5650, (Endpoint(0x01), Endpoint(0x82)), 7, 1, 2, "Lenovo", "LJ2650DN", "E0000000000", kernel_driver="usblp"
)
USB_PANTUM = UsbIdentity(
    0x232B, 0x0810, (Endpoint(0x01), Endpoint(0x82)), 7, 1, 2, "Pantum", "P2000 series", "CA00000000", kernel_driver="usblp"
)

_DISPLAYS: Mapping[int, tuple[str, str]] = {
    10001: ("准备就绪", "READY"),
    10003: ("正在预热", "WARMING UP"),
    10006: ("碳粉不足", "TONER LOW"),
    10023: ("正在打印", "PRINTING"),
    40010: ("未安装硒鼓", "NO TONER CARTRIDGE"),
    40021: ("前盖打开", "FRONT COVER OPEN"),
    40022: ("卡纸", "PAPER JAM"),
    40050: ("定影器错误", "FUSER ERROR"),
    41213: ("请装入 A4 纸", "LOAD A4 PAPER"),
}
"""CODE → DISPLAY in Chinese and English. 41213 is 41xyy: tray 2, size A4."""


class LaserPrinter(Model):
    """A4 printer. `pjl=False` is a host-based model that answers class requests only."""

    kind: ClassVar[str] = "a4-printer"
    own_faults: ClassVar[Mapping[str, str]] = {
        "paper-out": "the tray is empty; clearing it refills 250 sheets",
        "jam": "a sheet is stuck inside",
        "toner-low": "the cartridge is nearly empty, it still prints",
        "toner-empty": "no toner cartridge",
        "cover-open": "the front cover stands open",
        "fuser": "the fuser failed, a hardware error",
        "sleep": "deep sleep: the next query is answered 8 s late and wakes it",
        "usb-halt": "the endpoints stall until the host clears the halt",
    }
    own_actions: ClassVar[Mapping[str, str]] = {
        "print": "print so many pages: print 3",
        "refill": "fill the tray",
        "replace-toner": "put a new cartridge in",
        "open-cover": "open the front cover",
        "close-cover": "close the front cover",
    }

    def __init__(
        self,
        *,
        usb: UsbIdentity | None = USB_LJ2650,
        latency_s: float = 0.005,
        seed: int = 0,
        pjl: bool = True,
        chinese: bool = True,
        display_encoding: str = "utf-8",
        page_count: int = 1204,
        maker: str = "Lenovo",
        model_name: str = "LJ2650DN",
        device_id_text: str | None = None,
    ) -> None:
        super().__init__(latency_s=latency_s, usb=usb, seed=seed)
        self.sheets = TRAY_SHEETS
        self.toner_pages = PAGES_PER_CARTRIDGE
        self.page_count = page_count
        self.pages_waiting = 0
        self.model_name = model_name
        self.device_id_text = (
            device_id_text or f"MFG:{maker};CMD:{'PJL,PCL,PCLXL' if pjl else 'GDI'};MDL:{model_name};CLS:PRINTER;"
        )
        self._pjl = pjl
        self._chinese = chinese
        self._encoding = display_encoding
        self._buffer = bytearray()
        self._in_pjl = False
        self._page_done_at = 0.0
        self._warm_at = 0.0
        self._awake_at: float | None = None
        self._ustatus_device = "OFF"
        self._ustatus_page = False
        self._ustatus_job = False
        self._ustatus_timed_s = 0
        self._next_timed = 0.0
        self._job_name: str | None = None
        self._job_pages = 0
        self._ended_jobs: list[tuple[str, int]] = []
        """Names and pages of jobs that were sent whole, until their last page is out."""
        self._reported_code = 0

    # ------------------------------------------------------------------ state

    @property
    def code(self) -> int:
        """PJL status code: 10xxx fine, 40xxx stopped for an operator, 41xyy load paper, 50xxx hardware."""
        for fault, code in (("fuser", 50001), ("cover-open", 40021), ("jam", 40022), ("toner-empty", 40010)):
            if self.has(fault):
                return code
        if self.toner_pages <= 0:
            return 40010
        if self.paper_out:
            return 41213
        if self._warm_at > 0:
            return 10003
        if self.pages_waiting > 0:
            return 10023
        return 10006 if self.toner_low else 10001

    @property
    def paper_out(self) -> bool:
        return self.has("paper-out") or self.sheets <= 0

    @property
    def toner_low(self) -> bool:
        return self.has("toner-low") or self.toner_pages < TONER_LOW_PAGES

    @property
    def stopped(self) -> bool:
        return self.code >= 40000

    def port_status(self) -> int:
        return 0x10 | (0x20 if self.paper_out else 0) | (0 if self.stopped and not self.paper_out else 0x08)

    # ------------------------------------------------------------------ host side

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
            self._in_pjl = False
            self.pages_waiting = 0
            self._ended_jobs.clear()
            return b""
        return None

    def on_bytes(self, data: bytes, now: float) -> None:
        if self.has("sleep"):
            self._faults.discard("sleep")
            self._awake_at = now + WAKE_S
        self._buffer += data
        while self._consume_input(now):
            pass

    def on_power_cycle(self, now: float) -> None:
        self._buffer.clear()
        self._in_pjl = False
        self.pages_waiting = 0
        self._ustatus_device = "OFF"
        self._ustatus_page = self._ustatus_job = False
        self._job_name = None
        self._ended_jobs.clear()
        self._ustatus_timed_s = 0
        self._warm_at = now + WARM_UP_S

    def on_fault(self, name: str, active: bool, now: float) -> None:
        if name == "usb-halt":
            self.halted = active
        elif name == "paper-out" and not active:
            self.sheets = TRAY_SHEETS
        elif name == "toner-low":
            self.toner_pages = TONER_LOW_PAGES // 2 if active else PAGES_PER_CARTRIDGE
        elif name == "toner-empty" and not active:
            self.toner_pages = PAGES_PER_CARTRIDGE
        self._report_change(now)

    def on_action(self, name: str, now: float, *args: str) -> None:
        if name == "print":
            self._queue_pages(int(args[0]) if args else 1, now)
        elif name == "refill":
            self._faults.discard("paper-out")
            self.sheets = TRAY_SHEETS
        elif name == "replace-toner":
            self._faults -= {"toner-low", "toner-empty"}
            self.toner_pages = PAGES_PER_CARTRIDGE
        elif name == "open-cover":
            self.set("cover-open", now)
        elif name == "close-cover":
            self.clear("cover-open", now)
        self._report_change(now)

    # ------------------------------------------------------------------ mechanism

    def run_mechanism(self, now: float) -> None:
        if self._warm_at and now >= self._warm_at:
            self._warm_at = 0.0
            self._report_change(now)
        while self.pages_waiting > 0 and not self.stopped and now >= self._page_done_at:
            self._finish_page(self._page_done_at)
        if self._ustatus_timed_s and now >= self._next_timed:
            self._next_timed = now + self._ustatus_timed_s
            self._emit_block(b"@PJL USTATUS TIMED", self._status_lines(), now)

    def mechanism_due(self) -> float | None:
        due = [self._page_done_at] if self.pages_waiting > 0 and not self.stopped else []
        if self._warm_at:
            due.append(self._warm_at)
        if self._ustatus_timed_s:
            due.append(self._next_timed)
        return min(due) if due else None

    def _queue_pages(self, pages: int, now: float) -> None:
        if self.pages_waiting == 0:
            self._page_done_at = now + PAGE_S
        self.pages_waiting += pages

    def _finish_page(self, now: float) -> None:
        self.pages_waiting -= 1
        self.sheets -= 1
        self.toner_pages -= 1
        self.page_count += 1
        self._page_done_at = now + PAGE_S
        self._tell_ended_jobs(now)
        if self._ustatus_page:
            self._emit_block(b"@PJL USTATUS PAGE", [str(self.page_count)], now)
        self._report_change(now)

    def _tell_ended_jobs(self, now: float) -> None:
        """A job has ended when its last page is out; jobs here are printed one after the other."""
        while self._ended_jobs and self.pages_waiting == 0:
            name, pages = self._ended_jobs.pop(0)
            if self._ustatus_job:
                self._emit_block(b"@PJL USTATUS JOB", ["END", f'NAME="{name}"', f"PAGES={pages}"], now)

    def _report_change(self, now: float) -> None:
        code = self.code
        if code == self._reported_code:
            return
        self._reported_code = code
        if self._ustatus_device == "VERBOSE" or (self._ustatus_device == "ON" and self.stopped):
            self._emit_block(b"@PJL USTATUS DEVICE", self._status_lines(), now)

    # ------------------------------------------------------------------ PJL

    def _consume_input(self, now: float) -> bool:
        """Handle one line or stretch of page data; False when more bytes are needed."""
        if not self._pjl:
            self._count_pages(bytes(self._buffer), now)
            self._buffer.clear()
            return False
        if self._buffer.startswith(UEL):
            del self._buffer[: len(UEL)]
            self._in_pjl = True
            return True
        if UEL.startswith(bytes(self._buffer[: len(UEL)])):
            return False
        return self._consume_line(now) if self._in_pjl else self._consume_page_data(now)

    def _consume_line(self, now: float) -> bool:
        begun = bytes(self._buffer).lstrip(b" \t\r\n")[:4].upper()
        if begun and not b"@PJL".startswith(begun):
            self._in_pjl = False  # the document begins, in whatever language it is
            return True
        end = self._buffer.find(b"\n")
        start = self._buffer.find(UEL)
        if end < 0 or 0 <= start < end:
            if start > 0:
                self._command(bytes(self._buffer[:start]), now)
                del self._buffer[:start]
                return True
            if len(self._buffer) > MAX_LINE_BYTES:
                self._buffer.clear()
            return False
        line = bytes(self._buffer[:end])
        if line.strip() and not line.lstrip().upper().startswith(b"@PJL"):
            self._in_pjl = False
            return True
        del self._buffer[: end + 1]
        self._command(line, now)
        return True

    def _consume_page_data(self, now: float) -> bool:
        start = self._buffer.find(UEL)
        if start < 0:
            keep = _partial_suffix(self._buffer)
            chunk = bytes(self._buffer[: len(self._buffer) - keep])
            del self._buffer[: len(chunk)]
            self._count_pages(chunk, now)
            return False
        self._count_pages(bytes(self._buffer[:start]), now)
        del self._buffer[:start]
        return True

    def _count_pages(self, data: bytes, now: float) -> None:
        pages = data.count(FORM_FEED)
        self._job_pages += pages
        if pages:
            self._queue_pages(pages, now)
            self._report_change(now)

    def _command(self, line: bytes, now: float) -> None:
        words = line.decode("latin-1").strip().split()
        if not words or words[0].upper() != "@PJL":
            return
        verb = words[1].upper() if len(words) > 1 else ""
        rest = [word.upper() for word in words[2:]]
        if verb == "ECHO":
            self._emit_block(line.strip(), [], now)
        elif verb == "INFO" and rest:
            self._info(rest[0], now)
        elif verb == "USTATUS" and rest:
            self._ustatus("".join(rest), now)
        elif verb == "USTATUSOFF":
            self._ustatus_device, self._ustatus_page, self._ustatus_timed_s = "OFF", False, 0
            self._ustatus_job = False
        elif verb == "ENTER":
            self._in_pjl = False
        elif verb == "JOB":
            self._job_name, self._job_pages = _name_in(line), 0
        elif verb == "EOJ" and self._job_name is not None:
            self._ended_jobs.append((self._job_name, self._job_pages))
            self._job_name = None
            self._tell_ended_jobs(now)

    def _info(self, category: str, now: float) -> None:
        lines = {
            "STATUS": self._status_lines(),
            "ID": [f'"{self.model_name}"'],
            "PAGECOUNT": [str(self.page_count)],
            "VARIABLES": ["COPIES=1 [2 RANGE]", "    1", "    99", "PAPER=A4 [1 ENUMERATED]", "    A4"],
            "SUPPLIES": [f"BLACK TONER={max(0, 100 * self.toner_pages // PAGES_PER_CARTRIDGE)}"],
        }.get(category, ['"?"'])
        self._emit_block(f"@PJL INFO {category}".encode("ascii", "replace"), lines, now)

    def _ustatus(self, setting: str, now: float) -> None:
        name, _, value = setting.partition("=")
        if name == "DEVICE" and value in ("ON", "OFF", "VERBOSE"):
            self._ustatus_device = value
            self._reported_code = self.code
            if value != "OFF":
                self._emit_block(b"@PJL USTATUS DEVICE", self._status_lines(), now)
        elif name == "PAGE":
            self._ustatus_page = value == "ON"
        elif name == "JOB":
            self._ustatus_job = value == "ON"
        elif name == "TIMED" and value.isdecimal() and (value == "0" or 5 <= int(value) <= 300):
            self._ustatus_timed_s = int(value)
            self._next_timed = now + int(value)

    def _status_lines(self) -> list[str]:
        code = self.code
        chinese, english = _DISPLAYS.get(code, ("硬件错误", "SERVICE ERROR"))
        return [
            f"CODE={code}",
            f'DISPLAY="{chinese if self._chinese else english}"',
            f"ONLINE={'FALSE' if self.stopped else 'TRUE'}",
        ]

    def _emit_block(self, head: bytes, lines: list[str], now: float) -> None:
        """Every PJL answer ends with a form feed."""
        body = b"".join(line.encode(self._encoding) + CRLF for line in lines)
        delay_s = self.latency_s
        if self._awake_at is not None:
            delay_s = max(delay_s, self._awake_at - now)
            if now >= self._awake_at:
                self._awake_at = None
        self.emit(head + CRLF + body + FORM_FEED, now, delay_s=delay_s)


def _name_in(line: bytes) -> str:
    """The quoted name of a JOB line."""
    return line.decode("latin-1").partition('"')[2].partition('"')[0]


def _partial_suffix(data: bytearray) -> int:
    """How many bytes at the end could be the beginning of a UEL."""
    for size in range(min(len(UEL) - 1, len(data)), 0, -1):
        if UEL.startswith(bytes(data[-size:])):
            return size
    return 0
