"""What pages about updates read."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from fleet_server.rollouts import store
from fleet_server.rollouts.rules import Member
from fleet_server.rollouts.store import Release, Sheet

STEP_COLUMNS: Final = (
    "terminal, lower(hex(bundle)) AS bundle, component, state, reason, since_ms, at_ms, from_version, to_version, via, bytes_done, bytes_total,"
    " tries, resumed, batch, idx"
)


def rows(conn: sqlite3.Connection, sql: str, params: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
    cursor = conn.execute(sql, params)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def overview(conn: sqlite3.Connection) -> tuple[dict[str, Sheet], dict[str, dict[str, int]], dict[int, Release]]:
    """All rollouts, newest first; their members by state; all releases."""
    counts: dict[str, dict[str, int]] = {}
    for name, state, n in conn.execute("SELECT rollout, state, count(*) FROM rollout_member GROUP BY rollout, state"):
        counts.setdefault(name, {})[state] = n
    return store.sheets(conn), counts, store.releases(conn)


def one(conn: sqlite3.Connection, rollout: str) -> tuple[Sheet, dict[str, Member], dict[int, Release], list[dict[str, Any]]]:
    """A rollout, its members, its releases, and the newest step of each component of each bundle. NotFound."""
    sheet = store.sheet(conn, rollout)
    return sheet, store.members(conn, rollout), store.releases(conn, sheet.releases), newest_steps(conn, rollout)


def newest_steps(conn: sqlite3.Connection, rollout: str) -> list[dict[str, Any]]:
    # SQLite takes the other columns from the row that has the maximum.
    return rows(
        conn,
        f"SELECT {STEP_COLUMNS}, max(batch * 65536 + idx) AS place FROM update_step WHERE rollout = ? AND disputed = 0"  # noqa: S608 - columns from above
        " GROUP BY terminal, bundle, component",
        (bytes.fromhex(rollout),),
    )


def steps_at(conn: sqlite3.Connection, rollout: str, terminal: str) -> list[dict[str, Any]]:
    """Every step of a terminal in a rollout, oldest first; of several about arriving bytes the last."""
    found = rows(
        conn,
        f"SELECT {STEP_COLUMNS} FROM update_step WHERE rollout = ? AND terminal = ? AND disputed = 0 ORDER BY batch, idx",  # noqa: S608 - columns from above
        (bytes.fromhex(rollout), terminal),
    )
    kept: list[dict[str, Any]] = []
    for row in found:
        key = ("bundle", "component", "state", "reason")
        if kept and all(kept[-1][name] == row[name] for name in key):
            first_ms = kept[-1]["first_ms"]
            kept[-1] = {**row, "first_ms": first_ms}
        else:
            kept.append({**row, "first_ms": row["at_ms"]})
    return kept


def history(conn: sqlite3.Connection, rollout: str) -> list[dict[str, Any]]:
    """What happened to the rollout as a whole, newest first."""
    return rows(
        conn,
        "SELECT at_ms, actor, kind, terminal, detail FROM rollout_event WHERE rollout = ? AND kind NOT IN ('start', 'end', 'withdraw')"
        " AND NOT (kind = 'retry' AND terminal IS NOT NULL) ORDER BY id DESC LIMIT 200",
        (rollout,),
    )


def versions(conn: sqlite3.Connection) -> list[dict[str, Any]]:
    """What runs, by component and version; retired terminals left out."""
    return rows(
        conn,
        "SELECT v.component, v.version, v.release, count(*) AS n FROM installed_version v JOIN terminal t ON t.id = v.terminal"
        " WHERE t.revoked_ms IS NULL GROUP BY v.component, v.version, v.release ORDER BY v.component, v.release DESC, v.version DESC",
    )


def versions_at(conn: sqlite3.Connection, terminal: str) -> list[dict[str, Any]]:
    return rows(
        conn,
        "SELECT component, version, release, sha256, at_ms, batch, idx FROM installed_version WHERE terminal = ? ORDER BY component",
        (terminal,),
    )


def rollouts_at(conn: sqlite3.Connection, terminal: str) -> list[dict[str, Any]]:
    """Rollouts of a terminal, newest first."""
    return rows(
        conn,
        "SELECT m.rollout, r.title, r.state AS rollout_state, m.wave, m.state, m.reason, m.detail, m.since_ms, m.tries, m.bundle, m.hold"
        " FROM rollout_member m JOIN rollout r ON r.id = m.rollout WHERE m.terminal = ? AND r.state NOT IN ('draft', 'waiting')"
        " ORDER BY r.created_ms DESC LIMIT 20",
        (terminal,),
    )


def freezes(conn: sqlite3.Connection, now_ms: int) -> list[dict[str, Any]]:
    """Own freeze periods that are not over."""
    return rows(
        conn,
        "SELECT id, name, from_ms, to_ms, set_by FROM freeze_period WHERE removed_ms IS NULL AND to_ms > ? ORDER BY from_ms",
        (now_ms,),
    )


def profiles(conn: sqlite3.Connection) -> list[str]:
    return [row[0] for row in conn.execute("SELECT DISTINCT profile FROM device WHERE profile IS NOT NULL ORDER BY profile")]


def components(conn: sqlite3.Connection) -> list[str]:
    return [row[0] for row in conn.execute("SELECT DISTINCT component FROM installed_version ORDER BY component")]
