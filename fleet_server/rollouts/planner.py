"""Decides what a rollout does next. Pure: rollout, members, facts and the time come in, actions come out.

Called again with the same values after its actions were applied, it decides nothing: that is how a restart in the middle changes nothing.
Nobody is started while it is paused or held, in frozen time, behind another rollout, beside another machine of the same hall, or faster than the
rate. Every member that is not at its end says what it waits for, and since when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from fleet_server.rollouts.rules import (
    ACTIVE,
    BUSY,
    ENDED,
    FINAL,
    SECOND_MS,
    Action,
    End,
    GateMet,
    Join,
    Member,
    MemberState,
    OpenWave,
    PassWave,
    Renew,
    Rollout,
    RolloutState,
    SetState,
    Span,
    Start,
    Wait,
    Withdraw,
    applied,
    bundle_id,
    gate_of,
    hall_limit,
    tally,
)
from fleet_server.rollouts.windows import HORIZON_DAYS, RENEW_BEFORE_MS, overlap_ms, same_future, until_ms
from fleet_server.sites.calendar import DAY_MS

STOP_MS: Final = DAY_MS
"""How long somebody who was told to stop has to say what became of it."""
MINUTE_MS: Final = 60_000
GOOD: Final = "committed"
BAD: Final = frozenset({"rolledBack", "failed", "refused"})
GIVEN_UP: Final = "cancelled"
NO_UPDATER: Final = "noUpdater"
"""Nothing there can install anything: the release is not to blame, and no gate counts it."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One component as the rollout wants it at one terminal."""

    component: str
    version: str
    release: int


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """A terminal's newest signed word on one component of its bundle."""

    state: str
    reason: str
    bundle: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One terminal, as far as a rollout must know it."""

    terminal: str
    site: str
    enrolled: bool = True
    retired: bool = False
    maintenance: bool = False
    heard_ms: int | None = None
    """Last sign of life."""
    wanted: tuple[Wanted, ...] = ()
    """What the rollout's releases mean here; empty: nothing of them fits."""
    running: Mapping[str, tuple[str, int]] = {}
    """Component → (version, release counter), by the terminal's own word."""
    steps: Mapping[str, Heard] = {}
    """By component."""
    windows: tuple[Span, ...] | None = None
    """From now to the horizon; None: at any time."""
    other: str = ""
    """Another rollout that goes first here, or is in the middle here."""


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What holds beyond one terminal."""

    terminals: Mapping[str, Facts]
    halls: Mapping[str, int] = {}
    """Site → machines that stand there."""
    hall_busy: Mapping[str, int] = {}
    """Site → machines in the middle of other rollouts."""
    frozen: tuple[Span, ...] = ()
    joiners: tuple[tuple[str, str], ...] = ()
    """(terminal, site) of those that fit and are no members yet."""
    bad_release: bool = False
    """Somebody called one of its releases bad."""


def plan(rollout: Rollout, members: Iterable[Member], world: World, now_ms: int) -> list[Action]:
    """The next actions, in the order in which they are to be done."""
    if rollout.state in {RolloutState.DRAFT, RolloutState.WAITING}:
        return []
    work = _Work(rollout, {member.terminal: member for member in members}, world, now_ms)
    work.hear()
    if work.rollout.state in ACTIVE:
        work.judge()
    if work.rollout.state in ENDED:
        work.wind_up()
        return work.actions
    work.begin()
    work.join()
    if work.rollout.state is RolloutState.RUNNING:
        work.advance()
    work.keep_told()
    while work.rollout.state is RolloutState.RUNNING:
        work.start()
        # Who needs nothing, or cannot be tried now, may meet a gate by it and open the next wave.
        seen = len(work.actions)
        work.advance()
        if len(work.actions) == seen:
            break
    if work.rollout.state is RolloutState.RUNNING:
        work.finish()
    else:
        work.stand_still()
    return work.actions


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as others meet it."""

    rollout: Rollout
    members: Mapping[str, Member]
    touches: frozenset[str]
    """What it updates: components, without the slot."""
    joiners: frozenset[str] = frozenset()
    """Terminals that are about to become members."""


