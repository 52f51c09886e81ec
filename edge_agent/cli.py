"""The command line: `edge-agent enrol | run | doctor | rotate-key | token`. Every failure is one sentence and an exit code."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent import config as configuration
from edge_agent import identity
from edge_agent.config import Config
from edge_agent.errors import AgentError, ConfigError

if TYPE_CHECKING:
    from edge_agent.supervisor import Agent
    from protocols.profile.schema import Profile

AGENT_USER = "kiosk-fleet"
"""The user of the service unit. Files that root makes here would be closed to it, so root becomes this user first where it exists."""
DONE, FAILED, USAGE = 0, 1, 2
TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h: the same command may work later."""


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    asked = parser.parse_args(arguments)
    try:
        return int(asked.run(asked))
    except AgentError as err:
        from edge_agent.errors import ServerUnreachable

        print(f"edge-agent: {err}", file=sys.stderr)
        return TRY_AGAIN if isinstance(err, ServerUnreachable) else USAGE if isinstance(err, ConfigError) else FAILED
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-agent", description="Watches the devices of one terminal and reports them, signed."
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, run: object, help_text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text)
        sub.add_argument("--config", type=Path, default=configuration.DEFAULT_PATH, help="default: %(default)s")
        sub.set_defaults(run=run)
        return sub

    enrol = command("enrol", _enrol, "Exchange a one-time code for this terminal's identity.")
    enrol.add_argument("--terminal", required=True, help="the terminal's id, as the operator created it")
    enrol.add_argument("--code", help="the one-time code; asked for if left out, so that it stays out of the shell's history")
    enrol.add_argument("--server", help="https://host[:port]; writes a first configuration file if there is none")
    enrol.add_argument("--ca-fingerprint", help="SHA-256 of the server's CA certificate, printed with the code")
    enrol.add_argument("--ca-file", type=Path, help="the server's CA certificate in PEM, instead of the fingerprint")

    run = command("run", _run, "Run the agent until it is told to stop.")
    run.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])

    doctor = command(
        "doctor", _doctor, "Say in plain words what works. Exit code 0: all, 1: something does not, 2: the agent cannot start."
    )
    doctor.add_argument("--json", action="store_true", help="the running agent's status document")

    command("rotate-key", _rotate_key, "Have a new record key certified; the running agent takes it over within a minute.")

    token = command("token", _token, "Make a token for a browser application; it is shown once, only its hash is kept.")
    token.add_argument("name", help="the application: a-z, 0-9 and -")
    token.add_argument(
        "--scope",
        action="append",
        choices=["sessions", "ratings", "refills", "status", "devices"],
        help="may be repeated; default: all but devices, through which citizens' data pass",
    )

    from edge_agent.updater import cli as updater

    updater.add_commands(commands)
    selftest = commands.add_parser("selftest", help="Load everything this version carries and say which version it is, as JSON.")
    selftest.set_defaults(run=_selftest)

    tuf = commands.add_parser("tuf-client", help="Follow any TUF repository: the command line of the TUF conformance suite.")
    tuf.set_defaults(run=_tuf_client)
    tuf.add_argument("--metadata-dir", type=Path, required=True, help="where trusted metadata are kept")
    tuf.add_argument("--metadata-url", help="where the repository's metadata lie")
    tuf.add_argument("--target-name", action="append", help="path of a target; may be repeated")
    tuf.add_argument("--target-base-url", help="where the repository's targets lie")
    tuf.add_argument("--target-dir", type=Path, help="where downloaded targets are kept")
    tuf.add_argument("--ca-file", type=Path, help="CA certificate in PEM, for https")
    tuf.add_argument("action", choices=["init", "refresh", "download"])
    tuf.add_argument("trusted_root", type=Path, nargs="?", help="init: file with the first trusted root")
    return parser


# ----------------------------------------------------------------------------------------------------------------------- tuf-client


def _selftest(asked: argparse.Namespace) -> int:
    from edge_agent import selftest

    return selftest.run()


def _tuf_client(asked: argparse.Namespace) -> int:
    from edge_agent.updater import tuf_client

    return tuf_client.run(asked)


# --------------------------------------------------------------------------------------------------------------------------- enrol


def _enrol(asked: argparse.Namespace) -> int:
    from edge_agent import enrol, host
    from edge_agent.clock import SystemClock
    from edge_agent.signing import FileKeyStore
    from edge_agent.version import AGENT_VERSION
    from protocols.contract.records import ClockQuality

    if asked.server and not asked.config.exists():
        _write_first_config(asked.config, asked.server)
    config = configuration.load(asked.config)
    if asked.server and asked.server != config.server.url:
        raise ConfigError(f"{asked.config} names another server ({config.server.url}); change it there")
    trust = enrol.Trust(
        ca_pem=_read_ca(asked.ca_file) if asked.ca_file else None,
        fingerprint=enrol.parse_fingerprint(asked.ca_fingerprint) if asked.ca_fingerprint else None,
    )
    code = asked.code or (getpass.getpass("One-time code: ") if sys.stdin.isatty() else sys.stdin.readline())
    _become_agent_user(config)
    who = enrol.enrol(
        enrol.Request(
            server_url=config.server.url,
            terminal=asked.terminal,
            code=code,
            trust=trust,
            hardware=host.facts().for_enrolment(AGENT_VERSION),
            check_dates=SystemClock().quality() is ClockQuality.SYNCED,
        ),
        FileKeyStore(Path(config.identity_dir)),
        Path(config.identity_dir),
    )
    print(f"This terminal is now {who.terminal} of {who.fleet}. Start the agent: systemctl enable --now edge-agent")
    return DONE


