"""Indexes and uniqueness, which Piccolo cannot say for SQLite."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-21T21:40:01:000000"
VERSION = "1.38.0"
DESCRIPTION = "Indexes and uniqueness"

STATEMENTS = (
    "CREATE INDEX terminal_site ON terminal (site)",
    "CREATE UNIQUE INDEX terminal_code ON terminal (code) WHERE code <> ''",
    "CREATE INDEX enrolment_code_terminal ON enrolment_code (terminal)",
    "CREATE UNIQUE INDEX record_key_generation ON record_key (terminal, generation)",
    "CREATE INDEX tls_certificate_terminal ON tls_certificate (terminal)",
    "CREATE UNIQUE INDEX device_key ON device (terminal, slot)",
    "CREATE UNIQUE INDEX device_change_key ON device_change (batch, idx)",
    "CREATE INDEX device_change_history ON device_change (terminal, slot, at_ms)",
    "CREATE UNIQUE INDEX sighting_key ON sighting (terminal, port)",
    "CREATE UNIQUE INDEX consumable_key ON consumable (terminal, slot, item)",
    "CREATE UNIQUE INDEX boot_key ON boot (stream)",
    "CREATE INDEX boot_history ON boot (terminal, at_ms)",
)


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="terminals", description=DESCRIPTION)

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
