"""The decision what may be installed, and that the terminal's eyes and our own server's repositories fit together."""

from __future__ import annotations

import dataclasses
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import TargetFile

from edge_agent import files
from edge_agent.updater import delta, fetch, trust
from edge_agent.updater.counters import Counters
from edge_agent.updater.download import Downloader
from edge_agent.updater.errors import NotTrusted, Unavailable
from edge_agent.updater.floor import TimeFloor
from edge_agent.updater.trust import Plan, Refused
from protocols.contract import artifacts
from protocols.contract.artifacts import DirectorCustom, ImageCustom, PackedCustom
from protocols.contract.orders import Bundle, Wanted
from tests.support.tuf_repo import TufRepo

pytestmark = pytest.mark.spec("U-101 U-102 U-104 U-105 U-106 U-107")

TERMINAL = trust.Terminal("kiosk-0001", "x86_64", {"receipt-printer": "printer-one"})
BUNDLE = b"\1" * 16


def wanted(component: str = "agent", **changes: Any) -> Wanted:
    kind, _, rest = component.partition("/")
    path = f"{kind}/{rest + '/' if rest else ''}x-2.0.tar"
    return Wanted(
        **{"component": component, "target": path, "version": "2.0", "release": 2, "length": 10, "sha256": b"\2" * 32, **changes}
    )


def described(want: Wanted, **changes: Any) -> TargetFile:
    custom = {"component": want.component.split("/")[0], "version": want.version, "release": want.release, "arch": "x86_64"}
    if want.component.startswith("firmware"):
        custom["hardware"] = ("printer-one",)
    target = TargetFile(want.length, {"sha256": want.sha256.hex()}, want.target)
    target.unrecognized_fields["custom"] = artifacts.to_custom(ImageCustom(**{**custom, **changes}))
    return target


def directed(want: Wanted, size: int = 1, **changes: Any) -> TargetFile:
    fields = {"bundle": BUNDLE.hex(), "size": size, "component": want.component, "target": want.target}
    fields |= {"version": want.version, "release": want.release}
    target = TargetFile(want.length, {"sha256": want.sha256.hex()}, artifacts.director_path("kiosk-0001", want.component))
    target.unrecognized_fields["custom"] = artifacts.to_custom(DirectorCustom(**{**fields, **changes}))
    return target


def compare(
    *wants: Wanted, director: dict[str, Any] | None = None, images: dict[str, Any] | None = None, **more: Any
) -> Plan | Refused:
    by_component = {want.component: directed(want, len(wants)) for want in wants} | (director or {})
    by_path = {want.target: described(want) for want in wants} | (images or {})
    bundle = Bundle(id=BUNDLE, rollout=BUNDLE, wanted=wants, downgrade=more.pop("downgrade", False))
    return trust.compare(bundle, by_component, by_path, more.pop("terminal", TERMINAL), more.pop("releases", {}))


def test_where_all_three_agree_there_is_a_plan() -> None:
    wants = (wanted(), wanted("firmware/receipt-printer"), wanted("profiles"))
    decided = compare(*wants)
    assert isinstance(decided, Plan)
    assert [each.wanted for each in decided.components] == list(wants)
    assert not any(each.lowers for each in decided.components)


@pytest.mark.parametrize("field", ["target", "version", "release", "length", "sha256"])
@pytest.mark.parametrize("where", ["director", "image"])
def test_each_field_must_agree(field: str, where: str) -> None:
    want = wanted()
    other = msgspec.structs.replace(
        want,
        **{field: {"target": "agent/y.tar", "version": "3.0", "release": 3, "length": 11, "sha256": b"\3" * 32}[field]},
    )
    if where == "director":
        decided = compare(want, director={"agent": directed(other)})
    else:
        decided = compare(want, images={want.target: None if field == "target" else described(other)})
    assert isinstance(decided, Refused)
    assert decided.reason == ("notInImages" if (where, field) == ("image", "target") else "differs")


