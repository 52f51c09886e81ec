"""Owns the time by which signed metadata are judged: never before what is surely past.

The floor is the latest of: the day this software was made; the time in the newest desired state that was accepted (signed by the server, ordered
by its counter); and, for one repository, the time in the newest timestamp metadata accepted of it. Only signed statements move it, never the clock
of the machine: a battery that died or a clock set to 2038 leaves nothing behind.

A newer statement replaces an older one even if it tells an earlier time, and what a repository's timestamp said counts only as long as root names the
same keys for it. So neither a server whose clock was wrong nor a stolen timestamp key that was replaced since keeps a terminal in the future for ever
(TUF specification 5.3.11, recovery from a fast-forward attack). That is also why one repository's word does not count for the other.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

import msgspec

from edge_agent import files
from edge_agent.clock import BUILD_FLOOR_MS
from edge_agent.updater.errors import NotTrusted
from edge_agent.updater.verified import open_plain
from protocols.contract.limits import TIME_LIMIT_MS
from protocols.contract.records import Count, Millis

FILE: Final = "time-floor.json"
MAX_BYTES = 4096
LAST_MS = int(datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC).timestamp() * 1000)
"""What a datetime can hold; a clock beyond it reads as this."""


class _Server(msgspec.Struct, frozen=True, kw_only=True):
    counter: Count
    """Of the desired state."""
    ms: Millis


class _Repository(msgspec.Struct, frozen=True, kw_only=True):
    keys: str
    """Which keys root named for timestamps then."""
    version: Count
    ms: Millis


class _File(msgspec.Struct, frozen=True, kw_only=True):
    server: _Server | None = None
    repositories: dict[str, _Repository] = {}


class TimeFloor:
    """The persisted floor. A file that is missing or spoiled counts as nothing known."""

    def __init__(self, path: Path, *, build_ms: int = BUILD_FLOOR_MS) -> None:
        self._path = path
        self._build_ms = build_ms
        self._file = _read(path)

    @property
    def ms(self) -> int:
        """What is surely past, whichever repository is asked."""
        return max(self._build_ms, 0 if self._file.server is None else self._file.server.ms)

    def now_ms(self, system_ms: int) -> int:
        """The system's clock, but not before the floor."""
        return min(max(system_ms, self.ms), LAST_MS)

    def now_for_ms(self, repository: str, keys: str, system_ms: int) -> int:
        """As `now_ms`, and not before what this repository's newest timestamp said, if root still names these keys for it."""
        heard = self._file.repositories.get(repository)
        return self.now_ms(max(system_ms, heard.ms) if heard is not None and heard.keys == keys else system_ms)

    def hear_server(self, counter: int, issued_ms: int) -> None:
        """A desired state with this counter was accepted. One that is not newer says nothing."""
        if not 0 <= issued_ms < TIME_LIMIT_MS or (self._file.server is not None and counter <= self._file.server.counter):
            return
        self._write(msgspec.structs.replace(self._file, server=_Server(counter=counter, ms=issued_ms)))

    def hear_repository(self, name: str, keys: str, *, version: int, issued_ms: int, expires_ms: int) -> None:
        """This version of a repository's timestamp is the accepted one. A time after its own end counts as its end."""
        if issued_ms < 0:
            return
        heard = _Repository(keys=keys, version=min(version, TIME_LIMIT_MS - 1), ms=min(issued_ms, expires_ms, TIME_LIMIT_MS - 1))
        if self._file.repositories.get(name) != heard:
            self._write(msgspec.structs.replace(self._file, repositories={**self._file.repositories, name: heard}))

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
