"""HTTP connections that have to get on with it: a head or body that does not arrive in time ends its connection, and neither may be endless.

uvicorn leaves a client all the time in the world between the first byte of a request and its last; its faster parser also keeps a head of any length.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_MAX_BYTES = 32 * 1024
"""For uvicorn's `h11_max_incomplete_event_size`. The largest honest head is a list of row ids in an address: 2 KiB."""
REQUEST_WITHIN_S = 20.0
"""Chosen: forms are small, lines slow. A connection may wait in a request twice as long at most."""


class PunctualProtocol(H11Protocol):
    """For uvicorn's `http`. Answers may take as long as they like: event streams live for hours."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._seen: tuple[Any, ...] = ()
        self._look_again = self.loop.call_later(REQUEST_WITHIN_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_again.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Twice in the same place of the same request, and nothing to be answered: nobody is there."""
        is_waiting = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        place = (self.cycle, self.conn.their_state) if is_waiting else ()
        if place and place == self._seen:
            self.transport.abort()
            return
        self._seen = place
        self._look_again = self.loop.call_later(REQUEST_WITHIN_S, self._look)
