"""A small demo as a newcomer gets it: one command, its past, a fault by `kiosk-sim`, a stopped broker, evidence, Ctrl-C, and again."""

from __future__ import annotations

import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import psutil
import pytest

from protocols.contract import records
from simulators import cli as kiosk_sim
from simulators.history import inventory_of, recorded_past
from simulators.workdays import day_of
from tests.demo import outage, setup
from tests.demo.setup import Places
from tests.support.processes import Child, Processes
from tests.support.waiting import wait_until

TERMINALS, OWN_PROCESSES, DAYS = 6, 2, 3
SEEN_WITHIN_S = 10.0
"""Far above the second that an idle machine needs: tests run beside each other."""

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(180)]


@dataclass
class RunningDemo:
    places: Places
    processes: Processes
    child: Child

    def query(self, sql: str, *values: object) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.places.server / 'fleet.sqlite'}?mode=ro", uri=True)) as db:
            return list(db.execute(sql, values))

    def count(self, sql: str, *values: object) -> int:
        return int(self.query(f"SELECT count(*) FROM {sql}", *values)[0][0])

    def kiosk_sim(self, *words: str) -> None:
        assert kiosk_sim.main([words[0], str(self.places.terminal_ports("kf-0001")), *words[1:]]) == 0

    def family(self) -> list[Any]:
        """Every process of the demo."""
        return list(psutil.Process(self.child.pid).children(recursive=True))


def _start(processes: Processes, places: Places) -> RunningDemo:
    child = processes.start_python(
        *("-m", "tests.demo", "--dir", places.root, "--port", "0", "--terminals", str(TERMINALS)),
        *("--own-processes", str(OWN_PROCESSES), "--days", str(DAYS)),
    )
    child.wait_for_output("Ctrl-C ends the demo", timeout_s=60)
    return RunningDemo(places, processes, child)


def _end(demo: RunningDemo) -> None:
    family = demo.family()
    assert len(family) >= 4 + 2 + OWN_PROCESSES, "server with its parts, fleet, devices, agents"
    demo.child.popen.send_signal(signal.SIGINT)
    # Agents, devices and the server are given fifteen seconds each before they are killed.
    assert demo.child.popen.wait(60) == 0, demo.child.output()
    # A part of a server that had to be killed learns of it by a signal, a moment later.
    _, left = psutil.wait_procs(family, timeout=20)
    assert left == []


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    folder = tmp_path_factory.mktemp("demo")
    processes = Processes(folder)
    try:
        yield _start(processes, Places(folder / "data"))
    finally:
        processes.end_all()


def _expected_past(places: Places) -> tuple[int, int, int]:
    """(cases, ratings, keys) of the whole recorded past."""
    known = setup.load(places)
    assert known is not None
    kinds = [
        type(told.body)
        for member in known.city().members
        for day in recorded_past(
            member.plan,
            inventory_of(member.plan, serial_only=member.own_process),
            day_of(known.until_ms) - timedelta(days=DAYS),
            known.until_ms,
            DAYS,
        )
        for told in day.told
    ]
    return kinds.count(records.Session), kinds.count(records.Rating), kinds.count(records.Queue)


def test_one_command_brings_up_a_city_whose_past_arrives_whole(demo: RunningDemo) -> None:
    known = setup.load(demo.places)
    assert known is not None
    demo.child.wait_for_output("the past is in", timeout_s=60)
    wait_until(lambda: demo.count("terminal_live WHERE connected = 1") == TERMINALS, "all terminals connected", timeout_s=40)
    cases, ratings, keys = _expected_past(demo.places)
    assert cases + ratings + keys > 50

    def past() -> tuple[int, int, int]:
        until = known.until_ms
        return (
            demo.count("session WHERE began_ms + duration_ms <= ?", until),
            demo.count("rating WHERE at_ms <= ?", until),
            demo.count("queue_event WHERE at_ms <= ?", until),
        )

    wait_until(lambda: past() == (cases, ratings, keys), f"the past, each fact once: {(cases, ratings, keys)}", timeout_s=20)
    assert demo.count("quarantine") == demo.count("parked") == demo.count("stream WHERE disputed = 1") == 0
    assert demo.count("fault WHERE late = 1 AND cleared_ms IS NULL") == 0


