"""`python -m fleet_server.broker`: the embedded broker as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal

from fleet_server.authority.authority import Authority
from fleet_server.broker.embedded import serve
from fleet_server.processes import start_logging
from fleet_server.settings import load


async def main() -> None:
    settings = load(os.environ)
    start_logging(settings)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(Authority(settings.layout.authority), settings.broker.host, settings.broker.port, stop)


if __name__ == "__main__":
    asyncio.run(main())
