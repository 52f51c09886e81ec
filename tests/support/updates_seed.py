"""Releases and rollouts for a seeded console: one under way with every kind of wait, one stopped at its gate, one that waits for approval."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from fleet_server.channel import transact
from fleet_server.db import open_raw
from fleet_server.rollouts import acts, releases, store
from fleet_server.rollouts.query import Condition, Query
from fleet_server.rollouts.rules import (
    Member,
    MemberState,
    Policy,
    RolloutState,
    SetState,
    Step,
    applied,
    bundle_id,
)
from protocols.contract.artifacts import ImageCustom
from tests.support.seed import OPERATOR

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
ENGINEER, SECOND = "release", "second"
SIZE = 62_400_000
RUNNING, STOPPED, WAITING = "a1" * 16, "b2" * 16, "c3" * 16
"""Ids of the rollouts."""
OLD, NEW, BAD = "1.3.2", "1.4.0", "1.5.0"


def seed_updates(path: Path, now_ms: int) -> None:
    """Adds them to a seeded database."""
    dice = random.Random(4)
    with closing(open_raw(path)) as conn:
        conn.execute("PRAGMA synchronous = OFF")
        transact(conn, lambda inside: _fill(inside, now_ms, dice))


def _fill(conn: sqlite3.Connection, now_ms: int, dice: random.Random) -> None:
    for name, display in ((ENGINEER, "发布工程师"), (SECOND, "二号值班")):
        conn.execute(
            "INSERT INTO staff (name, display, password_hash, role, failed, must_change, created_ms)"
            " SELECT ?, ?, password_hash, 'operator', 0, 0, created_ms FROM staff WHERE name = ?",
            (name, display, OPERATOR),
        )
    _installed(conn, now_ms, dice)
    made = {
        number: releases.record(
            conn,
            ImageCustom(component="agent", version=number, release=release, arch="amd64"),
            path=f"agent/agent-{number}-amd64.tar",
            length=SIZE + release * 1000,
            sha256=bytes([release]) * 32,
            by=ENGINEER,
            now_ms=now_ms - days * DAY_MS,
            notes=notes,
        )
        for number, release, days, notes in (
            (OLD, 132, 60, "上一个稳定版本。"),
            (NEW, 140, 3, "修复凭条打印机缺纸后不恢复；身份证读卡器断线重连更快。"),
            (BAD, 150, 1, "试验：新的外设总线。"),
        )
    }
    profiles = releases.record(
        conn,
        ImageCustom(component="profiles", version="2026.11", release=31),
        path="profiles/profiles-2026.11.tar",
        length=412_000,
        sha256=b"p" * 32,
        by=ENGINEER,
        now_ms=now_ms - 2 * DAY_MS,
        notes="新增两款凭条打印机。",
    )
    releases.call(conn, made[OLD], "good", "", by=SECOND, now_ms=now_ms - 50 * DAY_MS)
    conn.execute(
        "INSERT INTO freeze_period (from_ms, to_ms, name, set_by, set_ms) VALUES (?, ?, '义乌博览会', ?, ?)",
        (now_ms + 9 * DAY_MS, now_ms + 12 * DAY_MS, OPERATOR, now_ms - DAY_MS),
    )
    policy = Policy(success_percent=90, steps=(Step(percent=10), Step(percent=40), Step(percent=100)))
    running = _approved(conn, RUNNING, "终端程序 1.4.0 全市", (made[NEW],), Query(), policy, now_ms - 2 * DAY_MS)
    _progress(conn, running, now_ms, dice)
    stopped = _approved(
        conn,
        STOPPED,
        "终端程序 1.5.0 试验",
        (made[BAD],),
        Query(conditions=(Condition(field="area", values=("yiwu",)),)),
        policy,
        now_ms - 20 * HOUR_MS,
    )
    _stop(conn, stopped, now_ms)
    waiting = acts.create(
        conn,
        acts.Draft(
            title="设备型号库 2026.11",
            releases=(profiles,),
            query=Query(
                conditions=(
                    Condition(field="area", values=("wucheng", "jindong")),
                    Condition(field="siteKind", values=("hall", "zone24")),
                )
            ),
            policy=msgspec.structs.replace(policy, window="any", soak_s=4 * 3600),
            priority=10,
        ),
        by=SECOND,
        now_ms=now_ms - 2 * HOUR_MS,
        new_id=lambda: bytes.fromhex(WAITING),
    )
    acts.submit(conn, waiting, by=SECOND, now_ms=now_ms - 2 * HOUR_MS)


def _approved(
    conn: sqlite3.Connection, rollout: str, title: str, chosen: tuple[int, ...], query: Query, policy: Policy, at_ms: int
) -> str:
    draft = acts.Draft(title=title, releases=chosen, query=query, policy=policy)
    name = acts.create(conn, draft, by=OPERATOR, now_ms=at_ms, new_id=lambda: bytes.fromhex(rollout))
    acts.submit(conn, name, by=OPERATOR, now_ms=at_ms + 5 * MINUTE_MS)
    acts.approve(conn, name, by=SECOND, now_ms=at_ms + 40 * MINUTE_MS)
    return name


def _installed(conn: sqlite3.Connection, now_ms: int, dice: random.Random) -> None:
    rows = conn.execute("SELECT id FROM terminal WHERE enrolled_ms IS NOT NULL AND revoked_ms IS NULL ORDER BY id").fetchall()
    for number, (terminal,) in enumerate(rows):
        for component, version, release in (
            ("agent", OLD if dice.random() < 0.93 else "1.3.0", 132),
            ("profiles", "2026.09", 29),
            ("catalogue", "118", 118),
        ):
            conn.execute(
                "INSERT INTO installed_version (terminal, component, version, release, at_ms, batch, idx) VALUES (?, ?, ?, ?, ?, 1, 0)",
                (terminal, component, version, release, now_ms - (number % 20 + 3) * DAY_MS),
            )


def _set(conn: sqlite3.Connection, name: str, member: Member) -> None:
    store.put_member(conn, name, member)


def _step(
    conn: sqlite3.Connection,
    name: str,
    member: Member,
    state: str,
    reason: str,
    at_ms: int,
    *,
    via: str,
    done: int,
    resumed: int = 0,
) -> None:
    batch = conn.execute("SELECT coalesce(max(batch), 5000000) + 1 FROM update_step").fetchone()[0]
    total = {"delta": 7_900_000, "packed": 24_100_000}.get(via, SIZE)
    conn.execute(
        "INSERT INTO update_step (terminal, bundle, rollout, component, state, reason, since_ms, at_ms, received_ms, from_version, to_version,"
        " via, bytes_done, bytes_total, tries, resumed, batch, idx, disputed) VALUES (?, ?, ?, 'agent', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, 0, 0)",
        (
            member.terminal,
            bytes.fromhex(member.bundle),
            bytes.fromhex(name),
            state,
            reason,
            at_ms,
            at_ms,
            at_ms,
            OLD,
            NEW if name == RUNNING else BAD,
            via,
            done * total // 100,
            total,
            resumed,
            batch,
        ),
    )


def _begun(name: str, member: Member, at_ms: int) -> Member:
    return msgspec.structs.replace(
        member,
        state=MemberState.STARTED,
        reason="sent",
        detail="",
        since_ms=at_ms,
        started_ms=at_ms,
        tries=1,
        bundle=bundle_id(name, member.terminal, 1),
        components=("agent",),
        windows=((at_ms, at_ms + 12 * HOUR_MS), (at_ms + DAY_MS, at_ms + DAY_MS + 12 * HOUR_MS)),
        windows_to_ms=at_ms + 14 * DAY_MS,
    )


def _ended(conn: sqlite3.Connection, name: str, member: Member, state: MemberState, reason: str, at_ms: int) -> None:
    _set(conn, name, msgspec.structs.replace(member, state=state, reason=reason, since_ms=at_ms, ended_ms=at_ms))


def _whole_way(conn: sqlite3.Connection, name: str, member: Member, from_ms: int, *, via: str, last: str, why: str) -> None:
    done = (
        ("pending", 0),
        ("downloading", 40),
        ("verifying", 100),
        ("staged", 100),
        ("waiting", 100),
        ("installing", 100),
        ("probation", 100),
    )
    for number, (state, percent) in enumerate(done):
        reason = "window" if state == "waiting" else "none"
        _step(
            conn,
            name,
            member,
            state,
            reason,
            from_ms + number * 4 * MINUTE_MS,
            via=via,
            done=percent,
            resumed=int(percent > 0 and via == "full"),
        )
    _step(conn, name, member, last, why, from_ms + 40 * MINUTE_MS, via=via, done=100, resumed=int(via == "full"))


def _progress(conn: sqlite3.Connection, name: str, now_ms: int, dice: random.Random) -> None:
    """Canary and first wave are through, the second is under way."""
    sheet = store.sheet(conn, name)
    begun_ms = now_ms - 46 * HOUR_MS
    rollout, _ = applied(sheet.rollout, {}, SetState(state=RolloutState.RUNNING), begun_ms)
    opened = (begun_ms, begun_ms + 22 * HOUR_MS, now_ms - 3 * HOUR_MS)
    waves = []
    for wave in rollout.waves:
        begun = {"opened_ms": opened[wave.no]} if wave.no <= 2 else {}
        passed = {"met_ms": opened[wave.no + 1] - 20 * HOUR_MS, "passed_ms": opened[wave.no + 1]} if wave.no < 2 else {}
        waves.append(msgspec.structs.replace(wave, **begun, **passed))
    rollout = msgspec.structs.replace(rollout, waves=tuple(waves), wave=2)
    store.put_rollout(conn, rollout)
    store.remember(conn, name, "running", begun_ms)
    store.remember(conn, name, "wave", begun_ms, no=0)
    for no in (0, 1):
        store.remember(conn, name, "passed", opened[no + 1], no=no)
        store.remember(conn, name, "wave", opened[no + 1], no=no + 1)
    members = store.members(conn, name)
    for number, member in enumerate(members.values()):
        if member.wave < 2:
            at_ms = opened[member.wave] + (number % 40) * 6 * MINUTE_MS
            started = _begun(name, member, at_ms)
            via = ("delta", "delta", "delta", "packed", "full")[number % 5]
            failed = member.wave == 1 and number % 37 == 7
            _whole_way(
                conn,
                name,
                started,
                at_ms,
                via=via,
                last="rolledBack" if failed else "committed",
                why="selfTest" if failed else "none",
            )
            _ended(
                conn, name, started, MemberState.FAILED if failed else MemberState.SUCCEEDED, "selfTest" if failed else "committed",
                at_ms + 40 * MINUTE_MS,
            )  # fmt: skip
            if not failed:
                _now_runs(conn, member.terminal, at_ms + 40 * MINUTE_MS)
        elif member.wave == 2:
            _second_wave(conn, name, member, number, now_ms, opened[2])
        else:
            _set(conn, name, msgspec.structs.replace(member, reason="wave", detail=str(member.wave), since_ms=begun_ms))


def _second_wave(conn: sqlite3.Connection, name: str, member: Member, number: int, now_ms: int, opened_ms: int) -> None:
    kind = number % 9
    at_ms = opened_ms + (number % 50) * 2 * MINUTE_MS
    if kind in (0, 1):
        started = _begun(name, member, at_ms)
        _whole_way(conn, name, started, at_ms, via="delta", last="committed", why="none")
        _ended(conn, name, started, MemberState.SUCCEEDED, "committed", at_ms + 40 * MINUTE_MS)
        _now_runs(conn, member.terminal, at_ms + 40 * MINUTE_MS)
    elif kind == 2:
        started = _begun(name, member, at_ms)
        _set(conn, name, started)
        _step(
            conn, name, started, "downloading", "none", at_ms + MINUTE_MS, via="full", done=10 + number % 80, resumed=number % 3
        )
    elif kind == 3:
        started = _begun(name, member, at_ms)
        _set(conn, name, started)
        _step(conn, name, started, "waiting", ("window", "idle")[number % 2], at_ms + 9 * MINUTE_MS, via="delta", done=100)
    else:
        reason = ("hall", "rate", "silent", "maintenance", "hall")[kind - 4]
        _set(conn, name, msgspec.structs.replace(member, reason=reason, since_ms=at_ms))


def _now_runs(conn: sqlite3.Connection, terminal: str, at_ms: int) -> None:
    conn.execute(
        "UPDATE installed_version SET version = ?, release = 140, at_ms = ? WHERE terminal = ? AND component = 'agent'",
        (NEW, at_ms, terminal),
    )


def _stop(conn: sqlite3.Connection, name: str, now_ms: int) -> None:
    """Both canaries came back on the old version."""
    sheet = store.sheet(conn, name)
    begun_ms = now_ms - 19 * HOUR_MS
    rollout, _ = applied(sheet.rollout, {}, SetState(state=RolloutState.RUNNING), begun_ms)
    waves = tuple(msgspec.structs.replace(wave, opened_ms=begun_ms) if wave.no == 0 else wave for wave in rollout.waves)
    rollout = msgspec.structs.replace(rollout, waves=waves, wave=0)
    stopped_ms = begun_ms + 50 * MINUTE_MS
    rollout, _ = applied(rollout, {}, SetState(state=RolloutState.STOPPED, reason="failures.first"), stopped_ms)
    store.put_rollout(conn, rollout)
    store.remember(conn, name, "running", begun_ms)
    store.remember(conn, name, "wave", begun_ms, no=0)
    store.remember(conn, name, "stopped", stopped_ms, reason="failures.first")
    for member in store.members(conn, name).values():
        if member.wave == 0:
            started = _begun(name, member, begun_ms)
            _whole_way(conn, name, started, begun_ms, via="packed", last="rolledBack", why="crashed")
            _ended(conn, name, started, MemberState.FAILED, "crashed", begun_ms + 40 * MINUTE_MS)
        else:
            _ended(conn, name, member, MemberState.STOPPED, "notStarted", stopped_ms)
