"""A console with a seeded database on a port of its own: for browser tests, and to look at (`python -m tests.support.console`)."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from fleet_server.app import create_app
from fleet_server.engine import FleetEngine
from fleet_server.settings import Settings, Web
from tests.support.contract import ROOT
from tests.support.seed import FLEET, NOW_MS, OPERATOR, PASSWORD, Seeded, quick_passwords, seed


def settings_for(folder: Path, *, demo: bool = False) -> Settings:
    settings = Settings(data_dir=folder, fleet=FLEET, web=Web(demo_speed=30 if demo else 0))
    settings.layout.make()
    return settings


def running_clock(start_ms: int = NOW_MS) -> Callable[[], int]:
    """A wall clock that says `start_ms` now and goes on from there."""
    begun = time.monotonic()
    return lambda: start_ms + int((time.monotonic() - begun) * 1000)


@contextmanager
def console_server(folder: Path, seeded: Seeded, *, port: int = 0, demo: bool = False) -> Iterator[str]:
    """The address of a running console over `seeded`."""
    engine = FleetEngine()
    engine.use(seeded.path)
    app = create_app(
        settings_for(folder, demo=demo),
        engine=engine,
        passwords=quick_passwords(),
        root=ROOT.verifier,
        now_ms=running_clock(seeded.now_ms),
    )
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_level="warning",
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=2,
        access_log=False,
    )
    server = uvicorn.Server(config)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve()), daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise RuntimeError("the console did not start")
        time.sleep(0.02)
    address = server.servers[0].sockets[0].getsockname()
    try:
        yield f"http://127.0.0.1:{address[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        loop.close()
        engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8088)
    parser.add_argument("--terminals", type=int, default=400)
    parser.add_argument("--demo", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeded = seed(folder / "fleet.sqlite", count=options.terminals)
        with console_server(folder, seeded, port=options.port, demo=options.demo) as url:
            print(f"{url}  {OPERATOR} / {PASSWORD}", flush=True)
            threading.Event().wait()


if __name__ == "__main__":
    main()
