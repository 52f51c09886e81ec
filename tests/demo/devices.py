"""`python -m tests.demo.devices ROOT`: the devices of the terminals whose agents are processes of their own, on pseudo terminals.

One process for all of them, each with its ports and a control socket in a directory of its own: what `kiosk-sim terminal` does for one.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

from simulators.serving import TerminalServer
from tests.demo.processes import end_with_parent
from tests.demo.setup import Places, load

READY = "devices ready"


async def main(root: Path) -> None:
    places = Places(root)
    setup = load(places)
    if setup is None:
        raise SystemExit(f"{places.file} is missing; `python -m tests.demo` makes it")
    servers = []
    for member in setup.city().processes:
        directory = places.terminal_ports(member.id)
        directory.mkdir(parents=True, exist_ok=True)
        servers.append(TerminalServer(member.plan.build(serial_only=True), directory))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        for server in servers:
            await server.start()
        print(READY, flush=True)
        await stop.wait()
    finally:
        for server in servers:
            await server.close()


if __name__ == "__main__":
    end_with_parent()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main(Path(sys.argv[1])))
