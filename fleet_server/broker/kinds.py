"""What the supervisor needs to know of a broker, and which kind the settings ask for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

from fleet_server.authority.authority import Authority
from fleet_server.broker import mosquitto
from fleet_server.settings import Settings


class Broker(Protocol):
    @property
    def kind(self) -> str:
        """`mosquitto`, `embedded` or `external`."""

    def command(self) -> list[str] | None:
        """Write the configuration and say what to run; None if somebody else runs it."""


class Embedded:
    kind = "embedded"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "fleet_server.broker"]


class External:
    kind = "external"

    def command(self) -> None:
        return None


def choose(settings: Settings, authority: Authority) -> Broker:
    """The broker of the settings; SettingsError with what to do if mosquitto is asked for and missing."""
    if settings.broker.kind == "embedded":
        return Embedded()
    if settings.broker.kind == "external":
        return External()
    return mosquitto.Mosquitto(mosquitto.find(settings), settings, authority)


def own_address(settings: Settings) -> tuple[str, int]:
    """Where the server's own processes reach the broker."""
    host = settings.broker.host
    return ("127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host), settings.broker.port  # noqa: S104 - compared, not bound


def ca_file(settings: Settings) -> Path:
    """What proves the broker to the server's own processes."""
    return settings.broker.ca_file or settings.layout.authority / "ca.pem"
