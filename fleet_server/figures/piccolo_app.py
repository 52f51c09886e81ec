"""Piccolo's entry to this app: its tables and where their migrations lie."""

from __future__ import annotations

from pathlib import Path

from piccolo.conf.apps import AppConfig

from fleet_server.figures.tables import FigureSnapshot

APP_CONFIG = AppConfig(
    app_name="figures",
    migrations_folder_path=str(Path(__file__).resolve().parent / "piccolo_migrations"),
    table_classes=[FigureSnapshot],
    migration_dependencies=[],
    commands=[],
)
