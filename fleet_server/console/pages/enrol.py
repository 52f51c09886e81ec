"""What is done to terminals, one or many: add, maintain, tag, retire. Forms are dialogs."""

from __future__ import annotations

import io
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import segno
from litestar import Response, get, post
from litestar.enums import MediaType
from litestar.params import FromPath
from markupsafe import Markup

from fleet_server.authority.authority import Authority
from fleet_server.authority.files import AuthorityError
from fleet_server.console import actions
from fleet_server.console.actions import BadInventory, Issued
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of
from fleet_server.console.fleet import Fleet
from fleet_server.console.looks import LOOK
from fleet_server.console.model import TerminalNow
from fleet_server.console.pages.answers import acted, ids_of, local_field, tally_answer
from fleet_server.console.pages.faults import OPERATOR
from fleet_server.console.pages.terminal import found
from fleet_server.console.render import Voice
from fleet_server.errors import Refused
from protocols.canon.words import TerminalType

USUAL_INVENTORY: Final = "id-reader M\nlaser-printer M\nreceipt-printer M\nscanner M\nkeypad o\nevaluator o"
EMPTY_FORM: Final = {
    "code": "", "type": "kiosk", "name_zh": "", "name_en": "", "site": "", "class": "government", "inventory": USUAL_INVENTORY,
}  # fmt: skip


@get("/terminals/add", opt=OPERATOR)
async def add_form(request: Asked, desk: TheDesk) -> Response[str]:
    return await _form(request, desk, EMPTY_FORM)


@post("/terminals/add", status_code=200, opt=OPERATOR)
async def add(request: Asked, desk: TheDesk) -> Response[str]:
    form = EMPTY_FORM | {"inventory": ""} | await form_of(request)
    try:
        terminal = actions.read_terminal(form)
        issued = await desk.db.write(
            lambda connection: actions.create_terminal(connection, terminal, request.user.name, desk.now_ms())
        )
    except Refused as refused:
        return await _form(request, desk, form, refused)
    return await _code(request, desk, issued, terminal.code)


