"""Owns fault episodes told by terminals: opened, worsened, cleared, in any order of arrival.

Of people's marks on a fault one is touched here: a mute ends when the fault becomes worse than what its author had seen. A worse fault of the same
slot is an episode of its own, and not muted.

Both ends carry the time that the terminal captured: between them a clock may have stepped back by less than is corrected, so whoever shows a length
takes no less than 0. `fault_event` rows without a `by` are written here; the text of `open` and `worse` is the severity.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from fleet_server.facts.clock import is_late
from fleet_server.facts.devices import evidence_json
from fleet_server.facts.work import Item, Work
from protocols.contract.records import Fault

_INSERT = (
    "INSERT INTO fault (id, terminal, slot, code, severity, mandatory, opened_ms, since_ms, cleared_ms, cleared_by, open_batch, open_idx,"
    " clear_batch, clear_idx, profile, evidence, disputed, late, source, false_alarm)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'terminal', 0) ON CONFLICT (id) DO NOTHING"
)


def fault_key(terminal: str, fault: bytes) -> str:
    return f"{terminal}:{fault.hex()}"


OPEN_MAX = 256
"""Open faults shown for one terminal: twice what a birth can name (contract). A machine that makes up faults would fill every list."""


def write_faults(work: Work, items: Sequence[Item[Fault]]) -> None:
    for item in items:
        key = fault_key(work.batch.terminal, item.body.id)
        if item.body.change == "open" and has_too_many(work.conn, work.batch.terminal, but=key):
            continue
        if _insert(work, key, item):
            _tell(work.conn, key, item)
        elif _may_touch(work, key):
            (_merge_open if item.body.change == "open" else _merge_clear)(work, key, item)
        else:
            continue
        work.hint("fault", key)


def has_too_many(conn: sqlite3.Connection, terminal: str, *, but: str) -> bool:
    """Whether OPEN_MAX faults other than `but` are open."""
    (count,) = conn.execute(
        "SELECT count(*) FROM (SELECT 1 FROM fault WHERE terminal = ? AND cleared_ms IS NULL AND id <> ? LIMIT ?)",
        (terminal, but, OPEN_MAX),
    ).fetchone()
    return bool(count >= OPEN_MAX)


def _insert(work: Work, key: str, item: Item[Fault]) -> bool:
    """A new row from one end of the episode; False if the row exists."""
    body, batch, is_open = item.body, work.batch, item.body.change == "open"
    since_ms = item.earlier_ms(body.since_ms)
    row = (
        key,
        batch.terminal,
        body.slot,
        body.code,
        body.severity.value,
        int(body.mandatory),
        item.at_ms if is_open else since_ms,
        since_ms,
        None if is_open else item.at_ms,
        None if is_open else "terminal",
        batch.id if is_open else None,
        item.idx if is_open else None,
        None if is_open else batch.id,
        None if is_open else item.idx,
        body.profile,
        evidence_json(body.evidence) if is_open else None,
        work.disputed,
        int(is_late(item.at_ms, batch.received_ms)),
    )
    return work.conn.execute(_INSERT, row).rowcount == 1


def _tell(conn: sqlite3.Connection, key: str, item: Item[Fault]) -> None:
    text = item.body.severity.value if item.body.change == "open" else None
    conn.execute(
        "INSERT INTO fault_event (fault, at_ms, kind, text) VALUES (?, ?, ?, ?)", (key, item.at_ms, item.body.change, text)
    )


def _may_touch(work: Work, key: str) -> bool:
    """A disputed batch leaves an undisputed row alone; an undisputed one takes a disputed row's place."""
    (disputed,) = work.conn.execute("SELECT disputed FROM fault WHERE id = ?", (key,)).fetchone()
    if disputed == work.disputed:
        return True
    if work.disputed:
        return False
    _forget_story(work.conn, key)
    work.conn.execute(
        "UPDATE fault SET disputed = 0, cleared_ms = NULL, cleared_by = NULL, open_batch = NULL, open_idx = NULL, clear_batch = NULL,"
        " clear_idx = NULL WHERE id = ?",
        (key,),
    )
    return True


