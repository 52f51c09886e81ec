"""Both ends of orders for tests: an office that signs as the server's dispatch does, and a terminal's inbox, book, runner and desired state."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from edge_agent.config import Config
from edge_agent.orders.desired import DesiredKeeper
from edge_agent.orders.inbox import BookKeeper, Inbox
from edge_agent.orders.runner import HookName, Parts, Runner, Tested
from edge_agent.outbox import Outbox, OutboxFull
from protocols.contract import certs, orders, records, wire
from tests.support.contract import FLEET, NOW_MS, ORDERS, ROOT, TERMINAL, MemoryKey, StepClock, order_key_cert

BOOT_ID = bytes(range(16))
SLOTS = frozenset({"receipt-printer", "scanner"})
_IDS = itertools.count(1)


def new_id() -> bytes:
    return next(_IDS).to_bytes(16, "big")


class Office:
    """Counts as the server does: one sequence for orders and desired states."""

    def __init__(self, key: MemoryKey = ORDERS, fleet: str = FLEET, terminal: str = TERMINAL) -> None:
        self.key, self.fleet, self.terminal, self.counter = key, fleet, terminal, 0

    def next(self) -> int:
        self.counter += 1
        return self.counter

    def make(self, body: orders.OrderBody, **changes: Any) -> orders.Order:
        values: dict[str, Any] = {
            "id": new_id(),
            "counter": self.next(),
            "issued_ms": NOW_MS,
            "expires_ms": NOW_MS + 600_000,
            "by": "lin",
            "approved_by": None,
        }
        return orders.make(body, **(values | changes))

    def seal(self, order: orders.Order) -> bytes:
        return orders.seal_order(order, self.key, self.fleet, self.terminal)

    def order(self, body: orders.OrderBody, **changes: Any) -> bytes:
        return self.seal(self.make(body, **changes))

    def desire(self, **fields: Any) -> orders.Desired:
        values: dict[str, Any] = {"counter": self.next(), "issued_ms": NOW_MS, "by": "lin", "approved_by": "wu"}
        return orders.Desired(**(values | fields))

    def desired(self, **fields: Any) -> bytes:
        return orders.seal_desired(self.desire(**fields), self.key, self.fleet, self.terminal)


def certificate_of(key: MemoryKey, fleet: str = FLEET, root: MemoryKey = ROOT) -> bytes:
    cert = certs.OrderKeyCert(kid=key.kid, public_key=key.public, issued_ms=0)
    return certs.seal_order_key_cert(cert, root, fleet)


class Ledger:
    """A recorder without a loop. `full`: the disk takes nothing."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox, self.bodies, self.full = outbox, list[records.Body](), False

    def capture(
        self, body: records.Body, *, urgent: bool = False, memory: Mapping[str, bytes] | None = None, wall_ms: int | None = None
    ) -> None:
        if self.full:
            raise OutboxFull("no space for the spool")
        self.outbox.capture_many((body,), urgent=urgent, memory=memory, wall_ms=wall_ms)
        self.bodies.append(body)

    def get(self, key: str) -> bytes | None:
        return self.outbox.get(key)

    def put(self, key: str, value: bytes) -> None:
        if self.full:
            raise OutboxFull("no space for the spool")
        self.outbox.put(key, value)


CONFIG = msgspec.convert(
    {
        "schema": 1,
        "server": {"url": "https://fleet.example.org"},
        "items": [{"code": "tax.invoice"}],
        "devices": [{"slot": "receipt-printer", "family": "receipt-printer"}, {"slot": "scanner", "family": "scanner"}],
    },
    Config,
)


