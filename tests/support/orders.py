"""Orders in a seeded fleet: asked by the real rules, signed and answered as dispatch and terminals would have it. For pages, and to look at."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from itertools import count
from types import SimpleNamespace
from typing import Final
from unittest.mock import patch

from fleet_server.audit import log
from fleet_server.audit.chain import Head, seal_head
from fleet_server.orders import requests, wanted
from fleet_server.orders.settle import settle_order
from protocols.contract.orders import Lock, PullLogs, Restart, SelfTest
from tests.support.contract import SERVER, SERVER_CERT
from tests.support.seed import DAY, FLEET, HOUR, MINUTE, OPERATOR, PASSWORD, quick_passwords

REQUESTER, APPROVER, AUDITOR = "requester", "approver", "auditor"
RESTARTED: Final = hashlib.sha256(b"order 1").hexdigest()[:32]
"""Id of the first request of `seed_orders`: done at some terminals, failed at one, waiting at another."""
UNDECIDED: Final = hashlib.sha256(b"order 16").hexdigest()[:32]
LOCKED, CONFIGURED, TALKATIVE = "kf-0131", "kf-0037", "kf-0016"
_NUMBERS = count(1)

FIRST: Final = {
    "devices": [
        {"slot": "id-reader", "family": "id-reader", "profile": "sdt-usb", "ownership": "owner", "mandatory": True},
        {"slot": "laser-printer", "family": "a4-printer", "port": "1-1.2", "ownership": "owner", "mandatory": True},
        {"slot": "receipt-printer", "family": "receipt-printer", "port": "1-1.4", "ownership": "owner", "mandatory": True},
        {"slot": "scanner", "family": "scanner", "ownership": "owner", "mandatory": True},
    ],
    "items": [{"code": "social.pension-proof", "type": "handle"}, {"code": "house.record-query", "type": "query"}],
    "intervals": {"summary_s": 900},
}


def second() -> dict[str, object]:
    content = json.loads(json.dumps(FIRST))
    content["devices"][2]["port"] = "1-1.5"
    content["items"].append({"code": "tax.proof-print", "type": "handle"})
    content["intervals"]["summary_s"] = 600
    assert isinstance(content, dict)
    return content


def add_people(conn: sqlite3.Connection, now_ms: int, roles: Sequence[str] = (REQUESTER, APPROVER, AUDITOR)) -> None:
    """An account for each role, named like it; made long ago, so that whoever made it is no reason to refuse an approval."""
    hashed = quick_passwords().hash(PASSWORD)
    for role in roles:
        conn.execute(
            "INSERT INTO staff (name, display, password_hash, role, failed, must_change, created_ms, lang) VALUES (?, '', ?, ?, 0, 0, ?, 'zh')",
            (role, hashed, role, now_ms - 90 * DAY),
        )


def sign(conn: sqlite3.Connection, request: bytes, now_ms: int) -> None:
    """As dispatch does, without the envelope."""
    conn.execute(
        "UPDATE order_item SET state = 'sent', counter = 1, first_counter = 1, sealed_ms = ?, state_ms = ?, since_ms = ?, issues = 1"
        " WHERE request = ? AND state = 'ready'",
        (now_ms, now_ms, now_ms, request),
    )


def report(conn: sqlite3.Connection, request: bytes, terminal: str, state: str, reason: str, at_ms: int) -> None:
    """One word of the terminal about its order."""
    order_id, kind = conn.execute(
        "SELECT order_id, kind FROM order_item WHERE request = ? AND terminal = ?", (request, terminal)
    ).fetchone()
    conn.execute(
        "INSERT INTO order_report (terminal, order_id, counter, kind, state, reason, count, at_ms, received_ms, batch, idx, disputed)"
        " VALUES (?, ?, 1, ?, ?, ?, 1, ?, ?, 0, ?, 0)",
        (terminal, order_id, kind, state, reason, at_ms, at_ms + 200, next(_NUMBERS)),
    )
    settle_order(conn, terminal, order_id)


def hold(
    conn: sqlite3.Connection, request: bytes, terminal: str, at_ms: int, *, counter: int, version: int = 0, locked: bool = False
) -> None:
    """The terminal says that it holds a desired state."""
    conn.execute(
        "INSERT INTO desired_report (terminal, counter, state, reason, config_version, locked, count, at_ms, received_ms, batch, idx, disputed)"
        " VALUES (?, ?, 'applied', 'none', ?, ?, 1, ?, ?, 0, ?, 0)",
        (terminal, counter, version, int(locked), at_ms, at_ms + 200, next(_NUMBERS)),
    )
    conn.execute(
        "UPDATE order_item SET state = 'done', state_ms = ?, since_ms = ?, sealed_ms = ?, issues = 1, counter = ? WHERE request = ?",
        (at_ms, at_ms, at_ms - 2_000, counter, request),
    )


def lock_now(conn: sqlite3.Connection, terminal: str, zh: str, now_ms: int, *, by: str = OPERATOR, counter: int = 1) -> bytes:
    """Asked for, signed, and confirmed by the terminal."""
    request = requests.lock(conn, [terminal], zh, by=by, note="读卡区进水", now_ms=now_ms)
    wanted.set_lock(conn, terminal, Lock(zh=zh, since_ms=now_ms), by=by, now_ms=now_ms)
    hold(conn, request, terminal, now_ms + 3_000, counter=counter, locked=True)
    conn.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (?, ?, 'order')", (now_ms, terminal))
    return request


def add_orders(conn: sqlite3.Connection, terminals: Sequence[str], now_ms: int) -> None:
    """One of each kind, in most of the states that there are. `terminals`: enrolled ones, for batches."""
    many = [one for one in terminals if one not in {LOCKED, CONFIGURED, TALKATIVE}]
    day = now_ms - DAY

    restart = requests.request_order(
        conn, many[:5], Restart(what="application"), by=OPERATOR, expires_ms=now_ms + HOUR, note="应用更新后界面卡顿", now_ms=day
    )
    sign(conn, restart, day + 2_000)
    for terminal in many[:3]:
        report(conn, restart, terminal, "received", "none", day + 5_000)
        report(conn, restart, terminal, "done", "none", day + 60_000)
    report(conn, restart, many[3], "failed", "noHook", day + 9_000)
    report(conn, restart, many[4], "received", "none", day + 6_000)
    report(conn, restart, many[4], "waiting", "session", now_ms - 4 * MINUTE)

    for wish, state, reason in (
        (SelfTest(slot="laser-printer", test="print"), "failed", "device"),
        (SelfTest(slot="id-reader", test="read"), "done", "none"),
        (SelfTest(slot="receipt-printer"), "refused", "inUse"),
    ):
        test_print = requests.request_order(
            conn,
            [TALKATIVE],
            wish,
            by=OPERATOR,
            expires_ms=now_ms + HOUR,
            now_ms=now_ms - 2 * HOUR,
        )
        sign(conn, test_print, now_ms - 2 * HOUR + 2_000)
        report(conn, test_print, TALKATIVE, "received", "none", now_ms - 2 * HOUR + 3_000)
        report(conn, test_print, TALKATIVE, state, reason, now_ms - 2 * HOUR + 12_000)

    logs = requests.request_order(
        conn, [TALKATIVE], PullLogs(from_ms=day, to_ms=now_ms - HOUR), by=OPERATOR, expires_ms=now_ms + HOUR, now_ms=now_ms - HOUR
    )
    sign(conn, logs, now_ms - HOUR + 2_000)
    report(conn, logs, TALKATIVE, "done", "none", now_ms - HOUR + 20_000)
    conn.execute(
        "INSERT INTO pulled_log (terminal, order_id, from_ms, to_ms, lines, cut, size, sha256, received_ms)"
        " SELECT terminal, order_id, ?, ?, 4213, 1, 1310720, zeroblob(32), ? FROM order_item WHERE request = ?",
        (day, now_ms - HOUR, now_ms - HOUR + 20_000, logs),
    )

    first = requests.request_configuration(
        conn, [CONFIGURED], FIRST, by=REQUESTER, expires_ms=now_ms + DAY, note="按现场布线登记端口", now_ms=now_ms - 3 * DAY
    )
    requests.approve(conn, first, by=OPERATOR, now_ms=now_ms - 3 * DAY + HOUR)
    version, sha256 = wanted.version_of(requests.get(conn, first).body)
    wanted.set_configuration(
        conn, CONFIGURED, version, sha256, by=REQUESTER, approved_by=OPERATOR, now_ms=now_ms - 3 * DAY + HOUR
    )
    hold(conn, first, CONFIGURED, now_ms - 3 * DAY + HOUR + 8_000, counter=1, version=version)
    requests.request_configuration(
        conn,
        [CONFIGURED],
        second(),
        by=REQUESTER,
        expires_ms=now_ms + 7 * DAY,
        note="小票打印机换到另一个口",
        now_ms=now_ms - 40 * MINUTE,
    )
    requests.request_order(
        conn,
        [TALKATIVE],
        Restart(what="host"),
        by=REQUESTER,
        expires_ms=now_ms + DAY,
        note="激光打印机反复报缺纸，重启主机试试",
        now_ms=now_ms - 25 * MINUTE,
    )
    turned_down = requests.request_order(
        conn,
        many[:2],
        Restart(what="host", when="now"),
        by=REQUESTER,
        expires_ms=now_ms + DAY,
        note="反应慢",
        now_ms=now_ms - 5 * HOUR,
    )
    requests.reject(conn, turned_down, by=OPERATOR, note="上午办事高峰，等闭馆后再说", now_ms=now_ms - 5 * HOUR + 20 * MINUTE)
    requests.request_order(
        conn,
        many[:24],
        Restart(what="agent"),
        by=OPERATOR,
        expires_ms=now_ms + DAY,
        note="统一重启，清理内存",
        now_ms=now_ms - 10 * MINUTE,
    )
    lock_now(conn, LOCKED, "本机读卡区维护，请使用旁边的终端。", now_ms - 3 * HOUR)


def seed_orders(conn: sqlite3.Connection, now_ms: int) -> None:
    """People of every role, and what they asked for. In the caller's transaction. Ids are the same every time, so that pages have addresses."""
    add_people(conn, now_ms)
    rows = conn.execute("SELECT id FROM terminal WHERE enrolled_ms IS NOT NULL AND revoked_ms IS NULL ORDER BY id")
    numbers = count(1)
    same = SimpleNamespace(urandom=lambda size: hashlib.sha256(b"order %d" % next(numbers)).digest()[:size])
    with patch.object(requests, "os", same):
        add_orders(conn, [row[0] for row in rows], now_ms)
    sign_log(conn, now_ms)


def sign_log(conn: sqlite3.Connection, now_ms: int) -> None:
    """The server's signature over the audit log as it is."""
    number, digest = log.last(conn)
    conn.execute(
        "INSERT OR IGNORE INTO server_key (kid, certificate, created_ms) VALUES (?, ?, ?)", (SERVER.kid, SERVER_CERT, now_ms)
    )
    head = seal_head(Head(audit=number, hash=digest, made_ms=now_ms), SERVER, FLEET)
    conn.execute("INSERT INTO audit_head (audit, made_ms, envelope) VALUES (?, ?, ?)", (number, now_ms, head))
