"""Piccolo's entry to this app: its tables and where their migrations lie."""

from __future__ import annotations

from pathlib import Path

from piccolo.conf.apps import AppConfig

from fleet_server.sites.tables import Area, Holiday, SettingEvent, Site, SiteHours

APP_CONFIG = AppConfig(
    app_name="sites",
    migrations_folder_path=str(Path(__file__).resolve().parent / "piccolo_migrations"),
    table_classes=[Area, Site, Holiday, SiteHours, SettingEvent],
    migration_dependencies=[],
    commands=[],
)
