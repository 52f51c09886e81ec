"""The ingest desk: greeting, bundles, answers after the commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fleet_server.db import migrate
from fleet_server.ingest.desk import BIRTHS_PER_GREETING, Answer, Desk, Incoming, merge_acks
from protocols.contract import envelope as cose
from protocols.contract import messages, topics, wire
from protocols.contract.limits import CONTROL_MAX_BYTES
from protocols.contract.messages import AckEntry, AckMode, Held
from protocols.contract.records import ClockQuality
from tests.fleet_server.evidence.conftest import OTHER, Bench
from tests.support.contract import (
    BOOT_ID,
    FLEET,
    NOW_MS,
    RECORD,
    SERVER,
    SERVER_CERT,
    STRANGER,
    TERMINAL,
    Chain,
    MemoryKey,
    notice,
)

A, B = b"\xaa" * 16, b"\xbb" * 16


@dataclass
class SpyPresence:
    heard_of: list[tuple[str, str]] = field(default_factory=list)
    births: list[messages.Birth] = field(default_factory=list)

    def heard(self, terminal: str, by: str, now_ms: int, *, depth: int | None = None, oldest_ms: int | None = None) -> None:
        self.heard_of.append((terminal, by))

    def born(self, conn: sqlite3.Connection, terminal: str, birth: messages.Birth, now_ms: int) -> None:
        self.births.append(birth)


class Table:
    """A desk with its ledger, and a terminal's half of the conversation made by hand."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.presence = bench, SpyPresence()
        self.desk = Desk(bench.ledger, SERVER, SERVER_CERT, self.presence, lambda: NOW_MS)

    def send(self, kind: str, payload: bytes, terminal: str = TERMINAL) -> list[Answer]:
        taken, answers = self.desk.handle([Incoming(topics.up(terminal, kind), payload)])
        assert taken == 1
        return answers

    def hello(self, connection: bytes = b"conn....", terminal: str = TERMINAL) -> messages.Challenge:
        (answer,) = self.send("hello", wire.dump(messages.Hello(connection=connection)), terminal)
        return read(answer, "challenge", messages.CHALLENGE_CONTEXT, messages.Challenge, terminal)

    def birth(self, nonce: bytes, *held: Held, key: MemoryKey = RECORD, terminal: str = TERMINAL) -> list[Answer]:
        message = messages.Birth(
            nonce=nonce, agent="0.1.0", boot_no=1, boot_id=BOOT_ID, stream=A, wall_ms=NOW_MS, boot_ms=1,
            quality=ClockQuality.SYNCED, held=held,
        )  # fmt: skip
        return self.send("birth", wire.seal(message, key, messages.BIRTH_CONTEXT, FLEET, terminal), terminal)

    def greeted(self, *held: Held) -> bytes:
        nonce = self.hello().nonce
        self.birth(nonce, *held)
        return nonce


def read(answer: Answer, kind: str, context: str, of: type[wire.T], terminal: str = TERMINAL) -> wire.T:
    assert answer.topic == topics.down(terminal, kind)
    opened = cose.verify(cose.parse(answer.payload, CONTROL_MAX_BYTES), SERVER.verifier, context, FLEET, terminal)
    return wire.read(opened.payload, of)


def acks(answers: list[Answer]) -> list[tuple[int, AckMode]]:
    return [(e.no, e.mode) for a in answers for e in read(a, "ack", messages.ACK_CONTEXT, messages.Ack).entries]


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    path = tmp_path / "fleet.sqlite"
    migrate(path)
    bench = Bench(path)
    bench.enrol(TERMINAL, RECORD)
    bench.enrol(OTHER, STRANGER)
    yield Table(bench)
    bench.conn.close()


@pytest.mark.spec("C-403", "C-407")
def test_each_hello_gets_a_fresh_signed_nonce_and_each_birth_a_head(table: Table) -> None:
    chain = Chain(A)
    table.bench.send(chain.seal())
    first, second = table.hello(b"one....."), table.hello(b"two.....")
    assert (first.connection, second.connection) == (b"one.....", b"two.....")
    assert first.nonce != second.nonce
    assert second.certificate == SERVER_CERT
    (answer,) = table.birth(second.nonce, Held(A, 1, b"", 1), Held(B, 1, b"", 4))
    head = read(answer, "head", messages.HEAD_CONTEXT, messages.Head)
    assert head.nonce == second.nonce
    assert [(h.stream, h.no, h.digest) for h in head.heads] == [(A, 1, chain.digest), (B, 0, b"")]
    assert len(table.presence.births) == 1


@pytest.mark.spec("C-407")
def test_the_head_names_what_was_set_aside(table: Table) -> None:
    one, two = Chain(A), Chain(A)
    table.bench.send(one.seal(notice(1)))
    table.bench.send(two.seal(notice(2)))
    (answer,) = table.birth(table.hello().nonce, Held(A, 1, b"", 1))
    head = read(answer, "head", messages.HEAD_CONTEXT, messages.Head)
    assert head.heads[0].aside == ((1, two.digest),)


@pytest.mark.spec("C-406")
def test_a_birth_of_an_earlier_connection_is_refused_and_the_current_one_is_not(table: Table) -> None:
    old, new = table.hello().nonce, table.hello().nonce
    assert table.birth(old) == []
    assert table.bench.one("SELECT reason FROM quarantine") == "staleNonce"
    assert len(table.birth(new)) == 1


@pytest.mark.spec("C-406", "C-903")
def test_a_birth_signed_by_another_key_is_refused(table: Table) -> None:
    nonce = table.hello().nonce
    assert table.birth(nonce, key=STRANGER) == []
    assert table.bench.one("SELECT reason FROM quarantine") == "foreignKey"
    assert len(table.birth(nonce)) == 1


