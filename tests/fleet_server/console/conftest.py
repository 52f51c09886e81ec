"""A console over a seeded database, and the cast: operator, viewer, stranger."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar

from fleet_server.engine import FleetEngine
from tests.support.clock import HandClock
from tests.support.console import desk_for
from tests.support.person import BASE, running_at
from tests.support.person import Person as Person
from tests.support.seed import NOW_MS, OPERATOR, VIEWER, Seeded, seed

COUNT = 210


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    return seed(tmp_path_factory.mktemp("seed") / "fleet.sqlite", count=COUNT)


@pytest.fixture
def seeded(template: Seeded, tmp_path: Path) -> Seeded:
    """A copy of the seeded database that a test may change."""
    path = tmp_path / "fleet.sqlite"
    shutil.copyfile(template.path, path)
    return Seeded(path, template.machines, template.now_ms)


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOW_MS)


@pytest.fixture
def engine(seeded: Seeded) -> Iterator[FleetEngine]:
    engine = FleetEngine()
    engine.use(seeded.path)
    yield engine
    engine.close()


@pytest.fixture
async def app(seeded: Seeded, engine: FleetEngine, clock: HandClock, tmp_path: Path) -> AsyncIterator[Litestar]:
    async with running_at(desk_for(tmp_path, engine, clock)) as running:
        yield running


@pytest.fixture
async def new_person(app: Litestar) -> AsyncIterator[Callable[[], Person]]:
    """Further browsers on the one running console."""
    clients: list[httpx.AsyncClient] = []

    def make() -> Person:
        transport: Any = httpx.ASGITransport(app=app)  # type: ignore[arg-type]  # Litestar's scope type is its own
        clients.append(httpx.AsyncClient(transport=transport, base_url=BASE, follow_redirects=False))
        return Person(clients[-1])

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
async def operator(new_person: Callable[[], Person]) -> Person:
    person = new_person()
    await person.sign_in(OPERATOR)
    return person


@pytest.fixture
async def viewer(new_person: Callable[[], Person]) -> Person:
    person = new_person()
    await person.sign_in(VIEWER)
    return person


@pytest.fixture
def stranger(new_person: Callable[[], Person]) -> Person:
    return new_person()
