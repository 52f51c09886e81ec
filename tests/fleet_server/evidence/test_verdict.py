"""Disputed facts stay out of the figures until an operator has said which story is true."""

from __future__ import annotations

import pytest

from fleet_server.channel import transact
from fleet_server.evidence.ledger import Ledger
from fleet_server.evidence.verdict import NotDisputed, Verdict, settle, settle_some
from fleet_server.facts.births import PendingBirths
from fleet_server.facts.projection import Projection
from fleet_server.presence.watch import PresenceWatch
from protocols.contract import records
from tests.fleet_server.evidence.conftest import Bench
from tests.support.contract import FLEET, NOW_MS, TERMINAL, Chain, notice

A, B, C = b"\xaa" * 16, b"\xbb" * 16, b"\xcc" * 16


def case(number: int) -> records.Session:
    return records.Session(id=bytes([number]) * 16, item="social.query", outcome="success", began_ms=NOW_MS, duration_ms=1)


@pytest.fixture
def disputed(bench: Bench) -> Bench:
    """A parent with two children: B came first, C is disputed; one case in each."""
    births = PendingBirths()
    bench.ledger = Ledger(bench.conn, FLEET, Projection(PresenceWatch.load(bench.conn, NOW_MS, births=births), births))
    parent = Chain(A)
    bench.send(parent.seal())
    bench.send(Chain(B, parent=parent.tip).seal(case(1)))
    bench.send(Chain(C, parent=parent.tip).seal(case(2)))
    return bench


def follow(bench: Bench, batches: int = 20) -> int:
    """Let the facts follow a verdict; how many slices that took."""
    slices = 0
    while transact(bench.conn, lambda conn: settle_some(conn, batches)):
        slices += 1
    return slices


def counted(bench: Bench) -> object:
    return bench.one("SELECT count(*) FROM session WHERE disputed = 0")


@pytest.mark.spec("C-514")
@pytest.mark.parametrize(("verdict", "cases"), [("restored", 2), ("copied", 1)])
def test_a_verdict_decides_whether_the_facts_count(disputed: Bench, verdict: Verdict, cases: int) -> None:
    assert counted(disputed) == 1
    assert settle(disputed.conn, TERMINAL, C, verdict, NOW_MS) == 1
    follow(disputed)
    assert counted(disputed) == cases
    assert disputed.one("SELECT count(*) FROM batch") == 3, "evidence stays"
    assert disputed.one("SELECT cleared_ms FROM fault WHERE code = 'SEC.CLONE'") == NOW_MS
    assert disputed.one("SELECT verdict FROM stream WHERE stream = ?", C) == verdict


@pytest.mark.spec("C-508", "C-514")
def test_a_fork_inside_a_stream_takes_its_facts_out_of_the_figures(disputed: Bench) -> None:
    one, copy = Chain(B, parent=Chain(A).tip), Chain(B)
    one.no, one.digest = disputed.conn.execute("SELECT head_no, head_digest FROM stream WHERE stream = ?", (B,)).fetchone()
    one.digest = bytes(one.digest)
    copy.no, copy.digest = one.no, one.digest
    disputed.send(one.seal(case(3)))
    assert counted(disputed) == 2
    disputed.send(copy.seal(notice(9)))
    assert counted(disputed) == 1


def test_there_must_be_a_dispute(disputed: Bench) -> None:
    for stream in (B, b"\xdd" * 16):
        with pytest.raises(NotDisputed):
            settle(disputed.conn, TERMINAL, stream, "copied", NOW_MS)


LONG = 25


@pytest.fixture
def long(disputed: Bench) -> Bench:
    """The disputed stream goes on for some batches with a case in each."""
    chain = Chain(C, parent=Chain(A).tip)
    chain.no, chain.digest = disputed.conn.execute(
        "SELECT head_no, head_digest FROM stream WHERE terminal = ? AND stream = ?", (TERMINAL, C)
    ).fetchone()
    chain.digest = bytes(chain.digest)
    for number in range(LONG - 1):
        disputed.send(chain.seal(case(100 + number)))
    return disputed


@pytest.mark.spec("C-514")
@pytest.mark.parametrize(("verdict", "cases"), [("restored", 1 + LONG), ("copied", 1)])
def test_a_long_stream_follows_its_verdict_in_slices_that_survive_any_end(long: Bench, verdict: Verdict, cases: int) -> None:
    """After each slice the process dies in the middle of the next one, and another process goes on."""
    assert settle(long.conn, TERMINAL, C, verdict, NOW_MS) == LONG
    slices = 0
    while True:
        long.conn.execute("BEGIN IMMEDIATE")
        settle_some(long.conn, 4)
        long.conn.close()  # rolled back, as after kill -9
        long.open()
        if not transact(long.conn, lambda conn: settle_some(conn, 4)):
            break
        slices += 1
    assert slices >= LONG // 4
    assert counted(long) == cases
    assert long.one("SELECT count(*) FROM batch WHERE disputed = 1") == (0 if verdict == "restored" else LONG)
    assert long.one("SELECT count(*) FROM stream WHERE settle_from IS NOT NULL") == 0


def test_what_arrives_between_two_slices_counts_as_the_verdict_says(long: Bench) -> None:
    births = PendingBirths()
    settle(long.conn, TERMINAL, C, "restored", NOW_MS)
    transact(long.conn, lambda conn: settle_some(conn, 4))
    chain = Chain(C)
    chain.no, chain.digest = long.conn.execute("SELECT head_no, head_digest FROM stream WHERE stream = ?", (C,)).fetchone()
    chain.digest = bytes(chain.digest)
    long.ledger = Ledger(long.conn, FLEET, Projection(PresenceWatch.load(long.conn, NOW_MS, births=births), births))
    long.send(chain.seal(case(200)))
    follow(long, 4)
    assert counted(long) == 1 + LONG + 1


def test_a_verdict_that_is_changed_half_way_holds_for_all(long: Bench) -> None:
    settle(long.conn, TERMINAL, C, "copied", NOW_MS)
    transact(long.conn, lambda conn: settle_some(conn, 4))
    settle(long.conn, TERMINAL, C, "restored", NOW_MS)
    follow(long, 4)
    assert counted(long) == 1 + LONG


def test_a_new_fork_ends_a_verdict_that_is_still_being_followed(long: Bench) -> None:
    settle(long.conn, TERMINAL, C, "restored", NOW_MS)
    transact(long.conn, lambda conn: settle_some(conn, 4))
    copy = Chain(C, parent=Chain(A).tip)
    copy.no, copy.digest = 1, bytes(long.conn.execute("SELECT digest FROM batch WHERE stream = ? AND no = 1", (C,)).fetchone()[0])
    long.send(copy.seal(notice(9)))
    assert long.one("SELECT settle_from FROM stream WHERE stream = ?", C) is None
    assert not transact(long.conn, settle_some)
    assert settle(long.conn, TERMINAL, C, "restored", NOW_MS) == LONG - 1
    follow(long)
    assert counted(long) == 1 + LONG
