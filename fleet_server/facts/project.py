"""Owns the way from a stored batch to facts, and back: `project` writes them, `unproject` takes them away, `reproject` makes them again.

All run inside the caller's transaction. Facts carry (batch, idx), so that a repetition changes nothing, and end the same in any order of arrival.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import msgspec

from fleet_server.errors import place_of
from fleet_server.facts import DecodedRecord, StoredBatch, devices, episodes, figures, orders, van
from fleet_server.facts.clock import CREDIBLE_MS, BatchTimes, Fix, Timing, is_late
from fleet_server.facts.work import Item, Work, mark_dirty, zone_of_terminal
from fleet_server.sites.calendar import local_days
from protocols.contract import envelope as cose
from protocols.contract.batch import read_batch
from protocols.contract.limits import ENVELOPE_MAX_BYTES
from protocols.contract.records import (
    Body,
    Boot,
    Clock,
    ClockQuality,
    Consumable,
    Counters,
    Desired,
    Device,
    Fault,
    Host,
    Link,
    Order,
    Plays,
    Position,
    Queue,
    Rating,
    Reading,
    RecordError,
    Serviceability,
    Session,
    Sighting,
    Update,
    Versions,
    body_of,
    decode_record,
)

log = logging.getLogger(__name__)

_NO_BOOT_ID = bytes(16)
"""A kernel that tells no boot id: then each start of the agent is a boot of its own."""
_BEYOND_ARRIVAL = "future"
"""Quality of a fixed point that lies behind its own arrival: kept, and not used."""
_WAITING = "waiting"
"""Quality of a fixed point that contradicts the times of many earlier batches: used by `settle_clock`, not while other terminals wait."""
MAX_FIXES = 512
"""Kept for one boot. A clock is set at a synchronisation and at steps (contract): months of an honest one, seconds of one that lies."""
FIXES_AT_ONCE = 8
"""With so many on record a contradicting one waits: a terminal that goes back and forth would keep the server correcting."""
BATCHES_AT_ONCE = 1_000
"""Measured: half a millisecond each, in the transaction that others wait for."""
CORRECTED_AT_ONCE = 40
"""Of a longer boot, in one slice: about 20 ms, so that others wait no longer for it than for a bundle."""

_WRITERS: dict[type, Callable[[Work, Sequence[Item[Any]]], None]] = {
    Boot: figures.write_boots,
    Device: devices.write_devices,
    Sighting: devices.write_sightings,
    Consumable: devices.write_consumables,
    Fault: episodes.write_faults,
    Session: figures.write_sessions,
    Rating: figures.write_ratings,
    Queue: figures.write_queue_events,
    Counters: figures.write_counters,
    Serviceability: figures.write_serviceability,
    Host: figures.write_host_health,
    Reading: figures.write_readings,
    Link: figures.write_links,
    Order: orders.write_orders,
    Desired: orders.write_desired,
    Update: orders.write_updates,
    Versions: orders.write_versions,
    Plays: orders.write_plays,
    Position: van.write_positions,
}
"""Kinds that leave a fact. `clock` is taken before all others; `stop` concerns presence, `key` and `notice` concern evidence."""


def project(conn: sqlite3.Connection, batch: StoredBatch, records: Sequence[DecodedRecord]) -> None:
    """Write the facts of a batch whose `batch` and `stream` rows are stored in this transaction.

    A new fixed point of the clock also corrects what earlier batches of the same boot said.
    """
    if not records:
        return
    before, after = _take_fixes(conn, batch, records)
    if before is not None:
        _correct_earlier(conn, batch, before, after)
    _write(conn, batch, records, after)


def reproject(conn: sqlite3.Connection, batch_ids: Iterable[int]) -> None:
    """Make the facts of stored batches again from their envelopes, disputed or not as their rows now say.

    For batches of a stream that an operator called restored or copied. Erased batches and parked records are left alone.
    """
    for batch_id in batch_ids:
        loaded = load(conn, batch_id)
        if loaded is not None:
            unproject(conn, [batch_id])
            project(conn, *loaded)


def unproject(conn: sqlite3.Connection, batch_ids: Iterable[int]) -> None:
    """Take away what these batches told: for streams that an operator called copied. Sightings and consumables stay until the next reading."""
    for batch_id in batch_ids:
        row = conn.execute("SELECT terminal, stream, no FROM batch WHERE id = ?", (batch_id,)).fetchone()
        if row is None:
            continue
        terminal, stream, no = row
        told_elsewhere = _told_elsewhere(conn, terminal, batch_id)
        slots = _delete_rows(conn, terminal, batch_id)
        episodes.take_back(conn, terminal, batch_id)
        conn.execute("DELETE FROM clock_fix WHERE terminal = ? AND batch = ?", (terminal, batch_id))
        if no == 1:
            conn.execute("DELETE FROM boot WHERE terminal = ? AND stream = ?", (terminal, stream))
        for slot in sorted(slots):
            _settle_device(conn, terminal, slot)
        for other, sids in told_elsewhere.items():
            _tell_again(conn, other, sids)


def _told_elsewhere(conn: sqlite3.Connection, terminal: str, batch_id: int) -> dict[int, set[bytes]]:
    """Cases that count by this batch's telling, by the other batches that tell them too."""
    rows = conn.execute(
        "SELECT o.batch, o.sid FROM session_telling o JOIN session s ON s.terminal = o.terminal AND s.sid = o.sid"
        " WHERE o.terminal = ? AND s.batch = ? AND o.batch <> s.batch AND o.sid IN (SELECT sid FROM session_telling WHERE batch = ?)",
        (terminal, batch_id, batch_id),
    )
    found: defaultdict[int, set[bytes]] = defaultdict(set)
    for other, sid in rows:
        found[other].add(bytes(sid))
    return found


