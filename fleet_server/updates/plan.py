"""How long each role's metadata holds, who signs it, and how many must: the choices of this project, in one place."""

from __future__ import annotations

import datetime as dt

from protocols.contract.artifacts import IMAGE_ROLES

DAY = dt.timedelta(days=1)
OFFLINE_PERIOD = 365 * DAY
"""Root, targets and release roles: signed by people, once a year at least."""
TIMESTAMP_PERIOD = 16 * DAY
"""Renewed daily. A terminal that saw the server yesterday goes on through a holiday of nine days in which the server is off."""
TIMESTAMP_EVERY = DAY
ONLINE_PERIOD = 45 * DAY
ONLINE_RENEW_BELOW = 24 * DAY
"""Snapshot and online roles are renewed when they hold for less: never less than the timestamp that leads to them."""
OFFLINE_MAX = 400 * DAY
"""Longest that a release role may promise to hold: what nobody looks at for longer should stop by itself."""
WARN_BELOW = 60 * DAY
"""People need time for a ceremony."""
CLOCK_TOLERANCE = DAY

RELEASE_ROLES = ("agent", "firmware", "image", "profiles")
"""Signed by release engineers, on machines that are not the server."""
ONLINE_ROLES = ("content", "catalogue", "packed")
"""Signed by the server, after a review where people see it."""
ROOT_THRESHOLD = 2
RELEASE_THRESHOLDS = {"agent": 1, "firmware": 2, "image": 1, "profiles": 1}
TOP_ROLES = ("root", "targets", "snapshot", "timestamp")

assert set(RELEASE_ROLES) | set(ONLINE_ROLES) == set(IMAGE_ROLES)


def moment(now_ms: int) -> dt.datetime:
    """Milliseconds since 1970 as TUF writes times: UTC, whole seconds."""
    return dt.datetime.fromtimestamp(now_ms // 1000, dt.UTC)


def milliseconds(at: dt.datetime) -> int:
    return int(at.timestamp()) * 1000


def is_offline(repository: str, role: str) -> bool:
    """Whether people sign this role."""
    if role == "root":
        return True
    return repository == "image" and (role == "targets" or role in RELEASE_ROLES)


def period(repository: str, role: str) -> dt.timedelta:
    if role == "timestamp":
        return TIMESTAMP_PERIOD
    return OFFLINE_PERIOD if is_offline(repository, role) else ONLINE_PERIOD
