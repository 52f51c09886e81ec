"""The terminal list: rows, filters, columns, and the same list as a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromQuery
from markupsafe import Markup

from fleet_server.console import columns as column_rules
from fleet_server.console import export, listing
from fleet_server.console import format as fmt
from fleet_server.console.desk import Asked, Desk, TheDesk, is_fragment
from fleet_server.console.fleet import Fleet
from fleet_server.console.history import Cell
from fleet_server.console.listing import IDLE_NAME, Idle, Selected, View, version_key, wanted_versions
from fleet_server.console.looks import LOOK
from fleet_server.console.model import TerminalNow
from fleet_server.console.profiles import model_name
from fleet_server.console.queries import lists
from fleet_server.console.queries.lists import Extra
from fleet_server.console.render import Voice
from fleet_server.console.words import fault_title, hours_words, slot_name, type_name
from fleet_server.reports.listing import Column
from fleet_server.sites.calendar import Calendar
from fleet_server.terminals.state import WORST_FIRST, StateCode
from fleet_server.thresholds.defaults import TERMINAL_CLASSES
from fleet_server.thresholds.rules import effective
from protocols.canon.faults import FAULTS

MAX_IDS: Final = 60
PAGE: Final = "terminals"
"""The name of this list among people's choices of columns."""
CERTIFICATE_SOON_MS: Final = 14 * fmt.DAY_MS
"""From when on an expiry is drawn as a warning: agents renew long before (chosen: two weeks to look why one has not)."""
CLOCK_OFF_MS: Final = 10_000
"""From which offset on a clock is drawn as wrong (chosen: far above what a network adds, far below what spoils an evidence)."""


@get("/terminals")
async def terminal_list(request: Asked, desk: TheDesk) -> Response[str]:
    return await _answer(request, desk)


@get("/terminals/rows")
async def terminal_rows(request: Asked, desk: TheDesk, ids: FromQuery[str] = "") -> Response[str]:
    """Single rows, each swapped in its own place: for a list that must not move now."""
    fleet, voice = await desk.fleet(request), desk.voice(request)
    wanted = [fleet.by_id[name] for name in ids.split(",")[:MAX_IDS] if name in fleet.by_id]
    values = await _rows(desk, fleet, wanted, voice, await _idle(desk), await _columns(desk, request))
    return await desk.part(request, "_rows_oob.html", voice=voice, **values)


@post("/terminals/columns", status_code=200)
async def choose_columns(request: Asked, desk: TheDesk) -> Response[str]:
    """Keep which columns this account sees, and show the list so. Without any field: back to the usual ones."""
    names = [value for value in (await request.form()).getall("column", []) if isinstance(value, str)]
    kept = column_rules.chosen(names) if names else column_rules.USUAL
    me = request.user.name
    await desk.db.write(lambda connection: lists.put_column_choice(connection, me, PAGE, kept, desk.now_ms()))
    return await _answer(request, desk)


@get("/terminals.csv")
async def terminal_csv(request: Asked, desk: TheDesk) -> Response[bytes]:
    """All rows of the view, not only its page, in the columns that are shown."""
    voice = desk.voice(request)
    columns, rows = await _export(request, desk, voice)
    return export.csv_file(PAGE, columns, rows, voice)


@get("/terminals.xlsx")
async def terminal_xlsx(request: Asked, desk: TheDesk) -> Response[bytes]:
    voice = desk.voice(request)
    columns, rows = await _export(request, desk, voice)
    return await export.xlsx_file(PAGE, voice.t("list.exportTitle"), columns, rows, voice)


HANDLERS = [terminal_list, terminal_rows, choose_columns, terminal_csv, terminal_xlsx]


