"""What every process of the server does at its start."""

from __future__ import annotations

import logging
import sys

from fleet_server.settings import Settings

NOISY = ("aiosqlite", "amqtt", "transitions", "uvicorn.error")
"""Libraries whose warnings matter and whose news does not."""


def start_logging(settings: Settings) -> None:
    """Lines to stderr; systemd, a container or the demo keeps them."""
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for name in NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
