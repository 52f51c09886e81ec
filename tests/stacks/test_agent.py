"""The shipped agent, as its own program, on a whole terminal of device models behind the system's libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from simulators.ports.umockdev import RunningBench
from tests.edge_agent.small_agent import Home
from tests.stacks.conftest import device
from tests.support.processes import Processes
from tests.support.terminal import LocalApiClient
from tests.support.waiting import wait_until

Start = Callable[..., Any]


class RunningAgent:
    """`edge-agent run` under the preload library, asked through its local API."""

    def __init__(self, bench: RunningBench, home: Home, processes: Processes, entries: list[dict[str, Any]]) -> None:
        self.config = home.folder / "agent.toml"
        self.environment = bench.environment
        self.api = LocalApiClient(home.socket_path)
        lines = [
            "schema = 1",
            f"identity_dir = {json.dumps(str(home.identity_dir))}",
            f"state_dir = {json.dumps(str(home.state_dir))}",
            "[server]",
            f"url = {json.dumps(home.who.server_url)}",
            "[local_api]",
            f"socket_path = {json.dumps(str(home.socket_path))}",
        ]
        for entry in entries:
            lines += ["[[devices]]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items() if value is not None)]
        self.config.write_text("\n".join(lines) + "\n", "utf-8")
        self.process = processes.start_python("-m", "edge_agent.cli", "run", "--config", self.config, env=self.environment)

    def doctor(self) -> tuple[int, dict[str, Any]]:
        """What `edge-agent doctor --json` says, by the real command."""
        done = subprocess.run(
            [sys.executable, "-m", "edge_agent.cli", "doctor", "--json", "--config", str(self.config)],
            env={**os.environ, **self.environment}, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        told: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, told

    def states(self) -> dict[str, tuple[str, frozenset[str]]]:
        """Slot → state word and codes; nothing while the agent starts."""
        try:
            told = self.api.request("GET", "/v1/status")[1]
        except OSError:
            assert self.process.running, self.process.output()
            return {}
        return {one["slot"]: (one["device"], frozenset(fault["code"] for fault in one["faults"])) for one in told["slots"]}

    def until(self, what: str, true: Callable[[dict[str, tuple[str, frozenset[str]]]], bool]) -> None:
        try:
            wait_until(lambda: true(self.states()), what, timeout_s=40)
        except AssertionError as err:
            raise AssertionError(f"{err}; {self.states()}") from err


@pytest.fixture
def agent(stack: ExitStack, tmp_path: Path) -> Iterator[Callable[..., RunningAgent]]:
    processes = Processes(tmp_path)
    home = Home(tmp_path)

    def start(bench: RunningBench, *entries: dict[str, Any]) -> RunningAgent:
        return RunningAgent(bench, home, processes, list(entries))

    yield start
    processes.end_all()
    home.remove()


def entry(slot: str, family: str, port: str, **more: Any) -> dict[str, Any]:
    return {"slot": slot, "family": family, "port": port, **more}


DEVICES = (
    device("id-reader", "sdt-split", "1-1.1"), device("receipt", "escpos-usb", "1-1.2"), device("laser", "pjl-usb", "1-1.3"),
    device("keypad", "keypad", "1-1.4"), device("evaluator", "evaluator", "1-1.5"), device("scan", "scanner", "1-2.1"),
    device("card", "ccid", "1-2.2"), device("ups", "ups-usb", "1-2.3"), device("id-reader-2", "sdt-whole", "1-2.4"),
    device("face", "camera", "1-2.5"),
)  # fmt: skip
ENTRIES = (
    entry("id-reader", "id-reader", "1-1.1"), entry("receipt", "receipt-printer", "1-1.2"), entry("laser", "a4-printer", "1-1.3"),
    entry("keypad", "keypad", "1-1.4"), entry("evaluator", "evaluator", "1-1.5"),
    entry("scan", "scanner", "1-2.1", profile="newland-uart"), entry("card", "card-reader", "1-2.2"), entry("ups", "ups", "1-2.3"),
    entry("id-reader-2", "id-reader", "1-2.4"), entry("face", "camera", "1-2.5"),
)  # fmt: skip
HUB = ("id-reader", "receipt", "laser", "keypad", "evaluator")


def test_a_terminal_of_ten_devices_with_faults_and_a_hub_that_loses_power(
    plug: Start, agent: Callable[..., RunningAgent]
) -> None:
    bench = plug(*DEVICES)
    running = agent(bench, *ENTRIES)
    running.until("every device works", lambda now: len(now) == 10 and all(state == "online" for state, _ in now.values()))
    told = {one["slot"]: one["profile"] for one in running.doctor()[1]["slots"]}
    assert told == {
        "id-reader": "sdt-usb", "receipt": "snbc-btp", "laser": "lenovo-lj2650dn", "keypad": "numeric-keypad", "evaluator": "evaluator-keys",
        "scan": "newland-uart", "card": "feitian-r502", "ups": "cypress-usb-serial", "id-reader-2": "sdt-usb", "face": "camera-uvc",
    }  # fmt: skip
    # Faults of the mechanism, through real libraries.
    bench.do("fault", "receipt", "paper-out")
    bench.do("fault", "laser", "jam")
    bench.do("fault", "keypad", "stuck-key")
    running.until(
        "three faults",
        lambda now: "PRN.PAPER_OUT" in now["receipt"][1] and "LSR.JAM" in now["laser"][1] and "KPD.STUCK_KEY" in now["keypad"][1],
    )
    bench.do("clear", "receipt", "paper-out")
    bench.do("clear", "laser", "jam")
    bench.do("clear", "keypad", "stuck-key")
    running.until("no fault", lambda now: all(not codes for _, codes in now.values()))
    # A hub loses its power: five devices go at once, the others do not notice.
    bench.play("\n".join(f"at 0s fault {slot} unplug" for slot in HUB))
    running.until("five are missed", lambda now: all(any("UNPLUGGED" in code for code in now[slot][1]) for slot in HUB))
    assert all(state == "online" for slot, (state, _) in running.states().items() if slot not in HUB)
    bench.play("\n".join(f"at 0s clear {slot} unplug" for slot in HUB))
    running.until("they are back", lambda now: all(state == "online" and not codes for state, codes in now.values()))


def test_a_device_that_lies_and_one_that_is_taken_leave_the_rest_alone(plug: Start, agent: Callable[..., RunningAgent]) -> None:
    bench = plug(
        device("liar", "sdt-whole", "1-1.1", lie="endless-configuration"), device("taken", "sdt-whole", "1-1.2"),
        device("honest", "sdt-whole", "1-1.3"),
    )  # fmt: skip
    bench.do("fault", "taken", "in-use")
    running = agent(bench, *(entry(slot, "id-reader", f"1-1.{n}") for n, slot in enumerate(("liar", "taken", "honest"), 1)))
    running.until(
        "the honest one works, the other is in use",
        lambda now: len(now) == 3 and now["honest"][0] == "online" and now["taken"][0] == "inUse",
    )
    bench.do("clear", "taken", "in-use")
    running.until("it is free", lambda now: now["taken"][0] == "online")
    assert running.states()["honest"] == ("online", frozenset())
