from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns.column_types import BigInt, Text
from piccolo.columns.indexes import IndexMethod

ID = "2026-11-22T00:27:22:784567"
VERSION = "1.38.0"
DESCRIPTION = "Who muted a fault, how bad it was then, until when"


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="faults", description=DESCRIPTION)

    manager.add_column(
        table_class_name="Fault",
        tablename="fault",
        column_name="muted_by",
        db_column_name="muted_by",
        column_class_name="Text",
        column_class=Text,
        params={
            "default": None,
            "null": True,
            "primary_key": False,
            "unique": False,
            "index": False,
            "index_method": IndexMethod.btree,
            "choices": None,
            "db_column_name": None,
            "secret": False,
        },
        schema=None,
    )

    manager.add_column(
        table_class_name="Fault",
        tablename="fault",
        column_name="muted_severity",
        db_column_name="muted_severity",
        column_class_name="Text",
        column_class=Text,
        params={
            "default": None,
            "null": True,
            "primary_key": False,
            "unique": False,
            "index": False,
            "index_method": IndexMethod.btree,
            "choices": None,
            "db_column_name": None,
            "secret": False,
        },
        schema=None,
    )

    manager.add_column(
        table_class_name="FaultEvent",
        tablename="fault_event",
        column_name="until_ms",
        db_column_name="until_ms",
        column_class_name="BigInt",
        column_class=BigInt,
        params={
            "default": None,
            "null": True,
            "primary_key": False,
            "unique": False,
            "index": False,
            "index_method": IndexMethod.btree,
            "choices": None,
            "db_column_name": None,
            "secret": False,
        },
        schema=None,
    )

    return manager