def precedence(contenders: Iterable[Contender]) -> dict[str, dict[str, str]]:
    """By rollout: terminal → the rollout that goes first there. Explicit priority, then the older one.

    A terminal does one bundle at a time, so whoever is in the middle is let through, whatever he updates. One that has not begun is in the way of
    what updates the same component, as long as it may still begin.
    """
    ordered = sorted(contenders, key=lambda one: one.rollout.order)
    in_the_middle: dict[str, str] = {}
    for one in ordered:
        for member in one.members.values():
            if member.state in BUSY:
                in_the_middle[member.terminal] = one.rollout.id
    found: dict[str, dict[str, str]] = {}
    for place, one in enumerate(ordered):
        before = [
            other for other in ordered[:place] if other.rollout.state in ACTIVE and not one.touches.isdisjoint(other.touches)
        ]
        first: dict[str, str] = {}
        for terminal in {*one.members, *one.joiners}:
            holder = in_the_middle.get(terminal, "")
            if not holder:
                holder = next((other.rollout.id for other in before if _still_wants(other.members.get(terminal))), "")
            if holder and holder != one.rollout.id:
                first[terminal] = holder
        found[one.rollout.id] = first
    return found


def _still_wants(member: Member | None) -> bool:
    return member is not None and member.state not in FINAL


