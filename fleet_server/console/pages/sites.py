"""Areas as a tree, sites with their opening hours, who changed them. Everybody reads, operators write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from litestar import Response, get, post
from litestar.enums import MediaType
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect

from fleet_server.accounts.rules import Session
from fleet_server.console import site_view as view
from fleet_server.console.area_tree import Tree, build
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of
from fleet_server.console.opening_words import spans_words, week_lines, week_sentence
from fleet_server.console.pages.faults import OPERATOR
from fleet_server.console.queries import sites as queries
from fleet_server.console.render import Voice
from fleet_server.errors import Conflict, NotFound, Refused
from fleet_server.forms import Problems
from fleet_server.sites import audit, changes, drafts
from fleet_server.sites.calendar import local_day
from fleet_server.sites.hours import readable_hours

USUAL_WEEK: Final = {
    f"{day}.{number}.{edge}": text
    for day in drafts.DAYS[:5]
    for number, span in enumerate((("09:00", "12:00"), ("13:30", "17:00")))
    for edge, text in zip(("from", "to"), span, strict=True)
}
NEW_SITE: Final = {
    "code": "", "name_zh": "", "name_en": "", "area": "", "kind": "hall", "address_zh": "", "lat": "", "lon": "", "phone": "",
    "timezone": "Asia/Shanghai", "network": "govExtranet",
}  # fmt: skip
NEW_AREA: Final = {"code": "", "parent": "", "name_zh": "", "name_en": "", "sort": "0"}
NOTICES: Final = {"added", "saved", "hours", "removed", "same"}


@get("/sites")
async def sites_page(
    request: Asked,
    desk: TheDesk,
    area: FromQuery[str] = "",
    q: FromQuery[str] = "",
    kind: FromQuery[str] = "",
    done: FromQuery[str] = "",
) -> Response[str]:
    voice = desk.voice(request)
    tree, rows = await _everything(desk)
    chosen = tree.by_code.get(area)
    inside = tree.inside(area) if chosen else None
    lost = [row for row in rows if row["area"] not in tree.by_code]
    if area == "?" and lost:
        shown = lost
    else:
        shown = [row for row in rows if inside is None or row["area"] in inside]
    words = q.casefold().split()
    shown = [row for row in shown if (not kind or row["kind"] == kind) and view.is_found(row, tree, words)]
    values: dict[str, Any] = {
        "tree": tree,
        "chosen": chosen,
        "lost": len(lost),
        "area": area,
        "q": q,
        "kind": kind,
        "kinds": drafts.SITE_KINDS,
        "total": len(rows),
        "rows": [view.line_of(row, tree, voice) for row in shown],
        "may_remove": chosen is not None and not chosen.children and not chosen.own,
        "history": await _history(desk, f"area:{audit.literal(chosen.code)}", voice, tree) if chosen else [],
        "removed": [view.removed_of(row, voice) for row in await queries.removed(desk.db)]
        if not area and not q and not kind
        else [],
        "notice": voice.t(f"site.done.{done}") if done in NOTICES else "",
    }
    return await desk.page(request, "sites.html", nav="system", voice=voice, **values)


# Areas ----------------------------------------------------------------------------------------------------------------------------------


@get("/areas/add", opt=OPERATOR)
async def area_add_form(request: Asked, desk: TheDesk, parent: FromQuery[str] = "") -> Response[str]:
    return await _area_form(request, desk, None, {**NEW_AREA, "parent": parent})


@post("/areas/add", status_code=200, opt=OPERATOR)
async def area_add(request: Asked, desk: TheDesk) -> Response[str]:
    form = await form_of(request)
    problems = Problems()
    code, values = drafts.read_code(form, problems), drafts.read_area(form, problems)
    try:
        problems.check()
        await desk.db.write(lambda conn: changes.add_area(conn, code, values, by=request.user.name, now_ms=desk.now_ms()))
    except Refused as refused:
        return await _area_form(request, desk, None, form, refused)
    return _away(f"/sites?area={quote(code)}&done=added")


@get("/areas/{code:str}/edit", opt=OPERATOR)
async def area_edit_form(request: Asked, desk: TheDesk, code: FromPath[str]) -> Response[str]:
    tree, _ = await _everything(desk)
    node = tree.by_code.get(code)
    if node is None:
        raise NotFound(f"area {code[:40]!r}")
    form = {"parent": node.parent or "", "name_zh": node.name_zh, "name_en": node.name_en, "sort": str(node.sort)}
    return await _area_form(request, desk, code, form)


@post("/areas/{code:str}/edit", status_code=200, opt=OPERATOR)
async def area_edit(request: Asked, desk: TheDesk, code: FromPath[str]) -> Response[str]:
    form = await form_of(request)
    problems = Problems()
    values = drafts.read_area(form, problems)
    try:
        problems.check()
        await desk.db.write(lambda conn: changes.edit_area(conn, code, values, by=request.user.name, now_ms=desk.now_ms()))
    except Refused as refused:
        return await _area_form(request, desk, code, form, refused)
    return _away(f"/sites?area={quote(code)}&done=saved")


@post("/areas/{code:str}/remove", status_code=200, opt=OPERATOR)
async def area_remove(request: Asked, desk: TheDesk, code: FromPath[str]) -> Response[Any]:
    await desk.db.write(lambda conn: changes.remove_area(conn, code, by=request.user.name, now_ms=desk.now_ms()))
    return _away("/sites?done=removed")


# Sites ----------------------------------------------------------------------------------------------------------------------------------


@get("/sites/add", opt=OPERATOR)
async def site_add_form(request: Asked, desk: TheDesk, area: FromQuery[str] = "") -> Response[str]:
    return await _site_form(request, desk, {**NEW_SITE, **USUAL_WEEK, "area": area})


@post("/sites/add", status_code=200, opt=OPERATOR)
async def site_add(request: Asked, desk: TheDesk) -> Response[Any]:
    form = await form_of(request)
    problems = Problems()
    code, values, hours = drafts.read_code(form, problems), drafts.read_site(form, problems), drafts.read_hours(form, problems)
    try:
        problems.check()
        await desk.db.write(lambda conn: changes.add_site(conn, code, values, hours, by=request.user.name, now_ms=desk.now_ms()))
    except Refused as refused:
        return await _site_form(request, desk, {**NEW_SITE, **form}, refused)
    return Redirect(f"/sites/{quote(code)}?done=added", status_code=303)


@get("/sites/{code:str}")
async def site_page(request: Asked, desk: TheDesk, code: FromPath[str], done: FromQuery[str] = "") -> Response[str]:
    return await _site(request, desk, code, done=done)


@post("/sites/{code:str}", status_code=200, opt=OPERATOR)
async def site_edit(request: Asked, desk: TheDesk, code: FromPath[str]) -> Response[Any]:
    form = await form_of(request)
    problems = Problems()
    values = drafts.read_site(form, problems)
    seen = form.get("seen", "")
    try:
        problems.check()
        did = await desk.db.write(
            lambda conn: changes.edit_site(conn, code, values, seen=seen, by=request.user.name, now_ms=desk.now_ms())
        )
    except Refused as refused:
        return await _site(request, desk, code, facts=form, refused=refused)
    return Redirect(f"/sites/{quote(code)}?done={'saved' if did else 'same'}", status_code=303)


@post("/sites/{code:str}/hours", status_code=200, opt=OPERATOR)
async def site_hours(request: Asked, desk: TheDesk, code: FromPath[str]) -> Response[Any]:
    form = await form_of(request)
    row = await queries.site(desk.db, code)
    if row is None:
        raise NotFound(f"site {code[:40]!r}")
    now_ms = desk.now_ms()
    today = local_day(now_ms, row["timezone"])
    from_day = form.get("hours_from", "") or today
    problems = Problems()
    hours = drafts.read_hours(form, problems, from_day=from_day)
    seen = form.get("seen", "")
    try:
        problems.check()
        did = await desk.db.write(
            lambda conn: changes.set_hours(
                conn, code, hours, from_day=from_day, today=today, seen=seen, by=request.user.name, now_ms=now_ms
            )
        )
    except Refused as refused:
        return await _site(request, desk, code, hours=form, refused=refused)
    return Redirect(f"/sites/{quote(code)}?done={'hours' if did else 'same'}", status_code=303)


@post("/sites/{code:str}/remove", status_code=200, opt=OPERATOR)
async def site_remove(request: Asked, desk: TheDesk, code: FromPath[str]) -> Response[Any]:
    now_ms = desk.now_ms()
    row = await queries.site(desk.db, code)
    today = local_day(now_ms, row["timezone"]) if row else ""
    try:
        await desk.db.write(lambda conn: changes.remove_site(conn, code, today=today, by=request.user.name, now_ms=now_ms))
    except Refused as refused:
        return await _site(request, desk, code, refused=refused)
    return Redirect("/sites?done=removed", status_code=303)


HANDLERS = [
    sites_page,
    area_add_form,
    area_add,
    area_edit_form,
    area_edit,
    area_remove,
    site_add_form,
    site_add,
    site_page,
    site_edit,
    site_hours,
    site_remove,
]


def _seen(row: Mapping[str, Any], form: Mapping[str, str] | None, refused: Refused | None) -> str:
    """A form that comes back is compared with what its writer saw; after a conflict the writer was told and has seen what is there now."""
    if form is None or isinstance(refused, Conflict):
        return changes.fingerprint(row)
    return form.get("seen", "")


# Values ---------------------------------------------------------------------------------------------------------------------------------


async def _everything(desk: Desk) -> tuple[Tree, list[dict[str, Any]]]:
    rows = await queries.sites(desk.db)
    return build(await queries.areas(desk.db), rows), rows


async def _site_form(request: Asked, desk: Desk, form: Mapping[str, str], refused: Refused | None = None) -> Response[str]:
    voice = desk.voice(request)
    tree, _ = await _everything(desk)
    values = {
        **view.choices(tree, voice),
        "facts": form,
        "week": view.week_of(form, voice),
        "dates": view.dates_of(form),
        "always": bool(form.get("always")),
        "problems": view.problems_of(refused, voice),
        "today": local_day(voice.now_ms, form.get("timezone") or "Asia/Shanghai"),
    }
    status = refused.status if refused else 200
    return await desk.page(request, "site_add.html", nav="system", voice=voice, status=status, **values)


async def _site(
    request: Asked,
    desk: Desk,
    code: str,
    *,
    done: str = "",
    facts: Mapping[str, str] | None = None,
    hours: Mapping[str, str] | None = None,
    refused: Refused | None = None,
) -> Response[str]:
    """The page of one site; after a refusal with what was typed, so that nothing has to be typed again."""
    voice, fleet = desk.voice(request), await desk.fleet(request)
    row = await queries.site(desk.db, code)
    if row is None:
        raise NotFound(f"site {code[:40]!r}")
    tree, _ = await _everything(desk)
    today = local_day(voice.now_ms, row["timezone"])
    stored = readable_hours(row["hours"])
    typed = hours if hours is not None else drafts.fields_of(stored)
    session: Session = request.user
    values = {
        **view.choices(tree, voice),
        "site": view.line_of(row, tree, voice),
        "row": row,
        "seen_facts": _seen(row, facts, refused),
        "seen_hours": _seen(row, hours, refused),
        "facts": {**view.facts_of(row), **(facts or {})},
        "week": view.week_of(typed, voice),
        "dates": view.dates_of(typed),
        "always": bool(typed.get("always")),
        "hours_from": (hours or {}).get("hours_from") or today,
        "today": today,
        "lines": week_lines(voice, stored),
        "exceptions": [(day.isoformat(), voice.t(f"hours.day.{drafts.DAYS[day.weekday()]}"), spans_words(voice, spans))
                       for day, spans in stored.dates if day.isoformat() >= today],
        "open_now": view.open_now(voice, row, fleet.calendar),
        "past": [(past["until_day"], week_sentence(voice, past["hours"])) for past in await queries.replaced_hours(desk.db, code)],
        "history": await _history(desk, f"site:{audit.literal(code)}", voice, tree),
        "problems": view.problems_of(refused, voice),
        "which": "facts" if facts is not None else "hours" if hours is not None else "",
        "operator": session.operator,
        "notice": voice.t(f"site.done.{done}") if done in NOTICES else "",
    }  # fmt: skip
    status = refused.status if refused else 200
    return await desk.page(request, "site.html", nav="system", voice=voice, status=status, **values)


# History --------------------------------------------------------------------------------------------------------------------------------


async def _history(desk: Desk, like: str, voice: Voice, tree: Tree) -> list[dict[str, Any]]:
    rows = await desk.db.look(lambda conn: audit.recent(conn, like))
    return [
        {
            "at_ms": one.at_ms,
            "by": one.set_by,
            "what": voice.t(f"site.event.{one.kind.partition('.')[2]}"),
            "parts": view.parts_of(one, voice, tree),
        }
        for one in rows
    ]


async def _area_form(
    request: Asked, desk: Desk, code: str | None, form: Mapping[str, str], refused: Refused | None = None
) -> Response[str]:
    voice = desk.voice(request)
    tree, _ = await _everything(desk)
    below = tree.inside(code) if code else frozenset()
    areas = view.area_choices(tree, voice, below)
    return await desk.part(
        request,
        "_area_form.html",
        voice=voice,
        code=code,
        form={**NEW_AREA, **form},
        areas=areas,
        problems=view.problems_of(refused, voice),
    )


def _away(address: str) -> Response[str]:
    """Closes a dialog by showing the page anew, as it is now."""
    return Response("", media_type=MediaType.HTML, headers={"HX-Redirect": address})
