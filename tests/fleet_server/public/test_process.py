"""The public face as operators run it: beside the other parts, and apart from them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from fleet_server.public.__main__ import NICENESS
from fleet_server.settings import Public
from tests.support.processes import Processes, free_port
from tests.support.server import RunningServer, listens
from tests.support.waiting import wait_until

pytestmark = pytest.mark.broker


@pytest.fixture
def server(tmp_path: Path, processes: Processes) -> Iterator[RunningServer]:
    server = RunningServer(tmp_path, processes)
    public = Public(enabled=True, port=free_port(), title_zh="测试市自助终端")
    server.settings = msgspec.structs.replace(server.settings, public=public)
    server.start()
    wait_until(lambda: listens(public.port), "the public face to listen")
    yield server
    if server.child is not None:
        server.child.stop()


def test_it_is_a_part_of_its_own(server: RunningServer) -> None:
    url = f"http://127.0.0.1:{server.settings.public.port}"
    with httpx.Client(base_url=url, timeout=10) as client:
        page = client.get("/")
        assert page.status_code == 200
        assert "测试市自助终端" in page.text
        assert client.get("/api/v1/sites").json()["sites"] == []
        assert client.get("/terminals").status_code == 404, "no page of the console is here"
        public, web = server.pid("public"), server.pid("web")
        assert os.getpriority(os.PRIO_PROCESS, public) == NICENESS
        assert os.getpriority(os.PRIO_PROCESS, web) == 0

        server.kill("web")
        assert client.get("/api/v1/services").status_code == 200, "the console's end is nothing to citizens"
        server.wait_restarted("web", web)
    web = server.pid("web")
    server.wait_restarted("public", server.kill("public"))
    assert server.pid("web") == web
    wait_until(lambda: listens(server.settings.public.port), "it is back")
    log = server.child.output() if server.child else ""
    assert "GET /" not in log, "nobody's requests are written down"
