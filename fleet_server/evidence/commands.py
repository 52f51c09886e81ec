"""The evidence part of `fleet-server`: export, root key, erasure, verdicts."""

from __future__ import annotations

import argparse
import base64
import calendar
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from fleet_server.errors import FleetServerError
from fleet_server.settings import Settings

RETENTION_DAYS = 190
"""Network logs must be kept six months (Cybersecurity Law as amended 2025, Art. 23(3)): up to 184 days, and some slack."""

AddCommand = Callable[[str, str, Callable[[Settings, argparse.Namespace], int | None]], argparse.ArgumentParser]


class NothingThere(FleetServerError):
    """What was asked for does not exist."""


def add_to(command: AddCommand) -> None:
    """Add these commands to the parser of `fleet-server`."""
    export = command("export-evidence", "write a terminal's signed originals to a file that verifies offline", _export)
    export.add_argument("terminal")
    export.add_argument("--out", type=Path, required=True, metavar="FILE")
    for name, what in (("--since", "first"), ("--until", "last")):
        export.add_argument(name, metavar="YYYY-MM-DD", help=f"{what} day received, UTC; default: everything")

    command(
        "root-key", "print the fleet's root key, for `verify-evidence --root`; hand it over apart from the evidence", _root_key
    )

    erase = command("erase-evidence", "erase signed originals past their keeping time; the chain stays checkable", _erase)
    erase.add_argument("terminal")
    erase.add_argument("--older-than-days", type=int, default=RETENTION_DAYS)
    erase.add_argument("--reason", default="retention", choices=["retention", "erasure-request", "retired"])

    settle = command("settle-stream", "say whether a disputed stream is a restored disk or a copy", _settle)
    settle.add_argument("stream", help="32 hexadecimal digits, as the console shows it")
    settle.add_argument("verdict", choices=["restored", "copied"])
    settle.add_argument("--terminal", help="whose, if streams of several terminals have this id")


def _export(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server import db
    from fleet_server.evidence.export import export_file

    authority = _authority(settings)
    with closing(db.open_reader(settings.layout.database)) as conn:
        conn.execute("BEGIN")  # one moment for all of it, while ingest goes on
        if conn.execute("SELECT 1 FROM terminal WHERE id = ?", (options.terminal,)).fetchone() is None:
            raise NothingThere(f"there is no terminal {options.terminal!r}")
        count = export_file(
            options.out,
            conn,
            fleet=settings.fleet,
            terminal=options.terminal,
            signer=authority.server_signer(),
            server_certificates=[raw for _, raw in authority.server_key_certificates()],
            now_ms=_now_ms(),
            from_ms=_day_ms(options.since, 0),
            to_ms=_day_ms(options.until, 2**62, days_on=1),
        )
    print(f"{count} batches of {options.terminal} in {options.out}")


def _root_key(settings: Settings, options: argparse.Namespace) -> None:
    print(base64.b64encode(_authority(settings).root_public_key.public_bytes_raw()).decode())


def _erase(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server import db
    from fleet_server.channel import transact
    from fleet_server.evidence.retention import erase_before

    signer, now_ms = _authority(settings).server_signer(), _now_ms()
    with closing(db.open_raw(settings.layout.database)) as conn:
        erased = transact(
            conn,
            lambda inside: erase_before(
                inside,
                signer,
                fleet=settings.fleet,
                terminal=options.terminal,
                before_ms=now_ms - options.older_than_days * 86_400_000,
                reason=options.reason,
                now_ms=now_ms,
            ),
        )
    print(f"{erased} originals of {options.terminal} erased")


def _settle(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server import db
    from fleet_server.channel import transact
    from fleet_server.evidence.verdict import NotDisputed, settle, settle_some, terminals_of

    try:
        stream = bytes.fromhex(options.stream)
    except ValueError:
        raise NothingThere(f"{options.stream!r} is not a stream id") from None
    with closing(db.open_raw(settings.layout.database)) as conn:
        terminals = [options.terminal] if options.terminal else terminals_of(conn, stream)
        if len(terminals) > 1:
            raise NotDisputed(f"several terminals have a stream of this id: name one with --terminal, of {', '.join(terminals)}")
        if not terminals:
            raise NotDisputed(f"stream {stream.hex()} is not disputed")
        count = transact(conn, lambda inside: settle(inside, terminals[0], stream, options.verdict, _now_ms()))
        # In slices, between which ingest stores what comes. If this is cut off, ingest does the rest.
        while transact(conn, settle_some):
            pass
    print(f"{count} batches: {options.verdict}")


def _authority(settings: Settings) -> Any:
    from fleet_server.authority.authority import Authority

    return Authority(settings.layout.authority)


def _day_ms(text: str | None, default: int, *, days_on: int = 0) -> int:
    if text is None:
        return default
    try:
        day = time.strptime(text, "%Y-%m-%d")
    except ValueError:
        raise NothingThere(f"{text!r} is not a day like 2026-11-21") from None
    return (calendar.timegm(day) + days_on * 86_400) * 1000


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
