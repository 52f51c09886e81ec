"""The workflow as a machine: one path at a time, then any sequence of events in a small world with a launcher, a disk, citizens and power cuts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent import launcher
from edge_agent.updater import workflow
from edge_agent.updater.handover import Applied, AppliedOne, Grant, Health
from edge_agent.updater.layout import SeatState, Trial
from edge_agent.updater.workflow import DAY_MS, ENDS, HOUR_MS, MINUTE_MS, Action, Facts, Outcome, Work
from protocols.contract.orders import Bundle, Wanted
from protocols.contract.records import UpdateReason

pytestmark = pytest.mark.spec("U-303 U-306")

OLD, NEW = "old", "new"
WALL = 1_800_000_000_000
QUIET_MS = 180_000


def wanted(component: str = "agent", version: str = "1.1.0", release: int = 2) -> Wanted:
    return Wanted(
        component=component,
        target=f"agent/{version}.tar",
        version=version,
        release=release,
        length=1000,
        sha256=bytes(31) + bytes([release]),
    )


def bundle(number: int = 1, *components: str, **more: Any) -> Bundle:
    return Bundle(
        id=bytes(15) + bytes([number]),
        rollout=bytes(16),
        wanted=tuple(wanted(name, release=number) for name in (components or ("agent",))),
        probation_s=more.pop("probation_s", 600),
        **more,
    )


class World:
    """A terminal around the machine. `behaviour`: what the new version does. Deterministic; time passes only by `pass_ms`."""

    def __init__(self, want: Bundle | None, behaviour: str = "good") -> None:
        self.boot, self.boot_ms, self.wall_ms = 1, 1_000, WALL
        self.want = want
        self.behaviour = behaviour
        self.work: Work | None = None
        self.kept: bytes | None = None
        """The work as the disk has it."""
        self.state: dict[str, Any] = {"factory": OLD, "seats": {"agent": {"good": OLD}}}
        self.trees = {OLD}
        self.running = OLD
        self.started_ms = 0
        self.citizen = False
        self.granted: Grant | None = None
        self.spent = ""
        """What was granted last: the agent grants one asking once."""
        self.drops = ""
        """When the agent takes its promise back at once: `seen` by the updater, or `unseen`."""
        self.closed_ms = 0
        """For so long no session could begin."""
        self.asked = 0
        self.applied: Applied | None = None
        self.reverted = False
        self.trouble: dict[Action, Outcome] = {}
        self.alive = True
        self.clock_ok = True
        self.switches: list[tuple[int, bool]] = []
        self.states: list[str] = []
        self.done: list[Action] = []

    # ------------------------------------------------------------------------------------------------------------------ the outside

    def start(self) -> None:
        """Whoever starts the agent: the launcher counts."""
        name, self.state = launcher.decide(self.state, "agent", lambda one: one in self.trees, sorted(self.trees))
        assert name is not None and name in self.trees, "no complete version to start"
        self.running, self.started_ms = name, self.boot_ms

    def crash_if_bad(self) -> None:
        if self.running == NEW and self.behaviour in ("crashes", "hangs"):
            self.state = launcher.end(self.state, "agent", "crashed" if self.behaviour == "crashes" else "hung")
            self.start()

    def reboot(self) -> None:
        """Also a power cut: what was not written down is gone."""
        self.boot, self.boot_ms = self.boot + 1, 500
        self.work = msgspec.json.decode(self.kept, type=Work) if self.kept else None
        self.granted, self.spent = None, ""
        self.start()

    def agent(self) -> None:
        """Its side of the quiet: at most one grant for each asking, only while nobody is served, gone when nobody wants it."""
        want = self.work.want if self.work is not None else None
        grant = self.granted
        if grant is not None and (grant.want != want or grant.until_boot_ms <= self.boot_ms or self.drops):
            self.granted = None
        if self.granted is None and want is not None and want != self.spent and not self.citizen and self.facts().fresh:
            self.spent = want
            self.closed_ms += 1_000
            if self.drops != "unseen":
                self.granted = Grant(want=want, boot_id=f"{self.boot:032x}", until_boot_ms=self.boot_ms + QUIET_MS)

    def pass_ms(self, span: int) -> None:
        if self.granted is not None:
            self.closed_ms += min(span, max(0, self.granted.until_boot_ms - self.boot_ms))
        self.boot_ms += span
        self.wall_ms += span

    def seat(self) -> SeatState:
        return msgspec.convert(self.state["seats"]["agent"], SeatState)

    def facts(self) -> Facts:
        silent = not self.alive or (self.running == NEW and self.behaviour in ("crashes", "hangs", "silent"))
        lost = self.running == NEW and self.behaviour == "loses"
        health = Health(
            boot_id=f"{self.boot:032x}",
            boot_ms=self.boot_ms,
            version="1.1.0" if self.running == NEW else "1.0.0",
            pid=1,
            idle=not self.citizen and self.granted is None,
            devices={"scanner": "noDevice" if lost else "online"},
            mandatory=("scanner",),
        )
        return Facts(
            boot_id=f"{self.boot:032x}",
            boot_ms=self.boot_ms,
            wall_ms=self.wall_ms,
            clock_ok=self.clock_ok,
            bundle=self.want,
            seat=self.seat(),
            tree_is_complete=NEW in self.trees,
            health=health,
            fresh=not silent,
            owned=not silent,
            rss_kib=900_000 if self.running == NEW and self.behaviour == "eats" else 50_000,
            grant=self.granted,
            applied=self.applied,
        )

    # ------------------------------------------------------------------------------------------------------------------- the inside

    def carry_out(self, action: Action) -> Outcome:
        assert self.work is not None
        if action in self.trouble:
            return self.trouble[action]
        own = self.state["seats"]["agent"]
        if action is Action.VERIFY:
            if self.behaviour == "bad archive":
                return Outcome(reason="badArchive", retryable=False)
            self.trees.add(NEW)
            return Outcome(tree=NEW)
        if action is Action.ASK:
            self.asked += 1
            return Outcome(want=f"{self.asked:032x}")
        if action is Action.SWITCH:
            quiet = self.granted is not None and self.granted.until_boot_ms > self.boot_ms
            self.switches.append((self.wall_ms, quiet or self.work.silent_ms >= workflow.DEAD_AFTER_MS))
            if own.get("trial") is None:
                own["trial"] = msgspec.to_builtins(Trial(name=NEW, bundle=self.work.bundle.id.hex()))
            self.granted = None
            self.start()
            return Outcome()
        if action is Action.APPLY:
            identity = "a" * 32
            failing = self.behaviour == "cannot apply"
            results = tuple(
                AppliedOne(
                    component=part.wanted.component,
                    state="failed" if failing else "done",
                    reason="wrongPart" if failing else "none",
                    version=part.wanted.version,
                )
                for part in self.work.others
            )
            self.applied = Applied(id=identity, results=results)
            return Outcome(apply=identity)
        if action is Action.UNDO:
            own["trial"] = None
            self.reverted = True
            self.start()
            return Outcome()
        if action is Action.COMMIT:
            trial = own.get("trial")
            if self.work.agent is not None and (trial is None or trial["name"] != NEW) and own.get("good") != NEW:
                return Outcome(reason="crashed", retryable=False)
            if self.work.agent is not None:
                own["good"], own["trial"] = NEW, None
            return Outcome()
        if action is Action.CLEAN:
            names = {self.state["factory"], own.get("good"), (own.get("trial") or {}).get("name")}
            self.trees &= {name for name in names if name}
        return Outcome()

    def tick(self, *, cut: str = "none") -> Action:
        """One round of the service. `cut`: power is lost `before` the action, or `after` it and before its outcome is kept."""
        self.agent()
        self.work, action = workflow.advance(self.work, self.facts())
        self.keep()
        if cut == "before":
            self.reboot()
            return Action.NOTHING
        if action is not Action.NOTHING:
            outcome = self.carry_out(action)
            if cut == "after":
                self.reboot()
                return action
            assert self.work is not None
            self.work = workflow.done(self.work, action, outcome, self.facts())
            self.done.append(action)
            self.keep()
        assert self.running in self.trees, "what runs is complete"
        return action

    def keep(self) -> None:
        self.kept = msgspec.json.encode(self.work) if self.work is not None else None
        if self.work is not None and (not self.states or self.states[-1] != self.work.state):
            self.states.append(self.work.state)

    def run(self, *, for_ms: int = 3 * 60 * MINUTE_MS, step_ms: int = 5_000) -> Work:
        """Let time pass until an end that is cleaned."""
        end_ms = self.boot_ms + for_ms
        while self.boot_ms < end_ms:
            self.tick()
            self.crash_if_bad()
            if self.work is not None and self.work.state in ENDS and not self.work.ended:
                return self.work
            self.pass_ms(step_ms)
        assert self.work is not None
        return self.work


def test_a_good_version_goes_all_the_way() -> None:
    world = World(bundle())
    work = world.run()
    assert world.states == ["pending", "downloading", "verifying", "staged", "waiting", "installing", "probation", "committed"]
    assert (world.running, work.reason, world.seat().good) == (NEW, "none", NEW)
    assert world.switches == [(world.switches[0][0], True)]
    assert work.before.working == ("scanner",)
    world.run(for_ms=DAY_MS)
    assert world.states[-1] == "committed", "done once"


BAD = {
    "crashes": "crashed",
    "hangs": "hung",
    "eats": "memory",
    "loses": "peripheralLost",
    "silent": "noConfirmation",
}


@pytest.mark.parametrize("behaviour", BAD)
def test_a_bad_version_is_taken_back_with_its_reason_and_never_tried_again(behaviour: str) -> None:
    world = World(bundle(probation_s=120), behaviour)
    work = world.run()
    assert (work.state, work.reason) == ("rolledBack", BAD[behaviour])
    assert world.running == OLD
    world.run(for_ms=DAY_MS * 3, step_ms=MINUTE_MS)
    assert len(world.switches) == 1
    assert (world.work is not None) and world.work.state == "rolledBack"


def test_a_bad_archive_is_not_fetched_for_ever() -> None:
    world = World(bundle(), "bad archive")
    work = world.run()
    assert (work.state, work.reason, work.final) == ("failed", "badArchive", True)
    assert world.running == OLD and world.switches == []


@pytest.mark.parametrize("reason", ["unreachable", "certificate", "slow", "noSpace", "readOnly"])
def test_what_may_pass_is_tried_until_the_limit_then_told_then_taken_up_again(reason: UpdateReason) -> None:
    world = World(bundle())
    world.trouble[Action.FETCH] = Outcome(reason=reason)
    work = world.run(for_ms=2 * DAY_MS, step_ms=MINUTE_MS)
    assert (work.state, work.reason, work.final) == ("failed", reason, False)
    world.trouble.clear()
    for _ in range(40):
        world.tick()
        world.pass_ms(MINUTE_MS)
    work = world.run()
    assert work.state == "committed"
    assert work.rounds == 2, "it says that it was not the first try"


def test_while_the_server_is_gone_it_is_asked_at_growing_intervals() -> None:
    world = World(bundle())
    world.trouble[Action.LOOK] = Outcome(reason="unreachable")
    for _ in range(12 * 60):
        world.tick()
        world.pass_ms(5_000)
    assert 6 <= len(world.done) <= 14
    assert world.work is not None and (world.work.state, world.work.reason) == ("pending", "unreachable")


def test_a_refusal_is_told_and_asked_again_later() -> None:
    world = World(bundle())
    world.trouble[Action.LOOK] = Outcome(reason="partialBundle", retryable=False)
    work = world.run()
    assert (work.state, work.reason) == ("refused", "partialBundle")
    world.trouble.clear()
    for _ in range(20):
        world.tick()
        world.pass_ms(MINUTE_MS)
    assert world.run().state == "committed", "the director came later than the desired state"


@pytest.mark.parametrize("reason", ["wrongArch", "downgrade", "wrongHardware"])
def test_what_can_never_fit_is_final(reason: UpdateReason) -> None:
    world = World(bundle())
    world.trouble[Action.LOOK] = Outcome(reason=reason, retryable=False)
    assert world.run().final


def test_wrong_bytes_are_fetched_again_a_few_times() -> None:
    world = World(bundle())
    world.trouble[Action.VERIFY] = Outcome(reason="hash", retryable=False)
    work = world.run()
    assert (work.state, work.reason) == ("failed", "hash")
    assert world.done.count(Action.FETCH) == workflow.MAX_FAILS


# ----------------------------------------------------------------------------------------------------------------------- waiting


def waits(world: World, reason: str) -> None:
    for _ in range(30):
        world.tick()
        world.pass_ms(5_000)
    assert world.work is not None
    assert (world.work.state, world.work.reason) == ("waiting", reason)
    assert world.switches == []


def test_never_during_a_session() -> None:
    world = World(bundle())
    world.citizen = True
    waits(world, "idle")
    world.citizen = False
    assert world.run().state == "committed"
    assert all(quiet for _, quiet in world.switches)


def test_only_in_a_window() -> None:
    window = (WALL + 4 * HOUR_MS, WALL + 5 * HOUR_MS)
    world = World(bundle(windows=((WALL - 2 * HOUR_MS, WALL - HOUR_MS), window)))
    waits(world, "window")
    assert world.asked == 0, "nobody is kept away from the terminal outside the window"
    assert world.run(for_ms=6 * HOUR_MS).state == "committed"
    assert window[0] <= world.switches[0][0] < window[1]


def test_after_the_last_window_it_waits_for_the_server() -> None:
    world = World(bundle(windows=((WALL - 2 * HOUR_MS, WALL - HOUR_MS),)))
    waits(world, "window")
    world.run(for_ms=30 * DAY_MS, step_ms=HOUR_MS)
    waits(world, "window")
    world.want = bundle()
    assert world.run().state == "committed", "the same bundle with other windows"


def test_not_before_and_hold() -> None:
    world = World(bundle(not_before_ms=WALL + HOUR_MS))
    waits(world, "notBefore")
    world.want = bundle(hold=True)
    waits(world, "hold")
    world.want = bundle()
    assert world.run().state == "committed"


def test_a_clock_in_1970_keeps_it_from_guessing_a_window() -> None:
    world = World(bundle(windows=((WALL, WALL + DAY_MS),)))
    world.clock_ok = False
    waits(world, "clock")
    world.clock_ok = True
    assert world.run().state == "committed"


def test_without_windows_a_clock_in_1970_is_no_hindrance() -> None:
    world = World(bundle())
    world.clock_ok = False
    assert world.run().state == "committed"


def test_a_hold_that_comes_after_the_promise_lets_go_of_it() -> None:
    world = World(bundle())
    world.citizen = True
    waits(world, "idle")
    assert world.work is not None and world.work.want is not None
    world.want = bundle(hold=True)
    world.tick()
    assert world.work.want is None
    waits(world, "hold")


def test_an_agent_that_hangs_does_not_keep_its_successor_away() -> None:
    world = World(bundle())
    world.alive = False
    world.behaviour = "good"
    for _ in range(200):
        world.tick()
        if world.switches:
            break
        world.pass_ms(5_000)
    assert world.work is not None and world.switches, "after ten silent minutes"
    world.alive = True
    assert world.run().state == "committed"


def test_a_terminal_that_is_never_idle_is_told_in_the_end() -> None:
    world = World(bundle())
    world.citizen = True
    work = world.run(for_ms=20 * DAY_MS, step_ms=MINUTE_MS)
    assert (work.state, work.reason) == ("failed", "noProgress")


@pytest.mark.spec("U-306")
def test_reboots_do_not_make_the_limit_of_waiting_begin_anew() -> None:
    world = World(bundle())
    world.citizen = True
    for _ in range(20):
        world.run(for_ms=DAY_MS, step_ms=10 * MINUTE_MS)
        world.reboot()
    assert world.work is not None and (world.work.state, world.work.reason) == ("failed", "noProgress")


# ---------------------------------------------------------------------------------------------------------------- quiet without use


def sixteen_days(world: World) -> Work:
    end_ms = world.boot_ms + 16 * DAY_MS
    while world.boot_ms < end_ms:
        world.tick()
        world.pass_ms(5_000 if world.granted is not None or world.boot_ms < DAY_MS else MINUTE_MS)
    assert world.work is not None
    return world.work


@pytest.mark.parametrize(
    ("reason", "drops"), [("readOnly", ""), ("noSpace", ""), ("interrupted", ""), ("readOnly", "seen"), ("readOnly", "unseen")]
)
def test_a_switch_that_never_works_closes_the_terminal_three_times_and_no_more(reason: UpdateReason, drops: str) -> None:
    """A root that was remounted read-only, while everything else works; with an agent that keeps its promise, and with one that does not."""
    world = World(bundle())
    world.trouble[Action.SWITCH] = Outcome(reason=reason)
    world.drops = drops
    work = sixteen_days(world)
    assert work.state == "failed" and work.final
    assert work.reason == ("noProgress" if drops == "unseen" else "interrupted" if drops == "seen" else reason)
    assert world.asked == 3
    assert world.closed_ms <= 3 * (QUIET_MS + 10_000)
    assert world.running == OLD


def test_between_two_quiets_there_is_time_for_citizens_and_the_reason_is_told() -> None:
    world = World(bundle())
    world.trouble[Action.SWITCH] = Outcome(reason="readOnly")
    asked_at: list[int] = []
    told: set[tuple[str, str]] = set()
    for _ in range(3 * 60 * 12):
        before = world.asked
        world.tick()
        if world.asked > before:
            asked_at.append(world.boot_ms)
        if world.work is not None:
            told.add((world.work.state, world.work.reason))
        world.pass_ms(5_000)
    first, second, third = asked_at
    assert second - first >= 10 * MINUTE_MS and third - second >= HOUR_MS
    assert {("waiting", "readOnly"), ("installing", "readOnly"), ("failed", "readOnly")} <= told


def test_a_disk_that_comes_back_gets_the_version_in_the_next_quiet() -> None:
    world = World(bundle())
    world.trouble[Action.SWITCH] = Outcome(reason="readOnly")
    while world.asked < 2:
        world.tick()
        world.pass_ms(5_000)
    world.trouble.clear()
    assert world.run().state == "committed"


@pytest.mark.parametrize("drops", ["seen", "unseen"])
def test_a_promise_that_was_taken_back_is_asked_for_again(drops: str) -> None:
    world = World(bundle())
    world.drops = drops
    while world.asked < 1 or world.spent == "":
        world.tick()
        world.pass_ms(5_000)
    world.tick()
    world.drops = ""
    assert world.run().state == "committed"
    assert world.asked == 2


def test_a_promise_that_fell_to_a_damaged_tree_is_asked_for_again() -> None:
    world = World(bundle())
    while world.work is None or world.work.want is None:
        world.tick()
    world.agent()
    world.trees.discard(NEW)
    assert world.run(for_ms=HOUR_MS).state == "committed"
    assert world.asked == 2


def test_a_citizen_who_stays_is_no_promise_taken_back() -> None:
    world = World(bundle())
    world.citizen = True
    world.run(for_ms=2 * DAY_MS, step_ms=MINUTE_MS)
    assert world.asked == 1
    world.citizen = False
    assert world.run().state == "committed"
    assert world.asked == 1


def test_power_cuts_at_every_switch_end_as_well() -> None:
    """A disk whose writing brings the machine down: it must not do so for ever."""
    world = World(bundle())
    world.trouble[Action.SWITCH] = Outcome(reason="readOnly")
    for _ in range(3 * 60 * 12):
        installs = world.work is not None and world.work.state == "installing"
        world.tick(cut="before" if installs else "none")
        world.pass_ms(5_000)
    assert world.work is not None and (world.work.state, world.work.reason) == ("failed", "interrupted")
    assert world.asked == 3


# ------------------------------------------------------------------------------------------------------------------- other bundles


@pytest.mark.spec("O-306")
@pytest.mark.parametrize("other", [None, 2])
def test_another_word_of_the_server_before_the_switch_ends_it(other: int | None) -> None:
    world = World(bundle())
    world.citizen = True
    waits(world, "idle")
    world.want = None if other is None else bundle(other)
    world.tick()
    assert world.work is not None
    assert (world.work.state, world.work.reason) == ("cancelled", "aborted" if other is None else "superseded")
    world.citizen = False
    if other is None:
        world.run(for_ms=HOUR_MS)
        assert world.running == OLD
    else:
        while world.work.bundle.id != world.want.id:  # type: ignore[union-attr]  # it is wanted
            world.tick()
        assert world.run().state == "committed"


def test_after_the_switch_it_is_brought_to_an_end_first() -> None:
    world = World(bundle())
    while not world.switches:
        world.tick()
        world.pass_ms(1_000)
    world.want = None
    assert world.run().state == "committed"


def test_the_same_desired_state_without_the_file_is_no_abort() -> None:
    world = World(bundle())
    world.citizen = True
    waits(world, "idle")
    facts = msgspec.structs.replace(world.facts(), bundle=None, known=False)
    work, _ = workflow.advance(world.work, facts)
    assert work is not None and work.state == "waiting"


def test_a_long_action_is_asked_to_stop_when_nobody_wants_it_any_more() -> None:
    world = World(bundle())
    world.tick()
    assert world.work is not None and workflow.wanted_still(world.work, world.facts())
    world.want = bundle(2)
    assert not workflow.wanted_still(world.work, world.facts())


# ---------------------------------------------------------------------------------------------------------------------- watchdog


def test_an_action_that_makes_no_progress_ends_the_step() -> None:
    world = World(bundle())
    world.tick()
    world.tick()
    assert world.work is not None and world.work.state == "downloading"
    busy = msgspec.structs.replace(world.facts(), busy=True)
    work: Work | None = world.work
    for at in range(30):
        work, action = workflow.advance(
            work, msgspec.structs.replace(busy, boot_ms=busy.boot_ms + at * HOUR_MS, moved=min(at, 3))
        )
        assert action is Action.NOTHING
    assert work is not None
    assert (work.state, work.reason) == ("failed", "noProgress")


@pytest.mark.parametrize("state", sorted(set(workflow.LIMIT_MS)))
def test_no_step_is_without_a_limit(state: str) -> None:
    """A machine that is stuck in `state` with nothing ever happening leaves it."""
    work = Work(bundle=bundle(), parts=(workflow.Part(wanted=wanted(), fetched=state != "downloading"),), state=state, tree=NEW)  # type: ignore[arg-type]
    world = World(bundle())
    world.citizen, world.trees = True, {OLD, NEW}
    world.work = work
    for _ in range(20 * 24):
        facts = msgspec.structs.replace(world.facts(), busy=True, seat=SeatState(good=OLD, trial=Trial(name=NEW)))
        world.work, _ = workflow.advance(world.work, facts)
        assert world.work is not None
        if world.work.state != state or world.work.verdict != "none":
            break
        world.pass_ms(HOUR_MS)
    else:
        raise AssertionError(f"stuck in {state}")


# ----------------------------------------------------------------------------------------------------------- what the agent applies


def test_other_components_come_after_the_agent_has_proved_itself() -> None:
    world = World(bundle(1, "agent", "profiles", "firmware/receipt-printer"))
    assert world.run().state == "committed"
    assert world.states == [
        *("pending", "downloading", "verifying", "staged", "waiting", "installing", "probation", "installing", "committed")
    ]
    assert world.done.count(Action.FETCH) == 3


def test_a_bundle_without_the_agent_needs_no_quiet() -> None:
    world = World(bundle(1, "content/guide"))
    world.citizen = True
    assert world.run().state == "committed"
    assert world.asked == 0 and world.running == OLD


def test_if_one_component_cannot_be_put_to_use_all_goes_back() -> None:
    world = World(bundle(1, "agent", "firmware/receipt-printer"), "cannot apply")
    work = world.run()
    assert (work.state, work.reason) == ("rolledBack", "wrongPart")
    assert world.running == OLD and world.reverted


def test_every_state_is_told_for_every_component() -> None:
    work = Work(
        bundle=bundle(1, "agent", "profiles"), parts=(workflow.Part(wanted=wanted()), workflow.Part(wanted=wanted("profiles")))
    )
    told = workflow.reports(work)
    assert [one.component for one in told] == ["agent", "profiles"]
    assert {one.bundle for one in told} == {work.bundle.id}


def test_the_work_survives_its_file() -> None:
    world = World(bundle(windows=((1, 2),)))
    world.tick()
    assert world.kept is not None
    assert msgspec.json.decode(world.kept, type=Work) == world.work


# --------------------------------------------------------------------------------------------------------------- any sequence at all

events = st.one_of(
    st.tuples(st.just("tick"), st.sampled_from(["none", "before", "after"])),
    st.tuples(st.just("time"), st.sampled_from([1_000, 30_000, 10 * MINUTE_MS, HOUR_MS, DAY_MS])),
    st.tuples(st.just("reboot"), st.none()),
    st.tuples(st.just("start"), st.none()),
    st.tuples(st.just("citizen"), st.booleans()),
    st.tuples(st.just("alive"), st.booleans()),
    st.tuples(st.just("clock"), st.booleans()),
    st.tuples(st.just("want"), st.sampled_from(["same", "hold", "other", "none", "window"])),
    st.tuples(
        st.just("trouble"),
        st.tuples(
            st.sampled_from([Action.LOOK, Action.FETCH, Action.VERIFY, Action.SWITCH, Action.COMMIT, Action.CLEAN, Action.UNDO]),
            st.sampled_from(["unreachable", "noSpace", "readOnly", "hash", "none"]),
        ),
    ),
    st.tuples(st.just("damage"), st.none()),
)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(events, max_size=60),
    st.sampled_from(["good", "crashes", "hangs", "eats", "loses", "silent", "bad archive", "cannot apply"]),
    st.sampled_from([("agent",), ("agent", "profiles"), ("profiles",)]),
)
def test_whatever_happens_a_complete_version_runs_and_the_bundle_ends_with_a_word(
    happens: list[tuple[str, Any]], behaviour: str, components: tuple[str, ...]
) -> None:
    world = World(bundle(1, *components), behaviour)
    for kind, value in happens:
        if kind == "tick":
            world.tick(cut=value)
            world.crash_if_bad()
        elif kind == "time":
            world.pass_ms(value)
        elif kind == "reboot":
            world.reboot()
        elif kind == "start":
            world.start()
        elif kind == "citizen":
            world.citizen = value
        elif kind == "alive":
            world.alive = value
        elif kind == "clock":
            world.clock_ok = value
        elif kind == "trouble":
            action, reason = value
            if reason == "none":
                world.trouble.pop(action, None)
            else:
                world.trouble[action] = Outcome(reason=reason, retryable=reason != "hash")
        elif kind == "damage":
            world.trees.discard(NEW)
            if world.running == NEW and world.state["seats"]["agent"].get("good") != OLD:
                world.state["seats"]["agent"]["previous"] = OLD
            world.start()
        else:
            world.want = {
                "same": bundle(1, *components),
                "hold": bundle(1, *components, hold=True),
                "other": bundle(2, *components),
                "none": None,
                "window": bundle(1, *components, windows=((world.wall_ms + HOUR_MS, world.wall_ms + 2 * HOUR_MS),)),
            }[value]
        assert world.running in world.trees
    assert all(quiet for _, quiet in world.switches), "never during a session"
    # Then calm: the server is there, the disk has room, nobody is at the terminal.
    world.trouble.clear()
    world.citizen, world.alive, world.clock_ok = False, True, True
    final = bundle(9, *components)
    world.want = final
    for _ in range(3000):
        world.tick()
        world.crash_if_bad()
        if world.work is not None and world.work.bundle.id == final.id and world.work.final and not world.work.ended:
            break
        world.pass_ms(20_000)
    work = world.work
    assert work is not None and work.bundle.id == final.id and work.state in ENDS, f"{work and (work.state, work.reason)}"
    if work.state == "committed":
        assert world.running == (NEW if "agent" in components else world.running)
        assert world.seat().trial is None
    else:
        assert work.reason != "none"
    assert world.running in world.trees
    assert world.seat().trial is None, "nothing stays on trial"
