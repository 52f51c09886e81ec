"""The agent is killed before or after each write of an order's life: at the next start the order has ended or goes on, and nothing was done twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import pytest

from edge_agent.orders.runner import Tested
from protocols.contract import records
from protocols.contract.orders import Cancel, OrderBody, PullLogs, Restart, SelfTest
from tests.edge_agent.orders.office import Desk, Office
from tests.support.contract import NOW_MS

BODIES: dict[str, OrderBody] = {
    "query": SelfTest(slot="receipt-printer"),
    "print": SelfTest(slot="receipt-printer", test="print"),
    "application": Restart(what="application"),
    "agent": Restart(what="agent"),
    "host": Restart(what="host"),
    "logs": PullLogs(from_ms=0, to_ms=NOW_MS),
    "cancel": Cancel(order=bytes(16)),
}
WRITES = 3
"""received, running, and the end."""
Side = Literal["before", "after"]


class Killed(Desk):
    """What is done leaves a line in a file, which a kill does not take back."""

    def __init__(self, folder: Path, kill_at: tuple[int, Side] | None, boot_id: bytes) -> None:
        self._kill_at, self._writes = kill_at, 0
        super().__init__(folder, boot_id=boot_id, durable=True)

    def start(self) -> None:
        super().start()
        capture = self.ledger.capture

        def counted(
            body: records.Body,
            *,
            urgent: bool = False,
            memory: Mapping[str, bytes] | None = None,
            wall_ms: int | None = None,
        ) -> None:
            self._writes += 1
            if self._kill_at == (self._writes, "before"):
                os.kill(os.getpid(), signal.SIGKILL)
            capture(body, urgent=urgent, memory=memory, wall_ms=wall_ms)
            if self._kill_at == (self._writes, "after"):
                os.kill(os.getpid(), signal.SIGKILL)

        self.ledger.capture = counted  # type: ignore[method-assign]

    def note(self, what: str) -> None:
        with (self.folder / "done.txt").open("a") as file:
            file.write(what + "\n")

    async def _test(self, slot: str, test: str) -> Tested:
        self.note("test")
        return await super()._test(slot, test)

    def _hook(self, name: str) -> Callable[[], object]:
        async def run() -> Literal["ok"]:
            self.note(name)
            return "ok"

        return run

    async def _upload(self, order: bytes, from_ms: int, to_ms: int) -> Literal["done", "again", "refused"]:
        self.note("upload")
        return await super()._upload(order, from_ms, to_ms)

    def _restart_agent(self) -> None:
        self.note("agent")
        super()._restart_agent()


def life(folder: Path, raw: bytes, kill_at: tuple[int, Side] | None, boot_id: bytes) -> int:
    """One run of an agent in a process of its own: the server's order comes (again), and is worked on. The wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    code = 1
    try:
        desk = Killed(folder, kill_at, boot_id)
        desk.greet()
        desk.inbox.order(raw)
        asyncio.run(desk.work())
        desk.stop()
        code = 0
    finally:
        os._exit(code)


def told(folder: Path) -> list[tuple[str, str]]:
    desk = Desk(folder, durable=True)
    try:
        return [(entry.state, entry.reason) for entry in desk.keeper.book.entries]
    finally:
        desk.stop()


@pytest.mark.spec("O-203", "O-208", "O-209")
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("write", range(1, WRITES + 1))
@pytest.mark.parametrize("name", BODIES)
def test_killed_at_each_write(tmp_path: Path, name: str, write: int, side: Side) -> None:
    raw = Office().order(BODIES[name], approved_by="wu")
    boot_id, next_boot_id = bytes(15) + b"\1", bytes(15) + b"\2"
    # The restart of the agent does not tell its end in the run that begins it.
    survives = write == WRITES and name == "agent"
    killed = os.WIFSIGNALED(life(tmp_path, raw, (write, side), boot_id))
    assert killed != survives
    for _ in range(2):
        assert life(tmp_path, raw, None, next_boot_id if name == "host" else boot_id) == 0
    (end,) = told(tmp_path)
    done = (tmp_path / "done.txt").read_text().split() if (tmp_path / "done.txt").exists() else []
    assert len(done) <= 1, "never twice"
    if (write, side) in {(2, "after"), (3, "before")}:  # it was running
        assert end == (("done", "none") if name in {"agent", "host"} else ("failed", "interrupted"))
    else:  # it had not begun, or had ended
        assert end == (("failed", "timeout") if name == "host" else ("done", "none")), "the host did not go down in that run"
        assert len(done) == (name != "cancel")
