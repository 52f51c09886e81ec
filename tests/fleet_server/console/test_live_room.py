"""A stream that finds no room gets a clear answer, and pages a way to ask for it."""

from __future__ import annotations

import pytest

from fleet_server.live.hub import FULL_RETRY_S
from tests.fleet_server.console.conftest import Person


async def test_there_is_room(viewer: Person) -> None:
    answer = await viewer.client.get("/live/room", headers={"X-Live": "1"})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("path", ["/live", "/live?after=12", "/live/room"])
async def test_a_full_house_says_when_to_ask_again(viewer: Person, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr("fleet_server.live.hub.LISTENERS_MAX", 0)
    answer = await viewer.client.get(path)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == str(FULL_RETRY_S)
    assert answer.text == f"实时连接已满，页面改为每 {FULL_RETRY_S} 秒更新一次。"
