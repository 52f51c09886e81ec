"""Rows: how long the console takes for its pages with a year behind the fleet, while ingest drains a backlog, beside the same page without that."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from fleet_server.db import open_raw
from tests.bench.arrears import draining
from tests.bench.console import sign_in
from tests.bench.machine import cpu_s
from tests.bench.table import Budget, Row
from tests.support.console import console_server
from tests.support.processes import ROOT
from tests.support.seed import DAY, HOUR, MINUTE, OPERATOR, PASSWORD, Seeded, seed

DAYS = 365
LIMIT_MS = {400: 100.0, 4_000: 300.0}
"""By number of terminals; in between the larger one."""
STATIC = "/static/icon.svg"
MANY = 1_000
"""From here on, a year's big tables are filled with every seventh day only; days of usage and figures are all there."""


def rows(*, terminals: int, requests: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="kiosk-fleet-bench-") as folder:
        path = Path(folder) / "fleet.sqlite"
        seeded = seed(path, count=terminals, days=DAYS)
        every = 7 if terminals >= MANY else 1
        stored = add_year(path, seeded, every=every)
        machines = [machine.id for machine in seeded.machines if machine.fate != "notEnrolled"]
        with console_process(path, seeded.now_ms) as (url, pid):
            quiet = asyncio.run(_measure(url, pid, path, seeded, requests, changing=True))
            with draining(path, machines, seeded.now_ms) as rate:
                busy = asyncio.run(_measure(url, pid, path, seeded, requests, changing=False))
    limit_ms = next((limit for most, limit in LIMIT_MS.items() if terminals <= most), max(LIMIT_MS.values()))
    about = (
        f"95th percentile of {requests} requests over one kept-alive connection, none without a change committed before it by another process.",
        f"{stored:,} batches, {DAYS} days; meanwhile {rate[0]:,.0f} records/s of a backlog were signed, verified, stored and projected.",
        f"A static file of the same server took {quiet[STATIC].p95_ms:.1f} ms without and {busy[STATIC].p95_ms:.1f} ms with the backlog.",
    )
    return [
        Row(
            what=f"Console: {name}, {terminals:,} terminals, draining",
            ours=busy[page].p95_ms,
            unit="ms",
            beside="the same page without a backlog",
            peer=quiet[page].p95_ms,
            budgets=(Budget(rule="at_most", limit=limit_ms, of="figure", unit="ms"),),
            notes=(
                f"Median {busy[page].median_ms:.1f} ms, without a backlog {quiet[page].median_ms:.1f} ms.",
                f"Processor time of the server per request {busy[page].cpu_ms:.1f} ms, without {quiet[page].cpu_ms:.1f} ms.",
                *about,
            ),
        )
        for name, page in _pages(seeded)
    ]


