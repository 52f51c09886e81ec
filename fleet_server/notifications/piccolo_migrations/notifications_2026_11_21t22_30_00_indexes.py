"""Indexes and uniqueness, which Piccolo cannot say for SQLite."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-21T22:30:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Indexes and uniqueness"

STATEMENTS = (
    "CREATE UNIQUE INDEX channel_name ON channel (name)",
    "CREATE UNIQUE INDEX notification_once ON notification (channel, dedupe_key)",
    # Of a channel one message waits at a time: the next digest is made when this one is out.
    "CREATE UNIQUE INDEX notification_queued ON notification (channel) WHERE state = 'queued'",
    "CREATE INDEX notification_newest ON notification (channel, id)",
    "CREATE UNIQUE INDEX standing_once ON standing (channel, subject)",
)


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="notifications", description=DESCRIPTION)

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
