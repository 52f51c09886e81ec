"""A van's planned stops: a dialog on its page, where they are listed, made and taken back."""

from __future__ import annotations

import re
from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath

from fleet_server.console import actions
from fleet_server.console.chinese_maps import from_chinese_maps
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of
from fleet_server.console.model import TerminalNow
from fleet_server.console.pages.answers import acted, local_field
from fleet_server.console.pages.faults import OPERATOR
from fleet_server.console.pages.terminal import found
from fleet_server.console.queries import terminal as queries
from fleet_server.errors import Refused
from fleet_server.terminals import van_stops

NAME_MAX: Final = 60
SYSTEMS: Final = ("gcj02", "wgs84")
"""How a place is written: as public maps of mainland China show it, or as a receiver does."""
_PLACE: Final = re.compile(r"\s*(-?\d{1,2}(?:\.\d{1,8})?)\s*[,，\s]\s*(-?\d{1,3}(?:\.\d{1,8})?)\s*")
_HOUR_MS: Final = 3_600_000


@get("/terminals/{terminal_id:str}/stops", opt=OPERATOR)
async def stops_form(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    return await _dialog(request, desk, found(await desk.fleet(request), terminal_id), {})


@post("/terminals/{terminal_id:str}/stops", status_code=200, opt=OPERATOR)
async def add_stop(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    now = found(await desk.fleet(request), terminal_id)
    form, now_ms, zone = await form_of(request), desk.now_ms(), now.place.timezone
    try:
        name = actions.person_text("name", form.get("name", ""), NAME_MAX)
        latitude, longitude = place_of(form.get("place", ""), form.get("system", ""))
        from_ms, to_ms = (actions.local_ms("window", form.get(field, ""), zone) for field in ("from", "to"))
        await desk.db.write(
            lambda connection: van_stops.plan(
                connection, now.id, by=request.user.name, name=name, latitude=latitude, longitude=longitude,
                from_ms=from_ms, to_ms=to_ms, now_ms=now_ms,
            )
        )  # fmt: skip
    except Refused as refused:
        return await _dialog(request, desk, now, form, refused.reason)
    return acted()


@post("/terminals/{terminal_id:str}/stops/{stop:int}/remove", status_code=200, opt=OPERATOR)
async def remove_stop(request: Asked, desk: TheDesk, terminal_id: FromPath[str], stop: FromPath[int]) -> Response[str]:
    now = found(await desk.fleet(request), terminal_id)
    await desk.db.write(
        lambda connection: van_stops.take_back(connection, now.id, stop, by=request.user.name, now_ms=desk.now_ms())
    )
    return acted()


HANDLERS = [stops_form, add_stop, remove_stop]


def place_of(text: str, system: str) -> tuple[float, float]:
    """WGS-84 degrees of "29.079, 119.647". Refused for what is no place."""
    match = _PLACE.fullmatch(text)
    if match is None or system not in SYSTEMS:
        raise Refused("place", "place")
    latitude, longitude = float(match.group(1)), float(match.group(2))
    return from_chinese_maps(latitude, longitude) if system == "gcj02" else (latitude, longitude)


async def _dialog(request: Asked, desk: Desk, now: TerminalNow, form: dict[str, str], problem: str = "") -> Response[str]:
    voice, zone = desk.voice(request), now.place.timezone
    rows: list[dict[str, Any]] = [
        row | {"begin": voice.stamp(row["from_ms"], zone), "end": voice.stamp(row["to_ms"], zone)}
        for row in await queries.planned_stops(desk.db, now.id, voice.now_ms)
        if row["to_ms"] > voice.now_ms
    ]
    return await desk.part(
        request,
        "_van_stops.html",
        voice=voice,
        now=now,
        stops=rows,
        systems=SYSTEMS,
        name=form.get("name", ""),
        place=form.get("place", ""),
        system=form.get("system", SYSTEMS[0]),
        begin=form.get("from") or local_field(voice.now_ms + _HOUR_MS, zone),
        end=form.get("to") or local_field(voice.now_ms + 3 * _HOUR_MS, zone),
        earliest=local_field(voice.now_ms - van_stops.LONGEST_MS, zone),
        latest=local_field(voice.now_ms + van_stops.AHEAD_MS + van_stops.LONGEST_MS, zone),
        problem=voice.t(f"refused.{problem}") if problem else "",
    )
