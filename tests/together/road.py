"""What the tests of the whole road share: lean terminals, an agent's sending half in this process, and what must hold at the end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import itertools
import random
import sqlite3
import ssl
import threading
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent import enrol, identity, tls
from edge_agent.clock import SystemClock
from edge_agent.identity import Identity
from edge_agent.local_api.service import SALT_KEY
from edge_agent.outbox import Outbox, Recorder
from edge_agent.sessions import hidden_id
from edge_agent.signing import FileKeyStore
from edge_agent.uplink import Conversation, Uplink, UplinkSettings
from protocols.contract import envelope as cose
from protocols.contract import records
from protocols.contract.batch import read_batch
from protocols.contract.limits import ENVELOPE_MAX_BYTES
from protocols.contract.records import Body, Record
from tests.support.contract import BOOT_ID
from tests.support.processes import Processes
from tests.support.server import RunningServer, listens, now_ms
from tests.support.terminal import RealTerminal
from tests.support.waiting import until, wait_until


class RoadServer(RunningServer):
    """Ready when the road is: whether the console's pages are up is not the subject here."""

    def _ready(self) -> bool:
        assert self.child is not None
        assert self.child.running, self.child.output()
        health = self.health()
        if not health or now_ms() - health["at_ms"] > 10_000 or not health["broker"]["answers"]:
            return False
        needed = ("broker", "ingest", "enrolment")
        return all(health["parts"][part]["state"] == "running" for part in needed) and listens(self.settings.enrolment.port)


@contextmanager
def whole_server(folder: Path, **more: Any) -> Iterator[RunningServer]:
    """A running server with processes of its own, for fixtures of any scope."""
    logs = folder / "process-logs"
    logs.mkdir(parents=True)
    processes = Processes(logs)
    try:
        made = RoadServer(folder / "server", processes, **more)
        made.init()
        made.start()
        yield made
    finally:
        processes.end_all()


class LeanTerminal(RealTerminal):
    """A real agent process without devices, where the road is the subject. `tables` is appended to its configuration."""

    tables: Sequence[str] = ()
    env: dict[str, str] = {}  # noqa: RUF012 - replaced per instance, never changed
    log_level = "info"

    def plug_in(self) -> None:
        (self.ports / "sim").mkdir()
        (self.ports / "sim" / "ports.json").write_text('{"ports": []}', "utf-8")

    def write_config(self) -> None:
        super().write_config()
        with self.config.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in self.tables)

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def identity_dir(self) -> Path:
        return self.folder / "identity"

    def start(self, *, wait: bool = True) -> None:
        self.agent = self.processes.start_python(
            "-m", "edge_agent.cli", "run", "--config", self.config, "--log-level", self.log_level, env=self.env
        )
        if wait:
            self.wait_answering()

    def kill(self) -> None:
        assert self.agent is not None
        self.agent.kill()

    def depth(self) -> int:
        """Batches that wait for an acknowledgement, read beside the running agent."""
        return spool_depth(self.outbox)


def make_lean(
    folder: Path,
    server: RunningServer,
    terminal: str,
    *,
    tables: Sequence[str] = (),
    start: bool = True,
    processes: Processes | None = None,
) -> LeanTerminal:
    """Made, enrolled and (with `start`) running."""
    made = LeanTerminal(folder, processes or server.processes, server, terminal)
    made.tables = tables
    made.plug_in()
    made.write_config()
    made.enrol()
    if start:
        made.start()
    return made


def through(port: int) -> list[str]:
    """Configuration that sends an agent to its broker by way of a relay."""
    return ["[mqtt]", 'host = "127.0.0.1"', f"port = {port}"]


def spool_depth(path: Path) -> int:
    with closing(sqlite3.connect(path, timeout=5)) as db:
        row = db.execute("SELECT (SELECT count(*) FROM batch WHERE acked_ms IS NULL) + (SELECT count(*) FROM pending)").fetchone()
    return int(row[0])


# Cases ----------------------------------------------------------------------------------------------------------------------------------


@dataclass
class Cases:
    """What a kiosk application was told is done. `enter` repeats what was not confirmed, under the same id."""

    terminal: RealTerminal
    confirmed: list[str] = field(default_factory=list)
    refusals: Counter[int] = field(default_factory=Counter)

    def enter(self, count: int, *, timeout_s: float = 20) -> None:
        """So many cases, each confirmed."""
        for _ in range(count):
            client = str(uuid.uuid4())
            wait_until(lambda client=client: self.try_one(client), "a case is confirmed", timeout_s=timeout_s)  # type: ignore[misc]

    def enter_for(self, seconds: float) -> None:
        end_s, client = time.monotonic() + seconds, str(uuid.uuid4())
        while time.monotonic() < end_s:
            if self.try_one(client):
                client = str(uuid.uuid4())
            else:
                time.sleep(0.02)

    def try_one(self, client: str) -> bool:
        try:
            self.terminal.api.case(client)
        except (OSError, http.client.HTTPException):
            return False
        self.confirmed.append(client)
        return True

    def hidden(self, outbox: Path | None = None) -> set[bytes]:
        """The ids under which the server must have them."""
        salt = salt_of(outbox or self.terminal.outbox)
        return {hidden_id(salt, "session", uuid.UUID(client)) for client in self.confirmed}


