"""Who may open and do what: every route, each of the cast."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from litestar import Litestar

from fleet_server.app import SECURITY_HEADERS
from tests.fleet_server.console.conftest import Person
from tests.support.seed import OPERATOR, VIEWER

NO_REQUEST = "0" * 32
# Route → (method, an address of it, what a viewer gets). 403 are the operator's own.
ROUTES: dict[str, list[tuple[str, str, int]]] = {
    "/": [("GET", "/", 200)],
    "/content": [("GET", "/content", 200)],
    "/content/add": [("GET", "/content/add", 403), ("POST", "/content/add", 403)],
    "/content/{package:int}": [("GET", "/content/1", 404)],
    "/content/{package:int}/next": [("POST", "/content/1/next", 403)],
    "/content/{package:int}/upload": [("POST", "/content/1/upload", 403)],
    "/content/{package:int}/pages": [("POST", "/content/1/pages", 403)],
    "/content/{package:int}/settings": [("POST", "/content/1/settings", 403)],
    "/content/{package:int}/act/{act:str}": [("POST", "/content/1/act/approve", 403)],
    "/content/items": [("GET", "/content/items", 200)],
    "/content/items/set": [("POST", "/content/items/set", 403)],
    "/content/items/switch": [("POST", "/content/items/switch", 403)],
    "/content/items/release": [("POST", "/content/items/release", 403)],
    "/parts/summary": [("GET", "/parts/summary", 200)],
    "/parts/needs": [("GET", "/parts/needs", 200)],
    "/needs": [("GET", "/needs", 200)],
    "/parts/usage": [("GET", "/parts/usage", 200)],
    "/parts/areas": [("GET", "/parts/areas", 200)],
    "/live/room": [("GET", "/live/room", 204)],
    "/parts/changes": [("GET", "/parts/changes", 200)],
    "/parts/strips": [("GET", "/parts/strips", 200)],
    "/parts/needs-state": [("GET", "/parts/needs-state", 200)],
    "/terminals": [("GET", "/terminals", 200)],
    "/terminals/rows": [("GET", "/terminals/rows?ids=kf-0016,nobody", 200)],
    "/terminals.csv": [("GET", "/terminals.csv", 200)],
    "/terminals.xlsx": [("GET", "/terminals.xlsx", 200)],
    "/terminals/columns": [("POST", "/terminals/columns", 200)],
    "/terminals/bulk": [("POST", "/terminals/bulk", 403)],
    "/terminals/add": [("GET", "/terminals/add", 403), ("POST", "/terminals/add", 403)],
    "/terminals/{terminal_id:str}": [("GET", "/terminals/kf-0016", 200)],
    "/terminals/{terminal_id:str}/head": [("GET", "/terminals/kf-0016/head", 200)],
    "/terminals/{terminal_id:str}/devices": [("GET", "/terminals/kf-0016/devices", 200)],
    "/terminals/{terminal_id:str}/timeline": [("GET", "/terminals/kf-0016/timeline", 200)],
    "/terminals/{terminal_id:str}/tab": [("GET", "/terminals/kf-0016/tab", 200)],
    "/terminals/{terminal_id:str}/code": [("POST", "/terminals/kf-0201/code", 403)],
    "/terminals/{terminal_id:str}/maintenance": [
        ("GET", "/terminals/kf-0016/maintenance", 403),
        ("POST", "/terminals/kf-0016/maintenance", 403),
    ],
    "/terminals/{terminal_id:str}/stops": [
        ("GET", "/terminals/kf-0016/stops", 403),
        ("POST", "/terminals/kf-0016/stops", 403),
    ],
    "/terminals/{terminal_id:str}/stops/{stop:int}/remove": [("POST", "/terminals/kf-0016/stops/1/remove", 403)],
    "/terminals/{terminal_id:str}/maintenance/end": [("POST", "/terminals/kf-0181/maintenance/end", 403)],
    "/terminals/{terminal_id:str}/enrolment": [("GET", "/terminals/kf-0201/enrolment", 403)],
    "/terminals/{terminal_id:str}/retire": [
        ("GET", "/terminals/kf-0016/retire", 403),
        ("POST", "/terminals/kf-0016/retire", 403),
    ],
    "/terminals/orders/form": [("POST", "/terminals/orders/form", 403)],
    "/terminals/orders/{action:str}": [("POST", "/terminals/orders/test", 403)],
    "/terminals/{terminal_id:str}/orders/{action:str}": [
        (("GET", f"/terminals/kf-0016/orders/{action}", 403))
        for action in ("test", "restart", "logs", "lock", "unlock", "configuration")
    ],
    "/terminals/{terminal_id:str}/configuration": [
        ("GET", "/terminals/kf-0016/configuration", 200),
        ("POST", "/terminals/kf-0016/configuration", 403),
    ],
    "/terminals/{terminal_id:str}/configuration/{version:int}/back": [("GET", "/terminals/kf-0016/configuration/1/back", 403)],
    "/orders": [("GET", "/orders", 200)],
    "/orders/{request_id:str}": [("GET", f"/orders/{NO_REQUEST}", 404)],
    "/orders/{request_id:str}/log/{terminal_id:str}": [("GET", f"/orders/{NO_REQUEST}/log/kf-0016", 403)],
    "/orders/{request_id:str}/result.csv": [("GET", f"/orders/{NO_REQUEST}/result.csv", 404)],
    "/orders/{request_id:str}/approve": [("POST", f"/orders/{NO_REQUEST}/approve", 403)],
    "/orders/{request_id:str}/reject": [
        ("GET", f"/orders/{NO_REQUEST}/reject", 403),
        ("POST", f"/orders/{NO_REQUEST}/reject", 403),
    ],
    "/orders/{request_id:str}/withdraw": [("POST", f"/orders/{NO_REQUEST}/withdraw", 403)],
    "/orders/{request_id:str}/cancel": [("POST", f"/orders/{NO_REQUEST}/cancel", 403)],
    "/orders/{request_id:str}/retry": [("POST", f"/orders/{NO_REQUEST}/retry", 403)],
    "/approvals": [("GET", "/approvals", 200)],
    "/audit": [("GET", "/audit", 403)],
    "/audit.csv": [("GET", "/audit.csv", 403)],
    "/audit/verify": [("POST", "/audit/verify", 403)],
    "/faults": [("GET", "/faults", 200)],
    "/faults.csv": [("GET", "/faults.csv", 200)],
    "/faults.xlsx": [("GET", "/faults.xlsx", 200)],
    "/faults/bulk": [("POST", "/faults/bulk", 403)],
    "/faults/{fault_id:str}/steps": [("GET", "/faults/kf-0152:ffffffffffffffff/steps", 200)],
    "/faults/{fault_id:str}/mute": [
        ("GET", "/faults/kf-0152:ffffffffffffffff/mute", 403),
        ("POST", "/faults/kf-0152:ffffffffffffffff/mute", 403),
    ],
    "/faults/{fault_id:str}/unmute": [("POST", "/faults/kf-0152:ffffffffffffffff/unmute", 403)],
    "/faults/{fault_id:str}/false-alarm": [("POST", "/faults/kf-0152:ffffffffffffffff/false-alarm", 403)],
    "/faults/{fault_id:str}/real-alarm": [("POST", "/faults/kf-0152:ffffffffffffffff/real-alarm", 403)],
    "/faults/{fault_id:str}/claim": [("POST", "/faults/kf-0152:ffffffffffffffff/claim", 403)],
    "/faults/{fault_id:str}/unclaim": [("POST", "/faults/kf-0152:ffffffffffffffff/unclaim", 403)],
    "/faults/{fault_id:str}/note": [
        ("GET", "/faults/kf-0152:ffffffffffffffff/note", 403),
        ("POST", "/faults/kf-0152:ffffffffffffffff/note", 403),
    ],
    "/evidence/{batch_id:int}/{idx:int}": [("GET", "/evidence/1/0", 200)],
    "/evidence/fault/{fault_id:str}": [("GET", "/evidence/fault/kf-0152:ffffffffffffffff", 200)],
    "/evidence/{batch_id:int}/envelope": [("GET", "/evidence/1/envelope", 200)],
    "/evidence/{batch_id:int}/file": [("GET", "/evidence/1/file", 404)],
    "/evidence/root": [("GET", "/evidence/root", 404)],
    "/system": [("GET", "/system", 200)],
    "/account": [("GET", "/account", 200), ("POST", "/account", 303)],
    "/account/letters": [("POST", "/account/letters", 204)],
    "/account/sessions/end": [("POST", "/account/sessions/end", 404)],
    "/account/sessions/end-all": [("POST", "/account/sessions/end-all", 303)],
    "/accounts": [("GET", "/accounts", 403)],
    "/accounts/add": [("GET", "/accounts/add", 403), ("POST", "/accounts/add", 403)],
    "/accounts/{name:str}": [("GET", "/accounts/viewer", 403)],
    "/accounts/{name:str}/{action:str}": [("POST", "/accounts/viewer/unlock", 403)],
    "/thresholds": [("GET", "/thresholds", 200)],
    "/thresholds/{name:str}": [("GET", "/thresholds/idle.notice_days", 200), ("POST", "/thresholds/idle.notice_days", 403)],
    "/calendar": [("GET", "/calendar", 200)],
    "/calendar/days.csv": [("GET", "/calendar/days.csv", 200)],
    "/calendar/preview": [("POST", "/calendar/preview", 403)],
    "/calendar/import": [("POST", "/calendar/import", 403)],
    "/calendar/forget": [("POST", "/calendar/forget", 403)],
    "/map": [("GET", "/map", 200)],
    "/map/outline.json": [("GET", "/map/outline.json", 200)],
    "/wallboards": [("GET", "/wallboards", 200), ("POST", "/wallboards", 403)],
    "/wallboards/{board:int}": [("POST", "/wallboards/1", 403)],
    "/wallboards/{board:int}/revoke": [("POST", "/wallboards/1/revoke", 403)],
    "/sites": [("GET", "/sites", 200)],
    "/sites/add": [("GET", "/sites/add", 403), ("POST", "/sites/add", 403)],
    "/sites/{code:str}": [("GET", "/sites/yiwu-hall", 200), ("POST", "/sites/yiwu-hall", 403)],
    "/sites/{code:str}/hours": [("POST", "/sites/yiwu-hall/hours", 403)],
    "/sites/{code:str}/remove": [("POST", "/sites/yiwu-hall/remove", 403)],
    "/areas/add": [("GET", "/areas/add", 403), ("POST", "/areas/add", 403)],
    "/areas/{code:str}/edit": [("GET", "/areas/yiwu/edit", 403), ("POST", "/areas/yiwu/edit", 403)],
    "/areas/{code:str}/remove": [("POST", "/areas/yiwu/remove", 403)],
    "/updates": [("GET", "/updates", 200)],
    "/updates/new": [("GET", "/updates/new", 403), ("POST", "/updates/new", 403)],
    "/updates/preview": [("POST", "/updates/preview", 403)],
    "/updates/freeze": [("GET", "/updates/freeze", 403), ("POST", "/updates/freeze", 403)],
    "/updates/freeze/{freeze:int}/remove": [("POST", "/updates/freeze/1/remove", 403)],
    "/updates/stop": [("GET", "/updates/stop", 403), ("POST", "/updates/stop", 403)],
    "/updates/versions": [("GET", "/updates/versions", 200)],
    "/updates/versions.csv": [("GET", "/updates/versions.csv", 200)],
    "/updates/{rollout:str}": [("GET", f"/updates/{NO_REQUEST}", 404)],
    **{
        f"/updates/{{rollout:str}}/{action}": [("POST", f"/updates/{NO_REQUEST}/{action}", 403)]
        for action in ("submit", "approve", "pause", "resume", "retry")
    },
    **{
        f"/updates/{{rollout:str}}/{action}": [
            ("GET", f"/updates/{NO_REQUEST}/{action}", 403),
            ("POST", f"/updates/{NO_REQUEST}/{action}", 403),
        ]
        for action in ("abort", "reject")
    },
    "/updates/{rollout:str}/terminals/{terminal:str}": [("GET", f"/updates/{NO_REQUEST}/terminals/kf-0016", 404)],
    "/updates/{rollout:str}/members.csv": [("GET", f"/updates/{NO_REQUEST}/members.csv", 404)],
    "/updates/releases": [("GET", "/updates/releases", 200)],
    "/updates/releases/upload": [("POST", "/updates/releases/upload", 403)],
    "/updates/releases/{release:int}": [("GET", "/updates/releases/1", 404)],
    "/updates/releases/{release:int}/bad": [("GET", "/updates/releases/1/bad", 403)],
    "/updates/releases/{release:int}/notes": [
        ("GET", "/updates/releases/1/notes", 403),
        ("POST", "/updates/releases/1/notes", 403),
    ],
    "/updates/releases/{release:int}/call/{known:str}": [("POST", "/updates/releases/1/call/bad", 403)],
    "/figures": [("GET", "/figures", 200)],
    "/figures/terminals": [("GET", "/figures/terminals", 200)],
    "/figures/terminals.csv": [("GET", "/figures/terminals.csv", 200)],
    "/figures/terminals.xlsx": [("GET", "/figures/terminals.xlsx", 200)],
    "/figures/zero": [("GET", "/figures/zero", 200)],
    "/figures/zero.csv": [("GET", "/figures/zero.csv", 200)],
    "/figures/zero.xlsx": [("GET", "/figures/zero.xlsx", 200)],
    "/figures/behind": [("GET", "/figures/behind?figure=cases", 200)],
    "/figures/behind.csv": [("GET", "/figures/behind.csv?figure=cases", 200)],
    "/figures/behind.xlsx": [("GET", "/figures/behind.xlsx?figure=cases", 200)],
    "/figures/day": [("GET", "/figures/day?terminal=kf-0016&day=2026-11-17", 200)],
    "/figures/published": [("GET", "/figures/published", 200), ("POST", "/figures/published", 403)],
    "/figures/published/{publication:int}": [("GET", "/figures/published/1", 404)],
    "/figures/month-report": [("GET", "/figures/month-report", 200)],
    "/figures/month-report.xlsx": [("GET", "/figures/month-report.xlsx", 200)],
    "/notifications": [("GET", "/notifications", 200)],
    "/notifications/add": [("GET", "/notifications/add", 403), ("POST", "/notifications/add", 403)],
    "/notifications/{number:int}/edit": [("GET", "/notifications/1/edit", 403), ("POST", "/notifications/1/edit", 403)],
    "/notifications/{number:int}/test": [("POST", "/notifications/1/test", 403)],
    "/notifications/{number:int}/remove": [("GET", "/notifications/1/remove", 403), ("POST", "/notifications/1/remove", 403)],
    "/notifications/{number:int}/{switch:str}": [("POST", "/notifications/1/off", 403)],
    "/profiles": [("GET", "/profiles", 200)],
    "/password": [("GET", "/password", 200), ("POST", "/password", 400)],
    "/language": [("POST", "/language", 303)],
    "/here": [("POST", "/here", 204)],
    "/logout": [("POST", "/logout", 303)],
}
STREAMS = {"/live"}
PUBLIC = {"/login", "/static/{file_path:path}"}
WALL = {"/wall", "/wall/enter", "/wall/state", "/wall/live", "/wall/outline.json"}
"""For screens with a view token (test_wall.py)."""
CASES = [case for cases in ROUTES.values() for case in cases]
ENDS_THE_SESSION = {"/account/sessions/end-all", "/logout"}


async def ask(person: Person, method: str, path: str) -> httpx.Response:
    return await (person.client.get(path) if method == "GET" else person.post(path))


def test_every_route_is_listed_here(app: Litestar) -> None:
    assert {route.path for route in app.routes} == ROUTES.keys() | STREAMS | PUBLIC | WALL


async def test_a_stranger_gets_the_sign_in_page_and_nothing_else(stranger: Person) -> None:
    wrong = []
    for method, path, _ in CASES:
        answer = await ask(stranger, method, path)
        kept_out = (
            answer.status_code == 302 and answer.headers["location"].startswith("/login?next=%2F")
            if method == "GET"
            else answer.status_code == 401
        )
        if not kept_out or "kf-" in answer.text.replace("kf_", ""):
            wrong.append((method, path, answer.status_code))
    assert wrong == []


async def test_odd_requests_of_strangers_are_not_our_mistake(stranger: Person, caplog: pytest.LogCaptureFixture) -> None:
    """Each would otherwise be a traceback in the log for anybody who asks."""
    for method, path, status in (
        ("OPTIONS", "/", 401), ("OPTIONS", "/login", 401), ("GET", "/static/%00", 404), ("GET", "/static/console.css%00.png", 404),
        ("GET", "/%00", 404), ("POST", "/login%00", 404),
    ):  # fmt: skip
        assert (await stranger.client.request(method, path)).status_code == status, (method, path)
    assert "Traceback" not in caplog.text


async def test_a_stranger_gets_no_stream(stranger: Person) -> None:
    answer = await stranger.client.get("/live", headers={"Accept": "text/event-stream"})
    assert answer.status_code == 401


async def test_a_page_that_refreshes_itself_is_sent_to_sign_in(stranger: Person) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://console.test/terminals?state=OFFLINE"}
    answer = await stranger.client.get("/parts/summary", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["HX-Redirect"] == "/login?next=%2Fterminals%3Fstate%3DOFFLINE"


async def test_a_viewer_sees_all_and_changes_nothing(new_person: Callable[[], Person]) -> None:
    """In the order of the list; whoever has signed out or ended the sessions signs in again."""
    assert await _wrong_answers(new_person, VIEWER, lambda status, wanted: status == wanted) == []


async def test_an_operator_is_never_forbidden(new_person: Callable[[], Person]) -> None:
    def fits(status: int, wanted: int) -> bool:
        return status not in {401, 403} and wanted in {403, status}

    assert await _wrong_answers(new_person, OPERATOR, fits) == []


async def _wrong_answers(
    new_person: Callable[[], Person], name: str, fits: Callable[[int, int], bool]
) -> list[tuple[str, str, int, int]]:
    """(method, address, status, wanted) of what does not fit."""
    wrong = []
    person = new_person()
    await person.sign_in(name)
    for method, path, wanted in CASES:
        answer = await ask(person, method, path)
        if not fits(answer.status_code, wanted):
            wrong.append((method, path, answer.status_code, wanted))
        if path in ENDS_THE_SESSION:
            person = new_person()
            await person.sign_in(name)
    return wrong


@pytest.mark.parametrize("path", ["/", "/terminals", "/terminals/kf-0016", "/faults"])
async def test_a_viewer_is_shown_no_buttons_that_would_fail(viewer: Person, path: str) -> None:
    page = await viewer.get(path)
    for action in ("/claim", "/note", "/maintenance", "/terminals/add"):
        assert f'{action}"' not in page


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-CSRF-Token": "guess"},
        {"X-CSRF-Token": "真的"},
    ],
    ids=["none", "wrong", "not ascii"],
)
async def test_without_the_token_nothing_is_done(operator: Person, headers: dict[str, str]) -> None:
    sent = {name: value.encode("utf-8") for name, value in headers.items()}
    answer = await operator.client.post("/faults/kf-0152:ffffffffffffffff/claim", headers=sent)  # type: ignore[arg-type]  # bytes are allowed
    assert answer.status_code == 400
    assert "未认领" in await operator.seen("/faults")


async def test_another_browsers_token_is_worth_nothing(operator: Person, viewer: Person) -> None:
    answer = await operator.client.post("/logout", headers={"X-CSRF-Token": viewer.csrf})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil.test"}, {"Origin": "null"}],
    ids=["cross-site", "sister host", "foreign origin", "opaque origin"],
)
async def test_a_form_on_another_site_is_refused_even_with_the_token(operator: Person, headers: dict[str, str]) -> None:
    answer = await operator.client.post("/logout", headers={"X-CSRF-Token": operator.csrf, **headers})
    assert answer.status_code == 400
    assert (await operator.client.get("/")).status_code == 200


async def test_signing_in_from_another_site_is_refused(stranger: Person) -> None:
    fields = {"name": VIEWER, "password": "x", "lang": "zh"}
    answer = await stranger.client.post("/login", data=fields, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/login", "/", "/nowhere", "/static/console.css", "/static/nothing.css", "/terminals/nobody"])
async def test_every_answer_carries_the_security_headers(viewer: Person, path: str) -> None:
    answer = await viewer.client.get(path)
    for name, value in SECURITY_HEADERS.items():
        if name != "Cache-Control":
            assert answer.headers[name] == value
    expected = "public" if path == "/static/console.css" else "no-store"
    assert expected in answer.headers["Cache-Control"]


@pytest.mark.parametrize(
    "path", ["/", "/terminals", "/terminals/kf-0016", "/faults", "/system", "/evidence/1/0", "/login", "/password"]
)
async def test_no_page_has_inline_script_or_style_or_a_foreign_address(new_person: Callable[[], Person], path: str) -> None:
    person = new_person()
    if path != "/login":
        await person.sign_in(VIEWER)
    page = await person.get(path)
    assert " style=" not in page
    assert "<style" not in page
    assert " onclick" not in page
    assert "<script>" not in page
    outside = [part for part in page.split('"') if part.startswith(("http:", "https:", "//"))]
    assert outside == []


@pytest.mark.parametrize(
    "path", ["/nowhere", "/terminals/nobody", "/evidence/99999999/0", "/evidence/1/99", "/faults/x/note", "/evidence/fault/x"]
)
async def test_what_does_not_exist_is_said_politely(operator: Person, path: str) -> None:
    answer = await operator.client.get(path)
    assert answer.status_code == 404
    assert "没有这个页面或对象" in answer.text
    assert "Traceback" not in answer.text


async def test_our_own_mistake_is_a_reference_not_a_trace(
    operator: Person, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("fleet_server.console.queries.lists.recent_counts", broken)
    answer = await operator.client.get("/faults")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "编号" in answer.text
    assert "secret detail" in caplog.text
