"""The report part of `fleet-server`: the month report as an Excel file."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from fleet_server.commands import AddCommand, in_database, reading
from fleet_server.errors import SettingsError
from fleet_server.settings import Settings


def add_to(command: AddCommand) -> None:
    """Add these commands to the parser of `fleet-server`."""
    month = command("month-report", "write a month's report as an Excel file and store its figures as published", _month)
    month.add_argument("month", help="YYYY-MM")
    month.add_argument("--out", type=Path, required=True, metavar="FILE", help="an .xlsx file")
    month.add_argument("--lang", choices=["zh", "en"], default="zh")
    month.add_argument("--area", metavar="CODE", help="only this area and everything below it")

    closing = command("close-month", "publish every figure of a month, so that it can be traced", _close)
    closing.add_argument("month", nargs="?", help="YYYY-MM; default: the last one that is over")


def _close(settings: Settings, options: argparse.Namespace) -> None:
    import getpass

    from fleet_server.figures.question import Period
    from fleet_server.reports.closing import close, figures_to_close
    from fleet_server.sites.calendar import local_day

    now_ms = time.time_ns() // 1_000_000
    month = options.month or Period.month(local_day(now_ms)[:7]).before().text
    with reading(settings) as conn:
        figures = figures_to_close(conn, month, now_ms)
    who = f"cli:{getpass.getuser()}"
    ids = in_database(settings, lambda conn: close(conn, figures, by=who, now_ms=now_ms))
    print(f"{month} is closed: {len(ids)} figures published as {ids[0]} to {ids[-1]}")


def _month(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.figures.snapshots import publish
    from fleet_server.reports.month import month_report
    from fleet_server.reports.month_book import write_month

    now_ms = time.time_ns() // 1_000_000
    with reading(settings) as conn:
        report = month_report(conn, options.month, area=options.area, now_ms=now_ms)
    ids = in_database(settings, lambda conn: publish(conn, report.figures(), published_in="month-report", now_ms=now_ms))
    data = write_month(report, lang=options.lang, stored=(ids[0], ids[-1]))
    part = options.out.with_name(options.out.name + ".part")
    try:
        part.write_bytes(data)
        part.replace(options.out)
    except OSError as err:
        raise SettingsError(f"{options.out}: cannot be written ({type(err).__name__})") from err
    cases = report.total.figures["cases"]
    print(
        f"{options.out}: {cases.numerator} cases, {cases.population} terminals in service; figures stored as {ids[0]} to {ids[-1]}"
    )
