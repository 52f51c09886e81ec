"""The duty that signs: what was asked for and, where needed, approved becomes an order or a desired state with a counter.

Each step is one short transaction: counter, envelope and state are committed together or not at all, and ingest sends only what was committed. So a
kill at any point leaves no number given twice and no order signed twice under different numbers.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from fleet_server import audit
from fleet_server.authority.authority import Authority, Ed25519Signer
from fleet_server.authority.files import AuthorityError
from fleet_server.channel import transact
from fleet_server.errors import Refused
from fleet_server.orders import keys, requests, rules, wanted
from fleet_server.thresholds.rules import effective
from protocols.contract import orders as contract
from protocols.contract.limits import DESIRED_MAX_BYTES, ORDER_MAX_BYTES
from protocols.contract.orders import Lock

log = logging.getLogger(__name__)

AT_ONCE: Final = 25
"""Of one transaction: a few milliseconds, so that ingest's bundles wait no longer for it than for a page's write."""
EXPIRED_AFTER_MS: Final = 60_000
"""So long after an order's end its terminal may still be telling what it did."""
ISSUES_MAX: Final = 20
"""A terminal that calls everything stale must not keep the server signing."""
DESIRED_KEPT: Final = 20


@dataclass
class Signing:
    """`step` is the duty's."""

    fleet: str
    folder: Path
    """Where the private halves lie."""
    authority: Authority | None = None
    """Makes a key where there is none."""
    _signer: Ed25519Signer | None = field(default=None, repr=False)

    def step(self, conn: sqlite3.Connection, now_ms: int) -> bool:
        more = transact(conn, lambda inside: keep_time(inside, now_ms)) if _is_time(conn, now_ms) else False
        if not _is_work(conn):
            return more
        signer = self._key(conn, now_ms)
        more |= transact(conn, lambda inside: seal_orders(inside, signer, self.fleet, now_ms))
        more |= transact(conn, lambda inside: seal_pieces(inside, signer, self.fleet, now_ms))
        more |= transact(conn, lambda inside: seal_wanted(inside, signer, self.fleet, now_ms))
        return more

    def _key(self, conn: sqlite3.Connection, now_ms: int) -> Ed25519Signer:
        kid = keys.current(conn)
        if not keys.has_signer(self.folder, kid) and self.authority is not None:
            authority = self.authority
            transact(conn, lambda inside: keys.ensure(inside, authority, self.folder, now_ms=now_ms))
            kid = keys.current(conn)
        if kid is None:
            raise AuthorityError("there is no order key; `fleet-server order-key rotate` makes one")
        if self._signer is None or self._signer.kid != kid:
            self._signer = keys.signer(self.folder, kid)
        return self._signer


# Time -----------------------------------------------------------------------------------------------------------------------------------

_OVER: Final = "state IN ('sent', 'received', 'waiting') AND expires_ms <= ? AND order_id IS NOT NULL"


def _is_time(conn: sqlite3.Connection, now_ms: int) -> bool:
    row = conn.execute(
        "SELECT EXISTS (SELECT 1 FROM order_request WHERE state = 'waiting' AND expires_ms <= ?)"  # noqa: S608 - a constant
        f" OR EXISTS (SELECT 1 FROM order_item WHERE {_OVER})"
        " OR EXISTS (SELECT 1 FROM order_item WHERE state = 'refused' AND reason = 'stale' AND expires_ms > ? AND issues < ?)",
        (now_ms, now_ms - EXPIRED_AFTER_MS, now_ms, ISSUES_MAX),
    ).fetchone()
    return bool(row[0])


def keep_time(conn: sqlite3.Connection, now_ms: int) -> bool:
    """What nobody approved lapses, what no terminal began expires, what was stale is signed again."""
    requests.lapse(conn, now_ms)
    over = conn.execute(
        "UPDATE order_item SET state = 'expired', reason = CASE WHEN heard_ms IS NULL THEN 'unheard' ELSE 'untold' END, state_ms = ?, since_ms = ?"  # noqa: S608
        f" WHERE id IN (SELECT id FROM order_item WHERE {_OVER} LIMIT 500) RETURNING terminal, request",
        (now_ms, now_ms, now_ms - EXPIRED_AFTER_MS),
    ).fetchall()
    again = conn.execute(
        "UPDATE order_item SET state = 'ready', reason = 'stale', heard_ms = NULL, state_ms = ?, since_ms = ?"
        " WHERE state = 'refused' AND reason = 'stale' AND expires_ms > ? AND issues < ? RETURNING terminal, request",
        (now_ms, now_ms, now_ms, ISSUES_MAX),
    ).fetchall()
    for terminal, request in (*over, *again):
        requests.hint(conn, [terminal], bytes(request), now_ms)
    return len(over) == 500


