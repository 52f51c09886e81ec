"""`python -m fleet_server.ingest`: the ingest process, started and watched by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal

from fleet_server.ingest.compose import build
from fleet_server.processes import end_with_parent, start_logging
from fleet_server.settings import load

log = logging.getLogger(__name__)


async def main() -> None:
    settings = load(os.environ)
    start_logging(settings)
    end_with_parent()
    ingest = build(settings)
    running = asyncio.create_task(ingest.worker.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await running
    finally:
        ingest.close()
        log.info("ingest ended: %s", ingest.desk.tally)


if __name__ == "__main__":
    asyncio.run(main())
