"""A console with a seeded database on a port of its own: for browser tests, and to look at (`python -m tests.support.console`)."""

from __future__ import annotations

import argparse
import asyncio
import functools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import uvicorn
from litestar import Litestar

from fleet_server.app import app_at, make_desk
from fleet_server.console import i18n
from fleet_server.console.desk import Desk
from fleet_server.console.render import Renderer
from fleet_server.db import open_raw
from fleet_server.engine import FleetEngine
from fleet_server.settings import Settings, Web
from tests.support.content_seed import seed_content
from tests.support.contract import ROOT
from tests.support.orders import seed_orders
from tests.support.seed import FLEET, NOW_MS, OPERATOR, PASSWORD, Seeded, quick_passwords, seed
from tests.support.updates_seed import seed_updates

START_WITHIN_S = 20


def settings_for(folder: Path, *, demo: bool = False) -> Settings:
    settings = Settings(data_dir=folder, fleet=FLEET, web=Web(demo_speed=30 if demo else 0))
    settings.layout.make()
    return settings


@functools.cache
def render() -> Renderer:
    """The console's templates, each compiled once for all tests of a process."""
    return Renderer(i18n.load_all())


def desk_for(folder: Path, engine: FleetEngine, now_ms: Callable[[], int], *, demo: bool = False) -> Desk:
    settings = settings_for(folder, demo=demo)
    return make_desk(settings, engine, quick_passwords(), render=render(), root=ROOT.verifier, now_ms=now_ms)


def running_clock(start_ms: int = NOW_MS) -> Callable[[], int]:
    """A wall clock that says `start_ms` now and goes on from there."""
    begun = time.monotonic()
    return lambda: start_ms + int((time.monotonic() - begun) * 1000)


class Console:
    """A console in a thread of its own. It can be stopped and started again on the same port, as after a restart."""

    def __init__(self, folder: Path, seeded: Seeded, *, port: int = 0, demo: bool = False) -> None:
        self._folder, self._seeded, self._port, self._demo = folder, seeded, port, demo
        self._clock = running_clock(seeded.now_ms)
        self._engine: FleetEngine | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.app: Litestar | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def streams(self) -> int:
        """Open event streams."""
        assert self.app is not None
        return int(self.app.state.desk.hub.listeners)

    def start(self) -> None:
        self._engine = FleetEngine()
        self._engine.use(self._seeded.path)
        self.app = app_at(desk_for(self._folder, self._engine, self._clock, demo=self._demo))
        config = uvicorn.Config(
            self.app,
            host="127.0.0.1",
            port=self._port,
            log_level="warning",
            ws="none",
            timeout_graceful_shutdown=1,
            access_log=False,
        )
        self._server = server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
        self._thread.start()
        deadline_s = time.monotonic() + START_WITHIN_S
        while not server.started:
            if time.monotonic() > deadline_s or not self._thread.is_alive():
                raise RuntimeError("the console did not start")
            time.sleep(0.02)
        self._port = server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        assert self._server is not None
        assert self._thread is not None
        assert self._engine is not None
        self._server.should_exit = True
        self._thread.join(START_WITHIN_S)
        self._engine.close()


@contextmanager
def console_server(folder: Path, seeded: Seeded, *, port: int = 0, demo: bool = False) -> Iterator[Console]:
    """A running console over `seeded`."""
    console = Console(folder, seeded, port=port, demo=demo)
    console.start()
    try:
        yield console
    finally:
        console.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8088)
    parser.add_argument("--terminals", type=int, default=400)
    parser.add_argument("--demo", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeded = seed(folder / "fleet.sqlite", count=options.terminals)
        with closing(open_raw(seeded.path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            seed_orders(connection, seeded.now_ms)
            connection.execute("COMMIT")
        seed_updates(seeded.path, seeded.now_ms)
        seed_content(seeded.path, seeded.now_ms)
        with console_server(folder, seeded, port=options.port, demo=options.demo) as console:
            print(f"{console.url}  {OPERATOR} / {PASSWORD}", flush=True)
            threading.Event().wait()


if __name__ == "__main__":
    main()
