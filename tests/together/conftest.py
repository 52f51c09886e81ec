"""A migrated database to copy from: the schema costs a second once instead of per test."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fleet_server.db import migrate


@pytest.fixture(scope="session")
def database_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "fleet.sqlite"
    migrate(path)
    conn = sqlite3.connect(path)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.execute("PRAGMA journal_mode=DELETE")
    conn.close()
    return path
