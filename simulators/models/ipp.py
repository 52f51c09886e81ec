"""A4 printer that answers IPP about itself, as behind ipp-usb's loopback port or on the network. The device, not a queue.

Written from RFC 8010, RFC 8011 and PWG 5100.14 (IPP Everywhere), as much as a status reader and CUPS need: printer attributes, jobs that print,
job state. One message in, one message out; how they travel (HTTP) is the port's business. Pages are counted, documents dropped as they arrive.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from simulators.models.base import Model

PRINT_JOB, VALIDATE_JOB, CREATE_JOB, SEND_DOCUMENT = 0x02, 0x04, 0x05, 0x06
CANCEL_JOB, GET_JOB_ATTRIBUTES, GET_JOBS, GET_PRINTER_ATTRIBUTES = 0x08, 0x09, 0x0A, 0x0B
OPERATIONS = (
    PRINT_JOB,
    VALIDATE_JOB,
    CREATE_JOB,
    SEND_DOCUMENT,
    CANCEL_JOB,
    GET_JOB_ATTRIBUTES,
    GET_JOBS,
    GET_PRINTER_ATTRIBUTES,
)

OK, BAD_REQUEST, NOT_FOUND, NOT_SUPPORTED, VERSION = 0x0000, 0x0400, 0x0406, 0x0501, 0x0503
INTEGER, BOOLEAN, ENUM, RESOLUTION, RANGE, COLLECTION, COLLECTION_END = 0x21, 0x22, 0x23, 0x32, 0x33, 0x34, 0x37
TEXT, NAME, KEYWORD, URI, CHARSET, LANGUAGE, MIME, MEMBER = 0x41, 0x42, 0x44, 0x45, 0x47, 0x48, 0x49, 0x4A

PAGE_S = 3.0
SHEETS = 250
TONER_PER_PAGE = 0.07
"""Percent of a cartridge for 1,500 pages."""
WAKE_S = 8.0
MAX_JOBS = 50

Value = int | bool | str | tuple[int, ...] | dict[str, tuple[int, "Value"]]
Attribute = tuple[int, str, Sequence[Value]]

_MEDIA = {"iso_a4_210x297mm": (21000, 29700), "iso_a5_148x210mm": (14800, 21000)}


@dataclass
class Job:
    """A job: number, state (RFC 8011 5.3.7: 3 pending, 5 processing, 7 cancelled, 9 completed) and what is left of it."""

    number: int
    pages: int
    state: int = 3
    size_bytes: int = 0


class IppPrinter(Model):
    """`on_bytes` takes one whole IPP message."""

    kind: ClassVar[str] = "a4-printer"
    own_faults: ClassVar[Mapping[str, str]] = {
        "paper-out": "the tray is empty; clearing it refills 250 sheets",
        "paper-low": "few sheets are left in the tray",
        "jam": "a sheet is stuck; the device stops and says so",
        "idle-while-jammed": "a sheet is stuck and printer-state stays idle: only the reasons tell",
        "door-open": "the front door stands open",
        "toner-low": "the cartridge is nearly empty, it still prints",
        "toner-empty": "the cartridge is empty",
        "output-full": "the output tray is full",
        "fuser": "the fuser is too hot, a hardware error",
        "shutdown": "the device is shutting down",
        "stopped": "the device has stopped and gives no reason",
        "sleep": "deep sleep: the next question is answered 8 s late and wakes it",
        "no-ipp": "every question is refused, as by models that advertise IPP and do not have it",
    }
    own_actions: ClassVar[Mapping[str, str]] = {
        "print": "print so many pages: print 3",
        "refill": "fill the tray",
        "replace-toner": "put a new cartridge in",
        "empty-output": "take the pages out of the output tray",
    }

    def __init__(
        self,
        *,
        seed: int = 0,
        latency_s: float = 0.01,
        uri: str = "ipp://127.0.0.1:60000/ipp/print",
        maker_model: str = "HP LaserJet Pro M404dn",
        impressions: int = 4_321,
    ) -> None:
        super().__init__(latency_s=latency_s, seed=seed)
        self.uri = uri
        self.sheets = SHEETS
        self.toner = 80.0
        self.impressions = impressions
        self.jobs: dict[int, Job] = {}
        self.documents = 0
        self._maker_model = maker_model
        self._page_done_at = 0.0

    # ------------------------------------------------------------------ state

    @property
    def paper_out(self) -> bool:
        return self.has("paper-out") or self.sheets <= 0

    @property
    def stopped(self) -> bool:
        stopping = ("jam", "idle-while-jammed", "door-open", "toner-empty", "output-full", "fuser", "shutdown", "stopped")
        return self.paper_out or any(self.has(fault) for fault in stopping)

    @property
    def state(self) -> int:
        """3 idle, 4 processing, 5 stopped."""
        if self.stopped and not self.has("idle-while-jammed"):
            return 5
        return 4 if self._printing is not None and not self.stopped else 3

    def reasons(self) -> list[str]:
        named = {
            "jam": "media-jam-error",
            "idle-while-jammed": "media-jam-error",
            "door-open": "door-open-error",
            "toner-empty": "marker-supply-empty-error",
            "output-full": "output-area-full-error",
            "fuser": "fuser-over-temp-error",
            "shutdown": "shutdown",
        }
        found = [reason for fault, reason in named.items() if self.has(fault)]
        if self.paper_out:
            found.append("media-empty-error")
        elif self.has("paper-low") or self.sheets < 20:
            found.append("media-low-warning")
        if self.toner_level <= 10 and not self.has("toner-empty"):
            found.append("marker-supply-low-warning")
        return list(dict.fromkeys(found)) or ["none"]

    @property
    def toner_level(self) -> int:
        if self.has("toner-empty"):
            return 0
        return min(int(self.toner), 8) if self.has("toner-low") else max(0, int(self.toner))

    @property
    def _printing(self) -> Job | None:
        return next((job for job in self.jobs.values() if job.state in (3, 5) and job.pages > 0), None)

    # ------------------------------------------------------------------ host side

    def on_bytes(self, data: bytes, now: float) -> None:
        late_s = self.latency_s
        if self.has("sleep"):
            self._faults.discard("sleep")
            late_s = WAKE_S
        if len(data) < 8:
            return
        version, operation, request = data[:2], int.from_bytes(data[2:4], "big"), data[4:8]
        if data[0] not in (1, 2):
            self.emit(_message(b"\x02\x00", VERSION, request, ()), now, delay_s=late_s)
            return
        given, rest = _read_request(data)
        status, groups = self._answer(operation, given, rest, now)
        self.emit(_message(version, status, request, groups), now, delay_s=late_s)

    def on_fault(self, name: str, active: bool, now: float) -> None:
        if name == "paper-out" and not active:
            self.sheets = SHEETS
        elif name in ("toner-low", "toner-empty") and not active:
            self.toner = 100.0

    def on_action(self, name: str, now: float, *args: str) -> None:
        if name == "print":
            self._start(int(args[0]) if args else 1, 0, now)
        elif name == "refill":
            self._faults -= {"paper-out", "paper-low"}
            self.sheets = SHEETS
        elif name == "replace-toner":
            self._faults -= {"toner-low", "toner-empty"}
            self.toner = 100.0
        elif name == "empty-output":
            self._faults.discard("output-full")

    def on_power_cycle(self, now: float) -> None:
        self.jobs.clear()

    # ------------------------------------------------------------------ mechanism

    def run_mechanism(self, now: float) -> None:
        while (job := self._printing) is not None and not self.stopped and now >= self._page_done_at:
            job.state, job.pages = 5, job.pages - 1
            self.sheets -= 1
            self.impressions += 1
            self.toner -= TONER_PER_PAGE
            self._page_done_at += PAGE_S
            if job.pages == 0:
                job.state = 9

    def mechanism_due(self) -> float | None:
        return self._page_done_at if self._printing is not None and not self.stopped else None

    def _start(self, pages: int, size_bytes: int, now: float) -> Job:
        if self._printing is None:
            self._page_done_at = now + PAGE_S
        while len(self.jobs) >= MAX_JOBS:
            del self.jobs[next(iter(self.jobs))]
        job = Job(number=max(self.jobs, default=0) + 1, pages=pages, size_bytes=size_bytes)
        self.jobs[job.number] = job
        return job

    # ------------------------------------------------------------------ operations

    def _answer(
        self, operation: int, given: Mapping[str, list[bytes]], document: bytes, now: float
    ) -> tuple[int, Iterable[tuple[int, Iterable[Attribute]]]]:
        if self.has("no-ipp"):
            return NOT_SUPPORTED, ()
        if operation == GET_PRINTER_ATTRIBUTES:
            asked = {name.decode("ascii", "replace") for name in given.get("requested-attributes", [b"all"])}
            everything = not asked or bool(asked & {"all", "printer-description", "job-template", "media-col-database"})
            return OK, [(0x04, [one for one in self._attributes(now) if everything or one[1] in asked])]
        if operation == VALIDATE_JOB:
            return OK, ()
        if operation in (PRINT_JOB, CREATE_JOB):
            pages = _pages(document) if operation == PRINT_JOB else 0
            self.documents += operation == PRINT_JOB
            return OK, [(0x02, self._job_attributes(self._start(pages, len(document), now)))]
        if operation == GET_JOBS:
            wanted = (7, 8, 9) if given.get("which-jobs") == [b"completed"] else (3, 4, 5, 6)
            return OK, [(0x02, self._job_attributes(job)) for job in self.jobs.values() if job.state in wanted]
        numbers = given.get("job-id", [])
        job = self.jobs.get(int.from_bytes(numbers[0], "big")) if numbers else None
        if operation not in OPERATIONS:
            return NOT_SUPPORTED, ()
        if job is None:
            return NOT_FOUND, ()
        if operation == SEND_DOCUMENT:
            if self._printing is None:
                self._page_done_at = now + PAGE_S
            job.pages, job.size_bytes = _pages(document), len(document)
            self.documents += 1
        elif operation == CANCEL_JOB:
            job.state, job.pages = 7, 0
        return OK, [(0x02, self._job_attributes(job))]

    def _job_attributes(self, job: Job) -> list[Attribute]:
        reason = {3: "none", 5: "job-printing", 7: "job-canceled-by-user", 9: "job-completed-successfully"}[job.state]
        return [
            (INTEGER, "job-id", [job.number]),
            (URI, "job-uri", [f"{self.uri}/{job.number}"]),
            (ENUM, "job-state", [job.state]),
            (KEYWORD, "job-state-reasons", [reason]),
            (INTEGER, "job-impressions-completed", [0 if job.state < 9 else 1]),
        ]

    def _attributes(self, now: float) -> list[Attribute]:
        level = self.toner_level
        media = list(_MEDIA)
        size = {"media-size": (COLLECTION, _size(_MEDIA[media[0]]))}
        margins = {f"media-{side}-margin": (INTEGER, 423) for side in ("bottom", "left", "right", "top")}
        return [
            (URI, "printer-uri-supported", [self.uri]),
            (KEYWORD, "uri-security-supported", ["none"]),
            (KEYWORD, "uri-authentication-supported", ["none"]),
            (NAME, "printer-name", ["device"]),
            (ENUM, "printer-state", [self.state]),
            (KEYWORD, "printer-state-reasons", self.reasons()),
            (BOOLEAN, "printer-is-accepting-jobs", [not self.has("shutdown")]),
            (KEYWORD, "ipp-versions-supported", ["1.1", "2.0"]),
            (KEYWORD, "ipp-features-supported", ["ipp-everywhere"]),
            (ENUM, "operations-supported", list(OPERATIONS)),
            (CHARSET, "charset-configured", ["utf-8"]),
            (CHARSET, "charset-supported", ["utf-8"]),
            (LANGUAGE, "natural-language-configured", ["en"]),
            (LANGUAGE, "generated-natural-language-supported", ["en"]),
            (MIME, "document-format-default", ["application/octet-stream"]),
            (MIME, "document-format-supported", ["application/octet-stream", "application/pdf", "image/pwg-raster"]),
            (KEYWORD, "compression-supported", ["none"]),
            (KEYWORD, "pdl-override-supported", ["attempted"]),
            (INTEGER, "queued-job-count", [sum(job.state < 7 for job in self.jobs.values())]),
            (INTEGER, "printer-up-time", [max(1, int(now))]),
            (TEXT, "printer-make-and-model", [self._maker_model]),
            (TEXT, "printer-info", [self._maker_model]),
            (TEXT, "printer-location", ["desk"]),
            (URI, "printer-more-info", [self.uri.replace("ipp://", "http://", 1).removesuffix("/ipp/print")]),
            (TEXT, "printer-firmware-string-version", ["2409.1 20240812"]),
            (URI, "printer-uuid", ["urn:uuid:00000000-0000-1000-8000-0000deadbeef"]),
            (INTEGER, "printer-impressions-completed", [self.impressions]),
            (KEYWORD, "media-supported", media),
            (KEYWORD, "media-default", media[:1]),
            (KEYWORD, "media-ready", media[:1]),
            (KEYWORD, "media-source-supported", ["tray-1"]),
            (KEYWORD, "media-type-supported", ["stationery"]),
            (COLLECTION, "media-size-supported", [_size(one) for one in _MEDIA.values()]),
            (COLLECTION, "media-col-default", [{**size, **margins}]),
            (COLLECTION, "media-col-database", [{"media-size": (COLLECTION, _size(one)), **margins} for one in _MEDIA.values()]),
            *((INTEGER, f"media-{side}-margin-supported", [423]) for side in ("bottom", "left", "right", "top")),
            (KEYWORD, "sides-supported", ["one-sided", "two-sided-long-edge"]),
            (KEYWORD, "sides-default", ["one-sided"]),
            (KEYWORD, "print-color-mode-supported", ["monochrome"]),
            (KEYWORD, "print-color-mode-default", ["monochrome"]),
            (ENUM, "print-quality-supported", [4]),
            (ENUM, "print-quality-default", [4]),
            (RESOLUTION, "printer-resolution-supported", [(600, 600)]),
            (RESOLUTION, "printer-resolution-default", [(600, 600)]),
            (RESOLUTION, "pwg-raster-document-resolution-supported", [(600, 600)]),
            (KEYWORD, "pwg-raster-document-type-supported", ["sgray_8"]),
            (KEYWORD, "pwg-raster-document-sheet-back", ["normal"]),
            (RANGE, "copies-supported", [(1, 99)]),
            (INTEGER, "copies-default", [1]),
            (KEYWORD, "output-bin-supported", ["face-down"]),
            (KEYWORD, "output-bin-default", ["face-down"]),
            (BOOLEAN, "color-supported", [False]),
            (NAME, "marker-names", ["Black Cartridge", "Waste Toner"]),
            (KEYWORD, "marker-types", ["toner-cartridge", "waste-toner"]),
            (NAME, "marker-colors", ["#000000", "#808080"]),
            (INTEGER, "marker-levels", [level, 40]),
            (INTEGER, "marker-low-levels", [10, 0]),
            (INTEGER, "marker-high-levels", [100, 95]),
        ]


def _size(size: tuple[int, int]) -> dict[str, tuple[int, Value]]:
    return {"x-dimension": (INTEGER, size[0]), "y-dimension": (INTEGER, size[1])}


def _pages(document: bytes) -> int:
    """Form feeds of plain data, page objects of a PDF; anything else is one page. Nothing of it is kept."""
    if document.startswith(b"%PDF"):
        return max(1, document.count(b"/Type /Page") - document.count(b"/Type /Pages"))
    return max(1, document.count(b"\x0c"))


def _read_request(data: bytes) -> tuple[dict[str, list[bytes]], bytes]:
    """Attributes of all groups by name (collections flattened, nobody here reads them), and the document behind them."""
    given: dict[str, list[bytes]] = {}
    at, name = 8, ""
    while at < len(data) and data[at] != 0x03:
        if data[at] < 0x10:
            at += 1
            continue
        if len(data) - at < 5:
            return given, b""
        name_size = struct.unpack_from(">H", data, at + 1)[0]
        if name_size:
            name = data[at + 3 : at + 3 + name_size].decode("ascii", "replace")
        at += 3 + name_size
        if len(data) - at < 2:
            return given, b""
        size = struct.unpack_from(">H", data, at)[0]
        given.setdefault(name, []).append(data[at + 2 : at + 2 + size])
        at += 2 + size
    return given, data[at + 1 :]


def _message(version: bytes, status: int, request: bytes, groups: Iterable[tuple[int, Iterable[Attribute]]]) -> bytes:
    out = bytearray(version + status.to_bytes(2, "big") + request + b"\x01")
    out += _one(CHARSET, "attributes-charset", "utf-8") + _one(LANGUAGE, "attributes-natural-language", "en")
    for tag, attributes in groups:
        out.append(tag)
        for value_tag, name, values in attributes:
            for at, value in enumerate(values):
                out += _one(value_tag, "" if at else name, value)
    return bytes(out + b"\x03")


def _one(tag: int, name: str, value: Value) -> bytes:
    if tag == COLLECTION:
        assert isinstance(value, dict)
        members = b"".join(_one(MEMBER, "", member) + _one(kind, "", inner) for member, (kind, inner) in value.items())
        return _tlv(COLLECTION, name, b"") + members + _tlv(COLLECTION_END, "", b"")
    return _tlv(tag, name, _data(tag, value))


def _data(tag: int, value: Value) -> bytes:
    if isinstance(value, bool):
        return bytes((value,))
    if isinstance(value, int):
        return struct.pack(">i", value)
    if isinstance(value, tuple):
        packed = b"".join(struct.pack(">i", number) for number in value)
        return packed + b"\x03" if tag == RESOLUTION else packed
    assert isinstance(value, str)
    return value.encode("utf-8")


def _tlv(tag: int, name: str, data: bytes) -> bytes:
    raw = name.encode("ascii")
    return bytes((tag,)) + struct.pack(">H", len(raw)) + raw + struct.pack(">H", len(data)) + data
