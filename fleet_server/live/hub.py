"""One poller per web process: looks at the fleet four times a second while somebody listens, and tells every listener what changed.

Nothing is pushed from inside a transaction: what a page is told is committed. A listener that cannot keep up is told to read its view again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Final

import msgspec

from fleet_server.console.fleet import Fleet, FleetView
from fleet_server.engine import FleetEngine
from fleet_server.live.backlog import Backlog, BacklogMeter, Load
from fleet_server.live.diff import Look, News, news

log = logging.getLogger(__name__)

POLL_S: Final = 0.25
TICK_S: Final = 2.0
GAP_S: Final = 0.5
"""Least time between two events of one name: a storm of faults becomes two fetches a second, not forty."""
METER_S: Final = 1.0
QUEUE: Final = 64
RETRY_MS: Final = 2000
LISTENERS_MAX: Final = 500
"""Open streams of one web process. Each costs a queue and a socket; a server of this size has a few dozen."""
PER_SESSION_MAX: Final = 8
"""A browser shares one among its tabs; one that cannot share opens one for each tab that is looked at, and HTTP/1.1 gives it six."""
FULL_RETRY_S: Final = 15
"""When to ask again after a refusal; until then a page asks for its parts this often instead."""
HISTORY_FILE: Final = "history.json"
"""In the run directory: `{"done": 1200, "total": 500000}` while somebody loads history through the agents' own road."""


def encode(name: str, data: str, event_id: int) -> bytes:
    return f"id: {event_id}\nevent: {name}\ndata: {data}\n\n".encode()


class Hub:
    """Listeners subscribe; the poller runs only while there are any."""

    def __init__(self, view: FleetView, db: FleetEngine, *, now_ms: Callable[[], int], run_dir: Path | None = None) -> None:
        self._view = view
        self._db = db
        self._now_ms = now_ms
        self._history = run_dir / HISTORY_FILE if run_dir else None
        self._listeners: set[asyncio.Queue[bytes | None]] = set()
        self._by_session: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._meter = BacklogMeter()
        self._metered_batch: int | None = None
        self.backlog: Backlog | None = None

    def has_room(self, session: str) -> bool:
        """Whether one more stream may be opened, for this session and at all."""
        return len(self._listeners) < LISTENERS_MAX and self._by_session[session] < PER_SESSION_MAX

    async def listen(self, last_event_id: str | None, session: str = "") -> AsyncGenerator[bytes, None]:
        """Events for one browser. After a reconnect that missed something the first event says so."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE)
        self._listeners.add(queue)
        if session:
            self._by_session[session] += 1
        try:
            fleet = await self._view.current()
        except BaseException:
            self._leave(queue, session)
            raise
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(fleet), name="live-hub")
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            yield encode("tick", str(self._now_ms()), fleet.change_id)
            if last_event_id is not None and last_event_id != str(fleet.change_id):
                yield encode("resync", "", fleet.change_id)
            while (message := await queue.get()) is not None:
                yield message
        finally:
            self._leave(queue, session)

    def _leave(self, queue: asyncio.Queue[bytes | None], session: str) -> None:
        self._listeners.discard(queue)
        if session:
            self._by_session[session] -= 1
            if self._by_session[session] <= 0:
                del self._by_session[session]

    async def close(self) -> None:
        """End every stream and the poller."""
        self._closed = True
        for queue in self._listeners:
            while queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    async def _run(self, fleet: Fleet) -> None:
        """Tells what changed since `fleet`, which the first listener knows already."""
        look = Look.at(fleet)
        waiting = News()
        sent: dict[str, float] = {}
        tick_s = meter_s = 0.0
        while self._listeners and not self._closed:
            now_s = time.monotonic()
            try:
                fresh = Look.at(await self._view.current())
                touched, orders = await self._touched(look.fleet.change_id, fresh.fleet.change_id)
                waiting.add(news(look, fresh, touched))
                waiting.orders = waiting.orders or orders
                look = fresh
                if now_s - meter_s >= METER_S:
                    meter_s = now_s
                    before, self.backlog = self.backlog, await self._measure()
                    waiting.platform = waiting.platform or before != self.backlog
            except Exception:  # the poller outlives a locked or restoring database; pages show the amber bar meanwhile
                log.exception("looking for changes failed")
                await asyncio.sleep(1.0)
                continue
            self._send(waiting, sent, now_s, look.fleet.change_id)
            if now_s - tick_s >= TICK_S:
                tick_s = now_s
                self._broadcast(encode("tick", str(self._now_ms()), look.fleet.change_id))
            await asyncio.sleep(max(0.0, POLL_S - (time.monotonic() - now_s)))
        self.backlog = None  # nobody measures while nobody listens: the next page must not show an old bar

    def _send(self, waiting: News, sent: dict[str, float], now_s: float, event_id: int) -> None:
        def due(name: str) -> bool:
            if now_s - sent.get(name, -GAP_S) < GAP_S:
                return False
            sent[name] = now_s
            return True

        if waiting.alarms:
            self._broadcast(encode("alarm", json.dumps(waiting.alarms[-5:], ensure_ascii=False), event_id))
            waiting.alarms = []
        if waiting.rows and due("rows"):
            self._broadcast(encode("rows", json.dumps(sorted(waiting.rows)), event_id))
            waiting.rows = set()
        if waiting.counts and due("counts"):
            self._broadcast(encode("counts", "", event_id))
            waiting.counts = False
        if waiting.platform and due("platform"):
            self._broadcast(encode("platform", "", event_id))
            waiting.platform = False
        if waiting.orders and due("orders"):
            self._broadcast(encode("orders", "", event_id))
            waiting.orders = False
        if waiting.touched and due("touched"):
            self._broadcast(encode("touched", json.dumps(sorted(waiting.touched)), event_id))
            waiting.touched = set()
        if waiting.ages and due("ages"):
            self._broadcast(encode("ages", json.dumps(waiting.ages), event_id))
            waiting.ages = {}

    def _broadcast(self, message: bytes) -> None:
        for queue in self._listeners:
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(encode("resync", "", 0))

    async def _touched(self, after: int, up_to: int) -> tuple[list[str], bool]:
        """Terminals of which something was written, and whether an order or an update was among it."""
        if up_to <= after:
            return [], False
        rows = await self._db.read(
            "SELECT DISTINCT terminal, kind IN ('order', 'rollout', 'update') AS ordered FROM change WHERE id > ? AND id <= ? AND kind <> 'live'",
            (after, up_to),
        )
        return [row["terminal"] for row in rows if row["terminal"] is not None], any(row["ordered"] for row in rows)

    async def _measure(self) -> Backlog | None:
        rows = await self._db.read("SELECT coalesce(sum(outbox_depth), 0) AS waiting FROM terminal_live")
        newest = (await self._db.read("SELECT max(id) AS id FROM batch"))[0]["id"] or 0
        batches = records = 0
        if self._metered_batch is not None and newest > self._metered_batch:
            found = await self._db.read(
                "SELECT count(*) AS n, sum(records) AS records FROM batch WHERE id > ?", (self._metered_batch,)
            )
            batches, records = found[0]["n"], found[0]["records"] or 0
        self._metered_batch = newest
        return self._meter.update(
            self._now_ms(), waiting=rows[0]["waiting"], batches=batches, records=records, load=await asyncio.to_thread(self._load)
        )

    def _load(self) -> Load | None:
        if self._history is None:
            return None
        try:
            found = msgspec.json.decode(self._history.read_bytes(), type=dict[str, int])
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            return None
        return Load(found.get("done", 0), found.get("total", 0))
