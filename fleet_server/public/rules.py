"""Owns what a citizen is told of a site and each of its services: five words, derived from hours, contact, maintenance and faults. Pure; takes `now`.

Nothing is called available that is not known to be: a silent terminal is not, and while the platform hears nobody everything open is unknown. A
fault takes away what needs the faulty device, not the whole terminal.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fleet_server.presence.rules import BLIND_MS, platform_blind_since
from fleet_server.public.opening import Opening, opening, readable
from fleet_server.public.rows import AreaRow, DeviceRow, FaultRow, Items, Live, Places, SiteRow, TerminalRow
from fleet_server.public.services import SERVICES, Service, Topic, function_of, offered, topics_of
from fleet_server.sites.distance import distance_km
from fleet_server.terminals.state import Contact, Registered, StateCode, terminal_state

MINUTE_MS: Final = 60_000
SILENT_AFTER_MS: Final = 2 * MINUTE_MS
"""A site heard within so long needs no age of its own: the page's age says it."""
PHONE: Final = re.compile(r"\+?[0-9][0-9 ()-]{2,22}[0-9]")


class Word(StrEnum):
    """What a citizen is told."""

    AVAILABLE = "available"
    PARTIAL = "partial"
    UNAVAILABLE = "unavailable"
    CLOSED = "closed"
    UNKNOWN = "unknown"


