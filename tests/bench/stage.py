"""A server for measuring: authority, database, the managed broker's own configuration, real ingest, terminals with certified keys.

Everything lies in a temporary folder, listens on loopback only and is gone at the end.
"""

from __future__ import annotations

import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet_server.authority import files
from fleet_server.authority.authority import Authority, Ed25519Signer
from fleet_server.broker.kinds import choose
from fleet_server.db import migrate, open_raw, open_reader
from fleet_server.settings import Broker, Enrolment, Settings, Web, to_environment
from tests.support.processes import ROOT, Child, Processes, free_port
from tests.support.waiting import wait_until

FLEET = "bench"
SITE = "bench-hall"
INVENTORY = '[{"slot": "receipt-printer", "family": "receipt-printer", "mandatory": true}]'
ACCOUNT, PASSWORD = "bench", "only-for-this-benchmark"


@dataclass(frozen=True)
class Terminal:
    """An enrolled terminal: its record key, and the file with key and certificate for TLS."""

    id: str
    signer: Ed25519Signer
    record_key: Ed25519PrivateKey
    tls_file: Path


class Stage:
    def __init__(self, folder: Path, *, terminals: int) -> None:
        self.folder = folder
        self.settings = Settings(
            data_dir=folder / "server",
            fleet=FLEET,
            log_level="warning",
            broker=Broker(port=free_port()),
            web=Web(port=free_port()),
            enrolment=Enrolment(port=free_port()),
        )
        self.processes = Processes(folder)
        layout = self.settings.layout
        layout.make()
        self.now_ms = time.time_ns() // 1_000_000
        self.authority = Authority.create(layout.authority, FLEET, (), now_ms=self.now_ms)
        migrate(layout.database)
        self.terminals = self._enrol([f"bench-{number:04}" for number in range(terminals)])
        self.broker: Child | None = None
        self.ingest: Child | None = None

    # -- parts --------------------------------------------------------------------------------------------------------

    def start_broker(self) -> Child:
        """The managed mosquitto with the configuration that the server writes for it."""
        command = choose(self.settings, self.authority).command()
        assert command is not None
        self.broker = self.processes.start(command)
        wait_until(lambda: listens(self.settings.broker.port) or not self._alive(self.broker), "the broker to listen")
        if not self.broker.running:
            raise RuntimeError(f"the broker ended: {self.broker.output()}")
        return self.broker

    def start_ingest(self) -> Child:
        self.ingest = self.processes.start_python("-m", "fleet_server.ingest", env=to_environment(self.settings))
        wait_until(
            lambda: (
                (self.ingest is not None and _connections(self.ingest.pid, self.settings.broker.port))
                or not self._alive(self.ingest)
            ),
            "the ingest to reach the broker",
        )
        if not self.ingest.running:
            raise RuntimeError(f"the ingest ended: {self.ingest.output()}")
        return self.ingest

    def start_web(self) -> str:
        """The console, with an account; returns its address."""
        hashed = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
        with closing(open_raw(self.settings.layout.database)) as conn:
            conn.execute(
                "INSERT INTO staff (name, display, password_hash, role, must_change, created_ms, lang) VALUES (?, '', ?, 'viewer', 0, ?, 'en')",
                (ACCOUNT, hashed, self.now_ms),
            )
        web = self.processes.start_python("-m", "fleet_server.web", env=to_environment(self.settings))
        wait_until(lambda: listens(self.settings.web.port) or not web.running, "the console to listen")
        if not web.running:
            raise RuntimeError(f"the console ended: {web.output()}")
        return f"http://127.0.0.1:{self.settings.web.port}"

    def start_python(self, module: str, *arguments: str, stdin: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """A helper process of the benchmark that talks in lines."""
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments], cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, encoding="utf-8"
        )

    def agent_context(self, terminal: Terminal) -> ssl.SSLContext:
        """As an agent connects: our authority alone, its own certificate."""
        return client_context(self.authority.ca_file, terminal.tls_file)

    def database(self) -> sqlite3.Connection:
        return open_reader(self.settings.layout.database)

    def close(self) -> None:
        self.processes.end_all()

    # -- inside -------------------------------------------------------------------------------------------------------

    @staticmethod
    def _alive(child: Child | None) -> bool:
        return child is not None and child.running

    def _enrol(self, ids: Sequence[str]) -> list[Terminal]:
        """As enrolment leaves them: rows, certified record key, client certificate."""
        folder = self.folder / "terminals"
        folder.mkdir()
        made = []
        with closing(open_raw(self.settings.layout.database)) as conn:
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("INSERT INTO area (code, name_zh, name_en) VALUES ('bench', '基准', 'Bench')")
            conn.execute(
                "INSERT INTO site (code, area, name_zh, name_en, kind, hours, timezone) "
                "VALUES (?, 'bench', '基准大厅', 'Bench hall', 'hall', '{\"always\": true}', 'Asia/Shanghai')",
                (SITE,),
            )
            for terminal in ids:
                record_key = Ed25519PrivateKey.generate()
                signer = Ed25519Signer(record_key)
                tls_key: EllipticCurvePrivateKey = files.new_tls_key()
                issued = self.authority.issue_client(terminal, tls_key.public_key(), now_ms=self.now_ms)
                tls_file = folder / f"{terminal}.pem"
                tls_file.write_bytes(files.private_pem(tls_key) + issued.pem)
                certificate = self.authority.certify_record_key(terminal, signer.public_key, 1, now_ms=self.now_ms)
                conn.execute(
                    "INSERT INTO terminal (id, code, type, name_zh, name_en, site, class, inventory, created_ms, enrolled_ms, tags) "
                    "VALUES (?, ?, 'kiosk', '', '', ?, 'government', ?, ?, ?, '[]')",
                    (terminal, terminal.upper(), SITE, INVENTORY, self.now_ms, self.now_ms),
                )
                conn.execute("INSERT INTO terminal_live (terminal) VALUES (?)", (terminal,))
                conn.execute(
                    "INSERT INTO record_key (kid, terminal, generation, public_key, certificate, issued_ms) VALUES (?, ?, 1, ?, ?, ?)",
                    (signer.kid, terminal, signer.public_key, certificate, self.now_ms),
                )
                made.append(Terminal(terminal, signer, record_key, tls_file))
            conn.execute("COMMIT")
        return made


@contextmanager
def stage(*, terminals: int) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="kiosk-fleet-bench-") as folder:
        made = Stage(Path(folder), terminals=terminals)
        try:
            yield made
        finally:
            made.close()


def client_context(ca_file: Path, tls_file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca_file))
    context.load_cert_chain(tls_file)
    return context


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False


def _connections(pid: int, port: int) -> bool:
    """Whether the process holds an established connection to `port` on loopback."""
    wanted = f":{port:04X}"
    with suppress(OSError):
        inodes = {
            target[8:-1]
            for handle in Path(f"/proc/{pid}/fd").iterdir()
            if (target := str(handle.readlink())).startswith("socket:[")
        }
        for line in Path(f"/proc/{pid}/net/tcp").read_text("ascii").splitlines()[1:]:
            fields = line.split()
            if fields[2].endswith(wanted) and fields[3] == "01" and fields[9] in inodes:
                return True
    return False
