"""Owns the process's loop: plan, queue, claim, send, settle. Thin: what is due decides `planner`, how it reads the channel's folder.

Everything that must survive is a row. After kill -9 a message that was on its way is sent again when its lease ends: at least once, with the same
id. One task for each channel that has something due, so a slow peer holds up nobody else.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from fleet_server.channel import Channel, transact
from fleet_server.db import open_raw
from fleet_server.errors import FleetServerError
from fleet_server.notifications import store
from fleet_server.notifications.bucket import Bucket
from fleet_server.notifications.digest import Digest
from fleet_server.notifications.filters import read_filters
from fleet_server.notifications.kinds import KINDS
from fleet_server.notifications.planner import Listener, plan
from fleet_server.notifications.reading import read
from fleet_server.notifications.secrets import SecretBox
from fleet_server.notifications.sending import Sender, SendFailed
from fleet_server.notifications.setup import Setup
from fleet_server.notifications.store import Due, Stored

log = logging.getLogger(__name__)

TICK_S: Final = 2.0
ATTEMPT_S: Final = 30.0
"""Longest time of one attempt; shorter than the lease, so that no two attempts at one message overlap."""
CLOSE_S: Final = 8.0
"""Shorter than the supervisor's patience."""
FIRST_RETRY_MS: Final = 5_000
LONGEST_RETRY_MS: Final = 300_000
TRIM_EVERY_MS: Final = 3_600_000
MESSAGE_ID_BYTES: Final = 12


def new_message_id() -> str:
    return f"msg_{secrets.token_hex(MESSAGE_ID_BYTES)}"


def retry_ms(attempts: int, message: int) -> int:
    """How long to wait after the n-th attempt: doubling to LONGEST_RETRY_MS, and up to a fifth more, another part for each message."""
    wait_ms = min(LONGEST_RETRY_MS, FIRST_RETRY_MS << min(attempts - 1, 16))
    spread = int.from_bytes(hashlib.sha256(f"{message}/{attempts}".encode()).digest()[:2], "big") / 65_536
    return wait_ms + int(wait_ms * 0.2 * spread)


@dataclass(frozen=True, slots=True)
class _Open:
    """A channel that is ready to send, as it was set at `row.set_ms`."""

    row: Stored
    listener: Listener
    sender: Sender


