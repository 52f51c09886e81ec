"""Indexes and uniqueness, which Piccolo cannot say for SQLite."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T04:12:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Indexes of releases and rollouts"

STATEMENTS = (
    "CREATE UNIQUE INDEX release_path ON release (path)",
    "CREATE INDEX release_component ON release (component, release)",
    "CREATE INDEX rollout_state ON rollout (state)",
    "CREATE UNIQUE INDEX rollout_wave_key ON rollout_wave (rollout, no)",
    "CREATE UNIQUE INDEX rollout_member_key ON rollout_member (rollout, terminal)",
    "CREATE INDEX rollout_member_terminal ON rollout_member (terminal)",
    "CREATE INDEX rollout_member_state ON rollout_member (state)",
    "CREATE INDEX rollout_event_rollout ON rollout_event (rollout, id)",
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
