"""Duties: each in its own turn, woken by others' writes, one that fails does not end the rest."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from fleet_server.channel import transact
from fleet_server.db import open_raw
from fleet_server.dispatch import duties
from fleet_server.dispatch.duties import Duty, Runner
from fleet_server.errors import SettingsError
from tests.support.waiting import until


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "some.sqlite"
    with closing(open_raw(path)) as connection:
        connection.execute("CREATE TABLE thing (n)")
    return path


@asynccontextmanager
async def running(database: Path, some: Sequence[Duty], status: Path | None = None) -> AsyncIterator[Runner]:
    runner = Runner(database, some, lambda: 1_000, status)
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def write(database: Path) -> None:
    with closing(open_raw(database)) as connection:
        transact(connection, lambda inside: inside.execute("INSERT INTO thing VALUES (1)"))


async def test_a_duty_is_woken_by_a_write_of_somebody_else_and_not_by_its_own(database: Path) -> None:
    seen: list[int] = []

    def step(connection: sqlite3.Connection, now_ms: int) -> bool:
        seen.append(connection.execute("SELECT count(*) FROM thing").fetchone()[0])
        connection.execute("DELETE FROM thing")
        return False

    async with running(database, [Duty(name="a", step=step, every_s=3600)]) as runner:
        await until(lambda: len(seen) == 1, "its first step")
        write(database)
        await until(lambda: len(seen) == 2, "the write")
        write(database)
        await until(lambda: len(seen) == 3, "the next write")
        assert seen == [0, 1, 1]
        assert runner.standing["a"].steps >= 2


async def test_a_duty_of_time_alone_is_not_woken(database: Path) -> None:
    quiet: list[int] = []
    woken: list[int] = []

    def counting(steps: list[int]) -> Callable[[sqlite3.Connection, int], bool]:
        def step(connection: sqlite3.Connection, now_ms: int) -> bool:
            steps.append(now_ms)
            return False

        return step

    some = [
        Duty(name="quiet", step=counting(quiet), every_s=3600, wakes=False),
        Duty(name="woken", step=counting(woken), every_s=3600),
    ]
    async with running(database, some):
        await until(lambda: len(quiet) == 1 and len(woken) == 1, "their first steps")
        write(database)
        await until(lambda: len(woken) == 2, "the write")
        assert len(quiet) == 1


async def test_more_to_do_is_done_at_once(database: Path) -> None:
    left = [5]

    def step(connection: sqlite3.Connection, now_ms: int) -> bool:
        left[0] -= 1
        return left[0] > 0

    async with running(database, [Duty(name="a", step=step, every_s=3600)]):
        await until(lambda: left[0] == 0, "all of it")


async def test_one_that_fails_is_tried_again_and_the_others_go_on(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(duties, "FAILED_PAUSE_S", 0.01)
    monkeypatch.setattr(duties, "STATUS_EVERY_S", 0.01)
    fails, good = [6], []

    def failing(connection: sqlite3.Connection, now_ms: int) -> bool:
        if fails[0]:
            fails[0] -= 1
            connection.execute("BEGIN IMMEDIATE")  # left open by whatever went wrong
            raise SettingsError("the key is not there")
        return False

    def fine(connection: sqlite3.Connection, now_ms: int) -> bool:
        connection.execute("INSERT INTO thing VALUES (2)")
        good.append(1)
        return False

    status = tmp_path / "dispatch.json"
    some = [Duty(name="bad", step=failing, every_s=0.01), Duty(name="good", step=fine, every_s=0.01)]

    def told() -> dict[str, object]:
        found: dict[str, object] = json.loads(status.read_text()) if status.exists() else {}
        return found

    async with running(database, some, status) as runner:
        await until(lambda: fails[0] == 0 and len(good) > 3, "both")
        await until(lambda: runner.standing["bad"].steps > 0, "it works again")
        await until(lambda: told().get("duties", {}).get("bad", {}).get("done_ms") == 1_000, "the status says so")  # type: ignore[attr-defined]
    assert caplog.text.count("the key is not there") == 1
    assert told()["at_ms"] == 1_000
    assert runner.standing["bad"].error == ""


async def test_an_error_that_nobody_expected_is_named_by_its_place_only(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(duties, "FAILED_PAUSE_S", 0.01)

    def step(connection: sqlite3.Connection, now_ms: int) -> bool:
        raise KeyError("something a terminal sent")

    async with running(database, [Duty(name="a", step=step)]) as runner:
        await until(lambda: runner.standing["a"].error, "it failed")
    assert "something a terminal sent" not in caplog.text
    assert runner.standing["a"].error.startswith("KeyError at ")
