"""Pages of updates: a rollout asked for, approved and watched; releases uploaded and judged; what each role may do."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fleet_server.channel import transact
from fleet_server.db import open_raw
from fleet_server.rollouts import store
from fleet_server.rollouts.duty import step
from fleet_server.rollouts.rules import RolloutState
from fleet_server.updates import packs, plan, releases
from fleet_server.updates.layout import UpdatesLayout
from protocols.contract.artifacts import ImageCustom
from tests.fleet_server.console.conftest import Person
from tests.support.console import settings_for
from tests.support.seed import NOW_MS, OPERATOR, Seeded
from tests.support.tuf_repo import TufRepo
from tests.support.updates_seed import ENGINEER, RUNNING, SECOND, STOPPED, WAITING, seed_updates

GOOD = {
    "title": "Agent 1.4.0", "release": "2", "area": "wucheng", "canary": "1", "success": "95", "soak": "2", "waves": "20%, 100%",
    "failure_count": "2",    "failure_first": "10", "failure_percent": "5", "window": "any", "priority": "0", "late": "1", "ignore_freeze": "1",
}  # fmt: skip


@pytest.fixture
def updates(seeded: Seeded) -> Seeded:
    seed_updates(seeded.path, seeded.now_ms)
    return seeded


@pytest.fixture
def conn(updates: Seeded) -> Iterator[sqlite3.Connection]:
    with closing(open_raw(updates.path)) as connection:
        yield connection


async def signed_in(new_person: Callable[[], Person], name: str) -> Person:
    person = new_person()
    await person.sign_in(name)
    return person


@pytest.fixture
async def second(updates: Seeded, new_person: Callable[[], Person]) -> Person:
    return await signed_in(new_person, SECOND)


def state(conn: sqlite3.Connection, name: str) -> RolloutState:
    return store.sheet(conn, name).rollout.state


async def test_the_list_shows_what_is_under_way_what_waits_and_what_ended(updates: Seeded, operator: Person) -> None:
    page = await operator.seen("/updates")
    for words in ("进行中", "待提交或待批准", "已结束", "终端程序 1.4.0 全市", "设备型号库 2026.11", "已自动停止", "义乌博览会"):
        assert words in page


async def test_a_rollouts_page_says_where_it_stands_and_why_each_terminal_waits(updates: Seeded, operator: Person) -> None:
    page = await operator.seen(f"/updates/{RUNNING}")
    for words in (
        "试点",
        "第 2 波",
        "达标线",
        "已有结果",
        "新版本自检未通过",
        "下载中",
        "断点续传",
        "等待同一大厅的另一台",
        "差分",
        "只在点位不营业时安装",
    ):
        assert words in page
    stopped = await operator.seen(f"/updates/{STOPPED}")
    assert "失败过多，已自动停止：最先完成的 10 台里失败了 2 台（上限 2 台）。" in stopped
    assert "新版本启动后崩溃" in stopped


async def test_the_table_can_be_narrowed(updates: Seeded, operator: Person) -> None:
    rows = re.findall(r'id="member-([\w-]+)"', await operator.get(f"/updates/{RUNNING}?result=failed"))
    assert len(rows) == 1
    canaries = re.findall(r'id="member-([\w-]+)"', await operator.get(f"/updates/{RUNNING}?wave=0"))
    assert len(canaries) == 2
    assert "没有符合条件的终端" in await operator.seen(f"/updates/{RUNNING}?wave=0&result=failed")


async def test_the_steps_of_a_terminal_are_told_in_their_order(
    updates: Seeded, operator: Person, conn: sqlite3.Connection
) -> None:
    terminal = conn.execute("SELECT terminal FROM rollout_member WHERE rollout = ? AND state = 'failed'", (RUNNING,)).fetchone()[
        0
    ]
    page = await operator.seen(f"/updates/{RUNNING}/terminals/{terminal}")
    at = [page.index(word) for word in ("已收到", "下载中", "校验中", "已就绪", "等待安装", "安装中", "试运行", "已退回原版本")]
    assert at == sorted(at)
    assert "新版本自检未通过" in await operator.seen(f"/terminals/{terminal}?tab=updates")


async def test_the_csv_has_every_terminal(updates: Seeded, viewer: Person, conn: sqlite3.Connection) -> None:
    answer = await viewer.client.get(f"/updates/{RUNNING}/members.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    lines = answer.text.strip().splitlines()
    assert len(lines) == 1 + len(store.members(conn, RUNNING))
    versions = await viewer.client.get("/updates/versions.csv")
    assert "终端程序" in versions.text


async def test_asked_by_one_approved_by_another(
    updates: Seeded, operator: Person, second: Person, conn: sqlite3.Connection
) -> None:
    answer = await operator.post("/updates/new", **GOOD, then="submit")
    assert answer.status_code == 303, answer.text[:500]
    name = answer.headers["location"].removeprefix("/updates/").partition("?")[0]
    assert state(conn, name) is RolloutState.WAITING
    own = await operator.seen(f"/updates/{name}")
    assert "您是申请人，需要另一个人批准。" in own
    assert (await operator.post(f"/updates/{name}/approve")).status_code == 400
    assert "批准" in await second.seen(f"/updates/{name}")
    assert (await second.post(f"/updates/{name}/approve")).status_code == 200
    sheet = store.sheet(conn, name)
    assert (sheet.rollout.state, sheet.approved_by) == (RolloutState.APPROVED, SECOND)
    assert sheet.rollout.policy.soak_s == 7200
    assert {member.terminal for member in store.members(conn, name).values()}


async def test_a_rollout_that_waits_is_among_the_approvals_and_in_the_count(
    updates: Seeded, operator: Person, conn: sqlite3.Connection
) -> None:
    page = await operator.seen("/approvals")
    title = conn.execute("SELECT title FROM rollout WHERE id = ?", (WAITING,)).fetchone()[0]
    assert title in page
    assert f"/updates/{WAITING}" in await operator.get("/approvals")
    waiting = conn.execute("SELECT count(*) FROM rollout WHERE state = 'waiting' AND created_by <> ?", (OPERATOR,)).fetchone()[0]
    orders = conn.execute("SELECT count(*) FROM order_request WHERE state = 'waiting'").fetchone()[0]
    shown = re.search(r"data-approvals[^>]*>(\d+)<", await operator.get("/approvals"))
    assert shown is not None
    assert int(shown[1]) == waiting + orders > 0


async def test_whoever_uploaded_a_release_does_not_approve_it(
    updates: Seeded, new_person: Callable[[], Person], conn: sqlite3.Connection
) -> None:
    engineer = await signed_in(new_person, ENGINEER)
    assert "您上传了其中的版本" in await engineer.seen(f"/updates/{WAITING}")
    answer = await engineer.post(f"/updates/{WAITING}/approve")
    assert answer.status_code == 400
    assert "上传版本的人不能批准" in answer.text
    assert state(conn, WAITING) is RolloutState.WAITING


async def test_pause_resume_abort_and_retry_are_buttons(updates: Seeded, operator: Person, conn: sqlite3.Connection) -> None:
    assert (await operator.post(f"/updates/{RUNNING}/pause")).status_code == 200
    assert state(conn, RUNNING) is RolloutState.PAUSED
    assert "已暂停" in await operator.seen(f"/updates/{RUNNING}")
    assert (await operator.post(f"/updates/{RUNNING}/resume")).status_code == 200
    assert (await operator.post(f"/updates/{RUNNING}/retry")).status_code == 200
    assert (await operator.post(f"/updates/{RUNNING}/retry")).status_code == 409
    empty = await operator.post(f"/updates/{RUNNING}/abort", reason=" ")
    assert "error-reason" in empty.text
    assert state(conn, RUNNING) is RolloutState.RUNNING
    assert (await operator.post(f"/updates/{RUNNING}/abort", reason="换新版本")).status_code == 200
    assert state(conn, RUNNING) is RolloutState.ABORTED
    assert f"{OPERATOR} 终止了发布：换新版本" in await operator.seen(f"/updates/{RUNNING}")


async def test_everything_can_be_stopped_at_once(updates: Seeded, second: Person, conn: sqlite3.Connection) -> None:
    assert "终端程序 1.4.0 全市" in await second.seen("/updates/stop")
    assert (await second.post("/updates/stop", reason="疑似被攻击")).status_code == 200
    assert state(conn, RUNNING) is RolloutState.ABORTED
    assert state(conn, WAITING) is RolloutState.WAITING
    assert "现在没有进行中的发布" in await second.seen("/updates/stop")


async def test_reasons_hold_no_personal_numbers(updates: Seeded, operator: Person) -> None:
    answer = await operator.post("/updates/stop", reason="市民 330702199001011234 投诉")
    assert "error-reason" in answer.text
    assert "330702199001011234" in answer.text, "what was typed is not lost"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", ""),
        ("release", ""),
        ("waves", "many"),
        ("canary", "1000"),
        ("soak", "later"),
        ("failure_count", "20"),
        ("not_before", "soon"),
    ],
)
async def test_a_form_that_is_wrong_comes_back_with_what_was_typed(
    updates: Seeded, operator: Person, field: str, value: str
) -> None:
    answer = await operator.post("/updates/new", **{**GOOD, field: value}, then="save")
    assert answer.status_code == 400
    assert f'id="error-{field}"' in answer.text
    if value:
        assert f'value="{value}"' in answer.text


async def test_the_preview_counts_and_says_it_in_words(updates: Seeded, operator: Person) -> None:
    everybody = (await operator.post("/updates/preview", **{**GOOD, "area": ""})).text
    some = (await operator.post("/updates/preview", **GOOD)).text
    assert "区域：婺城区" in some
    count = [int(re.search(r"([\d,]+) 台终端", text)[1].replace(",", "")) for text in (everybody, some)]  # type: ignore[index]
    assert 0 < count[1] < count[0]
    assert "20 %、100 %" in some
    nobody = (await operator.post("/updates/preview", **{**GOOD, "tag": "nothing-has-this"})).text
    assert "没有符合条件的终端" in nobody


async def test_a_new_one_begins_like_an_earlier_one(updates: Seeded, operator: Person) -> None:
    page = await operator.get(f"/updates/new?like={WAITING}")
    assert 'value="设备型号库 2026.11"' in page
    assert re.search(r'name="siteKind" value="zone24" checked', page)
    assert '<option value="wucheng, jindong" selected>婺城区、金东区</option>' in page, "two areas stay two areas"


async def test_freeze_periods_are_added_and_removed(updates: Seeded, operator: Person, conn: sqlite3.Connection) -> None:
    wrong = await operator.post("/updates/freeze", name="展会", **{"from": "2026-12-02T10:00", "to": "2026-12-01T10:00"})
    assert "error-to" in wrong.text
    done = await operator.post("/updates/freeze", name="展会", **{"from": "2026-12-01T10:00", "to": "2026-12-02T10:00"})
    assert done.status_code == 200
    row = conn.execute("SELECT id FROM freeze_period WHERE name = '展会'").fetchone()
    assert (await operator.post(f"/updates/freeze/{row[0]}/remove")).status_code == 200
    assert "展会" not in await operator.seen("/updates")


async def test_a_bad_release_is_called_so_by_one_person(updates: Seeded, operator: Person, conn: sqlite3.Connection) -> None:
    assert "error-text" in (await operator.post("/updates/releases/2/call/bad", text="")).text
    assert (await operator.post("/updates/releases/2/call/bad", text="凭条打印机丢失")).status_code == 200
    page = await operator.seen("/updates/releases/2")
    assert "有问题" in page and "凭条打印机丢失" in page
    assert (await operator.post("/updates/new", **GOOD, then="save")).status_code == 400
    step(UpdatesLayout(Path("/nonexistent")))(conn, NOW_MS)
    assert store.sheet(conn, RUNNING).rollout.reason == "badRelease"


async def test_addresses_that_lead_nowhere(updates: Seeded, operator: Person) -> None:
    for path in ("/updates/zz", f"/updates/{'0' * 32}", f"/updates/{RUNNING}/terminals/nobody", "/updates/releases/99"):
        assert (await operator.client.get(path)).status_code == 404


# Upload ---------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> TufRepo:
    settings = settings_for(tmp_path)
    return TufRepo.create(settings.layout.updates.root.parent, clock_ms=lambda: NOW_MS)


def pack(repo: TufRepo, folder: Path) -> Path:
    """A pack of device profiles, signed by its engineer."""
    content = b'{"profiles": []}' * 5000
    target = releases_target("profiles/profiles-2026.12.tar", content)
    metadata = repo.updates.image.next_targets("profiles", plan.moment(NOW_MS))
    metadata.signed.targets[target.path] = target
    repo.sign(metadata, "profiles")
    file = folder / "profiles.tar"
    file.write_bytes(content)
    path = folder / "release.kfpack"
    packs.write(path, "profiles", metadata, {target.hashes["sha256"]: file})
    return path


def releases_target(path: str, content: bytes):  # type: ignore[no-untyped-def]  # TargetFile of python-tuf
    from tuf.api.metadata import TargetFile

    target = TargetFile.from_data(path, content)
    custom = ImageCustom(component="profiles", version="2026.12", release=32)
    target.unrecognized_fields["custom"] = releases.custom_member(custom)
    return target


async def send(person: Person, data: bytes, *, with_header: bool = True) -> tuple[int, str, str]:
    """As the page's script does it, or as the bare form does."""
    headers = {"X-CSRF-Token": person.csrf, "HX-Request": "true"} if with_header else {}
    fields = {} if with_header else {"_csrf": person.csrf}
    answer = await person.client.post(
        "/updates/releases/upload",
        data=fields,
        files={"file": ("release.kfpack", data, "application/octet-stream")},
        headers=headers,
    )
    return answer.status_code, answer.text, answer.headers.get("HX-Redirect") or answer.headers.get("location", "")


