"""Publishing, director and renewal, seen by python-tuf's own client over real HTTP."""

from __future__ import annotations

import datetime as dt
import json
import multiprocessing
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Metadata, Targets

from fleet_server.updates import director, duty, keeping, plan, store, trust
from fleet_server.updates.director import Assignment
from fleet_server.updates.errors import Busy, UpdatesError
from fleet_server.updates.repository import signed_at
from protocols.contract import artifacts
from protocols.contract.artifacts import CUSTOM_KEY, DirectorCustom, ImageCustom
from tests.fleet_server.updates.client import Client
from tests.support.tuf_repo import TufRepo, now_ms

DAY_MS = 86_400_000
AGENT = "agent/kiosk-1.1.0.tar"


@pytest.fixture
def repo(tmp_path: Path) -> TufRepo:
    return TufRepo.create(tmp_path / "server", terminals=["kiosk-1", "kiosk-2"])


@pytest.fixture
def url(repo: TufRepo) -> Iterator[str]:
    with repo.serve() as address:
        yield address


@pytest.fixture
def image(repo: TufRepo, url: str, tmp_path: Path) -> Client:
    return Client(tmp_path / "image", url, "image", repo.roots["image"])


@pytest.fixture
def of_director(repo: TufRepo, url: str, tmp_path: Path) -> Client:
    return Client(tmp_path / "director", url, "director", repo.roots["director"])


def test_before_the_first_release_there_is_nothing_to_get(image: Client) -> None:
    assert image.target("content/birth/1.tar") is None
    with pytest.raises(RepositoryError, match="agent"):
        image.target(AGENT)  # the role of the engineers has no metadata before they sign


def test_a_released_artifact_arrives_whole(repo: TufRepo, image: Client) -> None:
    repo.release("agent", AGENT, b"one" * 100_000, version="1.1.0", release=2)
    assert image.fetch(AGENT) == b"one" * 100_000
    repo.release("agent", "agent/kiosk-1.2.0.tar", b"two", version="1.2.0", release=3)
    assert image.fetch("agent/kiosk-1.2.0.tar") == b"two"
    assert image.fetch(AGENT) == b"one" * 100_000


def test_a_role_cannot_sign_for_anothers_paths(repo: TufRepo, image: Client) -> None:
    repo.release("agent", "firmware/printer/x.bin", b"mine", version="1", release=1)
    repo.release("firmware", "firmware/printer/y.bin", b"real", version="1", release=1, hardware=("a",))
    assert image.target("firmware/printer/x.bin") is None
    assert image.target("firmware/printer/y.bin") is not None


def test_too_few_signatures_are_not_published(repo: TufRepo) -> None:
    now = plan.moment(now_ms())
    before = sorted(path.name for path in repo.updates.image.metadata_dir.iterdir())
    metadata = repo.updates.image.next_targets("firmware", now)
    repo.sign(metadata, "firmware", 1)
    with store.writing(repo.updates.layout), pytest.raises(UpdatesError, match="needs 2 valid signatures; there are 1"):
        repo.updates.image.publish(now, roles={"firmware": metadata})
    assert sorted(path.name for path in repo.updates.image.metadata_dir.iterdir()) == before
    repo.sign(metadata, "firmware", 2)
    with store.writing(repo.updates.layout):
        repo.updates.image.publish(now, roles={"firmware": metadata})


