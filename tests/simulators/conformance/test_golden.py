"""Captures of real units: each lies in tests/captures/<profile>/, is scrubbed, and makes its profile tell what its head says."""

from __future__ import annotations

from pathlib import Path

import pytest

import firmware_profiles
from protocols.profile.schema import Profile, parse_all
from simulators.capture import parse
from simulators.cli import main
from simulators.conformance.command import replayed
from simulators.conformance.hands import Nobody
from simulators.conformance.suite import Check
from simulators.conformance.targets import in_memory
from simulators.virtual_time import in_virtual_time

PROFILES = parse_all(firmware_profiles.read_all())
CAPTURES = Path(__file__).parent.parent / "captures"


def complaints(path: Path, profile: Profile) -> list[str]:
    """What keeps a capture from standing for its profile; empty for a good one."""
    head = parse(path.read_text("utf-8")).head
    found = []
    if head.get("unit") != "real":
        found.append("it is not of a real unit")
    if head.get("scrubbed") != "yes":
        found.append("it is not scrubbed")
    if head.get("profile") != profile.id:
        found.append(f"it is of {head.get('profile')}")

    async def story() -> list[str]:
        target, _ = in_memory(profile, model=replayed(path, profile))
        report = await Check(profile, target, Nobody(), PROFILES).run()
        return [f"{result.id}: {result.text}" for result in report.failed if result.id != "found"]

    return found + in_virtual_time(story())


def test_every_verified_profile_is_carried_by_its_captures() -> None:
    verified = {profile.id for profile in PROFILES.values() if profile.grade == "verified"}
    folders = {folder.name: sorted(folder.glob("*.capture")) for folder in CAPTURES.iterdir()} if CAPTURES.is_dir() else {}
    assert set(folders) == verified
    for name, captures in folders.items():
        assert captures, name
        assert {path.name: complaints(path, PROFILES[name]) for path in captures} == {path.name: [] for path in captures}


def test_a_capture_of_a_model_verifies_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = tmp_path / "unit.capture"
    assert main(["check", "--profile", "megatec-serial", "--simulated", "--unattended", "--capture", str(capture)]) == 0
    assert complaints(capture, PROFILES["megatec-serial"]) == ["it is not of a real unit"]
    text = capture.read_text("utf-8").replace("unit: simulated", "unit: real")
    capture.write_text(text, "utf-8")
    assert complaints(capture, PROFILES["megatec-serial"]) == []
    capture.write_text(text.replace("scrubbed: yes", "scrubbed: no"), "utf-8")
    assert complaints(capture, PROFILES["megatec-serial"]) == ["it is not scrubbed"]
    assert "it is of megatec-serial" in complaints(capture, PROFILES["santak-c1k"])


def test_a_capture_with_a_changed_byte_is_found_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The golden test is worth something: a status that means another thing changes the verdict."""
    capture = tmp_path / "unit.capture"
    command = ["check", "--profile", "receipt-printer-serial"]
    assert main([*command, "--simulated", "--unattended", "--capture", str(capture)]) == 0
    assert main([*command, "--replay", str(capture)]) == 0
    capture.write_text(capture.read_text("utf-8").replace("< 12 ", "< 1e "), "utf-8")
    assert main([*command, "--replay", str(capture)]) == 1
    assert "FAIL  state" in capsys.readouterr().out
