"""Owns the doing of orders, one at a time and by counter. What would disturb a citizen waits; what a restart cut off is never done twice.

State and record of each step are durable before the next step (O-208), so a process that is killed anywhere finds at its next start which order was
running, and `book.after_restart` says how that ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edge_agent.orders import book as rules
from edge_agent.orders.book import Entry, Reason
from edge_agent.outbox.errors import OutboxError

if TYPE_CHECKING:
    from edge_agent.orders.inbox import BookKeeper
    from protocols.contract import orders

log = logging.getLogger(__name__)

Tested = Literal["ok", "unsupported", "inUse", "device", "timeout"]
HookName = Literal["restart_application", "restart_host"]
AGAIN_S = 5.0
"""After a disk that took no record."""
LOOK_S = 30.0
"""While orders wait, their expiry is looked at so often."""
HOST_WITHIN_S = 300.0
"""A host that still runs so long after its restart was ordered does not restart."""
UPLOAD_PAUSES_S = (5.0, 20.0, 60.0, 180.0)
TESTS_NEED_IDLE = frozenset({"print", "read", "beep"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What one terminal's orders are done with. `upload`: makes and sends the excerpt; None when it was taken, else why not and whether again."""

    now_ms: Callable[[], int]
    idle: Callable[[], bool]
    can_test: Callable[[str, str], bool]
    test: Callable[[str, str], Awaitable[Tested]]
    hooks: Mapping[HookName, Callable[[], Awaitable[Literal["ok", "failed", "timeout"]]]]
    restart_agent: Callable[[], None]
    upload: Callable[[bytes, int, int], Awaitable[Literal["done", "again", "refused"]]]
    stream: bytes
    boot_id: bytes
    upload_pauses_s: tuple[float, ...] = UPLOAD_PAUSES_S
    host_within_s: float = HOST_WITHIN_S


