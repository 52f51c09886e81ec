"""Orders: the list of requests, one request with its result at each terminal, and what may still be done about it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath

from fleet_server.console import export, order_words
from fleet_server.console import format as fmt
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of, is_fragment
from fleet_server.console.fleet import Fleet
from fleet_server.console.order_changes import changes_of
from fleet_server.console.order_forms import REQUEST
from fleet_server.console.order_view import RESULTS, STATES, page_number, parse_view
from fleet_server.console.pages.answers import acted
from fleet_server.console.queries import orders as queries
from fleet_server.console.render import Voice, share
from fleet_server.errors import Conflict, NotFound, Refused
from fleet_server.orders import requests, rules
from fleet_server.reports.listing import Column

APPROVE: Final = {"permission": "approve"}
EXPORT_MAX: Final = rules.TERMINALS_MAX
AGAIN_MS: Final = rules.DAY_MS
"""How long a retry is valid: somebody has just looked why it failed."""
CHANGES_MAX: Final = 12
"""Terminals whose differences are told one by one."""
CANCELLABLE: Final = frozenset({"ready", "sent", "received", "waiting"})


@get("/orders")
async def order_list(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    view = parse_view({name: str(value) for name, value in request.query_params.items()})
    found = await queries.page(desk.db, view)
    names = await queries.terminals_of(desk.db, [bytes(row["id"]) for row in found.rows], 1) if found.rows else {}
    people = await queries.people(desk.db)
    choices = [
        ("kind", [(kind, voice.t(f"order.kind.{kind}")) for kind in order_words.KINDS]),
        ("state", [(state, voice.t(f"orders.status.{state}")) for state in STATES]),
        ("by", [(name, name) for name in people]),
    ]
    labels = {name: dict(options) for name, options in choices}
    labels["terminal"] = {view.terminal: _label(fleet, view.terminal)}
    first = (view.page - 1) * queries.PER_PAGE + 1 if found.rows else 0
    values: dict[str, Any] = {
        "view": view,
        "rows": [row_of(row, fleet, voice, names.get(bytes(row["id"]), [])) for row in found.rows],
        "choices": choices,
        "active": [(name, labels[name].get(value, value)) for name, value in view.filters.items()],
        "first": first,
        "last": first + len(found.rows) - 1 if found.rows else 0,
        "total": found.total,
        "page": view.page,
        "pages": max(1, -(-found.total // queries.PER_PAGE)),
    }
    if is_fragment(request):
        return await desk.part(request, "_order_list.html", voice=voice, **values)
    return await desk.page(request, "orders.html", nav="orders", voice=voice, **values)


@get("/orders/{request_id:str}")
async def order_page(request: Asked, desk: TheDesk, request_id: FromPath[str]) -> Response[str]:
    voice = desk.voice(request)
    values = await _about(request, desk, id_of(request_id), voice)
    if is_fragment(request):
        return await desk.part(request, "_order.html", voice=voice, **values)
    return await desk.page(request, "order.html", nav="orders", voice=voice, **values)


@get("/orders/{request_id:str}/result.csv")
async def order_csv(request: Asked, desk: TheDesk, request_id: FromPath[str]) -> Response[bytes]:
    """Every terminal of the request."""
    fleet, voice, wanted = await desk.fleet(request), desk.voice(request), id_of(request_id)
    row = await _row(desk, wanted)
    items = await queries.items(desk.db, wanted, limit=EXPORT_MAX)
    t = voice.t
    columns = [
        Column(t("column.code"), width=12), Column(t("column.name"), width=24), Column(t("column.site"), width=24),
        Column(t("orders.column.what"), width=30), Column(t("orders.column.result"), width=12), Column(t("orders.column.why"), width=40),
        Column(t("orders.column.since"), "moment"), Column(t("orders.column.times"), "count"),
    ]  # fmt: skip
    told = order_words.what(voice, row["kind"], row["body"])
    return export.csv_file("order", columns, [_export_row(item, told, fleet, voice) for item in items], voice)


@post("/orders/{request_id:str}/approve", status_code=200, opt=APPROVE)
async def approve(request: Asked, desk: TheDesk, request_id: FromPath[str]) -> Response[str]:
    form, wanted, me = await form_of(request), id_of(request_id), request.user.name
    try:
        await desk.db.write(lambda conn: requests.approve(conn, wanted, by=me, now_ms=desk.now_ms(), note=form.get("note", "")))
    except Refused as refused:
        reason = refused.reason
        await desk.db.write(lambda conn: requests.note_refusal(conn, wanted, by=me, reason=reason, now_ms=desk.now_ms()))
        raise
    return acted(desk.voice(request).t("approval.approved"))


@get("/orders/{request_id:str}/reject", opt=APPROVE)
async def reject_form(request: Asked, desk: TheDesk, request_id: FromPath[str]) -> Response[str]:
    return await _reject(request, desk, id_of(request_id))


@post("/orders/{request_id:str}/reject", status_code=200, opt=APPROVE)
async def reject(request: Asked, desk: TheDesk, request_id: FromPath[str]) -> Response[str]:
    form, wanted, me = await form_of(request), id_of(request_id), request.user.name
    note = form.get("note", "")
    try:
        if not note.strip():
            raise Refused("note", "empty")
        await desk.db.write(lambda conn: requests.reject(conn, wanted, by=me, now_ms=desk.now_ms(), note=note))
    except Conflict:
        raise
    except Refused as refused:
        return await _reject(request, desk, wanted, note, refused.reason)
    return acted(desk.voice(request).t("approval.rejected"))


@post("/orders/{request_id:str}/withdraw", status_code=200, opt=REQUEST)
async def withdraw(request: Asked, desk: TheDesk, request_id: FromPath[str]) -> Response[str]:
    wanted, me = id_of(request_id), request.user.name
    await desk.db.write(lambda conn: requests.withdraw(conn, wanted, by=me, now_ms=desk.now_ms()))
    return acted(desk.voice(request).t("request.state.withdrawn"))


@post("/orders/{request_id:str}/cancel", status_code=200, opt=REQUEST)
async def cancel(request: Asked, desk: TheDesk, request_id: FromPath[str]) -> Response[str]:
    """Give up what has not begun; what was sent already is asked of the terminals."""
    wanted, me = id_of(request_id), request.user.name
    await desk.db.write(lambda conn: requests.cancel(conn, wanted, by=me, now_ms=desk.now_ms()))
    return acted(desk.voice(request).t("request.cancelled"))


@post("/orders/{request_id:str}/retry", status_code=200, opt=REQUEST)
async def retry(request: Asked, desk: TheDesk, request_id: FromPath[str]) -> Response[str]:
    """Ask anew for the terminals at which it failed: a request of its own, approved anew where that is needed."""
    wanted, me = id_of(request_id), request.user.name
    made = await desk.db.write(lambda conn: _again(conn, wanted, me, desk.now_ms()))
    return Response("", headers={"HX-Redirect": f"/orders/{made.hex()}"})


HANDLERS = [
    order_list, order_page, order_csv, approve, reject_form, reject, withdraw, cancel, retry,
]  # fmt: skip


def id_of(text: str) -> bytes:
    """A request's id as it stands in an address."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 16:
        raise NotFound(f"request {text[:40]!r}")
    return found


