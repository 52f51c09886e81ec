"""What Piccolo's command line and table classes need to know: the engine and the apps, in the order in which they may refer to one another.

`PICCOLO_CONF=fleet_server.piccolo_conf KF_DATABASE=path piccolo migrations new APP --auto` writes a migration after a change of tables.
"""

from __future__ import annotations

import os
from pathlib import Path

from piccolo.conf.apps import AppRegistry

from fleet_server.engine import FleetEngine

APPS = (
    "sites",
    "terminals",
    "evidence",
    "faults",
    "presence",
    "usage",
    "accounts",
    "live",
    "notifications",
    "thresholds",
    "figures",
    "wallboards",
    "audit",
    "orders",
    "rollouts",
    "content",
)

DB = FleetEngine()
if path := os.environ.get("KF_DATABASE"):
    DB.use(Path(path))

APP_REGISTRY = AppRegistry(apps=[f"fleet_server.{app}.piccolo_app" for app in APPS])
