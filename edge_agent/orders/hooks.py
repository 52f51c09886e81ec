"""Owns how a configured command is started: no shell, no input, no output kept, a limit in time, and its whole process group ended at the limit."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Literal

from edge_agent.children import child

log = logging.getLogger(__name__)

Outcome = Literal["ok", "failed", "timeout"]


async def run(command: Sequence[str], *, within_s: float) -> Outcome:
    """Start `command` and wait for its end. What it prints is dropped: it may print anything. Cancelling ends it as the limit does."""
    try:
        async with asyncio.timeout(within_s), child(*command) as process:
            code = await process.wait()
    except TimeoutError:
        log.warning("a hook took too long and was ended")
        return "timeout"
    except OSError as err:
        log.warning("a hook cannot be started", extra={"reason": os.strerror(err.errno or 0)})
        return "failed"
    if code != 0:
        log.warning("a hook failed", extra={"code": code})
    return "ok" if code == 0 else "failed"
