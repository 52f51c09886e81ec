"""Terminals whose clock is wrong: a day behind, a day ahead, in 1970. They enrol, connect and record; once the time is known it is right everywhere.

The programs are the real ones; their clock (what TLS compares dates with included) is replaced from below, see wrong_clock.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from protocols.contract import records
from protocols.contract.records import ClockQuality
from tests.support.server import RunningServer
from tests.support.waiting import wait_until
from tests.together.road import (
    Cases,
    LeanTerminal,
    check_cases,
    check_chain,
    check_evidence,
    open_alarms,
    stored_bodies,
    stored_records,
    wait_cases,
    whole_server,
)
from tests.together.wrong_clock import NoWrongClock, WrongClock, build, seconds_to_1970

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(180)]

DAY_S = 86_400.0
NEAR_MS = 3_000
ZONE = ZoneInfo("Asia/Shanghai")
"""Of a terminal without a site."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with whole_server(tmp_path_factory.mktemp("clocks")) as running:
        yield running


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build(tmp_path_factory.mktemp("wrong-clock"))
    except NoWrongClock as err:
        pytest.skip(str(err))


@pytest.fixture
def clock(tmp_path: Path, library: Path) -> WrongClock:
    made = WrongClock(tmp_path, library)
    if not made.works():
        pytest.skip("this Python asks the kernel for the time without the system's C library, so its clock cannot be replaced")
    return made


class WithClock(LeanTerminal):
    """`enrol` and `start` run under the wrong clock."""

    def enrol(self) -> None:
        code = self.server.add_terminal(self.terminal)
        child = self.processes.start_python(
            "-m", "edge_agent.cli", "enrol", "--config", self.config, "--terminal", self.terminal, "--code", code,
            "--ca-fingerprint", self.server.authority.ca_fingerprint, env=self.env,
        )  # fmt: skip
        assert child.popen.wait(30) == 0, child.output()


def with_clock(folder: Path, server: RunningServer, name: str, clock: WrongClock) -> WithClock:
    made = WithClock(folder, server.processes, server, name)
    made.env = clock.env
    made.plug_in()
    made.write_config()
    made.enrol()
    made.start()
    return made


class TimedCases(Cases):
    """Cases, and when they truly began."""

    def __init__(self, terminal: LeanTerminal) -> None:
        super().__init__(terminal)
        self.began_ms: list[int] = []

    def enter_one(self) -> None:
        began_ms = time.time_ns() // 1_000_000
        assert self.try_one(str(uuid.uuid4()))
        self.began_ms.append(began_ms)


def captured(terminal: LeanTerminal, kind: str) -> int:
    """Records of a kind on the terminal's disk, sealed or not."""
    with closing(sqlite3.connect(terminal.outbox, timeout=5)) as db:
        sealed = db.execute("SELECT coalesce(sum(json_extract(counts, '$.' || ?)), 0) FROM batch", (kind,)).fetchone()[0]
        return int(sealed) + int(db.execute("SELECT count(*) FROM pending WHERE kind = ?", (kind,)).fetchone()[0])


def check_times(server: RunningServer, cases: TimedCases) -> None:
    """What the database says of each case is when it truly was, and it counts on that day and no other."""
    name = cases.terminal.terminal
    told = [row[0] for row in server.rows("SELECT began_ms FROM session WHERE terminal = ? ORDER BY began_ms", (name,))]
    assert len(told) == len(cases.began_ms)
    off = [found - true for found, true in zip(told, cases.began_ms, strict=True)]
    assert all(abs(difference) < NEAR_MS for difference in off), off
    wait_until(lambda: server.rows("SELECT 1 FROM dirty_day WHERE terminal = ?", (name,)) == [], "the figures are computed")
    days: dict[str, int] = {}
    for began_ms in cases.began_ms:
        day = dt.datetime.fromtimestamp(began_ms / 1000, ZONE).date().isoformat()
        days[day] = days.get(day, 0) + 1
    counted = dict(server.rows("SELECT day, sessions FROM terminal_day WHERE terminal = ? AND sessions > 0", (name,)))
    assert counted == days


WRONG = {"a day behind": -DAY_S, "a day ahead": DAY_S, "1970": None}


