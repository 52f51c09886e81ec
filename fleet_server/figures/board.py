"""Owns the figures: what each is the ratio of. A board answers one question; it reads each kind of fact at most once, when it is first needed.

Every method that takes `members` counts these terminals of the population only, so that a table by area costs no further statement.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from types import MappingProxyType
from typing import Final, Literal, TypeVar

from fleet_server.faults.severity import Impact
from fleet_server.figures import facts
from fleet_server.figures.facts import NO_DAYS, Cases, Checks, Contact, DaySums, Episode
from fleet_server.figures.figure import Figure, Unit
from fleet_server.figures.idle import months_without
from fleet_server.figures.opening import Openings
from fleet_server.figures.population import (
    Group,
    Member,
    Population,
    group_members,
    ids_json,
    in_service_ms,
    load_areas,
    load_population,
)
from fleet_server.figures.question import Question
from fleet_server.sites.calendar import TimeClass, load_calendar, local_day
from fleet_server.sites.hours import load_hours
from fleet_server.terminals.lock import IS_LOCKED

OFF_HOURS: Final = (
    TimeClass.HOLIDAY,
    TimeClass.WEEKEND,
    TimeClass.NOON,
    TimeClass.BEFORE_HOURS,
    TimeClass.AFTER_HOURS,
)
"""Classes of 错时延时, in the order in which a case is sorted into them."""
OUTCOMES: Final = ("success", "failed", "abandoned")
GOOD_LEVELS: Final = (5, 4, 3)
"""Very satisfied, satisfied, basically satisfied (GB/T 39735-2020) are good reviews."""
ALL_LEVELS: Final = (5, 4, 3, 2, 1)
NOT_ANSWERED: Final = 0
YEAR_DAYS: Final = 365
_HOUR_S: Final = 3_600
K = TypeVar("K")
RepairMark = Literal["maintenance", "locked", "fault", "offline", "retired", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroCase:
    """A terminal without a successful case in the period. `days_since` the last one up to the period's end; None: it never had any."""

    member: Member
    last_ms: int | None
    days_since: int | None
    mark: RepairMark
    """What is known now that explains it: in maintenance, locked, cannot serve, offline, taken out of service."""
    months: int
    """Whole months without one, up to the period's end or yesterday."""


