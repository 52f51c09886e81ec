"""Indexes and uniqueness, which Piccolo cannot say for SQLite."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T04:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Indexes and uniqueness"

STATEMENTS = (
    "CREATE UNIQUE INDEX installed_version_key ON installed_version (terminal, component)",
    "CREATE INDEX installed_version_version ON installed_version (component, version)",
    "CREATE UNIQUE INDEX versions_told_key ON versions_told (batch, idx)",
    "CREATE INDEX versions_told_terminal ON versions_told (terminal, at_ms)",
    "CREATE UNIQUE INDEX update_step_key ON update_step (batch, idx)",
    "CREATE INDEX update_step_bundle ON update_step (bundle, terminal, component, at_ms)",
    "CREATE INDEX update_step_rollout ON update_step (rollout, terminal, at_ms)",
    "CREATE INDEX update_step_terminal ON update_step (terminal, at_ms)",
)


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="rollouts", description=DESCRIPTION)

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
