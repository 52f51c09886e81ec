"""Owns what is known of the inventory's slots: an observation becomes a state, faults, counts and readings here, and those become records.

Nothing is captured that did not pass through an Observation, and nothing of a device's bytes is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec

from edge_agent import discovery
from edge_agent.clock import Clock, ClockReading, read
from edge_agent.config import DeviceEntry
from edge_agent.devices.attempts import AttemptBook, Met
from edge_agent.devices.base import Observation, Place, SlotBinding, unseen
from edge_agent.discovery import Binding
from edge_agent.faults import Condition, FaultEngine
from edge_agent.outbox.errors import CaptureRefused, OutboxError
from edge_agent.status import SlotView
from edge_agent.usage import ReadingBook, UnitId, UsageBook
from protocols.canon.words import DeviceState, SuggestedAction
from protocols.contract import records
from protocols.contract.limits import POSITION_EVERY_S
from protocols.contract.messages import OpenFault
from protocols.profile.schema import FAULT_FAMILY, Kind

log = logging.getLogger(__name__)

TICK_GAP_S = 0.02
"""However often something falls due, the fault engine is asked no more than fifty times a second."""
FLUSH_EVERY_S = 30.0
EVENTS_PER_MINUTE = 60
"""Keys and ratings of one slot: no clerk calls faster. More is a stuck or hostile pad and would only fill the spool. As many changes of
its state; what was not told then is told at the next look that has room."""
FAULTS_KEY, USAGE_KEY, ATTEMPTS_KEY = "devices.faults", "devices.usage", "devices.attempts"


class Recorder(Protocol):
    """Takes facts; durable when it returns. Raises CaptureRefused or OutboxFull."""

    def capture(self, body: records.Body, *, urgent: bool = False) -> None: ...


class Store(Protocol):
    """Small values that survive a restart."""

    def get(self, key: str) -> bytes | None: ...
    def put(self, key: str, value: bytes) -> None: ...


@dataclass(slots=True)
class _Gate:
    """Lets through so many events a minute, and a minute's worth at once."""

    tokens: float = EVENTS_PER_MINUTE
    counted_ms: int = 0

    def passes(self, boot_ms: int) -> bool:
        self.tokens = min(EVENTS_PER_MINUTE, self.tokens + (boot_ms - self.counted_ms) * EVENTS_PER_MINUTE / 60_000)
        self.counted_ms = boot_ms
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(frozen=True, slots=True)
class Booking:
    """What was counted for somebody who writes it down: records, and the memory that belongs into the same transaction. `undo`: it was not."""

    bodies: tuple[records.Consumable, ...]
    memory: Mapping[str, bytes]
    undo: Callable[[], None]


@dataclass(slots=True)
class SlotState:
    """What is known of one slot."""

    entry: DeviceEntry
    told: records.Device | None = None
    """As it was last captured."""
    current: records.Device | None = None
    since_ms: int = 0
    gate: _Gate = field(default_factory=_Gate)
    changes: _Gate = field(default_factory=_Gate)
    """Of states, for a device that takes back what it just said, over and over."""
    looked: list[asyncio.Future[None]] = field(default_factory=list)
    """Who waits for the next sound look at the device."""


@dataclass(frozen=True, slots=True)
class SlotReport:
    """One slot for `edge-agent doctor`. `since_ms`: wall time at which the state was first seen as it is, 0 if there is none yet."""

    view: SlotView
    since_ms: int
    faults: tuple[records.Fault, ...]


