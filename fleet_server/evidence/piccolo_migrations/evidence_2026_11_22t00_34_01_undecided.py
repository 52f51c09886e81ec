"""Streams that wait for somebody to say whether they were copied."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T00:34:01:000000"
VERSION = "1.38.0"
DESCRIPTION = "Index of disputed streams without a verdict"

STATEMENTS = ("CREATE INDEX stream_undecided ON stream (terminal, first_ms) WHERE disputed = 1 AND verdict IS NULL",)


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="evidence", description=DESCRIPTION)

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
