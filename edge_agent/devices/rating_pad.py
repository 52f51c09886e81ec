"""An evaluator on a serial line: its ratings on the scale of five, a key that sticks, keys that nobody knows.

Most such pads say nothing until somebody presses a key, so that they live shows only in their port; one whose maker documents a question about its
state is asked. The pad itself waits for the citizen, and reports when the time is over.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque

from edge_agent.clock import Clock, ClockReading
from edge_agent.devices.base import Observation, SlotBinding, Tally, judged_tails, poll_interval_s, silent
from edge_agent.devices.read_test import READ, by_events, read_test
from edge_agent.devices.window import RateWindow
from edge_agent.faults import Condition
from edge_agent.transports.base import BytePort, PortStalled
from protocols.canon.words import DeviceState, SuggestedAction
from protocols.codecs import rating
from protocols.contract.records import Evidence, Rating
from protocols.errors import LineError, ProtocolError
from protocols.profile.options.rating import RatingOptions
from protocols.profile.tables import hex_bytes

WRITE_TIMEOUT_S = 0.5
ANSWER_TIMEOUT_S = 0.5
READ_BYTES = 512
PRESENCE_EVERY_S = 30.0
BOUNCE_S = 0.03
"""Bytes so close together come from one press, or from no press at all."""
NOISE_BYTES = 128
SHOWN_BYTES = 8
"""An evaluator's own frame is no longer. More, or what has no form, is shown blanked: a port has no name, and what is plugged in there by mistake
may be a scanner."""
SAME_PRESS_MS = 700
"""Nobody means two ratings so close together."""
STUCK_PRESSES = 8
STUCK_WINDOW_MS = 6_000
FORGET_MS = 300_000
"""Noise that has not come back for so long says nothing about the pad now."""


class RatingPad:
    """One pad behind one port."""

    def __init__(self, port: BytePort, bound: SlotBinding, clock: Clock) -> None:
        options = bound.profile.rating or RatingOptions()
        self._port = port
        self._bound = bound
        self._clock = clock
        self._heartbeat = options.heartbeat
        self._reader = rating.RatingReader(options.rules())
        self._bytewise = options.framing == "byte"
        self._misses = 0
        self._garbage = RateWindow(size=10, least=3, high=0.3)
        """Answers that were none, by checksum or form."""
        self._unknown = RateWindow(size=10, least=3, high=0.3)
        """Sound answers whose code the profile does not have."""
        self._presses_ms: deque[int] = deque(maxlen=STUCK_PRESSES)
        self._last_ms: int | None = None
        self._stuck = False
        self._levels: list[int] = []
        self._news = False
        self._last_bad: Evidence | None = None
        self._last_bad_ms = 0

    @property
    def poll_every_s(self) -> float:
        return poll_interval_s(self._bound, PRESENCE_EVERY_S, soon=bool(self._misses))

    @property
    def poll_budget_s(self) -> float:
        return WRITE_TIMEOUT_S + ANSWER_TIMEOUT_S + 1.0

    async def poll(self, now: ClockReading) -> list[Observation]:
        if self._last_ms is not None and now.boot_ms - self._last_ms > STUCK_WINDOW_MS:
            self._stuck = False
        if now.boot_ms - self._last_bad_ms > FORGET_MS:
            self._garbage.forget()
            self._unknown.forget()
        if self._heartbeat is None:
            return [self._observation(None)]
        query = hex_bytes(self._heartbeat.send)
        reply = await self._ask(query, self._heartbeat.reply)
        if reply is None:
            self._misses += 1
            return [silent(self._bound, self._misses, Evidence(codec=rating.CODEC, query=query))]
        self._misses = 0
        return [self._observation(Evidence(codec=rating.CODEC, query=query, reply=reply))]

    async def listen(self, timeout_s: float) -> list[Observation]:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while (left_s := deadline_s - loop.time()) > 0:
            data = await self._port.read(max_bytes=READ_BYTES, timeout_s=left_s)
            for _ in range(4):  # a stream without a pause is no press, and must not keep us
                more = await self._port.read(max_bytes=READ_BYTES, timeout_s=BOUNCE_S) if data else b""
                data += more
                if not more:
                    break
            self._take(data)
            if self._news:
                self._news = False
                return [self._observation(None)]
        return []

    @property
    def tests(self) -> frozenset[str]:
        return READ

    async def test(self, test: str) -> bool:
        """True when a rating was pressed; it counts for nobody."""
        return await read_test(self.listen, by_events)

    async def stop(self) -> None:
        return

    async def _ask(self, query: bytes, pattern: str) -> bytes | None:
        try:
            await self._port.write(query, timeout_s=WRITE_TIMEOUT_S)
        except PortStalled:
            return None
        loop = asyncio.get_running_loop()
        deadline_s, heard = loop.time() + ANSWER_TIMEOUT_S, b""
        while len(heard) < READ_BYTES and (left_s := deadline_s - loop.time()) > 0:
            heard += await self._port.read(max_bytes=READ_BYTES, timeout_s=left_s)
            for start in range(len(heard)):
                if (said := re.match(pattern, heard[start:].hex())) is not None:
                    end = start + (said.end() + 1) // 2
                    # Somebody may have pressed a key just now.
                    self._take(heard[:start] + heard[end:])
                    return heard[start:end]
        self._take(heard)
        return None

    def _take(self, data: bytes) -> None:
        """One burst of bytes, as answers and garbage."""
        if len(data) > NOISE_BYTES:
            # No finger makes so many; to look for answers in them would only cost time.
            self._reader.reset()
            if self._bytewise:
                self._answered(rating.Answer(None, data[: rating.FRAME_MAX_BYTES]))
            else:
                self._spoiled(data)
            return
        self._reader.feed(data)
        answers: list[rating.Answer] = []
        while True:
            try:
                answer = self._reader.next_event()
            except ProtocolError as err:
                self._spoiled(err.evidence if isinstance(err, LineError) else b"", framed=True)
                continue
            if answer is None:
                break
            answers.append(answer)
        if not self._bytewise and not self._reader.pending_bytes and data and not answers:
            self._spoiled(data)
        whole = rating.burst_answer(answers)
        if whole is not None:
            self._answered(whole)

    def _spoiled(self, raw: bytes, *, framed: bool = False) -> None:
        self._garbage.add(True)
        self._note_bad(raw, shown=SHOWN_BYTES if framed else 0)
        self._news = True

    def _answered(self, answer: rating.Answer) -> None:
        now_ms = self._clock.boot_ms()
        self._news = True
        self._unknown.add(answer.level is None)
        self._garbage.add(False)
        again = self._last_ms is not None and now_ms - self._last_ms < SAME_PRESS_MS
        self._last_ms = now_ms
        if answer.level is None:
            self._note_bad(answer.raw, shown=1 if self._bytewise else SHOWN_BYTES)
            return
        self._presses_ms.append(now_ms)
        if len(self._presses_ms) == STUCK_PRESSES and now_ms - self._presses_ms[0] <= STUCK_WINDOW_MS:
            self._stuck = True
        if not again and not self._stuck:
            self._levels.append(answer.level)

    def _note_bad(self, raw: bytes, *, shown: int) -> None:
        raw = raw[: rating.FRAME_MAX_BYTES]
        evidence = Evidence(codec=rating.CODEC, reply=raw)
        if len(raw) > shown:
            evidence = Evidence(codec=rating.CODEC, reply=bytes(len(raw)), masked=((0, len(raw)),))
        self._last_bad = evidence
        self._last_bad_ms = self._clock.boot_ms()

    def _observation(self, evidence: Evidence | None) -> Observation:
        levels, self._levels = self._levels, []
        tails = [
            tail
            for tail, holds in (
                ("STUCK_KEY", self._stuck),
                ("BUS_CRC", self._garbage.is_high),
                ("UNKNOWN_KEYS", self._unknown.is_high),
            )
            if holds
        ]
        return Observation(
            slot=self._bound.slot,
            device=DeviceState.HARDWARE_ERROR if self._stuck else DeviceState.ONLINE,
            action=SuggestedAction.CLEAR if self._stuck else SuggestedAction.NONE,
            # Without a question a pad that answers nobody looks like one that is well.
            limited=self._heartbeat is None,
            evidence=evidence,
            conditions=tuple(
                Condition(self._bound.code(tail), evidence if tail == "STUCK_KEY" else self._last_bad) for tail in tails
            ),
            judged=judged_tails(self._bound, "STUCK_KEY", "BUS_CRC", "UNKNOWN_KEYS"),
            tally=Tally(ok=len(levels)) if levels else None,
            events=tuple(Rating(level=level, slot=self._bound.slot) for level in levels),
        )