def _tell_again(conn: sqlite3.Connection, batch_id: int, sids: set[bytes]) -> None:
    """Write these cases once more from another batch, now that the telling that counted is gone. A copied batch tells nothing."""
    loaded = load(conn, batch_id)
    if loaded is None or _is_copied(conn, loaded[0]):
        return
    batch, records = loaded
    _, timing = _take_fixes(conn, batch, records)
    items = [item for item in _items(batch, records, timing) if isinstance(item.body, Session) and item.body.id in sids]
    work = Work(conn, batch)
    figures.write_sessions(work, items)
    work.finish()


def _is_copied(conn: sqlite3.Connection, batch: StoredBatch) -> bool:
    row = conn.execute("SELECT verdict FROM stream WHERE terminal = ? AND stream = ?", (batch.terminal, batch.stream)).fetchone()
    return batch.disputed and row is not None and row[0] == "copied"


def load(conn: sqlite3.Connection, batch_id: int) -> tuple[StoredBatch, list[DecodedRecord]] | None:
    """A stored batch read again from its envelope, without parked records; None for a loss notice or an erased envelope."""
    row = conn.execute(
        "SELECT b.terminal, b.stream, b.no, s.boot_id, b.received_ms, b.committed_ms, b.disputed, b.envelope, b.kind"
        " FROM batch b JOIN stream s ON s.terminal = b.terminal AND s.stream = b.stream WHERE b.id = ?",
        (batch_id,),
    ).fetchone()
    if row is None or row[8] != "data" or row[7] is None:
        return None
    terminal, stream, no, boot_id, received_ms, committed_ms, disputed, raw, _ = row
    envelope = cose.parse(raw, ENVELOPE_MAX_BYTES)
    # It was verified before it was stored; only the payload is of interest here.
    opened = cose.Opened(payload=envelope.payload, kid=envelope.kid, digest=b"", raw=raw)
    parked = {idx for (idx,) in conn.execute("SELECT idx FROM parked WHERE batch = ?", (batch_id,))}
    records = [record for record in _decoded(read_batch(opened).records) if record.idx not in parked]
    return StoredBatch(batch_id, terminal, stream, no, boot_id, received_ms, committed_ms, bool(disputed)), records


