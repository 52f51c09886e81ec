"""Profiles, catalogues and content on the disk: taken whole or refused with a reason, taken back, and found again after a cut at any moment."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.artifacts.catalogue import CatalogueInstaller, offered
from edge_agent.artifacts.desk import Desk
from edge_agent.artifacts.profiles import ProfilesInstaller
from edge_agent.artifacts.verified import ArtifactRefused
from edge_agent.config import ItemEntry
from edge_agent.content.shelf import Shelf
from edge_agent.updater.handover import AgentSide, AppliedOne, Apply, Artifact, UpdaterSide
from protocols.packages import catalogue, content, profiles
from protocols.packages.catalogue import Catalogue, Item
from protocols.packages.content import Manifest, Page
from protocols.profile.schema import Profile, parse_profile
from tests.edge_agent.firmware.bench import UNIT

SHIPPED = {"acme-fu100": parse_profile(UNIT.encode(), "acme-fu100")}
NEWER = UNIT.replace("Acme FU-100", "Acme FU-100 revised")
OTHER = UNIT.replace("acme-fu100", "acme-fu200")
HOUR_MS = 3_600_000
NOW_MS = 1_790_000_000_000


def quiet(_state: str, _reason: str) -> None:
    return


class Box:
    """What the updater has laid out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "artifacts"
        self.folder.mkdir()

    def put(self, component: str, version: str, raw: bytes, **changes: Any) -> Artifact:
        sha256 = hashlib.sha256(raw).hexdigest()
        (self.folder / sha256).write_bytes(raw)
        fields: dict[str, Any] = {"component": component, "version": version, "release": 1, "sha256": sha256, "length": len(raw)}
        return Artifact(**(fields | changes))


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def run(work: Any) -> Any:
    return asyncio.run(work)


# ------------------------------------------------------------------------------------------------------------------------ profiles


class Sets:
    def __init__(
        self, box: Box, folder: Path, *, pinned: frozenset[str] = frozenset(), own: dict[str, Profile] | None = None
    ) -> None:
        self.changes: list[dict[str, Profile]] = []
        self.installer = ProfilesInstaller(
            artifacts_dir=box.folder,
            folder=folder / "profiles",
            shipped=SHIPPED,
            own=own or {},
            pinned=lambda: pinned,
            on_change=self.changes.append,
        )


def test_a_profile_set_comes_on_top_and_goes_again(box: Box, tmp_path: Path) -> None:
    sets = Sets(box, tmp_path)
    assert sets.installer.load() == SHIPPED
    first = box.put("profiles", "2026.1", profiles.encode("2026.1", {"acme-fu200": OTHER}))
    assert run(sets.installer.install(first, quiet)) == AppliedOne(component="profiles", state="done", version="2026.1")
    second = box.put("profiles", "2026.2", profiles.encode("2026.2", {"acme-fu100": NEWER}))
    run(sets.installer.install(second, quiet))
    assert sets.changes[-1]["acme-fu100"].display_name == "Acme FU-100 revised"
    assert "acme-fu200" not in sets.changes[-1], "a set is whole"
    # Asked again after a cut, nothing changes; at the next start it is there.
    run(sets.installer.install(second, quiet))
    assert len(sets.changes) == 2
    assert Sets(box, tmp_path).installer.load()["acme-fu100"].display_name == "Acme FU-100 revised"
    assert run(sets.installer.revert(second)).version == "2026.1"
    assert "acme-fu200" in sets.changes[-1]
    assert run(sets.installer.revert(second)).version == "2026.1", "what is not in use needs no way back"


@pytest.mark.parametrize(
    ("raw", "reason", "sentence"),
    [
        (b"{", "badArchive", "package: "),
        (b'{"kind":"kf-profiles/1","version":"1","files":{"a b":""}}', "badArchive", "key in .files: expected"),
        (
            msgspec.json.encode({"kind": "kf-profiles/1", "version": "2026.1", "files": {"acme-fu200": OTHER.replace("115200", "5")}}),
            "badArchive",
            "profile acme-fu200: transport.serial.baud: expected `int` >= 300",
        ),
        (
            msgspec.json.encode({"kind": "kf-profiles/1", "version": "2026.9", "files": {}}),
            "badArchive",
            "version: not the one that was signed",
        ),
    ],
)  # fmt: skip
def test_an_unusable_set_is_refused_with_its_path_and_the_one_before_stays(
    box: Box, tmp_path: Path, raw: bytes, reason: str, sentence: str
) -> None:
    sets = Sets(box, tmp_path)
    good = box.put("profiles", "2025.1", profiles.encode("2025.1", {"acme-fu200": OTHER}))
    run(sets.installer.install(good, quiet))
    with pytest.raises(ArtifactRefused) as caught:
        run(sets.installer.install(box.put("profiles", "2026.1", raw), quiet))
    assert caught.value.reason == reason
    assert str(caught.value).startswith(sentence)
    assert len(sets.changes) == 1
    assert "acme-fu200" in Sets(box, tmp_path).installer.load()


