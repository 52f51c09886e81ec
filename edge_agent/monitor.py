"""Runs the drivers: one task for each bound port, started and stopped as devices come and go, each kept from harming the others.

What drivers observe becomes records here: a state when it changed, faults through the engine, keys, ratings and levels at once. Nothing is
captured that did not pass through an Observation, and nothing of a device's bytes is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import traceback
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from edge_agent import discovery
from edge_agent.clock import Clock, ClockReading, read
from edge_agent.config import DeviceEntry
from edge_agent.devices import plugs, presence
from edge_agent.devices.attempts import AttemptBook, Met
from edge_agent.devices.base import (
    Driver,
    Observation,
    Place,
    Scheduled,
    SlotBinding,
    Testable,
    TestableUnits,
    link_codes,
    unseen,
)
from edge_agent.devices.factory import make_driver
from edge_agent.devices.guard import guarded
from edge_agent.devices.plugs import PlugWatch
from edge_agent.discovery import Binding, Plan
from edge_agent.faults import Condition, FaultEngine
from edge_agent.outbox.errors import CaptureRefused, OutboxError
from edge_agent.status import SlotView
from edge_agent.transports.base import (
    Discoverer,
    Port,
    PortBusy,
    PortError,
    PortGone,
    PortOpener,
    PortRefused,
    PortStalled,
    Sighting,
)
from edge_agent.usage import ReadingBook, UnitId, UsageBook
from protocols.canon.faults import FAULTS
from protocols.canon.words import DeviceState, Ownership, SuggestedAction
from protocols.contract import records
from protocols.contract.limits import POSITION_EVERY_S
from protocols.contract.messages import OpenFault
from protocols.profile.schema import FAULT_FAMILY, Family, Kind, Profile

log = logging.getLogger(__name__)

START_SPREAD_S = 0.3
"""Devices of one terminal, and terminals of one process, do not all ask at the same moment."""
JITTER = 0.1
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
BUSY_BACKOFF_S = (2.0, 5.0, 15.0, 30.0)
CRASH_BACKOFF_S = (5.0, 30.0, 120.0, 300.0)
OPEN_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 8.0
POLL_SLACK_S = 5.0
LISTEN_SLACK_S = 10.0
LISTEN_GAP_S = 0.02
"""A device that always has something to say is heard fifty times a second, not more."""
ABSENT_LOOKS = 3
ABSENT_EVERY_S = 2.0
"""An empty place is looked at as often as silence needs to become a fault, in the time a re-enumeration takes."""
LOOK_AGAIN_S = 60.0
"""Sightings are read again at least so often, should a hot-plug event be lost."""
CHANGE_GAP_S = 0.05
"""However often hot-plug events come, the plan is made no more than twenty times a second."""
LEASE_CHECK_S = 2.0
TEST_WITHIN_S = 120.0
"""A test that an order asks for: twice the longest time between two looks at a device that is there."""
JOB_SLACK_S = 5.0
"""Beyond what a job may take; then it is ended from outside."""
JOB_ENDS_S = 2.0
"""A job that was ended lets go of the port within this; if not, the port is closed under it."""
LOOK_AFTER_JOB_S = 0.5
"""What a job did to the device is seen so soon."""
PROBER_LEAST_S = 30.0
FLUSH_EVERY_S = 30.0
EVENTS_PER_MINUTE = 60
"""Keys and ratings of one slot: no clerk calls faster. More is a stuck or hostile pad and would only fill the spool."""

FAULTS_KEY, USAGE_KEY, PROFILES_KEY, ATTEMPTS_KEY = "devices.faults", "devices.usage", "devices.profiles", "devices.attempts"


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


T = TypeVar("T")
Work = Callable[[Port, SlotBinding], Awaitable[T]]
"""What is done on a port while its driver waits."""


@dataclass(slots=True)
class _Job:
    """Something to be done between two looks. `over`: it has ended, and the port is the driver's again."""

    slot: str
    work: Work[Any]
    within_s: float
    answer: asyncio.Future[tuple[Any, Exception | None]]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[Any] | None = None

    def settle(self, result: Any, error: Exception | None = None) -> None:
        self.over.set()
        if not self.answer.done():
            self.answer.set_result((result, error))


class JobAnswer(Exception):
    """What a job tells its giver instead of a result; handed on as it is."""


class JobFailed(Exception):
    """A job ended by a mistake in it; what it had in hand is not told."""


@dataclass(slots=True)
class _Desk:
    """Where jobs are given to the task that holds a port. `listening`: its present wait, which may be cut short, once for each `hurry`."""

    driver: Driver
    port: Port
    slots: Mapping[str, SlotBinding]
    listening: asyncio.Timeout | None = None
    hurried: bool = False
    jobs: deque[_Job] = field(default_factory=deque)

    def give(self, job: _Job) -> None:
        self.jobs.append(job)
        self._wake()

    def hurry(self) -> None:
        self.hurried = True
        self._wake()

    def take_hurry(self) -> bool:
        hurried, self.hurried = self.hurried, False
        return hurried

    def _wake(self) -> None:
        if self.listening is not None:
            self.listening.reschedule(asyncio.get_running_loop().time())


