"""Releases: what can be rolled out, the upload of a release pack, and what people found out about a version."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from pathlib import Path
from typing import Any, Final, Literal

from litestar import Response, get, post
from litestar.datastructures import UploadFile
from litestar.enums import MediaType
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect
from multipart import (  # type: ignore[import-untyped]  # Litestar's own parser, which has no types
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)

from fleet_server import audit
from fleet_server.accounts.access import CSRF_HEADER
from fleet_server.console import rollout_view as view
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of, is_fragment
from fleet_server.console.pages.answers import acted
from fleet_server.console.pages.rollouts import check_may_stop, may_stop
from fleet_server.console.queries import rollouts as queries
from fleet_server.console.site_view import problems_of
from fleet_server.errors import NotFound, Refused
from fleet_server.rollouts import releases, store
from fleet_server.updates import intake, packs
from fleet_server.updates.errors import UpdatesError
from fleet_server.updates.layout import UpdatesLayout
from fleet_server.updates.repository import Updates

MANAGE: Final = {"permission": "manage"}
ENVELOPE_BYTES: Final = 64 * 1024
"""What a form needs around its file."""
UPLOAD_MAX_BYTES: Final = packs.PACK_MAX_BYTES + ENVELOPE_BYTES
CALLS: Final[dict[str, Literal["good", "bad", ""]]] = {"good": "good", "bad": "bad", "open": ""}


@get("/updates/releases")
async def releases_page(request: Asked, desk: TheDesk, taken: FromQuery[str] = "") -> Response[str]:
    return await _list(request, desk, taken=taken)


async def _list(request: Asked, desk: Desk, *, taken: str = "", problem: str = "", status: int = 200) -> Response[str]:
    voice = desk.voice(request)
    found = await desk.db.look(store.releases)
    running = await _running(desk)
    names = [
        view.release_name(voice, found[int(one)])
        for one in taken.split(",")
        if one.isascii() and one.isdigit() and int(one) in found
    ]
    return await desk.page(
        request,
        "releases.html",
        nav="updates",
        voice=voice,
        status=status,
        rows=[view.release_line(voice, one, running) for one in found.values()],
        may_upload=request.user.may("manage"),
        may_request=request.user.may("request"),
        is_ready=desk.settings.layout.updates.exists,
        notice=voice.t("release.taken", names=voice.t("updates.join").join(names)) if names else "",
        problem=problem,
    )


@get("/updates/releases/{release:int}")
async def release_page(request: Asked, desk: TheDesk, release: FromPath[int]) -> Response[str]:
    voice = desk.voice(request)
    one = await _one(desk, release)
    sheets, counts, _ = await desk.db.look(queries.overview)
    used = [
        {
            "id": name,
            "title": sheet.title,
            "look": view.LOOKS[sheet.rollout.state.value],
            "word": voice.t(f"rollout.state.{sheet.rollout.state.value}"),
            "bar": {**view.bar(counts[name]), "said": view.bar_said(voice, counts[name])} if name in counts else None,
            "at_ms": sheet.rollout.created_ms,
        }
        for name, sheet in sheets.items()
        if release in sheet.releases
    ]
    return await desk.page(
        request,
        "release.html",
        nav="updates",
        voice=voice,
        row=view.release_line(voice, one, await _running(desk)),
        one=one,
        sha=one.sha256.hex(),
        used=used,
        called=voice.t(
            "release.calledBy",
            name=one.known_by,
            time=voice.clock(one.known_ms),
            text=one.known_reason or voice.t(f"release.known.{one.known or 'open'}"),
        )
        if one.known_by and one.known_ms
        else "",
        may_request=request.user.may("request"),
        may_call=may_stop(request),
        may_manage=request.user.may("manage"),
    )


@get(["/updates/releases/{release:int}/bad", "/updates/releases/{release:int}/notes"])
async def release_dialog(request: Asked, desk: TheDesk, release: FromPath[int]) -> Response[str]:
    check_may_stop(request)
    return await _dialog(request, desk, release, request.url.path.rpartition("/")[2])


@post("/updates/releases/{release:int}/notes", status_code=200, opt=MANAGE)
async def release_notes(request: Asked, desk: TheDesk, release: FromPath[int]) -> Response[str]:
    form, me = await form_of(request), request.user.name
    text = form.get("text", "")
    try:
        await desk.db.write(lambda conn: releases.write_notes(conn, release, text, by=me, now_ms=desk.now_ms()))
    except Refused as refused:
        return await _dialog(request, desk, release, "notes", text, refused)
    return acted(desk.voice(request).t("release.called"))


@post("/updates/releases/{release:int}/call/{known:str}", status_code=200)
async def release_call(request: Asked, desk: TheDesk, release: FromPath[int], known: FromPath[str]) -> Response[str]:
    """A verdict. Whoever may stop a rollout may say that a release is bad."""
    check_may_stop(request)
    if known not in CALLS:
        raise NotFound(f"verdict {known[:20]!r}")
    form, me = await form_of(request), request.user.name
    text = form.get("text", "")
    try:
        await desk.db.write(lambda conn: releases.call(conn, release, CALLS[known], text, by=me, now_ms=desk.now_ms()))
    except Refused as refused:
        if refused.field != "reason":
            raise
        return await _dialog(request, desk, release, "bad", text, refused)
    return acted(desk.voice(request).t("release.called"))


async def _dialog(
    request: Asked, desk: Desk, release: int, what: str, text: str | None = None, refused: Refused | None = None
) -> Response[str]:
    voice = desk.voice(request)
    one = await _one(desk, release)
    shown = one.notes if text is None and what == "notes" else text or ""
    values: dict[str, Any] = {"name": view.release_name(voice, one), "id": release, "what": what, "text": shown}
    return await desk.part(request, "_release_dialog.html", voice=voice, problems=problems_of(refused, voice), **values)


# The upload -----------------------------------------------------------------------------------------------------------------------------


@post("/updates/releases/upload", status_code=200, opt=MANAGE, request_max_body_size=UPLOAD_MAX_BYTES)
async def upload(request: Asked, desk: TheDesk) -> Response[Any]:
    """A release pack: written to the disk as it comes, verified, published. Every refusal is a sentence."""
    voice, layout, me = desk.voice(request), desk.settings.layout.updates, request.user.name
    if not layout.exists:
        return await _refuse(request, desk, voice.t("release.notReady"))
    layout.make()
    path = layout.staging / f"upload-{secrets.token_hex(8)}"
    try:
        if not await _receive(request, path):
            return await _refuse(request, desk, voice.t("refused.noFile"))
        taken = await asyncio.to_thread(_take, layout, path, desk.now_ms())
    except UpdatesError as refused:
        return await _refuse(request, desk, refused.sentence(voice.lang))
    finally:
        path.unlink(missing_ok=True)
    ids = await desk.db.write(lambda conn: _record(conn, taken, me, desk.now_ms()))
    target = f"/updates/releases?taken={','.join(str(one) for one in ids)}"
    if is_fragment(request):
        return Response("", media_type=MediaType.TEXT, headers={"HX-Redirect": target})
    return Redirect(target, status_code=303)


async def _receive(request: Asked, path: Path) -> bool:
    """The form's file, on the disk when this returns; False if there was none. Never more of it in memory than one piece."""
    if CSRF_HEADER not in request.headers:
        # The token stood in a field, so the form was read before this; its file lies in a temporary file already.
        file = (await request.form()).get("file")
        if not isinstance(file, UploadFile) or not file.filename:
            return False
        with path.open("xb") as out:
            await asyncio.to_thread(shutil.copyfileobj, file.file, out)
            return out.tell() > 0
    kind, options = parse_options_header(request.headers.get("Content-Type", ""))
    if kind != "multipart/form-data" or "boundary" not in options:
        return False
    is_file = False
    try:
        with path.open("xb") as out, PushMultipartParser(options["boundary"], max_segment_count=4) as parser:
            async for chunk in request.stream():
                for part in parser.parse(chunk):
                    if isinstance(part, MultipartSegment):
                        is_file = part.name == "file" and bool(part.filename)
                    elif part and is_file:
                        out.write(part)
            return out.tell() > 0
    except MultipartError:
        return False


