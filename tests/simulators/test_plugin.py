"""The pytest plugin as somebody outside has it: in a process of its own, with nothing installed but what the extra `sim` asks for."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "vendor"

OUTSIDE = """
import importlib.abc, json, sys

allowed = set(json.loads(sys.argv[1]))

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{name} does not come with kiosk-fleet[sim]", name=name)
        return None

sys.meta_path.insert(0, NotInstalled())
sys.path.insert(0, sys.argv[2])
import pytest
raise SystemExit(pytest.main(sys.argv[3:]))
"""


def comes_with(*requirements: str) -> set[str]:
    """Top-level modules of these distributions and of everything they ask for."""
    modules: dict[str, list[str]] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(_canonical(distribution), []).append(module)
    found, queue = set[str](), list(requirements)
    while queue:
        name = _canonical(re.split(r"[\s;<>=!~\[(]", queue.pop(), maxsplit=1)[0])
        if name in found or name not in modules:
            continue
        found.add(name)
        asked = importlib.metadata.requires(name) or []
        queue += [one for one in asked if "extra ==" not in one]
    return {module for name in found for module in modules[name]}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def sim_extra() -> list[str]:
    asked = importlib.metadata.requires("kiosk-fleet") or []
    return [one for one in asked if "extra ==" not in one or re.search(r"extra == ['\"]sim['\"]", one)]


def run_outside(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    ours = {"edge_agent", "firmware_profiles", "protocols", "simulators", "slip80", "test_slip80"}
    allowed = comes_with(*sim_extra(), "pytest") | ours
    assert not {"litestar", "aiomqtt", "hypothesis"} & allowed
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    return subprocess.run(
        [
            sys.executable, "-c", OUTSIDE, json.dumps(sorted(allowed)), str(ROOT), "-q", "-p", "no:cacheprovider", "--rootdir", str(folder),
            "-c", os.devnull, "-p", "simulators.pytest_plugin", str(folder), *arguments,
        ],
        cwd=folder, capture_output=True, text=True, check=False, timeout=100, env=settings | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip


def test_the_vendors_example_passes_with_nothing_but_the_extra() -> None:
    done = run_outside(EXAMPLE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b5 passed\b", done.stdout), done.stdout


def test_what_goes_wrong_is_told(tmp_path: Path) -> None:
    """A test that waits for what never comes ends with a sentence; a name that does not exist lists those that do."""
    (tmp_path / "test_wrong.py").write_text(
        "def test_late(kiosk_sim):\n    kiosk_sim.pty('escpos').wait_plugged(False, within_s=0.05)\n"
        "def test_unknown(kiosk_sim):\n    kiosk_sim.pty('printer-of-nobody')\n"
        "def test_usb_is_no_tty(kiosk_sim):\n    kiosk_sim.pty('snbc-btp')\n",
        "utf-8",
    )
    done = run_outside(tmp_path)
    assert done.returncode == 1
    for said in ("not within 0.05 s: the escpos unplugged", "Known:", "is a USB device", "3 failed"):
        assert said in done.stdout, said


def test_pytest_finds_the_plugin_by_the_packages_own_word() -> None:
    (entry,) = [one for one in importlib.metadata.entry_points(group="pytest11") if one.name == "kiosk_fleet"]
    assert hasattr(entry.load(), "kiosk_sim")


def test_a_run_that_asks_for_no_fixture_loads_nothing() -> None:
    code = "import sys, simulators.pytest_plugin; print(sorted(m for m in sys.modules if m.startswith(('simulators', 'protocols', 'edge'))))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "['simulators', 'simulators.pytest_plugin']"


def test_everything_ends_with_the_test(kiosk_sim: object) -> None:
    """The fixture works in our own run as well, where it is found by its entry point."""
    from simulators.kit import Kit

    assert isinstance(kiosk_sim, Kit)
    terminal = kiosk_sim.terminal("call-pads", windows=2)
    paths = [Path(entry["port"]) for entry in terminal.ports()]
    assert all(path.exists() for path in paths)
    kiosk_sim.close()
    assert not any(path.exists() for path in paths)