@dataclass(frozen=True, slots=True)
class Booking:
    """What was counted for somebody who writes it down: records, and the memory that belongs into the same transaction. `undo`: it was not."""

    bodies: tuple[records.Consumable, ...]
    memory: Mapping[str, bytes]
    undo: Callable[[], None]


Tested = Literal["ok", "unsupported", "inUse", "device", "timeout"]


@dataclass(slots=True)
class _SlotState:
    """What is known of one slot."""

    entry: DeviceEntry
    told: records.Device | None = None
    """As it was last captured."""
    current: records.Device | None = None
    since_ms: int = 0
    gate: _Gate = field(default_factory=_Gate)
    looked: list[asyncio.Future[None]] = field(default_factory=list)
    """Who waits for the next sound look at the device."""


@dataclass(frozen=True, slots=True)
class SlotReport:
    """One slot for `edge-agent doctor`. `since_ms`: wall time at which the state was first seen as it is, 0 if there is none yet."""

    view: SlotView
    since_ms: int
    faults: tuple[records.Fault, ...]


class Monitor:
    """All devices of one terminal. `run` owns every task; the other methods may be called from the same loop at any time."""

    def __init__(
        self,
        *,
        clock: Clock,
        discoverer: Discoverer,
        opener: PortOpener,
        recorder: Recorder,
        store: Store,
        profiles: Mapping[str, Profile],
        inventory: Sequence[DeviceEntry],
        new_id: Callable[[], bytes],
        rng: random.Random,
        lease_free: Callable[[], bool] = lambda: True,
        port_holders: Callable[[str], int] | None = None,
        on_state: Callable[[records.Device], None] = lambda _: None,
    ) -> None:
        """`lease_free`: no citizen is being served, so an idle prober may open a port. `port_holders`: other programs that have a tty open.
        `on_state`: told of each slot's state when it changes."""
        self._clock = clock
        self._discoverer = discoverer
        self._opener = opener
        self._recorder = recorder
        self._store = store
        self._profiles = profiles
        self._rng = rng
        self._lease_free = lease_free
        self._port_holders = port_holders
        self._on_state = on_state
        self._slots = {entry.slot: _SlotState(entry) for entry in inventory}
        self._engine = FaultEngine(new_id=new_id)
        self._unreported: list[records.Fault] = []
        self._usage = UsageBook()
        self._attempts = AttemptBook()
        self._readings = ReadingBook()
        self._remembered: dict[str, str] = {}
        self._answered: dict[tuple[str, str], str | None] = {}
        self._unknown: dict[tuple[str, str], Sighting] = {}
        self._tasks: dict[tuple[object, ...], asyncio.Task[None]] = {}
        self._desks: dict[str, _Desk] = {}
        self._hastes: dict[str, asyncio.Event] = {}
        """Of slots whose task may be waiting for its next look at a port that it does not hold."""
        self._seen: Sequence[Sighting] = ()
        self._tick_due = asyncio.Event()
        self._look_again = asyncio.Event()
        self._plugs = PlugWatch()
        self._bound: dict[str, Binding] = {}
        self._claimed: dict[str, str | None] = {}
        self._place_told_ms = clock.boot_ms()
        """The boot clock goes on when the agent starts again, so a restart tells no place too soon either."""
        self._restore()

    # ------------------------------------------------------------------ for the rest of the agent

    async def run(self) -> None:
        """Watch until cancelled; then every port is closed and everything that must survive is kept."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ticking())
                group.create_task(self._flushing())
                await self._discovering(group)
        finally:
            self._keep_usage()
            self._keep_attempts()
            self._keep_faults()

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
            for state in self._slots.values()
        )

    def status(self) -> tuple[SlotReport, ...]:
        """Every slot: state, since when, open faults."""
        faults = self._engine.open_faults()
        return tuple(
            SlotReport(view, self._slots[view.slot].since_ms, tuple(fault for fault in faults if fault.slot == view.slot))
            for view in self.slot_views()
        )

    def open_faults(self) -> list[records.Fault]:
        return self._engine.open_faults()

    def open_for_birth(self) -> tuple[OpenFault, ...]:
        return self._engine.open_for_birth()

    def unknown_devices(self) -> tuple[records.Sighting, ...]:
        bodies = (discovery.sighting_body(sighting) for sighting in self._unknown.values())
        return tuple(body for body in bodies if body is not None)

    def observe_terminal(self, conditions: Iterable[Condition], *, judged: frozenset[str]) -> None:
        """Conditions of the terminal itself (network, host, application), from whoever looks at them."""
        self._report(self._engine.observe(None, conditions, self._now(), judged=judged))

    def can_test(self, slot: str, test: str) -> bool:
        """Whether the device at `slot` may have such a test. Every state can be asked; the rest only of an owner's driver that has the test. One
        that does not hold its port just now may have it; trying tells."""
        state, desk = self._slots.get(slot), self._desks.get(slot)
        if state is None or test == "query":
            return state is not None
        if desk is None:
            return state.entry.ownership is Ownership.OWNER
        if isinstance(desk.driver, TestableUnits):
            return test in desk.driver.tests_of(slot)
        return isinstance(desk.driver, Testable) and test in desk.driver.tests

    async def test(self, slot: str, test: str) -> Tested:
        """Ask the device now; for tests that do something, do it first. Says what came of it, and what was seen is recorded as ever."""
        state = self._slots.get(slot)
        if state is None or not self.can_test(slot, test):
            return "unsupported"
        try:
            async with asyncio.timeout(TEST_WITHIN_S):
                fresh = state.current is None
                if fresh:  # the order waited for this start, and the device has not been looked at yet
                    await self._next_look(state)
                if test != "query":
                    desk = self._desks.get(slot)
                    if desk is None or not await self._perform(slot, desk, _test_of(desk.driver, test), TEST_WITHIN_S):
                        return "device"
                if test != "query" or not fresh:
                    if not self._hasten(slot):
                        return "device"  # nothing is there, or nobody knows what
                    await self._next_look(state)
        except TimeoutError:
            return "timeout"
        except (PortError, JobFailed):
            return "device"
        seen = state.current
        if seen is None or (seen.device in _WELL and seen.action is not SuggestedAction.NONE):
            return "device"  # it answers that somebody has to do something
        return _TESTED.get(seen.device, "device")

    def bound_to(self, slot: str) -> SlotBinding | None:
        """What discovery has bound to the slot, of an owner's device; None if nothing is there or somebody else holds it."""
        binding = self._bound.get(slot)
        if binding is None or binding.ownership is not Ownership.OWNER or slot in self._claimed:
            return None
        return next(bound for bound in binding.slots if bound.slot == slot)

    async def perform(self, slot: str, work: Work[T], *, within_s: float) -> T:
        """Do something on the slot's port between two looks of its driver. It is done once or not at all, never again.

        Cancelled, it returns when the port is the driver's again. Raises what `work` raises (PortError and the caller's own errors), JobFailed
        for its mistakes, TimeoutError, PortGone or PortBusy if no driver holds the port now.
        """
        desk = self._desks.get(slot)
        if desk is None:
            state = self._slots.get(slot)
            busy = state is not None and state.current is not None and state.current.device is DeviceState.IN_USE
            raise PortBusy(f"{slot}: another program holds it") if busy else PortGone(f"{slot}: no driver holds its port now")
        return await self._perform(slot, desk, work, within_s)

    async def _perform(self, slot: str, desk: _Desk, work: Work[T], within_s: float) -> T:
        job = _Job(slot, work, within_s, asyncio.get_running_loop().create_future())
        desk.give(job)
        try:
            result, error = await asyncio.shield(job.answer)
        except asyncio.CancelledError:
            await self._withdraw(desk, job)
            raise
        if error is not None:
            raise error
        done: T = result
        return done

    async def _withdraw(self, desk: _Desk, job: _Job) -> None:
        if job in desk.jobs:
            desk.jobs.remove(job)
            job.settle(None)
        if job.task is not None and not job.over.is_set():
            job.task.cancel()
            await job.over.wait()

    async def _next_look(self, state: _SlotState) -> None:
        looked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        state.looked.append(looked)
        try:
            await looked
        finally:
            if looked in state.looked:
                state.looked.remove(looked)

    def _hasten(self, slot: str) -> bool:
        """Have the device looked at soon; False if no task watches the slot."""
        desk, haste = self._desks.get(slot), self._hastes.get(slot)
        if desk is not None:
            if isinstance(desk.driver, Scheduled):
                desk.driver.due_now(slot)
            desk.hurry()
        elif haste is not None:
            haste.set()
        return desk is not None or haste is not None

    def note_use(self, slot: str, *, ok: bool, count: int = 1) -> None:
        """The agent itself used a device: a printed slip, a read card."""
        if slot in self._slots:
            self._tell_usage(self._count_use(slot, ok=ok, count=count))

    def note_steps(self, slot: str, steps: Iterable[Met]) -> None:
        """What an application's command met at a reader, by the meaning of the reader's answers alone."""
        if slot in self._slots:
            self._attempts.met(slot, steps, self._now())

    def note_refill(self, slot: str, item: str, amount: int | None = None) -> None:
        """Somebody on site replaced or topped up a consumable."""
        self._tell_usage(self._usage.refilled(slot, item, amount))

    def book_use(self, slot: str, *, ok: bool, count: int = 1) -> Booking:
        """The kiosk application used a device. Its caller makes it durable, together with what it remembers itself."""
        return self._book(lambda: self._count_use(slot, ok=ok, count=count))

    def book_refill(self, slot: str, item: str, amount: int | None = None) -> Booking:
        """As `book_use`; without bodies if the slot has no such consumable."""
        return self._book(lambda: self._usage.refilled(slot, item, amount))

    def _count_use(self, slot: str, *, ok: bool, count: int) -> list[records.Consumable]:
        state = self._slots.get(slot)
        if state is not None and state.entry.family in _ATTEMPTED:
            self._attempts.used(slot, ok=ok, now=self._now())
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

    def close_span(self, from_ms: int, to_ms: int) -> list[records.Body]:
        """Counters and readings of the span that ends, for the summary's writer; the counts are kept first, so they cannot run backwards."""
        bodies: list[records.Body] = []
        counters = self._usage.close_span(from_ms, to_ms)
        if counters is not None:
            self._keep_usage()
            bodies.append(counters)
        bodies += self._readings.close_span(from_ms, to_ms)
        return bodies

    def whereabouts(self, slot: str) -> tuple[str | None, Profile | None]:
        """Place and profile of what is, or was last, bound to the slot."""
        state = self._slots.get(slot)
        binding = self._bound.get(slot)
        if binding is not None:
            return binding.sighting.place, next(bound.profile for bound in binding.slots if bound.slot == slot)
        if state is None:
            return None, None
        return state.entry.port, self._profiles.get(state.entry.profile or self._remembered.get(slot, ""))

    @contextlib.asynccontextmanager
    async def claim(self, slot: str) -> AsyncIterator[None]:
        """Take a device away from its driver: within, nobody else opens its port and its absence is no fault.

        Raises PortBusy if the slot is unknown, claimed already, or one of several behind one port.
        """
        binding = self._bound.get(slot)
        if slot not in self._slots or slot in self._claimed or (binding is not None and len(binding.slots) > 1):
            raise PortBusy(f"{slot} cannot be claimed")
        self._claimed[slot] = self.whereabouts(slot)[0]
        try:
            held = [self._tasks.pop(key) for key in list(self._tasks) if _names_slot(key, slot)]
            for task in held:
                task.cancel()
            if held:
                await asyncio.wait(held, timeout=CLOSE_TIMEOUT_S)
            self._observe_slot(slot, DeviceState.IN_USE)
            yield
        finally:
            self._claimed.pop(slot, None)
            self._look_again.set()

    # ------------------------------------------------------------------ discovery

    async def _discovering(self, group: asyncio.TaskGroup) -> None:
        while True:
            plan = self._look()
            self._apply_plan(plan, group)
            if plan.probes:
                await self._ask_all(plan)
                continue
            await self._wait_for_change()

    def _look(self) -> Plan:
        try:
            self._seen = tuple(self._discoverer.sightings())
        except (OSError, PortError):
            log.warning("devices cannot be enumerated; the last view holds")
        self._judge_plugs()
        places = {sighting.place for sighting in self._seen}
        self._answered = {key: told for key, told in self._answered.items() if key[0] in places}
        return discovery.make_plan(
            self._seen,
            [state.entry for state in self._slots.values() if state.entry.slot not in self._claimed],
            self._profiles,
            answered=self._answered,
            remembered=self._remembered,
        )

    def _judge_plugs(self) -> None:
        claimed = frozenset(place for place in self._claimed.values() if place is not None)
        present = {sighting.usb_path for sighting in self._seen if sighting.usb_path is not None}
        codes = self._plugs.look(present, self._clock.boot_ms() / 1000, expected_to_move=claimed)
        self.observe_terminal((Condition(code) for code in sorted(codes)), judged=plugs.CODES)

    async def _wait_for_change(self) -> None:
        changes = asyncio.ensure_future(self._discoverer.changes())
        again = asyncio.ensure_future(self._look_again.wait())
        try:
            await asyncio.wait({changes, again}, timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in (changes, again):
                waiting.cancel()
            results = await asyncio.gather(changes, again, return_exceptions=True)
            self._look_again.clear()
        await asyncio.sleep(CHANGE_GAP_S)
        if isinstance(results[0], Exception):
            log.warning("hot-plug events cannot be received", extra={"error": type(results[0]).__name__})
            await asyncio.sleep(ABSENT_EVERY_S)

    async def _ask_all(self, plan: Plan) -> None:
        """Probe one port after the other. A port that cannot be asked now counts as unanswered until it is plugged again."""
        for task in plan.probes:
            key = (task.sighting.place, task.slot)
            try:
                self._answered[key] = await discovery.probe(task, self._opener)
            except PortBusy:
                self._answered[key] = task.otherwise
                self._observe_slot(task.slot, DeviceState.IN_USE)
            except PortError as err:
                self._answered[key] = task.otherwise
                log.info("a port could not be asked", extra={"slot": task.slot, "error": type(err).__name__})

    def _apply_plan(self, plan: Plan, group: asyncio.TaskGroup) -> None:
        wanted = {_key_of(binding) for binding in plan.bindings} | {("absent", entry.slot) for entry in plan.absent}
        ending = [self._tasks.pop(key) for key in list(self._tasks) if key not in wanted]
        for task in ending:
            task.cancel()
        self._bound = {bound.slot: binding for binding in plan.bindings for bound in binding.slots}
        for binding in plan.bindings:
            if _key_of(binding) not in self._tasks:
                self._tasks[_key_of(binding)] = group.create_task(self._watch(binding, ending))
            self._remember(binding)
        missing_ports: set[str] = set()
        for entry in plan.absent:
            first = entry.port not in missing_ports
            missing_ports |= {entry.port} if entry.port is not None else set()
            if ("absent", entry.slot) not in self._tasks:
                self._tasks["absent", entry.slot] = group.create_task(self._watch_absent(entry, first=first))
        for entry, reason in plan.unclear:
            log.warning("a slot cannot be bound", extra={"slot": entry.slot, "reason": reason})
            self._observe_slot(entry.slot, DeviceState.UNKNOWN, action=SuggestedAction.CONFIGURATION)
        claimed = set(self._claimed.values())
        self._report_unknown(one for one in plan.unknown if one.place not in claimed)

    def _remember(self, binding: Binding) -> None:
        if binding.switched:
            return
        fresh = {bound.slot: bound.profile.id for bound in binding.slots}
        if any(self._remembered.get(slot) != profile for slot, profile in fresh.items()):
            self._remembered |= fresh
            self._put(PROFILES_KEY, msgspec.msgpack.encode(self._remembered))

    def _report_unknown(self, strangers: Iterable[Sighting]) -> None:
        now_there: dict[tuple[str, str], Sighting] = {(one.bus, one.place): one for one in strangers}
        for key, sighting in now_there.items():
            if key not in self._unknown:
                self._capture_sighting(sighting, present=True)
        for key, sighting in self._unknown.items():
            if key not in now_there:
                self._capture_sighting(sighting, present=False)
        self._unknown = now_there

    def _capture_sighting(self, sighting: Sighting, *, present: bool) -> None:
        body = discovery.sighting_body(sighting, present=present)
        if body is not None:
            self._capture(body)

    # ------------------------------------------------------------------ one port

    async def _watch(self, binding: Binding, before: Iterable[asyncio.Task[None]]) -> None:
        """Owns one port until cancelled. Whatever a driver raises ends here. `before`: tasks that may still be letting go of the port."""
        if waiting := [task for task in before if not task.done()]:
            await asyncio.wait(waiting, timeout=CLOSE_TIMEOUT_S)
        await asyncio.sleep(self._rng.uniform(0, START_SPREAD_S))
        for bound in binding.slots:
            self._usage.configure(bound.slot, bound.profile)
            self._forget_other_unit(bound)
        haste = asyncio.Event()
        self._hastes |= {bound.slot: haste for bound in binding.slots}
        try:
            await self._watch_in_turns(binding, haste)
        finally:
            for bound in binding.slots:
                if self._hastes.get(bound.slot) is haste:
                    del self._hastes[bound.slot]

    async def _watch_in_turns(self, binding: Binding, haste: asyncio.Event) -> None:
        if _by_presence(binding):
            await self._watch_presence(binding, haste)
        retry = _Retry()
        while True:
            retry.is_open = False
            delays: tuple[float, ...] = BACKOFF_S
            try:
                if binding.ownership is Ownership.IDLE_PROBER:
                    await self._probe_when_idle(binding, retry, haste)
                else:
                    await self._hold(binding, retry)
                continue
            except PortBusy:
                self._observe_all(binding, DeviceState.IN_USE)
                delays = BUSY_BACKOFF_S
            except PortGone:
                self._observe_gone(binding)
                self._look_again.set()
            except PortRefused as err:
                log.warning("a port is refused", extra={"slot": binding.slots[0].slot, "reason": str(err)})
                self._observe_failing(binding, SuggestedAction.CONFIGURATION, retry)
            except (PortError, TimeoutError):
                self._observe_failing(binding, SuggestedAction.RESET, retry)
            except Exception as err:  # noqa: BLE001 - a driver's mistake with one device must not stop the others
                _log_crash(binding, err)
                self._observe_all(binding, DeviceState.UNKNOWN, action=SuggestedAction.SOFTWARE_ERROR)
                delays = CRASH_BACKOFF_S
            delay_s = delays[min(retry.failures, len(delays) - 1)]
            retry.failures += 1
            await self._pause(delay_s, haste)

    async def _pause(self, seconds: float, haste: asyncio.Event) -> None:
        """Until the next look is due, or somebody cannot wait for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._jittered(seconds)):
                await haste.wait()
        haste.clear()

    async def _hold(self, binding: Binding, retry: _Retry) -> None:
        """Open the port and drive the device until something goes wrong; never returns by itself."""
        async with self._opened(binding, binding.slots[0].profile, stays=True) as (driver, port):
            retry.is_open = True
            desk = _Desk(driver, port, {bound.slot: bound for bound in binding.slots})
            self._desks |= {bound.slot: desk for bound in binding.slots}
            try:
                while True:
                    await self._poll(binding, driver)
                    retry.failures = 0
                    await self._listen(binding, driver, desk)
            finally:
                for bound in binding.slots:
                    self._desks.pop(bound.slot, None)
                while desk.jobs:
                    desk.jobs.popleft().settle(None, PortGone("the port was given up before it was this job's turn"))

    async def _probe_when_idle(self, binding: Binding, retry: _Retry, haste: asyncio.Event) -> None:
        """One look while no citizen is served; the port is released at once, or as soon as somebody comes."""
        if not self._lease_free():
            await asyncio.sleep(self._jittered(LEASE_CHECK_S))
            return
        every_s = PROBER_LEAST_S
        async with self._opened(binding, _without_detaching(binding.slots[0].profile), stays=False) as (driver, _):
            retry.is_open = True
            polling = asyncio.ensure_future(self._poll(binding, driver))
            try:
                while not polling.done() and self._lease_free():
                    await asyncio.wait({polling}, timeout=0.1)
            finally:
                polling.cancel()
                await asyncio.wait({polling})
            if not polling.cancelled():
                polling.result()
            every_s = max(every_s, driver.poll_every_s)
        retry.failures = 0
        await self._pause(every_s, haste)

    @contextlib.asynccontextmanager
    async def _opened(self, binding: Binding, profile: Profile, *, stays: bool) -> AsyncIterator[tuple[Driver, Port]]:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            port = await self._opener.open(binding.sighting, profile)
        try:
            held = guarded(port)
            driver = make_driver(held, binding.slots, self._clock, stays=stays)
            try:
                yield driver, held
            finally:
                with contextlib.suppress(PortError, TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT_S):
                        await driver.stop()
        finally:
            await _close(port)

    async def _poll(self, binding: Binding, driver: Driver) -> None:
        async with asyncio.timeout(driver.poll_budget_s + POLL_SLACK_S):
            observations = await driver.poll(self._now())
        for observation in observations:
            self._apply(binding, observation)

    async def _do_job(self, desk: _Desk, job: _Job) -> None:
        """Do it once. What it could not finish in time is ended; a job that does not even end then loses the port.

        Raises PortGone if the device went away meanwhile, PortStalled if the job keeps the port.
        """
        job.task = task = asyncio.ensure_future(job.work(desk.port, desk.slots[job.slot]))
        unfinished: Exception = PortGone("the port was given up during the job")
        try:
            try:
                await asyncio.wait({task}, timeout=job.within_s + JOB_SLACK_S)
                unfinished = TimeoutError()
            finally:
                if not task.done():
                    task.cancel()
                    await asyncio.wait({task}, timeout=JOB_ENDS_S)
        finally:
            error = _error_of(task, job.slot, unfinished)
            job.settle(None if error is not None else task.result(), error)
        if not task.done():
            task.add_done_callback(_forget)
            raise PortStalled("a job keeps the port")
        if isinstance(error, PortGone):
            raise error

    async def _listen(self, binding: Binding, driver: Driver, desk: _Desk) -> None:
        """Until the next poll is due; what the device says meanwhile, or somebody who asks, may make it due sooner. Jobs are done in between."""
        loop = asyncio.get_running_loop()
        polled_s = loop.time()
        factor = self._rng.uniform(1 - JITTER, 1 + JITTER)
        soon_s = math.inf
        while (left_s := min(soon_s, polled_s + driver.poll_every_s * factor) - loop.time()) > 0:
            if desk.jobs:
                await self._do_job(desk, desk.jobs.popleft())
                soon_s = min(soon_s, loop.time() + LOOK_AFTER_JOB_S)
                continue
            if desk.take_hurry():
                return
            limit = asyncio.timeout(left_s + LISTEN_SLACK_S)
            try:
                async with limit as desk.listening:
                    observations = await driver.listen(left_s)
            except TimeoutError:
                if desk.jobs:
                    continue
                if desk.take_hurry():
                    return
                raise
            finally:
                desk.listening = None
            for observation in observations:
                self._apply(binding, observation)
            await asyncio.sleep(LISTEN_GAP_S if observations else 0)

    async def _watch_presence(self, binding: Binding, haste: asyncio.Event) -> None:
        """Observer: what can be seen without opening anything; never returns."""
        while True:
            held = (
                self._port_holders is not None and binding.sighting.bus == "serial" and self._port_holders(binding.sighting.path)
            )
            for bound in binding.slots:
                self._apply(binding, presence.seen(bound, binding.sighting, held=bool(held)))
            await self._pause(LOOK_AGAIN_S, haste)

    async def _watch_absent(self, entry: DeviceEntry, *, first: bool) -> None:
        """Nothing is at the slot's place. `first`: of several slots behind one missing port, only this one has a fault."""
        kind = Kind(entry.family)
        codes = link_codes(kind)
        code = codes.unplugged
        shared = f"{code.partition('.')[0]}.BUS_DOWN"
        if entry.address is not None and shared in FAULTS:
            code = shared
        conditions = (Condition(code),) if first else ()
        for _ in range(ABSENT_LOOKS):
            observation = replace(unseen(entry.slot, kind, DeviceState.NO_DEVICE), conditions=conditions)
            self._apply_to(entry.slot, observation, None, None)
            await asyncio.sleep(ABSENT_EVERY_S)

    # ------------------------------------------------------------------ observations to records

    def _observe_all(self, binding: Binding, device: DeviceState, *, action: SuggestedAction = SuggestedAction.NONE) -> None:
        for bound in binding.slots:
            self._apply(binding, replace(unseen(bound.slot, bound.profile.kind, device), action=action))

    def _observe_gone(self, binding: Binding) -> None:
        for index, bound in enumerate(binding.slots):
            code = link_codes(bound.profile.kind).unplugged
            shared = bound.code("BUS_DOWN")
            if len(binding.slots) > 1 and shared in FAULTS:
                code = shared
            conditions = (Condition(code),) if index == 0 or code != shared else ()
            self._apply(binding, replace(unseen(bound.slot, bound.profile.kind, DeviceState.NO_DEVICE), conditions=conditions))

    def _observe_failing(self, binding: Binding, action: SuggestedAction, retry: _Retry) -> None:
        """The device is there and cannot be spoken to."""
        for bound in binding.slots:
            codes = link_codes(bound.profile.kind)
            code = codes.silent if retry.is_open else codes.cannot_open
            observation = unseen(bound.slot, bound.profile.kind, DeviceState.OFFLINE)
            holds = retry.failures + 1 < ABSENT_LOOKS
            self._apply(binding, replace(observation, action=action, conditions=(Condition(code),), holds_state=holds))

    def _forget_other_unit(self, bound: SlotBinding) -> None:
        """Firmware and module number belong to the unit that was there before, if that was another model."""
        state = self._slots[bound.slot]
        if state.current is not None and state.current.profile not in (None, bound.profile.id):
            state.current = msgspec.structs.replace(state.current, firmware=None, asset=None)

    def _observe_slot(self, slot: str, device: DeviceState, *, action: SuggestedAction = SuggestedAction.NONE) -> None:
        """A slot that has no binding."""
        entry = self._slots[slot].entry
        kind = Kind(entry.family) if entry.family in _KINDS else None
        observation = Observation(slot=slot, device=device, judged=frozenset()) if kind is None else unseen(slot, kind, device)
        self._apply_to(slot, replace(observation, action=action), None, None)

    def _apply(self, binding: Binding, observation: Observation) -> None:
        bound = next(bound for bound in binding.slots if bound.slot == observation.slot)
        if binding.switched:
            changed = Condition(bound.code("MODE_CHANGED"))
            observation = replace(observation, conditions=(*observation.conditions, changed))
        self._apply_to(observation.slot, observation, binding, bound)

    def _apply_to(self, slot: str, observation: Observation, binding: Binding | None, bound: SlotBinding | None) -> None:
        state, now = self._slots[slot], self._now()
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
                self._capture(event)
        self._tell_usage(told)
        if not observation.holds_state:
            while state.looked:
                waiting = state.looked.pop()
                if not waiting.done():
                    waiting.set_result(None)

    def _tell_place(self, bound: SlotBinding, place: Place, now: ClockReading) -> None:
        """At most every five minutes, of a position receiver, and never while somebody is served: where the van stops, not whom it serves."""
        if bound.profile.kind is not Kind.GPS or not self._lease_free():
            return
        if now.boot_ms - self._place_told_ms < POSITION_EVERY_S * 1000:
            return
        body = records.Position(
            slot=bound.slot, lat_e4=place.lat_e4, lon_e4=place.lon_e4, fix=place.fix, satellites=place.satellites
        )
        if self._capture(body):
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

    def _tell_state(self, state: _SlotState, body: records.Device, now: ClockReading) -> None:
        """Written when it changed; the bytes behind it belong to the change, not to the state."""
        if state.current is None or _bare(body) != _bare(state.current):
            state.current, state.since_ms = body, now.wall_ms
            self._on_state(body)
        if (state.told is None or _bare(body) != _bare(state.told)) and self._capture(body):
            state.told = body

    # ------------------------------------------------------------------ keeping and telling

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

    def _capture(self, body: records.Body) -> bool:
        """False: there was no room, so the caller may try again."""
        try:
            self._recorder.capture(body)
        except CaptureRefused:
            log.error("a record was refused", extra={"kind": records.KIND_OF[type(body)]})
        except OutboxError:
            return False
        return True

    def _capture_all(self, bodies: Iterable[records.Body]) -> None:
        for body in bodies:
            self._capture(body)

    def _keep_faults(self) -> None:
        self._put(FAULTS_KEY, self._engine.export(self._now(), self._unreported))

    def _keep_attempts(self) -> None:
        if self._attempts.dirty:
            self._put(ATTEMPTS_KEY, self._attempts.export())

    def _keep_usage(self) -> None:
        if self._usage.dirty:
            self._put(USAGE_KEY, self._usage.export())

    def _put(self, key: str, value: bytes) -> None:
        try:
            self._store.put(key, value)
        except OutboxError:
            log.warning("the agent's memory cannot be written", extra={"key": key})

    def _restore(self) -> None:
        now = self._now()
        for key, take in (
            (FAULTS_KEY, self._take_faults),
            (USAGE_KEY, self._usage.restore),
            (ATTEMPTS_KEY, self._attempts.restore),
            (PROFILES_KEY, self._take_profiles),
        ):
            kept = self._store.get(key)
            if kept is not None:
                try:
                    take(kept)
                except ValueError:
                    log.warning("what was kept cannot be read; it starts anew", extra={"key": key})
        self._unreported += self._engine.retire([None, *self._slots], now)

    def _take_faults(self, kept: bytes) -> None:
        self._unreported += self._engine.restore(kept, self._now())

    def _take_profiles(self, kept: bytes) -> None:
        try:
            self._remembered = msgspec.msgpack.decode(kept, type=dict[str, str])
        except msgspec.MsgspecError as err:
            raise ValueError("the kept profiles are not readable") from err

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
            self._report(self._engine.tick(self._now()))
            self._tell_faults()
            # Last, because reporting sets it whenever something is due later, and would keep this loop awake until then.
            self._tick_due.clear()
            await asyncio.sleep(LISTEN_GAP_S)

    async def _flushing(self) -> None:
        while True:
            await asyncio.sleep(self._jittered(FLUSH_EVERY_S))
            self._keep_usage()
            self._keep_attempts()

    def _now(self) -> ClockReading:
        return read(self._clock)

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)


