"""Signing in and out, language, password."""

from __future__ import annotations

from typing import Any, Final

from litestar import Response, get, post
from litestar.datastructures import Cookie
from litestar.enums import MediaType
from litestar.params import FromQuery
from litestar.response import Redirect

from fleet_server.accounts import management, rules
from fleet_server.accounts.rules import Session
from fleet_server.console.actions import person_text
from fleet_server.console.desk import LANGUAGE_COOKIE, Asked, Desk, TheDesk, form_of, language, local_address
from fleet_server.console.i18n import language_of
from fleet_server.console.queries import accounts as queries
from fleet_server.console.render import Voice
from fleet_server.console.threshold_view import value_words
from fleet_server.errors import NotFound, Refused

YEAR_S: Final = 365 * 86_400


@get("/login", opt={"public": True, "before_change": True})
async def login_page(request: Asked, desk: TheDesk, next: FromQuery[str] = "/", why: FromQuery[str] = "") -> Response[str]:  # noqa: A002 - the parameter's name in the address
    if request.user is not None:
        return Redirect(local_address(next))
    notice = {"signedOut": "login.signedOut", "expired": "login.expired"}.get(why)
    return _login(desk, request, next=local_address(next), notice=notice)


@post("/login", status_code=200, opt={"public": True, "before_change": True})
async def login(request: Asked, desk: TheDesk) -> Response[Any]:
    form = await form_of(request)
    lang = language_of(form.get("lang"))
    target = local_address(form.get("next"))
    name = form.get("name", "").strip()[:64]
    signed_in = await desk.sessions.sign_in(name, form.get("password", ""), now_ms=desk.now_ms(), lang=lang)
    if signed_in is None:
        return _login(desk, request, next=target, problem="login.wrong", name=name, status=401, lang=lang)
    if request.user is not None:
        # Whoever sat here before: the browser gets a new session, and the old one must not live on beside it.
        await desk.sessions.sign_out(request.user, now_ms=desk.now_ms())
    answer = Redirect("/password" if signed_in.session.must_change else target, status_code=303)
    _give_cookie(desk, answer, signed_in.token)
    answer.set_cookie(_language_cookie(lang))
    return answer


@post("/logout", status_code=303, opt={"before_change": True})
async def logout(request: Asked, desk: TheDesk) -> Redirect:
    await desk.sessions.sign_out(request.user, now_ms=desk.now_ms())
    answer = Redirect("/login?why=signedOut", status_code=303)
    answer.delete_cookie(desk.cookie, path="/")
    # Nothing of this console stays in a shared browser.
    answer.headers["Clear-Site-Data"] = '"cache", "storage"'
    return answer


@post("/language", status_code=303, opt={"before_change": True})
async def set_language(request: Asked, desk: TheDesk) -> Redirect:
    form = await form_of(request)
    lang = language_of(form.get("lang"))
    await desk.sessions.set_language(request.user, lang)
    answer = Redirect(local_address(form.get("back")), status_code=303)
    answer.set_cookie(_language_cookie(lang))
    return answer


@post("/here", status_code=204)
async def here() -> None:
    """Somebody reads: the request itself keeps the session alive."""


@get("/password", opt={"before_change": True})
async def password_page(request: Asked, desk: TheDesk) -> Response[str]:
    return _password(desk, request, least=(await desk.sessions.limits()).password_min)


@post("/password", status_code=200, opt={"before_change": True})
async def change_password(request: Asked, desk: TheDesk) -> Response[Any]:
    form = await form_of(request)
    session: Session = request.user
    old, new = form.get("old", ""), form.get("new", "")
    if not await desk.sessions.password_fits(session, old, now_ms=desk.now_ms()):
        return _password(desk, request, problem="passwordWrong")
    if new != form.get("again"):
        return _password(desk, request, problem="passwordTwice")
    if new == old:
        return _password(desk, request, problem="passwordSame")
    limits = await desk.sessions.limits()
    if problem := rules.password_problem(session.name, new, limits.password_min):
        return _password(desk, request, problem=problem, least=limits.password_min)
    signed_in = await desk.sessions.change_password(session, new, now_ms=desk.now_ms())
    answer = Redirect("/", status_code=303)
    _give_cookie(desk, answer, signed_in.token)
    return answer


@get("/account")
async def own_page(request: Asked, desk: TheDesk, done: FromQuery[str] = "") -> Response[str]:
    return await _own(request, desk, done=done)


