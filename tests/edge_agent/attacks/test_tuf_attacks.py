"""The attacks of the TUF specification (1.5.2) and of its papers, against the whole way from a desired state to an image on the disk.

Each stands beside the same request from the rightful party, which succeeds.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from typing import Any

import pytest
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, MetaFile, TargetFile

from protocols.contract import artifacts
from protocols.contract.artifacts import ImageCustom
from protocols.contract.orders import Wanted
from tests.edge_agent.attacks import mirror as mirrors
from tests.edge_agent.attacks.play import accepted, path_of, refused, swapped, tampered
from tests.edge_agent.attacks.world import ARCH, DAY_MS, TERMINAL, Repo, World, forged, sign, signers, tar, when

pytestmark = pytest.mark.spec("U-103 U-107 U-202")

DIRECTED = artifacts.director_role(TERMINAL)
ROLES = [
    pytest.param("image", "timestamp", id="image-timestamp"),
    pytest.param("image", "snapshot", id="image-snapshot"),
    pytest.param("image", "targets", id="image-targets"),
    pytest.param("image", "agent", id="image-agent"),
    pytest.param("director", "timestamp", id="director-timestamp"),
    pytest.param("director", "snapshot", id="director-snapshot"),
    pytest.param("director", "targets", id="director-targets"),
    pytest.param("director", DIRECTED, id="director-terminal"),
]
BOTH = pytest.mark.parametrize("where", ["image", "director"])
EVIL = tar({"bin/agent": b"evil" * 1000})


def repo_of(world: World, where: str) -> Repo:
    return world.image if where == "image" else world.director


@pytest.fixture
def new(world: World) -> Wanted:
    """Release 2 is ordered; the terminal has not looked yet. All roles are new, so that it asks for each."""
    want = world.release(2)
    world.order(want)
    for repo in (world.image, world.director):
        repo.publish(*repo.targets)
    return want


def meta(data: bytes) -> MetaFile:
    return MetaFile.from_data(Metadata.from_bytes(data).signed.version, data, ["sha256"])


def publish_as(repo: Repo, keys: dict[str, Any], **files: bytes) -> dict[str, bytes]:
    """What an attacker who holds `keys` (by role) would publish around forged role files: snapshot and timestamp that name them."""
    made = {f"{Metadata.from_bytes(data).signed.version}.{role}.json": data for role, data in files.items()}
    named = dict(repo.snapshot.signed.meta)
    named.update({f"{role}.json": meta(data) for role, data in files.items()})
    snapshot = forged(repo.snapshot, keys.get("snapshot", []), meta=named, version=repo.snapshot.signed.version + 1)
    timestamp = forged(
        repo.timestamp, keys.get("timestamp", []), snapshot_meta=meta(snapshot), version=repo.timestamp.signed.version + 1
    )
    return made | {f"{repo.snapshot.signed.version + 1}.snapshot.json": snapshot, "timestamp.json": timestamp}


def play(world: World, repo: Repo, published: dict[str, bytes], *reasons: str) -> None:
    """The mirror gives these files; the terminal refuses; then the mirror is honest again, and the server publishes above the attacker's numbers."""
    kept = dict(world.mirror.files)
    for name, data in published.items():
        repo.set_file(name, data)
    refused(world, *reasons)
    world.mirror.files = kept
    for role in {name.split(".")[1] for name in published} & set(repo.targets):
        repo.md(role).signed.version += 2
        repo._renew(role, bump=True)
    repo.snapshot.signed.version += 2
    repo.timestamp.signed.version += 2
    repo.publish("snapshot")


# --------------------------------------------------------------------------------------------------------------- arbitrary installation


def test_arbitrary_installation_of_other_bytes_of_the_same_length(world: World, new: Wanted) -> None:
    with swapped(world.image, path_of(world, new), b"x" * new.length):
        refused(world, "hash")
    accepted(world, new)


