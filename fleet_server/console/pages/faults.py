"""The fault list: tabs, filters, groups, and the same list as a file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from litestar import Response, get

from fleet_server.console import export, fault_view
from fleet_server.console.desk import Asked, Desk, TheDesk, is_fragment
from fleet_server.console.fault_view import TABS, FaultView
from fleet_server.console.fleet import Fleet
from fleet_server.console.model import SEVERITY_RANK, FaultNow, TerminalNow
from fleet_server.console.profiles import model_name
from fleet_server.console.queries import lists
from fleet_server.console.render import Voice
from fleet_server.console.words import slot_name
from fleet_server.reports.listing import Column
from fleet_server.sites.calendar import day_span_ms
from fleet_server.thresholds.rules import effective
from protocols.canon.faults import FAULTS

OPERATOR: Final = {"role": "operator"}
ACTED: Final = {"HX-Trigger": "kf:acted"}
"""Tells the page that asked to read its lists again."""
EXPORT_MAX: Final = 100_000
"""Rows of a file: more is a matter of weeks of alarms, and of a narrower filter."""


@get("/faults")
async def fault_list(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    view = fault_view.parse_view({name: str(value) for name, value in request.query_params.items()})
    values = await _list(desk, fleet, voice, view, request.user.name)
    if is_fragment(request):
        return await desk.part(request, "_fault_list.html", voice=voice, **values)
    return await desk.page(request, "faults.html", nav="faults", voice=voice, **values)


@get("/faults.csv")
async def fault_csv(request: Asked, desk: TheDesk) -> Response[bytes]:
    """All rows of the view, not only its page."""
    voice = desk.voice(request)
    return export.csv_file("faults", _columns(voice), await _export_rows(request, desk, voice), voice)


@get("/faults.xlsx")
async def fault_xlsx(request: Asked, desk: TheDesk) -> Response[bytes]:
    voice = desk.voice(request)
    rows = await _export_rows(request, desk, voice)
    return await export.xlsx_file("faults", voice.t("faults.exportTitle"), _columns(voice), rows, voice)


HANDLERS = [fault_list, fault_csv, fault_xlsx]


async def _list(desk: Desk, fleet: Fleet, voice: Voice, view: FaultView, me: str) -> dict[str, Any]:
    of_open = _open_faults(fleet, view, me, voice.now_ms)
    if view.tab == "open":
        total = len(of_open)
        pages = max(1, -(-total // fault_view.PER_PAGE))
        page = min(view.page, pages)
        faults: Sequence[FaultNow] = of_open[(page - 1) * fault_view.PER_PAGE : page * fault_view.PER_PAGE]
        by_group: Mapping[str, int] = Counter(_group_of(fault, fleet, view) for fault in of_open)
    else:
        today_ms, _ = day_span_ms(fleet.today, desk.view.zone)
        found = await lists.fault_page(desk.db, view, me, now_ms=voice.now_ms, today_ms=today_ms)
        faults, total, by_group = found.faults, found.total, found.by_group
        pages = max(1, -(-total // fault_view.PER_PAGE))
        page = view.page
    recent = await lists.recent_counts(desk.db, voice.now_ms)
    rows = [_row(fault, fleet.by_id.get(fault.terminal), recent, voice) for fault in faults]
    choices = _choices(fleet, voice, of_open, view)
    labels = {name: dict(options) for name, options in choices}
    return {
        "view": view,
        "tab": view.tab,
        "tabs": [(name, view.query(tab=name, page=1)) for name in TABS],
        "rows": rows,
        "groups": [
            {"name": _group_label(name, fleet, view, voice), "n": by_group.get(name, 0), "rows": list(members)}
            for name, members in groupby(rows, key=lambda row: _group_of(row["fault"], fleet, view))
        ],
        "open_count": len(of_open),
        "choices": choices,
        "active": [
            (name, labels.get(name, {}).get(value) or _label(name, value, fleet, voice)) for name, value in view.filters.items()
        ],
        "recurring_from": await desk.db.look(lambda conn: effective(conn, "recurring.times").value),
        "first": (page - 1) * fault_view.PER_PAGE + 1 if rows else 0,
        "last": (page - 1) * fault_view.PER_PAGE + len(rows),
        "total": total,
        "many": total >= lists.COUNT_MAX,
        "page": page,
        "pages": pages,
    }


def _open_faults(fleet: Fleet, view: FaultView, me: str, now_ms: int) -> list[FaultNow]:
    found = [
        fault
        for terminal in fleet.terminals
        for fault in terminal.faults
        if fault_view.matches(fault, terminal, view, me, now_ms)
    ]
    found.sort(key=lambda fault: fault_view.order(view, fault, fleet.by_id[fault.terminal]))
    return found


def _row(fault: FaultNow, terminal: TerminalNow | None, recent: Mapping[tuple[str, str], int], voice: Voice) -> dict[str, Any]:
    zone = terminal.place.timezone if terminal else voice.zone
    status = fault_view.status_of(fault, voice.now_ms)
    return {
        "fault": fault,
        "known": terminal is not None,
        "label": terminal.label if terminal else fault.terminal,
        "name": terminal.name(voice.lang) if terminal else "",
        "site": terminal.place.name(voice.lang) if terminal else "",
        "device": slot_name(voice, fault.slot) if fault.slot else "",
        "zone": zone,
        "recent": recent.get((fault.terminal, fault.code), 0),
        "status": status,
        "muted_until": voice.clock(fault.muted_until_ms, zone) if status == "muted" and fault.muted_until_ms else "",
        "muted_title": voice.t("mute.title", by=fault.muted_by or "—", reason=fault.muted_reason or "—")
        if status == "muted"
        else "",
    }


def _group_of(fault: FaultNow, fleet: Fleet, view: FaultView) -> str:
    if view.group == "code":
        return fault.code
    terminal = fleet.by_id.get(fault.terminal)
    return terminal.place.code if view.group == "site" and terminal else ""


def _group_label(name: str, fleet: Fleet, view: FaultView, voice: Voice) -> str:
    if not view.group:
        return ""
    return _label(view.group, name, fleet, voice) if name else voice.t("faults.noGroup")


def _choices(fleet: Fleet, voice: Voice, faults: Sequence[FaultNow], view: FaultView) -> list[tuple[str, list[tuple[str, str]]]]:
    """Options of the select fields: what is open now, and what the address asks for, whether it is open or not."""
    every = [(fault, terminal) for terminal in fleet.terminals for fault in terminal.faults]
    codes = {fault.code for fault, _ in every} | {fault.code for fault in faults} | ({view.code} if view.code else set())
    sites = {terminal.place.code for _, terminal in every if terminal.place.code} | ({view.site} if view.site else set())
    owners = {fault.claimed_by for fault, _ in every if fault.claimed_by}
    owners |= {view.owner} if view.owner and view.owner not in fault_view.OWNERS else set()
    return [
        ("severity", [(name, voice.t(f"severity.{name}")) for name in SEVERITY_RANK]),
        ("status", [(name, voice.t(f"fault.state.{name}")) for name in fault_view.STATUSES]),
        (
            "owner",
            [(name, voice.t(f"faults.owner.{name}")) for name in fault_view.OWNERS] + [(name, name) for name in sorted(owners)],
        ),
        ("site", sorted(((code, _label("site", code, fleet, voice)) for code in sites), key=lambda pair: pair[1])),
        ("code", [(code, _label("code", code, fleet, voice)) for code in sorted(codes)]),
    ]


def _label(name: str, value: str, fleet: Fleet, voice: Voice) -> str:
    if name == "code":
        kind = FAULTS.get(value)
        return value if kind is None else (kind.zh if voice.lang == "zh" else kind.en)
    if name == "site":
        place = next((terminal.place for terminal in fleet.terminals if terminal.place.code == value), None)
        return place.name(voice.lang) if place else value
    if name == "profile":
        return model_name(value) or value
    if name == "terminal":
        terminal = fleet.by_id.get(value)
        return terminal.label if terminal else value
    return value


# Files ----------------------------------------------------------------------------------------------------------------------------------


def _columns(voice: Voice) -> list[Column]:
    t = voice.t
    return [
        Column(t("fault.severity"), width=8), Column(t("fault.problem"), width=24), Column(t("filter.code"), width=20),
        Column(t("column.code"), width=12), Column(t("column.name"), width=24), Column(t("column.site"), width=24),
        Column(t("column.area"), width=20), Column(t("fault.impact"), width=14), Column(t("fault.since"), "moment"),
        Column(t("faults.ended"), "moment"), Column(t("faults.hours"), "hours"), Column(t("fault.status")),
        Column(t("mute.until"), "moment"), Column(t("mute.reason"), width=24), Column(t("fault.owner"), width=12),
        Column(t("faults.count24"), "count"), Column(t("devices.profile"), width=24),
    ]  # fmt: skip


async def _export_rows(request: Asked, desk: Desk, voice: Voice) -> list[list[object]]:
    fleet, me = await desk.fleet(request), request.user.name
    params = {name: str(value) for name, value in request.query_params.items()}
    view = fault_view.parse_view(params | {"page": "1", "group": ""})
    if view.tab == "open":
        faults: Sequence[FaultNow] = _open_faults(fleet, view, me, voice.now_ms)
    else:
        today_ms, _ = day_span_ms(fleet.today, desk.view.zone)
        faults = (await lists.fault_page(desk.db, view, me, now_ms=voice.now_ms, today_ms=today_ms, limit=EXPORT_MAX)).faults
    recent: Mapping[tuple[str, str], int] = defaultdict(int, await lists.recent_counts(desk.db, voice.now_ms))
    return [_export_row(fault, fleet.by_id.get(fault.terminal), recent, voice) for fault in faults]


def _export_row(
    fault: FaultNow, terminal: TerminalNow | None, recent: Mapping[tuple[str, str], int], voice: Voice
) -> list[object]:
    lang = voice.lang
    status = fault_view.status_of(fault, voice.now_ms)
    return [
        voice.t(f"severity.{fault.severity}"),
        fault.sentence(lang),
        fault.code,
        terminal.label if terminal else fault.terminal,
        terminal.name(lang) if terminal else "",
        terminal.place.name(lang) if terminal else "",
        terminal.place.area_path(lang) if terminal else "",
        voice.t(f"impact.{fault.impact}"),
        fault.since_ms,
        fault.cleared_ms,
        max(0, (fault.cleared_ms or voice.now_ms) - fault.since_ms) // 1000,
        voice.t(f"fault.state.{status}"),
        fault.muted_until_ms if status == "muted" else None,
        fault.muted_reason or "" if status == "muted" else "",
        fault.claimed_by or "",
        recent[fault.terminal, fault.code],
        model_name(fault.profile) or "",
    ]
