"""The city as a map, with the table of its areas beside it."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response, get

from fleet_server.console import citymap, listing
from fleet_server.console.desk import Asked, Desk, TheDesk, is_fragment
from fleet_server.console.fleet import Fleet
from fleet_server.console.looks import LOOK
from fleet_server.console.queries import map as queries
from fleet_server.console.render import Voice
from fleet_server.terminals.state import WORST_FIRST

YEAR_S = 31_536_000


@get("/map")
async def city_map(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    view = citymap.parse_map_view({name: str(value) for name, value in request.query_params.items()})
    values = await _values(desk, fleet, voice, view)
    if is_fragment(request):
        return await desk.part(request, "_map_parts.html", voice=voice, **values)
    return await desk.page(request, "map.html", nav="map", voice=voice, **values)


@get("/map/outline.json", sync_to_thread=False)
def outline(desk: TheDesk) -> Response[bytes]:
    """The city's outline; its digest is in the address, so a browser may keep it."""
    return outline_answer(desk)


def outline_answer(desk: Desk) -> Response[bytes]:
    return Response(
        desk.outline.page,
        media_type="application/geo+json",
        headers={"Cache-Control": f"private, max-age={YEAR_S}, immutable"},
    )


HANDLERS = [city_map, outline]


async def _values(desk: Desk, fleet: Fleet, voice: Voice, view: citymap.MapView) -> dict[str, Any]:
    ground = await queries.ground(desk.db, voice.now_ms)
    now = citymap.city(fleet.terminals, ground, desk.outline, voice.lang, view.state)
    by_state = listing.counts(fleet.terminals)
    return {
        "view": view,
        "headline": citymap.headline(now.areas, voice),
        "areas": citymap.in_order(now.areas, view),
        "unplaced": [
            {
                "site": site,
                "tip": citymap.site_tip(site, voice),
                "href": citymap.terminals_address(site=site.place.code, state=view.state),
            }
            for site in now.unplaced
        ],
        "chips": [
            {
                "look": LOOK[state],
                "count": count,
                "href": view.query(state="" if view.state == state.value else state.value),
                "active": view.state == state.value or state in listing.GROUPS.get(view.state, ()),
            }
            for state in WORST_FIRST
            if (count := by_state.of(state)) or view.state == state.value
        ],
        "chip_total": by_state.total,
        "feed": msgspec.json.encode(citymap.feed(now, voice, view.state)).decode(),
        "placed": len(now.sites),
        "outline_address": f"/map/outline.json?v={desk.outline.digest}",
        "squeeze": f"{desk.outline.squeeze:.4f}",
    }
