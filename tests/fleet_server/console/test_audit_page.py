"""The audit log in the console: filters, words, the file, and the check that says what it found."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import get_args

import pytest

from fleet_server.audit import log
from fleet_server.audit.verify import Kind, Report
from fleet_server.console import audit_view, i18n
from fleet_server.console.pages.audit import verdict_words
from fleet_server.console.render import Voice
from fleet_server.db import open_raw
from tests.fleet_server.console.conftest import Person
from tests.support.orders import AUDITOR, seed_orders
from tests.support.seed import NOW_MS, Seeded

ZH = Voice(i18n.load("zh"), NOW_MS, "Asia/Shanghai")


@pytest.fixture
def database(seeded: Seeded) -> Iterator[sqlite3.Connection]:
    with closing(open_raw(seeded.path)) as connection:
        connection.isolation_level = None
        seed_orders(connection, NOW_MS)
        yield connection


@pytest.fixture
async def auditor(new_person: Callable[[], Person], database: sqlite3.Connection) -> Person:
    person = new_person()
    await person.sign_in(AUDITOR)
    return person


async def test_the_log_tells_who_did_what(auditor: Person) -> None:
    page = await auditor.seen("/audit")
    for words in (
        "申请指令",
        "批准指令",
        "驳回指令",
        "保存配置版本",
        "换用配置第 2 版",
        "须两人（有风险）",
        "理由：上午办事高峰，等闭馆后再说",
    ):
        assert words in page


async def test_it_is_filtered_by_person_subject_result_text_and_day(auditor: Person) -> None:
    async def rows(query: str) -> int:
        return (await auditor.get(f"/audit{query}")).count('<tr role="row">') - 1

    everything = await rows("")
    assert everything > 10
    assert 0 < await rows("?by=requester") < everything
    assert await rows("?about=configuration") == 2
    assert await rows("?q=读卡区进水") == 1
    assert 0 < await rows("?from=2026-11-18") < everything
    assert 0 < await rows("?to=2026-11-15") < everything
    assert "没有符合条件的记录。" in await auditor.seen("/audit?result=failed")


async def test_the_file_has_every_row_with_its_hash_oldest_first(auditor: Person, database: sqlite3.Connection) -> None:
    answer = await auditor.client.get("/audit.csv?by=operator")
    rows = list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))
    numbers = [int(row[0]) for row in rows[1:]]
    assert numbers == sorted(numbers)
    wanted = database.execute("SELECT hash FROM audit WHERE id = ?", (numbers[0],)).fetchone()[0]
    assert rows[1][-1] == bytes(wanted).hex()


def test_an_address_is_read_without_an_error() -> None:
    assert audit_view.parse_view({"from": "2026-13-40", "result": "x", "page": "0"}) == audit_view.AuditView()
    view = audit_view.parse_view({"q": "  a  b ", "from": "2026-11-01", "to": "2026-11-02"})
    assert view.query() == "?q=a+b&from=2026-11-01&to=2026-11-02"
    assert view.without("from") == "?q=a+b&to=2026-11-02"


@pytest.mark.parametrize("detail", ["", "no json", "[]", '{"x": {"y": [1]}}', '{"kind": "new", "body": 3}'])
def test_a_detail_that_nobody_can_read_does_not_stop_the_page(detail: str) -> None:
    assert isinstance(audit_view.detail_words(ZH, "order.request", detail), list)


# The check ------------------------------------------------------------------------------------------------------------------------------


async def test_the_check_says_that_all_is_as_it_was_written(auditor: Person, database: sqlite3.Connection) -> None:
    signed = database.execute("SELECT max(audit) FROM audit_head").fetchone()[0]
    number, _ = log.last(database)
    answer = await auditor.post("/audit/verify")
    assert f"第 1 至 {number} 条共 {number} 条，每一条都与记录时一致。" in answer.text
    assert f"服务器的签名覆盖到第 {signed} 条。" in answer.text


def test_of_a_young_log_it_says_that_nothing_is_signed_yet() -> None:
    report = Report(rows=3, first=1, last=3, signed_to=0, problem=None)
    assert verdict_words(ZH, report)[1] == "还没有服务器的签名。"


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        ("UPDATE audit SET detail = '{}' WHERE id = 5", "第 5 条被改过"),
        ("UPDATE audit SET actor = 'somebody' WHERE id = 5", "第 5 条被改过"),
        ("DELETE FROM audit WHERE id = 5", "第 5 条不见了。"),
        ("DELETE FROM audit WHERE id > 5", "第 6 条及之后的记录被删去"),
        ("UPDATE audit_head SET envelope = zeroblob(80)", "有一个不是本服务器的"),
    ],
)
async def test_the_check_finds_what_somebody_with_the_database_did(
    auditor: Person, database: sqlite3.Connection, harm: str, sentence: str
) -> None:
    for (trigger,) in database.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name LIKE 'audit%'"
    ).fetchall():
        database.execute(f"DROP TRIGGER {trigger}")
    database.execute(harm)
    answer = await auditor.post("/audit/verify")
    assert "审计日志不完整。" in answer.text
    assert sentence in answer.text
    assert 'role="alert"' in answer.text


@pytest.mark.parametrize("lang", i18n.LANGUAGES)
def test_every_finding_has_its_sentence(lang: i18n.Language) -> None:
    for kind in get_args(Kind):
        assert i18n.load(lang).has(f"audit.verdict.{kind}")
