"""What a figure is made of: its definition, its parts, and every row of each part, leading to the terminal and to its signed evidence."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from litestar import Response, get

from fleet_server.console import figures_words as words
from fleet_server.console import format as fmt
from fleet_server.console.desk import Asked, TheDesk
from fleet_server.console.export import csv_file, xlsx_file
from fleet_server.console.figures_view import PER_PAGE, behind_href, pairs_of, read_figure
from fleet_server.console.pages.figures import pager, view_of
from fleet_server.console.queries.figures import Listed, Row, export_behind, list_behind, load_places, terminal_day
from fleet_server.console.render import Voice
from fleet_server.console.words import slot_name
from fleet_server.figures.catalogue import CATALOGUE, POPULATION
from fleet_server.figures.figure import Figure
from fleet_server.figures.question import Period
from fleet_server.reports.listing import Column
from fleet_server.sites.calendar import local_time
from protocols.canon.faults import FAULTS

DRILL: Final = {
    ("active_share", "numerator"): ("cases_success", ""),
    ("zero_terminals", "numerator"): ("cases", ""),
    ("fault_rate", "numerator"): ("faults", ""),
    ("online_rate", "numerator"): ("online_rate", "offline"),
    ("online_rate", "denominator"): ("online_rate", "offline"),
}
"""Where a row that is a terminal leads on to: another figure of this terminal alone. Elsewhere: its cases."""


@get("/figures/behind")
async def behind_page(request: Asked, desk: TheDesk) -> Response[str]:
    voice = desk.voice(request)
    view, (name, key, part) = view_of(request, desk, voice), read_figure(request.query_params)
    skip = (view.page - 1) * PER_PAGE
    listed = await desk.db.ponder(
        lambda conn: list_behind(conn, view.question, name, key, part, skip=skip, limit=PER_PAGE, now_ms=voice.now_ms)
    )
    names = (await desk.db.look(load_places)).names(voice.lang)
    if terminal := view.scope.terminal:
        known = (await desk.fleet(request)).by_id.get(terminal)
        names[f"terminal:{terminal}"] = known.label if known else terminal
    figure = listed.figure
    address = {"figure": name, "key": key, "part": "" if part == "numerator" else part}
    kept = {word: value for word, value in address.items() if value}
    values: dict[str, Any] = {
        "view": view,
        "title": _title(figure, voice, names),
        "definition": CATALOGUE[name].formula(voice.lang),
        "rule": POPULATION[voice.lang],
        "population": fmt.count(figure.population),
        "value": words.value(figure, voice),
        "sum": _sum(figure, voice),
        "period": words.period_words(view.period.first, view.period.last, voice),
        "scope": words.scope_words(view.scope.given, names, voice),
        "as_of": voice.now_ms,
        "parts": _parts(listed, voice),
        "part_title": _part_title(listed, voice),
        "count_words": _count_words(listed, voice),
        "rows": [_row(row, listed, voice) for row in listed.rows],
        "weighed": _weight_head(listed, voice, "length"),
        "back": "/figures" + view.query(),
        "file": urlencode(pairs_of(view.question) | kept),
        **pager(
            listed.count,
            min(view.page, max(1, -(-listed.count // PER_PAGE))),
            lambda n: "/figures/behind" + view.paged(n, **kept),
        ),
    }
    return await desk.page(request, "figures_behind.html", nav="figures", voice=voice, **values)


@get(["/figures/behind.csv", "/figures/behind.xlsx"])
async def behind_file(request: Asked, desk: TheDesk) -> Response[bytes]:
    """All rows of the part, each with the batch and record number under which its evidence lies."""
    voice = desk.voice(request)
    view, (name, key, part) = view_of(request, desk, voice), read_figure(request.query_params)
    listed = await desk.db.ponder(lambda conn: export_behind(conn, view.question, name, key, part, now_ms=voice.now_ms))
    columns = [
        Column(voice.t("figures.column.terminal"), width=14), Column(voice.t("figures.column.name"), width=30),
        Column(voice.t("figures.column.site"), width=30), Column(voice.t("figures.column.day"), "day", 12),
        Column(voice.t("figures.column.at"), width=20), Column(voice.t("figures.column.what"), width=44),
        Column(_weight_head(listed, voice) or voice.t("figures.column.weight"), "count"), Column(voice.t("figures.column.batch"), width=12),
        Column(voice.t("figures.column.idx"), width=8), Column(voice.t("figures.column.id"), width=30),
    ]  # fmt: skip
    rows = [_file_row(row, voice) for row in listed.rows]
    title = f"{_title(listed.figure, voice, {})} · {_part_title(listed, voice)}"
    filename = "-".join(word for word in (name, part, view.period.text) if word).replace("..", "_")
    if request.url.path.endswith(".csv"):
        return csv_file(filename, columns, rows, voice)
    return await xlsx_file(filename, title, columns, rows, voice)


@get("/figures/day")
async def day_page(request: Asked, desk: TheDesk) -> Response[str]:
    """What one terminal's day is made of: signed summaries, and how the platform saw it."""
    voice = desk.voice(request)
    terminal, day = request.query_params.get("terminal", "")[:80], request.query_params.get("day", "")[:10]
    Period(day, day)  # refuses what is no day
    told = await desk.db.look(lambda conn: terminal_day(conn, terminal, day))
    zone = told.terminal["timezone"] or voice.zone
    sums = told.sums
    values: dict[str, Any] = {
        "terminal": terminal,
        "label": told.terminal["code"] or terminal,
        "name": (told.terminal["name_zh"] if voice.lang == "zh" else told.terminal["name_en"]) or told.terminal["name_zh"],
        "day": day,
        "zone": zone,
        "sums": [
            (voice.t(f"figures.sum.{name}"), voice.duration(sums[f"{name}_s"] * 1000))
            for name in ("scheduled", "usable", "partial", "unusable", "silent", "blind", "maintenance")
            if sums
        ],
        "summaries": [
            {
                **row,
                "parts": [voice.duration(row[f"{name}_s"] * 1000) for name in ("observed", "usable", "partial", "unusable")],
                "proof": f"/evidence/{row['batch']}/{row['idx']}" if row["batch"] else "",
            }
            for row in told.summaries
        ],
        "presence": [{**row, "state_words": voice.t(f"presence.{row['state']}")} for row in told.presence],
    }
    return await desk.page(request, "figures_day.html", nav="figures", voice=voice, **values)


