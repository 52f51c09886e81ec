"""`POST /api/v1/logs` as it runs: real TLS, real HTTP, the agent's own excerpt."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.orders import excerpt
from fleet_server.orders import logs
from protocols.contract import envelope as cose
from tests.fleet_server.enrolment.test_listener import Office
from tests.support.contract import STRANGER
from tests.support.processes import Processes
from tests.support.trust import Keys


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


def test_an_excerpt_goes_from_the_agents_files_to_the_servers(office: Office, tmp_path: Path) -> None:
    keys = Keys("kiosk-1")
    status, answer = office.post("/api/v1/enrol", keys.enrol_request(office.code("kiosk-1")))
    assert status == 200
    identity = keys.write_tls(tmp_path / "identity", answer["certificate"])
    now_ms, order = time.time_ns() // 1_000_000, os.urandom(16)
    office.connection.execute(
        "INSERT INTO order_request (id, at_ms, kind, body, requested_by, expires_ms, terminals, digest, state, state_ms)"
        " VALUES (x'01', 0, 'pullLogs', ?, 'wang', ?, 1, x'', 'approved', 0)",
        (json.dumps({"from_ms": 0, "to_ms": now_ms + 1_000}), now_ms + 60_000),
    )
    office.connection.execute(
        "INSERT INTO order_item (request, terminal, order_id, kind, expires_ms, state, counter, first_counter)"
        " VALUES (x'01', 'kiosk-1', ?, 'pullLogs', ?, 'sent', 1, 1)",
        (order, now_ms + 60_000),
    )
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
