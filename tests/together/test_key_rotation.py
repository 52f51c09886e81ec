"""A new record key and a new client certificate from the real server, taken over by the real agent, with nothing quarantined."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import Processes
from tests.support.server import RunningServer
from tests.support.terminal import RealTerminal
from tests.support.waiting import wait_until

pytestmark = pytest.mark.broker


@pytest.fixture
def server(tmp_path: Path, processes: Processes) -> RunningServer:
    made = RunningServer(tmp_path / "server", processes)
    made.init()
    return made.start()


@pytest.fixture
def terminal(tmp_path: Path, processes: Processes, server: RunningServer) -> Iterator[RealTerminal]:
    made = RealTerminal(tmp_path / "terminals", processes, server, "kf-0001")
    made.plug_in()
    made.write_config()
    made.enrol()
    made.start()
    yield made
    made.close()


def cases(server: RunningServer) -> int:
    return int(server.rows("SELECT count(*) FROM session WHERE disputed = 0")[0][0])


def test_rotation_with_the_real_server(server: RunningServer, terminal: RealTerminal, processes: Processes) -> None:
    terminal.api.case()
    wait_until(lambda: cases(server) == 1, "a case under the first key")
    certificate = (terminal.folder / "identity" / "tls.pem").read_bytes()
    child = processes.start_python("-m", "edge_agent.cli", "rotate-key", "--config", terminal.config)
    assert child.popen.wait(30) == 0, child.output()
    assert "Record key 2 is certified." in child.output()
    assert (terminal.folder / "identity" / "tls.pem").read_bytes() != certificate
    assert terminal.agent is not None
    terminal.agent.stop()
    terminal.start()
    terminal.api.case()
    wait_until(lambda: cases(server) == 2, "a case under the second key")
    assert not (terminal.folder / "identity" / "record.next.key").exists()
    assert server.rows("SELECT * FROM quarantine_count WHERE reason <> 'staleNonce'") == []
    assert server.rows("SELECT count(*) FROM stream WHERE disputed = 1") == [(0,)]
