"""Months of use for a seeded fleet: cases, reviews, call-pad keys, summaries and faults, straight into their tables, and the days computed from them.

Nothing here is signed; what carries evidence comes from `tests.support.seed`.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
from contextlib import closing
from datetime import date, datetime, timedelta

from fleet_server.db import open_raw
from fleet_server.usage.days import recompute_some
from tests.support.seed import HOUR, MINUTE, ZONE, Seeded, today_of

ITEMS = (
    "medical.card-query", "social.pension-proof", "house.record-query", "traffic.licence-renew", "tax.proof-print", "birth.copy-print",
    "fund.balance-query", "residence.permit-renew", "school.enrol-proof", "company.extract-print", "water.bill-print", "marriage.proof",
)  # fmt: skip
HOUR_WEIGHTS = (0, 0, 0, 0, 0, 0, 1, 4, 9, 16, 18, 12, 6, 8, 15, 14, 11, 7, 4, 3, 2, 1, 0, 0)
KEYS = ("callNext", "callNext", "callNext", "recall", "pause")


def add_usage(seeded: Seeded, *, days: int = 60, count: int | None = None, idle_every: int = 9, batch: int = 1 << 40) -> None:
    """Give the first `count` machines of the seed `days` days of use before its now; every `idle_every`th machine sees nobody for 45 days.

    `batch` is where made-up batch numbers begin: they belong to no batch that exists, unless the caller wants rows that do.
    """
    machines = [one for one in seeded.machines if one.fate != "notEnrolled"][:count]
    with closing(open_raw(seeded.path)) as conn:
        conn.execute("PRAGMA synchronous = OFF")
        conn.execute("BEGIN IMMEDIATE")
        conn.execute("DELETE FROM session")
        conn.execute("DELETE FROM terminal_day")
        for n, machine in enumerate(machines):
            rng = random.Random(f"{machine.id}/usage")
            _machine(
                conn,
                machine.id,
                today_of(seeded.now_ms),
                days,
                rng,
                idle=n % idle_every == idle_every - 1,
                batch=batch + n * 100_000,
            )
        while recompute_some(conn, 500, seeded.now_ms):
            pass
        conn.execute("COMMIT")


def _machine(
    conn: sqlite3.Connection, terminal: str, today: date, days: int, rng: random.Random, *, idle: bool, batch: int
) -> None:
    rate = rng.uniform(0.4, 2.4)
    sessions: list[tuple[object, ...]] = []
    ratings: list[tuple[object, ...]] = []
    keys: list[tuple[object, ...]] = []
    summaries: list[tuple[object, ...]] = []
    for back in range(1, days + 1):
        day = today - timedelta(days=back)
        midnight = int(datetime(day.year, day.month, day.day, tzinfo=ZONE).timestamp() * 1000)
        quiet = idle and back <= 45
        for _ in range(0 if quiet else int(rng.expovariate(1 / (rate * (0.5 if day.weekday() >= 5 else 1.2))))):
            batch += 1
            began = midnight + rng.choices(range(24), HOUR_WEIGHTS)[0] * HOUR + rng.randrange(HOUR)
            outcome = rng.choices(("success", "failed", "abandoned"), (94, 4, 2))[0]
            item = rng.choices(ITEMS, range(len(ITEMS), 0, -1))[0]
            sid = hashlib.sha256(f"{terminal}/{batch}".encode()).digest()[:16]
            sessions.append(
                (
                    terminal,
                    sid,
                    item,
                    "touch",
                    outcome,
                    "none",
                    began,
                    rng.randrange(30_000, 240_000),
                    day.isoformat(),
                    batch,
                    0,
                    0,
                )
            )
            if rng.random() < 0.4:
                level = rng.choices((5, 4, 3, 2, 1, 0), (60, 20, 6, 2, 1, 11))[0]
                ratings.append((terminal, "evaluator", level, "evaluator", began + 300_000, day.isoformat(), batch, 1, 0))
            if rng.random() < 0.3:
                keys.append((terminal, "call-pad-1", rng.choice(KEYS), began + 60_000, day.isoformat(), batch, 2, 0))
        for start_hour in (9, 13):
            batch += 1
            unusable = rng.choices((0, 600, 3600), (90, 7, 3))[0]
            from_ms = midnight + start_hour * HOUR + (30 * MINUTE if start_hour == 13 else 0)
            length_s = 3 * 3600 + (1800 if start_hour == 13 else 0)
            summaries.append(
                (terminal, from_ms, from_ms + length_s * 1000, length_s, length_s - unusable, 0, unusable, 0, batch, 3, 0)
            )
        conn.execute("INSERT OR IGNORE INTO dirty_day (terminal, day) VALUES (?, ?)", (terminal, day.isoformat()))
    _insert(
        conn, "session (terminal, sid, item, channel, outcome, cause, began_ms, duration_ms, day, batch, idx, disputed)", sessions
    )
    _insert(conn, "rating (terminal, slot, level, channel, at_ms, day, batch, idx, disputed)", ratings)
    _insert(conn, "queue_event (terminal, slot, action, at_ms, day, batch, idx, disputed)", keys)
    _insert(
        conn,
        "serviceability (terminal, from_ms, to_ms, observed_s, usable_s, partial_s, unusable_s, in_use_s, batch, idx, disputed)",
        summaries,
    )


def _insert(conn: sqlite3.Connection, into: str, rows: list[tuple[object, ...]]) -> None:
    if rows:
        conn.executemany(f"INSERT INTO {into} VALUES ({', '.join('?' * len(rows[0]))})", rows)
