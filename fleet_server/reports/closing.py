"""Closes a month: publishes every figure of its report, of the fleet and of each area, so that what was said then can be traced for ever."""

from __future__ import annotations

import sqlite3
from typing import Final

from fleet_server.errors import Refused
from fleet_server.figures.figure import Figure
from fleet_server.figures.question import FLEET, Period, Question
from fleet_server.figures.snapshots import Publication, publications_of, publish
from fleet_server.reports.month import month_report
from fleet_server.sites.calendar import local_day

CLOSED_IN: Final = "month-close"


def figures_to_close(conn: sqlite3.Connection, month: str, now_ms: int) -> list[Figure]:
    """Reads only. Refused while the month still runs, or if no terminal was in service in it."""
    if local_day(now_ms) <= Period.month(month).last:
        raise Refused("month", "monthRuns")
    report = month_report(conn, month, now_ms=now_ms)
    if not report.total.figures["cases"].population:
        raise Refused("month", "monthEmpty")
    return list(report.figures())


def close(conn: sqlite3.Connection, figures: list[Figure], *, by: str, now_ms: int) -> list[int]:
    """In the caller's transaction; returns the ids. A month may be closed again: the earlier publication stays as it was."""
    return publish(conn, figures, published_in=CLOSED_IN, published_by=by, now_ms=now_ms)


def closings(conn: sqlite3.Connection, month: str) -> list[Publication]:
    """When the fleet's month was closed, newest first."""
    return [one for one in publications_of(conn, Question(Period.month(month), FLEET)) if one.published_in == CLOSED_IN]