def _merge_open(work: Work, key: str, item: Item[Fault]) -> None:
    """Fill in an episode that a clear or a birth told first, or add a worsening; the earliest opening gives the row its bytes."""
    opened_ms, open_batch = work.conn.execute("SELECT opened_ms, open_batch FROM fault WHERE id = ?", (key,)).fetchone()
    tellings = {(item.at_ms, item.body.severity.value)}
    if open_batch is not None:
        tellings |= _tellings(work.conn, key)
    if open_batch is None or item.at_ms < opened_ms:
        _take_opening(work, key, item)
    _retell(work.conn, key, tellings)


def _tellings(conn: sqlite3.Connection, key: str) -> set[tuple[int, str]]:
    return set(
        conn.execute(
            "SELECT at_ms, text FROM fault_event WHERE fault = ? AND kind IN ('open', 'worse') AND by IS NULL", (key,)
        ).fetchall()
    )


def _retell(conn: sqlite3.Connection, key: str, tellings: set[tuple[int, str]]) -> None:
    """Write the openings as one `open` and a `worse` for each step up; the row carries the worst severity."""
    conn.execute("DELETE FROM fault_event WHERE fault = ? AND kind IN ('open', 'worse') AND by IS NULL", (key,))
    worst = ""
    for at_ms, severity in sorted(tellings):
        if not worst or severity < worst:
            kind = "worse" if worst else "open"
            conn.execute("INSERT INTO fault_event (fault, at_ms, kind, text) VALUES (?, ?, ?, ?)", (key, at_ms, kind, severity))
            worst = severity
    conn.execute("UPDATE fault SET severity = ? WHERE id = ?", (worst, key))
    _end_outgrown_mute(conn, key, max(tellings)[0])


def _end_outgrown_mute(conn: sqlite3.Connection, key: str, at_ms: int) -> None:
    """Compared with what was muted, not with the last telling: a batch that is projected again ends nothing that was muted since."""
    outgrown = conn.execute(
        "UPDATE fault SET muted_until_ms = NULL, muted_reason = NULL, muted_by = NULL, muted_severity = NULL"
        " WHERE id = ? AND muted_until_ms IS NOT NULL AND severity < muted_severity",
        (key,),
    ).rowcount
    if outgrown:
        conn.execute("INSERT INTO fault_event (fault, at_ms, kind) VALUES (?, ?, 'muteEnded')", (key, at_ms))


def _take_opening(work: Work, key: str, item: Item[Fault]) -> None:
    body, batch = item.body, work.batch
    work.conn.execute(
        "UPDATE fault SET slot = ?, code = ?, mandatory = ?, opened_ms = ?, since_ms = ?, open_batch = ?, open_idx = ?, profile = ?,"
        " evidence = ?, late = ? WHERE id = ?",
        (
            body.slot,
            body.code,
            int(body.mandatory),
            item.at_ms,
            item.earlier_ms(body.since_ms),
            batch.id,
            item.idx,
            body.profile,
            evidence_json(body.evidence),
            int(is_late(item.at_ms, batch.received_ms)),
            key,
        ),
    )


def _merge_clear(work: Work, key: str, item: Item[Fault]) -> None:
    """The terminal's own word replaces what a birth concluded; of two clears the earlier stays."""
    changed = work.conn.execute(
        "UPDATE fault SET cleared_ms = ?, cleared_by = 'terminal', clear_batch = ?, clear_idx = ?"
        " WHERE id = ? AND (clear_batch IS NULL OR cleared_ms > ?)",
        (item.at_ms, work.batch.id, item.idx, key, item.at_ms),
    ).rowcount
    if changed:
        work.conn.execute("DELETE FROM fault_event WHERE fault = ? AND kind = 'clear' AND by IS NULL", (key,))
        _tell(work.conn, key, item)
    work.conn.execute(
        "UPDATE fault SET slot = ?, code = ?, severity = ?, mandatory = ?, opened_ms = ?, since_ms = ?, late = ?"
        " WHERE id = ? AND open_batch IS NULL AND clear_batch = ? AND NOT EXISTS"
        " (SELECT 1 FROM fault_event WHERE fault = fault.id AND kind = 'open' AND by IS NULL)",
        (
            item.body.slot,
            item.body.code,
            item.body.severity.value,
            int(item.body.mandatory),
            item.earlier_ms(item.body.since_ms),
            item.earlier_ms(item.body.since_ms),
            int(is_late(item.at_ms, work.batch.received_ms)),
            key,
            work.batch.id,
        ),
    )


