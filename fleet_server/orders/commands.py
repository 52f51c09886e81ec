"""The order-key part of `fleet-server`: show, rotate, withdraw."""

from __future__ import annotations

import argparse
import getpass
import time

from fleet_server.commands import AddCommand, in_database, reading
from fleet_server.errors import SettingsError
from fleet_server.settings import Settings


def add_to(command: AddCommand) -> None:
    """Add these commands to the parser of `fleet-server`."""
    key = command("order-key", "show, rotate or withdraw the keys that sign orders", _order_key)
    key.add_argument("do", nargs="?", choices=["show", "rotate", "withdraw"], default="show")
    key.add_argument("kid", nargs="?", default="", help="of the key to withdraw: its id, or the first digits of it")


def _order_key(settings: Settings, options: argparse.Namespace) -> None:
    {"show": _show, "rotate": _rotate, "withdraw": _withdraw}[options.do](settings, options)


def _show(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.orders import keys

    with reading(settings) as conn:
        for key in keys.all_keys(conn):
            here = "" if keys.has_signer(settings.layout.dispatch, key.kid) else ", its file is not here"
            print(f"{key.kid.hex()}  made {_utc(key.created_ms)}  {key.state}{here}")


def _rotate(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.authority.authority import Authority
    from fleet_server.orders import keys

    authority = Authority(settings.layout.authority)
    kid = in_database(settings, lambda conn: keys.rotate(conn, authority, settings.layout.dispatch, by=_who(), now_ms=_now_ms()))
    print(f"order key {kid.hex()} signs from now on; connected terminals are told within seconds")
    print("What earlier keys signed goes on to count. If one of them may be in other hands: fleet-server order-key withdraw KID")


def _withdraw(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.authority.authority import Authority, RootOffline
    from fleet_server.orders import keys

    with reading(settings) as conn:
        found = [key for key in keys.all_keys(conn) if options.kid and key.kid.hex().startswith(options.kid.lower())]
    if len(found) != 1:
        raise SettingsError(f"{len(found)} order keys begin with {options.kid!r}; `fleet-server order-key` lists them")
    kid, folder = found[0].kid, settings.layout.dispatch
    authority = Authority(settings.layout.authority)
    was_current = in_database(settings, lambda conn: keys.current(conn) == kid)
    in_database(settings, lambda conn: keys.withdraw(conn, folder, kid, by=_who(), now_ms=_now_ms()))
    print(f"order key {kid.hex()} is withdrawn; connected terminals are told within seconds, others when they connect")
    if not was_current:
        return
    try:
        new = in_database(settings, lambda conn: keys.rotate(conn, authority, folder, by=_who(), now_ms=_now_ms()))
    except RootOffline as err:
        raise SettingsError(f"it was the key in use, and there is none now: {err}; put it back and run order-key rotate") from err
    print(f"order key {new.hex()} signs from now on")


def _who() -> str:
    return f"cli:{getpass.getuser()}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _utc(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_ms / 1000))