def test_a_set_must_not_take_away_what_the_configuration_names(box: Box, tmp_path: Path) -> None:
    sets = Sets(box, tmp_path, pinned=frozenset({"acme-fu200"}))
    run(sets.installer.install(box.put("profiles", "1.0", profiles.encode("1.0", {"acme-fu200": OTHER})), quiet))
    with pytest.raises(ArtifactRefused, match="acme-fu200, which would be gone") as caught:
        run(sets.installer.install(box.put("profiles", "2.0", profiles.encode("2.0", {})), quiet))
    assert caught.value.reason == "configuration"


def test_the_installers_own_profile_stays_above(box: Box, tmp_path: Path) -> None:
    own = {"acme-fu100": parse_profile(UNIT.replace("Acme FU-100", "By hand").encode(), "acme-fu100")}
    sets = Sets(box, tmp_path, own=own)
    run(sets.installer.install(box.put("profiles", "1.0", profiles.encode("1.0", {"acme-fu100": NEWER})), quiet))
    assert sets.changes[-1]["acme-fu100"].display_name == "By hand"


def test_a_damaged_file_on_the_disk_never_stops_the_agent(box: Box, tmp_path: Path) -> None:
    sets = Sets(box, tmp_path)
    for version, text in (("1.0", OTHER), ("2.0", OTHER.replace("acme-fu200", "acme-fu300"))):
        name = "acme-fu200" if version == "1.0" else "acme-fu300"
        run(sets.installer.install(box.put("profiles", version, profiles.encode(version, {name: text})), quiet))
    (tmp_path / "profiles/current.json").write_bytes(b"\xff")
    assert "acme-fu200" in Sets(box, tmp_path).installer.load()
    (tmp_path / "profiles/previous.json").write_bytes(b"")
    assert Sets(box, tmp_path).installer.load() == SHIPPED


def test_the_same_profiles_give_the_same_bytes() -> None:
    assert profiles.encode("1.0", {"acme-fu100": NEWER, "acme-fu200": OTHER}) == profiles.encode(
        "1.0", {"acme-fu200": OTHER, "acme-fu100": NEWER}
    )


# ----------------------------------------------------------------------------------------------------------------------- catalogue

TAX, CARD = Item(code="tax.invoice", zh="开发票", en="Invoice"), Item(code="social.card", zh="社保卡", en="Card", type="query")


def test_who_lists_items_and_who_switches_them_off() -> None:
    known = Catalogue(version="1.0", items=(TAX, msgspec.structs.replace(CARD, on=False)))
    listed = (ItemEntry(code="tax.invoice", type="book"), ItemEntry(code="social.card"), ItemEntry(code="local.only"))
    assert [item.code for item in offered((), None)] == []
    assert [item.code for item in offered((), known)] == ["tax.invoice"]
    assert [item.code for item in offered(listed, None)] == ["tax.invoice", "social.card", "local.only"]
    both = offered(listed, known)
    assert [(item.code, item.type, item.zh) for item in both] == [
        ("tax.invoice", "book", "开发票"),
        ("local.only", "handle", "local.only"),
    ]


def test_a_catalogue_is_taken_refused_and_taken_back(box: Box, tmp_path: Path) -> None:
    changes: list[Catalogue | None] = []
    installer = CatalogueInstaller(artifacts_dir=box.folder, folder=tmp_path / "catalogue", on_change=changes.append)
    first = box.put("catalogue", "1.0", catalogue.encode(Catalogue(version="1.0", items=(TAX,))))
    second = box.put("catalogue", "1.1", catalogue.encode(Catalogue(version="1.1", items=(TAX, CARD))))
    run(installer.install(first, quiet))
    run(installer.install(second, quiet))
    assert [one.version for one in changes if one] == ["1.0", "1.1"]
    twice = msgspec.json.encode(Catalogue(version="1.2", items=(TAX, TAX)))
    with pytest.raises(ArtifactRefused, match=r"items\[1\].code: there twice"):
        run(installer.install(box.put("catalogue", "1.2", twice), quiet))
    assert run(installer.revert(second)).version == "1.0"
    assert run(installer.revert(first)).version is None
    assert changes[-1] is None


