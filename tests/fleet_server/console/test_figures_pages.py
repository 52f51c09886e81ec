"""The figures pages: every number leads to rows that make it, no data is never zero, and files say what the page says."""

from __future__ import annotations

import csv
import html
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import openpyxl
import pytest

from fleet_server.console.pages import figures as pages
from fleet_server.db import open_reader
from fleet_server.engine import FleetEngine
from fleet_server.figures.behind import _MAKERS, is_weighed, number_of
from fleet_server.figures.board import Board
from fleet_server.figures.figure import Figure
from fleet_server.figures.question import Period, Question, Scope
from fleet_server.figures.snapshots import _BROKEN_DOWN, NAMES, compute
from tests.fleet_server.console.conftest import Person
from tests.support.clock import HandClock
from tests.support.seed import DAY, NOW_MS, Seeded, seed
from tests.support.usage import add_usage

OCTOBER = Question(Period.month("2026-10"))
COUNT = 40


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    """Two months of use for 40 terminals, and something of everything that figures are made of."""
    seeded = seed(tmp_path_factory.mktemp("used") / "fleet.sqlite", count=COUNT, days=60)
    add_usage(seeded, days=75)
    return seeded


@pytest.fixture
def seeded(used: Seeded, tmp_path: Path) -> Seeded:
    path = tmp_path / "fleet.sqlite"
    shutil.copyfile(used.path, path)
    return Seeded(path, used.machines, used.now_ms)


@pytest.fixture
def board(seeded: Seeded) -> Iterator[Board]:
    conn = open_reader(seeded.path)
    yield Board(conn, OCTOBER, NOW_MS)
    conn.close()


def all_figures(board: Board) -> list[Figure]:
    """One of each name; of a breakdown its first part."""
    found = []
    for name in NAMES:
        parts = list(_BROKEN_DOWN[name](board)) if name in _BROKEN_DOWN else []
        found.append(next((one for one in parts if one.numerator), parts[0]) if parts else compute(board, name))
    return found


def address(figure: Figure, part: str, page: str = "/figures/behind") -> str:
    pairs = {"figure": figure.name, "key": figure.key, "part": part, "period": figure.question.period.text}
    return page + "?" + urlencode({name: value for name, value in pairs.items() if value})


def parts_of(figure: Figure) -> list[str]:
    return [part for name, part in _MAKERS if name == figure.name and (part != "denominator" or figure.denominator is not None)]


# The page -------------------------------------------------------------------------------------------------------------------------------


async def test_the_page_says_what_the_board_says(operator: Person, board: Board) -> None:
    text = await operator.seen("/figures?period=2026-10")
    headline = board.headline()
    cases, share = headline["cases"], headline["success_rate"]
    assert f"在用终端 {board.population.size} 台，办件 {cases.numerator:,} 件" in text
    assert f"{share.numerator:,} / {share.denominator:,}" in text
    assert "N = 40" in text or f"N = {board.population.size}" in text
    assert f"{headline['zero_terminals'].numerator} 台。" in text


async def test_without_a_period_it_is_this_month_and_says_that_it_runs(operator: Person) -> None:
    text = await operator.seen("/figures")
    assert "2026-11" in text
    assert "本期尚未结束；与 2026-10-01 至 2026-10-18 比较" in text


@pytest.mark.parametrize("lang", ["zh", "en"])
async def test_every_link_of_the_page_opens(new_person: object, lang: str) -> None:
    person: Person = new_person()  # type: ignore[operator]
    await person.sign_in("operator", lang=lang)
    page = await person.get("/figures?period=2026-10")
    links = {html.unescape(link) for link in re.findall(r'href="(/figures[^"]*)"', page)}
    assert len(links) > 60
    for link in sorted(links):
        await person.get(link)


async def test_no_data_is_a_dash_and_hatched_never_zero_percent(operator: Person) -> None:
    page = await operator.get("/figures?period=2025-03")
    assert "没有在用终端，因此没有指标" in page
    assert "0.0 %" not in page
    tiles = re.findall(r'<div class="card figure-tile([^"]*)" data-figure="(\w+)"', page)
    assert len(tiles) == 16
    assert all("hatched" in look for look, _ in tiles)


async def test_a_month_that_has_not_begun_has_no_figures(operator: Person) -> None:
    assert "因此没有指标" in await operator.seen("/figures?period=2027-03")


async def test_a_form_gives_days_and_the_address_becomes_a_month(operator: Person) -> None:
    answer = await operator.client.get("/figures?from=2026-10-01&to=2026-10-31&area=jindong&site=&type=")
    assert (answer.status_code, answer.headers["location"]) == (303, "/figures?period=2026-10&area=jindong")
    answer = await operator.client.get("/figures/zero?from=2026-10-02&to=2026-10-31")
    assert answer.headers["location"] == "/figures/zero?period=2026-10-02..2026-10-31"


