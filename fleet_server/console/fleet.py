"""The fleet as it is now, kept in memory by each web process: one value that list, tiles, chips and the event stream all read.

A page and the stream can therefore never disagree. The view follows the `change` table; silence, opening hours and maintenance ends come with
time alone, so states are judged again at least once a second. Everything is read anew now and then, so a lost hint heals.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, TypeVar

from fleet_server.console.limits import USUAL_CLASS, load_limits
from fleet_server.console.model import (
    NOWHERE,
    USUAL,
    DeviceNow,
    FaultNow,
    Limits,
    LockNow,
    Place,
    Slot,
    SupplyNow,
    TerminalNow,
    lamp,
)
from fleet_server.engine import FleetEngine
from fleet_server.presence.rules import platform_blind_since
from fleet_server.sites.calendar import (
    ALWAYS,
    Calendar,
    Hours,
    HoursError,
    builtin_calendar,
    day_span_ms,
    load_calendar,
    local_day,
    open_since_ms,
    parse_hours,
)
from fleet_server.terminals.consumption import WINDOW_MS, Level, outlook
from fleet_server.terminals.lock import IS_LOCKED
from fleet_server.terminals.state import Contact, OpenFault, Registered, State, terminal_state

T = TypeVar("T")
JUDGE_EVERY_MS: Final = 1_000
RELOAD_EVERY_MS: Final = 300_000
"""Against lost hints only; 4,000 terminals take most of a second."""
SEEN_EVERY_MS: Final = 5_000
"""Last-seen times and settings are written without hints; read in small queries."""
FIGURES_EVERY_MS: Final = 30_000
FIGURES_DAYS: Final = 60
"""How far back the last day with a case is looked for."""
WATCH_MARK: Final = "watch"
MANY: Final = 0.25
"""If more than this share of the fleet changed, one query for all is cheaper."""


@dataclass(frozen=True, slots=True)
class Platform:
    """Whether the server itself can see."""

    blind_since_ms: int | None = None
    """Since when nobody is heard at all."""
    cause: str = ""
    silence_since_ms: int | None = None
    """Since when several sites are silent together; their terminals are unknown one by one."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """One consistent look at everything. Equal rows keep their identity from one look to the next, so `is` finds what changed."""

    at_ms: int
    change_id: int
    terminals: tuple[TerminalNow, ...]
    by_id: Mapping[str, TerminalNow]
    platform: Platform
    calendar: Calendar
    today: str
    limits: Mapping[str, Limits] = field(default_factory=dict)
    """By class of terminals."""

    @property
    def usual(self) -> Limits:
        """What holds for the government's own terminals."""
        return self.limits.get(USUAL_CLASS, USUAL)


EMPTY: Final = Fleet(0, 0, (), {}, Platform(), builtin_calendar(), "")


@dataclass(slots=True)
class _Raw:
    """Rows of one terminal as read, before judging."""

    row: dict[str, Any]
    place: Place
    inventory: tuple[Slot, ...]
    tags: tuple[str, ...]
    registered: Registered
    faults: tuple[FaultNow, ...] = ()
    weighed: tuple[OpenFault, ...] = ()
    devices: dict[str, DeviceNow] = field(default_factory=dict)
    today: int = 0
    last_case_ms: int | None = None
    month: int = 0
    last_day_ms: int | None = None
    supplies: tuple[SupplyNow, ...] = ()
    disputed_ms: int | None = None
    limits: Limits = USUAL
    shown: TerminalNow | None = None
    """What pages see of it, until something about it changes."""