class Traffic(threading.Thread):
    """Enters cases beside the test until `stop`."""

    def __init__(self, cases: Cases, *, pause_s: float = 0.05) -> None:
        super().__init__(daemon=True)
        self._cases, self._pause_s, self._ended = cases, pause_s, threading.Event()
        self.start()

    def run(self) -> None:
        client = str(uuid.uuid4())
        while not self._ended.wait(self._pause_s):
            if self._cases.try_one(client):
                client = str(uuid.uuid4())

    def stop(self) -> None:
        self._ended.set()
        self.join(20)
        assert not self.is_alive()


def salt_of(outbox: Path) -> bytes:
    with closing(sqlite3.connect(outbox, timeout=5)) as db:
        row = db.execute("SELECT value FROM kv WHERE key = ?", (SALT_KEY,)).fetchone()
    return bytes(row[0])


# At the server --------------------------------------------------------------------------------------------------------------------------


def decode(envelope: bytes) -> list[Record]:
    """The records of a batch whose signature somebody else has checked."""
    parsed = cose.parse(bytes(envelope), ENVELOPE_MAX_BYTES)
    opened = cose.Opened(payload=parsed.payload, kid=parsed.kid, digest=b"", raw=parsed.raw)
    return [records.decode_record(item) for item in read_batch(opened).records]


def stored_records(server: RunningServer, terminal: str, *, aside: bool = False) -> list[Record]:
    """Everything the server keeps of a terminal, in the order of its streams; with `aside` also second stories."""
    rows = server.rows(
        "SELECT b.envelope FROM batch b JOIN stream s ON s.terminal = b.terminal AND s.stream = b.stream WHERE b.terminal = ? AND b.kind = 'data' "
        "ORDER BY s.boot_no, s.stream, b.no",
        (terminal,),
    )
    if aside:
        rows += server.rows("SELECT envelope FROM aside WHERE terminal = ? ORDER BY stream, no", (terminal,))
    return [record for (envelope,) in rows for record in decode(envelope)]


def stored_bodies(server: RunningServer, terminal: str, kind: type[Body], *, aside: bool = False) -> list[Any]:
    bodies = (records.body_of(record) for record in stored_records(server, terminal, aside=aside))
    return [body for body in bodies if isinstance(body, kind)]


def stored_cases(server: RunningServer, terminal: str, *, disputed: int = 0) -> int:
    return int(server.rows("SELECT count(*) FROM session WHERE terminal = ? AND disputed = ?", (terminal, disputed))[0][0])


def wait_cases(server: RunningServer, terminal: str, count: int, *, timeout_s: float = 60) -> None:
    wait_until(lambda: stored_cases(server, terminal) >= count, f"{count} cases of {terminal} at the server", timeout_s=timeout_s)


def check_cases(server: RunningServer, cases: Cases) -> None:
    """Each confirmed case is there exactly once, and what else is there was at least entered."""
    terminal = cases.terminal.terminal
    told = Counter(body.id for body in stored_bodies(server, terminal, records.Session))
    assert not cases.hidden() - set(told), "confirmed cases are missing"
    assert set(told.values()) <= {1}, "a case is stored twice"
    facts = [row[0] for row in server.rows("SELECT sid FROM session WHERE terminal = ?", (terminal,))]
    assert sorted(facts) == sorted(told), "facts and evidence disagree"


def check_chain(server: RunningServer, terminal: str) -> None:
    """Nothing quarantined, disputed or missing: every stream is there from 1 to its head."""
    assert server.rows("SELECT reason, count FROM quarantine_count WHERE terminal = ?", (terminal,)) == []
    assert server.rows("SELECT count(*) FROM stream WHERE disputed = 1 AND terminal = ?", (terminal,)) == [(0,)]
    assert server.rows("SELECT count(*) FROM hole WHERE terminal = ?", (terminal,)) == [(0,)]
    for stream, head in server.rows("SELECT stream, head_no FROM stream WHERE terminal = ?", (terminal,)):
        numbers = [row[0] for row in server.rows("SELECT no FROM batch WHERE stream = ? ORDER BY no", (stream,))]
        assert numbers == list(range(1, head + 1))


