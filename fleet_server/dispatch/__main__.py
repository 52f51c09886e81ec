"""`python -m fleet_server.dispatch`: the process that signs, started and watched by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time

from fleet_server.authority.authority import Authority
from fleet_server.dispatch.duties import Runner
from fleet_server.dispatch.plan import duties
from fleet_server.processes import end_with_parent, start_logging
from fleet_server.settings import load

log = logging.getLogger(__name__)


async def main() -> None:
    settings = load(os.environ)
    start_logging(settings)
    end_with_parent()
    authority = Authority(settings.layout.authority)
    runner = Runner(
        settings.layout.database,
        duties(settings, authority),
        lambda: time.time_ns() // 1_000_000,
        settings.layout.run / "dispatch.json",
    )
    running = asyncio.create_task(runner.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running
    log.info("dispatch ended")


if __name__ == "__main__":
    asyncio.run(main())
