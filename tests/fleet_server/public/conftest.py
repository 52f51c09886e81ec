"""The public face over a seeded database, without a socket."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet_server.db import open_raw
from fleet_server.public.__main__ import application
from fleet_server.public.app import PublicApp
from fleet_server.public.keeper import Keeper
from fleet_server.settings import Public, Settings
from tests.support.clock import HandClock
from tests.support.seed import NOW_MS, Seeded, seed

BASE = "http://public.test"
COUNT = 210


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    return seed(tmp_path_factory.mktemp("seed") / "fleet.sqlite", count=COUNT)


@pytest.fixture
def database(template: Seeded, tmp_path: Path) -> Path:
    path = tmp_path / "fleet.sqlite"
    shutil.copyfile(template.path, path)
    return path


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOW_MS)


Write = Callable[..., None]


@pytest.fixture
def write(database: Path) -> Write:
    """Run statements as another process would."""

    def run(*statements: str | tuple[str, tuple[Any, ...]]) -> None:
        with closing(open_raw(database)) as connection:
            for statement in statements:
                sql, values = statement if isinstance(statement, tuple) else (statement, ())
                connection.execute(sql, values)

    return run


@pytest.fixture
def keeper(database: Path, clock: HandClock) -> Iterator[Keeper]:
    made = Keeper(database, now_ms=clock)
    yield made
    made.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, public=Public(enabled=True))


@pytest.fixture
def app(keeper: Keeper, settings: Settings) -> PublicApp:
    return application(settings, keeper)


@pytest.fixture
async def citizen(app: PublicApp, keeper: Keeper) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody's browser; the view is read once."""
    await keeper.refresh()
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        yield client


def rows(database: Path, sql: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql, values).fetchall()