# Signing --------------------------------------------------------------------------------------------------------------------------------


def _is_work(conn: sqlite3.Connection) -> bool:
    row = conn.execute(
        "SELECT EXISTS (SELECT 1 FROM order_item WHERE state = 'ready') OR EXISTS (SELECT 1 FROM wanted WHERE changed > sealed)"
    ).fetchone()
    return bool(row[0])


def seal_orders(conn: sqlite3.Connection, signer: Ed25519Signer, fleet: str, now_ms: int) -> bool:
    """The next orders, oldest first; True if there are more."""
    rows = _ready(conn, "i.order_id IS NOT NULL")
    allowed = _allowed(conn, rows, now_ms)
    for item_id, request_id, terminal, order_id, body, kind, expires_ms in rows:
        request = allowed.get(request_id)
        if request is None:
            continue
        if expires_ms <= now_ms:
            _end(conn, item_id, terminal, request.id, "expired", "unsent", now_ms)
            continue
        try:
            counter = wanted.next_counter(conn, terminal)
            order = contract.make(
                requests.body_of(kind, body or request.body),
                id=order_id,
                counter=counter,
                issued_ms=now_ms,
                expires_ms=expires_ms,
                by=request.requested_by,
                approved_by=_approver(request),
            )
            envelope = contract.seal_order(order, signer, fleet, terminal)
        except (wanted.CounterSpent, Refused) as err:
            _end(
                conn,
                item_id,
                terminal,
                request.id,
                "failed",
                "counter" if isinstance(err, wanted.CounterSpent) else "body",
                now_ms,
            )
            continue
        if len(envelope) > ORDER_MAX_BYTES:
            _end(conn, item_id, terminal, request.id, "failed", "tooLarge", now_ms)
            continue
        conn.execute(
            "UPDATE order_item SET state = 'sent', reason = '', state_ms = ?1, since_ms = ?1, heard_ms = NULL, counter = ?2,"
            " first_counter = coalesce(first_counter, ?2), kid = ?3, envelope = ?4, sealed_ms = ?1, issues = issues + 1 WHERE id = ?5",
            (now_ms, counter, signer.kid, envelope, item_id),
        )
        requests.hint(conn, [terminal], request.id, now_ms)
        announce(conn, terminal, now_ms)
    return len(rows) == AT_ONCE


def seal_pieces(conn: sqlite3.Connection, signer: Ed25519Signer, fleet: str, now_ms: int) -> bool:
    """Locks, unlocks and configurations: each changes its piece, and the whole is signed."""
    rows = _ready(conn, "i.order_id IS NULL")
    allowed = _allowed(conn, rows, now_ms)
    for item_id, request_id, terminal, _, body, kind, _ in rows:
        request = allowed.get(request_id)
        if request is None:
            continue
        _apply(conn, terminal, kind, body or request.body, request, now_ms)
        superseded = conn.execute(
            "UPDATE order_item SET state = 'superseded', reason = '', state_ms = ?1, since_ms = ?1 WHERE terminal = ?2 AND id < ?3"
            " AND order_id IS NULL AND state IN ('ready', 'sent') AND kind IN (SELECT value FROM json_each(?4)) RETURNING request",
            (now_ms, terminal, item_id, json.dumps(_same_piece(kind))),
        ).fetchall()
        conn.execute("UPDATE order_item SET state = 'sent', sealed_ms = NULL WHERE id = ?", (item_id,))
        for (old,) in superseded:
            requests.hint(conn, [terminal], bytes(old), now_ms)
        seal_one(conn, terminal, signer, fleet, now_ms)
    return len(rows) == AT_ONCE


def seal_wanted(conn: sqlite3.Connection, signer: Ed25519Signer, fleet: str, now_ms: int) -> bool:
    """Whatever else changed a desired state: bundles of rollouts, a restored server, a withdrawn key."""
    rows = conn.execute("SELECT terminal FROM wanted WHERE changed > sealed LIMIT ?", (AT_ONCE,)).fetchall()
    for (terminal,) in rows:
        seal_one(conn, terminal, signer, fleet, now_ms)
    return len(rows) == AT_ONCE