def test_a_second_hash_on_one_side_only_is_a_difference() -> None:
    want = wanted()
    target = described(want)
    target.hashes["sha512"] = "0" * 128
    decided = compare(want, images={want.target: target})
    assert isinstance(decided, Refused) and decided.reason == "differs"


@pytest.mark.parametrize("custom", [None, {}, {"kiosk-fleet": {}}, {"kiosk-fleet": 5}, "text"])
def test_targets_that_do_not_say_what_they_are(custom: object) -> None:
    want = wanted()
    for target, where in ((directed(want), "director"), (described(want), "images")):
        target.unrecognized_fields["custom"] = custom
        found = {want.component if where == "director" else want.target: target}
        decided = compare(want, director=found) if where == "director" else compare(want, images=found)
        assert isinstance(decided, Refused) and decided.reason == "differs"


@pytest.mark.parametrize(
    ("release", "bundle_says", "director_says", "allowed"),
    [
        (2, False, False, True),
        (3, False, False, True),
        (1, False, False, False),
        (1, True, False, False),
        (1, False, True, False),
        (1, True, True, True),
    ],
)
def test_release_counters(release: int, bundle_says: bool, director_says: bool, allowed: bool) -> None:
    want = wanted(release=release)
    decided = compare(
        want, director={"agent": directed(want, downgrade=director_says)}, downgrade=bundle_says, releases={"agent": 2}
    )
    assert isinstance(decided, Plan) is allowed
    if isinstance(decided, Plan):
        assert decided.components[0].lowers is (release == 1)


def test_units_that_only_the_agent_knows_are_left_to_it() -> None:
    want = wanted("firmware/call-pad-3")
    unknown = dataclasses.replace(TERMINAL, units=None)
    assert isinstance(compare(want, terminal=unknown), Plan)
    assert isinstance(compare(want), Refused)
    assert isinstance(compare(want, images={want.target: described(want, hardware=())}, terminal=unknown), Refused)


@given(st.data())
def test_one_difference_anywhere_is_never_installed(data: st.DataObject) -> None:
    """Whatever single field of director or image is changed in a bundle of three, the answer is no."""
    wants = (wanted(), wanted("firmware/receipt-printer"), wanted("profiles"))
    which = data.draw(st.sampled_from(wants))
    change: dict[str, Any] = data.draw(
        st.sampled_from(
            [{"version": "9.9"}, {"release": 77}, {"length": 11}, {"sha256": b"\7" * 32}, {"target": "agent/else.tar"}]
        )
    )
    other = msgspec.structs.replace(which, **change)
    if data.draw(st.booleans()):
        decided = compare(*wants, director={which.component: directed(other, 3)})
    else:
        decided = compare(*wants, images={which.target: described(other) if other.target == which.target else None})
    assert isinstance(decided, Refused)


# ------------------------------------------------------------------------------------------------------------------------------ counters


def test_counters_last_and_only_rise(tmp_path: Path) -> None:
    counters = Counters(tmp_path / "a", tmp_path / "b")
    counters.installed("agent", 5)
    counters.installed("agent", 3)
    assert counters.releases == {"agent": 5}
    counters.accept_desired(7, b"seven")
    counters.accept_desired(7, b"seven")
    for counter, raw in ((7, b"another seven"), (6, b"six"), (2**53 - 1, b"the last number")):
        with pytest.raises(NotTrusted):
            counters.accept_desired(counter, raw)
    again = Counters(tmp_path / "a", tmp_path / "b")
    assert (again.desired, again.releases) == (7, {"agent": 5})
    again.installed("agent", 3, lowers=True)
    assert Counters(tmp_path / "a", tmp_path / "b").releases == {"agent": 3}


@pytest.mark.parametrize("spoiled", [None, b"", b"\0\0", b'{"desired":-1}', b'{"releases":{"../x":1}}'])
def test_one_good_copy_of_the_counters_is_enough(tmp_path: Path, spoiled: bytes | None) -> None:
    counters = Counters(tmp_path / "a", tmp_path / "b")
    counters.accept_desired(7, b"seven")
    counters.installed("agent", 5)
    if spoiled is None:
        (tmp_path / "a").unlink()
    else:
        (tmp_path / "a").write_bytes(spoiled)
    again = Counters(tmp_path / "a", tmp_path / "b")
    assert (again.desired, again.releases) == (7, {"agent": 5})


