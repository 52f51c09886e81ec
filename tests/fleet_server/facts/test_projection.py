"""What the ledger calls: facts, waiting births and presence follow from one stored batch."""

from __future__ import annotations

import pytest

from fleet_server.facts.births import PendingBirths
from fleet_server.facts.projection import Projection
from fleet_server.presence.watch import PresenceWatch
from protocols.canon.words import Severity
from protocols.contract.records import Fault, Session
from tests.support.facts import T0, FactBench, Run


def projection(bench: FactBench) -> Projection:
    births = PendingBirths()
    return Projection(PresenceWatch.load(bench.conn, T0, births=births), births)


@pytest.mark.spec("C-803")
def test_an_alarm_is_raised_once(bench: FactBench) -> None:
    made = projection(bench)
    made.alarm(bench.conn, "kf-1", "SEC.CLONE", T0)
    made.alarm(bench.conn, "kf-1", "SEC.CLONE", T0 + 1)
    assert bench.one("SELECT code, opened_ms FROM fault") == ("SEC.CLONE", T0)
    assert bench.one("SELECT source, open_batch, evidence FROM fault") == ("platform", None, None), (
        "labelled as the server's own word"
    )


def test_facts_of_batches_that_become_disputed_no_longer_count(bench: FactBench) -> None:
    run, made = Run("kf-1", 1, up_ms=T0), projection(bench)
    opened = Fault(id=b"fault--1", code="PRN.JAM", change="open", severity=Severity.P2, since_ms=T0)
    case = Session(id=b"s" * 16, item="tax.print", outcome="success", began_ms=T0, duration_ms=1)
    sent = run.send([run.capture(opened, T0), run.capture(case, T0)], T0)
    stored = bench.store(sent)
    assert stored is not None
    made.project(bench.conn, stored, sent.decoded())
    bench.conn.execute("DELETE FROM dirty_day")
    bench.conn.execute("UPDATE batch SET disputed = 1")
    made.dispute(bench.conn, [stored.id])
    assert bench.one("SELECT disputed FROM fault") == (1,)
    assert bench.one("SELECT disputed FROM session") == (1,)
    assert bench.rows("SELECT day FROM dirty_day") == [("2026-05-29",)]


def test_a_batch_of_which_nothing_could_be_read_changes_nothing(bench: FactBench) -> None:
    run, made = Run("kf-1", 1, up_ms=T0), projection(bench)
    sent = run.send([run.capture(Session(id=b"s" * 16, item="tax.print", outcome="failed", began_ms=T0, duration_ms=1), T0)], T0)
    stored = bench.store(sent)
    assert stored is not None
    before = bench.facts()
    made.project(bench.conn, stored, [])
    assert bench.facts() == before
