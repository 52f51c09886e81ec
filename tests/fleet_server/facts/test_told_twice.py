"""A case that was told by several batches still counts when the telling that counted is taken back."""

from __future__ import annotations

import pytest

from fleet_server.facts.project import reproject, unproject
from protocols.contract.records import Session
from tests.support.facts import T0, FactBench, Run, Sent

HOUR = 3_600_000


def told(run: Run, outcome: str, at_ms: int) -> Sent:
    body = Session(id=bytes(16), item="tax.print", outcome=outcome, began_ms=at_ms, duration_ms=1)  # type: ignore[arg-type]
    return run.send([run.capture(body, at_ms + 1)], at_ms + HOUR)


def dispute(bench: FactBench, batch_id: int) -> None:
    bench.conn.execute("UPDATE batch SET disputed = 1 WHERE id = ?", (batch_id,))
    reproject(bench.conn, [batch_id])


@pytest.fixture
def tellings(bench: FactBench) -> list[int]:
    """Batches of three starts, a day apart, that told the same case; the second told it best."""
    return bench.arrive(
        *(
            told(Run("kf-1", n, up_ms=T0), word, T0 + 24 * n * HOUR)
            for n, word in enumerate(("abandoned", "success", "failed"), 1)
        )
    )


def counted(bench: FactBench) -> list[tuple[object, ...]]:
    return bench.rows("SELECT outcome, batch, disputed FROM session")


def test_the_best_telling_counts(bench: FactBench, tellings: list[int]) -> None:
    assert counted(bench) == [("success", tellings[1], 0)]


def test_a_disputed_telling_gives_way_to_the_next_best(bench: FactBench, tellings: list[int]) -> None:
    dispute(bench, tellings[1])
    assert counted(bench) == [("failed", tellings[2], 0)]
    dispute(bench, tellings[2])
    assert counted(bench) == [("abandoned", tellings[0], 0)]
    dispute(bench, tellings[0])
    assert counted(bench) == [("success", tellings[1], 1)]


def test_a_restored_telling_counts_again(bench: FactBench, tellings: list[int]) -> None:
    dispute(bench, tellings[1])
    bench.conn.execute("UPDATE batch SET disputed = 0")
    reproject(bench.conn, [tellings[1]])
    assert counted(bench) == [("success", tellings[1], 0)]


def test_a_telling_taken_away_leaves_the_others(bench: FactBench, tellings: list[int]) -> None:
    bench.conn.execute("UPDATE batch SET disputed = 1 WHERE id = ?", (tellings[1],))
    bench.conn.execute(
        "UPDATE stream SET verdict = 'copied' WHERE stream = (SELECT stream FROM batch WHERE id = ?)", (tellings[1],)
    )
    unproject(bench.conn, [tellings[1]])
    assert counted(bench) == [("failed", tellings[2], 0)]
    unproject(bench.conn, [tellings[2]])
    assert counted(bench) == [("abandoned", tellings[0], 0)]


def test_the_day_of_the_telling_that_counts_now_is_computed_again(bench: FactBench, tellings: list[int]) -> None:
    bench.conn.execute("DELETE FROM dirty_day")
    dispute(bench, tellings[1])
    assert {("2026-05-31",), ("2026-06-01",)} <= set(bench.rows("SELECT day FROM dirty_day"))