class FleetView:
    """Reads and judges. `now_ms` is the wall clock; `zone` the time zone in which "today" is meant for the whole fleet."""

    def __init__(self, db: FleetEngine, *, now_ms: Callable[[], int], zone: str) -> None:
        self._db = db
        self._now_ms = now_ms
        self._zone = zone
        self._lock = asyncio.Lock()
        self._raw: dict[str, _Raw] = {}
        self._places: dict[str, Place] = {}
        self._fleet = EMPTY
        self._loaded_ms = self._seen_ms = self._figures_ms = -RELOAD_EVERY_MS
        self._platform = Platform()
        self._calendar = builtin_calendar()
        self._limits: Mapping[str, Limits] = {}
        self.zone = zone

    async def current(self) -> Fleet:
        """The fleet with everything that was committed before the call."""
        async with self._lock:
            now_ms = self._now_ms()
            high = await self._high()
            moved = high != self._fleet.change_id
            if moved or now_ms - self._fleet.at_ms >= JUDGE_EVERY_MS or now_ms < self._fleet.at_ms:
                await self._follow(high, now_ms)
                self._fleet = self._judge(high, now_ms)
            return self._fleet

    async def places(self) -> Mapping[str, Place]:
        """All sites, for forms."""
        return await load_places(self._db)

    async def _high(self) -> int:
        rows = await self._db.read("SELECT max(id) AS id FROM change")
        return rows[0]["id"] or 0

    async def _follow(self, high: int, now_ms: int) -> None:
        today = local_day(now_ms, self._zone)
        # Ingest that died writes nothing, not even a hint: its mark is looked at every time.
        self._platform = await self._load_platform(now_ms)
        due = now_ms - self._seen_ms >= SEEN_EVERY_MS or now_ms < self._seen_ms
        if due:
            await self._load_settings()
        if now_ms - self._loaded_ms >= RELOAD_EVERY_MS or now_ms < self._loaded_ms or high < self._fleet.change_id:
            await self._load_all(now_ms)
        elif high != self._fleet.change_id:
            await self._load_changed(now_ms)
        if due:
            await self._load_seen()
            self._seen_ms = now_ms
        if now_ms - self._figures_ms >= FIGURES_EVERY_MS or today != self._fleet.today:
            await self._load_figures(now_ms, today)
            self._figures_ms = now_ms

    # ---- reading ---------------------------------------------------------------------------------------------------------------------

    async def _load_all(self, now_ms: int) -> None:
        self._places = await load_places(self._db)
        rows = await self._db.read(_TERMINALS.format(which=""))
        faults = _by_terminal(await self._db.read(_OPEN_FAULTS.format(which="")), fault_of)
        devices = _by_terminal(await self._db.read(_DEVICES.format(which="")), device_of)
        today = await self._today(now_ms, None)
        fresh = {row["id"]: self._assemble(row, faults, devices, today) for row in rows}
        for terminal, raw in fresh.items():
            if old := self._raw.get(terminal):
                raw.month, raw.last_day_ms = old.month, old.last_day_ms
        self._raw = fresh
        await self._load_outlook(now_ms, None)
        self._loaded_ms = now_ms

    async def _load_settings(self) -> None:
        """Holidays and thresholds: people change them, and a page that is open must follow."""
        calendar, limits = await self._db.look(lambda conn: (load_calendar(conn), load_limits(conn)))
        known = self._calendar
        if (known.off, known.work, known.years) != (calendar.off, calendar.work, calendar.years):
            self._calendar = calendar  # else the old value stays: opening hours are cached by it
        if limits != self._limits:
            self._limits = limits
            for raw in self._raw.values():
                raw.limits = self._limits_of(raw.row)
                raw.shown = None

    def _limits_of(self, row: Mapping[str, Any]) -> Limits:
        return self._limits.get(row["owner_class"]) or self._limits.get(USUAL_CLASS, USUAL)

    async def _load_changed(self, now_ms: int) -> None:
        rows = await self._db.read(
            "SELECT DISTINCT terminal, kind = 'setting' AS setting FROM change WHERE id > ? AND kind <> 'live'",
            (self._fleet.change_id,),
        )
        changed = list(dict.fromkeys(row["terminal"] for row in rows if row["terminal"]))
        # Sites, areas, the calendar and thresholds touch many terminals at once.
        is_setting = any(row["setting"] for row in rows)
        if is_setting:
            await self._load_settings()
        if is_setting or len(changed) > max(50, MANY * len(self._raw)):
            await self._load_all(now_ms)
            return
        if not changed:
            return
        ids = json.dumps(changed)
        one = "AND {column} IN (SELECT value FROM json_each(:ids))"
        rows = await self._db.read(_TERMINALS.format(which=one.format(column="t.id")), {"ids": ids})
        faults = _by_terminal(
            await self._db.read(_OPEN_FAULTS.format(which=one.format(column="terminal")), {"ids": ids}), fault_of
        )
        devices = _by_terminal(await self._db.read(_DEVICES.format(which=one.format(column="terminal")), {"ids": ids}), device_of)
        today = await self._today(now_ms, ids)
        if any(row["site"] not in self._places for row in rows):
            self._places = await load_places(self._db)
        found = {row["id"]: row for row in rows}
        for terminal in changed:
            old = self._raw.pop(terminal, None)
            if terminal in found:
                raw = self._assemble(found[terminal], faults, devices, today)
                if old:
                    raw.month, raw.last_day_ms = old.month, old.last_day_ms
                self._raw[terminal] = raw
        await self._load_outlook(now_ms, ids)

    async def _load_outlook(self, now_ms: int, ids: str | None) -> None:
        """When consumables will be used up, and which streams wait for a verdict."""
        which = "" if ids is None else "AND {column} IN (SELECT value FROM json_each(:ids))"
        params: dict[str, Any] = {"since": now_ms - WINDOW_MS} | ({} if ids is None else {"ids": ids})
        supplies: dict[str, list[SupplyNow]] = {}
        rows = await self._db.read(_LEVELS.format(which=which.format(column="c.terminal")), params)
        for (terminal, slot, item), told in groupby(rows, key=itemgetter("terminal", "slot", "item")):
            supply = _supply(slot, item, list(told), now_ms)
            if supply is not None:
                supplies.setdefault(terminal, []).append(supply)
        for terminal, found in supplies.items():
            if raw := self._raw.get(terminal):
                raw.supplies = tuple(found)
        for row in await self._db.read(_UNDECIDED.format(which=which.format(column="terminal")), params):
            if raw := self._raw.get(row["terminal"]):
                raw.disputed_ms = row["since_ms"]

    async def _load_seen(self) -> None:
        for row in await self._db.read(_SEEN):
            raw = self._raw.get(row["terminal"])
            if raw is not None and any(raw.row[name] != value for name, value in row.items() if name != "terminal"):
                raw.row.update(row)
                raw.shown = None

    async def _load_figures(self, now_ms: int, today: str) -> None:
        start, _ = day_span_ms(today, self._zone)
        oldest = local_day(start - FIGURES_DAYS * 86_400_000, self._zone)
        month = local_day(start - 29 * 86_400_000, self._zone)
        rows = await self._db.read(_MONTH, {"oldest": oldest, "month": month, "today": today})
        figures = {row["terminal"]: row for row in rows}
        cases_today = await self._today(now_ms, None)
        for terminal, raw in self._raw.items():
            row = figures.get(terminal)
            last_day_ms = day_span_ms(row["last_day"], self._zone)[0] if row and row["last_day"] else None
            cases, last_ms = cases_today.get(terminal, (0, None))
            fresh = (row["cases"] if row else 0, last_day_ms, cases, last_ms)
            if fresh != (raw.month, raw.last_day_ms, raw.today, raw.last_case_ms):
                raw.month, raw.last_day_ms, raw.today, raw.last_case_ms = fresh
                raw.shown = None

    async def _today(self, now_ms: int, ids: str | None) -> dict[str, tuple[int, int]]:
        start, end = day_span_ms(local_day(now_ms, self._zone), self._zone)
        which = "" if ids is None else "AND terminal IN (SELECT value FROM json_each(:ids))"
        params: dict[str, Any] = {"start": start, "end": end}
        if ids is not None:
            params["ids"] = ids
        rows = await self._db.read(_CASES_TODAY.format(which=which), params)
        return {row["terminal"]: (row["cases"], row["last_ms"]) for row in rows}

    async def _load_platform(self, now_ms: int) -> Platform:
        rows = await self._db.read(
            "SELECT 0 AS mark, from_ms AS at_ms, cause FROM platform_gap WHERE to_ms IS NULL"
            " UNION ALL SELECT 1, at_ms, '' FROM watch_mark WHERE name = ?",
            (WATCH_MARK,),
        )
        marks = [row["at_ms"] for row in rows if row["mark"]]
        gaps = [(row["at_ms"], row["cause"]) for row in rows if not row["mark"]]
        blind_ms = self._limits.get(USUAL_CLASS, USUAL).blind_ms
        blind = platform_blind_since(marks[0] if marks else None, gaps, now_ms, blind_ms=blind_ms)
        silent = min((at_ms for at_ms, cause in gaps if cause == "silence"), default=None)
        return Platform(*blind, silent) if blind else Platform(silence_since_ms=silent)

    def _assemble(
        self,
        row: dict[str, Any],
        faults: Mapping[str, list[FaultNow]],
        devices: Mapping[str, list[DeviceNow]],
        today: Mapping[str, tuple[int, int]],
    ) -> _Raw:
        terminal = row["id"]
        cases, last_ms = today.get(terminal, (0, None))
        open_faults = tuple(sorted(faults.get(terminal, ()), key=lambda fault: fault.rank))
        return _Raw(
            row=row,
            place=self._places.get(row["site"], NOWHERE),
            inventory=slots_of(row["inventory"]),
            tags=tags_of(row["tags"]),
            registered=Registered(
                created_ms=row["created_ms"],
                enrolled_ms=row["enrolled_ms"],
                maintenance_until_ms=row["maintenance_until_ms"],
                maintenance_reason=row["maintenance_reason"],
                maintenance_by=row["maintenance_by"],
                locked=bool(row["locked"]),
            ),
            faults=open_faults,
            weighed=tuple(
                OpenFault(
                    code=fault.code,
                    severity=fault.severity,
                    mandatory=fault.mandatory,
                    slot=fault.slot,
                    since_ms=fault.since_ms,
                    key=fault.id,
                )
                for fault in open_faults
            ),
            devices={device.slot: device for device in devices.get(terminal, ())},
            today=cases,
            last_case_ms=last_ms,
            limits=self._limits_of(row),
        )

    # ---- judging ---------------------------------------------------------------------------------------------------------------------

    def _judge(self, high: int, now_ms: int) -> Fleet:
        before = self._fleet.by_id
        rows: list[TerminalNow] = []
        for terminal, raw in self._raw.items():
            state = self._state(raw, now_ms)
            if raw.shown is None or (raw.shown.state, raw.shown.state_since_ms) != (state.code, state.since_ms):
                fresh = _terminal(raw, state)
                old = before.get(terminal)
                raw.shown = old if old is not None and old == fresh and _same_ages(old, fresh) else fresh
            rows.append(raw.shown)
        rows.sort(key=lambda row: row.label)
        return Fleet(
            at_ms=now_ms,
            change_id=high,
            terminals=tuple(rows),
            by_id={row.id: row for row in rows},
            platform=self._platform,
            calendar=self._calendar,
            today=local_day(now_ms, self._zone),
            limits=self._limits,
        )

    def _state(self, raw: _Raw, now_ms: int) -> State:
        return terminal_state(
            raw.registered,
            _contact(raw.row),
            raw.weighed,
            is_open=open_since_ms(_hours(raw.place), self._calendar, raw.place.timezone, now_ms) is not None,
            platform_blind=self._platform.blind_since_ms is not None,
            now_ms=now_ms,
        )


