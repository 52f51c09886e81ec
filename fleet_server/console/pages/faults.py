"""The fault list, and what an operator does about a fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

from litestar import Response, get, post
from litestar.enums import MediaType
from litestar.params import FromPath, FromQuery

from fleet_server.console import actions
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of, is_fragment, open_fault_count
from fleet_server.console.fleet import Fleet, fault_of
from fleet_server.console.model import SEVERITY_RANK, FaultNow
from fleet_server.console.queries import evidence as evidence_queries
from fleet_server.console.queries import lists
from fleet_server.console.render import Voice
from fleet_server.errors import NotFound, Refused
from fleet_server.sites.calendar import day_span_ms

TABS: Final = ("open", "today", "all")
OPERATOR: Final = {"role": "operator"}
ACTED: Final = {"HX-Trigger": "kf:acted"}
"""Tells the page that asked to read its lists again."""


@get("/faults")
async def fault_list(request: Asked, desk: TheDesk, tab: FromQuery[str] = "open", site: FromQuery[str] = "") -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    chosen = tab if tab in TABS else TABS[0]
    values = await _list(desk, fleet, voice, chosen, site[:80])
    if is_fragment(request):
        return await desk.part(request, "_fault_list.html", voice=voice, **values)
    return await desk.page(request, "faults.html", nav="faults", voice=voice, **values)


@post("/faults/{fault_id:str}/claim", status_code=200, opt=OPERATOR)
async def claim(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    await desk.db.write(lambda connection: actions.claim(connection, fault_id, request.user.name, desk.now_ms()))
    return _acted()


@post("/faults/{fault_id:str}/unclaim", status_code=200, opt=OPERATOR)
async def unclaim(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    await desk.db.write(lambda connection: actions.unclaim(connection, fault_id, request.user.name, desk.now_ms()))
    return _acted()


@get("/faults/{fault_id:str}/note", opt=OPERATOR)
async def note_form(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    return await _note(request, desk, fault_id)


@post("/faults/{fault_id:str}/note", status_code=200, opt=OPERATOR)
async def note(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    text = (await form_of(request)).get("text", "")
    try:
        await desk.db.write(lambda connection: actions.note(connection, fault_id, request.user.name, text, desk.now_ms()))
    except Refused as refused:
        return await _note(request, desk, fault_id, problem=refused.reason)
    return _acted()


HANDLERS = [fault_list, claim, unclaim, note_form, note]


def _acted() -> Response[str]:
    """Empty: an open dialog closes, the lists are read again."""
    return Response("", media_type=MediaType.HTML, headers=ACTED)


async def _note(request: Asked, desk: Desk, fault_id: str, problem: str = "") -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    row = await evidence_queries.fault(desk.db, fault_id)
    if row is None:
        raise NotFound(f"fault {fault_id[:64]!r}")
    terminal = fleet.by_id.get(row["terminal"])
    fault = fault_of(row)
    steps = [
        {
            "at_ms": step["at_ms"],
            "sentence": voice.t(
                f"event.{step['kind']}", by=step["by"] or "—", problem=fault.sentence(voice.lang), text=step["text"] or ""
            ),
        }
        for step in await lists.fault_steps(desk.db, fault_id)
        if voice.t.has(f"event.{step['kind']}")
    ]
    return await desk.part(
        request,
        "_note.html",
        voice=voice,
        fault=fault,
        label=terminal.label if terminal else fault.terminal,
        steps=steps,
        problem=voice.t(f"refused.{problem}") if problem else "",
    )


async def _list(desk: Desk, fleet: Fleet, voice: Voice, tab: str, site: str) -> dict[str, Any]:
    faults = await _faults(desk, fleet, tab)
    truncated = len(faults) > lists.FAULT_LIMIT and tab != "open"
    if truncated:
        faults = faults[: lists.FAULT_LIMIT]
    recent = await lists.recent_counts(desk.db, voice.now_ms)
    rows = []
    for fault in faults:
        terminal = fleet.by_id.get(fault.terminal)
        if site and (terminal is None or terminal.place.code != site):
            continue
        rows.append({
            "fault": fault,
            "label": terminal.label if terminal else fault.terminal,
            "name": terminal.name(voice.lang) if terminal else "",
            "site": terminal.place.name(voice.lang) if terminal else "",
            "zone": terminal.place.timezone if terminal else voice.zone,
            "recent": recent.get((fault.terminal, fault.code), 0),
            "status": _status(fault, voice.now_ms),
        })  # fmt: skip
    place = next((terminal.place for terminal in fleet.terminals if terminal.place.code == site), None) if site else None

    def query(**changes: str) -> str:
        pairs = {"tab": tab, "site": site} | changes
        kept = {name: value for name, value in pairs.items() if value and not (name == "tab" and value == TABS[0])}
        return "?" + urlencode(kept) if kept else ""

    return {
        "tab": tab,
        "rows": rows,
        "open_count": open_fault_count(fleet),
        "site_name": place.name(voice.lang) if place else "",
        "fault_query": query,
        "truncated": truncated,
    }


async def _faults(desk: Desk, fleet: Fleet, tab: str) -> Sequence[FaultNow]:
    if tab != "open":
        start_ms, _ = day_span_ms(fleet.today, desk.view.zone)
        return await lists.faults_of(desk.db, tab=tab, start_ms=start_ms)
    found = [fault for terminal in fleet.terminals for fault in terminal.faults]
    found.sort(key=lambda fault: (SEVERITY_RANK.get(fault.severity, 9), fault.claimed_by is not None, fault.since_ms))
    return found


def _status(fault: FaultNow, now_ms: int) -> str:
    if fault.cleared_ms is not None:
        return "recovered"
    if fault.muted(now_ms):
        return "muted"
    return "claimed" if fault.claimed_by else "unclaimed"
