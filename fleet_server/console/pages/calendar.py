"""The calendar: working days, holidays and make-up days of a year, where they are known from, and the import of another year."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from litestar import Response, get, post
from litestar.datastructures import UploadFile
from litestar.params import FromQuery
from litestar.response import Redirect

from fleet_server.console import calendar_view as view
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of
from fleet_server.console.pages.faults import OPERATOR
from fleet_server.console.queries import sites as site_queries
from fleet_server.console.render import Voice
from fleet_server.errors import Refused
from fleet_server.sites import audit
from fleet_server.sites.calendar import Calendar, load_calendar, local_day, local_time
from fleet_server.sites.drafts import DAYS
from fleet_server.sites.holidays import (
    HolidaysRefused,
    Problem,
    SpecialDay,
    builtin_notices,
    calendar_after,
    decode,
    forget_imported,
    missing_festivals,
    read_holidays,
    special_days,
    take_over,
    working_days,
)
from fleet_server.sites.hours import load_hours

FIRST_YEAR, LAST_YEAR = 2000, 2100
TEXT_MAX: Final = 16 * 1024
"""Characters; sent as a form they stay below the limit of a request's body. A year has about 1,500."""
AHEAD_MAX: Final = 400
NOTICES: Final = {"imported", "forgotten"}


@dataclass(frozen=True, slots=True)
class _Stored:
    """Everything the page needs from the database, read at one moment."""

    calendar: Calendar
    days: list[SpecialDay]
    imported: Mapping[int, int]
    """Year → days that were imported for it."""
    history: list[audit.Changed]


@get("/calendar")
async def calendar_page(
    request: Asked,
    desk: TheDesk,
    year: FromQuery[str] = "",
    site: FromQuery[str] = "",
    at: FromQuery[str] = "",
    start: FromQuery[str] = "",
    n: FromQuery[str] = "",
    done: FromQuery[str] = "",
) -> Response[str]:
    voice = desk.voice(request)
    now = local_time(voice.now_ms, voice.zone)
    chosen = _year(year, now.year)
    stored = await desk.db.look(lambda conn: _read(conn, chosen))
    values = {
        **_year_values(voice, stored, chosen, now.date()),
        **await _moment_values(desk, voice, stored.calendar, site, at),
        **_ahead_values(voice, stored.calendar, start, n),
        "missing": stored.calendar.missing_years(now.date()),
        "notice": voice.t(f"calendar.done.{done}") if done in NOTICES else "",
        "text": "",
        "problems": [],
        "replace": False,
    }
    return await desk.page(request, "calendar.html", nav="system", voice=voice, **values)


@get("/calendar/days.csv")
async def days_csv(desk: TheDesk, year: FromQuery[str] = "") -> Response[bytes]:
    """The days of a year in the form that the import reads: also the template, filled with a year that is known."""
    chosen = _year(year, max(builtin_notices()))
    days = await desk.db.look(lambda conn: special_days(conn, chosen))
    if not days:
        chosen = max(builtin_notices())
        days = await desk.db.look(lambda conn: special_days(conn, chosen))
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(("日期", "类型", "名称"))
    writer.writerows((one.day.isoformat(), "休" if one.kind == "off" else "班", one.name_zh) for one in days)
    return Response(
        out.getvalue().encode("utf-8-sig"),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="holidays-{chosen}.csv"'},
    )


@post("/calendar/preview", status_code=200, opt=OPERATOR)
async def preview(request: Asked, desk: TheDesk) -> Response[str]:
    """What an import would change; nothing is written."""
    voice = desk.voice(request)
    form = await form_of(request)
    replace = bool(form.get("replace"))
    text = ""
    try:
        text = await _given(request, form)
        days = _days(text)
        values = await desk.db.look(lambda conn: _preview_values(conn, voice, days, replace=replace))
    except HolidaysRefused as refused:
        return await _refused(request, desk, text, refused.problems, replace=replace)
    return await desk.page(request, "calendar_preview.html", nav="system", voice=voice, text=text, replace=replace, **values)


