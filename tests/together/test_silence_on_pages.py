"""What pages say when nobody is heard: the broker is down, a site is without power, a hall is closed. Watch and pages share one moved clock."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from fleet_server.console import i18n
from fleet_server.db import open_raw
from fleet_server.presence.watch import PresenceWatch
from tests.support.person import Person, operator_of
from tests.support.seed import DAY, HOUR, MINUTE, NOW_MS, ZONE, Seeded, seed

STEP_MS = 5_000
BEAT_MS = 30_000
COUNT = 60
POWERLESS = "jindong-hall"
SAY = i18n.load("zh")


class Heard:
    """Terminals that beat, a watch that listens as ingest lets it, and the clock of both and of the pages."""

    def __init__(self, seeded: Seeded, connection: sqlite3.Connection) -> None:
        self.seeded, self.connection, self.now_ms = seeded, connection, seeded.now_ms
        self.terminals = [machine.id for machine in seeded.machines if machine.fate != "notEnrolled"]
        self.watch = PresenceWatch.load(connection, self.now_ms)
        self.watch.broker(True, self.now_ms)
        self.broker_up = True

    def run(self, span_ms: int, *, silent: frozenset[str] = frozenset()) -> None:
        for _ in range(span_ms // STEP_MS):
            self.now_ms += STEP_MS
            if self.broker_up and self.now_ms // STEP_MS % (BEAT_MS // STEP_MS) == 0:
                for terminal in self.terminals:
                    if terminal not in silent:
                        self.watch.heard(terminal, "heartbeat", self.now_ms, depth=0)
            self.watch.keep(self.connection, self.now_ms)

    def broker(self, up: bool) -> None:
        self.broker_up = up
        self.watch.broker(up, self.now_ms)

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        return self.connection.execute(sql).fetchall()


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Heard]:
    """Everybody is there, has been for days, and has no fault."""
    seeded = seed(tmp_path / "fleet.sqlite", count=COUNT, days=10)
    with closing(open_raw(seeded.path)) as connection:
        connection.execute("DELETE FROM fault")
        connection.execute("DELETE FROM presence")
        connection.execute("DELETE FROM platform_gap")
        connection.execute("UPDATE terminal_live SET last_seen_ms = ?, connected = 1", (NOW_MS,))
        connection.execute("UPDATE terminal SET site = ? WHERE id <= 'kf-0007'", (POWERLESS,))
        connection.execute("UPDATE terminal SET maintenance_until_ms = NULL")
        connection.execute(
            "INSERT INTO presence (terminal, from_ms, to_ms, state, cause) SELECT id, ?, NULL, 'online', 'birth' FROM terminal",
            (NOW_MS - 10 * DAY,),
        )
        made = Heard(seeded, connection)
        made.run(3 * MINUTE)
        yield made


async def listed(person: Person, state: str) -> set[str]:
    return set(re.findall(r'<tr [^>]*id="row-([^"]+)"', await person.get(f"/terminals?state={state}")))


async def tile(person: Person, name: str) -> int:
    found = re.search(rf'data-tile="{name}">\s*([\d,]+)', await person.get("/"))
    assert found
    return int(found.group(1))


async def month_of(person: Person, terminal: str) -> str:
    """The sentence on availability and downtime of this month."""
    found = re.search(r"11 月：可用率 [\d.]+ %[^。]*。", await person.seen(f"/terminals/{terminal}"))
    assert found
    return found.group()


def local_time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, ZONE).strftime("%H:%M:%S")


async def test_a_broker_that_is_down_makes_nobody_offline_and_costs_no_availability(heard: Heard, tmp_path: Path) -> None:
    async with operator_of(heard.seeded.path, tmp_path, lambda: heard.now_ms) as person:
        before = await month_of(person, "kf-0003")
        assert await tile(person, "online") == COUNT
        down_ms = heard.now_ms
        heard.broker(False)
        heard.run(2 * MINUTE)
        assert await tile(person, "offline") == 0
        assert await tile(person, "total") == COUNT
        assert len(await listed(person, "UNKNOWN")) > 0
        assert await listed(person, "OFFLINE") == set()
        page = await person.seen("/")
        assert SAY("platform.blind.broker", time=local_time(down_ms)) in page
        assert SAY("needs.none") in page
        heard.broker(True)
        heard.run(3 * MINUTE)
        assert await tile(person, "online") == COUNT
        assert await listed(person, "UNKNOWN") == set()
        assert await month_of(person, "kf-0003") == before
    assert heard.rows("SELECT count(*) FROM fault") == [(0,)]
    assert heard.rows("SELECT count(*) FROM presence WHERE state IN ('offline', 'suspect')") == [(0,)]
    assert heard.rows("SELECT cause, to_ms IS NULL FROM platform_gap") == [("broker", 0)]
    (from_ms,) = heard.rows("SELECT from_ms FROM platform_gap")[0]
    assert from_ms == down_ms


async def test_a_site_without_power_is_one_row(heard: Heard, tmp_path: Path) -> None:
    silent = frozenset(f"kf-000{n}" for n in range(1, 8))
    heard.run(16 * MINUTE, silent=silent)
    async with operator_of(heard.seeded.path, tmp_path, lambda: heard.now_ms) as person:
        assert await tile(person, "offline") == len(silent)
        assert await listed(person, "OFFLINE") == silent
        needs = await person.get("/parts/needs")
        rows = re.findall(r'<tr [^>]*data-severity="[^>]*>.*?</tr>', needs, re.DOTALL)
        assert len(rows) == 1
        assert SAY("needs.groupOffline", n=len(silent)) in rows[0]
        assert "金东行政服务中心" in rows[0]
        heard.run(2 * MINUTE)
        assert SAY("needs.none") in await person.seen("/")
        assert await tile(person, "offline") == 0


async def test_at_eleven_at_night_a_closed_hall_is_closed_and_a_silent_24_hour_zone_is_offline(
    heard: Heard, tmp_path: Path
) -> None:
    with_power = {machine.id: machine for machine in heard.seeded.machines if machine.id > "kf-0007"}
    halls = {one.id for one in with_power.values() if one.kind == "hall"}
    zone = next(one.id for one in with_power.values() if one.kind == "zone24")
    assert halls
    heard.run(12 * HOUR - (heard.now_ms - NOW_MS) - 10 * MINUTE)  # half past ten
    heard.run(28 * MINUTE, silent=frozenset({*halls, zone}))
    async with operator_of(heard.seeded.path, tmp_path, lambda: heard.now_ms) as person:
        assert await listed(person, "CLOSED") == halls
        assert await listed(person, "OFFLINE") == {zone}
        assert SAY("state.closed") in await person.seen(f"/terminals/{min(halls)}")
        page = await person.seen(f"/terminals/{zone}")
        assert SAY("state.offline") in page
        needs = await person.seen("/parts/needs")
        assert zone.upper() in needs
        assert [hall for hall in halls if hall.upper() in needs] == []
