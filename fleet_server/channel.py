"""One SQLite connection on a thread of its own, for asyncio programs: it stays open, and work is done in the order in which it was handed in."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
Row = dict[str, Any]
RowFactory = Callable[[sqlite3.Cursor, tuple[Any, ...]], Any]


def as_dict(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> Row:
    return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}


class Channel:
    """Opens on first use, in its own thread."""

    def __init__(self, open_: Callable[[], sqlite3.Connection], name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._open = open_
        self._connection: sqlite3.Connection | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T], *, rows: RowFactory = sqlite3.Row) -> T:
        """Give `work` the connection; rows come as `sqlite3.Row`, which has positions and names."""
        return await asyncio.wrap_future(self._thread.submit(self._work, work, rows))

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work` as one IMMEDIATE transaction: committed when it returns, rolled back when it raises."""
        return await self.run(lambda connection: transact(connection, work))

    def close(self) -> None:
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    def _work(self, work: Callable[[sqlite3.Connection], T], rows: RowFactory) -> T:
        if self._connection is None:
            self._connection = self._open()
        self._connection.row_factory = rows
        return work(self._connection)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def transact(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """`work(connection)` inside BEGIN IMMEDIATE and COMMIT, for a connection in autocommit mode."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        abandon(connection)
        raise
    return result


def abandon(connection: sqlite3.Connection) -> None:
    """Roll back what may be open."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")
