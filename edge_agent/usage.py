"""What devices did and what they use up: counters that never run backwards, levels with refills, and the spread of measured values. Pure.

Two sources are kept apart: what the kiosk application reports (`count`) and what a unit counts itself (`unit_total`). Where only the second is
known the figures are marked as derived. A lifetime is the place's, not the unit's: it begins with what the first unit had counted and goes on when
another unit takes its place. Nothing here knows who was served.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from edge_agent.clock import ClockReading
from edge_agent.devices.base import Measured
from edge_agent.devices.window import RateWindow
from edge_agent.faults import Condition
from protocols.canon.faults import FAULTS
from protocols.canon.words import PaperState, TonerState
from protocols.contract.records import Consumable as ConsumableBody
from protocols.contract.records import Counters, Quantity, Reading, SlotCount, Unit
from protocols.profile.consumables import Consumable as ConsumableRule
from protocols.profile.schema import Profile

MAX_SLOTS = 40
"""Of one Counters record (contract)."""
LEVEL_STEPS = 20
"""A level is told when it passes another twentieth of the capacity."""
REFILL_AFTER_OUT_MS = 2_000
"""A roll that is being put in touches the sensor more than once."""
REFILL_AFTER_LOW_MS = 30_000
"""The near-end lever flutters near its threshold; a new roll holds it up."""
READ_FAIL_SHARE = 0.3
KEEP_READS = 20
"""As many as the window over them has."""

_BY_PAPER = frozenset({"paper", "roll", "labels"})
_BY_TONER = frozenset({"toner", "drum"})
_Word = Literal["full", "low", "out"]


class _Level(msgspec.Struct, kw_only=True):
    """One consumable of one slot. `word` is the sensor's last settled word."""

    remaining: int
    capacity: int
    word: _Word | None = None
    told_step: int | None = None


