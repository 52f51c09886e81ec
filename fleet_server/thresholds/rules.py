"""Owns which value of a threshold holds: the newest setting or the default, for the fleet or one class of terminals.

Works in the caller's transaction.
"""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass

from fleet_server.errors import Refused
from fleet_server.thresholds.defaults import DEFAULTS, TERMINAL_CLASSES, Default

FLEET = ""
"""The scope that is no class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """The value in force. `set_by` and `set_ms` are None for a default; `scope` says whose value it is: a class, or FLEET."""

    name: str
    value: float
    unit: str
    scope: str
    set_by: str | None = None
    set_ms: int | None = None

    @property
    def is_default(self) -> bool:
        return self.set_by is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One change by a person; value None: back to the default."""

    name: str
    scope: str
    value: float | None
    unit: str
    set_by: str
    set_ms: int


def effective(conn: sqlite3.Connection, name: str, terminal_class: str = FLEET) -> Effective:
    """The value that holds for (name, terminal class). Refused if there is no such threshold or class."""
    return _choose(_known(name), _checked_scope(terminal_class), _newest(conn, name))


def all_effective(conn: sqlite3.Connection, terminal_class: str = FLEET) -> list[Effective]:
    """Every threshold, in the order of the defaults."""
    scope, settings = _checked_scope(terminal_class), _newest(conn)
    return [_choose(default, scope, settings) for default in DEFAULTS.values()]


def put(
    conn: sqlite3.Connection, name: str, value: float | None, *, by: str, now_ms: int, terminal_class: str = FLEET
) -> Effective:
    """Set a value, or go back to the default with None; returns what holds now. Refused outside the threshold's bounds."""
    default, scope = _known(name), _checked_scope(terminal_class)
    if value is not None and (not math.isfinite(value) or not default.low <= value <= default.high):
        raise Refused("value", "outOfBounds")
    if value is not None and default.unit == "count" and value != int(value):
        raise Refused("value", "notWhole")
    if not by:
        raise Refused("by", "missing")
    conn.execute(
        "INSERT INTO threshold (name, scope, value, unit, set_by, set_ms) VALUES (?, ?, ?, ?, ?, ?)",
        (name, scope, value, default.unit, by, now_ms),
    )
    return effective(conn, name, scope)


def history(conn: sqlite3.Connection, name: str) -> list[Setting]:
    """Who set what, newest first."""
    rows = conn.execute(
        "SELECT name, scope, value, unit, set_by, set_ms FROM threshold WHERE name = ? ORDER BY id DESC", (_known(name).name,)
    )
    return [Setting(name=row[0], scope=row[1], value=row[2], unit=row[3], set_by=row[4], set_ms=row[5]) for row in rows]


def _choose(default: Default, scope: str, settings: dict[tuple[str, str], Setting]) -> Effective:
    """A class's own setting, then its own default, then the fleet's setting, then the default.

    The fleet's setting does not reach a class with a default of its own: partners' machines report hours apart, whatever holds for the others.
    """
    places = [scope] if scope in default.by_class else [scope, FLEET]
    for place in places:
        setting = settings.get((default.name, place))
        if setting is not None and setting.value is not None:
            return Effective(
                name=default.name,
                value=setting.value,
                unit=default.unit,
                scope=place,
                set_by=setting.set_by,
                set_ms=setting.set_ms,
            )
    own = scope in default.by_class
    return Effective(
        name=default.name,
        value=default.by_class[scope] if own else default.value,
        unit=default.unit,
        scope=scope if own else FLEET,
    )


def _newest(conn: sqlite3.Connection, name: str | None = None) -> dict[tuple[str, str], Setting]:
    rows = conn.execute(
        "SELECT name, scope, value, unit, set_by, set_ms FROM threshold WHERE ?1 IS NULL OR name = ?1 ORDER BY id", (name,)
    )
    return {
        (row[0], row[1]): Setting(name=row[0], scope=row[1], value=row[2], unit=row[3], set_by=row[4], set_ms=row[5])
        for row in rows
    }


def _known(name: str) -> Default:
    default = DEFAULTS.get(name)
    if default is None:
        raise Refused("name", "unknown")
    return default


def _checked_scope(scope: str) -> str:
    if scope not in (FLEET, *TERMINAL_CLASSES):
        raise Refused("class", "unknown")
    return scope
