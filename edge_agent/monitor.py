"""Runs the drivers: one task for each bound port, started and stopped as devices come and go, each kept from harming the others.

What drivers observe goes to the book of slots, which makes records of it; nothing of a device's bytes is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from edge_agent import discovery
from edge_agent.clock import Clock, ClockReading, read
from edge_agent.config import DeviceEntry
from edge_agent.devices import plugs, presence
from edge_agent.devices.attempts import Met
from edge_agent.devices.base import Driver, Scheduled, SlotBinding, Testable, TestableUnits, link_codes, unseen
from edge_agent.devices.factory import make_driver
from edge_agent.devices.guard import guarded
from edge_agent.devices.plugs import PlugWatch
from edge_agent.discovery import Binding, Plan
from edge_agent.errors import place_of
from edge_agent.faults import Condition
from edge_agent.jobs import Desk, JobFailed, T, Work
from edge_agent.slots import Booking, Recorder, SlotBook, SlotReport, Store
from edge_agent.status import SlotView
from edge_agent.transports.base import (
    Discoverer,
    Port,
    PortBusy,
    PortError,
    PortGone,
    PortOpener,
    PortRefused,
    Sighting,
)
from protocols.canon.faults import FAULTS
from protocols.canon.words import DeviceState, Ownership, SuggestedAction
from protocols.contract import records
from protocols.contract.messages import OpenFault
from protocols.profile.schema import Family, Kind, Profile

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
LOOK_GAP_S = 0.3
"""However many ask for a look at once: some units may not be asked more often than five times a second."""
LOOK_AFTER_JOB_S = 0.5
"""What a job did to the device is seen so soon."""
PROBER_LEAST_S = 30.0

PROFILES_KEY = "devices.profiles"


Tested = Literal["ok", "unsupported", "inUse", "device", "timeout"]


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
        self._profiles = profiles
        self._rng = rng
        self._lease_free = lease_free
        self._port_holders = port_holders
        self._store = store
        self._book = SlotBook(
            clock=clock,
            recorder=recorder,
            store=store,
            inventory=inventory,
            new_id=new_id,
            rng=rng,
            idle=lease_free,
            on_state=on_state,
        )
        self._slots = self._book.slots
        self._remembered = _profiles_before(store)
        self._answered: dict[tuple[str, str], str | None] = {}
        self._unknown: dict[tuple[str, str], Sighting] = {}
        self._tasks: dict[tuple[object, ...], asyncio.Task[None]] = {}
        self._desks: dict[str, Desk] = {}
        self._hastes: dict[str, asyncio.Event] = {}
        """Of slots whose task may be waiting for its next look at a port that it does not hold."""
        self._seen: Sequence[Sighting] = ()
        self._look_again = asyncio.Event()
        self._plugs = PlugWatch()
        self._bound: dict[str, Binding] = {}
        self._claimed: dict[str, str | None] = {}

    # ------------------------------------------------------------------ for the rest of the agent

    async def run(self) -> None:
        """Watch until cancelled; then every port is closed and everything that must survive is kept."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._book.run())
                await self._discovering(group)
        finally:
            self._book.keep()

    def slot_views(self) -> tuple[SlotView, ...]:
        """The inventory with each slot's last state."""
        return self._book.slot_views()

    def status(self) -> tuple[SlotReport, ...]:
        """Every slot: state, since when, open faults."""
        return self._book.status()

    def open_faults(self) -> list[records.Fault]:
        return self._book.open_faults()

    def open_for_birth(self) -> tuple[OpenFault, ...]:
        return self._book.open_for_birth()

    def observe_terminal(self, conditions: Iterable[Condition], *, judged: frozenset[str]) -> None:
        """Conditions of the terminal itself (network, host, application), from whoever looks at them."""
        self._book.observe_terminal(conditions, judged=judged)

    def note_use(self, slot: str, *, ok: bool, count: int = 1) -> None:
        """The agent itself used a device: a printed slip, a read card."""
        self._book.note_use(slot, ok=ok, count=count)

    def note_steps(self, slot: str, steps: Iterable[Met]) -> None:
        """What an application's command met at a reader, by the meaning of the reader's answers alone."""
        self._book.note_steps(slot, steps)

    def note_refill(self, slot: str, item: str, amount: int | None = None) -> None:
        """Somebody on site replaced or topped up a consumable."""
        self._book.note_refill(slot, item, amount)

    def book_use(self, slot: str, *, ok: bool, count: int = 1) -> Booking:
        """The kiosk application used a device. Its caller makes it durable, together with what it remembers itself."""
        return self._book.book_use(slot, ok=ok, count=count)

    def book_refill(self, slot: str, item: str, amount: int | None = None) -> Booking:
        """As `book_use`; without bodies if the slot has no such consumable."""
        return self._book.book_refill(slot, item, amount)

    def close_span(self, from_ms: int, to_ms: int) -> list[records.Body]:
        """Counters and readings of the span that ends, for the summary's writer."""
        return self._book.close_span(from_ms, to_ms)

    def unknown_devices(self) -> tuple[records.Sighting, ...]:
        bodies = (discovery.sighting_body(sighting) for sighting in self._unknown.values())
        return tuple(body for body in bodies if body is not None)

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
                    await self._book.next_look(slot)
                if test != "query":
                    desk = self._desks.get(slot)
                    if desk is None or not await desk.perform(slot, _test_of(desk.driver, test), TEST_WITHIN_S):
                        return "device"
                if test != "query" or not fresh:
                    if not self._hasten(slot):
                        return "device"  # nothing is there, or nobody knows what
                    await self._book.next_look(slot)
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
        return await desk.perform(slot, work, within_s)

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
            self._book.observe_slot(slot, DeviceState.IN_USE)
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
                self._book.observe_slot(task.slot, DeviceState.IN_USE)
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
            self._book.observe_slot(entry.slot, DeviceState.UNKNOWN, action=SuggestedAction.CONFIGURATION)
        claimed = set(self._claimed.values())
        self._report_unknown(one for one in plan.unknown if one.place not in claimed)

    def _remember(self, binding: Binding) -> None:
        if binding.switched:
            return
        fresh = {bound.slot: bound.profile.id for bound in binding.slots}
        if any(self._remembered.get(slot) != profile for slot, profile in fresh.items()):
            self._remembered |= fresh
            self._book.put(PROFILES_KEY, msgspec.msgpack.encode(self._remembered))

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
            self._book.capture(body)

    # ------------------------------------------------------------------ one port

    async def _watch(self, binding: Binding, before: Iterable[asyncio.Task[None]]) -> None:
        """Owns one port until cancelled. Whatever a driver raises ends here. `before`: tasks that may still be letting go of the port."""
        if waiting := [task for task in before if not task.done()]:
            await asyncio.wait(waiting, timeout=CLOSE_TIMEOUT_S)
        await asyncio.sleep(self._rng.uniform(0, START_SPREAD_S))
        for bound in binding.slots:
            self._book.configure(bound)
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
            desk = Desk(driver, port, {bound.slot: bound for bound in binding.slots})
            self._desks |= {bound.slot: desk for bound in binding.slots}
            try:
                while True:
                    await self._poll(binding, driver)
                    retry.failures = 0
                    await self._listen(binding, driver, desk)
            finally:
                for bound in binding.slots:
                    self._desks.pop(bound.slot, None)
                desk.close()

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
            self._book.observe(binding, observation)

    async def _listen(self, binding: Binding, driver: Driver, desk: Desk) -> None:
        """Until the next poll is due; what the device says meanwhile, or somebody who asks, may make it due sooner. Jobs are done in between."""
        loop = asyncio.get_running_loop()
        polled_s = loop.time()
        factor = self._rng.uniform(1 - JITTER, 1 + JITTER)
        soon_s = math.inf
        while (left_s := min(soon_s, polled_s + driver.poll_every_s * factor) - loop.time()) > 0:
            if desk.jobs:
                await desk.do_next()
                soon_s = min(soon_s, loop.time() + LOOK_AFTER_JOB_S)
                continue
            if desk.take_hurry():
                soon_s = min(soon_s, polled_s + LOOK_GAP_S)
                continue
            limit = asyncio.timeout(left_s + LISTEN_SLACK_S)
            try:
                async with limit as desk.listening:
                    observations = await driver.listen(left_s)
            except TimeoutError:
                if desk.jobs:
                    continue
                if desk.take_hurry():
                    soon_s = min(soon_s, polled_s + LOOK_GAP_S)
                    continue
                raise
            finally:
                desk.listening = None
            for observation in observations:
                self._book.observe(binding, observation)
            await asyncio.sleep(LISTEN_GAP_S if observations else 0)

    async def _watch_presence(self, binding: Binding, haste: asyncio.Event) -> None:
        """Observer: what can be seen without opening anything; never returns."""
        while True:
            held = (
                self._port_holders is not None and binding.sighting.bus == "serial" and self._port_holders(binding.sighting.path)
            )
            for bound in binding.slots:
                self._book.observe(binding, presence.seen(bound, binding.sighting, held=bool(held)))
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
            self._book.observe_unbound(observation)
            await asyncio.sleep(ABSENT_EVERY_S)

    # ------------------------------------------------------------------ what is seen of a whole port

    def _observe_all(self, binding: Binding, device: DeviceState, *, action: SuggestedAction = SuggestedAction.NONE) -> None:
        for bound in binding.slots:
            self._book.observe(binding, replace(unseen(bound.slot, bound.profile.kind, device), action=action))

    def _observe_gone(self, binding: Binding) -> None:
        for index, bound in enumerate(binding.slots):
            code = link_codes(bound.profile.kind).unplugged
            shared = bound.code("BUS_DOWN")
            if len(binding.slots) > 1 and shared in FAULTS:
                code = shared
            conditions = (Condition(code),) if index == 0 or code != shared else ()
            self._book.observe(
                binding, replace(unseen(bound.slot, bound.profile.kind, DeviceState.NO_DEVICE), conditions=conditions)
            )

    def _observe_failing(self, binding: Binding, action: SuggestedAction, retry: _Retry) -> None:
        """The device is there and cannot be spoken to."""
        for bound in binding.slots:
            codes = link_codes(bound.profile.kind)
            code = codes.silent if retry.is_open else codes.cannot_open
            observation = unseen(bound.slot, bound.profile.kind, DeviceState.OFFLINE)
            holds = retry.failures + 1 < ABSENT_LOOKS
            self._book.observe(binding, replace(observation, action=action, conditions=(Condition(code),), holds_state=holds))

    def _now(self) -> ClockReading:
        return read(self._clock)

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)


