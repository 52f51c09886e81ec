"""Turns values of the view into sentences of a language: hours, returns from maintenance, distances. Pure; every sentence is whole."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from fleet_server.console.i18n import Catalogue
from fleet_server.public.api import clock
from fleet_server.public.opening import Opening, WeekLine
from fleet_server.public.rules import SiteNow, Word
from fleet_server.sites.calendar import Span, local_time


@dataclass(frozen=True, slots=True)
class Speech:
    """A language at a moment; `zone` is where the page as a whole is read."""

    t: Catalogue
    now_ms: int
    zone: str

    @property
    def lang(self) -> str:
        return self.t.language

    def hours(self, site: SiteNow) -> str:
        """`开放中，今天 17:00 结束`, `现在不开放，周一 09:00 开放`."""
        opening = site.opening
        if not opening.known:
            return self.t("hours.unknown")
        if opening.always:
            return self.t("hours.always")
        if opening.is_open and opening.until_ms is not None:
            at = local_time(opening.until_ms, site.zone)
            parts = _parts(self.t, at)
            if opening.again_ms is not None:
                again = local_time(opening.again_ms, site.zone).strftime("%H:%M")
                return self.t("hours.untilBreak", time=parts["time"], again=again)
            if (at.hour, at.minute) == (0, 0):
                # People say that a day ends at 24:00, not that the next one begins.
                at -= timedelta(minutes=1)
                parts = {**_parts(self.t, at), "time": "24:00"}
            return self.t(f"hours.until{self._day(at, site.zone, weekdays=False)}", **parts)
        if opening.next_ms is None:
            return self.t("hours.nextNone")
        at = local_time(opening.next_ms, site.zone)
        return self.t(f"hours.next{self._day(at, site.zone)}", **_parts(self.t, at))

    def missing(self, site: SiteNow) -> str:
        """What cannot be done there now, as a list."""
        return self.t("list.and").join(one.service.name(self.lang) for one in site.services if one.word is not Word.AVAILABLE)

    def today(self, opening: Opening) -> str:
        """`今天 09:00–12:00 13:30–17:00`; empty where it adds nothing to what `hours` says."""
        return self.t("hours.today", spans=self.spans(opening.today)) if len(opening.today) > 1 else ""

    def spans(self, spans: tuple[Span, ...]) -> str:
        if spans == ((0, 1440),):
            return self.t("hours.allDay")
        return " ".join(self.t("hours.span", **{"from": clock(start), "to": clock(end)}) for start, end in spans) or self.t(
            "hours.closed"
        )

    def days(self, line: WeekLine) -> str:
        if not line.days:
            return self.t("hours.holiday")
        if len(line.days) == 7:
            return self.t("hours.everyday")
        first, last = self.t(f"weekday.d{line.days[0]}"), self.t(f"weekday.d{line.days[-1]}")
        return first if len(line.days) == 1 else self.t("hours.days", **{"from": first, "to": last})

    def back(self, back_ms: int, zone: str) -> str:
        at = local_time(back_ms, zone)
        return self.t(f"back.{self._day(at, zone).lower()}", **_parts(self.t, at))

    def heard(self, heard_ms: int, zone: str) -> str:
        at = local_time(heard_ms, zone)
        return self.t("heard.today" if self._day(at, zone) == "Today" else "heard.date", **_parts(self.t, at))

    def moment(self) -> str:
        """The age of what is shown, as a time."""
        return self.t("age.at", time=local_time(self.now_ms, self.zone).strftime("%m-%d %H:%M"))

    def distance(self, km: float) -> str:
        metres = round(km * 1000, -1)
        return self.t("distance.m", n=f"{metres:.0f}") if metres < 1000 else self.t("distance.km", n=f"{km:.1f}")

    def _day(self, at: datetime, zone: str, *, weekdays: bool = True) -> str:
        """Today, Tomorrow, Weekday (within a week) or Date."""
        today = local_time(self.now_ms, zone).date()
        if at.date() == today:
            return "Today"
        if at.date() == today + timedelta(days=1):
            return "Tomorrow"
        return "Weekday" if weekdays and timedelta(0) < at.date() - today < timedelta(days=7) else "Date"


def _parts(t: Catalogue, at: datetime) -> dict[str, object]:
    return {"time": at.strftime("%H:%M"), "month": at.month, "day": at.day, "weekday": t(f"weekday.d{at.weekday()}")}
