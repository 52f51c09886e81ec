"""The API's documents, made from the view. Their description is `openapi.json`, which is served beside them; a test holds the two together."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

import msgspec

from fleet_server.public.asked import ApiAsk, NotAsked
from fleet_server.public.opening import WEEKDAYS, Opening
from fleet_server.public.rows import AreaRow
from fleet_server.public.rules import SiteNow, View, chosen, neighbours
from fleet_server.public.services import SERVICE_BY_CODE, SERVICES, TOPICS
from fleet_server.public.shelf import Answer, answer

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
DATUM: Final = "WGS-84"
NEIGHBOURS: Final = 5
DESCRIPTION: Final = resources.files(__package__).joinpath("openapi.json").read_bytes()


def sites(view: View, ask: ApiAsk) -> Answer:
    """Raises NotAsked for a site, area or service that does not exist."""
    if ask.area and all(area.code != ask.area for area in view.areas):
        raise NotAsked(404, "area")
    if ask.service and ask.service not in SERVICE_BY_CODE:
        raise NotAsked(404, "service")
    found = chosen(view, area=ask.area, service=ask.service)
    if ask.near:
        if ask.near not in view.by_code:
            raise NotAsked(404, "site")
        wanted = {site.code for site in found}
        near = [pair for pair in neighbours(view, view.by_code[ask.near], most=len(view.sites)) if pair[0].code in wanted]
        rows = [{**_site(site), "distanceM": round(km * 1000)} for site, km in near[: ask.limit or NEIGHBOURS]]
    else:
        rows = [_site(site) for site in (found[: ask.limit] if ask.limit else found)]
    return _json({**_frame(view), "sites": rows})


def site(view: View, code: str) -> Answer:
    if code not in view.by_code:
        raise NotAsked(404, "site")
    return _json({**_frame(view), "site": _site(view.by_code[code])})


def services() -> Answer:
    """The catalogue; it changes with the version of the program."""
    return _json(
        {
            "services": [{"code": one.code, "name": {"zh": one.zh, "en": one.en}} for one in SERVICES],
            "topics": [{"code": one.code, "name": {"zh": one.zh, "en": one.en}} for one in TOPICS],
        }
    )


def areas(view: View) -> Answer:
    return _json({**_frame(view), "areas": [{**_area(area), "parent": area.parent} for area in view.areas]})


def description() -> Answer:
    return answer(DESCRIPTION, JSON)


def problem(status: int, word: str, title: str) -> Answer:
    """RFC 9457. Nothing of the question is repeated in it."""
    body = {"type": f"urn:kiosk-fleet:public:{word}", "title": title, "status": status}
    return answer(msgspec.json.encode(body), PROBLEM, status=status)


# Parts ----------------------------------------------------------------------------------------------------------------------------------


def _frame(view: View) -> dict[str, Any]:
    return {"asOf": instant(view.minute_ms), "platform": "blind" if view.blind else "seeing"}


def _site(site: SiteNow) -> dict[str, Any]:
    return {
        "code": site.code,
        "name": {"zh": site.name("zh"), "en": site.name("en")},
        "kind": site.kind,
        "areas": [_area(area) for area in site.areas],
        "address": {"zh": site.address_zh} if site.address_zh else None,
        "phone": site.phone or None,
        "position": None if site.lat is None else {"lat": site.lat, "lon": site.lon, "datum": DATUM},
        "state": site.word.value,
        "expectedBack": instant(site.back_ms),
        "lastHeard": instant(site.heard_ms),
        "hours": hours(site.opening, site.zone),
        "services": [
            {"code": one.service.code, "state": one.word.value, "expectedBack": instant(one.back_ms)} for one in site.services
        ],
        "topics": [topic.code for topic in site.topics],
    }


def _area(area: AreaRow) -> dict[str, Any]:
    return {"code": area.code, "name": {"zh": area.name("zh"), "en": area.name("en")}}


def hours(opening: Opening, zone: str) -> dict[str, Any] | None:
    """None where nobody entered any."""
    if not opening.known:
        return None
    return {
        "timezone": zone,
        "always": opening.always,
        "open": opening.is_open,
        "closes": instant(opening.until_ms),
        "opens": instant(opening.next_ms),
        "today": [_span(span) for span in opening.today],
        "week": [
            {"days": [WEEKDAYS[day] for day in line.days] or ["holiday"], "open": [_span(span) for span in line.spans]}
            for line in opening.week
        ],
    }


def _span(span: tuple[int, int]) -> list[str]:
    return [clock(minute) for minute in span]


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def instant(at_ms: int | None) -> str | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(tree: dict[str, Any]) -> Answer:
    return answer(msgspec.json.encode(tree), JSON)
