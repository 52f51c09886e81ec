"""Reads of the audit log, newest first."""

from __future__ import annotations

from typing import Any, Final

from fleet_server.console.audit_view import AuditView
from fleet_server.engine import FleetEngine

PER_PAGE: Final = 50
EXPORT_MAX: Final = 200_000
"""Rows of a file; Excel takes a million, a server of this size writes fewer in its keeping time."""
_ROWS: Final = """
SELECT id, at_ms, actor, role, action, object, detail, result, hash FROM audit {where} ORDER BY id {order} LIMIT :limit OFFSET :offset"""


async def rows(db: FleetEngine, view: AuditView, zone_span: tuple[int | None, int | None]) -> tuple[list[dict[str, Any]], int]:
    """(one page, how many there are)."""
    where, params = _where(view, zone_span)
    found = await db.read(f"SELECT count(*) AS n FROM audit {where}", params)  # noqa: S608 - conditions below
    sql = _ROWS.format(where=where, order="DESC")
    page = await db.read(sql, params | {"limit": PER_PAGE, "offset": (view.page - 1) * PER_PAGE})
    return page, int(found[0]["n"])


async def every(db: FleetEngine, view: AuditView, zone_span: tuple[int | None, int | None]) -> list[dict[str, Any]]:
    """All of the view, oldest first, for a file."""
    where, params = _where(view, zone_span)
    return await db.read(_ROWS.format(where=where, order="ASC"), params | {"limit": EXPORT_MAX, "offset": 0})


async def actors(db: FleetEngine) -> list[str]:
    return [row["actor"] for row in await db.read("SELECT DISTINCT actor FROM audit WHERE actor <> '' ORDER BY 1")]


async def groups(db: FleetEngine) -> list[str]:
    """What actions are about: the word before their dot."""
    rows = await db.read("SELECT DISTINCT substr(action, 1, instr(action || '.', '.') - 1) AS name FROM audit ORDER BY 1")
    return [row["name"] for row in rows]


def _where(view: AuditView, span: tuple[int | None, int | None]) -> tuple[str, dict[str, Any]]:
    wanted: list[str] = []
    params: dict[str, Any] = {}
    if view.by:
        wanted.append("actor = :by")
        params["by"] = view.by
    if view.about:
        wanted.append("(action = :about OR action >= :about || '.' AND action < :about || '/')")
        params["about"] = view.about
    if view.result:
        wanted.append("result = :result")
        params["result"] = view.result
    if view.q:
        wanted.append("(instr(lower(object), :q) > 0 OR instr(lower(detail), :q) > 0)")
        params["q"] = view.q.casefold()
    for name, at_ms, sign in (("from", span[0], ">="), ("to", span[1], "<")):
        if at_ms is not None:
            wanted.append(f"at_ms {sign} :{name}")
            params[name] = at_ms
    return ("WHERE " + " AND ".join(wanted) if wanted else ""), params
