"""A simulated past as records: what an agent at each terminal would have captured, day by day, with the times at which it would have.

Pure: values in, values out. Whoever owns an outbox captures them under a clock that stands in that day, one transaction a day; from there they take
the same signed road as everything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date

from protocols.canon.faults import fault
from protocols.contract import records
from simulators.population import DIVISIONS, TerminalPlan
from simulators.traffic import (
    BY_CODE,
    CameOnline,
    Case,
    DayHistory,
    DaySummary,
    Event,
    FaultCleared,
    FaultOpened,
    PadKey,
    Rated,
    Refilled,
    WentOffline,
    terminal_history,
)
from simulators.workdays import MINUTE_MS


@dataclass(frozen=True, slots=True)
class Told:
    """One record's body and the wall time of its capture."""

    at_ms: int
    body: records.Body


@dataclass(frozen=True, slots=True)
class DayRecords:
    """All records of one terminal and day, in time order; `closes_ms` is when the last of them is sealed."""

    day: date
    closes_ms: int
    told: tuple[Told, ...]


@dataclass(frozen=True)
class Inventory:
    """Places of a terminal and whether each is required; what happened at other places is left out of its history."""

    slots: frozenset[str]
    mandatory: frozenset[str]

    def has(self, slot: str | None) -> bool:
        return slot is None or slot in self.slots

    def requires(self, slot: str | None) -> bool:
        """A fault of the terminal itself counts as mandatory."""
        return slot is None or slot in self.mandatory


def inventory_of(plan: TerminalPlan, *, serial_only: bool = False) -> Inventory:
    places = plan.build(serial_only=serial_only).ports()
    return Inventory(
        frozenset(str(place["slot"]) for place in places), frozenset(str(place["slot"]) for place in places if place["mandatory"])
    )


def recorded_past(
    plan: TerminalPlan, inventory: Inventory, first_day: date, until_ms: int, days: int, *, seed: int = 1
) -> Iterator[DayRecords]:
    """`days` whole days and what of the next lies before `until_ms`; what is open then is cleared a minute earlier: the present starts clean."""
    for day in terminal_history(plan, first_day, days + 1, seed=seed):
        if day.summary.to_ms <= until_ms:
            yield day_records(plan, inventory, day, seed=seed)
        else:
            yield _broken_off(plan, inventory, day, until_ms, seed)


def day_records(plan: TerminalPlan, inventory: Inventory, day: DayHistory, *, seed: int = 1) -> DayRecords:
    told = [*_events(plan, inventory, day.events, seed), *_trip(plan, inventory, day, seed)]
    told = [*sorted(told, key=lambda one: one.at_ms), *_summaries(inventory, day.summary)]
    return DayRecords(day.day, day.summary.to_ms, tuple(told))


def _broken_off(plan: TerminalPlan, inventory: Inventory, day: DayHistory, until_ms: int, seed: int) -> DayRecords:
    """A day that ends early: no summary, and nothing stays open."""
    events = [event for event in day.events if event.at_ms < until_ms - 2 * MINUTE_MS]
    closing_ms = until_ms - MINUTE_MS
    open_now: dict[int, tuple[str, str | None, int]] = {}
    for fault_open in day.open_at_end:
        if fault_open.since_ms < closing_ms:
            open_now[fault_open.episode] = (fault_open.code, fault_open.slot, fault_open.since_ms)
    for later in day.events:
        if isinstance(later, FaultCleared) and later.at_ms >= until_ms - 2 * MINUTE_MS and later.since_ms < closing_ms:
            open_now[later.episode] = (later.code, later.slot, later.since_ms)
    opened_late = {event.episode for event in day.events if isinstance(event, FaultOpened) and event not in events}
    for episode, (code, slot, since_ms) in sorted(open_now.items()):
        if episode not in opened_late:
            events.append(FaultCleared(closing_ms, episode, code, slot, since_ms))
    told = [*_events(plan, inventory, tuple(events), seed), Told(until_ms, _service_until(inventory, day, events, until_ms))]
    return DayRecords(day.day, until_ms, tuple(told))


def _service_until(inventory: Inventory, day: DayHistory, events: Collection[Event], until_ms: int) -> records.Serviceability:
    """How well the terminal could serve from midnight on, by the faults that the records tell of."""
    from_ms = day.summary.from_ms
    down = [
        (max(from_ms, event.since_ms), event.at_ms, inventory.requires(event.slot))
        for event in events
        if isinstance(event, FaultCleared) and inventory.has(event.slot) and BY_CODE[event.code].blocks
    ]
    whole_s = _covered([(start, end) for start, end, required in down if required]) // 1000
    any_s = _covered([(start, end) for start, end, _ in down]) // 1000
    in_use_ms = sum(event.duration_ms for event in events if isinstance(event, Case))
    span_s = (until_ms - from_ms) // 1000
    return records.Serviceability(
        from_ms=from_ms,
        to_ms=until_ms,
        observed_s=span_s,
        usable_s=span_s - any_s,
        partial_s=any_s - whole_s,
        unusable_s=whole_s,
        in_use_s=in_use_ms // 1000,
    )


