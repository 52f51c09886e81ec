"""The audit log only grows, and whoever goes round that is found: changed, taken out, put in, moved, cut off, computed anew."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet_server import audit
from fleet_server.audit import chain, export, log
from fleet_server.audit.keeper import CUT_AT_ONCE, HEAD_EVERY_MS, Keeper
from fleet_server.audit.verify import Report, verify
from fleet_server.authority.authority import Authority, Ed25519Signer
from fleet_server.authority.files import read_ed25519
from fleet_server.channel import transact
from fleet_server.enrolment.registry import publish_server_keys
from fleet_server.thresholds.rules import put
from tests.support.facts import FactBench
from tests.support.ordering import DAY, FLEET, NOW

TRIGGERS = (
    "audit_no_update",
    "audit_no_delete",
    "audit_appends",
    "audit_head_no_update",
    "audit_cut_no_update",
    "audit_cut_no_delete",
)


class Book:
    """A log of thirty rows with heads over the tenth, the twentieth and the last."""

    def __init__(self, conn: sqlite3.Connection, folder: Path) -> None:
        self.conn = conn
        self.authority = Authority.create(folder / "authority", FLEET, [], now_ms=NOW)
        self.heads_file = folder / "heads.ndjson"
        transact(conn, lambda inside: publish_server_keys(inside, self.authority, now_ms=NOW))
        self.keeper = Keeper(FLEET, self.authority.server_signer, self.heads_file)
        self.now_ms = NOW
        for _ in range(3):
            self.write(10)
            self.keep()

    def write(self, count: int) -> None:
        for n in range(count):
            self.now_ms += 1_000
            at_ms = self.now_ms
            transact(
                self.conn,
                lambda conn, n=n, at_ms=at_ms: audit.write(
                    conn, "wang", "operator", "threshold.set", f"threshold:{n}", {"n": n}, now_ms=at_ms
                ),  # type: ignore[misc]
            )

    def keep(self, after_ms: int = HEAD_EVERY_MS) -> None:
        self.now_ms += after_ms
        while self.keeper.step(self.conn, self.now_ms):
            pass

    def check(self, *, with_file: bool = False) -> Report:
        source = export.from_database(self.conn, FLEET)
        heads = [*source.heads, *(export.heads_of_file(self.heads_file) if with_file else [])]
        return verify(source.rows, heads, source.cuts, source.keys(self.authority.root_public_key), FLEET)

    def unlock(self) -> None:
        """What somebody with the file in hand can do about triggers."""
        for trigger in TRIGGERS:
            self.conn.execute(f"DROP TRIGGER {trigger}")

    def recompute(self, first: int) -> None:
        """Make the chain fit again from this row on, as somebody would who knows how it is made."""
        prev = bytes(32)
        for row in list(log.rows(self.conn)):
            if row.id >= first:
                fixed = chain.row_hash(
                    row.id, row.at_ms, (row.actor, row.role, row.action, row.object, row.detail, row.result), prev
                )
                self.conn.execute("UPDATE audit SET prev = ?, hash = ? WHERE id = ?", (prev, fixed, row.id))
                prev = fixed
            else:
                prev = row.hash


@pytest.fixture
def book(bench: FactBench, tmp_path: Path) -> Book:
    return Book(bench.conn, tmp_path)


def found(report: Report) -> tuple[str, int]:
    assert report.problem is not None
    assert str(report.problem.row) in report.problem.sentence() or report.problem.row == 0
    return report.problem.kind, report.problem.row


def test_an_untouched_log_holds(book: Book) -> None:
    report = book.check(with_file=True)
    assert (report.problem, report.rows, report.first, report.last, report.signed_to) == (None, 30, 1, 30, 30)
    book.write(3)
    assert (book.check().problem, book.check().signed_to, book.check().last) == (None, 30, 33)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'li' WHERE id = 5",
        "DELETE FROM audit WHERE id = 5",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT id, at_ms, 'li', role, action, object, detail, result, prev, hash FROM audit WHERE id = 5",
        "INSERT INTO audit SELECT 7000, at_ms, actor, role, action, object, detail, result, prev, hash FROM audit WHERE id = 5",
        "UPDATE audit_head SET audit = 3 WHERE id = 1",
    ],
)
def test_the_database_refuses_everything_but_a_next_row(book: Book, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="only grow"):
        book.conn.execute(statement)
    assert book.check().problem is None


@pytest.mark.parametrize("column", ["at_ms", "actor", "role", "action", "object", "detail", "result"])
def test_a_changed_row_is_found(book: Book, column: str) -> None:
    book.unlock()
    book.conn.execute(f"UPDATE audit SET {column} = ? WHERE id = 17", (1 if column == "at_ms" else "x",))
    assert found(book.check()) == ("changed", 17)


def test_a_deleted_row_is_found(book: Book) -> None:
    book.unlock()
    book.conn.execute("DELETE FROM audit WHERE id = 17")
    assert found(book.check()) == ("missing", 17)


def test_a_deleted_row_whose_gap_was_closed_is_found(book: Book) -> None:
    book.unlock()
    book.conn.execute("DELETE FROM audit WHERE id = 17")
    for number in range(18, 31):
        book.conn.execute("UPDATE audit SET id = id - 1 WHERE id = ?", (number,))
    assert found(book.check()) == ("changed", 17)
    book.recompute(17)
    assert found(book.check())[0] == "rewritten"


def test_an_inserted_row_is_found(book: Book) -> None:
    book.unlock()
    for number in range(30, 16, -1):
        book.conn.execute("UPDATE audit SET id = id + 1 WHERE id = ?", (number,))
    prev = next(row.hash for row in log.rows(book.conn) if row.id == 16)
    words = ("li", "operator", "account.role", "account:li", "{}", "done")
    book.conn.execute(
        "INSERT INTO audit (id, at_ms, actor, role, action, object, detail, result, prev, hash) VALUES (17, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (NOW, *words, prev, chain.row_hash(17, NOW, words, prev)),
    )
    assert found(book.check()) == ("changed", 18)


def test_two_rows_that_changed_places_are_found(book: Book) -> None:
    book.unlock()
    book.conn.execute("UPDATE audit SET id = 999 WHERE id = 17")
    book.conn.execute("UPDATE audit SET id = 17 WHERE id = 18")
    book.conn.execute("UPDATE audit SET id = 18 WHERE id = 999")
    assert found(book.check()) == ("changed", 17)


def test_a_log_that_was_computed_anew_is_found_by_the_signature(book: Book) -> None:
    book.unlock()
    book.conn.execute("UPDATE audit SET actor = 'li' WHERE id = 17")
    book.recompute(17)
    assert found(book.check()) == ("rewritten", 11)


def test_a_tail_that_was_cut_off_is_found(book: Book) -> None:
    book.unlock()
    book.conn.execute("DELETE FROM audit WHERE id > 26")
    assert found(book.check()) == ("cutOff", 27)


def test_a_tail_that_was_cut_off_with_its_signature_is_found_by_the_copy(book: Book) -> None:
    book.unlock()
    book.conn.execute("DELETE FROM audit WHERE id > 26")
    book.conn.execute("DELETE FROM audit_head WHERE audit > 26")
    assert book.check().problem is None
    assert found(book.check(with_file=True)) == ("cutOff", 27)


def test_an_emptied_log_is_found(book: Book) -> None:
    book.unlock()
    book.conn.execute("DELETE FROM audit")
    assert found(book.check()) == ("cutOff", 1)


def test_signatures_that_were_taken_away_are_missed(book: Book) -> None:
    book.conn.execute("DELETE FROM audit_head")
    book.write(1)
    assert book.check().problem is None  # young enough: the server may have been stopped
    book.now_ms += 3 * 3_600_000
    book.write(1)
    assert found(book.check()) == ("unsigned", 1)


def test_a_signature_of_somebody_else_is_none(book: Book, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other", FLEET, [], now_ms=NOW)
    raw = chain.seal_head(chain.Head(audit=30, hash=bytes(32), made_ms=NOW), other.server_signer(), FLEET)
    book.conn.execute("INSERT INTO audit_head (audit, made_ms, envelope) VALUES (30, ?, ?)", (NOW, raw))
    assert book.check().problem is not None
    book.conn.execute(
        "INSERT INTO server_key (kid, certificate, created_ms) VALUES (?, ?, 0)", (b"k" * 16, other.server_key_certificate)
    )
    assert found(book.check())[0] == "forgedHead"


def test_a_head_is_signed_when_there_is_something_new_and_not_for_each_row(book: Book) -> None:
    heads = len(export.from_database(book.conn, FLEET).heads)
    book.keep()
    book.write(1)
    book.keeper.step(book.conn, book.now_ms)
    assert len(export.from_database(book.conn, FLEET).heads) == heads + 1
    book.write(1)
    book.keeper.step(book.conn, book.now_ms)
    assert len(export.from_database(book.conn, FLEET).heads) == heads + 1
    assert len(export.heads_of_file(book.heads_file)) == heads + 1
    assert book.heads_file.stat().st_mode & 0o777 == 0o600


def test_heads_outlive_a_rotation_of_the_servers_key(book: Book) -> None:
    book.authority.rotate_server_key(now_ms=book.now_ms)
    transact(book.conn, lambda conn: publish_server_keys(conn, book.authority, now_ms=book.now_ms))
    book.write(2)
    book.keep()
    report = book.check(with_file=True)
    assert (report.problem, report.signed_to) == (None, 32)


# Keeping time ----------------------------------------------------------------------------------------------------------------------------


def test_rows_are_kept_for_190_days_and_no_shorter_time_can_be_set(book: Book) -> None:
    book.keep(after_ms=189 * DAY)
    assert book.check().rows == 30
    with pytest.raises(Exception, match="outOfBounds"):
        transact(book.conn, lambda conn: put(conn, "audit.keep_days", 189, by="wang", now_ms=book.now_ms))


def test_what_is_older_is_removed_under_a_signature_and_the_rest_still_holds(book: Book) -> None:
    book.now_ms += 100 * DAY
    book.write(5)
    book.keep(after_ms=91 * DAY)
    assert book.conn.execute("SELECT min(id), max(id) FROM audit").fetchone() == (31, 36)
    report = book.check()
    assert (report.problem, report.first, report.last) == (None, 31, 36)
    assert [row.action for row in log.rows(book.conn)][-1] == "audit.cut"
    for statement in ("DELETE FROM audit WHERE id = 31", "UPDATE audit_cut SET audit = 33", "DELETE FROM audit_cut"):
        with pytest.raises(sqlite3.IntegrityError, match="only grow"):
            book.conn.execute(statement)
    book.unlock()
    book.conn.execute("DELETE FROM audit WHERE id = 31")
    assert found(book.check()) == ("missing", 31)


def test_a_longer_time_takes_effect(book: Book) -> None:
    transact(book.conn, lambda conn: put(conn, "audit.keep_days", 400, by="wang", now_ms=book.now_ms))
    book.keep(after_ms=300 * DAY)
    assert book.check().first == 1


def test_a_removal_that_the_server_did_not_sign_is_found(book: Book, tmp_path: Path) -> None:
    stranger = Ed25519Signer(read_ed25519(Authority.create(tmp_path / "other", FLEET, [], now_ms=NOW).folder / "root.key"))
    digest = next(row.hash for row in log.rows(book.conn) if row.id == 12)
    raw = chain.seal_head(chain.Head(audit=12, hash=digest, made_ms=NOW), stranger, FLEET)
    book.conn.execute("INSERT INTO audit_cut (audit, made_ms, envelope) VALUES (12, ?, ?)", (NOW, raw))
    book.conn.execute("DELETE FROM audit WHERE id <= 12")
    assert found(book.check())[0] == "forgedCut"


def test_a_long_log_is_removed_in_small_steps(book: Book) -> None:
    book.write(CUT_AT_ONCE + 100)
    book.now_ms += 191 * DAY
    assert book.keeper.step(book.conn, book.now_ms)
    assert book.check().problem is None
    assert not book.keeper.step(book.conn, book.now_ms)
    assert book.conn.execute("SELECT count(*) FROM audit").fetchone() == (2,)
    assert book.check().problem is None


def test_old_heads_are_thinned_and_what_is_left_covers_all(book: Book) -> None:
    for _ in range(30):
        book.write(1)
        book.keep()
    before = len(export.from_database(book.conn, FLEET).heads)
    book.now_ms += 2 * DAY
    book.keeper.step(book.conn, book.now_ms)
    after = len(export.from_database(book.conn, FLEET).heads)
    assert after < before / 5
    assert (book.check(with_file=True).problem, book.check().signed_to) == (None, 60)


# Exports ---------------------------------------------------------------------------------------------------------------------------------


def exported(book: Book) -> str:
    file = io.StringIO()
    assert export.write(export.from_database(book.conn, FLEET), file, made_ms=NOW) == 30
    return file.getvalue()


def check_text(book: Book, text: str) -> Report:
    source = export.read(io.StringIO(text))
    return verify(source.rows, source.heads, source.cuts, source.keys(book.authority.root_public_key), source.fleet)


def test_an_export_is_checked_without_the_server(book: Book) -> None:
    report = check_text(book, exported(book))
    assert (report.problem, report.rows, report.signed_to) == (None, 30, 30)


def _swap(lines: list[str]) -> None:
    lines[17], lines[18] = lines[18], lines[17]


TAMPERING: list[tuple[Callable[[list[str]], object], tuple[str, int]]] = [
    (lambda lines: lines.__setitem__(17, lines[17].replace("wang", "li")), ("changed", 17)),
    (lambda lines: lines.pop(17), ("missing", 17)),
    (lambda lines: lines.insert(17, lines[12]), ("unchained", 12)),
    (_swap, ("missing", 17)),
    (lambda lines: lines.__delitem__(slice(27, None)), ("cutOff", 27)),
]


@pytest.mark.parametrize(("tamper", "problem"), TAMPERING, ids=["changed", "deleted", "inserted", "reordered", "cut off"])
def test_an_export_that_was_tampered_with_is_found(
    book: Book, tamper: Callable[[list[str]], object], problem: tuple[str, int]
) -> None:
    lines = exported(book).splitlines(keepends=True)
    tamper(lines)
    assert found(check_text(book, "".join(lines))) == problem


def test_an_export_without_certificates_or_of_another_fleet_proves_nothing(book: Book, tmp_path: Path) -> None:
    lines = exported(book).splitlines(keepends=True)
    head = json.loads(lines[0])
    report = check_text(book, json.dumps(head | {"certificates": []}) + "\n" + "".join(lines[1:]))
    assert found(report)[0] == "forgedHead"
    other = Authority.create(tmp_path / "other", FLEET, [], now_ms=NOW)
    source = export.read(io.StringIO("".join(lines)))
    assert verify(source.rows, source.heads, source.cuts, source.keys(other.root_public_key), FLEET).problem is not None


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"kiosk-fleet-audit": 99}'])
def test_what_is_no_export_is_said(text: str) -> None:
    with pytest.raises(export.NoExport):
        export.read(io.StringIO(text + "\n"))


def test_a_torn_line_is_said(book: Book) -> None:
    with pytest.raises(export.NoExport, match="line 31"):
        check_text(book, exported(book)[:-40])


def test_actors_have_the_role_that_they_have(bench: FactBench) -> None:
    bench.conn.execute("INSERT INTO staff (name, role) VALUES ('wang', 'auditor')")
    for actor in ("wang", "cli:root", "server", ""):
        transact(bench.conn, lambda conn, actor=actor: audit.write(conn, actor, None, "x", "y:z", now_ms=NOW))  # type: ignore[misc]
    assert [row.role for row in log.rows(bench.conn)] == ["auditor", "cli", "server", ""]
