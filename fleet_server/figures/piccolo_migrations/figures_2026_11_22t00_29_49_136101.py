from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns.column_types import BigInt, Text
from piccolo.columns.indexes import IndexMethod

ID = "2026-11-22T00:29:49:136101"
VERSION = "1.38.0"
DESCRIPTION = "Who published, and what was published together"


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="figures", description=DESCRIPTION)

    manager.add_column(
        table_class_name="FigureSnapshot",
        tablename="figure_snapshot",
        column_name="publication",
        db_column_name="publication",
        column_class_name="BigInt",
        column_class=BigInt,
        params={
            "default": 0,
            "null": False,
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
        table_class_name="FigureSnapshot",
        tablename="figure_snapshot",
        column_name="published_by",
        db_column_name="published_by",
        column_class_name="Text",
        column_class=Text,
        params={
            "default": "",
            "null": False,
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