HANDLERS = [behind_page, behind_file, day_page]


# Words ----------------------------------------------------------------------------------------------------------------------------------


def _title(figure: Figure, voice: Voice, names: dict[str, str]) -> str:
    title = CATALOGUE[figure.name].title(voice.lang)
    if not figure.key:
        return title
    labels = {code.removeprefix("terminal:"): name for code, name in names.items() if code.startswith("terminal:")}
    return voice.t("figures.titleOf", title=title, part=words.key_name(figure, voice, labels))


def _sum(figure: Figure, voice: Voice) -> str:
    """`5,113 件 ÷ 5,218 件 = 97.9 %`; of a mean also what it is multiplied with."""
    if not figure.is_ratio:
        return ""
    numerator, denominator = words.units(figure)
    parts = {
        "numerator": words.amount(figure.numerator, numerator, voice),
        "denominator": words.amount(figure.denominator or 0, denominator, voice),
        "value": words.value(figure, voice) or "—",
    }
    if figure.unit == "perTerminal" and figure.factor != 1:
        return voice.t("figures.sumTimes", **parts, factor=f"{figure.factor:g}")
    return voice.t("figures.sumOf", **parts)


def _unit_of(listed: Listed) -> str:
    numerator, denominator = words.units(listed.figure)
    if listed.part == "numerator":
        return numerator
    if listed.part == "denominator":
        return denominator
    for table in (words.AGAINST, words.NEITHER):
        for _, part, unit in table.get(listed.figure.name, ()):
            if part == listed.part:
                return unit
    return "second" if listed.is_weighed else "case"


def _part_title(listed: Listed, voice: Voice) -> str:
    if listed.part == "numerator" and not listed.figure.is_ratio:
        return voice.t("figures.part.counted")
    return voice.t(f"figures.part.{listed.part}")


def _parts(listed: Listed, voice: Voice) -> list[dict[str, Any]]:
    """Tabs: numerator, denominator, and what is told apart."""
    figure = listed.figure
    numerator, denominator = words.units(figure)
    found = [
        {
            "part": "numerator", "name": voice.t("figures.part.numerator" if figure.is_ratio else "figures.part.counted"),
            "text": words.amount(figure.numerator, numerator, voice), "href": behind_href(figure), "why": "",
        }
    ]  # fmt: skip
    if figure.is_ratio:
        found.append({
            "part": "denominator", "name": voice.t("figures.part.denominator"),
            "text": words.amount(figure.denominator or 0, denominator, voice), "href": behind_href(figure, "denominator"), "why": "",
        })  # fmt: skip
    for table, why in ((words.AGAINST, "against"), (words.NEITHER, "neither")):
        for name, part, unit in table.get(figure.name, ()):
            if number := figure.shown.get(name, 0):
                found.append({
                    "part": part, "name": voice.t(f"figures.part.{part}"), "text": words.amount(number, unit, voice),
                    "href": behind_href(figure, part), "why": voice.t(f"figures.why.{why}"),
                })  # fmt: skip
    return found


def _count_words(listed: Listed, voice: Voice) -> str:
    if listed.is_weighed:
        return voice.t("figures.rowsWeighed", n=fmt.count(listed.count), sum=words.amount(listed.number, _unit_of(listed), voice))
    return voice.t("figures.rowsCounted", n=fmt.count(listed.count))


