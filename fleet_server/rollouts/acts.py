"""What people do to rollouts: ask, approve, pause, resume, abort, try again, stop everything, freeze. In the caller's transaction, audited.

The web process calls these; nothing here reaches a terminal. What a person changed grows the rollout's revision, so a plan made before is not carried
out after it.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

import cbor2
import msgspec

from fleet_server import audit
from fleet_server.accounts.permissions import role_may
from fleet_server.console.actions import person_text
from fleet_server.errors import Conflict, NotFound, Refused
from fleet_server.orders.requests import check_approver
from fleet_server.rollouts import releases, store, world
from fleet_server.rollouts.query import Query, encode
from fleet_server.rollouts.rules import (
    ACTIVE,
    ENDED,
    RESUMED,
    RETRIED,
    Policy,
    Rollout,
    RolloutState,
    SetState,
    again,
    applied,
    waves_of,
)
from fleet_server.rollouts.store import Sheet
from protocols.contract.limits import BUNDLE_MAX_COMPONENTS

TITLE_MAX: Final = 60
REASON_MAX: Final = 200
FREEZE_LONGEST_MS: Final = 120 * 86_400_000
APPROVAL_LASTS_MS: Final = 14 * 86_400_000
"""Chosen: who agreed knew the city and the release as they were then; a finished rollout is not begun anew on that for ever."""
PRIORITIES: Final = (-10, 0, 10, 100)
"""Low, usual, high, urgent."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asks for."""

    title: str
    releases: tuple[int, ...]
    query: Query
    policy: Policy
    priority: int = 0


def name_of(rollout: str) -> str:
    """How people and the audit log call it."""
    return rollout[:8]


def create(
    conn: sqlite3.Connection, draft: Draft, *, by: str, now_ms: int, new_id: Callable[[], bytes] = lambda: os.urandom(16)
) -> str:
    """A draft; returns its id. Refused for what could never be done."""
    _may(conn, by, "request")
    title = person_text("title", draft.title, TITLE_MAX)
    chosen = releases.usable(conn, draft.releases)
    check_policy(draft.policy)
    if draft.priority not in PRIORITIES:
        raise Refused("priority", "priority")
    if len(chosen) > BUNDLE_MAX_COMPONENTS:
        raise Refused("releases", "manyReleases")
    rollout = new_id().hex()
    conn.execute(
        "INSERT INTO rollout (id, title, releases, query, policy, priority, state, since_ms, created_by, created_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, 'draft', ?, ?, ?)",
        (
            rollout,
            title,
            msgspec.json.encode(draft.releases).decode(),
            encode(draft.query),
            msgspec.json.encode(draft.policy).decode(),
            draft.priority,
            now_ms,
            by,
            now_ms,
        ),
    )
    store.remember(conn, rollout, "draft", now_ms, actor=by)
    audit.write(conn, by, None, "rollout.draft", f"rollout:{name_of(rollout)}", {"title": title}, now_ms=now_ms)
    store.tell(conn, rollout, now_ms)
    return rollout


def check_policy(policy: Policy) -> None:
    """Refused for fields that contradict one another; each alone is held to its bounds by its type."""
    percents = [step.percent for step in policy.steps if step.percent is not None]
    if any((step.percent is None) == (step.count is None) for step in policy.steps):
        raise Refused("waves", "waves")
    if percents != sorted(percents) or len(set(percents)) != len(percents):
        raise Refused("waves", "wavesOrder")
    if policy.failure_count > policy.failure_first:
        raise Refused("failure_count", "failureGate")


