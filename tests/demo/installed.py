"""How terminals are installed: versions in directories and an updater, as on a kiosk; those with processes of their own under the real launcher."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from edge_agent import launcher
from edge_agent.updater import archive, install
from edge_agent.updater.layout import About, Layout, SeatState, State
from edge_agent.updater.source import Pinned
from tests.demo.processes import Child, Children
from tests.demo.setup import Places

LAUNCHER: Final = Path(launcher.__file__)
BACK_WITHIN_S: Final = 2
"""A kiosk waits longer before it starts again what ended; here somebody watches."""
STEADY_S: Final = 5


def lay_out(places: Places, terminal: str, image: Path, version: str) -> None:
    """The factory's version and the updater's own files, after enrolment; what is there stays."""
    _make_handover(places, terminal)
    _unpack(places.versions(terminal), image, version)
    pinned = _pinned(places, terminal)
    Pinned.load(places.identity(terminal)).keep(pinned)
    places.updater_config(terminal).write_text(_updater_config(places, terminal, pinned), encoding="utf-8")


def lay_out_factory(places: Places, image: Path, version: str) -> None:
    """The tree that `join` refers to."""
    _unpack(places.factory, image, version)


def factory_name(places: Places) -> str:
    """Of that tree."""
    name = Layout(places.factory).state().factory
    assert name is not None
    return name


def join(places: Places, terminal: str) -> None:
    """A terminal without a process of its own: its factory version is a link to the tree of all.

    Agent and updater are the same user here, so the updater trusts what enrolment brought where it lies.
    """
    root = places.versions(terminal)
    if (root / launcher.STATE).exists():
        return
    factory = factory_name(places)
    _make_handover(places, terminal)
    places.updater_config(terminal).write_text(_updater_config(places, terminal, places.identity(terminal)), encoding="utf-8")
    versions = root / launcher.VERSIONS
    for folder in (versions, places.updater_state(terminal)):
        folder.mkdir(parents=True, exist_ok=True)
    for link, target in (
        (versions / factory, places.factory / launcher.VERSIONS / factory),
        *((root / name, Path(launcher.VERSIONS) / factory) for name in launcher.LINKS.values()),
    ):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    # Last, since it stands for the whole.
    state = State(factory=factory, seats={seat: SeatState(good=factory) for seat in launcher.LINKS})
    (root / launcher.STATE).write_bytes(msgspec.json.encode(state))


def _make_handover(places: Places, terminal: str) -> None:
    for name in ("requests", "updates"):
        (places.handover(terminal) / name).mkdir(parents=True, exist_ok=True)


def _unpack(root: Path, image: Path, version: str) -> None:
    """The image as the factory's version, unless there is one."""
    if Layout(root).state().factory is not None:
        return
    root.mkdir(parents=True, exist_ok=True)
    with archive.open_image(image) as opened:
        about = About(version=version, release=0, sha256=hashlib.sha256(image.read_bytes()).hexdigest())
        install.lay_out(root, opened, about)


def start(children: Children, places: Places, terminal: str) -> Sequence[Child]:
    """Both seats, each under its launcher, which starts again whatever ends."""
    root = places.versions(terminal)
    common = (LAUNCHER, "run", "--root", root, "--backoff-s", str(BACK_WITHIN_S), "--backoff-max-s", "10", "--poll-s", "0.5")
    heartbeat = places.handover(terminal) / "requests" / "health.json"
    agent = ("--heartbeat", heartbeat, "--", "run", "--config", places.config(terminal), "--log-level", "warning")
    updater = ("--seat", "updater", "--", "updater", "run", "--config", places.updater_config(terminal), "--log-level", "info")
    return (
        children.start(terminal, (*common, *agent)),
        children.start(f"{terminal}-updater", (*common, *updater)),
    )


def _pinned(places: Places, terminal: str) -> Path:
    return places.versions(terminal).parent / "pinned"


def _updater_config(places: Places, terminal: str, pinned: Path) -> str:
    return "\n".join(
        (
            "schema = 1",
            f'root = "{places.versions(terminal)}"',
            f'state_dir = "{places.updater_state(terminal)}"',
            f'requests_dir = "{places.handover(terminal) / "requests"}"',
            f'updates_dir = "{places.handover(terminal) / "updates"}"',
            f'pinned_dir = "{pinned}"',
            "tick_s = 0.5",
            "",
            "[limits]",
            f"steady_s = {STEADY_S}",
            "",
        )
    )
