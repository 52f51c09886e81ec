"""Figures of a period and scope: each with numerator, denominator, population and target, and each a link to what it is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from litestar import Response, get
from litestar.response import Redirect

from fleet_server.console import figures_words as words
from fleet_server.console import format as fmt
from fleet_server.console.desk import Asked, Desk, TheDesk
from fleet_server.console.export import csv_file, xlsx_file
from fleet_server.console.figures_desk import Answer, StillComputing
from fleet_server.console.figures_sheet import Sheet, sheet_of
from fleet_server.console.figures_view import PER_PAGE, View, behind_href, read_view
from fleet_server.console.queries.figures import Places, load_places
from fleet_server.console.render import Voice, share
from fleet_server.console.words import type_name
from fleet_server.figures.board import ZeroCase
from fleet_server.figures.catalogue import POPULATION
from fleet_server.figures.figure import Figure
from fleet_server.figures.idle import proposal
from fleet_server.figures.population import Member
from fleet_server.reports.listing import Column
from fleet_server.sites.calendar import local_day
from fleet_server.thresholds.rules import Effective, all_effective

GROUPS: Final = (
    ("use", ("cases", "success_rate", "active_share", "zero_terminals", "cases_per_terminal_day", "cases_per_terminal_year", "offhours_share")),
    ("running", ("online_rate", "availability", "intact_rate", "faults", "fault_rate", "mttr")),
    ("service", ("good_rate", "rating_answered_share", "queue_calls")),
)  # fmt: skip
"""Tiles, as they stand."""
LINE_FIGURES: Final = (
    "cases", "active_share", "zero_terminals", "cases_per_terminal_day", "offhours_share", "online_rate", "availability", "intact_rate", "faults",
)  # fmt: skip
"""Columns of the table by area."""
RATES: Final = ("online_rate", "availability", "intact_rate", "good_rate")
TOP: Final = 10
PATIENCE_S: Final = 8.0
"""A year of thousands of terminals takes longer; the page then says so, and asks again."""


@get("/figures")
async def figures(request: Asked, desk: TheDesk) -> Response[Any]:
    voice, view = await _view(request, desk)
    if "from" in request.query_params:
        return _canonical(view, "/figures")
    try:
        answer, before, places, limits = await asyncio.gather(
            _sheet(desk, view),
            desk.figures.headline(view.compared, patience_s=PATIENCE_S),
            desk.db.look(load_places),
            desk.db.look(lambda conn: {one.name: one for one in all_effective(conn, _class_of(view))}),
        )
    except StillComputing:
        return await _wait(request, desk, view, voice, "figures")
    sheet, fleet = answer.value, await desk.fleet(request)
    names = places.names(voice.lang)
    values: dict[str, Any] = {
        **frame(view, answer, places, voice),
        "headline": _headline(view, sheet, names, voice),
        "groups": _tiles(view, sheet, before.value, limits, voice),
        "compared": words.period_words(view.compared.period.first, view.compared.period.last, voice),
        "hours": _hours(sheet, voice),
        "outcomes": _bars(sheet.outcomes, voice),
        "classes": _bars(sheet.classes, voice),
        "levels": _bars(sheet.levels, voice),
        "actions": _bars(sheet.actions, voice),
        "items": _items(sheet, voice),
        "codes": _codes(sheet, voice),
        "rates": _rates(sheet, limits, voice),
        "ranking": _ranking(sheet.terminals[:TOP], sheet.terminals, voice),
        "zero": _zero_rows(sheet.zero[:TOP], limits, voice),
        "zero_total": len(sheet.zero),
        "lines": _lines(sheet, voice),
        "top": TOP,
        "missing_year": None if int(view.period.first[:4]) in fleet.calendar.years else view.period.first[:4],
    }
    return await desk.page(request, "figures.html", nav="figures", voice=voice, **values)


@get("/figures/terminals")
async def terminals(request: Asked, desk: TheDesk) -> Response[Any]:
    """Every terminal of the population with its cases, most first."""
    voice, view = await _view(request, desk)
    if "from" in request.query_params:
        return _canonical(view, "/figures/terminals")
    try:
        answer, places = await asyncio.gather(_sheet(desk, view), desk.db.look(load_places))
    except StillComputing:
        return await _wait(request, desk, view, voice, "terminals")
    rows, page = _page(answer.value.terminals, view)
    first = (page - 1) * PER_PAGE
    values: dict[str, Any] = {
        **frame(view, answer, places, voice),
        "rows": _ranking(rows, answer.value.terminals, voice, first=first),
        **_pager(view, page, len(answer.value.terminals), "/figures/terminals"),
    }
    return await desk.page(request, "figures_terminals.html", nav="figures", voice=voice, **values)


@get(["/figures/terminals.csv", "/figures/terminals.xlsx"])
async def terminals_file(request: Asked, desk: TheDesk) -> Response[bytes]:
    voice, view = await _view(request, desk)
    answer = await desk.figures.answer("sheet", view.question, sheet_of)
    columns = [
        Column(voice.t("figures.column.rank"), "count", 8), Column(voice.t("figures.column.terminal"), width=14),
        Column(voice.t("figures.column.name"), width=30), Column(voice.t("figures.column.site"), width=30),
        Column(voice.t("figures.column.type"), width=12), Column(voice.t("figures.column.machineDays"), "count"),
        Column(voice.t("figures.column.cases"), "count"), Column(voice.t("figures.column.perDay"), "number"),
    ]  # fmt: skip
    rows = [
        (
            row["rank"], row["label"], row["name"], row["site"], row["type"], row["machine_days"], row["cases"],
            None if not row["machine_days"] else round(row["cases"] / row["machine_days"], 4),
        )
        for row in _ranking(answer.value.terminals, answer.value.terminals, voice)
    ]  # fmt: skip
    title = voice.t("figures.file.terminals", period=view.period.text)
    return await _file(request, f"terminals-{view.period.text}", title, columns, rows, voice)


@get("/figures/zero")
async def zero(request: Asked, desk: TheDesk) -> Response[Any]:
    """Terminals without a successful case, longest first; machines under repair are marked."""
    voice, view = await _view(request, desk)
    if "from" in request.query_params:
        return _canonical(view, "/figures/zero")
    try:
        answer, places, limits = await asyncio.gather(
            _sheet(desk, view),
            desk.db.look(load_places),
            desk.db.look(lambda conn: {one.name: one for one in all_effective(conn, _class_of(view))}),
        )
    except StillComputing:
        return await _wait(request, desk, view, voice, "zero")
    rows, page = _page(answer.value.zero, view)
    values: dict[str, Any] = {
        **frame(view, answer, places, voice),
        "rows": _zero_rows(rows, limits, voice),
        "sentence": _zero_sentence(answer.value, limits, voice),
        "relocate": limits["idle.relocate_months"],
        "withdraw": limits["idle.withdraw_months"],
        **_pager(view, page, len(answer.value.zero), "/figures/zero"),
    }
    return await desk.page(request, "figures_zero.html", nav="figures", voice=voice, **values)


@get(["/figures/zero.csv", "/figures/zero.xlsx"])
async def zero_file(request: Asked, desk: TheDesk) -> Response[bytes]:
    voice, view = await _view(request, desk)
    answer, limits = await asyncio.gather(
        desk.figures.answer("sheet", view.question, sheet_of),
        desk.db.look(lambda conn: {one.name: one for one in all_effective(conn, _class_of(view))}),
    )
    columns = [
        Column(voice.t("figures.column.terminal"), width=14), Column(voice.t("figures.column.name"), width=30),
        Column(voice.t("figures.column.site"), width=30), Column(voice.t("figures.column.lastCase"), "day", 14),
        Column(voice.t("figures.column.daysSince"), "count"), Column(voice.t("figures.column.months"), "count"),
        Column(voice.t("figures.column.mark"), width=12), Column(voice.t("figures.column.proposal"), width=22),
    ]  # fmt: skip
    rows = [
        (
            row["label"], row["name"], row["site"], row["last_day"] or None, row["days_since"], row["months"], row["mark_words"],
            row["proposal_words"],
        )
        for row in _zero_rows(answer.value.zero, limits, voice)
    ]  # fmt: skip
    title = voice.t("figures.file.zero", period=view.period.text)
    return await _file(request, f"zero-{view.period.text}", title, columns, rows, voice)


HANDLERS = [figures, terminals, terminals_file, zero, zero_file]


# Frame ----------------------------------------------------------------------------------------------------------------------------------


async def _view(request: Asked, desk: Desk) -> tuple[Voice, View]:
    voice = desk.voice(request)
    return voice, view_of(request, desk, voice)


def view_of(request: Asked, desk: Desk, voice: Voice) -> View:
    params = {name: str(value) for name, value in request.query_params.items()}
    return read_view(params, local_day(voice.now_ms, desk.view.zone))


async def _sheet(desk: Desk, view: View) -> Answer[Sheet]:
    return await desk.figures.answer("sheet", view.question, sheet_of, patience_s=PATIENCE_S)


async def _wait(request: Asked, desk: Desk, view: View, voice: Voice, section: str) -> Response[str]:
    period = words.period_words(view.period.first, view.period.last, voice)
    return await desk.page(request, "figures_wait.html", nav="figures", voice=voice, view=view, section=section, period=period)


def _canonical(view: View, path: str) -> Redirect:
    """A form gives two days; the address then says what they are: a month, a quarter, a year, or days."""
    return Redirect(path + view.query(), status_code=303)


def frame(view: View, answer: Answer[Any], places: Places, voice: Voice) -> dict[str, Any]:
    """What all pages about a question share: period and scope to choose, as of when, who counts."""
    return {
        "view": view,
        "as_of": answer.at_ms,
        "period": words.period_words(view.period.first, view.period.last, voice),
        "scope": words.scope_words(view.scope.given, places.names(voice.lang), voice),
        "presets": [
            {"word": word, "href": view.query(period=period), "active": period == view.period.text}
            for word, period in view.presets()
        ],
        "earlier": view.query(period=view.period.before().text),
        "later": view.query(period=view.period.after().text) if view.period.last < view.today else "",
        "choices": _choices(view, places, voice),
        "rule": POPULATION[voice.lang],
        "population": answer.value.population if isinstance(answer.value, Sheet) else None,
        "pending_days": answer.value.pending_days if isinstance(answer.value, Sheet) else 0,
    }


def _choices(view: View, places: Places, voice: Voice) -> list[dict[str, Any]]:
    lang, scope = voice.lang, view.scope
    areas = [
        (one.code, "\u3000" * one.depth + ((one.zh if lang == "zh" else one.en) or one.zh or one.code)) for one in places.areas
    ]
    sites = [(code, (zh if lang == "zh" else en) or zh or code) for code, zh, en in places.within(scope.area)]
    types = [(code, type_name(voice, code)) for code in places.types]
    owners = [(code, voice.t(f"class.{code}") if voice.t.has(f"class.{code}") else code) for code in places.owners]
    return [
        {"name": name, "label": voice.t(f"figures.choose.{name}"), "options": options, "chosen": chosen or ""}
        for name, options, chosen in (
            ("area", areas, scope.area), ("site", sites, scope.site), ("type", types, scope.type), ("owner", owners, scope.owner)
        )
    ]  # fmt: skip


def _class_of(view: View) -> str:
    return view.scope.owner if view.scope.owner in {"government", "social"} else ""


def _page(rows: Sequence[Any], view: View) -> tuple[Sequence[Any], int]:
    page = min(view.page, max(1, -(-len(rows) // PER_PAGE)))
    return rows[(page - 1) * PER_PAGE : page * PER_PAGE], page


def _pager(view: View, page: int, total: int, path: str) -> dict[str, Any]:
    return pager(total, page, lambda number: path + view.paged(number))


def pager(total: int, page: int, href: Any) -> dict[str, Any]:
    pages = max(1, -(-total // PER_PAGE))
    return {
        "pager": {
            "page": page,
            "pages": pages,
            "first": (page - 1) * PER_PAGE + 1 if total else 0,
            "last": min(total, page * PER_PAGE),
            "total": total,
            "previous": href(page - 1) if page > 1 else "",
            "next": href(page + 1) if page < pages else "",
        }
    }


async def _file(
    request: Asked, name: str, title: str, columns: Sequence[Column], rows: Sequence[Sequence[object]], voice: Voice
) -> Response[bytes]:
    if request.url.path.endswith(".csv"):
        return csv_file(name, columns, rows, voice)
    return await xlsx_file(name, title, columns, rows, voice)


# Parts of the page ----------------------------------------------------------------------------------------------------------------------


def _headline(view: View, sheet: Sheet, names: dict[str, str], voice: Voice) -> Any:
    cases, success, idle = (sheet.headline[name] for name in ("cases", "success_rate", "zero_terminals"))
    period = words.period_words(view.period.first, view.period.last, voice)
    scope = words.scope_words(view.scope.given, names, voice)
    if not sheet.population:
        return voice.t("figures.nobody", period=period, scope=scope)
    key = "figures.headline" if success.value is not None else "figures.headlineNone"
    return voice.rich(
        key,
        period=period,
        scope=scope,
        population=fmt.count(sheet.population),
        cases=voice.link(behind_href(cases), fmt.count(cases.numerator)),
        success=voice.link(behind_href(success), words.value(success, voice) or "—"),
        zero=voice.link("/figures/zero" + view.query(), fmt.count(idle.numerator)),
    )


def _tiles(
    view: View, sheet: Sheet, before: Any, limits: dict[str, Effective], voice: Voice
) -> list[tuple[str, list[dict[str, Any]]]]:
    return [
        (voice.t(f"figures.group.{group}"), [_tile(sheet.headline[name], before.get(name), limits, voice) for name in names])
        for group, names in GROUPS
    ]


def _tile(figure: Figure, before: Figure | None, limits: dict[str, Effective], voice: Voice) -> dict[str, Any]:
    numerator, denominator = words.units(figure)
    parts = []
    if figure.is_ratio:
        parts = [
            {
                "text": words.short(figure.numerator, numerator), "href": behind_href(figure),
                "title": words.amount(figure.numerator, numerator, voice),
            },
            {
                "text": words.short(figure.denominator or 0, denominator), "href": behind_href(figure, "denominator"),
                "title": words.amount(figure.denominator or 0, denominator, voice),
            },
        ]  # fmt: skip
    return {
        "name": figure.name,
        "title": words.title(figure, voice),
        "value": words.value(figure, voice),
        "href": behind_href(figure),
        "parts": parts,
        "population": fmt.count(figure.population),
        "change": words.change(figure, before, voice),
        "before": words.value(before, voice) if before is not None else None,
        "target": words.target(figure, limits, voice),
    }


def _bars(figures_: Sequence[Figure], voice: Voice) -> list[dict[str, Any]]:
    most = max((one.numerator for one in figures_), default=0)
    whole = sum(one.numerator for one in figures_)
    return [
        {
            "key": one.key,
            "name": words.key_name(one, voice),
            "count": fmt.count(one.numerator),
            "href": behind_href(one),
            "width": share(one.numerator, most),
            "share": fmt.Ratio(one.numerator, whole).percent or "—",
        }
        for one in figures_
    ]


def _hours(sheet: Sheet, voice: Voice) -> dict[str, Any]:
    """24 pairs of bars, 228 units high; the same numbers stand in a table below."""
    most = max(
        (one.numerator + other.numerator for one, other in zip(sheet.hours_work, sheet.hours_rest, strict=True)), default=0
    )
    bars, rows = [], []
    for n, (work, rest) in enumerate(zip(sheet.hours_work, sheet.hours_rest, strict=True)):
        low, high = (round(228 * one.numerator / most, 1) if most else 0.0 for one in (work, rest))
        bars.append({
            "x": f"{n * 100 / 24 + 0.5:.3f}", "label": f"{n:02}", "work": low, "work_y": 240 - low, "rest": high, "rest_y": 240 - low - high,
            "title": voice.t("figures.hourBar", hour=words.key_name(work, voice), work=work.numerator, rest=rest.numerator),
        })  # fmt: skip
        rows.append({
            "name": words.key_name(work, voice),
            "work": fmt.count(work.numerator), "work_href": behind_href(work),
            "rest": fmt.count(rest.numerator), "rest_href": behind_href(rest),
        })  # fmt: skip
    work_sum, rest_sum = (sum(one.numerator for one in group) for group in (sheet.hours_work, sheet.hours_rest))
    peak = max(range(24), key=lambda n: sheet.hours_work[n].numerator + sheet.hours_rest[n].numerator)
    label = voice.t(
        "figures.hoursLabel",
        peak=words.key_name(sheet.hours_work[peak], voice),
        work=fmt.count(work_sum),
        rest=fmt.count(rest_sum),
    )
    return {
        "bars": bars, "rows": rows, "label": label if most else voice.t("figures.hoursNone"), "any": most > 0, "most": fmt.count(most),
        "work": fmt.count(work_sum), "rest": fmt.count(rest_sum),
    }  # fmt: skip


def _items(sheet: Sheet, voice: Voice) -> list[dict[str, Any]]:
    most = sheet.items[0][0].numerator if sheet.items else 0
    return [
        {
            "name": cases.key, "count": fmt.count(cases.numerator), "href": behind_href(cases), "width": share(cases.numerator, most),
            "success": words.value(success, voice) or "—", "success_href": behind_href(success),
        }
        for cases, success in sheet.items
    ]  # fmt: skip


def _codes(sheet: Sheet, voice: Voice) -> list[dict[str, Any]]:
    most = sheet.codes[0][0].numerator if sheet.codes else 0
    return [
        {
            "code": one.key, "name": words.key_name(one, voice), "count": fmt.count(one.numerator), "href": behind_href(one),
            "width": share(one.numerator, most),
            "repair": (words.value(repair, voice) or "") if repair else "", "repair_href": behind_href(repair) if repair else "",
            "ended": fmt.count(repair.denominator or 0) if repair else "0",
            "ended_href": behind_href(repair, "denominator") if repair else "",
        }
        for one, repair in sheet.codes
    ]  # fmt: skip


def _rates(sheet: Sheet, limits: dict[str, Effective], voice: Voice) -> list[dict[str, Any]]:
    """What each rate is made of, and what is in neither part."""
    rows = []
    for name in RATES:
        figure = sheet.headline[name]
        numerator, denominator = words.units(figure)
        rows.append({
            "title": words.title(figure, voice),
            "value": words.value(figure, voice),
            "href": behind_href(figure),
            "numerator": words.amount(figure.numerator, numerator, voice),
            "denominator": words.amount(figure.denominator or 0, denominator, voice),
            "denominator_href": behind_href(figure, "denominator"),
            "against": words.shown_parts(figure, words.AGAINST, voice),
            "neither": words.shown_parts(figure, words.NEITHER, voice),
            "target": words.target(figure, limits, voice),
        })  # fmt: skip
    return rows


def _ranking(
    rows: Sequence[tuple[Figure, Member]], everyone: Sequence[tuple[Figure, Member]], voice: Voice, *, first: int = 0
) -> list[dict[str, Any]]:
    most = everyone[0][0].numerator if everyone else 0
    return [
        {
            "rank": first + n,
            "id": member.id,
            "label": member.code or member.id,
            "name": _either(member.name_zh, member.name_en, voice),
            "site": _either(member.site_zh, member.site_en, voice),
            "type": type_name(voice, member.type),
            "cases": figure.numerator,
            "count": fmt.count(figure.numerator),
            "href": behind_href(figure),
            "width": share(figure.numerator, most),
            "machine_days": member.machine_days,
            "per_day": f"{figure.numerator / member.machine_days:,.2f}" if member.machine_days else "—",
        }
        for n, (figure, member) in enumerate(rows, 1)
    ]


def _zero_rows(rows: Sequence[ZeroCase], limits: dict[str, Effective], voice: Voice) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        member = row.member
        wanted = proposal(
            row.months, row.mark, relocate_months=limits["idle.relocate_months"].value, withdraw_months=limits["idle.withdraw_months"].value
        )  # fmt: skip
        found.append({
            "id": member.id,
            "label": member.code or member.id,
            "name": _either(member.name_zh, member.name_en, voice),
            "site": _either(member.site_zh, member.site_en, voice),
            "last_day": "" if row.last_ms is None else local_day(row.last_ms, member.zone),
            "days_since": row.days_since,
            "months": row.months,
            "mark": row.mark,
            "mark_words": voice.t(f"figures.mark.{row.mark}") if row.mark else "",
            "proposal": wanted,
            "proposal_words": voice.t(f"figures.proposal.{wanted}") if wanted else "",
        })  # fmt: skip
    return found


def _zero_sentence(sheet: Sheet, limits: dict[str, Effective], voice: Voice) -> str:
    rows = _zero_rows(sheet.zero, limits, voice)
    if not rows:
        return (
            voice.t("figures.zeroNone", population=fmt.count(sheet.population))
            if sheet.population
            else voice.t("figures.zeroNobody")
        )
    return voice.t(
        "figures.zeroSentence",
        n=fmt.count(len(rows)),
        population=fmt.count(sheet.population),
        marked=fmt.count(sum(bool(row["mark"]) for row in rows)),
        proposed=fmt.count(sum(row["proposal"] in {"relocate", "withdraw"} for row in rows)),
    )


def _lines(sheet: Sheet, voice: Voice) -> list[dict[str, Any]]:
    found = []
    for line in sheet.lines:
        group = line.group
        name = _either(group.name_zh, group.name_en, voice) or group.code or voice.t("figures.noArea")
        if group.kind == "itself":
            name = voice.t("figures.direct", name=name)
        cells = [
            {
                "text": words.value(figure, voice), "href": behind_href(figure),
                "title": f"{words.short(figure.numerator, words.units(figure)[0])} / {words.short(figure.denominator or 0, words.units(figure)[1])}"
                if figure.is_ratio else "",
            }
            for figure in (line.figures[one] for one in LINE_FIGURES)
        ]  # fmt: skip
        asked = line.figures["cases"].question
        found.append({
            "name": name, "href": "/figures" + View(asked, "").query(), "population": fmt.count(line.figures["cases"].population), "cells": cells,
        })  # fmt: skip
    return found


def _either(zh: str, en: str, voice: Voice) -> str:
    return (zh if voice.lang == "zh" else en) or zh or en
