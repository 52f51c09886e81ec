"""The door for kiosk applications: a Unix socket for native ones, loopback HTTP for browser kiosks. Citizens' data has no way in."""

from edge_agent.local_api.gate import Application, Applications, Gate, Scope
from edge_agent.local_api.server import LocalApi
from edge_agent.local_api.service import KioskService, RefillRefused

__all__ = ["Application", "Applications", "Gate", "KioskService", "LocalApi", "RefillRefused", "Scope"]
