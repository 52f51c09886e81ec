"""The agent's transports in a process of their own, under libumockdev-preload: a request per line, an answer per line.

What is tested is the shipped code with the libraries it ships with; here is only the way to it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from edge_agent.transports.base import PortError, Sighting
from edge_agent.transports.input import open_input
from edge_agent.transports.serial import LineSetting, open_serial
from edge_agent.transports.udev import UdevDiscoverer
from edge_agent.transports.usb import UsbSetting, open_usb


class FarSide:
    def __init__(self) -> None:
        self.discoverer = UdevDiscoverer.of_system()
        self.ports: dict[int, Any] = {}

    async def obey(self, request: dict[str, Any]) -> Any:
        return await getattr(self, f"do_{request.pop('do')}")(**request)

    async def do_sightings(self) -> Any:
        return [[one.bus, one.path, one.vid, one.pid, one.usb_path] for one in self.discoverer.sightings()]

    async def do_changes(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self.discoverer.changes()
        except TimeoutError:
            return False
        return True

    async def do_open_usb(self, place: str, **setting: Any) -> Any:
        port = await open_usb(Sighting("usb", place, usb_path=place), UsbSetting(**setting))
        return [self._keep(port), list(port.endpoints_out), list(port.endpoints_in)]

    async def do_open_input(self, path: str, grab: bool) -> int:
        return self._keep(await open_input(path, grab=grab))

    async def do_open_serial(self, path: str) -> int:
        return self._keep(await open_serial(path, LineSetting()))

    async def do_write(self, port: int, data: str, endpoint: int | None = None) -> None:
        if endpoint is None:
            await self.ports[port].write(bytes.fromhex(data), timeout_s=1.0)
        else:
            await self.ports[port].write_to(endpoint, bytes.fromhex(data), timeout_s=1.0)

    async def do_read(self, port: int, timeout_s: float, endpoint: int | None = None) -> Any:
        began = time.monotonic()
        if endpoint is None:
            data = await self.ports[port].read(max_bytes=512, timeout_s=timeout_s)
        else:
            data = await self.ports[port].read_from(endpoint, max_bytes=512, timeout_s=timeout_s)
        return [data.hex(), time.monotonic() - began]

    async def do_control(self, port: int, setup: list[int], timeout_s: float = 1.0) -> str:
        kind, request, value, index, length = setup
        answer: bytes = await self.ports[port].control_in(kind, request, value, index, length, timeout_s=timeout_s)
        return answer.hex()

    async def do_events(self, port: int, timeout_s: float) -> Any:
        return [[event.type, event.code, event.value] for event in await self.ports[port].read_events(timeout_s=timeout_s)]

    async def do_pressed(self, port: int) -> Any:
        return sorted(await self.ports[port].pressed_keys())

    async def do_close(self, port: int) -> None:
        await self.ports.pop(port).close()

    def _keep(self, port: Any) -> int:
        self.ports[len(self.ports) + 1] = port
        return len(self.ports)


async def serve() -> None:
    far = FarSide()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps({"ready": True}), flush=True)
    while line := await reader.readline():
        try:
            answer: dict[str, Any] = {"told": await far.obey(json.loads(line))}
        except PortError as err:
            answer = {"error": type(err).__name__, "text": str(err)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