def _terminal(raw: _Raw, state: State) -> TerminalNow:
    row = raw.row
    by_slot: defaultdict[str | None, list[FaultNow]] = defaultdict(list)
    for fault in raw.faults:
        by_slot[fault.slot].append(fault)
    return TerminalNow(
        id=row["id"],
        code=row["code"],
        type=row["type"],
        name_zh=row["name_zh"],
        name_en=row["name_en"],
        owner_class=row["owner_class"],
        place=raw.place,
        inventory=raw.inventory,
        tags=raw.tags,
        created_ms=row["created_ms"],
        enrolled_ms=row["enrolled_ms"],
        maintenance_until_ms=row["maintenance_until_ms"],
        maintenance_reason=row["maintenance_reason"],
        maintenance_by=row["maintenance_by"],
        state=state.code,
        state_since_ms=state.since_ms,
        last_seen_ms=row["last_seen_ms"],
        last_report_ms=row["last_report_ms"],
        connected=bool(row["connected"]),
        version=row["agent_version"],
        outbox_depth=row["outbox_depth"],
        faults=raw.faults,
        devices=raw.devices,
        lamps=tuple(
            (slot.name, lamp(raw.devices.get(slot.name), tuple(by_slot.get(slot.name, ())), state.code)) for slot in raw.inventory
        ),
        cases_today=raw.today,
        cases_30d=raw.month + raw.today,
        last_case_ms=raw.last_case_ms or raw.last_day_ms,
        haystack=_haystack(raw),
        supplies=raw.supplies,
        disputed_ms=raw.disputed_ms,
        limits=raw.limits,
        lock=lock_of(row),
    )


