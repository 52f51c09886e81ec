"""Rollouts in the dispatch process: the executor with the real repositories behind it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence

from fleet_server.rollouts.executor import Executor, sync_releases
from fleet_server.updates import director
from fleet_server.updates.director import Assignment
from fleet_server.updates.errors import Busy
from fleet_server.updates.layout import UpdatesLayout
from fleet_server.updates.repository import Updates
from protocols.contract import artifacts
from protocols.contract.artifacts import ImageCustom
from protocols.contract.wire import WireError

log = logging.getLogger(__name__)


class TufDirector:
    """The director repository on disk."""

    def __init__(self, layout: UpdatesLayout) -> None:
        self._layout = layout

    def assign(self, given: Mapping[str, Sequence[Assignment]], now_ms: int) -> None:
        director.set_assignments(Updates(self._layout), given, now_ms=now_ms)

    def assigned(self) -> Mapping[str, Sequence[Assignment]]:
        return director.assigned(Updates(self._layout)) if self._layout.exists else {}


def step(layout: UpdatesLayout) -> Callable[[sqlite3.Connection, int], bool]:
    """The step of the duty. What was published since the last look becomes known as a release; then every rollout gets its turn."""
    executor = Executor(TufDirector(layout))
    seen: int | None = None

    def turn(conn: sqlite3.Connection, now_ms: int) -> bool:
        nonlocal seen
        published = _published_ns(layout)
        if published is not None and published != seen:
            sync_releases(conn, image_targets(layout), now_ms)
            seen = published
        try:
            return executor.step(conn, now_ms)
        except Busy:
            # Somebody publishes a release just now; the next round is in two seconds.
            log.info("the update repositories are being written; rollouts wait")
            return False

    return turn


def _published_ns(layout: UpdatesLayout) -> int | None:
    try:
        return (layout.metadata("image") / "timestamp.json").stat().st_mtime_ns
    except OSError:
        return None


def image_targets(layout: UpdatesLayout) -> list[tuple[str, int, bytes, ImageCustom]]:
    """(path, length, sha256, what it is) of everything that can be installed; packed forms are left out."""
    found: list[tuple[str, int, bytes, ImageCustom]] = []
    for path, (_, target) in sorted(Updates(layout).image.known_targets().items()):
        try:
            custom = artifacts.of_custom(target.custom, ImageCustom)
        except WireError:
            continue
        found.append((path, target.length, bytes.fromhex(target.hashes["sha256"]), custom))
    return found
