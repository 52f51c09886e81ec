"""The audit log, for auditors and operators: what was done, by whom, with which result; whether the log is whole; the log as a file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from litestar import Response, get, post

from fleet_server.audit import export as export_of_log
from fleet_server.audit.verify import Report, verify
from fleet_server.console import audit_view, export
from fleet_server.console.desk import Asked, TheDesk, is_fragment
from fleet_server.console.pages.evidence import root_of
from fleet_server.console.queries import audit as queries
from fleet_server.console.render import Voice
from fleet_server.reports.listing import Column

AUDIT: Final = {"permission": "audit"}


@get("/audit", opt=AUDIT)
async def audit_page(request: Asked, desk: TheDesk) -> Response[str]:
    voice = desk.voice(request)
    view = audit_view.parse_view({name: str(value) for name, value in request.query_params.items()})
    rows, total = await queries.rows(desk.db, view, view.span(desk.view.zone))
    choices = [
        ("by", [(name, name) for name in await queries.actors(desk.db)]),
        ("about", [(name, audit_view.group_words(voice, name)) for name in await queries.groups(desk.db)]),
        ("result", [(name, voice.t(f"audit.result.{name}")) for name in audit_view.RESULTS]),
    ]
    labels = {name: dict(options) for name, options in choices}
    first = (view.page - 1) * queries.PER_PAGE + 1 if rows else 0
    values: dict[str, Any] = {
        "view": view,
        "rows": [_row(row, voice) for row in rows],
        "choices": choices,
        "active": [(name, _label(voice, name, labels.get(name, {}).get(value, value))) for name, value in view.filters.items()],
        "first": first,
        "last": first + len(rows) - 1 if rows else 0,
        "total": total,
        "page": view.page,
        "pages": max(1, -(-total // queries.PER_PAGE)),
    }
    if is_fragment(request):
        return await desk.part(request, "_audit_list.html", voice=voice, **values)
    return await desk.page(request, "audit.html", nav="orders", voice=voice, **values)


@get("/audit.csv", opt=AUDIT)
async def audit_csv(request: Asked, desk: TheDesk) -> Response[bytes]:
    """All rows of the view with their hashes, oldest first, so that the chain can be followed elsewhere."""
    voice = desk.voice(request)
    view = audit_view.parse_view({name: str(value) for name, value in request.query_params.items()})
    t = voice.t
    columns = [
        Column(t("audit.column.number"), "count"), Column(t("audit.column.at"), "moment"), Column(t("audit.column.by")),
        Column(t("audit.column.role")), Column(t("audit.column.action")), Column(t("audit.column.object")),
        Column(t("audit.column.detail")), Column(t("audit.column.result")), Column(t("audit.column.hash")),
    ]  # fmt: skip
    rows = await queries.every(desk.db, view, view.span(desk.view.zone))
    cells = [
        [
            row["id"], row["at_ms"], row["actor"], row["role"], row["action"], row["object"], row["detail"], row["result"],
            bytes(row["hash"]).hex(),
        ]
        for row in rows
    ]  # fmt: skip
    return export.csv_file("audit", columns, cells, voice)


@post("/audit/verify", status_code=200, opt=AUDIT)
async def audit_verify(request: Asked, desk: TheDesk) -> Response[str]:
    """Follow the chain from end to end and check the server's signatures over it, on a connection that holds up no page."""
    voice, fleet, root = desk.voice(request), desk.settings.fleet, root_of(desk)
    if root is None:
        return await desk.part(request, "_audit_verdict.html", voice=voice, sound=False, said=[voice.t("audit.verdict.noRoot")])
    beside = await asyncio.to_thread(export_of_log.heads_of_file, desk.settings.layout.audit_heads)

    def check(connection: sqlite3.Connection) -> Report:
        source = export_of_log.from_database(connection, fleet)
        return verify(source.rows, [*source.heads, *beside], source.cuts, source.keys(root), fleet)

    report = await desk.db.ponder(check)
    said = verdict_words(voice, report)
    return await desk.part(request, "_audit_verdict.html", voice=voice, sound=report.problem is None, said=said)


HANDLERS = [audit_page, audit_csv, audit_verify]


def verdict_words(voice: Voice, report: Report) -> list[str]:
    """What the check found out, in sentences."""
    t = voice.t
    if report.problem is not None:
        return [t("audit.verdict.broken"), t(f"audit.verdict.{report.problem.kind}", row=report.problem.row)]
    signed = t("audit.verdict.signed", n=report.signed_to) if report.signed_to else t("audit.verdict.unsignedYet")
    return [t("audit.verdict.whole", n=report.rows, first=report.first, last=report.last), signed]


def _row(row: Mapping[str, Any], voice: Voice) -> dict[str, Any]:
    return {
        "id": row["id"],
        "at_ms": row["at_ms"],
        "by": row["actor"] or voice.t("audit.nobody"),
        "role": voice.t(f"role.{row['role']}") if voice.t.has(f"role.{row['role']}") else row["role"],
        "action": audit_view.action_words(voice, row["action"]),
        "word": row["action"],
        "object": row["object"],
        "details": audit_view.detail_words(voice, row["action"], row["detail"]),
        "result": row["result"],
        "result_word": voice.t(f"audit.result.{row['result']}")
        if voice.t.has(f"audit.result.{row['result']}")
        else row["result"],
    }


def _label(voice: Voice, name: str, value: str) -> str:
    return voice.t(f"audit.filtered.{name}", value=value) if name in {"from", "to", "q"} else value
