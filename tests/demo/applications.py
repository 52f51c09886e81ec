"""The kiosk application's side of the local API: the same words to an agent in this process and to one behind its Unix socket."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import h11
import msgspec

from edge_agent.local_api import KioskService, schema
from edge_agent.local_api.refusal import ApiRefused
from simulators import control
from simulators.errors import ControlError
from simulators.terminal import VirtualTerminal

ANSWER_WITHIN_S = 5.0


class NotNow(Exception):
    """The agent does not answer, or refuses."""


class Application(Protocol):
    """What a terminal's own program can tell its agent. Raises NotNow."""

    async def begin(self, item: str, channel: str) -> str:
        """The session's id."""
        ...

    async def end(self, session: str, outcome: str, cause: str) -> None: ...
    async def use(self, slot: str, count: int) -> None: ...
    async def rate(self, level: int, session: str | None) -> None: ...
    async def service(self) -> str:
        """`usable`, `partial` or `unusable`."""
        ...


class Devices(Protocol):
    """Hands at the terminal."""

    async def press(self, device: str, action: str, *args: str) -> None: ...


class OwnApplication:
    """Talks to the service object of an agent in this process."""

    def __init__(self, service: Callable[[], KioskService]) -> None:
        self._service = service

    async def begin(self, item: str, channel: str) -> str:
        ask = schema.read(_json(client_id=_new_id(), item=item, channel=channel), schema.Begin)
        return str(self._ask(lambda: self._service().begin(ask))["session"])

    async def end(self, session: str, outcome: str, cause: str) -> None:
        ask = schema.read(_json(outcome=outcome, cause=cause), schema.End)
        self._ask(lambda: self._service().end(session, ask))

    async def use(self, slot: str, count: int) -> None:
        ask = schema.read(_json(client_id=_new_id(), slot=slot, ok=True, count=count), schema.Use)
        self._ask(lambda: self._service().use(ask))

    async def rate(self, level: int, session: str | None) -> None:
        ask = schema.read(_json(client_id=_new_id(), level=level, session=session), schema.Rate)
        self._ask(lambda: self._service().rate(ask))

    async def service(self) -> str:
        document = self._service().status().body
        return str(document.service)

    @staticmethod
    def _ask(work: Callable[[], Any]) -> Any:
        try:
            return work().body
        except ApiRefused as refused:
            raise NotNow(str(refused)) from None


class SocketApplication:
    """Talks HTTP to the Unix socket of an agent in a process of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def begin(self, item: str, channel: str) -> str:
        return str((await self._post("/v1/sessions", client_id=_new_id(), item=item, channel=channel))["session"])

    async def end(self, session: str, outcome: str, cause: str) -> None:
        await self._post(f"/v1/sessions/{session}/end", outcome=outcome, cause=cause)

    async def use(self, slot: str, count: int) -> None:
        await self._post("/v1/uses", client_id=_new_id(), slot=slot, ok=True, count=count)

    async def rate(self, level: int, session: str | None) -> None:
        await self._post("/v1/ratings", client_id=_new_id(), level=level, session=session)

    async def service(self) -> str:
        return str((await self._request("GET", "/v1/status", b""))["service"])

    async def _post(self, path: str, **members: object) -> Any:
        return await self._request("POST", path, _json(**members))

    async def _request(self, method: str, path: str, body: bytes) -> Any:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                status, answer = await _exchange(self._path, method, path, body)
        except (OSError, TimeoutError, h11.ProtocolError) as err:
            raise NotNow(f"{self._path}: {type(err).__name__}") from None
        if status >= 300:
            raise NotNow(f"{self._path}: status {status}")
        return msgspec.json.decode(answer)


async def _exchange(socket: Path, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        connection = h11.Connection(h11.CLIENT)
        headers = [("host", "localhost"), ("connection", "close"), ("content-length", str(len(body)))]
        if body:
            headers.append(("content-type", "application/json"))
        for event in (h11.Request(method=method, target=path, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")
        await writer.drain()
        status, answer = 0, b""
        while True:
            event_in = connection.next_event()
            if event_in is h11.NEED_DATA:
                connection.receive_data(await reader.read(65536))
            elif isinstance(event_in, h11.Response):
                status = event_in.status_code
            elif isinstance(event_in, h11.Data):
                answer += bytes(event_in.data)
            else:
                return status, answer
    finally:
        writer.close()


class OwnDevices:
    def __init__(self, terminal: VirtualTerminal) -> None:
        self._terminal = terminal

    async def press(self, device: str, action: str, *args: str) -> None:
        self._terminal.press(device, action, *args)


class RemoteDevices:
    """Through the control socket that `kiosk-sim` uses too."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def press(self, device: str, action: str, *args: str) -> None:
        message = {"do": "press", "words": [*device.split(), action, *args]}
        try:
            await asyncio.to_thread(control.request, self._directory, message)
        except ControlError as err:
            raise NotNow(str(err)) from None


def _new_id() -> str:
    return str(uuid.uuid4())


def _json(**members: object) -> bytes:
    return msgspec.json.encode({name: value for name, value in members.items() if value is not None})
