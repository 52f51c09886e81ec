"""Asking and deciding: what the console calls inside `desk.db.write`. Everything lands in the audit log in the same transaction.

A request names its terminals one by one. What is harmless is ready to be signed at once; what is risky, or meant for many, waits for a second person.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import cbor2
import msgspec

from fleet_server import audit
from fleet_server.accounts.permissions import role_may
from fleet_server.console.actions import person_text
from fleet_server.errors import Conflict, NotFound, Refused
from fleet_server.orders import rules, wanted
from fleet_server.thresholds.rules import effective
from protocols.contract.orders import KIND_OF, KINDS, Cancel, Configuration, Line, OrderBody, PullLogs, SelfTest, Staff

LINE_MAX: Final = 120
CONFIGURATION_MAX_BYTES: Final = 64 * 1024
_STAFF: Final = re.compile(str(next(meta.pattern for meta in get_args(Staff)[1:] if meta.pattern)))
_LINE: Final = re.compile(str(next(meta.pattern for meta in get_args(Line)[1:] if meta.pattern)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A row of `order_request`."""

    id: bytes
    at_ms: int
    kind: str
    body: str
    requested_by: str
    note: str
    expires_ms: int
    terminals: int
    needs_two: str
    digest: bytes
    state: str
    state_ms: int
    decided_by: str | None
    decided_ms: int | None
    decided_note: str
    approved_digest: bytes | None

    @property
    def name(self) -> str:
        """How people and the audit log call it."""
        return name_of(self.id)


REQUEST_COLUMNS: Final = (
    "id, at_ms, kind, body, requested_by, note, expires_ms, terminals, needs_two, digest, state, state_ms, decided_by, decided_ms,"
    " decided_note, approved_digest"
)


def name_of(request: bytes) -> str:
    return request.hex()[:8]


# Asking ---------------------------------------------------------------------------------------------------------------------------------


def request_order(
    conn: sqlite3.Connection, terminals: Sequence[str], body: OrderBody, *, by: str, expires_ms: int, note: str = "", now_ms: int
) -> bytes:
    """Ask for one order at one or many terminals; returns the request's id. Refused for what cannot be asked."""
    if isinstance(body, Cancel):
        raise Refused("kind", "orderNoCancel")
    _check_body(body)
    if isinstance(body, PullLogs) and (problem := rules.logs_problem(body, now_ms)):
        raise Refused("span", problem)
    chosen = _terminals(conn, terminals)
    if isinstance(body, SelfTest) and not _any_has(conn, chosen, body.slot):
        raise Refused("slot", "orderNoSlot")
    return _ask(conn, chosen, KIND_OF[type(body)], _json(body), body=body, by=by, expires_ms=expires_ms, note=note, now_ms=now_ms)


def request_configuration(
    conn: sqlite3.Connection,
    terminals: Sequence[str],
    content: Mapping[str, Any],
    *,
    by: str,
    expires_ms: int,
    note: str = "",
    now_ms: int,
) -> bytes:
    """Ask for a new configuration (`devices`, `items`, `intervals`) at these terminals: it becomes a version that can be wanted again later."""
    text = _configuration(content)
    check_person(conn, by)
    words = _note(note)
    version = conn.execute(
        "INSERT INTO configuration (made_ms, made_by, note, content) VALUES (?, ?, ?, ?) RETURNING version",
        (now_ms, by, words, text),
    ).fetchone()[0]
    audit.write(
        conn,
        by,
        None,
        "configuration.make",
        f"configuration:{version}",
        {"sha256": hashlib.sha256(text.encode()).hexdigest()},
        now_ms=now_ms,
    )
    return request_version(conn, terminals, version, by=by, expires_ms=expires_ms, note=note, now_ms=now_ms)


def request_version(
    conn: sqlite3.Connection, terminals: Sequence[str], version: int, *, by: str, expires_ms: int, note: str = "", now_ms: int
) -> bytes:
    """Ask for a configuration that exists: the way back to an earlier version, or one that proved itself elsewhere."""
    sha256 = wanted.configuration_sha256(conn, version)
    if sha256 is None:
        raise Refused("version", "orderVersion")
    chosen = _terminals(conn, terminals)
    # The number says which, the hash says what: it is in the request's digest, so that is what is approved and signed.
    body = json.dumps({"sha256": sha256.hex(), "version": version})
    return _ask(conn, chosen, "configuration", body, by=by, expires_ms=expires_ms, note=note, now_ms=now_ms)


