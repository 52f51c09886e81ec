"""What `make vm` says where it cannot run, and what it writes. The machine itself is started by `make vm` only."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

import firmware_profiles
from protocols.profile.schema import parse_all
from scripts import vm
from tests.vm import guest
from tests.vm.inventory import slots


def test_without_a_program_it_says_which_and_ends_with_its_own_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(SystemExit) as ended:
        vm.run(limit_s=1, keep_console=False)
    assert ended.value.code == vm.CANNOT_RUN
    assert "there is no qemu-system-x86_64" in capsys.readouterr().err


def test_without_a_kernel_it_says_where_one_may_be_put(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(vm, "OUT", tmp_path)
    monkeypatch.setattr(vm, "KERNEL", tmp_path / "kernel")
    monkeypatch.setattr(vm, "_kernel_package", lambda: "linux-image-none")
    monkeypatch.setattr("scripts.say.run", lambda *_, **__: 100)
    with pytest.raises(SystemExit) as ended:
        vm.kernel()
    assert ended.value.code == vm.CANNOT_RUN
    assert str(tmp_path) in capsys.readouterr().err


def test_results_are_kept_as_junit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bus, exports, inventory = vm.plug_in()
    assert len(exports) == len(inventory) == len(slots())
    bus.obey({"result": {"name": "boot", "ok": True, "text": "", "took_s": 1.0}})
    bus.obey({"result": {"name": "start", "ok": False, "text": "no <unit>", "took_s": 2.0}})
    vm._write_junit(tmp_path / "results.xml", bus.results, 3.0)
    suite = ElementTree.parse(tmp_path / "results.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [failure.text for failure in suite.iter("failure")] == ["no <unit>"]
    assert "FAIL" in capsys.readouterr().out


def test_steering_reaches_the_models() -> None:
    bus, _, _ = vm.plug_in()
    bus.obey({"words": ["fault", "laser-printer", "jam"]})
    assert bus.terminal.faults() == {"laser-printer": ["jam"]}
    assert len(bytes.fromhex(bus.obey({"line": "call-pad"})["coding"])) == 7


def test_each_device_of_the_machine_has_a_profile_of_its_kind() -> None:
    profiles = parse_all(firmware_profiles.read_all())
    for one in slots():
        named = [profiles[one.profile]] if one.profile else list(profiles.values())
        assert any(profile.kind.value == one.family for profile in named), one.slot.name


def test_the_identity_is_one_that_the_agent_takes(tmp_path: Path) -> None:
    from edge_agent import identity

    vm.make_identity(tmp_path)
    assert identity.load(tmp_path).terminal == "kiosk-vm"


def test_a_test_that_others_need_is_among_the_tests() -> None:
    names = [test.__name__ for test in guest.TESTS]
    assert len(names) == len(set(names))
    assert set(names) >= guest.NEEDED