def test_arbitrary_installation_of_a_longer_file(world: World, new: Wanted) -> None:
    with swapped(world.image, path_of(world, new), b"x" * (new.length + 1)):
        refused(world, "length")
    accepted(world, new)


def test_arbitrary_installation_of_a_shorter_file(world: World, new: Wanted) -> None:
    with swapped(world.image, path_of(world, new), b"x" * (new.length - 1)):
        refused(world, "length")
    accepted(world, new)


@pytest.mark.parametrize(("where", "role"), ROLES)
def test_arbitrary_metadata_signed_by_a_stranger(world: World, new: Wanted, where: str, role: str) -> None:
    repo = repo_of(world, where)
    md = repo.md(role)
    published = publish_as(
        repo, repo.keys, **({role: forged(md, signers(), version=md.signed.version + 1)} if role in repo.targets else {})
    )
    if role not in repo.targets:
        published = publish_as(repo, {**repo.keys, role: signers()})
    play(world, repo, published, "notAuthentic")
    accepted(world, new)


@BOTH
def test_arbitrary_root_signed_by_a_stranger(world: World, new: Wanted, where: str) -> None:
    repo = repo_of(world, where)
    evil = forged(repo.root, signers(3), version=2)
    with tampered(repo, "2.root.json", evil):
        refused(world, "notAuthentic")
    accepted(world, new)


# ------------------------------------------------------------------------------------------------------------------------- endless data


@pytest.mark.parametrize(("where", "role"), ROLES)
def test_endless_data_in_place_of_metadata(world: World, new: Wanted, where: str, role: str) -> None:
    repo = repo_of(world, where)
    with tampered(repo, repo.newest(role), mirrors.endless):
        refused(world, "length")
    accepted(world, new)


@BOTH
def test_endless_data_in_place_of_root(world: World, new: Wanted, where: str) -> None:
    with tampered(repo_of(world, where), "2.root.json", mirrors.endless):
        refused(world, "length")
    accepted(world, new)


def test_endless_data_in_place_of_the_image(world: World, new: Wanted) -> None:
    with swapped(world.image, path_of(world, new), mirrors.endless):
        refused(world, "length")
    images = world.state / "images"
    assert sum(path.stat().st_size for path in images.iterdir()) < 1_000_000
    accepted(world, new)


def test_endless_head_of_an_answer(world: World, new: Wanted) -> None:
    with tampered(world.image, "timestamp.json", mirrors.continuing):
        refused(world, "unreachable")
    accepted(world, new)


# ------------------------------------------------------------------------------------------------- extraneous dependencies, wrong roles


def test_extraneous_dependency_in_a_role_that_may_not_sign_for_it(world: World, new: Wanted) -> None:
    """Content's key is on the server; whoever has it describes an agent there, and a stolen director and order key ask for it."""
    custom = ImageCustom(component="agent", version="9.0", release=9, arch=ARCH)
    target = world.image.add("content", "agent/agent-9.0.tar", EVIL, custom)
    world.image.publish("content")
    want = Wanted(
        component="agent",
        target=target.path,
        version="9.0",
        release=9,
        length=target.length,
        sha256=bytes.fromhex(target.hashes["sha256"]),
    )
    world.order(want)
    refused(world, "notInImages")
    world.order(new)
    accepted(world, new)


def test_unexpected_target_added_to_the_directors_set(world: World, new: Wanted) -> None:
    """Director and desired state do not mean the same set: the director has one component more."""
    extra = world.release(1, component="profiles")
    world.assign(new, extra)
    refused(world, "partialBundle")
    world.assign(new)
    accepted(world, new)


def test_wrong_developer_signs_for_another_role(world: World, new: Wanted) -> None:
    """The firmware developers' keys, all of them, over the agent's metadata."""
    repo = world.image
    evil = forged(repo.md("agent"), repo.keys["firmware"], version=repo.md("agent").signed.version + 1)
    play(world, repo, publish_as(repo, repo.keys, agent=evil), "notAuthentic")
    accepted(world, new)


