"""The updater's loop: what it keeps before it acts, what it tells, how it hands over to a newer self, and when it gives itself up."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent import cli, launcher
from edge_agent.updater import handover, install, workflow
from edge_agent.updater import service as services
from edge_agent.updater.counters import Counters
from edge_agent.updater.delta import Base, Got
from edge_agent.updater.errors import Unavailable
from edge_agent.updater.floor import TimeFloor
from edge_agent.updater.handover import AgentSide, UpdaterSide
from edge_agent.updater.layout import Layout, name_of
from edge_agent.updater.service import GiveUp, Service
from edge_agent.updater.source import Tell
from edge_agent.updater.store import Store
from edge_agent.updater.trust import Component
from edge_agent.updater.workflow import Action
from protocols.contract import orders
from protocols.contract.orders import Bundle, Desired
from tests.edge_agent.updater import steps
from tests.edge_agent.updater.places import NEW_NAME, OLD_NAME
from tests.edge_agent.updater.steps import BUNDLE_ID, FLEET, ORDER_KEY, TERMINAL, WALL_MS, Agent, FolderSource, StepClock
from tests.support.packages import tiny

pytestmark = pytest.mark.spec("U-307")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    steps.lay_place(tmp_path / "place")
    return tmp_path / "place"


def desire(place: Path, counter: int, bundle: Bundle | None) -> None:
    desired = Desired(counter=counter, issued_ms=WALL_MS, by="maker", approved_by="checker", bundle=bundle)
    AgentSide(place / "requests", place / "updates").write_desired(orders.seal_desired(desired, ORDER_KEY, FLEET, TERMINAL))


def told(place: Path) -> list[tuple[str, str]]:
    lines = handover.read_progress(place / "updates" / "progress.ndjson")
    return [(line.update.state, line.update.reason) for line in lines if line.update is not None]


def versions(place: Path) -> list[str]:
    lines = handover.read_progress(place / "updates" / "progress.ndjson")
    return [one.version for line in lines if line.versions is not None for one in line.versions.installed]


def rounds(one: Service, agent: Agent, clock: StepClock, count: int, *, step_ms: int = 1_000) -> None:
    for _ in range(count):
        agent.step()
        one.tick()
        clock.now_ms += step_ms


def test_each_change_of_state_is_told_once_and_what_runs_at_start_and_change(place: Path) -> None:
    steps.whole_update(place)
    assert told(place) == [
        ("pending", "none"),
        ("downloading", "none"),
        ("verifying", "none"),
        ("staged", "none"),
        ("waiting", "idle"),
        ("installing", "none"),
        ("probation", "none"),
        ("committed", "none"),
    ]
    assert versions(place) == ["1.0.0", "1.1.0"]
    clock = StepClock()
    rounds(steps.service(place, clock), Agent(place, clock), clock, 5)
    assert len(told(place)) == 8, "a restart tells no state again"
    assert versions(place) == ["1.0.0", "1.1.0", "1.1.0"]


def test_after_the_agent_the_updater_itself_becomes_the_new_version_and_confirms_itself(place: Path) -> None:
    steps.whole_update(place)
    layout = Layout(place / "root")
    own = layout.state().seat("updater")
    assert own.trial is not None and own.trial.name == NEW_NAME and own.good == OLD_NAME
    assert launcher.count(layout.root, "updater") == NEW_NAME
    clock = StepClock()
    one, agent = steps.service(place, clock), Agent(place, clock)
    rounds(one, agent, clock, 20)
    assert layout.state().seat("updater").trial is not None, "not at once"
    rounds(one, agent, clock, 20)
    own = layout.state().seat("updater")
    assert (own.good, own.previous, own.trial) == (NEW_NAME, OLD_NAME, None)


def test_a_new_updater_that_does_not_start_gives_way_while_the_agent_stays_new(place: Path) -> None:
    steps.whole_update(place)
    root = place / "root"
    started = [launcher.count(root, "updater") for _ in range(install.MAX_TRIES + 1)]
    assert started == [NEW_NAME] * install.MAX_TRIES + [OLD_NAME]
    assert launcher.count(root) == NEW_NAME
    clock = StepClock()
    one = steps.service(place, clock)
    rounds(one, Agent(place, clock), clock, 40)
    assert not one.restart_wanted, "not tried again"
    assert Layout(root).state().seat("updater").good == OLD_NAME


def test_the_updater_says_when_it_should_be_started_anew(place: Path) -> None:
    clock = StepClock()
    one, agent = steps.service(place, clock), Agent(place, clock)
    stop = threading.Event()
    seen: list[int] = []

    def alive() -> None:
        seen.append(1)
        agent.step()
        clock.now_ms += 1_000
        if len(seen) > 100:
            stop.set()

    agent.step()
    services.run(one, stop, 0.0, alive)
    assert one.restart_wanted and not stop.is_set()


def test_an_older_desired_state_changes_nothing(place: Path) -> None:
    clock = StepClock()
    one, agent = steps.service(place, clock), Agent(place, clock)
    rounds(one, agent, clock, 1)
    desire(place, 5, None)
    rounds(one, agent, clock, 2)
    assert told(place)[-1] == ("cancelled", "aborted")
    wanted = one.work.bundle if one.work else None
    desire(place, 4, wanted)
    rounds(one, agent, clock, 10)
    assert told(place)[-1] == ("cancelled", "aborted")
    desire(place, 6, wanted)
    rounds(one, agent, clock, 30)
    assert told(place)[-1] == ("cancelled", "aborted"), "the same bundle was ended for good; the server makes another one"


def test_a_bundle_that_nobody_approved_is_not_begun(place: Path) -> None:
    raw = Desired(counter=9, issued_ms=WALL_MS, by="maker", bundle=None)
    clock = StepClock()
    one, agent = steps.service(place, clock), Agent(place, clock)
    rounds(one, agent, clock, 1)
    assert one.work is not None
    alone = msgspec.structs.replace(raw, bundle=msgspec.structs.replace(one.work.bundle, id=bytes(15) + b"\x09"))
    AgentSide(place / "requests", place / "updates").write_desired(orders.seal_desired(alone, ORDER_KEY, FLEET, TERMINAL))
    rounds(one, agent, clock, 40)
    assert one.work.bundle.id == BUNDLE_ID


def test_a_desired_state_that_the_agent_lost_still_holds(place: Path) -> None:
    clock = StepClock()
    agent = Agent(place, clock)
    rounds(steps.service(place, clock), agent, clock, 2)
    for name in ("desired.cose", "order-keys.json"):
        (place / "requests" / name).unlink()
    one = steps.service(place, clock)
    rounds(one, agent, clock, 60)
    assert told(place)[-1] == ("committed", "none")


def test_nothing_is_done_before_it_is_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a disk that takes nothing there is no step whose beginning nobody remembers."""
    clock = StepClock()
    one, agent = steps.service(place, clock), Agent(place, clock)
    rounds(one, agent, clock, 3)
    before = one.work

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "save", full)
        rounds(one, agent, clock, 40)
        assert before is not None and one.work is not None and one.work.state == before.state
    rounds(one, agent, clock, 60)
    assert told(place)[-1] == ("committed", "none")