class SlotBook:
    """What is known of each slot of the inventory, kept over a restart and told as records. Called from one loop."""

    def __init__(
        self,
        *,
        clock: Clock,
        recorder: Recorder,
        store: Store,
        inventory: Sequence[DeviceEntry],
        new_id: Callable[[], bytes],
        rng: random.Random,
        idle: Callable[[], bool],
        on_state: Callable[[records.Device], None],
    ) -> None:
        """`idle`: no citizen is being served. `on_state`: told of each slot's state when it changes."""
        self._clock = clock
        self._recorder = recorder
        self._store = store
        self._rng = rng
        self._idle = idle
        self._on_state = on_state
        self.slots = {entry.slot: SlotState(entry) for entry in inventory}
        self._engine = FaultEngine(new_id=new_id)
        self._unreported: list[records.Fault] = []
        self._usage = UsageBook()
        self._attempts = AttemptBook()
        self._readings = ReadingBook()
        self._tick_due = asyncio.Event()
        self._place_told_ms = clock.boot_ms()
        """The boot clock goes on when the agent starts again, so a restart tells no place too soon either."""
        self._restore()

    async def run(self) -> None:
        """Debouncing, and writing down what changes all the time; until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ticking())
            tasks.create_task(self._flushing())

    def keep(self) -> None:
        """Write down what must survive, at the end."""
        self._keep_usage()
        self._keep_attempts()
        self._keep_faults()

    def configure(self, bound: SlotBinding) -> None:
        """A device of this profile is at the slot now."""
        self._usage.configure(bound.slot, bound.profile)
        self._forget_other_unit(bound)

    async def next_look(self, slot: str) -> None:
        """Until the next sound look at the device."""
        state = self.slots[slot]
        looked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        state.looked.append(looked)
        try:
            await looked
        finally:
            if looked in state.looked:
                state.looked.remove(looked)

    def slot_views(self) -> tuple[SlotView, ...]:
        """The inventory with each slot's last state."""
        return tuple(
            SlotView(
                slot=state.entry.slot,
                family=state.entry.family,
                mandatory=state.entry.mandatory,
                state=state.current,
                lifetime=self._usage.lifetime(state.entry.slot),
                units=self._usage.units(state.entry.slot),
            )
            for state in self.slots.values()
        )

    def status(self) -> tuple[SlotReport, ...]:
        """Every slot: state, since when, open faults."""
        faults = self._engine.open_faults()
        return tuple(
            SlotReport(view, self.slots[view.slot].since_ms, tuple(fault for fault in faults if fault.slot == view.slot))
            for view in self.slot_views()
        )

    def open_faults(self) -> list[records.Fault]:
        return self._engine.open_faults()

    def open_for_birth(self) -> tuple[OpenFault, ...]:
        return self._engine.open_for_birth()

    def observe_terminal(self, conditions: Iterable[Condition], *, judged: frozenset[str]) -> None:
        """Conditions of the terminal itself (network, host, application), from whoever looks at them."""
        self._report(self._engine.observe(None, conditions, read(self._clock), judged=judged))

    def observe_slot(self, slot: str, device: DeviceState, *, action: SuggestedAction = SuggestedAction.NONE) -> None:
        """A slot that has no binding."""
        entry = self.slots[slot].entry
        kind = Kind(entry.family) if entry.family in _KINDS else None
        observation = Observation(slot=slot, device=device, judged=frozenset()) if kind is None else unseen(slot, kind, device)
        self.observe_unbound(replace(observation, action=action))

    def observe(self, binding: Binding, observation: Observation) -> None:
        """One look at a device that is there."""
        bound = next(bound for bound in binding.slots if bound.slot == observation.slot)
        if binding.switched:
            changed = Condition(bound.code("MODE_CHANGED"))
            observation = replace(observation, conditions=(*observation.conditions, changed))
        self._apply_to(observation.slot, observation, binding, bound)

    def _forget_other_unit(self, bound: SlotBinding) -> None:
        """Firmware and module number belong to the unit that was there before, if that was another model."""
        state = self.slots[bound.slot]
        if state.current is not None and state.current.profile not in (None, bound.profile.id):
            state.current = msgspec.structs.replace(state.current, firmware=None, asset=None)

    def note_use(self, slot: str, *, ok: bool, count: int = 1) -> None:
        """The agent itself used a device: a printed slip, a read card."""
        if slot in self.slots:
            self._tell_usage(self._count_use(slot, ok=ok, count=count))

    def note_steps(self, slot: str, steps: Iterable[Met]) -> None:
        """What an application's command met at a reader, by the meaning of the reader's answers alone."""
        if slot in self.slots:
            self._attempts.met(slot, steps, read(self._clock))

    def note_refill(self, slot: str, item: str, amount: int | None = None) -> None:
        """Somebody on site replaced or topped up a consumable."""
        self._tell_usage(self._usage.refilled(slot, item, amount))

    def book_use(self, slot: str, *, ok: bool, count: int = 1) -> Booking:
        """The kiosk application used a device. Its caller makes it durable, together with what it remembers itself."""
        return self._book(lambda: self._count_use(slot, ok=ok, count=count))

    def book_refill(self, slot: str, item: str, amount: int | None = None) -> Booking:
        """As `book_use`; without bodies if the slot has no such consumable."""
        return self._book(lambda: self._usage.refilled(slot, item, amount))

    def close_span(self, from_ms: int, to_ms: int) -> list[records.Body]:
        """Counters and readings of the span that ends, for the summary's writer; the counts are kept first, so they cannot run backwards."""
        bodies: list[records.Body] = []
        counters = self._usage.close_span(from_ms, to_ms)
        if counters is not None:
            self._keep_usage()
            bodies.append(counters)
        bodies += self._readings.close_span(from_ms, to_ms)
        return bodies

    def capture(self, body: records.Body) -> bool:
        """False: there was no room, so the caller may try again."""
        try:
            self._recorder.capture(body)
        except CaptureRefused:
            log.error("a record was refused", extra={"kind": records.KIND_OF[type(body)]})
        except OutboxError:
            return False
        return True

    def put(self, key: str, value: bytes) -> None:
        """Into the agent's memory; a memory that cannot be written is logged, not raised."""
        try:
            self._store.put(key, value)
        except OutboxError:
            log.warning("the agent's memory cannot be written", extra={"key": key})

    async def _ticking(self) -> None:
        """The fault engine's sense of time; also tries again to tell what had no room."""
        self._tell_faults()
        while True:
            due_ms = self._engine.next_due_ms()
            wait_s = None if due_ms is None else max(0.0, (due_ms - self._clock.boot_ms()) / 1000)
            if self._unreported:
                wait_s = min(5.0, wait_s) if wait_s is not None else 5.0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._tick_due.wait()
            self._report(self._engine.tick(read(self._clock)))
            self._tell_faults()
            # Last, because reporting sets it whenever something is due later, and would keep this loop awake until then.
            self._tick_due.clear()
            await asyncio.sleep(TICK_GAP_S)

    async def _flushing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY_S * self._rng.uniform(0.9, 1.1))
            self._keep_usage()
            self._keep_attempts()

    def observe_unbound(self, observation: Observation) -> None:
        """As `observe`, for a slot at whose place nothing is bound."""
        self._apply_to(observation.slot, observation, None, None)

    def _apply_to(self, slot: str, observation: Observation, binding: Binding | None, bound: SlotBinding | None) -> None:
        state, now = self.slots[slot], read(self._clock)
        if bound is not None and binding is not None and not observation.holds_state and not binding.switched:
            self._note_unit(slot, UnitId(profile=bound.profile.id, serial=_serial_of(binding), asset=observation.asset))
        told = self._count(slot, observation, now)
        if not observation.holds_state:
            self._tell_state(state, _device_body(state, observation, binding, bound), now)
        judged = observation.judged
        if judged is not None and bound is not None:
            judged |= {bound.code(tail) for tail in _BY_MONITOR}
        faults = self._engine.observe(
            slot,
            (
                *self._usage.conditions(slot),
                *self._attempts.conditions(slot, _fault_family(state.entry)),
                *observation.conditions,
            ),
            now,
            judged=judged,
            mandatory=state.entry.mandatory,
            profile=state.current.profile if bound is None and state.current else bound.profile.id if bound else None,
        )
        self._report(faults)
        if observation.place is not None and bound is not None:
            self._tell_place(bound, observation.place, now)
        for event in observation.events:
            if state.gate.passes(now.boot_ms):
                self.capture(event)
        self._tell_usage(told)
        if not observation.holds_state:
            while state.looked:
                waiting = state.looked.pop()
                if not waiting.done():
                    waiting.set_result(None)

    def _tell_place(self, bound: SlotBinding, place: Place, now: ClockReading) -> None:
        """At most every five minutes, of a position receiver, and never while somebody is served: where the van stops, not whom it serves."""
        if bound.profile.kind is not Kind.GPS or not self._idle():
            return
        if now.boot_ms - self._place_told_ms < POSITION_EVERY_S * 1000:
            return
        body = records.Position(
            slot=bound.slot, lat_e4=place.lat_e4, lon_e4=place.lon_e4, fix=place.fix, satellites=place.satellites
        )
        if self.capture(body):
            self._place_told_ms = now.boot_ms

    def _note_unit(self, slot: str, unit: UnitId) -> None:
        if self._usage.seen(slot, unit):
            log.info("another unit is at a slot; its counters go on", extra={"slot": slot, "units": self._usage.units(slot)})
            self._keep_usage()

    def _count(self, slot: str, observation: Observation, now: ClockReading) -> list[records.Consumable]:
        told: list[records.Consumable] = []
        if observation.tally is not None:
            told += self._usage.count(slot, ok=observation.tally.ok, failed=observation.tally.failed)
            if observation.tally.unit_total is not None:
                told += self._usage.unit_total(slot, observation.tally.unit_total)
        if observation.toner_percent is not None:
            told += self._usage.toner_left(slot, observation.toner_percent)
        if not observation.holds_state:
            told += self._usage.sensed(slot, observation.paper, observation.toner, now, cards=observation.cards)
        self._readings.add(slot, observation.measured)
        return told

    def _count_use(self, slot: str, *, ok: bool, count: int) -> list[records.Consumable]:
        state = self.slots.get(slot)
        if state is not None and state.entry.family in _ATTEMPTED:
            self._attempts.used(slot, ok=ok, now=read(self._clock))
        return self._usage.count(slot, ok=count if ok else 0, failed=0 if ok else count)

    def _book(self, change: Callable[[], list[records.Consumable]]) -> Booking:
        before = self._usage.export()
        bodies = change()
        return Booking(tuple(bodies), {USAGE_KEY: self._usage.export()}, lambda: self._usage.restore(before))

    def _tell_usage(self, bodies: Sequence[records.Consumable]) -> None:
        """Kept first, told then: what was told is not forgotten by a process that is killed."""
        if bodies:
            self._keep_usage()
            self._capture_all(bodies)

    def _tell_state(self, state: SlotState, body: records.Device, now: ClockReading) -> None:
        """Written when it changed; the bytes behind it belong to the change, not to the state."""
        if state.current is None or _bare(body) != _bare(state.current):
            state.current, state.since_ms = body, now.wall_ms
            self._on_state(body)
        is_news = state.told is None or _bare(body) != _bare(state.told)
        if is_news and state.changes.passes(now.boot_ms) and self.capture(body):
            state.told = body

    def _report(self, changes: Sequence[records.Fault]) -> None:
        """Kept first, told then: after a crash between the two they are told again under the same ids."""
        if changes:
            self._unreported += changes
            self._keep_faults()
            self._tell_faults()
        if self._engine.next_due_ms() is not None:
            self._tick_due.set()

    def _tell_faults(self) -> None:
        told = 0
        for body in self._unreported:
            try:
                self._recorder.capture(body, urgent=True)
            except CaptureRefused:
                log.error("a fault record was refused", extra={"code": body.code})
            except OutboxError:
                break
            told += 1
        if told:
            del self._unreported[:told]
            self._keep_faults()

    def _capture_all(self, bodies: Iterable[records.Body]) -> None:
        for body in bodies:
            self.capture(body)

    def _keep_faults(self) -> None:
        self.put(FAULTS_KEY, self._engine.export(read(self._clock), self._unreported))

    def _keep_attempts(self) -> None:
        if self._attempts.dirty:
            self.put(ATTEMPTS_KEY, self._attempts.export())

    def _keep_usage(self) -> None:
        if self._usage.dirty:
            self.put(USAGE_KEY, self._usage.export())

    def _restore(self) -> None:
        now = read(self._clock)
        for key, take in (
            (FAULTS_KEY, self._take_faults),
            (USAGE_KEY, self._usage.restore),
            (ATTEMPTS_KEY, self._attempts.restore),
        ):
            kept = self._store.get(key)
            if kept is not None:
                try:
                    take(kept)
                except ValueError:
                    log.warning("what was kept cannot be read; it starts anew", extra={"key": key})
        self._unreported += self._engine.retire([None, *self.slots], now)

    def _take_faults(self, kept: bytes) -> None:
        self._unreported += self._engine.restore(kept, read(self._clock))


