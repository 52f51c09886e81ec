"""What is wanted already was signed as it is stored."""

import hashlib

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.engine import engine_finder
from piccolo.querystring import QueryString

ID = "2026-11-22T11:01:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "The content of the configurations that are wanted"


async def forwards():
    manager = MigrationManager(migration_id=ID, app_name="orders", description=DESCRIPTION)

    async def run():
        engine = engine_finder()
        for row in await engine.run_querystring(QueryString("SELECT version, content FROM configuration")):
            digest = hashlib.sha256(row["content"].encode()).digest()
            await engine.run_querystring(
                QueryString("UPDATE wanted SET configuration_sha256 = {} WHERE configuration = {}", digest, row["version"])
            )

    async def run_backwards():
        """The column goes with the migration before."""

    manager.add_raw(run)
    manager.add_raw_backwards(run_backwards)
    return manager
