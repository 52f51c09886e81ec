"""What the map of the city shows: areas with their counts, sites with their worst state, and what has no place on it. Pure.

Each terminal belongs to exactly one row of the area table, so the table adds up to the fleet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from fleet_server.console.format import Ratio
from fleet_server.console.listing import counts, states_of
from fleet_server.console.looks import LOOK
from fleet_server.console.model import Place, TerminalNow
from fleet_server.console.outline import Outline
from fleet_server.console.queries.map import Ground
from fleet_server.console.render import Voice
from fleet_server.terminals.state import WORST_FIRST, Counts, StateCode

STATE_RANK: Final = {state: rank for rank, state in enumerate(WORST_FIRST)}
AROUND_DEG: Final = 0.15
"""So far outside the outline's box a site is still drawn: the box of a city is not its border."""
SHADES: Final = (0.99, 0.95, 0.9, 0.8)
"""Lower ends of the shades; below the last one is the fifth (chosen: one machine of a hundred, of twenty, of ten, of five)."""
TOLD_STATES: Final = 3
"""A tooltip names so many states; the list behind it has all."""


@dataclass(frozen=True, slots=True)
class AreaNow:
    """One row of the table, one county of the map."""

    code: str
    """Empty: terminals without an area."""
    name: str
    key: str
    """The county of the outline that it is; empty: not on the map."""
    by_state: Counts
    shown: int
    """Machines in the chosen state; without one, all."""
    whole: bool
    """Whether the list of this area has exactly these terminals, so that its numbers may be links."""

    @property
    def serving(self) -> Ratio:
        """Machines that can serve ÷ those that should be reachable now."""
        able = self.by_state.of(StateCode.NORMAL) + self.by_state.of(StateCode.PARTIAL)
        return Ratio(able, self.by_state.expected)

    @property
    def online(self) -> Ratio:
        return Ratio(self.by_state.online, self.by_state.expected)

    @property
    def unusable(self) -> int:
        return self.by_state.of(StateCode.UNUSABLE)

    @property
    def offline(self) -> int:
        return self.by_state.of(StateCode.OFFLINE)

    @property
    def shade(self) -> int:
        """0 best to 4 worst; -1: nothing to judge."""
        able = self.serving
        if able.whole <= 0:
            return -1
        return next((step for step, least in enumerate(SHADES) if able.part / able.whole >= least), len(SHADES))

    def list_address(self, state: str = "") -> str:
        return terminals_address(area=self.code, state=state)


@dataclass(frozen=True, slots=True)
class SiteNow:
    """A point of the map, or a line beside it."""

    place: Place
    terminals: tuple[TerminalNow, ...]
    worst: StateCode
    spot: tuple[float, float] | None
    """Longitude and latitude; None: no coordinates, or far from the city."""
    astray: bool = False
    """It has coordinates, but they lie outside the city."""

    @property
    def look(self) -> str:
        return LOOK[self.worst]

    @property
    def size(self) -> int:
        return len(self.terminals)


@dataclass(frozen=True, slots=True)
class CityNow:
    areas: tuple[AreaNow, ...]
    sites: tuple[SiteNow, ...]
    unplaced: tuple[SiteNow, ...]
    """Sites that the map cannot draw. Never dropped."""


def terminals_address(**filters: str) -> str:
    given = {name: value for name, value in filters.items() if value}
    return "/terminals" + ("?" + urlencode(given) if given else "")


def city(terminals: Sequence[TerminalNow], ground: Ground, outline: Outline, lang: str, state: str = "") -> CityNow:
    """Everything at one moment. `state` chooses which machines are drawn and counted in `shown`; shares are always of all."""
    chosen = states_of(state) if state else frozenset(WORST_FIRST)
    sites = [_site(place, rows, ground, outline) for place, rows in _by_site(one for one in terminals if one.state in chosen)]
    placed = [site for site in sites if site.spot is not None]
    return CityNow(
        areas=tuple(_areas(terminals, ground, outline, lang, chosen)),
        # Worst last: what is drawn last lies on top.
        sites=tuple(sorted(placed, key=lambda site: (-STATE_RANK[site.worst], site.size, site.place.code))),
        unplaced=tuple(
            sorted((site for site in sites if site.spot is None), key=lambda site: (STATE_RANK[site.worst], site.place.code))
        ),
    )