class Disk:
    """`files.write_atomically`, with places that refuse."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read_only: set[Path] = set()
        write = files.write_atomically

        def refuse(path: Path, data: bytes, mode: int = 0o600) -> None:
            if path.parent in self.read_only:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            write(path, data, mode)

        monkeypatch.setattr(files, "write_atomically", refuse)


def test_a_further_copy_that_cannot_be_written_stops_nothing_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A unit without the path among those that it may write, or a /boot that the kernel remounted read-only."""
    disk, own, boot = Disk(monkeypatch), tmp_path / "state", tmp_path / "boot"
    own.mkdir()
    boot.mkdir()
    paths = own / "counters.json", tmp_path / "gone" / "counters.json", boot / "counters.json"
    counters = Counters(*paths)
    disk.read_only = {boot}
    counters.accept_desired(7, b"seven")
    counters.accept_desired(8, b"eight")
    counters.installed("agent", 5)
    assert (counters.desired, counters.releases) == (8, {"agent": 5})
    said = [vars(record)["path"] for record in caplog.records if record.name.endswith("counters")]
    assert said == [str(path) for path in paths[1:]], "each place once"
    again = Counters(*paths)
    assert (again.desired, again.releases) == (8, {"agent": 5})
    disk.read_only = set()
    Counters(*paths)
    paths[0].unlink()
    assert Counters(*paths).desired == 8, "at the next start the copy was made"


def test_without_the_first_copy_nothing_counts_as_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, own = Disk(monkeypatch), tmp_path / "state"
    own.mkdir()
    counters = Counters(own / "counters.json", tmp_path / "counters.json")
    disk.read_only = {own}
    with pytest.raises(OSError, match="Read-only"):
        counters.accept_desired(7, b"seven")
    assert counters.desired == 0
    disk.read_only = set()
    counters.accept_desired(7, b"seven")
    assert counters.desired == 7


def test_the_unit_may_write_the_copy_that_the_settings_propose() -> None:
    packaging = Path(fetch.__file__).parents[1] / "packaging"
    proposed = next(line for line in (packaging / "updater.toml").read_text().splitlines() if "second_counters = " in line)
    folder = str(Path(proposed.split('"')[1]).parent)
    unit = (packaging / "edge-agent-updater.service").read_text().splitlines()
    writable = [word for line in unit if line.startswith("ReadWritePaths=") for word in line.partition("=")[2].split()]
    assert f"-{folder}" in writable, "and where it does not exist, the unit starts nevertheless"


# ------------------------------------------------------------------------------------------------------- against our own repositories


