"""Owns which limits presence is judged by: what people set, else the defaults. Reads inside the caller's transaction, decides nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fleet_server.presence.rules import CROWD, THRESHOLDS, Crowd, Thresholds
from fleet_server.thresholds.defaults import TERMINAL_CLASSES
from fleet_server.thresholds.rules import values


@dataclass(frozen=True, slots=True)
class Limits:
    """Silence of one terminal by its class, silence of many for the platform."""

    by_class: Mapping[str, Thresholds] = field(default_factory=lambda: THRESHOLDS)
    crowd: Crowd = CROWD

    def of(self, owner_class: str) -> Thresholds:
        """A class that nobody knows is treated as the government's own."""
        return self.by_class.get(owner_class) or self.by_class["government"]


DEFAULT_LIMITS: Final = Limits()


def load_limits(conn: sqlite3.Connection) -> Limits:
    """What holds now; equal if nothing was changed."""
    return Limits({one: Thresholds.of(values(conn, one)) for one in TERMINAL_CLASSES}, Crowd.of(values(conn)))
