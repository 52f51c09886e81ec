"""Updates in a small demo, with two people and real releases: one that works, one that is cut off in the middle, one that crashes.

Nothing is simulated on the server, and these terminals are processes with launcher, agent and updater, as on a kiosk.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_agent.version import AGENT_VERSION
from fleet_server.console import rollout_form
from fleet_server.rollouts.rules import Policy, Step
from tests.demo.runner import SECOND_PERSON, UPDATED_TAG
from tests.demo.setup import Places
from tests.support.processes import Child, Processes
from tests.support.waiting import wait_until

TERMINALS, OWN_PROCESSES = 5, 3
POLICY = Policy(
    canary=1,
    steps=(Step(percent=100),),
    soak_s=1,
    failure_count=1,
    failure_first=1,
    window="any",
    ignore_freeze=True,
    probation_s=120,
)

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(420)]


class Person:
    """Somebody at the console, with a browser of their own."""

    def __init__(self, address: str, name: str, password: str) -> None:
        self._http = httpx.Client(base_url=address, headers={"Origin": address.rstrip("/")}, timeout=60)
        answer = self._http.post("/login", data={"name": name, "password": password, "next": "/", "lang": "en"})
        assert answer.status_code == 303, answer.text[:500]

    def page(self, path: str) -> str:
        answer = self._http.get(path)
        assert answer.status_code == 200, answer.text[:500]
        return answer.text

    def post(self, path: str, seen: str, **more: Any) -> httpx.Response:
        """As a form on the page `seen` would; its token goes along."""
        token = re.search(r'name="_csrf" value="([^"]+)"', self.page(seen))
        assert token is not None
        return self._http.post(path, headers={"X-CSRF-Token": token[1]}, **more)

    def close(self) -> None:
        self._http.close()


@dataclass
class City:
    places: Places
    processes: Processes
    child: Child
    operator: Person
    second: Person

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.places.server / 'fleet.sqlite'}?mode=ro", uri=True)) as db:
            return list(db.execute(sql, values))

    def versions(self) -> dict[str, str]:
        """What runs, by each terminal's own signed word."""
        return dict(self.query("SELECT terminal, version FROM installed_version WHERE component = 'agent'"))

    def updated(self) -> list[str]:
        return sorted(terminal for (terminal,) in self.query("SELECT id FROM terminal WHERE tags LIKE ?", f"%{UPDATED_TAG}%"))

    def release(self, kind: str, version: str) -> int:
        """Build, sign, upload; its number."""
        made = self.processes.start_python("-m", "tests.demo.release", kind, version, "--dir", self.places.root)
        assert made.popen.wait(90) == 0, made.output()
        pack: Path = self.places.releases / f"agent-{version}.kfpack"
        answer = self.operator.post(
            "/updates/releases/upload", "/updates/releases", files={"file": (pack.name, pack.read_bytes(), "application/x-tar")}
        )
        assert answer.status_code in (200, 303), answer.text[:800]
        return int(self.query("SELECT id FROM release WHERE version = ?", version)[0][0])

    def roll_out(self, release: int, policy: Policy = POLICY, **more: str) -> str:
        """Asked for by one, approved by another; the rollout."""
        form = rollout_form.of_policy(policy, "Asia/Shanghai") | {"title": f"release {release}", "priority": "0"}
        form |= {"release": str(release), "tag": UPDATED_TAG, "then": "submit"} | more
        asked = self.operator.post("/updates/new", "/updates/new", data=form)
        assert asked.status_code == 303, asked.text[:2000]
        page = asked.headers["Location"].partition("?")[0]
        rollout = page.rpartition("/")[2]
        self.operator.post(f"{page}/approve", page)
        assert self.query("SELECT state FROM rollout WHERE id = ?", rollout) == [("waiting",)], "nobody approves for themself"
        self.second.post(f"{page}/approve", page)
        assert self.query("SELECT approved_by FROM rollout WHERE id = ?", rollout) == [(SECOND_PERSON,)]
        return rollout

    def state(self, rollout: str) -> str:
        return str(self.query("SELECT state FROM rollout WHERE id = ?", rollout)[0][0])

    def members(self, rollout: str) -> list[tuple[Any, ...]]:
        return self.query("SELECT wave, state, reason FROM rollout_member WHERE rollout = ? ORDER BY wave", rollout)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    folder = tmp_path_factory.mktemp("demo-updates")
    processes, places = Processes(folder), Places(folder / "data")
    try:
        child = processes.start_python(
            *("-m", "tests.demo", "--dir", places.root, "--port", "0", "--terminals", str(TERMINALS)),
            *("--own-processes", str(OWN_PROCESSES), "--days", "0"),
        )
        child.wait_for_output("Ctrl-C ends the demo", timeout_s=90)
        said = child.output()
        address, password = re.search(r"Console +(\S+)", said), re.search(r"Password +(\S+)", said)
        assert address and password
        found = City(
            places,
            processes,
            child,
            Person(address[1], "operator", password[1]),
            Person(address[1], SECOND_PERSON, password[1]),
        )
        wait_until(
            lambda: set(found.updated()) <= found.versions().keys() and len(found.updated()) == OWN_PROCESSES,
            "the terminals say what runs",
            timeout_s=90,
        )
        yield found
        found.operator.close()
        found.second.close()
    finally:
        processes.end_all()


