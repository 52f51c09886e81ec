"""Carries out what the planner decides: the director first, then the desired state and the rollout's own rows, in short transactions.

It remembers nothing between two steps. Killed at any point it plans the same again, because ids of bundles follow from rollout, terminal and try, and
whatever was committed is a fact the next time. What the director describes without anybody wanting it is taken back.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from fleet_server import audit
from fleet_server.channel import transact
from fleet_server.errors import FleetServerError
from fleet_server.orders import wanted as pieces
from fleet_server.rollouts import acts, releases, store, world
from fleet_server.rollouts.planner import plan
from fleet_server.rollouts.rules import (
    ENDED,
    Action,
    End,
    GateMet,
    Join,
    Member,
    OpenWave,
    PassWave,
    Renew,
    Rollout,
    RolloutState,
    SetState,
    Start,
    Withdraw,
    applied,
)
from fleet_server.rollouts.store import Sheet
from fleet_server.updates.director import Assignment
from fleet_server.updates.errors import Busy
from protocols.contract.orders import Bundle, Wanted

log = logging.getLogger(__name__)

AT_ONCE: Final = 25
"""Actions of one transaction: a few milliseconds, so that ingest does not wait."""
EVERY_S: Final = 2.0
WHOLE: Final = (SetState, OpenWave, GateMet, PassWave)
"""Actions that concern no single terminal."""


class Director(Protocol):
    """What the repositories do for rollouts."""

    def assign(self, given: Mapping[str, Sequence[Assignment]], now_ms: int) -> None:
        """Replace what these terminals get; nothing for an empty sequence. FleetServerError: then nothing was changed."""

    def assigned(self) -> Mapping[str, Sequence[Assignment]]:
        """What is described now."""


class Executor:
    """`step` is the duty's. `after` is told the name of each thing that was done; tests cut it off there."""

    def __init__(self, director: Director, after: Callable[[str], None] = lambda _: None) -> None:
        self._director = director
        self._after = after
        self._must_compare = True

    def step(self, conn: sqlite3.Connection, now_ms: int) -> bool:
        """One round over all rollouts, in the order of their precedence. True if a person interfered and it must look again at once."""
        names = store.unfinished(conn)
        if self._must_compare:
            self._compare(conn, now_ms)
        if not names:
            return False
        conn.execute("BEGIN")
        try:
            sheets = store.sheets(conn, names)
            members: dict[str, dict[str, Member]] = {name: store.members(conn, name) for name in sheets}
            known = store.releases(conn, {one for sheet in sheets.values() for one in sheet.releases})
            ground = world.ground(conn, now_ms)
            steps = world.steps_of(conn, members)
            problems = {name: acts.approval_problem(conn, sheet) for name, sheet in sheets.items()}
        finally:
            conn.execute("ROLLBACK")
        again = False
        for name in sorted(sheets, key=lambda one: sheets[one].rollout.order):
            sheet = sheets[name]
            if problems[name] == "notApproved" and sheet.rollout.state not in ENDED:
                actions: list[Action] = [SetState(state=RolloutState.STOPPED, reason="notApproved")]
            elif problems[name] == "accountGone" and sheet.rollout.state in {RolloutState.APPROVED, RolloutState.RUNNING}:
                actions = [SetState(state=RolloutState.HELD, reason="accountGone")]
            else:
                look = world.worlds(ground, sheets, members, known, steps, name)
                actions = plan(sheet.rollout, members[name].values(), look, now_ms)
            if not actions:
                continue
            run = _Run(conn, sheet, members[name], [known[one] for one in sheet.releases if one in known], ground, now_ms)
            try:
                self._direct(run, actions)
            except Busy:
                raise
            except FleetServerError as err:
                log.error("rollout %s: %s", acts.name_of(name), err)
                self._must_compare = True
                if any(isinstance(action, Start) for action in actions):
                    run.hold(str(err))
                    continue
                # Taking something back must not wait for the director: a terminal installs only what both describe.
            if not run.carry_out(actions, self._after):
                # Somebody pressed a button meanwhile: what the director was told may not hold any more.
                self._must_compare = again = True
            sheets[name] = msgspec.structs.replace(sheet, rollout=run.rollout)
        return again

    def _direct(self, run: _Run, actions: Iterable[Action]) -> None:
        """All terminals of this round in one publication."""
        given: dict[str, Sequence[Assignment]] = {}
        for action in actions:
            match action:
                case Start():
                    given[action.terminal] = run.assignments(action.terminal, action.bundle)
                case Withdraw() | End(withdraw=True):
                    if run.holds(action.terminal):
                        given[action.terminal] = ()
        if given:
            self._director.assign(given, run.now_ms)
            self._after("director")

    def _compare(self, conn: sqlite3.Connection, now_ms: int) -> None:
        """Make the director agree with the desired states: after a crash between the two, or a restore of one of them."""
        rows = conn.execute("SELECT terminal, bundle FROM wanted WHERE bundle IS NOT NULL").fetchall()
        right: dict[str, tuple[Assignment, ...]] = {}
        for terminal, text in rows:
            bundle = msgspec.json.decode(text, type=Bundle)
            right[terminal] = tuple(
                Assignment(bundle=bundle.id.hex(), component=one.component, target=one.target, downgrade=bundle.downgrade)
                for one in bundle.wanted
            )
        there = {terminal: tuple(given) for terminal, given in self._director.assigned().items()}
        wrong = {
            terminal: right.get(terminal, ())
            for terminal in {*right, *there}
            if _bundles(right.get(terminal, ())) != _bundles(there.get(terminal, ()))
        }
        if wrong:
            log.warning("the director is brought into line for %d terminals", len(wrong))
            try:
                self._director.assign(wrong, now_ms)
            except Busy:
                raise
            except FleetServerError as err:
                # Looked at again in the next round; what is to be stopped is stopped meanwhile.
                log.error("the director cannot be brought into line: %s", err)
                return
            self._after("director")
        self._must_compare = False


