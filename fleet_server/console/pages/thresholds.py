"""Thresholds: what each means, its default, what holds for which terminals, who set it; operators change them."""

from __future__ import annotations

import sqlite3
from typing import Any
from urllib.parse import quote

from litestar import Response, get, post
from litestar.enums import MediaType
from litestar.params import FromPath, FromQuery

from fleet_server.accounts.rules import Session
from fleet_server.console import threshold_view as view
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of
from fleet_server.console.pages.faults import OPERATOR
from fleet_server.errors import NotFound, Refused
from fleet_server.thresholds.defaults import DEFAULTS, Default
from fleet_server.thresholds.rules import FLEET, SCOPES, Effective, all_effective, history, put


@get("/thresholds")
async def thresholds_page(request: Asked, desk: TheDesk, done: FromQuery[str] = "") -> Response[str]:
    voice = desk.voice(request)
    in_force = await desk.db.look(_in_force)
    found = view.sections(voice, in_force)
    changed = DEFAULTS.get(done)
    values = {
        "sections": found,
        "total": sum(len(section["rows"]) for section in found),
        "changed": sum(section["changed"] for section in found),
        "notice": voice.t("threshold.done", name=view.label(voice, changed)) if changed else "",
    }
    return await desk.page(request, "thresholds.html", nav="system", voice=voice, **values)


@get("/thresholds/{name:str}")
async def threshold_dialog(request: Asked, desk: TheDesk, name: FromPath[str]) -> Response[str]:
    return await _dialog(request, desk, _known(name))


@post("/thresholds/{name:str}", status_code=200, opt=OPERATOR)
async def set_threshold(request: Asked, desk: TheDesk, name: FromPath[str]) -> Response[str]:
    default, form = _known(name), await form_of(request)
    scope, text = form.get("scope", FLEET), form.get("value", "")
    try:
        value = None if form.get("back") else view.read_value(default, text)
        await desk.db.write(lambda conn: put(conn, name, value, by=request.user.name, now_ms=desk.now_ms(), terminal_class=scope))
    except Refused as refused:
        return await _dialog(request, desk, default, scope=scope, text=text, refused=refused)
    # The time makes it another address: a browser that stands on the same one already would only jump to the fragment.
    address = f"/thresholds?done={quote(name)}&at={desk.now_ms()}#{quote(name)}"
    return Response("", media_type=MediaType.HTML, headers={"HX-Redirect": address})


HANDLERS = [thresholds_page, threshold_dialog, set_threshold]


def _known(name: str) -> Default:
    default = DEFAULTS.get(name)
    if default is None:
        raise NotFound(f"threshold {name[:40]!r}")
    return default


def _in_force(conn: sqlite3.Connection) -> dict[str, dict[str, Effective]]:
    return {scope: {one.name: one for one in all_effective(conn, scope)} for scope in SCOPES}


async def _dialog(
    request: Asked, desk: Desk, default: Default, *, scope: str = FLEET, text: str | None = None, refused: Refused | None = None
) -> Response[str]:
    voice = desk.voice(request)
    in_force, past = await desk.db.look(lambda conn: (_in_force(conn), history(conn, default.name)))
    session: Session = request.user
    known_scope = scope if scope in SCOPES else FLEET
    values: dict[str, Any] = {
        "one": view.row(voice, default, in_force),
        "bounds": [view.value_words(voice, bound, default.unit) for bound in (default.low, default.high)],
        "unit": voice.t(f"threshold.unitName.{default.unit}"),
        "scopes": view.scope_options(voice, default),
        "scope": known_scope,
        "own_classes": [view.scope_word(voice, one) for one in default.by_class],
        "text": view.typed(default, in_force[known_scope][default.name].value) if text is None else text,
        "history": view.history_words(voice, default, past),
        "problem": view.refusal(voice, refused) if refused else "",
        "operator": session.operator,
    }
    return await desk.part(request, "_threshold.html", voice=voice, **values)
