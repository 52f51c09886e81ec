"""Versions and updates of one terminal as the tab of its page."""

from __future__ import annotations

import sqlite3
from typing import Any

from fleet_server.console import rollout_view as view
from fleet_server.console.desk import Desk
from fleet_server.console.fleet import Fleet
from fleet_server.console.model import TerminalNow
from fleet_server.console.pages.rollout import titles_of, trail
from fleet_server.console.queries import rollouts as queries
from fleet_server.console.render import Voice
from fleet_server.rollouts import store
from fleet_server.rollouts.rules import FINAL


async def updates_of(desk: Desk, fleet: Fleet, now: TerminalNow, voice: Voice) -> dict[str, Any]:
    versions = await desk.db.look(lambda conn: queries.versions_at(conn, now.id))
    titles = await titles_of(desk)
    found = await desk.db.look(lambda conn: _read(conn, now.id))
    rows = []
    for name, sheet, member, steps in found:
        row = view.member_row(voice, member, [], sheet.rollout.policy, fleet, titles, {})
        rows.append(
            {
                "id": name,
                "title": sheet.title,
                "look": row["look"],
                "word": row["word"],
                "why": row["why"],
                "since_ms": member.since_ms,
                "is_open": member.state not in FINAL,
                "steps": trail(voice, steps),
            }
        )
    return {
        "versions": [
            {
                "name": view.component_name(voice, one["component"]),
                "version": one["version"],
                "at_ms": one["at_ms"],
                "proof": f"{one['batch']}/{one['idx']}",
            }
            for one in versions
        ],
        "rollouts": rows,
    }


def _read(conn: sqlite3.Connection, terminal: str) -> list[tuple[str, store.Sheet, Any, list[dict[str, Any]]]]:
    found = []
    for row in queries.rollouts_at(conn, terminal):
        name = row["rollout"]
        member = store.members(conn, name)[terminal]
        found.append((name, store.sheet(conn, name), member, queries.steps_at(conn, name, terminal)))
    return found
