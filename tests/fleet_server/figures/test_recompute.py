"""Figures made from exported evidence equal those of the database: told twice, disputed, late, under wrong clocks, in any mixture."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet_server.db import open_raw
from fleet_server.evidence.export import export
from fleet_server.evidence.ledger import Greeting, Ledger
from fleet_server.evidence.retention import erase_before
from fleet_server.evidence.verdict import Verdict, settle, settle_some, terminals_of
from fleet_server.evidence.verify import verify
from fleet_server.facts import DecodedRecord, StoredBatch
from fleet_server.facts.project import project, reproject
from fleet_server.figures.compare import Comparison, compare
from fleet_server.figures.question import Period
from fleet_server.figures.recompute import Evidence, NoEvidence, read_evidence
from fleet_server.usage.days import recompute_some
from protocols.contract import batch as batches
from protocols.contract.records import (
    Body,
    Boot,
    Clock,
    ClockQuality,
    Queue,
    Rating,
    Serviceability,
    Session,
    encode_record,
)
from tests.fleet_server.figures.conftest import DAY, HOUR, MINUTE, at
from tests.support.contract import FLEET, RECORD, ROOT, SERVER, SERVER_CERT, TERMINAL, record_cert
from tests.support.facts import WORK_HOURS

MORNING = at("06-09 09:30")
JUNE = Period("2026-06-01", "2026-06-30")
NOW = at("07-10 08:00")


def decide(conn: sqlite3.Connection, stream: bytes, verdict: Verdict) -> None:
    """Say it, and let the facts follow to the end."""
    (terminal,) = terminals_of(conn, stream)
    settle(conn, terminal, stream, verdict, NOW)
    while settle_some(conn):
        pass


class Facts:
    """The ledger's projection, without presence."""

    def project(self, conn: sqlite3.Connection, batch: StoredBatch, decoded: Sequence[DecodedRecord]) -> None:
        project(conn, batch, decoded)

    def dispute(self, conn: sqlite3.Connection, batch_ids: Sequence[int]) -> None:
        reproject(conn, batch_ids)

    def alarm(self, conn: sqlite3.Connection, terminal: str, code: str, now_ms: int) -> None:
        """Nobody listens."""


class Server:
    """A real ledger over a database of the current schema, with one enrolled terminal at a site with hours."""

    def __init__(self, template: Path, path: Path) -> None:
        path.write_bytes(template.read_bytes())
        self.conn = open_raw(path)
        self.conn.execute("PRAGMA synchronous = OFF")
        self.ledger = Ledger(self.conn, FLEET, Facts())
        self.conn.execute(
            "INSERT INTO site (code, area, name_zh, name_en, kind, hours) VALUES ('S1', 'A', '', '', 'hall', ?)", (WORK_HOURS,)
        )
        self.conn.execute(
            "INSERT INTO terminal (id, code, type, name_zh, name_en, site, created_ms, enrolled_ms) VALUES (?, 'K', 'kiosk', '', '', 'S1', 0, ?)",
            (TERMINAL, at("2026-01-01 00:00")),
        )
        self.conn.execute(
            "INSERT INTO record_key (kid, terminal, generation, public_key, certificate, issued_ms) VALUES (?, ?, 1, ?, ?, 0)",
            (RECORD.kid, TERMINAL, RECORD.public, record_cert(RECORD)),
        )

    def receive(self, raw: bytes, now_ms: int) -> None:
        self.conn.execute("BEGIN IMMEDIATE")
        self.ledger.refresh()
        outcome = self.ledger.receive(TERMINAL, "batch", "t", raw, Greeting(b"n" * 16, {}, birth=b""), now_ms)
        self.conn.execute("COMMIT")
        assert outcome.quarantined is None and outcome.ack is not None

    def settle_days(self) -> None:
        while recompute_some(self.conn, 50, NOW):
            pass

    def exported(self, from_ms: int = 0, to_ms: int = 2**62) -> bytes:
        out = io.BytesIO()
        export(
            self.conn, out, fleet=FLEET, terminal=TERMINAL, signer=SERVER, server_certificates=[SERVER_CERT], now_ms=NOW,
            from_ms=from_ms, to_ms=to_ms,
        )  # fmt: skip
        return out.getvalue()

    def compare(self, *files: bytes, period: Period | None = JUNE) -> Comparison:
        data = files or (self.exported(),)
        for one in data:
            verify(one, ROOT.verifier)
        self.settle_days()
        return compare(self.conn, read_evidence(data), period, NOW)


