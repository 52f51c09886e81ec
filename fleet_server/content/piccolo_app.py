"""Piccolo's entry to this app: its tables and where their migrations lie."""

from __future__ import annotations

from pathlib import Path

from piccolo.conf.apps import AppConfig

from fleet_server.content.tables import (
    CatalogueItem,
    CatalogueOff,
    CatalogueRelease,
    ContentEvent,
    ContentFile,
    ContentPackage,
)

APP_CONFIG = AppConfig(
    app_name="content",
    migrations_folder_path=str(Path(__file__).resolve().parent / "piccolo_migrations"),
    table_classes=[ContentPackage, ContentFile, ContentEvent, CatalogueItem, CatalogueOff, CatalogueRelease],
    migration_dependencies=[],
    commands=[],
)