def test_wrong_developer_calls_his_file_an_agent(world: World, new: Wanted) -> None:
    """In his own folder, so TUF has no objection; director and desired state are the attacker's too."""
    custom = ImageCustom(component="agent", version="9.0", release=9, arch=ARCH)
    target = world.image.add("content", "content/guides/agent-9.0.tar", EVIL, custom)
    world.image.publish("content")
    digest = bytes.fromhex(target.hashes["sha256"])
    world.order(Wanted(component="agent", target=target.path, version="9.0", release=9, length=target.length, sha256=digest))
    refused(world, "differs")
    world.order(new)
    accepted(world, new)


def test_wrong_delegation_handed_on_beyond_what_was_received(world: World, new: Wanted) -> None:
    """The agent's developer delegates firmware, which is not his, to content's."""
    repo = world.image
    friend = repo.keys["content"]
    agent = copy.deepcopy(repo.md("agent"))
    agent.signed.version += 1
    role = DelegatedRole("content", [friend[0].public_key.keyid], 1, True, paths=["firmware/*/*"])
    agent.signed.delegations = Delegations({friend[0].public_key.keyid: friend[0].public_key}, {"content": role})
    firmware = ImageCustom(component="firmware", version="9.0", release=9, hardware=("printer-one",))
    path = "firmware/receipt-printer/firmware-9.0.tar"
    target = TargetFile.from_data(path, EVIL, ["sha256"])
    target.unrecognized_fields["custom"] = artifacts.to_custom(firmware)
    made = copy.deepcopy(repo.md("content"))
    made.signed.version += 1
    made.signed.targets = {path: target}
    repo.mirror.files[repo.target_key(target)] = EVIL
    published = publish_as(repo, repo.keys, agent=sign(agent, repo.keys["agent"]), content=sign(made, friend))
    digest = bytes.fromhex(target.hashes["sha256"])
    world.order(
        Wanted(component="firmware/receipt-printer", target=path, version="9.0", release=9, length=len(EVIL), sha256=digest)
    )
    play(world, repo, published, "notInImages")
    rightful = world.release(2, component="firmware/receipt-printer")
    world.order(rightful)
    accepted(world)


# --------------------------------------------------------------------------------------------------------------------------- fast-forward


@BOTH
def test_fast_forward_of_the_timestamp_and_recovery(world: World, new: Wanted, where: str) -> None:
    """A stolen timestamp key sets the highest version there is. The terminal is stuck until root replaces the key; then it goes on."""
    repo = repo_of(world, where)
    with tampered(repo, "timestamp.json", forged(repo.timestamp, repo.keys["timestamp"], version=2**31)):
        accepted(world, new)
    later = world.release(3)
    world.order(later)
    refused(world, "metadataRollback")
    repo.rotate("timestamp")
    repo.publish("timestamp")
    accepted(world, later)


def test_fast_forward_of_the_snapshot_and_recovery(world: World, new: Wanted) -> None:
    repo = world.image
    snapshot = forged(repo.snapshot, repo.keys["snapshot"], version=2**31)
    timestamp = forged(
        repo.timestamp, repo.keys["timestamp"], version=repo.timestamp.signed.version + 1, snapshot_meta=meta(snapshot)
    )
    with tampered(repo, f"{2**31}.snapshot.json", snapshot), tampered(repo, "timestamp.json", timestamp):
        accepted(world, new)
    later = world.release(3)
    world.order(later)
    repo.publish("timestamp")
    refused(world, "metadataRollback")
    repo.rotate("snapshot")
    repo.rotate("timestamp")
    repo.publish("snapshot")
    accepted(world, later)