@dataclass
class Spool:
    """One start of an agent: seals batches in a chain. `error_ms` is what its wall clock adds to the truth."""

    number: int
    up_ms: int
    boot: int | None = None
    parent: batches.Parent | None = None
    error_ms: int = 0
    quality: ClockQuality = ClockQuality.SYNCED
    no: int = 0
    digest: bytes = b""
    pending: list[bytes] = field(default_factory=list)

    @property
    def stream(self) -> bytes:
        return self.number.to_bytes(16, "big")

    @property
    def tip(self) -> batches.Parent:
        return batches.Parent(self.stream, self.no, self.digest)

    def tell(self, body: Body, true_ms: int) -> None:
        record = encode_record(
            body, wall_ms=max(0, true_ms + self.error_ms), quality=self.quality, boot_ms=max(0, true_ms - self.up_ms)
        )
        self.pending.append(record)

    def case(self, n: int, true_ms: int, outcome: str = "success", item: str = "tax.print") -> None:
        began_ms = max(0, true_ms - 90_000 + self.error_ms)
        self.tell(
            Session(id=n.to_bytes(16, "big"), item=item, outcome=outcome, began_ms=began_ms, duration_ms=90_000),  # type: ignore[arg-type]
            true_ms,
        )

    def served(self, true_ms: int, usable_s: int) -> None:
        to_ms = max(0, true_ms + self.error_ms)
        body = Serviceability(
            from_ms=max(0, to_ms - 900_000),
            to_ms=to_ms,
            observed_s=900,
            usable_s=usable_s,
            partial_s=0,
            unusable_s=900 - usable_s,
        )
        self.tell(body, true_ms)

    def set_clock(self, true_ms: int) -> None:
        self.error_ms, self.quality = 0, ClockQuality.SYNCED
        self.tell(Clock(boot_ms=max(0, true_ms - self.up_ms), wall_ms=true_ms, quality=ClockQuality.SYNCED), true_ms)

    def seal(self, sealed_ms: int) -> bytes:
        header = batches.BatchHeader(
            stream=self.stream, no=self.no + 1, prev=self.digest, parent=self.parent if self.no == 0 else None, batch_class="event",
            boot_no=self.number, boot_id=(0 if self.boot == 0 else (self.boot or self.number) + 1000).to_bytes(16, "big"),
            sealed_ms=sealed_ms,
        )  # fmt: skip
        raw, digest = batches.seal_batch(header, self.pending, RECORD, FLEET, TERMINAL)
        self.no, self.digest, self.pending = header.no, digest, []
        return raw


@pytest.fixture
def server(schema: Path, tmp_path: Path) -> Iterator[Server]:
    made = Server(schema, tmp_path / "fleet.sqlite")
    yield made
    made.conn.close()


def numbers(found: Comparison) -> dict[str, tuple[int, int, int]]:
    return {line.name: (line.from_evidence, line.from_database, line.provable) for line in found.lines}