def _decoded(items: list[Any]) -> Iterable[DecodedRecord]:
    for idx, item in enumerate(items):
        try:
            record = decode_record(item)
            body = body_of(record)
        except RecordError:
            continue
        if body is not None:
            yield DecodedRecord(idx, record.wall_ms, record.quality, record.boot_ms, body)


# Writing --------------------------------------------------------------------------------------------------------------------------------


def _write(conn: sqlite3.Connection, batch: StoredBatch, records: Sequence[DecodedRecord], timing: Timing) -> None:
    work = Work(conn, batch)
    groups: defaultdict[type[Body], list[Item[Any]]] = defaultdict(list)
    for item in _items(batch, records, timing):
        groups[type(item.body)].append(item)
    for kind, items in groups.items():
        writer = _WRITERS.get(kind)
        if writer is not None:
            writer(work, items)
    for slot in sorted(work.unsettled):
        _settle_device(conn, batch.terminal, slot)
    work.finish()


def _items(batch: StoredBatch, records: Sequence[DecodedRecord], timing: Timing) -> list[Item[Any]]:
    times = BatchTimes(timing, batch.received_ms, max(record.boot_ms for record in records))
    items = []
    for record in records:
        at_ms = times.at_ms(record.wall_ms, record.quality, record.boot_ms)
        items.append(Item(record.idx, at_ms, at_ms - record.wall_ms, record.body))
    return items


# Clock ----------------------------------------------------------------------------------------------------------------------------------


def _boot_key(batch: StoredBatch) -> bytes:
    return batch.stream if batch.boot_id == _NO_BOOT_ID else batch.boot_id


def _take_fixes(conn: sqlite3.Connection, batch: StoredBatch, records: Sequence[DecodedRecord]) -> tuple[Timing | None, Timing]:
    """(timing before, timing after) the fixed points of this batch; before is None if they change no earlier time."""
    rows = conn.execute(
        "SELECT boot_ms, wall_ms, quality FROM clock_fix WHERE terminal = ? AND boot_id = ?", (batch.terminal, _boot_key(batch))
    ).fetchall()
    known = [Fix(boot_ms, wall_ms) for boot_ms, wall_ms, quality in rows if quality == ClockQuality.SYNCED]
    told = [record.body for record in records if type(record.body) is Clock][: max(0, MAX_FIXES - len(rows))]
    if not told:
        return None, Timing(known)
    timing = before = Timing(known)
    earlier_stand = True
    for clock in told:
        if clock.quality is ClockQuality.SYNCED and not _is_beyond(clock, batch):
            fix = Fix(clock.boot_ms, clock.wall_ms)
            earlier_stand = earlier_stand and timing.adds_nothing(fix)
            known.append(fix)
            timing = Timing(known)
    if earlier_stand or batch.disputed:
        if not batch.disputed:
            _store_fixes(conn, batch, told)
        return None, timing
    is_waiting = any(quality == _WAITING for _, _, quality in rows)
    if is_waiting or len(rows) >= FIXES_AT_ONCE or _is_longer(conn, batch, BATCHES_AT_ONCE):
        _store_fixes(conn, batch, told, wait=True)
        return None, before
    _store_fixes(conn, batch, told)
    return before, timing