# ------------------------------------------------------------------------------------------------------------------------- content

FILES = {"guide/index.html": b"<p>Guide</p>", "guide/film.mp4": bytes(range(256)) * 2000}


def manifest(version: str = "1.0", files: dict[str, bytes] | None = None, **changes: Any) -> Manifest:
    files = FILES if files is None else files
    fields: dict[str, Any] = {
        "name": "tax-guide",
        "version": version,
        "pages": tuple(Page(id=f"tax.page.{n}", zh="指南", en="Guide", file=name) for n, name in enumerate(files)),
        "files": tuple(content.file_of(name, data) for name, data in files.items()),
        "created_by": "li",
        "reviewed_by": "wang",
    }
    return Manifest(**(fields | changes))


def packed(made: Manifest, files: dict[str, bytes] | None = None) -> bytes:
    out = io.BytesIO()
    content.write(made, {name: io.BytesIO(data) for name, data in (FILES if files is None else files).items()}, out)
    return out.getvalue()


class Clock:
    now_ms: int | None = NOW_MS
    connected = True


def shelf_of(box: Box, folder: Path, clock: Clock | None = None, **changes: Any) -> Shelf:
    clock = clock or Clock()
    shelf = Shelf(
        folder / "content",
        artifacts_dir=box.folder,
        now_ms=lambda: clock.now_ms,
        connected=lambda: clock.connected,
        **{"free_bytes": lambda _: 10 << 30, **changes},
    )
    shelf.load()
    return shelf


def put(box: Box, made: Manifest, files: dict[str, bytes] | None = None) -> Artifact:
    return box.put("content/tax-guide", made.version, packed(made, files))


def test_a_package_is_unpacked_shown_and_replaced(box: Box, tmp_path: Path) -> None:
    shelf = shelf_of(box, tmp_path)
    first = put(box, manifest())
    assert run(shelf.install(first, quiet)).state == "done"
    shown = shelf.find("tax-guide", "guide/film.mp4")
    assert shown is not None
    assert (shown.path.read_bytes(), shown.content_type) == (FILES["guide/film.mp4"], "video/mp4")
    second = put(box, manifest("1.1", {"a.png": b"x"}), {"a.png": b"x"})
    run(shelf.install(second, quiet))
    assert shelf.find("tax-guide", "guide/film.mp4") is None
    assert shelf_of(box, tmp_path).valid()[0].manifest.version == "1.1", "found again at the next start"
    assert run(shelf.revert(second)).version == "1.0"
    assert shelf.find("tax-guide", "guide/film.mp4") is not None
    run(shelf.revert(first))
    assert shelf.valid() == []
    assert shelf_of(box, tmp_path).valid() == []


def test_only_within_its_time_by_trusted_time(box: Box, tmp_path: Path) -> None:
    clock = Clock()
    shelf = shelf_of(box, tmp_path, clock)
    monday_ms = 1_790_553_600_000  # 2026-09-28 00:00 UTC, 08:00 in Beijing: a Monday
    made = manifest(from_ms=monday_ms, until_ms=monday_ms + 40 * HOUR_MS, weekdays=0b0000001, offline=False)
    run(shelf.install(put(box, made), quiet))
    for now_ms, connected, there in (
        (monday_ms - 1, True, False),
        (monday_ms, True, True),
        (monday_ms, False, False),
        (monday_ms + 16 * HOUR_MS - 1, True, True),
        (monday_ms + 16 * HOUR_MS, True, False),  # Tuesday in Beijing
        (monday_ms + 40 * HOUR_MS, True, False),
        (None, True, False),
    ):
        clock.now_ms, clock.connected = now_ms, connected
        assert bool(shelf.valid()) is there, (now_ms, connected)
        assert (shelf.find("tax-guide", "guide/index.html") is not None) is there


def test_a_withdrawn_package_shows_nothing_and_the_more_important_comes_first(box: Box, tmp_path: Path) -> None:
    shelf = shelf_of(box, tmp_path)
    run(shelf.install(put(box, manifest(priority=3)), quiet))
    other = msgspec.structs.replace(manifest(priority=9), name="card-guide")
    run(shelf.install(box.put("content/card-guide", "1.0", packed(other)), quiet))
    assert [held.manifest.name for held in shelf.valid()] == ["card-guide", "tax-guide"]
    run(shelf.install(put(box, manifest("2.0", {}, withdrawn=True), {}), quiet))
    assert [held.manifest.name for held in shelf.valid()] == ["card-guide"]


