"""A server with staff, terminals and an order key, where orders are asked for, signed, delivered and reported on without processes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fleet_server.authority.authority import Authority
from fleet_server.channel import transact
from fleet_server.dispatch.signing import Signing
from fleet_server.orders import keys, requests
from protocols.contract import orders
from protocols.contract.certs import open_order_key_cert
from protocols.contract.orders import OrderBody, Restart
from protocols.contract.records import Body
from tests.support.facts import T0, FactBench, Run

NOW = T0 + 60_000
DAY = 86_400_000
FLEET = "test"
STAFF = {"wang": "operator", "li": "operator", "zhao": "requester", "chen": "approver", "sun": "viewer", "he": "auditor"}
REBOOT = Restart(what="host")
HARMLESS = Restart(what="agent")


@dataclass
class OrderBench:
    """`facts.conn` is the database; time is moved by hand."""

    facts: FactBench
    authority: Authority
    folder: Path
    now_ms: int = NOW
    runs: dict[str, Run] = field(default_factory=dict)

    @classmethod
    def make(cls, facts: FactBench, tmp_path: Path) -> OrderBench:
        authority = Authority.create(tmp_path / "authority", FLEET, [], now_ms=T0)
        bench = cls(facts, authority, tmp_path / "dispatch")
        for name, role in STAFF.items():
            bench.add_account(name, role)
        transact(bench.conn, lambda conn: keys.ensure(conn, authority, bench.folder, now_ms=NOW))
        return bench

    @property
    def conn(self) -> sqlite3.Connection:
        return self.facts.conn

    def add_account(self, name: str, role: str) -> None:
        self.conn.execute(
            "INSERT INTO staff (name, display, password_hash, role, created_ms) VALUES (?, ?, '', ?, ?)", (name, name, role, T0)
        )

    def add_terminals(self, *names: str) -> None:
        for name in names:
            self.facts.add_terminal(name)

    def ask(self, *terminals: str, body: OrderBody = HARMLESS, by: str = "wang", lasts_ms: int = DAY) -> bytes:
        return transact(
            self.conn,
            lambda conn: requests.request_order(
                conn, terminals or ("kf-1",), body, by=by, expires_ms=self.now_ms + lasts_ms, now_ms=self.now_ms
            ),
        )

    def approve(self, request: bytes, by: str = "li") -> None:
        transact(self.conn, lambda conn: requests.approve(conn, request, by=by, now_ms=self.now_ms))

    @property
    def signing(self) -> Signing:
        """A dispatch that has just started."""
        return Signing(FLEET, self.folder, self.authority)

    def sign(self, after_ms: int = 100) -> None:
        """Dispatch until it has nothing to do."""
        self.now_ms += after_ms
        duty = self.signing
        while duty.step(self.conn, self.now_ms):
            pass

    def trusted(self) -> dict[bytes, Ed25519PublicKey]:
        """What a terminal makes of a challenge's list."""
        certs = [open_order_key_cert(raw, self.authority.root_public_key, FLEET) for raw in keys.valid_certificates(self.conn)]
        return {cert.kid: Ed25519PublicKey.from_public_bytes(cert.public_key) for cert in certs}

    def state(self, request: bytes, terminal: str = "kf-1") -> tuple[str, str]:
        row = self.facts.one("SELECT state, reason FROM order_item WHERE request = ? AND terminal = ?", request, terminal)
        return str(row[0]), str(row[1])

    def request(self, request: bytes) -> requests.Request:
        return requests.get(self.conn, request)

    def order(self, request: bytes, terminal: str = "kf-1") -> orders.Order:
        """The signed order, opened as the terminal does."""
        row = self.facts.one("SELECT envelope FROM order_item WHERE request = ? AND terminal = ?", request, terminal)
        assert isinstance(row[0], bytes)
        return orders.open_order(row[0], self.trusted(), FLEET, terminal)

    def desired(self, terminal: str = "kf-1") -> orders.Desired:
        """The newest desired state, opened as the terminal does."""
        rows = self.facts.rows("SELECT envelope FROM desired_state WHERE terminal = ? ORDER BY counter DESC LIMIT 1", terminal)
        assert rows and isinstance(rows[0][0], bytes)
        return orders.open_desired(rows[0][0], self.trusted(), FLEET, terminal)

    def report(self, *bodies: Body, terminal: str = "kf-1", disputed: bool = False) -> int:
        """A batch of the terminal with these records; returns its row."""
        run = self.runs.setdefault(terminal, Run(terminal, 1, up_ms=NOW - 30_000))
        self.now_ms += 1_000
        captured = [run.capture(body, self.now_ms - 500 + n) for n, body in enumerate(bodies)]
        return self.facts.arrive(run.send(captured, self.now_ms, disputed=disputed))[0]
