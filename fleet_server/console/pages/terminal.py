"""One terminal: its sentence, peripherals, timeline, and what happened."""

from __future__ import annotations

from typing import Any, Final

from litestar import Response, get
from litestar.params import FromPath, FromQuery
from markupsafe import Markup

from fleet_server.console.desk import Asked, TheDesk
from fleet_server.console.fleet import Fleet
from fleet_server.console.looks import LOOK
from fleet_server.console.model import LockNow, TerminalNow
from fleet_server.console.pages.terminal_devices import devices_of
from fleet_server.console.pages.terminal_tabs import tab_of
from fleet_server.console.pages.terminal_timeline import RANGES, timeline_of
from fleet_server.console.render import Voice
from fleet_server.console.words import hours_words, limit_words, slot_name, type_name
from fleet_server.errors import NotFound
from fleet_server.terminals.state import StateCode


@get("/terminals/{terminal_id:str}")
async def terminal_page(
    request: Asked,
    desk: TheDesk,
    terminal_id: FromPath[str],
    tab: FromQuery[str] = "events",
    kind: FromQuery[str] = "",
    back: FromQuery[int] = 0,
) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    now = found(fleet, terminal_id)
    chosen = _range(request)
    values = {
        **_head(fleet, now, voice),
        **await devices_of(desk, now, voice),
        **await timeline_of(desk, fleet, now, voice, chosen, back),
        **await tab_of(desk, fleet, now, voice, tab, kind),
    }
    return await desk.page(request, "terminal.html", nav="terminals", voice=voice, **values)


