"""Reads what planners and previews must know of the fleet: terminals as targets, what runs there, when they may install. One look, one moment."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from fleet_server.rollouts import store
from fleet_server.rollouts.planner import Contender, Facts, Heard, Wanted, World, precedence
from fleet_server.rollouts.query import Query, Target, matches
from fleet_server.rollouts.rules import BUSY, ENDED, Candidate, Member, Policy, Span
from fleet_server.rollouts.windows import HORIZON_DAYS, allowed, closed_spans, frozen_spans
from fleet_server.sites.calendar import DAY_MS, DEFAULT_ZONE, Calendar, load_calendar
from fleet_server.sites.hours import DatedHours, load_hours

_FLEET: Final = """
SELECT t.id, t.code, t.type, t.name_zh, t.name_en, t.site, t.class, t.tags, t.enrolled_ms, t.revoked_ms, t.maintenance_until_ms,
  max(coalesce(l.last_seen_ms, 0), coalesce(l.last_report_ms, 0)), coalesce(s.kind, ''), coalesce(s.area, ''),
  coalesce(s.timezone, 'Asia/Shanghai')
FROM terminal t LEFT JOIN terminal_live l ON l.terminal = t.id LEFT JOIN site s ON s.code = t.site"""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One terminal, as it stands."""

    target: Target
    name_zh: str
    name_en: str
    zone: str
    enrolled: bool
    retired: bool
    maintenance: bool
    heard_ms: int | None
    profiles: Mapping[str, str | None]
    """Slot → profile."""
    running: Mapping[str, tuple[str, int]]

    @property
    def hardware(self) -> str:
        return "|".join([self.target.type, *sorted(one for one in self.profiles.values() if one)])


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet at one moment."""

    now_ms: int
    terminals: Mapping[str, Standing]
    hours: Mapping[str, DatedHours]
    calendar: Calendar
    freezes: tuple[Span, ...]

    @property
    def halls(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for one in self.terminals.values():
            if not one.retired:
                found[one.target.site] = found.get(one.target.site, 0) + 1
        return found

    def frozen(self, policy: Policy) -> tuple[Span, ...]:
        """Time in which nothing starts, seen from the fleet's time zone: holidays are the country's."""
        if policy.ignore_freeze:
            return ()
        return frozen_spans(self.calendar, DEFAULT_ZONE, self.now_ms, days_before=policy.freeze_days, own=self.freezes)


def ground(conn: sqlite3.Connection, now_ms: int) -> Ground:
    """Everything at once: 4,000 terminals take about a tenth of a second."""
    parents = dict(conn.execute("SELECT code, parent FROM area").fetchall())
    profiles: dict[str, dict[str, str | None]] = {}
    for terminal, slot, profile in conn.execute("SELECT terminal, slot, profile FROM device"):
        profiles.setdefault(terminal, {})[slot] = profile
    running: dict[str, dict[str, tuple[str, int]]] = {}
    for terminal, component, version, release in conn.execute(
        "SELECT terminal, component, version, release FROM installed_version"
    ):
        running.setdefault(terminal, {})[component] = (version, release)
    above: dict[str, frozenset[str]] = {}
    terminals: dict[str, Standing] = {}
    for row in conn.execute(_FLEET):
        area = row[13]
        if area not in above:
            above[area] = _above(area, parents)
        now = running.get(row[0], {})
        own = profiles.get(row[0], {})
        terminals[row[0]] = Standing(
            target=Target(
                id=row[0],
                code=row[1] or row[0],
                type=row[2],
                areas=above[area],
                site=row[5],
                site_kind=row[12],
                owner_class=row[6],
                profiles=frozenset(one for one in own.values() if one),
                versions={name: pair[0] for name, pair in now.items()},
                tags=_tags(row[7]),
            ),
            name_zh=row[3],
            name_en=row[4],
            zone=row[14],
            enrolled=row[8] is not None,
            retired=row[9] is not None,
            maintenance=row[10] is not None and row[10] > now_ms,
            heard_ms=row[11] or None,
            profiles=own,
            running=now,
        )
    return Ground(
        now_ms=now_ms,
        terminals=terminals,
        hours=load_hours(conn),
        calendar=load_calendar(conn),
        freezes=tuple(store.freeze_spans(conn)),
    )


def _above(area: str, parents: Mapping[str, str | None]) -> frozenset[str]:
    found: set[str] = set()
    at: str | None = area
    while at and at not in found:
        found.add(at)
        at = parents.get(at)
    return frozenset(found)


def _tags(text: str) -> frozenset[str]:
    try:
        tags = json.loads(text)
    except json.JSONDecodeError:
        return frozenset()
    return frozenset(str(tag) for tag in tags) if isinstance(tags, list) else frozenset()


# Target groups --------------------------------------------------------------------------------------------------------------------------


def chosen(look: Ground, query: Query) -> list[Standing]:
    """The terminals that a query means now; retired ones never."""
    return [one for one in look.terminals.values() if not one.retired and matches(query, one.target)]


def wanted_at(one: Standing, releases: Iterable[store.Release]) -> tuple[Wanted, ...]:
    """What the releases mean at this terminal, component by component."""
    return tuple(
        Wanted(component=component, version=release.version, release=release.release)
        for release in releases
        for component in release.components(one.profiles)
    )


def candidates(look: Ground, query: Query, releases: Iterable[store.Release], policy: Policy) -> list[Candidate]:
    """The target group, ready to be put into waves."""
    known = list(releases)
    found: list[Candidate] = []
    for one in chosen(look, query):
        wanted = wanted_at(one, known)
        there = bool(wanted) and all(one.running.get(each.component) == (each.version, each.release) for each in wanted)
        silent = one.heard_ms is None or look.now_ms - one.heard_ms > policy.silent_s * 1000
        found.append(
            Candidate(
                terminal=one.target.id,
                site=one.target.site,
                # The nearest area above a site is the finest that spreads; a site without one stands for itself.
                area=_own_area(one),
                hardware=one.hardware,
                ready=one.enrolled and not one.maintenance and not silent and not there and bool(wanted),
            )
        )
    return found


def _own_area(one: Standing) -> str:
    return "/".join(sorted(one.target.areas)) or one.target.site


# Facts of one rollout -------------------------------------------------------------------------------------------------------------------


def windows_at(look: Ground, one: Standing, policy: Policy, frozen: tuple[Span, ...]) -> tuple[Span, ...] | None:
    """When it may install in the coming days; None: at any time."""
    end_ms = look.now_ms + HORIZON_DAYS * DAY_MS
    if policy.window == "any":
        if not any(until > look.now_ms and begin < end_ms for begin, until in frozen):
            return None
        return allowed(((look.now_ms, end_ms),), frozen)
    hours = look.hours.get(one.target.site)
    if hours is None:
        return None if not frozen else allowed(((look.now_ms, end_ms),), frozen)
    return allowed(closed_spans(hours, look.calendar, one.zone, look.now_ms, probation_ms=policy.probation_s * 1000), frozen)


def worlds(
    look: Ground,
    sheets: Mapping[str, store.Sheet],
    members: Mapping[str, Mapping[str, Member]],
    releases: Mapping[int, store.Release],
    steps: Mapping[str, Mapping[str, Heard]],
    only: str,
) -> World:
    """What the rollout `only` must know. `sheets` and `members` are those of all rollouts that may still do something; `steps` by bundle."""
    sheet = sheets[only]
    own = [releases[one] for one in sheet.releases if one in releases]
    late = sheet.rollout.policy.late_joiners and sheet.rollout.state not in ENDED
    joiners = [one for one in chosen(look, sheet.query) if one.target.id not in members[only]] if late else []
    arriving = frozenset(one.target.id for one in joiners)
    first = precedence(
        Contender(
            rollout=other.rollout,
            members=members[name],
            touches=frozenset(releases[one].kind for one in other.releases if one in releases),
            joiners=arriving if name == only else frozenset(),
        )
        for name, other in sheets.items()
    )[only]
    policy = sheet.rollout.policy
    frozen = look.frozen(policy)
    by_site: dict[tuple[str, str], tuple[Span, ...] | None] = {}
    facts: dict[str, Facts] = {}
    for terminal in (*members[only], *arriving):
        one = look.terminals.get(terminal)
        if one is None:
            continue
        key = (one.target.site, one.zone)
        if key not in by_site:
            by_site[key] = windows_at(look, one, policy, frozen)
        facts[terminal] = Facts(
            terminal=terminal,
            site=one.target.site,
            enrolled=one.enrolled,
            retired=one.retired,
            maintenance=one.maintenance,
            heard_ms=one.heard_ms,
            wanted=wanted_at(one, own),
            running=one.running,
            steps=steps.get(members[only][terminal].bundle, {}) if terminal in members[only] else {},
            windows=by_site[key],
            other=first.get(terminal, ""),
        )
    return World(
        terminals=facts,
        halls=look.halls,
        hall_busy=_hall_busy(look, members, only),
        frozen=frozen,
        joiners=tuple((one.target.id, one.target.site) for one in joiners),
        bad_release=any(one.known == "bad" for one in own) or len(own) < len(sheet.releases),
    )  # fmt: skip


def _hall_busy(look: Ground, members: Mapping[str, Mapping[str, Member]], only: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, group in members.items():
        if name == only:
            continue
        for member in group.values():
            if member.state in BUSY:
                one = look.terminals.get(member.terminal)
                site = one.target.site if one is not None else member.site
                found[site] = found.get(site, 0) + 1
    return found


def steps_of(conn: sqlite3.Connection, members: Mapping[str, Mapping[str, Member]]) -> dict[str, dict[str, Heard]]:
    """Bundle → component → the newest signed and undisputed word on it, for those in the middle."""
    bundles = [member.bundle for group in members.values() for member in group.values() if member.state in BUSY and member.bundle]
    found: dict[str, dict[str, Heard]] = {}
    for bundle in bundles:
        rows = conn.execute(
            # Batches come in the order in which they were sealed: the last row is the newest word.
            "SELECT component, state, reason FROM update_step WHERE bundle = ? AND disputed = 0 ORDER BY batch, idx",
            (bytes.fromhex(bundle),),
        )
        for component, state, reason in rows:
            found.setdefault(bundle, {})[component] = Heard(state=state, reason=reason, bundle=bundle)
    return found