def _error_of(task: asyncio.Task[Any], slot: str, unfinished: Exception) -> Exception | None:
    """What the giver of a job is told. A mistake in the job is told without its text, which may quote what the job had in hand."""
    if not task.done() or task.cancelled():
        return unfinished
    error = task.exception()
    if error is None or isinstance(error, PortError | TimeoutError | JobAnswer):
        return error
    log.error("a job failed", extra={"slot": slot, "error": type(error).__name__, "at": _place(error)})
    return JobFailed("a job failed by a mistake in it")


def _forget(task: asyncio.Task[Any]) -> None:
    """The end of a job that nobody waits for; taken so that nothing of it is logged."""
    if not task.cancelled():
        task.exception()


def _test_of(driver: Driver, test: str) -> Work[bool]:
    async def work(_port: Port, bound: SlotBinding) -> bool:
        if isinstance(driver, TestableUnits):
            return await driver.test_unit(bound.slot, test)
        assert isinstance(driver, Testable)
        return await driver.test(test)

    return work


_KINDS = frozenset(kind.value for kind in Kind)
_WELL = frozenset({DeviceState.ONLINE, DeviceState.BUSY})
_TESTED: dict[DeviceState, Tested] = {
    DeviceState.ONLINE: "ok",
    DeviceState.BUSY: "ok",
    DeviceState.IN_USE: "inUse",
    DeviceState.OFFLINE: "timeout",
    DeviceState.POWER_OFF: "timeout",
}
"""What a look means as a test; every other state is a fault of the device, or something that somebody on site must put right."""
_ATTEMPTED = frozenset({Kind.ID_READER.value, Kind.CARD_READER.value})
"""Kinds whose uses are visits of people with a card."""
_BY_MONITOR = ("READ_FAIL_RATE", "AUTH_FAIL_RATE", "MODE_CHANGED")
"""Tails that are concluded here, so every observation can take them back."""


