"""Values of rollouts and what follows from each step: policy, rollout, waves, members, actions. Pure; instants are ms UTC, passed in.

The planner decides (`planner.plan`), `applied` says what an action makes of a rollout, the store writes it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

SECOND_MS: Final = 1_000
HOUR_S: Final = 3_600
DAY_S: Final = 86_400
WAVES_MAX: Final = 12

Span = tuple[int, int]
"""[from, to) in ms UTC."""


class RolloutState(StrEnum):
    DRAFT = "draft"
    WAITING = "waiting"
    """For a second person."""
    APPROVED = "approved"
    RUNNING = "running"
    PAUSED = "paused"
    """By a person."""
    HELD = "held"
    """By the success gate: it cannot be reached any more."""
    FINISHED = "finished"
    STOPPED = "stopped"
    """By the failure gate, or because a release was called bad."""
    ABORTED = "aborted"
    """By a person."""


ACTIVE: Final = frozenset({RolloutState.APPROVED, RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HELD})
"""States in which it may still start somebody, now or later; others wait behind it."""
STILL: Final = frozenset({RolloutState.PAUSED, RolloutState.HELD})
RESUMED: Final = frozenset({"repository", "accountGone"})
"""Why a rollout was held that a person may let go on, once that is put right; the executor looks again."""
ENDED: Final = frozenset({RolloutState.FINISHED, RolloutState.STOPPED, RolloutState.ABORTED})


class MemberState(StrEnum):
    WAITING = "waiting"
    STARTED = "started"
    """Its bundle is wanted; what it does is in its own records."""
    STOPPING = "stopping"
    """It was told to stop, and has not said what became of it."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    MISSED = "missed"
    """Never tried: it could not be reached in time. No failure of the release."""
    SKIPPED = "skipped"
    """Nothing to do here: retired, newer already, nothing that fits."""


FINAL: Final = frozenset(
    {MemberState.SUCCEEDED, MemberState.FAILED, MemberState.STOPPED, MemberState.MISSED, MemberState.SKIPPED}
)
BUSY: Final = frozenset({MemberState.STARTED, MemberState.STOPPING})
RETRIED: Final = frozenset({MemberState.FAILED, MemberState.MISSED, MemberState.STOPPED})
EXCUSED: Final = frozenset({"silent", "maintenance", "notEnrolled", "otherRollout", "unknown"})
"""What a waiting member may wait for without keeping its wave's gate closed: nothing was tried there."""

Percent = Annotated[float, Meta(gt=0, le=100)]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One wave after the canary: up to `percent` of all members, or `count` further ones. The last one takes whoever is left."""

    percent: Percent | None = None
    count: Annotated[int, Meta(ge=1, le=100_000)] | None = None


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How a rollout goes. What each field means to an operator: docs/rollouts.md."""

    canary: Annotated[int, Meta(ge=0, le=50)] = 2
    steps: Annotated[tuple[Step, ...], Meta(min_length=1, max_length=WAVES_MAX)] = (
        Step(percent=5), Step(percent=25), Step(percent=100),
    )  # fmt: skip
    success_percent: Percent = 98.0
    soak_s: Annotated[int, Meta(ge=0, le=30 * DAY_S)] = DAY_S
    failure_count: Annotated[int, Meta(ge=1, le=1_000)] = 2
    failure_first: Annotated[int, Meta(ge=1, le=1_000)] = 10
    failure_percent: Percent = 5.0
    timeout_s: Annotated[int, Meta(ge=60, le=30 * DAY_S)] = 2 * DAY_S
    give_up_s: Annotated[int, Meta(ge=60, le=90 * DAY_S)] = 14 * DAY_S
    hall_percent: Annotated[float, Meta(ge=0, le=100)] = 0.0
    """Share of a hall's machines that may be in the middle at once; always at least one, and 0 means exactly one."""
    starts_per_minute: Annotated[int, Meta(ge=1, le=1_000)] = 20
    window: Literal["closed", "any"] = "closed"
    freeze_days: Annotated[int, Meta(ge=0, le=14)] = 1
    """Days before a statutory holiday on which nothing starts; the holiday itself is always part of it."""
    ignore_freeze: bool = False
    not_before_ms: Annotated[int, Meta(ge=0)] = 0
    silent_s: Annotated[int, Meta(ge=60, le=30 * DAY_S)] = 15 * 60
    rate_bytes_s: Annotated[int, Meta(ge=1024)] | None = None
    probation_s: Annotated[int, Meta(ge=5, le=DAY_S)] = 600
    downgrade: bool = False
    late_joiners: bool = True


