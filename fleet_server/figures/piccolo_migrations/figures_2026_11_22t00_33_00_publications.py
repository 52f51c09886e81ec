"""Figures of one publication were published at one time and place."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T00:33:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Which figures were published together"

STATEMENTS = (
    """
    UPDATE figure_snapshot SET publication = (SELECT min(o.id) FROM figure_snapshot o
      WHERE o.computed_ms = figure_snapshot.computed_ms AND o.published_in = figure_snapshot.published_in)
    """,
    "CREATE INDEX figure_snapshot_publication ON figure_snapshot (publication)",
)


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="figures", description=DESCRIPTION)

    async def run():
        for statement in STATEMENTS:
            await engine_finder().run_ddl(statement)

    async def run_backwards():
        await engine_finder().run_ddl("DROP INDEX figure_snapshot_publication")

    manager.add_raw(run)
    manager.add_raw_backwards(run_backwards)
    return manager