def test_fast_forward_of_a_delegated_role_and_recovery(world: World, new: Wanted) -> None:
    """Needs the agent's key and both online keys; told to be recovered from by new snapshot and timestamp keys (specification, 5.3.11)."""
    repo = world.image
    published = publish_as(repo, repo.keys, agent=forged(repo.md("agent"), repo.keys["agent"], version=2**31))
    kept = dict(world.mirror.files)
    for name, data in published.items():
        repo.set_file(name, data)
    accepted(world, new)
    world.mirror.files = kept
    later = world.release(3)
    world.order(later)
    repo.publish("snapshot")
    refused(world, "metadataRollback")
    repo.rotate("snapshot")
    repo.rotate("timestamp")
    repo.publish("snapshot")
    accepted(world, later)


def test_fast_forward_of_time_and_recovery(world: World, new: Wanted) -> None:
    """A stolen timestamp key says that it is the year 2033, so that everything looks expired. A new key, and the floor comes down again."""
    repo = world.image
    future = copy.deepcopy(repo.timestamp)
    future.signed.version += 1
    future.signed.expires = when(repo.now_ms + 2500 * DAY_MS)
    future.signed.unrecognized_fields["kiosk-fleet"] = {"signed_ms": repo.now_ms + 2400 * DAY_MS}
    with tampered(repo, "timestamp.json", sign(future, repo.keys["timestamp"])):
        accepted(world, new)
    repo.timestamp.signed.version += 2
    repo.publish("timestamp")
    refused(world, "metadataExpired")
    repo.rotate("timestamp")
    repo.publish("timestamp")
    accepted(world, new)


# ----------------------------------------------------------------------------------------------------------------------- indefinite freeze


@BOTH
def test_indefinite_freeze_of_everything(world: World, new: Wanted, where: str) -> None:
    """The mirror goes on giving what was good yesterday."""
    repo = repo_of(world, where)
    frozen = dict(world.mirror.files)
    world.pass_days(10)
    live = dict(world.mirror.files)
    for path, data in frozen.items():
        if path.startswith(f"/updates/{repo.name}/"):
            world.mirror.files[path] = data
    refused(world, "metadataExpired")
    world.mirror.files = live
    accepted(world, new)


@BOTH
def test_indefinite_freeze_of_the_snapshot_under_fresh_timestamps(world: World, new: Wanted, where: str) -> None:
    repo = repo_of(world, where)
    world.pass_days(10, publish=False)
    for each in (world.image, world.director):
        each.publish("timestamp") if each is repo else each.publish(*each.targets)
    refused(world, "metadataExpired")
    repo.publish("snapshot")
    accepted(world, new)


@BOTH
def test_indefinite_freeze_of_the_targets_under_fresh_snapshots(world: World, new: Wanted, where: str) -> None:
    repo = repo_of(world, where)
    world.pass_days(91, publish=False)
    other = world.director if repo is world.image else world.image
    other.publish(*other.targets)
    repo.publish(*[role for role in repo.targets if role != "targets"])
    refused(world, "metadataExpired")
    repo.publish("targets")
    accepted(world, new)


@pytest.mark.parametrize(("where", "role"), [("image", "agent"), ("director", DIRECTED)], ids=["agent", "terminal"])
def test_indefinite_freeze_of_a_delegated_role(world: World, new: Wanted, where: str, role: str) -> None:
    repo = repo_of(world, where)
    world.pass_days(91, publish=False)
    other = world.director if repo is world.image else world.image
    other.publish(*other.targets)
    repo.publish(*[name for name in repo.targets if name != role])
    refused(world, "metadataExpired")
    repo.publish(role)
    accepted(world, new)


@BOTH
def test_indefinite_freeze_of_the_root_by_hiding_the_new_one(world: World, new: Wanted, where: str) -> None:
    repo = repo_of(world, where)
    world.pass_days(366)
    for each in (world.image, world.director):
        each.publish("root")
    with tampered(repo, "2.root.json", None):
        refused(world, "metadataExpired")
    accepted(world, new)


