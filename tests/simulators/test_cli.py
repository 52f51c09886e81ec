"""`kiosk-sim` as a person uses it: plain sentences, exit codes, a terminal in a process of its own that others can steer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import serial

from simulators import cli, control
from simulators.errors import ControlError
from tests.support.processes import Processes
from tests.support.waiting import wait_until


def test_faults_are_listed_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["faults"]) == 0
    everything = capsys.readouterr().out
    for name in (
        "paper-out",
        "cover-open",
        "jam",
        "toner-low",
        "unplug",
        "silence",
        "garbage",
        "stuck-key",
        "door-open",
        "sam-failure",
    ):
        assert f" {name} " in everything
    assert cli.main(["faults", "sdt"]) == 0
    assert "antenna" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["fault", "/nonexistent", "receipt-printer", "paper-out"], 1, "No terminal answers in"),
        (["device", "teapot", "--pty", "/nonexistent/x"], 2, "no device type for a pty called “teapot”"),
        (["device", "keypad", "--pty", "/nonexistent/x"], 2, "called “keypad”"),
        (["terminal", "castle", "--dir", "/nonexistent/x"], 2, "no terminal type called “castle”"),
        (["fault", ".", "receipt-printer", "paper-out", "--for", "long"], 2, "“long” is not a duration"),
        (["script", ".", "/nonexistent/file"], 2, "Cannot read"),
        (["faults", "teapot"], 2, "called “teapot”"),
    ],
)
def test_mistakes(arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == code
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_one_device_on_a_pty(processes: Processes, tmp_path: Path) -> None:
    link, script = tmp_path / "x", tmp_path / "script.txt"
    script.write_text("at 0s escpos paper-low\n", encoding="utf-8")
    child = processes.start_python(
        "-m", "simulators.cli", "device", "escpos", "--pty", link, "--baud", "19200", "--script", script
    )
    child.wait_for_output("receipt printer")
    with serial.Serial(str(link), 19200, timeout=5) as line:
        line.write(b"\x10\x04\x04")
        assert line.read(1) == b"\x1e"
    assert child.stop() == 0
    assert not link.is_symlink()


def test_a_terminal_in_its_own_process(processes: Processes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A directory whose control socket has a longer name than a socket address may have.
    directory = tmp_path / ("long-" + "x" * 90) / "kiosk"
    directory.parent.mkdir()
    child = processes.start_python("-m", "simulators.cli", "terminal", "kiosk", "--dir", directory, "--name", "kf-0001")
    wait_until(lambda: (directory / "ports.json").exists() or not child.running, "the description of the ports", timeout_s=20)
    description = json.loads((directory / "ports.json").read_text(encoding="utf-8"))
    ports = {entry["slot"]: entry for entry in description["ports"]}
    assert {"id-reader", "receipt-printer", "scanner"} <= set(ports)

    def paper() -> bytes:
        with serial.Serial(ports["receipt-printer"]["port"], ports["receipt-printer"]["baud"], timeout=5) as line:
            line.write(b"\x10\x04\x04")
            answer: bytes = line.read(1)
            return answer

    assert paper() == b"\x12"
    assert cli.main(["fault", str(directory), "receipt-printer", "paper-out"]) == 0
    assert paper() == b"\x7e"
    assert cli.main(["status", str(directory)]) == 0
    assert "receipt-printer: paper-out" in capsys.readouterr().out
    assert cli.main(["clear", str(directory), "receipt-printer", "paper-out"]) == 0
    assert paper() == b"\x12"

    assert cli.main(["fault", str(directory), "receipt-printer", "cover-open", "--for", "200ms"]) == 0
    wait_until(lambda: control.request(directory, {"do": "faults"})["faults"] == {}, "the timed fault to end")

    script = tmp_path / "script.toml"
    script.write_text('[[step]]\nat = 0\ndo = "id-reader sam-failure"\n', encoding="utf-8")
    assert cli.main(["script", str(directory), str(script)]) == 0
    wait_until(lambda: "id-reader" in control.request(directory, {"do": "faults"})["faults"], "the script's step")

    assert cli.main(["fault", str(directory), "receipt-printer", "paperout"]) == 1
    assert "Known:" in capsys.readouterr().err
    assert cli.main(["press", str(directory), "scanner", "scan", "HELLO-001"]) == 0
    assert cli.main(["faults", str(directory)]) == 0
    assert cli.main(["stop", str(directory)]) == 0
    wait_until(lambda: not child.running, "the process to end")
    assert child.stop() == 0
    assert not (directory / "ports.json").exists()


def test_call_pads_over_the_wire(processes: Processes, tmp_path: Path) -> None:
    child = processes.start_python("-m", "simulators.cli", "terminal", "call-pads", "--dir", tmp_path / "d", "--windows", "3")
    wait_until(lambda: (tmp_path / "d/ports.json").exists() or not child.running, "the ports", timeout_s=20)
    with serial.Serial(str(tmp_path / "d/ports/call-pad"), 9600, timeout=5) as line:
        line.write(bytes.fromhex("ff6802026803010416"))
        assert line.read(9).hex(" ") == "ff 68 02 02 68 03 01 04 16", "an idle pad sends the poll back"
        assert cli.main(["press", str(tmp_path / "d"), "call-pad", "3", "call-next"]) == 0
        assert line.read(10).hex(" ") == "ff 68 03 03 68 03 01 0c 10 16"


def test_requests_that_make_no_sense(processes: Processes, tmp_path: Path) -> None:
    child = processes.start_python("-m", "simulators.cli", "terminal", "van", "--dir", tmp_path / "d")
    wait_until(lambda: (tmp_path / "d/ports.json").exists() or not child.running, "the ports", timeout_s=20)
    for message in ({}, {"do": "explode"}, {"do": "fault"}, {"do": "fault", "words": 3}, {"do": "script", "text": "soon"}):
        with pytest.raises(ControlError):
            control.request(tmp_path / "d", message)
    assert control.request(tmp_path / "d", {"do": "faults"})["faults"] == {}
