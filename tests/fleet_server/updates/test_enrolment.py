"""E-10: terminals get the roots of the update repositories with their identity, and nobody replaces them later."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent import enrol, identity
from edge_agent.signing import FileKeyStore
from fleet_server import db
from fleet_server.channel import transact
from fleet_server.enrolment import registry
from tests.fleet_server.updates.client import Client
from tests.fleet_server.updates.test_serving import Office
from tests.support.processes import Processes
from tests.support.tuf_repo import TufRepo


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Terminal:
    def __init__(self, office: Office, folder: Path) -> None:
        self.office, self.folder, self.keys = office, folder, FileKeyStore(folder)

    def enrol(self) -> None:
        with closing(db.open_raw(self.office.layout.database)) as connection:
            if connection.execute("SELECT 1 FROM terminal").fetchone() is None:
                transact(
                    connection, lambda inside: registry.add_terminal(inside, registry.NewTerminal(id="kiosk-1"), now_ms=now_ms())
                )
            code = transact(connection, lambda inside: registry.new_code(inside, "kiosk-1", by="operator", now_ms=now_ms()))
        request = enrol.Request(
            server_url=f"https://127.0.0.1:{self.office.port}",
            terminal="kiosk-1",
            code=code,
            trust=enrol.Trust(fingerprint=bytes.fromhex(self.office.authority.ca_fingerprint)),
            hardware={"agent": "0.1.0"},
            check_dates=True,
        )
        self.who = enrol.enrol(request, self.keys, self.folder)

    def renew(self) -> None:
        enrol.renew(self.who, self.keys, self.folder, now_ms=now_ms(), check_dates=True)

    def roots(self) -> dict[str, str]:
        paths = {name: self.folder / file for name, file in identity.UPDATE_ROOT_FILES.items()}
        return {name: path.read_text("utf-8") for name, path in paths.items() if path.exists()}


@pytest.fixture
def office(tmp_path: Path, processes: Processes, free_port: Callable[[], int]) -> Office:
    return Office(tmp_path, free_port(), processes)


@pytest.fixture
def terminal(office: Office, tmp_path: Path) -> Terminal:
    return Terminal(office, tmp_path / "terminal")


def test_roots_come_with_enrolment_and_lead_to_the_repositories(
    office: Office, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = TufRepo.create(office.layout.root, terminals=["kiosk-1"])
    terminal.enrol()
    assert terminal.roots() == repo.roots and set(repo.roots) == {"image", "director"}
    monkeypatch.setenv("SSL_CERT_FILE", str(office.authority.ca_file))
    for name, root in terminal.roots().items():
        Client(tmp_path / name, f"https://127.0.0.1:{office.port}/updates/", name, root).refresh()


def test_a_renewal_brings_what_was_missing_and_replaces_nothing(office: Office, terminal: Terminal, tmp_path: Path) -> None:
    terminal.enrol()
    assert terminal.roots() == {}, "the ceremony was not held yet"
    repo = TufRepo.create(office.layout.root)
    terminal.renew()
    first = repo.roots
    assert terminal.roots() == first
    # Somebody who has taken over the server puts roots of his own in the place of the real ones.
    office.layout.updates.root.rename(tmp_path / "real")
    other = TufRepo.create(office.layout.root)
    assert other.roots != first
    terminal.renew()
    assert terminal.roots() == first


def test_enrolling_anew_takes_the_present_roots(office: Office, terminal: Terminal, tmp_path: Path) -> None:
    TufRepo.create(office.layout.root)
    terminal.enrol()
    office.layout.updates.root.rename(tmp_path / "lost")
    new = TufRepo.create(office.layout.root)
    terminal.enrol()
    assert terminal.roots() == new.roots
