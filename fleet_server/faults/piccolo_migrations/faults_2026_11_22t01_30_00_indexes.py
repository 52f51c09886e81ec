"""Indexes, which Piccolo cannot say for SQLite: what recovered since midnight, and how often a profile was wrong."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T01:30:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Indexes of recoveries and profiles"

STATEMENTS = (
    "CREATE INDEX fault_cleared ON fault (cleared_ms) WHERE cleared_ms IS NOT NULL",
    "CREATE INDEX fault_profile ON fault (profile, disputed, false_alarm) WHERE profile IS NOT NULL",
)


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="faults", description=DESCRIPTION)

    async def run():
        engine = engine_finder()
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
