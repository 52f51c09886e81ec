"""Owns where vans were: of terminals of the type `van` only, for ninety days.

A position of another terminal is stored with its batch and makes no fact: whoever puts a receiver into a kiosk does not get a track of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fleet_server.facts.work import Item, Work
from protocols.contract.records import Position

KEPT_MS: Final = 90 * 86_400_000
"""Chosen: a quarter's trips can be told apart and accounted for; who stood where last year is nobody's business."""


def write_positions(work: Work, items: Sequence[Item[Position]]) -> None:
    """A second telling changes nothing; what is too old goes with the next position that comes."""
    batch, conn = work.batch, work.conn
    row = conn.execute("SELECT type FROM terminal WHERE id = ?", (batch.terminal,)).fetchone()
    if row is None or row[0] != "van":
        return
    oldest_ms = batch.received_ms - KEPT_MS
    conn.executemany(
        "INSERT OR IGNORE INTO van_position (terminal, slot, at_ms, lat_e4, lon_e4, fix, satellites, batch, idx, disputed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                batch.terminal,
                item.body.slot,
                item.at_ms,
                item.body.lat_e4,
                item.body.lon_e4,
                item.body.fix,
                item.body.satellites,
                batch.id,
                item.idx,
                work.disputed,
            )
            for item in items
            if item.at_ms >= oldest_ms
        ],
    )
    conn.execute("DELETE FROM van_position WHERE terminal = ? AND at_ms < ?", (batch.terminal, oldest_ms))
    work.hint("place")