def row_of(row: Mapping[str, Any], fleet: Fleet, voice: Voice, first: Sequence[str] = ()) -> dict[str, Any]:
    """A request as lists show it."""
    status = status_of(row)
    return {
        "id": bytes(row["id"]).hex(),
        "kind": row["kind"],
        "what": order_words.what(voice, row["kind"], row["body"]),
        "where": where_words(fleet, voice, first, row["terminals"]),
        "by": row["requested_by"],
        "at_ms": row["at_ms"],
        "note": row["note"],
        "status": status,
        "word": voice.t(f"orders.status.{status}") if row["state"] == "approved" else voice.t(f"request.state.{row['state']}"),
        "said": order_words.decision(voice, row),
        "bar": bar_of(row, voice),
        "needs_two": row["needs_two"],
    }


def status_of(row: Mapping[str, Any]) -> str:
    """One word for a request with its progress."""
    if row["state"] == "waiting":
        return "waiting"
    if row["state"] != "approved":
        return "ended"
    if row["open"]:
        return "open"
    return "failed" if row["bad"] else "done"


def bar_of(row: Mapping[str, Any], voice: Voice) -> dict[str, Any]:
    """Progress as a bar: done, failed, given up, the rest open."""
    total = row["all_"] or 1
    parts, x = [], 0
    for look, count in (("good", row["done"]), ("bad", row["bad"]), ("quiet", row["quiet"])):
        if count:
            parts.append({"look": look, "x": share(x, total), "width": share(count, total)})
        x += count
    said = [voice.t("orders.of", done=row["done"], all=row["all_"])]
    if row["bad"]:
        said.append(voice.t("orders.count.failed", n=row["bad"]))
    if row["open"] and row["state"] == "approved":
        said.append(voice.t("orders.count.open", n=row["open"]))
    return {"parts": parts, "text": f"{row['done']} / {row['all_']}", "said": " · ".join(said)}


