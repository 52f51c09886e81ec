"""Accounts, for operators: who may sign in, as what, and who changed that. One-time passwords are shown once and stored as hashes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath

from fleet_server.accounts import events, management
from fleet_server.accounts.passwords import new_password
from fleet_server.accounts.rules import ROLES
from fleet_server.console.actions import person_text
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of
from fleet_server.console.i18n import language_of
from fleet_server.console.pages.faults import OPERATOR
from fleet_server.console.queries import accounts as queries
from fleet_server.console.render import Voice
from fleet_server.errors import NotFound, Refused

NEW: Final = {"name": "", "display": "", "role": "viewer", "lang": "zh"}
Change = Callable[[sqlite3.Connection], object]


@get("/accounts", opt=OPERATOR)
async def accounts_page(request: Asked, desk: TheDesk) -> Response[str]:
    voice = desk.voice(request)
    limits = await desk.sessions.limits()
    rows = await queries.accounts(desk.db, voice.now_ms, limits.idle_ms)
    values: dict[str, Any] = {
        "rows": [_line(row, voice, request.user.name) for row in rows],
        "roles": ROLES,
        "n": len(rows),
        "operators": sum(row["role"] == "operator" and row["disabled_ms"] is None for row in rows),
        "history": _history(voice, await desk.db.look(events.recent), named=True),
    }
    return await desk.page(request, "accounts.html", nav="system", voice=voice, **values)


@get("/accounts/add", opt=OPERATOR)
async def account_add_form(request: Asked, desk: TheDesk) -> Response[str]:
    return await _add_form(request, desk, NEW)


@post("/accounts/add", status_code=200, opt=OPERATOR)
async def account_add(request: Asked, desk: TheDesk) -> Response[str]:
    form = {**NEW, **await form_of(request)}
    password = new_password()
    try:
        name = management.check_name(form["name"])
        display = person_text("display", form["display"], management.DISPLAY_MAX) if form["display"].strip() else ""
        hashed = await desk.sessions.hashed(password)
        await desk.db.write(
            lambda conn: management.add(
                conn,
                name,
                display=display,
                role=form["role"],
                lang=language_of(form["lang"]),
                password_hash=hashed,
                by=request.user.name,
                now_ms=desk.now_ms(),
            )
        )
    except Refused as refused:
        return await _add_form(request, desk, form, refused)
    return await _dialog(request, desk, name, password=password)


@get("/accounts/{name:str}", opt=OPERATOR)
async def account_dialog(request: Asked, desk: TheDesk, name: FromPath[str]) -> Response[str]:
    return await _dialog(request, desk, name)


@post("/accounts/{name:str}/{action:str}", status_code=200, opt=OPERATOR)
async def account_change(request: Asked, desk: TheDesk, name: FromPath[str], action: FromPath[str]) -> Response[str]:
    form = await form_of(request)
    by, now_ms = request.user.name, desk.now_ms()
    password = ""
    changes: dict[str, Change] = {
        "role": lambda conn: management.set_role(conn, name, form.get("role", ""), by=by, now_ms=now_ms),
        "disable": lambda conn: management.disable(conn, name, by=by, now_ms=now_ms),
        "enable": lambda conn: management.enable(conn, name, by=by, now_ms=now_ms),
        "unlock": lambda conn: management.unlock(conn, name, by=by, now_ms=now_ms),
        "end": lambda conn: management.end_sessions(conn, name, by=by, now_ms=now_ms),
    }
    if action == "reset":
        password = new_password()
        hashed = await desk.sessions.hashed(password)
        changes["reset"] = lambda conn: management.reset_password(conn, name, hashed, by=by, now_ms=now_ms)
    change = changes.get(action)
    if change is None:
        raise NotFound(f"action {action[:20]!r}")
    try:
        await desk.db.write(change)
    except NotFound:
        raise
    except Refused as refused:
        return await _dialog(request, desk, name, refused=refused)
    return await _dialog(request, desk, name, password=password, done=action)


HANDLERS = [accounts_page, account_add_form, account_add, account_dialog, account_change]


def _line(row: Mapping[str, Any], voice: Voice, me: str) -> dict[str, Any]:
    return {
        **row,
        "me": row["name"] == me,
        "state": state_of(row, voice.now_ms),
        "locked_until": voice.clock(row["locked_until_ms"]) if row["locked_until_ms"] else "",
    }


def state_of(row: Mapping[str, Any], now_ms: int) -> str:
    """The one word about an account: what keeps it from signing in before what it still has to do."""
    if row["disabled_ms"] is not None:
        return "disabled"
    if row["locked_until_ms"] is not None and now_ms < row["locked_until_ms"]:
        return "locked"
    return "mustChange" if row["must_change"] else "active"


def _history(voice: Voice, rows: list[events.AccountEvent], *, named: bool) -> list[dict[str, Any]]:
    found = []
    for one in rows:
        detail = voice.t(f"role.{one.detail}") if one.detail in ROLES else one.detail
        word = "accounts.eventOf" if named else "accounts.event"
        what = voice.t(f"{word}.{one.kind}", staff=one.staff, detail=detail)
        found.append({"at_ms": one.at_ms, "by": one.set_by or voice.t("accounts.server"), "what": what, "parts": []})
    return found


async def _add_form(request: Asked, desk: Desk, form: Mapping[str, str], refused: Refused | None = None) -> Response[str]:
    voice = desk.voice(request)
    problems = {refused.field: voice.t(f"refused.{refused.reason}")} if refused else {}
    return await desk.part(request, "_account_add.html", voice=voice, form=form, roles=ROLES, problems=problems)


async def _dialog(
    request: Asked, desk: Desk, name: str, *, password: str = "", done: str = "", refused: Refused | None = None
) -> Response[str]:
    voice = desk.voice(request)
    limits = await desk.sessions.limits()
    row = await queries.account(desk.db, name, voice.now_ms, limits.idle_ms)
    if row is None:
        raise NotFound(f"account {name[:40]!r}")
    past = await desk.db.look(lambda conn: events.recent(conn, name))
    values: dict[str, Any] = {
        "one": _line(row, voice, request.user.name),
        "roles": ROLES,
        "password": password,
        "notice": voice.t(f"accounts.done.{done}") if done and not password else "",
        "problem": voice.t(f"refused.{refused.reason}") if refused else "",
        "history": _history(voice, past, named=False),
        "changed": bool(password or done),
    }
    answer = await desk.part(request, "_account.html", voice=voice, **values)
    if values["changed"]:
        answer.headers["HX-Trigger"] = "kf:acted"
    return answer
