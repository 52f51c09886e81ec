"""Indexes and uniqueness, which Piccolo cannot say for SQLite."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-21T21:40:05:000000"
VERSION = "1.38.0"
DESCRIPTION = "Indexes and uniqueness"

STATEMENTS = (
    "CREATE UNIQUE INDEX session_key ON session (terminal, sid)",
    "CREATE INDEX session_day ON session (terminal, day)",
    "CREATE INDEX session_began ON session (began_ms)",
    "CREATE INDEX session_batch ON session (batch)",
    "CREATE UNIQUE INDEX rating_key ON rating (batch, idx)",
    "CREATE INDEX rating_day ON rating (terminal, day)",
    "CREATE UNIQUE INDEX queue_event_key ON queue_event (batch, idx)",
    "CREATE INDEX queue_event_day ON queue_event (terminal, day)",
    "CREATE UNIQUE INDEX counters_key ON counters (batch, idx, slot)",
    "CREATE INDEX counters_terminal ON counters (terminal, slot, from_ms)",
    "CREATE UNIQUE INDEX serviceability_key ON serviceability (batch, idx)",
    "CREATE INDEX serviceability_terminal ON serviceability (terminal, from_ms)",
    "CREATE UNIQUE INDEX host_health_key ON host_health (batch, idx)",
    "CREATE INDEX host_health_terminal ON host_health (terminal, to_ms)",
    "CREATE UNIQUE INDEX reading_key ON reading (batch, idx)",
    "CREATE INDEX reading_terminal ON reading (terminal, slot, from_ms)",
    "CREATE UNIQUE INDEX link_event_key ON link_event (batch, idx)",
    "CREATE INDEX link_event_terminal ON link_event (terminal, at_ms)",
    "CREATE UNIQUE INDEX dirty_day_key ON dirty_day (terminal, day)",
    "CREATE UNIQUE INDEX terminal_day_key ON terminal_day (terminal, day)",
    "CREATE INDEX terminal_day_day ON terminal_day (day)",
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
