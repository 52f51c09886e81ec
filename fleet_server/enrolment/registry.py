"""Terminals, codes and certificates in the database. Each function works inside the caller's transaction; `now_ms` is passed in."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from fleet_server import audit
from fleet_server.authority.authority import Authority
from fleet_server.enrolment import codes
from fleet_server.errors import Conflict, NotFound
from fleet_server.faults.platform import retire_faults
from fleet_server.thresholds.rules import effective
from protocols.contract.topics import check_terminal_id


class NewTerminal(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator says about a terminal; `inventory` lists {slot, family, mandatory, …} as the agent's `[[devices]]`."""

    id: str
    code: str = ""
    type: str = "kiosk"
    name_zh: str = ""
    name_en: str = ""
    site: str = ""
    class_: str = msgspec.field(name="class", default="government")
    inventory: tuple[dict[str, Any], ...] = ()
    tags: tuple[str, ...] = ()


def add_terminal(connection: sqlite3.Connection, terminal: NewTerminal, *, now_ms: int, by: str = audit.SERVER) -> None:
    """Create it; Conflict if the id is taken."""
    check_terminal_id(terminal.id)
    done = connection.execute(
        "INSERT INTO terminal (id, code, type, name_zh, name_en, site, class, inventory, tags, created_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        (
            terminal.id,
            terminal.code,
            terminal.type,
            terminal.name_zh,
            terminal.name_en,
            terminal.site,
            terminal.class_,
            json.dumps(terminal.inventory, ensure_ascii=False),
            json.dumps(terminal.tags, ensure_ascii=False),
            now_ms,
        ),
    )
    if done.rowcount != 1:
        raise Conflict("id", "taken")
    connection.execute("INSERT INTO terminal_live (terminal) VALUES (?) ON CONFLICT (terminal) DO NOTHING", (terminal.id,))
    audit.write(
        connection,
        by,
        None,
        "terminal.add",
        f"terminal:{terminal.id}",
        {"site": terminal.site, "class": terminal.class_},
        now_ms=now_ms,
    )
    hint(connection, terminal.id, now_ms=now_ms)


def new_code(connection: sqlite3.Connection, terminal: str, *, by: str, now_ms: int, lifetime_ms: int | None = None) -> str:
    """A code for `terminal`, to be shown once; earlier ones die. NotFound, or Conflict if the terminal is revoked."""
    row = connection.execute("SELECT revoked_ms FROM terminal WHERE id = ?", (terminal,)).fetchone()
    if row is None:
        raise NotFound(f"terminal {terminal[:32]!r}")
    if row[0] is not None:
        raise Conflict("terminal", "revoked")
    connection.execute("UPDATE enrolment_code SET expires_ms = min(expires_ms, ?) WHERE terminal = ?", (now_ms, terminal))
    if lifetime_ms is None:
        lifetime_ms = code_lifetime_ms(connection)
    tries = int(effective(connection, "enrolment.tries").value)
    code = codes.new()
    connection.execute(
        "INSERT INTO enrolment_code (terminal, code_hash, created_ms, expires_ms, tries_left, created_by) VALUES (?, ?, ?, ?, ?, ?)",
        (terminal, codes.digest(terminal, code.replace("-", "")), now_ms, now_ms + lifetime_ms, tries, by),
    )
    audit.write(
        connection, by, None, "terminal.code", f"terminal:{terminal}", {"expires_ms": now_ms + lifetime_ms}, now_ms=now_ms
    )
    return code


def code_lifetime_ms(connection: sqlite3.Connection) -> int:
    """How long a code is valid, as operators set it."""
    return round(effective(connection, "enrolment.code_h").value * 3_600_000)


