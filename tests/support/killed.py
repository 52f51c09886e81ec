"""Work in a process of its own that kills itself before its n-th call that changes the disk, so that every such moment can be enumerated."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

CALLS = ("open", "fsync", "rename", "replace", "unlink", "mkdir", "chmod")


def in_child(work: Callable[[], object], die_at: int | None) -> int:
    """Run `work` in a forked process that kills itself before its `die_at`-th call that changes the disk; returns how many calls it made, or -1."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return call

        status = 1
        try:
            for name in CALLS:
                setattr(os, name, counted(getattr(os, name)))
            work()
            os.write(write, str(count).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as reading:
        said = reading.read()
    _, how = os.waitpid(child, 0)
    if os.WIFSIGNALED(how):
        assert os.WTERMSIG(how) == signal.SIGKILL
        return -1
    assert os.WEXITSTATUS(how) == 0, "the work itself failed"
    return int(said)
