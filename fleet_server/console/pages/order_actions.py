"""What is asked of terminals from their page or from a selection: test, restart, logs, lock, unlock, an existing configuration. Forms are dialogs.

The dialog says what will be done, where, and how many people it takes; the rules themselves are those of `orders.requests`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath

from fleet_server.console import order_forms, order_words
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of
from fleet_server.console.fleet import Fleet
from fleet_server.console.model import TerminalNow
from fleet_server.console.order_forms import REQUEST, VALID_MS
from fleet_server.console.pages.answers import acted, ids_of, local_field
from fleet_server.console.pages.orders import where_words
from fleet_server.console.queries import orders as queries
from fleet_server.console.render import Voice
from fleet_server.console.words import slot_name
from fleet_server.errors import NotFound, Refused
from fleet_server.orders import requests
from fleet_server.thresholds.rules import effective

NAMED_MAX: Final = 8
"""Terminals that a dialog names one by one."""
LOGS_USUAL_MS: Final = 2 * order_forms.HOUR_MS
ACTIONS: Final = (*order_forms.ACTIONS, "configuration")
Make = Callable[[sqlite3.Connection], bytes]


@get("/terminals/{terminal_id:str}/orders/{action:str}", opt=REQUEST)
async def form_of_one(request: Asked, desk: TheDesk, terminal_id: FromPath[str], action: FromPath[str]) -> Response[str]:
    fleet = await desk.fleet(request)
    if terminal_id not in fleet.by_id or action not in ACTIONS:
        raise NotFound(f"{action[:20]!r} of {terminal_id[:32]!r}")
    return await _ask(request, desk, action, [terminal_id], {})


@post("/terminals/orders/form", status_code=200, opt=REQUEST)
async def form_of_many(request: Asked, desk: TheDesk) -> Response[str]:
    """The dialog for the chosen rows of the list."""
    form, ids = await form_of(request), await ids_of(request)
    action = form.get("action", "")
    if action not in ACTIONS:
        raise Refused("action", "bulkVerb")
    if not ids:
        raise Refused("id", "nothingChosen")
    return await _ask(request, desk, action, ids, {})


@post("/terminals/orders/{action:str}", status_code=200, opt=REQUEST)
async def ask(request: Asked, desk: TheDesk, action: FromPath[str]) -> Response[str]:
    """Ask it of every `id`: one request, however many terminals."""
    form, ids = await form_of(request), await ids_of(request)
    if action not in ACTIONS:
        raise NotFound(f"action {action[:20]!r}")
    fleet, voice, me, now_ms = await desk.fleet(request), desk.voice(request), request.user.name, desk.now_ms()
    try:
        make = _reader(action, form, _able(action, form, [fleet.by_id[one] for one in ids if one in fleet.by_id]), me, now_ms)
        made = await desk.db.write(make)
    except Refused as refused:
        return await _ask(request, desk, action, ids, form, refused)
    row = await queries.request(desk.db, made)
    assert row is not None
    if len(ids) > 1:
        return Response("", headers={"HX-Redirect": f"/orders/{made.hex()}"})
    told = order_words.what(voice, row["kind"], row["body"])
    return acted(voice.t("act.asked" if row["state"] == "waiting" else "act.sent", what=told))


HANDLERS = [form_of_one, form_of_many, ask]


def _able(action: str, form: Mapping[str, str], terminals: Sequence[TerminalNow]) -> list[TerminalNow]:
    """Those of the chosen terminals at which it makes sense; Refused if there is none."""
    able = order_forms.enrolled(terminals)
    if action == "test":
        slot = form.get("choice", "").partition(" ")[0]
        able = [one for one in able if slot in order_forms.slots_of([one])]
    if not able:
        raise Refused("id", "orderNone")
    return able


def _reader(action: str, form: Mapping[str, str], able: Sequence[TerminalNow], me: str, now_ms: int) -> Make:
    """What the form asks for, checked, as something to do in one transaction."""
    ids, note = [one.id for one in able], form.get("note", "")
    if action == "lock":
        zh, en = form.get("zh", ""), form.get("en", "")
        return lambda conn: requests.lock(conn, ids, zh, en, by=me, note=note, now_ms=now_ms)
    if action == "unlock":
        return lambda conn: requests.unlock(conn, ids, by=me, note=note, now_ms=now_ms)
    expires_ms = order_forms.read_expiry(form, action, now_ms)
    if action == "configuration":
        text = form.get("version", "")
        version = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        return lambda conn: requests.request_version(conn, ids, version, by=me, expires_ms=expires_ms, note=note, now_ms=now_ms)
    body = (
        order_forms.read_test(form, order_forms.slots_of(able))
        if action == "test"
        else order_forms.read_restart(form)
        if action == "restart"
        else order_forms.read_logs(form, able[0].place.timezone)
    )
    return lambda conn: requests.request_order(conn, ids, body, by=me, expires_ms=expires_ms, note=note, now_ms=now_ms)


async def _ask(
    request: Asked, desk: Desk, action: str, ids: Sequence[str], form: Mapping[str, str], refused: Refused | None = None
) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    chosen = [fleet.by_id[one] for one in ids if one in fleet.by_id]
    able = order_forms.enrolled(chosen)
    limit = int(await desk.db.look(lambda conn: effective(conn, "order.batch_two").value))
    me, kind, now_ms = request.user.name, {"test": "selfTest", "logs": "pullLogs"}.get(action, action), desk.now_ms()
    reached = await desk.db.look(lambda conn: requests.reach(conn, me, kind, [one.id for one in able], now_ms))
    values = await _fields(desk, action, able, form, voice)
    problems = {refused.field: voice.t(f"refused.{refused.reason}")} if refused else {}
    known = {"note", "choice", "what", "from", "zh", "en", "version"}
    return await desk.part(
        request,
        f"_act_{action}.html",
        voice=voice,
        action=action,
        title=voice.t(f"act.title.{action}", what=where_words(fleet, voice, [one.id for one in chosen[:1]], len(chosen))),
        ids=[one.id for one in able],
        many=len(chosen) > 1,
        said=_said(fleet, chosen, able, voice),
        two=_two(action, reached, limit),
        limit=limit,
        note=form.get("note", ""),
        valid=form.get("valid", order_forms.USUAL_VALID.get(action, "1d")),
        valids=list(VALID_MS) if action in order_forms.USUAL_VALID else [],
        problems=problems,
        # What no single field is to blame for stands above the form's end.
        problem=next((text for field, text in problems.items() if field not in known), ""),
        **values,
    )


def _two(action: str, count: int, limit: int) -> str:
    """Why it takes two people whatever is chosen in the form; a restart may take them by what is chosen."""
    if action == "configuration":
        return "risky"
    return "batch" if count > limit and action != "unlock" else ""


def _said(fleet: Fleet, chosen: Sequence[TerminalNow], able: Sequence[TerminalNow], voice: Voice) -> list[str]:
    """Where it will be done and where not, in sentences."""
    said = []
    if len(chosen) > 1:
        said.append(voice.t("act.many", n=len(able)))
        names = voice.t("orders.join").join(one.label for one in able[:NAMED_MAX])
        more = len(able) > NAMED_MAX
        said.append(voice.t("act.whichMore", names=names, n=len(able)) if more else voice.t("act.which", names=names))
    if len(chosen) > len(able):
        said.append(voice.t("act.skipped", n=len(chosen) - len(able)) if len(chosen) > 1 else voice.t("act.notEnrolled"))
    return said


async def _fields(desk: Desk, action: str, able: Sequence[TerminalNow], form: Mapping[str, str], voice: Voice) -> dict[str, Any]:
    """What the dialog of this action offers."""
    t = voice.t
    match action:
        case "test":
            slots = order_forms.slots_of(able)
            with_slot = {slot: sum(slot in order_forms.slots_of([one]) for one in able) for slot in slots}
            choices = [
                (
                    _slot_label(voice, slot, with_slot[slot], len(able)),
                    [
                        (f"{slot} {test}", t("act.oneTest", slot=slot_name(voice, slot), test=t(f"act.tests.{test}")))
                        for test in tests
                    ],
                )
                for slot, tests in slots.items()
            ]
            return {"choices": choices, "choice": form.get("choice") or form.get("slot", "")}
        case "restart":
            return {
                "whats": order_forms.RESTARTS,
                "whens": order_forms.WHENS,
                "what": form.get("what", "application"),
                "when": form.get("when", "idle"),
            }
        case "logs":
            zone = able[0].place.timezone if able else voice.zone
            now = local_field(voice.now_ms, zone)
            return {
                "from_": form.get("from") or local_field(voice.now_ms - LOGS_USUAL_MS, zone),
                "to": form.get("to") or now,
                "latest": now,
            }
        case "lock":
            usual = order_words.USUAL_LINES
            return {"zh": form.get("zh", usual["zh"]), "en": form.get("en", usual["en"])}
        case "configuration":
            return {"versions": await queries.newest_versions(desk.db), "version": form.get("version", "")}
        case _:
            return {}


def _slot_label(voice: Voice, slot: str, with_slot: int, able: int) -> str:
    name = slot_name(voice, slot)
    return name if with_slot == able else voice.t("act.slotAt", slot=name, n=with_slot)