def _test_of(driver: Driver, test: str) -> Work[bool]:
    async def work(_port: Port, bound: SlotBinding) -> bool:
        if isinstance(driver, TestableUnits):
            return await driver.test_unit(bound.slot, test)
        assert isinstance(driver, Testable)
        return await driver.test(test)

    return work


_WELL = frozenset({DeviceState.ONLINE, DeviceState.BUSY})
_TESTED: dict[DeviceState, Tested] = {
    DeviceState.ONLINE: "ok",
    DeviceState.BUSY: "ok",
    DeviceState.IN_USE: "inUse",
    DeviceState.OFFLINE: "timeout",
    DeviceState.POWER_OFF: "timeout",
}
"""What a look means as a test; every other state is a fault of the device, or something that somebody on site must put right."""


def _profiles_before(store: Store) -> dict[str, str]:
    """Which profile each slot had when the agent last ran."""
    kept = store.get(PROFILES_KEY)
    if kept is None:
        return {}
    try:
        return msgspec.msgpack.decode(kept, type=dict[str, str])
    except msgspec.MsgspecError:
        log.warning("what was kept cannot be read; it starts anew", extra={"key": PROFILES_KEY})
        return {}


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


async def _close(port: Port) -> None:
    with contextlib.suppress(PortError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await port.close()


def _log_crash(binding: Binding, err: Exception) -> None:
    log.error("a driver failed", extra={"slot": binding.slots[0].slot, "error": type(err).__name__, "at": place_of(err)})
