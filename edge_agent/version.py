"""The version this agent tells: of the installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    try:
        return version("kiosk-fleet")
    except PackageNotFoundError:
        return "0.1.0+source"


AGENT_VERSION = _installed()
