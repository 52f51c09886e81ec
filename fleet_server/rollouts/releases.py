"""Releases as rollouts know them: one row for each artifact of the image repository, and what people found out about it.

Works in the caller's transaction.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Final, Literal

from fleet_server import audit
from fleet_server.console.actions import person_text
from fleet_server.errors import Conflict, NotFound, Refused
from fleet_server.rollouts import store
from protocols.contract.artifacts import ImageCustom

NOTES_MAX: Final = 2_000
REASON_MAX: Final = 200


def record(
    conn: sqlite3.Connection,
    custom: ImageCustom,
    *,
    path: str,
    length: int,
    sha256: bytes,
    by: str,
    now_ms: int,
    notes: str = "",
) -> int:
    """A row for a target that is published; the id of the row that was there already, if it was.

    A person who brought it counts as its uploader even where the server noticed it first: who uploads does not approve.
    """
    found = conn.execute("SELECT id, uploaded_by FROM release WHERE path = ?", (path,)).fetchone()
    if found is not None:
        if found[1] == audit.SERVER and by != audit.SERVER:
            conn.execute("UPDATE release SET uploaded_by = ?, uploaded_ms = ? WHERE id = ?", (by, now_ms, found[0]))
        return int(found[0])
    row = conn.execute(
        "INSERT INTO release (component, name, version, release, arch, hardware, path, length, sha256, notes, uploaded_by, uploaded_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (
            custom.component,
            custom.name,
            custom.version,
            custom.release,
            custom.arch,
            json.dumps(custom.hardware),
            path,
            length,
            sha256,
            notes[:NOTES_MAX],
            by,
            now_ms,
        ),
    ).fetchone()
    store.tell(conn, "", now_ms)
    return int(row[0])


def write_notes(conn: sqlite3.Connection, release: int, text: str, *, by: str, now_ms: int) -> None:
    one = _one(conn, release)
    words = person_text("notes", text, NOTES_MAX)
    conn.execute("UPDATE release SET notes = ? WHERE id = ?", (words, release))
    audit.write(conn, by, None, "release.notes", f"release:{one.label}", {"notes": words}, now_ms=now_ms)


def call(conn: sqlite3.Connection, release: int, known: Literal["good", "bad", ""], reason: str, *, by: str, now_ms: int) -> None:
    """Somebody says what a release is worth. A bad one stops every rollout that has it; one person is enough for that."""
    one = _one(conn, release)
    if one.known == known:
        raise Conflict("release", "releaseSame")
    words = person_text("reason", reason, REASON_MAX) if known == "bad" or reason.strip() else ""
    conn.execute(
        "UPDATE release SET known = ?, known_by = ?, known_ms = ?, known_reason = ? WHERE id = ?",
        (known, by, now_ms, words, release),
    )
    audit.write(
        conn,
        by,
        None,
        "release.call",
        f"release:{one.label}",
        {"known": known or "open", "reason": words, "was": one.known},
        now_ms=now_ms,
    )
    store.tell(conn, "", now_ms)


def usable(conn: sqlite3.Connection, ids: tuple[int, ...]) -> tuple[store.Release, ...]:
    """The releases of a rollout, in order; Refused if one is not there or is called bad, or two of them are for the same component."""
    if not ids:
        raise Refused("releases", "noRelease")
    known = store.releases(conn, ids)
    found = tuple(known[one] for one in dict.fromkeys(ids) if one in known)
    if len(found) != len(set(ids)):
        raise Refused("releases", "noRelease")
    if any(one.known == "bad" for one in found):
        raise Refused("releases", "badRelease")
    seen: set[tuple[str, str]] = set()
    for one in found:
        # Firmware of several models may go together: a slot has one profile.
        for key in [(one.kind, hardware) for hardware in one.hardware] if one.component == "firmware" else [(one.kind, "")]:
            if key in seen:
                raise Refused("releases", "sameComponent")
            seen.add(key)
    return found


def _one(conn: sqlite3.Connection, release: int) -> store.Release:
    found = store.releases(conn, [release]).get(release)
    if found is None:
        raise NotFound(f"release {release}")
    return found
