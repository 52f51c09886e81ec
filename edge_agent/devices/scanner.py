"""Code scanners, in keyboard mode and in serial mode: that they read and that they live, never what they read.

Lengths and terminators come from the codecs; the characters are gone before they get here. There is no way to start a scan.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable

from edge_agent.clock import Clock, ClockReading
from edge_agent.devices.base import Observation, SlotBinding, Tally, judged_tails, poll_interval_s, silent, version_of
from edge_agent.devices.read_test import READ, by_tally, read_test
from edge_agent.devices.window import RateWindow
from edge_agent.faults import Condition
from edge_agent.transports.base import BytePort, KeyPort, PortStalled
from protocols.canon.words import DeviceState, SuggestedAction
from protocols.codecs import scanner
from protocols.codecs.keys import KeyMonitor, StuckKey
from protocols.contract.records import Evidence
from protocols.errors import ProtocolError
from protocols.profile.options.scanner import ScannerOptions

WRITE_TIMEOUT_S = 1.0
ANSWER_TIMEOUT_S = 1.0
READ_BYTES = 4096
STUCK_SCANS = 12
STUCK_WINDOW_S = 6.0
"""Twelve reads in six seconds, again and again, is no person: a stuck trigger reads every 0.3-0.5 s."""
APART_S = 1.0
"""Two codes that a person holds in front of the scanner come at least so far apart."""
FORGET_S = 300.0
"""Noise that has not come back for so long says nothing about the cable now."""
PRESENCE_EVERY_S = 30.0
_NEVER = 1e9


class ScanWatch:
    """Pure: from finished scans to counts and conditions."""

    def __init__(self, bound: SlotBinding, terminators: frozenset[str]) -> None:
        self._bound = bound
        self._terminators = terminators
        self._times_s: deque[float] = deque(maxlen=STUCK_SCANS)
        self._stuck = False
        self._stuck_key = False
        self._no_suffix = False
        self._unreadable = RateWindow(size=10, least=3, high=0.3)
        self._unreadable_s = 0.0

    def scanned(self, scans: list[scanner.Scan], now_s: float) -> Observation | None:
        """What these scans say; None for none."""
        if not scans:
            return None
        alone = not self._times_s or now_s - self._times_s[-1] >= APART_S
        self._times_s.extend([now_s] * len(scans))
        self._stuck = len(self._times_s) == STUCK_SCANS and now_s - self._times_s[0] <= STUCK_WINDOW_S
        for scan in scans:
            self._unreadable.add(not scan.readable)
            self._unreadable_s = self._unreadable_s if scan.readable else now_s
        lost = [scan for scan in scans if scan.terminator.value not in self._terminators]
        conditions = self._lasting()
        if lost and alone and not self._stuck and all(scan.readable for scan in lost):
            conditions += (Condition(self._bound.code("NO_SUFFIX")),)
        # Reads in quick succession, as of a stuck trigger, do not tell whether the suffix is right.
        tells_suffix = (alone or not lost) and not self._stuck
        if tells_suffix or self._stuck:
            self._no_suffix = bool(lost) and not self._stuck
        return Observation(
            slot=self._bound.slot,
            device=DeviceState.ONLINE,
            action=self._action(),
            conditions=conditions,
            judged=judged_tails(self._bound, "STUCK", "LINK_NOISE", *(("NO_SUFFIX",) if tells_suffix else ())),
            tally=None if self._stuck else Tally(ok=len(scans) - len(lost), failed=len(lost)),
            # Noise alone does not tell that the scanner lives.
            holds_state=not any(scan.readable for scan in scans),
        )

    def calm(
        self, now_s: float, *, stuck_key: bool, evidence: Evidence | None = None, firmware: str | None = None
    ) -> Observation:
        """The scanner is there; whether its trigger is still stuck is a matter of time."""
        if self._times_s and now_s - self._times_s[-1] > STUCK_WINDOW_S:
            self._stuck = False
        if now_s - self._unreadable_s > FORGET_S:
            self._unreadable.forget()
        self._stuck_key = stuck_key
        return Observation(
            slot=self._bound.slot,
            device=DeviceState.ONLINE,
            action=self._action(),
            evidence=evidence,
            conditions=self._lasting(),
            judged=judged_tails(self._bound, "STUCK", "LINK_NOISE"),
            firmware=firmware,
        )

    def _action(self) -> SuggestedAction:
        """Advice that holds until the next code says otherwise: polls between two codes do not take it back."""
        if self._stuck or self._stuck_key:
            return SuggestedAction.CLEAR
        return SuggestedAction.CONFIGURATION if self._no_suffix else SuggestedAction.NONE

    def _lasting(self) -> tuple[Condition, ...]:
        """What stays true between two codes."""
        stuck = (Condition(self._bound.code("STUCK")),) if self._stuck or self._stuck_key else ()
        return (*stuck, *((Condition(self._bound.code("LINK_NOISE")),) if self._unreadable.is_high else ()))


class KeyboardScanner:
    """A scanner that is a keyboard to the kernel. Health is presence, endings of bursts, and keys that stay down."""

    def __init__(self, port: KeyPort, bound: SlotBinding, clock: Clock) -> None:
        self._port = port
        self._clock = clock
        self._bursts = scanner.BurstCounter()
        # Bursts of hundreds of keys per second are normal here: only held keys count.
        self._held = KeyMonitor(storm_per_s=_NEVER)
        self._stuck = False
        options = bound.profile.scanner or ScannerOptions()
        self._watch = ScanWatch(bound, frozenset(options.terminators))

    @property
    def poll_every_s(self) -> float:
        return PRESENCE_EVERY_S

    @property
    def poll_budget_s(self) -> float:
        return 5.0

    async def poll(self, now: ClockReading) -> list[Observation]:
        pressed = await self._port.pressed_keys()
        self._held.resync(pressed, now.boot_ms / 1000)
        self._stuck = self._stuck and bool(pressed)
        return [self._watch.calm(now.boot_ms / 1000, stuck_key=self._stuck)]

    async def listen(self, timeout_s: float) -> list[Observation]:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        wait_s = timeout_s
        while wait_s > 0:
            events = await self._port.read_events(timeout_s=wait_s)
            now_s = self._clock.boot_ms() / 1000
            if any(isinstance(finding, StuckKey) for finding in self._held.feed(events, now_s)):
                self._stuck = True
                return [self._watch.calm(now_s, stuck_key=True)]
            found = self._watch.scanned(self._bursts.feed(events, now_s), now_s)
            if found is not None:
                return [found]
            left_s = deadline_s - loop.time()
            # After keys, look again soon: a burst without a terminator ends by silence.
            wait_s = min(left_s, scanner.FLUSH_AFTER_S) if events else left_s
        return []

    @property
    def tests(self) -> frozenset[str]:
        return READ

    async def test(self, test: str) -> bool:
        """True when a code was read, with its end."""
        return await read_test(self.listen, by_tally)

    async def stop(self) -> None:
        return


class SerialScanner:
    """A scanner on a serial line or CDC. A unit with a command set is asked who it is; one without is only listened to."""

    def __init__(self, port: BytePort, bound: SlotBinding, clock: Clock) -> None:
        self._port = port
        self._bound = bound
        self._clock = clock
        self._reader = scanner.ScannerReader()
        self._options = bound.profile.scanner or ScannerOptions()
        self._watch = ScanWatch(bound, frozenset(self._options.terminators))
        self._misses = 0
        self._firmware: str | None = None
        self._scans: list[scanner.Scan] = []

    @property
    def poll_every_s(self) -> float:
        return poll_interval_s(self._bound, PRESENCE_EVERY_S, soon=bool(self._misses))

    @property
    def poll_budget_s(self) -> float:
        return WRITE_TIMEOUT_S + 2 * ANSWER_TIMEOUT_S + 1.0

    async def poll(self, now: ClockReading) -> list[Observation]:
        now_s = now.boot_ms / 1000
        if self._options.dialect == "none":
            return [self._watch.calm(now_s, stuck_key=False)]
        query = _QUESTIONS[self._options.dialect]
        answer = await self._ask(query)
        counted = self._counted()
        if answer is None:
            if any(not one.holds_state for one in counted):
                return counted  # busy reading is alive
            self._misses += 1
            return [*counted, silent(self._bound, self._misses, Evidence(codec=scanner.CODEC, query=query))]
        self._misses = 0
        if isinstance(answer, scanner.UnifiedAnswer) and self._firmware is None:
            self._firmware = _firmware_in(answer.value, self._bound.profile.firmware.version_format)
        evidence = Evidence(codec=scanner.CODEC, query=query, reply=answer.reply, masked=answer.masked)
        return [*counted, self._watch.calm(now_s, stuck_key=False, evidence=evidence, firmware=self._firmware)]

    async def listen(self, timeout_s: float) -> list[Observation]:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        wait_s = timeout_s
        while wait_s > 0:
            data = await self._receive(wait_s)
            self._take(lambda _: False)
            if not data and self._reader.pending_bytes and (scan := self._reader.flush()) is not None:
                self._scans.append(scan)
            if counted := self._counted():
                return counted
            left_s = deadline_s - loop.time()
            wait_s = min(left_s, scanner.FLUSH_AFTER_S) if self._reader.pending_bytes else left_s
        return []

    @property
    def tests(self) -> frozenset[str]:
        return READ

    async def test(self, test: str) -> bool:
        """True when a code was read, with its end."""
        return await read_test(self.listen, by_tally)

    async def stop(self) -> None:
        return

    async def _ask(self, query: bytes) -> scanner.UnifiedAnswer | scanner.ZoneAnswer | None:
        found: list[scanner.UnifiedAnswer | scanner.ZoneAnswer] = []

        def keep(event: scanner.ScannerEvent) -> bool:
            if isinstance(event, scanner.Scan):
                return False
            found.append(event)
            return True

        if (scan := self._reader.flush()) is not None:
            self._scans.append(scan)
        self._reader.expect(query)
        try:
            await self._port.write(query, timeout_s=WRITE_TIMEOUT_S)
        except PortStalled:
            return None
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + ANSWER_TIMEOUT_S
        while not found and (left_s := deadline_s - loop.time()) > 0:
            await self._receive(left_s)
            self._take(keep)
        # Bytes in front of an answer, without an end of their own, are line noise rather than a code.
        self._scans = [scan for scan in self._scans if scan.terminator is not scanner.Terminator.SILENCE]
        return found[0] if found else None

    async def _receive(self, timeout_s: float) -> bytes:
        data = await self._port.read(max_bytes=READ_BYTES, timeout_s=timeout_s)
        self._reader.feed(data)
        return data

    def _take(self, keep: Callable[[scanner.ScannerEvent], bool]) -> None:
        """All complete events: scans are counted, answers go to `keep`. An overlong stream counts as a scan that never ended."""
        while True:
            try:
                event = self._reader.next_event()
            except ProtocolError:
                self._scans.append(scanner.Scan(0, scanner.Terminator.SILENCE, readable=False))
                continue
            if event is None:
                return
            if isinstance(event, scanner.Scan):
                self._scans.append(event)
            else:
                keep(event)

    def _counted(self) -> list[Observation]:
        scans, self._scans = self._scans, []
        found = self._watch.scanned(scans, self._clock.boot_ms() / 1000)
        return [found] if found else []


_QUESTIONS = {
    "unified": scanner.encode_query(),
    "zone": scanner.encode_zone_read(0),
    "honeywell": scanner.encode_honeywell_query(),
}


def _firmware_in(value: str, form: str) -> str | None:
    """The version behind the word Firmware, as system information answers name it; the first dotted number where there is no such word."""
    named = re.search(r"(?:[Ff]irmware|[Ss]oftware Revision)[^:;=]*[:;=]\s*(?:\$ProjectRevision: )?(\S{1,32})", value)
    if named:
        return version_of(named.group(1), form)
    dotted = re.search(r"[0-9]+(\.[0-9A-Za-z]+)+", value)
    return version_of(dotted.group(), form) if dotted else None