def submit(conn: sqlite3.Connection, rollout: str, *, by: str, now_ms: int) -> None:
    """Fix who is in which wave, and ask a second person. Refused for a group of nobody."""
    _may(conn, by, "request")
    sheet = _in(conn, rollout, {RolloutState.DRAFT})
    if sheet.created_by != by:
        raise Refused("by", "rolloutNotYours")
    chosen = releases.usable(conn, sheet.releases)
    group = world.candidates(world.ground(conn, now_ms), sheet.query, chosen, sheet.rollout.policy)
    if not group:
        raise Refused("query", "nobody")
    waves, members = waves_of(rollout, group, sheet.rollout.policy)
    for member in members:
        store.put_member(conn, rollout, msgspec.structs.replace(member, since_ms=now_ms, joined_ms=now_ms, reason="approval"))
    put = msgspec.structs.replace(sheet.rollout, waves=waves)
    _to(conn, sheet, put, RolloutState.WAITING, "", by, now_ms, terminals=len(members))
    digest = digest_of(conn, store.sheet(conn, rollout))
    conn.execute("UPDATE rollout SET submitted_ms = ?, digest = ? WHERE id = ?", (now_ms, digest, rollout))


def approve(conn: sqlite3.Connection, rollout: str, *, by: str, now_ms: int) -> None:
    """The second person agrees: neither who asked, nor who uploaded what is to be installed."""
    sheet = _in(conn, rollout, {RolloutState.WAITING})
    check_approver(conn, sheet.created_by, by, now_ms)
    chosen = releases.usable(conn, sheet.releases)
    uploaders = {one.uploaded_by for one in chosen} - {audit.SERVER}
    if by in uploaders:
        raise Refused("by", "rolloutUploader")
    for uploader in sorted(uploaders):
        check_approver(conn, uploader, by, now_ms)
    digest = digest_of(conn, sheet)
    if digest != sheet.digest:
        raise Refused("rollout", "rolloutChanged")
    conn.execute("UPDATE rollout SET approved_by = ? WHERE id = ?", (by, rollout))
    put = msgspec.structs.replace(sheet.rollout, approved_ms=now_ms)
    _to(conn, sheet, put, RolloutState.APPROVED, "", by, now_ms, digest=digest.hex(), asked_by=sheet.created_by)


def reject(conn: sqlite3.Connection, rollout: str, reason: str, *, by: str, now_ms: int) -> None:
    """The second person does not agree, or who asked takes it back."""
    sheet = _in(conn, rollout, {RolloutState.DRAFT, RolloutState.WAITING})
    if by != sheet.created_by:
        _may(conn, by, "approve")
    words = person_text("reason", reason, REASON_MAX)
    word = "withdrawn" if by == sheet.created_by else "rejected"
    _to(conn, sheet, sheet.rollout, RolloutState.ABORTED, word, by, now_ms, text=words)


def pause(conn: sqlite3.Connection, rollout: str, *, by: str, now_ms: int) -> None:
    _may(conn, by, "request", "approve")
    sheet = _in(conn, rollout, {RolloutState.APPROVED, RolloutState.RUNNING})
    _to(conn, sheet, sheet.rollout, RolloutState.PAUSED, "", by, now_ms)


def resume(conn: sqlite3.Connection, rollout: str, *, by: str, now_ms: int) -> None:
    """After a pause; of a held rollout only where the repository or a disabled account held it: a gate does not open by being asked."""
    _may(conn, by, "request", "approve")
    sheet = _in(conn, rollout, {RolloutState.PAUSED, RolloutState.HELD})
    if sheet.rollout.state is RolloutState.HELD and sheet.rollout.reason not in RESUMED:
        raise Conflict("rollout", "rolloutGate")
    begun = sheet.rollout.wave >= 0
    _to(conn, sheet, sheet.rollout, RolloutState.RUNNING if begun else RolloutState.APPROVED, "", by, now_ms, kind="resume")


def abort(conn: sqlite3.Connection, rollout: str, reason: str, *, by: str, now_ms: int) -> None:
    """For good: who has finished keeps the result, nobody starts any more, who is in the middle is told to stop."""
    _may(conn, by, "request", "approve")
    words = person_text("reason", reason, REASON_MAX)
    sheet = _in(conn, rollout, set(ACTIVE))
    _to(conn, sheet, sheet.rollout, RolloutState.ABORTED, "person", by, now_ms, text=words)