@post("/account", status_code=200)
async def set_own(request: Asked, desk: TheDesk) -> Response[Any]:
    form = await form_of(request)
    session: Session = request.user
    text = form.get("display", "")
    lang = language_of(form.get("lang"))
    try:
        display = person_text("display", text, management.DISPLAY_MAX) if text.strip() else ""
        await desk.db.write(
            lambda conn: management.set_own(
                conn, session.name, display=display, lang=lang, letters=bool(form.get("letters")), now_ms=desk.now_ms()
            )
        )
    except Refused as refused:
        return await _own(request, desk, form=form, refused=refused)
    answer = Redirect("/account?done=saved", status_code=303)
    answer.set_cookie(_language_cookie(lang))
    return answer


@post("/account/letters", status_code=204)
async def set_letters(request: Asked, desk: TheDesk) -> None:
    """The switch in the list of keys."""
    letters = (await form_of(request)).get("letters") == "on"
    await desk.db.write(
        lambda conn: conn.execute("UPDATE staff SET letters = ? WHERE name = ?", (int(letters), request.user.name))
    )


@post("/account/sessions/end", status_code=303)
async def end_session(request: Asked, desk: TheDesk) -> Redirect:
    """One of one's own other browsers."""
    wanted = (await form_of(request)).get("session", "")
    try:
        token_hash = bytes.fromhex(wanted)
    except ValueError:
        raise NotFound("no such session") from None
    if not await desk.db.write(lambda conn: management.end_session(conn, request.user.name, token_hash)):
        raise NotFound("no such session")
    return Redirect("/account?done=ended", status_code=303)


@post("/account/sessions/end-all", status_code=303)
async def end_all(request: Asked, desk: TheDesk) -> Redirect:
    """Out everywhere, here too."""
    name = request.user.name
    await desk.db.write(lambda conn: management.end_sessions(conn, name, by=name, now_ms=desk.now_ms()))
    answer = Redirect("/login?why=signedOut", status_code=303)
    answer.delete_cookie(desk.cookie, path="/")
    answer.headers["Clear-Site-Data"] = '"cache", "storage"'
    return answer


HANDLERS = [
    login_page,
    login,
    logout,
    set_language,
    here,
    password_page,
    change_password,
    own_page,
    set_own,
    set_letters,
    end_session,
    end_all,
]


def _login(
    desk: Desk,
    request: Asked,
    *,
    next: str,  # noqa: A002 - the template's name for it
    problem: str | None = None,
    notice: str | None = None,
    name: str = "",
    status: int = 200,
    lang: str | None = None,
) -> Response[str]:
    chosen = language_of(lang) if lang else language(request, None)
    voice = Voice(desk.render.catalogues[chosen], desk.now_ms(), desk.view.zone)
    values = {
        "next": next,
        "name": name,
        "problem": voice.t(problem) if problem else "",
        "notice": voice.t(notice) if notice else "",
    }
    return Response(desk.render("login.html", voice, None, values), media_type=MediaType.HTML, status_code=status)


def _password(desk: Desk, request: Asked, problem: str | None = None, least: int = rules.PASSWORD_MIN) -> Response[str]:
    voice = desk.voice(request)
    values = {"problem": voice.t(f"refused.{problem}", n=least) if problem else "", "least": least}
    html = desk.render("password.html", voice, request.user, values)
    return Response(html, media_type=MediaType.HTML, status_code=400 if problem else 200)


async def _own(
    request: Asked, desk: Desk, *, done: str = "", form: dict[str, str] | None = None, refused: Refused | None = None
) -> Response[str]:
    voice = desk.voice(request)
    session: Session = request.user
    limits = await desk.sessions.limits()
    row = await queries.account(desk.db, session.name, voice.now_ms, limits.idle_ms)
    open_ = await queries.sessions(desk.db, session.name, voice.now_ms, limits.idle_ms)
    stored = {"display": session.display, "lang": session.lang, "letters": "1" if session.letters else ""}
    values = {
        "form": {**stored, **form, "letters": form.get("letters", "")} if form else stored,
        "row": row,
        "sessions": [{**one, "id": one["token_hash"].hex(), "here": one["token_hash"] == session.token_hash} for one in open_],
        "idle": value_words(voice, limits.idle_ms / 1000, "s"),
        "longest": value_words(voice, limits.absolute_ms / 1000, "s"),
        "problems": {refused.field: voice.t(f"refused.{refused.reason}")} if refused else {},
        "notice": voice.t(f"own.done.{done}") if done in {"saved", "ended"} else "",
    }
    return await desk.page(request, "account.html", nav="", voice=voice, status=refused.status if refused else 200, **values)


def _give_cookie(desk: Desk, answer: Response[Any], token: str) -> None:
    answer.set_cookie(
        Cookie(key=desk.cookie, value=token, path="/", httponly=True, samesite="strict", secure=desk.settings.web.tls)
    )


def _language_cookie(lang: str) -> Cookie:
    return Cookie(key=LANGUAGE_COOKIE, value=lang, path="/", httponly=True, samesite="strict", max_age=YEAR_S)
