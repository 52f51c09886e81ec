"""Indexes and uniqueness, which Piccolo cannot say for SQLite."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T05:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Indexes and uniqueness"

STATEMENTS = (
    "CREATE UNIQUE INDEX content_package_key ON content_package (name, release)",
    "CREATE UNIQUE INDEX content_file_key ON content_file (package, name)",
    "CREATE INDEX content_event_package ON content_event (package, id)",
    "CREATE UNIQUE INDEX catalogue_off_key ON catalogue_off (area, code)",
)


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="content", description=DESCRIPTION)

    async def run():
        engine = engine_finder()
        for statement in STATEMENTS:
            await engine.run_ddl(statement)

    async def run_backwards():
        engine = engine_finder()
        for statement in STATEMENTS:
            kind, _, rest = statement.removeprefix("CREATE ").removeprefix("UNIQUE ").partition(" ")
            await engine.run_ddl(f"DROP {kind} {rest.split(' ')[0]}")

    manager.add_raw(run)
    manager.add_raw_backwards(run_backwards)
    return manager