class UnitId(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What tells one unit from another, as far as it says so."""

    profile: str | None = None
    serial: str | None = None
    asset: str | None = None

    def differs(self, other: UnitId) -> bool:
        """Both say the same thing differently. What one of them does not say proves nothing."""
        pairs = ((self.profile, other.profile), (self.serial, other.serial), (self.asset, other.asset))
        return any(mine is not None and theirs is not None and mine != theirs for mine, theirs in pairs)

    def learned(self, other: UnitId) -> UnitId:
        """What is known of the same unit after another look."""
        return UnitId(profile=other.profile or self.profile, serial=other.serial or self.serial, asset=other.asset or self.asset)


class _Slot(msgspec.Struct, kw_only=True):
    """Counts of one slot: of the open span, and since ever. `life`: by the units' own counters, over all of them; `units`: seen here."""

    ok: int = 0
    failed: int = 0
    ever: int = 0
    unit_last: int | None = None
    unit_delta: int = 0
    life: int | None = None
    unit: UnitId = UnitId()
    units: int = 1
    levels: dict[str, _Level] = msgspec.field(default_factory=dict)
    reads: list[bool] = msgspec.field(default_factory=list)
    """The last uses, True for one that failed: a rate outlives a restart."""


class _Snapshot(msgspec.Struct, kw_only=True):
    slots: dict[str, _Slot] = msgspec.field(default_factory=dict)


class UsageBook:
    """All counters of one terminal. Call `configure` when slots are bound; counts of slots that are gone stay until their span is closed."""

    def __init__(self) -> None:
        self._slots: dict[str, _Slot] = {}
        self._rules: dict[str, tuple[ConsumableRule, ...]] = {}
        self._families: dict[str, str] = {}
        self._reads: dict[str, RateWindow] = {}
        self._candidates: dict[tuple[str, str], tuple[_Word, int]] = {}
        self.dirty = False
        """Something changed since the last `export`."""

    def configure(self, slot: str, profile: Profile) -> None:
        """What the slot's device uses up. A consumable that is new, or has another capacity, starts full."""
        self._rules[slot] = profile.consumable
        self._families[slot] = profile.fault_family
        levels = self._slot(slot).levels
        for rule in profile.consumable:
            known = levels.get(rule.name)
            if known is None or known.capacity != rule.capacity:
                levels[rule.name] = _Level(remaining=rule.capacity, capacity=rule.capacity)
                self.dirty = True

    def count(self, slot: str, *, ok: int = 0, failed: int = 0) -> list[ConsumableBody]:
        """Jobs, reads or scans that somebody who did them reports; returns levels that are worth telling."""
        counts = self._slot(slot)
        counts.ok += ok
        counts.failed += failed
        counts.ever += ok + failed
        self.dirty = True
        window = self._reads.setdefault(slot, RateWindow(high=READ_FAIL_SHARE))
        for bad, times in ((False, ok), (True, failed)):
            for _ in range(min(times, 20)):
                window.add(bad)
                counts.reads.append(bad)
        del counts.reads[:-KEEP_READS]
        told = []
        for rule in self._rules.get(slot, ()):
            if rule.counts == "jobs" and rule.per_job is not None and ok:
                told += self._take(slot, rule, ok * rule.per_job)
        return told

    def printed_mm(self, slot: str, length_mm: int) -> list[ConsumableBody]:
        """Length of what was printed, where the one who prints knows it."""
        rules = [rule for rule in self._rules.get(slot, ()) if rule.counts == "printed-length-mm"]
        return [body for rule in rules for body in self._take(slot, rule, length_mm)]

    def unit_total(self, slot: str, total: int) -> list[ConsumableBody]:
        """The unit's own lifetime counter. A smaller number is another unit (or a new main board): counting goes on from there."""
        counts = self._slot(slot)
        if counts.unit_last == total:
            return []
        if counts.unit_last is not None and total < counts.unit_last:
            self._swapped(slot)
        delta = 0 if counts.unit_last is None else total - counts.unit_last
        counts.life = total if counts.life is None else counts.life + delta
        counts.unit_last = total
        counts.unit_delta += delta
        self.dirty = True
        rules = [rule for rule in self._rules.get(slot, ()) if rule.counts == "pages" and delta]
        return [body for rule in rules for body in self._take(slot, rule, delta)]

    def seen(self, slot: str, unit: UnitId) -> bool:
        """Which unit is at the slot; whether it is another one than before. Its own counter then begins anew, the place's does not."""
        counts = self._slot(slot)
        swapped = counts.unit.differs(unit)
        if swapped:
            self._swapped(slot)
            counts.unit = unit
        elif counts.unit.learned(unit) != counts.unit:
            counts.unit = counts.unit.learned(unit)
            self.dirty = True
        return swapped

    def units(self, slot: str) -> int:
        """How many units have been at the slot."""
        counts = self._slots.get(slot)
        return 1 if counts is None else counts.units

    def lifetime(self, slot: str) -> int | None:
        """What was done at the slot since ever; None if nothing is counted there."""
        counts = self._slots.get(slot)
        return None if counts is None or (counts.life is None and counts.ever == 0) else _lifetime(counts)

    def _swapped(self, slot: str) -> None:
        counts = self._slot(slot)
        counts.units += 1
        counts.unit_last = None
        counts.unit = UnitId()
        self._reads.pop(slot, None)
        self.dirty = True

    def sensed(
        self,
        slot: str,
        paper: PaperState,
        toner: TonerState,
        now: ClockReading,
        *,
        cards: PaperState = PaperState.NOT_SUPPORTED,
    ) -> list[ConsumableBody]:
        """The words of the device's sensors; a level that rises and stays there is a refill."""
        told = []
        for rule in self._rules.get(slot, ()):
            word = _word(
                paper if rule.name in _BY_PAPER else toner if rule.name in _BY_TONER else cards if rule.name == "cards" else None
            )
            if word is not None:
                told += self._sense(slot, rule, word, now.boot_ms)
        return told

    def toner_left(self, slot: str, percent: int) -> list[ConsumableBody]:
        """What the device measures. A clear rise is another cartridge; a small one is its sensor."""
        told = []
        for rule in self._rules.get(slot, ()):
            if rule.name != "toner" or rule.counts != "sensor":
                continue
            level = self._slot(slot).levels[rule.name]
            remaining = level.capacity * max(0, min(100, percent)) // 100
            if remaining >= level.remaining + level.capacity // 4:
                told += self._refill(slot, rule, remaining, "sensor")
            elif remaining < level.remaining:
                level.remaining = remaining
                self.dirty = True
                told += self._tell(slot, rule, level, "sensor")
        return told

    def refilled(self, slot: str, item: str, amount: int | None = None) -> list[ConsumableBody]:
        """Somebody says that the consumable was replaced (None) or topped up by `amount`. Unknown slots and items change nothing."""
        rule = next((rule for rule in self._rules.get(slot, ()) if rule.name == item), None)
        if rule is None:
            return []
        level = self._slot(slot).levels[rule.name]
        remaining = level.capacity if amount is None else min(level.capacity, level.remaining + max(0, amount))
        level.word = "full"
        return self._refill(slot, rule, remaining, "manual")

    def conditions(self, slot: str) -> tuple[Condition, ...]:
        """What the counts say about the slot: a consumable that should be nearly used up, reads that fail too often."""
        family = self._families.get(slot)
        if family is None:
            return ()
        codes = []
        for rule in self._rules.get(slot, ()):
            level = self._slot(slot).levels[rule.name]
            tail = "PAPER_NEAR_END" if rule.name in _BY_PAPER else "TONER_LOW" if rule.name in _BY_TONER else None
            tail = "STACKER_LOW" if rule.name == "cards" else tail
            if tail and level.word != "out" and rule.counts != "sensor" and _below(level, rule):
                codes.append(f"{family}.{tail}")
        window = self._reads.get(slot)
        if window is not None and window.is_high:
            codes.append(f"{family}.READ_FAIL_RATE")
        return tuple(Condition(code) for code in codes if code in FAULTS)

    def levels(self) -> Iterator[tuple[str, str, int, int]]:
        """(slot, item, remaining, capacity) of everything that is counted."""
        for slot, rules in self._rules.items():
            for rule in rules:
                level = self._slot(slot).levels[rule.name]
                yield slot, rule.name, level.remaining, level.capacity

    def close_span(self, from_ms: int, to_ms: int) -> Counters | None:
        """What was done in the span, and a new one begins; None if nothing was. Keep `export()` before the record is told."""
        rows = []
        for slot, counts in sorted(self._slots.items()):
            derived = counts.ok + counts.failed == 0 and counts.unit_delta > 0
            ok = counts.unit_delta if derived else counts.ok
            if ok + counts.failed == 0:
                continue
            rows.append(
                SlotCount(
                    slot=slot,
                    total=ok + counts.failed,
                    ok=ok,
                    failed=counts.failed,
                    lifetime=_lifetime(counts),
                    derived=derived,
                )
            )
        for row in rows[:MAX_SLOTS]:
            counts = self._slots[row.slot]
            counts.ok = counts.failed = counts.unit_delta = 0
        self.dirty = self.dirty or bool(rows)
        return Counters(from_ms=from_ms, to_ms=max(from_ms, to_ms), slots=tuple(rows[:MAX_SLOTS])) if rows else None

    def export(self) -> bytes:
        self.dirty = False
        return msgspec.msgpack.encode(_Snapshot(slots=self._slots))

    def restore(self, exported: bytes) -> None:
        """Take up what `export` wrote; ValueError for anything else, and nothing is taken up then."""
        try:
            self._slots = msgspec.msgpack.decode(exported, type=_Snapshot).slots
        except msgspec.MsgspecError as err:
            raise ValueError("the kept counters are not readable") from err
        for counts in self._slots.values():
            if counts.life is None:  # kept by a version that gave the unit's own number
                counts.life = counts.unit_last
        for slot, counts in self._slots.items():
            self._reads[slot] = RateWindow(high=READ_FAIL_SHARE)
            for bad in counts.reads[-KEEP_READS:]:
                self._reads[slot].add(bad)

    def _slot(self, slot: str) -> _Slot:
        return self._slots.setdefault(slot, _Slot())

    def _take(self, slot: str, rule: ConsumableRule, amount: int) -> list[ConsumableBody]:
        level = self._slot(slot).levels[rule.name]
        level.remaining = max(0, level.remaining - amount)
        self.dirty = True
        return self._tell(slot, rule, level, "counter")

    def _sense(self, slot: str, rule: ConsumableRule, word: _Word, boot_ms: int) -> list[ConsumableBody]:
        level = self._slot(slot).levels[rule.name]
        key = (slot, rule.name)
        rises = level.word is not None and _RANK[word] > _RANK[level.word]
        if not rises:
            self._candidates.pop(key, None)
            if word == level.word:
                return []
            level.word = word
            self.dirty = True
            level.remaining = min(level.remaining, _at_word(word, rule))
            return [] if word == "full" else self._tell(slot, rule, level, "sensor")
        since_ms = self._candidates.setdefault(key, (word, boot_ms))
        if since_ms[0] != word:
            self._candidates[key] = since_ms = (word, boot_ms)
        needed_ms = REFILL_AFTER_OUT_MS if level.word == "out" else REFILL_AFTER_LOW_MS
        if boot_ms - since_ms[1] < needed_ms:
            return []
        del self._candidates[key]
        level.word = word
        return self._refill(slot, rule, _at_word(word, rule), "sensor")

    def _refill(
        self, slot: str, rule: ConsumableRule, remaining: int, source: Literal["sensor", "manual"]
    ) -> list[ConsumableBody]:
        level = self._slot(slot).levels[rule.name]
        level.remaining = remaining
        level.told_step = _step(level)
        self.dirty = True
        return [_body(slot, rule, level, "refill", source)]

    def _tell(self, slot: str, rule: ConsumableRule, level: _Level, source: Literal["sensor", "counter"]) -> list[ConsumableBody]:
        step = _step(level)
        if step == level.told_step:
            return []
        level.told_step = step
        return [_body(slot, rule, level, "level", source)]


class ReadingBook:
    """Least, mean and greatest value of each measured quantity in the open span."""

    def __init__(self) -> None:
        self._spans: dict[tuple[str, Quantity], tuple[int, int, int, int]] = {}

    def add(self, slot: str, measured: Iterable[Measured]) -> None:
        for one in measured:
            least, most, total, count = self._spans.get((slot, one.quantity), (one.tenths, one.tenths, 0, 0))
            spread = (min(least, one.tenths), max(most, one.tenths), total + one.tenths, count + 1)
            self._spans[slot, one.quantity] = spread

    def close_span(self, from_ms: int, to_ms: int) -> list[Reading]:
        spans, self._spans = self._spans, {}
        return [
            Reading(
                slot=slot,
                from_ms=from_ms,
                to_ms=max(from_ms, to_ms),
                quantity=quantity,
                unit=_UNITS[quantity],
                min_tenths=least,
                mean_tenths=round(total / count),
                max_tenths=most,
            )
            for (slot, quantity), (least, most, total, count) in sorted(spans.items())
        ]


_UNITS: Mapping[Quantity, Unit] = {
    "temperature": "celsius",
    "humidity": "percent",
    "load": "percent",
    "batteryVoltage": "volt",
    "inputVoltage": "volt",
}
_RANK: Mapping[_Word, int] = {"out": 0, "low": 1, "full": 2}
_WORDS: Mapping[str, _Word] = {"full": "full", "low": "low", "out": "out"}


def _lifetime(counts: _Slot) -> int:
    return counts.ever if counts.life is None else counts.life


def _word(state: PaperState | TonerState | None) -> _Word | None:
    """Jams and unknown say nothing about how much is left."""
    return None if state is None else _WORDS.get(state.value)


def _at_word(word: _Word, rule: ConsumableRule) -> int:
    if word == "out":
        return 0
    return rule.capacity if word == "full" else rule.capacity * rule.warn_below_pct // 100


def _below(level: _Level, rule: ConsumableRule) -> bool:
    return level.remaining * 100 < rule.capacity * rule.warn_below_pct


def _step(level: _Level) -> int:
    return -(-level.remaining * LEVEL_STEPS // level.capacity)


def _body(
    slot: str,
    rule: ConsumableRule,
    level: _Level,
    event: Literal["level", "refill"],
    source: Literal["sensor", "counter", "manual"],
) -> ConsumableBody:
    return ConsumableBody(
        slot=slot,
        item=rule.name,
        event=event,
        remaining=level.remaining,
        capacity=level.capacity,
        unit=rule.unit,
        source=source,
    )