class Desk:
    """One terminal's orders on a real spool; what they do is counted. `start` again after `stop` is a restart of the agent."""

    def __init__(self, folder: Path, *, boot_id: bytes = BOOT_ID, durable: bool = False) -> None:
        self.folder, self.clock = folder, StepClock()
        self.boot_id, self.durable = boot_id, durable
        self.idle, self.tested = True, list[tuple[str, str]]()
        self.test_answer: Tested = "ok"
        self.tests = {"query", "print"}
        self.hook_runs = list[str]()
        self.hook_answer: Literal["ok", "failed", "timeout"] = "ok"
        self.hooks = True
        self.restarts = 0
        self.uploads = list[bytes]()
        self.upload_answers = list[Literal["done", "again", "refused"]]()
        self.trusted_ms: int | None = None
        self.changes = list[bool]()
        self.start()

    def start(self) -> None:
        self.outbox = Outbox(self.folder / "outbox.db", _RECORD, FLEET, TERMINAL, self.clock, durable=self.durable)
        self.outbox.start_stream(self.boot_id)
        self.ledger = Ledger(self.outbox)
        self.keeper = BookKeeper(self.ledger, self.ledger)
        self.desired = DesiredKeeper(
            ledger=self.ledger,
            memory=self.ledger,
            base=CONFIG,
            root=ROOT.verifier,
            fleet=FLEET,
            terminal=TERMINAL,
            boot_ms=self.clock.boot_ms,
            on_change=self.changes.append,
        )
        self.inbox = Inbox(
            keeper=self.keeper,
            desired=self.desired,
            ledger=self.ledger,
            clock=self.clock,
            root=ROOT.verifier,
            fleet=FLEET,
            terminal=TERMINAL,
            trusted_now_ms=self.now_ms,
            slots=lambda: SLOTS,
            on_order=lambda: self.runner.kick(),  # noqa: PLW0108 -- made below
        )
        hooks: dict[HookName, Any] = {name: self._hook(name) for name in ("restart_application", "restart_host")}
        parts = Parts(
            now_ms=self.now_ms,
            idle=lambda: self.idle,
            can_test=lambda _slot, test: test in self.tests,
            test=self._test,
            hooks=hooks if self.hooks else {},
            restart_agent=self._restart_agent,
            upload=self._upload,
            stream=self.outbox.stream,
            boot_id=self.boot_id,
            upload_pauses_s=(0.0, 0.0),
            host_within_s=0.05,
        )
        self.runner = Runner(self.keeper, parts)

    def stop(self, *, clean: bool = False) -> None:
        self.outbox.close(clean=clean)

    def restart(self, *, boot_id: bytes | None = None) -> None:
        self.stop()
        self.boot_id = self.boot_id if boot_id is None else boot_id
        self.start()

    def greet(self, *certificates: bytes) -> None:
        """A new connection whose challenge lists these."""
        self.inbox.connected()
        self.inbox.keys(certificates or (order_key_cert(),))

    def now_ms(self) -> int:
        return self.clock.wall_ms() if self.trusted_ms is None else self.trusted_ms

    async def work(self) -> None:
        """Let the runner do all that can be done now."""
        task = asyncio.ensure_future(self.runner.run())
        try:
            quiet = 0
            while quiet < 5:
                before = len(self.ledger.bodies)
                await asyncio.sleep(0.03 if self._busy() else 0)
                quiet = quiet + 1 if len(self.ledger.bodies) == before and not self._busy() else 0
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _busy(self) -> bool:
        return any(entry.state == "running" for entry in self.keeper.book.entries) and not self.restarts

    def told(self) -> list[records.Order]:
        return [body for body in self.ledger.bodies if isinstance(body, records.Order)]

    def states(self) -> list[tuple[str, str]]:
        return [(body.state, body.reason) for body in self.told()]

    def told_desired(self) -> list[tuple[str, str]]:
        return [(body.state, body.reason) for body in self.ledger.bodies if isinstance(body, records.Desired)]

    async def _test(self, slot: str, test: str) -> Tested:
        self.tested.append((slot, test))
        return self.test_answer

    def _hook(self, name: str) -> Any:
        async def run() -> Literal["ok", "failed", "timeout"]:
            self.hook_runs.append(name)
            return self.hook_answer

        return run

    def _restart_agent(self) -> None:
        self.restarts += 1

    async def _upload(self, order: bytes, _from_ms: int, _to_ms: int) -> Literal["done", "again", "refused"]:
        self.uploads.append(order)
        return self.upload_answers.pop(0) if self.upload_answers else "done"


_RECORD = MemoryKey(b"\x03" * 32)


def sealed_as(payload: object, key: MemoryKey, context: str, fleet: str = FLEET, terminal: str = TERMINAL) -> bytes:
    """An envelope around whatever CBOR can say."""
    from protocols.contract import envelope as cose

    return cose.seal(wire.dump(payload), key, context, fleet, terminal)[0]