def lock(
    conn: sqlite3.Connection, terminals: Sequence[str], zh: str, en: str = "", *, by: str, note: str = "", now_ms: int
) -> bytes:
    """Close these terminals and show why. One person may: closing what does harm must not wait; many at once need a second one."""
    lines = {"zh": _line("zh", zh), "en": _line("en", en) if en.strip() else ""}
    chosen = _terminals(conn, terminals)
    body = json.dumps(lines, ensure_ascii=False, sort_keys=True)
    return _ask(conn, chosen, "lock", body, by=by, expires_ms=now_ms + rules.DAY_MS, note=note, now_ms=now_ms)


def unlock(conn: sqlite3.Connection, terminals: Sequence[str], *, by: str, note: str = "", now_ms: int) -> bytes:
    """Open them again."""
    chosen = _terminals(conn, terminals)
    return _ask(conn, chosen, "unlock", "{}", by=by, expires_ms=now_ms + rules.DAY_MS, note=note, now_ms=now_ms)


def cancel(conn: sqlite3.Connection, request: bytes, *, by: str, now_ms: int) -> bytes | None:
    """Give up what has not begun: what is not signed yet is dropped, for the rest the terminals are asked. Returns the id of that request, if any."""
    row = get(conn, request)
    if row.kind in rules.DESIRED_KINDS or row.kind == "cancel":
        raise Refused("request", "orderNoCancel")
    if row.state != "approved":
        raise Conflict("request", "orderDecided")
    check_person(conn, by)
    dropped = conn.execute(
        "UPDATE order_item SET state = 'dropped', reason = 'cancelled', state_ms = ?, since_ms = ? WHERE request = ? AND state = 'ready'"
        " RETURNING terminal",
        (now_ms, now_ms, request),
    ).fetchall()
    sent = conn.execute(
        "SELECT terminal, order_id FROM order_item WHERE request = ? AND state IN ('sent', 'received', 'waiting') AND expires_ms > ?"
        " ORDER BY terminal",
        (request, now_ms),
    ).fetchall()
    if not dropped and not sent:
        raise Conflict("request", "orderNothingToCancel")
    audit.write(
        conn, by, None, "order.cancel", f"request:{row.name}", {"dropped": len(dropped), "asked": len(sent)}, now_ms=now_ms
    )
    hint(conn, (item[0] for item in dropped), request, now_ms)
    if not sent:
        return None
    bodies = {item[0]: _json(Cancel(order=bytes(item[1]))) for item in sent}
    return _ask(
        conn,
        [item[0] for item in sent],
        "cancel",
        json.dumps({"request": request.hex()}),
        by=by,
        expires_ms=max(row.expires_ms, now_ms + rules.SHORTEST_MS),
        note="",
        now_ms=now_ms,
        bodies=bodies,
    )


# Deciding -------------------------------------------------------------------------------------------------------------------------------


def approve(conn: sqlite3.Connection, request: bytes, *, by: str, now_ms: int, note: str = "") -> None:
    """The second person agrees. Refused for the requester and for whoever's account the requester had in hand lately; Conflict if it was decided."""
    row = _undecided(conn, request, now_ms)
    check_approver(conn, row.requested_by, by, now_ms)
    digest = digest_now(conn, row)
    if digest != row.digest or not is_as_asked(conn, row.kind, row.body):
        raise Refused("request", "orderChanged")
    _decide(conn, row, "approved", by, note, now_ms, digest)
    conn.execute(
        "UPDATE order_item SET state = 'ready', state_ms = ?, since_ms = ? WHERE request = ? AND state = 'asked'",
        (now_ms, now_ms, request),
    )


def reject(conn: sqlite3.Connection, request: bytes, *, by: str, now_ms: int, note: str = "") -> None:
    """The second person does not agree."""
    row = _undecided(conn, request, now_ms)
    if row.requested_by == by:
        raise Refused("by", "orderSelf")
    check_person(conn, by, "approve")
    _decide(conn, row, "rejected", by, note, now_ms)
    drop_items(conn, request, "rejected", now_ms)


