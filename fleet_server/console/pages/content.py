"""Content: packages of guide pages from draft to release, what was shown of them, and the catalogue of service items."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
from litestar import Response, get, post
from litestar.datastructures import UploadFile
from litestar.enums import MediaType
from litestar.params import FromPath
from litestar.response import Redirect

from fleet_server.console.actions import person_text
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of, is_fragment
from fleet_server.console.render import Voice
from fleet_server.content import publish, rules, store
from fleet_server.content.releasing import Releasing
from fleet_server.errors import Forbidden, NotFound, Refused
from fleet_server.updates import intake
from fleet_server.updates.errors import UpdatesError
from fleet_server.updates.layout import UpdatesLayout
from fleet_server.updates.repository import Updates
from protocols.contract.artifacts import ImageCustom
from protocols.packages import content as packages
from protocols.packages.catalogue import Item
from protocols.packages.content import Page

MANAGE: Final = {"permission": "manage"}
UPLOAD_MAX_BYTES: Final = rules.FILE_MAX_BYTES + 64 * 1024
LOOKS: Final[Mapping[str, str]] = {
    "draft": "quiet", "review": "waiting", "approved": "open", "publishing": "waiting", "published": "good", "disabling": "waiting",
    "disabled": "bad", "deleted": "quiet",
}  # fmt: skip
PLAYS_DAYS: Final = 30
PERMISSIONS: Final = ("manage", "approve")
TYPES: Final = ("handle", "query", "book", "other")


@get("/content")
async def content_page(request: Asked, desk: TheDesk) -> Response[str]:
    voice = desk.voice(request)
    rows = await desk.db.look(store.packages)
    return await desk.page(
        request,
        "content.html",
        nav="system",
        voice=voice,
        rows=[_line(voice, row) for row in rows],
        may_manage=request.user.may("manage"),
    )


@get("/content/add", opt=MANAGE)
async def content_add_form(request: Asked, desk: TheDesk) -> Response[str]:
    return await _add_form(request, desk, {"name": "", "title": ""})


@post("/content/add", status_code=200, opt=MANAGE)
async def content_add(request: Asked, desk: TheDesk) -> Response[str]:
    form, me = await form_of(request), request.user.name
    try:
        name, title = rules.check_name(form.get("name", "")), person_text("title", form.get("title", ""), 60)
        made = await desk.db.write(lambda conn: store.create(conn, name, title, by=me, now_ms=desk.now_ms()))
    except Refused as refused:
        return await _add_form(request, desk, {"name": "", "title": "", **form}, refused)
    return Response("", media_type=MediaType.TEXT, headers={"HX-Redirect": f"/content/{made}"})


async def _add_form(request: Asked, desk: Desk, form: Mapping[str, str], refused: Refused | None = None) -> Response[str]:
    voice = desk.voice(request)
    return await desk.part(request, "_content_add.html", voice=voice, form=form, problems=_problems(voice, refused))


@get("/content/{package:int}")
async def package_page(request: Asked, desk: TheDesk, package: FromPath[int]) -> Response[str]:
    return await _package(request, desk, package)


@post("/content/{package:int}/next", status_code=200, opt=MANAGE)
async def package_next(request: Asked, desk: TheDesk, package: FromPath[int]) -> Response[Any]:
    me = request.user.name
    try:
        made = await desk.db.write(lambda conn: store.next_version(conn, package, by=me, now_ms=desk.now_ms()))
    except Refused as refused:
        return await _package(request, desk, package, refused=refused)
    return _to(request, f"/content/{made}")


@post("/content/{package:int}/upload", status_code=200, opt=MANAGE, request_max_body_size=UPLOAD_MAX_BYTES)
async def package_upload(request: Asked, desk: TheDesk, package: FromPath[int]) -> Response[Any]:
    """One or several files of a form; each is checked against its type and lies under its hash afterwards."""
    me, files = request.user.name, _files(desk)
    given = [one for one in (await request.form()).getall("file", []) if isinstance(one, UploadFile) and one.filename]
    try:
        if not given:
            raise Refused("file", "noFile")
        for one in given:
            name = rules.file_name(one.filename)
            size, sha256 = await asyncio.to_thread(_keep, files, one, name)
            write = functools.partial(
                store.add_file, package_id=package, name=name, size=size, sha256=sha256, by=me, now_ms=desk.now_ms()
            )
            await desk.db.write(write)
    except Refused as refused:
        if is_fragment(request):
            return Response(desk.voice(request).t(f"refused.{refused.reason}"), media_type=MediaType.TEXT, status_code=400)
        return await _package(request, desk, package, refused=refused)
    return _to(request, f"/content/{package}")


def _keep(files: publish.Store, given: UploadFile, name: str) -> tuple[int, bytes]:
    """Copy, hash, check, then put it in its place."""
    path, digest, size = files.incoming(), hashlib.sha256(), 0
    try:
        with path.open("xb") as out:
            given.file.seek(0)
            while block := given.file.read(1 << 20):
                digest.update(block)
                size += len(block)
                out.write(block)
        with path.open("rb") as kept:
            head = kept.read(64)
            text = head + kept.read(rules.TEXT_MAX_BYTES) if rules.is_text(name) else None
        rules.check_file(name, head, size, text)
        files.take(path, digest.hexdigest())
    finally:
        path.unlink(missing_ok=True)
    return size, digest.digest()


@post("/content/{package:int}/pages", status_code=200, opt=MANAGE)
async def package_pages(request: Asked, desk: TheDesk, package: FromPath[int]) -> Response[Any]:
    """All pages in their order. `move` is `<row>:up`, `<row>:down` or `<row>:drop`; `add` makes a page of a file; `remove` drops a file."""
    form, me, now_ms = await request.form(), request.user.name, desk.now_ms()
    fields = ("id", "zh", "en", "file", "items", "seconds")
    columns = {name: [str(value) for value in form.getall(name, [])] for name in fields}
    rows = [dict(zip(fields, values, strict=True)) for values in zip(*columns.values(), strict=False)]
    try:
        _move(rows, str(form.get("move", "")))
        if form.get("add"):
            taken = {row["id"] for row in rows}
            title = str(form.get("title", ""))
            rows.append(
                {"id": rules.page_id(taken), "zh": title, "en": title, "file": str(form["add"]), "items": "", "seconds": "15"}
            )
        await desk.db.write(lambda conn: store.set_pages(conn, package, rows, by=me, now_ms=now_ms))
        if form.get("remove"):
            await desk.db.write(lambda conn: store.remove_file(conn, package, str(form["remove"]), by=me, now_ms=now_ms))
    except Refused as refused:
        return await _package(request, desk, package, refused=refused)
    return _to(request, f"/content/{package}")


def _move(rows: list[dict[str, str]], move: str) -> None:
    at_text, _, way = move.partition(":")
    if not (at_text.isascii() and at_text.isdigit() and int(at_text) < len(rows)):
        return
    at = int(at_text)
    if way == "drop":
        del rows[at]
        return
    other = at - 1 if way == "up" else at + 1
    if 0 <= other < len(rows):
        rows[at], rows[other] = rows[other], rows[at]


@post("/content/{package:int}/settings", status_code=200, opt=MANAGE)
async def package_settings(request: Asked, desk: TheDesk, package: FromPath[int]) -> Response[Any]:
    form, me = await request.form(), request.user.name
    zone = desk.view.zone
    try:
        days = {str(day) for day in form.getall("day", [])}
        mask = sum(1 << day for day in range(rules.WEEKDAYS) if str(day) in days)
        if not mask:
            raise Refused("day", "contentDays")
        priority = str(form.get("priority", "5"))
        until = _day_ms(str(form.get("until", "")), zone)
        values: dict[str, Any] = {
            "title": person_text("title", str(form.get("title", "")), 60),
            "from_ms": _day_ms(str(form.get("from", "")), zone) or 0,
            "until_ms": None if until is None else until + 86_400_000,
            "weekdays": mask,
            "priority": int(priority) if priority in set("0123456789") else 5,
            "offline": int(form.get("offline") == "yes"),
            "areas": json.dumps([str(one) for one in form.getall("area", [])]),
        }
        if values["until_ms"] is not None and values["until_ms"] <= values["from_ms"]:
            raise Refused("until", "contentWindow")
        await desk.db.write(lambda conn: store.settings(conn, package, values, by=me, now_ms=desk.now_ms()))
    except Refused as refused:
        return await _package(request, desk, package, refused=refused)
    return _to(request, f"/content/{package}")


def _day_ms(text: str, zone: str) -> int | None:
    if not text.strip():
        return None
    try:
        return int(datetime.strptime(text.strip(), "%Y-%m-%d").replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)
    except ValueError:
        raise Refused("from", "contentDate") from None


@post("/content/{package:int}/act/{act:str}", status_code=200)
async def package_act(request: Asked, desk: TheDesk, package: FromPath[int], act: FromPath[str]) -> Response[Any]:
    """Send to review, return, approve, publish, disable, delete: each with the rights that it takes."""
    form, me, now_ms = await form_of(request), request.user.name, desk.now_ms()
    may = [one for one in PERMISSIONS if request.user.may(one)]
    if act not in rules.ACTS:
        raise NotFound(f"act {act[:20]!r}")
    if rules.ACTS[act][2] not in may:
        raise Forbidden(f"{me} may not {act} content")
    try:
        note = person_text("note", form["note"], 200) if form.get("note", "").strip() else ""
        if act in rules.CLAIMED:
            await _releasing(desk, now_ms).package(package, act, by=me, may=may, note=note)
        else:
            await desk.db.write(lambda conn: store.act(conn, package, act, by=me, may=may, now_ms=now_ms, note=note))
        if act == "delete":
            wanted = await desk.db.look(store.wanted_files)
            await asyncio.to_thread(_files(desk).sweep, wanted)
    except UpdatesError as err:
        return await _package(request, desk, package, problem=err.sentence(desk.voice(request).lang))
    except Refused as refused:
        return await _package(request, desk, package, refused=refused)
    return _to(request, "/content" if act == "delete" else f"/content/{package}")


def _releasing(desk: Desk, now_ms: int) -> Releasing:
    """Refused where the server has no keys of its own yet."""
    layout = desk.settings.layout.updates
    if not layout.exists:
        raise Refused("act", "contentNotReady")
    return Releasing(write=desk.db.write, files=_files(desk), intake=_intake(layout, now_ms), now_ms=now_ms)


def _intake(layout: UpdatesLayout, now_ms: int) -> publish.Intake:
    def add(role: str, path: str, data: bytes | Path, custom: ImageCustom) -> None:
        layout.make()
        intake.add_online(Updates(layout), role, path, data, custom, now_ms=now_ms)

    return add


# Items ----------------------------------------------------------------------------------------------------------------------------------


@get("/content/items")
async def items_page(request: Asked, desk: TheDesk) -> Response[str]:
    return await _items(request, desk)


@post("/content/items/set", status_code=200, opt=MANAGE)
async def item_set(request: Asked, desk: TheDesk) -> Response[Any]:
    form, me = await form_of(request), request.user.name
    try:
        try:
            item = msgspec.convert({name: form.get(name, "").strip() for name in ("code", "type", "zh", "en")}, Item)
        except msgspec.ValidationError as err:
            raise Refused("item", "itemCode" if "$.code" in str(err) else "itemName") from None
        await desk.db.write(lambda conn: store.set_item(conn, item, by=me, now_ms=desk.now_ms()))
    except Refused as refused:
        return await _items(request, desk, form=form, refused=refused)
    return _to(request, "/content/items")


@post("/content/items/switch", status_code=200, opt=MANAGE)
async def item_switch(request: Asked, desk: TheDesk) -> Response[Any]:
    form, me = await form_of(request), request.user.name
    area, code, on = form.get("group", ""), form.get("code", ""), form.get("on") == "yes"
    await desk.db.write(lambda conn: store.switch(conn, area, code, on, by=me, now_ms=desk.now_ms()))
    return _to(request, f"/content/items?area={area}" if area else "/content/items")


@post("/content/items/release", status_code=200, opt=MANAGE)
async def items_release(request: Asked, desk: TheDesk) -> Response[Any]:
    form, me, now_ms = await form_of(request), request.user.name, desk.now_ms()
    area = form.get("group", "")
    try:
        await _releasing(desk, now_ms).catalogue(area, by=me)
    except UpdatesError as err:
        return await _items(request, desk, problem=err.sentence(desk.voice(request).lang))
    except Refused as refused:
        return await _items(request, desk, refused=refused)
    return _to(request, f"/content/items?area={area}" if area else "/content/items")


async def _items(
    request: Asked, desk: Desk, *, form: Mapping[str, str] | None = None, refused: Refused | None = None, problem: str = ""
) -> Response[str]:
    voice = desk.voice(request)
    rows, switched = await desk.db.look(store.items), await desk.db.look(store.off)
    areas = await desk.db.look(store.areas)
    area = request.query_params.get("area", "")
    area = area if area in {one["code"] for one in areas} else ""
    names = {one["code"]: one["name_en" if voice.lang == "en" else "name_zh"] for one in areas}
    made = await desk.db.look(store.catalogue_releases)
    return await desk.page(
        request,
        "content_items.html",
        nav="system",
        voice=voice,
        status=200 if refused is None and not problem else 400,
        rows=[
            {
                **row,
                "everywhere": ("", row["code"]) not in switched,
                "here": (area, row["code"]) not in switched,
                "n_off": sum(code == row["code"] and bool(where) for where, code in switched),
            }
            for row in rows
        ],
        areas=list(names.items()),
        area=area,
        area_name=names.get(area, ""),
        released=[{**one, "where": names.get(one["area"], voice.t("items.everywhere"))} for one in made],
        types=[(kind, voice.t(f"items.type.{kind}")) for kind in TYPES],
        form={"code": "", "zh": "", "en": "", "type": "handle", **(form or {})},
        may_manage=request.user.may("manage"),
        is_ready=desk.settings.layout.updates.exists,
        problem=problem or (voice.t(f"refused.{refused.reason}") if refused else ""),
    )


HANDLERS = [
    content_page, content_add_form, content_add, package_page, package_next, package_upload, package_pages, package_settings,
    package_act, items_page, item_set, item_switch, items_release,
]  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------------------------


def _files(desk: Desk) -> publish.Store:
    return publish.Store(desk.settings.data_dir / "content")


def _to(request: Asked, target: str) -> Response[Any]:
    if is_fragment(request):
        return Response("", media_type=MediaType.TEXT, headers={"HX-Redirect": target})
    return Redirect(target, status_code=303)


def _problems(voice: Voice, refused: Refused | None) -> dict[str, str]:
    return {} if refused is None else {refused.field: voice.t(f"refused.{refused.reason}")}


def _line(voice: Voice, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "look": LOOKS.get(row["state"], "quiet"),
        "word": voice.t(f"content.state.{row['state']}"),
        "size_text": _size(row["bytes"]) if "bytes" in row else "",
        "window": _window(voice, row),
    }


def _window(voice: Voice, row: Mapping[str, Any]) -> str:
    first = _date(row["from_ms"], voice.zone) if row["from_ms"] else ""
    last = _date(row["until_ms"] - 1, voice.zone) if row["until_ms"] else ""
    if first and last:
        return voice.t("content.window.both", first=first, last=last)
    if first:
        return voice.t("content.window.first", first=first)
    return voice.t("content.window.last", last=last) if last else voice.t("content.window.none")


def _date(at_ms: int, zone: str) -> str:
    return (
        (datetime.fromtimestamp(0, ZoneInfo("UTC")) + timedelta(milliseconds=at_ms))
        .astimezone(ZoneInfo(zone))
        .strftime("%Y-%m-%d")
    )


def _size(size: int) -> str:
    if size >= 1 << 20:
        return f"{size / (1 << 20):.1f} MiB"
    return f"{max(1, round(size / 1024))} KiB"


async def _package(
    request: Asked, desk: Desk, package: int, *, refused: Refused | None = None, problem: str = ""
) -> Response[str]:
    voice = desk.voice(request)
    row = await desk.db.look(lambda conn: store.package(conn, package))
    if row["state"] == "deleted":
        raise NotFound(f"content package {package}")
    draft = await desk.db.look(lambda conn: store.draft(conn, package))
    files = await desk.db.look(lambda conn: store.files(conn, package))
    events = await desk.db.look(lambda conn: store.events(conn, package))
    since_ms = desk.now_ms() - PLAYS_DAYS * 86_400_000
    shown = await desk.db.look(lambda conn: store.plays(conn, draft.name, since_ms))
    areas = await desk.db.look(store.areas)
    pages = msgspec.convert(json.loads(row["pages"]), tuple[Page, ...])
    titles = {page.id: page.en if voice.lang == "en" else page.zh for page in pages}
    fleet = await desk.fleet(request)
    names = {one.id: one.name_at_site(voice.lang) for one in fleet.terminals}
    chosen = set(json.loads(row["areas"]))
    used = {page.file for page in pages}
    is_draft = row["state"] == "draft" and request.user.may("manage")
    return await desk.page(
        request,
        "content_package.html",
        nav="system",
        voice=voice,
        status=200 if refused is None and not problem else (refused.status if refused else 400),
        row=_line(voice, row),
        version=draft.version,
        is_draft=is_draft,
        pages=pages,
        files=[
            {**one, "text": _size(one["size"]), "used": one["name"] in used, "can_show": _can_show(one["name"])} for one in files
        ],
        shown_files=[one["name"] for one in files if _can_show(one["name"])],
        total=_size(sum(one["size"] for one in files)),
        days=[(day, voice.t(f"content.day.{day}"), bool(row["weekdays"] >> day & 1)) for day in range(rules.WEEKDAYS)],
        first=_date(row["from_ms"], voice.zone) if row["from_ms"] else "",
        last=_date(row["until_ms"] - 1, voice.zone) if row["until_ms"] else "",
        areas=[(one["code"], one["name_en" if voice.lang == "en" else "name_zh"], one["code"] in chosen) for one in areas],
        acts=_acts(request, draft),
        own_work=draft.state == "review" and request.user.may("approve") and _own(request, draft),
        history=[_event(voice, one) for one in events],
        plays=[_played(voice, one, titles.get(one["page"], one["page"])) for one in shown["pages"]],
        play_terminals=[_played(voice, one, names.get(one["terminal"], one["terminal"])) for one in shown["terminals"]],
        may_manage=request.user.may("manage"),
        problem=problem or (voice.t(f"refused.{refused.reason}") if refused else ""),
    )


def _event(voice: Voice, one: Mapping[str, Any]) -> dict[str, Any]:
    parts = [one["note"]] if one["note"] else []
    return {"at_ms": one["at_ms"], "by": one["actor"], "what": voice.t(f"content.event.{one['kind']}"), "parts": parts}


def _played(voice: Voice, one: Mapping[str, Any], title: str) -> dict[str, Any]:
    return {**one, "title": title, "time": voice.duration(one["seconds"] * 1000)}


def _own(request: Asked, draft: rules.Draft) -> bool:
    return request.user.name in draft.editors | {draft.created_by}


def _can_show(name: str) -> bool:
    return name.rpartition(".")[2] in packages.SHOWN


def _acts(request: Asked, draft: rules.Draft) -> list[str]:
    """What the person may do with it now, in the order of a package's life."""
    found = []
    for act, (froms, _, permission) in rules.ACTS.items():
        own = act == "approve" and _own(request, draft)
        if draft.state in froms and request.user.may(permission) and not own:
            found.append(act)
    return found