def test_one_key_under_two_ids_never_makes_two_signatures(repo: TufRepo) -> None:
    """The ids in metadata are free text: whoever writes the delegation could name one key twice."""
    image, now = repo.updates.image, plan.moment(now_ms())
    key = repo.offline["firmware"][0]
    twin_public = type(key.public_key)("f" * 64, key.public_key.keytype, key.public_key.scheme, dict(key.public_key.keyval))
    twin = CryptoSigner(key._private_key, twin_public)
    top = image.next_targets("targets", now)
    assert top.signed.delegations is not None and top.signed.delegations.roles is not None
    top.signed.delegations.roles["firmware"].keyids = [key.public_key.keyid, twin_public.keyid]
    top.signed.delegations.keys[twin_public.keyid] = twin_public
    repo.sign(top, "targets", 2)
    metadata = image.next_targets("firmware", now)
    metadata.sign(key)
    metadata.sign(twin, append=True)
    assert top.signed.get_verification_result("firmware", metadata.signed_bytes, metadata.signatures).verified, (
        "TUF alone counts ids"
    )
    assert trust.missing(top.signed, "firmware", metadata) == 1
    with store.writing(repo.updates.layout), pytest.raises(UpdatesError, match="never counts as two"):
        image.publish(now, roles={"targets": top})
    with pytest.raises(UpdatesError, match="never counts as two"):
        trust.verify(top.signed, "firmware", metadata)


def test_a_signature_given_twice_is_one(repo: TufRepo) -> None:
    metadata = repo.updates.image.next_targets("firmware", plan.moment(now_ms()))
    for _ in range(2):
        metadata.sign(repo.offline["firmware"][0], append=True)
    assert trust.missing(repo.updates.image.targets().signed, "firmware", metadata) == 1
    raw = metadata.to_dict()
    raw["signatures"] = [dict(each) for each in raw["signatures"] * 2]
    with pytest.raises(ValueError, match="Multiple signatures"):
        Metadata[Targets].from_dict(raw)


def test_versions_go_up_by_one(repo: TufRepo) -> None:
    now = plan.moment(now_ms())
    metadata = repo.updates.image.next_targets("agent", now)
    metadata.signed.version += 1
    repo.sign(metadata, "agent")
    with store.writing(repo.updates.layout), pytest.raises(UpdatesError, match="version 2; it must be 1"):
        repo.updates.image.publish(now, roles={"agent": metadata})


# Director -------------------------------------------------------------------------------------------------------------------------------


def test_a_terminal_finds_what_it_is_to_get(repo: TufRepo, of_director: Client) -> None:
    repo.release("agent", AGENT, b"one", version="1.1.0", release=2, arch="x86_64")
    bundle = repo.assign("kiosk-1", {"agent": AGENT})
    found = of_director.target("kiosk-1/agent")
    assert found is not None
    custom = artifacts.of_custom(found.custom, DirectorCustom)
    assert (custom.bundle, custom.size, custom.target, custom.release) == (bundle.id.hex(), 1, AGENT, 2)
    assert found.hashes["sha256"] == bundle.wanted[0].sha256.hex()
    assert of_director.target("kiosk-2/agent") is None


def test_only_what_was_released_can_be_assigned(repo: TufRepo) -> None:
    wanted = {"kiosk-1": [Assignment(bundle="a" * 32, component="agent", target="agent/none.tar")]}
    before = repo.updates.director.versions()
    with pytest.raises(UpdatesError, match="is not in the image repository"):
        director.set_assignments(repo.updates, wanted, now_ms=now_ms())
    assert repo.updates.director.versions() == before


def test_a_bundle_is_one_and_names_a_component_once(repo: TufRepo) -> None:
    repo.release("agent", AGENT, b"one")
    one, other = (Assignment(bundle=letter * 32, component="agent", target=AGENT) for letter in "ab")
    for wrong in ([one, one], [one, other]):
        with pytest.raises(UpdatesError, match="does not hold"):
            director.set_assignments(repo.updates, {"kiosk-1": wrong}, now_ms=now_ms())


def test_the_same_again_signs_nothing(repo: TufRepo) -> None:
    repo.release("agent", AGENT, b"one")
    bundle = repo.assign("kiosk-1", {"agent": AGENT})
    versions = repo.updates.director.versions()
    repo.assign("kiosk-1", {"agent": AGENT}, bundle=bundle.id)
    assert repo.updates.director.versions() == versions


