"""The public listener: uvicorn, with bounds on what strangers may hold on to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvicorn

from fleet_server import punctual
from fleet_server.public.app import Receive, Scope, Send
from fleet_server.punctual import PunctualProtocol
from fleet_server.settings import Public

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HEAD_MAX_BYTES: Final = 8 * 1024
"""The longest honest head: an address of 600 bytes and a browser's usual headers."""
KEEP_ALIVE_S: Final = 15
BACKLOG: Final = 1024


class PublicProtocol(PunctualProtocol):
    """Whoever is slow to take an answer is no better than whoever is slow to ask: both end after twice REQUEST_WITHIN_S at most."""

    def _look(self) -> None:
        place: tuple[Any, ...] = (self.cycle, self.conn.their_state, self.conn.our_state)
        if place == self._seen:
            self.transport.abort()
            return
        self._seen = place
        self._look_again = self.loop.call_later(punctual.REQUEST_WITHIN_S, self._look)


def server(application: Application, settings: Public) -> uvicorn.Server:
    config = uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        http=PublicProtocol,
        h11_max_incomplete_event_size=HEAD_MAX_BYTES,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=3,
        backlog=BACKLOG,
    )
    return uvicorn.Server(config)
