"""Owns the current state of devices, sightings and consumables, and the history of device changes and levels.

The newest capture wins, in any order of arrival.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from fleet_server.facts.clock import is_late
from fleet_server.facts.work import Item, Work
from protocols.contract.records import Consumable, Device, Evidence, Sighting

B = TypeVar("B", Sighting, Consumable)
Words = tuple[str, str, str, str, str]

PLACES_MAX = 128
"""Slots, ports and places of consumables that are shown for one terminal. No machine has nearly as many; one that makes up names would fill the
memory of every page. What it says is kept as evidence."""


class Standing(NamedTuple):
    """Where the current row of a slot comes from."""

    stream: bytes | None
    no: int
    batch: int
    idx: int
    at_ms: int
    since_ms: int
    words: Words


def write_devices(work: Work, items: Sequence[Item[Device]]) -> None:
    """History for every change; the current row where the change is newer, with the time since which its state words hold."""
    batch = work.batch
    work.conn.executemany(
        "INSERT OR IGNORE INTO device_change (terminal, slot, at_ms, device, paper, toner, media, cover, batch, idx, late, disputed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                batch.terminal,
                item.body.slot,
                item.at_ms,
                *words_of(item.body),
                batch.id,
                item.idx,
                int(is_late(item.at_ms, batch.received_ms)),
                work.disputed,
            )
            for item in items
        ],
    )
    if not batch.disputed:
        _write_current(work, items)


def _write_current(work: Work, items: Sequence[Item[Device]]) -> None:
    batch, standing = work.batch, _standing(work.conn, work.batch.terminal)
    by_slot: dict[str, list[Item[Device]]] = {}
    for item in items:
        by_slot.setdefault(item.body.slot, []).append(item)
    current: list[tuple[Item[Device], int]] = []
    out_of_order: list[str] = []
    for slot, changes in by_slot.items():
        now = standing.get(slot)
        if now is None and len(standing) + len(current) >= PLACES_MAX:
            continue
        newest = changes[-1] if now is None else _newest(work, slot, changes, now)
        if newest is None:
            out_of_order.append(slot)
            continue
        since_ms = _since_ms(changes, now)
        if since_ms is None:
            out_of_order.append(slot)
        current.append((newest, newest.at_ms if since_ms is None else since_ms))
        work.hint("device", slot)
    put_current(work.conn, batch.terminal, batch.id, current)
    for slot in out_of_order:
        renew_since(work.conn, batch.terminal, slot)


def has_too_many(conn: sqlite3.Connection, terminal: str) -> bool:
    """Whether there is no room for another slot."""
    (count,) = conn.execute("SELECT count(*) FROM device WHERE terminal = ?", (terminal,)).fetchone()
    return bool(count >= PLACES_MAX)


def _standing(conn: sqlite3.Connection, terminal: str) -> dict[str, Standing]:
    rows = conn.execute(
        "SELECT d.slot, b.stream, b.no, d.batch, d.idx, d.at_ms, d.since_ms, d.device, d.paper, d.toner, d.media, d.cover"
        " FROM device d LEFT JOIN batch b ON b.id = d.batch WHERE d.terminal = ?",
        (terminal,),
    )
    return {row[0]: Standing(row[1], row[2] or 0, row[3], row[4], row[5], row[6], row[7:]) for row in rows}


def _newest(work: Work, slot: str, changes: Sequence[Item[Device]], now: Standing) -> Item[Device] | None:
    """The change of this batch that becomes current, if one does.

    Within a stream the position decides, because a wall clock may step back; across streams the capture time.
    """
    batch, last = work.batch, changes[-1]
    if now.stream == batch.stream:
        return last if (batch.no, last.idx) > (now.no, now.idx) else None
    winner = newest_change(work.conn, batch.terminal, slot)
    if winner is not None and winner[0] == batch.id:
        return next(item for item in changes if item.idx == winner[1])
    if winner is not None and winner != (now.batch, now.idx):
        work.unsettled.add(slot)
    return None


def _since_ms(changes: Sequence[Item[Device]], now: Standing | None) -> int | None:
    """Since when the state words of the last change hold, if all came in the order of their times; else None."""
    at_ms, since_ms, words = (0, 0, None) if now is None else (now.at_ms, now.since_ms, now.words)
    for item in changes:
        if item.at_ms < at_ms:
            return None
        if words != words_of(item.body):
            since_ms, words = item.at_ms, words_of(item.body)
        at_ms = item.at_ms
    return since_ms


def put_current(conn: sqlite3.Connection, terminal: str, batch: int, items: Iterable[tuple[Item[Device], int]]) -> None:
    """Make (item, since_ms) the current rows of their slots."""
    conn.executemany(
        "INSERT INTO device (terminal, slot, family, device, paper, toner, media, cover, action, owner, limited, profile, port, vid, pid,"
        " firmware, asset, since_ms, at_ms, batch, idx, evidence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (terminal, slot) DO UPDATE SET family = excluded.family, device = excluded.device, paper = excluded.paper,"
        " toner = excluded.toner, media = excluded.media, cover = excluded.cover, action = excluded.action, owner = excluded.owner,"
        " limited = excluded.limited, profile = excluded.profile, port = excluded.port, vid = excluded.vid, pid = excluded.pid,"
        " firmware = excluded.firmware, asset = excluded.asset, since_ms = excluded.since_ms, at_ms = excluded.at_ms,"
        " batch = excluded.batch, idx = excluded.idx, evidence = excluded.evidence",
        [_device_row(terminal, batch, item, since_ms) for item, since_ms in items],
    )


def _device_row(terminal: str, batch: int, item: Item[Device], since_ms: int) -> tuple[object, ...]:
    body = item.body
    return (
        terminal,
        body.slot,
        body.family,
        *words_of(body),
        body.action.value,
        body.owner.value,
        int(body.limited),
        body.profile,
        body.port,
        body.vid,
        body.pid,
        body.firmware,
        body.asset,
        since_ms,
        item.at_ms,
        batch,
        item.idx,
        evidence_json(body.evidence),
    )


def renew_since(conn: sqlite3.Connection, terminal: str, slot: str) -> None:
    """Take `since_ms` of the current row from the history: the first change after the last one with other state words."""
    conn.execute(
        "UPDATE device AS d SET since_ms = coalesce("
        " (SELECT c.at_ms FROM device_change c WHERE c.terminal = d.terminal AND c.slot = d.slot AND c.disputed = 0"
        "   AND c.at_ms <= d.at_ms AND (c.device, c.paper, c.toner, c.media, c.cover) = (d.device, d.paper, d.toner, d.media, d.cover)"
        "   AND c.at_ms >= coalesce((SELECT x.at_ms FROM device_change x WHERE x.terminal = d.terminal AND x.slot = d.slot"
        "     AND x.disputed = 0 AND x.at_ms < d.at_ms"
        "     AND (x.device, x.paper, x.toner, x.media, x.cover) <> (d.device, d.paper, d.toner, d.media, d.cover)"
        "     ORDER BY x.at_ms DESC LIMIT 1), 0)"
        "   ORDER BY c.at_ms LIMIT 1), d.at_ms) WHERE d.terminal = ? AND d.slot = ?",
        (terminal, slot),
    )


def newest_change(conn: sqlite3.Connection, terminal: str, slot: str) -> tuple[int, int] | None:
    """(batch, idx) of the change that the history makes current: the last one of the stream that was heard last."""
    row = conn.execute(
        "SELECT b.stream FROM device_change c JOIN batch b ON b.id = c.batch"
        " WHERE c.terminal = ? AND c.slot = ? AND c.disputed = 0 ORDER BY c.at_ms DESC, b.stream DESC LIMIT 1",
        (terminal, slot),
    ).fetchone()
    if row is None:
        return None
    found: tuple[int, int] | None = conn.execute(
        "SELECT c.batch, c.idx FROM device_change c JOIN batch b ON b.id = c.batch"
        " WHERE c.terminal = ? AND c.slot = ? AND c.disputed = 0 AND b.stream = ? ORDER BY b.no DESC, c.idx DESC LIMIT 1",
        (terminal, slot, row[0]),
    ).fetchone()
    return found


def words_of(body: Device) -> Words:
    return body.device.value, body.paper.value, body.toner.value, body.media.value, body.cover.value


def evidence_json(evidence: Evidence | None) -> str | None:
    """The bytes as hex, for the page that explains them."""
    if evidence is None:
        return None
    return msgspec.json.encode({
        "codec": evidence.codec,
        "query": evidence.query.hex(),
        "reply": evidence.reply.hex(),
        "masked": evidence.masked,
    }).decode()  # fmt: skip


def _with_room(
    work: Work, table: str, column: str, items: Sequence[Item[B]], place: Callable[[Item[B]], str]
) -> Sequence[Item[B]]:
    """Without the items at places that would be one too many."""
    rows = work.conn.execute(f"SELECT DISTINCT {column} FROM {table} WHERE terminal = ?", (work.batch.terminal,))  # noqa: S608 - constants
    known = {row[0] for row in rows}
    kept = []
    for item in items:
        if place(item) in known or len(known) < PLACES_MAX:
            known.add(place(item))
            kept.append(item)
    return kept


# Hardware without a profile, consumables ------------------------------------------------------------------------------------------------


def write_sightings(work: Work, items: Sequence[Item[Sighting]]) -> None:
    if work.batch.disputed:
        return
    items = _with_room(work, "sighting", "port", items, lambda item: item.body.port)
    work.conn.executemany(
        "INSERT INTO sighting (terminal, port, bus, vid, pid, present, at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (terminal, port) DO UPDATE SET bus = excluded.bus, vid = excluded.vid, pid = excluded.pid,"
        " present = excluded.present, at_ms = excluded.at_ms WHERE (excluded.at_ms, excluded.present) > (sighting.at_ms, sighting.present)",
        [(work.batch.terminal, body.port, body.bus, body.vid, body.pid, int(body.present), at_ms) for _, at_ms, _, body in items],
    )
    for item in items:
        work.hint("device", item.body.port)


def write_consumables(work: Work, items: Sequence[Item[Consumable]]) -> None:
    if work.batch.disputed:
        return
    terminal = work.batch.terminal
    items = _with_room(work, "consumable", "slot", items, lambda item: item.body.slot)
    work.conn.executemany(
        "INSERT INTO consumable (terminal, slot, item, remaining, capacity, unit, source, at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (terminal, slot, item) DO UPDATE SET remaining = excluded.remaining, capacity = excluded.capacity,"
        " unit = excluded.unit, source = excluded.source, at_ms = excluded.at_ms"
        " WHERE (excluded.at_ms, excluded.remaining, excluded.capacity) > (consumable.at_ms, consumable.remaining, consumable.capacity)",
        [
            (terminal, body.slot, body.item, body.remaining, body.capacity, body.unit, body.source, at_ms)
            for _, at_ms, _, body in items
        ],
    )
    work.conn.executemany(
        "INSERT OR IGNORE INTO consumable_level (terminal, slot, item, at_ms, event, remaining, capacity, unit, batch, idx)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (terminal, body.slot, body.item, at_ms, body.event, body.remaining, body.capacity, body.unit, work.batch.id, idx)
            for idx, at_ms, _, body in items
        ],
    )
    refills = [(item.at_ms, terminal, item.body.slot, item.body.item) for item in items if item.body.event == "refill"]
    if refills:
        work.conn.executemany(
            "UPDATE consumable SET refilled_ms = max(coalesce(refilled_ms, 0), ?) WHERE terminal = ? AND slot = ? AND item = ?",
            refills,
        )
    for item in items:
        work.hint("device", item.body.slot)
