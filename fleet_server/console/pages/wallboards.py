"""Screens and their view tokens: who may look without an account, at what, and until when. Everybody reads, operators write."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath
from litestar.response import Redirect

from fleet_server.accounts.rules import Session
from fleet_server.console.actions import person_text
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of
from fleet_server.console.render import Voice
from fleet_server.errors import Refused
from fleet_server.wallboards import rules, store

OPERATOR = {"role": "operator"}


@get("/wallboards")
async def wallboards(request: Asked, desk: TheDesk) -> Response[str]:
    return await _page(request, desk)


@post("/wallboards", status_code=200, opt=OPERATOR)
async def add_wallboard(request: Asked, desk: TheDesk) -> Response[str]:
    """A new screen. Its address is in this answer and nowhere else."""
    form, session, now_ms = await form_of(request), _session(request), desk.now_ms()
    try:
        look = rules.read_look(form, person_text("name", form.get("name", ""), rules.NAME_MAX))
        days = rules.read_days(form)
        issued = await desk.db.write(lambda connection: store.create(connection, look, days, session.name, now_ms))
    except Refused as refused:
        return await _page(request, desk, form=form, refused=refused)
    return await _page(request, desk, issued=issued)


@post("/wallboards/{board:int}", status_code=303, opt=OPERATOR)
async def change_wallboard(request: Asked, desk: TheDesk, board: FromPath[int]) -> Redirect | Response[str]:
    form, session, now_ms = await form_of(request), _session(request), desk.now_ms()
    try:
        look = rules.read_look(form, person_text("name", form.get("name", ""), rules.NAME_MAX))
    except Refused as refused:
        return await _page(request, desk, edited=board, form=form, refused=refused)
    await desk.db.write(lambda connection: store.change(connection, board, look, session.name, now_ms))
    return Redirect("/wallboards", status_code=303)


@post("/wallboards/{board:int}/revoke", status_code=303, opt=OPERATOR)
async def revoke_wallboard(request: Asked, desk: TheDesk, board: FromPath[int]) -> Redirect:
    session, now_ms = _session(request), desk.now_ms()
    await desk.db.write(lambda connection: store.revoke(connection, board, session.name, now_ms))
    return Redirect("/wallboards", status_code=303)


HANDLERS = [wallboards, add_wallboard, change_wallboard, revoke_wallboard]


def _session(request: Asked) -> Session:
    session: Session = request.user
    return session


async def _page(
    request: Asked,
    desk: Desk,
    *,
    issued: store.Issued | None = None,
    edited: int = 0,
    form: dict[str, str] | None = None,
    refused: Refused | None = None,
) -> Response[str]:
    voice = desk.voice(request)
    found = await store.boards(desk.db)
    lines = [
        {"board": board, "standing": board.standing(voice.now_ms), "views": _views(voice, board.look.views)} for board in found
    ]
    values: dict[str, Any] = {
        "living": [line for line in lines if line["standing"] == "live"],
        "gone": [line for line in lines if line["standing"] != "live"],
        "address": f"{request.url.scheme}://{request.headers.get('host', '')}/wall#{issued.token}" if issued else "",
        "issued": next((board for board in found if issued and board.id == issued.id), None),
        "edited": edited,
        "form": form
        or {"lang": voice.lang, "interval_s": str(rules.USUAL_S), "days": "90", **{f"view_{view}": "1" for view in rules.VIEWS}},
        "problem": {"field": refused.field, "text": voice.t(f"refused.{refused.reason}")} if refused else None,
        "all_views": rules.VIEWS,
        "days": rules.DAYS,
        "limits": (rules.SHORTEST_S, rules.LONGEST_S),
    }
    status = 200 if refused is None else refused.status
    return await desk.page(request, "wallboards.html", nav="system", status=status, voice=voice, **values)


def _views(voice: Voice, views: tuple[str, ...]) -> str:
    return " · ".join(voice.t(f"wall.view.{view}") for view in views)
