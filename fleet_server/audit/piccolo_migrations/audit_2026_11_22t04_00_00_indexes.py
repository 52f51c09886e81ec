"""Indexes, and the triggers that make the log one that only grows."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder

ID = "2026-11-22T04:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Indexes and triggers"

STATEMENTS = (
    "CREATE INDEX audit_at ON audit (at_ms)",
    "CREATE INDEX audit_actor ON audit (actor, id)",
    "CREATE INDEX audit_action ON audit (action, id)",
    "CREATE INDEX audit_object ON audit (object, id)",
    "CREATE INDEX audit_head_audit ON audit_head (audit)",
    "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END",
    # REPLACE would take a row away without asking the trigger for removals.
    (
        "CREATE TRIGGER audit_appends BEFORE INSERT ON audit WHEN NEW.id <>"
        " coalesce((SELECT max(id) FROM audit), (SELECT max(audit) FROM audit_cut), 0) + 1"
        " BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END"
    ),
    (
        "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit WHEN OLD.id > (SELECT coalesce(max(audit), 0) FROM audit_cut)"
        " BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END"
    ),
    "CREATE TRIGGER audit_head_no_update BEFORE UPDATE ON audit_head BEGIN SELECT RAISE(ABORT, 'heads only grow'); END",
    "CREATE TRIGGER audit_cut_no_update BEFORE UPDATE ON audit_cut BEGIN SELECT RAISE(ABORT, 'cuts only grow'); END",
    "CREATE TRIGGER audit_cut_no_delete BEFORE DELETE ON audit_cut BEGIN SELECT RAISE(ABORT, 'cuts only grow'); END",
)


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="audit", description=DESCRIPTION)

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
