"""Owns how another program runs beside the agent: in a process group of its own, and never longer than somebody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping


@contextlib.asynccontextmanager
async def child(
    *command: str, output: int = asyncio.subprocess.DEVNULL, env: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `command` without a shell and without input; over when the block is left, and by force, with all it started, if an error or the end of
    the agent leaves it. What it started itself goes on after an end of its own. `output`: where both of its outputs go. Raises OSError if it
    cannot be started."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
        env=env,
        start_new_session=True,
    )
    try:
        yield process
    except BaseException:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        await process.communicate()  # to the end of its output too: only then is nothing of it left in the event loop