# ---------------------------------------------------------------------------------------------------------------------- malicious mirror


def test_malicious_mirror_withholds_metadata(world: World, new: Wanted) -> None:
    for role in ("timestamp", "snapshot", "agent"):
        with tampered(world.image, world.image.newest(role), None):
            refused(world, "notFound")
    accepted(world, new)


def test_malicious_mirror_withholds_the_image(world: World, new: Wanted) -> None:
    with swapped(world.image, path_of(world, new), None):
        refused(world, "notFound")
    accepted(world, new)


def test_malicious_mirror_sends_somewhere_else(world: World, new: Wanted) -> None:
    with mirrors.running() as elsewhere:
        elsewhere.files.update(world.mirror.files)
        path = path_of(world, new)
        with swapped(world.image, path, mirrors.redirecting(elsewhere.url + path)):
            refused(world, "unreachable")
        assert elsewhere.requests == []
    accepted(world, new)


@pytest.mark.spec("U-502")
def test_malicious_mirror_gives_garbage(world: World, new: Wanted) -> None:
    for garbage in (b"", b"{}", b"\xff" * 500, b"[" * 20_000, b'{"signed": 1, "signatures": []}'):
        with tampered(world.image, "timestamp.json", garbage):
            refused(world, "notAuthentic", "length")
    accepted(world, new)


@pytest.mark.parametrize(("where", "role"), ROLES)
def test_malicious_mirror_changes_single_bytes_of_metadata(world: World, new: Wanted, where: str, role: str) -> None:
    """Anywhere in the file. A byte that means nothing may be changed; one that means something never counts."""
    repo = repo_of(world, where)
    good = repo.file(repo.newest(role))
    old = world.running
    dice = random.Random(f"{where}-{role}")
    for _ in range(8):
        at = dice.randrange(len(good))
        with tampered(repo, repo.newest(role), good[:at] + bytes((good[at] ^ dice.randrange(1, 256),)) + good[at + 1 :]):
            assert world.update() in ("notAuthentic", "metadataRollback", "metadataExpired", "length", "installed"), world.last
        assert world.running == old or hashlib.sha256(world.running).digest() == new.sha256
    accepted(world, new)


# ------------------------------------------------------------------------------------------------------------------------- mix and match


@BOTH
def test_mix_and_match_of_roles_from_different_times(world: World, new: Wanted, where: str) -> None:
    """Each file was rightly signed once; together they were never published."""
    repo = repo_of(world, where)
    role = "agent" if where == "image" else DIRECTED
    old = repo.file(f"{repo.md(role).signed.version - 1}.{role}.json")
    with tampered(repo, repo.newest(role), old):
        refused(world, "notAuthentic")
    accepted(world, new)


def test_mix_and_match_of_snapshots(world: World, new: Wanted) -> None:
    repo = world.image
    old = repo.file(f"{repo.snapshot.signed.version - 1}.snapshot.json")
    with tampered(repo, repo.newest("snapshot"), old):
        refused(world, "notAuthentic")
    accepted(world, new)


def test_mix_and_match_of_the_two_repositories(world: World, new: Wanted) -> None:
    with tampered(world.image, "timestamp.json", world.director.file("timestamp.json")):
        refused(world, "notAuthentic")
    with tampered(world.director, "timestamp.json", world.image.file("timestamp.json")):
        refused(world, "notAuthentic")
    accepted(world, new)


def test_mix_and_match_of_one_role_in_anothers_name(world: World, new: Wanted) -> None:
    repo = world.image
    with tampered(repo, repo.newest("agent"), repo.file(repo.newest("firmware"))):
        refused(world, "notAuthentic")
    accepted(world, new)


# ------------------------------------------------------------------------------------------------------------------------------ rollback


