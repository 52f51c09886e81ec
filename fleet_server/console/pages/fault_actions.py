"""What an operator does about faults, one or many at once: claim, note, mute, false alarm. Forms are dialogs; nobody closes a fault."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath

from fleet_server.console import actions, fault_view
from fleet_server.console.actions import MUTE_UNTIL, NOTE_MAX, REASON_MAX, Tally, person_text
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of
from fleet_server.console.fleet import Fleet, fault_of
from fleet_server.console.model import FaultNow
from fleet_server.console.pages.answers import acted, ids_of, local_field, tally_answer
from fleet_server.console.pages.faults import OPERATOR
from fleet_server.console.queries import evidence as evidence_queries
from fleet_server.console.queries import lists
from fleet_server.console.steps import steps_of
from fleet_server.errors import NotFound, Refused

Act = Callable[[sqlite3.Connection, str], None]
AT_ONCE: Final = ("claim", "unclaim", "unmute", "falseAlarm", "realAlarm")
"""Verbs that need no words; `note` and `mute` ask for some."""


@get("/faults/{fault_id:str}/steps")
async def steps(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    """What people did about it and may do now, for the evidence drawer."""
    voice = desk.voice(request)
    return await desk.part(request, "_fault_steps.html", voice=voice, **await _about(request, desk, fault_id))


@post("/faults/{fault_id:str}/claim", status_code=200, opt=OPERATOR)
async def claim(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    return await _one(request, desk, fault_id, "claim")


@post("/faults/{fault_id:str}/unclaim", status_code=200, opt=OPERATOR)
async def unclaim(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    return await _one(request, desk, fault_id, "unclaim")


@post("/faults/{fault_id:str}/unmute", status_code=200, opt=OPERATOR)
async def unmute(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    return await _one(request, desk, fault_id, "unmute")


@post("/faults/{fault_id:str}/false-alarm", status_code=200, opt=OPERATOR)
async def false_alarm(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    return await _one(request, desk, fault_id, "falseAlarm")


@post("/faults/{fault_id:str}/real-alarm", status_code=200, opt=OPERATOR)
async def real_alarm(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    return await _one(request, desk, fault_id, "realAlarm")


@get("/faults/{fault_id:str}/note", opt=OPERATOR)
async def note_form(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    return await _note(request, desk, fault_id)


@post("/faults/{fault_id:str}/note", status_code=200, opt=OPERATOR)
async def note(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    text = (await form_of(request)).get("text", "")
    try:
        await desk.db.write(lambda connection: actions.note(connection, fault_id, request.user.name, text, desk.now_ms()))
    except Refused as refused:
        return await _note(request, desk, fault_id, text=text, problem=refused.reason)
    return acted()


@get("/faults/{fault_id:str}/mute", opt=OPERATOR)
async def mute_form(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    return await _mute(request, desk, fault_id, {})


@post("/faults/{fault_id:str}/mute", status_code=200, opt=OPERATOR)
async def mute(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    form = await form_of(request)
    row = await evidence_queries.fault(desk.db, fault_id)
    if row is None:
        raise NotFound(f"fault {fault_id[:64]!r}")
    zone = _zone(await desk.fleet(request), row["terminal"], desk)
    now_ms = desk.now_ms()
    try:
        until_ms = actions.until_of(form.get("until", ""), now_ms, zone, form.get("at", ""))
        await desk.db.write(
            lambda connection: actions.mute(connection, fault_id, request.user.name, form.get("reason", ""), until_ms, now_ms)
        )
    except Refused as refused:
        return await _mute(request, desk, fault_id, form, problem=refused.reason)
    return acted()


# Many at once ---------------------------------------------------------------------------------------------------------------------------


@post("/faults/bulk", status_code=200, opt=OPERATOR)
async def bulk(request: Asked, desk: TheDesk) -> Response[str]:
    """`verb` for every `id`: done at once, or after a dialog has asked for words. One transaction; each row refuses for itself."""
    form, ids = await form_of(request), await ids_of(request)
    verb = form.get("verb", "")
    if verb not in (*AT_ONCE, "note", "mute"):
        raise Refused("verb", "bulkVerb")
    if not ids:
        raise Refused("id", "nothingChosen")
    now_ms, me = desk.now_ms(), request.user.name
    if verb in AT_ONCE:
        tally = await desk.db.write(lambda connection: actions.each(connection, ids, _verb(connection, verb, me, now_ms)))
        return await _told(request, desk, verb, tally)
    if "asked" not in form:
        return await _ask(request, desk, verb, ids, {})
    try:
        tally = await _with_words(request, desk, verb, ids, form, now_ms)
    except Refused as refused:
        return await _ask(request, desk, verb, ids, form, problem=refused.reason)
    return await _told(request, desk, verb, tally)


HANDLERS = [
    steps, claim, unclaim, unmute, false_alarm, real_alarm, note_form, note, mute_form, mute, bulk,
]  # fmt: skip


def _verb(connection: sqlite3.Connection, verb: str, me: str, now_ms: int) -> Callable[[str], None]:
    acts: dict[str, Callable[[str], None]] = {
        "claim": lambda fault: actions.claim(connection, fault, me, now_ms),
        "unclaim": lambda fault: actions.unclaim(connection, fault, me, now_ms),
        "unmute": lambda fault: actions.unmute(connection, fault, me, now_ms),
        "falseAlarm": lambda fault: actions.mark_false_alarm(connection, fault, me, now_ms),
        "realAlarm": lambda fault: actions.mark_false_alarm(connection, fault, me, now_ms, is_false=False),
    }
    return acts[verb]


async def _one(request: Asked, desk: Desk, fault_id: str, verb: str) -> Response[str]:
    await desk.db.write(lambda connection: _verb(connection, verb, request.user.name, desk.now_ms())(fault_id))
    return acted()


async def _with_words(request: Asked, desk: Desk, verb: str, ids: list[str], form: dict[str, str], now_ms: int) -> Tally:
    """Words that nobody may write, and an end that no row could have, are refused for all rows at once."""
    me, fleet = request.user.name, await desk.fleet(request)
    if verb == "note":
        text = person_text("text", form.get("text", ""), NOTE_MAX)
        return await desk.db.write(
            lambda connection: actions.each(connection, ids, lambda fault: actions.note(connection, fault, me, text, now_ms))
        )
    reason = person_text("reason", form.get("reason", ""), REASON_MAX)
    until, at = form.get("until", ""), form.get("at", "")
    if not now_ms < actions.until_of(until, now_ms, desk.view.zone, at) <= now_ms + actions.LONGEST_MUTE_MS:
        raise Refused("until", "until")

    def quiet(connection: sqlite3.Connection, fault: str) -> None:
        zone = _zone(fleet, fault.partition(":")[0], desk)
        actions.mute(connection, fault, me, reason, actions.until_of(until, now_ms, zone, at), now_ms)

    return await desk.db.write(lambda connection: actions.each(connection, ids, lambda fault: quiet(connection, fault)))


async def _ask(request: Asked, desk: Desk, verb: str, ids: list[str], form: dict[str, str], problem: str = "") -> Response[str]:
    voice = desk.voice(request)
    return await desk.part(
        request,
        "_bulk_note.html" if verb == "note" else "_mute.html",
        voice=voice,
        action="/faults/bulk",
        title=voice.t(f"bulk.ask.{verb}", n=len(ids)),
        about="",
        ids=ids,
        text=form.get("text", ""),
        **_mute_values(form, voice.now_ms, voice.zone),
        problem=voice.t(f"refused.{problem}") if problem else "",
    )


async def _told(request: Asked, desk: Desk, verb: str, tally: Tally) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)

    def name(fault_id: str) -> str:
        terminal = fleet.by_id.get(fault_id.partition(":")[0])
        fault = next((one for one in terminal.faults if one.id == fault_id), None) if terminal else None
        label = terminal.label if terminal else fault_id.partition(":")[0]
        return f"{label} · {fault.sentence(voice.lang)}" if fault else label

    return await tally_answer(request, desk, voice.t(f"bulk.fault.{verb}"), tally, name)


# Dialogs --------------------------------------------------------------------------------------------------------------------------------


async def _about(request: Asked, desk: Desk, fault_id: str) -> dict[str, Any]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    row = await evidence_queries.fault(desk.db, fault_id)
    if row is None:
        raise NotFound(f"fault {fault_id[:64]!r}")
    fault = fault_of(row)
    terminal = fleet.by_id.get(fault.terminal)
    zone = _zone(fleet, fault.terminal, desk)
    return {
        "fault": fault,
        "label": terminal.label if terminal else fault.terminal,
        "zone": zone,
        "word": fault_view.status_of(fault, voice.now_ms),
        "muted": _muted_words(desk, request, fault, zone),
        "steps": steps_of(voice, await lists.fault_steps(desk.db, fault_id), fault.sentence(voice.lang), zone),
    }


def _muted_words(desk: Desk, request: Asked, fault: FaultNow, zone: str) -> str:
    voice = desk.voice(request)
    if fault.cleared_ms is not None or not fault.muted(voice.now_ms):
        return ""
    until = voice.clock(fault.muted_until_ms or 0, zone)
    return voice.t("mute.now", until=until, by=fault.muted_by or "—", reason=fault.muted_reason or "—")


def _zone(fleet: Fleet, terminal: str, desk: Desk) -> str:
    now = fleet.by_id.get(terminal)
    return now.place.timezone if now else desk.view.zone


async def _note(request: Asked, desk: Desk, fault_id: str, text: str = "", problem: str = "") -> Response[str]:
    voice = desk.voice(request)
    return await desk.part(
        request,
        "_note.html",
        voice=voice,
        text=text,
        problem=voice.t(f"refused.{problem}") if problem else "",
        **await _about(request, desk, fault_id),
    )


async def _mute(request: Asked, desk: Desk, fault_id: str, form: dict[str, str], problem: str = "") -> Response[str]:
    voice = desk.voice(request)
    about = await _about(request, desk, fault_id)
    fault: FaultNow = about["fault"]
    return await desk.part(
        request,
        "_mute.html",
        voice=voice,
        action=f"/faults/{fault.id}/mute",
        title=voice.t("mute.heading", problem=fault.sentence(voice.lang)),
        about=f"{about['label']} · {fault.code}",
        ids=[],
        **_mute_values(form, voice.now_ms, about["zone"]),
        problem=voice.t(f"refused.{problem}") if problem else "",
    )


def _mute_values(form: dict[str, str], now_ms: int, zone: str) -> dict[str, Any]:
    return {
        "reason": form.get("reason", ""),
        "until": form.get("until", "1h"),
        "untils": MUTE_UNTIL,
        "at": form.get("at") or local_field(now_ms + 2 * 3_600_000, zone),
        "earliest": local_field(now_ms, zone),
        "latest": local_field(now_ms + actions.LONGEST_MUTE_MS, zone),
    }
