"""Owns the facts that figures are made of: cases, ratings, queue events, summaries, starts and uplink changes. One row per record, once."""

from __future__ import annotations

from collections.abc import Sequence

from fleet_server.facts.work import Item, Work
from protocols.contract.records import Boot, Counters, Host, Link, Queue, Rating, Reading, Serviceability, Session

_OUTCOME_RANK = {"success": 0, "failed": 1, "abandoned": 2}
_TENTHS_MAX = 10**9


def write_sessions(work: Work, items: Sequence[Item[Session]]) -> None:
    """A case that was told twice is one case; which telling stays does not depend on the order of arrival."""
    batch = work.batch
    rows = []
    for item in items:
        body, began_ms = item.body, item.earlier_ms(item.body.began_ms)
        rows.append(
            (
                batch.terminal,
                body.id,
                body.item,
                body.channel,
                body.outcome,
                body.cause,
                began_ms,
                body.duration_ms,
                work.day(began_ms),
                batch.id,
                item.idx,
                work.disputed,
            )
        )
    inserted = work.conn.executemany(
        "INSERT INTO session (terminal, sid, item, channel, outcome, cause, began_ms, duration_ms, day, batch, idx, disputed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (terminal, sid) DO NOTHING",
        rows,
    ).rowcount
    if inserted != len(rows):
        for row in rows:
            _keep_better_telling(work, row)
    work.hint("session")


def _keep_better_telling(work: Work, row: tuple[object, ...]) -> None:
    columns = "terminal, sid, item, channel, outcome, cause, began_ms, duration_ms, day, batch, idx, disputed"
    kept = work.conn.execute(f"SELECT {columns} FROM session WHERE terminal = ? AND sid = ?", row[:2]).fetchone()  # noqa: S608 - constant
    if kept[9] != row[9]:
        work.conn.executemany(
            "INSERT OR IGNORE INTO session_telling (terminal, sid, batch) VALUES (?, ?, ?)",
            [(*row[:2], kept[9]), (*row[:2], row[9])],
        )
    if kept[9:11] != row[9:11] and _telling_rank(work, row) < _telling_rank(work, kept):
        work.conn.execute(
            "UPDATE session SET item = ?, channel = ?, outcome = ?, cause = ?, began_ms = ?, duration_ms = ?, day = ?, batch = ?, idx = ?,"
            " disputed = ? WHERE terminal = ? AND sid = ?",
            (*row[2:], *row[:2]),
        )
        work.day(kept[6])


def _telling_rank(work: Work, row: Sequence[object]) -> tuple[object, ...]:
    """Least wins: undisputed before disputed, a result before a lost lease, then the place in the streams; never a time, which may be corrected."""
    outcome, batch, idx, disputed = row[4], row[9], row[10], row[11]
    stream, no = work.conn.execute("SELECT stream, no FROM batch WHERE id = ?", (batch,)).fetchone()
    return disputed, _OUTCOME_RANK[str(outcome)], stream, no, idx


def write_ratings(work: Work, items: Sequence[Item[Rating]]) -> None:
    batch = work.batch
    work.conn.executemany(
        "INSERT OR IGNORE INTO rating (terminal, slot, level, channel, at_ms, day, batch, idx, disputed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (batch.terminal, body.slot, body.level, body.channel, at_ms, work.day(at_ms), batch.id, idx, work.disputed)
            for idx, at_ms, _, body in items
        ],
    )
    work.hint("session")


def write_queue_events(work: Work, items: Sequence[Item[Queue]]) -> None:
    batch = work.batch
    work.conn.executemany(
        "INSERT OR IGNORE INTO queue_event (terminal, slot, action, at_ms, day, batch, idx, disputed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (batch.terminal, body.slot, body.action, at_ms, work.day(at_ms), batch.id, idx, work.disputed)
            for idx, at_ms, _, body in items
        ],
    )


def write_counters(work: Work, items: Sequence[Item[Counters]]) -> None:
    batch = work.batch
    work.conn.executemany(
        "INSERT OR IGNORE INTO counters (terminal, from_ms, to_ms, slot, total, ok, failed, lifetime, derived, batch, idx, disputed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                batch.terminal,
                *item.span_ms(item.body.from_ms, item.body.to_ms),
                slot.slot,
                slot.total,
                slot.ok,
                slot.failed,
                slot.lifetime,
                int(slot.derived),
                batch.id,
                item.idx,
                work.disputed,
            )
            for item in items
            for slot in item.body.slots
        ],
    )