@BOTH
def test_rollback_of_the_root(world: World, new: Wanted, where: str) -> None:
    repo = repo_of(world, where)
    with tampered(repo, "2.root.json", repo.first_root):
        refused(world, "metadataRollback")
    accepted(world, new)


@BOTH
def test_rollback_of_the_timestamp(world: World, new: Wanted, where: str) -> None:
    repo = repo_of(world, where)
    old = repo.file("timestamp.json")
    accepted(world, new)
    later = world.release(3)
    world.order(later)
    accepted(world, later)
    with tampered(repo, "timestamp.json", old):
        refused(world, "metadataRollback")
    accepted(world, later)


@BOTH
def test_rollback_of_the_snapshot_by_a_stolen_timestamp_key(world: World, new: Wanted, where: str) -> None:
    repo = repo_of(world, where)
    old = repo.file(repo.newest("snapshot"))
    accepted(world, new)
    later = world.release(3)
    world.order(later)
    accepted(world, later)
    evil = forged(repo.timestamp, repo.keys["timestamp"], version=repo.timestamp.signed.version + 1, snapshot_meta=meta(old))
    with tampered(repo, "timestamp.json", evil):
        refused(world, "metadataRollback")
    repo.timestamp.signed.version += 1
    repo.publish("timestamp")
    accepted(world, later)


@pytest.mark.parametrize(
    ("where", "role"),
    [("image", "targets"), ("image", "agent"), ("director", "targets"), ("director", DIRECTED)],
    ids=["image-targets", "image-agent", "director-targets", "director-terminal"],
)
def test_rollback_of_targets_by_stolen_online_keys(world: World, new: Wanted, where: str, role: str) -> None:
    """Snapshot and timestamp keys name an old version of a targets role."""
    repo = repo_of(world, where)
    old = repo.file(repo.newest(role))
    accepted(world, new)
    later = world.release(3)
    world.order(later)
    repo.publish(role)
    accepted(world, later)
    thief = {"snapshot": repo.keys["snapshot"], "timestamp": repo.keys["timestamp"]}
    play(world, repo, publish_as(repo, thief, **{role: old}), "metadataRollback")
    accepted(world, later)


def test_rollback_by_leaving_a_role_out_of_the_snapshot(world: World, new: Wanted) -> None:
    accepted(world, new)
    repo = world.image
    named = {name: entry for name, entry in repo.snapshot.signed.meta.items() if name != "firmware.json"}
    snapshot = forged(repo.snapshot, repo.keys["snapshot"], meta=named, version=repo.snapshot.signed.version + 1)
    timestamp = forged(
        repo.timestamp, repo.keys["timestamp"], snapshot_meta=meta(snapshot), version=repo.timestamp.signed.version + 1
    )
    published = {f"{repo.snapshot.signed.version + 1}.snapshot.json": snapshot, "timestamp.json": timestamp}
    play(world, repo, published, "notAuthentic")
    accepted(world, new)


def test_rollback_to_an_older_release_by_director_and_order_key(world: World, new: Wanted) -> None:
    """Everything is rightly signed and fresh, but the release is older than what was installed, and nobody said that this is meant."""
    accepted(world, new)
    old = world.release(1)
    world.order(old, bundle=b"\3" * 16)
    refused(world, "downgrade")
    world.order(old, bundle=b"\4" * 16, downgrade=True)
    accepted(world, old)


@pytest.mark.parametrize("only", ["desired", "director"])
def test_rollback_that_only_one_of_the_two_calls_a_downgrade(world: World, new: Wanted, only: str) -> None:
    accepted(world, new)
    old = world.release(1)
    world.assign(old, bundle=b"\3" * 16, downgrade=only == "director")
    world.want(old, bundle=b"\3" * 16, downgrade=only == "desired")
    refused(world, "downgrade")
    world.order(old, bundle=b"\3" * 16, downgrade=True)
    accepted(world, old)


# ------------------------------------------------------------------------------------------------------------------------ slow retrieval


