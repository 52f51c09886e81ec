"""Found by the van and the end of the window."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T11:21:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Index of where vans are to stand"


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="terminals", description=DESCRIPTION)

    async def run():
        await engine_finder().run_ddl("CREATE INDEX van_stop_terminal ON van_stop (terminal, to_ms)")

    async def run_backwards():
        await engine_finder().run_ddl("DROP INDEX van_stop_terminal")

    manager.add_raw(run)
    manager.add_raw_backwards(run_backwards)
    return manager
