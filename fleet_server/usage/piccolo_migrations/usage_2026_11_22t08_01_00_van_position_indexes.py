"""Found by the van and the time, told once each."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T08:01:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Indexes of where vans were"

STATEMENTS = (
    "CREATE UNIQUE INDEX van_position_key ON van_position (batch, idx)",
    "CREATE INDEX van_position_at ON van_position (terminal, at_ms)",
)


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="usage", description=DESCRIPTION)

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
