"""Owns `edge-agent updater run | status | pin` and `edge-agent install-layout`: the updater's process, and what root does once."""

from __future__ import annotations

import argparse
import hashlib
import platform
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from edge_agent.updater import settings as configuration

if TYPE_CHECKING:
    from edge_agent.updater.service import Service
    from edge_agent.updater.settings import Settings

DONE, FAILED = 0, 1


def add_commands(commands: Any) -> None:
    """To the parser of `edge-agent`."""
    updater = commands.add_parser("updater", help="The updater: a process and a user of its own.")
    inner = updater.add_subparsers(required=True, metavar="what")
    for name, run, text in (
        ("run", _run, "Run the updater until it is told to stop."),
        ("status", _status, "Say which versions are here, which runs, and what the updater is doing."),
        ("pin", _pin, "As root, after enrolment: keep who this terminal is and whom it trusts where the agent cannot write."),
    ):
        sub = inner.add_parser(name, help=text, description=text)
        sub.add_argument("--config", type=Path, default=configuration.DEFAULT_PATH, help="default: %(default)s")
        sub.set_defaults(run=run)
        if name == "run":
            sub.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
        if name == "pin":
            sub.add_argument(
                "--identity", type=Path, default=Path("/var/lib/kiosk-fleet/identity"), help="the agent's identity_dir"
            )
            sub.add_argument(
                "--fleet-root", help="SHA-256 of the fleet root's key, printed with the one-time code; anything else is refused"
            )
            sub.add_argument(
                "--replace",
                action="store_true",
                help="with --fleet-root: pin it although other roots or another terminal are pinned",
            )

    layout = commands.add_parser(
        "install-layout", help="As root, once: lay the first version out of a release, as the factory's."
    )
    layout.add_argument("--image", type=Path, required=True, help="the release's .tar")
    layout.add_argument("--version", required=True, help="its version, as the release says")
    layout.add_argument("--release", type=int, default=0, help="its release counter")
    layout.add_argument("--sha256", help="what the image's SHA-256 must be")
    layout.add_argument("--root", type=Path, default=Path("/opt/kiosk-fleet"))
    layout.set_defaults(run=_install_layout)


def build_service(settings: Settings, **more: Any) -> Service:
    """The updater on this machine's own clock and disk. NotEnrolled before `updater pin`. `more`: of `Service`."""
    from edge_agent.clock import SystemClock, read_boot_id
    from edge_agent.updater import counters as counting
    from edge_agent.updater import floor as flooring
    from edge_agent.updater.counters import Counters
    from edge_agent.updater.floor import TimeFloor
    from edge_agent.updater.layout import Layout
    from edge_agent.updater.service import Service
    from edge_agent.updater.source import Pinned, TufSource

    state, root = Path(settings.state_dir), Path(settings.root)
    Layout(root).prepare()
    pinned = Pinned.load(Path(settings.pinned_dir))
    copies = [state / counting.FILE, root / counting.FILE]
    if settings.second_counters is not None:
        copies.append(Path(settings.second_counters))
    counters, floor, clock = Counters(*copies), TimeFloor(state / flooring.FILE), SystemClock()
    source = TufSource(
        pinned,
        metadata=state / "tuf",
        downloads=root / "downloads",
        floor=floor,
        counters=counters,
        clock=clock,
        arch=platform.machine(),
    )
    return Service(
        settings=settings,
        who=pinned.who,
        source=source,
        counters=counters,
        floor=floor,
        clock=clock,
        boot_id=read_boot_id(),
        **more,
    )


def _run(asked: argparse.Namespace) -> int:
    import os

    from edge_agent import logs
    from edge_agent.sd_notify import Notifier
    from edge_agent.updater import service as services
    from edge_agent.updater.cache import alone_in

    logs.to_stderr(asked.log_level)
    settings = configuration.load(asked.config)
    state = Path(settings.state_dir)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    notifier = Notifier.of_environment(os.environ, os.getpid())
    with alone_in(state):
        service = build_service(settings)
        notifier.ready()
        services.run(service, stop, settings.tick_s, notifier.alive)
        notifier.stopping()
    return DONE


def _status(asked: argparse.Namespace) -> int:
    from edge_agent.updater.layout import Layout
    from edge_agent.updater.store import Store

    settings = configuration.load(asked.config)
    layout = Layout(Path(settings.root))
    state = layout.state()
    for name in sorted(path.name for path in layout.versions.iterdir()) if layout.versions.is_dir() else ():
        about, own = layout.about(name), state.seat("agent")
        roles = [
            word
            for word, is_it in (
                ("runs", layout.pointed("agent") == name),
                ("good", own.good == name),
                ("on trial", own.trial is not None and own.trial.name == name),
                ("factory", state.factory == name),
                ("damaged", not layout.complete(name)),
            )
            if is_it
        ]
        print(f"{about.version if about else name}: {', '.join(roles) or 'kept'}")
    if (verdict := state.seat("agent").verdict) is not None:
        print(f"taken back: {verdict.name} ({verdict.reason})")
    work = Store(Path(settings.state_dir)).load().work
    if work is not None:
        reason = "" if work.reason == "none" else f" ({work.reason})"
        print(f"bundle {work.bundle.id.hex()}: {work.state}{reason}")
    return DONE


def _pin(asked: argparse.Namespace) -> int:
    from edge_agent.updater import pinning

    folder = Path(configuration.load(asked.config).pinned_dir)
    expected = pinning.parse_fingerprint(asked.fleet_root) if asked.fleet_root is not None else None
    found = pinning.load_strange(asked.identity)
    fingerprints = pinning.Fingerprints.of(found)
    print(f"fleet root fingerprint  {fingerprints.root}")
    for each in fingerprints.ca:
        print(f"CA fingerprint          {each}")
    pinning.check_change(found, folder, expected_root=expected, replace=asked.replace)
    found.keep(folder)
    print(
        f"Pinned in {folder}: {found.who.terminal} of {found.who.fleet}. Compare the fingerprints with those of the one-time code."
    )
    return DONE


def _digest(image: BinaryIO) -> str:
    found = hashlib.sha256()
    while block := image.read(256 * 1024):
        found.update(block)
    return found.hexdigest()


def _install_layout(asked: argparse.Namespace) -> int:
    from edge_agent.updater import archive, install
    from edge_agent.updater.errors import UpdaterError
    from edge_agent.updater.layout import About

    try:
        with archive.open_image(asked.image) as image:
            digest = _digest(image)
            if asked.sha256 is not None and digest != asked.sha256.lower():
                print(f"edge-agent: {asked.image} has SHA-256 {digest}, not the one that was given", file=sys.stderr)
                return FAILED
            name = install.lay_out(asked.root, image, About(version=asked.version, release=asked.release, sha256=digest))
        install.self_test(asked.root / "versions" / name, asked.version, install.SelfTestLimits())
    except (UpdaterError, OSError) as err:
        print(f"edge-agent: {err}", file=sys.stderr)
        return FAILED
    print(f"{asked.root}/versions/{name} is the factory version.")
    return DONE