class _Work:
    """One pass: every decision sees what the ones before it made."""

    def __init__(self, rollout: Rollout, members: dict[str, Member], world: World, now_ms: int) -> None:
        self.rollout, self.members, self.world, self.now_ms = rollout, members, world, now_ms
        self.policy = rollout.policy
        self.frozen = () if self.policy.ignore_freeze else world.frozen
        self.actions: list[Action] = []

    def do(self, action: Action) -> None:
        self.rollout, member = applied(self.rollout, self.members, action, self.now_ms)
        if member is not None:
            self.members[member.terminal] = member
        self.actions.append(action)

    def facts(self, member: Member) -> Facts | None:
        return self.world.terminals.get(member.terminal)

    def in_order(self) -> list[Member]:
        return sorted(self.members.values(), key=lambda member: (member.wave, member.bucket, member.terminal))

    def site(self, member: Member) -> str:
        facts = self.facts(member)
        return facts.site if facts is not None else member.site

    def went_ms(self, since_ms: int, paused_before_ms: int) -> int:
        """How long this has been going on, pauses and frozen time left out."""
        pauses_ms = self.rollout.paused_total_ms(self.now_ms) - paused_before_ms
        still_ms = overlap_ms((since_ms, self.now_ms), self.frozen)
        return max(0, self.now_ms - since_ms - pauses_ms - still_ms)

    # What terminals said ------------------------------------------------------------------------------------------------------------------

    def hear(self) -> None:
        for member in self.in_order():
            if member.state in FINAL:
                continue
            facts = self.facts(member)
            if facts is None or facts.retired:
                self.do(End(terminal=member.terminal, state=MemberState.SKIPPED, reason="retired", withdraw=member.state in BUSY))
            elif member.state in BUSY:
                self._hear_one(member, facts)

    def _hear_one(self, member: Member, facts: Facts) -> None:
        heard = [
            facts.steps[name] for name in member.components if name in facts.steps and facts.steps[name].bundle == member.bundle
        ]
        states = {one.state for one in heard}
        wrong = next((one for one in heard if one.state in BAD), None)
        stopping = member.state is MemberState.STOPPING
        if wrong is not None and wrong.reason == NO_UPDATER:
            self.do(End(terminal=member.terminal, state=MemberState.SKIPPED, reason=NO_UPDATER, withdraw=not stopping))
        elif wrong is not None:
            ended = MemberState.STOPPED if stopping and wrong.reason in {"aborted", "superseded"} else MemberState.FAILED
            self.do(End(terminal=member.terminal, state=ended, reason=wrong.reason, withdraw=not stopping))
        elif member.components and (
            (len(heard) == len(member.components) and states == {GOOD}) or (not heard and self._runs(member, facts))
        ):
            self.do(End(terminal=member.terminal, state=MemberState.SUCCEEDED, reason="committed"))
        elif GIVEN_UP in states:
            # Given up although nobody asked for it: that is no success.
            ended = MemberState.STOPPED if stopping else MemberState.FAILED
            self.do(End(terminal=member.terminal, state=ended, reason="cancelled", withdraw=not stopping))
        elif stopping:
            if self.now_ms - member.since_ms > STOP_MS:
                self.do(End(terminal=member.terminal, state=MemberState.STOPPED, reason="noReply"))
        elif self.went_ms(member.started_ms or self.now_ms, member.paused_before_ms) > self.policy.timeout_s * SECOND_MS:
            self.do(End(terminal=member.terminal, state=MemberState.FAILED, reason="timeout", withdraw=True))

    def _runs(self, member: Member, facts: Facts) -> bool:
        """Whether exactly what is wanted runs there, all of it, by the terminal's own word: its steps may have been lost with its disk.

        Where there are steps they count alone: a version in probation runs, too.
        """
        wanted = {one.component: (one.version, one.release) for one in facts.wanted if one.component in member.components}
        return len(wanted) == len(member.components) and all(facts.running.get(name) == pair for name, pair in wanted.items())

    # Gates --------------------------------------------------------------------------------------------------------------------------------

    def judge(self) -> None:
        if self.world.bad_release:
            self.do(SetState(state=RolloutState.STOPPED, reason="badRelease"))
        elif tripped := tally(self.members.values(), self.policy).tripped:
            self.do(SetState(state=RolloutState.STOPPED, reason=f"failures.{tripped}"))

    def begin(self) -> None:
        if self.rollout.state is RolloutState.APPROVED and self.now_ms >= self.policy.not_before_ms:
            self.do(SetState(state=RolloutState.RUNNING))
        if self.rollout.state is RolloutState.RUNNING and self.rollout.wave < 0:
            self.do(OpenWave(no=0))

    def advance(self) -> None:
        """Open the next wave as long as the gate of the open one is met and its soak time is over."""
        while self.rollout.wave < len(self.rollout.waves) - 1:
            wave = self.rollout.waves[self.rollout.wave]
            of_wave = [member for member in self.members.values() if member.wave == wave.no]
            gate = gate_of(of_wave, self.policy.success_percent)
            nobody = all(member.state in FINAL for member in of_wave) and gate.counted == 0
            if gate.met != (wave.met_ms is not None):
                self.do(GateMet(no=wave.no, met=gate.met))
                wave = self.rollout.waves[wave.no]
            if gate.impossible or (nobody and wave.no == 0 and of_wave):
                self.do(SetState(state=RolloutState.HELD, reason="noCanary" if nobody else "successGate"))
                return
            soaked = wave.met_ms is not None and self.now_ms - wave.met_ms >= self.policy.soak_s * SECOND_MS
            if not soaked and not nobody:
                return
            self.do(PassWave(no=wave.no))
            self.do(OpenWave(no=wave.no + 1))

    def finish(self) -> None:
        is_last = self.rollout.wave == len(self.rollout.waves) - 1
        if is_last and all(member.state in FINAL for member in self.members.values()):
            self.do(PassWave(no=self.rollout.wave))
            self.do(SetState(state=RolloutState.FINISHED))

    # Members ------------------------------------------------------------------------------------------------------------------------------

    def join(self) -> None:
        if not self.policy.late_joiners:
            return
        last = self.rollout.waves[-1].no
        for terminal, site in sorted(self.world.joiners):
            if terminal not in self.members:
                self.do(Join(terminal=terminal, site=site, wave=last))

    def wind_up(self) -> None:
        """After the end: who has not started never starts, who is in the middle is told to stop."""
        for member in self.in_order():
            if member.state is MemberState.WAITING:
                self.do(End(terminal=member.terminal, state=MemberState.STOPPED, reason="notStarted"))
            elif member.state is MemberState.STARTED:
                self.do(Withdraw(terminal=member.terminal, reason=self.rollout.state.value))

    def keep_told(self) -> None:
        """Windows that hold, and a hold during a pause. A held rollout lets those in the middle finish: what becomes of them is what it waits for."""
        hold = self.rollout.state is RolloutState.PAUSED
        for member in self.in_order():
            facts = self.facts(member)
            if member.state is not MemberState.STARTED or facts is None:
                continue
            is_short = member.windows is not None and member.windows_to_ms - self.now_ms < RENEW_BEFORE_MS
            if (
                member.hold != hold
                or is_short
                or not same_future(member.windows, member.windows_to_ms, facts.windows, self.now_ms)
            ):
                self.do(
                    Renew(
                        terminal=member.terminal,
                        windows=facts.windows,
                        windows_to_ms=self.now_ms + HORIZON_DAYS * DAY_MS,
                        hold=hold,
                    )
                )

    def stand_still(self) -> None:
        word = {RolloutState.APPROVED: "notBefore", RolloutState.PAUSED: "paused", RolloutState.HELD: "held"}[self.rollout.state]
        for member in self.in_order():
            if member.state is MemberState.WAITING:
                self._wait(member, word)

    def start(self) -> None:
        busy = dict(self.world.hall_busy)
        begun = 0
        for member in self.members.values():
            if member.state in BUSY:
                busy[self.site(member)] = busy.get(self.site(member), 0) + 1
            if member.started_ms is not None and self.now_ms - member.started_ms < MINUTE_MS:
                begun += 1
        for member in self.in_order():
            if member.state is not MemberState.WAITING:
                continue
            facts = self.facts(member)
            if facts is None:  # `hear` has ended those
                continue
            if self._needs_nothing(member, facts):
                continue
            if member.wave > self.rollout.wave:
                self._wait(member, "wave", str(member.wave))
            elif blocked := self._blocked(member, facts, busy):
                self._give_up_or_wait(member, *blocked)
            elif begun >= self.policy.starts_per_minute:
                self._wait(member, "rate")
            else:
                begun += 1
                busy[facts.site] = busy.get(facts.site, 0) + 1
                self.do(
                    Start(
                        terminal=member.terminal,
                        bundle=bundle_id(self.rollout.id, member.terminal, member.tries + 1),
                        components=tuple(one.component for one in facts.wanted),
                        windows=facts.windows,
                        windows_to_ms=self.now_ms + HORIZON_DAYS * DAY_MS,
                    )
                )

    def _needs_nothing(self, member: Member, facts: Facts) -> bool:
        running = [facts.running.get(one.component) for one in facts.wanted]
        if not facts.wanted:
            self.do(End(terminal=member.terminal, state=MemberState.SKIPPED, reason="nothingFits"))
        elif all(now == (one.version, one.release) for now, one in zip(running, facts.wanted, strict=True)):
            self.do(End(terminal=member.terminal, state=MemberState.SUCCEEDED, reason="already"))
        elif not self.policy.downgrade and any(
            now is not None and now[1] > one.release for now, one in zip(running, facts.wanted, strict=True)
        ):
            self.do(End(terminal=member.terminal, state=MemberState.SKIPPED, reason="newer"))
        else:
            return False
        return True

    def _blocked(self, member: Member, facts: Facts, busy: Mapping[str, int]) -> tuple[str, str] | None:
        if not facts.enrolled:
            return "notEnrolled", ""
        if facts.maintenance:
            return "maintenance", ""
        if facts.heard_ms is None or self.now_ms - facts.heard_ms > self.policy.silent_s * SECOND_MS:
            return "silent", ""
        if facts.other:
            return "otherRollout", facts.other
        if (frozen_to := until_ms(self.now_ms, self.frozen)) is not None:
            return "frozen", str(frozen_to)
        if facts.windows is not None and not facts.windows:
            return "noWindow", ""
        if busy.get(facts.site, 0) >= hall_limit(self.world.halls.get(facts.site, 1), self.policy.hall_percent):
            return "hall", ""
        return None

    def _give_up_or_wait(self, member: Member, reason: str, detail: str) -> None:
        """Somebody who cannot be reached does not keep a rollout open for ever; he was not tried, so it is no failure."""
        wave = self.rollout.waves[member.wave]
        since_ms = max(wave.opened_ms if wave.opened_ms is not None else self.now_ms, member.joined_ms)
        went_ms = self.went_ms(since_ms, wave.paused_before_ms)
        if reason in {"silent", "maintenance", "notEnrolled"} and went_ms > self.policy.give_up_s * SECOND_MS:
            self.do(End(terminal=member.terminal, state=MemberState.MISSED, reason=reason))
        else:
            self._wait(member, reason, detail)

    def _wait(self, member: Member, reason: str, detail: str = "") -> None:
        if (member.reason, member.detail) != (reason, detail):
            self.do(Wait(terminal=member.terminal, reason=reason, detail=detail))
