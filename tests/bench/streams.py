"""Rows: event streams of many open browsers, real connections each with a session of its own: how late they hear, what they cost the console."""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from fleet_server.db import open_raw
from tests.bench.console import sign_in
from tests.bench.machine import cpu_s, memory_of
from tests.bench.pages import console_process
from tests.bench.table import Budget, Row
from tests.support.seed import OPERATOR, PASSWORD, Seeded, seed
from tests.support.waiting import until

BROWSERS = 50
TERMINALS = 400
EVERY_S = 0.7
"""Between two changes: longer than the console holds events of one name back."""
LIVE_PART = re.compile(r'hx-get="([^"]+)" data-live="[^"]*\bcounts\b')
WITHIN_S = 1.0


@dataclass
class Heard:
    """What the browsers of one round were told, and when: seconds of time.monotonic() by terminal."""

    news: list[dict[str, float]] = field(default_factory=list)
    shown: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Round:
    """One number of browsers."""

    late_s: list[float]
    """From the commit to each browser that heard of it."""
    shown_s: list[float]
    """From the commit until each browser had fetched what an open overview fetches then."""
    cpu_share: float
    rss_mib: float


def rows(*, changes: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="kiosk-fleet-bench-") as folder:
        path = Path(folder) / "fleet.sqlite"
        seeded = seed(path, count=TERMINALS, days=30)
        with closing(open_raw(path)) as conn:
            # An account has a few sessions at a time, so each browser belongs to somebody else.
            conn.executemany(
                "INSERT INTO staff (name, display, password_hash, role, failed, must_change, created_ms, lang)"
                " SELECT ?, display, password_hash, role, 0, 0, created_ms, lang FROM staff WHERE name = ?",
                [(_account(number), OPERATOR) for number in range(BROWSERS)],
            )
        with console_process(path, seeded.now_ms) as (url, pid):
            one, many = asyncio.run(_measure(url, pid, path, seeded, changes))
    changing = f"{changes} changes of a terminal's state, one each {EVERY_S} s; {TERMINALS} terminals."
    return [
        Row(
            what=f"Event streams: {BROWSERS} browsers, commit to receipt",
            ours=_at(many.late_s, 0.99),
            unit="s",
            beside="one browser",
            peer=_at(one.late_s, 0.99),
            budgets=(Budget(rule="at_most", limit=WITHIN_S, of="figure", unit="s"),),
            notes=(
                f"99th percentile; median {_at(many.late_s, 0.5):.3f} s, with one browser {_at(one.late_s, 0.5):.3f} s. {changing}",
                "Each browser has a session and a connection of its own; tabs of one browser share a stream, so these are people.",
            ),
        ),
        Row(
            what=f"Event streams: {BROWSERS} open overviews, commit to fetched",
            ours=_at(many.shown_s, 0.99),
            unit="s",
            beside="one browser",
            peer=_at(one.shown_s, 0.99),
            notes=(
                f"99th percentile; median {_at(many.shown_s, 0.5):.3f} s, with one browser {_at(one.shown_s, 0.5):.3f} s.",
                "All parts of the overview that listen for this event, fetched by every browser at the same moment.",
            ),
        ),
        Row(
            what=f"Event streams: {BROWSERS} open overviews, processor time",
            ours=many.cpu_share * 100,
            unit="% of a core",
            beside="one browser",
            peer=one.cpu_share * 100,
            notes=("User and system time of the console's process, streams and fetched parts together.",),
        ),
        Row(
            what=f"Event streams: memory of the console with {BROWSERS} browsers",
            ours=many.rss_mib,
            unit="MiB",
            beside="one browser",
            peer=one.rss_mib,
            notes=("Resident set after the round.",),
        ),
    ]


async def _measure(url: str, pid: int, path: Path, seeded: Seeded, changes: int) -> tuple[Round, Round]:
    machines = [machine.id for machine in seeded.machines if machine.fate == "online" and not machine.faults]
    rng = random.Random(1)
    with closing(open_raw(path)) as conn:
        one = await _round(url, pid, conn, rng.sample(machines, changes), 1, seeded.now_ms)
        many = await _round(url, pid, conn, rng.sample(machines, changes), BROWSERS, seeded.now_ms)
    return one, many


