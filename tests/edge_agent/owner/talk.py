"""A kiosk application for tests: connections to the owner service of a bench, without a socket between them."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

from edge_agent.owner.service import Line, OwnerService
from edge_agent.status import Closed
from tests.edge_agent.devices.bench import Bench

BASE = "ws://localhost/xfs4iot/v1.0"


class Talker:
    """One connection. `messages`: everything that came down it."""

    def __init__(self, service: OwnerService, slot: str | None, name: str | None) -> None:
        self.messages: list[dict[str, Any]] = []
        self.raw = bytearray()
        line = service.open(slot, name=name, base=BASE, send=self._take)
        assert line is not None, slot
        self.line: Line = line
        self._ids = itertools.count(1)

    def _take(self, message: bytes) -> None:
        self.raw += message
        self.messages.append(json.loads(message))

    def post(
        self, name: str, payload: Any = None, *, timeout_ms: int | None = None, version: str | None = None, request_id: int = 0
    ) -> int:
        """Send a command; its id."""
        number = request_id or next(self._ids)
        own = "1.0" if name.startswith("KioskFleet.") else "2.0"
        head = {"type": "command", "name": name, "requestId": number, "version": version or own}
        if timeout_ms is not None:
            head["timeout"] = timeout_ms
        self.line.receive(json.dumps({"header": head} | ({} if payload is None else {"payload": payload})))
        return number

    def completions(self, number: int) -> list[dict[str, Any]]:
        return [one for one in self.messages if one["header"]["type"] == "completion" and one["header"]["requestId"] == number]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [
            one["payload"] for one in self.messages if one["header"]["name"] == name and one["header"]["type"] != "completion"
        ]

    async def answer(self, number: int, *, within_s: float = 300.0) -> dict[str, Any]:
        async with asyncio.timeout(within_s):
            while not self.completions(number):
                await asyncio.sleep(0.005)
        (found,) = self.completions(number)
        return found

    async def ask(self, name: str, payload: Any = None, **more: Any) -> dict[str, Any]:
        """Send a command and wait for its end."""
        return await self.answer(self.post(name, payload, **more))

    async def claim(self, **payload: Any) -> None:
        done = await self.ask("KioskFleet.Claim", payload)
        assert code_of(done) == "success", done


def code_of(message: dict[str, Any]) -> str:
    """The completion code, or the errorCode where that says more."""
    code = str(message["header"]["completionCode"])
    return str(message["payload"]["errorCode"]) if code == "commandErrorCode" else code


class Desk:
    """The owner service over a bench's monitor; the test says when the terminal is closed or serves somebody."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.closed: Closed | None = None
        self.idle = True
        self.service = OwnerService(
            devices=lambda: bench.monitor,
            now_ms=bench.clock.boot_ms,
            closed=lambda: self.closed,
            idle=lambda: self.idle,
            version="1.2.3",
        )
        self._task: asyncio.Task[None] | None = None

    def connect(self, slot: str | None, name: str | None = "hall-kiosk") -> Talker:
        return Talker(self.service, slot, name)

    async def __aenter__(self) -> Desk:
        self._task = asyncio.create_task(self.service.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


Act = Callable[[], None]
