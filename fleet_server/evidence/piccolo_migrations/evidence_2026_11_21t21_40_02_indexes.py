"""Indexes and uniqueness, which Piccolo cannot say for SQLite; and numbers that are never given twice."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-21T21:40:02:000000"
VERSION = "1.38.0"
DESCRIPTION = "Indexes and uniqueness"

STATEMENTS = (
    "CREATE INDEX stream_terminal ON stream (terminal, first_ms)",
    "CREATE INDEX stream_parent ON stream (parent_stream) WHERE parent_stream IS NOT NULL",
    "CREATE UNIQUE INDEX batch_key ON batch (stream, no)",
    "CREATE INDEX batch_terminal ON batch (terminal, id)",
    "CREATE INDEX batch_received ON batch (received_ms)",
    "CREATE UNIQUE INDEX aside_key ON aside (stream, no, digest)",
    "CREATE UNIQUE INDEX hole_key ON hole (stream, first_no)",
    "CREATE INDEX birth_terminal ON birth (terminal, received_ms)",
    "CREATE INDEX quarantine_terminal ON quarantine (terminal, received_ms)",
    "CREATE UNIQUE INDEX quarantine_count_key ON quarantine_count (terminal, reason)",
    "CREATE UNIQUE INDEX parked_key ON parked (batch, idx)",
    "CREATE INDEX parked_kind ON parked (kind)",
    "CREATE INDEX checkpoint_terminal ON checkpoint (terminal, made_ms)",
)
NEVER_AGAIN = ("batch",)
"""Tables whose ids are positions for others: without AUTOINCREMENT SQLite gives the number of a deleted last row again."""


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="evidence", description=DESCRIPTION)

    async def run():
        engine = engine_finder()
        for table in NEVER_AGAIN:
            rows = await engine.read("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,))
            sql = rows[0]["sql"]
            numbered = sql.replace('"id" INTEGER PRIMARY KEY NOT NULL', '"id" INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL')
            assert numbered != sql
            await engine.run_ddl(f"DROP TABLE {table}")
            await engine.run_ddl(numbered)
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