def withdraw(conn: sqlite3.Connection, request: bytes, *, by: str, now_ms: int) -> None:
    """Whoever asked takes it back before it is decided."""
    row = _undecided(conn, request, now_ms)
    if row.requested_by != by:
        raise Refused("by", "orderNotYours")
    _decide(conn, row, "withdrawn", by, "", now_ms)
    drop_items(conn, request, "withdrawn", now_ms)


def note_refusal(conn: sqlite3.Connection, request: bytes, *, by: str, reason: str, now_ms: int) -> None:
    """Somebody tried to approve who may not. In a transaction of its own: the one that was refused is rolled back."""
    audit.write(conn, by, None, "order.approve", f"request:{name_of(request)}", {"why": reason}, "refused", now_ms)


def lapse(conn: sqlite3.Connection, now_ms: int) -> int:
    """End what nobody decided in time; returns how many."""
    rows = conn.execute("SELECT id FROM order_request WHERE state = 'waiting' AND expires_ms <= ?", (now_ms,)).fetchall()
    for (request,) in rows:
        set_state(conn, bytes(request), "lapsed", now_ms)
        drop_items(conn, bytes(request), "lapsed", now_ms)
        audit.write(conn, audit.SERVER, None, "order.lapse", f"request:{name_of(bytes(request))}", now_ms=now_ms)
    return len(rows)


def check_approver(conn: sqlite3.Connection, requested_by: str, approver: str, now_ms: int) -> None:
    """Refused unless `approver` may approve what `requested_by` asked for; the same check that dispatch makes before it signs."""
    touches = [
        rules.Touch(by=row[0], staff=row[1], kind=row[2], at_ms=row[3])
        for row in conn.execute(
            # The server and its command line are nobody's account: whoever rules the machine makes the first two people.
            "SELECT set_by, staff, kind, at_ms FROM account_event WHERE at_ms > ? AND set_by IN (SELECT name FROM staff)",
            (now_ms - rules.INDEPENDENT_MS,),
        )
    ]
    problem = rules.approver_problem(requested_by, approver, touches, now_ms)
    if problem is not None:
        raise Refused("by", problem)
    check_person(conn, approver, "approve")


def reach(conn: sqlite3.Connection, by: str, kind: str, terminals: Iterable[str], at_ms: int) -> int:
    """To how many terminals this person alone has sent this kind within the hour before `at_ms`, together with these; each counts once."""
    (count,) = conn.execute(
        "SELECT count(*) FROM (SELECT value AS terminal FROM json_each(?) UNION"
        " SELECT i.terminal FROM order_request r JOIN order_item i ON i.request = r.id WHERE r.requested_by = ? AND r.kind = ?"
        " AND r.state = 'approved' AND r.needs_two = '' AND r.at_ms > ? AND r.at_ms <= ?)",
        (json.dumps(list(terminals)), by, kind, at_ms - rules.BATCH_MS, at_ms),
    ).fetchone()
    return int(count)


def digest_now(conn: sqlite3.Connection, row: Request) -> bytes:
    """What an approval is given to: the request as it stands in the database now, with each terminal."""
    items = conn.execute(
        "SELECT terminal, order_id, body, kind, expires_ms FROM order_item WHERE request = ? ORDER BY terminal", (row.id,)
    ).fetchall()
    return _digest(row.id, row.kind, row.body, row.requested_by, row.note, row.expires_ms, [tuple(item) for item in items])


def is_as_asked(conn: sqlite3.Connection, kind: str, body: str) -> bool:
    """Whether the configuration that a request names has the content that it was asked with; anything else names nothing outside itself."""
    if kind != "configuration":
        return True
    version, sha256 = wanted.version_of(body)
    found = wanted.configuration_sha256(conn, version)
    return found is not None and found == sha256


# Shared ---------------------------------------------------------------------------------------------------------------------------------


def get(conn: sqlite3.Connection, request: bytes) -> Request:
    """NotFound if there is none."""
    row = conn.execute(f"SELECT {REQUEST_COLUMNS} FROM order_request WHERE id = ?", (request,)).fetchone()  # noqa: S608 - columns from above
    if row is None:
        raise NotFound(f"request {name_of(request)}")
    return as_request(row)