@pytest.mark.parametrize("with_header", [True, False], ids=["script", "form"])
async def test_a_pack_is_verified_published_and_known(
    repository: TufRepo, updates: Seeded, operator: Person, conn: sqlite3.Connection, tmp_path: Path, with_header: bool
) -> None:
    data = pack(repository, tmp_path).read_bytes()
    status, text, target = await send(operator, data, with_header=with_header)
    assert status in {200, 303}, text
    assert "设备型号库 2026.12" in await operator.seen(target)
    row = conn.execute("SELECT uploaded_by, length FROM release WHERE path = 'profiles/profiles-2026.12.tar'").fetchone()
    assert (row[0], row[1]) == (OPERATOR, 80_000)
    assert (
        conn.execute("SELECT count(*) FROM audit WHERE action = 'release.upload' AND actor = ?", (OPERATOR,)).fetchone()[0] == 1
    )
    assert not list(repository.updates.layout.staging.glob("upload-*"))
    again = await send(operator, data)
    assert again[0] == 400
    assert again[1], "the same once more is refused with a sentence"


async def test_a_damaged_pack_is_refused_with_a_sentence_and_leaves_nothing(
    repository: TufRepo, updates: Seeded, operator: Person, conn: sqlite3.Connection, tmp_path: Path
) -> None:
    data = bytearray(pack(repository, tmp_path).read_bytes())
    at = data.index(b'{"profiles"') + 5
    data[at] ^= 1
    status, text, _ = await send(operator, bytes(data))
    assert status == 400
    assert re.search(r"[\u4e00-\u9fff]", text)
    assert conn.execute("SELECT count(*) FROM release WHERE version = '2026.12'").fetchone()[0] == 0
    assert not list(repository.updates.layout.staging.glob("upload-*"))


