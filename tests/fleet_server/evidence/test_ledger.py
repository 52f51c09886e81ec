"""What the server does with a batch: the table of the contract, section 5, row by row, and everything that is refused.

Each refusal stands beside the rightful party being served.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing

import cbor2
import pytest

from fleet_server.channel import transact
from fleet_server.db import open_raw
from fleet_server.evidence.ledger import QUARANTINE_PER_SENDER, Greeting, HeadMoved
from fleet_server.evidence.verdict import settle
from fleet_server.facts import DecodedRecord, StoredBatch
from protocols.contract import batch as batches
from protocols.contract import records
from protocols.contract.limits import ENVELOPE_MAX_BYTES
from protocols.contract.messages import AckMode, Held, StreamHead
from tests.fleet_server.evidence.conftest import OTHER, Bench
from tests.support.contract import FLEET, NOW_MS, RECORD, ROOT, STRANGER, TERMINAL, Chain, MemoryKey, notice

A, B, C = b"\xaa" * 16, b"\xbb" * 16, b"\xcc" * 16
NEW_KEY = MemoryKey(b"\x09" * 32)


def acked(outcome: object) -> tuple[int, AckMode] | None:
    ack = getattr(outcome, "ack", None)
    return None if ack is None else (ack.no, ack.mode)


@pytest.mark.spec("C-506", "C-516")
def test_the_next_number_is_stored_and_acknowledged_up_to_it(bench: Bench) -> None:
    chain = Chain(A)
    for no in (1, 2, 3):
        assert acked(bench.send(chain.seal())) == (no, AckMode.UP_TO)
    assert bench.numbers(A) == [1, 2, 3]
    assert [batch.no for batch, _ in bench.spy.projected] == [1, 2, 3]


@pytest.mark.spec("C-507")
def test_a_repeat_is_acknowledged_by_itself_and_stored_once(bench: Bench) -> None:
    chain = Chain(A)
    first = chain.seal()
    assert acked(bench.send(first)) == (1, AckMode.UP_TO)
    for _ in range(3):
        assert acked(bench.send(first)) == (1, AckMode.ALONE)
    assert bench.numbers(A) == [1]
    assert len(bench.spy.projected) == 1


@pytest.mark.spec("C-507")
def test_data_replaces_its_loss_notice_and_not_the_other_way_round(bench: Bench) -> None:
    chain = Chain(A)
    data = chain.seal()
    bench.send(chain.loss(), kind="loss")
    assert bench.one("SELECT kind FROM batch") == "loss"
    assert bench.spy.projected == []
    assert acked(bench.send(data)) == (1, AckMode.ALONE)
    assert bench.one("SELECT kind FROM batch") == "data"
    bench.send(chain.loss(), kind="loss")
    assert bench.one("SELECT kind FROM batch") == "data"
    assert len(bench.spy.projected) == 1


@pytest.mark.spec("C-508", "C-514")
def test_a_second_story_is_set_aside_with_an_alarm(bench: Bench) -> None:
    one, two = Chain(A), Chain(A)
    shared = one.seal()
    two.seal()
    bench.send(shared)
    bench.send(one.seal(notice(1)))
    outcome = bench.send(two.seal(notice(2)))
    assert acked(outcome) == (2, AckMode.ALONE)
    assert bench.spy.alarms == [(TERMINAL, "SEC.CLONE")]
    assert bench.one("SELECT disputed FROM stream") == 1
    disputed = [row[0] for row in bench.conn.execute("SELECT no FROM batch WHERE disputed = 1")]
    assert disputed == [2], "what both stories share is not disputed"
    assert bench.spy.disputed == [bench.one("SELECT id FROM batch WHERE no = 2")]
    assert acked(bench.send(one.seal())) == (3, AckMode.UP_TO), "the first story goes on"
    assert acked(bench.send(two.seal())) == (3, AckMode.ALONE), "and so does the second, aside"
    assert bench.one("SELECT count(*) FROM aside") == 2
    assert bench.one("SELECT disputed FROM batch WHERE no = 3") == 1


@pytest.mark.spec("C-509", "C-510")
def test_a_hole_is_closed_by_a_birth_and_can_be_filled(bench: Bench) -> None:
    chain = Chain(A)
    sealed = {no: chain.seal(notice(no)) for no in range(1, 6)}
    bench.send(sealed[1])
    assert acked(bench.send(sealed[4])) == (1, AckMode.BACK), "no birth says that 2 and 3 are gone"
    prev = batches.read_batch(bench.ledger.open(TERMINAL, batches.BATCH_CONTEXT, sealed[4], ENVELOPE_MAX_BYTES)).header.prev
    assert acked(bench.send(sealed[4], Held(A, 4, b"x" * 32, 5))) == (1, AckMode.BACK), "a birth that names another hash"
    assert acked(bench.send(sealed[4], Held(A, 4, prev, 5))) == (4, AckMode.UP_TO)
    assert bench.conn.execute("SELECT first_no, last_no FROM hole").fetchall() == [(2, 3)]
    assert bench.one("SELECT envelope FROM birth JOIN hole ON hole.birth_id = birth.id") == b"the birth"
    assert acked(bench.send(sealed[3])) == (3, AckMode.ALONE), "better late than lost"
    assert acked(bench.send(sealed[5])) == (5, AckMode.UP_TO)
    assert bench.numbers(A) == [1, 3, 4, 5]


@pytest.mark.spec("C-509")
def test_what_does_not_fit_into_the_hole_is_set_aside(bench: Bench) -> None:
    chain, liar = Chain(A), Chain(A)
    first, second, third = chain.seal(), chain.seal(), chain.seal()
    liar.seal()
    lie = liar.seal(notice(99))
    bench.send(first)
    prev = batches.read_batch(bench.ledger.open(TERMINAL, batches.BATCH_CONTEXT, third, ENVELOPE_MAX_BYTES)).header.prev
    bench.send(third, Held(A, 3, prev, 3))
    bench.send(lie)
    assert bench.numbers(A) == [1, 3]
    assert bench.one("SELECT count(*) FROM aside") == 1
    bench.send(second)
    assert bench.numbers(A) == [1, 2, 3]


@pytest.mark.spec("C-511")
def test_a_new_stream_waits_for_its_parents_tail(bench: Bench) -> None:
    chain = Chain(A)
    first, second = chain.seal(), chain.seal()
    child = Chain(B, parent=chain.tip)
    bench.send(first)
    opening = child.seal()
    assert acked(bench.send(opening, Held(A, 1, b"", 2))) is None
    assert bench.numbers(B) == []
    bench.send(second)
    assert acked(bench.send(opening, Held(A, 1, b"", 2))) == (1, AckMode.UP_TO)
    assert bench.one("SELECT disputed FROM stream WHERE stream = ?", B) == 0


@pytest.mark.spec("C-512")
@pytest.mark.parametrize("reason", ["went on", "has a child", "is disputed", "had another hash"])
def test_a_forked_start_is_stored_disputed_and_alarmed(bench: Bench, reason: str) -> None:
    chain = Chain(A)
    bench.send(chain.seal())
    parent = chain.tip
    if reason == "went on":
        bench.send(chain.seal())
    elif reason == "has a child":
        bench.send(Chain(B, parent=parent).seal())
    elif reason == "is disputed":
        bench.send(Chain(A).seal(notice(5)))
    else:
        parent = batches.Parent(A, 1, b"x" * 32)
    outcome = bench.send(Chain(C, parent=parent).seal())
    assert acked(outcome) == (1, AckMode.UP_TO), "never refused"
    assert bench.one("SELECT disputed FROM stream WHERE stream = ?", C) == 1
    assert (TERMINAL, "SEC.CLONE") in bench.spy.alarms
    assert bench.spy.projected[-1][0].disputed


@pytest.mark.spec("C-513")
def test_a_lost_spool_is_noticed(bench: Bench) -> None:
    bench.send(Chain(A).seal())
    assert bench.one("SELECT notice FROM stream WHERE stream = ?", A) is None
    assert acked(bench.send(Chain(B).seal())) == (1, AckMode.UP_TO)
    assert bench.one("SELECT notice FROM stream WHERE stream = ?", B) == "spoolLost"
    assert bench.spy.alarms == []


@pytest.mark.spec("C-207")
def test_records_not_understood_are_parked_and_projected_after_an_upgrade(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    rating = records.KINDS["rating"]
    monkeypatch.delitem(records.KINDS, "rating")  # an older server
    monkeypatch.setattr(
        records, "_convert", lambda kind, value, real=records._convert: real(kind, value) if kind in records.KINDS else value
    )
    raw = Chain(A).seal(notice(1), records.Rating(level=5))
    assert acked(bench.send(raw)) == (1, AckMode.UP_TO)
    monkeypatch.undo()
    assert [record.idx for record in bench.spy.projected[0][1]] == [0]
    assert bench.conn.execute("SELECT idx, kind FROM parked").fetchall() == [(1, "rating")]
    assert records.KINDS["rating"] is rating
    last = bench.ledger.project_parked()
    assert last is not None
    assert last == bench.one("SELECT max(id) FROM batch")
    assert [(record.idx, type(record.body)) for record in bench.spy.projected[1][1]] == [(1, records.Rating)]
    assert bench.one("SELECT count(*) FROM parked") == 0
    assert bench.ledger.project_parked(last) is None


@pytest.mark.spec("C-207")
def test_records_that_stay_unknown_do_not_keep_others_parked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(A)
    for kind in ("future", "future", "rating"):
        record = {"t": NOW_MS, "q": "synced", "b": 1, "k": kind, "v": {"level": 5}}
        monkeypatch.delitem(records.KINDS, "rating", raising=False)
        bench.send(chain.seal_items([cbor2.dumps(record)]))
        monkeypatch.undo()
    after: int | None = 0
    while after is not None:
        after = bench.ledger.project_parked(after, 1)
    assert bench.conn.execute("SELECT kind FROM parked").fetchall() == [("future",), ("future",)]


@pytest.mark.spec("C-207")
def test_a_batch_whose_facts_cannot_be_made_is_kept_chained_and_parked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(conn: sqlite3.Connection, batch: StoredBatch, decoded: Sequence[DecodedRecord]) -> None:
        conn.execute("DELETE FROM batch")
        raise OverflowError("a citizen's number")

    chain = Chain(A)
    monkeypatch.setattr(bench.spy, "project", fails)
    assert acked(bench.send(chain.seal())) == (1, AckMode.UP_TO)
    assert bench.conn.execute("SELECT kind, reason FROM parked").fetchall() == [("notice", "not projected: OverflowError")]
    monkeypatch.undo()
    assert acked(bench.send(chain.seal())) == (2, AckMode.UP_TO)
    assert bench.ledger.project_parked() is not None
    assert bench.one("SELECT count(*) FROM parked") == 0
    assert [batch.no for batch, _ in bench.spy.projected] == [2, 1]


@pytest.mark.spec("C-1004")
def test_a_terminal_learns_and_touches_nothing_of_anothers_streams(bench: Bench) -> None:
    theirs = Chain(A, key=STRANGER, terminal=OTHER)
    bench.send(theirs.seal(), terminal=OTHER)
    assert bench.ledger.heads(OTHER, [Held(A, 1, b"", 1)])[0].no == 1
    assert bench.ledger.heads(TERMINAL, [Held(A, 1, b"", 1)])[0] == StreamHead(A, 0, b"")
    # Naming the other's batch as a parent neither claims its place nor is contradicted by it.
    bench.send(Chain(B, parent=theirs.tip).seal())
    bench.send(Chain(C, key=STRANGER, terminal=OTHER, parent=theirs.tip).seal(), terminal=OTHER)
    assert bench.one("SELECT count(*) FROM stream WHERE disputed") == 0


@pytest.mark.spec("C-517")
def test_names_and_keys_that_a_sender_makes_up_fill_nothing(bench: Bench) -> None:
    for number in range(300):
        key = MemoryKey(number.to_bytes(32, "big"))
        bench.send(Chain(A, key=key, terminal=f"ghost-{number}").seal(), terminal=f"ghost-{number}")
        bench.send(Chain(A, key=key).seal())
    assert bench.conn.execute("SELECT terminal, count FROM quarantine_count ORDER BY terminal").fetchall() == [
        ("?", 300),
        (TERMINAL, 300),
    ]
    assert bench.one("SELECT count(*) FROM quarantine") == 2 * QUARANTINE_PER_SENDER
    assert len(bench.ledger._keys) + len(bench.ledger._terminals) <= 3


@pytest.mark.spec("C-515")
def test_another_worker_moved_the_head(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(A)
    bench.send(chain.seal())
    second = chain.seal()
    stale = bench.ledger._stream(TERMINAL, A)
    bench.send(second)
    monkeypatch.setattr(bench.ledger, "_stream", lambda terminal, stream: stale)
    bench.conn.execute("BEGIN IMMEDIATE")
    with pytest.raises(HeadMoved):
        bench.ledger.receive(TERMINAL, "batch", "topic", second, None, NOW_MS)
    bench.conn.execute("ROLLBACK")
    assert bench.numbers(A) == [1, 2]


@pytest.mark.spec("C-519")
@pytest.mark.parametrize(
    "wall_ms", [0, NOW_MS - 86_400_000, NOW_MS + 86_400_000, 2**52], ids=["1970", "yesterday", "tomorrow", "far"]
)
def test_time_is_no_reason_to_refuse(bench: Bench, wall_ms: int) -> None:
    from tests.support.contract import encoded

    raw, _ = batches.seal_batch(Chain(A).header(), [encoded(wall_ms=wall_ms)], RECORD, FLEET, TERMINAL)
    assert acked(bench.send(raw)) == (1, AckMode.UP_TO)


# -- what is refused -------------------------------------------------------------------------------------------------------


def forged() -> bytes:
    raw = bytearray(Chain(A).seal())
    raw[-1] ^= 1
    return bytes(raw)


def changed_inside() -> bytes:
    raw = Chain(A).seal(notice(1))
    return raw.replace(b"recordsRefused", b"recordsRefuseD")


def parent_on_number_two() -> bytes:
    import cbor2

    from protocols.contract import wire
    from tests.support.contract import BOOT_ID, encoded

    header = {"s": A, "n": 2, "p": b"x" * 32, "a": [A, 1, b"x" * 32], "c": "event", "o": 1, "i": BOOT_ID, "w": NOW_MS}
    payload = b"\x82" + wire.dump(header) + b"\x81" + encoded()
    assert cbor2.loads(payload)
    from protocols.contract import envelope as cose

    return cose.seal(payload, RECORD, batches.BATCH_CONTEXT, FLEET, TERMINAL)[0]


ATTACKS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "forged signature": (forged, TERMINAL, "signature"),
    "changed content": (changed_inside, TERMINAL, "signature"),
    "signed by a stranger without a certificate": (lambda: Chain(A, key=NEW_KEY).seal(), TERMINAL, "unknownKey"),
    "signed by another terminal's key": (lambda: Chain(A, key=STRANGER).seal(), TERMINAL, "foreignKey"),
    "another terminal's message under my name": (lambda: Chain(A, key=STRANGER, terminal=OTHER).seal(), TERMINAL, "foreignKey"),
    "my message under another terminal's name": (lambda: Chain(A).seal(), OTHER, "foreignKey"),
    "readdressed": (lambda: Chain(A, terminal=OTHER).seal(), TERMINAL, "signature"),
    "of another fleet": (lambda: Chain(A, fleet="elsewhere").seal(), TERMINAL, "signature"),
    "a loss notice as a batch": (lambda: (c := Chain(A), c.seal(), c.loss())[2], TERMINAL, "signature"),
    "truncated": (lambda: Chain(A).seal()[:-10], TERMINAL, "malformed"),
    "trailing bytes": (lambda: Chain(A).seal() + b"\x00", TERMINAL, "trailing"),
    "oversized": (lambda: Chain(A).seal() + bytes(ENVELOPE_MAX_BYTES), TERMINAL, "oversized"),
    "empty": (lambda: b"", TERMINAL, "malformed"),
    "noise": (lambda: bytes(range(256)), TERMINAL, "malformed"),
    "an unknown terminal": (lambda: Chain(A, key=NEW_KEY, terminal="kf-9999").seal(), "kf-9999", "unknownTerminal"),
    "a payload that is no batch": (parent_on_number_two, TERMINAL, "unreadable"),
}


@pytest.mark.spec("C-517", "C-903", "C-1004")
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_quarantined_and_the_rightful_terminal_is_served(bench: Bench, name: str) -> None:
    make, claimed, reason = ATTACKS[name]
    outcome = bench.send(make(), terminal=claimed)
    assert (outcome.ack, outcome.quarantined) == (None, reason)
    assert bench.conn.execute("SELECT terminal, reason FROM quarantine").fetchall() == [
        ("?" if reason == "unknownTerminal" else claimed, reason)
    ]
    assert bench.one("SELECT count(*) FROM batch") == 0
    assert acked(bench.send(Chain(B).seal())) == (1, AckMode.UP_TO)


@pytest.mark.spec("C-520")
def test_whoever_learns_a_stream_id_cannot_take_the_stream(bench: Bench) -> None:
    """Another terminal opens the same id first: the owner's batches are stored all the same, and neither sees the other's."""
    thief = Chain(A, key=STRANGER, terminal=OTHER)
    assert acked(bench.send(thief.seal(), terminal=OTHER)) == (1, AckMode.UP_TO)
    chain = Chain(A)
    assert acked(bench.send(chain.seal())) == (1, AckMode.UP_TO)
    assert acked(bench.send(chain.seal())) == (2, AckMode.UP_TO)
    assert acked(bench.send(thief.seal(), terminal=OTHER)) == (2, AckMode.UP_TO)
    assert bench.conn.execute("SELECT terminal, head_no, disputed, notice FROM stream ORDER BY id").fetchall() == [
        (OTHER, 2, 0, None),
        (TERMINAL, 2, 0, None),
    ]
    assert bench.one("SELECT count(*) FROM quarantine") == 0
    assert bench.one("SELECT count(*) FROM aside") == 0


@pytest.mark.spec("C-520")
def test_a_fork_or_hole_of_one_terminal_says_nothing_about_the_same_id_of_another(bench: Bench) -> None:
    chain, thief = Chain(A), Chain(A, key=STRANGER, terminal=OTHER)
    bench.send(chain.seal())
    bench.send(thief.seal(), terminal=OTHER)
    copy = Chain(A, key=STRANGER, terminal=OTHER)
    copy.seal()
    other_story = Chain(A, key=STRANGER, terminal=OTHER)
    bench.send(other_story.seal(notice(9)), terminal=OTHER)
    assert bench.conn.execute("SELECT terminal, forked FROM stream ORDER BY terminal").fetchall() == [(TERMINAL, 0), (OTHER, 1)]
    assert acked(bench.send(chain.seal())) == (2, AckMode.UP_TO)
    (head,) = bench.ledger.heads(TERMINAL, [Held(A, 1, b"", 2)])
    assert (head.no, head.aside) == (2, ())


@pytest.mark.spec("C-518")
def test_a_revoked_terminal_is_kept_aside_and_not_acknowledged(bench: Bench) -> None:
    chain = Chain(A)
    bench.send(chain.seal())
    bench.conn.execute("UPDATE terminal SET revoked_ms = 1 WHERE id = ?", (TERMINAL,))
    bench.ledger._terminals.clear()  # this connection wrote itself; another process's write is noticed by data_version
    backlog = chain.seal()
    outcome = bench.send(backlog)
    assert (outcome.ack, outcome.quarantined) == (None, "revoked")
    assert bench.one("SELECT envelope FROM quarantine") == backlog
    assert acked(bench.send(Chain(B, key=STRANGER, terminal=OTHER).seal(), terminal=OTHER)) == (1, AckMode.UP_TO)


@pytest.mark.spec("C-518")
def test_a_revocation_by_another_process_is_noticed_at_once(bench: Bench) -> None:
    from fleet_server.db import open_raw

    chain = Chain(A)
    bench.send(chain.seal())
    web = open_raw(bench.path)
    web.execute("UPDATE terminal SET revoked_ms = 1 WHERE id = ?", (TERMINAL,))
    web.close()
    assert bench.send(chain.seal()).quarantined == "revoked"


@pytest.mark.spec("C-517")
def test_quarantine_is_bounded_per_sender_and_counts_on(bench: Bench) -> None:
    for _ in range(QUARANTINE_PER_SENDER + 5):
        bench.send(b"noise")
    bench.send(b"noise", terminal=OTHER)
    assert bench.one("SELECT count(*) FROM quarantine WHERE terminal = ?", TERMINAL) == QUARANTINE_PER_SENDER
    assert bench.one("SELECT count FROM quarantine_count WHERE terminal = ?", TERMINAL) == QUARANTINE_PER_SENDER + 5
    assert bench.one("SELECT count(*) FROM quarantine WHERE terminal = ?", OTHER) == 1


def rotated(bench: Bench) -> tuple[Chain, Chain]:
    """A stream that changed its key at number 2: (the rightful chain under the new key, a thief who goes on under the old one)."""
    bench.enrol(TERMINAL, NEW_KEY, generation=2)
    chain = Chain(A)
    bench.send(chain.seal())
    bench.send(chain.seal(records.Key(kid=NEW_KEY.kid, generation=2)))
    thief = Chain(A)
    thief.no, thief.digest = chain.no, chain.digest
    chain.key = NEW_KEY
    return chain, thief


@pytest.mark.spec("C-1003")
def test_a_retired_key_signs_nothing_any_more_and_the_new_one_does(bench: Bench) -> None:
    chain, thief = rotated(bench)
    assert bench.send(thief.seal()).quarantined == "retiredKey"
    assert bench.send(Chain(B).seal()).quarantined == "retiredKey", "nor may it open a stream"
    assert acked(bench.send(chain.seal())) == (3, AckMode.UP_TO)
    assert acked(bench.send(Chain(C, key=NEW_KEY, parent=chain.tip).seal())) == (1, AckMode.UP_TO)


@pytest.mark.spec("C-1003")
def test_what_the_old_key_signed_before_stays_valid(bench: Bench) -> None:
    _chain, _ = rotated(bench)
    old = Chain(A)
    assert acked(bench.send(old.seal())) == (1, AckMode.ALONE)


@pytest.mark.spec("C-1001")
def test_a_key_that_was_revoked_is_refused(bench: Bench) -> None:
    bench.conn.execute("UPDATE record_key SET revoked_ms = 1 WHERE kid = ?", (RECORD.kid,))
    assert bench.send(Chain(A).seal()).quarantined == "revokedKey"
    assert ROOT.kid != RECORD.kid


def test_what_another_process_says_about_a_stream_holds_from_its_next_batch_on(bench: Bench) -> None:
    """The ledger remembers streams between batches; a verdict comes through another connection."""
    chain, copy = Chain(A), Chain(A)
    bench.send(chain.seal())
    bench.send(copy.seal(notice(9)))
    bench.send(chain.seal())
    assert bench.one("SELECT disputed FROM batch WHERE no = 2") == 1
    with closing(open_raw(bench.path)) as other:
        transact(other, lambda conn: settle(conn, TERMINAL, A, "restored", NOW_MS))
    bench.send(chain.seal())
    assert bench.one("SELECT disputed FROM batch WHERE no = 3") == 0


def test_what_was_remembered_in_a_transaction_that_failed_is_forgotten(bench: Bench) -> None:
    chain = Chain(A)
    bench.send(chain.seal())
    second = chain.seal()
    bench.conn.execute("BEGIN IMMEDIATE")
    bench.ledger.refresh()
    greeting = Greeting(b"n" * 16, {}, birth=b"x")
    assert acked(bench.ledger.receive(TERMINAL, "batch", "topic", second, greeting, NOW_MS)) == (2, AckMode.UP_TO)
    bench.conn.execute("ROLLBACK")
    bench.ledger.forget()
    assert acked(bench.send(second)) == (2, AckMode.UP_TO)
    assert bench.numbers(A) == [1, 2]