@pytest.mark.parametrize("content", [b"", b"{", b'{"work": {"state": "probation"}}'])
def test_a_spoiled_memory_begins_anew(place: Path, content: bytes) -> None:
    clock = StepClock()
    agent = Agent(place, clock)
    rounds(steps.service(place, clock), agent, clock, 12)
    (place / "updater" / "workflow.json").write_bytes(content)
    rounds(steps.service(place, clock), agent, clock, 60)
    assert told(place)[-1] == ("committed", "none")
    assert Layout(place / "root").state().seat("agent").good == NEW_NAME


def test_the_wish_for_quiet_is_gone_after_the_switch(place: Path) -> None:
    steps.whole_update(place)
    assert not (place / "updates" / "want.json").exists()


# ------------------------------------------------------------------------------------------------ one failing place stops only its own step


def refuse(*_: Any, **__: Any) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


def refuse_in_our_words(*_: Any, **__: Any) -> None:
    raise Unavailable("readOnly", "the disk cannot be written")


@pytest.mark.parametrize("step", [(Counters, "accept_desired"), (TimeFloor, "hear_server"), (Store, "accept")])
def test_a_desired_state_that_cannot_be_kept_does_not_stop_what_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: tuple[type, str]
) -> None:
    clock = StepClock()
    one, agent = steps.service(place, clock), Agent(place, clock)
    rounds(one, agent, clock, 2)
    assert one.work is not None
    wanted = one.work.bundle
    with monkeypatch.context() as patched:
        patched.setattr(*step, refuse)
        desire(place, 2, None)
        rounds(one, agent, clock, 60)
        assert told(place)[-1] == ("committed", "none"), "what was ordered before still holds"
        assert len([line for line in caplog.messages if "disk" in line]) == 1, "and that is said once"
    desire(place, 3, msgspec.structs.replace(wanted, id=bytes(15) + b"\x09"))
    rounds(one, agent, clock, 60)
    assert one.work.bundle.id != BUNDLE_ID, "as soon as it can be kept it counts"