@pytest.mark.parametrize(
    "period", ["2026-13", "x", "2026-10-05..2026-10-01", "0001", "2000..2100", "2020-01-01..2026-01-01", "2026-Q5"]
)
async def test_what_is_no_period_is_refused(operator: Person, period: str) -> None:
    answer = await operator.client.get("/figures?" + urlencode({"period": period}))
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("query", "scope"),
    [
        ("area=jindong", Scope(area="jindong")),
        ("site=jindong-hall", Scope(site="jindong-hall")),
        ("type=desk", Scope(type="desk")),
        ("owner=social", Scope(owner="social")),
        ("area=jinhua&direct=1", Scope(area="jinhua", direct=True)),
    ],
)
async def test_a_scope_counts_its_own_terminals(operator: Person, seeded: Seeded, query: str, scope: Scope) -> None:
    conn = open_reader(seeded.path)
    board = Board(conn, Question(OCTOBER.period, scope), NOW_MS)
    text = await operator.seen(f"/figures?period=2026-10&{query}")
    if board.population.size:
        assert f"在用终端 {board.population.size} 台，办件 {board.cases().numerator:,} 件" in text
    else:
        assert "因此没有指标" in text
    conn.close()


async def test_targets_say_who_set_them(operator: Person, engine: FleetEngine) -> None:
    from fleet_server.thresholds.rules import put

    assert "目标 ≥ 98 % 默认" in await operator.seen("/figures?period=2026-10")
    await engine.write(lambda conn: put(conn, "availability.month_min", 0.999, by="wang", now_ms=NOW_MS))
    assert "目标 ≥ 99.9 % wang 于 2026-11-18 设定" in await operator.seen("/figures?period=2026-10")


async def test_hours_stand_in_a_table_too(operator: Person, board: Board) -> None:
    page = await operator.get("/figures?period=2026-10")
    assert page.count("<g><title>") == 24
    for figure in (*board.by_hour_work(), *board.by_hour_rest()):
        link = html.escape(f"/figures/behind?figure={figure.name}&key={figure.key}&period=2026-10")
        assert f'<a href="{link}">{figure.numerator:,}</a>' in page


# Behind a figure ------------------------------------------------------------------------------------------------------------------------


async def test_every_part_of_every_figure_has_exactly_the_rows_that_make_it(operator: Person, board: Board) -> None:
    """Read back from the file of all rows: their weights add up to the number that the page shows."""
    seen = 0
    for figure in all_figures(board):
        for part in parts_of(figure):
            number = number_of(figure, part)
            text = (await operator.client.get(address(figure, part, "/figures/behind.csv"))).content.decode("utf-8-sig")
            rows = list(csv.DictReader(io.StringIO(text)))
            weight = "台日" if (figure.name, part) in MACHINE_DAYS else "时长（秒）" if is_weighed(figure.name, part) else "计入"
            assert sum(int(row[weight]) for row in rows) == number, (figure.name, part)
            if not is_weighed(figure.name, part):
                assert len(rows) == number, (figure.name, part)
            page = await operator.seen(address(figure, part))
            count = f"共 {len(rows):,} 条"
            assert count in page, (figure.name, part, count)
            seen += number > 0
    assert seen > 45


MACHINE_DAYS = {(f"cases_per_terminal{word}", "denominator") for word in ("", "_day", "_year")}