def test_an_emergency_takes_an_artifact_from_everybody(repo: TufRepo, of_director: Client) -> None:
    repo.release("agent", AGENT, b"bad")
    repo.release("profiles", "profiles/p-2.tar", b"good", version="2", release=2)
    repo.assign("kiosk-1", {"agent": AGENT, "profiles": "profiles/p-2.tar"})
    repo.assign("kiosk-2", {"profiles": "profiles/p-2.tar"})
    assert of_director.target("kiosk-1/agent") is not None
    assert director.clear_target(repo.updates, AGENT, now_ms=now_ms()) == ["kiosk-1"]
    assert of_director.target("kiosk-1/agent") is None
    assert of_director.target("kiosk-1/profiles") is None, "of a bundle all is taken away or nothing"
    assert of_director.target("kiosk-2/profiles") is not None
    assert set(director.assigned(repo.updates)) == {"kiosk-2"}


def test_a_terminal_that_left_and_came_back_goes_on_with_its_versions(repo: TufRepo, of_director: Client) -> None:
    repo.release("agent", AGENT, b"one")
    repo.assign("kiosk-1", {"agent": AGENT})
    of_director.refresh()
    director.forget(repo.updates, ["kiosk-1"], now_ms=now_ms())
    of_director.refresh()
    assert of_director.target("kiosk-1/agent") is None
    repo.assign("kiosk-1", {"agent": AGENT})
    assert of_director.target("kiosk-1/agent") is not None


def test_hundreds_of_terminals_change_in_one_snapshot(repo: TufRepo, of_director: Client) -> None:
    repo.release("agent", AGENT, b"one")
    of_director.refresh()
    before = of_director.version("snapshot")
    wanted = {f"kiosk-{number:04}": [Assignment(bundle="c" * 32, component="agent", target=AGENT)] for number in range(400)}
    assert director.set_assignments(repo.updates, wanted, now_ms=now_ms()) == 400
    one_changed = {**wanted, "kiosk-0007": []}
    assert director.set_assignments(repo.updates, one_changed, now_ms=now_ms()) == 1
    assert of_director.target("kiosk-0399/agent") is not None
    assert of_director.target("kiosk-0007/agent") is None
    assert of_director.version("snapshot") == before + 2
    assert of_director.version("targets") == repo.updates.director.versions()["targets"]


# Time -----------------------------------------------------------------------------------------------------------------------------------


def test_metadata_of_long_ago_is_refused_until_it_is_renewed(tmp_path: Path) -> None:
    long_ago = now_ms() - 20 * DAY_MS
    repo = TufRepo.create(tmp_path / "server", terminals=["kiosk-1"], clock_ms=lambda: long_ago)
    with repo.serve() as url:
        clients = [Client(tmp_path / name, url, name, repo.roots[name]) for name in ("image", "director")]
        for client in clients:
            with pytest.raises(ExpiredMetadataError, match="timestamp"):
                client.refresh()
        duty.keep_fresh(repo.updates.layout, now_ms())
        for client in clients:
            client.refresh()


def test_a_holiday_of_nine_days_without_the_server_is_survived(repo: TufRepo) -> None:
    """A terminal that looked on the last day may use what it holds until the server is back."""
    start = now_ms()
    layout = repo.updates.layout
    for day in range(1, 60):
        duty.keep_fresh(layout, start + day * DAY_MS)
        for repository in repo.updates.both():
            returned = plan.moment(start + (day + 10) * DAY_MS)
            for metadata in (repository.timestamp(), repository.snapshot(), repository.role("targets")):
                assert metadata is not None and metadata.signed.expires > returned
            for role in repository.versions():
                current = repository.role(role)
                assert current is not None and current.signed.expires > returned, role


