"""A disk without a byte left, at the terminal and at the server.

What was confirmed stays, what cannot be kept is refused and counted, nothing is acknowledged that is not stored, and it recovers by itself.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edge_agent.outbox import Outbox, OutboxFull
from protocols.contract import records
from tests.support.contract import BOOT_ID, FLEET, RECORD, TERMINAL, StepClock, notice
from tests.support.processes import Processes
from tests.support.server import RunningServer
from tests.support.waiting import wait_until
from tests.together.power_cut import NoPowerSwitch
from tests.together.road import (
    Cases,
    LeanTerminal,
    RoadServer,
    check_cases,
    check_chain,
    check_evidence,
    make_lean,
    stored_bodies,
    stored_cases,
    wait_cases,
    whole_server,
)
from tests.together.small_disk import Kind, SmallDisk, small_disk
from tests.together.test_power_cut import check as check_spool

pytestmark = [pytest.mark.slow]


@contextmanager
def disk_or_skip(folder: Path, kind: Kind, *, mib: int) -> Iterator[SmallDisk]:
    try:
        with small_disk(folder, kind, mib=mib) as disk:
            yield disk
    except NoPowerSwitch as err:
        pytest.skip(str(err))


# The terminal ---------------------------------------------------------------------------------------------------------------------------


class OnSmallDisk(LeanTerminal):
    """Its state lies on a disk of its own; keys and sockets elsewhere."""

    disk: SmallDisk

    def write_config(self) -> None:
        super().write_config()
        text = self.config.read_text("utf-8")
        self.config.write_text(text.replace(str(self.folder / "state"), str(self.disk.mount / "state")), "utf-8")

    @property
    def state_dir(self) -> Path:
        return self.disk.mount / "state"

    @property
    def outbox(self) -> Path:
        return self.state_dir / "outbox.db"

    def answers(self) -> Counter[str]:
        """What a kiosk application hears at once, from the beginning of a case to its end."""
        heard: Counter[str] = Counter()
        status, begun = self.api.request("POST", "/v1/sessions", case())
        heard[f"begin {status}"] += 1
        if status == 201:
            status, _ = self.api.request("POST", f"/v1/sessions/{begun['session']}/end", {"outcome": "success"})
            heard[f"end {status}"] += 1
        return heard


def case() -> dict[str, str]:
    return {"client_id": str(uuid.uuid4()), "item": "social-insurance.query", "channel": "touch"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with whole_server(tmp_path_factory.mktemp("disk-full")) as running:
        yield running


def on_small_disk(folder: Path, server: RunningServer, name: str, disk: SmallDisk) -> OnSmallDisk:
    terminal = OnSmallDisk(folder / "terminals", server.processes, server, name)
    terminal.disk = disk
    terminal.plug_in()
    terminal.write_config()
    terminal.enrol()
    terminal.start()
    return terminal


@pytest.mark.broker
@pytest.mark.spec("C-205", "C-312")
@pytest.mark.timeout(120)
def test_a_terminal_without_space_refuses_counts_and_recovers(server: RunningServer, tmp_path: Path) -> None:
    with disk_or_skip(tmp_path, "tmpfs", mib=3) as disk:
        terminal = on_small_disk(tmp_path, server, "full", disk)
        name, cases = terminal.terminal, Cases(terminal)
        cases.enter(5)
        status, begun = terminal.api.request("POST", "/v1/sessions", open_case := case())
        assert status == 201
        # Full while a case is open and others wait to be sealed.
        disk.fill()
        heard: Counter[str] = Counter()
        until_s = time.monotonic() + 7  # a seal, a tick of housekeeping and the sampling of the disk find no space meanwhile
        while time.monotonic() < until_s:
            heard += terminal.answers()
            status, refusal = terminal.api.request("POST", f"/v1/sessions/{begun['session']}/end", {"outcome": "success"})
            heard[f"end {status}"] += 1
            assert status == 503
            assert refusal["error"] == "full"
            time.sleep(0.05)
        assert set(heard) == {"begin 503", "end 503"}
        assert terminal.api.request("GET", "/v1/status")[0] == 200, "reading needs no space"
        disk.empty()
        status, _ = terminal.api.request("POST", f"/v1/sessions/{begun['session']}/end", {"outcome": "success"})
        assert status == 200, "the case goes on as if nothing had been"
        cases.confirmed.append(open_case["client_id"])
        wait_cases(server, name, 6)
        # The application tried often, and its case was stored at last: what is counted are the agent's own records, which nobody told again.
        assert heard["end 503"] > 10
        counted = [body.count for body in stored_bodies(server, name, records.Notice) if body.code == "recordsRefused"]
        assert sum(counted) < heard["end 503"]
        assert terminal.agent is not None
        assert terminal.agent.running
        check_cases(server, cases)
        check_chain(server, name)
        terminal.close()


@pytest.mark.broker
@pytest.mark.spec("C-205", "C-307")
@pytest.mark.timeout(120)
def test_a_terminal_that_crashes_on_a_full_disk(server: RunningServer, tmp_path: Path) -> None:
    """Without space for its first record the agent says so and ends; what was confirmed before is there when there is space again."""
    with disk_or_skip(tmp_path, "ext4", mib=64) as disk:
        terminal = on_small_disk(tmp_path, server, "crashed-full", disk)
        name, cases = terminal.terminal, Cases(terminal)
        cases.enter(8)
        status, begun = terminal.api.request("POST", "/v1/sessions", open_case := case())
        assert status == 201
        disk.fill()
        terminal.kill()
        for _ in range(2):
            terminal.start(wait=False)
            assert terminal.agent is not None
            assert terminal.agent.popen.wait(20) == 1
            said = terminal.agent.output()
            assert "no space" in said
            assert "Traceback" not in said
        disk.empty()
        terminal.start()
        status, _ = terminal.api.request("POST", f"/v1/sessions/{begun['session']}/end", {"outcome": "success"})
        assert status == 200, "a case that was open goes on in the same boot"
        cases.confirmed.append(open_case["client_id"])
        wait_cases(server, name, 9)
        check_cases(server, cases)
        check_chain(server, name)
        check_evidence(server, name, tmp_path)
        terminal.close()


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_the_spool_on_a_disk_that_fills_and_empties_again_and_again(kind: Kind, tmp_path: Path) -> None:
    """Nothing but the spool, so that every confirmed number can be looked for: none is missing, none twice, after a dozen floods."""
    with disk_or_skip(tmp_path, kind, mib=4) as disk:
        path, newest = disk.mount / "outbox.db", 0
        for flood in range(12):
            outbox = Outbox(path, RECORD, FLEET, TERMINAL, StepClock())
            outbox.start_stream(BOOT_ID)
            disk.fill(leave_bytes=(0, 4096, 20_000, 200_000)[flood % 4])
            refusals = 0
            while refusals < 3:
                try:
                    outbox.capture(notice(newest + 1))
                    newest += 1
                    if newest % 7 == 0:
                        outbox.seal()
                except OutboxFull:
                    refusals += 1
            disk.empty()
            outbox._db.close()
            # The chain, the signatures and every number up to the newest: none is missing, none is there twice.
            assert check_spool(path, newest) == newest


# The server -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.broker
@pytest.mark.spec("C-502", "C-516")
@pytest.mark.timeout(180)
def test_a_server_without_space_acknowledges_nothing_that_it_did_not_store(tmp_path: Path) -> None:
    logs = tmp_path / "process-logs"
    logs.mkdir()
    processes = Processes(logs)
    with disk_or_skip(tmp_path, "tmpfs", mib=24) as disk:
        try:
            server = RoadServer(disk.mount, processes)
            server.init()
            server.start()
            terminal = make_lean(tmp_path / "terminals", server, "patient", processes=processes)
            name, cases = terminal.terminal, Cases(terminal)
            cases.enter(10)
            wait_cases(server, name, 10)
            wait_until(lambda: terminal.depth() == 0, "everything is acknowledged")
            parts = {part: server.pid(part) for part in ("supervisor", "broker", "ingest", "enrolment")}

            disk.fill()
            cases.enter(20)
            said = server.child
            assert said is not None
            wait_until(lambda: "cannot store" in said.output(), "the ingest says that it cannot store")
            assert terminal.depth() > 0
            assert acknowledged_beyond_stored(server, terminal) == 0
            assert stored_cases(server, name) == 10

            disk.empty()
            wait_cases(server, name, len(cases.confirmed), timeout_s=60)
            wait_until(lambda: terminal.depth() == 0, "the queue drains", timeout_s=60)
            cases.enter(2)
            wait_cases(server, name, len(cases.confirmed))
            assert {part: wait_until(lambda part=part: pid_of(server, part), "it runs") for part in parts} == parts, (  # type: ignore[misc]
                "no part had to start anew"
            )
            check_cases(server, cases)
            check_chain(server, name)
            check_evidence(server, name, tmp_path)
            assert server.rows("PRAGMA integrity_check") == [("ok",)]
            terminal.close()
        finally:
            processes.end_all()


def pid_of(server: RunningServer, part: str) -> int:
    """0 while health is being written."""
    try:
        return server.pid(part)
    except (AssertionError, KeyError):
        return 0


def acknowledged_beyond_stored(server: RunningServer, terminal: LeanTerminal) -> int:
    """Batches that the terminal believes to be safe and the server does not have. Read in this order, so that nothing can slip in between."""
    with closing(sqlite3.connect(terminal.outbox, timeout=5)) as db:
        believed = {(bytes(s), n) for s, n in db.execute("SELECT stream, no FROM batch WHERE acked_ms IS NOT NULL")}
    there = {(bytes(s), n) for s, n in server.rows("SELECT stream, no FROM batch")}
    return len(believed - there)
