"""Boots that were too long to be put right at once are so no more: their fixed points wait again."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T01:05:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Long boots are put right too"


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="presence", description=DESCRIPTION)

    async def run():
        await engine_finder().run_ddl("UPDATE clock_fix SET quality = 'waiting' WHERE quality = 'unused'")

    manager.add_raw(run)
    return manager
