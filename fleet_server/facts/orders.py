"""Writes what records say about orders, desired states, updates, versions and plays; takes it away again with the batch that told it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from fleet_server.facts.work import Item, Work
from fleet_server.orders.settle import settle_desired, settle_order
from protocols.contract.records import Desired, Order, Plays, Update, Versions

TABLES = ("order_report", "desired_report", "update_step", "versions_told", "play")
"""Whose rows carry (batch, idx)."""


def write_orders(work: Work, items: Sequence[Item[Order]]) -> None:
    batch = work.batch
    touched: set[bytes] = set()
    for idx, at_ms, _, body in items:
        work.conn.execute(
            "INSERT OR IGNORE INTO order_report (terminal, order_id, counter, kind, state, reason, slot, count, at_ms, received_ms, batch, idx,"
            " disputed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                batch.terminal,
                body.id,
                body.counter,
                body.kind,
                body.state,
                body.reason,
                body.slot,
                body.count,
                at_ms,
                batch.received_ms,
                batch.id,
                idx,
                work.disputed,
            ),
        )
        if body.id is not None:
            touched.add(body.id)
        else:
            work.hint("order")
    for order_id in sorted(touched):
        request = settle_order(work.conn, batch.terminal, order_id)
        work.hint("order", None if request is None else request.hex())


def write_desired(work: Work, items: Sequence[Item[Desired]]) -> None:
    batch = work.batch
    for idx, at_ms, _, body in items:
        work.conn.execute(
            "INSERT OR IGNORE INTO desired_report (terminal, counter, state, reason, config_version, locked, count, at_ms, received_ms, batch, idx,"
            " disputed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                batch.terminal,
                body.counter,
                body.state,
                body.reason,
                body.config_version,
                int(body.locked),
                body.count,
                at_ms,
                batch.received_ms,
                batch.id,
                idx,
                work.disputed,
            ),
        )
    for counter in sorted({item.body.counter for item in items}):
        requests = settle_desired(work.conn, batch.terminal, counter)
        work.hint("order")
        for request in sorted(requests):
            work.hint("order", request.hex())


def write_updates(work: Work, items: Sequence[Item[Update]]) -> None:
    batch = work.batch
    work.conn.executemany(
        "INSERT OR IGNORE INTO update_step (terminal, bundle, rollout, component, state, reason, since_ms, at_ms, received_ms, from_version,"
        " to_version, via, bytes_done, bytes_total, tries, resumed, batch, idx, disputed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                batch.terminal,
                item.body.bundle,
                item.body.rollout,
                item.body.component,
                item.body.state,
                item.body.reason,
                item.earlier_ms(item.body.since_ms),
                item.at_ms,
                batch.received_ms,
                item.body.from_version,
                item.body.to_version,
                item.body.via,
                item.body.bytes_done,
                item.body.bytes_total,
                item.body.tries,
                item.body.resumed,
                batch.id,
                item.idx,
                work.disputed,
            )
            for item in items
        ],
    )
    for rollout in sorted({item.body.rollout for item in items}):
        work.hint("update", rollout.hex())


def write_versions(work: Work, items: Sequence[Item[Versions]]) -> None:
    batch = work.batch
    for idx, at_ms, _, body in items:
        told = [
            {
                "component": one.component,
                "version": one.version,
                "release": one.release,
                "sha256": None if one.sha256 is None else one.sha256.hex(),
            }
            for one in body.installed
        ]
        work.conn.execute(
            "INSERT OR IGNORE INTO versions_told (terminal, at_ms, installed, batch, idx, disputed) VALUES (?, ?, ?, ?, ?, ?)",
            (batch.terminal, at_ms, json.dumps(told), batch.id, idx, work.disputed),
        )
    if not work.disputed:
        settle_versions(work.conn, batch.terminal)
        work.hint("update")


def write_plays(work: Work, items: Sequence[Item[Plays]]) -> None:
    batch = work.batch
    for item in items:
        body = item.body
        from_ms, to_ms = item.span_ms(body.from_ms, body.to_ms)
        work.conn.executemany(
            "INSERT OR IGNORE INTO play (terminal, component, version, page, from_ms, to_ms, count, seconds, batch, idx, disputed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    batch.terminal,
                    body.component,
                    body.version,
                    one.page,
                    from_ms,
                    to_ms,
                    one.count,
                    one.seconds,
                    batch.id,
                    item.idx,
                    work.disputed,
                )
                for one in body.pages
            ],
        )


def settle_versions(conn: sqlite3.Connection, terminal: str) -> None:
    """What runs there is what the newest report says."""
    newest = conn.execute(
        "SELECT installed, at_ms, batch, idx FROM versions_told WHERE terminal = ? AND disputed = 0"
        " ORDER BY at_ms DESC, batch DESC, idx DESC LIMIT 1",
        (terminal,),
    ).fetchone()
    conn.execute("DELETE FROM installed_version WHERE terminal = ?", (terminal,))
    if newest is None:
        return
    installed, at_ms, batch, idx = newest
    conn.executemany(
        "INSERT OR IGNORE INTO installed_version (terminal, component, version, release, sha256, at_ms, batch, idx)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                terminal,
                one["component"],
                one["version"],
                one["release"],
                None if one["sha256"] is None else bytes.fromhex(one["sha256"]),
                at_ms,
                batch,
                idx,
            )
            for one in json.loads(installed)
        ],
    )


def forget(conn: sqlite3.Connection, terminal: str, batch_id: int) -> None:
    """Take away what this batch told, and make of the rest what it says by itself."""
    orders = [
        bytes(row[0])
        for row in conn.execute(
            "SELECT DISTINCT order_id FROM order_report WHERE batch = ? AND order_id IS NOT NULL", (batch_id,)
        )
    ]
    counters = [row[0] for row in conn.execute("SELECT DISTINCT counter FROM desired_report WHERE batch = ?", (batch_id,))]
    told = conn.execute("SELECT 1 FROM versions_told WHERE batch = ? LIMIT 1", (batch_id,)).fetchone() is not None
    for table in TABLES:
        conn.execute(f"DELETE FROM {table} WHERE batch = ?", (batch_id,))  # noqa: S608 - constants
    for order_id in orders:
        settle_order(conn, terminal, order_id)
    for counter in counters:
        settle_desired(conn, terminal, counter)
    if told:
        settle_versions(conn, terminal)
