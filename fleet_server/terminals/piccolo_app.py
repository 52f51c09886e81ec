"""Piccolo's entry to this app: its tables and where their migrations lie."""

from __future__ import annotations

from pathlib import Path

from piccolo.conf.apps import AppConfig

from fleet_server.terminals.tables import (
    Boot,
    Consumable,
    ConsumableLevel,
    Device,
    DeviceChange,
    EnrolmentCode,
    Maintenance,
    RecordKey,
    Sighting,
    Terminal,
    TerminalLive,
    TlsCertificate,
    VanStop,
)

APP_CONFIG = AppConfig(
    app_name="terminals",
    migrations_folder_path=str(Path(__file__).resolve().parent / "piccolo_migrations"),
    table_classes=[
        Terminal,
        TerminalLive,
        Maintenance,
        EnrolmentCode,
        RecordKey,
        TlsCertificate,
        Device,
        DeviceChange,
        Sighting,
        Consumable,
        ConsumableLevel,
        Boot,
        VanStop,
    ],
    migration_dependencies=[],
    commands=[],
)
