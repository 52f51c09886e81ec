"""What every process of the server does at its start."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys

from fleet_server.settings import Settings

PR_SET_PDEATHSIG = 1


def start_logging(settings: Settings) -> None:
    """Lines to stderr; the supervisor, systemd or a container keeps them."""
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    # Ours say what matters of these.
    for name in ("aiosqlite", "amqtt", "transitions", "uvicorn.error"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def end_with_parent(signal_number: int = signal.SIGTERM) -> None:
    """From now on the kernel ends this process when its parent dies, however that happens: no broker or writer is left behind alone."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal_number)