def lock_of(row: Mapping[str, Any]) -> LockNow | None:
    """What is known of a lock; a stored one that nobody can read still counts as one."""
    if row["lock"] is None and not row["locked"]:
        return None
    try:
        told = json.loads(row["lock"] or "{}")
    except json.JSONDecodeError:
        told = {}
    return LockNow(
        locked=bool(row["locked"]),
        wanted=row["lock"] is not None,
        zh=str(told.get("zh", "")),
        en=str(told.get("en", "")),
        by=row["lock_by"] or "",
        since_ms=row["lock_ms"] or 0,
    )


def _supply(slot: str, item: str, told: Sequence[Mapping[str, Any]], now_ms: int) -> SupplyNow | None:
    levels = [Level(row["at_ms"], row["remaining"], row["event"] == "refill") for row in told]
    found = outlook(levels, now_ms)
    if found is None:
        return None
    return SupplyNow(
        slot=slot,
        item=item,
        remaining=told[-1]["remaining"],
        unit=told[-1]["unit"],
        per_day=found.per_day,
        empty_ms=found.empty_ms,
        levels=found.levels,
        since_ms=found.since_ms,
    )


def _same_ages(old: TerminalNow, fresh: TerminalNow) -> bool:
    return (old.last_seen_ms, old.last_report_ms, old.outbox_depth) == (
        fresh.last_seen_ms,
        fresh.last_report_ms,
        fresh.outbox_depth,
    )


