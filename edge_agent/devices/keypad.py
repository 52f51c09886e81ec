"""Keypads, evaluators and buttons that are keyboards to the kernel: keys that stick or storm, and what named keys mean.

A citizen's keypad names no key, so nothing of what is typed can be told apart here. An evaluator's keys are named by its profile, with their level;
a help or emergency button's named keys raise their fault. An emergency button that latches stays down: that is no stuck key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from edge_agent.clock import Clock, ClockReading
from edge_agent.devices.base import Observation, SlotBinding, Tally, judged_tails
from edge_agent.devices.read_test import READ, read_test
from edge_agent.faults import Condition
from edge_agent.transports.base import KeyPort
from protocols.canon.words import DeviceState, SuggestedAction
from protocols.codecs.keys import (
    KeyFreed,
    KeyHealth,
    KeyMonitor,
    Press,
    RepeatStorm,
    ResyncNeeded,
    StormOver,
    StuckKey,
)
from protocols.contract.records import Rating
from protocols.profile.options.keys import KeysOptions
from protocols.profile.schema import Kind

_ALARMS = {Kind.EMERGENCY_BUTTON: "EMERGENCY", Kind.HELP_BUTTON: "HELP"}
AFTER_TEST_MS = 10_000
"""Who tried a button has let go of it by then; one that still is down calls."""
PRESENCE_EVERY_S = 30.0
WATCHING_EVERY_S = 1.0
"""While a key is down its time must be looked at."""


class Keypad:
    """One input device."""

    def __init__(self, port: KeyPort, bound: SlotBinding, clock: Clock) -> None:
        options = bound.profile.keys or KeysOptions()
        self._port = port
        self._bound = bound
        self._clock = clock
        self._ratings = options.ratings()
        self._keys = KeyMonitor(options.names(), stuck_after_s=options.stuck_after_s)
        self._stuck = False
        self._storming = False
        self._keys_down = False
        self._called = False
        """A button was pressed since the last observation."""
        self._alarm = _ALARMS.get(bound.profile.kind)
        self._alarm_codes = frozenset(options.names())
        self._held = False
        self._tried_ms = -AFTER_TEST_MS

    @property
    def poll_every_s(self) -> float:
        return WATCHING_EVERY_S if self._keys_down or self._storming else PRESENCE_EVERY_S

    @property
    def poll_budget_s(self) -> float:
        return 5.0

    async def poll(self, now: ClockReading) -> list[Observation]:
        pressed = await self._port.pressed_keys()
        self._keys_down, self._held = bool(pressed), bool(pressed & self._alarm_codes)
        return [self._observation(self._keys.resync(pressed, now.boot_ms / 1000))]

    async def listen(self, timeout_s: float) -> list[Observation]:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while (left_s := deadline_s - loop.time()) > 0:
            events = await self._port.read_events(timeout_s=left_s)
            if not events:
                return []
            now_s = self._clock.boot_ms() / 1000
            findings = self._keys.feed(events, now_s)
            if any(isinstance(finding, ResyncNeeded) for finding in findings):
                findings += self._keys.resync(await self._port.pressed_keys(), now_s)
            pressed = await self._port.pressed_keys()
            was_down, self._keys_down = self._keys_down, bool(pressed)
            was_held, self._held = self._held, bool(pressed & self._alarm_codes)
            if self._alarm and was_held != self._held:
                return [self._observation(findings)]
            if findings:
                return [self._observation(findings)]
            if self._keys_down and not was_down:
                return []  # the monitor comes back sooner now
        return []

    @property
    def tests(self) -> frozenset[str]:
        return READ

    async def test(self, test: str) -> bool:
        """True when a key was pressed; which one is nobody's business."""
        before = self._keys.press_count
        try:
            return await read_test(self.listen, lambda _: True if self._keys.press_count > before else None)
        finally:
            self._tried_ms = self._clock.boot_ms()

    async def stop(self) -> None:
        return

    def _observation(self, findings: Sequence[KeyHealth]) -> Observation:
        ratings = []
        for finding in findings:
            if isinstance(finding, StuckKey):
                self._stuck = True
            elif isinstance(finding, KeyFreed):
                self._stuck = False
            elif isinstance(finding, RepeatStorm):
                self._storming = True
            elif isinstance(finding, StormOver):
                self._storming = False
            elif isinstance(finding, Press) and finding.name in self._ratings and not (self._stuck or self._storming):
                ratings.append(Rating(level=self._ratings[finding.name], slot=self._bound.slot))
            elif isinstance(finding, Press):
                self._called = self._alarm is not None
        latched = self._alarm == "EMERGENCY" and self._held
        tails = (["STUCK_KEY"] if self._stuck and not latched else []) + (["REPEAT_STORM"] if self._storming else [])
        broken = bool(tails)
        if self._alarm is not None:
            tails = ["STUCK_KEY"] if broken else []  # a button has one way to be broken
            calls = self._called or (self._held and not broken)
            being_tried = self._clock.boot_ms() - self._tried_ms < AFTER_TEST_MS
            tails += [self._alarm] if calls and not being_tried else []
            self._called = False
        return Observation(
            slot=self._bound.slot,
            device=DeviceState.HARDWARE_ERROR if broken else DeviceState.ONLINE,
            action=SuggestedAction.CLEAR if broken else SuggestedAction.NONE,
            conditions=tuple(Condition(self._bound.code(tail)) for tail in tails),
            judged=judged_tails(self._bound, "STUCK_KEY", "REPEAT_STORM", "EMERGENCY", "HELP"),
            tally=Tally(ok=len(ratings)) if ratings else None,
            events=tuple(ratings),
        )
