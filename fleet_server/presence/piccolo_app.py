"""Piccolo's entry to this app: its tables and where their migrations lie."""

from __future__ import annotations

from pathlib import Path

from piccolo.conf.apps import AppConfig

from fleet_server.presence.tables import ClockFix, ClockWork, PlatformGap, Presence, WatchMark

APP_CONFIG = AppConfig(
    app_name="presence",
    migrations_folder_path=str(Path(__file__).resolve().parent / "piccolo_migrations"),
    table_classes=[Presence, PlatformGap, ClockFix, ClockWork, WatchMark],
    migration_dependencies=[],
    commands=[],
)