def _contact(row: Mapping[str, Any]) -> Contact | None:
    if row["presence"] is None:
        return None
    return Contact(
        state=row["presence"], cause=row["presence_cause"], from_ms=row["presence_ms"], last_seen_ms=row["last_seen_ms"]
    )


def _hours(place: Place) -> Hours:
    """Hours that nobody can read hide no outage: such a site counts as open."""
    try:
        return parse_hours(place.hours)
    except HoursError:
        return ALWAYS


def _haystack(raw: _Raw) -> str:
    """What the search box looks through."""
    row, place = raw.row, raw.place
    serials = (device.asset for device in raw.devices.values() if device.asset)
    words = (row["id"], row["code"], row["name_zh"], row["name_en"], place.name_zh, place.name_en, *serials, *raw.tags)
    return " ".join(words).casefold()


# Rows to values ---------------------------------------------------------------------------------------------------------------------------

_TERMINALS: Final = f"""
SELECT t.id, t.code, t.type, t.name_zh, t.name_en, t.site, t.class AS owner_class, t.inventory, t.tags, t.created_ms, t.enrolled_ms,
  t.maintenance_until_ms, t.maintenance_reason, t.maintenance_by,
  l.last_seen_ms, l.last_report_ms, coalesce(l.connected, 0) AS connected, l.agent_version, l.outbox_depth, l.will_ms,
  p.state AS presence, p.from_ms AS presence_ms, p.cause AS presence_cause,
  {IS_LOCKED} AS locked, w.lock AS lock, w.lock_by AS lock_by, w.lock_ms AS lock_ms
FROM terminal t
LEFT JOIN wanted w ON w.terminal = t.id
LEFT JOIN terminal_live l ON l.terminal = t.id
LEFT JOIN presence p ON p.terminal = t.id AND p.to_ms IS NULL
WHERE t.revoked_ms IS NULL {{which}}"""  # noqa: S608 - an expression of our own
FAULT_COLUMNS: Final = (
    "id, terminal, slot, code, severity, mandatory, since_ms, opened_ms, cleared_ms, source, claimed_by, muted_until_ms, muted_reason,"
    " muted_by, open_batch, open_idx, late, false_alarm, profile"
)
_OPEN_FAULTS: Final = f"SELECT {FAULT_COLUMNS} FROM fault WHERE cleared_ms IS NULL AND disputed = 0 {{which}}"  # noqa: S608 - constants
_DEVICES: Final = (
    "SELECT terminal, slot, family, device, paper, toner, media, cover, owner, at_ms, since_ms, asset FROM device WHERE 1 {which}"
)
_SEEN: Final = "SELECT terminal, last_seen_ms, last_report_ms, connected, outbox_depth, will_ms FROM terminal_live"
_CASES_TODAY: Final = (
    "SELECT terminal, count(*) AS cases, max(began_ms + duration_ms) AS last_ms FROM session"
    " WHERE began_ms >= :start AND began_ms < :end AND disputed = 0 {which} GROUP BY terminal"
)
_MONTH: Final = (
    "SELECT terminal, sum(CASE WHEN day >= :month THEN sessions ELSE 0 END) AS cases, max(CASE WHEN sessions > 0 THEN day END) AS last_day"
    " FROM terminal_day WHERE day >= :oldest AND day < :today GROUP BY terminal"
)
_LEVELS: Final = """
SELECT l.terminal, l.slot, l.item, l.at_ms, l.remaining, l.event, l.unit FROM consumable c CROSS JOIN consumable_level l
WHERE l.terminal = c.terminal AND l.slot = c.slot AND l.item = c.item AND l.at_ms >= :since {which}
ORDER BY l.terminal, l.slot, l.item, l.at_ms, l.batch, l.idx"""
_UNDECIDED: Final = (
    "SELECT terminal, min(first_ms) AS since_ms FROM stream WHERE disputed = 1 AND verdict IS NULL {which} GROUP BY terminal"
)