async def _round(url: str, pid: int, conn: sqlite3.Connection, terminals: list[str], browsers: int, now_ms: int) -> Round:
    heard = Heard()
    async with AsyncExitStack() as stack:
        for number in range(browsers):
            await stack.enter_async_context(_browser(url, _account(number), heard))
        late: list[float] = []
        shown: list[float] = []
        spent_s, began_s = cpu_s(pid), time.monotonic()
        for terminal in terminals:
            turn_s = time.monotonic()
            _break(conn, terminal, now_ms)
            at_s = time.monotonic()
            await _all_show(heard, terminal)
            late += [one[terminal] - at_s for one in heard.news]
            shown += [one[terminal] - at_s for one in heard.shown]
            await asyncio.sleep(max(0.0, EVERY_S - (time.monotonic() - turn_s)))
        share = (cpu_s(pid) - spent_s) / (time.monotonic() - began_s)
        return Round(late, shown, share, memory_of(pid).resident)


async def _all_show(heard: Heard, terminal: str) -> None:
    await until(lambda: all(terminal in one for one in heard.shown), f"all browsers show {terminal}")


@asynccontextmanager
async def _browser(url: str, account: str, heard: Heard) -> AsyncIterator[None]:
    """An open overview: listens, and fetches what its page says is to be fetched when the counts change."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        await sign_in(client, account, PASSWORD)
        parts = LIVE_PART.findall((await client.get("/")).text)
        if not parts:
            raise RuntimeError("no part of the overview listens")
        connected = asyncio.Event()
        listening = asyncio.create_task(_listen(client, parts, heard, connected))
        try:
            await asyncio.wait_for(connected.wait(), 10)
            yield
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def _listen(client: httpx.AsyncClient, parts: list[str], heard: Heard, connected: asyncio.Event) -> None:
    news: dict[str, float] = {}
    shown: dict[str, float] = {}
    heard.news.append(news)
    heard.shown.append(shown)
    fetching: set[asyncio.Task[None]] = set()

    async def fetch(told: list[str]) -> None:
        for part in parts:
            (await client.get(part, headers={"HX-Request": "true", "X-Live": "1"})).raise_for_status()
        now_s = time.monotonic()
        for terminal in told:
            shown.setdefault(terminal, now_s)

    try:
        async with client.stream("GET", "/live", timeout=None) as stream:
            stream.raise_for_status()
            name = ""
            async for line in stream.aiter_lines():
                connected.set()
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: ") and name == "rows":
                    for terminal in re.findall(r'"([^"]+)"', line):
                        news.setdefault(terminal, time.monotonic())
                elif line.startswith("data:") and name == "counts":
                    task = asyncio.create_task(fetch(list(news)))
                    fetching.add(task)
                    task.add_done_callback(fetching.discard)
    finally:
        for task in fetching:
            task.cancel()
        await asyncio.gather(*fetching, return_exceptions=True)


def _break(conn: sqlite3.Connection, terminal: str, now_ms: int) -> None:
    """A mandatory printer jams: state, counts and the list of what needs a person change."""
    conn.execute("BEGIN IMMEDIATE")
    conn.execute(
        "INSERT INTO fault (id, terminal, slot, code, severity, mandatory, opened_ms, since_ms, disputed, late, source, false_alarm)"
        " VALUES (?, ?, 'receipt-printer', 'PRN.JAM', 'P2', 1, ?, ?, 0, 0, 'terminal', 0)",
        (f"{terminal}:{time.time_ns():016x}", terminal, now_ms, now_ms),
    )
    conn.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (?, ?, 'fault')", (now_ms, terminal))
    conn.execute("COMMIT")


def _account(number: int) -> str:
    return f"watcher-{number:02}"


def _at(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
