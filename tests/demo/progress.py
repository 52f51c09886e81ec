"""What the fleet process tells the command that started it, in one small file; and the file from which the console draws its bar."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """`days` of `days_total` terminal-days of the past are in; `records` of it in this run."""

    at_ms: int
    terminals: int
    connected: int
    waiting: int
    """Batches that the server has not acknowledged."""
    days: int
    days_total: int
    records: int
    past_s: float
    past_done: bool
    cases: int
    keys: int
    ratings: int
    faults: int
    cuts: int
    loop_lag_ms: int
    """Longest time lately that this process's event loop was late."""


def read(path: Path) -> Status | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except (OSError, msgspec.DecodeError):
        return None


def write(path: Path, status: Status) -> None:
    _whole(path, msgspec.json.encode(status))


def tell_console(run_dir: Path, done: int, total: int) -> None:
    """The console shows a bar while `done` is less than `total` (`fleet_server.live.hub`)."""
    if run_dir.is_dir():
        _whole(run_dir / "history.json", msgspec.json.encode({"done": done, "total": total}))


def _whole(path: Path, content: bytes) -> None:
    """Readers look at any moment, so it changes at once."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(content)
    temporary.replace(path)
