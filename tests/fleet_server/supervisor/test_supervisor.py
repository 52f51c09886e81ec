"""`fleet-server run` as an operator has it: real processes, real broker."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_server.broker import mosquitto
from tests.support.processes import Processes
from tests.support.server import PARTS, RunningServer, listens
from tests.support.waiting import wait_until

pytestmark = pytest.mark.broker


@pytest.fixture
def server(tmp_path: Path, processes: Processes) -> Iterator[RunningServer]:
    server = RunningServer(tmp_path, processes).start()
    yield server
    if server.child is not None:
        server.child.stop()


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_everything_starts_and_everything_ends(server: RunningServer) -> None:
    health = server.health()
    assert set(health["parts"]) == set(PARTS)
    assert health["broker"]["kind"] == "mosquitto"
    pids = [server.pid(part) for part in PARTS]
    context = ssl.create_default_context(cafile=str(server.authority.ca_file))
    with urllib.request.urlopen(f"{server.enrolment_url}/api/v1/ca", context=context, timeout=10) as answer:
        assert answer.read() == server.authority.ca_file.read_bytes()
    assert server.stop() == 0
    assert [pid for pid in pids if alive(pid)] == []
    assert not server.settings.layout.health.exists()
    assert not listens(server.settings.broker.port)


def test_each_part_comes_back_after_kill_9_while_the_others_run_on(server: RunningServer) -> None:
    for part in PARTS:
        others = {other: server.pid(other) for other in PARTS if other != part}
        server.wait_restarted(part, server.kill(part))
        assert {other: server.pid(other) for other in PARTS if other != part} == others


def test_parts_do_not_outlive_a_killed_supervisor(server: RunningServer) -> None:
    pids = [server.pid(part) for part in PARTS]
    server.kill("supervisor")
    wait_until(lambda: not any(alive(pid) for pid in pids), "every part has ended")
    server.start()
    assert server.stop() == 0


@pytest.mark.slow
def test_a_broker_that_hangs_is_started_again(server: RunningServer) -> None:
    pid = server.pid("broker")
    os.kill(pid, signal.SIGSTOP)
    server.wait_restarted("broker", pid, timeout_s=100)


def test_a_second_server_on_the_same_data_is_refused(server: RunningServer) -> None:
    second = server.command("run")
    assert second.popen.wait(60) == 1
    assert "a server already runs on" in second.output()
    server.wait_ready()


def test_a_part_that_cannot_start_is_tried_again_and_stops_no_other(tmp_path: Path, processes: Processes) -> None:
    server = RunningServer(tmp_path, processes)
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", server.settings.web.port))
        occupied.listen()
        server.start(wait=False)
        wait_until(
            lambda: server.health().get("parts", {}).get("web", {}).get("starts", 0) >= 3,
            "the console was tried again",
            timeout_s=60,
        )
        assert server.health()["parts"]["enrolment"]["starts"] == 1
    server.wait_ready()


def test_a_damaged_authority_stops_the_start_with_a_sentence(tmp_path: Path, processes: Processes) -> None:
    server = RunningServer(tmp_path, processes)
    server.init()
    (server.settings.layout.authority / "server.pem").write_text("damaged")
    child = server.start(wait=False).child
    assert child is not None
    assert child.popen.wait(60) == 1
    assert "server.pem: no readable certificate" in child.output()
    assert "fleet-server: the server was not started" in child.output()


def test_status_tells_and_its_exit_code_too(server: RunningServer) -> None:
    status = server.command("status")
    assert status.popen.wait(30) == 0, status.output()
    for part in PARTS:
        assert f"{part}: running, process {server.pid(part)}" in status.output()
    server.stop()
    status = server.command("status")
    assert status.popen.wait(30) == 1
    assert "no server runs on" in status.output()


def test_revoking_on_the_command_line_reaches_the_broker(server: RunningServer) -> None:
    server.add_terminal("kiosk-1")
    with server.database() as connection:
        connection.execute(
            "INSERT INTO tls_certificate (serial, terminal, not_after_ms) VALUES ('abc123', 'kiosk-1', 9999999999999)"
        )
    before = server.authority.crl_file.read_bytes()
    revoke = server.command("revoke", "kiosk-1")
    assert revoke.popen.wait(30) == 0, revoke.output()
    wait_until(lambda: server.authority.crl_file.read_bytes() != before, "a new revocation list")
    assert server.child is not None
    server.child.wait_for_output("kiosk-1: session ended, revoked")


def test_an_external_broker_is_used_and_left_alone(tmp_path: Path, processes: Processes) -> None:
    server = RunningServer(tmp_path, processes, broker="external")
    server.init()
    theirs = processes.start(mosquitto.Mosquitto(mosquitto.find(server.settings), server.settings, server.authority).command())
    server.start()
    assert "broker" not in server.health()["parts"]
    assert server.health()["broker"] == {"kind": "external", "answers": True}
    assert server.stop() == 0
    assert theirs.running


def test_the_embedded_broker_runs_the_same_server(tmp_path: Path, processes: Processes) -> None:
    server = RunningServer(tmp_path, processes, broker="embedded").start()
    assert server.health()["broker"] == {"kind": "embedded", "answers": True}
    assert server.stop() == 0
