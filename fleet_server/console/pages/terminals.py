"""The terminal list, its rows, its CSV export."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Final

from litestar import Response, get
from litestar.params import FromQuery
from markupsafe import Markup

from fleet_server.console import format as fmt
from fleet_server.console import listing
from fleet_server.console.desk import Asked, Desk, TheDesk, is_fragment
from fleet_server.console.fleet import Fleet
from fleet_server.console.history import Cell
from fleet_server.console.listing import Selected, View
from fleet_server.console.looks import LOOK
from fleet_server.console.model import TerminalNow
from fleet_server.console.queries import lists
from fleet_server.console.render import Voice
from fleet_server.console.words import fault_title, hours_words, slot_name, type_name
from fleet_server.terminals.state import WORST_FIRST, StateCode
from protocols.canon.faults import FAULTS

MAX_IDS: Final = 60


@get("/terminals")
async def terminal_list(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    view = listing.parse_view(_params(request))
    selected = await _select(desk, fleet, view, voice.now_ms)
    values = {**await _rows(desk, fleet, selected.shown, voice), **_around(fleet, selected, voice)}
    if is_fragment(request):
        return await desk.part(request, "_terminal_list.html", voice=voice, **values)
    return await desk.page(request, "terminals.html", nav="terminals", voice=voice, **values)


@get("/terminals/rows")
async def terminal_rows(request: Asked, desk: TheDesk, ids: FromQuery[str] = "") -> Response[str]:
    """Single rows, each swapped in its own place: for a list that must not move now."""
    fleet, voice = await desk.fleet(request), desk.voice(request)
    wanted = [fleet.by_id[name] for name in ids.split(",")[:MAX_IDS] if name in fleet.by_id]
    values = await _rows(desk, fleet, wanted, voice)
    return await desk.part(request, "_rows_oob.html", voice=voice, **values)


@get("/terminals.csv")
async def terminal_csv(request: Asked, desk: TheDesk) -> Response[bytes]:
    """All rows of the view, not only its page. Cells that a spreadsheet would run get an apostrophe; the BOM makes Excel read UTF-8."""
    fleet, voice = await desk.fleet(request), desk.voice(request)
    selected = await _select(desk, fleet, listing.parse_view(_params(request)), voice.now_ms)
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([voice.t(f"column.{name}") for name in CSV_COLUMNS])
    for row in selected.rows:
        writer.writerow([fmt.csv_cell(cell) for cell in _csv_row(row, voice)])
    stamp = fmt.stamp(voice.now_ms, voice.zone).replace(" ", "-").replace(":", "")
    return Response(
        out.getvalue().encode("utf-8-sig"),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="terminals-{stamp}.csv"'},
    )


HANDLERS = [terminal_list, terminal_rows, terminal_csv]

CSV_COLUMNS: Final = (
    "code", "name", "state", "site", "area", "type", "fault", "severity", "since", "today", "month", "age", "version",
)  # fmt: skip


def _csv_row(row: TerminalNow, voice: Voice) -> list[str]:
    worst, lang = row.worst, voice.lang
    return [
        row.label,
        row.name(lang),
        voice.t(f"state.{LOOK[row.state]}"),
        row.place.name(lang),
        row.place.area_path(lang),
        type_name(voice, row.type),
        worst.sentence(lang) if worst else "",
        voice.t(f"severity.{worst.severity}") if worst else "",
        voice.stamp(worst.since_ms) if worst else "",
        str(row.cases_today),
        str(row.cases_30d),
        voice.stamp(row.heard_ms) if row.heard_ms else "",
        row.version or "",
    ]


def _params(request: Asked) -> dict[str, str]:
    return {name: str(value) for name, value in request.query_params.items()}


async def _select(desk: Desk, fleet: Fleet, view: View, now_ms: int) -> Selected:
    down = await lists.downtime_ms(desk.db, now_ms) if view.sort == "downtime" else None
    return listing.select(fleet.terminals, view, now_ms, downtime_ms=down)


async def _rows(desk: Desk, fleet: Fleet, shown: Sequence[TerminalNow], voice: Voice) -> dict[str, Any]:
    week = await lists.week_cells(desk.db, shown, fleet.calendar, voice.now_ms)
    wanted = wanted_version(fleet.terminals)
    drawn: dict[tuple[str, int, Cell], Markup] = {}
    rows = [_row(terminal, _week(week[terminal.id], terminal.place.timezone, voice, drawn), wanted, voice) for terminal in shown]
    return {"rows": rows, "wanted_version": wanted, "oob": False}


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


def wanted_version(terminals: Iterable[TerminalNow]) -> str:
    """The newest agent version of the fleet, until versions are assigned."""
    versions = {terminal.version for terminal in terminals if terminal.version}
    return max(versions, key=_version_key, default="")


def _version_key(version: str) -> tuple[Any, ...]:
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in version.replace("-", ".").split("."))


def _row(terminal: TerminalNow, week: Markup, wanted: str, voice: Voice) -> dict[str, Any]:
    return {
        "now": terminal,
        "look": LOOK[terminal.state],
        "type": type_name(voice, terminal.type),
        "hours": hours_words(voice, terminal.place, voice.now_ms),
        "fault_title": "\n".join(fault_title(fault, voice) for fault in terminal.faults),
        "lamps": [
            {
                "look": look,
                "title": voice.t("lamp.title", slot=slot_name(voice, slot), what=voice.t(f"lamp.{look}")),
            }
            for slot, look in terminal.lamps
        ],
        "week": week,
        "idle": listing.is_idle(terminal, voice.now_ms),
        "old_version": bool(terminal.version) and terminal.version != wanted,
    }


def _around(fleet: Fleet, selected: Selected, voice: Voice) -> dict[str, Any]:
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
        "choices": choices,
        "active": [(name, _filter_label(name, value, labels, fleet, voice)) for name, value in view.filters.items()],
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
    versions = sorted({terminal.version for terminal in fleet.terminals if terminal.version}, key=_version_key, reverse=True)
    return [
        ("area", ordered),
        ("kind", [(kind, voice.t(f"kind.{kind}") if voice.t.has(f"kind.{kind}") else kind) for kind in kinds]),
        ("type", [(name, type_name(voice, name)) for name in types]),
        ("code", [(code, _code_label(code, lang)) for code in codes]),
        ("version", [(version, version) for version in versions]),
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


def _filter_label(name: str, value: str, labels: dict[str, dict[str, str]], fleet: Fleet, voice: Voice) -> str:
    if name == "q":
        return voice.t("filter.q", text=value)
    if name == "idle":
        return voice.t("filter.idle")
    if name == "state":
        return voice.t(f"tile.{value}") if value in listing.GROUPS else voice.t(f"state.{LOOK[StateCode(value)]}")
    if name == "site":
        place = next((terminal.place for terminal in fleet.terminals if terminal.place.code == value), None)
        return place.name(voice.lang) if place else value
    return labels.get(name, {}).get(value, value).strip("　")
