"""Keeps the view fresh: reads the database every other second on a thread of its own, and judges. What it has serves while the database is busy."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fleet_server.channel import Channel
from fleet_server.db import open_reader
from fleet_server.errors import place_of
from fleet_server.public import rows
from fleet_server.public.rules import EMPTY, View, judge

log = logging.getLogger(__name__)

REFRESH_S: Final = 2.0
LONGEST_PAUSE_S: Final = 4.0
"""5 s is the age that is promised at most, one reading included."""
PAUSES_PER_READING: Final = 30
"""While a reading takes long, because the machine is busy or the fleet large, there are fewer: the pause is so many times as long."""
PLACES_EVERY_MS: Final = 30_000
ITEMS_EVERY_MS: Final = 600_000
ITEMS_WITHIN_S: Final = 10.0
BUSY_TIMEOUT_MS: Final = 500


class Keeper:
    """Owns the current view. One reader, one reading at a time, whatever the number of those who look."""

    def __init__(self, database: Path, *, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._channel = Channel(lambda: _open(database), "public-read")
        self._live: rows.Live | None = None
        self._places = rows.NO_PLACES
        self._items: rows.Items = {}
        self._places_ms = self._items_ms = -ITEMS_EVERY_MS
        self._is_failing = False
        self.view: View = EMPTY

    @property
    def is_ready(self) -> bool:
        """Whether anything was ever read."""
        return self._live is not None

    @property
    def age_ms(self) -> int:
        """How old what is shown is: since the reading of the rows."""
        return 0 if self._live is None else max(0, self._now_ms() - self._live.read_ms)

    async def run(self) -> None:
        while True:
            began_s = time.monotonic()
            await self.refresh()
            await asyncio.sleep(pause_s(time.monotonic() - began_s))

    async def refresh(self) -> None:
        """Read and judge. Never raises for a busy or broken database: the old rows are judged anew, and age into unknown."""
        now_ms = self._now_ms()
        try:
            self._live = await self._channel.run(lambda connection: self._read(connection, now_ms))
        except (rows.TooSlow, sqlite3.Error) as err:
            if not self._is_failing:
                log.warning("the database cannot be read, what was read before is shown: %s", place_of(err))
            self._is_failing = True
        else:
            self._is_failing = False
        if self._live is not None:
            self.view = judge(self._live, self._places, self._items, self._now_ms())

    def close(self) -> None:
        self._channel.close()

    def _read(self, connection: sqlite3.Connection, now_ms: int) -> rows.Live:
        if not 0 <= now_ms - self._places_ms < PLACES_EVERY_MS:
            self._places = rows.look(connection, rows.read_places)
            self._places_ms = now_ms
        live = rows.look(connection, lambda inside: rows.read_live(inside, now_ms))
        if not 0 <= now_ms - self._items_ms < ITEMS_EVERY_MS:
            # Beside the rest, it matters little: tried again only after its time, whether it went well or not.
            self._items_ms = now_ms
            self._items = rows.look(connection, lambda inside: rows.read_items(inside, now_ms), ITEMS_WITHIN_S)
        return live


def pause_s(took_s: float) -> float:
    """How long to wait after a reading that took so long."""
    return min(LONGEST_PAUSE_S, max(REFRESH_S, PAUSES_PER_READING * took_s))


def _open(database: Path) -> sqlite3.Connection:
    if not database.exists():
        # Opening would make an empty file, which the server would take for its database.
        raise sqlite3.OperationalError("no database")
    connection = open_reader(database)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return connection
