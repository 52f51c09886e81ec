"""Piccolo's entry to this app: its tables and where their migrations lie."""

from __future__ import annotations

from pathlib import Path

from piccolo.conf.apps import AppConfig

from fleet_server.accounts.tables import AccountEvent, ListColumns, Login, Staff

APP_CONFIG = AppConfig(
    app_name="accounts",
    migrations_folder_path=str(Path(__file__).resolve().parent / "piccolo_migrations"),
    table_classes=[Staff, Login, ListColumns, AccountEvent],
    migration_dependencies=[],
    commands=[],
)