def settle_clock(conn: sqlite3.Connection, done: Container[tuple[str, bytes]]) -> tuple[str, bytes] | None:
    """Take the waiting fixed points of one boot that is not in `done` for true, and leave the correction of its batches to `correct_some`; returns
    which (terminal, boot). None if there is none, or if another boot is being corrected."""
    if conn.execute("SELECT 1 FROM clock_work LIMIT 1").fetchone() is not None:
        return None
    waiting = conn.execute("SELECT DISTINCT terminal, boot_id FROM clock_fix WHERE quality = ?", (_WAITING,))
    found = next((row for row in waiting if (row[0], bytes(row[1])) not in done), None)
    if found is None:
        return None
    terminal, boot_key = found[0], bytes(found[1])
    fixes = conn.execute(
        "SELECT boot_ms, wall_ms FROM clock_fix WHERE terminal = ? AND boot_id = ? AND quality = 'synced' ORDER BY boot_ms, wall_ms",
        (terminal, boot_key),
    ).fetchall()
    conn.execute(
        "UPDATE clock_fix SET quality = 'synced' WHERE terminal = ? AND boot_id = ? AND quality = ?",
        (terminal, boot_key, _WAITING),
    )
    conn.execute(
        "INSERT INTO clock_work (terminal, boot_id, before, step, at_batch, last_batch, moved)"
        " SELECT ?, ?, ?, 'move', 0, coalesce(max(id), 0), 0 FROM batch WHERE terminal = ?",
        (terminal, boot_key, msgspec.json.encode([[boot_ms, wall_ms] for boot_ms, wall_ms in fixes]).decode(), terminal),
    )
    return terminal, boot_key


def correct_some(conn: sqlite3.Connection, batches: int = CORRECTED_AT_ONCE) -> bool:
    """The next slice of the boot that is being corrected; True if there is more. Where it stands is stored with what it did, so a process that dies
    in between goes on there.

    First each batch that had wrong times moves; then the boot is written once more, because a wrong time may also have kept a newer state of another
    batch out. Meanwhile its figures are partly old and partly new, and their days are marked to be computed again.
    """
    work = conn.execute(
        "SELECT id, terminal, boot_id, before, step, at_batch, last_batch, moved FROM clock_work ORDER BY id LIMIT 1"
    ).fetchone()
    if work is None:
        return False
    number, terminal, boot_key, told, step, at_batch, last_batch, moved = work
    before = Timing(Fix(boot_ms, wall_ms) for boot_ms, wall_ms in msgspec.json.decode(told))
    after = _timing_of(conn, terminal, bytes(boot_key))
    ids = _batches_of_boot(conn, terminal, bytes(boot_key), at_batch, last_batch, batches)
    for batch_id in ids:
        moved |= _correct_one(conn, batch_id, before, after, again=step == "write")
    if ids:
        conn.execute("UPDATE clock_work SET at_batch = ?, moved = ? WHERE id = ?", (ids[-1], moved, number))
        return True
    if step == "move" and moved:
        conn.execute("UPDATE clock_work SET step = 'write', at_batch = 0 WHERE id = ?", (number,))
        return True
    if moved:
        for (slot,) in conn.execute(
            "SELECT DISTINCT slot FROM device_change WHERE terminal = ? AND disputed = 0", (terminal,)
        ).fetchall():
            _settle_device(conn, terminal, slot)
            devices.renew_since(conn, terminal, slot)
    conn.execute("DELETE FROM clock_work WHERE id = ?", (number,))
    return True


def _timing_of(conn: sqlite3.Connection, terminal: str, boot_key: bytes) -> Timing:
    rows = conn.execute(
        "SELECT boot_ms, wall_ms FROM clock_fix WHERE terminal = ? AND boot_id = ? AND quality = 'synced'", (terminal, boot_key)
    )
    return Timing(Fix(boot_ms, wall_ms) for boot_ms, wall_ms in rows.fetchall())


def _batches_of_boot(conn: sqlite3.Connection, terminal: str, boot_key: bytes, after: int, last: int, most: int) -> list[int]:
    """Rows of `batch` behind `after`, in their order."""
    rows = conn.execute(
        "SELECT b.id FROM batch b JOIN stream s ON s.terminal = b.terminal AND s.stream = b.stream"
        " WHERE b.terminal = ? AND b.id > ? AND b.id <= ? AND b.disputed = 0 AND b.kind = 'data'"
        " AND CASE WHEN s.boot_id = ? THEN s.stream ELSE s.boot_id END = ? ORDER BY b.id LIMIT ?",
        (terminal, after, last, _NO_BOOT_ID, boot_key, most),
    )
    return [row[0] for row in rows.fetchall()]


