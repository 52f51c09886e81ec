"""Decides what each channel is told now. Pure: takes `now` and what was read, gives messages; sends nothing, stores nothing.

- One digest for each channel and minute, and none while the one before is not delivered: a channel that is down gets one fresh digest later, not a
  queue of stale ones.
- A (terminal, fault code) is told once while it lasts, again only when it worsens or nobody takes it; flapping is one story.
- While the platform is blind there is one message about that, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fleet_server.faults.severity import is_danger
from fleet_server.notifications.digest import PLATFORM, Digest, Event, EventKind, PlatformEvent, subject_of
from fleet_server.notifications.filters import MINUTE_MS, Filters, is_quiet, next_escalation_ms, quiet_until_ms
from fleet_server.presence.rules import BLIND_MS

DIGEST_EVERY_MS = 60_000
"""What group robots recommend, and far below what they allow (DingTalk and WeCom 20 a minute, Feishu 100)."""
GATHER_MS = 10_000
"""News is told when its oldest part is so old: what happens together is told together, and a blip is not told at all."""
SETTLE_MS = 60_000
"""A recovery is told when it has lasted so long; a fault that comes back sooner is the same story."""
LATE_MS = 60_000
LATE_BEHIND_MS = 600_000
"""A fault out of a backlog may be over already: it waits so long for its end, the longer while its terminal is still sending the backlog."""
EVENTS_MAX = 500
"""In one digest; more wait for the next minute (4,000 terminals in trouble at once are told in 8)."""
NET_OFFLINE = "NET.OFFLINE"
URGENT = "P1"
"""What is so bad does not wait for a channel's longer rhythm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A row of the fault table: open, or the last of a subject that some channel still holds for open."""

    id: str
    terminal: str
    code: str
    severity: str
    impact: str
    opened_ms: int
    known_ms: int
    """When the server learned of it."""
    late: bool = False
    """It came out of a backlog."""
    cleared_ms: int | None = None
    claimed: bool = False
    false_alarm: bool = False
    retired: bool = False
    """It ended because the terminal left service."""

    @property
    def subject(self) -> str:
        return subject_of(self.terminal, self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a terminal is called and where it stands; `areas` is its site's area and all above it."""

    label: str
    name_zh: str = ""
    name_en: str = ""
    site: str = ""
    site_zh: str = ""
    site_en: str = ""
    areas: tuple[str, ...] = ()
    behind: bool = False
    """It is still sending a backlog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformState:
    """The platform's own sight."""

    blind_since_ms: int | None = None
    """Nobody is heard."""
    cause: str = ""
    silence_since_ms: int | None = None
    """Many terminals of several sites fell silent together."""
    last_gap_ms: tuple[int, int] | None = None
    """The last such span that is over."""
    watching_since_ms: int = 0
    """Since when this process looks: a span that ends while everything is starting is not news."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long news waits; operators may set it."""

    gather_ms: int = GATHER_MS
    settle_ms: int = SETTLE_MS
    late_ms: int = LATE_MS
    late_behind_ms: int = LATE_BEHIND_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everything that was read, at one moment."""

    faults: Sequence[Fault] = ()
    mutes: Mapping[str, int] = field(default_factory=dict)
    """Fault → muted until."""
    maintenance: Mapping[str, int] = field(default_factory=dict)
    """Terminal → in maintenance until."""
    locked: frozenset[str] = frozenset()
    """Terminals that say they are locked: closed on purpose, so that they serve nobody is no news."""
    platform: PlatformState = PlatformState()
    places: Mapping[str, Place] = field(default_factory=dict)
    pace: Pace = Pace()


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A subject that a channel holds for open. `level` counts how often its being unclaimed was told."""

    severity: str
    told_ms: int
    level: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What happened with one channel so far."""

    waiting: bool = False
    """A message is on its way."""
    last_ms: int | None = None
    """When the newest message was made."""
    paused_until_ms: int = 0
    """The newest message was refused for good: not again until then, or until somebody has set the channel anew."""
    standing: Mapping[str, Told] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A channel as the planner knows it."""

    id: int
    filters: Filters
    zone: str


@dataclass(frozen=True, slots=True)
class Message:
    channel: int
    key: str
    """One for each channel and minute: a second plan for the same minute changes nothing."""
    digest: Digest


@dataclass(frozen=True, slots=True)
class Plan:
    messages: list[Message]
    forget: list[tuple[int, str]]
    """(channel, subject) that ended without anything to say."""


def plan(now_ms: int, seen: Seen, listeners: Iterable[Listener], sent: Mapping[int, Sent], *, new_id: Callable[[], str]) -> Plan:
    """What is due at `now_ms`. `new_id` names a message."""
    subjects = _by_subject(seen.faults)
    done = Plan([], [])
    for listener in listeners:
        before = sent.get(listener.id, Sent())
        if before.waiting or now_ms < before.paused_until_ms:
            continue
        # A clock that was set back must not silence a channel.
        passed_ms = None if before.last_ms is None or now_ms < before.last_ms else now_ms - before.last_ms
        if passed_ms is not None and passed_ms < DIGEST_EVERY_MS:
            continue
        desk = _Desk(now_ms, seen, listener, before, subjects)
        digest = desk.digest(new_id)
        done.forget.extend((listener.id, subject) for subject in desk.forget)
        is_early = passed_ms is not None and passed_ms < listener.filters.every_min * MINUTE_MS
        if digest is not None and not (is_early and digest.worst != URGENT):
            done.messages.append(Message(listener.id, f"digest/{now_ms // DIGEST_EVERY_MS}", digest))
    return done


Word = Literal[
    "told", "blind", "maintenance", "locked", "falseAlarm", "muted", "severity", "kind", "area", "quiet", "silence", "late", "waiting", "resting",
    "gathering", "digest", "next",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a channel is not told of an open fault now, or that it was. `at_ms`: until when; since when for `told` and `blind`; None if open."""

    word: Word
    at_ms: int | None = None


def why(now_ms: int, seen: Seen, listener: Listener, before: Sent, rows: Sequence[Fault]) -> Hold:
    """What `plan` makes of the open faults `rows` of one subject, for people. It asks the same questions in the same order."""
    desk = _Desk(now_ms, seen, listener, before, {})
    told = before.standing.get(rows[0].subject)
    if told is not None:
        return Hold("told", told.told_ms)
    if seen.platform.blind_since_ms is not None:
        return Hold("blind", seen.platform.blind_since_ms)
    hold = desk.hold(rows) or desk.hearsay(desk.speaking(rows))
    if hold is not None:
        return hold
    if before.waiting:
        return Hold("waiting")
    if now_ms < before.paused_until_ms:
        return Hold("resting", before.paused_until_ms)
    ripe_ms = max(row.known_ms for row in desk.speaking(rows)) + seen.pace.gather_ms
    if now_ms < ripe_ms <= now_ms + seen.pace.gather_ms:
        return Hold("gathering", ripe_ms)
    is_urgent = min(row.severity for row in desk.speaking(rows)) == URGENT
    every_ms = DIGEST_EVERY_MS if is_urgent else listener.filters.every_min * MINUTE_MS
    if before.last_ms is not None and 0 <= now_ms - before.last_ms < every_ms:
        return Hold("digest", before.last_ms + every_ms)
    return Hold("next")


def standing_after(digest: Digest, standing: Mapping[str, Told]) -> dict[str, Told]:
    """What a channel holds for open once `digest` was delivered to it."""
    after = dict(standing)
    for event in digest.events:
        if event.kind == "recovered":
            after.pop(event.subject, None)
        elif event.kind == "unclaimed" and event.subject in after:
            after[event.subject] = Told(severity=event.severity, told_ms=after[event.subject].told_ms, level=event.level)
        else:
            after[event.subject] = Told(severity=event.severity, told_ms=digest.at_ms, level=event.level)
    if digest.platform is not None:
        if digest.platform.kind == "blind":
            after[PLATFORM] = Told(severity="P1", told_ms=digest.at_ms)
        else:
            after.pop(PLATFORM, None)
    return after


def _by_subject(faults: Iterable[Fault]) -> dict[str, list[Fault]]:
    subjects: dict[str, list[Fault]] = {}
    for fault in faults:
        subjects.setdefault(fault.subject, []).append(fault)
    return subjects


@dataclass(slots=True)
class _News:
    event: Event
    ripe: bool
    """Old enough to be told; what is not ripe may go along."""


@dataclass(slots=True)
class _Desk:
    """One channel at one moment."""

    now_ms: int
    seen: Seen
    listener: Listener
    sent: Sent
    subjects: Mapping[str, list[Fault]]
    forget: list[str] = field(default_factory=list)

    def digest(self, new_id: Callable[[], str]) -> Digest | None:
        platform = self._platform()
        events: tuple[Event, ...] = ()
        if self.seen.platform.blind_since_ms is None:
            found = [news for subject in self.subjects for news in self._about(subject)]
            self._forget_the_vanished()
            if any(news.ripe for news in found):
                events = tuple(sorted((news.event for news in found), key=_order)[:EVENTS_MAX])
        if platform is None and not events:
            return None
        return Digest(id=new_id(), at_ms=self.now_ms, events=events, platform=platform)

    # The platform -------------------------------------------------------------------------------------------------------------------------

    def _platform(self) -> PlatformEvent | None:
        state = self.seen.platform
        since_ms, cause = (
            (state.blind_since_ms, state.cause) if state.blind_since_ms is not None else (state.silence_since_ms, "silence")
        )
        told = self.sent.standing.get(PLATFORM)
        if since_ms is not None:
            is_news = self.now_ms - max(since_ms, state.watching_since_ms) >= BLIND_MS
            return PlatformEvent(kind="blind", cause=cause, since_ms=since_ms) if told is None and is_news else None
        if told is None:
            return None
        from_ms, to_ms = (told.told_ms, self.now_ms) if state.last_gap_ms is None else state.last_gap_ms
        if state.last_gap_ms is not None and 0 <= self.now_ms - to_ms < self.seen.pace.settle_ms:
            return None
        return PlatformEvent(kind="sighted", cause="", since_ms=from_ms, until_ms=to_ms)

    # Faults -------------------------------------------------------------------------------------------------------------------------------

    def _about(self, subject: str) -> Iterable[_News]:
        rows = self.subjects[subject]
        told = self.sent.standing.get(subject)
        terminal = rows[0].terminal
        still = [row for row in rows if row.cleared_ms is None]
        if still:
            if self.hold(still) is None:
                yield from self._lasting(self.speaking(still), told)
        elif told is not None and self.now_ms >= self.seen.maintenance.get(terminal, 0):
            yield from self._over(rows, told)

    def speaking(self, rows: Sequence[Fault]) -> list[Fault]:
        """Without those that somebody told to be quiet."""
        return [row for row in rows if not row.false_alarm and not self._muted(row)]

    def hold(self, rows: Sequence[Fault]) -> Hold | None:
        """What keeps the open faults of one subject from this channel, whether or not it was told before."""
        terminal, filters = rows[0].terminal, self.listener.filters
        until_ms = self.seen.maintenance.get(terminal, 0)
        if self.now_ms < until_ms:
            return Hold("maintenance", until_ms)
        if terminal in self.seen.locked and not is_danger(rows[0].code):
            return Hold("locked")
        speaking = self.speaking(rows)
        if not speaking:
            mutes = [self.seen.mutes.get(row.id, 0) for row in rows if not row.false_alarm]
            return Hold("muted", min(mutes)) if mutes else Hold("falseAlarm")
        severity = min(row.severity for row in speaking)
        if severity not in filters.severities:
            return Hold("severity")
        if filters.kinds and rows[0].code.partition(".")[0] not in filters.kinds:
            return Hold("kind")
        if not self._is_here(terminal):
            return Hold("area")
        quiet_ms = quiet_until_ms(filters, severity, self.now_ms, self.listener.zone)
        return None if quiet_ms is None else Hold("quiet", quiet_ms)

    def _muted(self, row: Fault) -> bool:
        return self.now_ms < self.seen.mutes.get(row.id, 0)

    def _lasting(self, rows: list[Fault], told: Told | None) -> Iterable[_News]:
        severity = min(row.severity for row in rows)
        if told is None:
            if self.hearsay(rows) is not None:
                return
            ripe = all(not 0 <= self.now_ms - row.known_ms < self.seen.pace.gather_ms for row in rows)
            yield _News(self._event("opened", rows), ripe)
        elif severity < told.severity:
            yield _News(self._event("worsened", rows), ripe=True)
        elif any(not row.claimed for row in rows):
            due_ms = next_escalation_ms(self.listener.filters, severity, told.told_ms, told.level)
            if due_ms is not None and self.now_ms >= due_ms:
                yield _News(self._event("unclaimed", rows, level=told.level + 1), ripe=True)

    def hearsay(self, rows: Sequence[Fault]) -> Hold | None:
        """Nothing that is known for sure yet: silence while many are silent, faults out of a backlog whose end may be in it too."""
        if rows[0].code == NET_OFFLINE and self.seen.platform.silence_since_ms is not None:
            return Hold("silence")
        place = self.seen.places.get(rows[0].terminal)
        pace = self.seen.pace
        wait_ms = pace.late_behind_ms if place is not None and place.behind else pace.late_ms
        if all(row.late and 0 <= self.now_ms - row.known_ms < wait_ms for row in rows):
            return Hold("late", min(row.known_ms for row in rows) + wait_ms)
        return None

    def _over(self, rows: list[Fault], told: Told) -> Iterable[_News]:
        last = max(rows, key=lambda row: row.cleared_ms or 0)
        if last.retired or last.false_alarm or self._muted(last) or not self.listener.filters.recoveries:
            self.forget.append(last.subject)
        elif not self._is_quiet(told.severity):
            is_settled = not 0 <= self.now_ms - (last.cleared_ms or 0) < self.seen.pace.settle_ms
            if is_settled:
                yield _News(self._event("recovered", [last]), ripe=True)

    def _forget_the_vanished(self) -> None:
        """Rows that are no longer there (a terminal that was deleted) can never recover."""
        self.forget += [subject for subject in self.sent.standing if subject not in self.subjects and subject != PLATFORM]

    def _is_quiet(self, severity: str) -> bool:
        return is_quiet(self.listener.filters, severity, self.now_ms, self.listener.zone)

    def _is_here(self, terminal: str) -> bool:
        areas = self.listener.filters.areas
        place = self.seen.places.get(terminal)
        return not areas or (place is not None and not set(areas).isdisjoint(place.areas))

    def _event(self, kind: EventKind, rows: list[Fault], *, level: int = 0) -> Event:
        first = min(rows, key=lambda row: (row.severity, row.opened_ms))
        place = self.seen.places.get(first.terminal, Place(label=first.terminal))
        return Event(
            kind=kind,
            severity=first.severity,
            impact=first.impact,
            terminal=first.terminal,
            label=place.label,
            fault=first.code,
            fault_ids=tuple(sorted(row.id for row in rows)),
            name_zh=place.name_zh,
            name_en=place.name_en,
            site=place.site,
            site_zh=place.site_zh,
            site_en=place.site_en,
            area=place.areas[0] if place.areas else "",
            since_ms=min(row.opened_ms for row in rows),
            until_ms=first.cleared_ms if kind == "recovered" else None,
            level=level,
        )


_KINDS = {"unclaimed": 0, "worsened": 1, "opened": 2, "recovered": 3}


def _order(event: Event) -> tuple[bool, str, int, int, str]:
    """What is bad before what is over, worst first, what nobody took before what is new, oldest first."""
    return (event.kind == "recovered", event.severity, _KINDS[event.kind], event.since_ms, event.subject)