class Runner:
    """`run` until cancelled; `kick` when an order came or a session ended."""

    def __init__(self, keeper: BookKeeper, parts: Parts) -> None:
        self._keeper, self._parts = keeper, parts
        self._wake = asyncio.Event()
        self._recovered = False
        self._pulling: asyncio.Task[None] | None = None
        self.restarting = False
        """A restart that waited for the citizen has begun: nobody should begin a case now."""

    def kick(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        try:
            while True:
                try:
                    await self._work()
                except OutboxError:
                    log.warning("no space for the states of orders; trying again")
                    await asyncio.sleep(AGAIN_S)
        finally:
            if self._pulling is not None:
                self._pulling.cancel()
                await asyncio.wait({self._pulling})

    async def _work(self) -> None:
        self.recover()
        while True:
            self._wake.clear()
            entry = self._next()
            if entry is not None:
                await self._do(entry)
                continue
            waiting = bool(self._keeper.book.unfinished())
            try:
                async with asyncio.timeout(LOOK_S if waiting else None):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def recover(self) -> None:
        """End what was running when the last run ended. Raises OutboxFull; then it is done later, before anything else."""
        if self._recovered:
            return
        for entry in self._keeper.book.unfinished():
            end = rules.after_restart(entry, rules.body_of(entry), stream=self._parts.stream, boot_id=self._parts.boot_id)
            if end is not None:
                self._keeper.move(entry, *end)
        self._recovered = True

    def _next(self) -> Entry | None:
        """The first order that can be begun; what has expired, waits or cannot be done here at all is told on the way."""
        for entry in self._keeper.book.unfinished():
            if entry.state == "running" or (entry.kind == "pullLogs" and self._pulling is not None):
                continue
            if self._parts.now_ms() >= entry.expires_ms:
                self._keeper.move(entry, "expired", "expired")
                continue
            body = rules.body_of(entry)
            objection = self._objection(body)
            if objection is not None:
                self._keeper.move(entry, "refused", objection)
            elif not _disturbs(body) or self._parts.idle():
                return entry
            elif entry.state != "waiting":
                self._keeper.move(entry, "waiting", "session")
        return None

    def _objection(self, body: orders.OrderBody) -> Reason | None:
        from protocols.contract import orders as contract

        if isinstance(body, contract.SelfTest) and not self._parts.can_test(body.slot, body.test):
            return "unsupported"
        if isinstance(body, contract.Restart) and body.what != "agent" and _hook_of(body) not in self._parts.hooks:
            return "noHook"
        return None

    # ---------------------------------------------------------------------------------------------------------------------- doing

    async def _do(self, entry: Entry) -> None:
        from protocols.contract import orders as contract

        body = rules.body_of(entry)
        self._keeper.move(entry, "running", stream=self._parts.stream, boot_id=self._parts.boot_id)
        entry = self._keeper.book.find(entry.id) or entry
        if isinstance(body, contract.PullLogs):  # takes minutes where the server does not answer, and is in nobody's way
            self._pulling = asyncio.get_running_loop().create_task(self._finish(entry, body))
            self._pulling.add_done_callback(self._pulled)
        else:
            await self._finish(entry, body)

    async def _finish(self, entry: Entry, body: orders.OrderBody) -> None:
        try:
            state, reason = await self._outcome(entry, body)
        except Exception:
            await self._end(entry, "failed", "interrupted")
            raise
        await self._end(entry, state, reason)

    def _pulled(self, task: asyncio.Task[None]) -> None:
        self._pulling = None
        if not task.cancelled() and (err := task.exception()) is not None:
            log.error("an excerpt of the log failed", extra={"kind": type(err).__name__})
        self.kick()

    async def _outcome(self, entry: Entry, body: orders.OrderBody) -> tuple[rules.State, Reason]:
        from protocols.contract import orders as contract

        match body:
            case contract.SelfTest():
                tested = await self._parts.test(body.slot, body.test)
                if tested == "ok":
                    return "done", "none"
                return ("refused" if tested == "unsupported" else "failed"), tested
            case contract.Restart():
                self.restarting = True
                try:
                    reason = await self._restart(body)
                finally:
                    self.restarting = False
                return ("done" if reason == "none" else "failed"), reason
            case contract.PullLogs():
                return await self._pull(entry, body)
            case contract.Cancel():
                return self._cancel(body)

    async def _end(self, entry: Entry, state: rules.State, reason: Reason) -> None:
        """Tell how it ended, however long the disk is full: it was done, and must not be done again."""
        while True:
            try:
                self._keeper.move(entry, state, reason)
            except OutboxError:
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def _restart(self, body: orders.Restart) -> Reason:
        """`none` only where this process goes on afterwards: for its own restart and the host's, the next start tells."""
        if body.what == "agent":
            self._parts.restart_agent()
            await asyncio.get_running_loop().create_future()  # until this run ends
        outcome = await self._parts.hooks[_hook_of(body)]()
        if outcome != "ok":
            return "noHook" if outcome == "failed" else "timeout"
        if body.what == "host":
            await asyncio.sleep(self._parts.host_within_s)
            return "timeout"
        return "none"

    async def _pull(self, entry: Entry, body: orders.PullLogs) -> tuple[rules.State, Reason]:
        for pause_s in (*self._parts.upload_pauses_s, None):
            answer = await self._parts.upload(entry.id, body.from_ms, body.to_ms)
            if answer == "done":
                return "done", "none"
            if answer == "refused" or pause_s is None or self._parts.now_ms() >= entry.expires_ms:
                break
            await asyncio.sleep(pause_s)
        return "failed", "upload"

    def _cancel(self, body: orders.Cancel) -> tuple[rules.State, Reason]:
        """An order that is not known here will never be: its counter is below this one's."""
        target = self._keeper.book.find(body.order)
        if target is None or (target.state, target.reason) == ("cancelled", "ordered"):
            return "done", "none"
        if target.finished or target.state == "running":
            return "failed", "stale" if target.finished else "inUse"
        self._keeper.move(target, "cancelled", "ordered")
        return "done", "none"


def _disturbs(body: orders.OrderBody) -> bool:
    """Whether a citizen who is being served would notice."""
    from protocols.contract import orders as contract

    if isinstance(body, contract.SelfTest):
        return body.test in TESTS_NEED_IDLE
    return isinstance(body, contract.Restart) and body.when == "idle"


def _hook_of(body: orders.Restart) -> HookName:
    return "restart_host" if body.what == "host" else "restart_application"
