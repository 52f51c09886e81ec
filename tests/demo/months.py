"""The demo's past on the server's side: terminals that were in service before it began, and months that were closed when they were over.

A demo enrols its terminals today and then tells what they lived through. To the register they would be new, and past months would have no
population; so the day of enrolment is set back to before the first day that is told. Only a demo may do that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from fleet_server import db
from fleet_server.channel import transact
from fleet_server.figures.question import FLEET, Period, Question
from fleet_server.figures.snapshots import publications_of
from fleet_server.reports.closing import CLOSED_IN, close, figures_to_close
from fleet_server.sites.calendar import day_span_ms, local_day
from simulators.workdays import day_of

BY: Final = "demo"
DAY_MS: Final = 86_400_000
REGISTERED_BEFORE_MS: Final = 7 * DAY_MS
QUIET_MS: Final = 15_000
"""Nothing of a month has been computed anew for so long: its records are in."""

LOOK_EVERY_MS: Final = 5_000


def first_day_told(until_ms: int, days: int) -> str:
    return (day_of(until_ms) - timedelta(days=days)).isoformat()


def backdate(connection: sqlite3.Connection, until_ms: int, days: int) -> int:
    """Enrolment at the start of the first day that is told, registration a week before; in the caller's transaction. How many were set back.

    Only terminals that the server watches already: it counts silence since enrolment against one that it has never heard.
    """
    if days <= 0:
        return 0
    enrolled_ms, _ = day_span_ms(first_day_told(until_ms, days))
    done = connection.execute(
        "UPDATE terminal SET enrolled_ms = ?, created_ms = min(created_ms, ?) WHERE enrolled_ms > ?"
        " AND id IN (SELECT terminal FROM presence)",
        (enrolled_ms, enrolled_ms - REGISTERED_BEFORE_MS, enrolled_ms),
    )
    if done.rowcount:
        connection.execute(
            "INSERT INTO change (at_ms, terminal, kind, ref) SELECT ?, id, 'enrolment', NULL FROM terminal WHERE enrolled_ms = ?",
            (until_ms, enrolled_ms),
        )
    return done.rowcount


def past_months(first_day: str, today: str) -> list[str]:
    """Months that are over and hold days that were told."""
    found, at = [], Period.month(first_day[:7])
    while at.last < today:
        if at.last >= first_day:
            found.append(at.text)
        at = at.after()
    return found


class Closing:
    """Closes each past month once its days stand still. `look` now and then; True when nothing is left to do."""

    def __init__(self, database: Path, until_ms: int, days: int) -> None:
        self._database, self._looked_ms = database, 0
        self._months = past_months(first_day_told(until_ms, days), local_day(until_ms)) if days > 0 else []

    def look(self, now_ms: int, before: Callable[[], None]) -> list[str]:
        """The months closed now; `before` is called before anything is closed."""
        done: list[str] = []
        if now_ms - self._looked_ms < LOOK_EVERY_MS:
            return done
        self._looked_ms = now_ms
        before()
        while self._months:
            month = self._months[0]
            with closing(db.open_reader(self._database)) as conn:
                if self._is_closed(conn, month):
                    self._months.pop(0)
                    continue
                if not self._is_quiet(conn, month, now_ms):
                    break
                figures = figures_to_close(conn, month, now_ms)
            with closing(db.open_raw(self._database)) as writer:
                transact(writer, partial(close, figures=figures, by=BY, now_ms=now_ms))
            self._months.pop(0)
            done.append(month)
        return done

    @property
    def finished(self) -> bool:
        return not self._months

    @staticmethod
    def _is_closed(conn: sqlite3.Connection, month: str) -> bool:
        return any(one.published_in == CLOSED_IN for one in publications_of(conn, Question(Period.month(month), FLEET)))

    @staticmethod
    def _is_quiet(conn: sqlite3.Connection, month: str, now_ms: int) -> bool:
        period = Period.month(month)
        (waiting,) = conn.execute("SELECT count(*) FROM dirty_day WHERE day <= ?", (period.last,)).fetchone()
        (changed_ms,) = conn.execute(
            "SELECT max(at_ms) FROM changed_day WHERE day BETWEEN ? AND ?", (period.first, period.last)
        ).fetchone()
        return waiting == 0 and changed_ms is not None and now_ms - changed_ms >= QUIET_MS
