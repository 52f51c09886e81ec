"""Receipt printers in Star's line mode: the automatic status, asked for and pushed. Prints nothing but the fixed test slip of a signed order.

One question tells everything (ESC ACK SOH, answered in real time), so a look is one exchange; what is new is believed when it is said twice.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from edge_agent.clock import ClockReading
from edge_agent.devices.base import Observation, SlotBinding, poll_interval_s, printer_observation, silent
from edge_agent.transports.base import BytePort, PortError, PortStalled
from protocols.codecs import star
from protocols.contract.records import Evidence
from protocols.errors import ProtocolError
from protocols.profile.options.escpos import EscPosOptions

WRITE_TIMEOUT_S = 1.0
PRINT_TIMEOUT_S = 10.0
READ_BYTES = 512
ASK_TIMES = 3


class StarPrinter:
    """One printer on one port."""

    def __init__(self, port: BytePort, bound: SlotBinding, *, push: bool) -> None:
        """`push`: switch the automatic status on; only for an owner that stays."""
        profile = bound.profile
        self._port = port
        self._bound = bound
        self._options = profile.escpos or EscPosOptions()
        self._push = push and self._options.auto_status
        self._push_is_on = False
        self._reader = star.StarReader()
        transport = profile.transport.usb or profile.transport.serial
        self._timeout_s = (transport.read_timeout_ms if transport else 500) / 1000
        self._misses = 0
        self._believed: frozenset[str] = frozenset()
        self._unsettled = False

    @property
    def poll_every_s(self) -> float:
        return poll_interval_s(self._bound, 15.0, soon=bool(self._misses or self._unsettled))

    @property
    def poll_budget_s(self) -> float:
        return 2 * ASK_TIMES * (self._timeout_s + WRITE_TIMEOUT_S) + WRITE_TIMEOUT_S

    async def poll(self, now: ClockReading) -> list[Observation]:
        return await self._look()

    async def _look(self) -> list[Observation]:
        status = await self._ask()
        if status is None:
            self._misses += 1
            self._push_is_on = False  # a printer that was switched off forgets it
            return [silent(self._bound, self._misses, Evidence(codec=star.CODEC, query=star.encode_status_query()))]
        conditions = self._conditions_of(status)
        if conditions - self._believed:
            again = await self._ask()
            self._unsettled = again is None or not conditions <= self._conditions_of(again)
            if self._unsettled:
                return []
        self._misses, self._unsettled, self._believed = 0, False, conditions
        if self._push and not self._push_is_on:
            await self._port.write(star.encode_auto_status(on=True), timeout_s=WRITE_TIMEOUT_S)
            self._push_is_on = True
        reading = star.reading_of(status, near_end_fitted=self._options.near_end_sensor)
        evidence = Evidence(codec=star.CODEC, query=star.encode_status_query(), reply=status)
        return [printer_observation(self._bound, reading, evidence, judged=None)]

    async def listen(self, timeout_s: float) -> list[Observation]:
        """A pushed status that says something new is asked for again, like every other."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while (left_s := deadline_s - loop.time()) > 0:
            await self._receive(left_s)
            while (event := self._next()) is not None:
                if self._conditions_of(event.status) != self._believed:
                    return await self._look()
        return []

    @property
    def tests(self) -> frozenset[str]:
        return frozenset({"print"})

    async def test(self, test: str) -> bool:
        """Print the test slip; true when the counter of ETB behind it has moved."""
        assert test == "print"
        before = await self._ask()
        if before is None or (marks := star.StarStatus(before).marks) is None:
            return False
        await self._port.write(star.encode_test_slip() + star.encode_mark(), timeout_s=WRITE_TIMEOUT_S)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + PRINT_TIMEOUT_S
        while loop.time() < deadline_s:
            status = await self._ask()
            if status is not None and star.StarStatus(status).marks == (marks + 1) % 32:
                return True
            await asyncio.sleep(self._timeout_s / 2)
        return False

    async def stop(self) -> None:
        if self._push_is_on:
            with suppress(PortError):
                await self._port.write(star.encode_auto_status(on=False), timeout_s=WRITE_TIMEOUT_S)
            self._push_is_on = False

    def _conditions_of(self, status: bytes) -> frozenset[str]:
        return frozenset(star.reading_of(status, near_end_fitted=self._options.near_end_sensor).conditions)

    async def _ask(self) -> bytes | None:
        """A status that came alone; one with noise beside it is asked for again."""
        loop = asyncio.get_running_loop()
        for _ in range(ASK_TIMES):
            self._reader.reset()
            noise_before = self._reader.noise_bytes
            try:
                await self._port.write(star.encode_status_query(), timeout_s=WRITE_TIMEOUT_S)
            except PortStalled:
                return None
            deadline_s = loop.time() + self._timeout_s
            status: bytes | None = None
            while status is None and (left_s := deadline_s - loop.time()) > 0:
                await self._receive(left_s)
                while (event := self._next()) is not None:
                    status = event.status
            if status is None:
                return None
            if self._reader.noise_bytes == noise_before:
                return status
        return None

    async def _receive(self, timeout_s: float) -> None:
        with suppress(PortStalled):
            self._reader.feed(await self._port.read(max_bytes=READ_BYTES, timeout_s=timeout_s))

    def _next(self) -> star.StarStatus | None:
        while True:
            try:
                return self._reader.next_event()
            except ProtocolError:
                self._reader.noise_bytes += 1
