"""Owns who counts: the terminals of a scope that were in service on at least one day of the period, for how many days, and in which area."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

import msgspec

from fleet_server.figures.question import Question
from fleet_server.sites.calendar import DEFAULT_ZONE, day_span_ms, local_day


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A terminal of the population. `machine_days`: days of the period, up to today, on which it was in service."""

    id: str
    code: str
    type: str
    name_zh: str
    name_en: str
    site: str
    site_zh: str
    site_en: str
    area: str
    zone: str
    enrolled_ms: int
    revoked_ms: int | None
    machine_days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    members: tuple[Member, ...]
    outside: tuple[str, ...]
    """Terminals of the scope that were not in service in the period."""
    today: str
    elapsed_days: int
    """Days of the period that have begun."""

    @property
    def size(self) -> int:
        return len(self.members)


@dataclass(frozen=True, slots=True)
class Area:
    code: str
    parent: str | None
    name_zh: str
    name_en: str


@dataclass(frozen=True, slots=True)
class Group:
    """Members of one area below the scope's, or of one site where there is no area below; of the scope's own area, or of none."""

    kind: Literal["area", "site", "itself", "none"]
    code: str
    name_zh: str
    name_en: str
    members: tuple[Member, ...]

    def question(self, whole: Question) -> Question:
        """The question that has exactly these members for its population."""
        if self.kind == "site":
            return replace(whole, scope=replace(whole.scope, site=self.code))
        is_direct = self.kind != "area"
        return replace(whole, scope=replace(whole.scope, area=self.code or None, direct=is_direct))


def load_population(conn: sqlite3.Connection, question: Question, now_ms: int) -> Population:
    period, scope = question.period, question.scope
    today = local_day(now_ms)
    rows = conn.execute(
        _TERMINALS,
        {
            "area": scope.area, "site": scope.site, "type": scope.type, "terminal": scope.terminal, "owner": scope.owner,
            "direct": int(scope.direct),
        },
    ).fetchall()  # fmt: skip
    members, outside = [], []
    if period.first > today:
        # Nobody has been in service on a day that has not begun.
        return Population(members=(), outside=(), today=today, elapsed_days=0)
    for row in rows:
        zone = row[9] or DEFAULT_ZONE
        days = 0 if row[10] is None else _in_service_days(row[10], row[11], zone, period.first, period.last)
        if days <= 0:
            outside.append(row[0])
            continue
        last = min(period.last, today)
        members.append(
            Member(
                id=row[0], code=row[1], type=row[2], name_zh=row[3], name_en=row[4], site=row[5], site_zh=row[6] or "",
                site_en=row[7] or "", area=row[8] or "", zone=zone, enrolled_ms=row[10], revoked_ms=row[11],
                machine_days=max(0, _in_service_days(row[10], row[11], zone, period.first, last)),
            )
        )  # fmt: skip
    return Population(members=tuple(members), outside=tuple(outside), today=today, elapsed_days=period.elapsed_days(today))


def _in_service_days(enrolled_ms: int, revoked_ms: int | None, zone: str, first: str, last: str) -> int:
    """Local days of [first, last] touched by the time in service: enrolled before a day's end, not revoked before its start."""
    start = max(first, local_day(enrolled_ms, zone))
    end = last if revoked_ms is None else min(last, local_day(revoked_ms, zone))
    return (date.fromisoformat(end) - date.fromisoformat(start)).days + 1


def in_service_ms(member: Member, first: str, last: str, now_ms: int) -> tuple[int, int]:
    """[from, to) of the member's service inside the local days, up to now; empty if from is not before to."""
    start, end = day_span_ms(first, member.zone)[0], day_span_ms(last, member.zone)[1]
    until_ms = now_ms if member.revoked_ms is None else min(now_ms, member.revoked_ms)
    return max(start, member.enrolled_ms), min(end, until_ms)


def ids_json(ids: Sequence[str]) -> str:
    """For `json_each`: a list of any length as one parameter."""
    return msgspec.json.encode(ids).decode()


# Areas ----------------------------------------------------------------------------------------------------------------------------------


def load_areas(conn: sqlite3.Connection) -> dict[str, Area]:
    """By code, in the order in which they are shown."""
    return {row[0]: Area(*row) for row in conn.execute("SELECT code, parent, name_zh, name_en FROM area ORDER BY sort, code")}


def group_members(areas: Mapping[str, Area], members: Sequence[Member], top: str | None) -> list[Group]:
    """Pure: `members` by the areas directly below `top` (without one: below the only root), by site where nothing lies below.

    Who stands in `top` itself comes first, who has no known area last. Groups without a member are left out.
    """
    roots = [area.code for area in areas.values() if area.parent not in areas]
    if top is None and len(roots) == 1:
        top = roots[0]
    if top is not None and not any(area.parent == top for area in areas.values()):
        return _by_site(members)
    sorted_out: defaultdict[str, list[Member]] = defaultdict(list)
    for member in members:
        sorted_out[_below(areas, member.area, top)].append(member)
    order = [*([top] if top is not None else []), *(code for code in areas if code != top)]
    groups = [
        Group("itself" if code == top else "area", code, areas[code].name_zh, areas[code].name_en, tuple(sorted_out[code]))
        for code in order
        if code in areas and sorted_out.get(code)
    ]
    if sorted_out.get(""):
        groups.append(Group("none", "", "", "", tuple(sorted_out[""])))
    return groups


def _below(areas: Mapping[str, Area], code: str, top: str | None) -> str:
    """The area directly below `top` that holds `code`; `top` itself, or nothing for a place outside."""
    seen = set()
    while code in areas and code not in seen:
        parent = areas[code].parent
        if top in (code, parent) or (top is None and parent not in areas):
            return code
        seen.add(code)
        code = parent or ""
    return ""


def _by_site(members: Sequence[Member]) -> list[Group]:
    by_site: defaultdict[str, list[Member]] = defaultdict(list)
    for member in members:
        by_site[member.site].append(member)
    return [Group("site", site, found[0].site_zh, found[0].site_en, tuple(found)) for site, found in sorted(by_site.items())]


_TERMINALS = """
WITH RECURSIVE inside (code) AS (SELECT :area UNION SELECT a.code FROM area a JOIN inside ON a.parent = inside.code)
SELECT t.id, t.code, t.type, t.name_zh, t.name_en, t.site, s.name_zh, s.name_en, s.area, s.timezone, t.enrolled_ms, t.revoked_ms
FROM terminal t LEFT JOIN site s ON s.code = t.site
WHERE (:area IS NULL OR s.area = :area OR (:direct = 0 AND s.area IN (SELECT code FROM inside)))
  AND (:direct = 0 OR :area IS NOT NULL OR s.area IS NULL OR s.area NOT IN (SELECT code FROM area))
  AND (:owner IS NULL OR t.class = :owner) AND (:site IS NULL OR t.site = :site) AND (:type IS NULL OR t.type = :type)
  AND (:terminal IS NULL OR t.id = :terminal)
ORDER BY t.id
"""
