"""Composition root of the ingest process."""

from __future__ import annotations

import sqlite3
import ssl
import time
from dataclasses import dataclass

from fleet_server.authority.authority import Authority
from fleet_server.broker.kinds import ca_file, own_address
from fleet_server.channel import transact
from fleet_server.db import open_raw
from fleet_server.evidence.ledger import Ledger
from fleet_server.facts.births import PendingBirths
from fleet_server.facts.projection import Projection
from fleet_server.ingest.bulk_socket import BulkSocket
from fleet_server.ingest.desk import Desk
from fleet_server.ingest.housekeeping import Housekeeping
from fleet_server.ingest.worker import BrokerAddress, Worker
from fleet_server.presence.watch import PresenceWatch
from fleet_server.settings import Settings


@dataclass
class Ingest:
    conn: sqlite3.Connection
    desk: Desk
    watch: PresenceWatch
    worker: Worker

    def close(self) -> None:
        transact(self.conn, lambda conn: self.watch.flush(conn, wall_ms()))
        self.conn.close()


def build(settings: Settings) -> Ingest:
    """Everything the process needs, from files and database; refuses to start with the reason if something is missing."""
    authority = Authority(settings.layout.authority)
    conn = open_raw(settings.layout.database)
    births = PendingBirths()
    watch = PresenceWatch.load(conn, wall_ms(), births=births)
    projection = Projection(watch, births)
    ledger = Ledger(conn, settings.fleet, projection)
    desk = Desk(ledger, authority.server_signer(), authority.server_key_certificate, watch, wall_ms)
    housekeeping = Housekeeping(conn, ledger, watch, projection, wall_ms)
    host, port = own_address(settings)
    address = BrokerAddress(host=host, port=port, tls=lambda: _tls(settings, authority))
    worker = Worker(address, desk, housekeeping.step, housekeeping.broker)
    return Ingest(conn, desk, watch, worker)


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _tls(settings: Settings, authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca_file(settings)))
    certificate, key = authority.ingest_files
    context.load_cert_chain(settings.broker.cert_file or certificate, settings.broker.key_file or key)
    context.sslsocket_class = BulkSocket
    return context