def write_serviceability(work: Work, items: Sequence[Item[Serviceability]]) -> None:
    batch = work.batch
    rows = []
    for item in items:
        body = item.body
        from_ms, to_ms = item.span_ms(body.from_ms, body.to_ms)
        work.span(from_ms, to_ms)
        seconds = (body.observed_s, body.usable_s, body.partial_s, body.unusable_s, body.in_use_s)
        rows.append((batch.terminal, from_ms, to_ms, *seconds, batch.id, item.idx, work.disputed))
    work.conn.executemany(
        "INSERT OR IGNORE INTO serviceability (terminal, from_ms, to_ms, observed_s, usable_s, partial_s, unusable_s, in_use_s, batch, idx,"
        " disputed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )


def write_host_health(work: Work, items: Sequence[Item[Host]]) -> None:
    batch = work.batch
    work.conn.executemany(
        "INSERT OR IGNORE INTO host_health (terminal, from_ms, to_ms, cpu_pct, mem_free_mib, disk_free_mib, temp_c, uptime_s, agent_rss_kib,"
        " outbox_batches, batch, idx, disputed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                batch.terminal,
                *item.span_ms(item.body.from_ms, item.body.to_ms),
                item.body.cpu_pct,
                item.body.mem_free_mib,
                item.body.disk_free_mib,
                item.body.temp_c,
                item.body.uptime_s,
                item.body.agent_rss_kib,
                item.body.outbox_batches,
                batch.id,
                item.idx,
                work.disputed,
            )
            for item in items
        ],
    )


def write_readings(work: Work, items: Sequence[Item[Reading]]) -> None:
    batch = work.batch
    work.conn.executemany(
        "INSERT OR IGNORE INTO reading (terminal, slot, from_ms, to_ms, quantity, unit, min_tenths, mean_tenths, max_tenths, batch, idx,"
        " disputed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                batch.terminal,
                item.body.slot,
                *item.span_ms(item.body.from_ms, item.body.to_ms),
                item.body.quantity,
                item.body.unit,
                *(_storable(tenths) for tenths in (item.body.min_tenths, item.body.mean_tenths, item.body.max_tenths)),
                batch.id,
                item.idx,
                work.disputed,
            )
            for item in items
        ],
    )


def _storable(tenths: int) -> int:
    """A nonsense reading must not stop the batch: SQLite's integers end at 64 bits."""
    return min(max(tenths, -_TENTHS_MAX), _TENTHS_MAX)


def write_links(work: Work, items: Sequence[Item[Link]]) -> None:
    batch = work.batch
    work.conn.executemany(
        "INSERT OR IGNORE INTO link_event (terminal, at_ms, state, reason, attempts, batch, idx, disputed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (batch.terminal, at_ms, body.state, body.reason, body.attempts, batch.id, idx, work.disputed)
            for idx, at_ms, _, body in items
        ],
    )


def write_boots(work: Work, items: Sequence[Item[Boot]]) -> None:
    """A start of the agent; the newest one tells the versions that run."""
    batch = work.batch
    for item in items:
        body = item.body
        work.conn.execute(
            "INSERT OR IGNORE INTO boot (terminal, stream, at_ms, agent, os, previous, same_boot, disputed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (batch.terminal, batch.stream, item.at_ms, body.agent, body.os, body.previous, int(body.same_boot), work.disputed),
        )
    if not batch.disputed:
        set_versions(work)


def set_versions(work: Work) -> None:
    newest = work.conn.execute(
        "SELECT agent, os FROM boot WHERE terminal = ? AND disputed = 0 ORDER BY at_ms DESC, stream DESC LIMIT 1",
        (work.batch.terminal,),
    ).fetchone()
    if newest is not None:
        work.conn.execute(
            "INSERT INTO terminal_live (terminal, agent_version, os) VALUES (?, ?, ?)"
            " ON CONFLICT (terminal) DO UPDATE SET agent_version = excluded.agent_version, os = excluded.os",
            (work.batch.terminal, *newest),
        )
        work.hint("live")
