"""`kiosk-sim terminal TYPE` in a process of its own, an agent with its real transports, and what `edge-agent doctor` says of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from edge_agent import cli, doctor
from edge_agent.clock import SystemClock
from edge_agent.transports.openers import SystemOpener
from edge_agent.transports.udev import UdevDiscoverer
from simulators import control
from simulators.terminal import VirtualTerminal
from tests.edge_agent.devices.bench import PROFILES
from tests.edge_agent.small_agent import Home
from tests.edge_agent.test_supervisor import running
from tests.support.processes import Processes
from tests.support.waiting import until

KEPT = ("slot", "family", "profile", "port", "address", "mandatory")
AT_LEAST = {"kiosk": 4, "zone": 6, "call-pads": 16, "booth": 6, "desk": 5, "evaluator": 1, "van": 5}
"""Devices behind lines, with the addresses on their buses."""


@pytest.mark.parametrize("kind", AT_LEAST)
async def test_every_line_is_listed_with_profile_and_state(
    kind: str, processes: Processes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path)
    directory = home.short / "sim"
    child = processes.start_python("-m", "simulators.cli", "terminal", kind, "--dir", directory, "--windows", "6", "--seed", "3")
    try:
        await until(lambda: (directory / "ports.json").exists() or not child.running, "the description of the ports")
        ports = json.loads((directory / "ports.json").read_text(encoding="utf-8"))["ports"]
        assert len(ports) >= AT_LEAST[kind]
        devices = [{key: entry[key] for key in KEPT if key in entry} for entry in ports]
        made = home.config(devices=devices)
        agent = home.agent(
            VirtualTerminal(kind, ()),  # nothing is simulated in this process
            PROFILES,
            config=made,
            clock=SystemClock(),
            opener=SystemOpener(),
            discoverer=UdevDiscoverer([entry["port"] for entry in ports]),
        )
        file = tmp_path / "agent.toml"
        file.write_text(_toml(home, devices), encoding="utf-8")
        async with running(agent):
            await until(lambda: {slot.device for slot in agent.status().slots} == {"online"}, "all is online", timeout_s=40)
            await until(home.socket_path.exists, "the local API listens")
            said = await _doctor(file, capsys)
            for entry in ports:
                (line,) = [line for line in said.splitlines() if line.split()[1] == entry["slot"]]
                assert line.startswith("ok")
                assert entry["profile"] in line
                assert "online" in line
            if kind == "call-pads":
                control.request(directory, {"do": "fault", "words": ["window-screen-4", "silence"]})
                await until(lambda: agent.status().slots[_index(ports, "window-screen-4")].faults, "the silent screen's fault")
                assert "LED.NO_REPLY" in await _doctor(file, capsys)
    finally:
        home.remove()
        child.stop()


async def _doctor(file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    code = await asyncio.to_thread(cli.main, ["doctor", "--config", str(file)])
    assert code == doctor.TROUBLE, "there is no server"
    return capsys.readouterr().out


def _index(ports: list[dict[str, object]], slot: str) -> int:
    return next(at for at, entry in enumerate(ports) if entry["slot"] == slot)


def _toml(home: Home, devices: list[dict[str, object]]) -> str:
    head = (
        f'schema = 1\nidentity_dir = "{home.identity_dir}"\nstate_dir = "{home.state_dir}"\n'
        f'[server]\nurl = "https://127.0.0.1:1"\n[local_api]\nsocket_path = "{home.socket_path}"\n'
    )
    rows = ("\n".join(f"{key} = {json.dumps(value)}" for key, value in device.items()) for device in devices)
    return head + "".join(f"[[devices]]\n{row}\n" for row in rows)
