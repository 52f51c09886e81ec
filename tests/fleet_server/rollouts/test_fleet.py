"""A city of 400 terminals over virtual days: good, bad, silent and hanging ones, late joiners, freezes, servers that die."""

from __future__ import annotations

import random

import msgspec
import pytest

from fleet_server.rollouts.rules import FINAL, MemberState, Policy, RolloutState, Start, Step, hall_limit
from tests.support.rollouts import HOUR_MS, MINUTE_MS, START_MS, Model, fleet

DAY_MS = 24 * HOUR_MS
CITY = Policy(
    canary=2,
    steps=(Step(percent=5), Step(percent=25), Step(percent=100)),
    soak_s=4 * 3600,
    failure_count=3,
    failure_first=10,
    failure_percent=10.0,
    success_percent=90.0,
    timeout_s=12 * 3600,
    give_up_s=3 * 86_400,
    window="any",
    starts_per_minute=20,
)
NAME = "c" * 32


def drive(model: Model, *, days: int, dice: random.Random, kills: bool) -> int:
    """Rounds every ten minutes. With `kills` every third round is cut off somewhere, and what was left is planned anew."""
    now_ms, rounds = START_MS, 0
    while now_ms < START_MS + days * DAY_MS:
        model.live(now_ms)
        cut = dice.randrange(0, 12) if kills and rounds % 3 == 0 else None
        model.tick(now_ms, cut_after=cut)
        if cut is not None:
            model.tick(now_ms)
        for site, busy in model.busy_by_site().items():
            size = sum(machine.site == site for machine in model.machines.values())
            assert busy <= hall_limit(size, CITY.hall_percent)
        if model.rollouts[NAME].state in {RolloutState.FINISHED, RolloutState.STOPPED} and all(
            member.state in FINAL for member in model.members[NAME].values()
        ):
            break
        rounds += 1
        now_ms += 10 * MINUTE_MS
    return now_ms


def counted(model: Model) -> dict[str, int]:
    found: dict[str, int] = {}
    for member in model.members[NAME].values():
        found[member.state.value] = found.get(member.state.value, 0) + 1
    return found


@pytest.mark.parametrize("kills", [False, True], ids=["calm", "killed"])
def test_a_good_release_reaches_a_city_with_silent_machines_and_late_joiners(kills: bool) -> None:
    machines = fleet(400, seed=7, bad=0.01, off=0.04)
    late = sorted(machines)[-20:]
    model = Model(machines)
    model.add(NAME, CITY, members=[name for name in sorted(machines) if name not in late])
    ended_ms = None
    dice = random.Random(5)
    model.joiners = late[:5]
    drive(model, days=1, dice=dice, kills=kills)
    model.joiners = late
    ended_ms = drive(model, days=14, dice=dice, kills=kills)
    rollout = model.rollouts[NAME]
    assert rollout.state is RolloutState.FINISHED, (rollout.state, rollout.reason)
    total = counted(model)
    assert sum(total.values()) == 400
    behaviours = [machine.behaviour for machine in machines.values()]
    assert total["succeeded"] == behaviours.count("good")
    assert total["failed"] == behaviours.count("bad")
    assert total["missed"] == behaviours.count("off")
    assert all(machine.installed <= 1 for machine in machines.values()), "nobody installs twice, however often the server dies"
    assert ended_ms - START_MS < 8 * DAY_MS


def test_a_bad_release_touches_a_handful_of_400() -> None:
    model = Model(fleet(400, seed=2, bad=1.0))
    model.add(NAME, CITY)
    drive(model, days=4, dice=random.Random(1), kills=True)
    touched = {action.terminal for _, _, action in model.log if isinstance(action, Start)}
    assert model.rollouts[NAME].state in {RolloutState.STOPPED, RolloutState.HELD}
    assert len(touched) == 2
    assert all(machine.running == ("1.0.0", 10) for machine in model.machines.values())


def test_a_release_that_breaks_one_model_of_hardware_is_stopped_before_the_city_has_it() -> None:
    machines = fleet(400, seed=4)
    for machine in machines.values():
        if machine.hardware == "model-2":
            machine.behaviour = "bad"
    model = Model(machines)
    policy = msgspec.structs.replace(CITY, canary=3)
    model.add(NAME, policy)
    drive(model, days=6, dice=random.Random(9), kills=True)
    rollout = model.rollouts[NAME]
    assert rollout.state is RolloutState.HELD, "three canaries of three kinds: one fails, and 90 % cannot be reached"
    assert counted(model)["failed"] == 1


def test_a_holiday_in_the_middle_costs_time_but_no_failures() -> None:
    model = Model(fleet(400, seed=11, hangs=0.0))
    model.frozen = ((START_MS + 3 * HOUR_MS, START_MS + 3 * HOUR_MS + 9 * DAY_MS),)
    model.add(NAME, CITY)
    drive(model, days=16, dice=random.Random(3), kills=False)
    assert model.rollouts[NAME].state is RolloutState.FINISHED
    assert counted(model) == {"succeeded": 400}
    starts = [at_ms for at_ms, _, action in model.log if isinstance(action, Start)]
    assert not [at_ms for at_ms in starts if model.frozen[0][0] <= at_ms < model.frozen[0][1]]


def test_two_rollouts_over_one_city_come_to_their_ends_one_behind_the_other() -> None:
    machines = fleet(400, seed=21)
    model = Model(machines)
    model.add(NAME, CITY)
    model.add("d" * 32, msgspec.structs.replace(CITY, soak_s=600), priority=10, now_ms=START_MS + 1)
    drive(model, days=12, dice=random.Random(6), kills=True)
    assert {rollout.state for rollout in model.rollouts.values()} == {RolloutState.FINISHED}
    # The first is on the version already when its turn comes.
    assert {member.reason for member in model.members[NAME].values()} <= {"already", "committed"}
    assert all(member.state is MemberState.SUCCEEDED for members in model.members.values() for member in members.values())
