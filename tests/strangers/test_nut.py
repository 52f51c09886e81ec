"""Network UPS Tools, unmodified, polls the UPS model: its driver nutdrv_qx on a pseudo terminal, its server and its client on a loopback port."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.system_packages import missing
from simulators.models.ups import Ups
from simulators.ports.pty import ThreadPty
from tests.support.processes import free_port

WITHIN_S = 20.0
DRIVER, SERVER = "/lib/nut/nutdrv_qx", "/lib/nut/upsd"
"""The programs themselves: Debian's /sbin/upsd is a script that asks the system's own configuration first."""


@pytest.fixture(autouse=True)
def _tools() -> None:
    if needs := missing(["power"]):
        pytest.fail(f"needs {', '.join(need.package for need in needs)}: python -m scripts.system_packages power")


class Nut:
    """Driver and server with places of their own; nothing of the system's installation is read or written."""

    def __init__(self, device: str, place: Path) -> None:
        self._port = free_port()
        self._place = place
        config = place / "etc"
        config.mkdir()
        (config / "ups.conf").write_text(
            f"maxretry = 1\n[sim]\n driver = nutdrv_qx\n port = {device}\n protocol = megatec\n pollinterval = 1\n"
        )
        (config / "upsd.conf").write_text(f"LISTEN 127.0.0.1 {self._port}\nMAXAGE 10\n")
        (config / "upsd.users").write_text("")
        for name in ("ups.conf", "upsd.conf", "upsd.users"):
            (config / name).chmod(0o600)
        self._env = {
            **os.environ,
            "NUT_CONFPATH": str(config),
            "NUT_STATEPATH": str(place),
            "NUT_ALTPIDPATH": str(place),
            "NUT_PIDPATH": str(place),
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        user = getpass.getuser()
        self._run([DRIVER, "-a", "sim", "-F", "-u", user])
        _until((self._place / "nutdrv_qx-sim").exists, self._said)
        self._run([SERVER, "-F", "-u", user])
        _until(self._is_listening, self._said)

    def value(self, name: str) -> str:
        """What `upsc` prints; empty while there is no answer."""
        done = subprocess.run(
            ["upsc", f"sim@127.0.0.1:{self._port}", name], env=self._env, capture_output=True, text=True, timeout=10, check=False
        )
        return done.stdout.strip()

    def until(self, name: str, value: str) -> None:
        _until(lambda: self.value(name) == value, lambda: f"{name} is {self.value(name)!r}, not {value!r}; {self._said()}")

    def stop(self) -> None:
        for process in reversed(self._started):
            process.terminate()
            process.wait(10)

    def _run(self, command: list[str]) -> None:
        with (self._place / "log").open("ab") as log:
            self._started.append(subprocess.Popen(command, env=self._env, stdout=log, stderr=log))

    def _is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def _said(self) -> str:
        return (self._place / "log").read_text(errors="replace")[-2000:]


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[tuple[Ups, Nut]]:
    model = Ups()
    with ThreadPty(model, tmp_path / "ups"):
        nut = Nut(str((tmp_path / "ups").resolve()), tmp_path)
        try:
            nut.start()
            yield model, nut
        finally:
            nut.stop()


def test_its_driver_takes_the_model_for_a_ups(unit: tuple[Ups, Nut]) -> None:
    model, nut = unit
    nut.until("ups.status", "OL")
    told = {
        name: nut.value(name)
        for name in ("input.voltage", "battery.voltage", "ups.load", "ups.temperature", "device.mfr", "ups.firmware")
    }
    assert told == {
        "input.voltage": "226.0",
        "battery.voltage": "27.50",
        "ups.load": "14",
        "ups.temperature": "30.0",
        "device.mfr": "SIMULATED",
        "ups.firmware": "V1.20",
    }
    assert nut.value("battery.voltage.nominal") == "24.0"
    model.set("mains-lost", time.monotonic())
    nut.until("ups.status", "OB")
    model.set("battery-low", time.monotonic())
    nut.until("ups.status", "OB LB")
    assert model.commands == []  # it only asked


def _until(true: Callable[[], bool], why: Callable[[], str]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)