def _write_first_config(path: Path, server: str) -> None:
    text = f'schema = 1\n\n[server]\nurl = "{server}"\n'
    configuration.parse(text.encode("utf-8"), path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as err:
        raise ConfigError(f"{path}: cannot be written ({err.strerror})") from None
    print(f"Wrote {path}.")


def _read_ca(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path}: no CA certificate in PEM can be read there") from None


# ----------------------------------------------------------------------------------------------------------------------------- run


def _run(asked: argparse.Namespace) -> int:
    from edge_agent import logs
    from edge_agent.outbox.errors import OutboxError

    logs.to_stderr(asked.log_level)
    config = configuration.load(asked.config)
    _become_agent_user(config)
    try:
        asyncio.run(_run_until_told(config))
    except OutboxError as err:
        raise AgentError(str(err)) from err
    return DONE


async def _run_until_told(config: Config) -> None:
    import signal

    agent = build_agent(config)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, agent.stop_for_the_system)
    loop.add_signal_handler(signal.SIGINT, lambda: agent.stop("operator"))
    await agent.run()


def build_agent(config: Config) -> Agent:
    """The agent on this machine's own clock, ports and keys. Raises AgentError if something is missing."""
    from edge_agent import host
    from edge_agent.clock import SystemClock, read_boot_id
    from edge_agent.local_api import Applications
    from edge_agent.sd_notify import Notifier
    from edge_agent.signing import FileKeyStore
    from edge_agent.supervisor import Agent
    from edge_agent.transports.openers import SystemOpener
    from edge_agent.transports.udev import UdevDiscoverer

    directory = Path(config.identity_dir)
    who = identity.load(directory)
    config = configuration.with_desired(config, configuration.desired_state(identity.load_desired(directory)))
    tokens = config.local_api.application_tokens_file
    return Agent(
        config=config,
        who=who,
        clock=SystemClock(),
        boot_id=read_boot_id(),
        keys=FileKeyStore(directory),
        opener=SystemOpener(),
        discoverer=UdevDiscoverer.of_system(_extra_paths(config)),
        profiles=load_profiles(config.profiles_dir),
        probe=host.ProcProbe(Path(config.state_dir)),
        facts=host.facts(),
        applications=Applications.load(Path(tokens)) if tokens else None,
        notifier=Notifier.of_environment(os.environ, os.getpid()),
    )


def _extra_paths(config: Config) -> list[str]:
    """What the inventory names and no bus enumerates: a real UART, a pseudo terminal, a printer's address."""
    return sorted({device.port for device in config.devices if device.port and device.port.startswith(("/", "ipp://"))})


def load_profiles(overlay: str | None) -> dict[str, Profile]:
    """The shipped profiles, and those of `overlay` on top. ConfigError names the file that is wrong."""
    import firmware_profiles
    from protocols.profile.schema import ProfileError, parse_all

    try:
        profiles = dict(parse_all(firmware_profiles.read_all()))
        if overlay is not None:
            folder = Path(overlay)
            profiles |= parse_all(
                {str(path.relative_to(folder).with_suffix("")): path.read_bytes() for path in sorted(folder.rglob("*.toml"))}
            )
    except ProfileError as err:
        raise ConfigError(str(err)) from None
    except OSError as err:
        raise ConfigError(f"{overlay}: cannot be read ({err.strerror})") from None
    return profiles


# -------------------------------------------------------------------------------------------------------------------------- doctor


