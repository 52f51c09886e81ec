"""Owns the alarm SEC.CERT_EXPIRING: a terminal whose certificate runs out soon and was not renewed. In the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from fleet_server.faults.platform import clear_platform_fault, open_platform_fault
from fleet_server.thresholds.defaults import TERMINAL_CLASSES
from fleet_server.thresholds.rules import effective

CODE = "SEC.CERT_EXPIRING"
DAY_MS = 86_400_000


def follow_certificates(conn: sqlite3.Connection, now_ms: int) -> int:
    """Open the alarm where the newest certificate ends within the class's warning time, clear it where it does not; returns how many changed.

    Terminals renew by themselves a month before the end, so an alarm means that renewing fails or that the terminal is away.
    """
    warn_ms = {one: effective(conn, "certificate.warn_days", one).value * DAY_MS for one in TERMINAL_CLASSES}
    usual_ms = warn_ms["government"]
    expiring = {terminal for terminal, class_, ends_ms in _newest(conn) if ends_ms - now_ms < warn_ms.get(class_, usual_ms)}
    open_now = {
        row[0]
        for row in conn.execute(
            "SELECT terminal FROM fault WHERE code = ? AND source = 'platform' AND cleared_ms IS NULL", (CODE,)
        )
    }
    for terminal in sorted(expiring - open_now):
        open_platform_fault(conn, terminal, CODE, now_ms)
    for terminal in sorted(open_now - expiring):
        clear_platform_fault(conn, terminal, CODE, now_ms)
    return len(expiring ^ open_now)


def _newest(conn: sqlite3.Connection) -> Iterator[tuple[str, str, int]]:
    """(terminal, class, end of its newest certificate) of every terminal in service."""
    rows = conn.execute(
        "SELECT t.id, t.class, max(c.not_after_ms) FROM terminal t JOIN tls_certificate c ON c.terminal = t.id AND c.revoked_ms IS NULL"
        " WHERE t.revoked_ms IS NULL AND t.enrolled_ms IS NOT NULL GROUP BY t.id"
    )
    for row in rows:
        yield row[0], row[1], row[2]
