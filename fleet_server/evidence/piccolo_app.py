"""Piccolo's entry to this app: its tables and where their migrations lie."""

from __future__ import annotations

from pathlib import Path

from piccolo.conf.apps import AppConfig

from fleet_server.evidence.tables import (
    Aside,
    Batch,
    Birth,
    Checkpoint,
    Hole,
    Parked,
    Quarantine,
    QuarantineCount,
    ServerKey,
    Stream,
)

APP_CONFIG = AppConfig(
    app_name="evidence",
    migrations_folder_path=str(Path(__file__).resolve().parent / "piccolo_migrations"),
    table_classes=[Stream, Batch, Aside, Hole, Birth, Quarantine, QuarantineCount, Parked, Checkpoint, ServerKey],
    migration_dependencies=[],
    commands=[],
)
