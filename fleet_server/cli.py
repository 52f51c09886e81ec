"""`fleet-server`: run the server, and the steps an operator takes outside the console."""

from __future__ import annotations

import argparse
import asyncio
import csv
import getpass
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from fleet_server.accounts.permissions import ROLES
from fleet_server.audit import commands as audit_commands
from fleet_server.commands import in_database
from fleet_server.errors import FleetServerError, SettingsError
from fleet_server.evidence import commands as evidence_commands
from fleet_server.figures import commands as figure_commands
from fleet_server.notifications import cli as channel_commands
from fleet_server.orders import commands as order_commands
from fleet_server.reports import commands as report_commands
from fleet_server.settings import Settings, load, to_environment
from fleet_server.sites import commands as sites_commands
from fleet_server.thresholds import commands as threshold_commands
from fleet_server.updates import commands as update_commands
from protocols.errors import ProtocolError

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: done; 1: could not, the sentence is on stderr; 2: the command line was wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["verify-evidence"]:
        # Works offline, on a machine without a server's data: no settings are read.
        from fleet_server.evidence.verify import main as verify

        return int(verify(words[1:]) or 0)
    options = _parser().parse_args(words)
    try:
        if options.config is not None:
            os.environ["KF_CONFIG"] = str(options.config)
        settings = load(os.environ, data_dir=options.data)
        return int(options.command(settings, options) or 0)
    except (FleetServerError, ProtocolError) as err:
        print(f"fleet-server: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleet-server", description="Watch, prove and look after a fleet of self-service terminals."
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="data directory (KF_DATA_DIR; default var/server)")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings (KF_CONFIG; default fleet.toml in the data directory)"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, what: str, run: Callable[[Settings, argparse.Namespace], int | None]) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=what)
        added.set_defaults(command=run)
        return added

    command("run", "start broker, ingest, enrolment and console, and keep them running", _run)
    command("init", "make keys, certificates, database and the first account, where they are missing", _init)
    command("status", "say how the parts of a running server are", _status)
    command("migrate", "bring the database to this version's schema; the server must be stopped", _migrate)

    add = command("add-terminal", "create a terminal and show its one-time enrolment code", _add_terminal)
    add.add_argument("id", help="1 to 32 of a-z, 0-9 and -")
    add.add_argument("--asset", default="", metavar="CODE", help="the number on the machine")
    add.add_argument("--type", default="kiosk", help="kiosk, callPadSet, evaluator, booth, desk or van")
    add.add_argument("--name-zh", default="")
    add.add_argument("--name-en", default="")
    add.add_argument("--site", default="", metavar="CODE", help="a site that was imported")
    add.add_argument("--class", dest="class_", default="government", choices=["government", "social"])
    add.add_argument(
        "--slot", action="append", default=[], metavar="SLOT:FAMILY[:optional]", help="a device that must be there; repeatable"
    )

    code = command("new-code", "show a new one-time enrolment code of a terminal; its earlier ones die", _new_code)
    code.add_argument("id")

    sites = command("import-sites", "insert or update areas and sites", _import_sites)
    sites.add_argument(
        "file",
        type=Path,
        nargs="+",
        help='JSON {"areas": […], "sites": […]}, or CSV with a header (areas have a column parent or sort)',
    )

    revoke = command("revoke", "take a terminal out of the fleet: keys, certificates and connection", _revoke)
    revoke.add_argument("id")

    command("rotate-server-key", "have the root certify a new signing key; restart the ingest afterwards", _rotate_server_key)

    back = command("backup", "write database and keys to one archive; the server may run", _backup)
    back.add_argument("archive", type=Path)
    restore = command("restore", "put a backup back; the server must be stopped", _restore)
    restore.add_argument("archive", type=Path)
    restore.add_argument("--replace", action="store_true", help="put what is there aside, as before-restore")

    password = command("set-password", "set the password of an account, or create the account", _set_password)
    password.add_argument("name")
    password.add_argument("--role", choices=ROLES, help="create the account with this role, or change its role")
    password.add_argument("--generate", action="store_true", help="make up a password and show it, instead of asking for one")

    sites_commands.add_to(command)
    threshold_commands.add_to(command)
    channel_commands.add_to(command)
    evidence_commands.add_to(command)
    figure_commands.add_to(command)
    report_commands.add_to(command)
    update_commands.add_to(command)
    order_commands.add_to(command)
    audit_commands.add_to(command)
    commands.add_parser("verify-evidence", help="check an exported range of evidence, offline")
    return parser