def _take(layout: UpdatesLayout, path: Path, now_ms: int) -> intake.Taken:
    return intake.take(Updates(layout), path, now_ms=now_ms)


def _record(conn: Any, taken: intake.Taken, by: str, now_ms: int) -> list[int]:
    made = [
        releases.record(
            conn, one.custom, path=one.path, length=one.length, sha256=bytes.fromhex(one.sha256), by=by, now_ms=now_ms
        )
        for one in taken.releases
    ]
    detail = {
        "role": taken.role,
        "version": taken.version,
        "paths": [one.path for one in taken.releases],
        "signed_by": list(taken.signed_by),
    }
    audit.write(conn, by, None, "release.upload", f"release:{taken.role}", detail, now_ms=now_ms)
    return made


async def _refuse(request: Asked, desk: Desk, sentence: str) -> Response[Any]:
    if is_fragment(request):
        return Response(sentence, media_type=MediaType.TEXT, status_code=400)
    return await _list(request, desk, problem=sentence, status=400)


HANDLERS = [releases_page, release_page, release_dialog, release_notes, release_call, upload]


async def _one(desk: Desk, release: int) -> store.Release:
    found = await desk.db.look(lambda conn: store.releases(conn, [release]))
    if release not in found:
        raise NotFound(f"release {release}")
    return found[release]


async def _running(desk: Desk) -> dict[tuple[str, str], int]:
    """(component, version) → terminals; the firmware of all slots counts together."""
    found: dict[tuple[str, str], int] = {}
    for row in await desk.db.look(queries.versions):
        kind = "firmware" if row["component"].startswith("firmware/") else row["component"]
        found[kind, row["version"]] = found.get((kind, row["version"]), 0) + row["n"]
    return found
