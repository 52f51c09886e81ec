"""Owns the time by which signed metadata are judged: never before what is surely past.

The floor is the latest of: the day this software was made; the time in the newest desired state that was accepted (signed by the server, ordered by
its counter); the time in the newest timestamp metadata accepted of each repository (ordered by its version). Only signed statements move it, never
the clock of the machine: a battery that died or a clock set to 2038 leaves nothing behind.

A newer statement replaces an older one even if it tells an earlier time. So a server whose clock was wrong, or a stolen timestamp key that was
replaced since, does not keep a terminal in the future for ever (TUF specification 5.3.11, recovery from a fast-forward attack).
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edge_agent import files
from edge_agent.clock import BUILD_FLOOR_MS
from edge_agent.updater.errors import NotTrusted
from edge_agent.updater.verified import open_plain
from protocols.contract.limits import TIME_LIMIT_MS
from protocols.contract.records import Millis

FILE: Final = "time-floor.json"
MAX_BYTES = 4096
LAST_MS = int(datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC).timestamp() * 1000)
"""What a datetime can hold; a clock beyond it reads as this."""


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    order: Annotated[int, Meta(ge=0, lt=2**63)]
    """Counter of the desired state, version of the timestamp."""
    ms: Millis


class _File(msgspec.Struct, frozen=True, kw_only=True):
    server: _Kept | None = None
    repositories: dict[str, _Kept] = {}


class TimeFloor:
    """The persisted floor. A file that is missing or spoiled counts as nothing known."""

    def __init__(self, path: Path, *, build_ms: int = BUILD_FLOOR_MS) -> None:
        self._path = path
        self._build_ms = build_ms
        self._file = _read(path)

    @property
    def ms(self) -> int:
        heard = [kept.ms for kept in self._file.repositories.values()]
        if self._file.server is not None:
            heard.append(self._file.server.ms)
        return max(self._build_ms, *heard, 0)

    def now_ms(self, system_ms: int) -> int:
        """The system's clock, but not before the floor."""
        return min(max(system_ms, self.ms), LAST_MS)

    def hear_server(self, counter: int, issued_ms: int) -> None:
        """A desired state with this counter was accepted. One that is not newer says nothing."""
        if not 0 <= issued_ms < TIME_LIMIT_MS or (self._file.server is not None and counter <= self._file.server.order):
            return
        self._write(msgspec.structs.replace(self._file, server=_Kept(order=counter, ms=issued_ms)))

    def hear_repository(self, name: str, version: int, issued_ms: int, expires_ms: int) -> None:
        """This version of the timestamp metadata of repository `name` is the accepted one. A time after its own end counts as its end."""
        if issued_ms < 0:
            return
        kept = _Kept(order=version, ms=min(issued_ms, expires_ms, TIME_LIMIT_MS - 1))
        if self._file.repositories.get(name) != kept:
            self._write(msgspec.structs.replace(self._file, repositories={**self._file.repositories, name: kept}))

    def _write(self, new: _File) -> None:
        files.write_atomically(self._path, msgspec.json.encode(new))
        self._file = new


def as_datetime(ms: int) -> datetime.datetime:
    return datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(milliseconds=min(max(ms, 0), LAST_MS))


def as_ms(moment: datetime.datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)
    return (aware - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(milliseconds=1)


def _read(path: Path) -> _File:
    try:
        with open_plain(path) as file:
            return msgspec.json.decode(file.read(MAX_BYTES), type=_File)
    except (OSError, NotTrusted, msgspec.MsgspecError, UnicodeDecodeError):
        return _File()
