"""USB smart-card readers (CCID): slot status by question and by notice. Never powers a card; the codec has no such question.

A reader that does not answer is helped in steps, as the transport allows: halts cleared, the slot's work aborted, the device reset. A reset costs the
kiosk application its card, so it is the last step and rare.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from edge_agent.clock import Clock, ClockReading
from edge_agent.devices.base import Observation, SlotBinding, judged_tails, poll_interval_s, silent
from edge_agent.devices.card_watch import CardWatch
from edge_agent.faults import Condition
from edge_agent.transports.base import InterfacePort, PortStalled, UsbPort
from protocols.canon.words import DeviceState, MediaState, SuggestedAction
from protocols.codecs import ccid
from protocols.contract.records import Evidence
from protocols.errors import ProtocolError
from protocols.profile.options.ccid import CcidOptions

WRITE_TIMEOUT_S = 1.0
READ_BYTES = 512
NOTICE_BYTES = 64
NOTICE_GAP_S = 0.5
HALTS_AFTER_MISSES, ABORT_AFTER_MISSES, RESET_AFTER_MISSES = 1, 2, 4
RESET_EVERY_MS = 600_000
CONTROL_TIMEOUT_S = 1.0
HARDWARE_HOLDS_MS = 600_000
"""A notice that the reader switched something off counts so long; the slot's status alone does not take it back."""