def test_the_printed_account_opens_the_console_and_it_says_that_this_is_a_demo(demo: RunningDemo) -> None:
    said = demo.child.output()
    address = re.search(r"Console +(http://127\.0\.0\.1:\d+/)", said)
    password = re.search(r"Password +(\S+)", said)
    assert address and password
    with httpx.Client(base_url=address[1], headers={"Origin": address[1].rstrip("/")}, timeout=20) as browser:
        answer = browser.post("/login", data={"name": "operator", "password": password[1], "next": "/", "lang": "zh"})
        assert answer.status_code in (302, 303), answer.text[:500]
        page = browser.get("/")
        assert page.status_code == 200
        assert f"演示数据：{TERMINALS} 台模拟终端，办件速度 ×30" in page.text
        assert "KF-0001" in browser.get("/terminals/kf-0001").text


def test_a_fault_by_kiosk_sim_is_open_with_its_evidence_soon_after(demo: RunningDemo) -> None:
    wait_until(
        lambda: demo.count("device WHERE terminal = 'kf-0001' AND slot = 'receipt-printer' AND device = 'online'") == 1,
        "the receipt printer of kf-0001 is seen",
        timeout_s=60,
    )
    began_s = time.monotonic()
    demo.kiosk_sim("fault", "receipt-printer", "paper-out")
    opened = (
        "SELECT evidence FROM fault WHERE terminal = 'kf-0001' AND code = 'PRN.PAPER_OUT' AND late = 0 AND cleared_ms IS NULL"
    )
    found = wait_until(lambda: demo.query(opened), "the fault", timeout_s=SEEN_WITHIN_S)
    print(f"fault stored {time.monotonic() - began_s:.2f} s after kiosk-sim")
    assert "reply" in str(found[0][0])
    demo.kiosk_sim("clear", "receipt-printer", "paper-out")
    wait_until(lambda: not demo.query(opened), "the fault cleared", timeout_s=30)


def test_a_stopped_broker_makes_nobody_offline_and_loses_nothing(demo: RunningDemo, capsys: pytest.CaptureFixture[str]) -> None:
    offline = demo.count("presence WHERE state = 'offline'")
    broker = next(process for process in demo.family() if process.name() == "mosquitto")
    demo.kiosk_sim("press", "scanner", "scan", "HELLO-001")
    outage.stop_broker(demo.places, 4)
    wait_until(lambda: not broker.is_running(), "the broker that was stopped is gone")
    demo.kiosk_sim("fault", "receipt-printer", "cover-open")
    opened = "fault WHERE terminal = 'kf-0001' AND code = 'PRN.COVER_OPEN' AND cleared_ms IS NULL"
    wait_until(lambda: demo.count(opened) == 1, "what happened meanwhile", timeout_s=60)
    demo.kiosk_sim("clear", "receipt-printer", "cover-open")
    wait_until(lambda: demo.count(opened) == 0, "and that it is over", timeout_s=30)
    assert demo.count("presence WHERE state = 'offline'") == offline
    assert "starts again" in capsys.readouterr().out


def test_the_printed_commands_export_evidence_that_verifies(demo: RunningDemo) -> None:
    from fleet_server.cli import main as fleet_server

    server, evidence, key = demo.places.server, demo.places.root / "kf-0001.evidence", demo.places.root / "root.key"
    printed = demo.child.output()
    assert "export-evidence kf-0001 --out" in printed
    assert "verify-evidence" in printed
    root = demo.processes.start_python("-m", "fleet_server.cli", "--data", server, "root-key")
    assert root.popen.wait(30) == 0
    key.write_text(root.output(), encoding="ascii")
    exported = demo.processes.start_python(
        "-m", "fleet_server.cli", "--data", server, "export-evidence", "kf-0001", "--out", evidence
    )
    assert exported.popen.wait(30) == 0, exported.output()
    assert fleet_server(["verify-evidence", str(evidence), "--root", str(key)]) == 0
    spoiled = bytearray(evidence.read_bytes())
    spoiled[len(spoiled) // 2] ^= 1
    evidence.write_bytes(spoiled)
    assert fleet_server(["verify-evidence", str(evidence), "--root", str(key)]) == 1


def test_an_interrupt_ends_everything_and_the_next_start_goes_on(demo: RunningDemo) -> None:
    before = demo.count("session")
    _end(demo)
    again = _start(demo.processes, demo.places)
    assert "continuing the demo" in again.child.output()
    wait_until(
        lambda: again.count("terminal_live WHERE connected = 1") == TERMINALS, "all terminals connected again", timeout_s=40
    )
    cases, _, _ = _expected_past(demo.places)
    known = setup.load(demo.places)
    assert known is not None
    assert again.count("session WHERE began_ms + duration_ms <= ?", known.until_ms) == cases, "the past is not told twice"
    assert again.count("session") >= before
    _end(again)
