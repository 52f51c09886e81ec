"""Times of the figures of one month in a database with a year behind it. By hand:
`python -m tests.fleet_server.figures.measure_figures [terminals] [cases a day]`.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

from fleet_server.db import migrate, open_raw, open_reader
from fleet_server.figures.behind import behind
from fleet_server.figures.board import Board
from fleet_server.figures.question import Period, Question
from fleet_server.reports.month import month_report
from fleet_server.reports.month_book import write_month
from tests.fleet_server.figures.conftest import DAY, HOUR, at
from tests.support.facts import WORK_HOURS

FIRST = date(2025, 11, 1)
DAYS = 365
SUMMARIES = 4
"""A day and terminal; in the field one each quarter of an hour, which only makes the file larger: figures look for one of them by index."""
NOW = at("2026-11-01 08:00")
Rows = list[tuple[object, ...]]


def build(path: Path, terminals: int, cases_a_day: float) -> None:
    """Rows as the projection writes them: cases, ratings, a summary every half hour of the day shift, days, presence, faults."""
    migrate(path)
    rng = random.Random(1)
    with closing(open_raw(path)) as conn:
        conn.execute("PRAGMA synchronous = OFF")
        conn.execute("BEGIN")
        areas: Rows = [(f"a{n}", "a0" if n else None, f"a{n}", f"a{n}", n) for n in range(10)]
        insert(conn, "area (code, parent, name_zh, name_en, sort)", areas)
        sites: Rows = [
            (f"s{n}", f"a{1 + n % 9}", f"s{n}", f"s{n}", "hall", WORK_HOURS if n % 3 else '{"always": true}') for n in range(100)
        ]
        insert(conn, "site (code, area, name_zh, name_en, kind, hours)", sites)
        start_ms = at(f"{FIRST} 00:00")
        for n in range(terminals):
            add_terminal(conn, f"kf-{n:04}", f"s{n % 100}", start_ms, cases_a_day * rng.uniform(0, 2), rng)
        conn.execute("COMMIT")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def add_terminal(conn: sqlite3.Connection, name: str, site: str, start_ms: int, rate: float, rng: random.Random) -> None:
    insert(
        conn,
        "terminal (id, code, type, name_zh, name_en, site, class, created_ms, enrolled_ms)",
        [(name, name, "kiosk", name, name, site, "government", 0, start_ms)],
    )
    cases: Rows = []
    ratings: Rows = []
    summaries: Rows = []
    days: Rows = []
    presence: Rows = []
    faults: Rows = []
    for n in range(DAYS):
        day, midnight = (FIRST + timedelta(days=n)).isoformat(), start_ms + n * DAY
        count = int(rng.expovariate(1 / max(rate, 0.01)) + rng.random())
        for _ in range(count):
            began, batch = midnight + rng.randrange(7 * HOUR, 20 * HOUR), rng.getrandbits(60)
            item, outcome = f"item.{'abcdefgh'[rng.randrange(8)] * 3}", "success" if rng.random() < 0.97 else "failed"
            cases.append((name, rng.randbytes(16), item, "touch", outcome, "none", began, 90_000, day, batch, 0, 0))
            ratings.append((name, rng.randrange(6), "evaluator", began + 100_000, day, batch, 1, 0))
        for part in range(SUMMARIES):
            from_ms, seconds = midnight + 9 * HOUR + part * 8 * HOUR // SUMMARIES, 8 * 3600 // SUMMARIES
            told = (seconds, seconds - 100, 50, 50, 0)
            summaries.append((name, from_ms, from_ms + seconds * 1000, *told, rng.getrandbits(60), 0, 0))
        days.append((name, day, count, count, 27_000, 300, 100, 27_400, 28_000, 600, 0, NOW))
        presence.append((name, midnight, midnight + 8 * HOUR, "offline", "silence"))
        presence.append((name, midnight + 8 * HOUR, midnight + DAY, "online", "birth"))
        if rng.random() < 0.05:
            since = midnight + rng.randrange(DAY)
            cleared = since + rng.randrange(9 * HOUR)
            faults.append((f"{name}:{n}", name, "laser-printer", "LSR.JAM", "P2", 1, since, since, cleared, 0, 0, "terminal", 0))
    insert(
        conn, "session (terminal, sid, item, channel, outcome, cause, began_ms, duration_ms, day, batch, idx, disputed)", cases
    )
    insert(conn, "rating (terminal, level, channel, at_ms, day, batch, idx, disputed)", ratings)
    insert(
        conn,
        "serviceability (terminal, from_ms, to_ms, observed_s, usable_s, partial_s, unusable_s, in_use_s, batch, idx, disputed)",
        summaries,
    )
    insert(
        conn,
        "terminal_day (terminal, day, sessions, success, usable_s, partial_s, unusable_s, observed_s, scheduled_s, silent_s, blind_s,"
        " computed_ms)",
        days,
    )
    insert(conn, "presence (terminal, from_ms, to_ms, state, cause)", presence)
    insert(
        conn,
        "fault (id, terminal, slot, code, severity, mandatory, opened_ms, since_ms, cleared_ms, disputed, late, source, false_alarm)",
        faults,
    )


def insert(conn: sqlite3.Connection, into: str, rows: Rows) -> None:
    if rows:
        conn.executemany(f"INSERT INTO {into} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def report(name: str, work: Callable[[], object]) -> None:
    begun = time.perf_counter()
    work()
    print(f"  {name:44} {(time.perf_counter() - begun) * 1000:8.1f} ms")


def measure(conn: sqlite3.Connection, board: Board, fresh: Board) -> None:
    report(
        "cases, shares, means", lambda: [board.cases(), board.active_share(), board.cases_per_terminal(), board.offhours_share()]
    )
    report("availability", board.availability)
    report("online rate", board.online_rate)
    report("intact rate, faults", lambda: [board.intact_rate(), board.fault_rate()])
    report("ratings, queue", lambda: [board.good_rate(), board.queue_calls()])
    report("zero list", board.zero_list)
    report("table of areas", lambda: [board.headline(group.members) for group in board.groups()])
    report("ALL headline figures, fresh board", fresh.headline)
    report("rows behind the cases", lambda: sum(1 for _ in behind(conn, fresh, fresh.cases())))


def main() -> None:
    terminals = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else 0.64
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.sqlite"
        build(path, terminals, rate)
        with closing(open_reader(path)) as conn:
            (cases,) = conn.execute("SELECT count(*) FROM session").fetchone()
            print(f"{terminals} terminals, a year, {cases} cases, {path.stat().st_size >> 20} MiB")
            for title, period in (("October", Period.month("2026-10")), ("the whole year", Period("2025-11-01", "2026-10-31"))):
                for state in ("first", "again"):
                    print(f"{title}, {state}")
                    measure(conn, Board(conn, Question(period), NOW), Board(conn, Question(period), NOW))
            measure_report(conn)


def measure_report(conn: sqlite3.Connection) -> None:
    made = [month_report(conn, "2026-10", now_ms=NOW)]
    report("month report of October, read", lambda: month_report(conn, "2026-10", now_ms=NOW))
    report("month report of October, written", lambda: write_month(made[0], lang="zh"))


if __name__ == "__main__":
    main()
