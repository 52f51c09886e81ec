"""Owns what became of an order or a desired state, from the terminal's reports. Called again after each change of them; the same reports always
give the same state. In the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from fleet_server.orders.rules import FINAL, rank

_DESIRED_RANK: Final = {"refused": 1, "applied": 2, "rolledBack": 3}
"""A state that was applied and rolled back was applied first."""


def settle_order(conn: sqlite3.Connection, terminal: str, order_id: bytes) -> bytes | None:
    """Give the item of this order its state; returns the request it belongs to, None if it is unknown here (another terminal's, or lost)."""
    item = conn.execute(
        "SELECT id, request, state, counter FROM order_item WHERE order_id = ? AND terminal = ?", (order_id, terminal)
    ).fetchone()
    if item is None or item[3] is None:
        return None
    item_id, request, state, counter = item[0], bytes(item[1]), item[2], item[3]
    reports = conn.execute(
        "SELECT state, reason, at_ms, received_ms, counter, id FROM order_report WHERE terminal = ? AND order_id = ? AND disputed = 0",
        (terminal, order_id),
    ).fetchall()
    # What an earlier issue was refused for is settled by the next one.
    counted = [row for row in reports if not (row[0] == "refused" and row[1] in ("stale", "replayed") and row[4] < counter)]
    if not counted:
        if state not in FINAL and state != "ready":
            conn.execute("UPDATE order_item SET state = 'sent', reason = '', heard_ms = NULL WHERE id = ?", (item_id,))
        return request
    best = max(counted, key=lambda row: (rank(row[0], row[1]), row[2], row[5]))
    heard_ms = min(row[3] for row in counted)
    if state in ("ready", "expired") and best[0] not in FINAL:
        # To be signed again, or over by the server's own clock: only an end changes that.
        conn.execute("UPDATE order_item SET heard_ms = ? WHERE id = ?", (heard_ms, item_id))
        return request
    since_ms = min(row[2] for row in counted if row[:2] == best[:2])
    reason = "" if best[1] == "none" else best[1]
    conn.execute(
        "UPDATE order_item SET state = ?, reason = ?, state_ms = ?, since_ms = ?, heard_ms = ? WHERE id = ?",
        (best[0], reason, best[2], since_ms, heard_ms, item_id),
    )
    return request


def settle_desired(conn: sqlite3.Connection, terminal: str, counter: int) -> set[bytes]:
    """Give the desired state with this counter its state, and the items in it theirs; returns the requests concerned."""
    reports = conn.execute(
        "SELECT state, reason, at_ms, id FROM desired_report WHERE terminal = ? AND counter = ? AND disputed = 0 AND reason <> 'replayed'",
        (terminal, counter),
    ).fetchall()
    best = max(reports, key=lambda row: (_DESIRED_RANK.get(row[0], 0), row[2], row[3]), default=None)
    if best is None:
        conn.execute(
            "UPDATE desired_state SET state = 'sent', reason = '', state_ms = sealed_ms WHERE terminal = ? AND counter = ?",
            (terminal, counter),
        )
    else:
        conn.execute(
            "UPDATE desired_state SET state = ?, reason = ?, state_ms = ? WHERE terminal = ? AND counter = ?",
            (best[0], "" if best[1] == "none" else best[1], best[2], terminal, counter),
        )
        if best[0] == "applied":
            conn.execute(
                "UPDATE terminal_counter SET desired_held = max(desired_held, ?) WHERE terminal = ?", (counter, terminal)
            )
    items = conn.execute(
        "SELECT id, request, first_counter, counter FROM order_item WHERE terminal = ? AND order_id IS NULL"
        " AND first_counter <= ? AND counter >= ? AND state NOT IN ('superseded', 'dropped', 'asked', 'ready')",
        (terminal, counter, counter),
    ).fetchall()
    for item_id, _, first, last in items:
        _settle_item(conn, terminal, item_id, first, last)
    return {bytes(item[1]) for item in items}


def _settle_item(conn: sqlite3.Connection, terminal: str, item_id: int, first: int, last: int) -> None:
    """It holds once one of the states that contain it was applied; else the newest decides."""
    states = conn.execute(
        "SELECT state, reason, state_ms FROM desired_state WHERE terminal = ? AND counter BETWEEN ? AND ? AND state <> 'sent'"
        " ORDER BY counter",
        (terminal, first, last),
    ).fetchall()
    applied = [row for row in states if row[0] == "applied"]
    newest = conn.execute("SELECT state FROM desired_state WHERE terminal = ? AND counter = ?", (terminal, last)).fetchone()
    if applied:
        state, reason, at_ms = "done", "", applied[0][2]
    elif states and newest is not None and newest[0] != "sent":
        word, reason, at_ms = states[-1]
        state = "refused" if word == "refused" else "failed"
        reason = reason or word
    else:
        conn.execute(
            "UPDATE order_item SET state = 'sent', reason = '', heard_ms = NULL, state_ms = coalesce(sealed_ms, state_ms) WHERE id = ?",
            (item_id,),
        )
        return
    conn.execute(
        "UPDATE order_item SET state = ?, reason = ?, state_ms = ?, since_ms = ?, heard_ms = ? WHERE id = ?",
        (state, reason, at_ms, at_ms, at_ms, item_id),
    )