# Running --------------------------------------------------------------------------------------------------------------------------------


def _run(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.authority.authority import Authority
    from fleet_server.processes import start_logging
    from fleet_server.supervisor import Supervisor

    # In a process of its own: what is loaded only once (the ORM, its migrations) need not stay in the supervisor.
    done = subprocess.run(
        [sys.executable, "-m", "fleet_server.cli", "init"], env={**os.environ, **to_environment(settings)}, check=False
    )
    if done.returncode != 0:
        raise SettingsError("the server was not started")
    start_logging(settings)
    asyncio.run(_supervise(Supervisor, settings, Authority(settings.layout.authority)))


async def _supervise(supervisor: Any, settings: Settings, authority: Any) -> None:
    await supervisor(settings, authority, now_ms=_now_ms).run()


def _init(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server import db
    from fleet_server.authority.authority import Authority
    from fleet_server.channel import transact
    from fleet_server.console.outline import load_outline
    from fleet_server.enrolment import registry

    if settings.outline is not None:
        load_outline(settings.outline)  # a file that is no outline is said here, not by a console that does not start
    layout = settings.layout
    layout.make()
    if layout.authority.exists():
        authority = Authority(layout.authority)
    else:
        authority = Authority.create(layout.authority, settings.fleet, settings.names, now_ms=_now_ms())
        print(f"made the keys of fleet {authority.fleet} in {layout.authority}")
    if authority.fleet != settings.fleet:
        raise SettingsError(f"the data in {settings.data_dir} belongs to fleet {authority.fleet}, not {settings.fleet}")
    if not db.is_current(layout.database):
        with _stopped(settings):
            db.migrate(layout.database)
    authority.ensure_tls(settings.names, now_ms=_now_ms())
    with closing(db.open_raw(layout.database)) as connection:
        transact(connection, lambda inside: registry.publish_server_keys(inside, authority, now_ms=_now_ms()))
        _ensure_order_key(connection, authority, layout.dispatch)
        empty = connection.execute("SELECT 1 FROM staff LIMIT 1").fetchone() is None
    if empty:
        _first_operator(layout.database)


def _ensure_order_key(connection: Any, authority: Any, folder: Path) -> None:
    from fleet_server.authority.authority import RootOffline
    from fleet_server.channel import transact
    from fleet_server.orders import keys

    try:
        made = transact(connection, lambda inside: keys.ensure(inside, authority, folder, now_ms=_now_ms()))
    except RootOffline as err:
        print(f"no orders can be signed: {err}")
    else:
        if made is not None:
            print(f"made order key {made.hex()}")


def _first_operator(database: Path) -> None:
    from fleet_server import db
    from fleet_server.accounts.bootstrap import ensure_first_operator
    from fleet_server.accounts.passwords import Passwords
    from fleet_server.piccolo_conf import DB

    db.use(database)
    try:
        made = asyncio.run(ensure_first_operator(DB, Passwords(), now_ms=_now_ms()))
    finally:
        db.close()
    if made:
        print(
            f"made the first account: name {made[0]}, password {made[1]} (shown this once; it must be changed at the first sign-in)"
        )


def _status(settings: Settings, options: argparse.Namespace) -> int:
    try:
        health = json.loads(settings.layout.health.read_text("utf-8"))
    except (OSError, ValueError):
        print(f"no server runs on {settings.data_dir}")
        return 1
    age_s = (_now_ms() - health["at_ms"]) / 1000
    answers = "answers" if health["broker"]["answers"] else "does not answer"
    print(f"supervisor: process {health['pid']}, seen {age_s:.0f} s ago")
    print(f"broker: {health['broker']['kind']}, {answers}")
    for name, part in health["parts"].items():
        print(f"{name}: {part['state']}, process {part['pid']}, started {part['starts']} times")
    stuck = _stuck_duties(settings)
    for line in stuck:
        print(line)
    well = (
        not stuck
        and age_s < 10
        and health["broker"]["answers"]
        and all(part["state"] == "running" for part in health["parts"].values())
    )
    return 0 if well else 1


def _stuck_duties(settings: Settings) -> list[str]:
    """What dispatch cannot do at the moment, with its reason."""
    try:
        told = json.loads((settings.layout.run / "dispatch.json").read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [f"dispatch, {name}: {one['error']}" for name, one in told["duties"].items() if one["error"]]


def _migrate(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server import db

    settings.layout.make()
    with _stopped(settings):
        db.migrate(settings.layout.database)
    print(f"{settings.layout.database} has this version's schema")


# Terminals and sites --------------------------------------------------------------------------------------------------------------------


def _add_terminal(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.enrolment.registry import NewTerminal, add_terminal, new_code
    from protocols.canon.words import TerminalType

    if options.type not in set(TerminalType):
        raise SettingsError(f"--type: {options.type!r} is none of {', '.join(TerminalType)}")
    terminal = NewTerminal(
        id=options.id,
        code=options.asset,
        type=options.type,
        name_zh=options.name_zh,
        name_en=options.name_en,
        site=options.site,
        class_=options.class_,
        inventory=tuple(_slot(text) for text in options.slot),
    )

    def work(connection: Any) -> str:
        if terminal.site and connection.execute("SELECT 1 FROM site WHERE code = ?", (terminal.site,)).fetchone() is None:
            raise SettingsError(f"--site: there is no site {terminal.site!r}; import it first")
        add_terminal(connection, terminal, now_ms=_now_ms(), by=_who())
        return new_code(connection, terminal.id, by=_who(), now_ms=_now_ms())

    _show_code(settings, terminal.id, in_database(settings, work))


def _new_code(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.enrolment.registry import new_code

    code = in_database(settings, lambda connection: new_code(connection, options.id, by=_who(), now_ms=_now_ms()))
    _show_code(settings, options.id, code)


def _show_code(settings: Settings, terminal: str, code: str) -> None:
    from fleet_server.authority.authority import Authority

    print(f"terminal           {terminal}")
    print(f"one-time code      {code}")
    authority = Authority(settings.layout.authority)
    print(f"CA fingerprint     {authority.ca_fingerprint}")
    print(f"fleet root         {authority.root_fingerprint}")
    print(f"enrolment address  https://{settings.public_name}:{settings.enrolment.port}")
    print("The code is shown this once, works once, and dies after 24 hours.")


def _slot(text: str) -> dict[str, Any]:
    slot, _, rest = text.partition(":")
    family, _, optional = rest.partition(":")
    if not slot or not family or optional not in ("", "optional"):
        raise SettingsError(f"--slot: {text!r} is not SLOT:FAMILY[:optional]")
    return {"slot": slot, "family": family, "mandatory": not optional}


def _import_sites(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.enrolment.registry import import_sites
    from fleet_server.sites import audit
    from fleet_server.sites.calendar import local_day
    from fleet_server.sites.hours import keep_replaced_hours

    areas: list[dict[str, Any]] = []
    sites: list[dict[str, Any]] = []
    for file in options.file:
        found = _rows(file)
        areas += found["areas"]
        sites += found["sites"]
    today, who = local_day(_now_ms()), f"cli:{getpass.getuser()}"

    def work(connection: Any) -> tuple[int, int, int]:
        replaced = keep_replaced_hours(connection, sites, today)
        counts = import_sites(connection, areas, sites)
        for kind, rows in (("area", areas), ("site", sites)):
            for row in rows:
                audit.remember(connection, f"{kind}:{row['code']}", f"{kind}.import", {}, by=who, now_ms=_now_ms())
        return (*counts, replaced)

    counts = in_database(settings, work)
    print(f"{counts[0]} areas and {counts[1]} sites imported" + (f"; new opening hours at {counts[2]}" if counts[2] else ""))


def _rows(file: Path) -> dict[str, list[Any]]:
    try:
        if file.suffix == ".json":
            tree = json.loads(file.read_text("utf-8"))
            found = {name: list(tree.get(name, [])) for name in ("areas", "sites")}
        else:
            # A byte order mark is what spreadsheet programs put in front.
            with file.open(encoding="utf-8-sig", newline="") as opened:
                rows = [{key: value for key, value in row.items() if key and value} for row in csv.DictReader(opened)]
            is_area = bool(rows) and not rows[0].keys().isdisjoint({"parent", "sort", "adcode"})
            found = {"areas": rows if is_area else [], "sites": [] if is_area else rows}
    except (OSError, ValueError, AttributeError, csv.Error) as err:
        raise SettingsError(f"{file}: cannot be read as sites ({type(err).__name__})") from err
    for entries in found.values():
        for number, row in enumerate(entries, 1):
            if not isinstance(row, dict) or not row.get("code"):
                raise SettingsError(f"{file}: row {number} has no code")
    return found


def _revoke(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.enrolment.registry import revoke

    done = in_database(settings, lambda connection: revoke(connection, options.id, now_ms=_now_ms(), by=_who()))
    print(f"{options.id} is revoked" if done else f"{options.id} was revoked before")


# Keys, backups, accounts ----------------------------------------------------------------------------------------------------------------


def _rotate_server_key(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.authority.authority import Authority
    from fleet_server.enrolment.registry import publish_server_keys

    authority = Authority(settings.layout.authority)
    cert = authority.rotate_server_key(now_ms=_now_ms())
    in_database(settings, lambda connection: publish_server_keys(connection, authority, now_ms=_now_ms()))
    print(f"signing key {cert.kid.hex()} is in use from the next start of the ingest")


def _backup(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.backup import back_up

    back_up(settings.layout, options.archive, now_ms=_now_ms())
    print(f"{options.archive} written; it holds private keys, keep it locked away")


def _restore(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.backup import restore

    settings.layout.make()
    with _stopped(settings):
        manifest = restore(options.archive, settings.layout, replace=options.replace, now_ms=_now_ms())
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(manifest["made_ms"] / 1000))
    print(f"fleet {manifest['fleet']} is as it was at {made}; terminals will send again what came after")


def _set_password(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.accounts.events import remember
    from fleet_server.accounts.passwords import Passwords, new_password

    who = f"cli:{getpass.getuser()}"
    password = new_password() if options.generate else _ask_password()
    hashed = Passwords().hash(password)

    def work(connection: Any) -> str:
        known = connection.execute("SELECT 1 FROM staff WHERE name = ?", (options.name,)).fetchone()
        if known is None and options.role is None:
            raise SettingsError(f"there is no account {options.name!r}; say --role to make it")
        if known is None:
            connection.execute(
                "INSERT INTO staff (name, password_hash, role, must_change, created_ms) VALUES (?, ?, ?, 1, ?)",
                (options.name, hashed, options.role, _now_ms()),
            )
            remember(connection, options.name, "add", by=who, now_ms=_now_ms(), detail=options.role)
            return "made"
        connection.execute(
            "UPDATE staff SET password_hash = ?, role = coalesce(?, role), failed = 0, locked_until_ms = NULL, must_change = 1 WHERE name = ?",
            (hashed, options.role, options.name),
        )
        connection.execute("DELETE FROM login WHERE staff = ?", (options.name,))
        remember(connection, options.name, "reset", by=who, now_ms=_now_ms())
        return "changed, signed out everywhere"

    print(f"account {options.name}: {in_database(settings, work)}" + (f"; password {password}" if options.generate else ""))


def _ask_password() -> str:
    if not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = getpass.getpass("New password: ")
        if getpass.getpass("Again: ") != password:
            raise SettingsError("the two passwords differ")
    if len(password) < 12:
        raise SettingsError("a password has at least 12 characters")
    return password


# Shared ---------------------------------------------------------------------------------------------------------------------------------


def _stopped(settings: Settings) -> Any:
    from fleet_server.supervisor import only_one

    return only_one(settings)


def _who() -> str:
    return f"cli:{getpass.getuser()}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    sys.exit(main())
