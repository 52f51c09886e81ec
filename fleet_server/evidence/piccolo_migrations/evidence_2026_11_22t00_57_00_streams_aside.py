"""Streams are known by terminal and id together, which SQLite's tables cannot learn in place: first of three steps, their rows step aside."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T00:57:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Streams by terminal and id, first step"


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="evidence", description=DESCRIPTION)

    async def run():
        # Their order is the order in which they were opened; a key's last record is judged by it.
        await engine_finder().run_ddl("CREATE TABLE stream_before AS SELECT rowid AS id, stream.* FROM stream")

    manager.add_raw(run)
    manager.drop_table(class_name="Stream", tablename="stream")
    return manager