async def _answer(request: Asked, desk: Desk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    idle, columns = await _idle(desk), await _columns(desk, request)
    selected = await _select(desk, fleet, listing.parse_view(_params(request)), voice.now_ms, idle)
    values = {**await _rows(desk, fleet, selected.shown, voice, idle, columns), **_around(fleet, selected, voice, idle)}
    if is_fragment(request):
        return await desk.part(request, "_terminal_list.html", voice=voice, **values)
    return await desk.page(request, "terminals.html", nav="terminals", voice=voice, **values)


async def _columns(desk: Desk, request: Asked) -> tuple[str, ...]:
    return column_rules.read_choice(await lists.column_choice(desk.db, request.user.name, PAGE))


async def _idle(desk: Desk) -> Idle:
    """The threshold as people have set it, for the fleet and each class."""
    return await desk.db.look(
        lambda connection: Idle(
            effective(connection, IDLE_NAME).value,
            {name: effective(connection, IDLE_NAME, name).value for name in TERMINAL_CLASSES},
        )
    )


# Files ----------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """What a cell of a file is made of."""

    row: TerminalNow
    extra: Extra
    down_ms: int
    voice: Voice


_Cell = Callable[[_Source], object]


def _cells(column: str, voice: Voice) -> list[tuple[Column, _Cell]]:
    """A column of the page as one or more columns of a file."""
    t, lang = voice.t, voice.lang
    made: dict[str, list[tuple[Column, _Cell]]] = {
        "state": [(Column(t("column.state"), width=16), lambda one: t(f"state.{LOOK[one.row.state]}"))],
        "code": [
            (Column(t("column.code"), width=12), lambda one: one.row.label),
            (Column(t("column.name"), width=24), lambda one: one.row.name(lang)),
        ],
        "site": [
            (Column(t("column.site"), width=24), lambda one: one.row.place.name(lang)),
            (Column(t("column.area"), width=20), lambda one: one.row.place.area_path(lang)),
        ],
        "type": [(Column(t("column.type"), width=12), lambda one: type_name(voice, one.row.type))],
        "fault": [
            (Column(t("column.fault"), width=24), lambda one: one.row.worst.sentence(lang) if one.row.worst else ""),
            (Column(t("column.severity"), width=8), lambda one: t(f"severity.{one.row.worst.severity}") if one.row.worst else ""),
            (Column(t("column.since"), "moment"), lambda one: one.row.worst.since_ms if one.row.worst else None),
        ],
        "lamps": [(Column(t("column.lamps"), width=30), lambda one: _lamp_words(one.row, voice))],
        "downtime": [(Column(t("column.downHours"), "hours"), lambda one: one.down_ms / 1000)],
        "cases": [
            (Column(t("column.today"), "count"), lambda one: one.row.cases_today),
            (Column(t("column.month"), "count"), lambda one: one.row.cases_30d),
        ],
        "age": [(Column(t("column.age"), "moment"), lambda one: one.row.heard_ms)],
        "version": [(Column(t("column.version"), width=10), lambda one: one.row.version or "")],
        "waiting": [(Column(t("column.waiting"), "count"), lambda one: one.row.outbox_depth)],
        "certificate": [(Column(t("column.certificate"), "moment"), lambda one: one.extra.certificate_ms)],
        "offset": [(Column(t("column.offsetMs"), "count"), lambda one: one.extra.offset_ms)],
    }
    return made.get(column) or [
        (Column(t(f"column.{column}"), width=22), lambda one: _extra_words(column, one.row, one.extra, voice))
    ]


async def _export(request: Asked, desk: Desk, voice: Voice) -> tuple[list[Column], list[list[object]]]:
    fleet, columns = await desk.fleet(request), await _columns(desk, request)
    view = listing.parse_view(_params(request))
    down = await lists.downtime_ms(desk.db, voice.now_ms) if "downtime" in columns or view.sort == "downtime" else {}
    selected = listing.select(fleet.terminals, view, voice.now_ms, downtime_ms=down, idle=await _idle(desk))
    extras = await lists.extras(desk.db, [row.id for row in selected.rows], columns)
    # A file begins with what names its rows: it stays in sight beside the rest.
    ordered = sorted(columns, key=lambda column: column != "code")
    cells = [pair for column in ordered for pair in _cells(column, voice)]
    sources = (_Source(row, extras[row.id], down.get(row.id, 0), voice) for row in selected.rows)
    return [column for column, _ in cells], [[cell(one) for _, cell in cells] for one in sources]


def _lamp_words(row: TerminalNow, voice: Voice) -> str:
    """Peripherals that are not fine, in inventory order."""
    return "; ".join(
        voice.t("lamp.title", slot=slot_name(voice, slot), what=voice.t(f"lamp.{look}"))
        for slot, look in row.lamps
        if look in {"bad", "warn", "missing"}
    )


def _extra_words(column: str, row: TerminalNow, extra: Extra, voice: Voice) -> str:
    """The text of a column that nobody sees before choosing it; empty where nothing is known."""
    t = voice.t
    match column:
        case "model":
            return ", ".join(model_name(one) or one for one in extra.models)
        case "serial":
            return ", ".join(extra.serials)
        case "firmware":
            return ", ".join(extra.firmware)
        case "network":
            return t(f"network.{row.place.network}") if t.has(f"network.{row.place.network}") else row.place.network
        case "offset":
            return "" if extra.offset_ms is None else fmt.offset(t, extra.offset_ms)
        case "certificate":
            return "" if extra.certificate_ms is None else voice.stamp(extra.certificate_ms)[:10]
        case "waiting":
            return "" if row.outbox_depth is None else fmt.count(row.outbox_depth)
        case "owned":
            return t(f"class.{row.owner_class}") if t.has(f"class.{row.owner_class}") else row.owner_class
        case _:
            return ", ".join(row.tags)


# Rows -----------------------------------------------------------------------------------------------------------------------------------


def _params(request: Asked) -> dict[str, str]:
    return {name: str(value) for name, value in request.query_params.items()}


async def _select(desk: Desk, fleet: Fleet, view: View, now_ms: int, idle: Idle) -> Selected:
    down = await lists.downtime_ms(desk.db, now_ms) if view.sort == "downtime" else None
    return listing.select(fleet.terminals, view, now_ms, downtime_ms=down, idle=idle)


async def _rows(
    desk: Desk, fleet: Fleet, shown: Sequence[TerminalNow], voice: Voice, idle: Idle, columns: Sequence[str]
) -> dict[str, Any]:
    week = await lists.week_cells(desk.db, shown, fleet.calendar, voice.now_ms) if "downtime" in columns else {}
    extras = await lists.extras(desk.db, [terminal.id for terminal in shown], columns)
    wanted = wanted_versions(fleet.terminals)
    drawn: dict[tuple[str, int, Cell], Markup] = {}
    rows = [
        {
            **_row(terminal, wanted.get(terminal.type, ""), idle, fleet.calendar, voice),
            "week": _week(week[terminal.id], terminal.place.timezone, voice, drawn) if week else "",
            "extra": _extra(terminal, extras[terminal.id], columns, voice),
        }
        for terminal in shown
    ]
    return {"rows": rows, "columns": columns, "is_wide": column_rules.is_wide(columns), "oob": False}


def _extra(terminal: TerminalNow, extra: Extra, columns: Sequence[str], voice: Voice) -> Mapping[str, Any]:
    """Text, and whether it is a warning, of each column beyond the usual ones."""
    late_ms = voice.now_ms + CERTIFICATE_SOON_MS
    warn = {
        "offset": extra.offset_ms is not None and abs(extra.offset_ms) >= CLOCK_OFF_MS,
        "certificate": extra.certificate_ms is not None and extra.certificate_ms < late_ms,
        "waiting": (terminal.outbox_depth or 0) > 1,
    }
    return {
        name: {"text": _extra_words(name, terminal, extra, voice), "warn": warn.get(name, False)}
        for name in columns
        if name in column_rules.HIDDEN
    }


def _week(cells: Sequence[Cell], zone: str, voice: Voice, drawn: dict[tuple[str, int, Cell], Markup]) -> Markup:
    """The week as a strip of cells. `drawn` keeps what rows share: fifty of them have fourteen hundred cells of a few kinds."""
    if all(cell.look == "noData" for cell in cells):
        label = voice.t("list.cellsNone")
    else:
        down, blank = lists.down_and_blank_ms(cells)
        label = voice.t("list.cells", down=voice.duration(down), blank=voice.duration(blank))
    parts = [Markup('<svg class="cells" viewBox="0 0 140 18" role="img" aria-label="{}">').format(label)]
    for place, cell in enumerate(cells):
        key = (zone, place, cell)
        if key not in drawn:
            drawn[key] = _cell(place, cell, zone, voice)
        parts.append(drawn[key])
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def _cell(place: int, cell: Cell, zone: str, voice: Voice) -> Markup:
    span = {"from": fmt.stamp(cell.from_ms, zone)[5:16], "to": fmt.stamp(cell.to_ms, zone)[11:16]}
    title = voice.t("list.cell", **span, state=voice.t(f"lane.{cell.look}"))
    return Markup('<rect x="{}" y="{}" width="4" height="{}" rx="1" class="f-{}"><title>{}</title></rect>').format(
        place * 5, cell.y, cell.height, cell.look, title
    )


def _row(terminal: TerminalNow, wanted: str, idle: Idle, calendar: Calendar, voice: Voice) -> dict[str, Any]:
    return {
        "now": terminal,
        "look": LOOK[terminal.state],
        "type": type_name(voice, terminal.type),
        "hours": hours_words(voice, terminal.place, voice.now_ms, calendar),
        "fault_title": "\n".join(fault_title(fault, voice) for fault in terminal.faults),
        "lamps": [
            {
                "look": look,
                "title": voice.t("lamp.title", slot=slot_name(voice, slot), what=voice.t(f"lamp.{look}")),
            }
            for slot, look in terminal.lamps
        ],
        "idle": listing.is_idle(terminal, voice.now_ms, idle),
        "wanted": wanted if terminal.version and terminal.version != wanted else "",
    }


def _around(fleet: Fleet, selected: Selected, voice: Voice, idle: Idle) -> dict[str, Any]:
    view = selected.view
    chips = [
        {
            "look": LOOK[state],
            "count": count,
            "href": view.query(state="" if view.state == state.value else state.value, page=1),
            "active": view.state == state.value or state in listing.GROUPS.get(view.state, ()),
        }
        for state in WORST_FIRST
        if (count := selected.by_state.of(state)) or view.state == state.value
    ]
    choices = _choices(fleet, voice)
    labels = {name: dict(options) for name, options in choices}
    return {
        "view": view,
        "chips": chips,
        "chip_total": selected.by_state.total,
        "idle_href": view.query(idle=not view.idle, page=1),
        "idle_days": f"{idle.days:g}",
        "all_columns": [(name, voice.t(f"column.{name}"), name in column_rules.FIXED) for name in column_rules.ALL],
        "sorts": column_rules.USUAL,
        "choices": choices,
        "active": [(name, _filter_label(name, value, labels, fleet, voice, idle)) for name, value in view.filters.items()],
        "first": selected.first,
        "last": selected.first + len(selected.shown) - 1 if selected.shown else 0,
        "total": len(selected.rows),
        "page": selected.page,
        "pages": selected.pages,
    }


def _choices(fleet: Fleet, voice: Voice) -> list[tuple[str, list[tuple[str, str]]]]:
    """Options of the select fields: what the fleet has, no more."""
    lang = voice.lang
    areas: dict[str, str] = {}
    for terminal in fleet.terminals:
        path = terminal.place.areas
        for depth, (code, zh, en) in enumerate(path):
            areas.setdefault(code, "　" * depth + ((zh if lang == "zh" else en) or zh or code))
    ordered = sorted(areas.items(), key=lambda item: _area_order(item[0], fleet))
    kinds = sorted({terminal.place.kind for terminal in fleet.terminals if terminal.place.kind})
    types = sorted({terminal.type for terminal in fleet.terminals})
    codes = sorted({fault.code for terminal in fleet.terminals for fault in terminal.faults})
    tags = sorted({tag for terminal in fleet.terminals for tag in terminal.tags})
    versions = sorted({terminal.version for terminal in fleet.terminals if terminal.version}, key=version_key, reverse=True)
    return [
        ("area", ordered),
        ("kind", [(kind, voice.t(f"kind.{kind}") if voice.t.has(f"kind.{kind}") else kind) for kind in kinds]),
        ("type", [(name, type_name(voice, name)) for name in types]),
        ("code", [(code, _code_label(code, lang)) for code in codes]),
        ("version", [(version, version) for version in versions]),
        *([("tag", [(tag, tag) for tag in tags])] if tags else []),
    ]


def _area_order(code: str, fleet: Fleet) -> tuple[str, ...]:
    for terminal in fleet.terminals:
        codes = [item[0] for item in terminal.place.areas]
        if code in codes:
            return tuple(codes[: codes.index(code) + 1])
    return (code,)


def _code_label(code: str, lang: str) -> str:
    kind = FAULTS.get(code)
    return code if kind is None else (kind.zh if lang == "zh" else kind.en)


def _filter_label(name: str, value: str, labels: dict[str, dict[str, str]], fleet: Fleet, voice: Voice, idle: Idle) -> str:
    if name == "q":
        return voice.t("filter.q", text=value)
    if name == "idle":
        return voice.t("filter.idleDays", n=f"{idle.days:g}")
    if name == "state":
        return voice.t(f"tile.{value}") if value in listing.GROUPS else voice.t(f"state.{LOOK[StateCode(value)]}")
    if name == "site":
        place = next((terminal.place for terminal in fleet.terminals if terminal.place.code == value), None)
        return place.name(voice.lang) if place else value
    return labels.get(name, {}).get(value, value).strip("　")
