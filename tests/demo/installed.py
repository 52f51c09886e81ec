"""Terminals that are processes of their own, installed as on a kiosk: versions in directories, a launcher that starts one of them, and an updater."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge_agent import launcher
from edge_agent.updater import archive, install
from edge_agent.updater.layout import About, Layout
from edge_agent.updater.source import Pinned
from tests.demo.processes import Child, Children
from tests.demo.setup import Places

LAUNCHER: Final = Path(launcher.__file__)
BACK_WITHIN_S: Final = 2
"""A kiosk waits longer before it starts again what ended; here somebody watches."""
STEADY_S: Final = 5


def lay_out(places: Places, terminal: str, image: Path, version: str) -> None:
    """The factory's version and the updater's own files, after enrolment; what is there stays."""
    root, handover = places.versions(terminal), places.handover(terminal)
    for folder in (root, handover / "requests", handover / "updates"):
        folder.mkdir(parents=True, exist_ok=True)
    if Layout(root).state().factory is None:
        with archive.open_image(image) as opened:
            about = About(version=version, release=0, sha256=hashlib.sha256(image.read_bytes()).hexdigest())
            install.lay_out(root, opened, about)
    Pinned.load(places.identity(terminal)).keep(_pinned(places, terminal))
    places.updater_config(terminal).write_text(_updater_config(places, terminal), encoding="utf-8")


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


def _updater_config(places: Places, terminal: str) -> str:
    return "\n".join(
        (
            "schema = 1",
            f'root = "{places.versions(terminal)}"',
            f'state_dir = "{places.updater_state(terminal)}"',
            f'requests_dir = "{places.handover(terminal) / "requests"}"',
            f'updates_dir = "{places.handover(terminal) / "updates"}"',
            f'pinned_dir = "{_pinned(places, terminal)}"',
            "tick_s = 0.5",
            "",
            "[limits]",
            f"steady_s = {STEADY_S}",
            "",
        )
    )
