from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fleet_server import db
from fleet_server.channel import transact


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.sqlite"
    db.migrate(path)
    return path


def columns(path: Path) -> dict[str, set[str]]:
    with closing(db.open_raw(path)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: {row[1] for row in connection.execute(f"PRAGMA table_info({table})")} for table in tables}


def test_a_new_database_has_every_table_of_every_app_with_its_columns(database: Path) -> None:
    from fleet_server.piccolo_conf import APP_REGISTRY

    found = columns(database)
    for app in APP_REGISTRY.app_configs.values():
        for table in app.table_classes:
            expected = {column._meta.db_column_name for column in table._meta.columns}
            assert found[table._meta.tablename] == expected, table


def test_piccolo_sees_no_difference_between_tables_and_migrations(tmp_path: Path) -> None:
    """A changed table without a migration would work in no existing database."""
    import subprocess
    import sys

    package = tmp_path / "fleet_server"
    shutil.copytree(Path(db.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "static"))
    root = Path(db.__file__).parent.parent
    (tmp_path / "protocols").symlink_to(root / "protocols")
    before = sorted(package.glob("*/piccolo_migrations/*.py"))
    apps = [folder.parent.name for folder in package.glob("*/piccolo_app.py")]
    script = "import sys; from piccolo.main import main; sys.argv[1:] = ['migrations', 'new', sys.argv[1], '--auto']; main()"
    for app in apps:
        done = subprocess.run(
            [sys.executable, "-c", script, app],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "PICCOLO_CONF": "fleet_server.piccolo_conf"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(package.glob("*/piccolo_migrations/*.py")) == before


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("INSERT INTO batch (terminal, stream, no) VALUES ('a', ?, 1)", (b"s" * 16,)),
        ("INSERT INTO session (terminal, sid) VALUES ('a', ?)", (b"s" * 16,)),
        ("INSERT INTO device (terminal, slot) VALUES ('a', ?)", ("receipt-printer",)),
        ("INSERT INTO aside (stream, no, digest) VALUES (?, 1, x'00')", (b"s" * 16,)),
        ("INSERT INTO presence (terminal, from_ms) VALUES (?, 5)", ("a",)),
        ("INSERT INTO rating (batch, idx, terminal) VALUES (1, 0, ?)", ("a",)),
        ("INSERT INTO clock_fix (terminal, boot_id, boot_ms) VALUES (?, x'00', 5)", ("a",)),
        ("INSERT INTO dirty_day (terminal, day) VALUES (?, '2026-01-01')", ("a",)),
    ],
)
def test_what_must_be_unique_is(database: Path, statement: str, values: tuple[object, ...]) -> None:
    with closing(db.open_raw(database)) as connection:
        connection.execute(statement, values)
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            connection.execute(statement, values)


def test_numbers_of_batches_and_hints_are_never_given_twice(database: Path) -> None:
    with closing(db.open_raw(database)) as connection:
        for table in ("batch", "change"):
            first = connection.execute(f"INSERT INTO {table} (terminal) VALUES ('a')").lastrowid
            connection.execute(f"DELETE FROM {table}")
            assert connection.execute(f"INSERT INTO {table} (terminal) VALUES ('a')").lastrowid != first