def _by_site(terminals: Iterable[TerminalNow]) -> Iterable[tuple[Place, list[TerminalNow]]]:
    found: dict[str, tuple[Place, list[TerminalNow]]] = {}
    for one in terminals:
        found.setdefault(one.place.code, (one.place, []))[1].append(one)
    return found.values()


def _site(place: Place, rows: Sequence[TerminalNow], ground: Ground, outline: Outline) -> SiteNow:
    spot = ground.spots.get(place.code)
    west, south, east, north = outline.bounds
    near = spot is not None and (
        west - AROUND_DEG <= spot[0] <= east + AROUND_DEG and south - AROUND_DEG <= spot[1] <= north + AROUND_DEG
    )
    worst = min((one.state for one in rows), key=lambda state: STATE_RANK[state])
    return SiteNow(place, tuple(rows), worst, spot if near else None, astray=spot is not None and not near)


def area_of(place: Place, ground: Ground, outline: Outline) -> tuple[str, str]:
    """(area, county) of a place: its innermost area that the outline knows; else the area below the outermost, and no county."""
    for code, name_zh, _ in reversed(place.areas):
        if county := outline.county_of(ground.adcodes.get(code), name_zh):
            return code, county.key
    if not place.areas:
        return "", ""
    return (place.areas[1] if len(place.areas) > 1 else place.areas[0])[0], ""


def _areas(
    terminals: Sequence[TerminalNow], ground: Ground, outline: Outline, lang: str, chosen: frozenset[StateCode]
) -> list[AreaNow]:
    members: dict[tuple[str, str], list[TerminalNow]] = {}
    below: dict[str, int] = {}
    names: dict[str, str] = {}
    known: dict[str, tuple[str, str]] = {}
    for one in terminals:
        place = one.place
        if place.code not in known:
            known[place.code] = area_of(place, ground, outline)
        members.setdefault(known[place.code], []).append(one)
        for code, zh, en in place.areas:
            below[code] = below.get(code, 0) + 1
            names[code] = (zh if lang == "zh" else en) or zh or code
    rows = [
        AreaNow(
            code=code,
            name=names.get(code, ""),
            key=key,
            by_state=counts(rows),
            shown=sum(one.state in chosen for one in rows),
            whole=bool(code) and below[code] == len(rows),
        )
        for (code, key), rows in members.items()
    ]
    return sorted(rows, key=lambda row: (not row.key, not row.code, ground.sort.get(row.code, 0), row.code))


# The table -------------------------------------------------------------------------------------------------------------------------------

SORTS: Final[Mapping[str, Any]] = {
    "area": None,
    "total": lambda row: row.by_state.total,
    "online": lambda row: row.online.part / row.online.whole if row.online.whole else 2.0,
    "abnormal": lambda row: row.by_state.abnormal,
    "offline": lambda row: row.offline,
    "unusable": lambda row: row.unusable,
}


@dataclass(frozen=True, slots=True)
class MapView:
    """What the address of the map asks for."""

    state: str = ""
    sort: str = "area"
    descending: bool = False

    def query(self, **changes: Any) -> str:
        state = changes.get("state", self.state)
        sort = changes.get("sort", self.sort)
        descending = changes.get("descending", self.descending)
        pairs = {"state": state} if state else {}
        if sort != "area" or descending:
            pairs["sort"] = ("-" if descending else "") + sort
        return "?" + urlencode(pairs) if pairs else ""

    def sorted_by(self, name: str) -> str:
        """A first click puts the most of something on top, a second turns it round."""
        if self.sort == name:
            return self.query(descending=not self.descending)
        return self.query(sort=name, descending=name not in {"area", "online"})