def seal_one(conn: sqlite3.Connection, terminal: str, signer: Ed25519Signer, fleet: str, now_ms: int) -> None:
    """Sign what is wanted of one terminal now; items that wait for a report are in it too."""
    pieces = wanted.pieces(conn, terminal)
    conn.execute("UPDATE wanted SET sealed = ? WHERE terminal = ?", (pieces.changed, terminal))
    waiting = conn.execute(
        "SELECT id, request FROM order_item WHERE terminal = ? AND order_id IS NULL AND state = 'sent'", (terminal,)
    ).fetchall()
    retired = conn.execute("SELECT 1 FROM terminal WHERE id = ? AND revoked_ms IS NOT NULL", (terminal,)).fetchone() is not None
    desired, problem = None, "retired" if retired else ""
    if not problem:
        try:
            desired = wanted.desired_of(conn, pieces, wanted.next_counter(conn, terminal), now_ms)
        except wanted.CounterSpent:
            problem = "counter"
        except wanted.ConfigurationChanged as err:
            log.error("%s: no desired state is signed: %s", terminal, err)
            problem = "changed"
            detail = {"why": problem, "configuration": pieces.configuration}
            audit.write(conn, audit.SERVER, None, "order.refuse", f"terminal:{terminal}", detail, result="refused", now_ms=now_ms)
        except msgspec.ValidationError:
            problem = "body"
    envelope = b"" if desired is None else contract.seal_desired(desired, signer, fleet, terminal)
    if desired is not None and len(envelope) > DESIRED_MAX_BYTES:
        problem = "tooLarge"
    if desired is None or problem:
        for item_id, request in waiting:
            _end(conn, item_id, terminal, bytes(request), "failed", problem, now_ms)
        return
    conn.execute(
        "INSERT INTO desired_state (terminal, counter, sealed_ms, signed_for, approved_by, kid, envelope, configuration, locked, bundle, state_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            terminal,
            desired.counter,
            now_ms,
            desired.by,
            desired.approved_by,
            signer.kid,
            envelope,
            pieces.configuration,
            int(pieces.lock is not None),
            None if pieces.bundle is None else pieces.bundle.id,
            now_ms,
        ),
    )
    conn.execute(
        "DELETE FROM desired_state WHERE terminal = ?1 AND counter <= (SELECT counter FROM desired_state WHERE terminal = ?1"
        " ORDER BY counter DESC LIMIT 1 OFFSET ?2)",
        (terminal, DESIRED_KEPT),
    )
    for item_id, request in waiting:
        conn.execute(
            "UPDATE order_item SET counter = ?1, first_counter = coalesce(first_counter, ?1), kid = ?2, issues = issues + 1,"
            " state_ms = CASE WHEN sealed_ms IS NULL THEN ?3 ELSE state_ms END, since_ms = CASE WHEN sealed_ms IS NULL THEN ?3 ELSE since_ms END,"
            " sealed_ms = coalesce(sealed_ms, ?3) WHERE id = ?4",
            (desired.counter, signer.kid, now_ms, item_id),
        )
        requests.hint(conn, [terminal], bytes(request), now_ms)
    announce(conn, terminal, now_ms)


def announce(conn: sqlite3.Connection, terminal: str, now_ms: int) -> None:
    """Tell ingest that there is something for this terminal."""
    conn.execute("INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'send', NULL)", (now_ms, terminal))


# What may be signed ---------------------------------------------------------------------------------------------------------------------


def _ready(conn: sqlite3.Connection, condition: str) -> list[Any]:
    rows = conn.execute(
        "SELECT i.id, i.request, i.terminal, i.order_id, i.body, i.kind, i.expires_ms FROM order_item i"  # noqa: S608 - one of two constants
        f" WHERE i.state = 'ready' AND {condition} ORDER BY i.id LIMIT ?",
        (AT_ONCE,),
    ).fetchall()
    return [(row[0], bytes(row[1]), row[2], None if row[3] is None else bytes(row[3]), *row[4:]) for row in rows]


