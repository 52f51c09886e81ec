"""Disputed facts stay out of the figures until an operator has said which story is true."""

from __future__ import annotations

import pytest

from fleet_server.evidence.ledger import Ledger
from fleet_server.evidence.verdict import NotDisputed, Verdict, settle
from fleet_server.facts.births import PendingBirths
from fleet_server.facts.projection import Projection
from fleet_server.presence.watch import PresenceWatch
from protocols.contract import records
from tests.fleet_server.evidence.conftest import Bench
from tests.support.contract import FLEET, NOW_MS, Chain, notice

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


def counted(bench: Bench) -> object:
    return bench.one("SELECT count(*) FROM session WHERE disputed = 0")


@pytest.mark.spec("C-514")
@pytest.mark.parametrize(("verdict", "cases"), [("restored", 2), ("copied", 1)])
def test_a_verdict_decides_whether_the_facts_count(disputed: Bench, verdict: Verdict, cases: int) -> None:
    assert counted(disputed) == 1
    assert settle(disputed.conn, C, verdict, NOW_MS) == 1
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
            settle(disputed.conn, stream, "copied", NOW_MS)
