"""The configuration of one terminal: what holds, a form for the next version, earlier versions with what differed, and the way back to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from fleet_server.console import config_view, order_forms, order_words
from fleet_server.console.config_view import Draft
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of
from fleet_server.console.model import TerminalNow
from fleet_server.console.order_forms import REQUEST
from fleet_server.console.pages.terminal import found
from fleet_server.console.profiles import shipped
from fleet_server.console.queries import orders as queries
from fleet_server.console.render import Voice
from fleet_server.errors import NotFound, Refused
from fleet_server.orders import requests

BLANK_DEVICE = {
    "slot": "", "family": "", "profile": "", "port": "", "address": "", "ownership": "owner", "mandatory": "no",
}  # fmt: skip
BLANK_ITEM = {"code": "", "type": "handle"}


@get("/terminals/{terminal_id:str}/configuration")
async def configuration_page(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    now = found(await desk.fleet(request), terminal_id)
    return await _page(request, desk, now, None)


@post("/terminals/{terminal_id:str}/configuration", status_code=200, opt=REQUEST)
async def configuration_save(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    """`do`: save, add a row, or remove one. Only a whole draft without a problem becomes a version."""
    now, form, me = found(await desk.fleet(request), terminal_id), await form_of(request), request.user.name
    do, draft = form.get("do", "save"), config_view.read_form(form)
    if do != "save":
        return await _page(request, desk, now, _edited(draft, do), form)
    draft, content = config_view.check(draft)
    if content is None:
        return await _page(request, desk, now, draft, form, "problems")
    latest = await _latest(desk, now.id)
    if latest is not None and config_view.content_of(latest) == content:
        return await _page(request, desk, now, draft, form, "same")
    now_ms = desk.now_ms()
    expires_ms = order_forms.read_expiry(form, "configuration", now_ms)
    try:
        made = await desk.db.write(
            lambda conn: requests.request_configuration(
                conn, [now.id], content, by=me, expires_ms=expires_ms, note=form.get("note", ""), now_ms=now_ms
            )
        )
    except Refused as refused:
        return await _page(request, desk, now, draft, form, f"refused.{refused.reason}")
    return Response("", status_code=303, headers={"Location": f"/orders/{made.hex()}"})


@get("/terminals/{terminal_id:str}/configuration/{version:int}/back", opt=REQUEST)
async def back_form(request: Asked, desk: TheDesk, terminal_id: FromPath[str], version: FromPath[int]) -> Response[str]:
    now, voice = found(await desk.fleet(request), terminal_id), desk.voice(request)
    row = await queries.configuration(desk.db, version)
    if row is None:
        raise NotFound(f"version {version}")
    held = await queries.held(desk.db, now.id)
    holds = await queries.configuration(desk.db, held.wanted_version) if held.wanted_version else None
    return await desk.part(
        request,
        "_act_back.html",
        voice=voice,
        title=voice.t("config.backAsk", terminal=now.label, n=version),
        ids=[now.id],
        many=False,
        said=[],
        two="risky",
        limit=0,
        note="",
        valid=order_forms.USUAL_VALID["configuration"],
        valids=list(order_forms.VALID_MS),
        problems={},
        problem="",
        version=version,
        lines=config_view.differences(voice, config_view.content_of(holds), config_view.content_of(row)),
    )


HANDLERS = [configuration_page, configuration_save, back_form]


def _edited(draft: Draft, do: str) -> Draft:
    """A row more, or one less."""
    verb, _, place = do.partition("-")
    devices, items = list(draft.devices), list(draft.items)
    n = int(place) if place.isascii() and place.isdigit() and len(place) < 5 else -1
    if verb == "addDevice":
        devices.append(dict(BLANK_DEVICE))
    elif verb == "addItem":
        items.append(dict(BLANK_ITEM))
    elif verb == "removeDevice" and 0 <= n < len(devices):
        del devices[n]
    elif verb == "removeItem" and 0 <= n < len(items):
        del items[n]
    return Draft(devices, items, draft.intervals)


async def _latest(desk: Desk, terminal: str) -> dict[str, Any] | None:
    """The version that is wanted now."""
    held = await queries.held(desk.db, terminal)
    return await queries.configuration(desk.db, held.wanted_version) if held.wanted_version else None


async def _page(
    request: Asked, desk: Desk, now: TerminalNow, draft: Draft | None, form: Mapping[str, str] | None = None, problem: str = ""
) -> Response[str]:
    voice, told = desk.voice(request), form or {}
    held = await queries.held(desk.db, now.id)
    versions = await queries.versions(desk.db, now.id)
    if draft is None:
        latest = await queries.configuration(desk.db, held.wanted_version) if held.wanted_version else None
        draft = config_view.draft_of(config_view.content_of(latest)) if latest else config_view.draft_of_inventory(now)
    t = voice.t
    values: dict[str, Any] = {
        "now": now,
        "draft": draft,
        "problems": {
            name: t(f"refused.{word}", **_limits(name)) if word == "configInterval" else t(f"refused.{word}")
            for name, word in draft.problems.items()
        },
        "problem": t(problem if problem.startswith("refused.") else f"config.{problem}") if problem else "",
        "now_words": ("" if voice.lang == "zh" else " ").join(now_words(voice, held)),
        "versions": _history(voice, versions, held.wanted_version),
        "families": [(name, config_view.family_words(voice, name)) for name in config_view.FAMILIES],
        "ownerships": [(name, t(f"owner.{name}") if t.has(f"owner.{name}") else name) for name in config_view.OWNERSHIPS],
        "types": [(name, t(f"config.type.{name}")) for name in config_view.TYPES],
        "profiles": sorted(shipped()),
        "intervals": config_view.INTERVALS,
        "note": told.get("note", ""),
        "valid": told.get("valid", order_forms.USUAL_VALID["configuration"]),
        "valids": list(order_forms.VALID_MS),
        "may": request.user.may("request") and now.enrolled_ms is not None,
    }
    return await desk.page(request, "configuration.html", nav="terminals", voice=voice, status=400 if problem else 200, **values)


def _limits(name: str) -> dict[str, int]:
    least, most, _ = config_view.INTERVALS[name]
    return {"least": least, "most": most}


def now_words(voice: Voice, held: queries.Held) -> list[str]:
    """Which version is wanted, and what the terminal says about it."""
    t, n = voice.t, held.wanted_version
    if n is None:
        return [t("config.none")]
    said = [t("config.now", n=n)]
    if held.told_version == n and held.told_state == "applied":
        said.append(t("config.confirmed", n=n))
    elif held.told_state == "rolledBack":
        said += [t("config.rolledBack", n=n), order_words.reason_sentence(voice, held.told_reason)]
    else:
        said.append(t("config.unconfirmed", n=n))
    return [one for one in said if one]


def _history(voice: Voice, versions: Sequence[Mapping[str, Any]], holds: int | None) -> list[dict[str, Any]]:
    """Newest first, each with what differed from the one before it here."""
    rows = []
    for n, row in enumerate(versions):
        before = versions[n + 1] if n + 1 < len(versions) else None
        lines = config_view.differences(voice, config_view.content_of(before), config_view.content_of(row)) if before else []
        state = row["state"]
        rows.append({
            "version": row["version"],
            "made": voice.t("config.made", by=row["made_by"], time=voice.stamp(row["made_ms"])[:16]),
            "note": row["note"],
            "request": bytes(row["request"]).hex(),
            "look": order_words.look_of(state),
            "word": voice.t(f"order.state.{state}"),
            "lines": lines,
            "first": before is None,
            "holds": row["version"] == holds,
            "can_return": row["version"] != holds and row["request_state"] == "approved",
        })  # fmt: skip
    return rows
