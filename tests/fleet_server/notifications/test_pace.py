"""How long news waits follows the thresholds that operators set."""

from __future__ import annotations

from fleet_server.notifications import store
from fleet_server.notifications.planner import Pace
from fleet_server.notifications.reading import read_pace
from fleet_server.thresholds.rules import put
from tests.support.facts import T0, FactBench


def test_the_defaults_are_the_planners_own(bench: FactBench) -> None:
    assert read_pace(bench.conn) == Pace()


def test_what_was_set_holds(bench: FactBench) -> None:
    for name, value in (("gather_s", 30), ("settle_s", 120), ("late_s", 45), ("late_behind_s", 900)):
        put(bench.conn, f"notification.{name}", value, by="op", now_ms=T0)
    assert read_pace(bench.conn) == Pace(gather_ms=30_000, settle_ms=120_000, late_ms=45_000, late_behind_ms=900_000)


def test_old_messages_go_when_operators_say_so(bench: FactBench) -> None:
    for n in range(3):
        bench.conn.execute(
            "INSERT INTO notification (channel, dedupe_key, state, payload, created_ms) VALUES (1, ?, 'sent', '{}', ?)",
            (str(n), T0 - 10 * 86_400_000),
        )
    assert store.trim(bench.conn, T0) == 0
    put(bench.conn, "notification.keep_days", 9, by="op", now_ms=T0)
    # The newest stays: the planner goes by it.
    assert store.trim(bench.conn, T0) == 2
