"""Piccolo's entry to this app: its tables and where their migrations lie."""

from __future__ import annotations

from pathlib import Path

from piccolo.conf.apps import AppConfig

from fleet_server.orders.tables import (
    Configuration,
    DesiredReport,
    DesiredState,
    OrderItem,
    OrderKey,
    OrderReport,
    OrderRequest,
    Play,
    PulledLog,
    TerminalCounter,
    Wanted,
)

APP_CONFIG = AppConfig(
    app_name="orders",
    migrations_folder_path=str(Path(__file__).resolve().parent / "piccolo_migrations"),
    table_classes=[
        Configuration,
        DesiredReport,
        DesiredState,
        OrderItem,
        OrderKey,
        OrderReport,
        OrderRequest,
        Play,
        PulledLog,
        TerminalCounter,
        Wanted,
    ],
    migration_dependencies=[],
    commands=[],
)
