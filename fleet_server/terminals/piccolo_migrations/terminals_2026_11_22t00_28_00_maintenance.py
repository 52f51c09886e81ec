"""Indexes, which Piccolo cannot say for SQLite, and a history that starts with what lasts now."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T00:28:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Maintenance: one open span for each terminal in maintenance now"

# When it began was never kept: it is known from now on.
BEGIN_HISTORY = """
INSERT INTO maintenance (terminal, from_ms, until_ms, reason, "by")
SELECT id, now.ms, maintenance_until_ms, coalesce(maintenance_reason, ''), coalesce(maintenance_by, '')
FROM terminal, (SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000 AS ms) AS now
WHERE maintenance_until_ms > now.ms AND revoked_ms IS NULL
"""
STATEMENTS = ("CREATE INDEX maintenance_terminal ON maintenance (terminal, from_ms)", BEGIN_HISTORY)


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