@post("/terminals/{terminal_id:str}/code", status_code=200, opt=OPERATOR)
async def renew_code(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    now = found(await desk.fleet(request), terminal_id)
    issued = await desk.db.write(lambda connection: actions.issue_code(connection, now.id, request.user.name, desk.now_ms()))
    return await _code(request, desk, issued, now.label)


@get("/terminals/{terminal_id:str}/enrolment", opt=OPERATOR)
async def enrolment(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    """Whether the terminal that a code was made for is here by now; the dialog asks again by itself."""
    now = found(await desk.fleet(request), terminal_id)
    rows = await desk.db.read("SELECT expires_ms FROM enrolment_code WHERE terminal = ? ORDER BY id DESC LIMIT 1", (now.id,))
    return await desk.part(
        request, "_enrolment.html", now=now, look=LOOK[now.state], expires_ms=rows[0]["expires_ms"] if rows else 0
    )


@get("/terminals/{terminal_id:str}/maintenance", opt=OPERATOR)
async def maintenance_form(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    now = found(await desk.fleet(request), terminal_id)
    return await _maintenance(request, desk, now, {})


@post("/terminals/{terminal_id:str}/maintenance", status_code=200, opt=OPERATOR)
async def start_maintenance(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    now = found(await desk.fleet(request), terminal_id)
    form, now_ms = await form_of(request), desk.now_ms()
    try:
        until_ms = actions.until_of(form.get("until", ""), now_ms, now.place.timezone, form.get("at", ""))
        await desk.db.write(
            lambda connection: actions.start_maintenance(
                connection, now.id, request.user.name, form.get("reason", ""), until_ms, now_ms
            )
        )
    except Refused as refused:
        return await _maintenance(request, desk, now, form, refused.reason)
    return acted()


@post("/terminals/{terminal_id:str}/maintenance/end", status_code=200, opt=OPERATOR)
async def end_maintenance(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    await desk.db.write(lambda connection: actions.end_maintenance(connection, terminal_id, request.user.name, desk.now_ms()))
    return acted()


@get("/terminals/{terminal_id:str}/retire", opt=OPERATOR)
async def retire_form(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    return await _retire(request, desk, found(await desk.fleet(request), terminal_id), {})


@post("/terminals/{terminal_id:str}/retire", status_code=200, opt=OPERATOR)
async def retire(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    """For good: its keys and certificates end. The page that asked is gone then, so the browser goes to the list."""
    now, form = found(await desk.fleet(request), terminal_id), await form_of(request)
    try:
        await desk.db.write(
            lambda connection: actions.retire(
                connection, now.id, request.user.name, form.get("reason", ""), form.get("confirm", ""), desk.now_ms()
            )
        )
    except Refused as refused:
        return await _retire(request, desk, now, form, refused.reason)
    return Response("", media_type=MediaType.HTML, headers={"HX-Redirect": "/terminals"})


# Many at once ---------------------------------------------------------------------------------------------------------------------------


@post("/terminals/bulk", status_code=200, opt=OPERATOR)
async def bulk(request: Asked, desk: TheDesk) -> Response[str]:
    """`verb` for every `id`, after a dialog has asked for words where it needs some. One transaction; each row refuses for itself."""
    form, ids = await form_of(request), await ids_of(request)
    verb, fleet, now_ms, me = form.get("verb", ""), await desk.fleet(request), desk.now_ms(), request.user.name
    if verb not in BULK:
        raise Refused("verb", "bulkVerb")
    if not ids:
        raise Refused("id", "nothingChosen")
    if verb != "endMaintenance" and "asked" not in form:
        return await _ask(request, desk, verb, ids, {})
    try:
        act = _bulk_act(verb, form, fleet, desk.view.zone, me, now_ms)
    except Refused as refused:
        return await _ask(request, desk, verb, ids, form, refused.reason)
    tally = await desk.db.write(lambda connection: actions.each(connection, ids, lambda one: act(connection, one)))
    labels = {terminal.id: terminal.label for terminal in fleet.terminals}
    return await tally_answer(
        request, desk, desk.voice(request).t(f"bulk.terminal.{verb}"), tally, lambda one: labels.get(one, one[:64])
    )


BULK: Final = ("maintenance", "endMaintenance", "addTag", "removeTag")
HANDLERS = [
    add_form, add, renew_code, enrolment, maintenance_form, start_maintenance, end_maintenance, retire_form, retire, bulk,
]  # fmt: skip


def _bulk_act(
    verb: str, form: dict[str, str], fleet: Fleet, zone: str, me: str, now_ms: int
) -> Callable[[sqlite3.Connection, str], None]:
    """What is done to each. Words and ends that no row could have are refused here, for all rows at once."""
    if verb == "endMaintenance":
        return lambda connection, one: actions.end_maintenance(connection, one, me, now_ms)
    if verb in {"addTag", "removeTag"}:
        tag, act = actions.tag_text(form.get("tag", "")), actions.add_tag if verb == "addTag" else actions.remove_tag
        return lambda connection, one: act(connection, one, tag, now_ms)
    reason = actions.person_text("reason", form.get("reason", ""), actions.REASON_MAX)
    until, at = form.get("until", ""), form.get("at", "")
    if not now_ms < actions.until_of(until, now_ms, zone, at) <= now_ms + actions.LONGEST_MAINTENANCE_MS:
        raise Refused("until", "until")

    def start(connection: sqlite3.Connection, one: str) -> None:
        terminal = fleet.by_id.get(one)
        own_zone = terminal.place.timezone if terminal else zone
        actions.start_maintenance(connection, one, me, reason, actions.until_of(until, now_ms, own_zone, at), now_ms)

    return start


async def _ask(request: Asked, desk: Desk, verb: str, ids: list[str], form: dict[str, str], problem: str = "") -> Response[str]:
    voice, fleet = desk.voice(request), await desk.fleet(request)
    values: dict[str, Any] = {
        "voice": voice,
        "action": "/terminals/bulk",
        "title": voice.t(f"bulk.ask.{verb}", n=len(ids)),
        "ids": ids,
        "verb": verb,
        "problem": voice.t(f"refused.{problem}") if problem else "",
    }
    if verb == "maintenance":
        return await desk.part(request, "_maintenance.html", **values, **_until_values(form, voice.now_ms, voice.zone))
    chosen = [fleet.by_id[one] for one in ids if one in fleet.by_id]
    every = chosen if verb == "removeTag" else list(fleet.terminals)
    tags = sorted({tag for terminal in every for tag in terminal.tags})
    return await desk.part(request, "_bulk_tag.html", **values, tag=form.get("tag", ""), tags=tags)


# Dialogs --------------------------------------------------------------------------------------------------------------------------------


def _until_values(form: dict[str, str], now_ms: int, zone: str) -> dict[str, Any]:
    return {
        "reason": form.get("reason", ""),
        "until": form.get("until", "2h"),
        "untils": actions.MAINTENANCE_UNTIL,
        "at": form.get("at") or local_field(now_ms + 4 * 3_600_000, zone),
        "earliest": local_field(now_ms, zone),
        "latest": local_field(now_ms + actions.LONGEST_MAINTENANCE_MS, zone),
    }


async def _maintenance(request: Asked, desk: Desk, now: TerminalNow, form: dict[str, str], problem: str = "") -> Response[str]:
    voice = desk.voice(request)
    return await desk.part(
        request,
        "_maintenance.html",
        voice=voice,
        action=f"/terminals/{now.id}/maintenance",
        title=voice.t("maintenance.of", terminal=now.label),
        ids=[],
        verb="maintenance",
        problem=voice.t(f"refused.{problem}") if problem else "",
        **_until_values(form, voice.now_ms, now.place.timezone),
    )


async def _retire(request: Asked, desk: Desk, now: TerminalNow, form: dict[str, str], problem: str = "") -> Response[str]:
    voice = desk.voice(request)
    return await desk.part(
        request,
        "_retire.html",
        voice=voice,
        now=now,
        reason=form.get("reason", ""),
        confirm=form.get("confirm", ""),
        problem=voice.t(f"refused.{problem}", code=now.label) if problem else "",
    )


async def _form(request: Asked, desk: Desk, form: dict[str, Any], refused: Refused | None = None) -> Response[str]:
    voice = desk.voice(request)
    by_area: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for place in (await desk.view.places()).values():
        by_area[place.area_path(voice.lang)].append((place.code, place.name(voice.lang)))
    sites = [(area or voice.t("add.noArea"), sorted(by_area[area], key=lambda one: one[1])) for area in sorted(by_area)]
    return await desk.part(
        request,
        "_add.html",
        voice=voice,
        form=form,
        types=list(TerminalType),
        sites=sites,
        problem=_problem(refused, voice) if refused else "",
    )


def _problem(refused: Refused, voice: Voice) -> str:
    n = refused.line if isinstance(refused, BadInventory) else 0
    return voice.t(f"refused.{refused.reason}", n=n)


async def _code(request: Asked, desk: Desk, issued: Issued, label: str) -> Response[str]:
    command = enrol_command(desk, issued)
    answer = await desk.part(
        request,
        "_code.html",
        terminal=issued.terminal,
        label=label,
        code=issued.code,
        expires_ms=issued.expires_ms,
        command=command,
        qr=qr_code(command),
    )
    answer.headers["HX-Trigger"] = "kf:acted"
    return answer


def qr_code(text: str) -> Markup:
    """The text as a picture for the kiosk's own scanner, which types what it reads. Made here: the code leaves this server on the page only."""
    out = io.BytesIO()
    segno.make(text, error="m", micro=False).save(
        out, kind="svg", xmldecl=False, svgns=False, omitsize=True, border=4, dark="#000", light="#fff", nl=False
    )
    return Markup(out.getvalue().decode("utf-8"))  # noqa: S704 - geometry that segno drew; the text itself is not in it


def enrol_command(desk: Desk, issued: Issued) -> str:
    """The exact command to type on the terminal."""
    settings = desk.settings
    parts = [f"edge-agent enrol --terminal {issued.terminal} --server https://{settings.public_name}:{settings.enrolment.port}"]
    try:
        parts.append(f"--ca-fingerprint {Authority(settings.layout.authority).ca_fingerprint}")
    except AuthorityError:
        parts.append("--ca-file ca.pem")
    return " ".join([*parts, f"--code {issued.code}"])