def as_request(row: Any) -> Request:
    """Of REQUEST_COLUMNS, by position."""
    return Request(
        id=bytes(row[0]),
        at_ms=row[1],
        kind=row[2],
        body=row[3],
        requested_by=row[4],
        note=row[5],
        expires_ms=row[6],
        terminals=row[7],
        needs_two=row[8],
        digest=bytes(row[9]),
        state=row[10],
        state_ms=row[11],
        decided_by=row[12],
        decided_ms=row[13],
        decided_note=row[14],
        approved_digest=None if row[15] is None else bytes(row[15]),
    )


def body_of(kind: str, text: str) -> OrderBody:
    """A stored body; Refused if it is none."""
    try:
        body: OrderBody = msgspec.json.decode(text, type=KINDS[kind])
    except (msgspec.DecodeError, KeyError):
        raise Refused("body", "orderBody") from None
    return body


def set_state(conn: sqlite3.Connection, request: bytes, state: rules.RequestState, now_ms: int) -> None:
    conn.execute("UPDATE order_request SET state = ?, state_ms = ? WHERE id = ?", (state, now_ms, request))


def drop_items(conn: sqlite3.Connection, request: bytes, reason: str, now_ms: int) -> None:
    """What was not signed never will be."""
    dropped = conn.execute(
        "UPDATE order_item SET state = 'dropped', reason = ?, state_ms = ?, since_ms = ?"
        " WHERE request = ? AND state IN ('asked', 'ready') RETURNING terminal",
        (reason, now_ms, now_ms, request),
    ).fetchall()
    hint(conn, (item[0] for item in dropped), request, now_ms)


def hint(conn: sqlite3.Connection, terminals: Iterable[str], request: bytes | None, now_ms: int) -> None:
    """Tell open pages."""
    ref = None if request is None else request.hex()
    conn.executemany(
        "INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'order', ?)",
        [(now_ms, terminal, ref) for terminal in terminals],
    )


def _ask(
    conn: sqlite3.Connection,
    terminals: Sequence[str],
    kind: rules.Kind | str,
    text: str,
    *,
    body: OrderBody | None = None,
    by: str,
    expires_ms: int,
    note: str,
    now_ms: int,
    bodies: Mapping[str, str] | None = None,
) -> bytes:
    check_person(conn, by)
    problem = rules.expiry_problem(expires_ms, now_ms)
    if problem is not None:
        raise Refused("expires", problem)
    words = _note(note)
    reached = reach(conn, by, kind, terminals, now_ms)
    two = rules.needs_two(kind, body, reached, int(effective(conn, "order.batch_two").value))
    request = os.urandom(16)
    ids: list[bytes | None] = [None if kind in rules.DESIRED_KINDS else os.urandom(16) for _ in terminals]
    own = [(bodies or {}).get(terminal) for terminal in terminals]
    items = sorted(zip(terminals, ids, own, [kind] * len(terminals), [expires_ms] * len(terminals), strict=True))
    digest = _digest(request, kind, text, by, words, expires_ms, items)
    state = "waiting" if two else "approved"
    conn.execute(
        "INSERT INTO order_request (id, at_ms, kind, body, requested_by, note, expires_ms, terminals, needs_two, digest, state, state_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (request, now_ms, kind, text, by, words, expires_ms, len(terminals), two, digest, state, now_ms),
    )
    item_state = "asked" if two else "ready"
    conn.executemany(
        "INSERT INTO order_item (request, terminal, order_id, body, kind, expires_ms, state, state_ms, since_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(request, *item, item_state, now_ms, now_ms) for item in items],
    )
    detail: dict[str, Any] = {"kind": kind, "body": json.loads(text), "digest": digest.hex(), "terminals": len(terminals)}
    if len(terminals) <= LISTED:
        detail["names"] = sorted(terminals)
    if words:
        detail["note"] = words
    if two:
        detail["needs"] = two
    audit.write(conn, by, None, "order.request", f"request:{name_of(request)}", detail, now_ms=now_ms)
    hint(conn, terminals, request, now_ms)
    return request


LISTED: Final = 50
"""Terminals that the audit row names; of more it has the digest, and the request has them all."""


def _digest(request: bytes, kind: str, body: str, by: str, note: str, expires_ms: int, items: Sequence[tuple[Any, ...]]) -> bytes:
    plain = [[bytes(value) if isinstance(value, (bytes, memoryview)) else value for value in item] for item in items]
    return hashlib.sha256(
        cbor2.dumps(["kf-request/1", request, kind, body, by, note, expires_ms, plain], canonical=True)
    ).digest()


