"""The threshold part of `fleet-server`: show them with who set them, and set one."""

from __future__ import annotations

import argparse
import getpass
import time

from fleet_server.commands import AddCommand, in_database, reading
from fleet_server.settings import Settings
from fleet_server.thresholds.defaults import TERMINAL_CLASSES


def add_to(command: AddCommand) -> None:
    """Add these commands to the parser of `fleet-server`."""
    shown = command("thresholds", "list every threshold, its value in force, and who set it", _list)
    chosen = command("set-threshold", "set a threshold, or put it back to its default", _set)
    chosen.add_argument("name")
    chosen.add_argument("value", help="a number, or the word default")
    for parser in (shown, chosen):
        parser.add_argument("--class", dest="class_", default="", choices=TERMINAL_CLASSES, help="for terminals of this class")


def _list(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.thresholds.defaults import DEFAULTS
    from fleet_server.thresholds.rules import all_effective

    with reading(settings) as conn:
        for one in all_effective(conn, options.class_):
            who = "default" if one.set_ms is None else f"set by {one.set_by}, {_utc(one.set_ms)}"
            print(f"{one.name:30} {one.value:>10g} {one.unit:8} {who:45} {DEFAULTS[one.name].en}")


def _set(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.errors import Refused
    from fleet_server.thresholds.rules import put

    try:
        value = None if options.value == "default" else float(options.value)
    except ValueError:
        raise Refused("value", "notANumber") from None
    now_ms = time.time_ns() // 1_000_000
    who = f"cli:{getpass.getuser()}"
    one = in_database(settings, lambda conn: put(conn, options.name, value, by=who, now_ms=now_ms, terminal_class=options.class_))
    print(f"{one.name} is {one.value:g} {one.unit}" + (" (default)" if one.is_default else ""))


def _utc(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_ms / 1000))
