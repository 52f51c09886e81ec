"""A vendor's own tests with the fixtures of kiosk-fleet: the printer's model, an application's view of it, and the conformance suite.

pip install 'kiosk-fleet[sim]' pytest
pytest test_slip80.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serial
from slip80 import Slip80

from simulators.cli import main as kiosk_sim_command

PROFILE = Path(__file__).with_name("slip80.toml")


@pytest.fixture
def printer(kiosk_sim: Any) -> Any:
    """The printer behind a pseudo-terminal."""
    return kiosk_sim.pty(Slip80())


@pytest.fixture
def line(printer: Any) -> Iterator[serial.Serial]:
    """The application's end of the line."""
    with serial.Serial(str(printer.path), 19200, timeout=2) as opened:
        yield opened


def ask(line: serial.Serial, n: int) -> bytes:
    line.write(bytes((0x10, 0x04, n)))
    return bytes(line.read(1))


def test_paper_and_cover(printer: Any, line: serial.Serial) -> None:
    assert ask(line, 4) == b"\x12"
    printer.set("paper-out")
    assert ask(line, 4) == b"\x72"
    printer.clear("paper-out")
    printer.set("cover-open")
    assert ask(line, 2) == b"\x16"


def test_the_cable(printer: Any) -> None:
    printer.set("unplug", for_s=0.2)
    printer.wait_plugged(False)
    printer.wait_plugged()


@pytest.mark.kiosk("booth", script="at 100ms receipt-printer paper-out")
def test_the_application_in_a_whole_terminal(kiosk_terminal: Any) -> None:
    kiosk_terminal.wait_fault("receipt-printer", "paper-out")
    with serial.Serial(str(kiosk_terminal.path("receipt-printer")), 38400, timeout=2) as opened:
        assert ask(opened, 4)[0] & 0x60 == 0x60


def test_an_hour_in_virtual_time(kiosk_sim: Any, virtual_time: Any) -> None:
    async def story() -> int:
        device, opener, discoverer = kiosk_sim.pipe(Slip80(), profile=PROFILE)
        (seen,) = discoverer.sightings()
        port = await opener.open(seen, device.profile)
        answered = 0
        for _ in range(360):
            await port.write(b"\x10\x04\x01", timeout_s=1)
            answered += len(await port.read(max_bytes=1, timeout_s=10))
            await port.read(max_bytes=1, timeout_s=10)  # nothing comes by itself
        return answered

    assert virtual_time(story()) == 360


def test_the_profile_in_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command of the documentation, with our own model behind it."""
    junit, capture = tmp_path / "slip80.xml", tmp_path / "slip80.capture"
    command = ["check", "--profile", str(PROFILE), "--simulated", "--model", "slip80:Slip80"]
    assert kiosk_sim_command([*command, "--junit", str(junit), "--capture", str(capture)]) == 0, capsys.readouterr().out
    assert 'failures="0"' in junit.read_text("utf-8")
    assert "scrubbed: yes" in capture.read_text("utf-8")