async def test_pages_together_hold_all_rows_once(operator: Person, board: Board) -> None:
    cases = board.cases()
    found: list[str] = []
    pages = -(-cases.numerator // 50)
    for n in (1, 2, pages):
        page = await operator.get(address(cases, "numerator") + f"&page={n}")
        found += re.findall(r'href="/evidence/(\d+/\d+)"', page)
    assert len(found) == len(set(found)) == 100 + (cases.numerator - 1) % 50 + 1
    assert "第 " in await operator.seen(address(cases, "numerator") + "&page=2")


async def test_a_row_leads_to_its_terminal_and_to_signed_evidence(operator: Person, seeded: Seeded) -> None:
    """Open faults of the seed came in as signed records; their drawer says so."""
    page = await operator.get("/figures/behind?figure=faults&period=2026-11")
    proofs = set(re.findall(r'href="(/evidence/\d+/\d+)" hx-get="\1" hx-target="#drawer"', page))
    assert proofs
    terminals = set(re.findall(r'href="(/terminals/kf-\d+)"', page))
    assert terminals
    for link in (min(proofs), min(terminals)):
        await operator.get(link)
    assert "签名有效" in await operator.seen(min(proofs))


async def test_spans_inferred_by_the_platform_claim_no_signature(operator: Person) -> None:
    text = await operator.seen("/figures/behind?figure=online_rate&part=offline&period=2026-11")
    assert "由平台推断" in text


async def test_a_day_shows_the_summaries_that_its_seconds_come_from(operator: Person) -> None:
    page = await operator.get("/figures/behind?figure=availability&period=2026-10")
    link = html.unescape(re.findall(r'href="(/figures/day[^"]+)"', page)[0])
    day = await operator.get(link)
    assert re.search(r'href="/evidence/\d+/3"', day)
    assert (await operator.client.get("/figures/day?terminal=nobody&day=2026-10-01")).status_code == 404
    assert (await operator.client.get("/figures/day?terminal=kf-0001&day=yesterday")).status_code == 400


@pytest.mark.parametrize(
    "query", ["figure=nothing", "figure=cases&part=blind", "figure=cases&part=x", "figure=cases&part=denominator", ""]
)
async def test_what_no_figure_has_is_not_found(operator: Person, query: str) -> None:
    assert (await operator.client.get(f"/figures/behind?{query}")).status_code == 404


async def test_text_from_outside_is_harmless_in_page_and_files(operator: Person, engine: FleetEngine, seeded: Seeded) -> None:
    await engine.write(
        lambda conn: conn.execute("UPDATE terminal SET name_zh = '=1+1<script>alert(1)</script>' WHERE id = 'kf-0001'")
    )
    await engine.write(lambda conn: conn.execute("UPDATE session SET item = '=HYPERLINK(1)' WHERE terminal = 'kf-0001'"))
    link = "/figures/behind?figure=cases&terminal=kf-0001&period=2026-10"
    for page in (link, "/figures?period=2026-10", "/figures/terminals?period=2026-10"):
        assert "<script>alert" not in await operator.get(page)
    data = (await operator.client.get(link.replace("/behind", "/behind.xlsx"))).content
    sheet = openpyxl.load_workbook(io.BytesIO(data)).active
    assert sheet is not None
    cells = [cell for row in sheet.iter_rows() for cell in row if cell.value]
    assert any(str(cell.value).startswith("=1+1") for cell in cells)
    assert {cell.data_type for cell in cells} <= {"s", "n", "d"}
    text = (await operator.client.get(link.replace("/behind", "/behind.csv"))).text
    assert "'=1+1" in text and ",=1+1" not in text


# Zero list and ranking ------------------------------------------------------------------------------------------------------------------


async def test_the_zero_list_has_as_many_rows_as_the_figure_says(operator: Person, board: Board) -> None:
    figure = board.zero_terminals()
    page = await operator.get("/figures/zero?period=2026-10")
    rows = re.findall(r'<tr role="row">\s*<td role="cell" class="wide"><a href="/terminals/(kf-\d+)"', page)
    assert len(rows) == figure.numerator > 0
    assert rows == [row.member.id for row in board.zero_list()]
    data = (await operator.client.get("/figures/zero.xlsx?period=2026-10")).content
    sheet = openpyxl.load_workbook(io.BytesIO(data)).active
    assert sheet is not None
    assert [row[0] for row in sheet.iter_rows(min_row=4, values_only=True)] == [row.member.code for row in board.zero_list()]


async def test_terminals_are_ranked_with_their_machine_days(operator: Person, board: Board) -> None:
    page = await operator.get("/figures/terminals?period=2026-10")
    ranked = re.findall(r'class="wide"><a href="/terminals/(kf-\d+)"', page)
    assert ranked == [figure.key for figure in board.by_terminal()]
    text = (await operator.client.get("/figures/terminals.csv?period=2026-10")).content.decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert sum(int(row["办件"]) for row in rows) == board.cases().numerator
    assert sum(int(row["台日"]) for row in rows) == board.cases_per_terminal_day().denominator


# Publishing -----------------------------------------------------------------------------------------------------------------------------


async def test_an_operator_closes_a_month_and_a_viewer_does_not(operator: Person, viewer: Person) -> None:
    assert "结账并发布" not in await viewer.seen("/figures/published")
    assert (await viewer.post("/figures/published", month="2026-10")).status_code == 403
    answer = await operator.post("/figures/published", month="2026-10")
    assert answer.status_code == 303
    text = await operator.seen(answer.headers["location"])
    assert "与现在的数据全部一致" in text and "由 operator 于 2026-11-18" in text
    listed = await viewer.seen("/figures/published")
    assert "2026-10 已结账" in listed and "月度结账" in listed


@pytest.mark.parametrize(
    ("month", "said"), [("2026-11", "还没有结束"), ("2025-01", "没有在用终端"), ("2026", "日期不对"), ("", "日期不对")]
)
async def test_what_cannot_be_closed_is_refused_with_a_sentence(operator: Person, month: str, said: str) -> None:
    answer = await operator.post("/figures/published", month=month)
    assert answer.status_code == 400
    assert said in answer.text


async def test_what_moved_since_is_told(operator: Person, engine: FleetEngine, board: Board) -> None:
    answer = await operator.post("/figures/published", month="2026-10")
    await engine.write(
        lambda conn: conn.execute(
            "INSERT INTO session (terminal, sid, item, channel, outcome, cause, began_ms, duration_ms, day, batch, idx, disputed)"
            " VALUES ('kf-0001', x'00ff', 'late.item', 'touch', 'success', 'none', ?, 1000, '2026-10-20', 9, 9, 0)",
            (NOW_MS - 29 * DAY,),
        )
    )
    text = await operator.seen(answer.headers["location"])
    assert "个数字中" in text and "分子 +1 件" in text
    assert f"{board.cases().numerator:,} 件" in text


async def test_a_publication_that_does_not_exist_is_not_found(operator: Person) -> None:
    assert (await operator.client.get("/figures/published/7")).status_code == 404


# Month report ---------------------------------------------------------------------------------------------------------------------------


async def test_the_report_on_the_page_is_the_report_in_the_file(operator: Person, board: Board) -> None:
    text = await operator.seen("/figures/month-report?month=2026-10")
    cases, share = board.cases(), board.success_rate()
    assert f"办件量 {cases.numerator:,} {cases.numerator:,}" in text
    assert f"办件成功率 {share.numerator:,} {share.denominator:,}" in text
    data = (await operator.client.get("/figures/month-report.xlsx?month=2026-10")).content
    book = openpyxl.load_workbook(io.BytesIO(data))
    assert book.sheetnames == ["汇总", "终端明细", "零办件", "错时延时", "故障与可用率"]
    sheet = book["汇总"]
    assert sheet.freeze_panes == "B5"
    assert sheet.merged_cells.ranges
    rows = {str(row[0]): row for row in sheet.iter_rows(values_only=True) if row[0]}
    assert rows["办件量"][3] == cases.numerator
    assert rows["办件成功率"][3:5] == (share.numerator, share.denominator)
    before = compute(Board(board._conn, Question(Period.month("2026-09")), NOW_MS), "cases")
    assert rows["办件量"][6] == before.numerator


async def test_the_report_of_an_area_and_of_a_month_that_runs(operator: Person) -> None:
    text = await operator.seen("/figures/month-report?month=2026-11&area=jindong")
    assert "本月尚未结束" in text and "金东区" in text
    assert (await operator.client.get("/figures/month-report?month=2026-10&area=atlantis")).status_code == 404
    assert (await operator.client.get("/figures/month-report?month=2026-Q3")).status_code == 400


# Keeping answers ------------------------------------------------------------------------------------------------------------------------


async def test_an_answer_is_kept_until_its_inputs_move(
    operator: Person, engine: FleetEngine, clock: HandClock, board: Board
) -> None:
    from fleet_server.usage.days import recompute_some

    before = f"办件 {board.cases().numerator:,} 件"
    assert before in await operator.seen("/figures?period=2026-10")

    def add(conn: object) -> None:
        conn.execute(  # type: ignore[attr-defined]
            "INSERT INTO session (terminal, sid, item, channel, outcome, cause, began_ms, duration_ms, day, batch, idx, disputed)"
            " VALUES ('kf-0001', x'00ff', 'late.item', 'touch', 'success', 'none', ?, 1000, '2026-10-20', 9, 9, 0)",
            (NOW_MS - 29 * DAY,),
        )
        conn.execute("INSERT INTO dirty_day (terminal, day) VALUES ('kf-0001', '2026-10-20')")  # type: ignore[attr-defined]
        recompute_some(conn, 10, clock.now_ms)  # type: ignore[arg-type]

    await engine.write(add)
    assert before in await operator.seen("/figures?period=2026-10")
    clock.now_ms += 60_000
    after = await operator.seen("/figures?period=2026-10")
    assert f"办件 {board.cases().numerator + 1:,} 件" in after


@pytest.mark.parametrize("path", ["/figures", "/figures/zero", "/figures/terminals"])
async def test_figures_that_take_long_are_promised_and_then_shown(
    operator: Person, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(pages, "PATIENCE_S", 0)
    page = await operator.get(f"{path}?period=2026-10")
    assert "正在计算 2026-10 的指标" in page
    assert "data-again-after" in page
    monkeypatch.setattr(pages, "PATIENCE_S", 30)
    assert "正在计算" not in await operator.seen(f"{path}?period=2026-10")