@pytest.mark.spec("C-403")
def test_a_batch_from_a_forgotten_connection_is_stored_and_answered_with_a_challenge(table: Table) -> None:
    (answer,) = table.send("batch", Chain(A).seal())
    challenge = read(answer, "challenge", messages.CHALLENGE_CONTEXT, messages.Challenge)
    assert challenge.connection == bytes(8)
    assert table.bench.numbers(A) == [1]


@pytest.mark.spec("C-502")
def test_nothing_is_acknowledged_that_was_not_committed(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.greeted()
    chain = Chain(A)
    bundle = [Incoming(topics.up(TERMINAL, "batch"), chain.seal()) for _ in range(3)]
    real = table.bench.ledger.receive
    calls = 0

    def dies_at_the_third(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise sqlite3.OperationalError("disk I/O error")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(table.bench.ledger, "receive", dies_at_the_third)
    with pytest.raises(sqlite3.OperationalError):
        table.desk.handle(bundle)
    assert table.bench.numbers(A) == []
    assert table.desk.tally.batches == 0
    monkeypatch.undo()
    taken, answers = table.desk.handle(bundle)
    assert (taken, acks(answers)) == (3, [(3, AckMode.UP_TO)])


def test_a_bundle_is_one_transaction_and_one_acknowledgement_per_terminal(table: Table) -> None:
    table.greeted()
    other_nonce = table.hello(terminal=OTHER).nonce
    table.birth(other_nonce, key=STRANGER, terminal=OTHER)
    mine, theirs = Chain(A), Chain(B, key=STRANGER, terminal=OTHER)
    bundle = []
    for _ in range(5):
        bundle += [Incoming(topics.up(TERMINAL, "batch"), mine.seal()), Incoming(topics.up(OTHER, "batch"), theirs.seal())]
    commits = []
    table.bench.conn.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    taken, answers = table.desk.handle(bundle)
    assert (taken, len(answers), len(commits)) == (10, 2, 1)


def test_a_bundle_stops_at_its_time(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet_server.ingest.desk.BUNDLE_S", 0.0)
    table.greeted()
    chain = Chain(A)
    bundle = [Incoming(topics.up(TERMINAL, "batch"), chain.seal()) for _ in range(3)]
    assert table.desk.handle(bundle)[0] == 1


@pytest.mark.spec("C-902")
@pytest.mark.parametrize(
    "topic", [f"kf/1/00/{TERMINAL}/up/batch", "kf/1/x", f"kf/1/{topics.shard(TERMINAL)}/{TERMINAL}/up/gossip"]
)
def test_topics_that_do_not_fit_are_quarantined_and_the_right_one_is_served(table: Table, topic: str) -> None:
    table.greeted()
    raw = Chain(A).seal()
    assert table.desk.handle([Incoming(topic, raw)]) == (1, [])
    assert table.bench.one("SELECT reason FROM quarantine") == "topic"
    assert acks(table.send("batch", raw)) == [(1, AckMode.UP_TO)]


@pytest.mark.spec("C-107", "C-801")
@pytest.mark.parametrize(
    "payload", [b"", b"\xff", bytes(10_000), wire.dump(messages.Hello(connection=b"12345678"))], ids=lambda p: str(len(p))
)
def test_hints_are_never_evidence(table: Table, payload: bytes) -> None:
    for kind in ("hb", "will"):
        assert table.send(kind, payload) == []
    assert table.bench.one("SELECT count(*) FROM batch") == 0
    table.send("hb", wire.dump(messages.Heartbeat(boot_no=1)))
    assert table.presence.heard_of[-1] == (TERMINAL, "heartbeat")


@pytest.mark.spec("C-107")
def test_oversized_control_messages_are_refused(table: Table) -> None:
    assert table.send("hello", bytes(300)) == []
    assert table.send("birth", bytes(CONTROL_MAX_BYTES + 1)) == []
    assert [row[0] for row in table.bench.conn.execute("SELECT reason FROM quarantine")] == ["oversized", "oversized"]


def test_acknowledgements_are_merged_without_losing_any() -> None:
    d = b"d" * 32
    entries = [
        AckEntry(A, 1, d, AckMode.UP_TO), AckEntry(A, 2, d, AckMode.UP_TO), AckEntry(A, 7, d, AckMode.ALONE),
        AckEntry(A, 3, d, AckMode.UP_TO), AckEntry(B, 1, d, AckMode.UP_TO), AckEntry(B, 1, d, AckMode.BACK), AckEntry(B, 1, d, AckMode.BACK),
    ]  # fmt: skip
    assert [(e.stream[0], e.no, e.mode) for e in merge_acks(entries)] == [
        (A[0], 2, AckMode.UP_TO), (A[0], 7, AckMode.ALONE), (A[0], 3, AckMode.UP_TO), (B[0], 1, AckMode.UP_TO), (B[0], 1, AckMode.BACK),
    ]  # fmt: skip


@pytest.mark.spec("C-403", "C-407")
def test_births_without_end_under_one_nonce_are_not_answered_without_end(table: Table) -> None:
    """A head is long. Whoever wants more of them has to read its way to a new nonce."""
    nonce = table.greeted()
    for _ in range(BIRTHS_PER_GREETING - 1):
        (head,) = table.birth(nonce)
        assert head.topic == topics.down(TERMINAL, "head")
    (answer,) = table.birth(nonce)
    fresh = read(answer, "challenge", messages.CHALLENGE_CONTEXT, messages.Challenge).nonce
    assert table.bench.conn.execute("SELECT reason, count FROM quarantine_count").fetchall() == [("flood", 1)]
    assert table.birth(nonce) == []
    (head,) = table.birth(fresh)
    assert head.topic == topics.down(TERMINAL, "head"), "an honest terminal answers the challenge and goes on"
