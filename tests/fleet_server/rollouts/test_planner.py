"""What a rollout does next: laws that hold whatever a fleet does, and single decisions."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_server.rollouts.planner import STOP_MS, Contender, Facts, Heard, Wanted, World, plan, precedence
from fleet_server.rollouts.rules import (
    BUSY,
    ENDED,
    FINAL,
    STILL,
    End,
    Join,
    Member,
    MemberState,
    OpenWave,
    Policy,
    Renew,
    Rollout,
    RolloutState,
    SetState,
    Start,
    Step,
    Wait,
    Withdraw,
    again,
    applied,
    bundle_id,
    gate_of,
    hall_limit,
)
from tests.support.rollouts import HOUR_MS, MINUTE_MS, START_MS, WANTED, Machine, Model, fleet

DAY_MS = 24 * HOUR_MS
QUICK = Policy(
    canary=2, steps=(Step(percent=30), Step(percent=100)), soak_s=600, timeout_s=6 * 3600, give_up_s=12 * 3600, window="any"
)

policies = st.builds(
    Policy,
    canary=st.integers(0, 4),
    steps=st.sampled_from(
        [(Step(percent=100),), (Step(percent=20), Step(percent=100)), (Step(count=3), Step(count=5), Step(percent=100))]
    ),
    success_percent=st.sampled_from([50.0, 90.0, 98.0, 100.0]),
    soak_s=st.sampled_from([0, 600, 7200]),
    failure_count=st.integers(1, 5),
    failure_first=st.integers(1, 10),
    failure_percent=st.sampled_from([5.0, 30.0, 100.0]),
    timeout_s=st.sampled_from([3600, 6 * 3600]),
    give_up_s=st.sampled_from([3600, 24 * 3600]),
    hall_percent=st.sampled_from([0.0, 34.0, 50.0]),
    starts_per_minute=st.sampled_from([1, 5, 100]),
    window=st.just("any"),
    late_joiners=st.booleans(),
)
behaviours = st.sampled_from(["good", "good", "good", "bad", "refuses", "hangs", "off"])


@st.composite
def models(draw: Any) -> Model:
    count = draw(st.integers(1, 24))
    places = draw(st.integers(1, 6))
    machines = {
        f"t{n}": Machine(
            id=f"t{n}", site=f"s{n % places}", area=f"a{n % 3}", hardware=f"h{n % 2}", behaviour=draw(behaviours),
            takes_ms=draw(st.sampled_from([0, 10, 90])) * MINUTE_MS,
        )
        for n in range(count)
    }  # fmt: skip
    model = Model(machines)
    names = list(machines)
    late = draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
    model.add("a" * 32, draw(policies), members=[one for one in names if one not in late], priority=draw(st.integers(0, 1)))
    if draw(st.booleans()):
        model.add("b" * 32, draw(policies), priority=draw(st.integers(0, 1)), now_ms=START_MS + 1)
    model.joiners = late
    return model


@settings(max_examples=60, deadline=None)
@given(models(), st.data())
def test_laws_of_a_rollout(model: Model, data: st.DataObject) -> None:
    """Whatever the fleet does: halls keep a machine, gates are respected, nothing goes back, a replay decides nothing, everybody comes to an end."""
    now_ms, quiet = START_MS, 0
    final: dict[tuple[str, str], MemberState] = {}
    for turn in range(400):
        model.live(now_ms)
        before = {name: rollout.state for name, rollout in model.rollouts.items()}
        cut = data.draw(st.one_of(st.none(), st.integers(0, 3)), label="cut") if turn < 12 else None
        done = model.tick(now_ms, cut_after=cut)
        if cut is not None:
            done += model.tick(now_ms)
        check_halls(model)
        for (stamp_ms, name, action), _ in zip(reversed(model.log), done, strict=False):
            assert stamp_ms == now_ms
            if isinstance(action, Start):
                # A pause or a gate that stopped it in this very round would come before: no start after it.
                assert model.rollouts[name].state is RolloutState.RUNNING
                assert before[name] in {RolloutState.APPROVED, RolloutState.RUNNING}
                assert model.members[name][action.terminal].wave <= model.rollouts[name].wave
        for name in model.rollouts:
            check_gates(model, name)
            for terminal, member in model.members[name].items():
                if (name, terminal) in final:
                    assert member.state is final[name, terminal], "who came to an end keeps it"
                elif member.state in FINAL:
                    final[name, terminal] = member.state
                if member.state not in FINAL:
                    assert member.reason, "everybody who is not at an end says what for"
        if turn < 6:
            act(model, data, now_ms)
        elif turn == 6:
            for name, rollout in model.rollouts.items():
                if rollout.state is RolloutState.PAUSED:
                    model.set_state(name, RolloutState.RUNNING, now_ms)
        quiet = quiet + 1 if not done else 0
        for name, rollout in model.rollouts.items():
            if turn > 60 and rollout.state is RolloutState.HELD:
                model.set_state(name, RolloutState.ABORTED, now_ms)
                quiet = 0
        now_ms += 20 * MINUTE_MS if turn < 60 else 2 * HOUR_MS
        if all(rollout.state in ENDED for rollout in model.rollouts.values()) and quiet > 14:
            break
    for name, rollout in model.rollouts.items():
        assert rollout.state in ENDED, (rollout.state, rollout.reason)
        left = [member for member in model.members[name].values() if member.state not in FINAL]
        assert not left, left


def act(model: Model, data: st.DataObject, now_ms: int) -> None:
    """Somebody presses a button."""
    name = data.draw(st.sampled_from(sorted(model.rollouts)), label="rollout")
    button = data.draw(st.sampled_from(["nothing", "nothing", "pause", "resume", "abort"]), label="button")
    state = model.rollouts[name].state
    if button == "pause" and state is RolloutState.RUNNING:
        model.set_state(name, RolloutState.PAUSED, now_ms)
    elif button == "resume" and state is RolloutState.PAUSED:
        model.set_state(name, RolloutState.RUNNING, now_ms)
    elif button == "abort" and state not in ENDED:
        model.set_state(name, RolloutState.ABORTED, now_ms)


def check_halls(model: Model) -> None:
    share = max(rollout.policy.hall_percent for rollout in model.rollouts.values())
    size: dict[str, int] = {}
    for machine in model.machines.values():
        size[machine.site] = size.get(machine.site, 0) + 1
    for site, busy in model.busy_by_site().items():
        assert busy <= hall_limit(size[site], share), f"{busy} machines of {site} at once"


def check_gates(model: Model, name: str) -> None:
    """A wave is open only if every one before it passed, after its soak time."""
    rollout = model.rollouts[name]
    for wave in rollout.waves:
        if wave.no < rollout.wave:
            assert wave.passed_ms is not None
            members = [one for one in model.members[name].values() if one.wave == wave.no]
            if wave.met_ms is not None:
                assert wave.passed_ms - wave.met_ms >= rollout.policy.soak_s * 1000
            else:
                assert all(one.state in {MemberState.MISSED, MemberState.SKIPPED} for one in members) and wave.no > 0
        elif wave.no > rollout.wave:
            assert wave.opened_ms is None
            assert all(one.started_ms is None for one in model.members[name].values() if one.wave == wave.no)


# Single decisions -----------------------------------------------------------------------------------------------------------------------


def one_rollout(policy: Policy = QUICK, count: int = 10, **machines: Any) -> tuple[Model, str]:
    model = Model(fleet(count, sites=count, **machines))
    model.add("a" * 32, policy)
    return model, "a" * 32


def run(model: Model, until_ms: int, *, from_ms: int = START_MS, step_ms: int = 5 * MINUTE_MS) -> int:
    now_ms = from_ms
    while now_ms < until_ms:
        model.live(now_ms)
        model.tick(now_ms)
        now_ms += step_ms
    return now_ms


def states(model: Model, name: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for member in model.members[name].values():
        found[member.state.value] = found.get(member.state.value, 0) + 1
    return found


def test_a_good_release_goes_through_canary_and_waves() -> None:
    model, name = one_rollout()
    run(model, START_MS + DAY_MS)
    assert model.rollouts[name].state is RolloutState.FINISHED
    assert states(model, name) == {"succeeded": 10}
    opened = [action.no for _, _, action in model.log if isinstance(action, OpenWave)]
    assert opened == [0, 1, 2]
    first = [action.terminal for _, _, action in model.log if isinstance(action, Start)][:2]
    assert {model.members[name][one].wave for one in first} == {0}


def test_a_bad_release_stops_at_the_canaries_and_everybody_keeps_the_old_version() -> None:
    model, name = one_rollout(bad=1.0)
    run(model, START_MS + DAY_MS)
    rollout = model.rollouts[name]
    assert (rollout.state, rollout.reason) == (RolloutState.STOPPED, "failures.first")
    assert states(model, name) == {"failed": 2, "stopped": 8}
    assert all(machine.running == ("1.0.0", 10) for machine in model.machines.values())
    started = {action.terminal for _, _, action in model.log if isinstance(action, Start)}
    assert len(started) == 2
    assert {model.members[name][one].reason for one in started} == {"crashed"}


def test_one_bad_canary_of_two_holds_the_rollout_and_a_retry_lets_it_go_on() -> None:
    model, name = one_rollout()
    canary = next(one for one in model.members[name].values() if one.wave == 0)
    model.machines[canary.terminal].behaviour = "bad"
    now_ms = run(model, START_MS + 3 * HOUR_MS)
    assert (model.rollouts[name].state, model.rollouts[name].reason) == (RolloutState.HELD, "successGate")
    old_bundle = model.members[name][canary.terminal].bundle
    model.machines[canary.terminal].behaviour = "good"
    model.members[name][canary.terminal] = again(model.members[name][canary.terminal], now_ms)
    model.set_state(name, RolloutState.RUNNING, now_ms)
    run(model, now_ms + DAY_MS, from_ms=now_ms)
    assert model.rollouts[name].state is RolloutState.FINISHED
    assert states(model, name) == {"succeeded": 10}
    assert model.members[name][canary.terminal].bundle not in {old_bundle, ""}


@pytest.mark.spec("U-402")
def test_a_timeout_is_a_failure_and_the_bundle_is_taken_back() -> None:
    model, name = one_rollout(hangs=1.0)
    run(model, START_MS + DAY_MS)
    assert model.rollouts[name].state is RolloutState.STOPPED
    ends = [action for _, _, action in model.log if isinstance(action, End) and action.reason == "timeout"]
    assert len(ends) == 2
    assert all(end.withdraw and end.state is MemberState.FAILED for end in ends)


def test_the_failure_percentage_counts_after_the_first_ones() -> None:
    policy = msgspec.structs.replace(
        QUICK, canary=0, steps=(Step(percent=100),), failure_count=5, failure_first=5, failure_percent=20.0, starts_per_minute=1
    )
    model, name = one_rollout(policy, count=30)
    order = sorted(model.members[name].values(), key=lambda member: member.bucket)
    for member in order[6:9]:
        model.machines[member.terminal].behaviour = "bad"
    for machine in model.machines.values():
        machine.takes_ms = 0
    run(model, START_MS + DAY_MS, step_ms=MINUTE_MS)
    assert (model.rollouts[name].state, model.rollouts[name].reason) == (RolloutState.STOPPED, "failures.percent")
    assert states(model, name)["stopped"] > 10


def test_silent_machines_keep_no_rollout_open_and_are_no_failure() -> None:
    model, name = one_rollout()
    for terminal in [one.terminal for one in model.members[name].values() if one.wave == 2][:3]:
        model.machines[terminal].behaviour = "off"
    run(model, START_MS + 3 * DAY_MS)
    assert model.rollouts[name].state is RolloutState.FINISHED
    assert states(model, name) == {"succeeded": 7, "missed": 3}


def test_paused_starts_nothing_and_holds_those_in_the_middle() -> None:
    model, name = one_rollout(msgspec.structs.replace(QUICK, soak_s=0))
    model.tick(START_MS)
    model.set_state(name, RolloutState.PAUSED, START_MS + MINUTE_MS)
    model.log.clear()
    run(model, START_MS + 3 * HOUR_MS, from_ms=START_MS + 2 * MINUTE_MS)
    assert not [action for _, _, action in model.log if isinstance(action, Start)]
    assert [action.hold for _, _, action in model.log if isinstance(action, Renew)] == [True, True]
    assert {one.reason for one in model.members[name].values() if one.state is MemberState.WAITING} == {"paused"}
    now_ms = START_MS + 30 * HOUR_MS
    model.set_state(name, RolloutState.RUNNING, now_ms)
    model.tick(now_ms)
    assert states(model, name).get("failed", 0) == 0, "a pause is no time that passed"
    run(model, now_ms + DAY_MS, from_ms=now_ms)
    assert model.rollouts[name].state is RolloutState.FINISHED


def test_abort_leaves_results_starts_nobody_and_tells_those_in_the_middle_to_stop() -> None:
    model, name = one_rollout(msgspec.structs.replace(QUICK, canary=0, steps=(Step(percent=100),), starts_per_minute=4))
    for machine in model.machines.values():
        machine.takes_ms = 30 * MINUTE_MS
    started = [action.terminal for action in model.tick(START_MS) if isinstance(action, Start)]
    done = started[0]
    model.machines[done].takes_ms = 0
    model.live(START_MS + 20_000)
    model.tick(START_MS + 20_000)
    assert model.members[name][done].state is MemberState.SUCCEEDED
    model.set_state(name, RolloutState.ABORTED, START_MS + 30_000)
    actions = model.tick(START_MS + 30_000)
    assert {action.terminal for action in actions if isinstance(action, Withdraw)} == set(started[1:])
    assert {action.reason for action in actions if isinstance(action, End)} == {"notStarted"}
    run(model, START_MS + HOUR_MS, from_ms=START_MS + MINUTE_MS)
    assert states(model, name) == {"succeeded": 1, "stopped": 9}


def test_somebody_told_to_stop_who_never_answers_ends_anyway() -> None:
    model, name = one_rollout(count=1)
    model.tick(START_MS)
    model.machines["kf-0000"].behaviour = "off"
    model.set_state(name, RolloutState.ABORTED, START_MS + MINUTE_MS)
    run(model, START_MS + STOP_MS + 3 * HOUR_MS, from_ms=START_MS + MINUTE_MS, step_ms=HOUR_MS)
    member = model.members[name]["kf-0000"]
    assert (member.state, member.reason) == (MemberState.STOPPED, "noReply")


def test_whoever_commits_although_told_to_stop_keeps_the_result() -> None:
    model, name = one_rollout(count=1)
    model.tick(START_MS)
    machine = model.machines["kf-0000"]
    model.set_state(name, RolloutState.ABORTED, START_MS + MINUTE_MS)
    model.tick(START_MS + MINUTE_MS)
    machine.heard = Heard(state="committed", reason="none", bundle=machine.bundle)
    model.tick(START_MS + 2 * MINUTE_MS)
    assert model.members[name]["kf-0000"].state is MemberState.SUCCEEDED


def test_late_joiners_come_into_the_last_wave() -> None:
    machines = fleet(10, sites=10)
    model = Model(machines)
    model.add("a" * 32, QUICK, members=sorted(machines)[:8])
    model.joiners = sorted(machines)[8:]
    actions = model.tick(START_MS)
    assert {action.terminal for action in actions if isinstance(action, Join)} == set(model.joiners)
    assert {model.members["a" * 32][one].wave for one in model.joiners} == {2}
    assert all(model.members["a" * 32][one].late for one in model.joiners)
    run(model, START_MS + DAY_MS)
    assert states(model, "a" * 32) == {"succeeded": 10}


@pytest.mark.spec("U-404")
def test_the_higher_priority_goes_first_then_the_older_and_the_other_says_so() -> None:
    machines = fleet(4, sites=4)
    model = Model(machines)
    everybody = msgspec.structs.replace(QUICK, canary=0, steps=(Step(percent=100),))
    model.add("a" * 32, everybody, now_ms=START_MS - 1)
    model.add("b" * 32, everybody, priority=5)
    model.tick(START_MS)
    assert states(model, "b" * 32) == {"started": 4}
    assert states(model, "a" * 32) == {"waiting": 4}
    assert {(one.reason, one.detail) for one in model.members["a" * 32].values()} == {("otherRollout", "b" * 32)}
    run(model, START_MS + DAY_MS)
    assert model.rollouts["a" * 32].state is RolloutState.FINISHED


def test_rollouts_of_different_components_wait_only_for_those_in_the_middle() -> None:
    member = Member(terminal="t", wave=0, bucket=1)
    older = Rollout(id="a" * 32, state=RolloutState.PAUSED, policy=QUICK, waves=(), approved_ms=1)
    newer = Rollout(id="b" * 32, state=RolloutState.RUNNING, policy=QUICK, waves=(), approved_ms=2)

    def between(state: MemberState, touches: str) -> dict[str, str]:
        first = Contender(
            rollout=older, members={"t": msgspec.structs.replace(member, state=state)}, touches=frozenset({"agent"})
        )
        return precedence([first, Contender(rollout=newer, members={"t": member}, touches=frozenset({touches}))])["b" * 32]

    assert between(MemberState.WAITING, "agent") == {"t": "a" * 32}
    assert between(MemberState.WAITING, "catalogue") == {}
    assert between(MemberState.STARTED, "catalogue") == {"t": "a" * 32}
    assert between(MemberState.SUCCEEDED, "agent") == {}


def test_nothing_starts_in_frozen_time_unless_the_policy_says_so() -> None:
    for ignore in (False, True):
        model, name = one_rollout(msgspec.structs.replace(QUICK, ignore_freeze=ignore), count=3)
        model.frozen = ((START_MS - HOUR_MS, START_MS + 5 * HOUR_MS),)
        started = [action for action in model.tick(START_MS) if isinstance(action, Start)]
        assert bool(started) is ignore
        if not ignore:
            open_wave = [one for one in model.members[name].values() if one.wave == 0]
            assert {(one.reason, one.detail) for one in open_wave} == {("frozen", str(START_MS + 5 * HOUR_MS))}
            assert [action for action in model.tick(START_MS + 6 * HOUR_MS) if isinstance(action, Start)]


def test_starts_keep_to_the_rate() -> None:
    policy = msgspec.structs.replace(QUICK, canary=0, steps=(Step(percent=100),), starts_per_minute=3)
    model, _ = one_rollout(policy, count=12)
    for second in range(0, 300, 5):
        model.tick(START_MS + second * 1000)
    starts = [at_ms for at_ms, _, action in model.log if isinstance(action, Start)]
    assert len(starts) == 12
    for at_ms in starts:
        assert sum(at_ms <= other < at_ms + MINUTE_MS for other in starts) <= 3


def test_a_release_called_bad_stops_its_rollouts_at_once() -> None:
    model, name = one_rollout()
    model.tick(START_MS)
    model.bad_release = True
    actions = model.tick(START_MS + MINUTE_MS)
    assert SetState(state=RolloutState.STOPPED, reason="badRelease") in actions
    assert sum(isinstance(action, Withdraw) for action in actions) == 2
    assert model.rollouts[name].state is RolloutState.STOPPED


def facts(**changes: Any) -> Facts:
    return msgspec.structs.replace(Facts(terminal="t", site="s", heard_ms=START_MS, wanted=WANTED), **changes)


def decide(member: Member, known: Facts | None, *, now_ms: int = START_MS, policy: Policy = QUICK, **world: Any) -> Member:
    """The member after one round of a running rollout whose only wave is open."""
    rollout = Rollout(id="a" * 32, state=RolloutState.RUNNING, policy=policy, waves=one_wave(), wave=0)
    look = World(terminals={} if known is None else {"t": known}, halls={"s": 3}, **world)
    members = {"t": member}
    for action in plan(rollout, [member], look, now_ms):
        rollout, changed = applied(rollout, members, action, now_ms)
        if changed is not None:
            members[changed.terminal] = changed
    return members["t"]


def one_wave() -> Any:
    from fleet_server.rollouts.rules import Wave

    return (Wave(no=0, planned=1, opened_ms=START_MS), Wave(no=1, planned=0))


WAITS = Member(terminal="t", site="s", wave=0, bucket=1)


@pytest.mark.parametrize(
    ("known", "state", "reason"),
    [
        (facts(), MemberState.STARTED, "sent"),
        (facts(heard_ms=None), MemberState.WAITING, "silent"),
        (facts(heard_ms=START_MS - HOUR_MS), MemberState.WAITING, "silent"),
        (facts(maintenance=True), MemberState.WAITING, "maintenance"),
        (facts(enrolled=False), MemberState.WAITING, "notEnrolled"),
        (facts(other="b" * 32), MemberState.WAITING, "otherRollout"),
        (facts(windows=()), MemberState.WAITING, "noWindow"),
        (facts(retired=True), MemberState.SKIPPED, "retired"),
        (None, MemberState.SKIPPED, "retired"),
        (facts(wanted=()), MemberState.SKIPPED, "nothingFits"),
        (facts(running={"agent": ("2.0.0", 20)}), MemberState.SUCCEEDED, "already"),
        (facts(running={"agent": ("3.0.0", 30)}), MemberState.SKIPPED, "newer"),
        (facts(running={"agent": ("2.0.0-rc1", 19)}), MemberState.STARTED, "sent"),
    ],
)
def test_what_a_waiting_member_is_told(known: Facts | None, state: MemberState, reason: str) -> None:
    after = decide(WAITS, known)
    assert (after.state, after.reason) == (state, reason)


def test_a_downgrade_is_started_only_where_the_policy_wants_it() -> None:
    newer = facts(running={"agent": ("3.0.0", 30)})
    assert decide(WAITS, newer, policy=msgspec.structs.replace(QUICK, downgrade=True)).state is MemberState.STARTED


def test_a_hall_that_is_busy_with_another_rollout_waits() -> None:
    after = decide(WAITS, facts(), hall_busy={"s": 1})
    assert (after.state, after.reason) == (MemberState.WAITING, "hall")
    third = msgspec.structs.replace(QUICK, hall_percent=67.0)
    assert decide(WAITS, facts(), hall_busy={"s": 1}, policy=third).state is MemberState.STARTED


STARTED = msgspec.structs.replace(
    WAITS, state=MemberState.STARTED, reason="sent", started_ms=START_MS - HOUR_MS, tries=1, bundle=bundle_id("a" * 32, "t", 1),
    components=("agent",),
)  # fmt: skip


def heard(state: str, reason: str = "none", bundle: str = STARTED.bundle) -> dict[str, Heard]:
    return {"agent": Heard(state=state, reason=reason, bundle=bundle)}


@pytest.mark.parametrize(
    ("known", "state", "reason"),
    [
        (facts(steps=heard("downloading")), MemberState.STARTED, "sent"),
        (facts(steps=heard("committed")), MemberState.SUCCEEDED, "committed"),
        (facts(steps=heard("committed", bundle="0" * 32)), MemberState.STARTED, "sent"),
        (facts(steps=heard("rolledBack", "selfTest")), MemberState.FAILED, "selfTest"),
        (facts(steps=heard("refused", "wrongArch")), MemberState.FAILED, "wrongArch"),
        (facts(steps=heard("refused", "noUpdater")), MemberState.SKIPPED, "noUpdater"),
        (facts(steps=heard("cancelled", "aborted")), MemberState.FAILED, "cancelled"),
        # A version in probation runs and says so; that is not yet a success.
        (facts(steps=heard("probation"), running={"agent": ("2.0.0", 20)}), MemberState.STARTED, "sent"),
        (facts(running={"agent": ("2.0.0", 20)}), MemberState.SUCCEEDED, "committed"),
        (facts(running={"agent": ("2.0.0", 19)}), MemberState.STARTED, "sent"),
        (facts(retired=True), MemberState.SKIPPED, "retired"),
    ],
)
def test_what_follows_from_a_terminals_own_word(known: Facts, state: MemberState, reason: str) -> None:
    after = decide(STARTED, known)
    assert (after.state, after.reason) == (state, reason)


def test_a_bundle_of_two_succeeds_only_whole() -> None:
    wanted = (*WANTED, Wanted(component="profiles", version="7", release=7))
    both = msgspec.structs.replace(STARTED, components=("agent", "profiles"))
    steps = heard("committed")
    assert decide(both, facts(wanted=wanted, steps=steps)).state is MemberState.STARTED
    steps = {**steps, "profiles": Heard(state="committed", reason="none", bundle=STARTED.bundle)}
    assert decide(both, facts(wanted=wanted, steps=steps)).state is MemberState.SUCCEEDED


def test_windows_are_renewed_before_they_end_and_when_they_change() -> None:
    night = (START_MS, START_MS + 6 * HOUR_MS)
    told = msgspec.structs.replace(STARTED, windows=(night,), windows_to_ms=START_MS + 13 * DAY_MS)
    assert decide(told, facts(windows=(night,), steps=heard("waiting", "window"))) == told
    longer = (*((START_MS + n * DAY_MS, START_MS + n * DAY_MS + HOUR_MS) for n in (1, 2)),)
    assert decide(told, facts(windows=(night, *longer))).windows == (night, *longer)
    short = msgspec.structs.replace(told, windows_to_ms=START_MS + 6 * DAY_MS)
    after = decide(short, facts(windows=(night,)))
    assert after.windows_to_ms == START_MS + 14 * DAY_MS


def test_a_wait_is_told_once_and_keeps_its_beginning() -> None:
    silent = facts(heard_ms=None)
    first = decide(WAITS, silent)
    assert first.since_ms == START_MS
    assert decide(first, silent, now_ms=START_MS + HOUR_MS).since_ms == START_MS
    assert decide(first, facts(maintenance=True), now_ms=START_MS + HOUR_MS).since_ms == START_MS + HOUR_MS


def test_a_gate_needs_a_share_rounded_up_and_leaves_out_who_cannot_be_tried() -> None:
    def member(n: int, state: MemberState, reason: str = "") -> Member:
        return Member(terminal=f"t{n}", wave=0, bucket=n, state=state, reason=reason)

    done = [member(n, MemberState.SUCCEEDED) for n in range(49)]
    assert gate_of([*done, member(50, MemberState.FAILED)], 98.0).met
    assert not gate_of([*done[:48], *(member(n, MemberState.FAILED) for n in (50, 51))], 98.0).met
    excused = [member(60, MemberState.WAITING, "silent"), member(61, MemberState.MISSED), member(62, MemberState.SKIPPED)]
    assert gate_of([*done[:2], *excused], 100.0).met
    assert not gate_of(excused, 50.0).met
    open_one = member(63, MemberState.WAITING, "hall")
    assert not gate_of([*done[:1], open_one], 100.0).met
    assert not gate_of([*done[:1], open_one], 100.0).impossible
    assert gate_of([*done[:1], member(64, MemberState.FAILED)], 100.0).impossible


def test_a_draft_and_a_rollout_that_waits_for_approval_do_nothing() -> None:
    for state in (RolloutState.DRAFT, RolloutState.WAITING):
        model, name = one_rollout()
        model.rollouts[name] = msgspec.structs.replace(model.rollouts[name], state=state)
        assert model.plan(name, START_MS) == []


def test_an_approved_rollout_waits_for_its_time() -> None:
    model, _ = one_rollout(msgspec.structs.replace(QUICK, not_before_ms=START_MS + HOUR_MS))
    actions = model.tick(START_MS)
    assert all(isinstance(action, Wait) and action.reason == "notBefore" for action in actions)
    assert [action for action in model.tick(START_MS + HOUR_MS) if isinstance(action, Start)]


def test_standing_still_is_not_the_end() -> None:
    assert not STILL & ENDED
    assert not BUSY & FINAL
