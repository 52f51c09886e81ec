"""A running broker of each kind, with the fleet's own certificates, and clients for it."""

from __future__ import annotations

import signal
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from fleet_server import db
from fleet_server.authority.authority import INGEST_NAME, Authority
from fleet_server.broker import kinds
from fleet_server.broker.warden import Warden
from fleet_server.channel import transact
from fleet_server.enrolment import registry
from fleet_server.settings import Broker, Settings, to_environment
from tests.support.processes import Child, Processes
from tests.support.trust import issue_client
from tests.support.waiting import until


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Bench:
    """One broker and everything needed to connect to it."""

    def __init__(self, kind: str, folder: Path, port: int, processes: Processes, **limits: Any) -> None:
        self.kind, self.folder, self.port = kind, folder, port
        broker = Broker(kind="embedded" if kind == "embedded" else "mosquitto", port=port, **limits)
        self.settings = Settings(data_dir=folder / "data", fleet="testfleet", broker=broker)
        self.settings.layout.make()
        db.migrate(self.settings.layout.database)
        self.authority = Authority.create(self.settings.layout.authority, "testfleet", (), now_ms=now_ms())
        self._processes = processes
        self.warden = Warden(self.settings, self.authority, self.reload, now_ms)
        self.warden.prepare()
        self.child = self.start()

    def start(self) -> Child:
        command = kinds.choose(self.settings, self.authority).command()
        assert command is not None
        self.child = self._processes.start(command, env=to_environment(self.settings))
        return self.child

    async def ready(self) -> None:
        async def answers() -> bool:
            assert self.child.running, self.child.output()
            return await self.warden.broker_answers()

        await until(answers, f"{self.kind} answers")

    def reload(self) -> None:
        self.child.popen.send_signal(signal.SIGHUP)

    def context(self, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.ca_file))
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        return context

    def certificate(self, terminal: str) -> tuple[Path, Path]:
        """A certificate that the registry knows, so that it can be revoked."""
        folder = self.folder / "clients" / terminal
        if not folder.exists():
            _, _, serial = issue_client(self.authority, terminal, folder, now_ms=now_ms())
            connection = db.open_raw(self.settings.layout.database)

            def work(inside: Any) -> None:
                registry.add_terminal(inside, registry.NewTerminal(id=terminal), now_ms=now_ms())
                inside.execute(
                    "INSERT INTO tls_certificate (serial, terminal, not_after_ms, issued_ms) VALUES (?, ?, ?, ?)",
                    (serial, terminal, now_ms() + 10**9, now_ms()),
                )

            transact(connection, work)
            connection.close()
        return folder / "client.pem", folder / "client.key"

    def revoke(self, terminal: str) -> None:
        connection = db.open_raw(self.settings.layout.database)
        transact(connection, lambda inside: registry.revoke(inside, terminal, now_ms=now_ms()))
        connection.close()

    def client(self, terminal: str, **more: Any) -> aiomqtt.Client:
        options: dict[str, Any] = {"identifier": terminal, "timeout": 10, "clean_session": True, **more}
        if options.get("protocol") == aiomqtt.ProtocolVersion.V5:
            options["clean_session"] = None
        return aiomqtt.Client("127.0.0.1", self.port, tls_context=self.context(*self.certificate(terminal)), **options)

    def ingest(self) -> aiomqtt.Client:
        context = self.context(*self.authority.ingest_files)
        return aiomqtt.Client("127.0.0.1", self.port, identifier=INGEST_NAME, tls_context=context, timeout=10)


@pytest.fixture(params=["mosquitto", "embedded"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, processes: Processes, free_port: Callable[[], int]) -> Iterator[Bench]:
    bench = Bench(request.param, tmp_path, free_port(), processes)
    yield bench
    with suppress(ProcessLookupError):
        bench.child.stop()
