"""Role × route: what each role may open and do, asked of the running console; and no route that changes something is open to everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from fleet_server.accounts.permissions import OF_ROLE, PERMISSIONS, ROLES, role_may
from fleet_server.engine import FleetEngine
from tests.fleet_server.console.conftest import Person
from tests.fleet_server.console.test_access import ROUTES, ask
from tests.support.seed import PASSWORD, quick_passwords

OWN = {
    "/logout", "/here", "/language", "/password", "/account", "/account/letters", "/account/sessions/end", "/account/sessions/end-all",
    "/terminals/columns",
}  # fmt: skip
"""What everybody signed in may do: to themself and to how pages look to them."""
OTHERS = tuple(role for role in ROLES if role not in ("operator", "viewer"))


def handlers(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler]]:
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                for method in handler.http_methods - {"OPTIONS", "HEAD"}:
                    yield route.path, method, handler


def guard_of(app: Litestar, path: str, method: str) -> dict[str, object]:
    return next(dict(handler.opt) for template, verb, handler in handlers(app) if (template, verb) == (path, method))


def allowed(role: str, opt: dict[str, object]) -> bool:
    if opt.get("role") == "operator" and role != "operator":
        return False
    permission = opt.get("permission")
    return permission is None or role_may(role, str(permission))


async def somebody(role: str, engine: FleetEngine, new_person: Callable[[], Person]) -> Person:
    hashed = quick_passwords().hash(PASSWORD)
    await engine.write(
        lambda conn: conn.execute(
            "INSERT INTO staff (name, display, password_hash, role, created_ms) VALUES (?, '', ?, ?, 0)",
            (f"a-{role}", hashed, role),
        )
    )
    person = new_person()
    await person.sign_in(f"a-{role}")
    return person


@pytest.mark.parametrize("role", OTHERS)
async def test_each_role_opens_what_it_is_for_and_nothing_else(
    app: Litestar, engine: FleetEngine, new_person: Callable[[], Person], role: str
) -> None:
    person = await somebody(role, engine, new_person)
    wrong = []
    for template, cases in ROUTES.items():
        for method, path, of_viewer in cases:
            opt = guard_of(app, template, method)
            decides_itself = of_viewer == 403 and not opt.get("role") and not opt.get("permission")
            if decides_itself or path == "/account/sessions/end-all":
                continue  # the latter ends the session that asks
            forbidden = (await ask(person, method, path)).status_code == 403
            if forbidden == allowed(role, opt):
                wrong.append((method, path, "403" if forbidden else "allowed"))
    assert wrong == []


def test_whatever_changes_something_is_closed_to_those_who_only_look() -> None:
    """What a viewer gets is asked of each route in `test_access`."""
    open_ = {path for path, cases in ROUTES.items() for method, _, status in cases if method != "GET" and status != 403}
    assert open_ <= OWN


def test_permissions_of_routes_are_permissions(app: Litestar) -> None:
    for path, _, handler in handlers(app):
        assert handler.opt.get("role") in (None, "operator"), path
        assert handler.opt.get("permission") in (None, *PERMISSIONS), path


def test_an_approver_decides_and_an_auditor_reads(app: Litestar) -> None:
    def of(permission: str) -> set[tuple[str, str]]:
        return {(path, method) for path, method, handler in handlers(app) if handler.opt.get("permission") == permission}

    assert {path.rpartition("/")[2] for path, _ in of("approve")} <= {"approve", "reject"}
    assert of("approve")
    assert all(path.startswith("/audit") for path, _ in of("audit"))
    assert of("audit")
    assert not OF_ROLE["auditor"] & {"operate", "request", "approve", "manage"}


async def test_an_auditor_changes_nothing_at_all(app: Litestar, engine: FleetEngine, new_person: Callable[[], Person]) -> None:
    auditor = await somebody("auditor", engine, new_person)
    for template, cases in ROUTES.items():
        for method, path, _ in cases:
            if method != "GET" and template not in OWN and not template.startswith("/audit"):
                assert (await ask(auditor, method, path)).status_code == 403, path
