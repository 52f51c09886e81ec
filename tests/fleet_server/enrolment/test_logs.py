"""`POST /api/v1/logs` as it runs: real TLS, real HTTP, the agent's own excerpt."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_agent.orders import excerpt
from fleet_server import db
from fleet_server.channel import Channel, transact
from fleet_server.enrolment import controllers, registry
from fleet_server.enrolment.controllers import LOGS_AT_ONCE
from fleet_server.orders import logs
from fleet_server.settings import Layout, load
from protocols.contract import envelope as cose
from tests.fleet_server.enrolment.test_listener import Office
from tests.support.contract import STRANGER
from tests.support.processes import Processes
from tests.support.trust import Keys, make_authority
from tests.support.waiting import wait_until


class RecordKey:
    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.kid = cose.key_id(keys.record_public)

    def sign(self, data: bytes) -> bytes:
        return self._keys.record.sign(data)


@pytest.fixture
def office(tmp_path: Path, processes: Processes, free_port: Callable[[], int]) -> Iterator[Office]:
    office = Office(tmp_path, free_port(), processes)
    with closing(office.connection):
        yield office


def send(office: Office, raw: bytes, identity: tuple[Path, Path] | None) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=str(office.authority.ca_file))
    if identity:
        context.load_cert_chain(*identity)
    connection = http.client.HTTPSConnection("127.0.0.1", office.port, context=context, timeout=20)
    with closing(connection):
        connection.request("POST", "/api/v1/logs", raw, {"Content-Type": "application/cose"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def ask_for_log(office: Office, terminal: str, order: bytes, now_ms: int) -> None:
    request = b"r" + order
    office.connection.execute(
        "INSERT INTO order_request (id, at_ms, kind, body, requested_by, expires_ms, terminals, digest, state, state_ms)"
        " VALUES (?, 0, 'pullLogs', ?, 'wang', ?, 1, x'', 'approved', 0)",
        (request, json.dumps({"from_ms": 0, "to_ms": now_ms + 1_000}), now_ms + 60_000),
    )
    office.connection.execute(
        "INSERT INTO order_item (request, terminal, order_id, kind, expires_ms, state, counter, first_counter)"
        " VALUES (?, ?, ?, 'pullLogs', ?, 'sent', 1, 1)",
        (request, terminal, order, now_ms + 60_000),
    )


def terminal_of(office: Office, name: str, folder: Path) -> tuple[Keys, tuple[Path, Path]]:
    keys = Keys(name)
    status, answer = office.post("/api/v1/enrol", keys.enrol_request(office.code(name)))
    assert status == 200
    return keys, keys.write_tls(folder / name, answer["certificate"])


def stall(office: Office, identity: tuple[Path, Path]) -> ssl.SSLSocket:
    """Begin to send a log, and do not go on."""
    context = ssl.create_default_context(cafile=str(office.authority.ca_file))
    context.load_cert_chain(*identity)
    connection = context.wrap_socket(socket.create_connection(("127.0.0.1", office.port), 20), server_hostname="127.0.0.1")
    connection.sendall(
        b"POST /api/v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/cose\r\nContent-Length: 1000\r\n\r\nabc"
    )
    return connection


@pytest.mark.spec("O-403")
def test_whoever_stalls_keeps_no_other_terminal_from_sending(office: Office, tmp_path: Path) -> None:
    """Those that were asked for nothing take no place at all, one that was asked takes one."""
    now_ms, order = time.time_ns() // 1_000_000, os.urandom(16)
    _, idle = terminal_of(office, "kiosk-1", tmp_path)
    _, slow = terminal_of(office, "kiosk-2", tmp_path)
    keys, honest = terminal_of(office, "kiosk-3", tmp_path)
    ask_for_log(office, "kiosk-2", os.urandom(16), now_ms)
    ask_for_log(office, "kiosk-3", order, now_ms)
    book = tmp_path / "agent.log"
    book.write_text(f'{{"t":{now_ms - 1},"m":"x"}}\n')
    signed = excerpt.seal(excerpt.make([book], order, 0, now_ms), RecordKey(keys), office.authority.fleet, "kiosk-3")
    assert send(office, signed, idle) == (404, b'{"error":"unknownOrder","message":"kiosk-1: no log was asked for"}')
    held = [stall(office, identity) for identity in (idle, slow) for _ in range(LOGS_AT_ONCE)]
    wait_until(lambda: send(office, b"x", slow)[0] == 429, "the first of kiosk-2 to have a place")
    assert send(office, signed, honest) == (204, b"")
    for connection in held:
        connection.close()
    wait_until(lambda: send(office, b"x", slow)[0] == 403, "its place to be free again")


@pytest.mark.spec("O-403")
async def test_a_log_that_is_not_whole_in_time_gives_its_place_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path / "data")
    layout.make()
    db.migrate(layout.database)
    authority = make_authority(tmp_path)
    connection = db.open_raw(layout.database)
    channel = Channel(lambda: db.open_raw(layout.database), "db")
    settings = load({"KF_DATA_DIR": str(layout.root)})
    monkeypatch.setattr(controllers, "UPLOAD_S", 0.05)
    desk = controllers.Desk(settings, authority, channel, lambda: 0)

    async def never() -> AsyncIterator[bytes]:
        yield b"abc"
        await asyncio.Event().wait()

    with closing(connection), closing(channel):
        transact(connection, lambda inside: registry.add_terminal(inside, registry.NewTerminal(id="kiosk-1"), now_ms=0))
        connection.execute(
            "INSERT INTO order_item (request, terminal, order_id, kind, expires_ms, state, counter, first_counter)"
            " VALUES (x'01', 'kiosk-1', x'02', 'pullLogs', 9, 'sent', 1, 1)"
        )
        for _ in range(LOGS_AT_ONCE + 1):
            request: Any = SimpleNamespace(headers={}, scope={}, stream=never)
            with pytest.raises(logs.NotTaken) as caught:
                await asyncio.wait_for(desk.take_log(request, "kiosk-1"), 10)
            assert (caught.value.reason, caught.value.http_status) == ("slow", 503)


def test_an_excerpt_goes_from_the_agents_files_to_the_servers(office: Office, tmp_path: Path) -> None:
    keys = Keys("kiosk-1")
    status, answer = office.post("/api/v1/enrol", keys.enrol_request(office.code("kiosk-1")))
    assert status == 200
    identity = keys.write_tls(tmp_path / "identity", answer["certificate"])
    now_ms, order = time.time_ns() // 1_000_000, os.urandom(16)
    ask_for_log(office, "kiosk-1", order, now_ms)
    book = tmp_path / "agent.log"
    # Random enough that it does not shrink below what one TLS record, or one read of the server, takes.
    book.write_text("".join(f'{{"t":{now_ms - 1},"m":"{os.urandom(32).hex()}"}}\n' for _ in range(20_000)))
    signed = excerpt.seal(excerpt.make([book], order, 0, now_ms), RecordKey(keys), office.authority.fleet, "kiosk-1")
    assert len(signed) > 500_000
    assert send(office, signed, None) == (403, b'{"error":"notAuthentic","message":"no client certificate"}')
    forged = excerpt.seal(excerpt.make([book], order, 0, now_ms), STRANGER, office.authority.fleet, "kiosk-1")
    assert send(office, forged, identity)[0] == 403
    assert send(office, bytes(logs.ENVELOPE_MAX_BYTES + 1), identity)[0] == 413
    assert send(office, signed, identity) == (204, b"")
    assert send(office, signed, identity)[0] == 409
    folder = office.folder / "data" / "logs"
    assert b"".join(logs.text_of(folder, order)) == book.read_bytes()
    assert office.connection.execute("SELECT terminal, lines FROM pulled_log").fetchall() == [("kiosk-1", 20_000)]
    assert book.read_text()[:60] not in office.child.output()