def test_the_raw_connection_is_durable_and_a_reader_cannot_write(database: Path) -> None:
    with closing(db.open_raw(database)) as writer, closing(db.open_reader(database)) as reader:
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert writer.execute("PRAGMA synchronous").fetchone() == (2,)
        assert writer.execute("PRAGMA foreign_keys").fetchone() == (1,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("INSERT INTO area (code) VALUES ('a')")
        writer.execute("INSERT INTO area (code) VALUES ('a')")
        assert reader.execute("SELECT code FROM area").fetchall() == [("a",)]


def test_migrating_again_changes_nothing(database: Path) -> None:
    before = database.stat().st_mtime_ns
    db.migrate(database)
    assert database.stat().st_mtime_ns == before


def test_the_database_is_closed_to_others(database: Path) -> None:
    assert database.stat().st_mode & 0o077 == 0


def test_an_older_database_is_brought_forward_and_keeps_its_rows(database: Path) -> None:
    with closing(db.open_raw(database)) as connection:
        connection.execute("INSERT INTO area (code, name_zh) VALUES ('a', '甲')")
        for index in ("login_staff", "login_expires"):
            connection.execute(f"DROP INDEX {index}")
        connection.execute("DELETE FROM migration WHERE app_name = 'accounts' AND name LIKE '%21:40:%'")
    assert not db.is_current(database)
    db.migrate(database)
    with closing(db.open_raw(database)) as connection:
        assert connection.execute("SELECT code FROM area").fetchall() == [("a",)]
        assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'login_staff'").fetchone()
    assert not database.with_name(database.name + ".before-migration").exists()


def test_a_failed_migration_leaves_the_database_as_it_was(database: Path) -> None:
    with closing(db.open_raw(database)) as connection:
        connection.execute("INSERT INTO area (code) VALUES ('a')")
        # The index is still there, so making it again fails half-way through.
        connection.execute("DELETE FROM migration WHERE app_name = 'accounts' AND name LIKE '%21:40:%'")
    with pytest.raises(db.MigrationFailed, match="already exists"):
        db.migrate(database)
    with closing(db.open_raw(database)) as connection:
        assert connection.execute("SELECT code FROM area").fetchall() == [("a",)]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_migration_that_was_cut_off_is_undone_first(database: Path) -> None:
    with closing(db.open_raw(database)) as connection:
        connection.execute("INSERT INTO area (code) VALUES ('whole')")
    aside = database.with_name(database.name + ".before-migration")
    shutil.copy(database, aside)
    with closing(db.open_raw(aside)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with closing(db.open_raw(database)) as connection:
        connection.execute("UPDATE area SET code = 'half'")
    db.migrate(database)
    with closing(db.open_raw(database)) as connection:
        assert connection.execute("SELECT code FROM area").fetchall() in ([("whole",)], [])
        assert connection.execute("SELECT count(*) FROM area WHERE code = 'half'").fetchone() == (0,)


def test_a_database_of_a_newer_version_is_refused(database: Path) -> None:
    with closing(db.open_raw(database)) as connection:
        connection.execute("INSERT INTO migration (name, app_name) VALUES ('2099-01-01T00:00:00:000000', 'sites')")
    with pytest.raises(
        db.MigrationFailed, match=re.escape("newer version: it has migration 2099-01-01T00:00:00:000000 of sites")
    ):
        db.migrate(database)


# The engine that pages use ----------------------------------------------------------------------------------------------------------------


async def test_read_then_write_transactions_side_by_side_lose_nothing(database: Path) -> None:
    """With deferred transactions most of these fail with "database is locked", or overwrite one another."""
    from fleet_server.sites.tables import Area

    db.use(database)
    try:
        await Area(code="a", sort=0).save()

        async def add_one() -> None:
            async with Area._meta.db.transaction():
                area = await Area.objects().get(Area.code == "a")
                assert area is not None
                await asyncio.sleep(0)
                await Area.update({Area.sort: area.sort + 1}).where(Area.code == "a")

        await asyncio.gather(*(add_one() for _ in range(40)))
        assert await db.read("SELECT sort FROM area") == [{"sort": 40}]
    finally:
        db.close()


async def test_a_transaction_that_fails_leaves_nothing_and_blocks_nobody(database: Path) -> None:
    from fleet_server.sites.tables import Area

    db.use(database)
    try:

        async def fails_in_piccolo() -> None:
            async with Area._meta.db.transaction():
                await Area(code="a").save()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fails_in_piccolo()

        def fails(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO area (code) VALUES ('b')")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await db.write(fails)
        assert await db.read("SELECT code FROM area") == []
        assert await db.write(lambda connection: connection.execute("INSERT INTO area (code) VALUES ('c')").rowcount) == 1
        assert await db.read("SELECT code FROM area WHERE code = :code", {"code": "c"}) == [{"code": "c"}]
    finally:
        db.close()


async def test_a_cancelled_request_gives_the_writer_back(database: Path) -> None:
    from fleet_server.sites.tables import Area

    db.use(database)
    try:
        inside = asyncio.Event()

        async def hold() -> None:
            async with Area._meta.db.transaction():
                await Area(code="a").save()
                inside.set()
                await asyncio.Event().wait()

        holder = asyncio.create_task(hold())
        await inside.wait()
        holder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holder
        await Area(code="b").save()
        assert await db.read("SELECT code FROM area") == [{"code": "b"}]
    finally:
        db.close()


async def test_a_page_cannot_write_through_read(database: Path) -> None:
    db.use(database)
    try:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await db.read("INSERT INTO area (code) VALUES ('a') RETURNING code")
    finally:
        db.close()


async def test_ingest_and_pages_write_to_one_file_without_locking_errors(database: Path) -> None:
    from fleet_server.live.tables import Change

    db.use(database)

    def ingest() -> None:
        with closing(db.open_raw(database)) as connection:
            for _ in range(100):
                transact(connection, lambda inside: inside.execute("INSERT INTO change (kind) VALUES ('ingest')"))

    try:
        writer = asyncio.get_running_loop().run_in_executor(None, ingest)
        for _ in range(100):
            await Change(kind="page").save()
        await writer
        assert await db.read("SELECT count(*) AS n FROM change") == [{"n": 200}]
    finally:
        db.close()
