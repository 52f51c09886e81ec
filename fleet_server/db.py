"""The server's database file: how it is opened, and how it gets its schema.

Ingest writes through `open_raw`; pages read and write through the engine of `fleet_server.engine`, which this module reaches only when it is asked
to, because ingest does without Piccolo.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fleet_server.errors import FleetServerError

BUSY_TIMEOUT_MS = 5_000
"""How long a connection waits for another process's write; ingest's transactions take at most 50 ms."""
CACHE_KIB = 16 * 1024
MMAP_BYTES = 256 * 1024 * 1024
MIGRATION_TIMEOUT_S = 3600.0
"""A migration may rewrite a table with years of records."""

_FORWARDS = (
    "import asyncio, sys; from piccolo.apps.migrations.commands.forwards import run_forwards; "
    "sys.exit(not asyncio.run(run_forwards('all')).success)"
)

_PACKAGE = Path(__file__).resolve().parent
T = TypeVar("T")


class MigrationFailed(FleetServerError):
    """The schema could not be brought to this version; the database is as it was before."""


def open_raw(path: Path, *, detect_types: int = 0, check_same_thread: bool = True) -> sqlite3.Connection:
    """A writing connection in autocommit mode: begin transactions with `BEGIN IMMEDIATE`. A commit has reached the disk when it returns."""
    connection = sqlite3.connect(path, isolation_level=None, detect_types=detect_types, check_same_thread=check_same_thread)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    _tune(connection)
    return connection


def open_reader(path: Path, *, detect_types: int = 0, check_same_thread: bool = True) -> sqlite3.Connection:
    """A connection that cannot write."""
    connection = sqlite3.connect(path, isolation_level=None, detect_types=detect_types, check_same_thread=check_same_thread)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    # Not `mode=ro`: the first reader of a WAL database has to be able to make its shared-memory file.
    connection.execute("PRAGMA query_only = ON")
    _tune(connection)
    return connection


def _tune(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA mmap_size = {MMAP_BYTES}")


# The schema -----------------------------------------------------------------------------------------------------------------------------


def schema_ids() -> frozenset[tuple[str, str]]:
    """(app, migration id) of every migration this version has, read from the files without importing them."""
    return frozenset((file.parent.parent.name, _migration_id(file)) for file in _migration_files())


def is_current(path: Path) -> bool:
    """Whether every migration of this version has run on `path`. False for a missing or empty file."""
    return path.exists() and schema_ids() <= _applied(path)


def migrate(path: Path) -> None:
    """Bring the database at `path` to this version's schema, making it if it is missing; quick when there is nothing to do.

    A new database is built aside and moved into place; an old one is copied first, and the copy is taken back if the step failed or was cut off.
    Nothing else may have the database open. Raises MigrationFailed; also if the database was written by a newer version.
    """
    with _only_one(path):
        aside = path.with_name(path.name + ".before-migration")
        if aside.exists():
            _put_in_place(aside, path)
        if is_current(path):
            _refuse_newer(path)
            return
        if path.exists() and _applied(path):
            _refuse_newer(path)
            _copy(path, aside)
            try:
                _run_forwards(path)
            except MigrationFailed:
                _put_in_place(aside, path)
                raise
            aside.unlink()
        else:
            _copy(_template(), path)


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _template() -> Path:
    """A database of this schema with nothing in it, made once per schema and user: new databases are copies of it."""
    digest = hashlib.sha256()
    for file in _migration_files():
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"kiosk-fleet-schema-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise MigrationFailed(f"{folder} belongs to somebody else or is open to others")
    template = folder / f"{digest.hexdigest()[:24]}.sqlite"
    with _only_one(template):
        if not template.exists():
            building = template.with_suffix(".building")
            _remove(building)
            _run_forwards(building)
            with closing(open_raw(building)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            building.replace(template)
    return template


def _run_forwards(path: Path) -> None:
    """Piccolo imports migrations by their bare names through sys.path, so they run in a process of their own."""
    environment = {
        **os.environ,
        "PICCOLO_CONF": "fleet_server.piccolo_conf",
        "KF_DATABASE": str(path),
        "PYTHONIOENCODING": "utf-8",
    }
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_PACKAGE.parent), os.environ.get("PYTHONPATH"))))
    with closing(open_raw(path)):
        path.chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-c", _FORWARDS],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=MIGRATION_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0 or not is_current(path):
        raise MigrationFailed(f"migrating {path} ended with status {done.returncode}:\n{done.stdout[-4000:]}")


def _migration_files() -> list[Path]:
    return sorted(file for file in _PACKAGE.glob("*/piccolo_migrations/*.py") if file.name != "__init__.py")


def _migration_id(file: Path) -> str:
    for line in file.read_text("utf-8").splitlines():
        if line.startswith("ID = "):
            return line.removeprefix("ID = ").strip().strip("\"'")
    raise MigrationFailed(f"{file} names no ID")


def _applied(path: Path) -> frozenset[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'migration'").fetchone() is None:
            return frozenset()
        return frozenset(connection.execute("SELECT app_name, name FROM migration").fetchall())


def _refuse_newer(path: Path) -> None:
    if newer := _applied(path) - schema_ids():
        app, migration = min(newer)
        raise MigrationFailed(
            f"{path} was written by a newer version: it has migration {migration} of {app}, which is unknown here"
        )


def _copy(source: Path, target: Path) -> None:
    """A consistent copy through SQLite's online backup, complete before it gets its name."""
    building = target.with_name(target.name + ".copying")
    _remove(building)
    building.touch(mode=0o600)
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(building)) as new:
        old.backup(new)
    _put_in_place(building, target)


def _put_in_place(source: Path, target: Path) -> None:
    # A write-ahead log left beside the old file would be replayed into the new one.
    for suffix in ("-wal", "-shm"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    descriptor = os.open(source, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


# For pages ------------------------------------------------------------------------------------------------------------------------------


def use(path: Path) -> None:
    """Make `path` the database of this process's Piccolo tables, `read` and `write`."""
    from fleet_server.piccolo_conf import DB

    os.environ.setdefault("PICCOLO_CONF", "fleet_server.piccolo_conf")
    DB.use(path)


def close() -> None:
    from fleet_server.piccolo_conf import DB

    DB.close()


async def read(sql: str, params: Sequence[Any] | dict[str, Any] = ()) -> list[dict[str, Any]]:
    """Rows of a SELECT as dictionaries, from a connection that stays open and cannot write."""
    from fleet_server.piccolo_conf import DB

    return await DB.read(sql, params)


async def look(work: Callable[[sqlite3.Connection], T]) -> T:
    """Run `work(connection)` on a connection that cannot write; all its statements see the same moment."""
    from fleet_server.piccolo_conf import DB

    return await DB.look(work)


async def write(work: Callable[[sqlite3.Connection], T]) -> T:
    """Run `work(connection)` as one IMMEDIATE transaction in the writing thread: committed when it returns, rolled back when it raises."""
    from fleet_server.piccolo_conf import DB

    return await DB.write(work)
