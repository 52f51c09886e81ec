"""The one error base of `fleet_server`, with children by who must act, and how each becomes an answer to a browser.

Messages name the offending value where it is ours; nothing a peer sent is copied into them.
"""

from __future__ import annotations

import traceback
from typing import ClassVar


class FleetServerError(Exception):
    """Something the server cannot do; `status` is the HTTP status if it surfaces in a request."""

    status: ClassVar[int] = 500
    word: ClassVar[str] = "internal"
    """Key of the sentence shown to the person (`problem.<word>` in the console's catalogues)."""


class SettingsError(FleetServerError):
    """The operator of the server must change a setting or install something."""


class NotFound(FleetServerError):
    """The person asked for something that does not exist."""

    status = 404
    word = "notFound"


class NotSignedIn(FleetServerError):
    """No valid session: sign in first."""

    status = 401
    word = "notSignedIn"


class Forbidden(FleetServerError):
    """Signed in, but this role may not do it."""

    status = 403
    word = "forbidden"


class Refused(FleetServerError):
    """A person's input breaks a rule; `field` names where, `reason` is a key of the console's catalogues (`refused.<reason>`)."""

    status = 400
    word = "refused"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Conflict(Refused):
    """Somebody else was first."""

    status = 409
    word = "conflict"


def place_of(error: BaseException) -> str:
    """Class and line of an error that nobody expected, for the log; its message may hold what a peer sent."""
    frames = traceback.extract_tb(error.__traceback__)
    return type(error).__name__ + (f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else "")


def problem_of(error: Exception) -> tuple[int, str]:
    """(HTTP status, word of the sentence) for whatever a handler raised; 500 for what is our own fault."""
    from litestar.exceptions import HTTPException

    if isinstance(error, FleetServerError):
        return error.status, error.word
    if isinstance(error, HTTPException):
        status = error.status_code
        return status, {401: "notSignedIn", 403: "forbidden", 404: "notFound", 405: "notFound"}.get(
            status, "refused" if status < 500 else "internal"
        )
    return 500, "internal"
