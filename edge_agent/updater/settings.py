"""Owns the updater's own configuration, `updater.toml`: a file of root's, because trust must not come from what the agent can write."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_agent.config import AbsolutePath
from edge_agent.errors import ConfigError

DEFAULT_PATH = Path("/etc/kiosk-fleet/updater.toml")
MAX_BYTES = 64 * 1024


class LimitsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a new version is judged."""

    memory_mib: Annotated[int, Meta(ge=32, le=65536)] = 192
    steady_s: Annotated[float, Meta(ge=0.1, le=3600)] = 20
    """So long everything must be well without a break."""
    device_s: Annotated[float, Meta(ge=0.1, le=3600)] = 60
    """So long a mandatory device may need after a start."""
    fresh_s: Annotated[float, Meta(ge=1, le=600)] = 30
    """An older word of the agent counts as none."""
    selftest_s: Annotated[float, Meta(ge=1, le=600)] = 60
    keep_free_mib: Annotated[int, Meta(ge=0, le=65536)] = 16
    quiet_s: Annotated[int, Meta(ge=30, le=3600)] = 180
    """For so long the agent is asked to let no session begin."""
    tries: Annotated[int, Meta(ge=1, le=20)] = 3
    """Starts that a new version has to confirm itself."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    schema: Literal[1] = 1
    root: AbsolutePath = "/opt/kiosk-fleet"
    state_dir: AbsolutePath = "/var/lib/kiosk-updater"
    requests_dir: AbsolutePath = "/var/lib/kiosk-handover/requests"
    updates_dir: AbsolutePath = "/var/lib/kiosk-handover/updates"
    pinned_dir: AbsolutePath = "/etc/kiosk-fleet/pinned"
    """Identity, CA and roots as `edge-agent updater pin` left them."""
    second_counters: AbsolutePath | None = None
    """Another place for the highest releases, on a disk that a restore of the first does not touch."""
    tick_s: Annotated[float, Meta(ge=0.05, le=60)] = 1.0
    limits: LimitsTable = LimitsTable()


def load(path: Path) -> Settings:
    """ConfigError names file and key. A missing file reads as all defaults."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES)
    except FileNotFoundError:
        return Settings()
    except OSError as err:
        raise ConfigError(f"{path}: cannot be read ({err.strerror})") from None
    try:
        return msgspec.convert(tomllib.loads(raw.decode("utf-8")), Settings)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise ConfigError(f"{path.name}: not TOML: {err}") from None
    except msgspec.ValidationError as err:
        raise ConfigError(f"{path.name}: {err}") from None
