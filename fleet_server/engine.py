"""Piccolo on SQLite with connections that stay open.

Piccolo's own engine opens a connection for every query, leaves SQLite's pragmas at their defaults and begins transactions deferred, which fails with
"database is locked" as soon as two of them read and then write. Here each connection lives on a thread of its own: several that only read, and one
that writes, in transactions that begin IMMEDIATE and follow one another.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import re
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from piccolo.engine.sqlite import SQLiteEngine, SQLiteTransaction, TransactionType

from fleet_server.channel import Channel, Row, abandon, as_dict
from fleet_server.db import open_raw, open_reader

READERS = 3
"""Chosen: enough that one slow report does not hold up pages; a fourth core would want one more."""
_READS = re.compile(r"\s*(?:SELECT|WITH|EXPLAIN|PRAGMA\s+(?:table_info|index_list|foreign_key_list))\b", re.IGNORECASE)
_WRITES_INSIDE = re.compile(r"\b(?:INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
_TYPES = sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES

T = TypeVar("T")


class DatabaseClosed(RuntimeError):
    """A query before `use` or after `close`."""


class _Writer:
    """The writing connection for the time of one transaction, in the shape Piccolo's transaction class expects of a connection."""

    def __init__(self, channel: Channel, turn: asyncio.Lock) -> None:
        self._channel = channel
        self._turn = turn

    async def execute(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        return await self._channel.run(lambda connection: connection.execute(sql, args).fetchall(), rows=as_dict)

    async def close(self) -> None:
        """Hand the connection to the next transaction; roll back what a failed one left open."""
        try:
            await self._channel.run(abandon)
        finally:
            self._turn.release()


class FleetEngine(SQLiteEngine):
    """One database file for the whole process; `use` names it."""

    def __init__(self) -> None:
        super().__init__(path="")
        self.current_transaction = contextvars.ContextVar("fleet_transaction", default=None)
        self._readers: list[Channel] = []
        self._thinker: Channel | None = None
        self._next_reader = itertools.cycle(range(READERS))
        self._writer: Channel | None = None
        self._turns: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}

    def use(self, path: Path) -> None:
        """Take `path` as the database; connections open on first use."""
        self.close()
        self.connection_kwargs["database"] = str(path)
        self._writer = Channel(lambda: open_raw(path, detect_types=_TYPES), "db-write")
        self._readers = [Channel(lambda: open_reader(path, detect_types=_TYPES), f"db-read-{n}") for n in range(READERS)]
        self._thinker = Channel(lambda: open_reader(path, detect_types=_TYPES), "db-think")

    def close(self) -> None:
        """Close all connections and end their threads."""
        for channel in (*self._readers, *filter(None, (self._thinker, self._writer))):
            channel.close()
        self._readers, self._thinker, self._writer = [], None, None
        self._turns.clear()

    async def read(self, sql: str, params: Sequence[Any] | dict[str, Any] = ()) -> list[Row]:
        """Rows of a SELECT as dictionaries, on a connection that cannot write; sees everything committed before the call."""
        if not self._readers:
            raise DatabaseClosed("no database is in use")
        reader = self._readers[next(self._next_reader)]
        return await reader.run(lambda connection: connection.execute(sql, params).fetchall(), rows=as_dict)

    async def look(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work(connection)` on a connection that cannot write; all its statements see the same moment. For figures of many statements."""
        if not self._readers:
            raise DatabaseClosed("no database is in use")
        return await self._readers[next(self._next_reader)].run(lambda connection: _at_one_moment(connection, work))

    async def ponder(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Like `look`, for work of seconds: on a connection of its own, one piece after the other, so that no page waits behind it."""
        if self._thinker is None:
            raise DatabaseClosed("no database is in use")
        return await self._thinker.run(lambda connection: _at_one_moment(connection, work))

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work(connection)` in one IMMEDIATE transaction of its own: committed when it returns, rolled back when it raises."""
        writer = await self._take_turn()
        try:
            return await self._writing().transact(work)
        finally:
            await writer.close()

    # What Piccolo calls ---------------------------------------------------------------------------------------------------------------

    async def get_connection(self) -> Any:
        return await self._take_turn()

    def transaction(
        self, transaction_type: TransactionType = TransactionType.immediate, allow_nested: bool = True
    ) -> SQLiteTransaction:
        """Always IMMEDIATE, whatever is asked for: a deferred one fails when it turns from reading to writing."""
        del transaction_type
        return SQLiteTransaction(engine=self, transaction_type=TransactionType.immediate, allow_nested=allow_nested)

    async def _run_in_new_connection(
        self, query: str, args: list[Any] | None = None, query_type: str = "generic", table: Any = None
    ) -> list[Row]:
        del query_type, table
        if _READS.match(query) and not _WRITES_INSIDE.search(query):
            return await self.read(query, args or ())
        return await self.write(lambda connection: [dict(row) for row in connection.execute(query, args or ()).fetchall()])

    async def _run_in_existing_connection(
        self, connection: Any, query: str, args: list[Any] | None = None, query_type: str = "generic", table: Any = None
    ) -> list[Row]:
        del query_type, table
        rows: list[Row] = await connection.execute(query, args or ())
        return rows

    def _writing(self) -> Channel:
        if self._writer is None:
            raise DatabaseClosed("no database is in use")
        return self._writer

    async def _take_turn(self) -> _Writer:
        """Wait for the writing connection. The lock belongs to a loop; a process with two loops meets at SQLite's own lock instead."""
        channel = self._writing()
        turn = self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        await turn.acquire()
        return _Writer(channel, turn)


def _at_one_moment(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN")
    try:
        return work(connection)
    finally:
        abandon(connection)