def _forget_story(conn: sqlite3.Connection, key: str) -> None:
    conn.execute("DELETE FROM fault_event WHERE fault = ? AND kind IN ('open', 'worse', 'clear') AND by IS NULL", (key,))


# Corrected times ------------------------------------------------------------------------------------------------------------------------


def move(conn: sqlite3.Connection, terminal: str, batch: int, old: Item[Fault], new: Item[Fault], late: bool) -> None:
    """Give what one record told its corrected time, in place: what people did to the fault stays."""
    key = fault_key(terminal, new.body.id)
    since_ms = new.earlier_ms(new.body.since_ms)
    if new.body.change == "open":
        conn.execute(
            "UPDATE fault SET opened_ms = ?, since_ms = ?, late = ? WHERE id = ? AND open_batch = ? AND open_idx = ?",
            (new.at_ms, since_ms, int(late), key, batch, new.idx),
        )
        tellings = _tellings(conn, key)
        if (old.at_ms, new.body.severity.value) in tellings:
            _retell(conn, key, tellings - {(old.at_ms, new.body.severity.value)} | {(new.at_ms, new.body.severity.value)})
        return
    moved = conn.execute(
        "UPDATE fault SET cleared_ms = ? WHERE id = ? AND clear_batch = ? AND clear_idx = ?",
        (new.at_ms, key, batch, new.idx),
    ).rowcount
    if moved:
        conn.execute("UPDATE fault_event SET at_ms = ? WHERE fault = ? AND kind = 'clear' AND by IS NULL", (new.at_ms, key))
        conn.execute(
            "UPDATE fault SET opened_ms = ?, since_ms = ?, cleared_ms = ?, late = ? WHERE id = ? AND open_batch IS NULL"
            " AND NOT EXISTS (SELECT 1 FROM fault_event WHERE fault = fault.id AND kind = 'open')",
            (since_ms, since_ms, new.at_ms, int(late), key),
        )


# Taking back ----------------------------------------------------------------------------------------------------------------------------


def take_back(conn: sqlite3.Connection, terminal: str, batch: int) -> None:
    """Undo what `batch` told. A row that nothing else tells of goes, unless a person has marked it: that one stays, without its word."""
    for key, open_batch, clear_batch in conn.execute(
        "SELECT id, open_batch, clear_batch FROM fault WHERE terminal = ? AND ? IN (open_batch, clear_batch)", (terminal, batch)
    ).fetchall():
        if clear_batch == batch:
            conn.execute(
                "UPDATE fault SET cleared_ms = NULL, cleared_by = NULL, clear_batch = NULL, clear_idx = NULL WHERE id = ?", (key,)
            )
            conn.execute("DELETE FROM fault_event WHERE fault = ? AND kind = 'clear' AND by IS NULL", (key,))
        if open_batch == batch:
            conn.execute("UPDATE fault SET open_batch = NULL, open_idx = NULL, evidence = NULL WHERE id = ?", (key,))
            conn.execute("DELETE FROM fault_event WHERE fault = ? AND kind IN ('open', 'worse') AND by IS NULL", (key,))
    conn.execute(
        "DELETE FROM fault WHERE terminal = ? AND source = 'terminal' AND open_batch IS NULL AND clear_batch IS NULL AND cleared_by IS NULL"
        " AND claimed_by IS NULL AND NOT EXISTS (SELECT 1 FROM fault_event WHERE fault = fault.id)",
        (terminal,),
    )
