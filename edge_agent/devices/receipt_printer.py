"""Receipt printers (ESC/POS) on serial lines and USB: real-time status questions and the automatic status. Prints nothing but the fixed test
slip that a signed order asks for.

Owner of the port only. Questions are real-time commands, which are answered even when the printer is offline or its buffer is full; the identity
question is queued, so it is asked once, while the printer is well, and its silence means nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

from edge_agent.clock import ClockReading
from edge_agent.devices.base import (
    Observation,
    SlotBinding,
    Tally,
    judged_tails,
    poll_interval_s,
    printer_observation,
    silent,
    version_of,
)
from edge_agent.faults import Condition
from edge_agent.transports.base import BytePort, PortError, PortStalled
from protocols.canon.faults import fault
from protocols.canon.words import DeviceState, MediaState, Severity
from protocols.codecs import escpos
from protocols.contract.records import Evidence
from protocols.errors import ProtocolError
from protocols.profile.options.escpos import EscPosOptions
from protocols.profile.status import conditions_of
from protocols.profile.tables import hex_bytes

WRITE_TIMEOUT_S = 1.0
IDENTITY_TIMEOUT_S = 1.0
PRINT_TIMEOUT_S = 10.0
"""The slip is 6 cm long; the slowest of such printers do 50 mm/s."""
ASK_TIMES = 3
READ_BYTES = 512
SETTLE_S = 0.02
"""What was still on its way before a question without a form of its own is written."""
COUNT_EVERY_MS = 600_000
PUSH_AGAIN_S = 120.0
TEST_JOB = b"TEST"

_TAILS_OF_QUERY = {
    1: ("OFFLINE",),
    2: ("COVER_OPEN", "PAPER_OUT", "PRINT_ERROR"),
    3: ("JAM", "CUTTER", "HARDWARE", "HEAD_HOT"),
    4: ("PAPER_OUT", "PAPER_NEAR_END"),
}
"""What each DLE EOT question can speak about."""


class ReceiptPrinter:
    """One printer on one port."""

    def __init__(self, port: BytePort, bound: SlotBinding, *, push: bool) -> None:
        """`push`: switch the automatic status on; only for an owner that stays."""
        profile = bound.profile
        self._port = port
        self._bound = bound
        self._options = profile.escpos or EscPosOptions()
        self._push = push and self._options.auto_status
        self._push_is_on = False
        self._push_again_s = 0.0
        self._reader = escpos.EscPosReader()
        transport = profile.transport.usb or profile.transport.serial
        self._timeout_s = (transport.read_timeout_ms if transport else 500) / 1000
        self._misses = 0
        self._firmware: str | None = None
        self._identity_asked = False
        self._believed: frozenset[str] = frozenset()
        self._unsettled = False
        self._strays = 0
        self._believed_own: frozenset[str] = frozenset()
        self._counted_ms: int | None = None
        self._has_counter = self._options.cut_counter

    @property
    def poll_every_s(self) -> float:
        return poll_interval_s(self._bound, 15.0, soon=bool(self._misses or self._unsettled))

    @property
    def poll_budget_s(self) -> float:
        questions = len(self._options.queries) + 2 * len(self._bound.profile.status)
        rest_s = 2 * IDENTITY_TIMEOUT_S + 3 * WRITE_TIMEOUT_S
        return 2 * ASK_TIMES * questions * (self._timeout_s + WRITE_TIMEOUT_S) + rest_s

    async def poll(self, now: ClockReading) -> list[Observation]:
        seen = await self._look()
        if seen and seen[0].device is DeviceState.ONLINE and not seen[0].conditions:
            seen[0] = replace(seen[0], tally=await self._cut_tally(now))
        return seen

    async def listen(self, timeout_s: float) -> list[Observation]:
        """An automatic status says that something changed; what it is, the real-time questions tell."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while (left_s := deadline_s - loop.time()) > 0:
            await self._receive(left_s)
            while (event := self._next()) is not None:
                if isinstance(event, escpos.AutoStatus) and self._is_news(event.status):
                    return await self._look()
        return []

    @property
    def tests(self) -> frozenset[str]:
        return frozenset({"print"})

    async def test(self, test: str) -> bool:
        """Print the test slip; true when the printer says that it has come to the question behind it (without one: that it is well)."""
        assert test == "print"
        slip = escpos.encode_test_slip(gbk=self._options.text == "gbk")
        if self._options.fence == "process-id":
            said = await self._exchange(slip + escpos.encode_fence(TEST_JOB), escpos.JobPrinted, PRINT_TIMEOUT_S)
            return said == escpos.JobPrinted(TEST_JOB)
        if self._options.fence == "gs-r":
            question = escpos.encode_queued_status(1)
            self._reader.expect(question)
            return await self._exchange(slip + question, escpos.QueuedStatus, PRINT_TIMEOUT_S) is not None
        await self._port.write(slip, timeout_s=WRITE_TIMEOUT_S)
        replies = await self._ask_all()
        return len(replies) == len(self._options.queries) and not self._conditions_of(replies) - {"PAPER_NEAR_END"}

    async def stop(self) -> None:
        if self._push_is_on:
            with suppress(PortError):
                await self._port.write(escpos.encode_auto_status(0), timeout_s=WRITE_TIMEOUT_S)
            self._push_is_on = False

    async def _look(self) -> list[Observation]:
        """Ask everything. One status byte has no check value: what is new is believed when it is said twice."""
        replies = await self._ask_all()
        conditions = self._conditions_of(replies)
        self._unsettled = bool(conditions - self._believed) and not conditions <= self._conditions_of(await self._ask_all())
        if self._unsettled:
            return []
        if not replies:
            self._misses += 1
            self._push_is_on = False  # a printer that was switched off forgets it
            query = escpos.encode_status_query(self._options.queries[0])
            return [silent(self._bound, self._misses, Evidence(codec=escpos.CODEC, query=query))]
        self._misses = 0
        self._believed = conditions
        observation = self._observation(replies, await self._own_conditions())
        if observation.device is DeviceState.ONLINE and not self._identity_asked:
            await self._identify()
            observation = replace(observation, firmware=self._firmware)
        if observation.device is DeviceState.ONLINE:
            await self._switch_push_on()
        return [observation]

    def _is_news(self, status: bytes) -> bool:
        """Whether an automatic status differs from what is believed; the one at switching on does not."""
        try:
            reading = escpos.reading_of_auto_status(
                status, mechanical=self._options.mechanical_bit, near_end_fitted=self._options.near_end_sensor
            )
        except ProtocolError:
            return False
        return frozenset(reading.conditions) != self._believed

    async def _ask_all(self) -> dict[int, int]:
        """Answers by question; a question without a sound answer ends the round, for the printer is not talking."""
        replies: dict[int, int] = {}
        for n in self._options.queries:
            status = await self._ask(n)
            if status is None:
                break
            replies[n] = status
        return replies

    async def _ask(self, n: int) -> int | None:
        """The status byte, or None. An answer with anything beside it is noise or a late one, and is asked for again."""
        query = escpos.encode_status_query(n)
        for _ in range(ASK_TIMES):
            spoiled_before = self._spoiled
            self._reader.expect(query)
            event = await self._exchange(query, escpos.RealTimeStatus, self._timeout_s)
            if not isinstance(event, escpos.RealTimeStatus):
                return None
            while (beside := self._next()) is not None:
                self._strays += isinstance(beside, escpos.RealTimeStatus)
            if self._spoiled == spoiled_before:
                return event.status
            self._reader.reset()
        return None

    @property
    def _spoiled(self) -> int:
        """Bytes and frames so far that belonged to nothing."""
        return self._reader.noise_bytes + self._strays

    def _conditions_of(self, replies: dict[int, int]) -> frozenset[str]:
        if not replies:
            return frozenset()
        reading = escpos.reading_of_real_time(
            replies, mechanical=self._options.mechanical_bit, near_end_fitted=self._options.near_end_sensor
        )
        return frozenset(reading.conditions)

    async def _exchange(self, query: bytes, wanted: type[escpos.EscPosEvent], timeout_s: float) -> escpos.EscPosEvent | None:
        try:
            await self._port.write(query, timeout_s=WRITE_TIMEOUT_S)
        except PortStalled:
            return None  # switched off behind a USB chip that lives: it takes no bytes
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while True:
            while (event := self._next()) is not None:
                if isinstance(event, wanted):
                    return event
            left_s = deadline_s - loop.time()
            if left_s <= 0:
                self._reader.reset()
                return None
            await self._receive(left_s)

    async def _receive(self, timeout_s: float) -> None:
        with suppress(PortStalled):  # its halt is cleared; silence is noticed by whoever waits
            self._reader.feed(await self._port.read(max_bytes=READ_BYTES, timeout_s=timeout_s))

    def _next(self) -> escpos.EscPosEvent | None:
        """The next sound event; spoiled bytes are dropped and counted."""
        while True:
            try:
                event = self._reader.next_event()
            except ProtocolError:
                self._strays += 1
                continue
            return event

    async def _own_conditions(self) -> tuple[Condition, ...] | None:
        """The profile's own status questions, whose replies do not follow the common form; None if one had no sound answer.

        As with the common ones, what is new is believed when it is said twice.
        """
        found = await self._ask_own()
        if found is not None and {one.code for one in found} - self._believed_own:
            again = await self._ask_own()
            found = None if again is None or {one.code for one in found} != {one.code for one in again} else again
        if found is not None:
            self._believed_own = frozenset(one.code for one in found)
        return found

    async def _ask_own(self) -> tuple[Condition, ...] | None:
        found: list[Condition] = []
        for status in self._bound.profile.status:
            query = hex_bytes(status.query)
            try:
                for _ in range(ASK_TIMES):
                    if not await self._port.read(max_bytes=READ_BYTES, timeout_s=SETTLE_S):
                        break
                await self._port.write(query, timeout_s=WRITE_TIMEOUT_S)
                reply = await self._read_exactly(status.reply_bytes)
                tails = conditions_of(status, reply)
            except (PortStalled, ProtocolError):
                return None
            evidence = Evidence(codec="profile", query=query, reply=reply)
            found += [Condition(self._bound.code(tail), evidence) for tail in tails]
        return tuple(found)

    async def _read_exactly(self, size_bytes: int) -> bytes:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._timeout_s
        reply = b""
        while len(reply) < size_bytes and (left_s := deadline_s - loop.time()) > 0:
            reply += await self._port.read(max_bytes=size_bytes - len(reply), timeout_s=left_s)
        return reply

    def _observation(self, replies: dict[int, int], own: tuple[Condition, ...] | None) -> Observation:
        reading = escpos.reading_of_real_time(
            replies, mechanical=self._options.mechanical_bit, near_end_fitted=self._options.near_end_sensor
        )
        asked = sorted(replies)
        evidence = Evidence(
            codec=escpos.CODEC,
            query=b"".join(escpos.encode_status_query(n) for n in asked),
            reply=bytes(replies[n] for n in asked),
        )
        complete = len(replies) == len(self._options.queries) and own is not None
        judged = None if complete else judged_tails(self._bound, *(tail for n in asked for tail in _TAILS_OF_QUERY[n]))
        observation = printer_observation(self._bound, reading, evidence, judged=judged, firmware=self._firmware)
        if own:
            observation = _with_conditions(observation, own)
        if self._options.presenter == "none":
            return observation
        return replace(observation, media=MediaState.UNKNOWN if own is None else _media(self._bound, observation))

    async def _cut_tally(self, now: ClockReading) -> Tally | None:
        """The printer's own count of cuts, each of which is a slip. A printer that does not answer is not asked again."""
        if not self._has_counter or (self._counted_ms is not None and now.boot_ms - self._counted_ms < COUNT_EVERY_MS):
            return None
        self._counted_ms = now.boot_ms
        query = escpos.encode_counter_query(escpos.Count.CUTS)
        self._reader.expect(query)
        event = await self._exchange(query, escpos.Counter, IDENTITY_TIMEOUT_S)
        self._has_counter = isinstance(event, escpos.Counter)
        return Tally(unit_total=event.value) if isinstance(event, escpos.Counter) else None

    async def _identify(self) -> None:
        """Ask for the firmware version once. Clones that ignore the question cost one time-out."""
        self._identity_asked = True
        if not self._options.identity:
            return
        own = self._bound.profile.firmware.version_query
        query = escpos.encode_identity_query(65) if own is None else hex_bytes(own)
        self._reader.expect(query)
        event = await self._exchange(query, escpos.Identity, IDENTITY_TIMEOUT_S)
        if isinstance(event, escpos.Identity):
            self._firmware = version_of(event.text, self._bound.profile.firmware.version_format)

    async def _switch_push_on(self) -> None:
        """Again now and then: what an application prints, or a reset of the printer, may have switched it off."""
        now_s = asyncio.get_running_loop().time()
        if self._push and (not self._push_is_on or now_s >= self._push_again_s):
            await self._port.write(escpos.encode_auto_status(), timeout_s=WRITE_TIMEOUT_S)
            self._push_is_on = True
            self._push_again_s = now_s + PUSH_AGAIN_S


def _media(bound: SlotBinding, observation: Observation) -> MediaState:
    codes = {condition.code for condition in observation.conditions}
    if bound.code("JAM") in codes:
        return MediaState.JAMMED
    return MediaState.PRESENT if bound.code("OUTPUT_NOT_TAKEN") in codes else MediaState.NOT_PRESENT


def _with_conditions(observation: Observation, own: tuple[Condition, ...]) -> Observation:
    """The profile's own bits count as much as the common ones; a code that both name is one condition."""
    if any(fault(condition.code).severity < Severity.P3 for condition in own):
        # The common bits only say that something is wrong; the maker's say what.
        vague = ("PRINT_ERROR", "OFFLINE")
        kept = tuple(one for one in observation.conditions if one.code.partition(".")[2] not in vague)
        observation = replace(observation, conditions=kept)
    known = {condition.code for condition in observation.conditions}
    added = tuple(condition for condition in own if condition.code not in known)
    stopping = any(fault(condition.code).severity < Severity.P3 for condition in added)
    device = DeviceState.HARDWARE_ERROR if stopping and observation.device is DeviceState.ONLINE else observation.device
    return replace(observation, conditions=observation.conditions + added, device=device)
