"""The error base of the agent's frame, with children by who must act. Messages never carry what a citizen or an application sent."""

from __future__ import annotations

import traceback
from pathlib import Path


class AgentError(Exception):
    """Something the agent cannot do; the message is one sentence for the person at the terminal."""


class ConfigError(AgentError):
    """The installer must change the configuration. The message starts with the file and the exact path of the key."""


class KeyRefused(AgentError):
    """A key file is missing, spoiled, or readable by others: the installer must look at it."""


class NotEnrolled(AgentError):
    """The terminal has no identity yet: `edge-agent enrol` first."""


class EnrolmentRefused(AgentError):
    """The server said no, and will say no again: the operator must act."""

    def __init__(self, word: str, message: str) -> None:
        super().__init__(message)
        self.word = word


class ServerUnreachable(AgentError):
    """The server did not answer as it should; trying again later may help."""


class ServerNotTrusted(AgentError):
    """Whoever answered could not prove to be the server; nothing secret was sent."""


def place_of(err: BaseException) -> str:
    """Where it happened. The message stays out: it may hold what a device, a program or a person sent."""
    while isinstance(err, BaseExceptionGroup):
        err = err.exceptions[0]
    frames = traceback.extract_tb(err.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
