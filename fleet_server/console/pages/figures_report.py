"""The month report: its key table on the page, and the Excel file as offices expect it."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any, Final

from litestar import Response, get

from fleet_server.console import figures_words as words
from fleet_server.console import format as fmt
from fleet_server.console.desk import Asked, TheDesk
from fleet_server.console.export import XLSX
from fleet_server.console.figures_view import View, behind_href
from fleet_server.console.pages.figures import LINE_FIGURES
from fleet_server.console.queries.figures import load_places
from fleet_server.console.render import Voice
from fleet_server.errors import Refused
from fleet_server.figures.catalogue import CATALOGUE, POPULATION
from fleet_server.figures.figure import Figure
from fleet_server.figures.question import Period, Question, Scope
from fleet_server.figures.snapshots import Publication, publications_of
from fleet_server.reports.month import Compared, MonthReport, month_report
from fleet_server.reports.month_book import write_month
from fleet_server.sites.calendar import local_day

MONTHS: Final = 14


@get("/figures/month-report")
async def month_page(request: Asked, desk: TheDesk) -> Response[str]:
    voice = desk.voice(request)
    today = local_day(voice.now_ms, desk.view.zone)
    month, area = _asked(request, today)
    report, published = await desk.db.ponder(lambda conn: _read(conn, month, area, voice.now_ms))
    places = await desk.db.look(load_places)
    names = places.names(voice.lang)
    months, at = [], Period.month(today[:7])
    for _ in range(MONTHS):
        months.append(at.text)
        at = at.before()
    if month not in months:
        months.append(month)
    values: dict[str, Any] = {
        "view": View(report.question, today),
        "month": month,
        "months": months,
        "areas": [(one.code, "\u3000" * one.depth + names[f"area:{one.code}"]) for one in places.areas],
        "area": area or "",
        "scope": words.scope_words(report.question.scope.given, names, voice),
        "population": fmt.count(report.total.figures["cases"].population),
        "has_data": bool(report.total.figures["cases"].population),
        "is_running": report.is_running,
        "missing_year": report.missing_year,
        "rule": POPULATION[voice.lang],
        "compared": [_compared(one, voice) for one in report.compared],
        "before": report.question.period.before().text,
        "year_before": report.question.period.year_before().text,
        "lines": _lines(report, voice),
        "published": published[0] if published else None,
        "file": View(report.question, today).query().replace("?period=", "?month="),
    }
    return await desk.page(request, "figures_month.html", nav="figures", voice=voice, **values)


@get("/figures/month-report.xlsx")
async def month_file(request: Asked, desk: TheDesk) -> Response[bytes]:
    voice = desk.voice(request)
    month, area = _asked(request, local_day(voice.now_ms, desk.view.zone))
    report, published = await desk.db.ponder(lambda conn: _read(conn, month, area, voice.now_ms))
    stored = (published[0].id, published[0].last) if published else None
    data = await asyncio.to_thread(write_month, report, lang=voice.lang, stored=stored)
    name = "-".join(word for word in ("month-report", month, area if area and area.isascii() and area.isalnum() else "") if word)
    return Response(data, media_type=XLSX, headers={"Content-Disposition": f'attachment; filename="{name}.xlsx"'})


HANDLERS = [month_page, month_file]


def _asked(request: Asked, today: str) -> tuple[str, str | None]:
    """(month, area); without a month the last one that is over."""
    month = request.query_params.get("month", "")[:10] or Period.month(today[:7]).before().text
    period = Period.read(month)
    if not period.is_month or not "2000" <= month <= "2200":
        raise Refused("month", "noPeriod")
    return month, request.query_params.get("area", "")[:80] or None


def _read(conn: sqlite3.Connection, month: str, area: str | None, now_ms: int) -> tuple[MonthReport, list[Publication]]:
    report = month_report(conn, month, area=area, now_ms=now_ms)
    return report, publications_of(conn, Question(Period.month(month), Scope(area=area)))


def _compared(one: Compared, voice: Voice) -> dict[str, Any]:
    figure = one.now
    return {
        "title": CATALOGUE[figure.name].title(voice.lang),
        "formula": CATALOGUE[figure.name].formula(voice.lang),
        "now": _cells(figure, voice),
        "href": behind_href(figure),
        "denominator_href": behind_href(figure, "denominator") if figure.is_ratio else "",
        "before": _cells(one.before, voice),
        "year_before": _cells(one.year_before, voice),
        "change": None if one.is_running else words.change(figure, one.before, voice),
        "year_change": None if one.is_running else words.change(figure, one.year_before, voice),
    }


def _cells(figure: Figure | None, voice: Voice) -> dict[str, str] | None:
    if figure is None or not figure.population:
        return None
    numerator, denominator = words.units(figure)
    return {
        "numerator": words.short(figure.numerator, numerator),
        "denominator": words.short(figure.denominator or 0, denominator) if figure.is_ratio else "",
        "value": words.value(figure, voice) or "—",
    }


def _lines(report: MonthReport, voice: Voice) -> list[dict[str, Any]]:
    found = []
    for line in (*report.areas, report.total):
        is_total = line is report.total
        group = line.group
        name = (
            (group.name_zh if voice.lang == "zh" else group.name_en) or group.name_zh or group.code or voice.t("figures.noArea")
        )
        if group.kind == "itself":
            name = voice.t("figures.direct", name=name)
        found.append({
            "name": voice.t("figures.total") if is_total else name,
            "is_total": is_total,
            "population": fmt.count(line.figures["cases"].population),
            "cells": [words.value(line.figures[name], voice) for name in LINE_FIGURES],
        })  # fmt: skip
    return found
