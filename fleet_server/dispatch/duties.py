"""What the dispatch process has to do, as a list: each duty on a connection and a turn of its own, so that none holds up or ends another."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fleet_server.channel import Channel, abandon
from fleet_server.db import open_raw
from fleet_server.errors import FleetServerError, place_of
from protocols.errors import ProtocolError

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.1
"""One PRAGMA on an open connection: measured 3 µs."""
AGAIN_S: Final = 0.005
FAILED_PAUSE_S: Final = 2.0
STATUS_EVERY_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """`step(connection, now_ms)` does a little and says whether there is more to do at once.

    The connection is in autocommit mode and the duty's own; use `channel.transact`. A step may be killed at any point and is then done again.
    """

    name: str
    step: Callable[[sqlite3.Connection, int], bool]
    every_s: float = 60.0
    """It is called at least so often, for what time alone brings."""
    wakes: bool = True
    """Also whenever another connection has written."""


@dataclass(slots=True)
class Standing:
    """How a duty is doing; for `run/dispatch.json`."""

    done_ms: int | None = None
    """Last step without an error."""
    failed_ms: int | None = None
    error: str = ""
    steps: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {"done_ms": self.done_ms, "failed_ms": self.failed_ms, "error": self.error, "steps": self.steps}


@dataclass(slots=True)
class Runner:
    """Runs duties until cancelled."""

    database: Path
    duties: Sequence[Duty]
    now_ms: Callable[[], int]
    status_file: Path | None = None
    standing: dict[str, Standing] = field(init=False)

    def __post_init__(self) -> None:
        self.standing = {duty.name: Standing() for duty in self.duties}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for duty in self.duties:
                tasks.create_task(self._keep(duty))
            tasks.create_task(self._report())

    async def _keep(self, duty: Duty) -> None:
        channel = Channel(lambda: open_raw(self.database), f"duty-{duty.name}")
        try:
            while True:
                seen = await channel.run(_data_version)
                more = await self._step(duty, channel)
                if more is None:
                    await asyncio.sleep(FAILED_PAUSE_S)
                elif more:
                    await asyncio.sleep(AGAIN_S)
                else:
                    await self._wait(duty, channel, seen)
        finally:
            channel.close()

    async def _step(self, duty: Duty, channel: Channel) -> bool | None:
        """None: it failed, which is said once until it works again."""
        standing = self.standing[duty.name]
        try:
            more = await channel.run(lambda connection: duty.step(connection, self.now_ms()))
        except Exception as err:  # noqa: BLE001 - one duty that fails must not end the others
            await channel.run(abandon)
            own = isinstance(err, (FleetServerError, ProtocolError, sqlite3.OperationalError))
            words = str(err) if own else place_of(err)
            if standing.error != words:
                log.error("%s: %s", duty.name, words)
            standing.error, standing.failed_ms = words, self.now_ms()
            return None
        standing.error, standing.done_ms = "", self.now_ms()
        standing.steps += 1
        return more

    async def _wait(self, duty: Duty, channel: Channel, seen: int) -> None:
        """Until somebody has written or the duty's time has come."""
        left_s = duty.every_s
        while left_s > 0:
            pause_s = min(LOOK_EVERY_S if duty.wakes else duty.every_s, left_s)
            await asyncio.sleep(pause_s)
            left_s -= pause_s
            if duty.wakes and await channel.run(_data_version) != seen:
                return

    async def _report(self) -> None:
        while self.status_file is not None:
            building = self.status_file.with_suffix(".new")
            told = {"at_ms": self.now_ms(), "duties": {name: one.as_dict() for name, one in self.standing.items()}}
            building.write_text(json.dumps(told, indent=1), "utf-8")
            building.replace(self.status_file)
            await asyncio.sleep(STATUS_EVERY_S)


def _data_version(connection: sqlite3.Connection) -> int:
    """Changes when another connection commits; not by this connection's own commits."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])