@dataclasses.dataclass
class Site:
    """Our own server's repositories, served by its own application, and one terminal."""

    folder: Path
    repo: TufRepo
    url: str

    def look(self, bundle: Bundle, **more: Any) -> Plan | Refused:
        with self.fetcher() as fetcher:
            looker = trust.Trust(
                self.folder / "tuf",
                base_url=self.url.removesuffix("/updates/"),
                roots=trust.Roots(self.repo.roots["image"].encode(), self.repo.roots["director"].encode()),
                fetcher=fetcher,
                floor=TimeFloor(self.folder / "floor"),
                counters=Counters(self.folder / "counters"),
            )
            return looker.look(bundle, TERMINAL, system_ms=time.time_ns() // 1_000_000, **more)

    def fetcher(self) -> fetch.Fetcher:
        return fetch.Fetcher(fetch.Origin.of(self.url), tls=None)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    repo = TufRepo.create(tmp_path, terminals=["kiosk-0001", "kiosk-0002"])
    (tmp_path / "terminal").mkdir()
    with repo.serve() as url:
        yield Site(tmp_path / "terminal", repo, url)


def test_what_our_server_publishes_is_installed(site: Site) -> None:
    image = os.urandom(3_000_000)
    site.repo.release("agent", "agent/kiosk-1.1.0.tar", image, version="1.1.0", release=2, arch="x86_64")
    bundle = site.repo.assign("kiosk-0001", {"agent": "agent/kiosk-1.1.0.tar"})
    plan = site.look(bundle)
    assert isinstance(plan, Plan)
    with site.fetcher() as fetcher:
        got = delta.obtain(plan.components[0], Downloader(site.folder / "images", fetcher))
    assert got.path.read_bytes() == image and got.via == "full"
    floor = TimeFloor(site.folder / "floor")
    assert floor.ms < 2**53
    assert "signed_ms" in (site.folder / "tuf" / "image" / "timestamp.json").read_text()
    assert b'"repositories":{"director":' in (site.folder / "floor").read_bytes()


def test_a_difference_that_our_server_describes_is_found(site: Site) -> None:
    import hashlib

    import zstandard

    old = os.urandom(2_000_000)
    new = old[:1_000_000] + b"new" + old[1_000_000:]
    site.repo.release("agent", "agent/kiosk-1.1.0.tar", new, version="1.1.0", release=2, arch="x86_64")
    base, to = hashlib.sha256(old).hexdigest(), hashlib.sha256(new).hexdigest()
    dictionary = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=23, enable_ldm=True)
    packed = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(new)
    site.repo.release("packed", artifacts.packed_path(to, base), packed, custom=PackedCustom(to=to, base=base))
    bundle = site.repo.assign("kiosk-0001", {"agent": "agent/kiosk-1.1.0.tar"})
    plan = site.look(bundle, bases={"agent": bytes.fromhex(base)})
    assert isinstance(plan, Plan)
    assert [form.via for form in plan.components[0].forms] == ["delta", "full"]
    (site.folder / "base").write_bytes(old)
    with site.fetcher() as fetcher:
        installed = delta.Base(site.folder / "base", len(old), bytes.fromhex(base))
        got = delta.obtain(plan.components[0], Downloader(site.folder / "images", fetcher), base=installed)
    assert (got.via, got.path.read_bytes()) == ("delta", new)


def test_what_our_server_gives_another_terminal_is_not_ours(site: Site) -> None:
    site.repo.release("agent", "agent/kiosk-1.1.0.tar", b"x" * 1000, version="1.1.0", release=2, arch="x86_64")
    bundle = site.repo.assign("kiosk-0002", {"agent": "agent/kiosk-1.1.0.tar"})
    decided = site.look(bundle)
    assert isinstance(decided, Refused) and decided.reason == "notInDirector"


def test_a_server_that_is_away_is_told_as_that(site: Site, free_port: Any) -> None:
    bundle = Bundle(id=BUNDLE, rollout=BUNDLE, wanted=(wanted(),))
    site.url = f"http://127.0.0.1:{free_port()}/updates/"
    with pytest.raises(Unavailable) as caught:
        site.look(bundle)
    assert caught.value.reason == "unreachable"


def test_every_file_of_metadata_is_synced_to_the_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """python-tuf renames without syncing; a power cut must not take the version numbers away that stop a rollback."""
    site.repo.release("agent", "agent/kiosk-1.1.0.tar", b"x" * 1000, version="1.1.0", release=2, arch="x86_64")
    bundle = site.repo.assign("kiosk-0001", {"agent": "agent/kiosk-1.1.0.tar"})
    synced: list[Path] = []
    write = files.write_atomically

    def spy(path: Path, data: bytes, mode: int = 0o600) -> None:
        synced.append(path)
        write(path, data, mode)

    monkeypatch.setattr(files, "write_atomically", spy)
    assert isinstance(site.look(bundle), Plan)
    kept = {path for path in (site.folder / "tuf").rglob("*.json") if not path.is_symlink()}
    assert kept and kept <= set(synced)


def test_the_agents_own_process_loads_no_tuf() -> None:
    import subprocess
    import sys

    code = "import sys, edge_agent.cli, edge_agent.supervisor; print({'tuf', 'securesystemslib', 'zstandard'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert out.stdout.strip() == "set()"
