"""Owns which value of a threshold holds: the newest setting or the default, for the fleet or one class of terminals.

Works in the caller's transaction.
"""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass

from fleet_server import audit
from fleet_server.errors import Refused
from fleet_server.thresholds.defaults import DEFAULTS, ORDERS, TERMINAL_CLASSES, Default, Order

FLEET = ""
"""The scope that is no class."""
WHOLE_UNITS = frozenset({"count", "s", "day", "workday", "month"})
"""Units of which there are no parts."""
SCOPES = (FLEET, *TERMINAL_CLASSES)
_SECONDS = {"s": 1, "min": 60, "h": 3_600, "day": 86_400}
"""Units that an order compares with one another; all others only with themselves."""


class OutOfBounds(Refused):
    """The value lies outside what the catalogue allows for `default`."""

    def __init__(self, default: Default) -> None:
        super().__init__("value", "outOfBounds")
        self.default = default


class OutOfOrder(Refused):
    """The value would not stay below, or above, that of another threshold. `other` is what it was compared with, in its scope."""

    def __init__(self, name: str, order: Order, other: Effective) -> None:
        super().__init__("value", "outOfOrder")
        self.other = other
        self.must_be_less = name == order.smaller
        self.or_equal = order.or_equal


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


def values(conn: sqlite3.Connection, terminal_class: str = FLEET) -> dict[str, float]:
    """Every value in force by name, in the catalogue's units: for rules that need several at one moment."""
    return {one.name: one.value for one in all_effective(conn, terminal_class)}


def all_effective(conn: sqlite3.Connection, terminal_class: str = FLEET) -> list[Effective]:
    """Every threshold, in the order of the defaults."""
    scope, settings = _checked_scope(terminal_class), _newest(conn)
    return [_choose(default, scope, settings) for default in DEFAULTS.values()]


def put(
    conn: sqlite3.Connection, name: str, value: float | None, *, by: str, now_ms: int, terminal_class: str = FLEET
) -> Effective:
    """Set a value, or go back to the default with None; returns what holds now. Refused outside the threshold's bounds."""
    default, scope = _known(name), _checked_scope(terminal_class)
    if scope != FLEET and not default.per_class:
        raise Refused("class", "fleetOnly")
    if value is not None and (not math.isfinite(value) or not default.low <= value <= default.high):
        raise OutOfBounds(default)
    if value is not None and default.unit in WHOLE_UNITS and value != int(value):
        raise Refused("value", "notWhole")
    if not by:
        raise Refused("by", "missing")
    settings = _newest(conn)
    settings[name, scope] = Setting(name=name, scope=scope, value=value, unit=default.unit, set_by=by, set_ms=now_ms)
    _check_orders(name, settings)
    conn.execute(
        "INSERT INTO threshold (name, scope, value, unit, set_by, set_ms) VALUES (?, ?, ?, ?, ?, ?)",
        (name, scope, value, default.unit, by, now_ms),
    )
    audit.write(
        conn,
        by,
        None,
        "threshold.set",
        f"threshold:{name}",
        {"value": value, "scope": scope, "unit": default.unit},
        now_ms=now_ms,
    )
    # Open pages judge by it at once.
    conn.execute("INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, NULL, 'setting', ?)", (now_ms, f"threshold:{name}"))
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


def _check_orders(name: str, settings: dict[tuple[str, str], Setting]) -> None:
    """Whether `name` keeps its place among the others everywhere its value reaches."""
    for order in ORDERS:
        if name not in {order.smaller, order.larger}:
            continue
        for scope in SCOPES:
            smaller = _choose(DEFAULTS[order.smaller], scope, settings)
            larger = _choose(DEFAULTS[order.larger], scope, settings)
            low, high = _comparable(smaller), _comparable(larger)
            if low > high or (low == high and not order.or_equal):
                raise OutOfOrder(name, order, larger if name == order.smaller else smaller)


def _comparable(one: Effective) -> float:
    return one.value * _SECONDS.get(one.unit, 1)


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
