"""What happens at the terminals while somebody watches: cases, ratings, call-pad keys, devices that fail and are repaired, networks that break.

Cases come `speed` times as often as in the field; each is told to the agent the way a kiosk's own program tells it, and keys are pressed on the
simulated devices, so drivers see them as bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from simulators.errors import SimulatorError
from simulators.items import ITEMS, Item
from simulators.terminal import VirtualTerminal
from simulators.traffic import TROUBLES, Trouble
from simulators.workdays import SHANGHAI
from tests.demo.applications import Application, Devices, NotNow
from tests.demo.city import Member
from tests.demo.relay import Relay

log = logging.getLogger(__name__)

OPEN_S_A_DAY: Final = 9 * 3600
"""Demand of a day is spread over so much time."""
FASTER: Final = 5
"""A case takes a fifth of its real time; at thirty times the demand the terminals would never be free otherwise."""
LONGEST_CASE_S: Final = 100.0
"""Below the lease of 120 s."""
RATED: Final = 0.35
LEVELS: Final = (5, 4, 3, 2, 1)
LEVEL_WEIGHTS: Final = (9300, 560, 115, 15, 10)
FAULT_EVERY_S: Final = 25.0
FAULT_LASTS_S: Final = (45.0, 420.0)
STANDING_FAULTS: Final = 5
"""So many devices are out of order already when the day begins."""
FIRST_CUT_S: Final = 60.0
CUT_APART_S: Final = 35.0
CUT_EVERY_S: Final = 1200.0
CUT_LASTS_S: Final = (420.0, 1500.0)
"""Long enough to be called offline (5 minutes of silence) and sometimes to raise the alarm (10 minutes)."""

_ITEM_WEIGHTS: Final = tuple(item.weight for item in ITEMS)
_RUNS_EMPTY: Final = frozenset({"PRN.PAPER_OUT", "LSR.PAPER_OUT", "PRN.PAPER_NEAR_END", "LSR.TONER_LOW"})
_OFTEN: Final = 0.002
"""What runs empty has no rate of its own in the model of the past; here it fails as often as other things."""


@dataclass
class Counted:
    """What happened since the start."""

    cases: int = 0
    keys: int = 0
    ratings: int = 0
    faults: int = 0
    cuts: int = 0
    refused: int = 0


@dataclass
class Place:
    """A terminal as the people at it see it."""

    member: Member
    application: Application
    devices: Devices
    slots: frozenset[str]
    busy: bool = False

    def open_at(self, now: datetime) -> bool:
        minute = now.hour * 60 + now.minute
        return any(start <= minute < end for start, end in self.member.plan.site.hours.spans(now.date()))


@dataclass
class Life:
    """All tasks run until cancelled. `places` may be given before the agents behind them answer."""

    places: Sequence[Place]
    speed: int
    choice: random.Random
    counted: Counted = field(default_factory=Counted)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._arrivals(group, self._kiosks(), self._weight, self._case))
            group.create_task(
                self._arrivals(group, self._halls(), lambda place: place.member.plan.tickets_per_workday, self._ticket)
            )

    def _kiosks(self) -> list[Place]:
        return [place for place in self.places if place.member.plan.cases_per_day > 0]

    def _halls(self) -> list[Place]:
        return [place for place in self.places if any(slot.startswith("call-pad") for slot in place.slots)]

    @staticmethod
    def _weight(place: Place) -> float:
        return place.member.plan.cases_per_day

    async def _arrivals(
        self,
        group: asyncio.TaskGroup,
        places: Sequence[Place],
        weight: Callable[[Place], float],
        serve: Callable[[Place], Awaitable[None]],
    ) -> None:
        """Poisson arrivals; the day's demand goes to whoever is open now, so that a watcher at night sees the 24-hour zones at work."""
        rate_per_s = self.speed * sum(weight(place) for place in places) / OPEN_S_A_DAY
        while rate_per_s:
            await asyncio.sleep(self.choice.expovariate(rate_per_s))
            now = datetime.now(UTC).astimezone(SHANGHAI)
            free = [place for place in places if not place.busy and place.open_at(now)]
            # Halls are closed at night and nobody calls then; a demo at that hour still shows how it looks.
            free = free or [place for place in places if not place.busy]
            if free:
                place = self.choice.choices(free, [weight(one) for one in free])[0]
                group.create_task(self._one(place, serve))

    async def _one(self, place: Place, serve: Callable[[Place], Awaitable[None]]) -> None:
        place.busy = True
        try:
            await serve(place)
        except (NotNow, SimulatorError):
            self.counted.refused += 1
        finally:
            place.busy = False

    # ------------------------------------------------------------------ a case

    async def _case(self, place: Place) -> None:
        item = self.choice.choices(ITEMS, _ITEM_WEIGHTS)[0]
        service = await place.application.service()
        if service == "unusable" and self.choice.random() < 0.6:
            return
        outcome, cause = self._outcome(service)
        channel = "assist" if place.member.plan.kind == "booth" else "scan" if self.choice.random() < 0.1 else "touch"
        session = await place.application.begin(item.code, channel)
        seconds = item.minutes * 60 / FASTER * self.choice.lognormvariate(0, 0.35)
        await asyncio.sleep(min(LONGEST_CASE_S, seconds if outcome == "success" else seconds * 0.6))
        if outcome == "success":
            await self._use_devices(place, item)
        await place.application.end(session, outcome, cause)
        self.counted.cases += 1
        if outcome == "success" and self.choice.random() < RATED:
            await asyncio.sleep(self.choice.uniform(1, 4))
            await self._rate(place, session)

    def _outcome(self, service: str) -> tuple[str, str]:
        if service == "unusable":
            return "failed", "device"
        draw = self.choice.random()
        if draw < 0.972:
            return "success", "none"
        return ("failed", "backend") if draw < 0.986 else ("abandoned", "citizen")

    async def _use_devices(self, place: Place, item: Item) -> None:
        used = (("id-reader", int(item.needs_id)), ("laser-printer", item.pages), ("receipt-printer", int(item.slip)))
        for slot, count in used:
            if count and slot in place.slots:
                await place.application.use(slot, count)

    async def _rate(self, place: Place, session: str) -> None:
        level = self.choice.choices(LEVELS, LEVEL_WEIGHTS)[0]
        if "evaluator" in place.slots:
            await place.devices.press("evaluator", "rate", str(level))
        else:
            await place.application.rate(level, session)
        self.counted.ratings += 1

    # ------------------------------------------------------------------ a ticket

    async def _ticket(self, place: Place) -> None:
        pad = self.choice.choice(sorted(slot for slot in place.slots if slot.startswith("call-pad")))
        await self._press(place, pad, "call-next")
        if self.choice.random() < 0.12:
            await asyncio.sleep(self.choice.uniform(3, 8))
            await self._press(place, pad, "recall")
        await asyncio.sleep(min(LONGEST_CASE_S, 7 * 60 / FASTER * self.choice.lognormvariate(0, 0.5)))
        if self.choice.random() < 0.6:
            await self._press(place, pad, "evaluate")
            await asyncio.sleep(self.choice.uniform(2, 5))
            await place.devices.press(pad, "rate", str(self.choice.choices(LEVELS, LEVEL_WEIGHTS)[0]))
            self.counted.ratings += 1

    async def _press(self, place: Place, pad: str, key: str) -> None:
        await place.devices.press(pad, key)
        self.counted.keys += 1