@pytest.mark.spec("C-519", "C-701", "C-702", "C-703")
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_clock_stops_nothing_and_is_put_right(
    wrong: str, server: RunningServer, clock: WrongClock, tmp_path: Path
) -> None:
    off_by_s = WRONG[wrong]
    off_by_s = seconds_to_1970() if off_by_s is None else off_by_s
    clock.set(off_by_s=off_by_s, synchronised=False)
    terminal = with_clock(tmp_path, server, wrong.replace(" ", "-"), clock)
    name, cases = terminal.terminal, TimedCases(terminal)
    for _ in range(3):
        cases.enter_one()
    wait_cases(server, name, 3)
    told = [record for record in stored_records(server, name) if record.kind == "session"]
    assert all(abs(record.wall_ms - cases.began_ms[0] - off_by_s * 1000) < 20_000 for record in told), "the clock was not wrong"
    assert all(record.quality is not ClockQuality.SYNCED for record in told)
    now_ms = time.time_ns() // 1_000_000
    assert server.rows("SELECT count(*) FROM session WHERE terminal = ? AND began_ms > ?", (name, now_ms)) == [(0,)]

    clock.set(off_by_s=0, synchronised=True)
    wait_until(lambda: stored_bodies(server, name, records.Clock), "the terminal tells that it knows the time")
    for _ in range(2):
        cases.enter_one()
    wait_cases(server, name, 5)
    check_times(server, cases)
    assert server.rows("SELECT count(*) FROM link_event WHERE terminal = ? AND state = 'down'", (name,)) == [(0,)]
    assert open_alarms(server, name) == []
    check_cases(server, cases)
    check_chain(server, name)
    check_evidence(server, name, tmp_path)
    terminal.close()


@pytest.mark.spec("C-519", "C-701", "C-702")
def test_a_clock_that_jumps_while_cases_run(server: RunningServer, clock: WrongClock, tmp_path: Path) -> None:
    """A day back, a day ahead and back again, each told as a step; a case's length is measured by a clock that does not jump."""
    clock.set(off_by_s=0, synchronised=True)
    terminal = with_clock(tmp_path, server, "jumping", clock)
    name, cases = terminal.terminal, TimedCases(terminal)
    cases.enter_one()
    wait_cases(server, name, 1)
    for off_by_s in (-DAY_S, DAY_S, 0.0):
        steps = captured(terminal, "clock")
        clock.set(off_by_s=off_by_s, synchronised=off_by_s == 0)
        wait_until(lambda least=steps: captured(terminal, "clock") > least, "the step is noticed", timeout_s=30)  # type: ignore[misc]
        cases.enter_one()
    wait_cases(server, name, len(cases.confirmed))
    check_times(server, cases)
    longest = server.rows("SELECT max(duration_ms) FROM session WHERE terminal = ?", (name,))[0][0]
    assert longest < 20_000
    steps_told = [body.step_ms for body in stored_bodies(server, name, records.Clock)]
    assert any(step < -DAY_S * 900 for step in steps_told)
    assert any(step > DAY_S * 1900 for step in steps_told)
    check_cases(server, cases)
    check_chain(server, name)
    terminal.close()


def test_certificate_dates_count_only_where_the_clock_deserves_it(
    server: RunningServer, clock: WrongClock, tmp_path: Path
) -> None:
    """Three years ahead every certificate has run out. A clock that nobody set does not keep the terminal away; one that claims to be right does."""
    three_years_s = 3 * 366 * DAY_S
    clock.set(off_by_s=three_years_s, synchronised=False)
    terminal = with_clock(tmp_path, server, "three-years", clock)
    name, cases = terminal.terminal, TimedCases(terminal)
    cases.enter_one()
    wait_cases(server, name, 1)
    terminal.kill()

    clock.set(off_by_s=three_years_s, synchronised=True)
    terminal.start()
    cases.enter_one()

    def uplink() -> dict[str, object]:
        found: dict[str, object] = terminal.api.request("GET", "/v1/status")[1]["uplink"]
        return found

    wait_until(lambda: uplink()["reason"] == "tls", "it says why it does not connect")
    assert not uplink()["connected"]

    clock.set(off_by_s=0, synchronised=True)
    wait_cases(server, name, 2, timeout_s=90)
    check_cases(server, cases)
    check_chain(server, name)
    terminal.close()