_KINDS = frozenset(kind.value for kind in Kind)
_ATTEMPTED = frozenset({Kind.ID_READER.value, Kind.CARD_READER.value})
"""Kinds whose uses are visits of people with a card."""
_BY_MONITOR = ("READ_FAIL_RATE", "AUTH_FAIL_RATE", "MODE_CHANGED")
"""Tails that are concluded here, so every observation can take them back."""


def _fault_family(entry: DeviceEntry) -> str:
    return FAULT_FAMILY[Kind(entry.family)] if entry.family in _KINDS else ""


def _device_body(
    state: SlotState, observation: Observation, binding: Binding | None, bound: SlotBinding | None
) -> records.Device:
    """Without a binding, what was last known of the unit still names it."""
    entry, last = state.entry, state.current
    body = records.Device(
        slot=entry.slot,
        family=entry.family,
        device=observation.device,
        paper=observation.paper,
        toner=observation.toner,
        media=observation.media,
        cover=observation.cover,
        action=observation.action,
        owner=entry.ownership,
        port=discovery.port_word(entry.port),
        firmware=observation.firmware or (last.firmware if last else None),
        asset=observation.asset or (last.asset if last else None),
        evidence=observation.evidence,
    )
    if binding is None or bound is None:
        return body if last is None else msgspec.structs.replace(body, **{name: getattr(last, name) for name in _OF_BINDING})
    return msgspec.structs.replace(
        body,
        owner=binding.ownership,
        limited=observation.limited or bound.profile.limited,
        profile=bound.profile.id,
        port=discovery.port_word(binding.sighting.place),
        vid=binding.sighting.vid,
        pid=binding.sighting.pid,
    )


_OF_BINDING = ("owner", "limited", "profile", "port", "vid", "pid")


def _serial_of(binding: Binding) -> str | None:
    """The unit's own serial number; that of a converter between bus and unit is another thing's."""
    alone = len(binding.slots) == 1 and binding.sighting.bus != "serial"
    return (binding.sighting.serial or None) if alone else None


def _bare(body: records.Device) -> records.Device:
    return msgspec.structs.replace(body, evidence=None)