def stop_everything(conn: sqlite3.Connection, reason: str, *, by: str, now_ms: int) -> list[str]:
    """Emergency: every rollout that is approved or under way is aborted. One person is enough; returns their ids."""
    _may(conn, by, "request", "approve")
    words = person_text("reason", reason, REASON_MAX)
    found = [name for name, sheet in store.sheets(conn).items() if sheet.rollout.state in ACTIVE]
    for name in found:
        sheet = store.sheet(conn, name)
        _to(conn, sheet, sheet.rollout, RolloutState.ABORTED, "emergency", by, now_ms, text=words)
    audit.write(conn, by, None, "rollout.stopAll", "rollout:all", {"reason": words, "rollouts": len(found)}, now_ms=now_ms)
    return found


def retry(conn: sqlite3.Connection, rollout: str, terminals: Iterable[str] | None = None, *, by: str, now_ms: int) -> int:
    """Try those anew that failed or were missed: all of them, or these. The approval still holds, for nothing else changed.

    Of a finished rollout only for two weeks, and never a downgrade: what may undo a later release is asked for anew.
    """
    _may(conn, by, "request")
    sheet = _in(conn, rollout, {RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HELD, RolloutState.FINISHED})
    problem = retry_problem(sheet.rollout, now_ms)
    if problem:
        raise Refused("rollout", problem)
    wanted = None if terminals is None else set(terminals)
    chosen = [
        member
        for member in store.members(conn, rollout).values()
        if member.state in RETRIED and (wanted is None or member.terminal in wanted)
    ]
    if not chosen:
        raise Conflict("rollout", "nothingToRetry")
    for member in chosen:
        store.put_member(conn, rollout, again(member, now_ms))
        store.remember(conn, rollout, "retry", now_ms, actor=by, terminal=member.terminal, was=member.reason)
    store.tell(conn, rollout, now_ms, [member.terminal for member in chosen])
    state = sheet.rollout.state
    put = sheet.rollout
    # The wave of whoever is tried again is open once more; the gate is judged anew.
    if state in {RolloutState.HELD, RolloutState.FINISHED}:
        state = RolloutState.RUNNING
    _to(conn, sheet, put, state, "", by, now_ms, kind="retry", terminals=len(chosen))
    return len(chosen)


def retry_problem(rollout: Rollout, now_ms: int) -> str:
    """Why a finished rollout is not tried again; empty if it may be."""
    if rollout.state is not RolloutState.FINISHED:
        return ""
    if rollout.policy.downgrade:
        return "retryDowngrade"
    if rollout.approved_ms is None or rollout.approved_ms < now_ms - APPROVAL_LASTS_MS:
        return "retryOld"
    return ""


# Freeze periods -------------------------------------------------------------------------------------------------------------------------


def add_freeze(conn: sqlite3.Connection, name: str, from_ms: int, to_ms: int, *, by: str, now_ms: int) -> int:
    """A span in which nothing starts: an election, a fair, a night of maintenance at the data centre."""
    _may(conn, by, "request", "approve")
    words = person_text("name", name, TITLE_MAX)
    if not from_ms < to_ms or to_ms <= now_ms or to_ms - from_ms > FREEZE_LONGEST_MS:
        raise Refused("to", "freezeSpan")
    row = conn.execute(
        "INSERT INTO freeze_period (from_ms, to_ms, name, set_by, set_ms) VALUES (?, ?, ?, ?, ?) RETURNING id",
        (from_ms, to_ms, words, by, now_ms),
    ).fetchone()
    audit.write(
        conn, by, None, "freeze.add", f"freeze:{row[0]}", {"name": words, "from_ms": from_ms, "to_ms": to_ms}, now_ms=now_ms
    )
    store.tell(conn, "", now_ms)
    return int(row[0])


def remove_freeze(conn: sqlite3.Connection, freeze: int, *, by: str, now_ms: int) -> None:
    _may(conn, by, "request", "approve")
    done = conn.execute(
        "UPDATE freeze_period SET removed_by = ?, removed_ms = ? WHERE id = ? AND removed_ms IS NULL", (by, now_ms, freeze)
    )
    if done.rowcount != 1:
        raise NotFound(f"freeze period {freeze}")
    audit.write(conn, by, None, "freeze.remove", f"freeze:{freeze}", now_ms=now_ms)
    store.tell(conn, "", now_ms)


