"""The record contract under an unreliable road: the real outbox and the real ledger, faults by seed.

Faults: lost, doubled, late and reordered messages; crash of the agent at any step; a live copy of the agent; agent disk restored from a copy; server
restored from a backup; full outbox; purged acknowledged batches. The same kinds as the executable model of the contract, on the real code.

Safety: every captured record is stored exactly once, or covered by a signed loss notice, or named as gone by a signed birth, or was lost with the
disk that a restore threw away. Liveness: once faults stop, every queue empties.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import cbor2

from edge_agent.outbox import Outbox, OutboxLimits
from fleet_server.evidence.ledger import Greeting, Ledger
from protocols.contract import batch as batches
from protocols.contract import envelope as cose
from protocols.contract import messages, records
from protocols.contract.records import ClockQuality
from tests.support.contract import FLEET, TERMINAL, MemoryKey, StepClock

WINDOW = 4


class NullProjection:
    """Facts are not the subject here; what is stored and disputed is."""

    def __init__(self) -> None:
        self.alarms: list[str] = []

    def project(self, conn: object, batch: object, decoded: object) -> None: ...
    def dispute(self, conn: object, batch_ids: object) -> None: ...
    def alarm(self, conn: object, terminal: str, code: str, now_ms: int) -> None:
        self.alarms.append(code)


@dataclass
class SimAgent:
    """The real outbox with the uplink's greeting rules and no network."""

    outbox: Outbox
    path: Path
    online: bool = False
    nonce: bytes | None = None
    acked_ok: set[tuple[bytes, int]] = field(default_factory=set)

    def birth(self, nonce: bytes) -> messages.Birth:
        self.nonce, self.online = nonce, False
        held, more = self.outbox.held()
        return messages.Birth(
            nonce=nonce, agent="1.0", boot_no=self.outbox.boot_no, boot_id=b"b" * 16, stream=self.outbox.stream,
            wall_ms=1, boot_ms=1, quality=ClockQuality.SYNCED, held=held, more=more,
        )  # fmt: skip


