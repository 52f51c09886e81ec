"""A4 printers: PJL status where the printer speaks it, else the USB printer class's status byte and the word "limited". Prints nothing.

A printer that sleeps may need 20 s for its first answer: one long wait comes before the first miss. PJL names one condition at a time, so what it
does not name is judged only when it says that it is ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from edge_agent.clock import ClockReading
from edge_agent.devices.base import Observation, SlotBinding, Tally, judged_tails, poll_interval_s, printer_observation, silent
from edge_agent.transports.base import BytePort, PortError, PortStalled, UsbPort
from protocols.canon.words import DeviceState
from protocols.codecs import pjl, usb_printer
from protocols.contract.records import Evidence
from protocols.errors import ProtocolError
from protocols.profile.options.pjl import PjlOptions
from protocols.profile.schema import Family

T = TypeVar("T")

WRITE_TIMEOUT_S = 2.0
CONTROL_TIMEOUT_S = 1.0
READ_BYTES = 4096
PAGES_EVERY_MS = 600_000
"""Often enough for a daily figure."""
_WORKING = frozenset({DeviceState.ONLINE, DeviceState.BUSY, DeviceState.STARTING})


class A4Printer:
    """One printer: a claimed printer-class interface, or a serial line that speaks PJL."""

    def __init__(self, port: UsbPort | BytePort, bound: SlotBinding, *, push: bool) -> None:
        """`push`: ask for unsolicited status; only for an owner that stays."""
        profile = bound.profile
        self._port = port
        self._bound = bound
        self._options = profile.pjl or PjlOptions()
        self._speaks_pjl: bool | None = None if profile.family is Family.PJL else False
        self._push = push and self._options.unsolicited
        self._push_is_on = False
        self._reader = pjl.PjlReader()
        self._timeout_s = (profile.transport.usb.read_timeout_ms if profile.transport.usb else 2000) / 1000
        wake_ms = profile.poll.wake_timeout_ms if profile.poll else None
        self._wake_timeout_s = max(self._timeout_s, (wake_ms or 0) / 1000)
        self._misses = 0
        self._echo = 0
        self._pages_asked_ms: int | None = None
        self._pushed: list[pjl.Status] = []

    @property
    def poll_every_s(self) -> float:
        return poll_interval_s(self._bound, 30.0, soon=bool(self._misses))

    @property
    def poll_budget_s(self) -> float:
        return self._wake_timeout_s + 3 * (self._timeout_s + WRITE_TIMEOUT_S) + 2 * CONTROL_TIMEOUT_S

    async def poll(self, now: ClockReading) -> list[Observation]:
        if self._speaks_pjl is None:
            await self._identify()
        if not self._speaks_pjl:
            return [await self._poll_port_status()]
        status = await self._ask_status()
        if status is None:
            self._misses += 1
            self._push_is_on = False
            return [silent(self._bound, self._misses, Evidence(codec=pjl.CODEC, query=pjl.encode_info(pjl.Info.STATUS)))]
        self._misses = 0
        await self._switch_push_on()
        observation = self._observation(status)
        if observation.device in _WORKING:
            observation = replace(observation, tally=await self._page_tally(now))
        return [observation]

    async def listen(self, timeout_s: float) -> list[Observation]:
        if not self._push_is_on:
            await asyncio.sleep(timeout_s)
            return []
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while (left_s := deadline_s - loop.time()) > 0:
            await self._receive(left_s)
            while self._next() is not None:
                pass
            if self._pushed:
                latest = self._pushed[-1]
                self._pushed.clear()
                return [self._observation(latest)]
        return []

    async def stop(self) -> None:
        if self._push_is_on:
            with suppress(PortError):
                await self._port.write(pjl.encode_unsolicited(on=False), timeout_s=WRITE_TIMEOUT_S)
            self._push_is_on = False

    async def _identify(self) -> None:
        """Whether the printer says that it speaks PJL. One that does not tell is taken at the profile's word."""
        interface = self._bound.profile.transport.usb.interface if self._bound.profile.transport.usb else None
        request = usb_printer.device_id_request(interface or 0)
        try:
            reply = await self._control(request)
            self._speaks_pjl = usb_printer.parse_device_id(reply).speaks_pjl
        except (PortStalled, ProtocolError):
            self._speaks_pjl = True

    async def _poll_port_status(self) -> Observation:
        interface = self._bound.profile.transport.usb.interface if self._bound.profile.transport.usb else None
        request = usb_printer.port_status_request(interface or 0)
        evidence = Evidence(codec=usb_printer.CODEC, query=request.evidence)
        try:
            reply = await self._control(request)
            reading = usb_printer.reading_of_port_status(reply)
        except (PortStalled, ProtocolError):
            self._misses += 1
            return silent(self._bound, self._misses, evidence)
        self._misses = 0
        evidence = Evidence(codec=usb_printer.CODEC, query=request.evidence, reply=reply)
        if self._bound.profile.quirks.port_status_is_constant:
            # It answers, which is all that can be said.
            return Observation(
                slot=self._bound.slot,
                device=DeviceState.ONLINE,
                evidence=evidence,
                judged=judged_tails(self._bound),
                limited=True,
            )
        judged = judged_tails(self._bound, "PAPER_OUT", "PRINT_ERROR", "OFFLINE")
        return replace(printer_observation(self._bound, reading, evidence, judged=judged), limited=True)

    async def _control(self, request: usb_printer.ControlRequest) -> bytes:
        if not isinstance(self._port, UsbPort):
            raise PortStalled("a serial line has no control pipe")
        return await self._port.control_in(
            request.request_type, request.request, request.value, request.index, request.length, timeout_s=CONTROL_TIMEOUT_S
        )

    async def _ask_status(self) -> pjl.Status | None:
        """The status that was asked for, not one that was still on its way: an echo marks where the stale ones end."""
        self._echo = (self._echo + 1) % 10_000
        token = f"kf-{self._echo}"
        question = pjl.encode_echo(token) + pjl.encode_info(pjl.Info.STATUS)
        timeout_s = self._timeout_s if self._misses else self._wake_timeout_s
        echoes: list[str] = []

        def pick(event: pjl.PjlEvent) -> pjl.Status | None:
            if isinstance(event, pjl.Echo):
                echoes.append(event.token)
            return event if isinstance(event, pjl.Status) and token in echoes and not event.pushed else None

        return await self._ask(question, timeout_s, pick)

    async def _page_tally(self, now: ClockReading) -> Tally | None:
        due = self._pages_asked_ms is None or now.boot_ms - self._pages_asked_ms >= PAGES_EVERY_MS
        if not due or not self._options.page_count:
            return None
        self._pages_asked_ms = now.boot_ms
        return await self._ask(pjl.encode_info(pjl.Info.PAGECOUNT), self._timeout_s, _pages_of)

    async def _ask(self, question: bytes, timeout_s: float, pick: Callable[[pjl.PjlEvent], T | None]) -> T | None:
        """Write the question and return the first answer that `pick` takes. A printer that takes no bytes answers nothing."""
        self._reader.reset()
        try:
            await self._port.write(question, timeout_s=WRITE_TIMEOUT_S)
        except PortStalled:
            return None
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while True:
            while (event := self._next()) is not None:
                if (picked := pick(event)) is not None:
                    return picked
            left_s = deadline_s - loop.time()
            if left_s <= 0:
                return None
            await self._receive(left_s)

    async def _receive(self, timeout_s: float) -> None:
        with suppress(PortStalled):
            self._reader.feed(await self._port.read(max_bytes=READ_BYTES, timeout_s=timeout_s))

    def _next(self) -> pjl.PjlEvent | None:
        while True:
            try:
                event = self._reader.next_event()
            except ProtocolError:
                continue
            if isinstance(event, pjl.Status) and event.pushed:
                self._pushed.append(event)
                del self._pushed[:-4]
            return event

    def _observation(self, status: pjl.Status) -> Observation:
        reading = pjl.reading_of(status)
        evidence = Evidence(
            codec=pjl.CODEC,
            query=b"" if status.pushed else pjl.encode_info(pjl.Info.STATUS),
            reply=status.reply,
            masked=status.masked,
        )
        judged = None if reading.device in _WORKING else judged_tails(self._bound, *reading.conditions)
        return printer_observation(self._bound, reading, evidence, judged=judged)

    async def _switch_push_on(self) -> None:
        if self._push and not self._push_is_on:
            await self._port.write(pjl.encode_unsolicited(on=True), timeout_s=WRITE_TIMEOUT_S)
            self._push_is_on = True


def _pages_of(event: pjl.PjlEvent) -> Tally | None:
    return Tally(unit_total=event.pages) if isinstance(event, pjl.PageCount) else None
