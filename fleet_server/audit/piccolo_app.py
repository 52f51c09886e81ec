"""Piccolo's entry to this app: its tables and where their migrations lie."""

from __future__ import annotations

from pathlib import Path

from piccolo.conf.apps import AppConfig

from fleet_server.audit.tables import Audit, AuditCut, AuditHead

APP_CONFIG = AppConfig(
    app_name="audit",
    migrations_folder_path=str(Path(__file__).resolve().parent / "piccolo_migrations"),
    table_classes=[Audit, AuditCut, AuditHead],
    migration_dependencies=[],
    commands=[],
)
