"""Indexes, which Piccolo cannot say for SQLite, and a history that starts with what lasts now."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T00:28:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Maintenance: one open span for each terminal in maintenance now"

NOW_MS = "(CAST(strftime('%s', 'now') AS INTEGER) * 1000)"
STATEMENTS = (
    "CREATE INDEX maintenance_terminal ON maintenance (terminal, from_ms)",
    # When it began was never kept: it is known from now on.
    'INSERT INTO maintenance (terminal, from_ms, until_ms, reason, "by")'
    f" SELECT id, {NOW_MS}, maintenance_until_ms, coalesce(maintenance_reason, ''), coalesce(maintenance_by, '') FROM terminal"
    f" WHERE maintenance_until_ms > {NOW_MS} AND revoked_ms IS NULL",
)


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="terminals", description=DESCRIPTION)

    async def run():
        engine = engine_finder()
        for statement in STATEMENTS:
            await engine.run_ddl(statement)

    async def run_backwards():
        engine = engine_finder()
        await engine.run_ddl("DROP INDEX maintenance_terminal")

    manager.add_raw(run)
    manager.add_raw_backwards(run_backwards)
    return manager