def test_where_nothing_can_be_told_the_work_goes_on_and_each_outcome_is_taken_in_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = StepClock()
    one, agent = steps.service(place, clock), Agent(place, clock)
    taken_in: list[Action] = []
    done = workflow.done

    def spy(work: workflow.Work, action: Action, *rest: Any) -> workflow.Work:
        taken_in.append(action)
        return done(work, action, *rest)

    monkeypatch.setattr(workflow, "done", spy)
    with monkeypatch.context() as patched:
        patched.setattr(UpdaterSide, "tell", refuse)
        rounds(one, agent, clock, 60)
        assert one.work is not None and one.work.state == "committed"
    assert taken_in == [*(Action.LOOK, Action.FETCH, Action.VERIFY, Action.ASK, Action.SWITCH, Action.COMMIT, Action.CLEAN)]
    rounds(one, agent, clock, 2)
    assert told(place) == [("committed", "none")]
    assert versions(place) == ["1.1.0"]


def test_a_wish_that_cannot_be_taken_back_does_not_keep_the_new_updater_from_confirming_itself(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.whole_update(place)
    launcher.count(place / "root", "updater")
    (place / "updates" / "want.json").write_bytes(b"{}")
    monkeypatch.setattr(UpdaterSide, "write_want", refuse)
    clock = StepClock()
    rounds(steps.service(place, clock), Agent(place, clock), clock, 40)
    assert Layout(place / "root").state().seat("updater").good == NEW_NAME


def test_an_updater_that_cannot_read_what_is_wanted_does_not_confirm_itself(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps.whole_update(place)
    launcher.count(place / "root", "updater")
    clock = StepClock()
    one, agent = steps.service(place, clock), Agent(place, clock)
    with monkeypatch.context() as patched:
        patched.setattr(Counters, "accept_desired", refuse)
        rounds(one, agent, clock, 60)
        assert Layout(place / "root").state().seat("updater").good == OLD_NAME
    rounds(one, agent, clock, 1)
    assert Layout(place / "root").state().seat("updater").good == NEW_NAME


@pytest.mark.parametrize("step", ["begin_trial", "commit"])
def test_a_root_that_cannot_be_written_does_not_end_the_updater(place: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """When it puts its newer self on trial, and when it confirms itself."""
    real: Callable[..., Any] = getattr(install, step)

    def refuse_the_updaters_seat(*args: Any, seat: str = "agent", **more: Any) -> Any:
        return refuse_in_our_words() if seat == "updater" else real(*args, seat=seat, **more)

    clock = StepClock()
    with monkeypatch.context() as patched:
        patched.setattr(install, step, refuse_the_updaters_seat)
        steps.whole_update(place)
        launcher.count(place / "root", "updater")
        one, agent = steps.service(place, clock), Agent(place, clock)
        rounds(one, agent, clock, 40)
    rounds(one, agent, clock, 40)
    expected = OLD_NAME if step == "begin_trial" else NEW_NAME
    assert Layout(place / "root").state().seat("updater").good == expected
    assert told(place)[-1] == ("committed", "none")


def test_a_reserve_that_cannot_be_given_up_is_borne(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StepClock()
    one, agent = steps.service(place, clock), Agent(place, clock)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    unlink = Path.unlink

    def keeps_the_reserve(path: Path, missing_ok: bool = False) -> None:
        return refuse() if path.name == launcher.RESERVE else unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "save", full)
        patched.setattr(Path, "unlink", keeps_the_reserve)
        rounds(one, agent, clock, 3)
    rounds(one, agent, clock, 60)
    assert told(place)[-1] == ("committed", "none")


class Stubborn(FolderSource):
    """A transfer that neither ends nor listens."""

    def __init__(self, *places: Path) -> None:
        super().__init__(*places)
        self.entered, self.release = threading.Event(), threading.Event()

    def obtain(self, component: Component, base: Base | None, tell: Tell, keep_on: Callable[[], bool]) -> Got:
        self.entered.set()
        self.release.wait(60)
        return super().obtain(component, base, tell, keep_on)


def test_an_action_that_cannot_be_stopped_ends_the_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Stubborn(place / "server", place / "root" / "downloads")
    monkeypatch.setattr(steps, "FolderSource", lambda *_: source)
    clock = StepClock()
    one, agent = steps.service(place, clock), Agent(place, clock)
    one._in_thread = True
    try:
        for _ in range(6):
            rounds(one, agent, clock, 1, step_ms=100)
            if one._job is not None and one._job.outcome is None:
                one._job.thread.join(0.3)
        assert source.entered.wait(5)
        with pytest.raises(GiveUp):
            rounds(one, agent, clock, 60, step_ms=3_600_000)
        assert told(place)[-1] == ("failed", "noProgress")
    finally:
        source.release.set()
        one.close()


# -------------------------------------------------------------------------------------------------------------------- command line


def test_install_layout_and_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = tiny("1.0.0")
    image, root = package.write(tmp_path), tmp_path / "root"
    words = ["install-layout", "--image", str(image), "--version", "1.0.0", "--root", str(root)]
    assert cli.main([*words, "--sha256", "0" * 64]) == 1
    assert not (root / "current").exists()
    assert cli.main([*words, "--sha256", package.sha256]) == 0
    settings = tmp_path / "updater.toml"
    settings.write_text(f'root = "{root}"\nstate_dir = "{tmp_path}"\n')
    assert cli.main(["updater", "status", "--config", str(settings)]) == 0
    assert "1.0.0: runs, good, factory" in capsys.readouterr().out
    assert launcher.count(root) == name_of("1.0.0", package.sha256)


def test_a_first_version_whose_self_test_fails_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tiny("1.0.0", selftest="exit 1").write(tmp_path)
    assert cli.main(["install-layout", "--image", str(image), "--version", "1.0.0", "--root", str(tmp_path / "root")]) == 1
    assert "self-test" in capsys.readouterr().err


def test_a_misspelt_key_of_the_updaters_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "updater.toml"
    settings.write_text("[limits]\nmemroy_mib = 5\n")
    assert cli.main(["updater", "status", "--config", str(settings)]) == 2
    assert "memroy_mib" in capsys.readouterr().err


def test_the_shipped_updater_toml_is_what_the_code_takes() -> None:
    from edge_agent.updater import settings

    shipped = Path(settings.__file__).parents[1] / "packaging" / "updater.toml"
    assert settings.load(shipped) == settings.Settings()
