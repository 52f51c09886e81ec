"""Which thresholds pages go by: what people set for a class of terminals, else the defaults. Reads inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from fleet_server.console.model import Limits
from fleet_server.presence.rules import Thresholds
from fleet_server.thresholds.defaults import TERMINAL_CLASSES
from fleet_server.thresholds.rules import values

USUAL_CLASS: Final = "government"


def load_limits(conn: sqlite3.Connection) -> dict[str, Limits]:
    """By class of terminals; equal if nothing was changed."""
    return {one: _limits(values(conn, one)) for one in TERMINAL_CLASSES}


def _limits(found: Mapping[str, float]) -> Limits:
    return Limits(
        presence=Thresholds.of(found),
        warn_days=found["consumable.warn_days"],
        site_many=int(found["alarm.site_terminals"]),
        blind_ms=round(found["platform.blind_s"] * 1000),
    )
