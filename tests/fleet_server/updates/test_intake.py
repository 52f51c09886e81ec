"""What may become a release: each attack beside the same pack from the rightful engineers, and nothing published by any of them."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, TargetFile, Targets

from fleet_server.updates import archives, intake, packs, plan, releases, store
from fleet_server.updates.errors import PackRefused, UpdatesError
from protocols.contract import artifacts
from protocols.contract.artifacts import ImageCustom, PackedCustom
from protocols.packages import archive_names
from tests.fleet_server.updates.client import Client
from tests.support.tuf_repo import TufRepo, now_ms, signers

PATH = "agent/kiosk-1.1.0-x86_64.tar"


def tar(*entries: tuple[str, Mapping[str, Any]], plain: bool = True) -> bytes:
    """A tar of `bin/agent` and these entries, whose fields are set as given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, fields in (("bin/agent", {"data": b"#!"}), *entries) if plain else entries:
            entry = tarfile.TarInfo(name)
            data = fields.get("data", b"")
            entry.size = len(data)
            for field, value in fields.items():
                if field != "data":
                    setattr(entry, field, value)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


class Workshop:
    """A release engineer with the server's keys at hand, who can make any pack, right or wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repo = TufRepo.create(folder / "server")
        self.repo.release("agent", "agent/kiosk-1.0.0-x86_64.tar", tar(), version="1.0.0", release=1, arch="x86_64")
        self.repo.release("agent", "agent/kiosk-1.0.5-x86_64.tar", tar(), version="1.0.5", release=4, arch="x86_64")
        self.before = self.state()

    def state(self) -> dict[str, bytes]:
        """All that terminals can see."""
        return {str(path): path.read_bytes() for path in self.repo.updates.layout.public.rglob("*") if path.is_file()}

    def target(self, content: bytes, path: str = PATH, **custom: Any) -> TargetFile:
        unpacked = {"unpacked_bytes": 2, "unpacked_files": 2} | {
            key: value for key, value in custom.items() if key.startswith("unpacked")
        }
        rest = {key: value for key, value in custom.items() if not key.startswith("unpacked")}
        described = ImageCustom(**{"component": "agent", "version": "1.1.0", "release": 5, "arch": "x86_64", **unpacked, **rest})
        target = TargetFile.from_data(path, content)
        target.unrecognized_fields["custom"] = releases.custom_member(described)
        return target

    def metadata(self, role: str = "agent") -> Metadata[Targets]:
        return self.repo.updates.image.next_targets(role, plan.moment(now_ms()))

    def pack(
        self,
        contents: Mapping[str, bytes] | None = None,
        *,
        metadata: Metadata[Targets] | None = None,
        role: str = "agent",
        signed_by: list[CryptoSigner] | None = None,
        edit: Callable[[Metadata[Targets]], None] = lambda _metadata: None,
    ) -> Path:
        """By default a good pack of a good archive; `edit` changes the metadata before it is signed."""
        archive = tar()
        if metadata is None:
            metadata = self.metadata(role)
            metadata.signed.targets[PATH] = self.target(archive)
        edit(metadata)
        metadata.signatures.clear()
        for signer in signed_by if signed_by is not None else self.repo.offline[role]:
            metadata.sign(signer, append=True)
        files: dict[str, Path] = {}
        for sha256, data in (contents if contents is not None else {hashlib.sha256(archive).hexdigest(): archive}).items():
            file = self.folder / f"artifact-{sha256[:20]}-{len(files)}"
            file.write_bytes(data)
            files[sha256] = file
        path = self.folder / "release.pack"
        packs.write(path, role, metadata, files)
        return path

    def refused(self, path: Path, reason: str) -> None:
        with pytest.raises(UpdatesError) as caught:
            intake.take(self.repo.updates, path, now_ms=now_ms())
        assert caught.value.reason == reason, str(caught.value)
        assert self.state() == self.before, "a refused pack changes nothing"
        assert not list(self.repo.updates.layout.staging.glob("work-*")), "nor leaves anything behind"
        assert caught.value.sentence("zh") and caught.value.sentence("en")


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_a_good_pack_is_published(shop: Workshop, tmp_path: Path) -> None:
    taken = intake.take(shop.repo.updates, shop.pack(), now_ms=now_ms())
    assert (taken.role, taken.version, [release.path for release in taken.releases]) == ("agent", 3, [PATH])
    assert taken.signed_by == (shop.repo.offline["agent"][0].public_key.keyid[:8],)
    with shop.repo.serve() as url:
        client = Client(tmp_path / "client", url, "image", shop.repo.roots["image"])
        assert client.fetch(PATH) == tar()


def test_examining_publishes_nothing(shop: Workshop) -> None:
    assert intake.examine(shop.repo.updates, shop.pack(), now_ms=now_ms()).version == 3
    assert shop.state() == shop.before


def test_the_same_pack_twice(shop: Workshop) -> None:
    path = shop.pack()
    intake.take(shop.repo.updates, path, now_ms=now_ms())
    shop.before = shop.state()
    shop.refused(path, "alreadyTaken")


# Signatures -----------------------------------------------------------------------------------------------------------------------------


def test_nobody_signed(shop: Workshop) -> None:
    shop.refused(shop.pack(signed_by=[]), "missingSignatures")


def test_a_stranger_signed(shop: Workshop) -> None:
    shop.refused(shop.pack(signed_by=signers(1)), "missingSignatures")


def test_keys_of_another_role_signed(shop: Workshop) -> None:
    shop.refused(shop.pack(signed_by=shop.repo.offline["firmware"]), "missingSignatures")


def test_keys_of_root_are_no_release_keys(shop: Workshop) -> None:
    shop.refused(shop.pack(signed_by=shop.repo.offline["root"]), "missingSignatures")


def _firmware(shop: Workshop, people: list[CryptoSigner]) -> Path:
    target = shop.target(b"image", "firmware/printer/7.bin", component="firmware", arch="any", hardware=("printer-a",))
    metadata = shop.metadata("firmware")
    metadata.signed.targets[target.path] = target
    return shop.pack({target.hashes["sha256"]: b"image"}, metadata=metadata, role="firmware", signed_by=people)


def test_one_of_two_signed_firmware(shop: Workshop) -> None:
    people = shop.repo.offline["firmware"]
    shop.refused(_firmware(shop, people[:1]), "missingSignatures")
    intake.take(shop.repo.updates, _firmware(shop, people[1:]), now_ms=now_ms())


def test_a_signature_under_anothers_id(shop: Workshop) -> None:
    """One engineer's signature relabelled as the second's."""
    people = shop.repo.offline["firmware"]
    path = _firmware(shop, people[:1])
    with packs.opened(path) as (_, pack):
        signature = next(iter(pack.metadata.signatures.values()))
        other = people[1].public_key.keyid
        pack.metadata.signatures[other] = type(signature)(other, signature.signature)
    packs.rewrite(path, pack)
    shop.refused(path, "missingSignatures")


def test_changed_after_signing(shop: Workshop) -> None:
    path = shop.pack()
    with packs.opened(path) as (_, pack):
        pack.metadata.signed.expires += dt.timedelta(days=1)
    packs.rewrite(path, pack)
    shop.refused(path, "missingSignatures")


def test_a_withdrawn_key_signs_no_more(shop: Workshop) -> None:
    path = shop.pack()
    from fleet_server.updates import ceremony, drafts
    from fleet_server.updates.ceremony import Change

    old, new = shop.repo.offline["agent"], signers(1)
    change = Change(add=(new[0].public_key,), remove=(old[0].public_key.keyid,))
    ceremony.rotate(shop.repo.updates, "image", "agent", change, now_ms=now_ms())
    with store.writing(shop.repo.updates.layout):
        for draft in drafts.pending(shop.repo.updates.layout):
            for signer in new if draft.role == "agent" else shop.repo.offline["targets"]:
                draft.sign(signer)
            drafts.save(shop.repo.updates.layout, draft)
    ceremony.publish(shop.repo.updates, now_ms=now_ms())
    shop.before = shop.state()
    shop.refused(path, "wrongVersion")
    shop.refused(shop.pack(signed_by=old), "missingSignatures")
    intake.take(shop.repo.updates, shop.pack(signed_by=new), now_ms=now_ms())


# Metadata -------------------------------------------------------------------------------------------------------------------------------


def _skip(metadata: Metadata[Targets]) -> None:
    metadata.signed.version += 1


def _back(metadata: Metadata[Targets]) -> None:
    metadata.signed.version -= 2


def _remove(metadata: Metadata[Targets]) -> None:
    del metadata.signed.targets["agent/kiosk-1.0.0-x86_64.tar"]


def _change(metadata: Metadata[Targets]) -> None:
    metadata.signed.targets["agent/kiosk-1.0.0-x86_64.tar"].length += 1


def _rename_version(metadata: Metadata[Targets]) -> None:
    metadata.signed.targets["agent/kiosk-1.0.0-x86_64.tar"].unrecognized_fields["custom"]["kiosk-fleet"]["version"] = "9"


def _nothing_new(metadata: Metadata[Targets]) -> None:
    del metadata.signed.targets[PATH]


def _expired(metadata: Metadata[Targets]) -> None:
    metadata.signed.expires = plan.moment(now_ms()) - dt.timedelta(days=1)


def _for_ever(metadata: Metadata[Targets]) -> None:
    metadata.signed.expires = plan.moment(now_ms()) + dt.timedelta(days=4000)


def _delegates(metadata: Metadata[Targets]) -> None:
    from tuf.api.metadata import DelegatedRole, Delegations

    key = CryptoSigner.generate_ed25519().public_key
    metadata.signed.delegations = Delegations(
        {key.keyid: key}, {"evil": DelegatedRole("evil", [key.keyid], 1, False, paths=["agent/*"])}
    )


def _foreign_field(metadata: Metadata[Targets]) -> None:
    metadata.signed.unrecognized_fields["x-note"] = "hello"


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_skip, "wrongVersion"),
        (_back, "wrongVersion"),
        (_remove, "targetRemoved"),
        (_change, "targetChanged"),
        (_rename_version, "targetChanged"),
        (_nothing_new, "noNewTarget"),
        (_expired, "expiresSoon"),
        (_for_ever, "expiresLate"),
        (_delegates, "foreignFields"),
        (_foreign_field, "foreignFields"),
    ],
)
def test_metadata_that_breaks_a_rule(shop: Workshop, edit: Callable[[Metadata[Targets]], None], reason: str) -> None:
    shop.refused(shop.pack(edit=edit), reason)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("agent/../../keys/x.tar", "badPath"),
        ("agent/.hidden", "badPath"),
        ("/agent/x.tar", "badPath"),
        ("agent//x.tar", "badPath"),
        ("agent/x\\y.tar", "badPath"),
        ("agent/x\x00.tar", "badPath"),
        ("agent/%2e%2e", "badPath"),
        ("agent/deeper/x.tar", "foreignPath"),
        ("firmware/printer/x.bin", "foreignPath"),
        ("content/birth/x.tar", "foreignPath"),
        ("x.tar", "foreignPath"),
    ],
)
def test_paths_that_are_not_the_roles(shop: Workshop, path: str, reason: str) -> None:
    archive = tar()

    def edit(metadata: Metadata[Targets]) -> None:
        metadata.signed.targets = {**metadata.signed.targets, path: shop.target(archive, path)}
        del metadata.signed.targets[PATH]

    shop.refused(shop.pack(edit=edit), reason)


@pytest.mark.parametrize(
    ("custom", "reason"),
    [
        ({"component": "firmware", "hardware": ("a",)}, "otherComponent"),
        ({"component": "profiles"}, "otherComponent"),
        ({"release": 4}, "counterTooLow"),
        ({"release": 1}, "counterTooLow"),
        ({"unpacked_bytes": 0}, "noUnpackedSize"),
        ({"unpacked_bytes": 3}, "otherUnpackedSize"),
        ({"unpacked_files": 9}, "otherUnpackedSize"),
    ],
)
def test_what_a_target_says_about_itself(shop: Workshop, custom: dict[str, Any], reason: str) -> None:
    def edit(metadata: Metadata[Targets]) -> None:
        metadata.signed.targets[PATH] = shop.target(tar(), **custom)

    shop.refused(shop.pack(edit=edit), reason)


@pytest.mark.parametrize(
    "custom",
    [
        None,
        {},
        {"kiosk-fleet": {}},
        {"kiosk-fleet": {"component": "agent", "version": "", "release": 5}},
        {"kiosk-fleet": {"component": "agent", "version": "1.1.0", "release": 0}},
        {"kiosk-fleet": {"component": "agent", "version": "1.1.0", "release": "5"}},
        {"kiosk-fleet": {"component": "kernel", "version": "1.1.0", "release": 5}},
        {"kiosk-fleet": {"component": "agent", "version": "1.1.0", "release": 5, "arch": "../x"}},
        {"kiosk-fleet": {"component": "agent", "version": "1.1.0", "release": 5}, "other": 1},
    ],
)
def test_a_target_that_does_not_say_what_it_is(shop: Workshop, custom: Any) -> None:
    def edit(metadata: Metadata[Targets]) -> None:
        metadata.signed.targets[PATH].unrecognized_fields = {} if custom is None else {"custom": custom}

    shop.refused(shop.pack(edit=edit), "badCustom")


def test_firmware_for_no_unit_at_all(shop: Workshop) -> None:
    target = shop.target(b"image", "firmware/printer/7.bin", component="firmware", arch="any")
    metadata = shop.metadata("firmware")
    metadata.signed.targets[target.path] = target
    shop.refused(shop.pack({target.hashes["sha256"]: b"image"}, metadata=metadata, role="firmware"), "noHardware")


@pytest.mark.parametrize(
    "hashes", [{"md5": "0" * 32}, {"sha256": "xyz"}, {"sha256": "A" * 64}, {"sha256": "0" * 64, "sha512": "0" * 128}]
)
def test_hashes_that_are_not_one_sha256(shop: Workshop, hashes: dict[str, str]) -> None:
    def edit(metadata: Metadata[Targets]) -> None:
        metadata.signed.targets[PATH].hashes = hashes

    shop.refused(shop.pack(edit=edit), "badHash")


@pytest.mark.parametrize("length", [0, (1 << 30) + 1, 10**15])
def test_lengths_that_no_terminal_takes(shop: Workshop, length: int) -> None:
    def edit(metadata: Metadata[Targets]) -> None:
        metadata.signed.targets[PATH].length = length

    shop.refused(shop.pack(edit=edit), "badLength")


@pytest.mark.parametrize("role", ["content", "catalogue", "packed", "targets", "root", "snapshot", "../agent", ""])
def test_roles_that_engineers_do_not_sign(shop: Workshop, role: str) -> None:
    path = shop.pack()
    with packs.opened(path) as (_, pack):
        packs.rewrite(path, msgspec.structs.replace(pack, role=role))
    shop.refused(path, "notReleaseRole")


# Packs ----------------------------------------------------------------------------------------------------------------------------------


def test_a_file_that_was_not_signed_for(shop: Workshop) -> None:
    archive = tar()
    extra = {hashlib.sha256(archive).hexdigest(): archive, hashlib.sha256(b"extra").hexdigest(): b"extra"}
    shop.refused(shop.pack(extra), "strayMember")


def test_the_artifact_is_missing(shop: Workshop) -> None:
    shop.refused(shop.pack({}), "contentMissing")


def test_another_content_under_the_signed_hash(shop: Workshop) -> None:
    archive = tar()
    other = bytearray(archive)
    other[600] ^= 1
    shop.refused(shop.pack({hashlib.sha256(archive).hexdigest(): bytes(other)}), "otherContent")


def test_a_longer_content_under_the_signed_hash(shop: Workshop) -> None:
    archive = tar()
    shop.refused(shop.pack({hashlib.sha256(archive).hexdigest(): archive + b"\0"}), "otherContent")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_members_that_are_no_files(shop: Workshop, kind: bytes) -> None:
    path = shop.pack({})
    name = f"targets/{hashlib.sha256(tar()).hexdigest()}"
    with tarfile.open(path, "a") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    shop.refused(path, "strayMember")


@pytest.mark.parametrize(
    "name", ["../../etc/cron.d/x", "/etc/passwd", "targets/../../x", "targets/x", "targets/" + "a" * 63 + "/"]
)
def test_members_with_names_of_their_own(shop: Workshop, name: str) -> None:
    path = shop.pack({})
    with tarfile.open(path, "a") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    shop.refused(path, "strayMember")


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 10240, os.urandom(4096), b"PK\x03\x04" + bytes(100), b"\x28\xb5\x2f\xfd" + bytes(100)],
    ids=["empty", "zeros", "noise", "zip", "zstd"],
)
def test_files_that_are_no_packs(shop: Workshop, data: bytes) -> None:
    path = shop.folder / "x"
    path.write_bytes(data)
    shop.refused(path, "noPack")


@pytest.mark.parametrize("part", [0.02, 0.2, 0.5, 0.9])
def test_a_pack_that_was_cut_off(shop: Workshop, part: float) -> None:
    path = shop.pack()
    data = path.read_bytes().rstrip(b"\0")
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(PackRefused):
        intake.take(shop.repo.updates, path, now_ms=now_ms())
    assert shop.state() == shop.before


def test_a_manifest_that_does_not_end(shop: Workshop) -> None:
    path = shop.folder / "x"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = packs.MANIFEST_MAX_BYTES + 1
        archive.addfile(entry, io.BytesIO(b"[" * entry.size))
    shop.refused(path, "noPack")


def test_a_manifest_that_is_deeper_than_the_parser(shop: Workshop) -> None:
    path = shop.folder / "x"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = 60_000
        archive.addfile(entry, io.BytesIO(b"[" * entry.size))
    shop.refused(path, "noPack")


def test_metadata_of_another_kind(shop: Workshop) -> None:
    timestamp = shop.repo.updates.image.timestamp()
    assert timestamp is not None
    path = shop.folder / "x"
    with tarfile.open(path, "w") as archive:
        for name, data in (
            ("manifest.json", json.dumps({"format": packs.PACK_FORMAT, "role": "agent"}).encode()),
            ("metadata.json", timestamp.to_bytes()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    shop.refused(path, "noPack")


def test_a_pack_that_is_a_link_or_not_there(shop: Workshop) -> None:
    shop.refused(shop.folder / "nowhere", "noPack")


def _twice(shop: Workshop, length: int) -> Path:
    """One content under two paths."""
    archive = tar()
    metadata = shop.metadata()
    for number, arch in ((1, "x86_64"), (2, "aarch64")):
        path = f"agent/same-{number}.tar"
        metadata.signed.targets[path] = shop.target(archive, path, arch=arch)
    metadata.signed.targets["agent/same-2.tar"].length = length
    return shop.pack(metadata=metadata)


def test_one_content_under_two_paths(shop: Workshop) -> None:
    shop.refused(_twice(shop, len(tar()) + 1), "otherContent")
    taken = intake.take(shop.repo.updates, _twice(shop, len(tar())), now_ms=now_ms())
    for release in taken.releases:
        file = shop.repo.updates.image.file_of(shop.repo.updates.image.known_targets()[release.path][1])
        assert file.read_bytes() == tar()


# Archives of an agent -------------------------------------------------------------------------------------------------------------------

DEEP = "/".join("d" * 30)
EVIL: dict[str, tuple[str, dict[str, Any]]] = {
    "parent": ("../evil", {}),
    "parent inside": ("bin/../../evil", {}),
    "absolute": ("/etc/evil", {}),
    "dot": ("./bin/x", {}),
    "backslash": ("bin\\x", {}),
    "newline": ("bin/x\ny", {}),
    "twice": ("bin/agent", {"data": b"other"}),
    "below a file": ("bin/agent/x", {}),
    "too deep": (f"{DEEP}/x", {}),
    "too long": ("n" * 201, {}),
    "reserved": (".complete", {}),
    "setuid": ("bin/su", {"mode": 0o4755}),
    "setgid": ("bin/sg", {"mode": 0o2755}),
    "sticky": ("tmp/x", {"mode": 0o1777}),
    "absolute link": ("lib", {"type": tarfile.SYMTYPE, "linkname": "/etc"}),
    "link out": ("a/lib", {"type": tarfile.SYMTYPE, "linkname": "../../etc"}),
    "link out later": ("a/lib", {"type": tarfile.SYMTYPE, "linkname": "b/../../../etc"}),
    "empty link": ("lib", {"type": tarfile.SYMTYPE, "linkname": ""}),
    "hard link": ("lib", {"type": tarfile.LNKTYPE, "linkname": "bin/agent"}),
    "hard link out": ("lib", {"type": tarfile.LNKTYPE, "linkname": "/etc/shadow"}),
    "device": ("dev/sda", {"type": tarfile.BLKTYPE, "devmajor": 8}),
    "character device": ("dev/mem", {"type": tarfile.CHRTYPE, "devmajor": 1}),
    "pipe": ("pipe", {"type": tarfile.FIFOTYPE}),
    "unknown kind": ("x", {"type": b"Z"}),
}


@pytest.mark.parametrize("name", EVIL)
def test_an_archive_that_no_terminal_would_unpack(shop: Workshop, name: str) -> None:
    archive = tar(EVIL[name])
    target = shop.target(archive)

    def edit(metadata: Metadata[Targets]) -> None:
        metadata.signed.targets[PATH] = target

    path = shop.pack({target.hashes["sha256"]: archive}, edit=edit)
    with pytest.raises(PackRefused) as caught:
        intake.take(shop.repo.updates, path, now_ms=now_ms())
    assert caught.value.reason.startswith("entry") or caught.value.reason == "noArchive", str(caught.value)
    assert shop.state() == shop.before


def test_a_link_that_leads_through_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tar(("lib", {"type": tarfile.SYMTYPE, "linkname": "bin"}), ("lib/evil", {"data": b"x"})))
    with pytest.raises(PackRefused, match="through a link"):
        archives.check(path)


def test_links_that_stay_inside_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tar(("lib/python", {"type": tarfile.SYMTYPE, "linkname": "../bin/agent"})))
    assert archives.check(path) == archives.Unpacked(entries=4, bytes=2)


@pytest.mark.parametrize("how", ["truncated", "garbage", "compressed", "extended"])
def test_an_archive_that_is_not_whole(tmp_path: Path, how: str) -> None:
    import gzip

    good = tar(("big", {"data": bytes(5000)}))
    path = tmp_path / "x.tar"
    head = tarfile.TarInfo("x")
    head.type, head.size = tarfile.XHDTYPE, 1 << 40
    path.write_bytes(
        {
            "truncated": good[:3000],
            "garbage": good[:1024] + os.urandom(4096),
            "compressed": gzip.compress(good),
            "extended": head.tobuf() + bytes(2048),
        }[how]
    )
    with pytest.raises(PackRefused):
        archives.check(path)


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_names, "ENTRIES_MAX", 50)
    path = tmp_path / "x.tar"
    path.write_bytes(tar(*((f"f{number}", {}) for number in range(60))))
    with pytest.raises(PackRefused, match="more than 50 files"):
        archives.check(path)


def test_both_sides_judge_archives_alike(tmp_path: Path) -> None:
    """The server's rules beside the terminal's, over every archive of this file."""
    from edge_agent.updater import archive as terminal

    for number, entry in enumerate([*EVIL.values(), ("lib/python", {"type": tarfile.SYMTYPE, "linkname": "../bin/agent"})]):
        path = tmp_path / f"{number}.tar"
        data = tar(entry)
        path.write_bytes(data)
        verdicts = []
        try:
            archives.check(path)
            verdicts.append(True)
        except PackRefused:
            verdicts.append(False)
        try:
            with terminal.open_image(path) as image:
                terminal.unpack(
                    image, tmp_path / f"out-{number}", sha256=hashlib.sha256(data).hexdigest(), limits=terminal.Limits()
                )
            verdicts.append(True)
        except terminal.BadArchive:
            verdicts.append(False)
        assert verdicts[0] == verdicts[1], entry


# Online roles ---------------------------------------------------------------------------------------------------------------------------


def _content(**more: Any) -> ImageCustom:
    return ImageCustom(**{"component": "content", "version": "1", "release": 1, "name": "birth", **more})


def test_content_is_signed_by_the_server_and_comes_and_goes(shop: Workshop, tmp_path: Path) -> None:
    updates = shop.repo.updates
    file = tmp_path / "pages.tar"
    file.write_bytes(b"pages")
    intake.add_online(updates, "content", "content/birth/1.tar", file, _content(hardware=("a", "b")), now_ms=now_ms())
    assert file.exists()
    version = updates.image.versions()["content"]
    intake.add_online(updates, "content", "content/birth/1.tar", b"pages", _content(hardware=("a", "b")), now_ms=now_ms())
    assert updates.image.versions()["content"] == version, "the same again is nothing new"
    with shop.repo.serve() as url:
        client = Client(tmp_path / "client", url, "image", shop.repo.roots["image"])
        assert client.fetch("content/birth/1.tar") == b"pages"
        assert intake.remove_online(updates, "content", ["content/birth/1.tar", "content/none/1.tar"], now_ms=now_ms()) == [
            "content/birth/1.tar"
        ]
        assert client.target("content/birth/1.tar") is None


@pytest.mark.parametrize(
    ("role", "path", "data", "custom", "reason"),
    [
        ("content", "content/birth/1.tar", b"other", _content(), "pathTaken"),
        ("content", "agent/evil.tar", b"x", _content(), "foreignPath"),
        ("content", "content/../keys/x", b"x", _content(), "badPath"),
        ("content", "content/birth/2.tar", b"x", _content(component="agent"), "otherComponent"),
        ("content", "content/birth/2.tar", b"", _content(), "badLength"),
        ("content", "content/birth/2.tar", b"x", PackedCustom(to="a" * 64), "badCustom"),
        ("agent", "agent/evil.tar", b"x", _content(component="agent"), "notOnlineRole"),
        ("targets", "x.tar", b"x", _content(), "notOnlineRole"),
    ],
)
def test_what_the_server_does_not_sign(
    shop: Workshop, role: str, path: str, data: bytes, custom: ImageCustom | PackedCustom, reason: str
) -> None:
    updates = shop.repo.updates
    intake.add_online(updates, "content", "content/birth/1.tar", b"pages", _content(), now_ms=now_ms())
    shop.before = shop.state()
    with pytest.raises(UpdatesError) as caught:
        intake.add_online(updates, role, path, data, custom, now_ms=now_ms())
    assert caught.value.reason == reason
    assert shop.state() == shop.before


def test_release_roles_lose_nothing(shop: Workshop) -> None:
    with pytest.raises(UpdatesError, match="no role that the server signs"):
        intake.remove_online(shop.repo.updates, "agent", ["agent/kiosk-1.0.0-x86_64.tar"], now_ms=now_ms())
    assert artifacts.IMAGE_ROLES["agent"] == ("agent/*",)


# State files ----------------------------------------------------------------------------------------------------------------------------


def test_a_state_file_is_verified_from_its_first_root_on(shop: Workshop) -> None:
    data = packs.write_state(shop.repo.updates.image, "agent")
    state = packs.read_state(data, shop.repo.roots["image"].encode())
    assert state.current is not None and state.current.signed.version == 2
    tree = json.loads(data)
    tree["current"]["signed"]["targets"]["agent/kiosk-1.0.0-x86_64.tar"]["length"] += 1
    with pytest.raises(UpdatesError, match="valid signatures"):
        packs.read_state(json.dumps(tree).encode())
    with pytest.raises(UpdatesError, match="do not lead through"):
        packs.read_state(data, shop.repo.roots["director"].encode())
    for wrong in (b"", b"{}", b"[]", b'{"format": "kiosk-fleet-state/1"}'):
        with pytest.raises(UpdatesError, match="no state file"):
            packs.read_state(wrong)


def test_counters_follow_versions_over_architectures() -> None:
    def custom(version: str, release: int, arch: str) -> ImageCustom:
        return ImageCustom(component="agent", version=version, release=release, arch=arch)

    known = [custom("1.0", 1, "x86_64"), custom("1.1", 2, "x86_64")]
    assert releases.next_counter(known, custom("1.1", 1, "aarch64")) == 2
    assert releases.next_counter(known, custom("1.2", 1, "x86_64")) == 3
    assert releases.next_counter(known, custom("1.1", 1, "x86_64")) == 3
    assert releases.next_counter([], custom("1.0", 1, "x86_64")) == 1