@dataclass(slots=True)
class _Retry:
    failures: int = 0
    is_open: bool = False


def _key_of(binding: Binding) -> tuple[object, ...]:
    return (
        "bound",
        binding.sighting,
        binding.ownership,
        binding.switched,
        *((b.slot, b.profile.id, b.address) for b in binding.slots),
    )


def _names_slot(key: tuple[object, ...], slot: str) -> bool:
    return key[:2] == ("absent", slot) or any(isinstance(part, tuple) and part[:1] == (slot,) for part in key[4:])


def _fault_family(entry: DeviceEntry) -> str:
    return FAULT_FAMILY[Kind(entry.family)] if entry.family in _KINDS else ""


def _by_presence(binding: Binding) -> bool:
    """Keys that are read only now and then say nothing, so an idle prober of an input device just looks whether it is there."""
    if binding.slots[0].profile.family is Family.PCSC:
        return False  # the service is only asked: whoever uses a reader through it does not notice
    if binding.slots[0].profile.family is Family.IPP:
        return False  # every question is a connection of its own, beside whoever prints there
    prober_of_keys = binding.ownership is Ownership.IDLE_PROBER and binding.sighting.bus == "input"
    return binding.ownership is Ownership.OBSERVER or prober_of_keys


def _without_detaching(profile: Profile) -> Profile:
    """For a guest: a kernel driver that holds the interface stays."""
    usb = profile.transport.usb
    if usb is None or not usb.detach_kernel_driver:
        return profile
    guest = msgspec.structs.replace(profile.transport, usb=msgspec.structs.replace(usb, detach_kernel_driver=False))
    return msgspec.structs.replace(profile, transport=guest)


def _device_body(
    state: _SlotState, observation: Observation, binding: Binding | None, bound: SlotBinding | None
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


async def _close(port: Port) -> None:
    with contextlib.suppress(PortError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await port.close()


def _log_crash(binding: Binding, err: Exception) -> None:
    log.error("a driver failed", extra={"slot": binding.slots[0].slot, "error": type(err).__name__, "at": _place(err)})


def _place(err: BaseException) -> str:
    """Where it happened, not what with: a message or a value could be somebody's data."""
    frames = traceback.extract_tb(err.__traceback__)
    return f"{frames[-1].name}:{frames[-1].lineno}" if frames else "unknown"
