"""Indexes and uniqueness, which Piccolo cannot say for SQLite; and numbers that are never given twice."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-21T21:40:07:000000"
VERSION = "1.38.0"
DESCRIPTION = "Indexes and uniqueness"

STATEMENTS = ("CREATE INDEX change_at ON change (at_ms)",)
NEVER_AGAIN = ("change",)
"""Tables whose ids are positions for others: without AUTOINCREMENT SQLite gives the number of a deleted last row again."""


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="live", description=DESCRIPTION)

    async def run():
        engine = engine_finder()
        for table in NEVER_AGAIN:
            rows = await engine.read("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,))
            sql = rows[0]["sql"]
            numbered = sql.replace('"id" INTEGER PRIMARY KEY NOT NULL', '"id" INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL')
            assert numbered != sql
            await engine.run_ddl(f"DROP TABLE {table}")
            await engine.run_ddl(numbered)
        for statement in STATEMENTS:
            await engine.run_ddl(statement)

    async def run_backwards():
        engine = engine_finder()
        for statement in STATEMENTS:
            name = statement.split(" INDEX ")[1].split(" ")[0]
            await engine.run_ddl(f"DROP INDEX {name}")

    manager.add_raw(run)
    manager.add_raw_backwards(run_backwards)
    return manager
