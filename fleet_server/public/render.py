"""Pages from the view: the template environment, static files held in memory, and what each page shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fleet_server.console.i18n import LANGUAGES, Catalogue, Language, read
from fleet_server.public.asked import NotAsked, PageAsk
from fleet_server.public.rules import WORD_ORDER, SiteNow, View, chosen, is_usable, neighbours
from fleet_server.public.services import SERVICE_BY_CODE, SERVICES
from fleet_server.public.shelf import Answer, answer
from fleet_server.public.speech import Speech

HTML: Final = "text/html; charset=utf-8"
HERE: Final = resources.files(__package__)
LANDING_OVER: Final = 12
"""With more sites than this the first page asks for an area instead of showing all."""
PAGE: Final = 60
ELDER_PAGE: Final = 20
NEIGHBOURS: Final = 3
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
CLIENT_WORDS: Final = (
    "list.locating",
    "list.locateDenied",
    "list.locateFailed",
    "list.located",
    "list.locatedNone",
    "list.nearest",
    "list.byDistance",
    "list.more",
    "distance.m",
    "distance.km",
    "age.ago",
    "age.minutes",
    "age.lost",
)
"""Sentences that a page fills in itself."""


def catalogues() -> dict[Language, Catalogue]:
    return {language: read(HERE.joinpath("i18n", language), language) for language in LANGUAGES}


def static_files() -> dict[str, Answer]:
    """All static files by name; few and small, so they are served from memory."""
    found = {}
    for file in HERE.joinpath("static").iterdir():
        suffix = f".{file.name.rpartition('.')[2]}"
        if suffix in TYPES:
            found[file.name] = answer(file.read_bytes(), TYPES[suffix])
    return found


@dataclass(frozen=True, slots=True)
class AreaTile:
    """An area on the first page."""

    code: str
    name: str
    sites: int
    usable: int


class Pages:
    """Makes pages; keeps nothing."""

    def __init__(self, *, zone: str, title: Mapping[Language, str], map_link: str, static: Mapping[str, Answer]) -> None:
        self._zone, self._title, self._map_link = zone, title, map_link
        self._catalogues = catalogues()
        self._words = {
            language: json.dumps({key: catalogue.raw(key) for key in CLIENT_WORDS}, ensure_ascii=False)
            for language, catalogue in self._catalogues.items()
        }
        self._environment = Environment(
            loader=FileSystemLoader(str(HERE.joinpath("templates"))),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        hashes = {name: hashlib.sha256(file.body).hexdigest()[:12] for name, file in static.items()}
        self._environment.globals["asset"] = lambda name: f"/static/{name}?v={hashes[name]}"

    def list(self, view: View, ask: PageAsk) -> Answer:
        return self._page("list.html", view, ask, here="/", **self._list(view, ask))

    def cards(self, view: View, ask: PageAsk) -> Answer:
        """The changing part of the list alone."""
        return self._page("_results.html", view, ask, here="/", **self._list(view, ask))

    def site(self, view: View, ask: PageAsk, code: str) -> Answer:
        site = view.by_code.get(code)
        if site is None:
            raise NotAsked(404, "site")
        near = neighbours(view, site, most=40)
        usable = [pair for pair in near if is_usable(pair[0])]
        link = ""
        if self._map_link and site.lat is not None and site.lon is not None:
            parts = {"{lat}": f"{site.lat:.6f}", "{lon}": f"{site.lon:.6f}", "{name}": quote(site.name(ask.lang), safe="")}
            link = self._map_link
            for placeholder, part in parts.items():
                link = link.replace(placeholder, part)
        return self._page(
            "site.html",
            view,
            ask,
            here=f"/sites/{quote(code, safe='')}",
            site=site,
            near=(usable or near)[:NEIGHBOURS],
            map_link=link,
        )

    def problem(self, status: int, word: str, ask: PageAsk, view: View) -> Answer:
        return self._page("problem.html", view, ask, status=status, here="/", word=word)

    def sentence(self, word: str, lang: Language) -> str:
        return self._catalogues[lang](f"problem.{word}")

    def _list(self, view: View, ask: PageAsk) -> dict[str, Any]:
        if ask.service and ask.service not in SERVICE_BY_CODE:
            raise NotAsked(404, "service")
        if ask.area and all(area.code != ask.area for area in view.areas):
            raise NotAsked(404, "area")
        is_filtered = bool(ask.area or ask.service or ask.words or ask.open_only)
        found = sorted(
            chosen(view, area=ask.area, service=ask.service, words=ask.words, open_only=ask.open_only), key=_by_area_and_word
        )
        landing = not is_filtered and not ask.all and (ask.mode == "elder" or len(found) > LANDING_OVER)
        most = len(found) if ask.all else ELDER_PAGE if ask.mode == "elder" else PAGE
        return {
            "landing": landing,
            "is_filtered": is_filtered,
            "tiles": _tiles(view, ask.lang),
            "found": found,
            "groups": [] if landing else _groups(found[:most], ask.lang),
            "usable": sum(is_usable(site, ask.service) for site in found),
            "hidden": 0 if landing else max(0, len(found) - most),
            "services": SERVICES,
        }

    def _page(self, template: str, view: View, ask: PageAsk, *, status: int = 200, **values: Any) -> Answer:
        t = self._catalogues[ask.lang]
        speech = Speech(t, view.minute_ms, self._zone)
        html = self._environment.get_template(template).render(
            t=t,
            say=speech,
            ask=ask,
            lang=ask.lang,
            elder=ask.mode == "elder",
            view=view,
            product=self._title.get(ask.lang) or t("product"),
            client_words=self._words[ask.lang],
            quote=lambda text: quote(text, safe=""),
            **values,
        )
        return answer(html, HTML, status=status)


def _by_area_and_word(site: SiteNow) -> tuple[object, ...]:
    """What can be used stands first in its area."""
    area = site.areas[-1] if site.areas else None
    return (area.sort if area else 10**6, area.code if area else "", WORD_ORDER[site.word], site.name_zh, site.code)


def _groups(sites: list[SiteNow], lang: str) -> list[tuple[str, list[SiteNow]]]:
    groups: list[tuple[str, list[SiteNow]]] = []
    for site in sites:
        name = site.areas[-1].name(lang) if site.areas else ""
        if groups and groups[-1][0] == name:
            groups[-1][1].append(site)
        else:
            groups.append((name, [site]))
    return groups


def _tiles(view: View, lang: str) -> list[AreaTile]:
    counts: dict[str, list[int]] = {}
    for site in view.sites:
        if site.areas:
            count = counts.setdefault(site.areas[-1].code, [0, 0])
            count[0] += 1
            count[1] += is_usable(site)
    return [AreaTile(area.code, area.name(lang), *counts[area.code]) for area in view.areas if area.code in counts]