class CcidReader:
    """One reader on one port. Slot 0 takes the citizens' cards, further ones hold security modules."""

    def __init__(self, port: UsbPort, bound: SlotBinding, clock: Clock) -> None:
        self._port = port
        self._bound = bound
        self._clock = clock
        self._options = bound.profile.ccid or CcidOptions()
        self._decoder = ccid.CcidReader()
        self._watch = CardWatch(stuck_after_s=self._options.stuck_after_s)
        self._sequence = 0
        self._misses = 0
        self._reset_ms: int | None = None
        self._hardware: tuple[int, Evidence] | None = None
        self._seen: Observation | None = None

    @property
    def poll_every_s(self) -> float:
        return poll_interval_s(self._bound, 15.0, soon=bool(self._misses))

    @property
    def poll_budget_s(self) -> float:
        return self._options.slots * (ccid.ANSWER_TIMEOUT_S + 2 * WRITE_TIMEOUT_S) + 4 * CONTROL_TIMEOUT_S + WRITE_TIMEOUT_S

    async def poll(self, now: ClockReading) -> list[Observation]:
        answer = await self._ask(0)
        if answer is None:
            self._misses += 1
            await self._recover(now)
            return [
                silent(self._bound, self._misses, Evidence(codec=ccid.CODEC, query=ccid.encode_slot_status(0, self._sequence)))
            ]
        self._misses = 0
        missing = None
        for slot in range(1, self._options.slots):
            module = await self._ask(slot)
            if module is not None and module.card is ccid.Card.ABSENT:
                missing = module
        self._seen = self._observation(answer, missing, now.boot_ms)
        return [self._seen]

    async def listen(self, timeout_s: float) -> list[Observation]:
        """Insertions, removals and hardware errors, as the reader tells them by itself."""
        port = self._port
        if not self._options.notices or not isinstance(port, InterfacePort) or not port.interrupt_in or self._seen is None:
            await asyncio.sleep(timeout_s)
            return []
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while (left_s := deadline_s - loop.time()) > 0:
            try:
                packet = await port.read_from(port.interrupt_in[0], max_bytes=NOTICE_BYTES, timeout_s=left_s)
                told = self._notice(packet) if packet else None
            except (PortStalled, ProtocolError):
                # The next question tells what is true; a pipe that only fails is left alone until then.
                await asyncio.sleep(min(NOTICE_GAP_S, left_s))
                continue
            if told is not None:
                return [told]
        return []

    async def stop(self) -> None:
        return

    # ------------------------------------------------------------------ questions

    async def _ask(self, slot: int) -> ccid.Answer | None:
        self._decoder.reset()
        self._sequence = (self._sequence + 1) & 0xFF
        try:
            await self._drop_stale()
            self._decoder.expect(slot, self._sequence)
            await self._port.write(ccid.encode_slot_status(slot, self._sequence), timeout_s=WRITE_TIMEOUT_S)
            return await self._answer()
        except PortStalled:
            return None

    async def _answer(self) -> ccid.Answer | None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + ccid.ANSWER_TIMEOUT_S
        while (left_s := deadline_s - loop.time()) > 0:
            self._decoder.feed(await self._port.read(max_bytes=READ_BYTES, timeout_s=left_s))
            while True:
                try:
                    answer = self._decoder.next_event()
                except ProtocolError:
                    continue  # noise, or a late answer to somebody else's question
                if answer is None:
                    break
                if answer.kind is ccid.MessageType.SLOT_STATUS and answer.outcome is not ccid.Outcome.TIME_EXTENSION:
                    return answer
        return None

    async def _drop_stale(self) -> None:
        """Answers of an earlier question; bounded, so that a stream without end cannot hold us."""
        for _ in range(8):
            if not await self._port.read(max_bytes=READ_BYTES, timeout_s=0.001):
                break

    async def _recover(self, now: ClockReading) -> None:
        """One step for each miss. Raises PortGone where the device comes back as another one."""
        port = self._port
        if not isinstance(port, InterfacePort):
            return
        try:
            if self._misses == HALTS_AFTER_MISSES:
                for pipe in (*port.bulk_out[:1], *port.bulk_in[:1]):
                    await port.clear_halt(pipe)
            elif self._misses == ABORT_AFTER_MISSES:
                value = ccid.abort_value(0, self._sequence)
                await port.control_out(ccid.ABORT_REQUEST_TYPE, ccid.ABORT_REQUEST, value, 0, b"", timeout_s=CONTROL_TIMEOUT_S)
                await port.write(ccid.encode_abort(0, self._sequence), timeout_s=WRITE_TIMEOUT_S)
            elif self._misses >= RESET_AFTER_MISSES and self._may_reset(now):
                self._reset_ms = now.boot_ms
                await port.reset()
        except PortStalled:
            return  # it hangs; the next step is due at the next miss

    def _may_reset(self, now: ClockReading) -> bool:
        return self._reset_ms is None or now.boot_ms - self._reset_ms >= RESET_EVERY_MS

    # ------------------------------------------------------------------ what was seen

    def _notice(self, packet: bytes) -> Observation | None:
        """A notice as an observation; None if it changes nothing."""
        notice = ccid.decode_notice(packet, slots=self._options.slots)
        boot_ms = self._clock.boot_ms()
        assert self._seen is not None
        if isinstance(notice, ccid.HardwareError):
            self._hardware = (boot_ms, Evidence(codec=ccid.CODEC, reply=packet[:4]))
            seen, media = self._seen, self._seen.media
        else:
            seen, media = self._seen, self._watch.see(notice.present[0], boot_ms)
            if media is seen.media:
                return None
        told = replace(seen, media=media, conditions=(*self._conditions(boot_ms), *_modules(seen)))
        self._seen = self._with_hardware(told, boot_ms)
        return self._seen

    def _observation(self, answer: ccid.Answer, missing: ccid.Answer | None, boot_ms: int) -> Observation:
        evidence = Evidence(
            codec=ccid.CODEC,
            query=ccid.encode_slot_status(answer.slot, answer.sequence),
            reply=answer.evidence,
            masked=answer.masked,
        )
        if answer.is_hardware_error:
            self._hardware = (boot_ms, evidence)
        elif self._hardware is not None and boot_ms - self._hardware[0] >= HARDWARE_HOLDS_MS:
            self._hardware = None
        known = answer.card is not ccid.Card.UNKNOWN and not answer.is_hardware_error
        media = self._watch.see(answer.card.is_present if known else None, boot_ms)
        conditions = self._conditions(boot_ms, evidence)
        if missing is not None:
            conditions.append(Condition(self._bound.code("PSAM_MISSING"), _evidence_of(missing)))
        busy = answer.outcome is ccid.Outcome.FAILED and answer.error == ccid.ERROR_SLOT_BUSY
        seen = Observation(
            slot=self._bound.slot,
            device=DeviceState.BUSY if busy else DeviceState.ONLINE,
            media=media,
            evidence=evidence,
            conditions=tuple(conditions),
            judged=judged_tails(self._bound, "SELF_TEST", "CARD_STUCK", "PSAM_MISSING"),
        )
        return self._with_hardware(seen, boot_ms)

    def _conditions(self, boot_ms: int, evidence: Evidence | None = None) -> list[Condition]:
        conditions = []
        if self._hardware is not None and boot_ms - self._hardware[0] < HARDWARE_HOLDS_MS:
            conditions.append(Condition(self._bound.code("SELF_TEST"), self._hardware[1]))
        if self._watch.is_stuck(boot_ms):
            conditions.append(Condition(self._bound.code("CARD_STUCK"), evidence))
        return conditions

    def _with_hardware(self, seen: Observation, boot_ms: int) -> Observation:
        if self._hardware is not None and boot_ms - self._hardware[0] < HARDWARE_HOLDS_MS:
            return replace(seen, device=DeviceState.HARDWARE_ERROR, action=SuggestedAction.MAINTENANCE)
        if self._watch.is_stuck(boot_ms) and seen.media is MediaState.PRESENT:
            return replace(seen, action=SuggestedAction.CLEAR)
        return seen


def _evidence_of(answer: ccid.Answer) -> Evidence:
    return Evidence(codec=ccid.CODEC, reply=answer.evidence, masked=answer.masked)


def _modules(seen: Observation) -> tuple[Condition, ...]:
    """A missing security module stays missing until the next question."""
    return tuple(condition for condition in seen.conditions if condition.code.endswith(".PSAM_MISSING"))
