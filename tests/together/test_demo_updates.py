"""Updates in a small demo, with two people and real releases: one that works, though it is cut off in the middle, and one that crashes.

Nothing is simulated on the server, and these terminals are processes with launcher, agent and updater, as on a kiosk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
import pytest

from edge_agent.version import AGENT_VERSION
from tests.support.city import POLICY, City, running_city
from tests.support.waiting import wait_until

TERMINALS, OWN_PROCESSES = 5, 3

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    with running_city(tmp_path_factory.mktemp("demo-updates"), terminals=TERMINALS, own_processes=OWN_PROCESSES) as found:
        yield found


@pytest.mark.spec("U-201 U-401")
def test_a_release_goes_out_by_canary_and_wave_after_a_second_person_agreed_and_over_a_kill(city: City) -> None:
    assert {city.versions()[terminal] for terminal in city.updated()} == {AGENT_VERSION}
    release = city.release("good", "0.2.0")
    cutting = city.processes.start_python("-m", "tests.demo.cut_off", "--dir", city.places.root)
    # So slow that there is time to cut it off, packed as well as whole: the server packs it meanwhile, or does not.
    rollout = city.roll_out(release, bandwidth="120")
    cutting.wait_for_output("goes on where the download stopped", timeout_s=150)
    cut = re.search(r"(kf-\d+): a new updater goes on", cutting.output())
    assert cut is not None
    wait_until(lambda: city.state(rollout) == "finished", "the rollout", timeout_s=200)
    assert city.members(rollout) == [(0, "succeeded", "committed"), (1, "succeeded", "committed"), (1, "succeeded", "committed")]
    assert {city.versions()[terminal] for terminal in city.updated()} == {"0.2.0"}
    canary_ended, wave_started = city.query(
        "SELECT max(CASE WHEN wave = 0 THEN ended_ms END), min(CASE WHEN wave = 1 THEN started_ms END)"
        " FROM rollout_member WHERE rollout = ?",
        rollout,
    )[0]
    assert canary_ended < wave_started
    page = city.operator.page(f"/updates/{rollout}")
    assert all(terminal.upper() in page for terminal in city.updated())
    resumed = city.query(
        "SELECT max(resumed) FROM update_step WHERE terminal = ? AND rollout = ?", cut[1], bytes.fromhex(rollout)
    )
    assert resumed[0][0] >= 1
    assert "Resumed" in city.operator.page(f"/updates/{rollout}/terminals/{cut[1]}")


@pytest.mark.spec("U-305")
def test_a_release_that_crashes_is_stopped_at_the_gate_and_every_canary_is_back_by_itself(city: City) -> None:
    policy = msgspec.structs.replace(POLICY, canary=2, failure_count=2, failure_first=2, hall_percent=100.0)
    rollout = city.roll_out(city.release("bad", "0.3.0"), policy)
    wait_until(lambda: city.state(rollout) == "stopped", "the gate", timeout_s=200)
    assert city.members(rollout) == [(0, "failed", "crashed"), (0, "failed", "crashed"), (1, "stopped", "notStarted")]
    canaries = [row[0] for row in city.query("SELECT terminal FROM rollout_member WHERE rollout = ? AND wave = 0", rollout)]
    for canary in canaries:
        told = "SELECT DISTINCT state FROM update_step WHERE terminal = ? AND rollout = ?"
        assert {"probation", "rolledBack"} <= {state for (state,) in city.query(told, canary, bytes.fromhex(rollout))}
    connected = "SELECT count(*) FROM terminal_live WHERE terminal IN (?, ?) AND connected = 1"
    wait_until(lambda: city.query(connected, *canaries) == [(2,)], "the canaries serve again", timeout_s=60)
    assert {city.versions()[terminal] for terminal in city.updated()} == {"0.2.0"}
