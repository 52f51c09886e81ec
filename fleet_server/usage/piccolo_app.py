"""Piccolo's entry to this app: its tables and where their migrations lie."""

from __future__ import annotations

from pathlib import Path

from piccolo.conf.apps import AppConfig

from fleet_server.usage.tables import (
    ChangedDay,
    Counters,
    DirtyDay,
    HostHealth,
    LinkEvent,
    QueueEvent,
    Rating,
    Reading,
    Serviceability,
    Session,
    SessionTelling,
    TerminalDay,
    VanPosition,
)

APP_CONFIG = AppConfig(
    app_name="usage",
    migrations_folder_path=str(Path(__file__).resolve().parent / "piccolo_migrations"),
    table_classes=[
        Session,
        SessionTelling,
        Rating,
        QueueEvent,
        Counters,
        Serviceability,
        HostHealth,
        Reading,
        LinkEvent,
        DirtyDay,
        TerminalDay,
        ChangedDay,
        VanPosition,
    ],
    migration_dependencies=[],
    commands=[],
)