def _covered(spans: list[tuple[int, int]]) -> int:
    """Milliseconds of the union of spans."""
    total, reached = 0, -1
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _events(plan: TerminalPlan, inventory: Inventory, events: Collection[Event], seed: int) -> Iterator[Told]:
    for event in events:
        body = _body(plan, inventory, event, seed)
        if body is not None:
            yield Told(event.at_ms, body)


def _body(plan: TerminalPlan, inventory: Inventory, event: Event, seed: int) -> records.Body | None:
    match event:
        case Case():
            return records.Session(
                id=_id(plan, seed, "case", event.number)[:16],
                item=event.item,
                channel=event.channel,
                outcome=event.outcome,
                cause=event.cause,
                began_ms=event.began_ms,
                duration_ms=event.duration_ms,
            )
        case Rated():
            session = None if event.case_number is None else _id(plan, seed, "case", event.case_number)[:16]
            slot = event.slot if inventory.has(event.slot) else None
            return records.Rating(level=event.level, channel="evaluator" if slot else "terminal", slot=slot, session=session)
        case PadKey():
            return records.Queue(slot=event.slot, action=event.action) if inventory.has(event.slot) else None  # type: ignore[arg-type]  # PadKey speaks in the words of queue records
        case Refilled():
            return _refill(event) if inventory.has(event.slot) else None
        case FaultOpened():
            return _fault(plan, inventory, event, event.at_ms, "open", seed)
        case FaultCleared():
            return _fault(plan, inventory, event, event.since_ms, "clear", seed)
        case WentOffline():
            return records.Link(state="down", reason=event.reason)
        case CameOnline():
            return records.Link(state="up", reason="connected", attempts=event.attempts)
    return None


def _refill(event: Refilled) -> records.Consumable:
    return records.Consumable(
        slot=event.slot,
        item=event.item,
        event="refill",
        remaining=event.capacity,
        capacity=event.capacity,
        unit=event.unit,
        source="manual",
    )


def _fault(
    plan: TerminalPlan, inventory: Inventory, event: FaultOpened | FaultCleared, since_ms: int, change: str, seed: int
) -> records.Fault | None:
    if not inventory.has(event.slot):
        return None
    return records.Fault(
        id=_id(plan, seed, "fault", event.episode)[:8],
        code=event.code,
        change="open" if change == "open" else "clear",
        severity=fault(event.code).severity,
        slot=event.slot,
        mandatory=inventory.requires(event.slot),
        since_ms=since_ms,
    )


def _summaries(inventory: Inventory, summary: DaySummary) -> Iterator[Told]:
    slots = tuple(
        records.SlotCount(slot=slot.slot, total=slot.total, ok=slot.ok, failed=slot.failed, lifetime=slot.lifetime)
        for slot in summary.slots
        if inventory.has(slot.slot)
    )
    if slots:
        yield Told(summary.to_ms, records.Counters(from_ms=summary.from_ms, to_ms=summary.to_ms, slots=slots))
    yield Told(
        summary.to_ms,
        records.Serviceability(
            from_ms=summary.from_ms,
            to_ms=summary.to_ms,
            observed_s=summary.usable_s + summary.partial_s + summary.unusable_s,
            usable_s=summary.usable_s,
            partial_s=summary.partial_s,
            unusable_s=summary.unusable_s,
            in_use_s=summary.in_use_s,
        ),
    )


OUT_FROM_MS, STOP_MS, STOPS = 9 * 60 * MINUTE_MS, 150 * MINUTE_MS, 3
PLACE_EVERY_MS = 20 * MINUTE_MS
"""Less often than an agent may tell, which is enough to see a year's stops."""


def _trip(plan: TerminalPlan, inventory: Inventory, day: DayHistory, seed: int) -> Iterator[Told]:
    """Where a van stood on a day on which it served: three towns one after the other, silent while somebody is served."""
    cases = [(event.began_ms, event.began_ms + event.duration_ms) for event in day.events if isinstance(event, Case)]
    if plan.kind != "van" or not inventory.has("gps") or not cases:
        return
    first = int.from_bytes(_id(plan, seed, "trip", day.day.toordinal())[:4], "big")
    for stop in range(STOPS):
        town = DIVISIONS[(first + stop) % len(DIVISIONS)]
        arrived_ms = day.summary.from_ms + OUT_FROM_MS + stop * STOP_MS
        for at_ms in range(arrived_ms, arrived_ms + STOP_MS - PLACE_EVERY_MS, PLACE_EVERY_MS):
            if not any(began_ms <= at_ms <= ended_ms for began_ms, ended_ms in cases):
                place = records.Position(
                    slot="gps", lat_e4=round(town.lat * 1000) * 10, lon_e4=round(town.lon * 1000) * 10, fix="gps", satellites=11
                )
                yield Told(at_ms, place)


def _id(plan: TerminalPlan, seed: int, what: str, number: int) -> bytes:
    """Random enough, and the same whenever the same past is made again."""
    return hashlib.sha256(f"{what} {seed} {plan.id} {number}".encode()).digest()
