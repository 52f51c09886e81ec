"""Smart-card readers that the machine's PC/SC service owns: watched through the service, which is asked and never used. No card is connected to.

One driver for all slots behind one service. A service that is not there, one that has no such reader and a reader that is in use are three answers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace

from edge_agent.clock import Clock, ClockReading
from edge_agent.devices.base import RETRY_S, Observation, SlotBinding, judged_tails, link_codes, silent, unseen
from edge_agent.devices.card_watch import CardWatch
from edge_agent.devices.window import RateWindow
from edge_agent.faults import Condition
from edge_agent.transports.base import CardReaders, ReaderPort
from protocols.canon.words import DeviceState, MediaState, SuggestedAction
from protocols.codecs import pcsc
from protocols.contract.records import Evidence
from protocols.profile.options.pcsc import PcscOptions

LOOK_TIMEOUT_S = 3.0
CHANGE_GAP_S = 0.5
"""However often cards come and go, the service is asked no more than twice a second."""
MUTE_SHARE = 0.3


class _Slot:
    """One reader over time."""

    def __init__(self, bound: SlotBinding) -> None:
        self.bound = bound
        options = bound.profile.pcsc or PcscOptions()
        self._name = re.compile(options.reader)
        self._watch = CardWatch(stuck_after_s=options.stuck_after_s)
        self._mutes = RateWindow(size=20, least=5, high=MUTE_SHARE)
        self._counted: int | None = None
        self._misses = 0

    def observe(self, seen: CardReaders, boot_ms: int) -> Observation:
        if seen.code not in (pcsc.SUCCESS, pcsc.NO_READERS):
            return self._without_service(seen.code)
        self._misses = 0
        fitting = [state for name, state in seen.states if self._name.search(name)]
        index = self.bound.address or 0
        state = pcsc.read_state(fitting[index]) if index < len(fitting) else None
        if state is None or not state.is_there:
            return self._without_reader(None if state is None else state.evidence)
        return self._with_reader(state, boot_ms)

    def _without_service(self, code: int) -> Observation:
        self._misses += 1
        evidence = Evidence(codec=pcsc.CODEC, reply=pcsc.code_evidence(code))
        told = silent(self.bound, self._misses, evidence)
        action = SuggestedAction.CONFIGURATION if pcsc.is_refused(code) else SuggestedAction.RESET
        return replace(told, action=action, media=MediaState.UNKNOWN)

    def _without_reader(self, reply: bytes | None) -> Observation:
        evidence = Evidence(codec=pcsc.CODEC, reply=pcsc.code_evidence(pcsc.NO_READERS) if reply is None else reply)
        gone = unseen(self.bound.slot, self.bound.profile.kind, DeviceState.NO_DEVICE)
        code = link_codes(self.bound.profile.kind).unplugged
        self._watch.see(None, 0)
        return replace(gone, media=MediaState.UNKNOWN, evidence=evidence, conditions=(Condition(code, evidence),))

    def _with_reader(self, state: pcsc.ReaderState, boot_ms: int) -> Observation:
        evidence = Evidence(codec=pcsc.CODEC, reply=state.evidence)
        if state.has_card and state.inserted != self._counted:
            self._counted = state.inserted
            self._mutes.add(state.is_mute)
        media = self._watch.see(state.has_card, boot_ms)
        conditions = []
        stuck = self._watch.is_stuck(boot_ms)
        if stuck:
            conditions.append(Condition(self.bound.code("CARD_STUCK"), evidence))
        if self._mutes.is_high:
            conditions.append(Condition(self.bound.code("READ_FAIL_RATE"), evidence))
        return Observation(
            slot=self.bound.slot,
            device=DeviceState.IN_USE if state.in_use else DeviceState.ONLINE,
            media=media,
            action=SuggestedAction.CLEAR if stuck else SuggestedAction.NONE,
            evidence=evidence,
            conditions=tuple(conditions),
            judged=judged_tails(self.bound, "CARD_STUCK", "READ_FAIL_RATE"),
        )


class PcscReaders:
    """All slots of one PC/SC service."""

    def __init__(self, port: ReaderPort, slots: Sequence[SlotBinding], clock: Clock) -> None:
        self._port = port
        self._clock = clock
        self._slots = [_Slot(bound) for bound in slots]
        self._every_s = min((bound.profile.poll.every_s for bound in slots if bound.profile.poll), default=15.0)
        self._is_there = True

    @property
    def poll_every_s(self) -> float:
        return self._every_s if self._is_there else min(self._every_s, RETRY_S)

    @property
    def poll_budget_s(self) -> float:
        return LOOK_TIMEOUT_S + 1.0

    async def poll(self, now: ClockReading) -> list[Observation]:
        return await self._look(now.boot_ms)

    async def _look(self, boot_ms: int) -> list[Observation]:
        seen = await self._port.look(timeout_s=LOOK_TIMEOUT_S)
        self._is_there = seen.code in (pcsc.SUCCESS, pcsc.NO_READERS)
        return [slot.observe(seen, boot_ms) for slot in self._slots]

    async def listen(self, timeout_s: float) -> list[Observation]:
        """Cards and readers that come and go, as the service tells them."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        if not self._is_there:
            await asyncio.sleep(timeout_s)
            return []
        changed = await self._port.changed(timeout_s=timeout_s)
        if not changed:
            return []
        await asyncio.sleep(max(0.0, CHANGE_GAP_S - (loop.time() - started_s)))
        return await self._look(self._clock.boot_ms())

    async def stop(self) -> None:
        return
