"""A package from an empty draft to a terminal's screen and away again: over the console, signed by real repositories, unpacked by the agent."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.content.shelf import Shelf
from edge_agent.updater.handover import Artifact
from fleet_server.accounts.events import remember
from fleet_server.engine import FleetEngine
from protocols.contract import artifacts
from protocols.contract.artifacts import ImageCustom
from protocols.packages import catalogue
from tests.fleet_server.console.conftest import *  # noqa: F403 -- the console's fixtures
from tests.fleet_server.console.conftest import Person
from tests.fleet_server.console.test_role_matrix import somebody
from tests.support.content_seed import seed_content
from tests.support.seed import NOW_MS, Seeded
from tests.support.tuf_repo import TufRepo

FILM = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 300


@pytest.fixture
def repo(tmp_path: Path) -> TufRepo:
    return TufRepo.create(tmp_path, clock_ms=lambda: NOW_MS)


@pytest.fixture
async def reviewer(engine: FleetEngine, new_person: Callable[[], Person]) -> Person:
    return await somebody("approver", engine, new_person)


async def upload(person: Person, package: str, name: str, data: bytes) -> Any:
    headers = {"X-CSRF-Token": person.csrf, "HX-Request": "true"}
    return await person.client.post(f"{package}/upload", files={"file": (name, data)}, headers=headers)


async def made(operator: Person, name: str = "tax-guide") -> str:
    answer = await operator.post("/content/add", name=name, title="办税指南")
    return str(answer.headers["HX-Redirect"])


async def ready(operator: Person, reviewer: Person, name: str = "tax-guide") -> str:
    package = await made(operator, name)
    assert (await upload(operator, package, "Guide Film.mp4", FILM)).status_code == 200
    assert (await upload(operator, package, "why.html", "<p>为什么</p>".encode())).status_code == 200
    assert (await operator.post(f"{package}/act/submit")).status_code == 200
    assert (await reviewer.post(f"{package}/act/approve")).status_code == 200
    return package


def release_of(repo: TufRepo, path: str) -> tuple[bytes, ImageCustom]:
    found = repo.updates.image.known_targets()[path][1]
    data = repo.updates.image.file_of(found).read_bytes()
    assert hashlib.sha256(data).hexdigest() == found.hashes["sha256"]
    return data, artifacts.of_custom(found.unrecognized_fields["custom"], ImageCustom)


async def taken(folder: Path, name: str, raw: bytes, custom: ImageCustom) -> Shelf:
    """The agent takes it, as the updater lays it out."""
    (folder / "artifacts").mkdir(exist_ok=True)
    sha256 = hashlib.sha256(raw).hexdigest()
    (folder / "artifacts" / sha256).write_bytes(raw)
    shelf = Shelf(
        folder / "content-of-terminal", artifacts_dir=folder / "artifacts", now_ms=lambda: NOW_MS, connected=lambda: True
    )
    shelf.load()
    artifact = Artifact(
        component=f"content/{name}", version=custom.version, release=custom.release, sha256=sha256, length=len(raw)
    )
    assert (await shelf.install(artifact, lambda _state, _reason: None)).state == "done"
    return shelf


async def test_from_draft_to_a_terminal_and_away_again(
    operator: Person, reviewer: Person, repo: TufRepo, engine: FleetEngine, tmp_path: Path
) -> None:
    package = await ready(operator, reviewer)
    assert (await operator.post(f"{package}/act/publish")).status_code == 200
    raw, custom = release_of(repo, "content/tax-guide/1.0.tar")
    assert (custom.component, custom.name, custom.release, custom.unpacked_files) == ("content", "tax-guide", 1, 2)
    shelf = await taken(tmp_path, "tax-guide", raw, custom)
    shown = shelf.find("tax-guide", "guide-film.mp4")
    assert shown is not None
    assert shown.path.read_bytes() == FILM
    (held,) = shelf.valid()
    assert (held.manifest.created_by, held.manifest.reviewed_by) == ("operator", "a-approver")
    releases = await engine.look(lambda conn: conn.execute("SELECT id, component, name, uploaded_by FROM release").fetchall())
    assert [tuple(row)[1:] for row in releases if row["name"] == "tax-guide"] == [("content", "tax-guide", "operator")]
    page = await operator.get(package)
    assert "/updates/new?release=" in page
    # Away again: an empty version takes its place.
    assert (await operator.post(f"{package}/act/disable")).status_code == 200
    raw, custom = release_of(repo, "content/tax-guide/2.0.tar")
    assert (await taken(tmp_path, "tax-guide", raw, custom)).valid() == []
    # Nobody reviewed the withdrawal, so nobody's name stands there.
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    assert (manifest["withdrawn"], manifest["created_by"], manifest["reviewed_by"]) == (True, "operator", None)
    trail = await engine.look(
        lambda conn: [row[0] for row in conn.execute("SELECT action FROM audit WHERE object = 'content:tax-guide' ORDER BY id")]
    )
    assert trail == [f"content.{act}" for act in ("create", "upload", "upload", "submit", "approve", "publish", "disable")]
    # The next version is above both, and begins as a copy.
    answer = await operator.post(f"{package}/next")
    again = answer.headers["HX-Redirect"]
    assert "tax-guide · 3.0" in await operator.seen(again)
    assert "guide-film.mp4" in await operator.seen(again)


async def test_whoever_made_it_does_not_review_it(operator: Person, reviewer: Person, viewer: Person) -> None:
    package = await made(operator)
    await upload(operator, package, "film.mp4", FILM)
    assert (await operator.post(f"{package}/act/submit")).status_code == 200
    own = await operator.post(f"{package}/act/approve")
    assert own.status_code == 400
    assert "制作的人不能自己审核" in own.text
    assert (await viewer.post(f"{package}/act/approve")).status_code == 403
    assert (await viewer.post(f"{package}/act/explode")).status_code == 404
    assert (await reviewer.post(f"{package}/act/publish")).status_code == 403
    assert (await reviewer.post(f"{package}/act/return", note="请补英文标题")).status_code == 200
    assert "请补英文标题" in await operator.seen(package)
    assert (await operator.post(f"{package}/act/submit")).status_code == 200
    assert (await reviewer.post(f"{package}/act/approve")).status_code == 200
    late = await upload(operator, package, "more.png", b"\x89PNG\r\n\x1a\n123")
    assert (late.status_code, late.text) == (400, "只有草稿可以修改。")


@pytest.mark.parametrize("chain", [[("operator", "a-approver")], [("operator", "c"), ("c", "a-approver")]])
async def test_whoever_had_the_reviewers_account_in_hand_has_no_reviewer_there(
    operator: Person, reviewer: Person, engine: FleetEngine, chain: list[tuple[str, str]]
) -> None:
    def link(conn: Any) -> None:
        conn.execute("INSERT INTO staff (name, display, password_hash, role, created_ms) VALUES ('c', '', '', 'viewer', 0)")
        for by, staff in chain:
            remember(conn, staff, "reset", by=by, now_ms=NOW_MS - 86_400_000)

    await engine.write(link)
    package = await made(operator)
    await upload(operator, package, "film.mp4", FILM)
    await operator.post(f"{package}/act/submit")
    answer = await reviewer.post(f"{package}/act/approve")
    assert (answer.status_code, "7 天内" in answer.text) == (400, True)
    assert "已审核" not in await operator.seen(package)


async def test_whoever_brought_a_file_of_an_earlier_version_does_not_review_the_next(
    operator: Person, reviewer: Person, repo: TufRepo, engine: FleetEngine
) -> None:
    package = await ready(operator, reviewer)
    await operator.post(f"{package}/act/publish")
    fresh = (await operator.post(f"{package}/next")).headers["HX-Redirect"]
    number = int(fresh.rpartition("/")[2])
    await engine.write(
        lambda conn: conn.execute(
            "UPDATE content_file SET added_by = 'a-approver' WHERE package = ? AND name = 'guide-film.mp4'", (number,)
        )
    )
    assert (await operator.post(f"{fresh}/act/submit")).status_code == 200
    answer = await reviewer.post(f"{fresh}/act/approve")
    assert (answer.status_code, "制作的人不能自己审核" in answer.text) == (400, True)


async def test_every_change_is_in_the_audit_log(operator: Person, engine: FleetEngine) -> None:
    package = await made(operator)
    await upload(operator, package, "one.png", b"\x89PNG\r\n\x1a\none")
    page = {"id": "page.1", "zh": "一", "en": "One", "file": "one.png", "items": "", "seconds": "20"}
    await operator.post(f"{package}/pages", **page)
    await operator.post(f"{package}/pages", **page, remove="one.png")
    await operator.post(f"{package}/settings", title="春节安排", priority="9", day="0")
    await operator.post("/content/items/set", code="tax.invoice", zh="开发票", en="x", type="handle")
    await operator.post("/content/items/switch", code="tax.invoice", group="", on="no")
    rows = await engine.look(
        lambda conn: [
            (row[0], row[1], json.loads(row[2] or "{}"))
            for row in conn.execute(
                "SELECT actor, action, detail FROM audit WHERE object IN ('content:tax-guide', 'item:tax.invoice') ORDER BY id"
            )
        ]
    )
    assert {row[0] for row in rows} == {"operator"}
    assert [row[1].partition(".")[2] for row in rows] == ["create", "upload", "edit", "remove", "edit", "set", "off"]
    told = [row[2] for row in rows]
    digest = hashlib.sha256(b"\x89PNG\r\n\x1a\none").hexdigest()
    assert told[1] == {"version": "1.0", "file": "one.png", "bytes": 11, "sha256": digest}
    assert told[2] == {"version": "1.0", "pages": ["page.1"]}
    assert told[3] == {"version": "1.0", "file": "one.png"}
    assert (told[4]["title"], told[4]["priority"], told[4]["weekdays"]) == ("春节安排", 9, 1)


async def test_without_keys_nothing_is_released_and_it_is_said(operator: Person, reviewer: Person) -> None:
    package = await ready(operator, reviewer)
    answer = await operator.post(f"{package}/act/publish")
    assert answer.status_code == 400
    assert "签名密钥还没有建立" in answer.text
    assert "已审核" in await operator.seen(package)


async def test_files_are_checked_and_an_exchanged_one_is_not_signed(
    operator: Person, reviewer: Person, repo: TufRepo, tmp_path: Path
) -> None:
    package = await made(operator, "card-guide")
    for name, data, sentence in (
        ("x.js", b"1", "不允许这种文件"),
        ("a.png", b"GIF89a", "与扩展名不符"),
        ("a.html", b"<script>1</script>", "脚本"),
        ("a.png", b"", "空的"),
    ):
        answer = await upload(operator, package, name, data)
        assert (answer.status_code, sentence in answer.text) == (400, True), answer.text
    assert list((tmp_path / "content").glob(".upload-*")) == []
    package = await ready(operator, reviewer)
    (kept,) = [path for path in (tmp_path / "content").glob("??/*") if path.name == hashlib.sha256(FILM).hexdigest()]
    kept.write_bytes(FILM[:-1] + b"!")
    damaged = await operator.post(f"{package}/act/publish")
    assert (damaged.status_code, "已不是上传时的内容" in damaged.text) == (400, True)
    assert "content/tax-guide/1.0.tar" not in repo.updates.image.known_targets()
    kept.write_bytes(FILM)
    assert (await operator.post(f"{package}/act/publish")).status_code == 200


async def test_pages_are_ordered_named_and_dropped(operator: Person) -> None:
    package = await made(operator)
    for name in ("one.png", "two.png"):
        await upload(operator, package, name, b"\x89PNG\r\n\x1a\n" + name.encode())
    rows: dict[str, list[str]] = {
        "id": ["page.1", "page.2"],
        "zh": ["一", "二"],
        "en": ["One", "Two"],
        "file": ["one.png", "two.png"],
        "items": ["tax.invoice", ""],
        "seconds": ["10", "20"],
    }

    async def post(**more: str) -> Any:
        return await operator.client.post(
            f"{package}/pages", data={**rows, **more}, headers={"X-CSRF-Token": operator.csrf, "HX-Request": "true"}
        )

    assert (await post(move="1:up")).status_code == 200
    assert re.findall(r'name="id" value="([^"]+)"', await operator.get(package)) == ["page.2", "page.1"]
    assert (await post(move="0:drop")).status_code == 200
    assert re.findall(r'name="id" value="([^"]+)"', await operator.get(package)) == ["page.2"]
    assert (await post(remove="two.png")).status_code == 200
    assert re.findall(r'name="id" value="([^"]+)"', await operator.get(package)) == ["page.1"]
    rows["zh"] = ["<b>", "二"]
    assert (await post()).status_code == 400


async def test_deleting_removes_the_bytes_that_nobody_else_has(operator: Person, tmp_path: Path) -> None:
    first, second = await made(operator, "one-guide"), await made(operator, "two-guide")
    await upload(operator, first, "film.mp4", FILM)
    await upload(operator, first, "only.png", b"\x89PNG\r\n\x1a\nonly")
    await upload(operator, second, "film.mp4", FILM)
    assert (await operator.post(f"{first}/act/delete")).status_code == 200
    left = {path.name for path in (tmp_path / "content").glob("??/*")}
    assert left == {hashlib.sha256(FILM).hexdigest()}
    assert (await operator.client.get(first)).status_code == 404
    again = await operator.post("/content/add", name="one-guide", title="又一个")
    assert "已有这个包名" in again.text


async def test_settings(operator: Person) -> None:
    package = await made(operator)
    base = {"title": "春节安排", "from": "2027-02-01", "until": "2027-02-10", "priority": "9", "day": "0", "area": "yiwu"}
    assert (await operator.post(f"{package}/settings", **base)).status_code == 200
    page = await operator.get(package)
    assert 'value="2027-02-01"' in page
    assert 'value="2027-02-10"' in page
    wrong = await operator.post(f"{package}/settings", **{**base, "until": "2027-01-01"})
    assert "结束日期须在开始日期之后" in wrong.text
    assert (await operator.post(f"{package}/settings", **{**base, "from": "x"})).status_code == 400
    none = {name: value for name, value in base.items() if name != "day"}
    assert "至少选一天" in (await operator.post(f"{package}/settings", **none)).text


async def test_items_are_switched_for_an_area_and_released(operator: Person, viewer: Person, repo: TufRepo) -> None:
    for code, zh in (("tax.invoice", "开发票"), ("social.card", "社保卡")):
        assert (await operator.post("/content/items/set", code=code, zh=zh, en="x", type="handle")).status_code == 200
    bad = await operator.post("/content/items/set", code="330102199001011235", zh="x", en="x", type="handle")
    assert (bad.status_code, "代码用小写字母" in bad.text) == (400, True)
    assert (await operator.post("/content/items/switch", code="tax.invoice", group="yiwu", on="no")).status_code == 200
    assert (await viewer.post("/content/items/switch", code="tax.invoice", group="yiwu", on="yes")).status_code == 403
    assert (await operator.post("/content/items/switch", code="nothing", group="", on="no")).status_code == 404
    for area in ("yiwu", ""):
        assert (await operator.post("/content/items/release", group=area)).status_code == 200
    yiwu = catalogue.decode(release_of(repo, "catalogue/yiwu-1.json")[0])
    everywhere = catalogue.decode(release_of(repo, "catalogue/all-2.json")[0])
    assert [item.code for item in yiwu.on()] == ["social.card"]
    assert [item.code for item in everywhere.on()] == ["social.card", "tax.invoice"]
    assert (yiwu.version, everywhere.version) == ("1.0", "2.0")
    assert "all" not in json.dumps(release_of(repo, "catalogue/yiwu-1.json")[1].name)
    await operator.post("/content/items/switch", code="tax.invoice", group="yiwu", on="yes")
    table = (await operator.get("/content/items?area=yiwu")).partition("<tbody")[2].partition("</tbody>")[0]
    assert "停办" not in re.sub(r"<button.*?</button>", "", table)


async def test_what_was_shown_stands_on_the_page(operator: Person, seeded: Seeded) -> None:
    await asyncio.to_thread(seed_content, seeded.path, NOW_MS)
    page = await operator.seen("/content/1")
    assert "社保卡自助办理指南" in page
    assert "284" in page, "39 + 38 + … + 32 times"
    assert "按终端" in page
