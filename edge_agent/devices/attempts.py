"""What became of attempts to read cards, over visits and hours: faults that no single answer proves. Pure; counts only, nothing of a card.

A reader whose antenna is broken answers every health question well. It shows in what applications meet: cards that are found and then not read, or
hours in which people tried and no card was found. That no card is found is no evidence by itself: after a good read a card must leave the field
before it is found again, and an application may look for cards all day while nobody comes. So an hour tells something only if people were there: the
application looked for a card in several separate visits, or says itself that somebody tried in vain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import msgspec

from edge_agent.clock import ClockReading
from edge_agent.devices.window import RateWindow
from edge_agent.faults import Condition
from protocols.canon.faults import FAULTS

VISIT_GAP_MS = 10_000
"""Somebody who lifts the card and lays it down again is one visit; the next person is another."""
HOUR_MS = 3_600_000
KEEP_HOURS = 14 * 24
TELLING_VISITS = 3
"""Separate looks for a card within an hour from which it tells something."""
SILENT_HOURS, SILENT_VISITS = 8, 24
"""A working day without a single card found, and so many visits in it."""
KEEP_OUTCOMES = 40
FAIL_SHARE, AUTH_SHARE = 0.3, 0.2
LEAST_FAILED = 5

Outcome = Literal["ok", "weak", "refused"]


class Met(StrEnum):
    """What one answer to an application's step meant."""

    NONE = "none"
    """No card was found."""
    FOUND = "found"
    OK = "ok"
    """It was read (or answered its reset)."""
    WEAK = "weak"
    """It was there and then not selected, not read, mute: too far, worn, or a weak field."""
    REFUSED = "refused"
    """Card and module do not accept each other, or the module does not know the card."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A share of ended visits. `least`: visits that ended so, at least."""

    outcome: Outcome
    share: float
    tail: str
    least: int = LEAST_FAILED


RULES = (Rule("weak", FAIL_SHARE, "READ_FAIL_RATE"), Rule("refused", AUTH_SHARE, "AUTH_FAIL_RATE"))


class Hour(msgspec.Struct, kw_only=True):
    """One hour of the wall clock."""

    hour: int
    visits: int = 0
    in_vain: int = 0
    """Times that the application itself says somebody tried and nothing came of it."""
    found: int = 0
    """Cards found, or uses that went well."""

    @property
    def tells(self) -> bool:
        return self.found > 0 or self.in_vain > 0 or self.visits >= TELLING_VISITS


class _Visit(msgspec.Struct, kw_only=True):
    last_ms: int
    found: bool = False
    outcome: Outcome | None = None


class _Slot(msgspec.Struct, kw_only=True):
    visit: _Visit | None = None
    outcomes: list[Outcome] = msgspec.field(default_factory=list)
    hours: list[Hour] = msgspec.field(default_factory=list)


class _Snapshot(msgspec.Struct, kw_only=True):
    slots: dict[str, _Slot] = msgspec.field(default_factory=dict)


def fails_often(outcomes: Sequence[Outcome], rule: Rule) -> bool:
    """Whether so many of the last visits with a card ended like that; it holds until the share is below half of the rule's."""
    window = RateWindow(size=20, least=rule.least, high=rule.share)
    for outcome in outcomes:
        window.add(outcome == rule.outcome)
    return window.is_high


def finds_nothing(hours: Sequence[Hour]) -> bool:
    """Whether no card was found in all the hours that tell something since the last one that was, if these are enough."""
    silent: list[Hour] = []
    for one in reversed(hours):
        if one.found:
            break
        if one.tells:
            silent.append(one)
    return len(silent) >= SILENT_HOURS and sum(one.visits + one.in_vain for one in silent) >= SILENT_VISITS


class AttemptBook:
    """All readers of one terminal."""

    def __init__(self) -> None:
        self._slots: dict[str, _Slot] = {}
        self.dirty = False
        """Something changed since the last `export`."""

    def met(self, slot: str, steps: Iterable[Met], now: ClockReading) -> None:
        """Answers that an application's command got, in order."""
        for step in steps:
            self._step(self._slots.setdefault(slot, _Slot()), step, now.wall_ms)

    def used(self, slot: str, *, ok: bool, now: ClockReading) -> None:
        """The application reports what came of a use. Only for slots whose reader it works itself this is all that is known."""
        hour = _hour(self._slots.setdefault(slot, _Slot()), now.wall_ms)
        if ok:
            hour.found += 1
        else:
            hour.in_vain += 1
        self.dirty = True

    def conditions(self, slot: str, family: str) -> tuple[Condition, ...]:
        known = self._slots.get(slot)
        if known is None:
            return ()
        outcomes = [*known.outcomes]
        if known.visit is not None and known.visit.outcome is not None:
            outcomes.append(known.visit.outcome)
        tails = {rule.tail for rule in RULES if fails_often(outcomes, rule)}
        if finds_nothing(known.hours):
            tails.add("READ_FAIL_RATE")
        return tuple(Condition(code) for tail in sorted(tails) if (code := f"{family}.{tail}") in FAULTS)

    def export(self) -> bytes:
        self.dirty = False
        return msgspec.msgpack.encode(_Snapshot(slots=self._slots))

    def restore(self, exported: bytes) -> None:
        """Take up what `export` wrote; ValueError for anything else, and nothing is taken up then."""
        try:
            self._slots = msgspec.msgpack.decode(exported, type=_Snapshot).slots
        except msgspec.MsgspecError as err:
            raise ValueError("the kept attempts are not readable") from err

    def _step(self, known: _Slot, step: Met, wall_ms: int) -> None:
        self.dirty = True
        visit, hour = known.visit, _hour(known, wall_ms)
        another_card = visit is not None and visit.outcome == "ok" and step is Met.FOUND
        if visit is None or another_card or not 0 <= wall_ms - visit.last_ms <= VISIT_GAP_MS:
            _end(known)
            visit = known.visit = _Visit(last_ms=wall_ms)
            hour.visits += 1
        visit.last_ms = wall_ms
        if step is Met.NONE:
            return
        if not visit.found:
            visit.found = True
            hour.found += 1
        if step is Met.OK:
            visit.outcome = "ok"
        elif visit.outcome != "ok" and step is not Met.FOUND:
            visit.outcome = "weak" if step is Met.WEAK else "refused"


def _end(known: _Slot) -> None:
    """A visit in which a card was found is one outcome, however often it was tried."""
    if known.visit is not None and known.visit.outcome is not None:
        known.outcomes.append(known.visit.outcome)
        del known.outcomes[:-KEEP_OUTCOMES]
    known.visit = None


def _hour(known: _Slot, wall_ms: int) -> Hour:
    number = wall_ms // HOUR_MS
    if not known.hours or known.hours[-1].hour != number:
        known.hours.append(Hour(hour=number))
        del known.hours[:-KEEP_HOURS]
    return known.hours[-1]
