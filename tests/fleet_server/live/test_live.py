"""The event stream: what changed reaches a listener within a second, nothing is told twice, nobody slow holds others up."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest

from fleet_server.console.fleet import FleetView
from fleet_server.engine import DatabaseClosed, FleetEngine
from fleet_server.live.backlog import END_BATCHES, START_BATCHES, Backlog, BacklogMeter, Load
from fleet_server.live.diff import Look, news
from fleet_server.live.hub import PER_SESSION_MAX, QUEUE, Hub, encode
from tests.support.clock import HandClock
from tests.support.seed import NOW_MS, Seeded, seed

ZONE = "Asia/Shanghai"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    return seed(tmp_path_factory.mktemp("seed") / "fleet.sqlite", count=60, accounts=False)


@pytest.fixture
def engine(template: Seeded, tmp_path: Path) -> Iterator[FleetEngine]:
    shutil.copyfile(template.path, tmp_path / "fleet.sqlite")
    engine = FleetEngine()
    engine.use(tmp_path / "fleet.sqlite")
    yield engine
    engine.close()


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOW_MS)


@pytest.fixture
def view(engine: FleetEngine, clock: HandClock) -> FleetView:
    return FleetView(engine, now_ms=clock, zone=ZONE)


@pytest.fixture
async def hub(view: FleetView, engine: FleetEngine, clock: HandClock, tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(view, engine, now_ms=clock, run_dir=tmp_path)
    yield hub
    await hub.close()


def open_fault(terminal: str, code: str = "PRN.JAM", key: str = "aa") -> Callable[[sqlite3.Connection], None]:
    def write(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO fault (id, terminal, slot, code, severity, mandatory, opened_ms, since_ms, disputed, late, source, false_alarm)"
            " VALUES (?, ?, 'receipt-printer', ?, 'P2', 1, ?, ?, 0, 0, 'terminal', 0)",
            (f"{terminal}:{key}", terminal, code, NOW_MS, NOW_MS),
        )
        connection.execute(
            "INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'fault', ?)", (NOW_MS, terminal, f"{terminal}:{key}")
        )

    return write


def clear_fault(terminal: str, key: str) -> Callable[[sqlite3.Connection], None]:
    def write(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE fault SET cleared_ms = 1 WHERE id = ?", (f"{terminal}:{key}",))
        connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (1, ?, 'fault')", (terminal,))

    return write


def read(message: bytes) -> tuple[str, str]:
    fields = dict(line.split(": ", 1) for line in message.decode().strip().split("\n") if ": " in line)
    return fields.get("event", ""), fields.get("data", "")


async def until(messages: Any, name: str, deadline_s: float = 10.0) -> str:
    """Data of the next event called `name`."""
    async with asyncio.timeout(deadline_s):
        async for message in messages:
            event, data = read(message)
            if event == name:
                return data
    raise AssertionError(f"the stream ended before {name}")


async def test_a_fault_reaches_a_listener_within_a_second_of_its_commit(hub: Hub, engine: FleetEngine) -> None:
    async with aclosing(hub.listen(None)) as messages:
        await until(messages, "tick")
        committed_s = time.monotonic()
        await engine.write(open_fault("kf-0001"))
        assert json.loads(await until(messages, "rows")) == ["kf-0001"]
        assert time.monotonic() - committed_s < 1.0
        await until(messages, "counts")
        assert json.loads(await until(messages, "touched")) == ["kf-0001"]


@pytest.mark.parametrize("kind", ["order", "rollout", "update"])
async def test_news_of_orders_and_updates_reach_their_pages(hub: Hub, engine: FleetEngine, kind: str) -> None:
    async with aclosing(hub.listen(None)) as messages:
        await until(messages, "tick")
        await engine.write(
            lambda connection: connection.execute(
                "INSERT INTO change (at_ms, terminal, kind) VALUES (?, NULL, ?)", (NOW_MS, kind)
            )
        )
        assert await until(messages, "orders") == ""


async def test_a_critical_fault_is_said_aloud_once_in_both_languages(hub: Hub, engine: FleetEngine) -> None:
    async with aclosing(hub.listen(None)) as messages:
        await until(messages, "tick")
        await engine.write(open_fault("kf-0001"))
        assert json.loads(await until(messages, "alarm")) == [
            {"label": "KF-0001", "zh": "凭条打印机卡纸", "en": "Receipt printer jammed"}
        ]


async def test_a_heartbeat_moves_ages_and_no_rows(hub: Hub, engine: FleetEngine, clock: HandClock) -> None:
    async with aclosing(hub.listen(None)) as messages:
        await until(messages, "tick")
        await engine.write(
            lambda connection: connection.execute(
                "UPDATE terminal_live SET last_seen_ms = ? WHERE terminal = 'kf-0001'", (NOW_MS + 5000,)
            )
        )
        clock.now_ms += 6000
        seen: list[str] = []
        async with asyncio.timeout(10):
            async for message in messages:
                name, data = read(message)
                seen.append(name)
                if name == "ages":
                    assert json.loads(data)["kf-0001"][1] == NOW_MS + 5000
                    break
        assert "rows" not in seen
        assert "counts" not in seen


async def test_silence_shows_by_time_alone(hub: Hub, engine: FleetEngine, clock: HandClock) -> None:
    """Maintenance that ends writes nothing anywhere."""
    await engine.write(
        lambda connection: connection.execute(
            "UPDATE terminal SET maintenance_until_ms = ? WHERE id = 'kf-0001'", (NOW_MS + 60_000,)
        )
    )
    async with aclosing(hub.listen(None)) as messages:
        await until(messages, "tick")
        clock.now_ms += 61_000
        assert json.loads(await until(messages, "rows")) == ["kf-0001"]


async def test_a_listener_that_comes_back_is_told_to_read_its_view_again(hub: Hub, engine: FleetEngine, view: FleetView) -> None:
    now = str((await view.current()).change_id)
    async with aclosing(hub.listen(now)) as messages:
        first = [read(await anext(messages))[0] for _ in range(2)]
        assert first == ["", "tick"]
        await engine.write(open_fault("kf-0001"))
        assert await until(messages, "rows")
    async with aclosing(hub.listen(now)) as messages:
        assert [read(await anext(messages))[0] for _ in range(3)] == ["", "tick", "resync"]


async def test_a_slow_listener_loses_events_but_never_the_truth(hub: Hub) -> None:
    async with aclosing(hub.listen(None)) as slow:
        await anext(slow)
        for n in range(QUEUE * 3):
            hub._broadcast(encode("rows", "[]", n))
        names = []
        async with asyncio.timeout(5):
            async for message in slow:
                names.append(read(message)[0])
                if names[-1] == "resync":
                    break
        assert len(names) < QUEUE * 2


async def test_a_storm_is_a_few_events(hub: Hub, engine: FleetEngine) -> None:
    async with aclosing(hub.listen(None)) as messages:
        await until(messages, "tick")
        for n in range(1, 41):
            await engine.write(open_fault(f"kf-{n:04d}", key=f"s{n}"))
        told: set[str] = set()
        events = 0
        async with asyncio.timeout(15):
            while len(told) < 40:
                told |= set(json.loads(await until(messages, "rows")))
                events += 1
        assert told == {f"kf-{n:04d}" for n in range(1, 41)}
        assert events <= 20


async def test_the_poller_rests_while_nobody_listens(hub: Hub) -> None:
    assert hub._task is None
    async with aclosing(hub.listen(None)) as messages:
        await until(messages, "tick")
        assert hub.listeners == 1
        task = hub._task
        assert task is not None
    assert hub.listeners == 0
    async with asyncio.timeout(5):
        await task
    async with aclosing(hub.listen(None)) as messages:
        await until(messages, "tick")


async def test_a_session_has_room_for_a_few_streams_and_gets_it_back(hub: Hub) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(PER_SESSION_MAX):
            assert hub.has_room("one")
            messages = await stack.enter_async_context(aclosing(hub.listen(None, "one")))
            await until(messages, "tick")
        assert not hub.has_room("one")
        assert hub.has_room("other")
    assert hub.has_room("one")
    assert hub.listeners == 0


async def test_all_sessions_together_have_a_limit_too(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet_server.live.hub.LISTENERS_MAX", 2)
    async with aclosing(hub.listen(None, "one")) as one, aclosing(hub.listen(None)) as two:
        await until(one, "tick")
        assert hub.has_room("third")
        await until(two, "tick")
        assert not hub.has_room("third")
    assert hub.has_room("third")


async def test_a_stream_that_cannot_begin_takes_no_room(hub: Hub, engine: FleetEngine) -> None:
    engine.close()
    with pytest.raises(DatabaseClosed):
        await anext(hub.listen(None, "one"))
    assert hub.listeners == 0


async def test_closing_ends_every_stream(hub: Hub) -> None:
    async with aclosing(hub.listen(None)) as one, aclosing(hub.listen(None)) as two:
        await anext(one)
        await anext(two)
        await hub.close()
        async with asyncio.timeout(5):
            for stream in (one, two):
                async for _ in stream:
                    pass


async def test_a_database_that_fails_for_a_moment_does_not_end_the_stream(
    hub: Hub, engine: FleetEngine, view: FleetView, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = view.current
    failures = iter([sqlite3.OperationalError("database is locked")])

    async def flaky() -> Any:
        if (error := next(failures, None)) is not None:
            raise error
        return await original()

    async with aclosing(hub.listen(None)) as messages:
        await until(messages, "tick")
        monkeypatch.setattr(view, "current", flaky)
        await engine.write(open_fault("kf-0001"))
        assert json.loads(await until(messages, "rows")) == ["kf-0001"]


# Comparing --------------------------------------------------------------------------------------------------------------------------------


async def test_nothing_changed_is_no_news(view: FleetView, clock: HandClock) -> None:
    old = Look.at(await view.current())
    clock.now_ms += 1500
    new = Look.at(await view.current())
    assert new.fleet is not old.fleet
    found = news(old, new, [])
    assert (found.rows, found.counts, found.platform, found.alarms, found.ages) == (set(), False, False, [], {})


async def test_stream_and_query_agree(view: FleetView, engine: FleetEngine, clock: HandClock) -> None:
    """Following hints must end where a fresh look at the database begins."""
    await view.current()
    for n in range(1, 30):
        await engine.write(open_fault(f"kf-{n:04d}", key=f"k{n}"))
        if n % 3 == 0:
            await engine.write(clear_fault(f"kf-{n:04d}", f"k{n}"))
        await view.current()
    followed = await view.current()
    fresh = await FleetView(engine, now_ms=clock, zone=ZONE).current()
    assert followed.terminals == fresh.terminals
    assert [row.faults for row in followed.terminals] == [row.faults for row in fresh.terminals]


async def test_a_trimmed_change_table_is_no_trap(view: FleetView, engine: FleetEngine) -> None:
    before = await view.current()
    await engine.write(lambda connection: connection.execute("DELETE FROM change"))
    await engine.write(open_fault("kf-0001"))
    after = await view.current()
    assert after.by_id["kf-0001"].faults
    assert after.change_id != before.change_id


# Backlog ----------------------------------------------------------------------------------------------------------------------------------


def test_ordinary_life_shows_no_bar() -> None:
    meter = BacklogMeter()
    for second in range(60):
        assert meter.update(second * 1000, waiting=START_BATCHES - 1, batches=30, records=60) is None


def test_a_backlog_shows_how_far_and_how_fast() -> None:
    meter = BacklogMeter()
    waiting, shown = 1000, []
    for second in range(100):
        bar = meter.update(second * 1000, waiting=waiting, batches=10 if second else 0, records=1000 if second else 0)
        shown.append(bar)
        waiting = max(0, waiting - 10)
    assert shown[0] == Backlog(0, 0)
    assert shown[50] == Backlog(50, 1000)
    percents = [bar.percent for bar in shown if bar]
    assert percents == sorted(percents)
    assert max(percents) <= 99
    assert shown[-1] is None
    assert waiting <= END_BATCHES


def test_an_announced_import_is_shown_until_it_is_done() -> None:
    meter = BacklogMeter()
    assert meter.update(0, waiting=0, batches=0, records=0, load=Load(0, 500_000)) == Backlog(0, 0)
    assert meter.update(1000, waiting=3, batches=12, records=1204, load=Load(310_000, 500_000)) == Backlog(62, 1204)
    assert meter.update(2000, waiting=3, batches=12, records=1204, load=Load(499_999, 500_000)) == Backlog(99, 1204)
    assert meter.update(3000, waiting=0, batches=0, records=0, load=Load(500_000, 500_000)) is None


async def test_an_announced_import_reaches_the_page(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text('{"done": 5, "total": 10}')
    async with aclosing(hub.listen(None)) as messages:
        await until(messages, "platform")
        assert hub.backlog == Backlog(50, 0)
        (tmp_path / "history.json").write_text("not json")
        await until(messages, "platform")
        assert hub.backlog is None