def fault_of(row: Mapping[str, Any]) -> FaultNow:
    return FaultNow(
        id=row["id"],
        terminal=row["terminal"],
        slot=row["slot"],
        code=row["code"],
        severity=row["severity"],
        mandatory=bool(row["mandatory"]),
        since_ms=row["since_ms"],
        opened_ms=row["opened_ms"],
        cleared_ms=row["cleared_ms"],
        source=row["source"],
        claimed_by=row["claimed_by"],
        muted_until_ms=row["muted_until_ms"],
        muted_reason=row["muted_reason"],
        muted_by=row["muted_by"],
        open_batch=row["open_batch"],
        open_idx=row["open_idx"],
        late=bool(row["late"]),
        false_alarm=bool(row["false_alarm"]),
        profile=row["profile"],
    )


def device_of(row: Mapping[str, Any]) -> DeviceNow:
    return DeviceNow(
        slot=row["slot"],
        family=row["family"],
        device=row["device"],
        paper=row["paper"],
        toner=row["toner"],
        media=row["media"],
        cover=row["cover"],
        owner=row["owner"],
        at_ms=row["at_ms"],
        since_ms=row["since_ms"],
        asset=row["asset"],
    )


def slots_of(inventory: str) -> tuple[Slot, ...]:
    """The inventory's lines; what is not understood is left out, the page must open."""
    try:
        items = json.loads(inventory)
    except json.JSONDecodeError:
        return ()
    return tuple(
        Slot(str(item["slot"]), str(item.get("family") or item.get("kind") or ""), bool(item.get("mandatory", False)))
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, dict) and item.get("slot")
    )


def tags_of(tags: str) -> tuple[str, ...]:
    try:
        items = json.loads(tags)
    except json.JSONDecodeError:
        return ()
    return tuple(str(item) for item in items) if isinstance(items, list) else ()


async def load_places(db: FleetEngine) -> dict[str, Place]:
    """All sites, each with the names of its areas; a broken or endless area chain is cut, not followed."""
    areas = {row["code"]: row for row in await db.read("SELECT code, parent, name_zh, name_en FROM area")}
    places: dict[str, Place] = {}
    for row in await db.read("SELECT code, area, name_zh, name_en, kind, timezone, network, hours FROM site"):
        chain: list[tuple[str, str, str]] = []
        at: str | None = row["area"]
        while at in areas and len(chain) < 8:
            area = areas[at]
            chain.append((area["code"], area["name_zh"], area["name_en"]))
            at = area["parent"]
        places[row["code"]] = Place(
            code=row["code"],
            name_zh=row["name_zh"],
            name_en=row["name_en"],
            kind=row["kind"],
            timezone=row["timezone"],
            network=row["network"],
            hours=row["hours"],
            areas=tuple(reversed(chain)),
        )
    return places


def _by_terminal(rows: Iterable[Mapping[str, Any]], make: Callable[[Mapping[str, Any]], T]) -> dict[str, list[T]]:
    result: dict[str, list[T]] = {}
    for row in rows:
        result.setdefault(row["terminal"], []).append(make(row))
    return result
