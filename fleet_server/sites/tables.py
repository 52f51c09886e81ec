"""Tables. Where terminals stand: areas, sites with opening hours, moved holidays."""

from __future__ import annotations

from piccolo.columns import BigInt, DoublePrecision, Serial, Text
from piccolo.table import Table


class Area(Table, tablename="area"):
    """A node of the area tree."""

    code = Text(primary_key=True)
    parent = Text(null=True, default=None)
    name_zh = Text()
    name_en = Text()
    sort = BigInt()
    adcode = Text(null=True, default=None)


class Site(Table, tablename="site"):
    """A place with opening hours; `hours` is JSON, keys `mon` to `sun`, `holiday`, `always`."""

    code = Text(primary_key=True)
    area = Text()
    name_zh = Text()
    name_en = Text()
    kind = Text()
    address_zh = Text(null=True, default=None)
    lat = DoublePrecision(null=True, default=None)
    lon = DoublePrecision(null=True, default=None)
    hours = Text(default="{}")
    timezone = Text(default="Asia/Shanghai")
    network = Text(default="govExtranet")
    phone = Text(null=True, default=None)
    """The hall's own number, shown to citizens."""


class Holiday(Table, tablename="holiday"):
    """A weekday that is off, or a weekend day that is worked."""

    day = Text(primary_key=True)
    kind = Text()
    name_zh = Text()


class SiteHours(Table, tablename="site_hours"):
    """Opening hours that held up to the day before `until_day`, when they were replaced."""

    id = Serial(primary_key=True)
    site = Text()
    until_day = Text()
    hours = Text()


class SettingEvent(Table, tablename="setting_event"):
    """Somebody changed an area, a site or the calendar; `subject` is `area:CODE`, `site:CODE` or `calendar:YEAR`, `detail` JSON. Never changed."""

    id = Serial(primary_key=True)
    at_ms = BigInt()
    set_by = Text()
    kind = Text()
    subject = Text()
    detail = Text(default="{}")