def parse_map_view(params: Mapping[str, str]) -> MapView:
    """Read an address; nothing in it can fail."""
    sort = params.get("sort", "")
    descending, sort = sort.startswith("-"), sort.lstrip("-")
    state = params.get("state", "")
    known = state in {"online", "abnormal"} or state in set(WORST_FIRST)
    return MapView(state if known else "", sort if sort in SORTS else "area", descending and sort in SORTS)


def in_order(areas: Sequence[AreaNow], view: MapView) -> list[AreaNow]:
    """Equal rows keep the order of the areas, in either direction."""
    key = SORTS[view.sort]
    if key is None:
        return list(reversed(areas)) if view.descending else list(areas)
    return sorted(areas, key=lambda row: -key(row) if view.descending else key(row))


# What the page's script draws ------------------------------------------------------------------------------------------------------------


def feed(now: CityNow, voice: Voice, state: str = "") -> dict[str, Any]:
    """The drawing as values: short names, because it is sent again with every change."""
    return {
        "areas": [
            {
                "key": area.key,
                "shade": area.shade,
                "label": _area_label(area, voice, state),
                "tip": _area_tip(area, voice),
                "href": area.list_address(state),
            }
            for area in now.areas
            if area.key
        ],
        "sites": [
            {
                "id": site.place.code,
                "at": site.spot,
                "n": site.size,
                "worst": sum(one.state is site.worst for one in site.terminals),
                "look": site.look,
                "name": site.place.name(voice.lang),
                "tip": site_tip(site, voice),
                "href": terminals_address(site=site.place.code, state=state),
            }
            for site in now.sites
        ],
        "words": {
            "cluster": voice.t.raw("map.cluster"),
            "states": {look: voice.t(f"state.{look}") for look in LOOK.values()},
        },
    }


def _area_label(area: AreaNow, voice: Voice, state: str) -> str:
    if state:
        return f"{area.name}\n{area.shown:,}"
    able = area.serving
    figure = f"{able.part:,} / {able.whole:,}" if able.whole > 0 else voice.t("noData")
    return f"{area.name}\n{figure}"


def _area_tip(area: AreaNow, voice: Voice) -> str:
    able = area.serving
    share = (
        voice.t("map.areaShare", percent=able.percent, part=f"{able.part:,}", whole=f"{able.whole:,}")
        if able.percent
        else voice.t("map.areaNone")
    )
    return f"{area.name}\n{share}\n{state_words(area.by_state, voice)}"


def site_tip(site: SiteNow, voice: Voice) -> str:
    return f"{site.place.name(voice.lang)}\n{state_words(counts(site.terminals), voice)}"


def state_words(by_state: Counts, voice: Voice) -> str:
    """`共 5 台 · 不能办事 1 · 正常 4`, worst first."""
    parts = [
        voice.t("map.stateCount", state=voice.t(f"state.{LOOK[one]}"), n=n) for one in WORST_FIRST if (n := by_state.of(one))
    ]
    if len(parts) > TOLD_STATES + 1:
        parts = [*parts[:TOLD_STATES], voice.t("map.more", n=len(parts) - TOLD_STATES)]
    return " · ".join([voice.t("map.count", n=by_state.total), *parts])


def headline(areas: Sequence[AreaNow], voice: Voice) -> Any:
    """The sentence on top: where most machines cannot serve."""
    whole = Ratio(sum(area.serving.part for area in areas), sum(area.serving.whole for area in areas))
    if not areas:
        return voice.rich("overview.empty")
    if not whole.whole:
        return voice.rich("map.closed")
    bad = [area for area in areas if area.unusable + area.offline]
    figures = {"part": f"{whole.part:,}", "whole": f"{whole.whole:,}", "percent": whole.percent}
    if not bad:
        return voice.rich("map.fine", **figures)
    worst = max(bad, key=lambda area: (area.unusable + area.offline, area.unusable, area.code))
    name = worst.name or voice.t("map.noArea")
    where = voice.link(worst.list_address(), name) if worst.whole else name
    return voice.rich("map.trouble", **figures, area=where, unusable=worst.unusable, offline=worst.offline)