@pytest.mark.spec("U-401")
def test_a_release_goes_out_by_canary_and_wave_after_a_second_person_agreed(city: City) -> None:
    assert {city.versions()[terminal] for terminal in city.updated()} == {AGENT_VERSION}
    rollout = city.roll_out(city.release("good", "0.2.0"))
    wait_until(lambda: city.state(rollout) == "finished", "the rollout", timeout_s=150)
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


@pytest.mark.spec("U-201")
def test_an_update_that_is_killed_in_the_middle_goes_on_and_shows_it(city: City) -> None:
    release = city.release("good", "0.3.0")
    cutting = city.processes.start_python("-m", "tests.demo.cut_off", "--dir", city.places.root)
    rollout = city.roll_out(release, bandwidth="250")
    assert cutting.popen.wait(120) == 0, cutting.output()
    cut = re.search(r"(kf-\d+): updater \(process \d+\) killed", cutting.output())
    assert cut is not None
    wait_until(lambda: city.state(rollout) == "finished", "the rollout", timeout_s=200)
    resumed = city.query(
        "SELECT max(resumed) FROM update_step WHERE terminal = ? AND rollout = ?", cut[1], bytes.fromhex(rollout)
    )
    assert resumed[0][0] >= 1
    assert {city.versions()[terminal] for terminal in city.updated()} == {"0.3.0"}


@pytest.mark.spec("U-305")
def test_a_release_that_crashes_is_stopped_at_the_gate_and_the_canary_is_back_by_itself(city: City) -> None:
    rollout = city.roll_out(city.release("bad", "0.4.0"))
    wait_until(lambda: city.state(rollout) == "stopped", "the gate", timeout_s=150)
    assert city.members(rollout)[0] == (0, "failed", "crashed")
    assert {state for _, state, _ in city.members(rollout)[1:]} == {"stopped"}
    canary = city.query("SELECT terminal FROM rollout_member WHERE rollout = ? AND wave = 0", rollout)[0][0]
    steps = city.query(
        "SELECT DISTINCT state FROM update_step WHERE terminal = ? AND rollout = ?", canary, bytes.fromhex(rollout)
    )
    assert {"probation", "rolledBack"} <= {state for (state,) in steps}
    assert {city.versions()[terminal] for terminal in city.updated()} == {"0.3.0"}
    connected = "SELECT count(*) FROM terminal_live WHERE terminal = ? AND connected = 1"
    wait_until(lambda: city.query(connected, canary) == [(1,)], "the canary serves again", timeout_s=60)