def test_everything_at_once_comes_out_the_same(server: Server) -> None:
    first = Spool(1, up_ms=MORNING - HOUR, boot=7)
    first.tell(Boot(agent="1.0", os="Debian 12", arch="x86_64", python="3.11", previous="clean"), MORNING)
    first.case(1, MORNING + MINUTE)
    first.case(2, MORNING + 2 * MINUTE, "abandoned")
    first.tell(Rating(level=5), MORNING + 3 * MINUTE)
    first.tell(Rating(level=2), MORNING + 4 * MINUTE)
    first.tell(Queue(slot="call-pad-1", action="callNext"), MORNING + 5 * MINUTE)
    first.served(MORNING + 30 * MINUTE, 600)
    server.receive(first.seal(MORNING), MORNING + 31 * MINUTE)

    # Told twice: the abandoned case had a result after all. And late: it arrives three days on.
    second = Spool(2, up_ms=MORNING - HOUR, boot=7, parent=first.tip)
    second.case(2, MORNING + 2 * MINUTE, "success")
    second.case(3, MORNING + 3 * HOUR)
    server.receive(second.seal(MORNING), MORNING + 3 * DAY)

    # A boot without battery: 1970, until its clock is set an hour later.
    third = Spool(3, up_ms=MORNING + 10 * DAY, parent=second.tip, error_ms=-MORNING - 10 * DAY, quality=ClockQuality.UNSET)
    third.case(4, MORNING + 10 * DAY + 5 * MINUTE)
    third.tell(Rating(level=4), MORNING + 10 * DAY + 6 * MINUTE)
    server.receive(third.seal(0), MORNING + 12 * DAY)
    third.set_clock(MORNING + 10 * DAY + HOUR)
    third.case(5, MORNING + 10 * DAY + 2 * HOUR)
    server.receive(third.seal(0), MORNING + 12 * DAY + 1)

    # A copied disk: a second child of the same parent; and a batch under a number that is taken.
    copy = Spool(4, up_ms=MORNING + 10 * DAY, parent=second.tip)
    copy.case(6, MORNING + 11 * DAY)
    server.receive(copy.seal(0), MORNING + 12 * DAY + 2)
    fork = Spool(2, up_ms=MORNING - HOUR, boot=7, parent=first.tip)
    fork.case(7, MORNING + 4 * HOUR)
    server.receive(fork.seal(1), MORNING + 12 * DAY + 3)

    found = server.compare()
    assert found.is_same, found.differences
    counts = numbers(found)
    # The second stream is forked, so its telling of cases 2 and 3 does not count; nor does the copy.
    assert counts["cases"] == (4, 4, 4)
    assert counts["cases_success"] == (3, 3, 3)
    assert counts["good_reviews"] == (2, 2, 2) and counts["reviews"] == (3, 3, 3)
    assert counts["queue_calls"] == (1, 1, 1)
    assert counts["served_s"] == (600, 600, 600)
    assert (found.retold.disputed, found.retold.corrected) == (2, 2)
    assert found.period == JUNE

    # What an operator says about the disputed streams moves both sides alike.
    server.conn.execute("BEGIN IMMEDIATE")
    decide(server.conn, copy.stream, "copied")
    decide(server.conn, second.stream, "restored")
    server.conn.execute("COMMIT")
    found = server.compare()
    assert found.is_same, found.differences
    assert numbers(found)["cases"] == (5, 5, 5)
    assert numbers(found)["cases_success"] == (5, 5, 5)
    assert found.retold.doubled == 1


def small(server: Server) -> bytes:
    spool = Spool(1, up_ms=MORNING - HOUR)
    for n in range(3):
        spool.case(n, MORNING + n * MINUTE)
        spool.tell(Rating(level=5), MORNING + n * MINUTE)
        spool.tell(Queue(slot="call-pad-1", action="callNext"), MORNING + n * MINUTE)
        spool.served(MORNING + 30 * MINUTE + n * 15 * MINUTE, 700)
        server.receive(spool.seal(0), MORNING + HOUR)
    return server.exported()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM session WHERE id = (SELECT min(id) FROM session)",
        (
            "INSERT INTO session (terminal, sid, item, channel, outcome, cause, began_ms, duration_ms, day, batch, idx, disputed)"
            " SELECT terminal, x'00', item, channel, outcome, cause, began_ms, duration_ms, day, batch, 99, 0 FROM session LIMIT 1"
        ),
        "UPDATE session SET outcome = 'failed' WHERE id = (SELECT min(id) FROM session)",
        "UPDATE session SET item = 'tax.other' WHERE id = (SELECT min(id) FROM session)",
        "UPDATE session SET began_ms = began_ms + 1 WHERE id = (SELECT min(id) FROM session)",
        "UPDATE session SET day = '2026-06-10' WHERE id = (SELECT min(id) FROM session)",
        "UPDATE session SET disputed = 1 WHERE id = (SELECT min(id) FROM session)",
        "UPDATE rating SET level = 4 WHERE id = (SELECT min(id) FROM rating)",
        "UPDATE queue_event SET action = 'recall' WHERE id = (SELECT min(id) FROM queue_event)",
        "UPDATE terminal_day SET usable_s = usable_s + 1",
        "DELETE FROM terminal_day",
        "DELETE FROM batch WHERE no = 3",
    ],
)
def test_a_database_that_says_something_else_is_found_out(server: Server, change: str) -> None:
    data = small(server)
    assert server.compare(data).is_same
    server.conn.execute(change)
    found = server.compare(data)
    assert not found.is_same
    assert found.differences


def test_a_batch_counts_once_however_many_files_hold_it(server: Server) -> None:
    data = small(server)
    found = server.compare(data, data)
    assert found.is_same and numbers(found)["cases"] == (3, 3, 3)


