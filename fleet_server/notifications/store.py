"""Owns the statements about channels and their messages. Each runs in the caller's transaction; claiming and settling are conditional updates.

A message is queued before anything is sent and settled after it: a process that dies in between leaves a row whose lease runs out, so it is sent
again. What a channel stands at changes only with a delivery.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleet_server import audit
from fleet_server.errors import Conflict, NotFound
from fleet_server.notifications.digest import Digest, decode, encode
from fleet_server.notifications.planner import Plan, Sent, Told, standing_after
from fleet_server.thresholds.rules import effective

LEASE_MS = 60_000
"""Longer than any attempt may take."""
STALE_MS = 900_000  # the default; operators may set it
"""A message to people that waited so long is dropped, and what still holds is told anew. Longer than DingTalk's block of 10 minutes."""
PAUSE_MS = 3_600_000
"""After a refusal for good, so long until the channel is tried with something new, unless it is set anew before."""
TEST_EVERY_MS = 10_000
"""Chosen: with a digest a minute still far below what the narrowest platform allows (20 a minute)."""
KEEP_MS = 90 * 86_400_000  # the default; operators may set it
"""How long messages are kept to look at (chosen)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A row of `channel`."""

    id: int
    kind: str
    name: str
    config: str
    filters: str
    secret: bytes | None
    enabled: bool
    set_by: str
    set_ms: int

    def __repr__(self) -> str:
        return f"Stored({self.id}, {self.kind}, {self.name})"

    @property
    def bound_to(self) -> str:
        """What its secret is sealed for."""
        return seal_name(self.kind, self.name)


