"""What the commands of `fleet-server` share: the way to a server's database, which must be there and of this version."""

from __future__ import annotations

import argparse
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from fleet_server.errors import SettingsError
from fleet_server.settings import Settings

T = TypeVar("T")
AddCommand = Callable[[str, str, Callable[[Settings, argparse.Namespace], int | None]], argparse.ArgumentParser]


def in_database(settings: Settings, work: Callable[[sqlite3.Connection], T]) -> T:
    """`work` as one transaction."""
    from fleet_server import db
    from fleet_server.channel import transact

    with closing(db.open_raw(_database(settings))) as connection:
        return transact(connection, work)


@contextmanager
def reading(settings: Settings) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write and sees one moment, while the server goes on."""
    from fleet_server import db

    with closing(db.open_reader(_database(settings))) as connection:
        connection.execute("BEGIN")
        yield connection


def _database(settings: Settings) -> Path:
    from fleet_server import db

    path = settings.layout.database
    if not path.exists():
        raise SettingsError(f"there is no server in {settings.data_dir}; `fleet-server init` makes one")
    if not db.is_current(path):
        raise SettingsError(f"{path} is of an older version; stop the server and run `fleet-server migrate`")
    return path