@dataclass
class Weather:
    """Devices fail now and then and are repaired; a network breaks and comes back. `terminals`: devices of this process, by terminal id."""

    terminals: dict[str, VirtualTerminal]
    relays: dict[str, Relay]
    choice: random.Random
    counted: Counted

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._faults(group))
            for number, name in enumerate(sorted(self.relays)):
                group.create_task(self._cuts(self.relays[name], number))

    async def _faults(self, group: asyncio.TaskGroup) -> None:
        standing = min(STANDING_FAULTS, len(self.terminals) // 20)
        for _ in range(standing):
            group.create_task(self._one_fault(self.choice.uniform(600, 2400)))
        while True:
            await asyncio.sleep(self.choice.expovariate(1 / FAULT_EVERY_S))
            group.create_task(self._one_fault(self.choice.uniform(*FAULT_LASTS_S)))

    async def _one_fault(self, lasts_s: float) -> None:
        name = self.choice.choice(sorted(self.terminals))
        terminal = self.terminals[name]
        options = [(trouble, device) for trouble in TROUBLES for device in _targets(terminal, trouble)]
        if not options or terminal.faults():
            return
        trouble, device = self.choice.choices(options, [max(trouble.per_day, _rate_of(trouble)) for trouble, _ in options])[0]
        assert trouble.simulated_as is not None
        with contextlib.suppress(SimulatorError):
            terminal.set(device, trouble.simulated_as)
            self.counted.faults += 1
            try:
                await asyncio.sleep(lasts_s)
            finally:
                terminal.clear(device, trouble.simulated_as)

    async def _cuts(self, relay: Relay, number: int) -> None:
        """One terminal's network. Half of them break soon after the start, one by one: together would look like the platform's blindness."""
        await asyncio.sleep(FIRST_CUT_S + number * CUT_APART_S if number % 2 == 0 else self.choice.expovariate(1 / CUT_EVERY_S))
        while True:
            await relay.cut()
            self.counted.cuts += 1
            await asyncio.sleep(self.choice.uniform(*CUT_LASTS_S))
            relay.mend()
            await asyncio.sleep(self.choice.expovariate(1 / CUT_EVERY_S))


def _targets(terminal: VirtualTerminal, trouble: Trouble) -> list[str]:
    """Devices of the terminal at which the trouble can be played."""
    if trouble.simulated_as is None or trouble.slot is None:
        return []
    return [
        name
        for name, help_of in terminal.help().items()
        if _family(name) == trouble.slot and trouble.simulated_as in help_of["faults"]
    ]


def _family(name: str) -> str:
    """`call-pad-3` → `call-pad`, `sensors-door` → `door`."""
    base = name.rstrip("0123456789").rstrip("-")
    return base.removeprefix("sensors-")


def _rate_of(trouble: Trouble) -> float:
    return _OFTEN if trouble.code in _RUNS_EMPTY else 0.0
