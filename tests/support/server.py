"""A whole server for a test or the demo: broker, ingest, enrolment and console as processes of their own, on free loopback ports."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher

from fleet_server import db
from fleet_server.authority.authority import Authority
from fleet_server.channel import transact
from fleet_server.enrolment import registry
from fleet_server.settings import Broker, BrokerKind, Enrolment, Settings, Web, to_environment
from tests.support.processes import Child, Processes, free_port
from tests.support.waiting import wait_until

PARTS = ("broker", "ingest", "dispatch", "enrolment", "web")
READY_WITHIN_S = 60.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class RunningServer:
    """`fleet-server run` on `folder/data`. `processes` ends it; `start` and `stop` may be called again and again."""

    def __init__(
        self,
        folder: Path,
        processes: Processes,
        *,
        broker: BrokerKind = "mosquitto",
        fleet: str = "testfleet",
        log_level: str = "info",
    ) -> None:
        self.processes = processes
        self.settings = Settings(
            data_dir=folder / "data",
            fleet=fleet,
            log_level=log_level,  # type: ignore[arg-type]  # a plain word for callers
            web=Web(port=free_port()),
            enrolment=Enrolment(port=free_port()),
            broker=Broker(kind=broker, port=free_port()),
        )
        self.child: Child | None = None

    @property
    def environment(self) -> dict[str, str]:
        return to_environment(self.settings)

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.web.port}"

    @property
    def enrolment_url(self) -> str:
        return f"https://127.0.0.1:{self.settings.enrolment.port}"

    @property
    def authority(self) -> Authority:
        return Authority(self.settings.layout.authority)

    @property
    def ca_fingerprint(self) -> bytes:
        return bytes.fromhex(self.authority.ca_fingerprint)

    # Running ---------------------------------------------------------------------------------------------------------------------------

    def command(self, *words: str | Path, env: Mapping[str, str] | None = None) -> Child:
        """Start `fleet-server` with these words against this server's data."""
        return self.processes.start_python("-m", "fleet_server.cli", *words, env={**self.environment, **(env or {})})

    def init(self) -> None:
        """Make keys and database without starting anything."""
        child = self.command("init")
        assert child.popen.wait(60) == 0, child.output()

    def start(self, *, wait: bool = True) -> RunningServer:
        self.child = self.command("run")
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, *, timeout_s: float = READY_WITHIN_S) -> None:
        """Until every part runs, the broker answers and both listeners take connections."""
        wait_until(self._ready, "the server is ready", timeout_s=timeout_s)

    def stop(self) -> int:
        """SIGTERM to the supervisor; returns its exit code."""
        assert self.child is not None
        return self.child.stop(timeout_s=30)

    def kill(self, part: str) -> int:
        """kill -9 of one part (or of the `supervisor`); returns the process id it had."""

        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        return pid

    def pid(self, part: str) -> int:
        """Process id of a part; waits for one that runs already and is not yet in the health file, which is written every few seconds."""

        def found() -> int | None:
            health = self.health()
            state = health if part == "supervisor" else health.get("parts", {}).get(part, {})
            return state.get("pid")

        wait_until(lambda: found() is not None, f"{part} runs", timeout_s=READY_WITHIN_S)
        pid = found()
        assert pid is not None, f"{part} has just ended"
        return pid

    def health(self) -> dict[str, Any]:
        """Empty while there is none."""
        with suppress(OSError, ValueError):
            health: dict[str, Any] = json.loads(self.settings.layout.health.read_text("utf-8"))
            return health
        return {}

    def wait_restarted(self, part: str, old_pid: int, *, timeout_s: float = READY_WITHIN_S) -> None:
        """Until `part` runs under another process id and the whole server is ready."""

        def back() -> bool:
            state = self.health().get("parts", {}).get(part, {})
            return state.get("state") == "running" and state.get("pid") not in (None, old_pid) and self._ready()

        wait_until(back, f"{part} is back", timeout_s=timeout_s)

    def _ready(self) -> bool:
        assert self.child is not None
        assert self.child.running, self.child.output()
        health = self.health()
        if not health or now_ms() - health["at_ms"] > 10_000 or not health["broker"]["answers"]:
            return False
        return (
            all(part["state"] == "running" for part in health["parts"].values())
            and listens(self.settings.web.port)
            and listens(self.settings.enrolment.port)
        )

    # Registry --------------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """A raw connection in autocommit mode; rows are tuples."""
        with closing(db.open_raw(self.settings.layout.database)) as connection:
            yield connection

    def rows(self, sql: str, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self.database() as connection:
            return connection.execute(sql, params).fetchall()

    def add_terminal(self, terminal: str, **more: Any) -> str:
        """Create it and return its one-time code; `more` as in `registry.NewTerminal`."""
        with self.database() as connection:

            def work(inside: sqlite3.Connection) -> str:
                registry.add_terminal(inside, registry.NewTerminal(id=terminal, **more), now_ms=now_ms())
                return registry.new_code(inside, terminal, by="test", now_ms=now_ms())

            return transact(connection, work)

    def revoke(self, terminal: str) -> None:
        with self.database() as connection:
            transact(connection, lambda inside: registry.revoke(inside, terminal, now_ms=now_ms()))

    def add_account(self, name: str, password: str, *, role: str = "operator", lang: str = "zh") -> None:
        """A staff account that need not change its password; hashed with little work, because tests sign in often."""
        hashed = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(password)
        with self.database() as connection:
            connection.execute(
                "INSERT INTO staff (name, display, password_hash, role, must_change, created_ms, lang) VALUES (?, '', ?, ?, 0, ?, ?)",
                (name, hashed, role, now_ms(), lang),
            )


def listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False
