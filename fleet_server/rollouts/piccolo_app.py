"""Piccolo's entry to this app: its tables and where their migrations lie."""

from __future__ import annotations

from pathlib import Path

from piccolo.conf.apps import AppConfig

from fleet_server.rollouts.tables import (
    FreezePeriod,
    InstalledVersion,
    Release,
    Rollout,
    RolloutEvent,
    RolloutMember,
    RolloutWave,
    UpdateStep,
    VersionsTold,
)

APP_CONFIG = AppConfig(
    app_name="rollouts",
    migrations_folder_path=str(Path(__file__).resolve().parent / "piccolo_migrations"),
    table_classes=[
        InstalledVersion,
        UpdateStep,
        VersionsTold,
        Release,
        Rollout,
        RolloutWave,
        RolloutMember,
        RolloutEvent,
        FreezePeriod,
    ],
    migration_dependencies=[],
    commands=[],
)