def _correct_one(conn: sqlite3.Connection, batch_id: int, before: Timing, after: Timing, *, again: bool) -> bool:
    """Whether the batch had other times. One that cannot be corrected for a reason of ours stays as it is, and holds up no other."""
    conn.execute("SAVEPOINT one")
    try:
        loaded = load(conn, batch_id)
        if loaded is None or not loaded[1]:
            return False
        batch, records = loaded
        if again:
            _write(conn, batch, records, after)
            return False
        if _times(batch, records, before) == _times(batch, records, after):
            return False
        _forget(conn, batch, records, before, after)
        _write(conn, batch, records, after)
        return True
    except sqlite3.OperationalError:
        raise
    except Exception as err:  # noqa: BLE001 - one batch must not keep a boot from its right times
        conn.execute("ROLLBACK TO one")
        log.error("a batch could not be given its right times", extra={"batch": batch_id, "reason": place_of(err)})
        return False
    finally:
        if conn.in_transaction:
            conn.execute("RELEASE one")


def _is_longer(conn: sqlite3.Connection, batch: StoredBatch, batches: int) -> bool:
    """Whether the boot has more than so many batches."""
    where, key = _of_boot(batch)
    (count,) = conn.execute(
        "SELECT count(*) FROM (SELECT 1 FROM stream s JOIN batch b ON b.terminal = s.terminal AND b.stream = s.stream"  # noqa: S608 - one of two constants
        f" WHERE s.terminal = ? AND {where} LIMIT ?)",
        (batch.terminal, key, batches + 1),
    ).fetchone()
    return bool(count > batches)


def _of_boot(batch: StoredBatch) -> tuple[str, bytes]:
    """Condition and parameter for the streams of the same boot."""
    return ("s.stream = ?", batch.stream) if batch.boot_id == _NO_BOOT_ID else ("s.boot_id = ?", batch.boot_id)


def _is_beyond(clock: Clock, batch: StoredBatch) -> bool:
    return clock.wall_ms > batch.received_ms + CREDIBLE_MS


def _store_fixes(conn: sqlite3.Connection, batch: StoredBatch, clocks: Sequence[Clock], *, wait: bool = False) -> None:
    def quality(clock: Clock) -> str:
        if _is_beyond(clock, batch):
            return _BEYOND_ARRIVAL
        return _WAITING if wait and clock.quality is ClockQuality.SYNCED else clock.quality.value

    conn.executemany(
        "INSERT OR IGNORE INTO clock_fix (terminal, boot_id, boot_ms, wall_ms, quality, batch) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (
                batch.terminal,
                _boot_key(batch),
                clock.boot_ms,
                clock.wall_ms,
                quality(clock),
                batch.id,
            )
            for clock in clocks
        ],
    )


def _correct_earlier(conn: sqlite3.Connection, cause: StoredBatch, before: Timing, after: Timing) -> None:
    """Give the other batches of this boot the times that the new fixed point says."""
    where, key = _of_boot(cause)
    rows = conn.execute(
        "SELECT b.id FROM stream s JOIN batch b ON b.terminal = s.terminal AND b.stream = s.stream"  # noqa: S608 - one of two constants
        f" WHERE s.terminal = ? AND {where} AND b.disputed = 0 AND b.kind = 'data' AND b.id <> ? ORDER BY b.stream, b.no",
        (cause.terminal, key, cause.id),
    ).fetchall()
    loaded = [found for (batch_id,) in rows if (found := load(conn, batch_id)) is not None]
    moved = {batch.id for batch, records in loaded if _times(batch, records, before) != _times(batch, records, after)}
    if not moved:
        return
    slots: set[str] = set()
    for batch, records in loaded:
        if batch.id in moved:
            slots |= _forget(conn, batch, records, before, after)
    # The whole boot is written again, because a wrong time may also have kept a newer state of another batch out.
    for batch, records in loaded:
        _write(conn, batch, records, after)
    for slot in sorted(slots):
        _settle_device(conn, cause.terminal, slot)