class Wave(msgspec.Struct, frozen=True, kw_only=True):
    no: int
    """0 is the canary."""
    planned: int
    opened_ms: int | None = None
    met_ms: int | None = None
    """Since when the success gate is met without a break: the soak time runs."""
    passed_ms: int | None = None
    paused_before_ms: int = 0
    """How long the rollout had been paused in all when this wave opened."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    terminal: str
    wave: int
    bucket: int
    site: str = ""
    state: MemberState = MemberState.WAITING
    reason: str = "wave"
    """What it waits for, or why it ended so."""
    detail: str = ""
    since_ms: int = 0
    """Since when `state` and `reason` hold."""
    joined_ms: int = 0
    started_ms: int | None = None
    ended_ms: int | None = None
    tries: int = 0
    bundle: str = ""
    """Hex id of the bundle of the current try; empty before the first."""
    components: tuple[str, ...] = ()
    windows: tuple[Span, ...] | None = None
    windows_to_ms: int = 0
    """Up to when `windows` were made; 0 while not started."""
    hold: bool = False
    paused_before_ms: int = 0
    """How long the rollout had been paused in all when this try began."""
    late: bool = False


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    """32 hex digits."""
    state: RolloutState
    policy: Policy
    waves: tuple[Wave, ...]
    reason: str = ""
    since_ms: int = 0
    wave: int = -1
    """The open wave; -1 before the first."""
    priority: int = 0
    created_ms: int = 0
    approved_ms: int | None = None
    paused_ms: int = 0
    """Sum of the pauses that are over."""
    paused_since_ms: int | None = None

    def paused_total_ms(self, now_ms: int) -> int:
        return self.paused_ms + (max(0, now_ms - self.paused_since_ms) if self.paused_since_ms is not None else 0)

    @property
    def order(self) -> tuple[int, int, str]:
        """Precedence: explicit priority, then the older one."""
        return (-self.priority, self.approved_ms or self.created_ms, self.id)


# Actions --------------------------------------------------------------------------------------------------------------------------------


class SetState(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    state: RolloutState
    reason: str = ""


class OpenWave(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    no: int


class GateMet(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The success gate of a wave is met from now on, or not any more."""

    no: int
    met: bool