@post("/calendar/import", status_code=200, opt=OPERATOR)
async def save(request: Asked, desk: TheDesk) -> Response[Any]:
    form = await form_of(request)
    text, replace = form.get("text", "")[:TEXT_MAX], bool(form.get("replace"))
    try:
        days = _days(text)
        done = await desk.db.write(
            lambda conn: take_over(conn, days, by=request.user.name, now_ms=desk.now_ms(), replace=replace)
        )
    except HolidaysRefused as refused:
        return await _refused(request, desk, text, refused.problems, replace=replace)
    return Redirect(f"/calendar?year={done.years[0]}&done=imported", status_code=303)


@post("/calendar/forget", status_code=200, opt=OPERATOR)
async def forget(request: Asked, desk: TheDesk) -> Redirect:
    year = _year((await form_of(request)).get("year", ""), 0)
    if not year:
        raise Refused("year", "day")
    await desk.db.write(lambda conn: forget_imported(conn, year, by=request.user.name, now_ms=desk.now_ms()))
    return Redirect(f"/calendar?year={year}&done=forgotten", status_code=303)


HANDLERS = [calendar_page, days_csv, preview, save, forget]


# Reading --------------------------------------------------------------------------------------------------------------------------------


def _read(conn: sqlite3.Connection, year: int) -> _Stored:
    imported = {int(row[0]): int(row[1]) for row in conn.execute("SELECT substr(day, 1, 4), count(*) FROM holiday GROUP BY 1")}
    return _Stored(load_calendar(conn), special_days(conn, year), imported, audit.recent(conn, "calendar:*"))


def _year(text: str, otherwise: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and FIRST_YEAR <= int(text[:5]) <= LAST_YEAR else otherwise


def _is_json(text: str) -> bool:
    return text.lstrip("\ufeff \t\r\n").startswith(("{", "["))


async def _given(request: Asked, form: Mapping[str, str]) -> str:
    """The chosen file if there is one, else what was pasted."""
    for file in (await request.form()).getall("file", []):
        if isinstance(file, UploadFile) and (raw := await file.read(TEXT_MAX + 1)):
            return decode(raw)[:TEXT_MAX]
    return form.get("text", "")[:TEXT_MAX]


def _days(text: str) -> list[SpecialDay]:
    if not text.strip():
        raise HolidaysRefused([Problem("nothing")])
    return read_holidays(text, is_json=_is_json(text))


# Values ---------------------------------------------------------------------------------------------------------------------------------


def _year_values(voice: Voice, stored: _Stored, year: int, today: date) -> dict[str, Any]:
    calendar = stored.calendar
    known = sorted(calendar.years)
    return {
        "year": year,
        "known": year in calendar.years,
        "years": sorted({*known, today.year, today.year + 1, year}),
        "months": view.months_of(calendar, year, stored.days, today, voice.lang),
        "rests": view.rests_of(calendar, stored.days, voice.lang),
        "working_days": working_days(calendar, year),
        "sources": [_source(voice, one, stored) for one in sorted({*known, *(year for year in calendar.missing_years(today))})],
        "imported": stored.imported.get(year, 0),
        "built_in": year in builtin_notices(),
        "history": [
            {"at_ms": one.at_ms, "by": one.set_by, "what": _event(voice, one), "parts": []} for one in stored.history
        ],
    }  # fmt: skip


def _source(voice: Voice, year: int, stored: _Stored) -> dict[str, Any]:
    notice, imported = builtin_notices().get(year), stored.imported.get(year, 0)
    event = next((one for one in stored.history if one.subject == f"calendar:{year}" and one.kind == "calendar.import"), None)
    words = []
    if notice is not None:
        words.append(voice.t("calendar.source.builtin", day=notice.isoformat()))
    if imported and event is not None:
        words.append(voice.t("calendar.source.importedBy", n=imported, who=event.set_by, when=voice.stamp(event.at_ms)[:16]))
    elif imported:
        words.append(voice.t("calendar.source.imported", n=imported))
    return {"year": year, "known": year in stored.calendar.years, "words": words or [voice.t("calendar.source.missing")]}


def _event(voice: Voice, one: audit.Changed) -> str:
    what = one.kind.partition(".")[2]
    return voice.t(f"calendar.event.{what}", year=one.subject.partition(":")[2], n=one.detail.get("days", 0))


async def _moment_values(desk: Desk, voice: Voice, calendar: Calendar, site: str, at: str) -> dict[str, Any]:
    rows = await site_queries.sites(desk.db)
    options = [
        (row["code"], (row["name_zh"] if voice.lang == "zh" else row["name_en"]) or row["name_zh"] or row["code"]) for row in rows
    ]
    row = next((row for row in rows if row["code"] == site), None)
    moment = _moment(at)
    verdict = None
    if row is not None and moment is not None:
        day = moment.date().isoformat()
        hours, days = await desk.db.look(lambda conn: (load_hours(conn, [site])[site].on(day), special_days(conn, moment.year)))
        names = {one.day: view.name_of(one.name_zh, voice.lang) for one in days}
        verdict = view.judge(voice, calendar, hours, moment, names)
    shown = moment.isoformat(timespec="minutes") if moment else local_time(voice.now_ms, voice.zone).strftime("%Y-%m-%dT%H:%M")
    return {"sites": options, "site": site, "at": shown, "verdict": verdict, "asked": bool(site or at)}


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=None) if FIRST_YEAR <= moment.year <= LAST_YEAR else None


