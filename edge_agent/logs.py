"""Owns how log lines look, and the log that the agent keeps: on stderr for the journal, and scrubbed on disk for operators who ask for an excerpt.

Many agents may run in one process, so each keeps its book in its own context: a line goes into the book of whoever logged it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from contextvars import ContextVar, Token
from pathlib import Path

import msgspec

from edge_agent.clock import Clock

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {"message", "asctime", "taskName"}

FILES = 8
"""The book is this many files; when the newest is full the oldest goes."""
LINE_MAX_CHARS = 1000
LINES_PER_MINUTE = 600
"""A part that fails in a circle must not wear the disk out, nor push everything else out of the book."""
_NAME = re.compile(r"agent-([0-9]{10})\.ndjson")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_LONG_NUMBER = re.compile(r"[0-9](?:[ -]?[0-9]){6,}[Xx]?")
_LONG_HEX = re.compile(r"\b(?=[0-9A-Fa-f]*[0-9])[0-9A-Fa-f]{8,}\b")


class FieldFormatter(logging.Formatter):
    """`WARNING edge_agent.monitor: a port is refused slot=scanner`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in record.__dict__.items() if key not in _STANDARD)
        line = super().format(record)
        return f"{line} {fields}" if fields else line


def to_stderr(level: str) -> None:
    """Everything of `level` and above goes to stderr. MQTT libraries speak only when something is wrong: they would log whole messages."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("mqtt").setLevel(logging.WARNING)


# ------------------------------------------------------------------------------------------------------------------------ the book


def scrubbed(text: str) -> str:
    """`text` without what could be a person's: long numbers, long hexadecimal words, and everything that is not plain ASCII (names)."""
    text = _UNPRINTABLE.sub("?", text[: 2 * LINE_MAX_CHARS])
    return _LONG_HEX.sub("#", _LONG_NUMBER.sub("#", text))[:LINE_MAX_CHARS]


class LogBook:
    """One agent's log as NDJSON files in `directory`, together at most `max_bytes`. A disk that does not take a line loses that line only."""

    def __init__(self, directory: Path, clock: Clock, *, max_bytes: int) -> None:
        self.directory = directory
        self._clock = clock
        self._file_bytes = max(4096, max_bytes // FILES)
        self._number: int | None = None
        self._room = 0
        self._tokens, self._counted_ms, self._dropped = float(LINES_PER_MINUTE), clock.boot_ms(), 0

    def write(self, record: logging.LogRecord) -> None:
        """One line: wall time, boot time, level, logger, message, fields. The text of an exception stays out; it may quote what was received."""
        now_ms = self._clock.boot_ms()
        self._tokens = min(LINES_PER_MINUTE, self._tokens + (now_ms - self._counted_ms) * LINES_PER_MINUTE / 60_000)
        self._counted_ms = now_ms
        if self._tokens < 1:
            self._dropped += 1
            return
        self._tokens -= 1
        fields = {
            scrubbed(key): value if isinstance(value, bool) else scrubbed(str(value))
            for key, value in record.__dict__.items()
            if key not in _STANDARD
        }
        if record.exc_info and record.exc_info[0] is not None:
            fields["error"] = record.exc_info[0].__name__
        if self._dropped:
            fields["dropped"] = str(self._dropped)
            self._dropped = 0
        line = {
            "t": self._clock.wall_ms(),
            "b": now_ms,
            "l": record.levelname.lower(),
            "n": record.name,
            "m": scrubbed(record.getMessage()),
        } | ({"f": fields} if fields else {})
        with contextlib.suppress(OSError):
            self._append(msgspec.json.encode(line) + b"\n")

    def files(self) -> list[Path]:
        """Oldest first."""
        try:
            return sorted(path for path in self.directory.iterdir() if _NAME.fullmatch(path.name))
        except OSError:
            return []

    def _append(self, line: bytes) -> None:
        if self._number is None or len(line) > self._room:
            self._turn_page(len(line))
        with (self.directory / f"agent-{self._number:010d}.ndjson").open("ab") as file:
            file.write(line)
        self._room -= len(line)

    def _turn_page(self, needed_bytes: int) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = self.files()
        newest = known[-1] if known else None
        self._number = int(newest.name[6:16]) if newest is not None else 1
        self._room = self._file_bytes - (newest.stat().st_size if newest is not None else 0)
        if needed_bytes > self._room and newest is not None:
            self._number, self._room = self._number + 1, self._file_bytes
            for old in known[: max(0, len(known) - FILES + 1)]:
                old.unlink(missing_ok=True)


_book: ContextVar[LogBook | None] = ContextVar("log_book", default=None)


class _ToBook(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        book = _book.get()
        if book is not None:
            book.write(record)


_TO_BOOK = _ToBook(logging.INFO)
"""One handler for all agents of the process: it asks the context whose line it is."""


@contextlib.contextmanager
def kept_in(book: LogBook | None) -> Iterator[None]:
    """What is logged in here, and in tasks that start in here, goes into `book`."""
    if book is None:
        yield
        return
    logger = logging.getLogger("edge_agent")
    if _TO_BOOK not in logger.handlers:
        logger.addHandler(_TO_BOOK)
    token: Token[LogBook | None] = _book.set(book)
    try:
        yield
    finally:
        _book.reset(token)
