"""Owns how a configured command is started: no shell, no input, no output kept, a limit in time, and its whole process group ended at the limit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from typing import Literal

log = logging.getLogger(__name__)

Outcome = Literal["ok", "failed", "timeout"]


async def run(command: Sequence[str], *, within_s: float) -> Outcome:
    """Start `command` and wait for its end. What it prints is dropped: it may print anything."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as err:
        log.warning("a hook cannot be started", extra={"reason": os.strerror(err.errno or 0)})
        return "failed"
    try:
        async with asyncio.timeout(within_s):
            code = await process.wait()
    except TimeoutError:
        log.warning("a hook took too long and was ended")
        _end(process.pid)
        await process.wait()
        return "timeout"
    if code != 0:
        log.warning("a hook failed", extra={"code": code})
    return "ok" if code == 0 else "failed"


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