def _doctor(asked: argparse.Namespace) -> int:
    import msgspec

    from edge_agent import doctor
    from edge_agent.signing import FileKeyStore

    language: doctor.Language = "zh" if os.environ.get("LC_ALL", os.environ.get("LANG", "")).startswith("zh") else "en"
    try:
        config = configuration.load(asked.config)
    except ConfigError as err:
        print(doctor.render([doctor.Line("bad", "configuration", str(err))]))
        return doctor.CANNOT_START
    status = doctor.ask_agent(config.local_api.socket_path)
    if not isinstance(status, str):
        if asked.json:
            print(msgspec.json.format(msgspec.json.encode(status), indent=2).decode("utf-8"))
        lines = list(doctor.of_running(status, language))
        if not asked.json:
            print(doctor.render(lines))
        return doctor.exit_code(lines)
    lines, fatal = [doctor.Line("bad", "agent", status)], False
    directory = Path(config.identity_dir)
    try:
        who = identity.load(directory)
        identity.load_ca(directory)
        FileKeyStore(directory).validity()
        lines.append(doctor.Line("ok", "identity", f"{who.terminal} of {who.fleet}, server {who.mqtt.host}:{who.mqtt.port}"))
        config = configuration.with_desired(config, configuration.desired_state(identity.load_desired(directory)))
    except AgentError as err:
        lines.append(doctor.Line("bad", "identity", str(err)))
        fatal = True
    lines += doctor.of_key_files(directory)
    try:
        from edge_agent.transports.udev import UdevDiscoverer

        sightings = UdevDiscoverer.of_system(_extra_paths(config)).sightings()
        lines += doctor.of_hardware(config, sightings, load_profiles(config.profiles_dir))
    except ConfigError as err:
        lines.append(doctor.Line("bad", "profiles", str(err)))
        fatal = True
    print(doctor.render(lines))
    return doctor.CANNOT_START if fatal else doctor.exit_code(lines)


# ------------------------------------------------------------------------------------------------------------------ keys and tokens


def _rotate_key(asked: argparse.Namespace) -> int:
    import time

    from edge_agent import enrol
    from edge_agent.clock import SystemClock
    from edge_agent.signing import FileKeyStore
    from protocols.contract.records import ClockQuality

    config = configuration.load(asked.config)
    _become_agent_user(config)
    directory = Path(config.identity_dir)
    done = enrol.renew(
        identity.load(directory),
        FileKeyStore(directory),
        directory,
        now_ms=int(time.time() * 1000),
        check_dates=SystemClock().quality() is ClockQuality.SYNCED,
        rotate=True,
    )
    print(
        f"Record key {done.generation} is certified. The running agent takes it over within a minute, a stopped one at its start."
    )
    return DONE


def _token(asked: argparse.Namespace) -> int:
    import hashlib
    import secrets
    import tomllib

    import msgspec

    from edge_agent import files
    from edge_agent.local_api import Application, Applications, Scope
    from edge_agent.local_api.gate import DEFAULT_SCOPES

    config = configuration.load(asked.config)
    if config.local_api.application_tokens_file is None:
        raise ConfigError(f"{asked.config}: local_api.application_tokens_file: missing; name the file that keeps the hashes")
    path = Path(config.local_api.application_tokens_file)
    owner = _agent_owner(config)
    known = Applications.load(path, owner=owner[0] if owner else None) if path.exists() else Applications()
    token = secrets.token_urlsafe(32)
    scopes = tuple(Scope(scope) for scope in asked.scope) if asked.scope else DEFAULT_SCOPES
    added = Application(name=asked.name, token_sha256=hashlib.sha256(token.encode("ascii")).hexdigest(), scopes=scopes)
    rows = [*(one for one in known.applications if one.name != asked.name), added]
    text = "".join(
        f'[[applications]]\nname = "{one.name}"\ntoken_sha256 = "{one.token_sha256}"\n'
        f"scopes = [{', '.join(chr(34) + scope + chr(34) for scope in one.scopes)}]\n\n"
        for one in rows
    )
    try:
        msgspec.convert(tomllib.loads(text), Applications)
    except (msgspec.ValidationError, tomllib.TOMLDecodeError):
        raise ConfigError("an application's name has 1 to 32 of a-z, 0-9 and -") from None
    if owner is None:
        files.make_private_directory(path.parent)
    elif not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is missing; make that directory so that the agent's user can enter it")
    files.write_atomically(path, text.encode("ascii"), owner=owner)
    print(token)
    print(f"Shown once; {path} keeps its hash. The agent reads the file at its start.", file=sys.stderr)
    return DONE


def _agent_owner(config: Config) -> tuple[int, int] | None:
    """(uid, gid) of who must be able to read what root writes for the agent: whose the identity is, else the service's user. None if that is us."""
    if os.geteuid() != 0:
        return None
    try:
        found = os.lstat(config.identity_dir)
        return found.st_uid, found.st_gid
    except OSError:
        return _service_user()


def _become_agent_user(config: Config) -> None:
    """Where root runs this on a machine with the service's user, work as that user: its directories are made for it first."""
    user = _service_user() if os.geteuid() == 0 else None
    if user is None:
        return
    uid, gid = user
    for directory in (Path(config.identity_dir), Path(config.state_dir)):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(directory, uid, gid, follow_symlinks=False)  # that user could have put a link there
    os.initgroups(AGENT_USER, gid)
    os.setgid(gid)
    os.setuid(uid)


def _service_user() -> tuple[int, int] | None:
    """(uid, gid) of the user that the agent's service runs as; None where it does not exist."""
    import pwd

    try:
        user = pwd.getpwnam(AGENT_USER)
    except KeyError:
        return None
    return user.pw_uid, user.pw_gid


if __name__ == "__main__":
    sys.exit(main())
