"""A bus of call pads with their evaluators and window screens: polls each unit, acknowledges what it sends, turns keys into queue events and ratings.

One driver serves all units of a port, which share one framing. Keys are staff's; a digit alone means nothing here and is not kept. A pad repeats a
frame whose echo it did not hear: the repeat is acknowledged again and counted once.

What is wrong with the wiring shows in who answers: nobody and silence, a cut bus; nobody and garbage, swapped wires or another speed; everybody now
and then garbled, a missing termination; one address garbled alone, two units that share it; one unit silent in bursts, its supply.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edge_agent.clock import Clock, ClockReading
from edge_agent.devices.base import RETRY_S, Observation, SlotBinding, Tally, judged_tails, silent
from edge_agent.devices.read_test import READ, by_events, read_test
from edge_agent.devices.window import RateWindow
from edge_agent.faults import Condition
from edge_agent.transports.base import BytePort, PortRefused, PortStalled
from protocols.canon.words import DeviceState, SuggestedAction
from protocols.codecs import callpad
from protocols.contract.records import Evidence, Queue, Rating
from protocols.errors import LineError, ProtocolError
from protocols.profile.options.callpad import CallPadOptions
from protocols.profile.schema import Kind

WRITE_TIMEOUT_S = 0.5
ANSWER_TIMEOUT_S = 0.1
"""50-100 ms per pad is what installers of such buses plan with; an answer has 8 bytes, 9 ms at 9600 baud."""
READ_BYTES = 1024
REPEAT_WITHIN_MS = 700
"""A pad repeats an unacknowledged frame after half a second; nobody presses one key twice that regularly."""
ECHO_WITHIN_MS = 200
"""The same frame sooner than that is neither a repeat nor a second press."""
STUCK_PRESSES = 8
STUCK_WINDOW_MS = 6_000
POLLED_EVERY_S = 0.1
GARBLED_POLLS = 12
"""Unanswered polls in a row, with nothing but garbage between them, that no noise explains: it spoils one frame in three at worst."""
SPELLS = 3
SPELLS_WITHIN_MS = 60_000
LONG_SPELL_MS = 15_000
"""Three short silences within a minute are a supply that breaks down; a long one is a unit that is gone."""
ECHO_TEST = b"\x55\x55\x55\x55"
"""No frame begins with it, so no unit obeys or answers it: what comes back is the adapter hearing itself."""
ECHO_TEST_S = 0.05
RETRY_MS = RETRY_S * 1000 / 2
"""A single lost answer is no silence."""
ECHO_TEST_EVERY_MS = 60_000
ECHO_MISSES = 3
"""Noise may spoil an echo now and then; three in a row it does not."""


@dataclass(slots=True)
class _Pad:
    bound: SlotBinding
    address: int
    sequence: callpad.KeySequence = field(default_factory=callpad.KeySequence)
    misses: int = 0
    answered: bool = False
    spoiled: bool = False
    lost: RateWindow = field(default_factory=lambda: RateWindow(size=10, least=4, high=0.4))
    """Polls that were answered by nothing but spoiled bytes."""
    errors: RateWindow = field(default_factory=lambda: RateWindow(least=4, high=0.2))
    """Polls that brought spoiled bytes, answered or not."""
    last_raw: bytes = field(default=b"", repr=False)
    last_raw_ms: int = 0
    same_key_ms: deque[int] = field(default_factory=lambda: deque(maxlen=STUCK_PRESSES))
    stuck: bool = False
    spells_ms: deque[int] = field(default_factory=lambda: deque(maxlen=SPELLS))
    """Ends of its last silences."""
    silent_since_ms: int | None = None

    @property
    def has_keys(self) -> bool:
        return self.bound.profile.kind is not Kind.WINDOW_SCREEN

    def bursts(self, now_ms: int) -> bool:
        """Answers, then silence, again and again."""
        return len(self.spells_ms) == SPELLS and now_ms - self.spells_ms[0] <= SPELLS_WITHIN_MS


class CallPadBus:
    """All pads behind one port; the bindings share one profile's framing."""

    def __init__(self, port: BytePort, pads: Sequence[SlotBinding], clock: Clock) -> None:
        profile = pads[0].profile
        self._port = port
        self._clock = clock
        self._options = profile.callpad or CallPadOptions()
        self._rules = self._options.rules()
        if any(replace(rules, **_NOT_FRAMING) != replace(self._rules, **_NOT_FRAMING) for rules in _rules_of(pads)):
            raise PortRefused("the units of one bus have profiles with different framings")
        self._declared_echo = profile.transport.serial is not None and profile.transport.serial.local_echo
        self._hears_itself = self._declared_echo
        self._echo_tested_ms: int | None = None
        self._echo_misses = 0
        self._garbled_polls = 0
        self._reader = callpad.CallPadReader(self._rules)
        self._pads = {pad.address: pad for pad in _addressed(pads, self._options.addresses)}
        self._every_s = profile.poll.every_s if profile.poll else 5.0
        self._found: list[Observation] = []
        self._turn = 0

    @property
    def poll_every_s(self) -> float:
        return min(self._every_s, 1.0) if any(pad.misses for pad in self._pads.values()) else self._every_s

    @property
    def poll_budget_s(self) -> float:
        return 2 * (len(self._pads) * (2 * ANSWER_TIMEOUT_S + WRITE_TIMEOUT_S) + WRITE_TIMEOUT_S + ECHO_TEST_S) + 1.0

    async def poll(self, now: ClockReading) -> list[Observation]:
        await self._test_echo(now.boot_ms)
        for pad in self._pads.values():
            await self._ask(pad)
        if self._undeclared_echo and not any(pad.answered for pad in self._pads.values()):
            # Perhaps somebody put another adapter in, and what is taken for its echo is what the pads say.
            self._echo_tested_ms, self._echo_misses = None, ECHO_MISSES
            await self._test_echo(now.boot_ms)
            for pad in self._pads.values() if not self._hears_itself else ():
                await self._ask(pad)
        observations = self._take_found()
        dead_bus = not any(pad.answered or pad.spoiled for pad in self._pads.values())
        if any(pad.answered for pad in self._pads.values()) or dead_bus:
            self._garbled_polls = 0
        else:
            self._garbled_polls += len(self._pads)
        for pad in self._pads.values():
            self._note_silence(pad, dead_bus=dead_bus, now_ms=now.boot_ms)
        for index, pad in enumerate(self._pads.values()):
            observations.append(self._judge(pad, dead_bus=dead_bus, first=index == 0))
        return observations

    async def listen(self, timeout_s: float) -> list[Observation]:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while (left_s := deadline_s - loop.time()) > 0:
            if self._options.polled:
                await asyncio.sleep(min(left_s, POLLED_EVERY_S))
                await self._ask(self._next_pad())
            else:
                await self._receive(left_s)
            if self._found:
                return self._take_found()
        return []

    def tests_of(self, slot: str) -> frozenset[str]:
        return READ if any(pad.bound.slot == slot and pad.has_keys for pad in self._pads.values()) else frozenset()

    async def test_unit(self, slot: str, test: str) -> bool:
        """True when a key of this pad was pressed, or a level: it calls nobody and counts for nobody. What others press meanwhile does."""
        of_others: list[Observation] = []

        def verdict(seen: Sequence[Observation]) -> bool | None:
            of_others.extend(one for one in seen if one.slot != slot)
            return by_events([one for one in seen if one.slot == slot])

        try:
            return await read_test(self.listen, verdict)
        finally:
            self._found = of_others + self._found

    async def stop(self) -> None:
        return

    def _next_pad(self) -> _Pad:
        pads = list(self._pads.values())
        self._turn = (self._turn + 1) % len(pads)
        return pads[self._turn]

    async def _ask(self, pad: _Pad) -> None:
        """Poll one pad and note whether it answered, or whether something spoiled came instead."""
        pad.answered = pad.spoiled = False
        try:
            await self._send(callpad.encode_poll(pad.address, self._rules))
            loop = asyncio.get_running_loop()
            deadline_s = loop.time() + ANSWER_TIMEOUT_S
            while not pad.answered and (left_s := deadline_s - loop.time()) > 0:
                noise_before = self._reader.noise_bytes
                await self._receive(left_s, asked=pad)
                pad.spoiled = pad.spoiled or self._reader.noise_bytes > noise_before
        except PortStalled:
            pass  # the same as no answer
        pad.lost.add(pad.spoiled and not pad.answered)
        pad.errors.add(pad.spoiled)
        pad.misses = 0 if pad.answered else pad.misses + 1

    async def _test_echo(self, now_ms: int) -> None:
        """Find out whether the adapter hears itself, which a poll cannot tell: an idle unit answers with the very frame that was sent."""
        if self._declared_echo or (self._echo_tested_ms is not None and now_ms - self._echo_tested_ms < ECHO_TEST_EVERY_MS):
            return
        self._echo_tested_ms = now_ms
        try:
            await self._port.write(ECHO_TEST, timeout_s=WRITE_TIMEOUT_S)
        except PortStalled:
            return
        loop = asyncio.get_running_loop()
        deadline_s, heard = loop.time() + ECHO_TEST_S, b""
        while ECHO_TEST not in heard and len(heard) < READ_BYTES and (left_s := deadline_s - loop.time()) > 0:
            heard += await self._port.read(max_bytes=READ_BYTES, timeout_s=left_s)
        self._echo_misses = 0 if ECHO_TEST in heard else self._echo_misses + 1
        self._hears_itself = ECHO_TEST in heard or (self._hears_itself and self._echo_misses < ECHO_MISSES)
        self._reader.feed(heard.replace(ECHO_TEST, b""))

    def _note_silence(self, pad: _Pad, *, dead_bus: bool, now_ms: int) -> None:
        """Silences of one unit among others that answer. One that goes on for long is no burst."""
        if dead_bus or pad.spoiled:
            pad.silent_since_ms = None
        elif not pad.answered:
            pad.silent_since_ms = now_ms if pad.silent_since_ms is None else pad.silent_since_ms
        elif pad.silent_since_ms is not None:
            if RETRY_MS < now_ms - pad.silent_since_ms < LONG_SPELL_MS:
                pad.spells_ms.append(now_ms)
            pad.silent_since_ms = None

    async def _send(self, frame: bytes) -> None:
        if self._hears_itself:
            self._reader.expect_echo(frame)
        await self._port.write(frame, timeout_s=WRITE_TIMEOUT_S)

    async def _receive(self, timeout_s: float, *, asked: _Pad | None = None) -> None:
        self._reader.feed(await self._port.read(max_bytes=READ_BYTES, timeout_s=timeout_s))
        while True:
            try:
                frame = self._reader.next_event()
            except LineError:
                if asked is not None:
                    asked.spoiled = True
                continue
            except ProtocolError:
                continue
            if frame is None:
                return
            await self._handle(frame)

    async def _handle(self, frame: callpad.PadFrame) -> None:
        pad = self._pads.get(frame.address)
        if pad is None:
            return  # not of this terminal's inventory
        pad.answered = True
        if not frame.data:
            return  # the echo of our poll
        now_ms = self._clock.boot_ms()
        if frame.raw == pad.last_raw and now_ms - pad.last_raw_ms < ECHO_WITHIN_MS and not self._options.polled:
            return  # our own acknowledgement, echoed: to answer it would go on for ever
        if self._options.echo_ack and not self._options.polled:
            await self._send(frame.raw)
        repeated = frame.raw == pad.last_raw and now_ms - pad.last_raw_ms < REPEAT_WITHIN_MS and not self._options.polled
        same_key = frame.raw == pad.last_raw
        pad.last_raw, pad.last_raw_ms = frame.raw, now_ms
        if not pad.has_keys:
            return
        self._watch_stuck(pad, same_key, now_ms)
        if repeated or pad.stuck:
            return
        event = self._event_of(pad, frame, now_ms)
        if event is not None:
            self._found.append(self._told(pad, event))

    def _watch_stuck(self, pad: _Pad, same_key: bool, now_ms: int) -> None:
        if not same_key:
            pad.same_key_ms.clear()
            pad.stuck = False
        pad.same_key_ms.append(now_ms)
        full = len(pad.same_key_ms) == STUCK_PRESSES
        if not pad.stuck and full and now_ms - pad.same_key_ms[0] <= STUCK_WINDOW_MS:
            pad.stuck = True
            self._found.append(self._state(pad, ()))

    def _event_of(self, pad: _Pad, frame: callpad.PadFrame, now_ms: int) -> Queue | Rating | None:
        level = callpad.rating_of(frame, self._rules)
        if level is not None:
            return Rating(level=level, slot=pad.bound.slot)
        key = callpad.key_of(frame, self._rules)
        action = None if key is None else pad.sequence.press(key, now_ms / 1000)
        return None if action is None else Queue(slot=pad.bound.slot, action=action.value)

    def _told(self, pad: _Pad, event: Queue | Rating) -> Observation:
        return replace(self._state(pad, ()), events=(event,), tally=Tally(ok=1), holds_state=True)

    def _judge(self, pad: _Pad, *, dead_bus: bool, first: bool) -> Observation:
        if pad.stuck and self._clock.boot_ms() - pad.last_raw_ms > STUCK_WINDOW_MS:
            pad.stuck = False
            pad.same_key_ms.clear()
        if not pad.answered:
            return self._unanswered(pad, dead_bus=dead_bus, first=first)
        tails = ["TIMEOUT_RATE"] if pad.bursts(self._clock.boot_ms()) else []
        if first:
            tails += [*self._noise, *(["BUS_ECHO"] if self._undeclared_echo else [])]
        return self._state(pad, tails)

    @property
    def _undeclared_echo(self) -> bool:
        return self._hears_itself and not self._declared_echo

    @property
    def _noise(self) -> list[str]:
        """The wiring's fault, one for the bus: it stands at the first unit, whether that one answers or not."""
        return ["BUS_CRC"] if self._bus_is_noisy else []

    @property
    def _bus_is_noisy(self) -> bool:
        """Spoiled bytes from more than one address are the wiring's; from one address they are two pads that share it."""
        return sum(pad.errors.is_high for pad in self._pads.values()) >= min(2, len(self._pads))

    def _unanswered(self, pad: _Pad, *, dead_bus: bool, first: bool) -> Observation:
        query = callpad.encode_poll(pad.address, self._rules)
        observation = silent(pad.bound, pad.misses, Evidence(codec=callpad.CODEC, query=query))
        needed = observation.conditions[0].count
        tails = self._noise if first else []
        judged = {"BUS_DOWN", "BUS_GARBLED", "ADDRESS_CONFLICT", "BUS_CRC"}
        if dead_bus and len(self._pads) > 1:
            # One fault for the bus instead of one for each pad; it stands at the first. Whether a pad lives cannot be told.
            tails, judged = (["BUS_DOWN"] if first else []), {"BUS_DOWN", "BUS_GARBLED"}
        elif self._garbled_polls:
            # Nobody answers and garbage comes: what it is gets clear when it stays so.
            tails = ["BUS_GARBLED"] if first and self._garbled_polls >= GARBLED_POLLS else []
            judged = {"BUS_DOWN", *tails}
        elif not pad.spoiled and pad.bursts(self._clock.boot_ms()) and pad.misses * self.poll_every_s < LONG_SPELL_MS / 1000:
            tails = ["TIMEOUT_RATE", *tails]
        elif not pad.spoiled:
            noise = (Condition(pad.bound.code(tail), observation.evidence) for tail in tails)
            return replace(observation, conditions=(*observation.conditions, *noise), judged=judged_tails(pad.bound, *judged))
        elif pad.lost.is_high and not self._bus_is_noisy:
            alone = all(other.errors.is_clean for other in self._pads.values() if other is not pad)
            tails = ["ADDRESS_CONFLICT"] if alone else []
        return replace(
            observation,
            conditions=tuple(
                Condition(
                    pad.bound.code(tail), observation.evidence, count=needed if tail in ("BUS_DOWN", "BUS_GARBLED") else None
                )
                for tail in tails
            ),
            judged=frozenset(pad.bound.code(tail) for tail in (*judged, *tails)),
        )

    def _state(self, pad: _Pad, tails: Sequence[str]) -> Observation:
        query = callpad.encode_poll(pad.address, self._rules)
        evidence = Evidence(codec=callpad.CODEC, query=query, reply=query)
        stuck = ["STUCK_KEY"] if pad.stuck else []
        return Observation(
            slot=pad.bound.slot,
            device=DeviceState.HARDWARE_ERROR if pad.stuck else DeviceState.ONLINE,
            action=SuggestedAction.CLEAR if pad.stuck else SuggestedAction.NONE,
            evidence=evidence,
            conditions=tuple(Condition(pad.bound.code(tail), evidence) for tail in [*stuck, *tails]),
            judged=judged_tails(
                pad.bound, "BUS_DOWN", "BUS_CRC", "BUS_GARBLED", "BUS_ECHO", "ADDRESS_CONFLICT", "TIMEOUT_RATE", "STUCK_KEY"
            ),
        )

    def _take_found(self) -> list[Observation]:
        found, self._found = self._found, []
        return found


_NOT_FRAMING: Mapping[str, Any] = {
    "poll_function": 0, "key_function": 0, "display_function": 0, "rating_function": 0, "keys": {}, "ratings": {},
}  # fmt: skip
"""What units of one bus may differ in."""


def _rules_of(pads: Sequence[SlotBinding]) -> Iterator[callpad.FrameRules]:
    return ((pad.profile.callpad or CallPadOptions()).rules() for pad in pads)


def _addressed(pads: Sequence[SlotBinding], defaults: Sequence[int]) -> list[_Pad]:
    """Each pad with its address of the inventory, else the profile's in order. An evaluator-only slot is a pad like any other."""
    free = [address for address in defaults if address not in {pad.address for pad in pads}]
    found = []
    for pad in pads:
        address = pad.address if pad.address is not None else (free.pop(0) if free else None)
        if address is not None:
            found.append(_Pad(pad, address))
    return found
