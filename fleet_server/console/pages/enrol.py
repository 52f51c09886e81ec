"""Adding terminals and setting maintenance: forms in a dialog."""

from __future__ import annotations

from typing import Any, Final

from litestar import Response, get, post
from litestar.enums import MediaType
from litestar.params import FromPath

from fleet_server.authority.authority import Authority
from fleet_server.authority.files import AuthorityError
from fleet_server.console import actions
from fleet_server.console.actions import BadInventory, Issued
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of
from fleet_server.console.pages.faults import ACTED, OPERATOR
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


@get("/terminals/{terminal_id:str}/maintenance", opt=OPERATOR)
async def maintenance_form(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    now = found(await desk.fleet(request), terminal_id)
    return await desk.part(request, "_maintenance.html", now=now, reason="", until="2h", problem="")


@post("/terminals/{terminal_id:str}/maintenance", status_code=200, opt=OPERATOR)
async def start_maintenance(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    now, voice = found(await desk.fleet(request), terminal_id), desk.voice(request)
    form = await form_of(request)
    reason, until = form.get("reason", ""), form.get("until", "")
    try:
        until_ms = actions.until_of(until, desk.now_ms(), now.place.timezone)
        await desk.db.write(
            lambda connection: actions.start_maintenance(connection, now.id, request.user.name, reason, until_ms, desk.now_ms())
        )
    except Refused as refused:
        problem = voice.t(f"refused.{refused.reason}")
        return await desk.part(request, "_maintenance.html", voice=voice, now=now, reason=reason, until=until, problem=problem)
    return Response("", media_type=MediaType.HTML, headers=ACTED)


@post("/terminals/{terminal_id:str}/maintenance/end", status_code=200, opt=OPERATOR)
async def end_maintenance(desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    await desk.db.write(lambda connection: actions.end_maintenance(connection, terminal_id, desk.now_ms()))
    return Response("", media_type=MediaType.HTML, headers=ACTED)


HANDLERS = [add_form, add, renew_code, maintenance_form, start_maintenance, end_maintenance]


async def _form(request: Asked, desk: Desk, form: dict[str, Any], refused: Refused | None = None) -> Response[str]:
    voice = desk.voice(request)
    places = await desk.view.places()
    sites = sorted(
        ((place.code, f"{place.area_path(voice.lang)} · {place.name(voice.lang)}") for place in places.values()),
        key=lambda item: item[1],
    )
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
    answer = await desk.part(
        request,
        "_code.html",
        label=label,
        code=issued.code,
        expires_ms=issued.expires_ms,
        command=enrol_command(desk, issued),
    )
    answer.headers["HX-Trigger"] = "kf:acted"
    return answer


def enrol_command(desk: Desk, issued: Issued) -> str:
    """The exact command to type on the terminal."""
    settings = desk.settings
    parts = [f"edge-agent enrol --terminal {issued.terminal} --server https://{settings.public_name}:{settings.enrolment.port}"]
    try:
        parts.append(f"--ca-fingerprint {Authority(settings.layout.authority).ca_fingerprint}")
    except AuthorityError:
        parts.append("--ca-file ca.pem")
    return " ".join([*parts, f"--code {issued.code}"])
