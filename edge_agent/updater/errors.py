"""Owns how the updater says no. Each error carries the word (`records.UpdateReason`) under which the terminal reports it.

Refused: what was asked for is not what the keys' holders agreed on; asking again changes nothing until the server publishes something else.
Unavailable: it could not be had now; trying again later may help. Messages name files, roles and numbers, never the content of either.
"""

from __future__ import annotations

from edge_agent.errors import AgentError
from protocols.contract.records import UpdateReason


class UpdaterError(AgentError):
    """Base of everything that stops a step of an update."""

    retryable = False

    def __init__(self, reason: UpdateReason, message: str) -> None:
        super().__init__(message)
        self.reason: UpdateReason = reason


class NotTrusted(UpdaterError):
    """What was offered does not fit what was signed."""


class Unavailable(UpdaterError):
    """It cannot be had now."""

    retryable = True


class Stopped(UpdaterError):
    """The caller asked the transfer to stop; what has arrived is kept."""

    retryable = True

    def __init__(self) -> None:
        super().__init__("aborted", "the transfer was stopped; what has arrived is kept")


class CacheInUse(UpdaterError):
    """Another updater works in the same directory."""

    retryable = True

    def __init__(self, where: object) -> None:
        super().__init__("inUse", f"another updater works in {where}")