def _decide(
    conn: sqlite3.Connection,
    row: Request,
    state: rules.RequestState,
    by: str,
    note: str,
    now_ms: int,
    digest: bytes | None = None,
) -> None:
    words = _note(note)
    conn.execute(
        "UPDATE order_request SET state = ?, state_ms = ?, decided_by = ?, decided_ms = ?, decided_note = ?, approved_digest = ? WHERE id = ?",
        (state, now_ms, by, now_ms, words, digest, row.id),
    )
    action = {"approved": "order.approve", "rejected": "order.reject", "withdrawn": "order.withdraw"}[state]
    detail: dict[str, Any] = {"by": row.requested_by, "digest": row.digest.hex(), **({"note": words} if words else {})}
    if row.kind == "configuration":
        detail["body"] = json.loads(row.body)
    audit.write(conn, by, None, action, f"request:{row.name}", detail, now_ms=now_ms)
    hint(conn, (item[0] for item in conn.execute("SELECT terminal FROM order_item WHERE request = ?", (row.id,))), row.id, now_ms)


def _undecided(conn: sqlite3.Connection, request: bytes, now_ms: int) -> Request:
    row = get(conn, request)
    if row.state == "lapsed" or (row.state == "waiting" and row.expires_ms <= now_ms):
        raise Conflict("request", "orderLapsed")
    if row.state != "waiting":
        raise Conflict("request", "orderDecided")
    return row


def check_person(conn: sqlite3.Connection, name: str, permission: str = "request") -> None:
    row = conn.execute("SELECT role, disabled_ms FROM staff WHERE name = ?", (name,)).fetchone()
    if row is None or row[1] is not None or not role_may(row[0], permission):
        raise Refused("by", "orderMayNot")
    if not _STAFF.match(name):
        raise Refused("by", "orderAccountName")


def _terminals(conn: sqlite3.Connection, terminals: Sequence[str]) -> list[str]:
    chosen = sorted(set(terminals))
    if not chosen:
        raise Refused("terminals", "orderNoTerminal")
    if len(chosen) > rules.TERMINALS_MAX:
        raise Refused("terminals", "orderTooMany")
    (known,) = conn.execute(
        "SELECT count(*) FROM json_each(?) t JOIN terminal ON terminal.id = t.value WHERE terminal.revoked_ms IS NULL",
        (json.dumps(chosen),),
    ).fetchone()
    if known != len(chosen):
        raise Refused("terminals", "orderUnknownTerminal")
    return chosen


def _any_has(conn: sqlite3.Connection, terminals: Sequence[str], slot: str) -> bool:
    row = conn.execute(
        "SELECT 1 FROM json_each(?1) t JOIN terminal ON terminal.id = t.value, json_each(terminal.inventory) i"
        " WHERE json_extract(i.value, '$.slot') = ?2"
        " UNION ALL SELECT 1 FROM json_each(?1) t JOIN device ON device.terminal = t.value WHERE device.slot = ?2 LIMIT 1",
        (json.dumps(list(terminals)), slot),
    ).fetchone()
    return row is not None


def _check_body(body: OrderBody) -> None:
    """What a form made may not fit the contract's patterns."""
    try:
        msgspec.json.decode(_json(body), type=type(body))
    except msgspec.DecodeError:
        raise Refused("body", "orderBody") from None


def _json(body: OrderBody) -> str:
    return msgspec.json.encode(body, order="sorted").decode()


def _configuration(content: Mapping[str, Any]) -> str:
    """JSON of a configuration without its version; Refused if a terminal could not read it."""
    allowed = {"devices", "items", "intervals"}
    try:
        text = json.dumps(content, ensure_ascii=False, sort_keys=True, allow_nan=False)
        msgspec.convert({"version": 1, **json.loads(text)}, Configuration)
    except (TypeError, ValueError, RecursionError, msgspec.ValidationError):
        raise Refused("configuration", "orderConfiguration") from None
    if set(content) - allowed or len(text.encode()) > CONFIGURATION_MAX_BYTES:
        raise Refused("configuration", "orderConfiguration")
    return text


def _line(field: str, text: str) -> str:
    tidy = person_text(field, text, LINE_MAX)
    if not _LINE.match(tidy):
        raise Refused(field, "orderMessage")
    return tidy


def _note(note: str) -> str:
    return person_text("note", note, rules.NOTE_MAX) if note.strip() else ""
