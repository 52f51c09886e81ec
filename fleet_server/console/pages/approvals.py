"""What waits for a second person: for whoever looks, and for others, each with what it would do and what would change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from litestar import Response, get

from fleet_server.console import order_words
from fleet_server.console.desk import Asked, TheDesk
from fleet_server.console.fleet import Fleet
from fleet_server.console.order_changes import changes_of
from fleet_server.console.pages.orders import approval_of, where_words
from fleet_server.console.queries import orders as queries
from fleet_server.console.render import Voice

NAMED_MAX: Final = 12
"""Terminals that a card names; the request's page has them all."""


@get("/approvals")
async def approvals_page(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice, me = await desk.fleet(request), desk.voice(request), request.user
    rows = await queries.undecided(desk.db, voice.now_ms)
    names = await queries.terminals_of(desk.db, [bytes(row["id"]) for row in rows], NAMED_MAX) if rows else {}
    shown = []
    for row in rows:
        first = names.get(bytes(row["id"]), [])
        changes = await changes_of(desk.db, voice, row, first, fleet)
        shown.append({**_card(row, fleet, voice, first, changes), **approval_of(row, me.name, me.may("approve"), voice)})
    values: dict[str, Any] = {
        "for_me": [one | {"mine": False} for one in shown if one["can_approve"]],
        "rollouts": [{**row, "mine": row["created_by"] == me.name} for row in await queries.undecided_rollouts(desk.db)],
        "others": [one | {"mine": one["by"] == me.name} for one in shown if not one["can_approve"]],
    }
    return await desk.page(request, "approvals.html", nav="orders", voice=voice, **values)


HANDLERS = [approvals_page]


def _card(row: Mapping[str, Any], fleet: Fleet, voice: Voice, first: list[str], changes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": bytes(row["id"]).hex(),
        "what": order_words.what(voice, row["kind"], row["body"]),
        "by": row["requested_by"],
        "at_ms": row["at_ms"],
        "until": voice.clock(row["expires_ms"]),
        "where": where_words(fleet, voice, first, row["terminals"]),
        "note": row["note"],
        "changes": changes,
    }
