"""What happens at the terminals of a city, day by day: cases, ratings, call-pad keys, paper, faults and their repair, network outages.

A pure model: the same seed, terminal and first day give the same history, whoever asks and in whatever order terminals are asked. It yields plain
values for a virtual clock; turning them into records is the caller's work. Rates follow published figures of one city (55,300 cases of 392 kiosks
in 219 days; 46 city-level kiosks at two cases a day, the others at half a case).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from typing import Final, Literal

from simulators.items import ITEMS, Item
from simulators.population import FleetPlan, TerminalPlan
from simulators.workdays import DAY_MS, MINUTE_MS, DayKind, Hours, after_staff_minutes, day_kind, midnight_ms

Outcome = Literal["success", "failed", "abandoned"]
Cause = Literal["none", "device", "backend", "network", "citizen", "lease", "application"]
Channel = Literal["touch", "scan", "assist"]

# ---------------------------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True)
class Event:
    """Something at `at_ms` (epoch milliseconds)."""

    at_ms: int


@dataclass(frozen=True)
class Case(Event):
    """A finished service session; `at_ms` is its end. `number` counts the terminal's cases from 1 and serves as its random id's seed."""

    number: int
    began_ms: int
    item: str
    channel: Channel
    outcome: Outcome
    cause: Cause
    pages: int
    slips: int

    @property
    def duration_ms(self) -> int:
        return self.at_ms - self.began_ms


@dataclass(frozen=True)
class Rated(Event):
    """A satisfaction key: 5 best, 0 asked and not answered. `case_number` links it to a session of the same terminal."""

    level: int
    slot: str | None
    case_number: int | None


@dataclass(frozen=True)
class PadKey(Event):
    """A clerk's key; `action` in the words of queue records."""

    slot: str
    action: str


@dataclass(frozen=True)
class Refilled(Event):
    slot: str
    item: Literal["paper", "roll", "toner"]
    capacity: int
    unit: Literal["sheet", "mm", "percent"]


@dataclass(frozen=True)
class FaultOpened(Event):
    """`episode` counts the terminal's faults from 1; the clear carries the same number."""

    episode: int
    code: str
    slot: str | None


@dataclass(frozen=True)
class FaultCleared(Event):
    episode: int
    code: str
    slot: str | None
    since_ms: int


@dataclass(frozen=True)
class WentOffline(Event):
    reason: Literal["closed", "timeout", "dns"]


@dataclass(frozen=True)
class CameOnline(Event):
    attempts: int


@dataclass(frozen=True)
class SlotTotal:
    """Jobs of one device in a day; `lifetime` is the unit's own counter at the end of it."""

    slot: str
    total: int
    failed: int
    lifetime: int

    @property
    def ok(self) -> int:
        return self.total - self.failed


@dataclass(frozen=True)
class DaySummary:
    """The day as a whole: seconds in which the terminal could serve, in part, not at all; they add up to the day."""

    from_ms: int
    to_ms: int
    usable_s: int
    partial_s: int
    unusable_s: int
    in_use_s: int
    slots: tuple[SlotTotal, ...]


@dataclass(frozen=True)
class OpenFault:
    """A fault that the end of the day finds open."""

    episode: int
    code: str
    slot: str | None
    since_ms: int
    until_ms: int


@dataclass(frozen=True)
class DayHistory:
    """One terminal, one day, events in time order."""

    terminal_id: str
    day: date
    events: tuple[Event, ...]
    summary: DaySummary
    open_at_end: tuple[OpenFault, ...]

    @property
    def record_count(self) -> int:
        """Records this day becomes: one each, and two summaries (counters and serviceability)."""
        return len(self.events) + SUMMARY_RECORDS


SUMMARY_RECORDS = 2

# --------------------------------------------------------------------------------------------------------------------------- faults


@dataclass(frozen=True)
class Trouble:
    """A kind of fault: how often, who repairs it and how long that takes (median minutes of staff time, or of the clock for `self`)."""

    code: str
    slot: str | None
    per_day: float
    repair: Literal["manager", "engineer", "parts", "self"]
    minutes: float
    blocks: bool = True
    """Cases that need the device fail."""
    simulated_as: str | None = None
    """Fault of the simulated device that shows this code."""


