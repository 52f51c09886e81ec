"""Rows of rollouts as values, and back. In the caller's transaction; decides nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from fleet_server.errors import NotFound
from fleet_server.rollouts.query import Query
from fleet_server.rollouts.query import decode as decode_query
from fleet_server.rollouts.rules import FINAL, Member, MemberState, Policy, Rollout, RolloutState, Wave


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout with what people wrote around it."""

    rollout: Rollout
    title: str
    releases: tuple[int, ...]
    query: Query
    created_by: str
    submitted_ms: int | None
    approved_by: str | None
    digest: bytes | None
    revision: int


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `release`."""

    id: int
    component: str
    name: str
    version: str
    release: int
    arch: str
    hardware: tuple[str, ...]
    path: str
    length: int
    sha256: bytes
    notes: str
    uploaded_by: str
    uploaded_ms: int
    known: str
    known_by: str | None
    known_ms: int | None
    known_reason: str

    @property
    def label(self) -> str:
        """`agent 1.4.0`, `content/guide-1 7`."""
        return f"{self.kind} {self.version}"

    @property
    def kind(self) -> str:
        """What it updates, without the slot."""
        return f"{self.component}/{self.name}" if self.name else self.component

    def components(self, profiles: Mapping[str, str | None]) -> tuple[str, ...]:
        """What it is called at a terminal with these profiles by slot; empty if it fits nothing there."""
        if self.component == "firmware":
            return tuple(f"firmware/{slot}" for slot, profile in sorted(profiles.items()) if profile in self.hardware)
        return (self.kind,)


_ROLLOUT: Final = (
    "id, title, releases, query, policy, priority, state, reason, since_ms, wave, created_by, created_ms, submitted_ms, approved_by,"
    " approved_ms, digest, paused_ms, paused_since_ms, revision"
)
_WAVE: Final = "rollout, no, planned, opened_ms, met_ms, passed_ms, paused_before_ms"
_MEMBER: Final = (
    "rollout, terminal, wave, bucket, site, state, reason, detail, since_ms, joined_ms, started_ms, ended_ms, tries, bundle, components,"
    " windows, windows_to_ms, hold, paused_before_ms, late"
)
_RELEASE: Final = (
    "id, component, name, version, release, arch, hardware, path, length, sha256, notes, uploaded_by, uploaded_ms, known, known_by,"
    " known_ms, known_reason"
)


# Reading --------------------------------------------------------------------------------------------------------------------------------


def sheets(conn: sqlite3.Connection, ids: Iterable[str] | None = None) -> dict[str, Sheet]:
    """By id, newest first; all without `ids`."""
    wanted = None if ids is None else json.dumps(list(ids))
    waves: dict[str, list[Wave]] = {}
    for row in conn.execute(
        f"SELECT {_WAVE} FROM rollout_wave WHERE ?1 IS NULL OR rollout IN (SELECT value FROM json_each(?1)) ORDER BY rollout, no",  # noqa: S608 - columns from above
        (wanted,),
    ):
        waves.setdefault(row[0], []).append(
            Wave(no=row[1], planned=row[2], opened_ms=row[3], met_ms=row[4], passed_ms=row[5], paused_before_ms=row[6])
        )
    rows = conn.execute(
        f"SELECT {_ROLLOUT} FROM rollout WHERE ?1 IS NULL OR id IN (SELECT value FROM json_each(?1)) ORDER BY created_ms DESC, id",  # noqa: S608 - columns from above
        (wanted,),
    )
    return {row[0]: _sheet(row, tuple(waves.get(row[0], ()))) for row in rows}


def sheet(conn: sqlite3.Connection, rollout: str) -> Sheet:
    """NotFound if there is none."""
    found = sheets(conn, [rollout]).get(rollout)
    if found is None:
        raise NotFound(f"rollout {rollout[:32]!r}")
    return found


def _sheet(row: Any, waves: tuple[Wave, ...]) -> Sheet:
    return Sheet(
        rollout=Rollout(
            id=row[0],
            state=RolloutState(row[6]),
            policy=msgspec.json.decode(row[4], type=Policy),
            waves=waves,
            reason=row[7],
            since_ms=row[8],
            wave=row[9],
            priority=row[5],
            created_ms=row[11],
            approved_ms=row[14],
            paused_ms=row[16],
            paused_since_ms=row[17],
        ),
        title=row[1],
        releases=tuple(json.loads(row[2])),
        query=decode_query(row[3]),
        created_by=row[10],
        submitted_ms=row[12],
        approved_by=row[13],
        digest=None if row[15] is None else bytes(row[15]),
        revision=row[18],
    )


def members(conn: sqlite3.Connection, rollout: str) -> dict[str, Member]:
    """By terminal, in the order in which waves take them."""
    rows = conn.execute(f"SELECT {_MEMBER} FROM rollout_member WHERE rollout = ? ORDER BY wave, bucket, terminal", (rollout,))  # noqa: S608 - columns from above
    return {row[1]: _member(row) for row in rows}


def _member(row: Any) -> Member:
    return Member(
        terminal=row[1],
        wave=row[2],
        bucket=row[3],
        site=row[4],
        state=MemberState(row[5]),
        reason=row[6],
        detail=row[7],
        since_ms=row[8],
        joined_ms=row[9],
        started_ms=row[10],
        ended_ms=row[11],
        tries=row[12],
        bundle=row[13],
        components=tuple(json.loads(row[14])),
        windows=None if row[15] is None else tuple((int(begin), int(until)) for begin, until in json.loads(row[15])),
        windows_to_ms=row[16],
        hold=bool(row[17]),
        paused_before_ms=row[18],
        late=bool(row[19]),
    )


def unfinished(conn: sqlite3.Connection) -> list[str]:
    """Rollouts that may still do something: not ended, or with somebody who is not at an end."""
    final = json.dumps(sorted(FINAL))
    return [
        row[0]
        for row in conn.execute(
            "SELECT r.id FROM rollout r WHERE r.state IN ('approved', 'running', 'paused', 'held') OR (r.state IN ('finished', 'stopped', 'aborted')"
            " AND EXISTS (SELECT 1 FROM rollout_member m WHERE m.rollout = r.id AND m.state NOT IN (SELECT value FROM json_each(?))))",
            (final,),
        )
    ]


def releases(conn: sqlite3.Connection, ids: Iterable[int] | None = None) -> dict[int, Release]:
    """By id, newest first."""
    wanted = None if ids is None else json.dumps(list(ids))
    rows = conn.execute(
        f"SELECT {_RELEASE} FROM release WHERE ?1 IS NULL OR id IN (SELECT value FROM json_each(?1)) ORDER BY uploaded_ms DESC, id DESC",  # noqa: S608 - columns from above
        (wanted,),
    )
    return {row[0]: _release(row) for row in rows}


def _release(row: Any) -> Release:
    return Release(
        id=row[0],
        component=row[1],
        name=row[2],
        version=row[3],
        release=row[4],
        arch=row[5],
        hardware=tuple(json.loads(row[6])),
        path=row[7],
        length=row[8],
        sha256=bytes(row[9]),
        notes=row[10],
        uploaded_by=row[11],
        uploaded_ms=row[12],
        known=row[13],
        known_by=row[14],
        known_ms=row[15],
        known_reason=row[16],
    )


def freeze_spans(conn: sqlite3.Connection) -> list[tuple[int, int]]:
    """Own freeze periods that were not removed."""
    return [
        (row[0], row[1])
        for row in conn.execute("SELECT from_ms, to_ms FROM freeze_period WHERE removed_ms IS NULL ORDER BY from_ms")
    ]


# Writing --------------------------------------------------------------------------------------------------------------------------------


def put_rollout(conn: sqlite3.Connection, rollout: Rollout) -> None:
    """State, wave and pauses of a rollout that exists, and its waves; by whoever holds the transaction."""
    conn.execute(
        "UPDATE rollout SET state = ?, reason = ?, since_ms = ?, wave = ?, approved_ms = ?, paused_ms = ?, paused_since_ms = ? WHERE id = ?",
        (
            rollout.state.value,
            rollout.reason,
            rollout.since_ms,
            rollout.wave,
            rollout.approved_ms,
            rollout.paused_ms,
            rollout.paused_since_ms,
            rollout.id,
        ),
    )
    conn.executemany(
        f"INSERT INTO rollout_wave ({_WAVE}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (rollout, no) DO UPDATE SET planned = excluded.planned,"  # noqa: S608 - columns from above
        " opened_ms = excluded.opened_ms, met_ms = excluded.met_ms, passed_ms = excluded.passed_ms, paused_before_ms = excluded.paused_before_ms",
        [
            (rollout.id, wave.no, wave.planned, wave.opened_ms, wave.met_ms, wave.passed_ms, wave.paused_before_ms)
            for wave in rollout.waves
        ],
    )


def put_member(conn: sqlite3.Connection, rollout: str, member: Member) -> None:
    values = (
        rollout,
        member.terminal,
        member.wave,
        member.bucket,
        member.site,
        member.state.value,
        member.reason,
        member.detail,
        member.since_ms,
        member.joined_ms,
        member.started_ms,
        member.ended_ms,
        member.tries,
        member.bundle,
        json.dumps(member.components),
        None if member.windows is None else json.dumps(member.windows),
        member.windows_to_ms,
        int(member.hold),
        member.paused_before_ms,
        int(member.late),
    )
    changes = ", ".join(f"{name} = excluded.{name}" for name in _MEMBER.split(", ")[2:])
    conn.execute(
        f"INSERT INTO rollout_member ({_MEMBER}) VALUES ({', '.join('?' * len(values))})"  # noqa: S608 - columns from above
        f" ON CONFLICT (rollout, terminal) DO UPDATE SET {changes}",
        values,
    )


def tell(conn: sqlite3.Connection, rollout: str, now_ms: int, terminals: Iterable[str | None] = (None,)) -> None:
    """Open pages look again."""
    conn.executemany(
        "INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'rollout', ?)",
        [(now_ms, terminal, rollout) for terminal in terminals],
    )


def remember(
    conn: sqlite3.Connection,
    rollout: str,
    kind: str,
    now_ms: int,
    *,
    actor: str = "",
    terminal: str | None = None,
    **detail: object,
) -> None:
    """One line of the rollout's history."""
    conn.execute(
        "INSERT INTO rollout_event (rollout, at_ms, actor, kind, terminal, detail) VALUES (?, ?, ?, ?, ?, ?)",
        (rollout, now_ms, actor, kind, terminal, json.dumps(detail, ensure_ascii=False)),
    )