@dataclass(frozen=True, slots=True)
class Due:
    """A claimed message. `attempts` is the fence: who claimed it later has a higher number."""

    id: int
    channel: int
    attempts: int
    created_ms: int
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """How the newest message of a channel is."""

    state: str
    attempts: int
    error: str | None
    created_ms: int
    sent_ms: int | None
    next_ms: int
    """Queued: when it is tried. Failed: until when the channel rests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A message as the delivery log shows it. `name` is the channel's, also when the channel is gone."""

    id: int
    channel: int
    name: str
    state: str
    attempts: int
    error: str | None
    created_ms: int
    sent_ms: int | None
    next_ms: int
    test: bool
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What somebody did to a channel: add, set, enable, disable, remove, test."""

    name: str
    what: str
    by: str
    at_ms: int


def seal_name(kind: str, name: str) -> str:
    return f"{kind}:{name}"


# Channels -------------------------------------------------------------------------------------------------------------------------------


def channels(conn: sqlite3.Connection, *, enabled_only: bool = False) -> list[Stored]:
    where = "WHERE enabled = 1" if enabled_only else ""
    return [
        Stored(
            id=row[0],
            kind=row[1],
            name=row[2],
            config=row[3],
            filters=row[4],
            secret=row[5],
            enabled=bool(row[6]),
            set_by=row[7],
            set_ms=row[8],
        )
        for row in conn.execute(
            f"SELECT id, kind, name, config, filters, secret, enabled, set_by, set_ms FROM channel {where} ORDER BY name"  # noqa: S608 - constants
        )
    ]


def channel(conn: sqlite3.Connection, name: str) -> Stored:
    """Raises NotFound."""
    found = next((one for one in channels(conn) if one.name == name), None)
    if found is None:
        raise NotFound(f"there is no channel {name!r}")
    return found


def any_enabled(conn: sqlite3.Connection) -> bool:
    return conn.execute("SELECT 1 FROM channel WHERE enabled = 1 LIMIT 1").fetchone() is not None


def add_channel(
    conn: sqlite3.Connection, *, kind: str, name: str, config: str, filters: str, secret: bytes, by: str, now_ms: int
) -> int:
    """Raises Conflict if the name is taken."""
    if conn.execute("SELECT 1 FROM channel WHERE name = ?", (name,)).fetchone():
        raise Conflict("name", "channelTaken")
    done = conn.execute(
        "INSERT INTO channel (kind, name, config, filters, secret, enabled, set_by, set_ms) VALUES (?, ?, ?, ?, ?, 1, ?, ?)",
        (kind, name, config, filters, secret, by, now_ms),
    )
    assert done.lastrowid is not None
    _note(conn, done.lastrowid, name, "add", by, now_ms)
    return done.lastrowid


def set_channel(
    conn: sqlite3.Connection,
    number: int,
    *,
    name: str,
    config: str,
    filters: str,
    secret: bytes,
    new_audience: bool,
    by: str,
    now_ms: int,
) -> None:
    """Set a channel anew. `secret` is sealed for its name. A new audience was told nothing: it hears what holds. Raises NotFound, Conflict."""
    if conn.execute("SELECT 1 FROM channel WHERE name = ? AND id <> ?", (name, number)).fetchone():
        raise Conflict("name", "channelTaken")
    done = conn.execute(
        "UPDATE channel SET name = ?, config = ?, filters = ?, secret = ?, set_by = ?, set_ms = ? WHERE id = ?",
        (name, config, filters, secret, by, now_ms, number),
    )
    if done.rowcount != 1:
        raise NotFound(f"channel {number}")
    if new_audience:
        _forget_channel(conn, number, "the channel was given another address")
    _note(conn, number, name, "set", by, now_ms)


def enable_channel(conn: sqlite3.Connection, name: str, *, enabled: bool, by: str, now_ms: int) -> None:
    """A channel that is switched off drops what waits and forgets what it stood at: switched on again, it is told what holds then."""
    found = channel(conn, name)
    conn.execute("UPDATE channel SET enabled = ?, set_by = ?, set_ms = ? WHERE id = ?", (int(enabled), by, now_ms, found.id))
    if not enabled:
        _forget_channel(conn, found.id, "the channel was switched off")
    _note(conn, found.id, name, "enable" if enabled else "disable", by, now_ms)


def remove_channel(conn: sqlite3.Connection, name: str, *, by: str, now_ms: int) -> None:
    """Its messages stay to be looked at."""
    found = channel(conn, name)
    conn.execute("DELETE FROM channel WHERE id = ?", (found.id,))
    _forget_channel(conn, found.id, "the channel was removed")
    _note(conn, found.id, name, "remove", by, now_ms)


def changes(conn: sqlite3.Connection, limit: int) -> list[Change]:
    """Newest first."""
    rows = conn.execute("SELECT name, what, by, at_ms FROM channel_change ORDER BY id DESC LIMIT ?", (limit,))
    return [Change(name=row[0], what=row[1], by=row[2], at_ms=row[3]) for row in rows]


def _note(conn: sqlite3.Connection, number: int, name: str, what: str, by: str, now_ms: int) -> None:
    conn.execute(
        "INSERT INTO channel_change (channel, name, what, by, at_ms) VALUES (?, ?, ?, ?, ?)", (number, name, what, by, now_ms)
    )
    audit.write(conn, by, None, f"channel.{what}", f"channel:{name}", now_ms=now_ms)


def _forget_channel(conn: sqlite3.Connection, number: int, why: str) -> None:
    conn.execute("UPDATE notification SET state = 'dropped', error = ? WHERE channel = ? AND state = 'queued'", (why, number))
    conn.execute("DELETE FROM standing WHERE channel = ?", (number,))


# What was sent --------------------------------------------------------------------------------------------------------------------------


def sent_so_far(conn: sqlite3.Connection) -> Mapping[int, Sent]:
    """What the planner needs to know of each channel that is on."""
    standing: dict[int, dict[str, Told]] = {}
    for number, subject, severity, level, told_ms in conn.execute(
        "SELECT channel, subject, severity, level, told_ms FROM standing"
    ):
        standing.setdefault(number, {})[subject] = Told(severity=severity, level=level, told_ms=told_ms)
    rows = conn.execute(
        "SELECT c.id, c.set_ms, n.state, n.created_ms, n.next_ms FROM channel c"
        " LEFT JOIN notification n ON n.id = (SELECT max(id) FROM notification WHERE channel = c.id AND test = 0)"
        " WHERE c.enabled = 1"
    )
    return {
        number: Sent(
            waiting=state == "queued",
            last_ms=created_ms,
            paused_until_ms=next_ms if state == "failed" and set_ms <= created_ms else 0,
            standing=standing.get(number, {}),
        )
        for number, set_ms, state, created_ms, next_ms in rows
    }


def newest(conn: sqlite3.Connection) -> Mapping[int, Newest]:
    """Of each channel that ever had a message."""
    rows = conn.execute(
        "SELECT channel, state, attempts, error, created_ms, sent_ms, next_ms FROM notification"
        " WHERE id IN (SELECT max(id) FROM notification WHERE test = 0 GROUP BY channel)"
    )
    return {
        row[0]: Newest(state=row[1], attempts=row[2], error=row[3], created_ms=row[4], sent_ms=row[5], next_ms=row[6])
        for row in rows
    }


# Messages -------------------------------------------------------------------------------------------------------------------------------


def queue(conn: sqlite3.Connection, plan: Plan, now_ms: int) -> int:
    """Store a plan; returns how many messages are new. A plan that was stored before, or for a channel that is gone, changes nothing."""
    added = 0
    for message in plan.messages:
        added += conn.execute(
            "INSERT OR IGNORE INTO notification (channel, channel_name, dedupe_key, state, attempts, next_ms, payload, created_ms, test)"
            " SELECT id, name, ?, 'queued', 0, ?, ?, ?, 0 FROM channel WHERE id = ? AND enabled = 1",
            (message.key, now_ms, encode(message.digest), now_ms, message.channel),
        ).rowcount
    conn.executemany("DELETE FROM standing WHERE channel = ? AND subject = ?", plan.forget)
    return added


def begin_test(conn: sqlite3.Connection, found: Stored, digest: Digest, *, by: str, now_ms: int) -> int:
    """Note that a test message is being sent, before it is: the log shows it whatever comes of it. Conflict within TEST_EVERY_MS of the last."""
    last = conn.execute("SELECT max(created_ms) FROM notification WHERE channel = ? AND test = 1", (found.id,)).fetchone()[0]
    if last is not None and 0 <= now_ms - last < TEST_EVERY_MS:
        raise Conflict("test", "testTooSoon")
    done = conn.execute(
        "INSERT INTO notification (channel, channel_name, dedupe_key, state, attempts, next_ms, payload, error, created_ms, test)"
        " VALUES (?, ?, ?, 'failed', 1, 0, ?, ?, ?, 1)",
        (found.id, found.name, f"test/{now_ms}/{secrets.token_hex(4)}", encode(digest), "the test was cut off", now_ms),
    )
    _note(conn, found.id, found.name, "test", by, now_ms)
    assert done.lastrowid is not None
    return done.lastrowid


def end_test(conn: sqlite3.Connection, number: int, *, error: str | None, now_ms: int) -> None:
    """What came of it; `error` None: delivered."""
    state, sent_ms = ("failed", None) if error is not None else ("sent", now_ms)
    conn.execute("UPDATE notification SET state = ?, error = ?, sent_ms = ? WHERE id = ?", (state, error, sent_ms, number))


def messages(conn: sqlite3.Connection, limit: int, *, channel: int | None = None, before: int | None = None) -> list[Line]:
    """The delivery log, newest first: of one channel or all, older than message `before`."""
    rows = conn.execute(
        "SELECT id, channel, channel_name, state, attempts, error, created_ms, sent_ms, next_ms, test, payload FROM notification"
        " WHERE (:channel IS NULL OR channel = :channel) AND (:before IS NULL OR id < :before) ORDER BY id DESC LIMIT :limit",
        {"channel": channel, "before": before, "limit": limit},
    )
    return [
        Line(
            id=row[0],
            channel=row[1],
            name=row[2],
            state=row[3],
            attempts=row[4],
            error=row[5],
            created_ms=row[6],
            sent_ms=row[7],
            next_ms=row[8],
            test=bool(row[9]),
            digest=decode(row[10]),
        )
        for row in rows
    ]


def due(conn: sqlite3.Connection, now_ms: int) -> list[Due]:
    rows = conn.execute(
        "SELECT id, channel, attempts, created_ms, payload FROM notification WHERE state = 'queued' AND next_ms <= ? ORDER BY id",
        (now_ms,),
    )
    return [Due(row[0], row[1], row[2], row[3], decode(row[4])) for row in rows]


def claim(conn: sqlite3.Connection, message: Due, now_ms: int) -> Due | None:
    """Take it for LEASE_MS; None if somebody else was first."""
    done = conn.execute(
        "UPDATE notification SET attempts = attempts + 1, next_ms = ?"
        " WHERE id = ? AND state = 'queued' AND attempts = ? AND next_ms <= ?",
        (now_ms + LEASE_MS, message.id, message.attempts, now_ms),
    )
    if done.rowcount != 1:
        return None
    return Due(message.id, message.channel, message.attempts + 1, message.created_ms, message.digest)


def delivered(conn: sqlite3.Connection, message: Due, now_ms: int) -> bool:
    """It arrived: the channel stands where the message says. False if it was taken away meanwhile."""
    done = conn.execute(
        "UPDATE notification SET state = 'sent', sent_ms = ?, error = NULL WHERE id = ? AND state = 'queued' AND attempts = ?",
        (now_ms, message.id, message.attempts),
    )
    if done.rowcount != 1:
        return False
    rows = conn.execute("SELECT subject, severity, level, told_ms FROM standing WHERE channel = ?", (message.channel,))
    before = {row[0]: Told(severity=row[1], level=row[2], told_ms=row[3]) for row in rows}
    after = standing_after(message.digest, before)
    conn.executemany(
        "DELETE FROM standing WHERE channel = ? AND subject = ?",
        [(message.channel, subject) for subject in before.keys() - after.keys()],
    )
    conn.executemany(
        "INSERT INTO standing (channel, subject, severity, level, told_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT (channel, subject)"
        " DO UPDATE SET severity = excluded.severity, level = excluded.level, told_ms = excluded.told_ms",
        [
            (message.channel, subject, told.severity, told.level, told.told_ms)
            for subject, told in after.items()
            if before.get(subject) != told
        ],
    )
    return True


def put_off(conn: sqlite3.Connection, message: Due, next_ms: int, why: str | None) -> bool:
    """Not now. `why` is None where nothing was tried."""
    done = conn.execute(
        "UPDATE notification SET next_ms = ?, error = coalesce(?, error) WHERE id = ? AND state = 'queued' AND attempts = ?",
        (next_ms, why, message.id, message.attempts),
    )
    return done.rowcount == 1


def refused(conn: sqlite3.Connection, message: Due, now_ms: int, why: str) -> bool:
    """Not like this: never tried again, and the channel rests for PAUSE_MS."""
    done = conn.execute(
        "UPDATE notification SET state = 'failed', next_ms = ?, error = ? WHERE id = ? AND state = 'queued' AND attempts = ?",
        (now_ms + PAUSE_MS, why, message.id, message.attempts),
    )
    return done.rowcount == 1


def drop_stale(conn: sqlite3.Connection, channels: Iterable[int], now_ms: int) -> int:
    """Messages to these channels that wait too long; whoever is just sending one keeps it until the lease ends."""
    dropped, stale_ms = 0, round(effective(conn, "notification.stale_min").value * 60_000)
    for number in channels:
        dropped += conn.execute(
            "UPDATE notification SET state = 'dropped' WHERE channel = ? AND state = 'queued' AND next_ms <= ? AND created_ms <= ?",
            (number, now_ms, now_ms - stale_ms),
        ).rowcount
    return dropped


def trim(conn: sqlite3.Connection, now_ms: int) -> int:
    """Forget old messages, but never the newest of a channel: the planner goes by it."""
    keep_ms = round(effective(conn, "notification.keep_days").value * 86_400_000)
    return conn.execute(
        "DELETE FROM notification WHERE state <> 'queued' AND created_ms < ?"
        " AND id NOT IN (SELECT max(id) FROM notification WHERE test = 0 GROUP BY channel)",
        (now_ms - keep_ms,),
    ).rowcount


def subjects(sent: Iterable[Sent]) -> set[str]:
    """Everything that any channel holds for open."""
    return {subject for one in sent for subject in one.standing}