@pytest.mark.parametrize(("where", "role"), ROLES)
def test_slow_retrieval_of_metadata(world: World, new: Wanted, where: str, role: str) -> None:
    repo = repo_of(world, where)
    with tampered(repo, repo.newest(role), mirrors.dripping(repo.file(repo.newest(role)))):
        refused(world, "slow")
    accepted(world, new)


@BOTH
def test_slow_retrieval_of_the_root(world: World, new: Wanted, where: str) -> None:
    with tampered(repo_of(world, where), "2.root.json", mirrors.dripping(b" " * 4000)):
        refused(world, "slow")
    accepted(world, new)


def test_slow_retrieval_of_the_image(world: World, new: Wanted) -> None:
    path = path_of(world, new)
    data = world.mirror.files[path]
    assert isinstance(data, bytes)
    with swapped(world.image, path, mirrors.dripping(data)):
        refused(world, "slow")
    accepted(world, new)


def test_slow_retrieval_in_the_head_of_an_answer(world: World, new: Wanted) -> None:
    with tampered(world.image, "timestamp.json", mirrors.dripping(b" " * 100, headers_too=True)):
        refused(world, "slow")
    accepted(world, new)


def test_slow_retrieval_by_saying_nothing(world: World, new: Wanted) -> None:
    with tampered(world.image, "timestamp.json", mirrors.silent):
        refused(world, "slow")
    accepted(world, new)


# ------------------------------------------------------------------------------------------------------------------------ key compromise


@BOTH
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "delegated"])
def test_key_compromise_of_one_role(world: World, new: Wanted, where: str, role: str) -> None:
    """Who has the keys of one role alone cannot make the terminal take his version of it: another role has to name it."""
    repo = repo_of(world, where)
    if role == "delegated":
        role = "agent" if where == "image" else DIRECTED
    stolen = {role: repo.keys[role]}
    if role in repo.targets:
        published = publish_as(
            repo, stolen, **{role: forged(repo.md(role), stolen[role], version=repo.md(role).signed.version + 1)}
        )
    else:
        published = publish_as(
            repo, stolen, targets=forged(repo.md("targets"), signers(), version=repo.md("targets").signed.version + 1)
        )
    play(world, repo, published, "notAuthentic")
    accepted(world, new)


@BOTH
def test_key_compromise_of_one_root_key(world: World, new: Wanted, where: str) -> None:
    """One of three, where two must sign: he cannot put in keys of his own."""
    repo = repo_of(world, where)
    thief = signers()
    evil = copy.deepcopy(repo.root)
    evil.signed.version = 2
    for role in ("timestamp", "snapshot", "targets"):
        evil.signed.add_key(thief[0].public_key, role)
    with tampered(repo, "2.root.json", sign(evil, repo.keys["root"][:1])):
        refused(world, "notAuthentic")
    with tampered(repo, "2.root.json", sign(evil, repo.keys["root"][:2])):
        accepted(world, new)  # two of them are root


def test_key_compromise_of_one_firmware_key_where_two_must_sign(world: World) -> None:
    repo = world.image
    want = world.release(2, component="firmware/receipt-printer")
    world.order(want)
    evil = forged(repo.md("firmware"), repo.keys["firmware"][:1], version=repo.md("firmware").signed.version + 1)
    play(world, repo, publish_as(repo, repo.keys, firmware=evil), "notAuthentic")
    accepted(world)


def test_key_compromise_is_over_when_root_replaces_the_key(world: World, new: Wanted) -> None:
    """Revocation: what the stolen key signs afterwards counts for nothing."""
    repo = world.image
    stolen = repo.keys["timestamp"]
    repo.rotate("timestamp")
    repo.publish("timestamp")
    with tampered(repo, "timestamp.json", forged(repo.timestamp, stolen, version=repo.timestamp.signed.version + 5)):
        refused(world, "notAuthentic")
    accepted(world, new)