def _ahead_values(voice: Voice, calendar: Calendar, start: str, n: str) -> dict[str, Any]:
    """The n-th working day after a day."""
    try:
        first = date.fromisoformat(start)
    except ValueError:
        first = None
    count = int(n) if n.isascii() and n.isdigit() and int(n[:4]) <= AHEAD_MAX else 0
    due = None
    if first is not None and count and FIRST_YEAR <= first.year < LAST_YEAR:
        found = calendar.add_working_days(first, count)
        known = all(year in calendar.years for year in range(first.year, found.year + 1))
        weekday = voice.t(f"hours.day.{DAYS[found.weekday()]}")
        due = {"text": voice.t("calendar.due", day=found.isoformat(), weekday=weekday, n=count), "known": known}
    return {"start": start if first else local_day(voice.now_ms, voice.zone), "n": count or 5, "due": due}


def _preview_values(conn: sqlite3.Connection, voice: Voice, days: list[SpecialDay], *, replace: bool) -> dict[str, Any]:
    """Raises HolidaysRefused where the import itself would."""
    before, after = load_calendar(conn), calendar_after(conn, days, replace=replace)
    years = sorted({one.day.year for one in days})
    if problems := [problem for year in years for problem in missing_festivals(after, year)]:
        raise HolidaysRefused(problems)
    changes = view.changes_between(before, after, years, days, voice.lang)
    return {
        "years": years,
        "counts": view.counts_of(before, after, years),
        "months": view.by_month(changes),
        "n": len(changes),
        "given": len(days),
        "rests": view.rests_of(after, days, voice.lang),
    }


async def _refused(request: Asked, desk: Desk, text: str, problems: tuple[Problem, ...], *, replace: bool) -> Response[str]:
    """The page with what was pasted and what is wrong with it."""
    voice = desk.voice(request)
    now = local_time(voice.now_ms, voice.zone)
    stored = await desk.db.look(lambda conn: _read(conn, now.year))
    values = {
        **_year_values(voice, stored, now.year, now.date()),
        **await _moment_values(desk, voice, stored.calendar, "", ""),
        **_ahead_values(voice, stored.calendar, "", ""),
        "missing": stored.calendar.missing_years(now.date()),
        "notice": "",
        "text": text,
        "problems": [view.problem_words(voice, problem) for problem in problems],
        "replace": replace,
    }
    return await desk.page(request, "calendar.html", nav="system", voice=voice, status=400, **values)
