"""A fleet as a planner sees it: terminals that do what they are made to do, in virtual time. What a rollout is told, it is told in facts."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fleet_server.rollouts.planner import Contender, Facts, Heard, Wanted, World, plan, precedence
from fleet_server.rollouts.rules import (
    BUSY,
    Action,
    Candidate,
    End,
    Member,
    Policy,
    Renew,
    Rollout,
    RolloutState,
    SetState,
    Span,
    Start,
    Withdraw,
    applied,
    waves_of,
)

START_MS = 1_795_000_000_000
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
ENDS = frozenset({"committed", "rolledBack", "refused", "cancelled"})
WANTED = (Wanted(component="agent", version="2.0.0", release=20),)


@dataclass
class Machine:
    """One terminal: what runs there and what it does with a bundle."""

    id: str
    site: str
    area: str
    hardware: str
    behaviour: str = "good"
    """`good`, `bad` (comes back on its old version), `refuses`, `hangs` (never says an end), `off` (is never heard)."""
    takes_ms: int = 10 * MINUTE_MS
    running: tuple[str, int] = ("1.0.0", 10)
    bundle: str = ""
    told_ms: int = 0
    withdrawn: bool = False
    hold: bool = False
    windows: tuple[Span, ...] | None = None
    heard: Heard | None = None
    installed: int = 0
    """How often it came to a new version."""

    def live(self, now_ms: int) -> None:
        """Does what is due by now."""
        if not self.bundle or self.behaviour == "off":
            return
        if self.heard is not None and self.heard.bundle == self.bundle and self.heard.state in ENDS:
            return
        if self.withdrawn:
            self.heard = Heard(state="cancelled", reason="aborted", bundle=self.bundle)
            return
        if self.behaviour == "hangs":
            self.heard = Heard(state="downloading", reason="none", bundle=self.bundle)
            return
        in_window = self.windows is None or any(begin <= now_ms < until for begin, until in self.windows)
        if self.hold or not in_window or now_ms - self.told_ms < self.takes_ms:
            self.heard = Heard(state="waiting", reason="hold" if self.hold else "window", bundle=self.bundle)
            return
        if self.behaviour == "bad":
            self.heard = Heard(state="rolledBack", reason="crashed", bundle=self.bundle)
        elif self.behaviour == "refuses":
            self.heard = Heard(state="refused", reason="notInImages", bundle=self.bundle)
        else:
            self.heard = Heard(state="committed", reason="none", bundle=self.bundle)
            self.running = ("2.0.0", 20)
            self.installed += 1


@dataclass
class Model:
    """Rollouts over machines. `tick` plans and applies, as the executor does, and keeps what a test wants to look at."""

    machines: dict[str, Machine]
    rollouts: dict[str, Rollout] = field(default_factory=dict)
    members: dict[str, dict[str, Member]] = field(default_factory=dict)
    frozen: tuple[Span, ...] = ()
    bad_release: bool = False
    joiners: list[str] = field(default_factory=list)
    log: list[tuple[int, str, Action]] = field(default_factory=list)

    def add(
        self, rollout_id: str, policy: Policy, *, members: list[str] | None = None, priority: int = 0, now_ms: int = START_MS
    ) -> None:
        chosen = [self.machines[one] for one in (members if members is not None else self.machines)]
        candidates = [
            Candidate(terminal=one.id, site=one.site, area=one.area, hardware=one.hardware, ready=one.behaviour != "off")
            for one in chosen
        ]
        waves, found = waves_of(rollout_id, candidates, policy)
        self.rollouts[rollout_id] = Rollout(
            id=rollout_id,
            state=RolloutState.APPROVED,
            policy=policy,
            waves=waves,
            priority=priority,
            created_ms=now_ms,
            approved_ms=now_ms,
        )
        self.members[rollout_id] = {one.terminal: one for one in found}

    def world(self, rollout_id: str, now_ms: int) -> World:
        others = precedence(
            Contender(rollout=one, members=self.members[name], touches=frozenset({"agent"}), joiners=frozenset(self.joiners))
            for name, one in self.rollouts.items()
        )[rollout_id]
        halls: dict[str, int] = {}
        for machine in self.machines.values():
            halls[machine.site] = halls.get(machine.site, 0) + 1
        busy: dict[str, int] = {}
        for name, members in self.members.items():
            for member in members.values():
                if name != rollout_id and member.state in BUSY:
                    site = self.machines[member.terminal].site
                    busy[site] = busy.get(site, 0) + 1
        return World(
            terminals={machine.id: self._facts(machine, now_ms, others) for machine in self.machines.values()},
            halls=halls,
            hall_busy=busy,
            frozen=self.frozen,
            joiners=tuple((one, self.machines[one].site) for one in self.joiners),
            bad_release=self.bad_release,
        )

    def _facts(self, machine: Machine, now_ms: int, others: Mapping[str, str]) -> Facts:
        return Facts(
            terminal=machine.id,
            site=machine.site,
            heard_ms=None if machine.behaviour == "off" else now_ms,
            wanted=WANTED,
            running={"agent": machine.running},
            steps={} if machine.heard is None else {"agent": machine.heard},
            other=others.get(machine.id, ""),
        )

    def plan(self, rollout_id: str, now_ms: int) -> list[Action]:
        return plan(self.rollouts[rollout_id], self.members[rollout_id].values(), self.world(rollout_id, now_ms), now_ms)

    def tick(self, now_ms: int, *, cut_after: int | None = None) -> list[Action]:
        """One round over all rollouts. `cut_after`: the server dies after so many actions, what it had not done is planned anew."""
        done: list[Action] = []
        for rollout_id in sorted(self.rollouts, key=lambda name: self.rollouts[name].order):
            for action in self.plan(rollout_id, now_ms):
                if cut_after is not None and len(done) >= cut_after:
                    return done
                self.apply(rollout_id, action, now_ms)
                done.append(action)
            # Before another rollout changes the facts: the same ones again decide nothing.
            left = self.plan(rollout_id, now_ms)
            assert left == [], left
        return done

    def apply(self, rollout_id: str, action: Action, now_ms: int) -> None:
        self.rollouts[rollout_id], member = applied(self.rollouts[rollout_id], self.members[rollout_id], action, now_ms)
        if member is not None:
            self.members[rollout_id][member.terminal] = member
        self.log.append((now_ms, rollout_id, action))
        match action:
            case Start():
                machine = self.machines[action.terminal]
                machine.bundle, machine.told_ms, machine.withdrawn, machine.hold = action.bundle, now_ms, False, False
                machine.windows, machine.heard = action.windows, None
            case Renew():
                machine = self.machines[action.terminal]
                machine.windows, machine.hold = action.windows, action.hold
            case Withdraw() | End(withdraw=True):
                self.machines[action.terminal].withdrawn = True

    def live(self, now_ms: int) -> None:
        for machine in self.machines.values():
            machine.live(now_ms)

    def set_state(self, rollout_id: str, state: RolloutState, now_ms: int) -> None:
        """What a person does on the page."""
        self.rollouts[rollout_id], _ = applied(self.rollouts[rollout_id], {}, SetState(state=state), now_ms)

    def busy_by_site(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for members in self.members.values():
            for member in members.values():
                if member.state in BUSY:
                    site = self.machines[member.terminal].site
                    found[site] = found.get(site, 0) + 1
        return found


def fleet(
    count: int, *, seed: int = 1, sites: int | None = None, bad: float = 0.0, off: float = 0.0, hangs: float = 0.0
) -> dict[str, Machine]:
    """A fleet in which about these shares are bad, off or hanging."""
    dice = random.Random(seed)
    places = sites or max(1, count // 4)
    machines: dict[str, Machine] = {}
    for number in range(count):
        roll = dice.random()
        behaviour = "bad" if roll < bad else "off" if roll < bad + off else "hangs" if roll < bad + off + hangs else "good"
        name = f"kf-{number:04d}"
        machines[name] = Machine(
            id=name, site=f"site-{number % places}", area=f"area-{number % places % 7}", hardware=f"model-{number % 3}",
            behaviour=behaviour, takes_ms=dice.randrange(5, 40) * MINUTE_MS,
        )  # fmt: skip
    return machines


def gone_bad(model: Model, share: float, seed: int = 3) -> None:
    dice = random.Random(seed)
    for name, machine in model.machines.items():
        if dice.random() < share:
            model.machines[name] = replace(machine, behaviour="bad")