# -------------------------------------------------------------------------------------------------------------------------------- roots


def test_threshold_met_by_the_same_signature_twice(world: World) -> None:
    repo = world.image
    world.order(world.release(2, component="firmware/receipt-printer"))
    single = forged(repo.md("firmware"), repo.keys["firmware"][:1], version=repo.md("firmware").signed.version + 1)
    doubled = json.loads(single)
    doubled["signatures"] *= 2
    evil = json.dumps(doubled).encode()
    published = publish_as(repo, repo.keys, firmware=single)
    snapshot = copy.deepcopy(repo.snapshot)
    snapshot.signed.version += 1
    version = Metadata.from_bytes(single).signed.version
    snapshot.signed.meta["firmware.json"] = MetaFile.from_data(version, evil, ["sha256"])
    data = sign(snapshot, repo.keys["snapshot"])
    published[f"{snapshot.signed.version}.snapshot.json"] = data
    published["timestamp.json"] = forged(
        repo.timestamp, repo.keys["timestamp"], snapshot_meta=meta(data), version=repo.timestamp.signed.version + 1
    )
    published[f"{version}.firmware.json"] = evil
    play(world, repo, published, "notAuthentic")
    accepted(world)


def test_threshold_met_by_one_key_id_named_twice(world: World, new: Wanted) -> None:
    """A root whose role lists one key id two times, to reach a threshold of two with one key."""
    repo = world.image
    root = copy.deepcopy(repo.root)
    root.signed.version = 2
    made = json.loads(sign(root, repo.keys["root"]))
    keyid = made["signed"]["roles"]["targets"]["keyids"][0]
    made["signed"]["roles"]["targets"] = {"keyids": [keyid, keyid], "threshold": 2}
    with tampered(repo, "2.root.json", json.dumps(made).encode()):
        refused(world, "notAuthentic")
    accepted(world, new)


def test_threshold_met_by_one_key_under_two_key_ids(world: World, new: Wanted) -> None:
    """The thief has one root key; he signs twice, the second time under an id that no root names."""
    repo = world.image
    root = copy.deepcopy(repo.root)
    root.signed.version = 2
    made = json.loads(sign(root, repo.keys["root"][:1]))
    made["signatures"].append({**made["signatures"][0], "keyid": "f" * 64})
    with tampered(repo, "2.root.json", json.dumps(made).encode()):
        refused(world, "notAuthentic")
    with tampered(repo, "2.root.json", sign(root, repo.keys["root"][:2])):
        accepted(world, new)


def test_root_rotation_missed_for_twenty_versions(world: World, new: Wanted) -> None:
    """A terminal that was off meets twenty roots at once, each with new keys, and goes through all of them; one that is not linked stops it."""
    repo = world.image
    for _ in range(20):
        repo.rotate("root")
    repo.publish("timestamp")
    good = repo.file("11.root.json")
    unlinked = copy.deepcopy(repo.root)
    unlinked.signed.version = 11
    with tampered(repo, "11.root.json", sign(unlinked, repo.keys["root"])):
        refused(world, "notAuthentic")
    assert repo.file("11.root.json") == good
    accepted(world, new)
    assert len(list((world.state / "tuf" / "image" / "root_history").iterdir())) == 21


def test_expired_root_on_a_terminal_that_was_off_for_long(world: World, new: Wanted) -> None:
    """Three years in a store room: each root it meets has expired but the last, and that is enough. Without the last it is not."""
    repo = world.image
    for _ in range(2):
        repo.now_ms += 364 * DAY_MS
        repo.rotate("root")
    world.pass_days(1200)
    for each in (world.image, world.director):
        each.publish("root")
        each.publish(*each.targets)
    newest = repo.newest("root")
    with tampered(repo, newest, None):
        refused(
            world, "metadataExpired", "clock"
        )  # after more than a year the terminal cannot tell whether its own clock is wrong
    accepted(world, new)