def test_renewal_acts_daily_and_only_where_something_is_due(repo: TufRepo) -> None:
    start, layout = now_ms(), repo.updates.layout
    assert duty.keep_fresh(layout, start + 1000) == []
    assert duty.keep_fresh(layout, start + DAY_MS + 1000) == ["image timestamp", "director timestamp"]
    assert duty.keep_fresh(layout, start + DAY_MS + 2000) == []
    done = duty.keep_fresh(layout, start + 25 * DAY_MS)
    assert {"image content", "image timestamp", "director targets"} <= set(done)
    current = repo.updates.director.role("terminal-kiosk-1")
    assert current is not None and current.signed.expires == plan.moment(start + 25 * DAY_MS) + plan.ONLINE_PERIOD


def test_a_clock_that_went_back_signs_nothing(repo: TufRepo) -> None:
    before = repo.updates.image.timestamp()
    with pytest.raises(UpdatesError, match="Set the clock right"):
        director.set_assignments(repo.updates, {"kiosk-9": []}, now_ms=now_ms() - 5 * DAY_MS)
    assert repo.updates.image.timestamp() == before


def test_a_timestamp_says_when_it_was_signed(repo: TufRepo) -> None:
    at = now_ms() + DAY_MS * 2
    duty.keep_fresh(repo.updates.layout, at)
    timestamp = repo.updates.image.timestamp()
    assert timestamp is not None
    assert signed_at(timestamp.signed) == dt.datetime.fromtimestamp(at // 1000, dt.UTC)


def test_what_was_replaced_long_ago_is_cleared_away_but_no_root(repo: TufRepo, image: Client) -> None:
    for release in range(1, 5):
        repo.release("agent", f"agent/{release}.tar", b"x", release=release)
    repository = repo.updates.image
    with store.writing(repo.updates.layout):
        assert duty.clear_away(repository) == 0, "a terminal may be reading them"
        assert duty.clear_away(repository, older_than_s=-5) > 3
    assert (repository.metadata_dir / "1.root.json").exists()
    assert not (repository.metadata_dir / "1.agent.json").exists()
    assert image.target("agent/4.tar") is not None


# Writers --------------------------------------------------------------------------------------------------------------------------------


def _hold(layout: object, ready: object, done: object) -> None:
    with store.writing(layout):  # type: ignore[arg-type]
        ready.set()  # type: ignore[attr-defined]
        done.wait(30)  # type: ignore[attr-defined]


def test_two_processes_never_write_at_once(repo: TufRepo) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(repo.updates.layout, ready, done))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(Busy), store.writing(repo.updates.layout, within_s=0.2):
            pytest.fail("two writers")
    finally:
        done.set()
        other.join(30)
    with store.writing(repo.updates.layout, within_s=0.2):
        pass


def test_keys_and_drafts_are_the_servers_alone(repo: TufRepo) -> None:
    layout = repo.updates.layout
    assert layout.root.stat().st_mode & 0o077 == 0
    assert list(layout.keys.glob("*.pem"))
    for path in layout.keys.glob("*.pem"):
        assert path.stat().st_mode & 0o077 == 0
    assert not any("PRIVATE" in path.read_text("latin-1") for path in layout.public.rglob("*") if path.is_file())


def test_four_thousand_terminals_are_bearable(tmp_path: Path) -> None:
    """Measured on two cores: 2 s the first time, 0.4 s when one terminal changes; the limits here are generous."""
    repo = TufRepo.create(tmp_path / "server")
    repo.release("agent", AGENT, b"one")
    wanted = {f"kiosk-{number:05}": [Assignment(bundle="d" * 32, component="agent", target=AGENT)] for number in range(4000)}
    began = time.monotonic()
    assert director.set_assignments(repo.updates, wanted, now_ms=now_ms()) == 4000
    first_s = time.monotonic() - began
    began = time.monotonic()
    wanted["kiosk-00000"] = []
    assert director.set_assignments(repo.updates, wanted, now_ms=now_ms()) == 1
    again_s = time.monotonic() - began
    sizes = {name: (repo.updates.director.metadata_dir / name).stat().st_size for name in ("timestamp.json",)}
    print(f"4,000 terminals: {first_s:.1f} s, one of them {again_s:.1f} s, {sizes}")
    assert first_s < 120 and again_s < 60
    versions = repo.updates.director.versions()
    top = repo.updates.director.metadata_dir / f"{versions['targets']}.targets.json"
    assert top.stat().st_size < 5_000_000, "what python-tuf's clients read of a targets file"


