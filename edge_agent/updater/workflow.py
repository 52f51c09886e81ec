"""Owns the workflow of one bundle: from what is wanted to what runs, or to the reason why not. Pure; its state is a value that is kept on the disk.

`advance` looks at the facts and says what to do next; `done` takes in how it went. Both may be repeated after a cut at any moment: what was begun and
not finished is begun again, and what only the disk knows (which version is on trial, what the launcher decided) is read from there as a fact.

Every step has a limit of time without progress, counted while the terminal is on. At the limit the bundle ends with a reason, and is taken up again
after a rest that grows; what cannot become better by itself (a bad archive, a version that was taken back) is not taken up again.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from edge_agent.updater import health as healths
from edge_agent.updater.handover import Applied, Grant, Health
from edge_agent.updater.health import Before, Watch
from edge_agent.updater.layout import SeatState
from protocols.contract.orders import Bundle, Wanted
from protocols.contract.records import Installed, Update, UpdateReason, UpdateState

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

LIMIT_MS: dict[str, int] = {
    "pending": DAY_MS,
    "downloading": DAY_MS,
    "verifying": 30 * MINUTE_MS,
    "staged": 30 * MINUTE_MS,
    "waiting": 14 * DAY_MS,
    "installing": DAY_MS,
    "probation": DAY_MS,
}
"""Without progress, while the terminal is on. Waiting for a window, a date or an operator has no limit: nothing is wrong then."""
PATIENT = frozenset({"hold", "notBefore", "window", "clock"})
FIRST_RETRY_MS, LAST_RETRY_MS = 5_000, 15 * MINUTE_MS
FIRST_REST_MS, LAST_REST_MS = 15 * MINUTE_MS, DAY_MS
MAX_ROUNDS = 30
MAX_FAILS = 3
"""Of one step, where the files or the tree are wrong; each time what is wrong is thrown away and fetched again."""
GRANT_MARGIN_MS = 15_000
"""A grant that ends sooner is not used: the switch must be over before the next citizen."""
QUIET_PAUSES_MS = (10 * MINUTE_MS, HOUR_MS)
"""After a quiet that ended without a switch, until the next is asked for: citizens are served meanwhile. After the last one the bundle ends."""
UNHEARD_MS = MINUTE_MS
"""So long an agent says that nobody is here and promises nothing: this asking is spent (it grants each once), it would never be answered."""
DEAD_AFTER_MS = 10 * MINUTE_MS
"""An agent that has said nothing for so long serves nobody; a version that hangs must not keep its successor away."""
ENDS = frozenset({"committed", "rolledBack", "failed", "refused", "cancelled"})
FINAL_REASONS = frozenset({"badArchive", "selfTest", "wrongArch", "wrongHardware", "downgrade"})
"""Asked again, the answer would be the same: these wait for another bundle."""
INTERRUPTIBLE = frozenset({"pending", "downloading", "verifying", "staged", "waiting"})
"""Before anything of the running system was changed."""

_REASONS: frozenset[str] = frozenset(UpdateReason.__args__)  # type: ignore[attr-defined]  # the words of a Literal


class Action(enum.Enum):
    NOTHING = "nothing"
    LOOK = "look"
    """Refresh the repositories and compare."""
    FETCH = "fetch"
    """Get the image of `Work.at`."""
    VERIFY = "verify"
    """Check what was fetched once more, unpack the agent, test it, lay the rest out for the agent."""
    ASK = "ask"
    """Ask the agent for quiet, under a new id."""
    SWITCH = "switch"
    """Put the new agent on trial and have it started."""
    APPLY = "apply"
    """Give the agent what it puts to use itself."""
    UNDO = "undo"
    """Take everything of the bundle back."""
    COMMIT = "commit"
    CLEAN = "clean"
    """Remove what the bundle leaves behind, and say what runs."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One component on its way."""

    wanted: Wanted
    from_version: str | None = None
    via: Literal["full", "packed", "delta", "none"] = "none"
    bytes_done: int = 0
    bytes_total: int = 0
    resumed: int = 0
    fetched: bool = False


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one bundle, as it is kept on the disk."""

    bundle: Bundle
    parts: tuple[Part, ...]
    state: UpdateState = "pending"
    reason: UpdateReason = "none"
    since_ms: int = 0
    """Wall time at which `state` began."""
    verdict: UpdateReason = "none"
    """While it is undone: what it ends with."""
    ended: Literal["", "clean"] = ""
    """What an end still needs; empty: nothing."""
    tree: str | None = None
    tries: int = 0
    """How often the present step was begun."""
    fails: int = 0
    """How often the present step ended badly for a reason that lies in the files."""
    retry_ms: int = 0
    """Still to wait, powered on, before the next try."""
    rounds: int = 0
    rest_ms: int = 0
    """Of an end that is taken up again: still to rest."""
    final: bool = False
    stuck_ms: int = 0
    """Without progress in this step."""
    moved: int = 0
    boot_id: str = ""
    boot_ms: int = 0
    want: str | None = None
    unheard_ms: int = 0
    """Of `want`: without a promise, though the agent has nobody to serve."""
    quiets: int = 0
    """How many quiets ended without a switch, over all states and rounds of this bundle."""
    quiet_reason: UpdateReason = "none"
    """Why the last of them did."""
    before: Before = Before()
    watch: Watch = Watch()
    probation_ms: int = 0
    """Spent in probation; a reboot does not begin it anew."""
    silent_ms: int = 0
    """For so long no fresh health."""
    switched: bool = False
    """The agent's part of the bundle runs and has proved itself, or there is none."""
    apply: str | None = None

    @property
    def at(self) -> int | None:
        """Which part is fetched next."""
        return next((index for index, part in enumerate(self.parts) if not part.fetched), None)

    @property
    def agent(self) -> Part | None:
        return next((part for part in self.parts if part.wanted.component == "agent"), None)

    @property
    def others(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.wanted.component != "agent")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is the case now. `bundle`: of the newest desired state; `known`: one was ever read (its absence is not an abort)."""

    boot_id: str
    boot_ms: int
    wall_ms: int
    """Trusted: never below the floor."""
    clock_ok: bool = True
    """The system's clock is not before the floor."""
    known: bool = True
    bundle: Bundle | None = None
    installed: dict[str, Installed] = {}
    seat: SeatState = SeatState()
    tree_is_complete: bool = False
    health: Health | None = None
    fresh: bool = False
    owned: bool = False
    rss_kib: int | None = None
    grant: Grant | None = None
    applied: Applied | None = None
    busy: bool = False
    """An action of ours is being carried out."""
    moved: int = 0
    """Grows while the action makes progress."""
    health_limits: healths.Limits = healths.Limits(rss_kib=192 * 1024)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an action went. `reason` none: well. `retryable`: it may go well another time without anybody doing anything."""

    reason: UpdateReason = "none"
    retryable: bool = True
    tree: str | None = None
    want: str | None = None
    apply: str | None = None


# ------------------------------------------------------------------------------------------------------------------------- advance


def advance(work: Work | None, facts: Facts) -> tuple[Work | None, Action]:
    """The next state, and what to do now. While `facts.busy` nothing new is begun."""
    if work is None:
        return (None, Action.NOTHING) if facts.bundle is None else (_begin(facts.bundle, facts), Action.NOTHING)
    work = _pass_time(work, facts)
    if work.state in ENDS:
        return _at_the_end(work, facts)
    work = _with_newest_terms(work, facts)
    if facts.known and not _same(work.bundle, facts.bundle) and work.state in INTERRUPTIBLE:
        if facts.busy:
            return work, Action.NOTHING  # whoever carries it out was asked to stop: see `wanted_still`
        return _end(work, facts, "cancelled", "aborted" if facts.bundle is None else "superseded", final=True), Action.NOTHING
    if work.stuck_ms >= LIMIT_MS[work.state] and work.reason not in PATIENT:
        reason: UpdateReason = work.reason if work.reason not in ("none", "idle") else "noProgress"
        if work.state in INTERRUPTIBLE:
            return _end(work, facts, "failed", reason), Action.NOTHING
        return _undo(work, reason), Action.NOTHING if facts.busy else Action.UNDO
    if facts.busy:
        return work, Action.NOTHING
    if work.verdict != "none":
        return work, Action.UNDO if work.retry_ms == 0 else Action.NOTHING
    return _STEPS[work.state](work, facts)


def wanted_still(work: Work, facts: Facts) -> bool:
    """Whether a long action should go on."""
    return work.state not in INTERRUPTIBLE or not facts.known or _same(work.bundle, facts.bundle)


def _pending(work: Work, facts: Facts) -> tuple[Work, Action]:
    return work, Action.LOOK if work.retry_ms == 0 else Action.NOTHING


def _downloading(work: Work, facts: Facts) -> tuple[Work, Action]:
    if work.at is None:
        return _to(work, facts, "verifying"), Action.NOTHING
    return work, Action.FETCH if work.retry_ms == 0 else Action.NOTHING


def _verifying(work: Work, facts: Facts) -> tuple[Work, Action]:
    return work, Action.VERIFY if work.retry_ms == 0 else Action.NOTHING


def _staged(work: Work, facts: Facts) -> tuple[Work, Action]:
    return _to(work, facts, "waiting", _gate(work, facts)), Action.NOTHING


def _waiting(work: Work, facts: Facts) -> tuple[Work, Action]:
    if work.agent is not None and not facts.tree_is_complete:
        return _to(msgspec.structs.replace(work, want=None), facts, "verifying"), Action.NOTHING  # it was damaged meanwhile
    gate = _gate(work, facts)
    if gate not in ("none", "idle"):
        work = msgspec.structs.replace(work, want=None)  # nobody is kept away from the terminal for nothing
        return _because(work, gate), Action.NOTHING
    if work.agent is None:
        return _to(work, facts, "installing"), Action.NOTHING  # the agent itself knows when it may
    if work.silent_ms >= DEAD_AFTER_MS:
        return _to(work, facts, "installing"), Action.NOTHING
    if work.want is None:
        if work.retry_ms == 0:
            return _because(work, "idle"), Action.ASK
        return _because(work, work.quiet_reason if work.quiets else "idle"), Action.NOTHING
    grant = facts.grant
    if grant is None or grant.want != work.want or grant.boot_id != facts.boot_id:
        if work.unheard_ms >= UNHEARD_MS:
            return _quiet_unused(work, facts, "noProgress"), Action.NOTHING
    elif grant.until_boot_ms - facts.boot_ms < GRANT_MARGIN_MS:
        return _quiet_unused(work, facts, "noProgress"), Action.NOTHING
    elif facts.fresh:
        # What works now is written down before anything is changed: after the switch it could not be learnt any more.
        return _to(msgspec.structs.replace(work, before=healths.before(facts.health)), facts, "installing"), Action.NOTHING
    return _because(work, "idle"), Action.NOTHING


def _quiet_unused(work: Work, facts: Facts, reason: UpdateReason) -> Work:
    """A quiet passed, or was asked for in vain, and nothing was switched; the terminal must not be closed for it again and again.

    `reason`: where no failure is known.
    """
    if work.state == "installing" and work.reason not in ("none", "idle"):
        reason = work.reason
    elif work.quiet_reason != "none":
        reason = work.quiet_reason
    quiets = work.quiets + 1
    work = msgspec.structs.replace(work, want=None, quiets=quiets, quiet_reason=reason)
    if quiets > len(QUIET_PAUSES_MS):
        return _end(work, facts, "failed", reason, final=True)
    work = _to(work, facts, "waiting", reason)
    return msgspec.structs.replace(work, retry_ms=QUIET_PAUSES_MS[quiets - 1])


def _installing(work: Work, facts: Facts) -> tuple[Work, Action]:
    if work.agent is not None and not work.switched:
        trial, verdict = facts.seat.trial, facts.seat.verdict
        if trial is not None and trial.name == work.tree:
            return _to(work, facts, "probation"), Action.NOTHING
        if facts.seat.good == work.tree:
            work = msgspec.structs.replace(work, switched=True)
        elif verdict is not None and verdict.name == work.tree and verdict.bundle == work.bundle.id.hex():
            return _undo(work, _reason(verdict.reason)), Action.NOTHING
        elif not _may_switch(work, facts):
            return _quiet_unused(work, facts, "interrupted"), Action.NOTHING  # it is over, or was cut off before the switch
        else:
            return work, Action.SWITCH if work.retry_ms == 0 else Action.NOTHING
    return _apply(work, facts)


def _apply(work: Work, facts: Facts) -> tuple[Work, Action]:
    """What the agent puts to use itself. It waits for a unit to be free on its own."""
    if not work.others:
        return work, Action.COMMIT if work.retry_ms == 0 else Action.NOTHING
    if work.apply is None:
        return work, Action.APPLY if work.retry_ms == 0 else Action.NOTHING
    if facts.applied is None or facts.applied.id != work.apply:
        return work, Action.NOTHING
    results = {one.component: one for one in facts.applied.results}
    for one in results.values():
        if one.state == "failed":
            return _undo(work, one.reason if one.reason != "none" else "interrupted"), Action.NOTHING
    if all(part.wanted.component in results and results[part.wanted.component].state == "done" for part in work.others):
        return work, Action.COMMIT if work.retry_ms == 0 else Action.NOTHING
    waiting: UpdateReason = next((one.reason for one in results.values() if one.state == "waiting"), "none")
    return _because(work, waiting), Action.NOTHING


def _probation(work: Work, facts: Facts) -> tuple[Work, Action]:
    trial, verdict = facts.seat.trial, facts.seat.verdict
    if trial is None or trial.name != work.tree:
        if facts.seat.good == work.tree:
            return _proved(work, facts)
        found = verdict is not None and verdict.name == work.tree
        return _undo(work, _reason(verdict.reason if found and verdict is not None else "crashed")), Action.NOTHING
    assert work.agent is not None
    evidence = healths.Evidence(
        health=facts.health, fresh=facts.fresh, owned=facts.owned, rss_kib=facts.rss_kib, now_boot_ms=facts.boot_ms
    )
    watch, said, reason = healths.look(work.watch, evidence, work.before, work.agent.wanted.version, facts.health_limits)
    work = msgspec.structs.replace(work, watch=watch)
    if said == "good":
        return _proved(work, facts)
    if said == "bad":
        return _undo(work, reason), Action.NOTHING
    if work.probation_ms >= work.bundle.probation_s * 1000:
        ends = trial.ends
        if reason == "noConfirmation" and ends:
            reason = _reason(ends[-1])
        return _undo(work, "noConfirmation" if reason == "none" else reason), Action.NOTHING
    return work, Action.NOTHING


def _proved(work: Work, facts: Facts) -> tuple[Work, Action]:
    work = msgspec.structs.replace(work, switched=True)
    if work.others:
        return _to(work, facts, "installing"), Action.NOTHING
    return work, Action.COMMIT if work.retry_ms == 0 else Action.NOTHING


_STEPS = {
    "pending": _pending,
    "downloading": _downloading,
    "verifying": _verifying,
    "staged": _staged,
    "waiting": _waiting,
    "installing": _installing,
    "probation": _probation,
}


def _at_the_end(work: Work, facts: Facts) -> tuple[Work, Action]:
    if facts.busy:
        return work, Action.NOTHING
    if work.ended == "clean":
        return work, Action.CLEAN if work.retry_ms == 0 else Action.NOTHING
    if facts.bundle is not None and facts.known and not _same(work.bundle, facts.bundle):
        return _begin(facts.bundle, facts), Action.NOTHING
    if facts.bundle is None or work.final or work.rest_ms > 0:
        return work, Action.NOTHING
    again = _begin(facts.bundle, facts)
    again = msgspec.structs.replace(again, rounds=work.rounds, quiets=work.quiets, quiet_reason=work.quiet_reason)
    return msgspec.structs.replace(again, parts=_keep_counts(again.parts, work.parts)), Action.NOTHING


# ----------------------------------------------------------------------------------------------------------------------------- done


def done(work: Work, action: Action, outcome: Outcome, facts: Facts) -> Work:
    """Take in how an action went."""
    work = _pass_time(work, facts)
    if outcome.reason != "none":
        return _went_wrong(work, action, outcome, facts)
    if action is Action.ASK:  # asking alone is no progress: after each reboot it is done anew
        return msgspec.structs.replace(work, want=outcome.want, tries=0, retry_ms=0, unheard_ms=0)
    work = msgspec.structs.replace(work, tries=0, retry_ms=0, stuck_ms=0)
    if action is Action.LOOK and work.state == "pending":
        return _to(work, facts, "downloading")
    if action is Action.FETCH and work.state == "downloading" and work.at is not None:
        return with_part(work, work.at, fetched=True)
    if action is Action.VERIFY and work.state == "verifying":
        return _to(msgspec.structs.replace(work, tree=outcome.tree, fails=0), facts, "staged")
    if action is Action.SWITCH and work.state == "installing":
        return _to(msgspec.structs.replace(work, want=None), facts, "probation")
    if action is Action.APPLY:
        return msgspec.structs.replace(work, apply=outcome.apply)
    if action is Action.COMMIT:
        return _end(work, facts, "committed", "none", final=True)
    if action is Action.UNDO:
        return _end(work, facts, "rolledBack", work.verdict, final=True)
    if action is Action.CLEAN:
        return msgspec.structs.replace(work, ended="")
    return work


def _went_wrong(work: Work, action: Action, outcome: Outcome, facts: Facts) -> Work:
    tries = work.tries + 1
    later = msgspec.structs.replace(work, tries=tries, retry_ms=_growing(FIRST_RETRY_MS, LAST_RETRY_MS, tries))
    if action in (Action.CLEAN, Action.ASK, Action.UNDO):
        return later  # must happen once; until then the launcher alone decides what runs
    if action is Action.COMMIT:
        if outcome.reason in ("noSpace", "readOnly"):
            return later
        return _undo(later, outcome.reason)
    if action is Action.LOOK and not outcome.retryable:
        return _end(work, facts, "refused", outcome.reason)
    if outcome.retryable:
        return _because(later, outcome.reason)
    if action in (Action.SWITCH, Action.APPLY):
        return _undo(later, outcome.reason)
    fails = work.fails + 1
    if outcome.reason in FINAL_REASONS or fails >= MAX_FAILS:
        return _end(work, facts, "failed", outcome.reason)
    later = _because(msgspec.structs.replace(later, fails=fails), outcome.reason)
    if action is Action.VERIFY:  # what lies on the disk is wrong: fetch it again
        parts = tuple(msgspec.structs.replace(part, fetched=False, bytes_done=0) for part in work.parts)
        again = _to(later, facts, "downloading", outcome.reason)
        return msgspec.structs.replace(again, parts=parts, tries=tries, retry_ms=later.retry_ms)
    return later


def with_part(work: Work, index: int, **changes: object) -> Work:
    """The same work with one part changed."""
    parts = list(work.parts)
    parts[index] = msgspec.structs.replace(parts[index], **changes)
    return msgspec.structs.replace(work, parts=tuple(parts))


def reports(work: Work) -> tuple[Update, ...]:
    """What is told of it: one body per component."""
    return tuple(
        Update(
            bundle=work.bundle.id,
            rollout=work.bundle.rollout,
            component=part.wanted.component,
            state=work.state,
            reason=work.reason,
            since_ms=work.since_ms,
            from_version=part.from_version,
            to_version=part.wanted.version,
            via=part.via,
            bytes_done=part.bytes_done,
            bytes_total=part.bytes_total,
            tries=work.rounds + 1,
            resumed=part.resumed,
        )
        for part in work.parts
    )


# --------------------------------------------------------------------------------------------------------------------------- inside


def _begin(bundle: Bundle, facts: Facts) -> Work:
    parts = []
    for wanted in bundle.wanted:
        installed = facts.installed.get(wanted.component)
        parts.append(Part(wanted=wanted, from_version=installed.version if installed else None))
    return Work(
        bundle=bundle, parts=tuple(parts), since_ms=facts.wall_ms, boot_id=facts.boot_id, boot_ms=facts.boot_ms, moved=facts.moved
    )


def _keep_counts(new: tuple[Part, ...], old: tuple[Part, ...]) -> tuple[Part, ...]:
    if len(new) != len(old):
        return new
    return tuple(msgspec.structs.replace(part, resumed=before.resumed) for part, before in zip(new, old, strict=True))


def _same(mine: Bundle, other: Bundle | None) -> bool:
    return other is not None and other.id == mine.id and other.wanted == mine.wanted


def _with_newest_terms(work: Work, facts: Facts) -> Work:
    """Windows, hold and rate of the same bundle may change on the way."""
    if facts.known and facts.bundle is not None and facts.bundle != work.bundle and _same(work.bundle, facts.bundle):
        return msgspec.structs.replace(work, bundle=facts.bundle)
    return work


def _gate(work: Work, facts: Facts) -> UpdateReason:
    """Why it may not be installed now; `idle`: only the citizen is in the way."""
    bundle = work.bundle
    if bundle.hold:
        return "hold"
    timed = bundle.windows is not None or bundle.not_before_ms > 0
    if timed and not facts.clock_ok:
        return "clock"
    if facts.wall_ms < bundle.not_before_ms:
        return "notBefore"
    if bundle.windows is not None and not any(begin <= facts.wall_ms < end for begin, end in bundle.windows):
        return "window"
    return "idle" if work.agent is not None else "none"


def _may_switch(work: Work, facts: Facts) -> bool:
    if _gate(work, facts) not in ("none", "idle"):
        return False
    if work.silent_ms >= DEAD_AFTER_MS:
        return True
    grant = facts.grant
    return (
        grant is not None and grant.want == work.want and grant.boot_id == facts.boot_id and grant.until_boot_ms > facts.boot_ms
    )


def _pass_time(work: Work, facts: Facts) -> Work:
    """Count the time since the last look, if it was in the same boot."""
    same_boot = work.boot_id == facts.boot_id
    passed = max(0, facts.boot_ms - work.boot_ms) if same_boot else 0
    moved = facts.moved != work.moved
    waits_for_others = work.state == "waiting" and work.reason in PATIENT
    unheard = work.state == "waiting" and work.want is not None and facts.fresh and facts.health is not None and facts.health.idle
    return msgspec.structs.replace(
        work,
        boot_id=facts.boot_id,
        boot_ms=facts.boot_ms,
        moved=facts.moved,
        stuck_ms=0 if moved or waits_for_others else work.stuck_ms + passed,
        retry_ms=max(0, work.retry_ms - passed),
        rest_ms=max(0, work.rest_ms - passed),
        probation_ms=work.probation_ms + passed if work.state == "probation" else work.probation_ms,
        silent_ms=0 if facts.fresh else work.silent_ms + passed,
        watch=work.watch if same_boot else Watch(),
        want=work.want if same_boot else None,
        unheard_ms=work.unheard_ms + (min(passed, UNHEARD_MS // 2) if unheard else 0),  # after a sleep it may yet answer
    )


def _to(work: Work, facts: Facts, state: UpdateState, reason: UpdateReason = "none") -> Work:
    if state == "probation" and work.state != "probation":
        work = msgspec.structs.replace(work, probation_ms=0, watch=Watch())
    return msgspec.structs.replace(work, state=state, reason=reason, since_ms=facts.wall_ms, stuck_ms=0, retry_ms=0, tries=0)


def _because(work: Work, reason: UpdateReason) -> Work:
    return work if work.reason == reason else msgspec.structs.replace(work, reason=reason)


def _undo(work: Work, reason: UpdateReason) -> Work:
    """The running system was changed, so it is changed back; until that is done the state stays."""
    return msgspec.structs.replace(
        work, verdict=reason if reason != "none" else "interrupted", want=None, retry_ms=0, tries=0, stuck_ms=0
    )


def _end(work: Work, facts: Facts, state: UpdateState, reason: UpdateReason, *, final: bool = False) -> Work:
    rounds = work.rounds + 1
    if not final and (reason in FINAL_REASONS or rounds >= MAX_ROUNDS):
        final = True
        reason = reason if reason in FINAL_REASONS else "tooOften"
    rest_ms = 0 if final else _growing(FIRST_REST_MS, LAST_REST_MS, rounds)
    work = msgspec.structs.replace(_to(work, facts, state, reason), want=None, apply=None, verdict="none")
    return msgspec.structs.replace(work, ended="clean", rounds=rounds, rest_ms=rest_ms, final=final)


def _growing(first_ms: int, last_ms: int, times: int) -> int:
    return min(last_ms, first_ms << min(times - 1, 20))


def _reason(word: str) -> UpdateReason:
    return word if word in _REASONS else "crashed"  # type: ignore[return-value]  # one of the words