def _link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0


def _rename(info: tarfile.TarInfo) -> None:
    info.name = "files/../../evil"


def _repack(raw: bytes, change: Callable[[tarfile.TarInfo], None] | None = None, extra: bool = False) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(raw)) as old, tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as new:
        for info in old.getmembers():
            body = old.extractfile(info)
            if change is not None and info.name == "files/guide/film.mp4":
                change(info)
            new.addfile(info, body if info.isreg() else None)
        if extra:
            info = tarfile.TarInfo("files/more.html")
            info.size = 3
            new.addfile(info, io.BytesIO(b"abc"))
    return out.getvalue()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: _repack(raw, _link),
        lambda raw: _repack(raw, _rename),
        lambda raw: _repack(raw, extra=True),
        lambda raw: raw.replace(FILES["guide/film.mp4"][:600], bytes(600), 1),
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw + b"more",
        lambda raw: b"",
        lambda raw: raw[:512] + b"\xff" * 512 + raw[1024:],
    ],
    ids=["link", "path", "extra-file", "other-bytes", "cut", "behind-the-end", "empty", "manifest"],
)
def test_what_is_not_a_package_is_refused_and_leaves_nothing(box: Box, tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    shelf = shelf_of(box, tmp_path)
    run(shelf.install(put(box, manifest()), quiet))
    bad = box.put("content/tax-guide", "2.0", spoil(packed(manifest("2.0"))))
    with pytest.raises(ArtifactRefused) as caught:
        run(shelf.install(bad, quiet))
    assert caught.value.reason == "badArchive"
    assert shelf.valid()[0].manifest.version == "1.0"
    assert [path.name for path in (tmp_path / "content/tax-guide").iterdir() if path.name.startswith(".")] == []
    assert not (tmp_path / "content/evil").exists()
    run(shelf.install(put(box, manifest("2.0")), quiet))
    assert shelf.valid()[0].manifest.version == "2.0"


def test_other_names_and_exchanged_bytes_are_refused(box: Box, tmp_path: Path) -> None:
    shelf = shelf_of(box, tmp_path)
    with pytest.raises(ArtifactRefused, match="not those that were signed"):
        run(shelf.install(box.put("content/other", "1.0", packed(manifest())), quiet))
    artifact = put(box, manifest())
    (box.folder / artifact.sha256).write_bytes(packed(manifest()).replace(b"<p>", b"<b>"))
    with pytest.raises(ArtifactRefused):
        run(shelf.install(artifact, quiet))
    assert shelf.valid() == []


def test_the_disk_has_limits_and_earlier_versions_go_first(box: Box, tmp_path: Path) -> None:
    size = len(packed(manifest()))
    shelf = shelf_of(box, tmp_path, total_max_bytes=int(2.5 * size))
    for version in ("1.0", "1.1", "1.2", "1.3"):
        run(shelf.install(put(box, manifest(version)), quiet))
    assert len([path for path in (tmp_path / "content/tax-guide").iterdir() if path.is_dir()]) == 2
    other = msgspec.structs.replace(manifest(), name="card-guide")
    with pytest.raises(ArtifactRefused) as caught:
        run(shelf.install(box.put("content/card-guide", "1.0", packed(other)), quiet))
    assert caught.value.reason == "noSpace"
    full = shelf_of(box, tmp_path, free_bytes=lambda _: 1000)
    with pytest.raises(ArtifactRefused, match="too full"):
        run(full.install(put(box, manifest("1.4")), quiet))
    assert full.valid()[0].manifest.version == "1.3"


def test_half_unpacked_versions_are_swept(box: Box, tmp_path: Path) -> None:
    shelf = shelf_of(box, tmp_path)
    run(shelf.install(put(box, manifest()), quiet))
    half = tmp_path / "content/tax-guide/.half-abc"
    half.mkdir()
    stray = tmp_path / "content/tax-guide" / ("a" * 64)
    stray.mkdir()
    again = shelf_of(box, tmp_path)
    assert (half.exists(), stray.exists(), len(again.valid())) == (False, False, 1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reviewed_by": "li"}, "reviewed_by: the same person who made it"),
        (
            {"files": (content.file_of("a.svg", b"x"),), "pages": (Page(id="tax.page", zh="一", en="A", file="a.svg"),)},
            "files[0].name: a file of",
        ),
        ({"pages": (Page(id="tax.page", zh="一", en="A", file="nowhere.html"),)}, "pages[0].file: not among the files"),
        ({"from_ms": 5, "until_ms": 5}, "until_ms: not after from_ms"),
        ({"pages": ()}, "pages: a package has pages and files"),
        ({"withdrawn": True}, "pages: a package has pages and files"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(changes: dict[str, Any], sentence: str) -> None:
    content.check(msgspec.json.encode(manifest()))
    with pytest.raises(profiles.PackageError) as caught:
        content.check(msgspec.json.encode(msgspec.structs.replace(manifest(), **changes)))
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    "name", ["../x.html", "/x.html", ".x.html", "a//b.html", "a/../b.html", "A.html", "a b.html", "a.html\n", "a/.b.png"]
)
def test_names_that_could_leave_the_folder_are_no_names(name: str) -> None:
    raw = msgspec.json.encode(manifest()).replace(b"guide/index.html", name.encode().replace(b"\n", b"\\n"))
    with pytest.raises(profiles.PackageError):
        content.check(raw)


def test_the_same_package_gives_the_same_bytes() -> None:
    assert packed(manifest()) == packed(manifest())


# ---------------------------------------------------------------------------------------------------------------------------- desk


class Fake:
    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.done: list[str] = []

    async def install(self, artifact: Artifact, tell: Any) -> AppliedOne:
        answer = self.answers.pop(0) if self.answers else "done"
        if answer == "disk":
            raise OSError(28, "No space left on device")
        if answer == "refused":
            raise ArtifactRefused("badArchive", "nothing in it")
        self.done.append(artifact.component)
        return AppliedOne(component=artifact.component, state=answer)  # type: ignore[arg-type]

    async def revert(self, artifact: Artifact) -> AppliedOne:
        self.done.append(f"back {artifact.component}")
        return AppliedOne(component=artifact.component, state="done")


@pytest.fixture
def sides(tmp_path: Path) -> tuple[AgentSide, UpdaterSide]:
    (tmp_path / "requests").mkdir()
    (tmp_path / "updates").mkdir()
    return AgentSide(tmp_path / "requests", tmp_path / "updates"), UpdaterSide(tmp_path / "requests", tmp_path / "updates")


def ask(updater: UpdaterSide, number: int, *components: str, revert: bool = False) -> None:
    artifacts = tuple(Artifact(component=name, version="1.0", release=1, sha256="a" * 64, length=1) for name in components)
    updater.write_apply(Apply(id=f"{number:032x}", bundle="b" * 32, artifacts=artifacts, revert=revert))


def results(updater: UpdaterSide) -> dict[str, str]:
    applied = updater.applied()
    return {} if applied is None else {one.component: f"{one.state}/{one.reason}" for one in applied.results}


def test_the_desk_does_each_once_in_order_and_takes_back_what_is_asked(sides: tuple[AgentSide, UpdaterSide]) -> None:
    agent, updater = sides
    fake = Fake()
    desk = Desk(agent, dict.fromkeys(("profiles", "catalogue", "content", "firmware"), fake))
    run(desk.step())
    assert updater.applied() is None
    ask(updater, 1, "firmware/scanner", "content/tax-guide", "profiles")
    run(desk.step())
    run(desk.step())
    assert fake.done == ["profiles", "content/tax-guide", "firmware/scanner"]
    assert results(updater) == {"profiles": "done/none", "content/tax-guide": "done/none", "firmware/scanner": "done/none"}
    ask(updater, 2, "profiles", "content/tax-guide", revert=True)
    run(desk.step())
    assert fake.done[3:] == ["back profiles", "back content/tax-guide"]
    updater.write_apply(None)
    run(desk.step())
    assert updater.applied() is None


def test_what_fails_ends_the_rest_and_a_full_disk_waits(sides: tuple[AgentSide, UpdaterSide]) -> None:
    agent, updater = sides
    fake = Fake("disk", "refused")
    desk = Desk(agent, dict.fromkeys(("profiles", "content"), fake))
    ask(updater, 1, "profiles", "content/tax-guide")
    run(desk.step())
    assert results(updater) == {"profiles": "waiting/noSpace", "content/tax-guide": "failed/badArchive"}
    run(desk.step())
    assert results(updater)["profiles"] == "done/none", "tried again when there was room"
    ask(updater, 2, "image")
    run(desk.step())
    assert results(updater) == {"image": "failed/wrongHardware"}
