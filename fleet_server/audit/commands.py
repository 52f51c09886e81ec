"""The audit part of `fleet-server`: verify the log or an export of it, export it."""

from __future__ import annotations

import argparse
import base64
import getpass
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fleet_server.commands import AddCommand, in_database, reading
from fleet_server.errors import FleetServerError, SettingsError
from fleet_server.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class DoesNotHold(FleetServerError):
    """The audit log is not what was written."""


def add_to(command: AddCommand) -> None:
    """Add these commands to the parser of `fleet-server`."""
    audit = command("audit", "check the audit log, or write it to a file that can be checked elsewhere", _audit)
    audit.add_argument("do", choices=["verify", "export"])
    audit.add_argument(
        "--file", type=Path, metavar="FILE", help="verify: an export instead of this server's log; export: where to"
    )
    audit.add_argument(
        "--root", default="", metavar="KEY", help="verify: the fleet's root key as `root-key` prints it; default: this server's"
    )
    audit.add_argument(
        "--heads",
        type=Path,
        metavar="FILE",
        help="verify: signatures that were kept elsewhere, such as a copy of audit-heads.ndjson",
    )


def _audit(settings: Settings, options: argparse.Namespace) -> None:
    {"verify": _verify, "export": _export}[options.do](settings, options)


def _verify(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.audit import export
    from fleet_server.audit.verify import verify

    root = _root(settings, options.root)
    if options.file is not None:
        try:
            with options.file.open(encoding="utf-8") as file:
                source = export.read(file)
                heads = [*source.heads, *(export.heads_of_file(options.heads) if options.heads else [])]
                report = verify(source.rows, heads, source.cuts, source.keys(root), source.fleet)
        except (OSError, UnicodeDecodeError) as err:
            raise SettingsError(f"{options.file}: {err}") from err
    else:
        with reading(settings) as conn:
            source = export.from_database(conn, settings.fleet)
            beside = export.heads_of_file(options.heads or settings.layout.audit_heads)
            report = verify(source.rows, [*source.heads, *beside], source.cuts, source.keys(root), source.fleet)
    if report.problem is not None:
        raise DoesNotHold(report.problem.sentence())
    covered = f"the server's signature covers all up to row {report.signed_to}" if report.signed_to else "none is signed yet"
    print(f"{report.rows} rows, {report.first} to {report.last}: every row holds; {covered}")


def _export(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server import audit
    from fleet_server.audit import export

    if options.file is None:
        raise SettingsError("--file: say where to")
    if options.file.exists():
        raise SettingsError(f"{options.file} is there already")
    with reading(settings) as conn, options.file.open("w", encoding="utf-8") as file:
        options.file.chmod(0o600)
        count = export.write(export.from_database(conn, settings.fleet), file, made_ms=_now_ms())
    in_database(
        settings,
        lambda conn: audit.write(
            conn, f"cli:{getpass.getuser()}", None, "audit.export", "audit:all", {"rows": count}, now_ms=_now_ms()
        ),
    )
    print(f"{count} rows in {options.file}; check it with `fleet-server audit verify --file {options.file} --root KEY`")


def _root(settings: Settings, text: str) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey as PublicKey

    from fleet_server.authority.authority import Authority

    if not text:
        return Authority(settings.layout.authority).root_public_key
    try:
        return PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except ValueError:
        raise SettingsError("--root: not a root key") from None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