WORD_ORDER: Final = {
    word: rank for rank, word in enumerate((Word.AVAILABLE, Word.PARTIAL, Word.UNKNOWN, Word.UNAVAILABLE, Word.CLOSED))
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`back_ms`: when maintenance is expected to end."""

    word: Word
    back_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ServiceNow:
    service: Service
    word: Word
    back_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteNow:
    """A site as citizens see it. `heard_ms` is set where it was heard longer ago than the rest: to the minute."""

    code: str
    name_zh: str
    name_en: str
    areas: tuple[AreaRow, ...]
    kind: str
    address_zh: str
    lat: float | None
    lon: float | None
    phone: str
    zone: str
    word: Word
    back_ms: int | None
    heard_ms: int | None
    opening: Opening
    services: tuple[ServiceNow, ...]
    topics: tuple[Topic, ...]

    def name(self, lang: str) -> str:
        return (self.name_zh if lang == "zh" else self.name_en) or self.name_zh or self.name_en or self.code

    @property
    def haystack(self) -> str:
        words = (
            self.name_zh,
            self.name_en,
            self.address_zh,
            *(name for area in self.areas for name in (area.name_zh, area.name_en)),
        )
        return " ".join(words).casefold()


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything citizens may see at one moment. `version` changes when anything that is shown does; `minute_ms` is the age pages state."""

    minute_ms: int
    blind: bool
    sites: tuple[SiteNow, ...]
    by_code: Mapping[str, SiteNow]
    areas: tuple[AreaRow, ...]
    """Those with sites in them, each with its own parents before it."""
    version: str


def judge(live: Live, places: Places, items: Items, now_ms: int) -> View:
    """The view at `now_ms` of rows that may have been read a while ago: rows that are too old make everything unknown."""
    blind = platform_blind_since(live.mark_ms, live.gaps, now_ms) is not None or now_ms - live.read_ms >= BLIND_MS
    at_site: defaultdict[str, list[TerminalRow]] = defaultdict(list)
    for terminal in live.terminals:
        at_site[terminal.site].append(terminal)
    chains = {code: area_chain(code, places.areas) for code in places.areas}
    sites = tuple(
        _site(row, at_site[row.code], places, items.get(row.code, frozenset()), chains.get(row.area, ()), blind, now_ms)
        for row in places.sites
        if row.code in at_site
    )
    ordered = tuple(sorted(sites, key=lambda site: ([area.sort for area in site.areas], site.name_zh, site.code)))
    minute_ms = min(now_ms, live.read_ms) // MINUTE_MS * MINUTE_MS
    return View(
        minute_ms=minute_ms,
        blind=blind,
        sites=ordered,
        by_code={site.code: site for site in ordered},
        areas=_areas_of(ordered),
        version=hashlib.sha256(repr((minute_ms, blind, ordered)).encode()).hexdigest()[:16],
    )


EMPTY: Final = View(minute_ms=0, blind=True, sites=(), by_code={}, areas=(), version="none")


def _site(
    row: SiteRow,
    terminals: Sequence[TerminalRow],
    places: Places,
    items: frozenset[str],
    areas: tuple[AreaRow, ...],
    blind: bool,
    now_ms: int,
) -> SiteNow:
    hours = opening(readable(row.hours), places.calendar, row.timezone, now_ms)
    verdicts: defaultdict[str, list[Verdict]] = defaultdict(list)
    whole: list[Verdict] = []
    for terminal in terminals:
        general = contact_word(terminal, hours, blind, now_ms)
        whole.append(general)
        functions = terminal_functions(terminal)
        for service in offered(frozenset(functions), terminal.type, items):
            verdicts[service.code].append(general if general.word is not Word.AVAILABLE else service_word(service, functions))
    services = tuple(
        ServiceNow(service, verdict.word, verdict.back_ms)
        for service in SERVICES
        if service.code in verdicts
        for verdict in (best(verdicts[service.code]),)
    )
    verdict = summary([Verdict(one.word, one.back_ms) for one in services] or whole)
    heard_ms = max((terminal.heard_ms or 0 for terminal in terminals), default=0)
    silent = verdict.word is not Word.CLOSED and 0 < heard_ms <= now_ms - SILENT_AFTER_MS
    return SiteNow(
        code=row.code,
        name_zh=row.name_zh,
        name_en=row.name_en,
        areas=areas,
        kind=row.kind,
        address_zh=row.address_zh,
        lat=row.lat if is_position(row.lat, row.lon) else None,
        lon=row.lon if is_position(row.lat, row.lon) else None,
        phone=row.phone.strip() if PHONE.fullmatch(row.phone.strip()) else "",
        zone=row.timezone,
        word=verdict.word,
        back_ms=verdict.back_ms,
        heard_ms=heard_ms // MINUTE_MS * MINUTE_MS if silent else None,
        opening=hours,
        services=services,
        topics=topics_of(items),
    )


# A terminal -----------------------------------------------------------------------------------------------------------------------------


_OF_STATE: Final = {
    StateCode.UNKNOWN: Word.UNKNOWN,
    StateCode.SUSPECT: Word.UNKNOWN,
    StateCode.CLOSED: Word.CLOSED,
    StateCode.OFFLINE: Word.UNAVAILABLE,
    StateCode.NOT_ENROLLED: Word.UNAVAILABLE,
    StateCode.RETIRED: Word.UNAVAILABLE,
}


def contact_word(terminal: TerminalRow, hours: Opening, blind: bool, now_ms: int) -> Verdict:
    """A terminal as a whole, its devices apart. Hours come first: who stands before a closed door does not ask what the machine says."""
    if hours.known and not hours.is_open:
        return Verdict(Word.CLOSED)
    registered = Registered(
        created_ms=terminal.created_ms,
        enrolled_ms=terminal.enrolled_ms,
        maintenance_until_ms=terminal.maintenance_until_ms,
        locked=terminal.locked,
    )
    contact = (
        None
        if terminal.presence is None
        else Contact(
            state=terminal.presence, cause=terminal.presence_cause, from_ms=terminal.presence_ms, last_seen_ms=terminal.heard_ms
        )
    )
    state = terminal_state(registered, contact, (), is_open=True, platform_blind=blind, now_ms=now_ms)
    if state.code is StateCode.MAINTENANCE:
        return Verdict(Word.UNAVAILABLE, terminal.maintenance_until_ms)
    if (word := _OF_STATE.get(state.code)) is not None:
        return Verdict(word)
    stops_all = any(blocks(fault) == EVERYTHING for fault in terminal.faults)
    return Verdict(Word.UNAVAILABLE if stops_all else Word.AVAILABLE)


def terminal_functions(terminal: TerminalRow) -> dict[str, Word]:
    """What its devices are for, and whether they do it: of several for one purpose, one that works is enough."""
    broken_slots = {fault.slot for fault in terminal.faults if blocks(fault) == ITS_DEVICE}
    broken_functions = {_BEHIND[fault.code] for fault in terminal.faults if fault.code in _BEHIND}
    found: dict[str, Word] = {}
    for slot in terminal.slots:
        function = function_of(slot.name, slot.family)
        if function is None:
            continue
        if slot.name in broken_slots or function in broken_functions:
            word = Word.UNAVAILABLE
        else:
            word = device_word(terminal.devices.get(slot.name))
        found[function] = min(found.get(function, word), word, key=WORD_ORDER.__getitem__)
    return found


def service_word(service: Service, functions: Mapping[str, Word]) -> Verdict:
    """Of a terminal that is there: as its worst needed function."""
    words = [functions[function] for function in service.needs]
    return Verdict(max(words, key=WORD_ORDER.__getitem__, default=Word.AVAILABLE))


_DEVICE_BROKEN: Final = frozenset({"offline", "powerOff", "noDevice", "hardwareError", "userError"})


def device_word(device: DeviceRow | None) -> Word:
    """By its last report. A device that only ever says little is believed until a fault contradicts it; one nobody heard of is unknown."""
    if device is None:
        return Word.UNKNOWN
    if device.device in _DEVICE_BROKEN or device.paper in {"out", "jammed"} or device.toner == "out" or device.cover == "open":
        return Word.UNAVAILABLE
    if device.device == "unknown" and not device.limited:
        return Word.UNKNOWN
    return Word.AVAILABLE


# Faults ---------------------------------------------------------------------------------------------------------------------------------

EVERYTHING: Final = "everything"
ITS_DEVICE: Final = "device"
_STOP_ALL_FAMILIES: Final = frozenset({"APP", "TCH", "DSP"})
"""Without program, touch or screen nobody can do anything."""
_BUS_FAMILIES: Final = frozenset({"CAL", "EVA", "LED"})
"""Their gravest faults concern clerks, not the terminal's users."""
_CANNOT: Final = frozenset(
    {
        "OPEN_FAIL",
        "UNPLUGGED",
        "OFFLINE",
        "NO_REPLY",
        "NO_FRAME",
        "BLACK_FRAME",
        "MODE_CHANGED",
        "STUCK",
        "STUCK_KEY",
        "REPEAT_STORM",
    }
)
"""Minor for the office, because the terminal goes on; but what needs the device cannot be done."""
_BEHIND: Final = {"SVC.AUTH_SERVICE": "id-reader", "SVC.CERT_SERVICE": "laser-printer"}
"""A service behind the terminal that a function is nothing without."""


def blocks(fault: FaultRow) -> str | None:
    """What an open fault takes away: EVERYTHING, ITS_DEVICE or nothing."""
    family, _, tail = fault.code.partition(".")
    grave = fault.severity in {"P1", "P2"}
    if fault.code == "NET.OFFLINE" or (grave and family in _STOP_ALL_FAMILIES):
        return EVERYTHING
    if fault.severity == "P1" and family not in _BUS_FAMILIES:
        return EVERYTHING
    if fault.slot is not None and (grave or (fault.severity == "P3" and tail in _CANNOT)):
        return ITS_DEVICE
    return None


# Many together --------------------------------------------------------------------------------------------------------------------------


def best(verdicts: Sequence[Verdict]) -> Verdict:
    """A service at a site: one terminal that can is enough. `back_ms` is the first of those in maintenance."""
    word = min((verdict.word for verdict in verdicts), key=WORD_ORDER.__getitem__)
    if word is not Word.UNAVAILABLE:
        return Verdict(word)
    return Verdict(word, min((verdict.back_ms for verdict in verdicts if verdict.back_ms is not None), default=None))


def summary(verdicts: Sequence[Verdict]) -> Verdict:
    """A site by its services: available only if all are, partial if some are."""
    words = {verdict.word for verdict in verdicts}
    if Word.AVAILABLE in words:
        return Verdict(Word.AVAILABLE if words == {Word.AVAILABLE} else Word.PARTIAL)
    return best(verdicts)


def area_chain(code: str, areas: Mapping[str, AreaRow]) -> tuple[AreaRow, ...]:
    """An area with those above it, outermost first; a broken or endless chain is cut."""
    chain: list[AreaRow] = []
    at: str | None = code
    while at is not None and at in areas and len(chain) < 8:
        chain.append(areas[at])
        at = areas[at].parent
    return tuple(reversed(chain))


def _areas_of(sites: Iterable[SiteNow]) -> tuple[AreaRow, ...]:
    found = {area.code: area for site in sites for area in site.areas}
    return tuple(sorted(found.values(), key=lambda area: (area.sort, area.code)))


# Places ---------------------------------------------------------------------------------------------------------------------------------


def is_position(lat: float | None, lon: float | None) -> bool:
    """0, 0 is what forms leave behind, not a place in this country."""
    return lat is not None and lon is not None and -90 <= lat <= 90 and -180 <= lon <= 180 and (lat, lon) != (0.0, 0.0)


def neighbours(view: View, site: SiteNow, *, most: int) -> list[tuple[SiteNow, float]]:
    """Other sites with a position, nearest first, with kilometres."""
    if site.lat is None or site.lon is None:
        return []
    near = [
        (other, distance_km(site.lat, site.lon, other.lat, other.lon))
        for other in view.sites
        if other.code != site.code and other.lat is not None and other.lon is not None
    ]
    return sorted(near, key=lambda pair: pair[1])[:most]


def chosen(view: View, *, area: str = "", service: str = "", words: str = "", open_only: bool = False) -> tuple[SiteNow, ...]:
    """Sites of an area (or one below it) with a service, whose names hold all `words`."""
    wanted = words.casefold().split()
    return tuple(
        site
        for site in view.sites
        if (not area or any(one.code == area for one in site.areas))
        and (not service or any(one.service.code == service for one in site.services))
        and (not open_only or is_usable(site, service))
        and all(word in site.haystack for word in wanted)
    )


def is_usable(site: SiteNow, service: str = "") -> bool:
    """Whether somebody who goes there now can do something; with `service`, this."""
    if service:
        return any(one.service.code == service and one.word is Word.AVAILABLE for one in site.services)
    return site.word in {Word.AVAILABLE, Word.PARTIAL}
