"""The enrolment process as it runs: real TLS, real HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from edge_agent import enrol as agent_enrol
from edge_agent.signing import FileKeyStore
from fleet_server import db
from fleet_server.authority.authority import Authority
from fleet_server.channel import transact
from fleet_server.enrolment import listener, registry
from fleet_server.enrolment.controllers import REFUSALS_PER_MINUTE, Brake
from fleet_server.settings import Layout
from tests.support.processes import Processes
from tests.support.trust import Keys, issue_client
from tests.support.waiting import until, wait_until

LONG_AGO_MS = 1_500_000_000_000


class Office:
    """A running enrolment listener with one terminal that may enrol."""

    def __init__(self, folder: Path, port: int, processes: Processes) -> None:
        self.folder, self.port = folder, port
        layout = Layout(folder / "data")
        layout.make()
        db.migrate(layout.database)
        self.authority = Authority.create(layout.authority, "testfleet", (), now_ms=time.time_ns() // 1_000_000)
        self.connection = db.open_raw(layout.database)
        environment = {"KF_DATA_DIR": str(layout.root), "KF_ENROLMENT_PORT": str(port)}
        self.child = processes.start_python("-m", "fleet_server.enrolment", env=environment)
        wait_until(self._answers, "the enrolment listener")

    def code(self, terminal: str) -> str:
        def work(inside: Any) -> str:
            registry.add_terminal(inside, registry.NewTerminal(id=terminal), now_ms=0)
            return registry.new_code(inside, terminal, by="operator", now_ms=0, lifetime_ms=2**52)

        return transact(self.connection, work)

    def post(
        self, path: str, body: dict[str, Any] | bytes, identity: tuple[Path, Path] | None = None
    ) -> tuple[int, dict[str, Any]]:
        context = ssl.create_default_context(cafile=str(self.authority.ca_file))
        if identity:
            context.load_cert_chain(*identity)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=20)
        with closing(connection):
            connection.request(
                "POST", path, body if isinstance(body, bytes) else json.dumps(body), {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def _answers(self) -> bool:
        assert self.child.running, self.child.output()
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False


@pytest.fixture
def office(tmp_path: Path, processes: Processes, free_port: Callable[[], int]) -> Iterator[Office]:
    office = Office(tmp_path, free_port(), processes)
    with closing(office.connection):
        yield office


def test_a_terminal_enrols_renews_and_rotates(office: Office, tmp_path: Path) -> None:
    keys = Keys("kiosk-1")
    status, answer = office.post("/api/v1/enrol", keys.enrol_request(office.code("kiosk-1")))
    assert status == 200, answer
    assert {
        "certificate",
        "ca",
        "record_key_certificate",
        "fleet",
        "root_key",
        "mqtt",
        "desired",
        "server_time_ms",
        "update_roots",
    } == set(answer)
    identity = keys.write_tls(tmp_path / "identity", answer["certificate"])
    status, answer = office.post("/api/v1/renew", Keys("kiosk-1").renew_request(endorsed_by=keys), identity)
    assert status == 200, answer
    assert office.connection.execute("SELECT count(*) FROM record_key").fetchone() == (2,)
    assert office.code("kiosk-2") not in office.child.output()


def test_the_agents_own_client_enrols_and_renews(office: Office, tmp_path: Path) -> None:
    directory = tmp_path / "agent"
    keys = FileKeyStore(directory)
    request = agent_enrol.Request(
        server_url=f"https://127.0.0.1:{office.port}",
        terminal="kiosk-1",
        code=office.code("kiosk-1"),
        trust=agent_enrol.Trust(fingerprint=bytes.fromhex(office.authority.ca_fingerprint)),
        hardware={"agent": "0.1.0"},
        check_dates=True,
    )
    who = agent_enrol.enrol(request, keys, directory)
    assert (who.terminal, who.fleet, who.mqtt.port) == ("kiosk-1", "testfleet", 8883)
    renewal = agent_enrol.renew(who, keys, directory, now_ms=LONG_AGO_MS, check_dates=True, rotate=True)
    assert renewal.generation == 2


def test_another_terminals_certificate_does_not_renew(office: Office, tmp_path: Path) -> None:
    keys = Keys("kiosk-1")
    office.post("/api/v1/enrol", keys.enrol_request(office.code("kiosk-1")))
    certificate, key, _ = issue_client(office.authority, "kiosk-2", tmp_path / "kiosk-2")
    status, answer = office.post("/api/v1/renew", keys.renew_request(), (certificate, key))
    assert (status, answer["error"]) == (400, "badProof")


def test_a_terminal_that_slept_past_its_certificate_still_renews_with_it(office: Office, tmp_path: Path) -> None:
    keys = Keys("kiosk-1")
    office.post("/api/v1/enrol", keys.enrol_request(office.code("kiosk-1")))
    expired = office.authority.issue_client("kiosk-1", keys.tls.public_key(), now_ms=LONG_AGO_MS)
    identity = keys.write_tls(tmp_path / "identity", expired.pem)
    assert office.post("/api/v1/renew", keys.renew_request(), identity)[0] == 200


def test_a_foreign_certificate_is_refused_by_tls_itself(office: Office, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other", "testfleet", (), now_ms=time.time_ns() // 1_000_000)
    certificate, key, _ = issue_client(other, "kiosk-1", tmp_path / "foreign")
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        office.post("/api/v1/renew", {}, (certificate, key))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b'{"terminal": "kiosk-1"}',
        json.dumps(Keys("kiosk-1").enrol_request("x", terminal="Kiosk 1")).encode(),
        json.dumps(Keys("kiosk-1").enrol_request("x", record_key="AAAA")).encode(),
        json.dumps(Keys("kiosk-1").enrol_request("x", proof=7)).encode(),
        b"[" * 60_000,
    ],
    ids=["empty", "text", "list", "members missing", "name", "short key", "type", "deep"],
)
def test_what_is_no_request_is_malformed(office: Office, body: bytes) -> None:
    status, answer = office.post("/api/v1/enrol", body)
    assert (status, answer["error"]) == (400, "malformed")


def test_oversized_requests_are_cut_off_and_the_rightful_are_served(office: Office) -> None:
    with suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
        status, _ = office.post("/api/v1/enrol", b'{"x": "' + b"x" * 1_000_000 + b'"}')
        assert status in (400, 413)
    assert office.post("/api/v1/enrol", Keys("kiosk-1").enrol_request(office.code("kiosk-1")))[0] == 200


def test_guessing_is_slowed_down(office: Office) -> None:
    keys = Keys("kiosk-1")
    body = keys.enrol_request("wrong")
    words = [office.post("/api/v1/enrol", body)[1]["error"] for _ in range(REFUSALS_PER_MINUTE + 1)]
    assert words[:-1] == ["unknownTerminal"] * REFUSALS_PER_MINUTE
    assert words[-1] == "tooMany"


async def test_a_connection_that_never_gets_to_its_point_is_ended(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads sent a byte at a time would keep everybody else out once all places are taken."""
    monkeypatch.setattr(listener, "CONNECTION_S", 0.2)
    authority = Authority.create(tmp_path / "authority", "testfleet", (), now_ms=time.time_ns() // 1_000_000)
    port = free_port()
    served = listener.server(_never, authority, "127.0.0.1", port)
    running = asyncio.create_task(served.serve())
    try:
        await until(lambda: served.started, "the listener")
        context = ssl.create_default_context(cafile=str(authority.ca_file))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"POST /api/v1/enrol HTTP/1.1\r\nHost:")
        async with asyncio.timeout(10):
            with suppress(ConnectionError, ssl.SSLError):
                assert await reader.read() == b""
        writer.close()
    finally:
        served.should_exit = True
        await running


async def _never(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no request was whole")


def test_the_brake_lets_go_after_a_minute() -> None:
    now_s = 0.0
    brake = Brake(lambda: now_s)
    for _ in range(REFUSALS_PER_MINUTE):
        brake.note("192.0.2.1")
    assert brake.holds("192.0.2.1")
    assert not brake.holds("192.0.2.2")
    now_s = 61.0
    assert not brake.holds("192.0.2.1")
