"""Printers for the kiosk application, in the words of XFS4IoT (CWA 17852, Printer): raw jobs, the presenter, a reset.

`success` means printed: behind every job stands a fence that the printer answers when it comes to it (process id, GS r, Star's ETB counter, PJL's
end of job). A job is sent once. If the printer stops in the middle, what it has received and not printed is cleared, so that the next person does
not get the rest, and the application is told why; nothing is ever sent again by itself. A job that would set the
printer up is not sent at all. What is printed is held by the call that prints it and by nothing else.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from edge_agent.devices.base import SlotBinding
from edge_agent.owner.base import CommandFailed, Request, Tell
from edge_agent.transports.base import BytePort, InterfacePort, Port, PortError, PortRefused, PortStalled, UsbPort
from protocols.codecs import escpos, pjl, star, usb_printer
from protocols.content import print_guard, print_job
from protocols.errors import EncodeError, ProtocolError
from protocols.profile.options.escpos import EscPosOptions
from protocols.profile.schema import Family, Profile
from protocols.profile.status import conditions_of
from protocols.profile.tables import hex_bytes

PRINT_RAW, CONTROL, RETRACT, RESET = (f"Printer.{name}" for name in ("PrintRaw", "ControlMedia", "RetractMedia", "Reset"))
PRESENTED = "Printer.MediaPresentedEvent"

CHUNK_BYTES = 4096
CHUNK_TIMEOUT_S = 5.0
"""A printer that works takes 4 KiB in half a second."""
ANSWER_S = 0.5
PJL_ANSWER_S = 20.0
"""Out of power save the first answer takes 5-20 s."""
LOOK_EVERY_S = 0.5
MOVE_TIMEOUT_S = 10.0
JOB_TIMEOUT_S = 120.0
"""Where the command names no time."""
TOLD_MAX_BYTES = 16 * 1024
MAX_ANSWERS = 12
"""A job that asks the printer more than that is no slip."""
NOT_READY, HARDWARE, USER, TIMED_OUT, INVALID, UNSUPPORTED = (
    "deviceNotReady", "hardwareError", "userError", "timeOut", "invalidData", "unsupportedData",
)  # fmt: skip

_STOPS: tuple[tuple[str, str, bool], ...] = (
    ("HARDWARE", HARDWARE, True),
    ("CUTTER", HARDWARE, True),
    ("HEAD_UP", USER, True),
    ("COVER_OPEN", USER, True),
    ("JAM", "paperJammed", False),
    ("PAPER_OUT", "paperOut", False),
    ("TONER_EMPTY", "tonerOut", False),
    ("BLACK_MARK", "blackMark", False),
    ("PRINT_ERROR", HARDWARE, True),
    ("OFFLINE", NOT_READY, True),
)
"""Conditions with which a printer prints no further, most decisive first: (condition, code, whether it is the completion's own word)."""


class PrintUnconfirmed(CommandFailed):
    """The job was sent, once, and nothing proves that it was or was not printed. `known` is what can be said."""

    def __init__(self) -> None:
        super().__init__(TIMED_OUT, plain=True)
        self.known: Mapping[str, Any] = {"dataSent": True, "printed": "unknown"}


class _Printer(ABC):
    """One printer's way of being asked and of saying "printed"."""

    @abstractmethod
    async def conditions(self) -> frozenset[str] | None:
        """What it says now; None for no answer."""

    @abstractmethod
    async def begin(self) -> None:
        """Before a job."""

    @abstractmethod
    def wrapped(self, data: bytes) -> bytes:
        """The job with its fence."""

    @abstractmethod
    async def is_done(self, within_s: float) -> bool:
        """Whether the fence was reached, by what came within this time."""

    async def end(self) -> None:  # noqa: B027 -- most have nothing to take back
        """After a job that was printed."""

    @abstractmethod
    async def clear(self) -> None:
        """Drop what was received and is not printed."""


class _EscPos(_Printer):
    def __init__(self, port: BytePort, profile: Profile) -> None:
        self._port, self._profile = port, profile
        self.options = profile.escpos or EscPosOptions()
        self._reader = escpos.EscPosReader()
        self._mark = b"KF00"
        self._answers_due = 0
        self._done = False

    async def conditions(self) -> frozenset[str] | None:
        replies: dict[int, int] = {}
        for n in self.options.queries:
            query = escpos.encode_status_query(n)
            self._reader.expect(query)
            await self._port.write(query, timeout_s=ANSWER_S)
            status = await self._answer()
            if status is None:
                return None
            replies[n] = status
        reading = escpos.reading_of_real_time(
            replies, mechanical=self.options.mechanical_bit, near_end_fitted=self.options.near_end_sensor
        )
        own = await self.own_conditions()
        return frozenset(reading.conditions) | (own or frozenset())

    async def own_conditions(self) -> frozenset[str] | None:
        """By the profile's status tables, whose replies have no form of their own: nothing else may be on its way."""
        found: set[str] = set()
        for status in self._profile.status:
            await self._take(0.02)
            await self._port.write(hex_bytes(status.query), timeout_s=ANSWER_S)
            reply, deadline_s = b"", _now() + ANSWER_S
            while len(reply) < status.reply_bytes and (left_s := deadline_s - _now()) > 0:
                reply += await self._port.read(max_bytes=status.reply_bytes - len(reply), timeout_s=left_s)
            try:
                found |= set(conditions_of(status, reply))
            except ProtocolError:
                return None
        return frozenset(found)

    async def begin(self) -> None:
        self._done = False
        await self._take(0.02)

    def wrapped(self, data: bytes) -> bytes:
        self._done = False
        if self.options.fence == "process-id":
            self._mark = b"KF%02d" % ((int(self._mark[2:]) + 1) % 100)
            return data + escpos.encode_fence(self._mark)
        question = escpos.encode_queued_status(1)
        if self.options.fence == "gs-r":
            # Questions in the application's own bytes are answered in one byte as well, and before ours.
            self._answers_due = 1 + print_job.questions_in(data)
            if self._answers_due > MAX_ANSWERS:
                raise CommandFailed(UNSUPPORTED, plain=True)
            self._reader.expect(question * self._answers_due)
            return data + question
        return data

    async def is_done(self, within_s: float) -> bool:
        await self._take(within_s)
        return self._done or self.options.fence == "none"

    async def clear(self) -> None:
        await self._port.write(print_job.forget(epson=self.options.fence == "process-id"), timeout_s=ANSWER_S)
        self._reader.reset()

    async def _answer(self) -> int | None:
        deadline_s = _now() + ANSWER_S
        while True:
            while (event := self._next()) is not None:
                if isinstance(event, escpos.RealTimeStatus):
                    return event.status
            if (left_s := deadline_s - _now()) <= 0:
                return None
            self._reader.feed(await self._port.read(max_bytes=512, timeout_s=left_s))

    async def _take(self, within_s: float) -> None:
        self._reader.feed(await self._port.read(max_bytes=512, timeout_s=within_s))
        while self._next() is not None:
            pass

    def _next(self) -> escpos.EscPosEvent | None:
        """The next event; the fence is noticed wherever it comes."""
        while True:
            try:
                event = self._reader.next_event()
            except ProtocolError:
                continue
            if isinstance(event, escpos.JobPrinted):
                self._done = self._done or event.job == self._mark
            elif isinstance(event, escpos.QueuedStatus) and self.options.fence == "gs-r":
                self._answers_due -= 1
                self._done = self._done or self._answers_due == 0
            return event


class _Star(_Printer):
    def __init__(self, port: BytePort, options: EscPosOptions) -> None:
        self._port, self._options = port, options
        self._reader = star.StarReader()
        self._before: int | None = None
        self._marks: int | None = None

    async def conditions(self) -> frozenset[str] | None:
        await self._port.write(star.encode_status_query(), timeout_s=ANSWER_S)
        status = await self._take(ANSWER_S)
        return (
            None
            if status is None
            else frozenset(star.reading_of(status, near_end_fitted=self._options.near_end_sensor).conditions)
        )

    async def begin(self) -> None:
        self._before = self._marks

    def wrapped(self, data: bytes) -> bytes:
        return data + star.encode_mark()

    async def is_done(self, within_s: float) -> bool:
        await self._take(within_s)
        if self._before is None:
            return False
        return self._marks == (self._before + 1) % 32

    async def clear(self) -> None:
        await self._port.write(print_job.star_forget(), timeout_s=ANSWER_S)

    async def _take(self, within_s: float) -> bytes | None:
        deadline_s = _now() + within_s
        while True:
            with suppress(ProtocolError):
                if (event := self._reader.next_event()) is not None:
                    self._marks = event.marks
                    return event.status
            if (left_s := deadline_s - _now()) <= 0:
                return None
            self._reader.feed(await self._port.read(max_bytes=512, timeout_s=left_s))


class _Pjl(_Printer):
    """`speaks`: else the printer class's status byte is all there is, and "printed" means that every byte was taken."""

    def __init__(self, port: BytePort, profile: Profile, *, speaks: bool) -> None:
        self._port, self._speaks = port, speaks
        usb = profile.transport.usb
        self._interface = (usb.interface or 0) if usb else 0
        self._number = 0
        self._told = bytearray()
        self._statuses: list[pjl.Status] = []
        self._reader = pjl.PjlReader()

    async def conditions(self) -> frozenset[str] | None:
        if not self._speaks:
            return await self._by_class()
        self._statuses.clear()
        await self._port.write(pjl.encode_info(pjl.Info.STATUS), timeout_s=CHUNK_TIMEOUT_S)
        deadline_s = _now() + PJL_ANSWER_S
        while not self._statuses and (left_s := deadline_s - _now()) > 0:
            await self._take(left_s)
        return frozenset(pjl.reading_of(self._statuses[-1]).conditions) if self._statuses else None

    async def _by_class(self) -> frozenset[str] | None:
        if not isinstance(self._port, UsbPort):
            return None
        ask = usb_printer.port_status_request(self._interface)
        try:
            reply = await self._port.control_in(
                ask.request_type, ask.request, ask.value, ask.index, ask.length, timeout_s=ANSWER_S
            )
            return frozenset(usb_printer.reading_of_port_status(reply).conditions)
        except (PortStalled, ProtocolError):
            return None

    async def begin(self) -> None:
        self._number += 1
        self._told.clear()

    def wrapped(self, data: bytes) -> bytes:
        return print_job.pjl_job(data, print_job.job_name(self._number)) if self._speaks else data

    async def is_done(self, within_s: float) -> bool:
        if not self._speaks:
            return True
        await self._take(within_s)
        end = print_job.pjl_end_of(bytes(self._told), print_job.job_name(self._number))
        if end == "cancelled":
            raise CommandFailed(USER, plain=True)
        return end == "printed"

    async def end(self) -> None:
        if self._speaks:
            await self._port.write(print_job.pjl_after_job(), timeout_s=CHUNK_TIMEOUT_S)

    async def clear(self) -> None:
        """SOFT_RESET of the printer class (usbprint 1.1). Where it stalls, the rest of a job can only be dropped by hand."""
        if isinstance(self._port, InterfacePort):
            await self._port.control_out(*print_job.soft_reset(self._interface), b"", timeout_s=ANSWER_S)

    async def _take(self, within_s: float) -> None:
        data = await self._port.read(max_bytes=2048, timeout_s=within_s)
        self._told += data
        del self._told[:-TOLD_MAX_BYTES]
        self._reader.feed(data)
        while True:
            try:
                event = self._reader.next_event()
            except ProtocolError:
                continue
            if event is None:
                return
            if isinstance(event, pjl.Status):
                self._statuses.append(event)
                del self._statuses[:-4]


class PrinterServer:
    """Commands of one printer."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._options = profile.escpos or EscPosOptions()
        self._receipt = profile.family is Family.ESCPOS
        self._presents = self._receipt and self._options.presenter == "custom"

    @property
    def commands(self) -> frozenset[str]:
        names = {PRINT_RAW}
        if self._receipt:
            names |= {CONTROL, RESET}
        if self._presents:
            names.add(RETRACT)
        return frozenset(names)

    def capabilities(self, bound: SlotBinding) -> Mapping[str, Any]:
        control = {"cut": self._receipt, "partialCut": self._receipt, "eject": self._presents, "retract": self._presents}
        return {
            "printer": {
                "type": {"receipt": self._receipt, "document": not self._receipt},
                "resolution": {"medium": True},
                "control": control,
                "mediaPresented": self._presents,
                "mediaTaken": self._presents,
                "retractBins": 1 if self._presents else 0,
            }
        }

    async def serve(self, port: Port, bound: SlotBinding, request: Request, tell: Tell) -> Mapping[str, Any]:
        if request.name not in self.commands:
            raise CommandFailed("unsupportedCommand", plain=True)
        if not isinstance(port, BytePort):
            raise PortRefused(f"profile {bound.profile.id}: a printer needs a stream of bytes")
        printer = await self._open(port)
        if request.name == PRINT_RAW:
            return await self._print_raw(printer, port, request, tell)
        if request.name == CONTROL:
            return await self._control(printer, port, request.payload.get("mediaControl"), request.timeout_s)
        if request.name == RETRACT:
            return {"result": "unitRetract1" if await self._move(printer, port, print_job.retract()) else "nomedia"}
        return await self._reset(printer, port, request.payload.get("mediaControl"))

    async def _open(self, port: BytePort) -> _Printer:
        if self._receipt:
            return _Star(port, self._options) if self._options.dialect == "star" else _EscPos(port, self._profile)
        speaks = self._profile.family is Family.PJL
        if speaks and isinstance(port, UsbPort):
            ask = usb_printer.device_id_request(
                (self._profile.transport.usb.interface or 0) if self._profile.transport.usb else 0
            )
            with suppress(PortStalled, ProtocolError):
                reply = await port.control_in(ask.request_type, ask.request, ask.value, ask.index, ask.length, timeout_s=ANSWER_S)
                speaks = usb_printer.parse_device_id(reply).speaks_pjl
        return _Pjl(port, self._profile, speaks=speaks)

    # ------------------------------------------------------------------ printing

    async def _print_raw(self, printer: _Printer, port: BytePort, request: Request, tell: Tell) -> Mapping[str, Any]:
        if request.payload.get("inputData") == "yes":
            raise CommandFailed(UNSUPPORTED, plain=True)
        largest = print_job.RECEIPT_MAX_BYTES if self._receipt else print_job.DOCUMENT_MAX_BYTES
        try:
            data = print_job.data_of(request.payload.get("data"), max_bytes=largest)
        except EncodeError:
            raise CommandFailed(INVALID, plain=True) from None
        if self._sets_up(data):
            raise CommandFailed(UNSUPPORTED, plain=True)
        await self._send(printer, port, data, request.timeout_s or JOB_TIMEOUT_S)
        if self._presents and isinstance(printer, _EscPos) and "OUTPUT_NOT_TAKEN" in (await printer.own_conditions() or ()):
            tell(PRESENTED, {"wadIndex": 1, "totalWads": 1})
        return {}

    def _sets_up(self, data: bytes) -> bool:
        """Whether the job would leave the printer other than it found it: it belongs to the next person, and to whoever watches it."""
        if not self._receipt:
            return print_guard.pjl_sets_up(data)
        star_way = self._options.dialect == "star"
        return print_guard.star_sets_up(data) if star_way else print_guard.escpos_sets_up(data)

    async def _send(self, printer: _Printer, port: BytePort, data: bytes, timeout_s: float) -> None:
        """One job, once, until it is on paper. Raises CommandFailed with the reason why it is not."""
        _require_able(await printer.conditions())
        await printer.begin()
        try:
            await self._carry(printer, port, data, _now() + timeout_s)
        except asyncio.CancelledError:  # the application cancelled, lost its connection, or had no time left
            with suppress(PortError):
                await printer.clear()
            raise

    async def _carry(self, printer: _Printer, port: BytePort, data: bytes, deadline_s: float) -> None:
        job = memoryview(printer.wrapped(data))
        try:
            for start in range(0, len(job), CHUNK_BYTES):
                left_s = max(0.001, min(CHUNK_TIMEOUT_S, deadline_s - _now()))
                await port.write(bytes(job[start : start + CHUNK_BYTES]), timeout_s=left_s)
        except PortStalled:
            # It takes no more, and nobody knows how much of the last piece it has. Why, it says itself if it still listens.
            await self._give_up(printer, await _conditions_or_none(printer))
        looked_s, stopped = _now(), frozenset[str]()
        while _now() < deadline_s:
            if await printer.is_done(min(LOOK_EVERY_S, max(0.001, deadline_s - _now()))):
                await printer.end()
                return
            if _now() - looked_s < LOOK_EVERY_S:
                continue
            looked_s = _now()
            seen = (await _conditions_or_none(printer) or frozenset()) & _STOPPING
            if await printer.is_done(0.001):
                continue
            if seen & stopped:  # said twice: a status byte has no check value
                await self._give_up(printer, seen & stopped)
            stopped = seen
        await self._give_up(printer, await _conditions_or_none(printer))

    async def _give_up(self, printer: _Printer, conditions: frozenset[str] | None) -> None:
        """Nothing of this job may come out later, in front of somebody else."""
        with suppress(PortStalled):
            await printer.clear()
        if conditions and (failed := _failure_of(conditions)) is not None:
            raise failed
        raise PrintUnconfirmed

    # ------------------------------------------------------------------ moving what is printed

    async def _control(self, printer: _Printer, port: BytePort, wanted: object, timeout_s: float) -> Mapping[str, Any]:
        if not isinstance(wanted, Mapping):
            raise CommandFailed(INVALID, plain=True)
        asked = {key: value for key, value in wanted.items() if value not in (None, False)}
        move = asked.pop("move", None)
        if not asked.keys() <= {"cut", "partialCut", "flush"} or move not in (None, "eject", "retract") or not (asked or move):
            raise CommandFailed(UNSUPPORTED, plain=True)
        if move is not None and not self._presents:
            raise CommandFailed(UNSUPPORTED, plain=True)
        if "cut" in asked or "partialCut" in asked:
            partial = "cut" not in asked
            star_way = self._options.dialect == "star"
            command = print_job.star_cut(partial=partial) if star_way else print_job.cut(partial=partial)
            await self._send(printer, port, command, timeout_s or JOB_TIMEOUT_S)
        if move is not None and not await self._move(
            printer, port, print_job.eject() if move == "eject" else print_job.retract()
        ):
            raise CommandFailed("noMediaPresent")
        return {}

    async def _move(self, printer: _Printer, port: BytePort, command: bytes) -> bool:
        """Move the slip in the presenter, once; False if there is none. Whether it went, the presenter's sensor says."""
        assert isinstance(printer, _EscPos)
        before = await printer.own_conditions()
        if before is None:
            raise CommandFailed(NOT_READY, plain=True)
        if "JAM" in before:
            raise CommandFailed("mediaJammed")
        if "OUTPUT_NOT_TAKEN" not in before:
            return False
        await port.write(command, timeout_s=CHUNK_TIMEOUT_S)
        deadline_s = _now() + MOVE_TIMEOUT_S
        while _now() < deadline_s:
            now = await printer.own_conditions()
            if now is not None and "JAM" in now:
                break
            if now is not None and "OUTPUT_NOT_TAKEN" not in now:
                return True
            await asyncio.sleep(LOOK_EVERY_S)
        raise CommandFailed("mediaJammed")

    async def _reset(self, printer: _Printer, port: BytePort, wanted: object) -> Mapping[str, Any]:
        if wanted not in (None, "eject", "retract") or (wanted is not None and not self._presents):
            raise CommandFailed(UNSUPPORTED, plain=True)
        await printer.clear()
        await port.write(escpos.encode_initialise(), timeout_s=CHUNK_TIMEOUT_S)
        if wanted is not None:
            await self._move(printer, port, print_job.eject() if wanted == "eject" else print_job.retract())
        if await printer.conditions() is None:
            raise CommandFailed(NOT_READY, plain=True)
        return {}


_STOPPING = frozenset(condition for condition, _, _ in _STOPS)


def _failure_of(conditions: frozenset[str]) -> CommandFailed | None:
    return next((CommandFailed(code, plain=plain) for condition, code, plain in _STOPS if condition in conditions), None)


def _require_able(conditions: frozenset[str] | None) -> None:
    """Before anything is sent."""
    if conditions is None:
        raise CommandFailed(NOT_READY, plain=True)
    if (failed := _failure_of(conditions)) is not None:
        raise failed


async def _conditions_or_none(printer: _Printer) -> frozenset[str] | None:
    try:
        return await printer.conditions()
    except PortStalled:
        return None


def _now() -> float:
    return asyncio.get_running_loop().time()