def _allowed(conn: sqlite3.Connection, rows: list[Any], now_ms: int) -> dict[bytes, requests.Request]:
    """The requests of these items that may be signed; the others end here, with an entry in the audit log."""
    found: dict[bytes, requests.Request] = {}
    for request_id in dict.fromkeys(row[1] for row in rows):
        request = requests.get(conn, request_id)
        problem = approval_problem(conn, request)
        if problem is None:
            found[request_id] = request
            continue
        log.error("request %s is not signed: %s", request.name, problem)
        requests.set_state(conn, request_id, "refused", now_ms)
        requests.drop_items(conn, request_id, "notApproved", now_ms)
        audit.write(
            conn, audit.SERVER, None, "order.refuse", f"request:{request.name}", {"why": problem}, result="refused", now_ms=now_ms
        )
    for item_id, request_id, terminal, *_ in rows:
        if request_id in found and _is_retired(conn, terminal):
            _end(conn, item_id, terminal, request_id, "dropped", "retired", now_ms)
    rows[:] = [row for row in rows if not _is_retired(conn, row[2])]
    return found


def approval_problem(conn: sqlite3.Connection, request: requests.Request) -> str | None:
    """Why this must not be signed, as one word. The web process wrote the rows; here they are believed only as far as they prove themselves."""
    if request.state != "approved":
        return "state"
    if requests.digest_now(conn, request) != request.digest or not requests.is_as_asked(conn, request.kind, request.body):
        return "changed"
    if not _audited(conn, request, "order.request", request.requested_by):
        return "notAudited"
    try:
        body = None if request.kind in (*rules.DESIRED_KINDS, "cancel") else requests.body_of(request.kind, request.body)
        requests.check_person(conn, request.requested_by, "request")
    except Refused as err:
        return err.reason
    items = [row[0] for row in conn.execute("SELECT terminal FROM order_item WHERE request = ?", (request.id,))]
    reached = requests.reach(conn, request.requested_by, request.kind, items, request.at_ms)
    two = rules.needs_two(request.kind, body, reached, int(effective(conn, "order.batch_two").value))
    if not two and not request.needs_two:
        return None
    if request.decided_by is None or request.decided_ms is None or request.approved_digest is None:
        return "notApproved"
    if request.approved_digest != request.digest:
        return "otherApproved"
    if not _audited(conn, request, "order.approve", request.decided_by):
        return "notAudited"
    try:
        requests.check_approver(conn, request.requested_by, request.decided_by, request.decided_ms)
    except Refused as err:
        return err.reason
    return None


def _audited(conn: sqlite3.Connection, request: requests.Request, action: str, actor: str) -> bool:
    """Whether the audit log names this person for this very request."""
    row = conn.execute(
        "SELECT 1 FROM audit WHERE object = ? AND action = ? AND actor = ? AND json_extract(detail, '$.digest') = ?",
        (f"request:{request.name}", action, actor, request.digest.hex()),
    ).fetchone()
    return row is not None


def _approver(request: requests.Request) -> str | None:
    return request.decided_by if request.approved_digest is not None else None


def _is_retired(conn: sqlite3.Connection, terminal: str) -> bool:
    row = conn.execute("SELECT revoked_ms FROM terminal WHERE id = ?", (terminal,)).fetchone()
    return row is None or row[0] is not None


def _same_piece(kind: str) -> list[str]:
    return [other for other, piece in wanted.PIECE_OF.items() if piece == wanted.PIECE_OF[kind]]


def _apply(conn: sqlite3.Connection, terminal: str, kind: str, body: str, request: requests.Request, now_ms: int) -> None:
    by = request.requested_by
    if kind == "configuration":
        version, sha256 = wanted.version_of(body)
        wanted.set_configuration(conn, terminal, version, sha256, by=by, approved_by=_approver(request), now_ms=now_ms)
    elif kind == "lock":
        lines = json.loads(body)
        lock = Lock(zh=lines["zh"], en=lines.get("en", ""), since_ms=now_ms)
        wanted.set_lock(conn, terminal, lock, by=by, now_ms=now_ms)
    else:
        wanted.set_lock(conn, terminal, None, by=by, now_ms=now_ms)


def _end(
    conn: sqlite3.Connection, item_id: int, terminal: str, request: bytes, state: rules.ItemState, reason: str, now_ms: int
) -> None:
    conn.execute(
        "UPDATE order_item SET state = ?, reason = ?, state_ms = ?, since_ms = ? WHERE id = ?",
        (state, reason, now_ms, now_ms, item_id),
    )
    requests.hint(conn, [terminal], request, now_ms)