class World:
    """One terminal (and perhaps its live copy), one server, two unreliable directions."""

    def __init__(self, seed: int, folder: Path, template: Path, *, clones: bool) -> None:
        self.rng = random.Random(seed)
        self.folder, self.clones = folder, clones
        self.clock = StepClock()
        self.key = MemoryKey(self.rng.randbytes(32))
        self.count = 0
        self.captured: dict[int, str] = {}
        self.evicted: set[int] = set()
        self.purged: set[int] = set()
        self.thrown_away: set[int] = set()
        self.up: list[tuple[str, object]] = []
        self.down: list[tuple[str, object]] = []
        self.server_path = folder / "server.db"
        shutil.copy(template, self.server_path)
        self._open_server()
        self.server.conn.execute(
            "INSERT INTO terminal (id, code, type, name_zh, name_en, site, class, inventory, created_ms, tags) "
            "VALUES (?, 'KF-0001', 'kiosk', '', '', '', 'government', '[]', 0, '[]')",
            (TERMINAL,),
        )
        self.server.conn.execute(
            "INSERT INTO record_key (kid, terminal, generation, public_key, certificate, issued_ms) VALUES (?, ?, 1, ?, x'', 0)",
            (self.key.kid, TERMINAL, self.key.public),
        )
        self.server_snap: Path | None = None
        self.agent_snap: Path | None = None
        self.agents = [self._new_agent(folder / "agent-0.db")]

    # -- parts --------------------------------------------------------------------------------------------------------

    def _open_server(self) -> None:
        conn = sqlite3.connect(self.server_path, isolation_level=None)
        conn.execute("PRAGMA synchronous=OFF")
        conn.execute("PRAGMA journal_mode=WAL")
        self.projection = NullProjection()
        self.server = Ledger(conn, FLEET, self.projection)
        self.greeting: Greeting | None = None

    def _new_outbox(self, path: Path) -> Outbox:
        return Outbox(
            path, self.key, FLEET, TERMINAL, self.clock, durable=False, random_bytes=self.rng.randbytes,
            limits=OutboxLimits(max_bytes=1 << 30, keep_acked_s=0),
        )  # fmt: skip

    def _new_agent(self, path: Path) -> SimAgent:
        agent = SimAgent(self._new_outbox(path), path)
        agent.outbox.start_stream(b"b" * 16)
        return agent

    def restart(self, agent: SimAgent) -> None:
        """kill -9 and start again: the connection is simply dropped."""
        agent.outbox._db.close()
        agent.outbox = self._new_outbox(agent.path)
        agent.outbox.start_stream(b"b" * 16)
        agent.online, agent.nonce = False, None

    # -- the road -----------------------------------------------------------------------------------------------------

    def new_record(self) -> records.Body:
        self.count += 1
        return records.Notice(code="recordsRefused", count=self.count)

    def deliver(self, queue: list[tuple[str, object]], handler: object, *, fair: bool = False) -> None:
        if not queue:
            return
        message = queue.pop(0 if fair else self.rng.randrange(len(queue)))
        if not fair:
            chance = self.rng.random()
            if chance < 0.15:
                return
            if chance < 0.25:
                queue.append(message)
        handler(*message)  # type: ignore[operator]

    def at_server(self, kind: str, body: object) -> None:
        conn = self.server.conn
        if kind == "hello":
            self.greeting = Greeting(self.rng.randbytes(16))
            self.down.append(("challenge", (body, self.greeting.nonce)))
        elif kind == "birth":
            assert isinstance(body, messages.Birth)
            if self.greeting is None or body.nonce != self.greeting.nonce:
                return
            self.greeting.spans = {held.stream: held for held in body.held}
            self.down.append(("head", messages.Head(nonce=body.nonce, heads=self.server.heads(TERMINAL, body.held))))
        else:
            assert isinstance(body, tuple)
            batch_kind, envelope = body
            self.clock.advance(1)
            conn.execute("BEGIN IMMEDIATE")
            self.server.refresh()
            outcome = self.server.receive(TERMINAL, batch_kind, "t", envelope, self.greeting, self.clock.wall_ms())
            conn.execute("COMMIT")
            assert outcome.quarantined is None, outcome.quarantined
            if outcome.ack and self.greeting:
                self.down.append(("ack", messages.Ack(nonce=self.greeting.nonce, entries=(outcome.ack,))))

    def at_agent(self, kind: str, body: object) -> None:
        if kind == "challenge":
            assert isinstance(body, tuple)
            agent, nonce = body
            if agent in self.agents:
                self.up.append(("birth", agent.birth(nonce)))
            return
        for agent in self.agents:  # both copies of a clone hear the same topic
            assert isinstance(body, messages.Head | messages.Ack)
            if body.nonce != agent.nonce:
                continue
            if isinstance(body, messages.Head):
                agent.outbox.apply_head(body)
                agent.online = True
            elif agent.online:
                agent.outbox.apply_ack(body)

    def send(self, agent: SimAgent) -> None:
        if agent.online:
            for item in agent.outbox.unacknowledged(0, max_count=WINDOW, max_bytes=1 << 20):
                self.up.append(("batch", (item.kind, item.envelope)))

    # -- faults -------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        r, agent = self.rng.random(), self.rng.choice(self.agents)
        if r < 0.22:
            agent.outbox.capture(self.new_record())
        elif r < 0.34:
            agent.outbox.seal()
        elif r < 0.40:
            self.up.append(("hello", agent))
        elif r < 0.52:
            self.send(agent)
        elif r < 0.70:
            self.deliver(self.up, self.at_server)
        elif r < 0.88:
            self.deliver(self.down, self.at_agent)
        elif r < 0.91:
            self.restart(agent)
            self._maybe_clear()
        elif r < 0.93:
            agent.online = False
            self._maybe_clear()
        elif r < 0.95:
            before = _on_disk(agent.outbox)
            agent.outbox._purge_acked(older_than_ms=None, at_most=1)
            self.purged |= before - _on_disk(agent.outbox)
        elif r < 0.96:
            before = _on_disk(agent.outbox)
            agent.outbox._evict(2)
            self.evicted |= before - _on_disk(agent.outbox)
        elif r < 0.97:
            self.server_snap = self._copy(self.server.conn, self.folder / "server-snap.db")
        elif r < 0.975 and self.server_snap is not None:
            self.server.conn.close()
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.server_path}{suffix}").unlink(missing_ok=True)
            shutil.copy(self.server_snap, self.server_path)
            self._open_server()
            for other in self.agents:
                other.online = False
        elif r < 0.985:
            self.agent_snap = self._copy(agent.outbox._db, self.folder / "agent-snap.db")
        elif r < 0.99 and self.agent_snap is not None:
            before = _on_disk(agent.outbox)
            agent.outbox._db.close()
            for suffix in ("", "-wal", "-shm"):
                Path(f"{agent.path}{suffix}").unlink(missing_ok=True)
            shutil.copy(self.agent_snap, agent.path)
            agent.outbox = self._new_outbox(agent.path)
            agent.outbox.start_stream(b"b" * 16)
            agent.online, agent.nonce = False, None
            self.thrown_away |= before - _on_disk(agent.outbox)
        elif r < 0.992 and self.clones and len(self.agents) == 1:
            path = self._copy(agent.outbox._db, self.folder / "agent-1.db")
            # A running machine copied: same stream, no restart.
            self.agents.append(SimAgent(self._new_outbox(path), path, agent.online, agent.nonce))

    def _maybe_clear(self) -> None:
        if self.rng.random() < 0.5:
            self.down.clear()

    @staticmethod
    def _copy(conn: sqlite3.Connection, target: Path) -> Path:
        target.unlink(missing_ok=True)
        copy = sqlite3.connect(target)
        conn.backup(copy)
        copy.close()
        return target

    # -- the end ------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        self.up.clear()
        self.down.clear()
        for agent in self.agents:
            agent.outbox.seal()
        for agent in self.agents:  # one after the other takes the connection and empties its queue
            self.at_server("hello", agent)
            for _ in range(400):
                while self.down or self.up:
                    self.deliver(self.down, self.at_agent, fair=True)
                    self.deliver(self.up, self.at_server, fair=True)
                if not agent.outbox.depth():
                    break
                self.send(agent)
        assert not any(agent.outbox.depth() for agent in self.agents), "the queue does not empty"

    def check(self) -> tuple[int, int]:
        """Returns (records found, records captured) after proving safety and liveness."""
        self.settle()
        conn = self.server.conn
        seen: dict[int, str] = {}
        rows = conn.execute("SELECT hex(stream), no, envelope, kind, 0 FROM batch").fetchall()
        rows += conn.execute("SELECT hex(stream), no, envelope, 'data', 1 FROM aside").fetchall()
        for stream, no, envelope, kind, aside in rows:
            for number in _numbers(bytes(envelope)) if kind == "data" else ():
                first = seen.setdefault(number, stream)
                assert first == stream or self.clones or aside, ("stored twice", number, stream, no)
        explained = self.evicted | self.purged | self.thrown_away
        missing = [n for n in range(1, self.count + 1) if n not in seen and n not in explained]
        assert not missing, ("neither stored nor explained", missing[:5])
        for stream, head in conn.execute("SELECT stream, head_no FROM stream"):
            stored = {row[0] for row in conn.execute("SELECT no FROM batch WHERE stream = ?", (stream,))}
            for first, last in conn.execute("SELECT first_no, last_no FROM hole WHERE stream = ?", (stream,)):
                stored |= set(range(first, last + 1))
            assert stored == set(range(1, head + 1)), ("silent hole", stream.hex(), head)
        duplicates = conn.execute("SELECT count(*) - count(DISTINCT hex(stream) || no) FROM batch").fetchone()[0]
        assert duplicates == 0
        for agent in self.agents:
            agent.outbox._db.close()
        conn.close()
        return len(seen), self.count


def _numbers(envelope: bytes) -> list[int]:
    try:
        payload = cose.parse(envelope, 1 << 20).payload
        opened = cose.Opened(payload=payload, kid=b"", digest=b"", raw=envelope)
        return [item["v"].get("count", 1) for item in batches.read_batch(opened).records]
    except Exception:  # noqa: BLE001 - a loss notice set aside has no records
        return []


def _on_disk(outbox: Outbox) -> set[int]:
    numbers: set[int] = set()
    for (envelope,) in outbox._db.execute("SELECT envelope FROM batch WHERE kind = 'data'"):
        numbers |= set(_numbers(bytes(envelope)))
    for (record,) in outbox._db.execute("SELECT record FROM pending"):
        numbers.add(cbor2.loads(bytes(record))["v"].get("count", 1))
    return numbers


def run(seed: int, folder: Path, template: Path, steps: int) -> tuple[int, int]:
    world = World(seed, folder, template, clones=seed % 4 == 3)
    for _ in range(steps):
        world.step()
    return world.check()