@contextmanager
def console_process(path: Path, now_ms: int) -> Iterator[tuple[str, int]]:
    """The console over `path` in a process of its own: its address and process id."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.pages", str(path), str(now_ms)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        encoding="ascii",
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"the console ended with {server.wait()}")
        yield url, server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)


def _pages(seeded: Seeded) -> Sequence[tuple[str, str]]:
    machine = seeded.machines[36]  # one with open faults
    return (
        ("overview", "/"),
        ("terminal list", "/terminals"),
        ("list, filtered", "/terminals?state=abnormal&sort=-cases"),
        ("terminal page", f"/terminals/{machine.id}"),
        ("terminal page, a year's history", f"/terminals/{machine.id}?range=90d"),
        ("faults", "/faults"),
        ("figures", "/figures"),
    )


@dataclass(frozen=True)
class Taken:
    """What one page took: at the client, and of the server's processor."""

    times_ms: list[float]
    cpu_ms: float

    @property
    def p95_ms(self) -> float:
        return sorted(self.times_ms)[min(len(self.times_ms) - 1, int(0.95 * len(self.times_ms)))]

    @property
    def median_ms(self) -> float:
        return sorted(self.times_ms)[len(self.times_ms) // 2]


async def _measure(url: str, pid: int, path: Path, seeded: Seeded, requests: int, *, changing: bool) -> dict[str, Taken]:
    """`changing`: commit a change before each request; a backlog does that by itself."""
    taken: dict[str, Taken] = {}
    rng = random.Random(1)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await sign_in(client, OPERATOR, PASSWORD)
        with closing(open_raw(path)) as conn:
            for page in (STATIC, *(page for _, page in _pages(seeded))):
                await _get(client, page)
                times, spent_s = [], cpu_s(pid)
                for _ in range(requests):
                    if changing:
                        _change(conn, seeded, rng)
                    times.append(await _get(client, page))
                taken[page] = Taken(times, (cpu_s(pid) - spent_s) * 1000 / requests)
    return taken


async def _get(client: httpx.AsyncClient, page: str) -> float:
    started = time.perf_counter()
    answer = await client.get(page)
    took_ms = (time.perf_counter() - started) * 1000
    if answer.status_code != 200:
        raise RuntimeError(f"{page} was answered with {answer.status_code}")
    return took_ms


def _change(conn: sqlite3.Connection, seeded: Seeded, rng: random.Random) -> None:
    """A terminal reports: what the console keeps of it in memory is old."""
    terminal = rng.choice(seeded.machines).id
    conn.execute("BEGIN IMMEDIATE")
    conn.execute("UPDATE terminal_live SET last_report_ms = last_report_ms + 1 WHERE terminal = ?", (terminal,))
    conn.execute("INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'session', NULL)", (seeded.now_ms, terminal))
    conn.execute("COMMIT")


# -- a year ------------------------------------------------------------------------------------------------------------------------------


def add_year(path: Path, seeded: Seeded, *, every: int = 1) -> int:
    """What a year leaves in the big tables, straight into them: batches, cases, device changes, cleared faults, presence; of every `every`-th day.

    Returns the batches.
    """
    rng = random.Random(7)
    now_ms = seeded.now_ms
    with closing(open_raw(path)) as conn:
        conn.execute("PRAGMA synchronous = OFF")
        conn.execute("BEGIN IMMEDIATE")
        for machine in seeded.machines:
            stream, slots = rng.randbytes(16), [slot for slot, _, _ in machine.inventory]
            first = conn.execute("SELECT coalesce(max(id), 0) FROM batch").fetchone()[0] + 1
            days = [now_ms - back * DAY + rng.randrange(-8 * HOUR, 8 * HOUR) for back in range(DAYS, 1, -every)]
            conn.executemany(
                "INSERT INTO batch (id, terminal, stream, no, kind, digest, prev, kid, context, envelope, received_ms, committed_ms, sealed_ms,"
                " first_ms, last_ms, records, class, disputed) VALUES (?, ?, ?, ?, 'data', ?, x'', ?, 'kf-batch/1', ?, ?, ?, ?, ?, ?, 2, 'event', 0)",
                [
                    (
                        first + n,
                        machine.id,
                        stream,
                        n + 1,
                        rng.randbytes(32),
                        machine.key.kid,
                        rng.randbytes(400),
                        at,
                        at,
                        at,
                        at,
                        at,
                    )
                    for n, at in enumerate(days)
                ],
            )
            conn.executemany(
                "INSERT OR IGNORE INTO session (terminal, sid, item, channel, outcome, cause, began_ms, duration_ms, day, batch, idx, disputed)"
                " VALUES (?, ?, 'tax.proof-print', 'touch', 'success', 'none', ?, 90000, date(? / 1000, 'unixepoch'), ?, 0, 0)",
                [(machine.id, rng.randbytes(16), at, at, first + n) for n, at in enumerate(days)],
            )
            conn.executemany(
                "INSERT INTO device_change (terminal, slot, at_ms, device, paper, batch, idx) VALUES (?, ?, ?, 'online', ?, ?, 1)",
                [(machine.id, rng.choice(slots), at, rng.choice(("full", "low", "out")), first + n) for n, at in enumerate(days)],
            )
            conn.executemany(
                "INSERT INTO presence (terminal, from_ms, to_ms, state, cause) VALUES (?, ?, ?, ?, ?)",
                [
                    row
                    for at in days[: -12 // every : 3]
                    for row in (
                        (machine.id, at, at + 2 * DAY, "online", "birth"),
                        (machine.id, at + 2 * DAY, at + 2 * DAY + 5 * HOUR, "offline", "silence"),
                    )
                ],
            )
            conn.executemany(
                "INSERT INTO fault (id, terminal, slot, code, severity, mandatory, opened_ms, since_ms, cleared_ms, cleared_by, disputed, late,"
                " source, false_alarm) VALUES (?, ?, ?, 'PRN.PAPER_OUT', 'P2', 1, ?, ?, ?, 'terminal', 0, 0, 'terminal', 0)",
                [
                    (f"{machine.id}:{rng.randbytes(8).hex()}", machine.id, slots[0], at, at, at + 40 * MINUTE)
                    for at in days[:: max(1, 6 // every)]
                ],
            )
        conn.execute("COMMIT")
        return int(conn.execute("SELECT count(*) FROM batch").fetchone()[0])


def main() -> None:
    """The console of `path` in a process of its own, its clock starting at `now_ms`."""
    path, now_ms = Path(sys.argv[1]), int(sys.argv[2])
    with console_server(path.parent, Seeded(path, (), now_ms)) as console:
        print(console.url, flush=True)
        signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
