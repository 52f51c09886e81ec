"""Owns the test that a version makes of itself before it is put in charge: all that it carries can be loaded, with the libraries that it carries."""

from __future__ import annotations

import importlib
import json
import pkgutil
import platform
import sys

import edge_agent
import protocols
from edge_agent.version import AGENT_VERSION


def run() -> int:
    """Print one line of JSON; 0 if everything could be loaded. What could not is named on stderr."""
    loaded, failed = 0, []
    for package in (edge_agent, protocols):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__"):
                continue
            try:
                importlib.import_module(module.name)
                loaded += 1
            except Exception as err:  # noqa: BLE001 -- whatever keeps a module from loading is the finding
                failed.append(f"{module.name} ({type(err).__name__}: {err})")
    for problem in failed:
        print(f"edge-agent selftest: {problem}", file=sys.stderr)  # noqa: T201 -- a command line
    if failed:
        return 1
    profiles = _profiles()
    said = {"version": AGENT_VERSION, "python": platform.python_version(), "arch": platform.machine(), "modules": loaded}
    print(json.dumps(said | {"profiles": profiles}))  # noqa: T201 -- a command line
    return 0


def _profiles() -> int:
    import firmware_profiles
    from protocols.profile.schema import parse_all

    return len(dict(parse_all(firmware_profiles.read_all())))