class Courier:
    """`now_ms` is the wall clock. Rows are written through one connection on a thread of its own."""

    def __init__(
        self, database: Path, box: SecretBox, *, fleet: str, zone: str, now_ms: Callable[[], int], tick_s: float = TICK_S
    ) -> None:
        self._db = Channel(lambda: open_raw(database), "notifications")
        self._box, self._fleet, self._zone, self._now_ms, self._tick_s = box, fleet, zone, now_ms, tick_s
        self._since_ms = now_ms()
        self._open: dict[int, _Open] = {}
        self._broken: dict[int, int] = {}
        """Channels that cannot be opened, as they were set at."""
        self._buckets: dict[str, Bucket] = {}
        """By destination: two channels to one robot share its limit."""
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._trimmed_ms = 0

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    await self.step()
                except (sqlite3.Error, FleetServerError):
                    log.exception("notifications were not looked at; trying again")
                await asyncio.sleep(self._tick_s)
        finally:
            await self.close()

    async def step(self) -> None:
        """Look once: take over what people changed, plan, and start sending what is due."""
        now_ms = self._now_ms()
        self._reap()
        await self._follow_channels()
        if now_ms - self._trimmed_ms >= TRIM_EVERY_MS or now_ms < self._trimmed_ms:
            self._trimmed_ms = now_ms
            await self._db.transact(lambda conn: store.trim(conn, now_ms))
        if not self._open:
            return
        await self._plan(now_ms)
        for message in await self._db.run(lambda conn: store.due(conn, now_ms)):
            if message.channel in self._open and message.channel not in self._sending:
                self._sending[message.channel] = asyncio.create_task(
                    self._send(self._open[message.channel], message), name=f"notify-{message.channel}"
                )

    def _reap(self) -> None:
        """An attempt that broke in a way nobody foresaw leaves its message to the lease, and the others alone."""
        for number in [number for number, task in self._sending.items() if task.done()]:
            task = self._sending.pop(number)
            if not task.cancelled() and (err := task.exception()) is not None:
                log.error("sending to channel %d broke off", number, exc_info=err)

    async def idle(self) -> None:
        """Until nothing is being sent."""
        if self._sending:
            await asyncio.wait(self._sending.values())
        self._reap()

    async def close(self) -> None:
        """What is being sent gets CLOSE_S to end, else it would be sent twice; then connections and database are closed."""
        tasks = list(self._sending.values())
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in self._open.values():
            await one.sender.close()
        self._open.clear()
        self._db.close()

    # Channels -----------------------------------------------------------------------------------------------------------------------------

    async def _follow_channels(self) -> None:
        rows = {row.id: row for row in await self._db.run(lambda conn: store.channels(conn, enabled_only=True))}
        for number in [number for number, one in self._open.items() if rows.get(number) != one.row]:
            if number not in self._sending:  # else at a later look
                await self._open.pop(number).sender.close()
        for number, row in rows.items():
            if number not in self._open and self._broken.get(number) != row.set_ms:
                self._open_channel(row)

    def _open_channel(self, row: Stored) -> None:
        try:
            sender = open_sender(row, self._box, zone=self._zone, fleet=self._fleet)
            listener = Listener(id=row.id, filters=read_filters(row.filters), zone=self._zone)
        except FleetServerError as err:
            self._broken[row.id] = row.set_ms
            log.error("channel %s cannot be used: %s", row.name, err)
            return
        self._broken.pop(row.id, None)
        self._open[row.id] = _Open(row, listener, sender)
        log.info("channel %s (%s) is open", row.name, row.kind)

    # Deciding -----------------------------------------------------------------------------------------------------------------------------

    async def _plan(self, now_ms: int) -> None:
        listeners = [one.listener for one in self._open.values()]
        droppable = [number for number, one in self._open.items() if KINDS[one.row.kind].may_drop]

        def look(conn: sqlite3.Connection) -> int:
            # One moment for everything that is read; the decision is written in a short transaction of its own.
            conn.execute("BEGIN")
            try:
                sent = store.sent_so_far(conn)
                seen = read(conn, store.subjects(sent.values()), watching_since_ms=self._since_ms, now_ms=now_ms)
            finally:
                conn.execute("ROLLBACK")
            made = plan(now_ms, seen, listeners, sent, new_id=new_message_id)
            stale = any(one.waiting for one in sent.values())
            if not made.messages and not made.forget and not stale:
                return 0

            def write(inside: sqlite3.Connection) -> int:
                store.drop_stale(inside, droppable, now_ms)
                return store.queue(inside, made, now_ms)

            return transact(conn, write)

        if added := await self._db.run(look):
            log.info("%d digests queued", added)

    # Sending ------------------------------------------------------------------------------------------------------------------------------

    async def _send(self, one: _Open, message: Due) -> None:
        now_ms = self._now_ms()
        wait_ms = max(one.sender.not_before_ms(message.digest, now_ms) - now_ms, 0) or self._bucket(one.sender, now_ms).take(
            now_ms
        )
        if wait_ms:
            await self._db.transact(lambda conn: store.put_off(conn, message, now_ms + wait_ms, None))
            return
        mine = await self._db.transact(lambda conn: store.claim(conn, message, now_ms))
        if mine is None:
            return
        try:
            await asyncio.wait_for(one.sender.send(message.digest, now_ms=now_ms), ATTEMPT_S)
        except SendFailed as err:
            await self._failed(one, mine, err)
        except TimeoutError:
            await self._failed(one, mine, SendFailed(f"not done within {ATTEMPT_S:.0f} s"))
        else:
            done_ms = self._now_ms()
            await self._db.transact(lambda conn: store.delivered(conn, mine, done_ms))
            log.info("channel %s: message %d delivered at attempt %d", one.row.name, mine.id, mine.attempts)

    async def _failed(self, one: _Open, message: Due, err: SendFailed) -> None:
        now_ms, why = self._now_ms(), str(err)
        if err.permanent:
            log.error("channel %s refuses message %d: %s", one.row.name, message.id, why)
            await self._db.transact(lambda conn: store.refused(conn, message, now_ms, why))
            return
        wait_ms = max(retry_ms(message.attempts, message.id), err.wait_ms or 0)
        if err.blocks:
            self._bucket(one.sender, now_ms).block(err.wait_ms or one.sender.limits.block_ms)
            wait_ms = max(wait_ms, one.sender.limits.block_ms if err.wait_ms is None else err.wait_ms)
        log.warning("channel %s, message %d, attempt %d: %s", one.row.name, message.id, message.attempts, why)
        await self._db.transact(lambda conn: store.put_off(conn, message, now_ms + wait_ms, why))

    def _bucket(self, sender: Sender, now_ms: int) -> Bucket:
        return self._buckets.setdefault(sender.destination, Bucket(sender.limits, now_ms))


async def send_once(row: Stored, box: SecretBox, digest: Digest, *, zone: str, fleet: str, now_ms: int) -> str | None:
    """Send one message outside the courier's order, as tests are; what went wrong in our words, None if it was delivered."""
    try:
        sender = open_sender(row, box, zone=zone, fleet=fleet)
        try:
            await asyncio.wait_for(sender.send(digest, now_ms=now_ms), ATTEMPT_S)
        finally:
            await sender.close()
    except TimeoutError:
        return f"not done within {ATTEMPT_S:.0f} s"
    except FleetServerError as err:
        return str(err)
    return None


def open_sender(row: Stored, box: SecretBox, *, zone: str, fleet: str) -> Sender:
    """Raises SecretError or SendFailed; what stands in the row is checked like what a person typed."""
    kind = KINDS.get(row.kind)
    if kind is None:
        raise SendFailed(f"this version knows no channel of kind {row.kind!r}", permanent=True)
    setup = Setup(row.name, row.config.encode(), box.open(row.secret, row.bound_to), zone, fleet)
    try:
        return kind.open(setup)
    except (msgspec.ValidationError, msgspec.DecodeError) as err:
        raise SendFailed(f"channel {row.name}: {err}", permanent=True) from None
