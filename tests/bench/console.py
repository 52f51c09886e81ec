"""A person at the console, without a browser: signs in, listens to the event stream, fetches what it says has changed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.bench.stage import ACCOUNT, PASSWORD


async def sign_in(client: httpx.AsyncClient, name: str = ACCOUNT, password: str = PASSWORD) -> None:
    answer = await client.post(
        "/login", data={"name": name, "password": password, "lang": "en"}, headers={"Origin": str(client.base_url)}
    )
    if answer.status_code != 303:
        raise RuntimeError(f"sign-in was answered with {answer.status_code}")


class OpenPage:
    """The terminal list, open: fetches the rows that the stream names and remembers when which text was seen in which row."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._rows: dict[str, str] = {}
        self._changed = asyncio.Condition()
        self.connected = asyncio.Event()

    async def listen(self) -> None:
        async with self._client.stream("GET", "/live", timeout=None) as stream:
            stream.raise_for_status()
            name = ""
            async for line in stream.aiter_lines():
                self.connected.set()
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: ") and name in {"rows", "resync"}:
                    await self._fetch(json.loads(line.removeprefix("data: ")) if name == "rows" else list(self._rows))

    async def _fetch(self, ids: list[str]) -> None:
        for terminal in ids:
            answer = await self._client.get("/terminals/rows", params={"ids": terminal}, headers={"HX-Request": "true"})
            answer.raise_for_status()
            async with self._changed:
                self._rows[terminal] = answer.text
                self._changed.notify_all()

    async def wait(self, terminal: str, text: str, *, there: bool, timeout_s: float) -> float:
        """When the row says `text` (or no longer says it): time.monotonic()."""

        def so() -> bool:
            return (text in self._rows.get(terminal, "")) is there

        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(so)
            return time.monotonic()


@asynccontextmanager
async def open_page(url: str) -> AsyncIterator[OpenPage]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        await sign_in(client)
        page = OpenPage(client)
        listening = asyncio.create_task(page.listen())
        try:
            await asyncio.wait_for(page.connected.wait(), 10)
            yield page
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
