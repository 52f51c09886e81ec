"""A start of an agent is known by terminal and stream; a greeting's nonce was never kept."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T00:57:03:000000"
VERSION = "1.38.0"
DESCRIPTION = "Boots by terminal and stream; no nonces"

STATEMENTS = ("DROP INDEX boot_key", "CREATE UNIQUE INDEX boot_key ON boot (terminal, stream)")


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="terminals", description=DESCRIPTION)

    async def run():
        engine = engine_finder()
        for statement in STATEMENTS:
            await engine.run_ddl(statement)

    manager.add_raw(run)
    manager.drop_column(
        table_class_name="TerminalLive", tablename="terminal_live", column_name="nonce", db_column_name="nonce", schema=None
    )
    return manager
