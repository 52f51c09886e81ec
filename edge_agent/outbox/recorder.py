"""What the rest of the agent writes facts to: captures at once, seals in time, tells the uplink."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from edge_agent.outbox.errors import OutboxFull
from edge_agent.outbox.store import Outbox
from protocols.contract.limits import SEAL_AFTER_S
from protocols.contract.records import Body

log = logging.getLogger(__name__)


class Recorder:
    """Lives on the agent's loop. `on_sealed` is called after new batches lie in the outbox."""

    def __init__(self, outbox: Outbox, on_sealed: Callable[[], None], *, seal_after_s: float = SEAL_AFTER_S) -> None:
        self._outbox, self._on_sealed, self._seal_after_s = outbox, on_sealed, seal_after_s
        self._timer: asyncio.TimerHandle | None = None

    def capture(
        self, body: Body, *, urgent: bool = False, memory: Mapping[str, bytes] | None = None, wall_ms: int | None = None
    ) -> None:
        """Durable when it returns, with `memory` put in the same transaction; sealed at once if `urgent`, else within five seconds.
        `wall_ms`: when it happened, for facts that another process saw.

        Raises CaptureRefused or OutboxFull.
        """
        self._outbox.capture_many((body,), urgent=urgent, memory=memory, wall_ms=wall_ms)
        if urgent or self._outbox.seal_due_s() == 0.0:
            self.seal()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seal_after_s, self.seal)

    def seal(self) -> None:
        """Seal what is pending and account for records that a full disk refused."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self._outbox.note_refusals()
            if self._outbox.seal():
                self._on_sealed()
        except OutboxFull:
            log.warning("no space to seal; trying again", extra={"terminal": self._outbox.terminal})
            self._timer = asyncio.get_running_loop().call_later(self._seal_after_s, self.seal)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