async def test_an_upload_without_a_file_or_a_repository(updates: Seeded, operator: Person) -> None:
    assert "更新仓库还没有建立" in (await send(operator, b"x"))[1]
    assert "更新仓库还没有建立" in await operator.seen("/updates/releases")


async def test_what_the_server_noticed_first_still_belongs_to_who_brought_it(updates: Seeded, conn: sqlite3.Connection) -> None:
    from fleet_server.rollouts import releases as known

    custom = ImageCustom(component="agent", version="9.0.0", release=900)

    def record(by: str) -> int:
        return transact(
            conn, lambda c: known.record(c, custom, path="agent/9.tar", length=1, sha256=b"9" * 32, by=by, now_ms=NOW_MS)
        )

    assert record("server") == record(OPERATOR)
    assert conn.execute("SELECT uploaded_by FROM release WHERE path = 'agent/9.tar'").fetchone()[0] == OPERATOR


async def test_the_real_repositories_describe_what_an_approved_rollout_wants(
    repository: TufRepo, updates: Seeded, operator: Person, conn: sqlite3.Connection, tmp_path: Path
) -> None:
    """Upload, approval, dispatch: afterwards the director names the terminals, and the desired state says the same."""
    from fleet_server.orders import wanted
    from fleet_server.rollouts import acts
    from fleet_server.updates import director

    conn.execute("UPDATE rollout SET state = 'aborted' WHERE id IN (?, ?)", (RUNNING, WAITING))
    conn.execute("DELETE FROM rollout_member")
    conn.execute("UPDATE terminal_live SET last_seen_ms = ?", (NOW_MS,))
    await send(operator, pack(repository, tmp_path).read_bytes())
    number = conn.execute("SELECT id FROM release WHERE version = '2026.12'").fetchone()[0]
    answer = await operator.post("/updates/new", **{**GOOD, "release": str(number), "canary": "2"}, then="submit")
    name = answer.headers["location"].removeprefix("/updates/").partition("?")[0]
    transact(conn, lambda c: acts.approve(c, name, by=SECOND, now_ms=NOW_MS))
    step(repository.updates.layout)(conn, NOW_MS)
    given = director.assigned(repository.updates)
    assert len(given) == 2
    for terminal, assignments in given.items():
        bundle = wanted.pieces(conn, terminal).bundle
        assert bundle is not None
        assert [(one.bundle, one.target) for one in assignments] == [(bundle.id.hex(), "profiles/profiles-2026.12.tar")]
    transact(conn, lambda c: acts.abort(c, name, "back", by=OPERATOR, now_ms=NOW_MS))
    step(repository.updates.layout)(conn, NOW_MS + 1000)
    assert director.assigned(repository.updates) == {}
