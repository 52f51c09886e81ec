"""What ingest does between messages, so that nothing depends on a command that was cut off."""

from __future__ import annotations

import pytest

from fleet_server.channel import transact
from fleet_server.evidence.ledger import Ledger
from fleet_server.evidence.verdict import settle
from fleet_server.facts.births import PendingBirths
from fleet_server.facts.projection import Projection
from fleet_server.ingest.housekeeping import Housekeeping
from fleet_server.presence.watch import PresenceWatch
from protocols.contract import records
from tests.fleet_server.evidence.conftest import Bench, bench
from tests.support.contract import FLEET, NOW_MS, TERMINAL, Chain

__all__ = ["bench"]
A, B, C = b"\xaa" * 16, b"\xbb" * 16, b"\xcc" * 16
BATCHES = 50


def case(number: int) -> records.Session:
    return records.Session(id=number.to_bytes(16, "big"), item="social.query", outcome="success", began_ms=NOW_MS, duration_ms=1)


@pytest.mark.spec("C-514")
def test_a_verdict_whose_command_was_killed_is_carried_out_between_messages(bench: Bench) -> None:
    births = PendingBirths()
    watch = PresenceWatch.load(bench.conn, NOW_MS, births=births)
    projection = Projection(watch, births)
    bench.ledger = Ledger(bench.conn, FLEET, projection)
    parent = Chain(A)
    bench.send(parent.seal())
    bench.send(Chain(B, parent=parent.tip).seal(case(1)))
    copy = Chain(C, parent=parent.tip)
    for number in range(BATCHES):
        bench.send(copy.seal(case(100 + number)))
    assert transact(bench.conn, lambda conn: settle(conn, TERMINAL, C, "restored", NOW_MS)) == BATCHES
    keeper = Housekeeping(bench.conn, bench.ledger, watch, projection, lambda: NOW_MS)
    steps = 0
    while bench.one("SELECT count(*) FROM stream WHERE settle_from IS NOT NULL"):
        assert keeper.step(), "it says that there is more to do at once"
        if steps == 1:
            bench.send(copy.seal(case(999)))  # ingest goes on between two steps
        steps += 1
    assert steps > 2
    assert bench.one("SELECT count(*) FROM session WHERE disputed = 0") == 1 + BATCHES + 1