def _bundles(given: Iterable[Assignment]) -> set[tuple[str, str]]:
    return {(one.bundle, one.component) for one in given}


class _Run:
    """The actions of one rollout in one round."""

    def __init__(
        self,
        conn: sqlite3.Connection,
        sheet: Sheet,
        members: dict[str, Member],
        chosen: Sequence[store.Release],
        ground: world.Ground,
        now_ms: int,
    ) -> None:
        self.conn, self.sheet, self.members, self.chosen = conn, sheet, members, chosen
        self.ground, self.now_ms = ground, now_ms
        self.rollout: Rollout = sheet.rollout

    def components(self, terminal: str) -> list[tuple[str, store.Release]]:
        one = self.ground.terminals[terminal]
        return [(component, release) for release in self.chosen for component in release.components(one.profiles)]

    def assignments(self, terminal: str, bundle: str) -> tuple[Assignment, ...]:
        return tuple(
            Assignment(bundle=bundle, component=component, target=release.path, downgrade=self.rollout.policy.downgrade)
            for component, release in self.components(terminal)
        )

    def holds(self, terminal: str) -> bool:
        """Whether the terminal's desired state still has this rollout's bundle: another rollout may have followed."""
        held = pieces.pieces(self.conn, terminal).bundle
        return held is not None and held.id.hex() == self.members[terminal].bundle

    def carry_out(self, actions: Sequence[Action], after: Callable[[str], None]) -> bool:
        """False if a person changed the rollout meanwhile; what was done before that stays."""
        for first in range(0, len(actions), AT_ONCE):
            some = actions[first : first + AT_ONCE]
            if not transact(self.conn, partial(self._do, actions=some)):
                return False
            after("transaction")
        return True

    def hold(self, why: str) -> None:
        """The repository cannot serve it: nobody starts until a person has looked."""

        def write(conn: sqlite3.Connection) -> None:
            sheet = store.sheet(conn, self.rollout.id)
            if sheet.rollout.state not in {RolloutState.RUNNING, RolloutState.APPROVED} or sheet.revision != self.sheet.revision:
                return
            put, _ = applied(sheet.rollout, {}, SetState(state=RolloutState.HELD, reason="repository"), self.now_ms)
            store.put_rollout(conn, put)
            store.remember(conn, self.rollout.id, "held", self.now_ms, reason="repository", text=why[:300])
            store.tell(conn, self.rollout.id, self.now_ms)

        transact(self.conn, write)

    def _do(self, conn: sqlite3.Connection, actions: Sequence[Action]) -> bool:
        row = conn.execute("SELECT revision FROM rollout WHERE id = ?", (self.rollout.id,)).fetchone()
        if row is None or row[0] != self.sheet.revision:
            return False
        touched: dict[str, Member] = {}
        rollout = self.rollout
        for action in actions:
            before = self.members.get(action.terminal) if not isinstance(action, WHOLE) else None
            self.rollout, member = applied(self.rollout, self.members, action, self.now_ms)
            self._reach(conn, action, before)
            if member is not None:
                self.members[member.terminal] = touched[member.terminal] = member
            self._tell_history(conn, action, before)
        if self.rollout != rollout:
            store.put_rollout(conn, self.rollout)
        for member in touched.values():
            store.put_member(conn, self.rollout.id, member)
        # Pages of terminals look again when something began or ended there, not whenever the words of a wait change.
        begun = {action.terminal for action in actions if isinstance(action, (Start, Withdraw, End))}
        store.tell(conn, self.rollout.id, self.now_ms, (None, *sorted(begun)))
        return True

    def _reach(self, conn: sqlite3.Connection, action: Action, before: Member | None) -> None:
        """What the terminal is told."""
        by, approved_by = self.sheet.created_by, self.sheet.approved_by
        match action:
            case Start():
                bundle = self._bundle(action)
                pieces.set_bundle(conn, action.terminal, bundle, by=by, approved_by=approved_by, now_ms=self.now_ms)
            case Renew():
                held = pieces.pieces(conn, action.terminal).bundle
                if held is None or before is None or held.id.hex() != before.bundle:
                    return
                renewed = msgspec.structs.replace(held, windows=action.windows, hold=action.hold)
                pieces.set_bundle(conn, action.terminal, renewed, by=by, approved_by=approved_by, now_ms=self.now_ms)
            case Withdraw() | End(withdraw=True):
                if self.holds(action.terminal):
                    pieces.set_bundle(conn, action.terminal, None, by=by, approved_by=None, now_ms=self.now_ms)

    def _bundle(self, action: Start) -> Bundle:
        policy = self.rollout.policy
        return Bundle(
            id=bytes.fromhex(action.bundle),
            rollout=bytes.fromhex(self.rollout.id),
            wanted=tuple(
                Wanted(
                    component=component,
                    target=release.path,
                    version=release.version,
                    release=release.release,
                    length=release.length,
                    sha256=release.sha256,
                )
                for component, release in self.components(action.terminal)
            ),
            windows=action.windows,
            not_before_ms=policy.not_before_ms,
            rate_bytes_s=policy.rate_bytes_s,
            downgrade=policy.downgrade,
            probation_s=policy.probation_s,
        )

    def _tell_history(self, conn: sqlite3.Connection, action: Action, before: Member | None) -> None:
        """Lines that people read later; waits and windows are not among them."""
        name, now_ms = self.rollout.id, self.now_ms
        detail: dict[str, Any]
        match action:
            case SetState():
                store.remember(conn, name, action.state.value, now_ms, reason=action.reason)
                if action.state in {*ENDED, RolloutState.HELD}:
                    detail = {"title": self.sheet.title, "reason": action.reason}
                    audit.write(
                        conn,
                        audit.SERVER,
                        None,
                        f"rollout.{action.state.value}",
                        f"rollout:{acts.name_of(name)}",
                        detail,
                        now_ms=now_ms,
                    )
            case OpenWave():
                store.remember(conn, name, "wave", now_ms, no=action.no)
            case PassWave():
                store.remember(conn, name, "passed", now_ms, no=action.no)
            case Join():
                store.remember(conn, name, "join", now_ms, terminal=action.terminal)
            case Start():
                store.remember(conn, name, "start", now_ms, terminal=action.terminal, attempt=(before.tries if before else 0) + 1)
            case Withdraw():
                store.remember(conn, name, "withdraw", now_ms, terminal=action.terminal)
            case End():
                store.remember(
                    conn, name, "end", now_ms, terminal=action.terminal, state=action.state.value, reason=action.reason
                )


def sync_releases(conn: sqlite3.Connection, found: Iterable[tuple[str, int, bytes, Any]], now_ms: int) -> int:
    """Rows for what the image repository describes and rollouts do not know yet: published on the command line, or before a restore.

    `found`: (path, length, sha256, ImageCustom). Returns how many were new.
    """
    known = {row[0] for row in conn.execute("SELECT path FROM release")}
    new = [one for one in found if one[0] not in known]
    if new:

        def write(inside: sqlite3.Connection) -> None:
            for path, length, sha256, custom in new:
                releases.record(inside, custom, path=path, length=length, sha256=sha256, by=audit.SERVER, now_ms=now_ms)

        transact(conn, write)
    return len(new)