_MANAGER: Final = "manager"
_ENGINEER: Final = "engineer"
_PARTS: Final = "parts"
_SELF: Final = "self"
TROUBLES: tuple[Trouble, ...] = (
    Trouble("PRN.PAPER_OUT", "receipt-printer", 0.0, _MANAGER, 40, simulated_as="paper-out"),
    Trouble("PRN.PAPER_NEAR_END", "receipt-printer", 0.0, _MANAGER, 600, blocks=False, simulated_as="paper-low"),
    Trouble("PRN.JAM", "receipt-printer", 0.0004, _MANAGER, 60, simulated_as="jam"),
    Trouble("PRN.CUTTER", "receipt-printer", 0.0003, _ENGINEER, 240, simulated_as="cutter"),
    Trouble("PRN.COVER_OPEN", "receipt-printer", 0.0008, _SELF, 4, simulated_as="cover-open"),
    Trouble("PRN.UNPLUGGED", "receipt-printer", 0.0004, _MANAGER, 90, simulated_as="unplug"),
    Trouble("LSR.PAPER_OUT", "laser-printer", 0.0, _MANAGER, 35, simulated_as="paper-out"),
    Trouble("LSR.TONER_LOW", "laser-printer", 0.0, _ENGINEER, 900, blocks=False, simulated_as="toner-low"),
    Trouble("LSR.JAM", "laser-printer", 0.0018, _MANAGER, 70, simulated_as="jam"),
    Trouble("LSR.COVER_OPEN", "laser-printer", 0.0010, _SELF, 5, simulated_as="cover-open"),
    Trouble("LSR.HARDWARE", "laser-printer", 0.0002, _PARTS, 900, simulated_as="fuser"),
    Trouble("IDR.UNPLUGGED", "id-reader", 0.0008, _MANAGER, 80, simulated_as="unplug"),
    Trouble("IDR.SELF_TEST", "id-reader", 0.0003, _PARTS, 900, simulated_as="sam-failure"),
    Trouble("IDR.READ_FAIL_RATE", "id-reader", 0.0005, _ENGINEER, 300, blocks=False),
    Trouble("SCN.UNPLUGGED", "scanner", 0.0009, _MANAGER, 80, simulated_as="unplug"),
    Trouble("SCN.MODE_CHANGED", "scanner", 0.0003, _ENGINEER, 200, simulated_as="mode-switched"),
    Trouble("KPD.STUCK_KEY", "keypad", 0.0003, _ENGINEER, 240, simulated_as="stuck-key"),
    Trouble("EVA.UNPLUGGED", "evaluator", 0.0008, _MANAGER, 120, simulated_as="unplug"),
    Trouble("EVA.STUCK_KEY", "evaluator", 0.0003, _ENGINEER, 240, simulated_as="stuck-key"),
    Trouble("CAL.NO_REPLY", "call-pad", 0.0030, _MANAGER, 60, simulated_as="silence"),
    Trouble("ENV.DOOR_OPEN", "door", 0.0030, _SELF, 12, blocks=False, simulated_as="door-open"),
    Trouble("ENV.TEMP", "climate", 0.0010, _ENGINEER, 180, blocks=False, simulated_as="too-hot"),
    Trouble("APP.HANG", None, 0.0016, _MANAGER, 40),
    Trouble("PWR.UNEXPECTED_REBOOT", None, 0.0020, _SELF, 10, blocks=False),
)
BY_CODE: Mapping[str, Trouble] = {trouble.code: trouble for trouble in TROUBLES}
OPTIONAL_SLOTS = frozenset({"evaluator", "keypad", "door", "climate"})

TRAY_SHEETS, ROLL_MM, CARTRIDGE_PAGES = 250, 80_000, 1500
SLIP_MM, TICKET_MM = 220, 130
ROLL_LOW_MM, TONER_LOW_PAGES = 8_000, 150

# ---------------------------------------------------------------------------------------------------------------------------- demand