def test_a_foreign_timestamp_is_not_believed(repo: TufRepo, image: Client) -> None:
    """Against a mistake in these tests: the client does refuse what is signed by others."""
    image.refresh()
    path = repo.updates.image.metadata_dir / "timestamp.json"
    metadata = repo.updates.image.timestamp()
    assert metadata is not None
    metadata.signed.version += 1
    metadata.sign(CryptoSigner.generate_ed25519())
    path.write_bytes(metadata.to_bytes())
    with pytest.raises(RepositoryError):
        image.refresh()


# Restore --------------------------------------------------------------------------------------------------------------------------------


def test_a_restored_server_goes_on_beyond_what_terminals_have_seen(
    repo: TufRepo, image: Client, of_director: Client, tmp_path: Path
) -> None:
    layout = repo.updates.layout
    repo.release("agent", AGENT, b"one")
    repo.assign("kiosk-1", {"agent": AGENT})
    copies = keeping.copy_for_backup(layout, tmp_path / "backup")
    assert "updates/online.json" in copies and not any("lock" in name or "staging" in name for name in copies)
    for number in range(3):
        repo.assign("kiosk-1", {}, bundle=bytes([number]) * 16)
        repo.assign("kiosk-1", {"agent": AGENT}, bundle=bytes([number]) * 16)
    duty.keep_fresh(layout, now_ms() + 2 * DAY_MS)
    for client in (image, of_director):
        client.refresh()
    assert of_director.target("kiosk-1/agent") is not None
    shutil.rmtree(layout.root)
    for name, copy in copies.items():
        target = layout.root / Path(name).relative_to("updates")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(copy, target)
    for client in (image, of_director):
        with pytest.raises(RepositoryError):
            client.refresh()
    assert keeping.after_restore(layout, now_ms() + 2 * DAY_MS)
    for client in (image, of_director):
        client.refresh()
    assert of_director.target("kiosk-1/agent") is not None
    assert image.fetch(AGENT) == b"one"


TOLD = {
    "_type", "spec_version", "consistent_snapshot", "version", "expires", "meta", "length", "hashes", "sha256", "targets", "custom",
    "roles", "keys", "delegations", "name", "paths", "terminating", "threshold", "keyids", "keytype", "scheme", "keyval", "public",
    "x-kiosk-fleet-label", CUSTOM_KEY, "signed_ms", *ImageCustom.__struct_fields__, *DirectorCustom.__struct_fields__,
}  # fmt: skip
"""Of TUF's metadata (its specification 1.0.34, section 4) and our own; docs/spec/updates.md, section 5."""


def members(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, below in value.items():
            # Maps by file name, role, key id or path have names of their own.
            if not re.fullmatch(r"[0-9a-f]{64}|[a-z0-9-]+(/[^/]+)+|[a-z0-9-]+\.json|root|snapshot|timestamp", name):
                yield name
            yield from members(below)
    elif isinstance(value, list):
        for below in value:
            yield from members(below)


@pytest.mark.spec("U-501")
def test_a_stranger_reads_what_the_specification_says_and_nothing_else(repo: TufRepo) -> None:
    repo.release("agent", AGENT, b"one", version="1.1.0", release=2)
    repo.assign("kiosk-1", {"agent": AGENT})
    found: set[str] = set()
    public = repo.updates.layout.public
    for path in (path for path in public.rglob("*") if path.is_file()):
        if path.parent.name == "metadata":
            found |= set(members(json.loads(path.read_bytes())["signed"]))
        else:
            assert path.relative_to(public).parts[:2] == ("image", "targets"), "the director has no files of its own"
    assert found <= TOLD
    assert {"bundle", "component", "x-kiosk-fleet-label", "signed_ms"} <= found, "the members are not walked"