def test_erased_originals_are_counted_apart_and_the_rest_is_still_compared(server: Server) -> None:
    spool = Spool(1, up_ms=MORNING - HOUR)
    for n in range(4):
        spool.case(n, MORNING + n * DAY)
        spool.served(MORNING + n * DAY + 30 * MINUTE, 700)
        server.receive(spool.seal(0), MORNING + n * DAY + HOUR)
    server.settle_days()
    erase_before(server.conn, SERVER, fleet=FLEET, terminal=TERMINAL, before_ms=MORNING + 2 * DAY, reason="retention", now_ms=NOW)
    found = server.compare()
    assert found.is_same, found.differences
    assert (found.missing, numbers(found)["cases"], numbers(found)["served_s"]) == (2, (2, 4, 2), (1400, 2800, 1400))
    server.conn.execute("UPDATE session SET outcome = 'failed' WHERE id = (SELECT max(id) FROM session)")
    assert not server.compare().is_same


def test_without_a_period_every_day_that_the_files_speak_of_is_compared(server: Server) -> None:
    small(server)
    assert server.compare(period=None).period == Period("2026-06-09", "2026-06-09")


def test_what_is_no_evidence_is_refused() -> None:
    for data in (b"", b"\xff", b"\xa0", b"\x01"):
        with pytest.raises(NoEvidence):
            read_evidence([data])
    assert read_evidence([]) == Evidence()


# Any history ----------------------------------------------------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[bytes, int]]:
    """Sealed batches with their arrivals: up to four starts, some under wrong clocks, some contradicting one another; cases meet on purpose."""
    sent: list[tuple[bytes, int]] = []
    forks: list[tuple[bytes, int]] = []
    at_ms, spools = MORNING, [Spool(0, up_ms=0)]
    for number in range(1, draw(st.integers(1, 4)) + 1):
        at_ms += draw(st.sampled_from([HOUR, 5 * HOUR, 20 * HOUR]))
        error_ms = draw(st.sampled_from([0, 0, -at_ms, 26 * HOUR, -26 * HOUR]))
        parent = draw(st.sampled_from(spools[-2:])) if number > 1 else spools[0]
        boot = draw(st.sampled_from([None, 1, 0]))
        spool = Spool(
            number, up_ms=(MORNING if boot == 1 else at_ms) - MINUTE, boot=boot, parent=parent.tip if parent.no else None,
            error_ms=error_ms, quality=ClockQuality.SYNCED if error_ms == 0 else draw(st.sampled_from(list(ClockQuality))),
        )  # fmt: skip
        set_at = draw(st.integers(0, 5))
        for n in range(draw(st.integers(1, 4))):
            for _ in range(draw(st.integers(1, 4))):
                at_ms += draw(st.sampled_from([1777, 40 * MINUTE]))
                kind = draw(st.integers(0, 5))
                if kind < 3:
                    spool.case(draw(st.integers(0, 9)), at_ms, draw(st.sampled_from(["success", "failed", "abandoned"])))
                elif kind == 3:
                    spool.tell(Rating(level=draw(st.integers(0, 5))), at_ms)
                elif kind == 4:
                    spool.tell(Queue(slot="call-pad-1", action=draw(st.sampled_from(["callNext", "pause"]))), at_ms)
                else:
                    spool.served(at_ms, draw(st.integers(0, 900)))
            if n == set_at:
                at_ms += 1777
                spool.set_clock(at_ms)
            # A fixed point in a forked story is another question: the times it put right stay so.
            if set_at > 3 and draw(st.integers(0, 6)) == 0:
                twin = replace(spool, pending=[])
                twin.case(draw(st.integers(0, 9)), at_ms)
                forks.append((twin.seal(at_ms), at_ms + 100 * HOUR))
            sent.append((spool.seal(at_ms), at_ms + draw(st.sampled_from([200, 4 * HOUR, 72 * HOUR]))))
        spools.append(spool)
    return sent + forks


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(history=histories(), data=st.data())
def test_any_history_comes_out_the_same(
    schema: Path, tmp_path_factory: pytest.TempPathFactory, history: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    server = Server(schema, tmp_path_factory.mktemp("history") / "fleet.sqlite")
    try:
        for raw, received_ms in history:
            server.receive(raw, received_ms)
        repeated = data.draw(st.lists(st.sampled_from(history), max_size=3))
        for raw, _ in repeated:
            server.receive(raw, NOW - DAY)
        for (stream,) in server.conn.execute("SELECT stream FROM stream WHERE disputed = 1").fetchall():
            verdicts: list[Verdict | None] = ["restored", "copied", None]
            verdict = data.draw(st.sampled_from(verdicts))
            if verdict is not None:
                server.conn.execute("BEGIN IMMEDIATE")
                decide(server.conn, stream, verdict)
                server.conn.execute("COMMIT")
        found = server.compare(period=Period("2026-01-01", "2026-07-05"))
        assert found.is_same, found.differences
        assert found.missing == 0
    finally:
        server.conn.close()