# Shared ---------------------------------------------------------------------------------------------------------------------------------


def digest_of(conn: sqlite3.Connection, sheet: Sheet) -> bytes:
    """What an approval is given to: the releases by their hashes, the group, the policy, the waves, and who asked."""
    known = store.releases(conn, sheet.releases)
    planned = [[wave.no, wave.planned] for wave in sheet.rollout.waves]
    members = conn.execute(
        "SELECT terminal, wave FROM rollout_member WHERE rollout = ? AND late = 0 ORDER BY terminal", (sheet.rollout.id,)
    ).fetchall()
    return hashlib.sha256(
        cbor2.dumps(
            [
                "kf-rollout/1",
                sheet.rollout.id,
                sheet.title,
                [[one, known[one].path, known[one].sha256] for one in sheet.releases if one in known],
                encode(sheet.query),
                msgspec.json.encode(sheet.rollout.policy),
                sheet.rollout.priority,
                sheet.created_by,
                planned,
                [[row[0], row[1]] for row in members],
            ],
            canonical=True,
        )
    ).digest()


def approval_problem(conn: sqlite3.Connection, sheet: Sheet) -> Literal["", "notApproved", "accountGone"]:
    """Whether a second person approved exactly what stands in the database now, and both are people who still work here.

    The row of the rollout is believed only as far as the audit log has the same: that person, that content.
    """
    approved = (
        sheet.approved_by is not None
        and sheet.approved_by != sheet.created_by
        and sheet.digest is not None
        and sheet.digest == digest_of(conn, sheet)
        and conn.execute(
            "SELECT 1 FROM audit WHERE object = ? AND action = 'rollout.approve' AND actor = ? AND json_extract(detail, '$.digest') = ?",
            (f"rollout:{name_of(sheet.rollout.id)}", sheet.approved_by, sheet.digest.hex()),
        ).fetchone()
        is not None
    )
    if not approved:
        return "notApproved"
    (here,) = conn.execute(
        "SELECT count(*) FROM staff WHERE name IN (?, ?) AND disabled_ms IS NULL", (sheet.created_by, sheet.approved_by)
    ).fetchone()
    return "" if here == 2 else "accountGone"


def _in(conn: sqlite3.Connection, rollout: str, states: set[RolloutState]) -> Sheet:
    sheet = store.sheet(conn, rollout)
    if sheet.rollout.state not in states:
        raise Conflict("rollout", "rolloutEnded" if sheet.rollout.state in ENDED else "rolloutState")
    return sheet


def _to(
    conn: sqlite3.Connection,
    sheet: Sheet,
    rollout: Rollout,
    state: RolloutState,
    reason: str,
    by: str,
    now_ms: int,
    *,
    kind: str = "",
    **detail: Any,
) -> None:
    put, _ = applied(rollout, {}, SetState(state=state, reason=reason), now_ms) if state is not rollout.state else (rollout, None)
    store.put_rollout(conn, put)
    conn.execute("UPDATE rollout SET revision = revision + 1 WHERE id = ?", (rollout.id,))
    word = kind or state.value
    store.remember(conn, rollout.id, word, now_ms, actor=by, reason=reason, **detail)
    action = {"waiting": "submit", "approved": "approve", "running": "resume", "paused": "pause", "aborted": "abort"}.get(
        word, word
    )
    if reason in {"rejected", "withdrawn"}:
        action = {"rejected": "reject", "withdrawn": "withdraw"}[reason]
    audit.write(
        conn, by, None, f"rollout.{action}", f"rollout:{name_of(rollout.id)}", {"title": sheet.title, **detail}, now_ms=now_ms
    )
    store.tell(conn, rollout.id, now_ms)


def _may(conn: sqlite3.Connection, by: str, *permissions: str) -> None:
    """The route has asked already; an account may have changed since, and not everything comes through a route."""
    row = conn.execute("SELECT role, disabled_ms FROM staff WHERE name = ?", (by,)).fetchone()
    if row is None or row[1] is not None or not any(role_may(row[0], one) for one in permissions):
        raise Refused("by", "rolloutMayNot")
