"""What root pins comes out of a folder of the agent's user: nothing there may lead root elsewhere, and nobody is exchanged unnoticed."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from edge_agent import cli, identity
from edge_agent.identity import Identity, MqttAddress
from edge_agent.updater.source import Pinned
from tests.edge_agent.small_fleet import RootKey, SmallCa
from tests.support.tuf_repo import TufRepo

IMAGE = identity.UPDATE_ROOT_FILES["image"]


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> tuple[TufRepo, TufRepo]:
    return TufRepo.create(tmp_path_factory.mktemp("one")), TufRepo.create(tmp_path_factory.mktemp("two"))


@dataclass
class Desk:
    """One terminal's files; `pin` is the command line."""

    folder: Path
    root: RootKey
    ca: SmallCa

    @property
    def agent(self) -> Path:
        return self.folder / "identity"

    @property
    def pinned(self) -> Path:
        return self.folder / "pinned"

    def enrol(self, repo: TufRepo, *, root: RootKey | None = None, ca: SmallCa | None = None, server: str = "s") -> None:
        who = Identity(
            terminal="kiosk-1", fleet="fleet", server_url=f"https://{server}", root_key=(root or self.root).public_key,
            mqtt=MqttAddress(host="s", port=8883),
        )  # fmt: skip
        identity.save(self.agent, who)
        (self.agent / identity.CA_FILE).write_text((ca or self.ca).pem, "ascii")
        for name, file in identity.UPDATE_ROOT_FILES.items():
            (self.agent / file).write_text(repo.roots[name], "utf-8")

    def pin(self, *more: str) -> int:
        toml = self.folder / "updater.toml"
        toml.write_text(f'schema = 1\npinned_dir = "{self.pinned}"\n', "utf-8")
        return cli.main(["updater", "pin", "--config", str(toml), "--identity", str(self.agent), *more])


@pytest.fixture
def desk(tmp_path: Path, repos: tuple[TufRepo, TufRepo]) -> Desk:
    made = Desk(tmp_path, RootKey(), SmallCa())
    made.agent.mkdir()
    made.enrol(repos[0])
    return made


def fingerprint(root: RootKey) -> str:
    return hashlib.sha256(root.public_key).hexdigest()


def test_before_enrolment_there_is_nothing_to_pin(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    (desk.agent / identity.IDENTITY_FILE).unlink()
    assert desk.pin() == 1
    assert "enrol" in capsys.readouterr().err
    assert not desk.pinned.exists()


def test_it_says_whom_it_pins(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.pin("--fleet-root", fingerprint(desk.root)) == 0
    said = capsys.readouterr().out
    assert fingerprint(desk.root) in said
    assert hashlib.sha256(desk.ca.certificate.public_bytes(Encoding.DER)).hexdigest() in said
    assert Pinned.load(desk.pinned).who == Pinned.load(desk.agent).who
    assert desk.pin() == 0, "the same once more changes nothing"


@pytest.mark.parametrize("name", [identity.IDENTITY_FILE, identity.CA_FILE, *identity.UPDATE_ROOT_FILES.values()])
@pytest.mark.parametrize("trick", ["link", "pipe", "huge", "nonsense"])
def test_what_is_no_plain_small_file_of_its_kind_is_not_pinned(desk: Desk, name: str, trick: str) -> None:
    path = desk.agent / name
    if trick == "link":
        shutil.copy(path, desk.folder / "elsewhere")
        path.unlink()
        path.symlink_to(desk.folder / "elsewhere")
    elif trick == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif trick == "huge":
        path.write_bytes(path.read_bytes() + b"\n" * 8_000_000)
    else:
        path.write_text('{"signed": {}, "signatures": []}', "ascii")
    assert desk.pin() != 0
    assert not desk.pinned.exists()


def test_a_root_that_others_signed_is_not_pinned(desk: Desk, repos: tuple[TufRepo, TufRepo]) -> None:
    mine, others = (msgspec.json.decode(repo.roots["image"]) for repo in repos)
    (desk.agent / IMAGE).write_bytes(msgspec.json.encode({**mine, "signatures": others["signatures"]}))
    assert desk.pin() != 0
    assert not desk.pinned.exists()


def test_only_certificates_get_from_the_ca_file_into_etc(desk: Desk) -> None:
    path = desk.agent / identity.CA_FILE
    path.write_text("some secret\n" + path.read_text("ascii") + "another\n", "ascii")
    assert desk.pin() == 0
    assert "secret" not in (desk.pinned / identity.CA_FILE).read_text("ascii")


@pytest.mark.parametrize("what", ["root", "ca", "repositories"])
def test_whoever_is_pinned_stays_unless_it_is_meant(
    desk: Desk, repos: tuple[TufRepo, TufRepo], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert desk.pin() == 0
    before = {path.name: path.read_bytes() for path in desk.pinned.iterdir()}
    root = RootKey() if what == "root" else desk.root
    desk.enrol(repos[what == "repositories"], root=root, ca=SmallCa() if what == "ca" else desk.ca)
    for more in ((), ("--replace",), ("--replace", "--fleet-root", "0" * 64), ("--fleet-root", fingerprint(root))):
        assert desk.pin(*more) != 0
        assert {path.name: path.read_bytes() for path in desk.pinned.iterdir()} == before
    assert fingerprint(root) in capsys.readouterr().err
    assert desk.pin("--replace", "--fleet-root", fingerprint(root)) == 0
    assert Pinned.load(desk.pinned).who.root_key == root.public_key
    assert {path.name: path.read_bytes() for path in desk.pinned.iterdir()} != before


def test_another_address_of_the_same_server_is_pinned(desk: Desk, repos: tuple[TufRepo, TufRepo]) -> None:
    assert desk.pin() == 0
    desk.enrol(repos[0], server="moved.example.org")
    assert desk.pin() == 0
    assert Pinned.load(desk.pinned).who.server_url == "https://moved.example.org"
