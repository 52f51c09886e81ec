"""Who did what: a table that only grows, in which each row carries the hash of the one before."""

from __future__ import annotations

from fleet_server.audit.log import SERVER, write

__all__ = ["SERVER", "write"]