@get("/terminals/{terminal_id:str}/head")
async def head_part(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    return await desk.part(request, "_terminal_head.html", voice=voice, **_head(fleet, found(fleet, terminal_id), voice))


@get("/terminals/{terminal_id:str}/devices")
async def devices_part(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    return await desk.part(request, "_devices.html", voice=voice, **await devices_of(desk, found(fleet, terminal_id), voice))


@get("/terminals/{terminal_id:str}/timeline")
async def timeline_part(request: Asked, desk: TheDesk, terminal_id: FromPath[str], back: FromQuery[int] = 0) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    values = await timeline_of(desk, fleet, found(fleet, terminal_id), voice, _range(request), back)
    return await desk.part(request, "_timeline.html", voice=voice, **values)


@get("/terminals/{terminal_id:str}/tab")
async def tab_part(
    request: Asked, desk: TheDesk, terminal_id: FromPath[str], tab: FromQuery[str] = "events", kind: FromQuery[str] = ""
) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    values = await tab_of(desk, fleet, found(fleet, terminal_id), voice, tab, kind)
    return await desk.part(request, "_tab.html", voice=voice, **values)


HANDLERS = [terminal_page, head_part, devices_part, timeline_part, tab_part]


def found(fleet: Fleet, terminal_id: str) -> TerminalNow:
    """The terminal of that id; NotFound for a retired or unknown one."""
    now = fleet.by_id.get(terminal_id)
    if now is None:
        raise NotFound(f"terminal {terminal_id[:32]!r}")
    return now


def _range(request: Asked) -> str:
    chosen = request.query_params.get("range", "24h")
    return chosen if chosen in RANGES else "24h"


# The sentence ----------------------------------------------------------------------------------------------------------------------------


def _head(fleet: Fleet, now: TerminalNow, voice: Voice) -> dict[str, Any]:
    return {
        "now": now,
        "look": LOOK[now.state],
        "in_maintenance": in_maintenance(now, voice.now_ms),
        "sentence": head_sentence(now, voice),
        "type_name": type_name(voice, now.type),
        "hours": hours_words(voice, now.place, voice.now_ms, fleet.calendar),
    }


def head_sentence(now: TerminalNow, voice: Voice) -> Markup:
    """What this terminal can and cannot do, since when, why."""
    say, heard_ms, zone = voice.rich, now.heard_ms, now.place.timezone
    match now.state:
        case StateCode.NOT_ENROLLED:
            first = say("head.notEnrolled", time=voice.stamp(now.created_ms, zone))
        case StateCode.MAINTENANCE if now.locked and not in_maintenance(now, voice.now_ms):
            first = voice.rich("head.locked")
        case StateCode.MAINTENANCE:
            until = voice.stamp(now.maintenance_until_ms or voice.now_ms, zone)
            first = say("head.maintenance", reason=now.maintenance_reason or "—", by=now.maintenance_by or "—", until=until)
        case StateCode.UNKNOWN:
            first = say("head.unknown")
        case StateCode.CLOSED:
            first = say("head.closed", duration=voice.since(heard_ms)) if heard_ms else say("head.closedNever")
        case StateCode.OFFLINE:
            since_ms = now.state_since_ms or heard_ms
            if heard_ms is None or since_ms is None:
                first = say("head.offlineNever")
            else:
                first = say("head.offline", time=voice.clock(since_ms, zone), duration=voice.since(since_ms))
        case StateCode.SUSPECT:
            limit = limit_words(voice, now.limits.presence.offline_ms)
            first = say("head.suspect", duration=voice.since(heard_ms or voice.now_ms), limit=limit)
        case StateCode.UNUSABLE | StateCode.PARTIAL:
            return _fault_sentence(now, voice) + _rest_sentence(now, voice)
        case _:
            first = say("head.normal", n=len(now.inventory)) if now.inventory else say("head.normalPlain")
    if (lock := now.lock) is not None:
        first += _space(voice) + lock_words(lock, voice, zone)
    if now.worst is not None and now.worst.code != "NET.OFFLINE":
        first += _space(voice) + say("head.faultBehind", problem=now.worst.sentence(voice.lang))
    return first


def in_maintenance(now: TerminalNow, now_ms: int) -> bool:
    """Set by a person, and not over."""
    return now.maintenance_until_ms is not None and now_ms < now.maintenance_until_ms


def lock_words(lock: LockNow, voice: Voice, zone: str) -> Markup:
    """Who locked it and what its screen says; or that the terminal has not yet confirmed what was asked of it."""
    if lock.locked and lock.wanted:
        return voice.rich("orders.lockedSay", by=lock.by, time=voice.clock(lock.since_ms, zone), text=lock.line(voice.lang))
    return voice.rich("orders.unlockWanted" if lock.locked else "orders.lockWanted")


def _fault_sentence(now: TerminalNow, voice: Voice) -> Markup:
    wanted = "noService" if now.state is StateCode.UNUSABLE else "some"
    weighing = [fault for fault in now.faults if fault.impact == wanted] or list(now.faults)
    first_ms = min(fault.since_ms for fault in weighing)
    values = {
        "state": voice.t(f"state.{LOOK[now.state]}"),
        "problem": weighing[0].sentence(voice.lang),
        "time": voice.clock(first_ms, now.place.timezone),
        "duration": voice.since(first_ms),
    }
    return voice.rich("head.faultOne" if len(weighing) == 1 else "head.faultMany", **values, n=len(weighing))


NAMED_MAX: Final = 8
"""More names than this are a wall of text: a hall has twenty devices, and the list below shows each."""


def _rest_sentence(now: TerminalNow, voice: Voice) -> Markup:
    """Which peripherals are fine, so that nobody is sent out for them."""
    fine = [slot_name(voice, slot) for slot, look in now.lamps if look == "ok"]
    if not fine:
        return Markup("")
    if len(fine) > NAMED_MAX:
        return _space(voice) + voice.rich("head.restMany", n=len(fine))
    return _space(voice) + voice.rich("head.rest", names=voice.t("head.restJoin").join(fine))


def _space(voice: Voice) -> Markup:
    return Markup("") if voice.lang == "zh" else Markup(" ")
