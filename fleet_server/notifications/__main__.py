"""`python -m fleet_server.notifications`: the process that tells channels, started and watched by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

from fleet_server.notifications.courier import Courier
from fleet_server.notifications.secrets import SecretBox
from fleet_server.processes import end_with_parent, start_logging
from fleet_server.settings import load


async def main() -> None:
    settings = load(os.environ)
    start_logging(settings)
    end_with_parent()
    courier = Courier(
        settings.layout.database,
        SecretBox(settings.layout.authority),
        fleet=settings.fleet,
        zone=settings.timezone,
        now_ms=lambda: time.time_ns() // 1_000_000,
    )
    running = asyncio.create_task(courier.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


if __name__ == "__main__":
    asyncio.run(main())
