"""Rows: what a wallboard's page keeps after 24 hours, beside what it kept after the first, and beside a page that does nothing.

The browser's clock is made to run (Playwright's clock): a day of turning views takes minutes. Everything else is real: the console in a process of
its own, a database that changes with each step, the page's own requests. Only the event stream is played by the bench: a real one keeps real time.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import CDPSession, Page, sync_playwright

from fleet_server.accounts.passwords import new_token, token_hash
from fleet_server.db import open_raw
from tests.bench.pages import console_process
from tests.bench.table import Budget, Row
from tests.support.seed import DAY, HOUR, Seeded, seed

TERMINALS: Final = 400
TURN_S: Final = 20
HOURS: Final = 24
LOOKED_AT: Final = (1, 6, 12, 18, HOURS)
"""Hours at whose end the heap is read."""
MOST_GROWTH: Final = 1.15
CHROMIUM: Final = "/usr/bin/chromium"
FLAGS: Final = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--js-flags=--expose-gc"]
# A stream whose events the bench says, and requests that can be waited for.
PLAYED: Final = """
(() => {
  const open = new Set();
  window.EventSource = class extends EventTarget {
    constructor() { super(); this.readyState = 1; open.add(this); Promise.resolve().then(() => { if (this.onopen) this.onopen(); }); }
    close() { this.readyState = 2; open.delete(this); }
  };
  window.EventSource.CLOSED = 2;
  window.tell = (name, data) => { for (const source of open) source.dispatchEvent(new MessageEvent(name, { data })); };
  const waiting = new Set();
  const fetched = window.fetch.bind(window);
  window.asked = 0;
  window.fetch = (...how) => {
    window.asked += 1;
    const answer = fetched(...how);
    const done = answer.then((found) => found.clone().arrayBuffer(), () => {}).then(() => {}).finally(() => waiting.delete(done));
    waiting.add(done);
    return answer;
  };
  window.settled = async () => { while (waiting.size) await Promise.allSettled([...waiting]); await Promise.resolve(); };
})();
"""
NOTHING: Final = (
    "<!doctype html><title>nothing</title><p id=clock></p><script>setInterval(() => {"
    " document.getElementById('clock').textContent = new Date().toISOString(); }, 1000);</script>"
)


@dataclass(frozen=True)
class Kept:
    """What a page holds after a collection."""

    heap_mib: float
    nodes: int
    listeners: int


@dataclass(frozen=True)
class Watched:
    """A page at the ends of some hours, the first and the last among them."""

    at: dict[int, Kept]

    @property
    def first(self) -> Kept:
        return self.at[1]

    @property
    def last(self) -> Kept:
        return self.at[HOURS]

    @property
    def heaps(self) -> str:
        """A heap that grows and stops is a cache, one that grows evenly is a leak."""
        return ", ".join(f"{kept.heap_mib:.2f} at {hour} h" for hour, kept in self.at.items())


def rows(*, step_s: int) -> list[Row]:
    """`step_s`: simulated seconds from one change of the data to the next."""
    with tempfile.TemporaryDirectory(prefix="kiosk-fleet-bench-") as folder:
        path = Path(folder) / "fleet.sqlite"
        seeded = seed(path, count=TERMINALS)
        token = _hang(path, seeded)
        began_s = time.monotonic()
        with console_process(path, seeded.now_ms) as (url, _):
            wall, nothing, asked = _day(path, seeded, f"{url}/wall#{token}", step_s)
        took_s = time.monotonic() - began_s
    steps = HOURS * 3600 // step_s
    turns = HOURS * 3600 // TURN_S
    day = (
        f"{HOURS} simulated hours in {took_s:.0f} s: {steps:,} changes of the fleet's data, {turns:,} turns of five views with the map among"
        f" them, {asked:,} requests. Heap in MiB after a forced collection: {wall.heaps}; listeners {wall.first.listeners} and"
        f" {wall.last.listeners}."
    )
    calm = f"A page with a clock and nothing else, in the same browser: {nothing.heaps}; nodes {nothing.first.nodes} and {nothing.last.nodes}."
    budget = (Budget(rule="at_most", limit=MOST_GROWTH, of="ratio"),)
    return [
        Row(
            what="Wallboard: JavaScript heap after 24 hours",
            ours=wall.last.heap_mib,
            unit="MiB",
            beside="the same page after 1 hour",
            peer=wall.first.heap_mib,
            budgets=budget,
            notes=(day, calm),
        ),
        Row(
            what="Wallboard: DOM nodes after 24 hours",
            ours=float(wall.last.nodes),
            unit="nodes",
            beside="the same page after 1 hour",
            peer=float(wall.first.nodes),
            budgets=budget,
        ),
        Row(
            what="Wallboard: JavaScript heap after 24 hours",
            ours=wall.last.heap_mib,
            unit="MiB",
            beside="a page that does nothing",
            peer=nothing.last.heap_mib,
        ),
    ]


def _hang(path: Path, seeded: Seeded) -> str:
    token = new_token()
    with closing(open_raw(path)) as connection:
        connection.execute(
            "INSERT INTO wallboard (name, token_hash, lang, views, interval_s, created_ms, created_by, expires_ms)"
            " VALUES ('bench', ?, 'zh', 'now,needs,map,areas,usage', ?, ?, 'bench', ?)",
            (token_hash(token), TURN_S, seeded.now_ms, seeded.now_ms + 30 * DAY),
        )
    return token


def _day(path: Path, seeded: Seeded, address: str, step_s: int) -> tuple[Watched, Watched, int]:
    machines = [machine.id for machine in seeded.machines if machine.fate == "online"]
    with sync_playwright() as playwright, closing(open_raw(path)) as connection:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            pages = []
            for _ in range(2):
                context = browser.new_context(viewport={"width": 1920, "height": 1080}, timezone_id="Asia/Shanghai")
                context.clock.install(time=seeded.now_ms / 1000)
                page = context.new_page()
                pages.append((page, context.new_cdp_session(page)))
            (wall, _), (nothing, _) = pages
            wall.add_init_script(PLAYED)
            wall.goto(address)
            wall.wait_for_selector("#name")
            wall.evaluate("() => window.settled()")
            nothing.set_content(NOTHING)
            kept: list[dict[int, Kept]] = [{}, {}]
            for step in range(HOURS * 3600 // step_s):
                _change(connection, machines, step, seeded.now_ms)
                wall.evaluate("() => { tell('tick', String(Date.now())); tell('changed', ''); }")
                _pass(wall, step_s)
                nothing.clock.run_for(step_s * 1000)
                hour, rest = divmod((step + 1) * step_s, 3600)
                if rest == 0 and hour in LOOKED_AT:
                    for found, (page, cdp) in zip(kept, pages, strict=True):
                        found[hour] = _kept(page, cdp)
            if wall.locator("#over").is_visible() or wall.locator("#view-now").count() != 1:
                raise RuntimeError("the wallboard stopped showing its views")
            asked = int(wall.evaluate("() => window.asked"))
            return Watched(kept[0]), Watched(kept[1]), asked
        finally:
            browser.close()


def _pass(page: Page, step_s: int) -> None:
    """Let the page live so long: at most a turn at once, and its requests answered before it goes on."""
    left_s = step_s
    while left_s > 0:
        some_s = min(left_s, TURN_S)
        page.clock.run_for(some_s * 1000)
        page.evaluate("() => window.settled()")
        page.evaluate("() => tell('tick', String(Date.now()))")
        left_s -= some_s


def _kept(page: Page, cdp: CDPSession) -> Kept:
    cdp.send("Performance.enable")
    for _ in range(3):
        cdp.send("HeapProfiler.collectGarbage")
    found: dict[str, Any] = {item["name"]: item["value"] for item in cdp.send("Performance.getMetrics")["metrics"]}
    return Kept(found["JSHeapUsedSize"] / 2**20, int(found["Nodes"]), int(found["JSEventListeners"]))


def _change(connection: sqlite3.Connection, machines: list[str], step: int, now_ms: int) -> None:
    """One terminal goes offline, and one that did ten steps ago comes back: rows, counts, shades and marks all change."""
    connection.execute("BEGIN IMMEDIATE")
    for back, state in ((0, "offline"), (10, "online")):
        if step < back:
            continue
        terminal = machines[(step - back) * 7 % len(machines)]
        connection.execute("DELETE FROM presence WHERE terminal = ? AND to_ms IS NULL", (terminal,))
        connection.execute(
            "INSERT INTO presence (terminal, from_ms, to_ms, state, cause) VALUES (?, ?, NULL, ?, 'silence')",
            (terminal, now_ms - HOUR, state),
        )
        connection.execute("INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'presence', NULL)", (now_ms, terminal))
    connection.execute("COMMIT")
