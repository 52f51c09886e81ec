"""Rollouts on the database: approved by a second person, carried out step by step, the same after a kill at any point."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleet_server.accounts.events import remember
from fleet_server.channel import transact
from fleet_server.db import open_raw
from fleet_server.errors import Conflict, FleetServerError, Refused
from fleet_server.orders import wanted as pieces
from fleet_server.rollouts import acts, releases, store
from fleet_server.rollouts.executor import Executor, sync_releases
from fleet_server.rollouts.query import Condition, Query
from fleet_server.rollouts.rules import BUSY, FINAL, MemberState, Policy, RolloutState, Step, hall_limit
from fleet_server.updates.director import Assignment
from protocols.contract.artifacts import ImageCustom
from tests.support.seed import NOW_MS, OPERATOR, Seeded, seed

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
ANNA, BERT, CARL = OPERATOR, "bert", "carl"
"""Asks; approves; uploads."""
QUICK = Policy(
    canary=2, steps=(Step(percent=30), Step(percent=100)), soak_s=600, timeout_s=3 * 3600, give_up_s=6 * 3600, window="any",
    starts_per_minute=500, silent_s=30 * 86_400, hall_percent=0.0, ignore_freeze=True,
)  # fmt: skip


class FakeDirector:
    """Remembers what it was told; can be made to fail."""

    def __init__(self) -> None:
        self.given: dict[str, tuple[Assignment, ...]] = {}
        self.calls = 0
        self.broken: FleetServerError | None = None

    def assign(self, given: Mapping[str, Sequence[Assignment]], now_ms: int) -> None:
        if self.broken is not None:
            raise self.broken
        self.calls += 1
        for terminal, assignments in given.items():
            if assignments:
                self.given[terminal] = tuple(assignments)
            else:
                self.given.pop(terminal, None)

    def assigned(self) -> Mapping[str, Sequence[Assignment]]:
        return dict(self.given)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    return seed(tmp_path_factory.mktemp("seed") / "fleet.sqlite", count=60, days=2)


@pytest.fixture
def path(template: Seeded, tmp_path: Path) -> Path:
    target = tmp_path / "fleet.sqlite"
    shutil.copyfile(template.path, target)
    return target


@pytest.fixture
def conn(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_raw(path)) as connection:
        prepare(connection)
        yield connection


def prepare(conn: sqlite3.Connection) -> None:
    for name in (BERT, CARL):
        add_person(conn, name)
    conn.execute("UPDATE terminal SET enrolled_ms = 1, maintenance_until_ms = NULL WHERE revoked_ms IS NULL")
    conn.execute("UPDATE terminal_live SET last_seen_ms = ?", (NOW_MS,))
    conn.execute(
        "INSERT OR IGNORE INTO terminal_live (terminal, connected, last_seen_ms) SELECT id, 1, ? FROM terminal", (NOW_MS,)
    )


def add_person(conn: sqlite3.Connection, name: str) -> None:
    conn.execute(
        "INSERT INTO staff (name, display, password_hash, role, failed, must_change, created_ms) VALUES (?, ?, '', 'operator', 0, 0, 0)",
        (name, name),
    )


def agent(conn: sqlite3.Connection, version: str = "2.0.0", number: int = 20, *, by: str = CARL) -> int:
    custom = ImageCustom(component="agent", version=version, release=number, arch="amd64")
    return releases.record(
        conn,
        custom,
        path=f"agent/agent-{version}.tar",
        length=60_000_000,
        sha256=bytes([number]) * 32,
        by=by,
        now_ms=NOW_MS - HOUR_MS,
    )


def ask(conn: sqlite3.Connection, *, policy: Policy = QUICK, query: Query = Query(), priority: int = 0, **changes: Any) -> str:  # noqa: B008 - frozen
    draft = acts.Draft(
        title="Agent 2.0.0",
        releases=(changes.pop("release", None) or agent(conn),),
        query=query,
        policy=policy,
        priority=priority,
    )
    name = transact(conn, lambda c: acts.create(c, draft, by=ANNA, now_ms=NOW_MS))
    transact(conn, lambda c: acts.submit(c, name, by=ANNA, now_ms=NOW_MS))
    return name


def approved(conn: sqlite3.Connection, **changes: Any) -> str:
    name = ask(conn, **changes)
    transact(conn, lambda c: acts.approve(c, name, by=BERT, now_ms=NOW_MS))
    return name


def states(conn: sqlite3.Connection, name: str) -> dict[str, int]:
    rows = conn.execute("SELECT state, count(*) FROM rollout_member WHERE rollout = ? GROUP BY state", (name,))
    return dict(rows.fetchall())


def answer(
    conn: sqlite3.Connection, now_ms: int, *, bad: frozenset[str] = frozenset(), deaf: frozenset[str] = frozenset()
) -> int:
    """Terminals do what they are told and say so in records (their rows, as ingest writes them). Returns how many said something."""
    told = 0
    last = conn.execute("SELECT coalesce(max(batch), 1000000) FROM update_step").fetchone()[0]
    rows = conn.execute("SELECT terminal, bundle FROM wanted WHERE bundle IS NOT NULL ORDER BY terminal").fetchall()
    for terminal, text in rows:
        bundle = json.loads(text)
        if terminal in deaf or bundle["hold"]:
            continue
        key = pieces.pieces(conn, terminal).bundle
        assert key is not None
        if conn.execute(
            "SELECT 1 FROM update_step WHERE bundle = ? AND state IN ('committed', 'rolledBack')", (key.id,)
        ).fetchone():
            continue
        for one in key.wanted:
            last += 1
            told += 1
            state, reason = ("rolledBack", "crashed") if terminal in bad else ("committed", "none")
            conn.execute(
                "INSERT INTO update_step (terminal, bundle, rollout, component, state, reason, since_ms, at_ms, received_ms, from_version,"
                " to_version, via, bytes_done, bytes_total, tries, resumed, batch, idx, disputed)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '1.0.0', ?, 'full', ?, ?, 1, 0, ?, 0, 0)",
                (
                    terminal,
                    key.id,
                    key.rollout,
                    one.component,
                    state,
                    reason,
                    now_ms,
                    now_ms,
                    now_ms,
                    one.version,
                    one.length,
                    one.length,
                    last,
                ),
            )
            if state == "committed":
                conn.execute(
                    "INSERT INTO installed_version (terminal, component, version, release, sha256, at_ms, batch, idx) VALUES (?, ?, ?, ?, ?, ?, ?, 1)"
                    " ON CONFLICT (terminal, component) DO UPDATE SET version = excluded.version, release = excluded.release",
                    (terminal, one.component, one.version, one.release, one.sha256, now_ms, last),
                )
    return told


def run(conn: sqlite3.Connection, director: FakeDirector, *, hours: int = 24, from_ms: int = NOW_MS, **answers: Any) -> int:
    executor = Executor(director)
    now_ms = from_ms
    while now_ms < from_ms + hours * HOUR_MS:
        while executor.step(conn, now_ms):
            pass
        check_halls(conn)
        answer(conn, now_ms, **answers)
        now_ms += 11 * MINUTE_MS
    return now_ms


def check_halls(conn: sqlite3.Connection, percent: float = 0.0) -> None:
    rows = conn.execute(
        "SELECT t.site, count(*), (SELECT count(*) FROM terminal o WHERE o.site = t.site AND o.revoked_ms IS NULL) FROM rollout_member m"
        " JOIN terminal t ON t.id = m.terminal WHERE m.state IN ('started', 'stopping') GROUP BY t.site"
    )
    for site, busy, machines in rows:
        assert busy <= hall_limit(machines, percent), site


# The way of a rollout -------------------------------------------------------------------------------------------------------------------


def test_a_good_release_reaches_everybody(conn: sqlite3.Connection) -> None:
    name, director = approved(conn), FakeDirector()
    run(conn, director, hours=60)
    sheet = store.sheet(conn, name)
    assert sheet.rollout.state is RolloutState.FINISHED
    fleet = conn.execute("SELECT count(*) FROM terminal WHERE revoked_ms IS NULL").fetchone()[0]
    assert states(conn, name) == {"succeeded": fleet}
    assert len(director.given) == fleet
    bundle = pieces.pieces(conn, next(iter(director.given))).bundle
    assert bundle is not None
    assert bundle.wanted[0].target == "agent/agent-2.0.0.tar"
    assert pieces.pieces(conn, next(iter(director.given))).signed_for() == (ANNA, BERT)
    kinds = {row[0] for row in conn.execute("SELECT kind FROM rollout_event WHERE rollout = ?", (name,))}
    assert {"draft", "waiting", "approved", "running", "wave", "passed", "start", "end", "finished"} <= kinds


def test_a_bad_release_is_stopped_at_the_canaries(conn: sqlite3.Connection) -> None:
    name, director = approved(conn), FakeDirector()
    everybody = frozenset(row[0] for row in conn.execute("SELECT id FROM terminal"))
    run(conn, director, hours=4, bad=everybody)
    sheet = store.sheet(conn, name)
    assert (sheet.rollout.state, sheet.rollout.reason) == (RolloutState.STOPPED, "failures.first")
    assert states(conn, name)["failed"] == 2
    assert director.given == {}, "nobody is to get it any more"
    assert conn.execute("SELECT count(*) FROM wanted WHERE bundle IS NOT NULL").fetchone()[0] == 0
    rows = conn.execute("SELECT actor, action FROM audit WHERE action = 'rollout.stopped'").fetchall()
    assert rows == [("server", "rollout.stopped")]


def test_abort_takes_the_bundle_back_from_those_in_the_middle(conn: sqlite3.Connection) -> None:
    name, director = approved(conn), FakeDirector()
    executor = Executor(director)
    executor.step(conn, NOW_MS)
    started = [row[0] for row in conn.execute("SELECT terminal FROM rollout_member WHERE state = 'started'")]
    assert len(started) == 2
    answer(conn, NOW_MS, deaf=frozenset(started[1:]))
    transact(conn, lambda c: acts.abort(c, name, "wrong release", by=ANNA, now_ms=NOW_MS + 1000))
    executor.step(conn, NOW_MS + 2000)
    assert states(conn, name)["stopping"] == 1
    assert set(director.given) == set(started[:1]), "who has finished keeps it"
    assert pieces.pieces(conn, started[1]).bundle is None
    assert store.members(conn, name)[started[0]].state is MemberState.SUCCEEDED


def test_stop_everything_ends_all_rollouts_and_one_person_is_enough(conn: sqlite3.Connection) -> None:
    first = approved(conn, query=Query(conditions=(Condition(field="area", values=("wucheng",)),)))
    second = ask(conn, release=agent(conn, "3.0.0", 30))
    transact(conn, lambda c: acts.stop_everything(c, "attack", by=BERT, now_ms=NOW_MS))
    assert store.sheet(conn, first).rollout.state is RolloutState.ABORTED
    assert store.sheet(conn, second).rollout.state is RolloutState.WAITING, "what nobody approved is no danger"


# Kills ----------------------------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


def outcome(conn: sqlite3.Connection, director: FakeDirector) -> Any:
    return (
        conn.execute(
            "SELECT terminal, state, reason, tries, bundle, started_ms FROM rollout_member ORDER BY rollout, terminal"
        ).fetchall(),
        conn.execute("SELECT state, reason, wave FROM rollout ORDER BY id").fetchall(),
        conn.execute("SELECT terminal, bundle, changed FROM wanted ORDER BY terminal").fetchall(),
        conn.execute("SELECT kind, terminal FROM rollout_event ORDER BY kind, terminal").fetchall(),
        {terminal: [one.bundle for one in given] for terminal, given in director.given.items()},
    )


@pytest.mark.spec("U-403")
def test_killed_after_any_step_it_comes_to_the_same(path: Path, tmp_path: Path) -> None:
    """Every place where the executor has done something is a place where it dies; afterwards it goes on as if nothing had been."""
    with closing(open_raw(path)) as conn:
        prepare(conn)
        policy = msgspec.structs.replace(QUICK, canary=0, steps=(Step(percent=100),), hall_percent=100.0)
        name = approved(conn, policy=policy)
    bad = frozenset({"kf-0003", "kf-0007"})

    def once(database: Path, kill_at: int | None) -> tuple[Any, int]:
        director, count = FakeDirector(), 0

        def after(_: str) -> None:
            nonlocal count
            count += 1
            if count == kill_at:
                raise Killed

        with closing(open_raw(database)) as conn:
            executor = Executor(director, after)
            for turn in range(3):
                now_ms = NOW_MS + turn * 11 * MINUTE_MS
                try:
                    executor.step(conn, now_ms)
                except Killed:
                    assert not conn.in_transaction
                    executor = Executor(director)
                    executor.step(conn, now_ms)
                answer(conn, now_ms, bad=bad)
            return outcome(conn, director), count

    def copy(number: int) -> Path:
        target = tmp_path / f"kill-{number}.sqlite"
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as made:
            source.backup(made)
        return target

    expected, steps = once(copy(0), None)
    assert steps >= 6
    assert any(row[1] == "failed" for row in expected[0])
    for kill_at in range(1, steps + 1):
        assert once(copy(kill_at), kill_at)[0] == expected, f"killed after step {kill_at}"
    assert name


@pytest.mark.spec("U-403")
def test_run_twice_on_the_same_facts_changes_nothing(conn: sqlite3.Connection) -> None:
    approved(conn)
    director = FakeDirector()
    Executor(director).step(conn, NOW_MS)
    before, changes, calls = outcome(conn, director), conn.total_changes, director.calls
    assert Executor(director).step(conn, NOW_MS) is False
    assert outcome(conn, director) == before
    assert (conn.total_changes, director.calls) == (changes, calls)


def test_what_the_director_describes_without_anybody_wanting_it_is_taken_back(conn: sqlite3.Connection) -> None:
    """Killed between director and desired state, and the rollout aborted before the server came back."""
    name, director = approved(conn), FakeDirector()

    def die(_: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        Executor(director, die).step(conn, NOW_MS)
    assert len(director.given) == 2
    transact(conn, lambda c: acts.abort(c, name, "no", by=ANNA, now_ms=NOW_MS))
    Executor(director).step(conn, NOW_MS)
    assert director.given == {}


def test_a_director_that_lost_what_it_was_told_is_told_again(conn: sqlite3.Connection) -> None:
    approved(conn)
    director = FakeDirector()
    Executor(director).step(conn, NOW_MS)
    restored = FakeDirector()
    Executor(restored).step(conn, NOW_MS)
    assert restored.given == director.given


def test_a_button_pressed_between_planning_and_writing_wins(conn: sqlite3.Connection, path: Path) -> None:
    name, director = approved(conn), FakeDirector()

    def pause(word: str) -> None:
        if word == "director" and store.sheet(conn, name).rollout.state is RolloutState.APPROVED:
            with closing(open_raw(path)) as other:
                transact(other, lambda c: acts.pause(c, name, by=ANNA, now_ms=NOW_MS))

    executor = Executor(director, pause)
    assert executor.step(conn, NOW_MS) is True
    assert states(conn, name).get("started") is None
    executor.step(conn, NOW_MS)
    assert director.given == {}
    assert store.sheet(conn, name).rollout.state is RolloutState.PAUSED


def test_a_repository_that_cannot_serve_it_holds_the_rollout(conn: sqlite3.Connection) -> None:
    name, director = approved(conn), FakeDirector()
    director.broken = FleetServerError("agent/agent-2.0.0.tar is not in the image repository")
    Executor(director).step(conn, NOW_MS)
    sheet = store.sheet(conn, name)
    assert (sheet.rollout.state, sheet.rollout.reason) == (RolloutState.HELD, "repository")
    director.broken = None
    transact(conn, lambda c: acts.resume(c, name, by=ANNA, now_ms=NOW_MS))
    Executor(director).step(conn, NOW_MS)
    assert states(conn, name)["started"] == 2


def test_an_abort_does_not_wait_for_a_director_that_cannot_be_written(conn: sqlite3.Connection) -> None:
    name, director = approved(conn), FakeDirector()
    executor = Executor(director)
    executor.step(conn, NOW_MS)
    director.broken = FleetServerError("no online key")
    transact(conn, lambda c: acts.abort(c, name, "stop", by=ANNA, now_ms=NOW_MS))
    executor.step(conn, NOW_MS + MINUTE_MS)
    assert conn.execute("SELECT count(*) FROM wanted WHERE bundle IS NOT NULL").fetchone()[0] == 0
    assert states(conn, name)["stopping"] == 2
    director.broken = None
    executor.step(conn, NOW_MS + 2 * MINUTE_MS)
    assert director.given == {}, "and the director follows as soon as it can"


# Facts ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.spec("U-402")
def test_disputed_records_feed_no_gate(conn: sqlite3.Connection) -> None:
    name, director = approved(conn), FakeDirector()
    Executor(director).step(conn, NOW_MS)
    answer(conn, NOW_MS)
    conn.execute("UPDATE update_step SET disputed = 1")
    conn.execute("DELETE FROM installed_version")
    Executor(director).step(conn, NOW_MS + MINUTE_MS)
    assert states(conn, name)["started"] == 2
    conn.execute("UPDATE update_step SET disputed = 0")
    Executor(director).step(conn, NOW_MS + MINUTE_MS)
    assert states(conn, name)["succeeded"] == 2


def test_another_component_follows_when_the_first_bundle_is_done(conn: sqlite3.Connection) -> None:
    first = approved(conn)
    custom = ImageCustom(component="catalogue", version="7", release=7)
    release = releases.record(conn, custom, path="catalogue/7.json", length=10, sha256=b"7" * 32, by=CARL, now_ms=NOW_MS)
    second = approved(conn, release=release)
    run(conn, FakeDirector(), hours=80)
    assert store.sheet(conn, first).rollout.state is RolloutState.FINISHED
    assert store.sheet(conn, second).rollout.state is RolloutState.FINISHED
    assert set(states(conn, second)) == {"succeeded"}


def test_firmware_goes_to_the_slots_whose_profile_it_fits(conn: sqlite3.Connection) -> None:
    row = conn.execute(
        "SELECT profile, terminal, slot FROM device WHERE profile IS NOT NULL ORDER BY profile, terminal LIMIT 1"
    ).fetchone()
    custom = ImageCustom(component="firmware", version="4.2", release=4, hardware=(row[0],))
    release = releases.record(conn, custom, path="firmware/x/4.2.bin", length=10, sha256=b"f" * 32, by=CARL, now_ms=NOW_MS)
    name, director = (
        approved(conn, release=release, query=Query(conditions=(Condition(field="profile", values=(row[0],)),))),
        FakeDirector(),
    )
    run(conn, director, hours=40)
    fitting = {one[0] for one in conn.execute("SELECT d.terminal FROM device d JOIN terminal t ON t.id = d.terminal"
                                              " WHERE d.profile = ? AND t.revoked_ms IS NULL", (row[0],))}  # fmt: skip
    assert set(director.given) == fitting
    assert {one.component for one in director.given[row[1]]} >= {f"firmware/{row[2]}"}
    assert states(conn, name) == {"succeeded": len(fitting)}


def test_windows_of_the_site_come_with_the_bundle(conn: sqlite3.Connection) -> None:
    approved(conn, policy=msgspec.structs.replace(QUICK, window="closed"))
    director = FakeDirector()
    Executor(director).step(conn, NOW_MS)
    for terminal in director.given:
        bundle = pieces.pieces(conn, terminal).bundle
        assert bundle is not None
        assert bundle.windows
        assert all(begin < until for begin, until in bundle.windows)


def test_late_joiners_of_the_query_come_in(conn: sqlite3.Connection) -> None:
    name, director = (
        approved(conn, query=Query(conditions=(Condition(field="tag", values=("pilot",)),))) if _tag(conn, "kf-0001") else "",
        FakeDirector(),
    )
    Executor(director).step(conn, NOW_MS)
    _tag(conn, "kf-0009")
    Executor(director).step(conn, NOW_MS + MINUTE_MS)
    members = store.members(conn, name)
    assert members["kf-0009"].late
    assert members["kf-0009"].wave == max(wave.no for wave in store.sheet(conn, name).rollout.waves)


def _tag(conn: sqlite3.Connection, terminal: str) -> bool:
    conn.execute("UPDATE terminal SET tags = '[\"pilot\"]' WHERE id = ?", (terminal,))
    return True


# People ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "reason"), [(ANNA, "orderSelf"), (CARL, "rolloutUploader"), ("viewer", "orderMayNot"), ("ghost", "orderMayNot")]
)
def test_who_may_not_approve(conn: sqlite3.Connection, by: str, reason: str) -> None:
    name = ask(conn)
    with pytest.raises(Refused) as refused:
        transact(conn, lambda c: acts.approve(c, name, by=by, now_ms=NOW_MS))
    assert refused.value.reason == reason
    transact(conn, lambda c: acts.approve(c, name, by=BERT, now_ms=NOW_MS))
    assert store.sheet(conn, name).approved_by == BERT


@pytest.mark.parametrize("chain", [[(CARL, BERT)], [(BERT, CARL)], [(CARL, "dora"), ("dora", BERT)]])
def test_whose_account_the_uploader_had_in_hand_does_not_approve(conn: sqlite3.Connection, chain: list[tuple[str, str]]) -> None:
    add_person(conn, "dora")
    name = ask(conn)
    for by, staff in chain:
        remember(conn, staff, "reset", by=by, now_ms=NOW_MS - HOUR_MS)
    with pytest.raises(Refused, match="orderNotIndependent"):
        transact(conn, lambda c: acts.approve(c, name, by=BERT, now_ms=NOW_MS))
    assert store.sheet(conn, name).rollout.state is RolloutState.WAITING


def test_nothing_starts_before_the_second_person(conn: sqlite3.Connection) -> None:
    name, director = ask(conn), FakeDirector()
    Executor(director).step(conn, NOW_MS + HOUR_MS)
    assert set(states(conn, name)) == {"waiting"}
    assert director.given == {}


@pytest.mark.parametrize("column", ["policy", "query", "releases", "approved_by"])
def test_what_was_changed_after_the_approval_is_not_carried_out(conn: sqlite3.Connection, column: str) -> None:
    """Somebody with access to the database, but to no second account."""
    name, director = approved(conn), FakeDirector()
    other = agent(conn, "9.9.9", 99)
    values = {
        "policy": msgspec.json.encode(msgspec.structs.replace(QUICK, canary=50)).decode(),
        "query": '{"conditions":[{"field":"area","values":["yiwu"]}]}',
        "releases": json.dumps([other]),
        "approved_by": ANNA,
    }
    conn.execute(f"UPDATE rollout SET {column} = ? WHERE id = ?", (values[column], name))
    Executor(director).step(conn, NOW_MS)
    sheet = store.sheet(conn, name)
    assert (sheet.rollout.state, sheet.rollout.reason) == (RolloutState.STOPPED, "notApproved")
    assert director.given == {}


@pytest.mark.parametrize("what", ["approver", "content"])
def test_an_approval_that_the_audit_log_does_not_have_is_none(conn: sqlite3.Connection, what: str) -> None:
    name, director = approved(conn), FakeDirector()
    if what == "approver":
        conn.execute("UPDATE rollout SET approved_by = ? WHERE id = ?", (CARL, name))
    else:
        # Whoever writes rows can work out a digest; the log still has the one that was agreed to.
        wild = msgspec.json.encode(msgspec.structs.replace(QUICK, canary=50)).decode()
        conn.execute("UPDATE rollout SET policy = ? WHERE id = ?", (wild, name))
        digest = acts.digest_of(conn, store.sheet(conn, name))
        conn.execute("UPDATE rollout SET digest = ? WHERE id = ?", (digest, name))
    Executor(director).step(conn, NOW_MS)
    sheet = store.sheet(conn, name)
    assert (sheet.rollout.state, sheet.rollout.reason) == (RolloutState.STOPPED, "notApproved")
    assert director.given == {}


@pytest.mark.parametrize("who", [ANNA, BERT])
@pytest.mark.parametrize("begun", [False, True])
def test_a_rollout_of_somebody_whose_account_is_disabled_is_held(conn: sqlite3.Connection, who: str, begun: bool) -> None:
    name, director = approved(conn), FakeDirector()
    executor = Executor(director)
    if begun:
        executor.step(conn, NOW_MS)
    given = dict(director.given)
    conn.execute("UPDATE staff SET disabled_ms = ? WHERE name = ?", (NOW_MS, who))
    executor.step(conn, NOW_MS + MINUTE_MS)
    answer(conn, NOW_MS + MINUTE_MS)
    executor.step(conn, NOW_MS + HOUR_MS)
    sheet = store.sheet(conn, name)
    assert (sheet.rollout.state, sheet.rollout.reason) == (RolloutState.HELD, "accountGone")
    assert director.given.keys() <= given.keys()
    conn.execute("UPDATE staff SET disabled_ms = NULL WHERE name = ?", (who,))
    transact(conn, lambda c: acts.resume(c, name, by=ANNA, now_ms=NOW_MS + HOUR_MS))
    run(conn, director, hours=60, from_ms=NOW_MS + HOUR_MS)
    assert store.sheet(conn, name).rollout.state is RolloutState.FINISHED


def test_a_release_called_bad_stops_its_rollouts_and_starts_no_new_one(conn: sqlite3.Connection) -> None:
    release = agent(conn)
    name, director = approved(conn, release=release), FakeDirector()
    Executor(director).step(conn, NOW_MS)
    transact(conn, lambda c: releases.call(c, release, "bad", "crashes on model B", by=BERT, now_ms=NOW_MS))
    Executor(director).step(conn, NOW_MS + MINUTE_MS)
    assert store.sheet(conn, name).rollout.reason == "badRelease"
    assert director.given == {}
    with pytest.raises(Refused) as refused:
        ask(conn, release=release)
    assert refused.value.reason == "badRelease"


def test_a_pause_holds_those_in_the_middle_and_resume_lets_them_go(conn: sqlite3.Connection) -> None:
    name, director = approved(conn), FakeDirector()
    executor = Executor(director)
    executor.step(conn, NOW_MS)
    transact(conn, lambda c: acts.pause(c, name, by=ANNA, now_ms=NOW_MS))
    executor.step(conn, NOW_MS)
    bundles = [pieces.pieces(conn, terminal).bundle for terminal in director.given]
    assert [bundle.hold for bundle in bundles if bundle] == [True, True]
    transact(conn, lambda c: acts.resume(c, name, by=ANNA, now_ms=NOW_MS))
    executor.step(conn, NOW_MS)
    bundles = [pieces.pieces(conn, terminal).bundle for terminal in director.given]
    assert [bundle.hold for bundle in bundles if bundle] == [False, False]


def test_retry_gives_a_new_bundle_to_those_that_failed(conn: sqlite3.Connection) -> None:
    name, director = approved(conn), FakeDirector()
    executor = Executor(director)
    executor.step(conn, NOW_MS)
    bad = next(iter(director.given))
    first = director.given[bad][0].bundle
    answer(conn, NOW_MS, bad=frozenset({bad}))
    executor.step(conn, NOW_MS + MINUTE_MS)
    assert store.sheet(conn, name).rollout.state is RolloutState.HELD
    with pytest.raises(Conflict):
        transact(conn, lambda c: acts.resume(c, name, by=ANNA, now_ms=NOW_MS))
    assert transact(conn, lambda c: acts.retry(c, name, by=ANNA, now_ms=NOW_MS + MINUTE_MS)) == 1
    executor.step(conn, NOW_MS + 2 * MINUTE_MS)
    assert director.given[bad][0].bundle != first
    run(conn, director, hours=60, from_ms=NOW_MS + 3 * MINUTE_MS)
    assert store.sheet(conn, name).rollout.state is RolloutState.FINISHED


def finished(conn: sqlite3.Connection, policy: Policy = QUICK) -> str:
    """With one terminal that failed."""
    name = approved(conn, policy=policy)
    run(conn, FakeDirector(), hours=60)
    assert store.sheet(conn, name).rollout.state is RolloutState.FINISHED
    one = next(iter(store.members(conn, name)))
    conn.execute("UPDATE rollout_member SET state = 'failed' WHERE rollout = ? AND terminal = ?", (name, one))
    return name


def test_an_approval_holds_for_retries_of_a_finished_rollout_for_two_weeks(conn: sqlite3.Connection) -> None:
    name = finished(conn)
    late = NOW_MS + acts.APPROVAL_LASTS_MS
    with pytest.raises(Refused, match="retryOld"):
        transact(conn, lambda c: acts.retry(c, name, by=ANNA, now_ms=late + 1))
    assert store.sheet(conn, name).rollout.state is RolloutState.FINISHED
    assert transact(conn, lambda c: acts.retry(c, name, by=ANNA, now_ms=late)) == 1


def test_a_downgrade_that_finished_is_not_retried(conn: sqlite3.Connection) -> None:
    name = finished(conn, msgspec.structs.replace(QUICK, downgrade=True))
    with pytest.raises(Refused, match="retryDowngrade"):
        transact(conn, lambda c: acts.retry(c, name, by=ANNA, now_ms=NOW_MS + HOUR_MS))
    assert store.sheet(conn, name).rollout.state is RolloutState.FINISHED


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (msgspec.structs.replace(QUICK, steps=(Step(percent=50), Step(percent=20))), "wavesOrder"),
        (msgspec.structs.replace(QUICK, steps=(Step(),)), "waves"),
        (msgspec.structs.replace(QUICK, failure_count=11, failure_first=10), "failureGate"),
    ],
)
def test_policies_that_contradict_themselves_are_refused(conn: sqlite3.Connection, policy: Policy, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        ask(conn, policy=policy)
    assert refused.value.reason == reason


def test_a_group_of_nobody_is_refused(conn: sqlite3.Connection) -> None:
    with pytest.raises(Refused) as refused:
        ask(conn, query=Query(conditions=(Condition(field="site", values=("nowhere",)),)))
    assert refused.value.reason == "nobody"


def test_every_act_is_in_the_audit_log(conn: sqlite3.Connection) -> None:
    name = approved(conn)
    transact(conn, lambda c: acts.pause(c, name, by=ANNA, now_ms=NOW_MS))
    transact(conn, lambda c: acts.resume(c, name, by=BERT, now_ms=NOW_MS))
    transact(conn, lambda c: acts.abort(c, name, "enough", by=BERT, now_ms=NOW_MS))
    found = [
        (row[0], row[1]) for row in conn.execute("SELECT actor, action FROM audit WHERE action LIKE 'rollout.%' ORDER BY id")
    ]
    assert found == [
        (ANNA, "rollout.draft"), (ANNA, "rollout.submit"), (BERT, "rollout.approve"), (ANNA, "rollout.pause"), (BERT, "rollout.resume"),
        (BERT, "rollout.abort"),
    ]  # fmt: skip


def test_freeze_periods_keep_rollouts_from_starting(conn: sqlite3.Connection) -> None:
    transact(conn, lambda c: acts.add_freeze(c, "Fair", NOW_MS - HOUR_MS, NOW_MS + HOUR_MS, by=ANNA, now_ms=NOW_MS))
    name, director = approved(conn, policy=msgspec.structs.replace(QUICK, ignore_freeze=False)), FakeDirector()
    Executor(director).step(conn, NOW_MS)
    assert director.given == {}
    reasons = {member.reason for member in store.members(conn, name).values() if member.wave == 0}
    assert reasons == {"frozen"}
    Executor(director).step(conn, NOW_MS + 2 * HOUR_MS)
    assert len(director.given) == 2
    with pytest.raises(Refused):
        transact(conn, lambda c: acts.add_freeze(c, "Upside down", NOW_MS + 2, NOW_MS + 1, by=ANNA, now_ms=NOW_MS))


def test_what_was_published_elsewhere_becomes_known_once(conn: sqlite3.Connection) -> None:
    custom = ImageCustom(component="agent", version="5.0.0", release=50)
    found = [("agent/agent-5.0.0.tar", 5, b"5" * 32, custom)]
    assert sync_releases(conn, found, NOW_MS) == 1
    assert sync_releases(conn, found, NOW_MS) == 0
    assert next(iter(store.releases(conn).values())).label == "agent 5.0.0"


def test_every_member_that_is_not_at_an_end_says_what_it_waits_for_and_since_when(conn: sqlite3.Connection) -> None:
    name = approved(conn)
    Executor(FakeDirector()).step(conn, NOW_MS)
    for member in store.members(conn, name).values():
        assert member.state not in FINAL
        assert member.reason
        assert 0 < member.since_ms <= NOW_MS
        assert (member.state in BUSY) == (member.reason == "sent")