def _times(batch: StoredBatch, records: Sequence[DecodedRecord], timing: Timing) -> list[int]:
    return [item.at_ms for item in _items(batch, records, timing)] if records else []


def _forget(
    conn: sqlite3.Connection, batch: StoredBatch, records: Sequence[DecodedRecord], before: Timing, after: Timing
) -> set[str]:
    """Take away rows with wrong times; faults move in place. Returns the device slots concerned."""
    terminal = batch.terminal
    for old, new in zip(_items(batch, records, before), _items(batch, records, after), strict=True):
        body = new.body
        if isinstance(body, Fault):
            episodes.move(conn, terminal, batch.id, old, new, is_late(new.at_ms, batch.received_ms))
        elif isinstance(body, Sighting):
            conn.execute("DELETE FROM sighting WHERE terminal = ? AND port = ? AND at_ms = ?", (terminal, body.port, old.at_ms))
        elif isinstance(body, Consumable):
            conn.execute(
                "DELETE FROM consumable WHERE terminal = ? AND slot = ? AND item = ? AND at_ms = ?",
                (terminal, body.slot, body.item, old.at_ms),
            )
        elif isinstance(body, Boot):
            conn.execute("DELETE FROM boot WHERE terminal = ? AND stream = ? AND at_ms = ?", (terminal, batch.stream, old.at_ms))
    return _delete_rows(conn, terminal, batch.id)


def _delete_rows(conn: sqlite3.Connection, terminal: str, batch_id: int) -> set[str]:
    """Delete what carries (batch, idx), mark the days it counted in; returns the device slots it told of."""
    days = {
        row[0]
        for table in ("session", "rating", "queue_event")
        for row in conn.execute(f"SELECT DISTINCT day FROM {table} WHERE batch = ?", (batch_id,))  # noqa: S608 - constants
    }
    for from_ms, to_ms in conn.execute("SELECT from_ms, to_ms FROM serviceability WHERE batch = ?", (batch_id,)).fetchall():
        days.update(local_days(from_ms, to_ms, zone_of_terminal(conn, terminal)))
    mark_dirty(conn, terminal, days)
    slots = {row[0] for row in conn.execute("SELECT DISTINCT slot FROM device_change WHERE batch = ?", (batch_id,))}
    for table in _BY_BATCH:
        conn.execute(f"DELETE FROM {table} WHERE batch = ?", (batch_id,))  # noqa: S608 - constants
    orders.forget(conn, terminal, batch_id)
    return slots


_BY_BATCH = (
    "session",
    "rating",
    "queue_event",
    "counters",
    "serviceability",
    "host_health",
    "reading",
    "link_event",
    "device_change",
    "consumable_level",
    "van_position",
)


def _settle_device(conn: sqlite3.Connection, terminal: str, slot: str) -> None:
    """Make the newest change of the history the current row, reading it again from its envelope if it is another than now."""
    newest = devices.newest_change(conn, terminal, slot)
    now = conn.execute("SELECT batch, idx FROM device WHERE terminal = ? AND slot = ?", (terminal, slot)).fetchone()
    if newest is None:
        conn.execute("DELETE FROM device WHERE terminal = ? AND slot = ?", (terminal, slot))
        return
    if now is None and devices.has_too_many(conn, terminal):
        return
    loaded = load(conn, newest[0]) if newest != now else None
    if loaded is not None:
        batch, records = loaded
        _, timing = _take_fixes(conn, batch, records)
        item = next(item for item in _items(batch, records, timing) if item.idx == newest[1])
        devices.put_current(conn, terminal, batch.id, [(item, item.at_ms)])
    conn.execute(
        "UPDATE device SET at_ms = (SELECT at_ms FROM device_change WHERE batch = device.batch AND idx = device.idx)"
        " WHERE terminal = ? AND slot = ? AND EXISTS (SELECT 1 FROM device_change WHERE batch = device.batch AND idx = device.idx)",
        (terminal, slot),
    )
    devices.renew_since(conn, terminal, slot)