def _weight_head(listed: Listed, voice: Voice, time: str = "seconds") -> str:
    """Heading of what each row weighs; empty where each counts once. `time` is the word for weights in seconds."""
    if not listed.is_weighed:
        return ""
    return voice.t("figures.column.machineDays" if _unit_of(listed) == "machineDay" else f"figures.column.{time}")


def _row(row: Row, listed: Listed, voice: Voice) -> dict[str, Any]:
    one = row.behind
    weight = ""
    if listed.is_weighed:
        weight = fmt.count(one.weight) if _unit_of(listed) == "machineDay" else voice.duration(one.weight * 1000)
    further, further_words = _further(row, listed, voice)
    return {
        "terminal": one.terminal,
        "label": row.terminal,
        "name": (row.name_zh if voice.lang == "zh" else row.name_en) or row.name_zh,
        "site": (row.site_zh if voice.lang == "zh" else row.site_en) or row.site_zh,
        "at_ms": one.at_ms,
        "zone": row.zone,
        "day": one.day or "",
        "what": _what(row, voice),
        "weight": weight,
        "proof": row.proof,
        "inferred": one.kind == "presence" or (one.kind == "fault" and row.proof.startswith("/evidence/fault/")),
        "further": further,
        "further_words": further_words,
    }


def _further(row: Row, listed: Listed, voice: Voice) -> tuple[str, str]:
    one = row.behind
    if one.kind in {"terminalDay", "check"}:
        day = one.day or ""
        return "/figures/day?" + urlencode({"terminal": one.terminal, "day": day}), voice.t("figures.further.day")
    if one.kind != "terminal":
        return "", ""
    name, part = DRILL.get((listed.figure.name, listed.part), ("cases", ""))
    pairs = pairs_of(listed.figure.question) | {"terminal": one.terminal, "figure": name, "part": part}
    return "/figures/behind?" + urlencode({key: value for key, value in pairs.items() if value}), voice.t(
        f"figures.further.{name}"
    )


def _what(row: Row, voice: Voice) -> str:
    """One row in words."""
    one, told, t = row.behind, row.details, voice.t
    if one.kind == "session" and told:
        return t(
            "figures.what.session", item=told["item"], outcome=t(f"figures.outcome.{told['outcome']}"),
            duration=voice.duration(told["duration_ms"]),
        )  # fmt: skip
    if one.kind == "rating" and told:
        return t("figures.what.rating", level=t(f"figures.level.{told['level']}"), slot=slot_name(voice, told["slot"]))
    if one.kind == "queueEvent" and told:
        return t("figures.what.queue", action=t(f"figures.action.{told['action']}"), slot=slot_name(voice, told["slot"]))
    if one.kind == "fault" and told:
        return _fault_words(row, voice)
    if one.kind == "presence" and told:
        end = "…" if told["to_ms"] is None else _stamp(told["to_ms"], row.zone)
        return t("figures.what.presence", state=t(f"presence.{told['state']}"), start=_stamp(told["from_ms"], row.zone), end=end)
    if one.kind == "check":
        return t("figures.what.broken", n=len(one.note.split())) if one.note else t("figures.what.intact")
    if one.kind == "terminal" and one.note:
        return t(f"figures.mark.{one.note}")
    return t(f"figures.kind.{one.kind}")


def _fault_words(row: Row, voice: Voice) -> str:
    told = row.details
    kind = FAULTS.get(told["code"])
    problem = told["code"] if kind is None else (kind.zh if voice.lang == "zh" else kind.en)
    if told["cleared_ms"] is None:
        return voice.t("figures.what.faultOpen", problem=problem, start=_stamp(told["since_ms"], row.zone))
    end, lasted = _stamp(told["cleared_ms"], row.zone), voice.duration(told["cleared_ms"] - told["since_ms"])
    return voice.t("figures.what.fault", problem=problem, start=_stamp(told["since_ms"], row.zone), end=end, lasted=lasted)


def _stamp(at_ms: int, zone: str) -> str:
    return f"{local_time(at_ms, zone):%m-%d %H:%M}"


def _file_row(row: Row, voice: Voice) -> tuple[object, ...]:
    one = row.behind
    return (
        row.terminal,
        (row.name_zh if voice.lang == "zh" else row.name_en) or row.name_zh,
        (row.site_zh if voice.lang == "zh" else row.site_en) or row.site_zh,
        one.day or (None if one.at_ms is None else f"{local_time(one.at_ms, row.zone):%Y-%m-%d}"),
        "" if one.at_ms is None else fmt.stamp(one.at_ms, row.zone),
        _what(row, voice),
        one.weight,
        str(row.details.get("batch") or ""),
        str(row.details.get("idx", "")) if row.details.get("batch") else "",
        one.id,
    )
