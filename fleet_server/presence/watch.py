"""Owns presence: who is heard, kept in memory by ingest, written as intervals every few seconds.

It decides nothing about facts and locks no row that business logic locks: it writes `presence`, `platform_gap`, `terminal_live`, `watch_mark` and the
alarm NET.OFFLINE. All methods but `load`, `reload`, `keep` and `flush` work in memory. Times are wall time in ms.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from fleet_server.faults.platform import clear_platform_fault, open_platform_fault
from fleet_server.presence import store
from fleet_server.presence.limits import DEFAULT_LIMITS, Limits, load_limits
from fleet_server.presence.rules import (
    THRESHOLDS,
    WILL_AFTER_BIRTH_MS,
    Quiet,
    Sight,
    Thresholds,
    Verdict,
    judge,
    mass_silence,
    silence_ms,
    silent_sites,
)
from fleet_server.presence.store import Gap, Live, Stored
from fleet_server.sites.calendar import (
    DEFAULT_ZONE,
    NEVER,
    Calendar,
    Hours,
    HoursError,
    load_calendar,
    local_day,
    local_time,
    open_since_ms,
    parse_hours,
)
from protocols.contract.messages import Birth

log = logging.getLogger(__name__)

KEEP_MS = 250
"""`keep` does nothing if it is called again sooner: a change of state waits no longer for the database, a storm of them shares commits."""
FLUSH_MS = 2_000
"""Last-seen times reach the database this often."""
RELOAD_MS = 15_000
STRANGER_MS = 2_000
"""A sign of life of a terminal that was not there at the last reload brings the next one forward."""
STALLED_MS = 30_000
"""A watch that was not called for so long did not watch (process stopped, machine suspended)."""
NOBODY_MS = 60_000
"""An outage ends with the first contact, or this long after the broker is back if nobody comes."""
STRANGERS_MAX = 10_000
NET_OFFLINE = "NET.OFFLINE"


class BirthsWaiting(Protocol):
    """Births whose open faults wait for the backlog they list."""

    def born(self, conn: sqlite3.Connection, terminal: str, birth: Birth, now_ms: int) -> None: ...
    def retry(self, conn: sqlite3.Connection) -> None: ...


@dataclass(slots=True)
class _Watched:
    """One terminal in service."""

    terminal: str
    sight: Sight
    verdict: Verdict | None = None
    alarmed: bool = False
    site: str = ""
    hours: Hours = NEVER
    zone: str = DEFAULT_ZONE
    owner_class: str = ""
    limits: Thresholds = THRESHOLDS["government"]
    maintenance_until_ms: int = 0
    stream: bytes | None = None
    """Of the agent that greeted last, and when."""
    born_ms: int | None = None


class PresenceWatch:
    """Fed by ingest with everything that arrives; `keep` is called between messages, at least once a second."""

    def __init__(self, calendar: Calendar, now_ms: int, births: BirthsWaiting | None = None) -> None:
        self._calendar, self._births = calendar, births
        self._limits: Limits = DEFAULT_LIMITS
        self._watched: dict[str, _Watched] = {}
        self._site_sizes: Counter[str] = Counter()
        self._strangers: dict[str, int] = {}
        self._whole: Gap | None = None
        self._partial: Gap | None = None
        self._broker_up_ms: int | None = None
        self._opened: dict[str, int | None] = {}
        self._day = ""
        self._kept_ms = -KEEP_MS
        self._ticked_ms = self._flushed_ms = self._loaded_ms = now_ms
        # Waiting to be written.
        self._live: dict[str, Live] = {}
        self._moves: dict[str, list[Verdict]] = {}
        self._alarms: dict[str, bool] = {}
        self._ended: list[tuple[Gap, int]] = []
        self._past_days: list[str] = []

    @classmethod
    def load(cls, conn: sqlite3.Connection, now_ms: int, *, births: BirthsWaiting | None = None) -> PresenceWatch:
        """The watch as its predecessor left it; what lies between them is a blind span that lasts until the first contact."""
        watch = cls(load_calendar(conn), now_ms, births)
        watch.reload(conn, now_ms)
        left = store.read_left(conn)
        if left.mark_ms is None:
            # Nobody has ever listened: silence begins now, after time to connect.
            for one in watch._watched.values():
                silent_ms = max(0, now_ms - one.sight.seen_ms)
                one.sight = replace(one.sight, excused_ms=silent_ms, held_until_ms=now_ms + watch._limits.crowd.reconnect_ms)
            return watch
        mark_ms = min(left.mark_ms, now_ms)
        whole = next((gap for gap in left.gaps if gap.is_whole), None)
        watch._whole = Gap(mark_ms, "ingest") if whole is None else whole
        watch._ended = [(gap, max(mark_ms, gap.from_ms)) for gap in left.gaps if gap is not whole]
        for one in watch._watched.values():
            if one.verdict is not None and one.verdict.state == "unknown":
                blind_ms = max(0, mark_ms - max(one.verdict.from_ms, one.sight.seen_ms))
                one.sight = replace(one.sight, excused_ms=blind_ms)
        return watch

    def reload(self, conn: sqlite3.Connection, now_ms: int) -> None:
        """Take over what people changed: terminals, sites, hours, maintenance, holidays, thresholds."""
        self._calendar = _same_or(self._calendar, load_calendar(conn))
        self._limits = load_limits(conn)
        watched = {row.terminal: self._renewed(row) for row in store.read_terminals(conn)}
        for terminal in self._strangers.keys() & watched.keys():
            one = watched[terminal]
            one.sight = replace(one.sight, seen_ms=max(one.sight.seen_ms, self._strangers[terminal]), ever_seen=True)
        self._strangers.clear()
        self._live = {terminal: live for terminal, live in self._live.items() if terminal in watched}
        self._watched, self._loaded_ms = watched, now_ms
        self._site_sizes = Counter(one.site for one in watched.values())
        if self._partial is not None:
            self._partial.affected &= watched.keys()

    def _renewed(self, row: Stored) -> _Watched:
        one = self._watched.get(row.terminal)
        if one is None:
            seen_ms = row.enrolled_ms if row.seen_ms is None else row.seen_ms
            stopped_ms = row.verdict.from_ms if row.verdict is not None and row.verdict.state == "stopped" else None
            sight = Sight(seen_ms=seen_ms, ever_seen=row.seen_ms is not None, stopped_ms=stopped_ms)
            one = _Watched(row.terminal, sight, row.verdict, row.alarmed)
        one.site, one.owner_class, one.zone = row.site, row.owner_class, row.zone or DEFAULT_ZONE
        one.limits = self._limits.of(row.owner_class)
        one.maintenance_until_ms = row.maintenance_until_ms
        try:
            one.hours = parse_hours(row.hours)
        except HoursError:
            one.hours = NEVER
        return one

    # What ingest reports ----------------------------------------------------------------------------------------------------------------

    def heard(self, terminal: str, by: str, now_ms: int, *, depth: int | None = None, oldest_ms: int | None = None) -> None:
        """A sign of life (`heartbeat`, `birth`, `batch`); `will` means that the connection broke."""
        if by == "will":
            self.broken(terminal, now_ms)
            return
        one = self._watched.get(terminal)
        if one is None:
            if len(self._strangers) >= STRANGERS_MAX:
                return
            self._strangers[terminal] = now_ms
        live = self._live.setdefault(terminal, Live())
        live.seen_ms, live.seen_by, live.connected = now_ms, by, True
        if by == "heartbeat":
            live.beat = (depth, oldest_ms)
        elif by == "batch":
            live.report_ms = now_ms
        if one is not None:
            # A backlog that is still on its way does not undo the announced stop.
            one.sight = Sight(seen_ms=now_ms, stopped_ms=one.sight.stopped_ms if by == "batch" else None)
            self._seen(one, now_ms)

    def _seen(self, one: _Watched, now_ms: int) -> None:
        if self._partial is not None:
            self._partial.affected.discard(one.terminal)
        if self._whole is not None and self._broker_up_ms is not None:
            self._end_whole(now_ms)
        self._move(one, now_ms)

    def born(self, conn: sqlite3.Connection, terminal: str, birth: Birth, now_ms: int) -> None:
        """A fresh signed greeting."""
        self.heard(terminal, "birth", now_ms)
        live, one = self._live.get(terminal), self._watched.get(terminal)
        if live is not None:
            live.birth, live.born_ms = birth, now_ms
        if one is not None:
            one.stream, one.born_ms = birth.stream, now_ms
        if self._births is not None:
            self._births.born(conn, terminal, birth, now_ms)

    def broken(self, terminal: str, now_ms: int) -> None:
        """The broker says that the connection broke."""
        one = self._watched.get(terminal)
        if one is None or (one.born_ms is not None and 0 <= now_ms - one.born_ms < WILL_AFTER_BIRTH_MS):
            return
        live = self._live.setdefault(terminal, Live())
        live.will_ms, live.connected = now_ms, False
        if one.sight.broken_ms is None:
            one.sight = replace(one.sight, broken_ms=now_ms)

    def stopping(self, terminal: str, stream: bytes, now_ms: int) -> None:
        """The agent has just announced, signed, that it ends. Of an agent before the one that greeted last this means nothing any more."""
        one = self._watched.get(terminal)
        if one is not None and one.stream in {None, stream}:
            self._live.setdefault(terminal, Live()).connected = False
            one.sight = replace(one.sight, stopped_ms=now_ms)

    def broker(self, up: bool, now_ms: int) -> None:
        """The connection to the broker came or went; may be told repeatedly."""
        if not up:
            self._broker_up_ms = None
            self._whole = self._whole or Gap(now_ms, "broker")
        elif self._broker_up_ms is None:
            self._broker_up_ms = now_ms

    # Deciding ---------------------------------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> bool:
        """Judge everybody; True if there is something to write."""
        if self._whole is None and now_ms - self._ticked_ms > STALLED_MS:
            self._whole = Gap(self._ticked_ms, "ingest")
            self._broker_up_ms = None if self._broker_up_ms is None else now_ms
        self._ticked_ms = now_ms
        self._opened.clear()
        if self._whole is None:
            self._judge_everybody(now_ms)
        elif self._broker_up_ms is not None and now_ms - self._broker_up_ms >= NOBODY_MS:
            self._end_whole(now_ms)
        elif now_ms - self._whole.from_ms >= self._limits.crowd.blind_ms:
            for one in self._watched.values():
                if one.sight.seen_ms <= self._whole.from_ms:
                    self._set_unknown(one, self._whole)
        self._roll_day(now_ms)
        is_due = not 0 <= now_ms - self._flushed_ms < FLUSH_MS
        return is_due or bool(self._moves or self._alarms or self._ended or self._past_days)

    def _judge_everybody(self, now_ms: int) -> None:
        quiet, heard = self._quiet(now_ms)
        self._follow_mass_silence(quiet, heard, now_ms)
        together = silent_sites(quiet, self._site_sizes, self._limits.crowd) if quiet else frozenset()
        for one in self._watched.values():
            self._move(one, now_ms, together)
            self._alarm(one, now_ms)

    def _quiet(self, now_ms: int) -> tuple[list[Quiet], int]:
        """Terminals that went quiet inside their opening hours, and how many are heard.

        Announced stops do not count, nor do the machines of partners, which report in bundles.
        """
        quiet, heard = [], 0
        for one in self._watched.values():
            sight = one.sight
            if (
                sight.stopped_ms is not None
                or not sight.ever_seen
                or one.owner_class == "social"
                or self._open_since(one, now_ms) is None
            ):
                continue
            if sight.broken_ms is not None or silence_ms(sight, now_ms) >= one.limits.suspect_ms:
                quiet.append(Quiet(one.terminal, one.site, sight.seen_ms if sight.broken_ms is None else sight.broken_ms))
            else:
                heard += 1
        return quiet, heard

    def _follow_mass_silence(self, quiet: list[Quiet], heard: int, now_ms: int) -> None:
        if self._partial is None:
            lately = [one for one in quiet if self._is_newly_quiet(self._watched[one.terminal])]
            since_ms = mass_silence(lately, heard, self._limits.crowd)
            if since_ms is None:
                return
            self._partial = Gap(since_ms, "silence")
            log.warning("terminals of several sites fell silent together", extra={"terminals": len(lately), "since_ms": since_ms})
        gap = self._partial
        gap.affected.update(
            one.terminal for one in quiet if one.since_ms >= gap.from_ms and self._is_newly_quiet(self._watched[one.terminal])
        )
        gap.most = max(gap.most, len(gap.affected))
        if len(gap.affected) * 2 > gap.most:
            for terminal in gap.affected:
                self._set_unknown(self._watched[terminal], gap)
        else:
            self._end_partial(gap, now_ms)

    def _is_newly_quiet(self, one: _Watched) -> bool:
        """Was online until this silence, and this silence has not been excused before."""
        return one.sight.excused_ms == 0 and one.verdict is not None and one.verdict.state in {"online", "suspect"}

    def _move(self, one: _Watched, now_ms: int, together: frozenset[str] = frozenset()) -> None:
        if self._whole is not None or (self._partial is not None and one.terminal in self._partial.affected):
            return
        verdict = judge(one.sight, one.verdict, one.limits, now_ms)
        if verdict.state == "offline" and verdict.cause == "silence" and one.site in together:
            verdict = replace(verdict, cause="site")
        self._set(one, verdict)

    def _set_unknown(self, one: _Watched, gap: Gap) -> None:
        if one.sight.stopped_ms is None and one.sight.ever_seen:
            self._set(one, Verdict("unknown", gap.cause, gap.from_ms))

    def _set(self, one: _Watched, verdict: Verdict) -> None:
        before = one.verdict
        if before is not None:
            if before.state == verdict.state:
                return
            verdict = replace(verdict, from_ms=max(verdict.from_ms, before.from_ms))
        one.verdict = verdict
        self._moves.setdefault(one.terminal, []).append(verdict)
        if verdict.state == "online" and one.alarmed:
            one.alarmed = False
            self._alarms[one.terminal] = False

    def _alarm(self, one: _Watched, now_ms: int) -> None:
        """NET.OFFLINE, once per episode, after enough silence inside opening hours."""
        if (
            one.alarmed
            or one.verdict is None
            or one.verdict.state not in {"offline", "stopped"}
            or now_ms < one.maintenance_until_ms
        ):
            return
        opened_ms = self._open_since(one, now_ms)
        if opened_ms is None:
            return
        quiet_since_ms = now_ms - silence_ms(one.sight, now_ms) if one.sight.stopped_ms is None else one.sight.stopped_ms
        if now_ms - max(quiet_since_ms, opened_ms) >= one.limits.alarm_ms:
            one.alarmed = True
            self._alarms[one.terminal] = True

    def _open_since(self, one: _Watched, now_ms: int) -> int | None:
        if one.site not in self._opened:
            self._opened[one.site] = open_since_ms(one.hours, self._calendar, one.zone, now_ms)
        return self._opened[one.site]

    def _end_whole(self, now_ms: int) -> None:
        gap = self._whole
        assert gap is not None
        self._whole = None
        if self._partial is not None:
            self._end_partial(self._partial, gap.from_ms)
        self._end(gap, self._watched.values(), now_ms)

    def _end_partial(self, gap: Gap, now_ms: int) -> None:
        self._partial = None
        self._end(gap, [self._watched[terminal] for terminal in gap.affected], now_ms)

    def _end(self, gap: Gap, affected: Iterable[_Watched], now_ms: int) -> None:
        """The platform hears again: the span is excused, and who is not back yet gets time to reconnect."""
        self._ended.append((gap, now_ms))
        for one in affected:
            sight = one.sight
            if sight.seen_ms < now_ms:
                # A connection that broke with the platform says nothing about the terminal.
                broken_ms = sight.broken_ms if sight.broken_ms is not None and sight.broken_ms < gap.from_ms else None
                blind_ms = now_ms - max(gap.from_ms, sight.seen_ms)
                one.sight = replace(
                    sight,
                    excused_ms=sight.excused_ms + max(0, blind_ms),
                    held_until_ms=now_ms + self._limits.crowd.reconnect_ms,
                    broken_ms=broken_ms,
                )

    def _roll_day(self, now_ms: int) -> None:
        """At midnight the day before becomes due for everybody, also for those of whom nothing was heard."""
        today = local_day(now_ms)
        if today == self._day:
            return
        if self._day:
            self._past_days.append(self._day)
        self._day = today
        for year in self._calendar.missing_years(local_time(now_ms).date()):
            log.warning("the holidays of a year are not known, import the State Council's notice", extra={"year": year})

    # Writing ----------------------------------------------------------------------------------------------------------------------------

    def keep(self, conn: sqlite3.Connection, now_ms: int) -> None:
        """Judge, and write in a transaction of its own what is due. Cheap if called often."""
        if 0 <= now_ms - self._kept_ms < KEEP_MS:
            return
        self._kept_ms = now_ms
        if not 0 <= now_ms - self._loaded_ms < (STRANGER_MS if self._strangers else RELOAD_MS):
            self.reload(conn, now_ms)
        if not self.tick(now_ms):
            return
        begun: list[Gap] = []
        conn.execute("BEGIN IMMEDIATE")
        try:
            self._write(conn, now_ms, begun)
            conn.execute("COMMIT")
        except BaseException:
            for gap in begun:
                gap.row = None
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise
        self._forget_written(now_ms)

    def flush(self, conn: sqlite3.Connection, now_ms: int) -> None:
        """Write everything that waits, inside the caller's transaction, which must succeed."""
        self._write(conn, now_ms, [])
        self._forget_written(now_ms)

    def _write(self, conn: sqlite3.Connection, now_ms: int, begun: list[Gap]) -> None:
        """`begun` collects the gaps whose rows are new, in case the transaction fails."""
        store.write_live(conn, [(terminal, live) for terminal, live in self._live.items() if terminal in self._watched])
        for terminal, moves in self._moves.items():
            one = self._watched.get(terminal)
            store.write_moves(conn, terminal, DEFAULT_ZONE if one is None else one.zone, moves, now_ms)
        blind_ms = self._limits.crowd.blind_ms
        for gap, to_ms in self._ended:
            store.write_ended(conn, gap, to_ms, now_ms, blind_ms=blind_ms)
        lasting = [gap for gap in (self._whole, self._partial) if gap is not None]
        begun += [gap for gap in lasting if store.write_lasting(conn, gap, now_ms, blind_ms=blind_ms)]
        self._write_alarms(conn, now_ms)
        for day in self._past_days:
            store.mark_day(conn, day, self._watched)
        if self._whole is None:
            store.write_mark(conn, now_ms)
        if self._births is not None:
            self._births.retry(conn)

    def _write_alarms(self, conn: sqlite3.Connection, now_ms: int) -> None:
        for terminal, raised in self._alarms.items():
            one = self._watched.get(terminal)
            if raised and one is not None:
                since_ms = one.sight.seen_ms if one.sight.stopped_ms is None else one.sight.stopped_ms
                open_platform_fault(conn, terminal, NET_OFFLINE, now_ms, since_ms=since_ms)
            elif not raised:
                clear_platform_fault(conn, terminal, NET_OFFLINE, now_ms)

    def _forget_written(self, now_ms: int) -> None:
        self._flushed_ms = now_ms
        for terminal in [terminal for terminal in self._live if terminal not in self._strangers]:
            del self._live[terminal]
        self._moves.clear()
        self._alarms.clear()
        self._ended.clear()
        self._past_days.clear()


def _same_or(old: Calendar, new: Calendar) -> Calendar:
    """Keep the old value if nothing changed: opening hours are cached by it."""
    return old if (old.off, old.work, old.years) == (new.off, new.work, new.years) else new
