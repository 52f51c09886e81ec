"""Pages and API over a seeded fleet: what they say, what they keep to themselves, how they are cached."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet_server.console.i18n import LANGUAGES
from fleet_server.public.__main__ import application
from fleet_server.public.app import PublicApp, accepts_gzip
from fleet_server.public.keeper import Keeper, pause_s
from fleet_server.public.render import catalogues
from fleet_server.settings import Public, Settings
from tests.fleet_server.public.conftest import BASE, Write, rows
from tests.support.clock import HandClock
from tests.support.seed import HOUR, MINUTE, NOW_MS

OUT_OF_PAPER = (
    "INSERT INTO fault (id, terminal, slot, code, severity, mandatory, opened_ms, since_ms, disputed, late, source, false_alarm)"
    " VALUES (?, ?, 'laser-printer', 'LSR.PAPER_OUT', 'P2', 1, ?, ?, 0, 0, 'terminal', 0)"
)
CASE = (
    "INSERT INTO session (terminal, sid, item, channel, outcome, cause, began_ms, duration_ms, day, batch, idx, disputed)"
    " SELECT id, ?, 'housing-fund.balance.query', 'touch', 'success', 'none', ?, 1, '2026-11-17', 0, 0, 0 FROM terminal"
    " WHERE site = 'yiwu-mall' LIMIT 1"
)
SECRETS = (
    "UPDATE terminal SET name_zh = '内部名称' || id, name_en = 'Inside ' || id",
    "UPDATE terminal SET maintenance_until_ms = 9999999999999, maintenance_reason = '秘密原因', maintenance_by = 'zhangsan'",
    "UPDATE device SET asset = 'SN-' || terminal",
    "UPDATE fault SET claimed_by = 'wangwu'",
)
PAGES = (
    "/",
    "/?mode=elder",
    "/?lang=en",
    "/?area=yiwu",
    "/?area=yiwu&mode=elder&lang=en",
    "/?all=1",
    "/cards?all=1",
    "/sites/yiwu-hall",
)
EVERYTHING = (*PAGES, "/api/v1/sites", "/api/v1/sites/yiwu-hall", "/api/v1/areas", "/api/v1/services", "/api/v1/openapi.json")


async def sites_of(citizen: httpx.AsyncClient, query: str = "") -> dict[str, dict[str, Any]]:
    answer = await citizen.get(f"/api/v1/sites{query}")
    assert answer.status_code == 200, answer.text
    return {site["code"]: site for site in answer.json()["sites"]}


# What is said ---------------------------------------------------------------------------------------------------------------------------


async def test_every_page_opens_in_both_languages_and_both_modes(citizen: httpx.AsyncClient) -> None:
    for path in PAGES:
        answer = await citizen.get(path)
        assert answer.status_code == 200, path
        assert answer.text.count("<h1>") == (0 if path.startswith("/cards") else 1), path
        assert "{" not in re.sub(r"<body[^>]*>", "", answer.text), f"{path}: a sentence with a hole in it"


async def test_a_broken_printer_takes_printing_away_at_its_site_and_nothing_else(
    citizen: httpx.AsyncClient, keeper: Keeper, write: Write, database: Path
) -> None:
    before = (await sites_of(citizen))["yiwu-community"]
    assert before["state"] == "available"
    for (terminal,) in rows(database, "SELECT id FROM terminal WHERE site = 'yiwu-community'"):
        write((OUT_OF_PAPER, (f"{terminal}:x", terminal, NOW_MS, NOW_MS)))
    await keeper.refresh()
    after = (await sites_of(citizen))["yiwu-community"]
    assert after["state"] == "partial"
    states = {service["code"]: service["state"] for service in after["services"]}
    assert states.pop("print-certificates") == "unavailable"
    assert set(states.values()) == {"available"}
    page = (await citizen.get("/sites/yiwu-community")).text
    assert "部分可用" in page
    assert "现在办不了：打印证明" in (await citizen.get("/?area=yiwu&mode=elder")).text


async def test_maintenance_shows_its_end_and_never_its_reason(citizen: httpx.AsyncClient, keeper: Keeper, write: Write) -> None:
    until = NOW_MS + 3 * HOUR
    write(
        (
            "UPDATE terminal SET maintenance_until_ms = ?, maintenance_reason = '更换主板', maintenance_by = 'lihua' WHERE site = 'yiwu-bank'",
            (until,),
        )
    )
    await keeper.refresh()
    site = (await sites_of(citizen))["yiwu-bank"]
    assert (site["state"], site["expectedBack"]) == ("unavailable", "2026-11-18T05:42:07Z")
    assert "预计今天 13:42 恢复" in (await citizen.get("/sites/yiwu-bank")).text
    assert "Expected back today at 13:42" in (await citizen.get("/sites/yiwu-bank?lang=en")).text


async def test_a_blind_platform_is_said_and_nothing_is_called_available(
    citizen: httpx.AsyncClient, keeper: Keeper, write: Write
) -> None:
    write(("INSERT INTO platform_gap (from_ms, cause) VALUES (?, 'broker')", (NOW_MS - 2 * MINUTE,)))
    await keeper.refresh()
    answer = await citizen.get("/api/v1/sites")
    assert answer.json()["platform"] == "blind"
    assert {site["state"] for site in answer.json()["sites"]} <= {"unknown", "closed"}
    page = (await citizen.get("/?area=yiwu")).text
    assert "平台暂时收不到终端的信息" in page
    assert "个可用" not in re.sub(r"现在 0 个可用", "", page)


async def test_words_come_from_search_area_service_and_what_is_usable(citizen: httpx.AsyncClient) -> None:
    assert set(re.findall(r'data-code="([^"]+)"', (await citizen.get("/?q=义乌 医院")).text)) == {"yiwu-hospital"}
    assert set(re.findall(r'data-code="([^"]+)"', (await citizen.get("/?q=YIWU hospital&lang=en")).text)) == {"yiwu-hospital"}
    assert all(code.startswith("yiwu-") for code in re.findall(r'data-code="([^"]+)"', (await citizen.get("/?area=yiwu")).text))
    assert "没有符合条件的点位" in (await citizen.get("/?q=nowhere")).text
    usable = (await citizen.get("/cards?open=1&all=1")).text
    assert 'data-usable="0"' not in usable
    assert 'data-usable="1"' in usable


async def test_the_form_works_without_a_script(citizen: httpx.AsyncClient) -> None:
    page = (await citizen.get("/?lang=en&mode=elder")).text
    form = page[page.index("<form") : page.index("</form>")]
    assert 'method="get"' in form
    assert '<input type="hidden" name="lang" value="en">' in form
    assert '<input type="hidden" name="mode" value="elder">' in form
    links = re.findall(r'<ul class="tiles">.*?</ul>', page, re.DOTALL)[0]
    assert "area=yiwu" in links
    assert "lang=en" in links
    assert "mode=elder" in links


async def test_the_nearest_neighbours_of_a_site(
    citizen: httpx.AsyncClient, keeper: Keeper, write: Write, clock: HandClock
) -> None:
    write("UPDATE site SET lat = NULL, lon = NULL",
          "UPDATE site SET lat = 29.3, lon = 120.0 WHERE code = 'yiwu-hall'", "UPDATE site SET lat = 29.31, lon = 120.0 WHERE code = 'yiwu-bank'",
          "UPDATE site SET lat = 29.4, lon = 120.0 WHERE code = 'pujiang-hall'")  # fmt: skip
    clock.now_ms += 31_000
    await keeper.refresh()
    answer = (await citizen.get("/api/v1/sites?near=yiwu-hall&limit=2")).json()["sites"]
    assert [site["code"] for site in answer] == ["yiwu-bank", "pujiang-hall"]
    assert answer[0]["distanceM"] == pytest.approx(1112, abs=2)
    page = (await citizen.get("/sites/yiwu-hall")).text
    assert "附近其他点位" in page
    assert "1.1 公里" in page


async def test_items_show_only_once_they_are_nobodys_own(
    citizen: httpx.AsyncClient, keeper: Keeper, write: Write, clock: HandClock
) -> None:
    def case(n: int) -> tuple[str, tuple[object, ...]]:
        return CASE, (bytes([n]) * 16, NOW_MS)

    write(case(1), case(2))
    clock.now_ms += 11 * MINUTE
    await keeper.refresh()
    assert "housing-fund" not in (await sites_of(citizen))["yiwu-mall"]["topics"]
    write(case(3))
    clock.now_ms += 11 * MINUTE
    await keeper.refresh()
    assert "housing-fund" in (await sites_of(citizen))["yiwu-mall"]["topics"]


# What is not said -----------------------------------------------------------------------------------------------------------------------


async def test_nothing_of_the_inside_leaves(citizen: httpx.AsyncClient, keeper: Keeper, write: Write, database: Path) -> None:
    write(*SECRETS)
    await keeper.refresh()
    codes = {row[0] for row in rows(database, "SELECT id FROM terminal UNION SELECT code FROM terminal")}
    faults = {row[0] for row in rows(database, "SELECT DISTINCT code FROM fault")}
    assert codes
    assert faults
    sites = list(await sites_of(citizen))
    for path in (*EVERYTHING, *(f"/sites/{code}" for code in sites), *(f"/api/v1/sites/{code}" for code in sites[:5])):
        text = (await citizen.get(path)).text
        for secret in (
            *codes,
            *faults,
            "内部名称",
            "Inside ",
            "秘密原因",
            "zhangsan",
            "wangwu",
            "SN-",
            "operator",
            "0.1.0",
            "0.0.9",
            "Debian",
        ):
            assert secret not in text, (path, secret)


async def test_terminals_of_clerks_and_hidden_ones_are_left_out(citizen: httpx.AsyncClient, keeper: Keeper, write: Write) -> None:
    write("UPDATE terminal SET type = 'callPadSet' WHERE site = 'yiwu-bank'",
          "UPDATE terminal SET tags = '[\"internal\"]' WHERE site = 'yiwu-mall'",
          "UPDATE terminal SET revoked_ms = 1 WHERE site = 'yiwu-hospital'",
          "UPDATE terminal SET enrolled_ms = NULL WHERE site = 'yiwu-zone24'")  # fmt: skip
    await keeper.refresh()
    assert {code for code in await sites_of(citizen) if code.startswith("yiwu")} == {"yiwu-hall", "yiwu-community"}


async def test_no_request_can_carry_a_position_and_none_is_logged(
    citizen: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for query in ("lat=29.30630&lon=120.07510", "near=29.30630,120.07510", "position=29.30630"):
        answer = await citizen.get(f"/api/v1/sites?{query}")
        assert answer.status_code in {400, 404}
        assert "29.30630" not in answer.text
    page = await citizen.get("/?lat=29.30630&lon=120.07510&q=29.30630")
    assert page.status_code == 200
    assert "29.30630" not in "".join(record.getMessage() for record in caplog.records if record.name.startswith("fleet_server"))


def test_the_process_needs_neither_framework_nor_keys() -> None:
    """What it does not load it cannot leak: no accounts, no ORM, no console pages, no authority."""
    code = "import fleet_server.public.__main__, sys; print('\\n'.join(sys.modules))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, encoding="utf-8").stdout.split())
    assert "fleet_server.public.app" in loaded
    unwanted = (
        "litestar",
        "piccolo",
        "fleet_server.accounts",
        "fleet_server.authority",
        "fleet_server.evidence",
        "fleet_server.console.pages",
    )
    assert sorted(name for name in loaded if name.startswith(unwanted)) == []


async def test_its_connection_cannot_write(keeper: Keeper) -> None:
    await keeper.refresh()
    with pytest.raises(Exception, match="readonly"):
        await keeper._channel.run(lambda connection: connection.execute("DELETE FROM site"))


# Caching --------------------------------------------------------------------------------------------------------------------------------


async def test_tags_and_304(citizen: httpx.AsyncClient, keeper: Keeper, write: Write) -> None:
    for path in EVERYTHING:
        first = await citizen.get(path)
        again = await citizen.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b""), path
        assert again.headers["etag"] == first.headers["etag"]
        assert "max-age" in again.headers["cache-control"]
    tag = (await citizen.get("/api/v1/sites")).headers["etag"]
    write(
        "UPDATE presence SET state = 'offline' WHERE to_ms IS NULL AND terminal IN (SELECT id FROM terminal WHERE site = 'yiwu-mall')"
    )
    await keeper.refresh()
    changed = await citizen.get("/api/v1/sites", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert {site["code"]: site["state"] for site in changed.json()["sites"]}["yiwu-mall"] == "unavailable"


async def test_gzip_where_it_is_understood_with_a_tag_of_its_own(app: PublicApp, citizen: httpx.AsyncClient) -> None:
    plain = await citizen.get("/api/v1/sites", headers={"Accept-Encoding": "identity"})
    packed = await citizen.get("/api/v1/sites", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert plain.headers["etag"] != packed.headers["etag"]
    assert plain.content == packed.content, "httpx unpacks"
    assert int(packed.headers["content-length"]) < len(plain.content) / 5
    assert plain.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(b"gzip, br", True), (b"br;q=1, gzip;q=0", False), (b"", False), (b"*", True), (b"GZIP;q=0.5", True), (b"identity", False)],
)
def test_what_accept_encoding_means(value: bytes, wanted: bool) -> None:
    assert accepts_gzip(value) is wanted


async def test_a_thousand_who_ask_at_once_cost_one(app: PublicApp, citizen: httpx.AsyncClient) -> None:
    before = app.shelf.made
    answers = await asyncio.gather(*(citizen.get("/cards?all=1") for _ in range(1000)))
    assert {answer.status_code for answer in answers} == {200}
    assert app.shelf.made == before + 1


async def test_head_says_the_same_without_the_body(citizen: httpx.AsyncClient) -> None:
    got, head = await citizen.get("/api/v1/sites"), await citizen.head("/api/v1/sites")
    assert head.content == b""
    for name in ("etag", "content-length", "content-type", "cache-control"):
        assert head.headers[name] == got.headers[name]


async def test_a_busy_database_leaves_the_old_view_with_its_age(
    citizen: httpx.AsyncClient,
    keeper: Keeper,
    clock: HandClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert (await citizen.get("/")).headers["snapshot-age"] == "0"
    monkeypatch.setattr("fleet_server.public.rows.READ_WITHIN_S", -1.0)
    monkeypatch.setattr("fleet_server.public.rows._STEPS_PER_LOOK", 1)
    monkeypatch.setattr("fleet_server.public.rows.look.__defaults__", (-1.0,))
    for seconds, wanted in ((10, "available"), (70, "unknown")):
        clock.now_ms = NOW_MS + seconds * 1000
        await keeper.refresh()
        answer = await citizen.get("/api/v1/sites/yiwu-zone24")
        assert answer.headers["snapshot-age"] == str(seconds)
        assert answer.json()["site"]["state"] == wanted
    assert sum("cannot be read" in record.getMessage() for record in caplog.records) == 1, "said once, not every two seconds"


def test_readings_get_rarer_while_they_take_long_but_never_too_rare() -> None:
    assert pause_s(0.001) == 2
    assert pause_s(0.1) == pytest.approx(3)
    assert pause_s(10) == 4


async def test_before_anything_was_read_it_says_so(settings: Settings, clock: HandClock, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "not-there.sqlite", now_ms=clock)
    try:
        await keeper.refresh()
        assert not (tmp_path / "not-there.sqlite").exists(), "looking for a database must not make one"
        transport = httpx.ASGITransport(app=application(settings, keeper))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            for path in ("/", "/api/v1/sites"):
                answer = await client.get(path)
                assert (answer.status_code, answer.headers["retry-after"], answer.headers["cache-control"]) == (
                    503,
                    "2",
                    "no-store",
                )
            assert (await client.get("/api/v1/services")).status_code == 200
    finally:
        keeper.close()


# Limits and errors ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/sites?limit=0", 400),
        ("/api/v1/sites?limit=101", 400),
        ("/api/v1/sites?limit=１", 400),
        ("/api/v1/sites?colour=red", 400),
        ("/api/v1/sites?area=yiwu&area=lanxi", 400),
        ("/api/v1/sites?area=%ff", 400),
        ("/api/v1/sites?area=nowhere", 404),
        ("/api/v1/sites?service=nothing", 404),
        ("/api/v1/sites?near=nowhere", 404),
        ("/api/v1/sites/nowhere", 404),
        ("/api/v1/sites/yiwu-hall?x=1", 400),
        (f"/api/v1/sites/{'x' * 65}", 414),
        (f"/api/v1/sites?area={'x' * 65}", 414),
        (f"/api/v1/sites?area={'x' * 600}", 414),
        ("/api/v1/", 404),
        ("/api/v2/sites", 404),
    ],
)
async def test_what_the_api_refuses(citizen: httpx.AsyncClient, path: str, status: int) -> None:
    answer = await citizen.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status"}
    assert body["status"] == status


@pytest.mark.parametrize(
    "path", ["/sites/nowhere", "/nowhere", "/?area=nowhere", "/?service=nothing", "/static/../app.py", "/sites/", "/static/"]
)
async def test_pages_that_are_not_there(citizen: httpx.AsyncClient, path: str) -> None:
    answer = await citizen.get(path)
    assert answer.status_code == 404
    assert "回到首页" in answer.text
    assert "nowhere" not in answer.text


async def test_nothing_can_be_changed(citizen: httpx.AsyncClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for path in ("/", "/api/v1/sites"):
            answer = await citizen.request(method, path, content=b"x")
            assert answer.status_code == 405
            assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_what_is_typed_is_shown_as_text(citizen: httpx.AsyncClient) -> None:
    page = (await citizen.get("/", params={"q": '"><script>alert(1)</script>'})).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


async def test_an_answer_that_cannot_be_made_is_a_calm_page(
    citizen: httpx.AsyncClient, app: PublicApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("what somebody typed")

    monkeypatch.setattr(app._pages, "list", broken)
    answer = await citizen.get("/?q=what+somebody+typed")
    assert answer.status_code == 500
    assert "请稍后再试" in answer.text
    assert "RuntimeError" in caplog.text
    assert "what somebody typed" not in caplog.text


# Headers --------------------------------------------------------------------------------------------------------------------------------


async def test_pages_run_nothing_foreign_and_may_ask_for_a_position_themselves_only(citizen: httpx.AsyncClient) -> None:
    for path in PAGES:
        answer = await citizen.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "geolocation=(self)" in answer.headers["permissions-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not re.search(r"<script(?![^>]* src=)|\son[a-z]+=|\sstyle=", answer.text), path
        assert not re.search(r'(?:src|href)="(?:https?:)?//', answer.text), f"{path}: nothing from outside"


async def test_other_sites_may_read_the_api_and_only_read(citizen: httpx.AsyncClient) -> None:
    answer = await citizen.get("/api/v1/sites", headers={"Origin": "https://elsewhere.example"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    before = await citizen.options(
        "/api/v1/sites", headers={"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET"}
    )
    assert before.status_code == 204
    assert before.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
    assert "access-control-allow-origin" not in (await citizen.get("/")).headers
    for path in EVERYTHING:
        assert "set-cookie" not in (await citizen.get(path)).headers


async def test_static_files_are_kept_for_ever_under_their_hash(citizen: httpx.AsyncClient) -> None:
    page = (await citizen.get("/")).text
    found = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert len(set(found)) == 3
    for address in found:
        answer = await citizen.get(address.replace("&amp;", "&"))
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]


async def test_the_map_link_is_off_until_somebody_sets_it(
    citizen: httpx.AsyncClient, keeper: Keeper, settings: Settings, write: Write, clock: HandClock
) -> None:
    write("UPDATE site SET lat = 29.3, lon = 120.25 WHERE code = 'yiwu-hall'")
    clock.now_ms += 31_000
    await keeper.refresh()
    assert 'rel="external' not in (await citizen.get("/sites/yiwu-hall")).text
    public = Public(enabled=True, map_link="https://maps.example/marker?at={lon},{lat}&name={name}")
    other = Settings(data_dir=settings.data_dir, public=public)
    transport = httpx.ASGITransport(app=application(other, keeper))
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        page = (await client.get("/sites/yiwu-hall")).text
    assert 'href="https://maps.example/marker?at=120.250000,29.300000&amp;name=%E4%B9%89' in page
    assert 'rel="external noreferrer noopener"' in page


# Words and description ------------------------------------------------------------------------------------------------------------------


def test_both_languages_say_the_same_things() -> None:
    texts = catalogues()
    zh, en = (texts[language] for language in LANGUAGES)
    assert {key for key in zh if not key.endswith(".one")} == {key for key in en if not key.endswith(".one")}
    for key in zh:
        holes = set(re.findall(r"\{(\w+)\}", zh.raw(key))) - {"weekday", "month", "day"}
        assert holes == set(re.findall(r"\{(\w+)\}", en.raw(key))) - {"weekday", "month", "day"}, key


def test_every_word_is_used() -> None:
    package = Path(__file__).parents[3] / "fleet_server" / "public"
    source = "".join(
        file.read_text("utf-8") for file in (*package.rglob("*.py"), *package.rglob("*.html"), *package.rglob("*.js"))
    )
    by_rule = re.compile(r"^(word|help|kind|weekday|problem|back|hours\.(until|next)|heard)\b|^hours\.(until|next)")
    unused = [key for key in catalogues()["zh"] if key not in source and not by_rule.match(key)]
    assert unused == []


async def test_answers_are_as_the_description_says(citizen: httpx.AsyncClient, keeper: Keeper, write: Write) -> None:
    write(
        "UPDATE terminal SET maintenance_until_ms = 9999999999999 WHERE site = 'yiwu-bank'",
        "UPDATE site SET hours = 'x' WHERE code = 'yiwu-mall'",
    )
    await keeper.refresh()
    description = (await citizen.get("/api/v1/openapi.json")).json()
    assert description["openapi"] == "3.1.0"
    for path, operation in description["paths"].items():
        if path == "/openapi.json":
            continue
        schema = operation["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        for address in {"/sites": ["/sites", "/sites?near=yiwu-hall"], "/sites/{code}": ["/sites/yiwu-bank"]}.get(path, [path]):
            answer = (await citizen.get(f"/api/v1{address}")).json()
            problems = list(_check(answer, schema, description["components"]["schemas"], address))
            assert problems == []


def _check(value: Any, schema: dict[str, Any], known: dict[str, Any], place: str) -> Any:
    """As much of JSON Schema as the description uses; yields what does not hold."""
    if "$ref" in schema:
        schema = known[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        if not any(not list(_check(value, one, known, place)) for one in schema["anyOf"]):
            yield f"{place}: {json.dumps(value, ensure_ascii=False)[:80]} fits nothing"
        return
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "number": (int, float),
        "integer": int,
        "boolean": bool,
        "null": type(None),
    }
    if "type" in schema and not isinstance(value, kinds[schema["type"]]):
        yield f"{place}: {value!r} is no {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place}: {value!r} is not listed"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{place}: {value!r} has another form"
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        yield from (f"{place}: {name} is missing" for name in schema.get("required", []) if name not in value)
        yield from (f"{place}: {name} is not described" for name in value if name not in properties)
        for name in value.keys() & properties.keys():
            yield from _check(value[name], properties[name], known, f"{place}.{name}")
    if isinstance(value, list):
        for item in value:
            yield from _check(item, schema["items"], known, f"{place}[]")


async def test_the_seeded_fleet_fits_into_small_answers(citizen: httpx.AsyncClient) -> None:
    packed = await citizen.get("/api/v1/sites", headers={"Accept-Encoding": "gzip"})
    assert int(packed.headers["content-length"]) < 60_000
    assert gzip.compress(packed.content)
