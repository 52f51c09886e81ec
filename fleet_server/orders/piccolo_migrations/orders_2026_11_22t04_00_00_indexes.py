"""Indexes and uniqueness, which Piccolo cannot say for SQLite."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T04:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Indexes and uniqueness"

STATEMENTS = (
    "CREATE INDEX order_request_state ON order_request (state, at_ms)",
    "CREATE INDEX order_request_at ON order_request (at_ms)",
    "CREATE UNIQUE INDEX order_item_key ON order_item (request, terminal)",
    "CREATE UNIQUE INDEX order_item_order ON order_item (order_id)",
    "CREATE INDEX order_item_terminal ON order_item (terminal, state)",
    "CREATE INDEX order_item_state ON order_item (state, expires_ms)",
    "CREATE UNIQUE INDEX order_report_key ON order_report (batch, idx)",
    "CREATE INDEX order_report_order ON order_report (order_id)",
    "CREATE INDEX order_report_terminal ON order_report (terminal, at_ms)",
    "CREATE UNIQUE INDEX desired_report_key ON desired_report (batch, idx)",
    "CREATE INDEX desired_report_terminal ON desired_report (terminal, counter)",
    "CREATE UNIQUE INDEX desired_state_key ON desired_state (terminal, counter)",
    "CREATE UNIQUE INDEX pulled_log_order ON pulled_log (order_id)",
    "CREATE INDEX pulled_log_terminal ON pulled_log (terminal, received_ms)",
    "CREATE UNIQUE INDEX play_key ON play (batch, idx, page)",
    "CREATE INDEX play_terminal ON play (terminal, component, from_ms)",
    "CREATE INDEX play_component ON play (component, from_ms)",
    "CREATE INDEX wanted_open ON wanted (terminal) WHERE changed > sealed",
)


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="orders", description=DESCRIPTION)

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
