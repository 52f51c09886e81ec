"""What a screen may be set to, and whether its token still holds. Pure; takes `now`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from fleet_server.errors import Refused

VIEWS: Final = ("now", "needs", "map", "areas", "usage")
"""In the order in which a screen shows them."""
LANGUAGES: Final = ("zh", "en")
NAME_MAX: Final = 40
SHORTEST_S, LONGEST_S, USUAL_S = 5, 300, 20
DAYS: Final = (30, 90, 365)
"""How long a token may hold (chosen): nobody remembers a screen for ever."""
MAX_BOARDS: Final = 100
SEEN_EVERY_MS: Final = 60_000
DAY_MS: Final = 86_400_000
Standing = Literal["live", "revoked", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a screen shows."""

    name: str
    lang: str
    views: tuple[str, ...]
    interval_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A stored screen, without its token."""

    id: int
    look: Look
    created_ms: int
    created_by: str
    expires_ms: int
    changed_ms: int | None
    changed_by: str | None
    revoked_ms: int | None
    revoked_by: str | None
    seen_ms: int | None

    def standing(self, now_ms: int) -> Standing:
        if self.revoked_ms is not None:
            return "revoked"
        return "live" if now_ms < self.expires_ms else "expired"


def read_look(form: Mapping[str, str], name: str) -> Look:
    """The form of a screen; `name` is checked already, as every free text is. Refused names the field."""
    views = tuple(view for view in VIEWS if form.get(f"view_{view}"))
    if not views:
        raise Refused("views", "wallViews")
    text = form.get("interval_s", "")
    interval_s = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0
    if not SHORTEST_S <= interval_s <= LONGEST_S:
        raise Refused("interval_s", "wallInterval")
    lang = form.get("lang", "")
    return Look(name=name, lang=lang if lang in LANGUAGES else "zh", views=views, interval_s=interval_s)


def read_days(form: Mapping[str, str]) -> int:
    text = form.get("days", "")
    if text not in {str(days) for days in DAYS}:
        raise Refused("days", "wallDays")
    return int(text)


def board_of(row: Mapping[str, Any]) -> Board:
    """A row as a value; views that this version does not know are left out."""
    views = tuple(view for view in VIEWS if view in str(row["views"]).split(","))
    return Board(
        id=row["id"],
        look=Look(name=row["name"], lang=row["lang"], views=views or VIEWS[:1], interval_s=row["interval_s"]),
        created_ms=row["created_ms"],
        created_by=row["created_by"],
        expires_ms=row["expires_ms"],
        changed_ms=row["changed_ms"],
        changed_by=row["changed_by"],
        revoked_ms=row["revoked_ms"],
        revoked_by=row["revoked_by"],
        seen_ms=row["seen_ms"],
    )
