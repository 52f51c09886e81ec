"""A new terminal shows up by itself; one that leaves takes its keys and open faults along."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from fleet_server.console.pages.enrol import qr_code
from fleet_server.engine import FleetEngine
from fleet_server.enrolment import codes
from tests.fleet_server.console.conftest import Person
from tests.fleet_server.console.test_actions import NEW
from tests.support.clock import HandClock
from tests.support.seed import NOW_MS, OPERATOR


async def test_the_code_comes_with_a_picture_and_a_countdown(operator: Person) -> None:
    answer = await operator.post("/terminals/add", **NEW)
    assert "<svg" in answer.text
    assert 'style="' not in answer.text  # the policy of the pages forbids it
    assert 'hx-get="/terminals/kf-0401/enrolment"' in answer.text
    waiting = await operator.get("/terminals/kf-0401/enrolment")
    assert "待接入" in waiting
    assert f'data-at="{NOW_MS + codes.LIFETIME_MS}" data-form="until"' in waiting


def test_the_picture_is_only_geometry_and_says_the_command() -> None:
    svg = qr_code('edge-agent enrol --code "A<B>&C"')
    root = ElementTree.fromstring(svg)
    assert {element.tag for element in root.iter()} == {"svg", "path"}
    assert "enrol" not in svg
    assert qr_code("a") != qr_code("b")


async def test_the_dialog_turns_when_the_terminal_is_here(operator: Person, engine: FleetEngine) -> None:
    await operator.post("/terminals/add", **NEW)

    def enrol(connection: object) -> None:
        connection.execute("UPDATE terminal SET enrolled_ms = ? WHERE id = 'kf-0401'", (NOW_MS,))  # type: ignore[attr-defined]
        connection.execute(  # type: ignore[attr-defined]
            "INSERT INTO presence (terminal, from_ms, state, cause) VALUES ('kf-0401', ?, 'online', 'birth')", (NOW_MS,)
        )
        connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (?, 'kf-0401', 'enrolment')", (NOW_MS,))  # type: ignore[attr-defined]

    await engine.write(enrol)
    here = await operator.get("/terminals/kf-0401/enrolment")
    assert "已接入：" in here
    assert "正常" in here
    assert "every 10s" not in here
    assert "正常" in await operator.seen("/terminals?q=KF-0401")


async def test_a_code_that_has_run_out_offers_a_new_one(operator: Person, clock: HandClock, engine: FleetEngine) -> None:
    await operator.post("/terminals/kf-0201/code")
    await engine.write(lambda connection: connection.execute("UPDATE enrolment_code SET expires_ms = ?", (NOW_MS,)))
    page = await operator.get("/terminals/kf-0201/enrolment")
    assert "接入码已过期" in page
    assert 'hx-post="/terminals/kf-0201/code"' in page
    assert "every 10s" not in page


async def test_sites_are_offered_by_area(operator: Person) -> None:
    page = await operator.get("/terminals/add")
    areas = re.findall(r'<optgroup label="([^"]+)">', page)
    assert len(areas) == len(set(areas)) > 3
    assert "金华市 › 金东区" in areas


async def test_retiring_ends_keys_faults_and_maintenance_and_keeps_who_and_why(operator: Person, engine: FleetEngine) -> None:
    await operator.post("/terminals/kf-0016/maintenance", reason="更换硒鼓", until="2h")
    await operator.post("/terminals/kf-0016/code")
    answer = await operator.post("/terminals/kf-0016/retire", reason="到期报废", confirm=" kf-0016 ")
    assert answer.headers["HX-Redirect"] == "/terminals"
    rows = await engine.read(
        "SELECT revoked_ms, revoked_by, revoked_reason, maintenance_until_ms FROM terminal WHERE id = 'kf-0016'"
    )
    assert rows == [{"revoked_ms": NOW_MS, "revoked_by": OPERATOR, "revoked_reason": "到期报废", "maintenance_until_ms": None}]
    for table in ("record_key", "tls_certificate"):
        assert await engine.read(f"SELECT 1 FROM {table} WHERE terminal = 'kf-0016' AND revoked_ms IS NULL") == []
    assert await engine.read("SELECT 1 FROM fault WHERE terminal = 'kf-0016' AND cleared_ms IS NULL AND disputed = 0") == []
    assert (await engine.read("SELECT to_ms, ended_by FROM maintenance"))[0] == {"to_ms": NOW_MS, "ended_by": OPERATOR}
    assert await engine.read("SELECT 1 FROM enrolment_code WHERE terminal = 'kf-0016' AND expires_ms > ?", (NOW_MS,)) == []
    assert (await operator.client.get("/terminals/kf-0016")).status_code == 404
    assert (await operator.post("/terminals/kf-0016/retire", reason="x", confirm="KF-0016")).status_code == 404


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"reason": "报废", "confirm": "KF-0017"}, "输入的编号不是 KF-0016。"),
        ({"reason": "报废", "confirm": ""}, "输入的编号不是 KF-0016。"),
        ({"reason": "", "confirm": "KF-0016"}, "不能为空"),
    ],
)
async def test_nobody_retires_a_terminal_by_mistake(
    operator: Person, engine: FleetEngine, fields: dict[str, str], sentence: str
) -> None:
    answer = await operator.post("/terminals/kf-0016/retire", **fields)
    assert answer.status_code == 200
    assert sentence in answer.text
    assert await engine.read("SELECT 1 FROM terminal WHERE revoked_ms IS NOT NULL") == []