def check_evidence(server: RunningServer, terminal: str, folder: Path) -> str:
    """What was exported verifies with the command that a stranger would use; returns what that said."""
    file, root = folder / f"{terminal}-{uuid.uuid4().hex[:8]}.evidence", folder / "root.pub"
    child = server.command("export-evidence", terminal, "--out", file)
    assert child.popen.wait(60) == 0, child.output()
    root.write_text(base64.b64encode(server.authority.root_public_key.public_bytes_raw()).decode())
    child = server.command("verify-evidence", file, "--root", root)
    assert child.popen.wait(60) == 0, child.output()
    assert "holds:" in child.output()
    return child.output()


def open_alarms(server: RunningServer, terminal: str) -> list[str]:
    rows = server.rows(
        "SELECT code FROM fault WHERE terminal = ? AND source = 'platform' AND cleared_ms IS NULL ORDER BY code", (terminal,)
    )
    return [row[0] for row in rows]


# The sending half of an agent, in this process ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Enrolled:
    """A terminal's identity: keys and certificates as the real command leaves them."""

    who: Identity
    keys: FileKeyStore
    folder: Path

    @property
    def terminal(self) -> str:
        return self.who.terminal

    def tls(self) -> ssl.SSLContext:
        return tls.client_context(identity.load_ca(self.folder / "identity"), check_dates=True, keys=self.keys)


def enrolled(server: RunningServer, folder: Path, terminal: str) -> Enrolled:
    """Created at the server and enrolled over HTTPS."""
    home = folder / terminal
    home.mkdir(parents=True)
    keys = FileKeyStore(home / "identity")
    who = enrol.enrol(
        enrol.Request(
            server_url=server.enrolment_url,
            terminal=terminal,
            code=server.add_terminal(terminal),
            trust=enrol.Trust(fingerprint=server.ca_fingerprint),
            hardware={},
            check_dates=True,
        ),
        keys,
        home / "identity",
    )
    return Enrolled(who, keys, home)


class Sender:
    """Outbox, conversation and uplink of one terminal, for the road and nothing else. Records are notices with running numbers."""

    def __init__(
        self,
        me: Enrolled,
        *,
        port: int | None = None,
        path: Path | None = None,
        seed: int = 1,
        first: int = 1,
        goes_on: bool = False,
    ) -> None:
        """`first`: number of the first record. `goes_on`: not a start of the agent but the same run, as in a machine that was copied alive."""
        self.me, self.seed, self.goes_on = me, seed, goes_on
        self.path = path or me.folder / "outbox.db"
        self.port = port or me.who.mqtt.port
        self.numbers = itertools.count(first)
        self.captured: list[int] = []
        self.links: list[str] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Sender]:
        who, clock = self.me.who, SystemClock(synchronised=lambda: True)
        self.outbox = Outbox(self.path, self.me.keys.record_key(), who.fleet, who.terminal, clock)
        if not self.goes_on:
            self.outbox.start_stream(BOOT_ID)
        self.goes_on = True
        self.conversation = Conversation(self.outbox, clock, who.root(), "1.0", BOOT_ID, tuple)
        settings = UplinkSettings(host=who.mqtt.host, port=self.port, tls=self.me.tls, backoff_first_s=0.1, backoff_max_s=0.3)
        self.uplink = Uplink(
            settings,
            self.outbox,
            self.conversation,
            lambda state, _reason, _n: self.links.append(state),
            random.Random(self.seed),
        )
        self.recorder = Recorder(self.outbox, self.uplink.kick)
        running = asyncio.get_running_loop().create_task(self.uplink.run())
        try:
            yield self
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            self.recorder.close()
            self.outbox.close(clean=False)

    def capture(self, count: int = 1) -> None:
        """So many records, sealed as one batch."""
        for _ in range(count):
            number = next(self.numbers)
            self.recorder.capture(records.Notice(code="recordsRefused", count=number))
            self.captured.append(number)
        self.recorder.seal()

    async def drained(self, *, timeout_s: float = 30) -> None:
        await until(lambda: self.outbox.depth() == 0, f"the queue of {self.me.terminal} is empty", timeout_s=timeout_s)


def stored_numbers(server: RunningServer, terminal: str, *, aside: bool = False) -> list[int]:
    return [body.count for body in stored_bodies(server, terminal, records.Notice, aside=aside)]


# Seeing into the fleet's keys -----------------------------------------------------------------------------------------------------------


def ingest_context(server: RunningServer) -> ssl.SSLContext:
    """TLS as the ingest itself, for a test that must see or say everything at the broker."""
    context = ssl.create_default_context(cafile=str(server.authority.ca_file))
    context.load_cert_chain(*server.authority.ingest_files)
    return context