def revoke(
    connection: sqlite3.Connection, terminal: str, *, now_ms: int, by: str | None = None, reason: str | None = None
) -> bool:
    """Take a terminal out of the fleet with all its keys and certificates; False if it already was. NotFound if there is none.

    What is open ends with it: its faults and its maintenance. `by` and `reason` are kept.

    The broker's revocation list follows within seconds; ingest looks at `terminal.revoked_ms` itself.
    """
    row = connection.execute("SELECT revoked_ms FROM terminal WHERE id = ?", (terminal,)).fetchone()
    if row is None:
        raise NotFound(f"terminal {terminal[:32]!r}")
    if row[0] is not None:
        return False
    connection.execute(
        "UPDATE terminal SET revoked_ms = ?, revoked_by = ?, revoked_reason = ?, maintenance_until_ms = NULL WHERE id = ?",
        (now_ms, by, reason, terminal),
    )
    connection.execute(
        "UPDATE maintenance SET to_ms = ?, ended_by = ? WHERE terminal = ? AND to_ms IS NULL AND until_ms > ?",
        (now_ms, by, terminal, now_ms),
    )
    retire_faults(connection, terminal, now_ms)
    for table in ("tls_certificate", "record_key"):
        connection.execute(f"UPDATE {table} SET revoked_ms = ? WHERE terminal = ? AND revoked_ms IS NULL", (now_ms, terminal))  # noqa: S608
    connection.execute("UPDATE enrolment_code SET expires_ms = min(expires_ms, ?) WHERE terminal = ?", (now_ms, terminal))
    audit.write(
        connection,
        by or audit.SERVER,
        None,
        "terminal.retire",
        f"terminal:{terminal}",
        {"reason": reason} if reason else None,
        now_ms=now_ms,
    )
    hint(connection, terminal, now_ms=now_ms)
    return True


def revoked_certificates(connection: sqlite3.Connection, *, now_ms: int) -> list[tuple[str, int]]:
    """(serial, revoked at) of every revoked client certificate that has not run out by itself, for the revocation list."""
    rows = connection.execute(
        "SELECT serial, revoked_ms FROM tls_certificate WHERE revoked_ms IS NOT NULL AND not_after_ms > ? ORDER BY revoked_ms, serial",
        (now_ms,),
    )
    return [(row[0], row[1]) for row in rows]


def revoked_terminals(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT id FROM terminal WHERE revoked_ms IS NOT NULL ORDER BY id")
    return [row[0] for row in rows]


def publish_server_keys(connection: sqlite3.Connection, authority: Authority, *, now_ms: int) -> None:
    """Make the table of server keys agree with the authority's folder: every certificate, and which key signs now."""
    current = authority.server_signer().kid
    for cert, raw in authority.server_key_certificates():
        connection.execute(
            "INSERT INTO server_key (kid, certificate, created_ms) VALUES (?, ?, ?) ON CONFLICT (kid) DO NOTHING",
            (cert.kid, raw, cert.issued_ms),
        )
    connection.execute("UPDATE server_key SET retired_ms = ? WHERE kid <> ? AND retired_ms IS NULL", (now_ms, current))
    connection.execute("UPDATE server_key SET retired_ms = NULL WHERE kid = ?", (current,))


def hint(connection: sqlite3.Connection, terminal: str, *, now_ms: int) -> None:
    """Tell open pages that something about this terminal's identity changed."""
    connection.execute("INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'enrolment', NULL)", (now_ms, terminal))


def import_sites(
    connection: sqlite3.Connection, areas: Iterable[dict[str, Any]], sites: Iterable[dict[str, Any]]
) -> tuple[int, int]:
    """Insert or update areas and sites by their codes; returns how many of each. Columns that are absent keep what they had."""
    return _upsert(connection, "area", AREA_COLUMNS, areas), _upsert(connection, "site", SITE_COLUMNS, sites)


AREA_COLUMNS = ("code", "parent", "name_zh", "name_en", "sort", "adcode")
SITE_COLUMNS = ("code", "area", "name_zh", "name_en", "kind", "address_zh", "lat", "lon", "hours", "timezone", "network", "phone")


def _upsert(connection: sqlite3.Connection, table: str, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> int:
    count = 0
    for row in rows:
        given = [column for column in columns if row.get(column) is not None]
        places = ", ".join("?" * len(given))
        update = ", ".join(f"{column} = excluded.{column}" for column in given if column != "code")
        connection.execute(
            f"INSERT INTO {table} ({', '.join(given)}) VALUES ({places}) ON CONFLICT (code) "  # noqa: S608 - names come from the tuples above
            + (f"DO UPDATE SET {update}" if update else "DO NOTHING"),
            [json.dumps(row[c], ensure_ascii=False) if isinstance(row[c], (dict, list)) else row[c] for c in given],
        )
        count += 1
    return count
