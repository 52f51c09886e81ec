"""How figures and times look on a page: pure functions over numbers, a catalogue and a time zone.

Instants are milliseconds UTC; a page shows them in the site's time zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from fleet_server.console.i18n import Catalogue
from fleet_server.sites.calendar import local_time

SECOND_MS = 1_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000


def duration(words: Catalogue, length_ms: int) -> str:
    """`12 秒`, `37 分钟`, `4 小时 12 分`, `3 天 4 小时`: the two largest units, never rounded up."""
    seconds = max(0, length_ms) // SECOND_MS
    if seconds < 60:
        return words("duration.seconds", n=seconds)
    minutes = seconds // 60
    if minutes < 60:
        return words("duration.minutes", n=minutes)
    hours = minutes // 60
    if hours < 24:
        return words("duration.hours", h=hours, m=minutes % 60)
    return words("duration.days", d=hours // 24, h=hours % 24)


def ago(words: Catalogue, at_ms: int, now_ms: int) -> str:
    return words("duration.ago", duration=duration(words, now_ms - at_ms))


@lru_cache(maxsize=4096)
def stamp(at_ms: int, zone: str) -> str:
    """`2026-11-21 10:42:07`. Kept, because a list says the same few edges of its cells in every row."""
    return local_time(at_ms, zone).strftime("%Y-%m-%d %H:%M:%S")


def stamp_ms(at_ms: int, zone: str) -> str:
    """`2026-11-21 10:42:07.123`, for evidence."""
    return f"{stamp(at_ms, zone)}.{at_ms % 1000:03d}"


def clock(at_ms: int, zone: str, now_ms: int) -> str:
    """`10:42:07` on the day of `now_ms`, else `11-20 10:42`, in another year the date."""
    then, now = local_time(at_ms, zone), local_time(now_ms, zone)
    if then.date() == now.date():
        return then.strftime("%H:%M:%S")
    if then.year == now.year:
        return then.strftime("%m-%d %H:%M")
    return then.strftime("%Y-%m-%d")


def iso(at_ms: int) -> str:
    """For `<time datetime>`."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def count(number: int) -> str:
    return f"{number:,}"


@dataclass(frozen=True, slots=True)
class Ratio:
    """A share with what it is made of; the page always shows numerator and denominator."""

    part: int
    whole: int

    @property
    def percent(self) -> str | None:
        """One decimal; None where nothing was counted. 99.97 % is shown as 99.9 %: only all is 100 %."""
        if self.whole <= 0:
            return None
        if self.part >= self.whole:
            return "100 %"
        return f"{int(self.part * 1000 / self.whole) / 10:.1f} %"


def offset(words: Catalogue, offset_ms: int | None) -> str:
    """A clock offset with its sign."""
    if offset_ms is None:
        return words("noData")
    if abs(offset_ms) < 10 * SECOND_MS:
        return f"{offset_ms:+,} ms"
    return f"{'+' if offset_ms >= 0 else '−'}{duration(words, abs(offset_ms))}"


def hex_bytes(data: bytes) -> str:
    return data.hex(" ").upper()


def usb_id(vid: int | None, pid: int | None) -> str:
    return "—" if vid is None or pid is None else f"{vid:04X}:{pid:04X}"


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def csv_cell(text: str) -> str:
    """A cell that no spreadsheet runs as a formula (OWASP, CSV injection): dangerous starts get an apostrophe."""
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA_STARTS) or text.startswith(FORMULA_STARTS) else text
