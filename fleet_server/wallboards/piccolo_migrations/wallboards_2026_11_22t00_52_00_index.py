"""Uniqueness of tokens, which Piccolo cannot say for SQLite."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T00:52:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Uniqueness of tokens"


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="wallboards", description=DESCRIPTION)

    async def run():
        await engine_finder().run_ddl("CREATE UNIQUE INDEX wallboard_token ON wallboard (token_hash)")

    async def run_backwards():
        await engine_finder().run_ddl("DROP INDEX wallboard_token")

    manager.add_raw(run)
    manager.add_raw_backwards(run_backwards)
    return manager
