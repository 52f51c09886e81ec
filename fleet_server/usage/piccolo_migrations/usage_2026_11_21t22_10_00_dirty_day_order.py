"""Newest days first: figures of today do not wait for a history that is still streaming in."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-21T22:10:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Dirty days are taken newest first"


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="usage", description=DESCRIPTION)

    async def run():
        await engine_finder().run_ddl("CREATE INDEX dirty_day_day ON dirty_day (day)")

    async def run_backwards():
        await engine_finder().run_ddl("DROP INDEX dirty_day_day")

    manager.add_raw(run)
    manager.add_raw_backwards(run_backwards)
    return manager