_HOUR_WEIGHTS = (
    2, 1, 1, 1, 1, 3, 8, 20, 70, 130, 125, 95, 40, 60, 105, 110, 90, 55, 40, 36, 28, 18, 9, 4,
)  # fmt: skip
"""Demand by hour of the day where a place is open all the time; noon dips."""
_DAY_WEIGHTS: Mapping[DayKind, float] = {DayKind.WORKDAY: 1.0, DayKind.WEEKEND: 0.7, DayKind.HOLIDAY: 0.4}
_WEEKDAY_WEIGHTS = (1.15, 1.05, 1.0, 0.95, 0.95, 1.0, 0.9)
_REFERENCE_YEAR = tuple(date(2026, 1, 1) + timedelta(days=number) for number in range(365))


@cache
def _day_factor(hours: Hours, day: date) -> float:
    """How much busier than the mean of a year this day is at a place with these hours; 0 when it is closed."""
    return _raw_factor(hours, day) / _mean_factor(hours)


@cache
def _mean_factor(hours: Hours) -> float:
    return sum(_raw_factor(hours, day) for day in _REFERENCE_YEAR) / len(_REFERENCE_YEAR)


def _raw_factor(hours: Hours, day: date) -> float:
    spans = hours.spans(day)
    if not spans:
        return 0.0
    share = sum(_HOUR_WEIGHTS[minute // 60] for minute in _minutes(spans)) / (60 * sum(_HOUR_WEIGHTS))
    return share * _DAY_WEIGHTS[day_kind(day)] * _WEEKDAY_WEIGHTS[day.weekday()]


@cache
def _minute_table(spans: tuple[tuple[int, int], ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Quarter hours in which somebody can come, with cumulated weights."""
    starts, total, cumulated = [], 0.0, []
    for minute in _minutes(spans):
        if minute % 15 == 0:
            total += _HOUR_WEIGHTS[minute // 60]
            starts.append(minute)
            cumulated.append(total)
    return tuple(starts), tuple(cumulated)


def _minutes(spans: tuple[tuple[int, int], ...]) -> Iterator[int]:
    for start, end in spans:
        yield from range(start, end)


_ITEM_WEIGHTS = tuple(item.weight for item in ITEMS)
_RATING_LEVELS, _RATING_WEIGHTS = (5, 4, 3, 2, 1), (9300, 560, 115, 15, 10)
RATED_SHARE, UNANSWERED_SHARE = 0.35, 0.04

# --------------------------------------------------------------------------------------------------------------------------- history


def fleet_day(histories: Mapping[str, Iterator[DayHistory]]) -> list[DayHistory]:
    """The next day of every terminal of `fleet_history`."""
    return [next(history) for history in histories.values()]


def fleet_history(
    fleet: FleetPlan, first_day: date, days: int, *, seed: int = 1, settle: bool = False
) -> dict[str, Iterator[DayHistory]]:
    """One lazy history per terminal id."""
    return {plan.id: terminal_history(plan, first_day, days, seed=seed, settle=settle) for plan in fleet.terminals}


def terminal_history(
    plan: TerminalPlan, first_day: date, days: int, *, seed: int = 1, settle: bool = False
) -> Iterator[DayHistory]:
    """`days` days of one terminal. `settle`: everything is repaired and online by the end of the last day."""
    state = _State.new(plan, seed)
    for number in range(days):
        day = first_day + timedelta(days=number)
        yield _Day(plan, state, day, random.Random(f"day {seed} {plan.id} {day}"), settle=settle and number == days - 1).run()


@dataclass
class _State:
    """What one day hands to the next."""

    sheets: int
    roll_mm: float
    toner_pages: int
    lifetime: dict[str, int]
    open_faults: dict[int, OpenFault] = field(default_factory=dict)
    offline_until_ms: int | None = None
    cases: int = 0
    episodes: int = 0

    @classmethod
    def new(cls, plan: TerminalPlan, seed: int) -> _State:
        choice = random.Random(f"start {seed} {plan.id}")
        lifetime = {slot: choice.randrange(200, 60_000) for slot in ("laser-printer", "receipt-printer", "id-reader", "scanner")}
        return cls(
            sheets=choice.randrange(40, TRAY_SHEETS),
            roll_mm=choice.uniform(0.08, 1.0) * ROLL_MM,
            toner_pages=choice.randrange(120, CARTRIDGE_PAGES),
            lifetime=lifetime,
        )


class _Day:
    """Lives through one day of one terminal."""

    def __init__(self, plan: TerminalPlan, state: _State, day: date, choice: random.Random, *, settle: bool) -> None:
        self._plan = plan
        self._state = state
        self._day = day
        self._choice = choice
        self._settle = settle
        self._start = midnight_ms(day)
        self._end = self._start + DAY_MS
        self._spans = plan.site.hours.spans(day)
        self._slots = _slots_of(plan)
        self._events: list[Event] = []
        self._down: list[tuple[int, int, bool]] = []
        """Fault spans of this day: start, end, whether the terminal as a whole is out."""
        self._totals: dict[str, list[int]] = {}
        self._offline: list[tuple[int, int]] = []

    def run(self) -> DayHistory:
        self._clear_what_is_repaired()
        self._network()
        self._troubles()
        if self._plan.kind == "call-pads":
            self._tickets()
        else:
            self._cases()
        self._close_day()
        self._events.sort(key=lambda event: event.at_ms)
        return DayHistory(self._plan.id, self._day, tuple(self._events), self._summary(), tuple(self._state.open_faults.values()))

    # ------------------------------------------------------------------ faults

    def _clear_what_is_repaired(self) -> None:
        for fault in list(self._state.open_faults.values()):
            self._clear_if_today(fault)

    def _clear_if_today(self, fault: OpenFault) -> None:
        if self._settle and fault.until_ms >= self._end:
            fault = OpenFault(
                fault.episode, fault.code, fault.slot, fault.since_ms, max(fault.since_ms, self._end - 30 * MINUTE_MS)
            )
        from_ms, to_ms = max(fault.since_ms, self._start), min(fault.until_ms, self._end)
        trouble = BY_CODE[fault.code]
        if trouble.blocks and to_ms > from_ms:
            self._down.append((from_ms, to_ms, fault.slot is None or _family(fault.slot) not in OPTIONAL_SLOTS))
        if fault.until_ms < self._end:
            self._state.open_faults.pop(fault.episode, None)
            self._events.append(FaultCleared(fault.until_ms, fault.episode, fault.code, fault.slot, fault.since_ms))
            self._refill_after(fault)
        else:
            self._state.open_faults[fault.episode] = fault

    def _refill_after(self, fault: OpenFault) -> None:
        if fault.code == "LSR.PAPER_OUT":
            self._refill("laser-printer", "paper", TRAY_SHEETS, "sheet", fault.until_ms)
            self._state.sheets = TRAY_SHEETS
        elif fault.code in ("PRN.PAPER_OUT", "PRN.PAPER_NEAR_END"):
            self._refill("receipt-printer", "roll", ROLL_MM, "mm", fault.until_ms)
            self._state.roll_mm = ROLL_MM
        elif fault.code == "LSR.TONER_LOW":
            self._refill("laser-printer", "toner", 100, "percent", fault.until_ms)
            self._state.toner_pages = CARTRIDGE_PAGES

    def _refill(
        self,
        slot: str,
        item: Literal["paper", "roll", "toner"],
        capacity: int,
        unit: Literal["sheet", "mm", "percent"],
        at_ms: int,
    ) -> None:
        self._events.append(Refilled(at_ms, slot, item, capacity, unit))

    def _open(self, code: str, slot: str | None, at_ms: int) -> None:
        """One fault of a code and slot at a time."""
        if any((fault.code, fault.slot) == (code, slot) for fault in self._state.open_faults.values()):
            return
        self._state.episodes += 1
        until_ms = max(at_ms + MINUTE_MS, self._repaired_at(BY_CODE[code], at_ms))
        fault = OpenFault(self._state.episodes, code, slot, at_ms, until_ms)
        self._events.append(FaultOpened(at_ms, fault.episode, code, slot))
        self._clear_if_today(fault)

    def _repaired_at(self, trouble: Trouble, at_ms: int) -> int:
        minutes = trouble.minutes * self._choice.lognormvariate(0, 0.6)
        if trouble.repair == "self":
            return int(at_ms + minutes * MINUTE_MS)
        return after_staff_minutes(at_ms, minutes)

    def _troubles(self) -> None:
        for trouble in TROUBLES:
            places = self._slots.get(trouble.slot, ()) if trouble.slot else (None,)
            for place in places:
                if trouble.per_day and self._choice.random() < trouble.per_day:
                    at_ms = self._start + self._choice.randrange(6 * 60, 22 * 60) * MINUTE_MS + self._choice.randrange(MINUTE_MS)
                    if at_ms < self._end:
                        self._open(trouble.code, place, at_ms)
        tray_is_watched = day_kind(self._day) is DayKind.WORKDAY and self._choice.random() < 0.03
        if tray_is_watched and "laser-printer" in self._slots and self._state.sheets < 80:
            self._refill("laser-printer", "paper", TRAY_SHEETS, "sheet", self._start + 9 * 60 * MINUTE_MS)
            self._state.sheets = TRAY_SHEETS

    def _is_blocked(self, slot: str, at_ms: int) -> bool:
        """A device (or the terminal) cannot work at this moment."""
        for fault in self._state.open_faults.values():
            if fault.slot in (None, slot) and BY_CODE[fault.code].blocks and fault.since_ms <= at_ms < fault.until_ms:
                return True
        return any(
            isinstance(event, FaultCleared)
            and event.slot in (None, slot)
            and BY_CODE[event.code].blocks
            and event.since_ms <= at_ms < event.at_ms
            for event in self._events
        )

    # ------------------------------------------------------------------ network

    def _network(self) -> None:
        if self._state.offline_until_ms is not None:
            self._back_online(self._start, self._state.offline_until_ms)
        elif self._choice.random() < (0.10 if self._plan.kind == "van" else 0.012):
            at_ms = self._start + self._choice.randrange(DAY_MS - MINUTE_MS)
            minutes = min(26 * 60.0, self._choice.lognormvariate(math.log(25), 1.2))
            reason: Literal["closed", "timeout", "dns"] = self._choice.choice(("timeout", "timeout", "closed", "dns"))
            self._events.append(WentOffline(at_ms, reason))
            self._back_online(at_ms, int(at_ms + minutes * MINUTE_MS))

    def _back_online(self, from_ms: int, until_ms: int) -> None:
        if self._settle:
            until_ms = min(until_ms, self._end - 20 * MINUTE_MS)
            until_ms = max(until_ms, from_ms + 1)
        self._offline.append((from_ms, min(until_ms, self._end)))
        self._state.offline_until_ms = None
        if until_ms < self._end:
            self._events.append(CameOnline(until_ms, max(1, (until_ms - from_ms) // (2 * MINUTE_MS))))
        else:
            self._state.offline_until_ms = until_ms

    # ------------------------------------------------------------------ cases

    def _cases(self) -> None:
        expected = self._plan.cases_per_day * _day_factor(self._plan.site.hours, self._day)
        moments = sorted(self._moment() for _ in range(_poisson(self._choice, expected)))
        free_from = self._start
        for moment in moments:
            began_ms = max(moment, free_from)
            ended_ms = self._case(began_ms)
            if ended_ms is not None:
                free_from = ended_ms + 20_000

    def _case(self, began_ms: int) -> int | None:
        """One citizen; None if they left without starting, else the end of the case."""
        item = self._choice.choices(ITEMS, _ITEM_WEIGHTS)[0]
        minutes = item.minutes * self._choice.lognormvariate(0, 0.35)
        needed = [slot for slot, wanted in self._needs(item) if wanted]
        blocked = next((slot for slot in needed if self._is_blocked(slot, began_ms)), None)
        offline = any(start <= began_ms < end for start, end in self._offline)
        if (blocked or offline) and self._choice.random() < 0.6:
            return None
        outcome, cause = self._outcome(blocked=blocked is not None, offline=offline)
        if outcome != "success":
            minutes *= 0.6
        ended_ms = min(int(began_ms + max(0.4, minutes) * MINUTE_MS), self._end - 1000)
        if ended_ms <= began_ms:
            return None
        done = outcome == "success"
        self._state.cases += 1
        pages, slips = (item.pages, int(item.slip)) if done else (0, 0)
        channel = self._channel(item)
        self._events.append(Case(ended_ms, self._state.cases, began_ms, item.code, channel, outcome, cause, pages, slips))
        self._wear(item, blocked, done=done, at_ms=ended_ms, scanned=channel == "scan")
        if done:
            self._rate(ended_ms, self._state.cases)
        return ended_ms

    def _needs(self, item: Item) -> list[tuple[str, bool]]:
        return [
            ("id-reader", item.needs_id and "id-reader" in self._slots),
            ("laser-printer", item.pages > 0 and "laser-printer" in self._slots),
            ("receipt-printer", item.slip and "receipt-printer" in self._slots),
        ]

    def _outcome(self, *, blocked: bool, offline: bool) -> tuple[Outcome, Cause]:
        if blocked:
            return "failed", "device"
        if offline:
            return "failed", "network"
        draw = self._choice.random()
        if draw < 0.972:
            return "success", "none"
        if draw < 0.984:
            return "failed", "backend"
        if draw < 0.986:
            return "failed", "network"
        return ("abandoned", "citizen") if draw < 0.994 else ("abandoned", "lease")

    def _channel(self, item: Item) -> Channel:
        if self._plan.kind == "booth":
            return "assist"
        scans = 0.25 if not item.needs_id and "scanner" in self._slots else 0.08
        return "scan" if self._choice.random() < scans else "touch"

    def _wear(self, item: Item, blocked: str | None, *, done: bool, at_ms: int, scanned: bool) -> None:
        """Count jobs and use up paper and toner; what runs out becomes a fault."""
        for slot, wanted in self._needs(item):
            if wanted and (done or slot in ("id-reader", blocked)):
                self._count(slot, item.pages if slot == "laser-printer" and done else 1, failed=slot == blocked)
        if scanned:
            self._count("scanner", 1, failed=False)
        if done and item.pages and "laser-printer" in self._slots:
            self._state.sheets -= item.pages
            self._state.toner_pages -= item.pages
            if self._state.sheets <= 0:
                self._open("LSR.PAPER_OUT", "laser-printer", at_ms)
            if self._state.toner_pages < TONER_LOW_PAGES:
                self._open("LSR.TONER_LOW", "laser-printer", at_ms)
        if done and item.slip and "receipt-printer" in self._slots:
            self._use_roll(SLIP_MM, at_ms)

    def _use_roll(self, length_mm: int, at_ms: int) -> None:
        self._state.roll_mm -= length_mm
        if self._state.roll_mm <= 0:
            self._open("PRN.PAPER_OUT", "receipt-printer", at_ms)
        elif self._state.roll_mm < ROLL_LOW_MM:
            self._open("PRN.PAPER_NEAR_END", "receipt-printer", at_ms)

    def _rate(self, ended_ms: int, case_number: int) -> None:
        slot = "evaluator" if "evaluator" in self._slots else None
        if slot is not None and self._is_blocked(slot, ended_ms):
            return
        draw = self._choice.random()
        at_ms = min(ended_ms + self._choice.randrange(2_000, 9_000), self._end - 1)
        if draw < RATED_SHARE:
            self._events.append(Rated(at_ms, self._choice.choices(_RATING_LEVELS, _RATING_WEIGHTS)[0], slot, case_number))
        elif draw < RATED_SHARE + UNANSWERED_SHARE:
            self._events.append(Rated(at_ms, 0, slot, case_number))

    # ------------------------------------------------------------------ call pads

    def _tickets(self) -> None:
        if not self._spans:
            return
        share = 1.0 if day_kind(self._day) is DayKind.WORKDAY else 0.35
        expected = self._plan.tickets_per_workday * share * _WEEKDAY_WEIGHTS[self._day.weekday()]
        for moment in sorted(self._moment() for _ in range(_poisson(self._choice, expected))):
            if self._is_blocked("receipt-printer", moment):
                continue
            self._count("receipt-printer", 1, failed=False)
            self._use_roll(TICKET_MM, moment)
            slot = self._choice.choice(self._slots["call-pad"])
            if not self._is_blocked(slot, moment):
                self._serve(slot, moment)

    def _serve(self, slot: str, at_ms: int) -> None:
        """Call, maybe again, then serve, drop or pass on; a rating at the end."""
        choice = self._choice
        self._key(slot, "callNext", at_ms)
        if choice.random() < 0.12:
            at_ms += choice.randrange(20_000, 60_000)
            self._key(slot, "recall", at_ms)
        draw = choice.random()
        if draw < 0.05:
            self._key(slot, "drop", at_ms + choice.randrange(20_000, 60_000))
            return
        at_ms += int(choice.lognormvariate(math.log(7), 0.5) * MINUTE_MS)
        if draw < 0.07:
            self._key(slot, "transfer", at_ms)
        elif draw < 0.65:
            self._key(slot, "evaluate", at_ms)
            answered = choice.random() < 0.85
            level = choice.choices(_RATING_LEVELS, _RATING_WEIGHTS)[0] if answered else 0
            waited_ms = choice.randrange(2_000, 7_000) if answered else 8_000
            if at_ms + waited_ms < self._end:
                self._events.append(Rated(at_ms + waited_ms, level, slot, None))

    def _key(self, slot: str, action: str, at_ms: int) -> None:
        if at_ms < self._end:
            self._events.append(PadKey(at_ms, slot, action))

    # ------------------------------------------------------------------ end of day

    def _moment(self) -> int:
        starts, cumulated = _minute_table(self._spans)
        minute = self._choice.choices(starts, cum_weights=cumulated)[0]
        return self._start + minute * MINUTE_MS + self._choice.randrange(15 * MINUTE_MS)

    def _count(self, slot: str, jobs: int, *, failed: bool) -> None:
        total = self._totals.setdefault(slot, [0, 0])
        total[0] += jobs
        total[1] += jobs if failed else 0
        self._state.lifetime[slot] = self._state.lifetime.get(slot, 0) + (0 if failed else jobs)

    def _close_day(self) -> None:
        """What was opened late on a settled day is over before midnight."""
        if self._settle:
            for fault in list(self._state.open_faults.values()):
                self._state.open_faults.pop(fault.episode)
                self._events.append(FaultCleared(self._end - MINUTE_MS, fault.episode, fault.code, fault.slot, fault.since_ms))

    def _summary(self) -> DaySummary:
        unusable_ms = _covered([(start, end) for start, end, whole in self._down if whole])
        any_ms = _covered([(start, end) for start, end, _ in self._down])
        in_use_ms = sum(event.duration_ms for event in self._events if isinstance(event, Case))
        unusable_s, any_s = unusable_ms // 1000, any_ms // 1000
        slots = tuple(
            SlotTotal(slot, total, failed, self._state.lifetime.get(slot, 0))
            for slot, (total, failed) in sorted(self._totals.items())
        )
        day_s = DAY_MS // 1000
        return DaySummary(self._start, self._end, day_s - any_s, any_s - unusable_s, unusable_s, in_use_ms // 1000, slots)


@cache
def _kinds_of(kind: str, has_sensors: bool, windows: int) -> Mapping[str, tuple[str, ...]]:
    names = {
        "kiosk": ("id-reader", "laser-printer", "receipt-printer", "scanner", "keypad", "evaluator"),
        "call-pads": ("receipt-printer",),
        "booth": ("id-reader", "laser-printer", "receipt-printer", "scanner", "evaluator"),
        "desk": ("id-reader", "laser-printer", "scanner", "evaluator"),
        "van": ("id-reader", "laser-printer", "scanner"),
    }[kind]
    slots: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
    if has_sensors:
        slots["climate"] = ("climate",)
        if kind != "van":
            slots["door"] = ("door",)
    if windows:
        slots["call-pad"] = tuple(f"call-pad-{number}" for number in range(1, windows + 1))
    return slots


def _slots_of(plan: TerminalPlan) -> Mapping[str, tuple[str, ...]]:
    """Places of the terminal by kind of device; the same that `TerminalPlan.build` makes."""
    return _kinds_of(plan.kind, plan.has_sensors, plan.windows)


def _family(slot: str) -> str:
    return slot.rstrip("0123456789-") if slot.startswith("call-pad") else slot


def _covered(spans: list[tuple[int, int]]) -> int:
    """Length of the union of spans."""
    total, reached = 0, -1
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _poisson(choice: random.Random, mean: float) -> int:
    """Knuth's method; means here are below 40."""
    limit, product, count = math.exp(-mean), choice.random(), 0
    while product > limit:
        product *= choice.random()
        count += 1
    return count
