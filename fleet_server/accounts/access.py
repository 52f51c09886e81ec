"""Who may do what: finds the session of a request, holds each route to its role, and refuses forged requests.

A route is for signed-in people unless it says `public=True`; it is for everybody signed in unless it says `role="operator"` or
`permission="request"` (one of `accounts.permissions`). Unsafe methods need the session's CSRF token, and no request with a body is taken from another
origin.
"""

from __future__ import annotations

import hmac
from typing import Any, Final
from urllib.parse import urlsplit

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult

from fleet_server.accounts.rules import Session
from fleet_server.accounts.sessions import Sessions
from fleet_server.errors import Forbidden, NotFound, NotSignedIn, Refused

COOKIE: Final = "kf_session"
SECURE_COOKIE: Final = "__Host-kf_session"
"""The prefix makes browsers refuse the cookie from a sister host or without TLS (RFC 6265bis, section 4.1.3)."""
CSRF_HEADER: Final = "X-CSRF-Token"
CSRF_FIELD: Final = "_csrf"
LIVE_HEADER: Final = "X-Live"
"""Set by a page that refreshes itself: such a request does not keep a session alive."""
UNATTENDED: Final = ("/live", "/wall/")
"""What pages ask by themselves without being able to say so; a wallboard in somebody's browser does not keep their session alive either."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class MustChangePassword(NotSignedIn):
    """Signed in with a first password: only changing it is allowed."""

    word = "notSignedIn"


class SessionGate(AbstractAuthenticationMiddleware):
    """Puts the living session, or None, into `request.user`. Sessions, the cookie's name and the clock are those of the desk in the app's state."""

    async def authenticate_request(self, connection: ASGIConnection[Any, Any, Any, Any]) -> AuthenticationResult:
        desk = connection.app.state.desk
        sessions: Sessions = desk.sessions
        token = connection.cookies.get(desk.cookie)
        if not token:
            return AuthenticationResult(user=None, auth=None)
        now_ms: int = desk.now_ms()
        session = await sessions.find(token, now_ms=now_ms)
        if session is not None and LIVE_HEADER not in connection.headers and not connection.scope["path"].startswith(UNATTENDED):
            await sessions.touch(session, now_ms=now_ms)
        return AuthenticationResult(user=session, auth=token)


def require_role(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Guard of the whole application."""
    if handler.opt.get("public"):
        return
    session: Session | None = connection.scope.get("user")  # nobody looks for one in an OPTIONS request
    if session is None:
        raise NotSignedIn("no session")
    if session.must_change and not handler.opt.get("before_change"):
        raise MustChangePassword("the first password must be changed")
    if handler.opt.get("role") == "operator" and not session.operator:
        raise Forbidden(f"{session.name} is a {session.role}")
    permission = handler.opt.get("permission")
    if permission is not None and not session.may(permission):
        raise Forbidden(f"{session.name} is a {session.role}, which may not {permission}")


async def refuse_forged(request: Request[Any, Any, Any]) -> None:
    """Before every handler: an unsafe request comes from our own page and, once signed in, carries the session's token."""
    if "\0" in request.scope["path"]:
        raise NotFound("no address holds a zero byte, and no file system takes one")
    if request.method in SAFE_METHODS:
        return
    if not _same_origin(request):
        raise Refused("origin", "origin")
    session: Session | None = request.scope.get("user")
    if session is None or request.route_handler.opt.get("public"):
        return  # signing in, also from a page that was left open; the guard has refused everything else
    given = request.headers.get(CSRF_HEADER) or str((await request.form()).get(CSRF_FIELD) or "")
    if not hmac.compare_digest(given.encode("utf-8", "replace"), session.csrf.encode("ascii")):
        raise Refused("csrf", "csrf")


def _same_origin(request: Request[Any, Any, Any]) -> bool:
    """Browsers say where a request comes from; a client that says nothing is no browser and carries no cookie of one."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in {"same-origin", "none"}:
        return False
    origin = request.headers.get("Origin")
    if origin is None:
        return True
    host = request.headers.get("Host", "")
    return urlsplit(origin).netloc == host