def where_words(fleet: Fleet, voice: Voice, first: Sequence[str], count: int) -> str:
    names = [_label(fleet, one) for one in first]
    if not names:
        return voice.t("request.all", n=count)
    listed = voice.t("orders.join").join(names)
    return listed if count <= len(names) else voice.t("orders.andMore", names=listed, n=count)


def _label(fleet: Fleet, terminal: str) -> str:
    now = fleet.by_id.get(terminal)
    return now.label if now else terminal


async def _row(desk: Desk, wanted: bytes) -> dict[str, Any]:
    row = await queries.request(desk.db, wanted)
    if row is None:
        raise NotFound(f"request {wanted.hex()[:8]}")
    return row


async def _about(request: Asked, desk: Desk, wanted: bytes, voice: Voice) -> dict[str, Any]:
    fleet, me = await desk.fleet(request), request.user
    row = await _row(desk, wanted)
    params = request.query_params
    result = str(params.get("result", ""))
    result = result if result in RESULTS else ""
    page = page_number(str(params.get("page", "1")))
    items = await queries.items(desk.db, wanted, result, page)
    counts = {"failed": row["bad"], "open": row["open"], "done": row["done"], "quiet": row["quiet"]}
    total = counts[result] if result else row["all_"]
    shown = row_of(row, fleet, voice)
    may_ask = me.may("request")
    return {
        "order": shown,
        "row": row,
        "result": result,
        "results": [(name, count, voice.t(f"orders.result.{name}")) for name, count in counts.items() if count],
        "changes": await changes_of(desk.db, voice, row, [item["terminal"] for item in items[:CHANGES_MAX]], fleet)
        if row["state"] == "waiting"
        else [],
        "items": [item_of(item, fleet, voice) for item in items],
        "page_no": page,
        "pages": max(1, -(-total // queries.PER_REQUEST)),
        "total": total,
        **approval_of(row, me.name, me.may("approve"), voice),
        "can_withdraw": may_ask and row["state"] == "waiting" and row["requested_by"] == me.name,
        "can_retry": may_ask and row["state"] == "approved" and row["bad"] > 0 and row["kind"] != "cancel",
        "can_cancel": may_ask
        and row["state"] == "approved"
        and row["kind"] in {"selfTest", "restart", "pullLogs"}
        and row["expires_ms"] > voice.now_ms
        and any(item["state"] in CANCELLABLE for item in items),
    }


def approval_of(row: Mapping[str, Any], me: str, may_approve: bool, voice: Voice) -> dict[str, Any]:
    """Whether who looks may decide, and the sentence why not."""
    waits = row["state"] == "waiting" and row["expires_ms"] > voice.now_ms
    why_not = ""
    if waits and row["requested_by"] == me:
        why_not = voice.t("approval.mine")
    elif waits and not may_approve:
        why_not = voice.t("approval.notApprover")
    return {
        "can_approve": waits and not why_not,
        "why_not": why_not,
        "why_two": voice.t(f"approval.{row['needs_two']}") if row["needs_two"] in {"risky", "batch"} else "",
    }


def item_of(item: Mapping[str, Any], fleet: Fleet, voice: Voice) -> dict[str, Any]:
    """One terminal of a request: its state and why, each a whole sentence."""
    now = fleet.by_id.get(item["terminal"])
    return {
        "terminal": item["terminal"],
        "known": now is not None,
        "label": now.label if now else item["terminal"],
        "name": now.name_at_site(voice.lang) if now else voice.t("faults.retired"),
        "state": item["state"],
        "look": order_words.look_of(item["state"]),
        "word": voice.t(f"order.state.{item['state']}"),
        "said": order_words.state_sentence(voice, item["state"]),
        "why": order_words.reason_sentence(voice, item["reason"]),
        "since_ms": item["since_ms"],
        "zone": now.place.timezone if now else voice.zone,
        "again": voice.t("request.signedTimes", n=item["issues"]) if item["issues"] > 1 else "",
        "log": log_of(item, voice),
    }


def log_of(item: Mapping[str, Any], voice: Voice) -> dict[str, Any] | None:
    """What is known of the excerpt that came, if one came."""
    if item["log_ms"] is None:
        return None
    gone = item["removed_ms"] is not None
    said = (
        voice.t("request.logGone")
        if gone
        else voice.t("request.logLines", n=fmt.count(item["lines"]), size=size_words(item["size"]))
    )
    return {"gone": gone, "said": said, "cut": voice.t("request.logCut") if item["cut"] and not gone else ""}


def size_words(size: int) -> str:
    return f"{size / 1024:.0f} KiB" if size < 1024 * 1024 else f"{size / 1024 / 1024:.1f} MiB"


def _export_row(item: Mapping[str, Any], told: str, fleet: Fleet, voice: Voice) -> list[object]:
    now = fleet.by_id.get(item["terminal"])
    return [
        now.label if now else item["terminal"],
        now.name(voice.lang) if now else "",
        now.place.name(voice.lang) if now else "",
        told,
        voice.t(f"order.state.{item['state']}"),
        order_words.reason_sentence(voice, item["reason"]),
        item["since_ms"],
        item["issues"],
    ]


def _again(conn: sqlite3.Connection, wanted: bytes, me: str, now_ms: int) -> bytes:
    row = requests.get(conn, wanted)
    failed = [
        one[0]
        for one in conn.execute(
            "SELECT i.terminal FROM order_item i JOIN terminal t ON t.id = i.terminal AND t.revoked_ms IS NULL"
            " WHERE i.request = ? AND i.state IN ('failed', 'refused', 'expired')",
            (wanted,),
        )
    ]
    if row.state != "approved" or row.kind == "cancel" or not failed:
        raise Conflict("request", "orderNothingFailed")
    expires_ms = now_ms + AGAIN_MS
    body = json.loads(row.body)
    match row.kind:
        case "lock":
            return requests.lock(conn, failed, body["zh"], body.get("en", ""), by=me, note=row.note, now_ms=now_ms)
        case "unlock":
            return requests.unlock(conn, failed, by=me, note=row.note, now_ms=now_ms)
        case "configuration":
            return requests.request_version(
                conn, failed, body["version"], by=me, expires_ms=expires_ms, note=row.note, now_ms=now_ms
            )
        case _:
            again = requests.body_of(row.kind, row.body)
            return requests.request_order(conn, failed, again, by=me, expires_ms=expires_ms, note=row.note, now_ms=now_ms)


async def _reject(request: Asked, desk: Desk, wanted: bytes, note: str = "", problem: str = "") -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    row = await _row(desk, wanted)
    return await desk.part(
        request,
        "_order_reject.html",
        voice=voice,
        order=row_of(row, fleet, voice),
        note=note,
        problem=voice.t(f"refused.{problem}") if problem else "",
    )
