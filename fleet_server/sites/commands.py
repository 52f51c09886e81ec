"""The calendar part of `fleet-server`: import a year's public holidays."""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from datetime import date
from pathlib import Path

from fleet_server.commands import AddCommand, in_database
from fleet_server.errors import SettingsError
from fleet_server.settings import Settings


def add_to(command: AddCommand) -> None:
    """Add these commands to the parser of `fleet-server`."""
    holidays = command("import-holidays", "take over a year's public holidays and make-up working days", _import_holidays)
    holidays.add_argument(
        "file", type=Path, help='CSV with the header day,kind,name_zh (kind off or work), or JSON {"off": […], "work": […]}'
    )


def _import_holidays(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.sites.calendar import load_calendar, local_day
    from fleet_server.sites.holidays import calendar_warning, decode, read_holidays, take_over

    try:
        text = decode(options.file.read_bytes())
    except OSError as err:
        raise SettingsError(f"{options.file}: cannot be read ({type(err).__name__})") from err
    days = read_holidays(text, is_json=options.file.suffix.lower() == ".json")
    now_ms = time.time_ns() // 1_000_000
    today, who = date.fromisoformat(local_day(now_ms)), f"cli:{getpass.getuser()}"
    done, warning = in_database(
        settings, lambda conn: (take_over(conn, days, by=who, now_ms=now_ms), calendar_warning(load_calendar(conn), today, "en"))
    )
    for year, worked in zip(done.years, done.working_days, strict=True):
        print(f"{year}: complete, {worked} working days")
    print(f"{done.days} days imported; the server uses them within seconds")
    if warning is not None:
        print(warning, file=sys.stderr)
