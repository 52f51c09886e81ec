"""Third step: the streams come back, and what is unique is so for each terminal."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T00:57:02:000000"
VERSION = "1.38.0"
DESCRIPTION = "Streams by terminal and id, third step"

COLUMNS = (
    "id, terminal, stream, parent_stream, parent_no, parent_digest, boot_no, boot_id, head_no, head_digest, disputed, forked, verdict,"
    " first_ms, notice"
)
STATEMENTS = (
    f"INSERT INTO stream ({COLUMNS}) SELECT {COLUMNS} FROM stream_before ORDER BY id",  # noqa: S608 - constants
    "DROP TABLE stream_before",
    "CREATE UNIQUE INDEX stream_key ON stream (terminal, stream)",
    "CREATE INDEX stream_terminal ON stream (terminal, first_ms)",
    "CREATE INDEX stream_parent ON stream (terminal, parent_stream) WHERE parent_stream IS NOT NULL",
    "CREATE INDEX stream_undecided ON stream (terminal, first_ms) WHERE disputed = 1 AND verdict IS NULL",
    "CREATE INDEX stream_settling ON stream (id) WHERE settle_from IS NOT NULL",
    "DROP INDEX batch_key",
    "CREATE UNIQUE INDEX batch_key ON batch (terminal, stream, no)",
    "DROP INDEX aside_key",
    "CREATE UNIQUE INDEX aside_key ON aside (terminal, stream, no, digest)",
    "DROP INDEX hole_key",
    "CREATE UNIQUE INDEX hole_key ON hole (terminal, stream, first_no)",
)


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="evidence", description=DESCRIPTION)

    async def run():
        engine = engine_finder()
        for statement in STATEMENTS:
            await engine.run_ddl(statement)

    manager.add_raw(run)
    return manager
