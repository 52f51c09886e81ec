"""`python -m fleet_server.public`: the citizens' pages as a process of their own, started and watched by the supervisor."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress

from fleet_server.processes import start_logging
from fleet_server.public.app import PublicApp
from fleet_server.public.keeper import Keeper
from fleet_server.public.listener import server
from fleet_server.public.render import Pages, static_files
from fleet_server.settings import Settings, load

NICENESS = 10
"""Operators and records come first: beside a busy ingest the public face takes what is left of the processors."""


def application(settings: Settings, keeper: Keeper, *, keep: bool = True) -> PublicApp:
    static = static_files()
    public = settings.public
    pages = Pages(
        zone=settings.timezone, title={"zh": public.title_zh, "en": public.title_en}, map_link=public.map_link, static=static
    )
    return PublicApp(keeper, pages, static, keep=keep)


async def serve(settings: Settings, *, keep: bool = True) -> None:
    keeper = Keeper(settings.layout.database, now_ms=lambda: time.time_ns() // 1_000_000)
    await keeper.refresh()
    running = asyncio.create_task(keeper.run())
    try:
        await server(application(settings, keeper, keep=keep), settings.public).serve()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        keeper.close()


def main() -> None:
    settings = load(os.environ)
    start_logging(settings)
    os.nice(NICENESS)
    asyncio.run(serve(settings))


if __name__ == "__main__":
    main()
