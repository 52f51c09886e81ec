"""What every process of the server does at its start."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys

from fleet_server.settings import Settings

NOISY = ("aiosmtplib", "aiosqlite", "amqtt", "httpcore", "httpx", "piccolo", "transitions", "uvicorn.error")
"""Libraries whose warnings matter and whose news does not. httpx would log addresses, and with them tokens."""
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


def start_logging(settings: Settings) -> None:
    """Lines to stderr; systemd, a container or the demo keeps them."""
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for name in NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def ask_for_death_signal() -> None:
    """Have the kernel end this process when its parent dies, however that happens. May run between fork and exec."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_with_parent() -> None:
    """`ask_for_death_signal`, and end at once if the parent died before the kernel was told: no writer is left behind alone."""
    parent = os.getppid()
    ask_for_death_signal()
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
