"""The whole road with real parts: devices on ptys, the agent process, mosquitto with mutual TLS, ingest, database."""

from __future__ import annotations

import base64
import http.client
import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.processes import Processes
from tests.support.server import RunningServer
from tests.support.terminal import RealTerminal
from tests.support.waiting import wait_until

KILLS = 20
SOAK_KILLS = int(os.environ.get("KF_SOAK_KILLS", "1000"))
VICTIMS = ("agent", "broker", "ingest", "web", "enrolment", "supervisor")


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


def stored_cases(server: RunningServer) -> int:
    return int(server.rows("SELECT count(*) FROM session WHERE disputed = 0")[0][0])


def wait_drained(server: RunningServer, cases: int, timeout_s: float = 60) -> None:
    wait_until(lambda: stored_cases(server) >= cases, f"{cases} cases at the server", timeout_s=timeout_s)


def check_everything(server: RunningServer, terminal: str, processes: Processes) -> None:
    """No hole, no quarantine, no dispute; and the exported evidence verifies with the command a stranger would use."""
    # A birth that answers a challenge which another one has overtaken is no record: it is set aside, and the next one is greeted.
    assert server.rows("SELECT * FROM quarantine_count WHERE reason <> 'staleNonce'") == []
    assert server.rows("SELECT count(*) FROM stream WHERE disputed = 1") == [(0,)]
    assert server.rows("SELECT count(*) FROM hole") == [(0,)]
    for stream, head in server.rows("SELECT stream, head_no FROM stream"):
        numbers = [row[0] for row in server.rows("SELECT no FROM batch WHERE stream = ? ORDER BY no", (stream,))]
        assert numbers == list(range(1, head + 1))
    file, root = server.settings.data_dir / "out.evidence", server.settings.data_dir / "root.pub"
    child = server.command("export-evidence", terminal, "--out", file)
    assert child.popen.wait(60) == 0, child.output()
    root.write_text(base64.b64encode(server.authority.root_public_key.public_bytes_raw()).decode())
    child = server.command("verify-evidence", file, "--root", root)
    assert child.popen.wait(60) == 0, child.output()
    assert "holds:" in child.output()


@pytest.mark.broker
def test_a_fault_reaches_the_server_with_its_bytes_and_clears(
    server: RunningServer, terminal: RealTerminal, processes: Processes
) -> None:
    wait_until(lambda: len(server.rows("SELECT 1 FROM device")) >= 5, "all devices are known", timeout_s=40)
    open_now = "SELECT code, severity, mandatory, evidence FROM fault WHERE cleared_ms IS NULL AND source = 'terminal'"
    wait_until(lambda: server.rows(open_now) == [], "no fault is open", timeout_s=30)
    terminal.fault("receipt-printer", "paper-out")
    wait_until(lambda: server.rows(open_now), "the fault is open", timeout_s=30)
    code, _, mandatory, evidence = server.rows(open_now)[0]
    assert (code, mandatory) == ("PRN.PAPER_OUT", 1)
    assert '"escpos"' in evidence
    terminal.clear("receipt-printer", "paper-out")
    wait_until(lambda: server.rows(open_now) == [], "the fault is cleared by the terminal", timeout_s=60)
    assert server.rows("SELECT DISTINCT cleared_by FROM fault WHERE source = 'terminal'") == [("terminal",)]
    check_everything(server, terminal.terminal, processes)


@pytest.mark.broker
@pytest.mark.spec("C-205", "C-401", "C-502", "C-516")
@pytest.mark.timeout(300)
def test_kill_9_of_everything_at_random_moments(server: RunningServer, terminal: RealTerminal, processes: Processes) -> None:
    kill_and_count(server, terminal, processes, KILLS, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
def test_a_thousand_kills(server: RunningServer, terminal: RealTerminal, processes: Processes) -> None:
    kill_and_count(server, terminal, processes, SOAK_KILLS, seed=2)


def kill_and_count(server: RunningServer, terminal: RealTerminal, processes: Processes, kills: int, seed: int) -> None:
    """Cases are entered all the while; whatever the application was told is done must be at the server once, and nothing twice."""
    rng = random.Random(seed)
    confirmed: list[str] = []
    for _ in range(kills):
        enter_cases(terminal, confirmed, rng.uniform(0.2, 1.2))
        victim = rng.choices(VICTIMS, weights=(5, 4, 5, 2, 1, 1))[0]
        if victim == "agent":
            assert terminal.agent is not None
            terminal.agent.kill()
            terminal.start(wait=False)
        elif victim == "supervisor":
            assert server.child is not None
            pid = server.kill("supervisor")
            server.child.popen.wait(10)
            assert server.child.pid == pid
            server.start()
        else:
            with suppress(AssertionError, ProcessLookupError, KeyError):  # it may be between two lives
                server.kill(victim)
    server.wait_ready()
    terminal.wait_answering()
    enter_cases(terminal, confirmed, 0.5)
    assert len(confirmed) > kills
    wait_drained(server, len(confirmed))
    # A case whose confirmation was lost in a kill may be there as well; each is there once, since its id is.
    assert len(confirmed) <= stored_cases(server) <= len(confirmed) + 2 * kills
    check_everything(server, terminal.terminal, processes)


def enter_cases(terminal: RealTerminal, confirmed: list[str], for_s: float) -> None:
    """As a kiosk application does it: what was not confirmed is sent again under the same id."""
    until_s = time.monotonic() + for_s
    client = None
    while time.monotonic() < until_s:
        try:
            confirmed.append(terminal.api.case(client))
            client = None
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)  # the agent is starting


@pytest.mark.broker
def test_hours_without_a_broker_lose_nothing_and_nobody_is_offline(
    server: RunningServer, terminal: RealTerminal, processes: Processes
) -> None:
    confirmed: list[str] = []
    enter_cases(terminal, confirmed, 0.5)
    wait_drained(server, len(confirmed))
    server.stop()
    enter_cases(terminal, confirmed, 2.0)
    assert len(confirmed) > 10
    server.start()
    wait_drained(server, len(confirmed))
    assert stored_cases(server) == len(confirmed)
    assert server.rows("SELECT count(*) FROM presence WHERE state = 'offline'") == [(0,)]
    check_everything(server, terminal.terminal, processes)
