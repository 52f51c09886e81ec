"""What people do in the console lands in the audit log: with who, as what, on what, and when it was refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fleet_server.accounts.rules import MAX_FAILED
from fleet_server.channel import transact
from fleet_server.db import open_raw
from fleet_server.engine import FleetEngine
from fleet_server.orders import requests
from protocols.contract.orders import Restart
from tests.support.clock import HandClock
from tests.support.person import Person, console_of
from tests.support.seed import NOW_MS, OPERATOR, PASSWORD, VIEWER, Seeded, seed

MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    return seed(tmp_path_factory.mktemp("seed") / "fleet.sqlite", count=12)


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOW_MS)


@pytest.fixture
def database(template: Seeded, tmp_path: Path) -> Path:
    path = tmp_path / "fleet.sqlite"
    path.write_bytes(template.path.read_bytes())
    return path


@pytest.fixture
async def new_person(database: Path, tmp_path: Path, clock: HandClock) -> AsyncIterator[Callable[[], Person]]:
    async with console_of(database, tmp_path, clock) as make:
        yield make


async def written(database: Path, action: str = "%") -> list[dict[str, Any]]:
    engine = FleetEngine()
    engine.use(database)
    try:
        return await engine.read(
            "SELECT actor, role, action, object, detail, result FROM audit WHERE action LIKE ? ORDER BY id", (action,)
        )
    finally:
        engine.close()


def row(actor: str, role: str, action: str, object_: str, detail: str = "{}", result: str = "done") -> dict[str, Any]:
    return {"actor": actor, "role": role, "action": action, "object": object_, "detail": detail, "result": result}


async def fail(person: Person, name: str, password: str = "wrong-pass-word") -> None:
    answer = await person.client.post("/login", data={"name": name, "password": password, "lang": "zh"})
    assert answer.status_code == 401


async def test_signing_in_and_out(new_person: Callable[[], Person], database: Path) -> None:
    person = new_person()
    await person.sign_in(OPERATOR)
    await person.post("/logout")
    assert await written(database, "session.%") == [
        row(OPERATOR, "operator", "session.open", f"account:{OPERATOR}"),
        row(OPERATOR, "operator", "session.close", f"account:{OPERATOR}", '{"why":"self"}'),
    ]


async def test_an_idle_session_ends_by_the_server(new_person: Callable[[], Person], database: Path, clock: HandClock) -> None:
    person = new_person()
    await person.sign_in(VIEWER)
    clock.now_ms += 3_600_000
    await person.client.get("/")
    assert (await written(database, "session.close"))[0]["actor"] == "server"


async def test_failed_sign_ins_name_the_account_and_never_what_was_typed(
    new_person: Callable[[], Person], database: Path
) -> None:
    person = new_person()
    await fail(person, VIEWER)
    await fail(person, "hunter2-hunter2")
    found = await written(database)
    assert found == [
        row("", "", "session.refuse", f"account:{VIEWER}", '{"count":1,"why":"password"}', "refused"),
        row("", "", "session.refuse", "account:?", '{"count":1,"why":"unknown"}', "refused"),
    ]
    assert "hunter2" not in repr(found) and "wrong-pass-word" not in repr(found)


async def test_guessing_locks_the_account_on_record_and_does_not_flood_the_log(
    new_person: Callable[[], Person], database: Path, clock: HandClock
) -> None:
    person = new_person()
    for _ in range(MAX_FAILED + 4):
        await fail(person, VIEWER)
    for _ in range(5):
        await fail(person, "nobody")
    clock.now_ms += MINUTE_MS
    await fail(person, VIEWER)
    await fail(person, "nobody")
    refusals = await written(database, "session.refuse")
    assert [(one["object"], one["detail"]) for one in refusals[MAX_FAILED:]] == [
        (f"account:{VIEWER}", '{"count":1,"why":"locked"}'),
        ("account:?", '{"count":1,"why":"unknown"}'),
        (f"account:{VIEWER}", '{"count":4,"why":"locked"}'),
        ("account:?", '{"count":5,"why":"unknown"}'),
    ]
    assert await written(database, "account.locked") == [row("server", "server", "account.locked", f"account:{VIEWER}")]


async def test_what_an_operator_changes(new_person: Callable[[], Person], database: Path) -> None:
    person = new_person()
    await person.sign_in(OPERATOR)
    terminal = (await _one(database, "SELECT id FROM terminal WHERE revoked_ms IS NULL AND enrolled_ms IS NOT NULL LIMIT 1"))[
        "id"
    ]
    await person.post("/thresholds/idle.notice_days", scope="", value="21")
    await person.post(f"/terminals/{terminal}/maintenance", reason="换纸", until="2h")
    await person.post(f"/terminals/{terminal}/maintenance/end")
    await person.post(f"/terminals/{terminal}/code")
    await person.post("/accounts/add", name="lin", display="", role="approver", lang="zh")
    await person.post(f"/accounts/{VIEWER}/disable")
    await person.post(f"/terminals/{terminal}/retire", reason="报废", code=terminal, confirm=terminal)
    found = [one for one in await written(database) if not one["action"].startswith("session.")]
    assert {(one["actor"], one["role"], one["result"]) for one in found} == {(OPERATOR, "operator", "done")}
    told = {(one["action"], one["object"]) for one in found}
    assert {
        ("threshold.set", "threshold:idle.notice_days"),
        ("maintenance.start", f"terminal:{terminal}"),
        ("maintenance.end", f"terminal:{terminal}"),
        ("terminal.code", f"terminal:{terminal}"),
        ("account.add", "account:lin"),
        ("account.disable", f"account:{VIEWER}"),
    } <= told
    assert PASSWORD not in repr(found)
    code = await _one(database, "SELECT detail FROM audit WHERE action = 'terminal.code'")
    assert json.loads(code["detail"]).keys() == {"expires_ms"}


async def test_an_attempt_to_approve_ones_own_request_is_on_record(new_person: Callable[[], Person], database: Path) -> None:
    person = new_person()
    await person.sign_in(OPERATOR)
    terminal = (await _one(database, "SELECT id FROM terminal WHERE revoked_ms IS NULL AND enrolled_ms IS NOT NULL LIMIT 1"))[
        "id"
    ]
    connection = open_raw(database)
    try:
        request = transact(
            connection,
            lambda conn: requests.request_order(
                conn, [terminal], Restart(what="host"), by=OPERATOR, expires_ms=NOW_MS + 3_600_000, now_ms=NOW_MS
            ),
        )
    finally:
        connection.close()
    answer = await person.post(f"/orders/{request.hex()}/approve")
    assert answer.status_code == 400
    found = await written(database, "order.%")
    assert [(one["action"], one["result"], one["detail"]) for one in found][1:] == [
        ("order.approve", "refused", '{"why":"orderSelf"}')
    ]


async def _one(database: Path, sql: str) -> dict[str, Any]:
    engine = FleetEngine()
    engine.use(database)
    try:
        return (await engine.read(sql))[0]
    finally:
        engine.close()
