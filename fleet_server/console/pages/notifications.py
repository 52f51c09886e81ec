"""Who is told about faults: channels, what was sent, and why something was not. Operators set channels; secrets go in and never come out."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, FromQuery

from fleet_server.console import channel_words as words
from fleet_server.console import channels as forms
from fleet_server.console.channels import Before, Draft
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of, is_fragment
from fleet_server.console.pages.answers import acted
from fleet_server.console.pages.faults import OPERATOR
from fleet_server.console.queries import notifications as queries
from fleet_server.console.render import Voice
from fleet_server.errors import NotFound, Refused
from fleet_server.notifications import addresses, store
from fleet_server.notifications.addresses import HOME, AddressRefused
from fleet_server.notifications.courier import new_message_id, send_once
from fleet_server.notifications.digest import Digest
from fleet_server.notifications.kinds import KINDS
from fleet_server.notifications.mail import RELAY_PORTS
from fleet_server.notifications.secrets import SecretBox, SecretError
from fleet_server.notifications.store import Stored
from protocols.canon.faults import FAULTS

STALE_MS: Final = 15_000
"""The supervisor writes its health every two seconds."""


@get("/notifications")
async def notifications(
    request: Asked,
    desk: TheDesk,
    channel: FromQuery[int | None] = None,
    before: FromQuery[int | None] = None,
    q: FromQuery[str] = "",
) -> Response[str]:
    voice = desk.voice(request)
    values = await _values(desk, voice, _row_number(channel), _row_number(before), q.strip()[:40])
    if is_fragment(request):
        return await desk.part(request, "_notifications.html", voice=voice, **values)
    return await desk.page(request, "notifications.html", nav="system", voice=voice, **values)


@get("/notifications/add", opt=OPERATOR)
async def add_form(request: Asked, desk: TheDesk, kind: FromQuery[str] = "webhook") -> Response[str]:
    chosen = kind if kind in KINDS else "webhook"
    return await _form(request, desk, forms.form_of_channel(chosen, None), None)


@post("/notifications/add", status_code=200, opt=OPERATOR)
async def add(request: Asked, desk: TheDesk) -> Response[str]:
    form = await form_of(request)
    kind = form.get("kind", "")
    try:
        draft = forms.read_channel(kind, form, await _area_codes(desk))
        await _check_address(kind, draft)
        await desk.db.write(lambda connection: _add(connection, desk, kind, draft, request.user.name))
    except Refused as refused:
        return await _form(request, desk, forms.form_again(form), None, refused)
    return await _done(request, desk, draft, "notify.added")


@get("/notifications/{number:int}/edit", opt=OPERATOR)
async def edit_form(request: Asked, desk: TheDesk, number: FromPath[int]) -> Response[str]:
    row = await _channel(desk, number)
    return await _form(request, desk, forms.form_of_channel(row.kind, _before(desk, row)), row)


@post("/notifications/{number:int}/edit", status_code=200, opt=OPERATOR)
async def edit(request: Asked, desk: TheDesk, number: FromPath[int]) -> Response[str]:
    form = await form_of(request)
    row = await _channel(desk, number)
    try:
        draft = forms.read_channel(row.kind, form, await _area_codes(desk), _before(desk, row))
        await _check_address(row.kind, draft)
        await desk.db.write(lambda connection: _set(connection, desk, row, draft, request.user.name))
    except Refused as refused:
        return await _form(request, desk, forms.form_again(form), row, refused)
    return await _done(request, desk, draft, "notify.changed")


@post("/notifications/{number:int}/test", status_code=200, opt=OPERATOR)
async def test(request: Asked, desk: TheDesk, number: FromPath[int]) -> Response[str]:
    """Sends one message and says what came of it. The row stands before anything is sent."""
    row, voice = await _channel(desk, number), desk.voice(request)
    digest = Digest(id=new_message_id(), at_ms=desk.now_ms(), test=True)
    by, settings = request.user.name, desk.settings
    line = await desk.db.write(lambda connection: store.begin_test(connection, row, digest, by=by, now_ms=digest.at_ms))
    error = await send_once(row, _box(desk), digest, zone=desk.view.zone, fleet=settings.fleet, now_ms=digest.at_ms)
    await desk.db.write(lambda connection: store.end_test(connection, line, error=error, now_ms=desk.now_ms()))
    if error is None:
        return acted(voice.t("notify.tested", name=row.name))
    return acted(voice.t("notify.testFailed", name=row.name, why=words.error_words(voice, error)))


@post("/notifications/{number:int}/{switch:str}", status_code=200, opt=OPERATOR)
async def switch_(request: Asked, desk: TheDesk, number: FromPath[int], switch: FromPath[str]) -> Response[str]:
    if switch not in {"enable", "disable"}:
        raise NotFound(f"channel action {switch[:32]!r}")
    row, by, on = await _channel(desk, number), request.user.name, switch == "enable"
    await desk.db.write(lambda connection: store.enable_channel(connection, row.name, enabled=on, by=by, now_ms=desk.now_ms()))
    return acted(desk.voice(request).t("notify.switchedOn" if on else "notify.switchedOff", name=row.name))


@get("/notifications/{number:int}/remove", opt=OPERATOR)
async def remove_form(request: Asked, desk: TheDesk, number: FromPath[int]) -> Response[str]:
    return await desk.part(request, "_channel_remove.html", row=await _channel(desk, number))


@post("/notifications/{number:int}/remove", status_code=200, opt=OPERATOR)
async def remove(request: Asked, desk: TheDesk, number: FromPath[int]) -> Response[str]:
    row, by = await _channel(desk, number), request.user.name
    await desk.db.write(lambda connection: store.remove_channel(connection, row.name, by=by, now_ms=desk.now_ms()))
    return acted(desk.voice(request).t("notify.removed", name=row.name))


HANDLERS = [notifications, add_form, add, edit_form, edit, test, remove_form, remove, switch_]


def _row_number(wanted: int | None) -> int | None:
    """What SQLite can hold; another one names no row."""
    return wanted if wanted is not None and 0 < wanted < 2**63 else None


# Writing --------------------------------------------------------------------------------------------------------------------------------


def _add(connection: sqlite3.Connection, desk: Desk, kind: str, draft: Draft, by: str) -> None:
    store.add_channel(connection, kind=kind, **_sealed(desk, kind, draft), by=by, now_ms=desk.now_ms())


def _set(connection: sqlite3.Connection, desk: Desk, row: Stored, draft: Draft, by: str) -> None:
    sealed = _sealed(desk, row.kind, draft)
    store.set_channel(connection, row.id, **sealed, new_audience=draft.new_address, by=by, now_ms=desk.now_ms())


def _sealed(desk: Desk, kind: str, draft: Draft) -> dict[str, Any]:
    return {
        "name": draft.name,
        "config": msgspec.json.encode(draft.config).decode(),
        "filters": msgspec.json.encode(draft.filters).decode(),
        "secret": _box(desk).seal(msgspec.json.encode(draft.secret), store.seal_name(kind, draft.name)),
    }


async def _check_address(kind: str, draft: Draft) -> None:
    """Said now what would be refused at each message. A name that nobody knows yet is no reason."""
    own_machine = draft.config.own_machine or (kind == "mail" and draft.port in RELAY_PORTS)
    try:
        addresses.check_all(await addresses.resolve(draft.host, draft.port), own_machine=own_machine)
    except AddressRefused as err:
        raise Refused("host" if kind == "mail" else "url", "channelHome" if str(err) == HOME else "channelNowhere") from None


def _box(desk: Desk) -> SecretBox:
    return SecretBox(desk.settings.layout.authority)


def _before(desk: Desk, row: Stored) -> Before:
    try:
        secret = _box(desk).open(row.secret, row.bound_to)
    except SecretError:
        secret = None
    return Before(row.name, row.config, row.filters, secret)


async def _channel(desk: Desk, number: int) -> Stored:
    found = next((row for row in await desk.db.look(store.channels) if row.id == number), None)
    if found is None:
        raise NotFound(f"channel {number}")
    return found


async def _area_codes(desk: Desk) -> set[str]:
    return {area["code"] for area in await queries.areas(desk.db)}


# Showing --------------------------------------------------------------------------------------------------------------------------------


async def _values(desk: Desk, voice: Voice, channel: int | None, before: int | None, wanted: str) -> dict[str, Any]:
    now_ms = voice.now_ms
    seen = await desk.db.look(
        lambda conn: queries.look(conn, zone=desk.view.zone, now_ms=now_ms, channel=channel, before=before, terminal=wanted)
    )
    names = await _area_names(desk, voice)
    rows = [_row(desk, voice, row, seen.newest.get(row.id), names) for row in seen.rows]
    log = seen.log[: queries.LOG_PAGE]
    return {
        "rows": rows,
        "headline": _headline(voice, rows, seen),
        "is_down": any(row.enabled for row in seen.rows) and _is_down(desk, voice),
        "untold": [_untold(voice, one) for one in seen.untold],
        "untold_more": seen.untold_more,
        "wanted": wanted,
        "log": [words.delivery(voice, line) for line in log],
        "older": log[-1].id if len(seen.log) > queries.LOG_PAGE else None,
        "paged": before is not None,
        "chosen": channel,
        "changes": [
            {"at_ms": one.at_ms, "text": voice.t(f"notify.change.{one.what}", by=one.by, name=one.name)} for one in seen.changes
        ],
    }


def _row(desk: Desk, voice: Voice, row: Stored, newest: store.Newest | None, names: Mapping[str, str]) -> dict[str, Any]:
    look, word, sentence = words.state(voice, row, newest, opens=_before(desk, row).secret is not None)
    config = msgspec.json.decode(row.config)
    return {
        "id": row.id,
        "name": row.name,
        "kind": voice.t(f"notify.kind.{row.kind}") if row.kind in KINDS else row.kind,
        "host": config.get("host", ""),
        "to": config.get("to", []),
        "hears": words.hears(voice, queries.filters_of(row), names),
        "enabled": row.enabled,
        "look": look,
        "word": word,
        "sentence": sentence,
        "set_by": row.set_by,
        "set_ms": row.set_ms,
    }


def _headline(voice: Voice, rows: list[dict[str, Any]], seen: queries.Seen) -> Any:
    enabled = sum(row["enabled"] for row in rows)
    if not rows:
        return voice.t("notify.headline.none")
    if not enabled:
        return voice.t("notify.headline.off", n=len(rows))
    last = max((one.sent_ms for one in seen.newest.values() if one.sent_ms is not None), default=None)
    troubled = [row["name"] for row in rows if row["look"] == "bad"]
    if troubled:
        return voice.t("notify.headline.trouble", names=words.joined(voice, troubled))
    if last is None:
        return voice.t("notify.headline.quiet", n=enabled)
    return voice.rich("notify.headline.sent", n=enabled, age=voice.age(last))


def _is_down(desk: Desk, voice: Voice) -> bool:
    """Whether the process that sends is known not to run; of a server without a supervisor nothing is known."""
    try:
        health = json.loads(desk.settings.layout.health.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    if voice.now_ms - health.get("at_ms", 0) > STALE_MS:
        return False
    part = health.get("parts", {}).get("notifications")
    return part is not None and part.get("state") != "running"


def _untold(voice: Voice, one: queries.Untold) -> dict[str, Any]:
    """Channels with the same reason share a sentence."""
    reasons: dict[Any, list[str]] = {}
    for name, hold in one.holds.items():
        reasons.setdefault(hold, []).append(name)
    kind = FAULTS.get(one.fault.code)
    return {
        "terminal": one.fault.terminal,
        "label": one.fault.terminal if one.place is None else one.place.label,
        "severity": one.fault.severity,
        "fault": one.fault.code if kind is None else (kind.zh if voice.lang == "zh" else kind.en),
        "since_ms": one.fault.opened_ms,
        "reasons": [words.reason(voice, names, hold) for hold, names in reasons.items()],
    }


async def _area_names(desk: Desk, voice: Voice) -> dict[str, str]:
    rows = await queries.areas(desk.db)
    return {row["code"]: (row["name_zh"] if voice.lang == "zh" else row["name_en"]) or row["code"] for row in rows}


async def _form(
    request: Asked, desk: Desk, form: Mapping[str, str], row: Stored | None, refused: Refused | None = None
) -> Response[str]:
    voice = desk.voice(request)
    kind = row.kind if row is not None else form.get("kind", "webhook")
    areas = await queries.areas(desk.db)
    return await desk.part(
        request,
        "_channel_form.html",
        voice=voice,
        form=form,
        row=row,
        kind=kind if kind in KINDS else "webhook",
        kinds=list(KINDS),
        signed=kind in forms.SIGNED,
        has_keyword=kind in forms.KEYWORD,
        severities=forms.SEVERITIES,
        rhythms=_rhythms(form),
        families=[(family, words.family_name(voice, family)) for family in forms.FAMILIES],
        areas=_tree(areas, voice),
        problem=_problem(voice, refused),
        field="" if refused is None else refused.field,
    )


def _problem(voice: Voice, refused: Refused | None) -> str:
    return "" if refused is None else voice.t(f"refused.{refused.reason}")


def _rhythms(form: Mapping[str, str]) -> list[int]:
    """What is offered, and what is set, if that is something else."""
    now = form.get("every_min", "1")
    return sorted({*forms.RHYTHMS, *([int(now)] if now.isascii() and now.isdigit() and len(now) <= 4 else [])})


def _tree(rows: Iterable[Mapping[str, Any]], voice: Voice) -> list[tuple[str, str, int]]:
    """(code, name, depth) of each area below its parent; an area whose parent is missing stands at the top."""
    known = {row["code"]: row for row in rows}
    children: dict[str | None, list[str]] = {}
    for code, row in known.items():
        children.setdefault(row["parent"] if row["parent"] in known else None, []).append(code)
    found: list[tuple[str, str, int]] = []

    def walk(parent: str | None, depth: int) -> None:
        for code in children.pop(parent, []):
            row = known[code]
            found.append((code, (row["name_zh"] if voice.lang == "zh" else row["name_en"]) or code, depth))
            walk(code, depth + 1)

    walk(None, 0)
    return found


async def _done(request: Asked, desk: Desk, draft: Draft, said: str) -> Response[str]:
    """A signing secret that was made here is shown this once; else the dialog closes."""
    voice = desk.voice(request)
    if draft.made is None:
        return acted(voice.t(said, name=draft.name))
    answer = await desk.part(request, "_channel_secret.html", voice=voice, name=draft.name, secret=draft.made)
    answer.headers["HX-Trigger"] = "kf:acted"
    return answer