class Board:
    """The figures of one question at one moment. Reads inside the caller's transaction, if there is one."""

    def __init__(self, conn: sqlite3.Connection, question: Question, now_ms: int) -> None:
        self._conn, self.question, self.now_ms = conn, question, now_ms

    # What is read ---------------------------------------------------------------------------------------------------------------------

    @cached_property
    def population(self) -> Population:
        return load_population(self._conn, self.question, self.now_ms)

    @property
    def members(self) -> tuple[Member, ...]:
        return self.population.members

    @cached_property
    def openings(self) -> Openings:
        days = self.question.period.each_day()
        return Openings(load_calendar(self._conn), load_hours(self._conn, {one.site for one in self.members}), days)

    @cached_property
    def cases_read(self) -> Cases:
        return facts.count_cases(self._conn, self.members, self.question.period, self.openings)

    @cached_property
    def cases_outside(self) -> int:
        return facts.cases_outside(self._conn, self.population.outside, self.question.period)

    @cached_property
    def days_read(self) -> dict[str, DaySums]:
        return facts.sum_days(self._conn, self.members, self.question.period)

    @cached_property
    def pending_days(self) -> int:
        return facts.pending_days(self._conn, self.members, self.question.period)

    @cached_property
    def contact_read(self) -> dict[str, Contact]:
        return facts.read_contact(self._conn, self.members, self.question.period, self.openings, self.now_ms)

    @cached_property
    def faults_read(self) -> dict[str, list[Episode]]:
        return facts.read_faults(self._conn, self.members, self.question.period, self.now_ms)

    @cached_property
    def checks_read(self) -> dict[str, Checks]:
        return facts.read_checks(
            self._conn, self.members, self.question.period, self.openings, self.contact_read, self.faults_read, self.now_ms
        )

    @cached_property
    def ratings_read(self) -> dict[str, Counter[int]]:
        return facts.count_ratings(self._conn, self.members, self.question.period)

    @cached_property
    def queue_read(self) -> dict[str, Counter[str]]:
        return facts.count_queue_events(self._conn, self.members, self.question.period)

    def groups(self) -> list[Group]:
        """The members by area below the scope, or by site."""
        return group_members(load_areas(self._conn), self.members, self.question.scope.area)

    # Cases ----------------------------------------------------------------------------------------------------------------------------

    def cases(self, members: Sequence[Member] | None = None) -> Figure:
        """办件量: finished cases of every outcome. Cases of terminals that were not in service are told apart."""
        shown = {} if members is not None or not self.cases_outside else {"outside": self.cases_outside}
        return self._figure("cases", "case", self._outcomes(members).total(), members=members, shown=shown)

    def cases_success(self, members: Sequence[Member] | None = None) -> Figure:
        return self._figure("cases_success", "case", self._outcomes(members)["success"], members=members)

    def success_rate(self, members: Sequence[Member] | None = None) -> Figure:
        outcomes = self._outcomes(members)
        return self._figure("success_rate", "share", outcomes["success"], outcomes.total(), members=members)

    def active_share(self, members: Sequence[Member] | None = None) -> Figure:
        """发生办件占比: terminals with at least one successful case ÷ N."""
        chosen = self._chosen(members)
        active = sum(self._is_active(one) for one in chosen)
        return self._figure("active_share", "share", active, len(chosen), members=members)

    def zero_terminals(self, members: Sequence[Member] | None = None) -> Figure:
        """零办件终端: N less the terminals with a successful case."""
        zero = sum(not self._is_active(one) for one in self._chosen(members))
        return self._figure("zero_terminals", "terminal", zero, members=members)

    def cases_per_terminal(self, members: Sequence[Member] | None = None) -> Figure:
        """单台平均办件量: cases ÷ machine-days × days of the period that have begun, so that new machines do not pull the mean down."""
        return self._per_terminal("cases_per_terminal", self.population.elapsed_days, members)

    def cases_per_terminal_day(self, members: Sequence[Member] | None = None) -> Figure:
        return self._per_terminal("cases_per_terminal_day", 1, members)

    def cases_per_terminal_year(self, members: Sequence[Member] | None = None) -> Figure:
        """单台平均年办件量, annualised: cases ÷ machine-days × 365."""
        return self._per_terminal("cases_per_terminal_year", YEAR_DAYS, members)

    def offhours_share(self, members: Sequence[Member] | None = None) -> Figure:
        """错时延时办件占比: cases that began outside working time ÷ all cases."""
        classes = self._classes(members)
        return self._figure("offhours_share", "share", sum(classes[one] for one in OFF_HOURS), classes.total(), members=members)

    def by_outcome(self, members: Sequence[Member] | None = None) -> list[Figure]:
        outcomes = self._outcomes(members)
        return [self._figure("cases_by_outcome", "case", outcomes[one], key=one, members=members) for one in OUTCOMES]

    def by_class(self, members: Sequence[Member] | None = None) -> list[Figure]:
        """Cases by class of time, working time last."""
        classes = self._classes(members)
        order = (*OFF_HOURS, TimeClass.WORK)
        return [self._figure("cases_by_class", "case", classes[one], key=one.value, members=members) for one in order]

    def by_terminal(self, members: Sequence[Member] | None = None) -> list[Figure]:
        """Every member's cases, most first."""
        counts = {one.id: self._of(one).total() for one in self._chosen(members)}
        return self._ranked("cases_by_terminal", counts, members)

    def by_item(self) -> list[Figure]:
        """Most frequent first."""
        counts: Counter[str] = Counter()
        for (item, _), count in self.cases_read.by_item.items():
            counts[item] += count
        return self._ranked("cases_by_item", counts, None)

    def success_by_item(self) -> dict[str, Figure]:
        """Success rate of each item."""
        both: dict[str, tuple[int, int]] = {}
        for (item, outcome), count in self.cases_read.by_item.items():
            good, whole = both.get(item, (0, 0))
            both[item] = (good + (count if outcome == "success" else 0), whole + count)
        return {item: self._figure("success_by_item", "share", *pair, key=item) for item, pair in sorted(both.items())}

    def by_hour(self) -> list[Figure]:
        """24 figures, keys `00` to `23`, local time of each site."""
        hours = self.cases_read.by_hour
        return [self._figure("cases_by_hour", "case", hours[hour], key=f"{hour:02}") for hour in range(24)]

    def by_hour_work(self) -> list[Figure]:
        """The same of working days alone."""
        read = self.cases_read
        return [
            self._figure("cases_by_hour_work", "case", read.by_hour[hour] - read.by_hour_rest[hour], key=f"{hour:02}")
            for hour in range(24)
        ]

    def by_hour_rest(self) -> list[Figure]:
        """The same of weekends and holidays."""
        hours = self.cases_read.by_hour_rest
        return [self._figure("cases_by_hour_rest", "case", hours[hour], key=f"{hour:02}") for hour in range(24)]

    def zero_list(self, members: Sequence[Member] | None = None) -> list[ZeroCase]:
        """Terminals without a successful case: never one first, then the longest ago first."""
        idle = [one for one in self._chosen(members) if not self._is_active(one)]
        period = self.question.period
        last = min(period.last, self.population.today)
        ended = min(period.last, _day_before(self.population.today))
        last_ms = facts.last_success_ms(self._conn, [one.id for one in idle], period.last)
        marks = self._repair_marks(idle)
        rows = []
        for member in idle:
            at_ms = last_ms.get(member.id)
            since = None if at_ms is None else max(0, _days_between(local_day(at_ms, member.zone), last))
            last_day = None if at_ms is None else local_day(at_ms, member.zone)
            months = months_without(last_day, local_day(member.enrolled_ms, member.zone), ended)
            rows.append(ZeroCase(member=member, last_ms=at_ms, days_since=since, mark=marks[member.id], months=months))
        return sorted(rows, key=lambda row: (row.days_since is not None, -(row.days_since or 0), row.member.id))

    # Time -----------------------------------------------------------------------------------------------------------------------------

    def online_rate(self, members: Sequence[Member] | None = None) -> Figure:
        """在线率: seconds the server held it for reachable ÷ seconds watched, inside opening hours.

        Blind and unwatched seconds and maintenance are in neither.
        """
        contact = [self.contact_read[one.id] for one in self._chosen(members)]
        shown = _known(
            offline_s=sum(one.offline_s for one in contact),
            blind_s=sum(one.blind_s for one in contact),
            unwatched_s=sum(one.unwatched_s for one in contact),
            maintenance_s=sum(one.maintenance_s for one in contact),
        )
        online_s, watched_s = sum(one.online_s for one in contact), sum(one.watched_s for one in contact)
        return self._figure("online_rate", "share", online_s, watched_s, members=members, shown=shown)

    def availability(self, members: Sequence[Member] | None = None) -> Figure:
        """可用率: seconds it could serve ÷ seconds that are known, inside opening hours; silence counts against it, blind seconds for nobody."""
        days = [self.days_read.get(one.id, NO_DAYS) for one in self._chosen(members)]
        shown = _known(
            partial_s=sum(one.partial_s for one in days),
            unusable_s=sum(one.unusable_s for one in days),
            silent_s=sum(one.silent_s for one in days),
            blind_s=sum(one.blind_s for one in days),
            maintenance_s=sum(one.maintenance_s for one in days),
            pending_days=self.pending_days if members is None else 0,
        )
        serving_s, known_s = sum(one.serving_s for one in days), sum(one.known_s for one in days)
        return self._figure("availability", "share", serving_s, known_s, members=members, shown=shown)

    def intact_rate(self, members: Sequence[Member] | None = None) -> Figure:
        """完好率: checks at 09:00 and 15:00 that found every mandatory peripheral normal and supplied ÷ checks whose answer is known."""
        checks = [self.checks_read[one.id] for one in self._chosen(members)]
        shown = _known(unknown=sum(len(one.unknown) for one in checks), maintenance=sum(len(one.maintained) for one in checks))
        intact, known = sum(one.intact for one in checks), sum(one.known for one in checks)
        return self._figure("intact_rate", "share", intact, known, members=members, shown=shown)

    def faults(self, members: Sequence[Member] | None = None) -> Figure:
        """Fault episodes that touch the period, P4 and false alarms left out."""
        return self._figure("faults", "fault", len(self._episodes(members)), members=members)

    def fault_rate(self, members: Sequence[Member] | None = None) -> Figure:
        """故障率: terminals with at least one fault ÷ N."""
        chosen = self._chosen(members)
        struck = sum(bool(self.faults_read.get(one.id)) for one in chosen)
        return self._figure("fault_rate", "share", struck, len(chosen), members=members)

    def mttr(self, members: Sequence[Member] | None = None) -> Figure:
        """平均修复时长, hours: from the first observation to the end, over faults that ended in the period."""
        ended = self.ended_faults(members)
        return self._figure("mttr", "hour", sum(one.lasted_s for one in ended), len(ended), 1 / _HOUR_S, members=members)

    def mttr_by_code(self) -> list[Figure]:
        """The same of each code, in the order of codes; only codes of which a fault has ended."""
        ended: dict[str, list[int]] = {}
        for one in self.ended_faults():
            ended.setdefault(one.code, []).append(one.lasted_s)
        return [
            self._figure("mttr_by_code", "hour", sum(lasted), len(lasted), 1 / _HOUR_S, key=code)
            for code, lasted in sorted(ended.items())
        ]

    def ended_faults(self, members: Sequence[Member] | None = None) -> list[Episode]:
        period = self.question.period
        found = []
        for one in self._chosen(members):
            from_ms, to_ms = in_service_ms(one, period.first, period.last, self.now_ms)
            found += [
                episode
                for episode in self.faults_read.get(one.id, ())
                if episode.cleared_ms is not None and from_ms < episode.cleared_ms <= to_ms
            ]
        return found

    def faults_by_code(self, members: Sequence[Member] | None = None) -> list[Figure]:
        counts = Counter(one.code for one in self._episodes(members))
        return self._ranked("faults_by_code", counts, members, unit="fault")

    # Ratings and queues ---------------------------------------------------------------------------------------------------------------

    def good_rate(self, members: Sequence[Member] | None = None) -> Figure:
        """好评率: levels 5, 4 and 3 ÷ all levels given. Asked and not answered is no review."""
        levels = self._levels(members)
        given = sum(levels[level] for level in ALL_LEVELS)
        good = sum(levels[level] for level in GOOD_LEVELS)
        return self._figure("good_rate", "share", good, given, members=members, shown=_known(unanswered=levels[NOT_ANSWERED]))

    def rating_answered_share(self, members: Sequence[Member] | None = None) -> Figure:
        """Reviews given ÷ times asked."""
        levels = self._levels(members)
        given = sum(levels[level] for level in ALL_LEVELS)
        return self._figure("rating_answered_share", "share", given, given + levels[NOT_ANSWERED], members=members)

    def by_level(self, members: Sequence[Member] | None = None) -> list[Figure]:
        levels = self._levels(members)
        return [self._figure("ratings_by_level", "rating", levels[one], key=str(one), members=members) for one in ALL_LEVELS]

    def queue_calls(self, members: Sequence[Member] | None = None) -> Figure:
        """叫号: next numbers called."""
        return self._figure("queue_calls", "key", self._keys(members)["callNext"], members=members)

    def by_queue_action(self, members: Sequence[Member] | None = None) -> list[Figure]:
        return self._ranked("queue_by_action", self._keys(members), members, unit="key")

    def headline(self, members: Sequence[Member] | None = None) -> dict[str, Figure]:
        """Every figure that is one number, by name."""
        found = (
            self.cases(members), self.cases_success(members), self.success_rate(members), self.active_share(members),
            self.zero_terminals(members), self.cases_per_terminal(members), self.cases_per_terminal_day(members),
            self.cases_per_terminal_year(members), self.offhours_share(members), self.online_rate(members),
            self.availability(members), self.intact_rate(members), self.faults(members), self.fault_rate(members),
            self.mttr(members), self.good_rate(members), self.rating_answered_share(members), self.queue_calls(members),
        )  # fmt: skip
        return {figure.name: figure for figure in found}

    # Parts ----------------------------------------------------------------------------------------------------------------------------

    def _chosen(self, members: Sequence[Member] | None) -> Sequence[Member]:
        return self.members if members is None else members

    def _of(self, member: Member) -> Counter[str]:
        return self.cases_read.by_terminal.get(member.id) or Counter()

    def _is_active(self, member: Member) -> bool:
        return self._of(member)["success"] > 0

    def _outcomes(self, members: Sequence[Member] | None) -> Counter[str]:
        return _added(self._of(one) for one in self._chosen(members))

    def _classes(self, members: Sequence[Member] | None) -> Counter[TimeClass]:
        read = self.cases_read.by_class
        return _added(read[one.id] for one in self._chosen(members) if one.id in read)

    def _levels(self, members: Sequence[Member] | None) -> Counter[int]:
        return _added(self.ratings_read[one.id] for one in self._chosen(members) if one.id in self.ratings_read)

    def _keys(self, members: Sequence[Member] | None) -> Counter[str]:
        return _added(self.queue_read[one.id] for one in self._chosen(members) if one.id in self.queue_read)

    def _episodes(self, members: Sequence[Member] | None) -> list[Episode]:
        return [episode for one in self._chosen(members) for episode in self.faults_read.get(one.id, ())]

    def _per_terminal(self, name: str, days: int, members: Sequence[Member] | None) -> Figure:
        machine_days = sum(one.machine_days for one in self._chosen(members))
        return self._figure(name, "perTerminal", self._outcomes(members).total(), machine_days, days, members=members)

    def _ranked(
        self, name: str, counts: Mapping[str, int], members: Sequence[Member] | None, unit: Unit = "case"
    ) -> list[Figure]:
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return [self._figure(name, unit, count, key=key, members=members) for key, count in ranked]

    def _repair_marks(self, members: Sequence[Member]) -> dict[str, RepairMark]:
        rows = self._conn.execute(_OPEN, {"ids": ids_json([one.id for one in members])}).fetchall()
        codes: dict[str, set[str]] = {}
        for terminal, code, severity, slot, mandatory in rows:
            hit = Episode("", terminal, slot, code, severity, bool(mandatory), 0, None)
            if hit.impact is Impact.NO_SERVICE:
                codes.setdefault(terminal, set()).add(code)
        until = dict(self._conn.execute(_MAINTENANCE, {"ids": ids_json([one.id for one in members]), "now": self.now_ms}))
        locked = {row[0] for row in self._conn.execute(_LOCKED, {"ids": ids_json([one.id for one in members])})}
        marks: dict[str, RepairMark] = {}
        for one in members:
            found = codes.get(one.id, set())
            if one.revoked_ms is not None and one.revoked_ms <= self.now_ms:
                marks[one.id] = "retired"
            elif one.id in until:
                marks[one.id] = "maintenance"
            elif one.id in locked:
                marks[one.id] = "locked"
            elif found - {"NET.OFFLINE"}:
                marks[one.id] = "fault"
            else:
                marks[one.id] = "offline" if found else ""
        return marks

    def _figure(
        self,
        name: str,
        unit: Unit,
        numerator: int,
        denominator: int | None = None,
        factor: float = 1.0,
        *,
        key: str = "",
        members: Sequence[Member] | None = None,
        shown: Mapping[str, int] | None = None,
    ) -> Figure:
        return Figure(
            name=name,
            question=self.question,
            unit=unit,
            numerator=numerator,
            denominator=denominator,
            factor=factor,
            population=len(self._chosen(members)),
            key=key,
            shown=MappingProxyType(dict(shown or {})),
        )


def _added(counters: Iterable[Counter[K]]) -> Counter[K]:
    whole: Counter[K] = Counter()
    for one in counters:
        whole.update(one)
    return whole


def _known(**parts: int) -> dict[str, int]:
    """Only what there is."""
    return {name: value for name, value in parts.items() if value}


def _day_before(day: str) -> str:
    return (date.fromisoformat(day) - timedelta(days=1)).isoformat()


def _days_between(first: str, last: str) -> int:
    return (date.fromisoformat(last) - date.fromisoformat(first)).days


_OPEN = """
SELECT f.terminal, f.code, f.severity, f.slot, f.mandatory FROM json_each(:ids) t CROSS JOIN fault f
WHERE f.terminal = t.value AND f.cleared_ms IS NULL AND f.disputed = 0 AND f.false_alarm = 0
"""
_LOCKED = f"SELECT t.id FROM json_each(:ids) i CROSS JOIN terminal t WHERE t.id = i.value AND {IS_LOCKED}"  # noqa: S608 - a constant
_MAINTENANCE = """
SELECT m.id, m.maintenance_until_ms FROM json_each(:ids) t CROSS JOIN terminal m WHERE m.id = t.value AND m.maintenance_until_ms > :now
"""