class PassWave(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    no: int


class Join(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A terminal that fits came later: into the last wave."""

    terminal: str
    site: str
    wave: int


class Wait(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    terminal: str
    reason: str
    detail: str = ""


class Start(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Assign the bundle: director first, then the desired state."""

    terminal: str
    bundle: str
    components: tuple[str, ...]
    windows: tuple[Span, ...] | None
    windows_to_ms: int


class Renew(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The same bundle with newer windows, or held, or let go on."""

    terminal: str
    windows: tuple[Span, ...] | None
    windows_to_ms: int
    hold: bool


class Withdraw(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Tell a terminal in the middle to stop, and to go back if it has not committed."""

    terminal: str
    reason: str


class End(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    terminal: str
    state: MemberState
    reason: str
    withdraw: bool = False
    """Its bundle is not wanted any more: it must not go on by itself later."""


Action = SetState | OpenWave | GateMet | PassWave | Join | Wait | Start | Renew | Withdraw | End
REACHING: Final = (Start, Renew, Withdraw)
"""Actions that change what a terminal is told; an `End` that withdraws does so too."""


def applied(rollout: Rollout, members: Mapping[str, Member], action: Action, now_ms: int) -> tuple[Rollout, Member | None]:
    """The rollout and the member that the action touches, as they are afterwards."""
    match action:
        case SetState():
            return _in_state(rollout, action, now_ms), None
        case OpenWave(no=no):
            return _with_wave(
                msgspec.structs.replace(rollout, wave=no), no, opened_ms=now_ms, paused_before_ms=rollout.paused_total_ms(now_ms)
            ), None
        case GateMet(no=no, met=met):
            return _with_wave(rollout, no, met_ms=now_ms if met else None), None
        case PassWave(no=no):
            return _with_wave(rollout, no, passed_ms=now_ms), None
        case Join():
            return rollout, Member(
                terminal=action.terminal, site=action.site, wave=action.wave, bucket=bucket(rollout.id, action.terminal),
                since_ms=now_ms, joined_ms=now_ms, late=True,
            )  # fmt: skip
    member = members[action.terminal]
    change = msgspec.structs.replace
    match action:
        case Wait():
            return rollout, change(member, reason=action.reason, detail=action.detail, since_ms=now_ms)
        case Start():
            return rollout, change(
                member, state=MemberState.STARTED, reason="sent", detail="", since_ms=now_ms, started_ms=now_ms,
                tries=member.tries + 1, bundle=action.bundle, components=action.components, windows=action.windows,
                windows_to_ms=action.windows_to_ms, hold=False, paused_before_ms=rollout.paused_total_ms(now_ms),
            )  # fmt: skip
        case Renew():
            return rollout, change(member, windows=action.windows, windows_to_ms=action.windows_to_ms, hold=action.hold)
        case Withdraw():
            return rollout, change(
                member, state=MemberState.STOPPING, reason=action.reason, detail="", since_ms=now_ms,
                paused_before_ms=rollout.paused_total_ms(now_ms),
            )  # fmt: skip
        case End():
            return rollout, change(
                member, state=action.state, reason=action.reason, detail="", since_ms=now_ms, ended_ms=now_ms, hold=False
            )


def again(member: Member, now_ms: int) -> Member:
    """A member that failed, stopped or was missed, to be tried anew: its next bundle has another id."""
    return msgspec.structs.replace(
        member, state=MemberState.WAITING, reason="retry", detail="", since_ms=now_ms, joined_ms=now_ms,
        started_ms=None, ended_ms=None, windows=None, windows_to_ms=0, hold=False,
    )  # fmt: skip


def _in_state(rollout: Rollout, action: SetState, now_ms: int) -> Rollout:
    paused_ms, paused_since_ms = rollout.paused_ms, rollout.paused_since_ms
    if action.state in STILL:
        paused_since_ms = paused_since_ms if paused_since_ms is not None else now_ms
    elif paused_since_ms is not None:
        paused_ms, paused_since_ms = rollout.paused_total_ms(now_ms), None
    return msgspec.structs.replace(
        rollout, state=action.state, reason=action.reason, since_ms=now_ms, paused_ms=paused_ms, paused_since_ms=paused_since_ms
    )


def _with_wave(rollout: Rollout, no: int, **changes: int | None) -> Rollout:
    waves = tuple(msgspec.structs.replace(wave, **changes) if wave.no == no else wave for wave in rollout.waves)
    return msgspec.structs.replace(rollout, waves=waves)


# Ids ------------------------------------------------------------------------------------------------------------------------------------


def bucket(rollout: str, terminal: str) -> int:
    """A terminal's place in a rollout: the same whenever it is asked, another one in every rollout."""
    return int.from_bytes(hashlib.sha256(f"kf-bucket\0{rollout}\0{terminal}".encode()).digest()[:6])


def bundle_id(rollout: str, terminal: str, attempt: int) -> str:
    """Id of the bundle of one try, hex: whoever plans the same step again, after a crash too, names the same bundle."""
    return hashlib.sha256(f"kf-bundle\0{rollout}\0{terminal}\0{attempt}".encode()).hexdigest()[:32]


# Gates ----------------------------------------------------------------------------------------------------------------------------------


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """A wave against its success gate."""

    total: int
    counted: int
    """Members that weigh: not those that were skipped or missed, nor those that cannot be tried now (`EXCUSED`)."""
    succeeded: int
    failed: int
    going: int
    """Counted ones that are not at their end."""
    required: int
    """How many must succeed."""

    @property
    def met(self) -> bool:
        return self.counted > 0 and self.succeeded >= self.required

    @property
    def impossible(self) -> bool:
        return self.counted > 0 and self.succeeded + self.going < self.required


def gate_of(members: Iterable[Member], success_percent: float) -> Gate:
    """The gate over the members of one wave."""
    total = counted = succeeded = failed = going = 0
    for member in members:
        total += 1
        if member.state in {MemberState.SKIPPED, MemberState.MISSED}:
            continue
        if member.state is MemberState.WAITING and member.reason in EXCUSED:
            continue
        counted += 1
        succeeded += member.state is MemberState.SUCCEEDED
        failed += member.state in {MemberState.FAILED, MemberState.STOPPED}
        going += member.state not in FINAL
    # Rounded before the ceiling: 98 % of 50 are 49, not 50 for a last binary digit.
    required = max(1, math.ceil(round(counted * success_percent / 100, 6)))
    return Gate(total=total, counted=counted, succeeded=succeeded, failed=failed, going=going, required=required)


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What the failure gate weighs: ends that were tried, oldest first."""

    ended: int
    failed: int
    failed_first: int
    """Failures among the first `failure_first` ends."""
    tripped: Literal["", "first", "percent"] = ""


def tally(members: Iterable[Member], policy: Policy) -> Tally:
    """The failure gate over all waves: n of the first m ends, after them a percentage. A timeout is a failure."""
    ends = sorted(
        ((member.ended_ms or 0, member.terminal, member.state is MemberState.FAILED) for member in members
         if member.started_ms is not None and member.state in {MemberState.SUCCEEDED, MemberState.FAILED}),
    )  # fmt: skip
    failed = sum(bad for _, _, bad in ends)
    failed_first = sum(bad for _, _, bad in ends[: policy.failure_first])
    tripped: Literal["", "first", "percent"] = ""
    if failed_first >= policy.failure_count:
        tripped = "first"
    elif len(ends) > policy.failure_first and failed * 100 >= policy.failure_percent * len(ends):
        tripped = "percent"
    return Tally(ended=len(ends), failed=failed, failed_first=failed_first, tripped=tripped)


def hall_limit(machines: int, hall_percent: float) -> int:
    """How many machines of a hall may be in the middle at once."""
    return max(1, int(machines * hall_percent / 100))


# Waves ----------------------------------------------------------------------------------------------------------------------------------


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A terminal of the target group, before it has a wave."""

    terminal: str
    site: str
    area: str
    hardware: str
    """Type and profiles: two with the same text are built alike."""
    ready: bool = True
    """Seen lately, not in maintenance, not on the version already: fit to be a canary."""


def waves_of(rollout: str, candidates: Sequence[Candidate], policy: Policy) -> tuple[tuple[Wave, ...], tuple[Member, ...]]:
    """Who is in which wave: canaries on different sites and different hardware, the others spread over the areas in each wave alike.

    Deterministic. Waves that would have nobody are left out, but there is always one.
    """
    ordered = spread(rollout, candidates)
    canaries = _canaries(ordered, policy.canary)
    chosen = {one.terminal for one in canaries}
    rest = [one for one in ordered if one.terminal not in chosen]
    groups: list[list[Candidate]] = [canaries] if canaries else []
    taken = len(canaries)
    for number, step in enumerate(policy.steps):
        last = number == len(policy.steps) - 1
        if last:
            size = len(rest)
        elif step.count is not None:
            size = step.count
        else:
            size = max(0, math.ceil(round(len(candidates) * (step.percent or 100) / 100, 6)) - taken)
        group, rest = rest[:size], rest[size:]
        taken += len(group)
        if group:
            groups.append(group)
    if not groups:
        groups.append([])
    waves = tuple(Wave(no=no, planned=len(group)) for no, group in enumerate(groups))
    members = tuple(
        Member(terminal=one.terminal, site=one.site, wave=no, bucket=bucket(rollout, one.terminal))
        for no, group in enumerate(groups)
        for one in group
    )
    return waves, members


def spread(rollout: str, candidates: Iterable[Candidate]) -> list[Candidate]:
    """An order of which every beginning holds about the same share of each area."""
    by_area: dict[str, list[Candidate]] = {}
    for one in candidates:
        by_area.setdefault(one.area, []).append(one)
    placed: list[tuple[float, int, str, Candidate]] = []
    for group in by_area.values():
        group.sort(key=lambda one: (bucket(rollout, one.terminal), one.terminal))
        for rank, one in enumerate(group):
            placed.append(((rank + 0.5) / len(group), bucket(rollout, one.terminal), one.terminal, one))
    placed.sort(key=lambda entry: entry[:3])
    return [entry[3] for entry in placed]


def _canaries(ordered: Sequence[Candidate], wanted: int) -> list[Candidate]:
    """As many new sites and new kinds of hardware as can be had; ready ones before others."""
    chosen: list[Candidate] = []
    sites: set[str] = set()
    hardware: set[str] = set()
    left = list(ordered)
    while left and len(chosen) < wanted:
        best = min(
            range(len(left)),
            key=lambda at: (not left[at].ready, left[at].site in sites, left[at].hardware in hardware, at),
        )
        one = left.pop(best)
        chosen.append(one)
        sites.add(one.site)
        hardware.add(one.hardware)
    return chosen
