"""`edge-agent tuf-client`, the command line that the public conformance suite drives, and what that suite asks for, in tests of our own."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import MetaFile, TargetFile

from edge_agent import cli
from tests.edge_agent.attacks import mirror as mirrors
from tests.edge_agent.attacks.mirror import Mirror
from tests.edge_agent.attacks.world import DAY_MS, Repo, forged, signers

TOP = ["root.json", "snapshot.json", "targets.json", "timestamp.json"]


@dataclass
class Client:
    """Somebody at a shell."""

    folder: Path
    repo: Repo

    @property
    def metadata(self) -> Path:
        return self.folder / "metadata"

    @property
    def targets(self) -> Path:
        return self.folder / "targets"

    def run(self, *words: str) -> int:
        return cli.main(["tuf-client", "--metadata-dir", str(self.metadata), *words])

    def init(self, root: bytes | None = None) -> int:
        file = self.folder / "initial.json"
        file.write_bytes(self.repo.first_root if root is None else root)
        return self.run("init", str(file))

    def refresh(self) -> int:
        return self.run("--metadata-url", f"{self.repo.mirror.url}/updates/image/metadata", "refresh")

    def download(self, *names: str) -> int:
        words = [word for name in names for word in ("--target-name", name)]
        base = f"{self.repo.mirror.url}/updates/image"
        return self.run(
            *("--metadata-url", f"{base}/metadata/", *words, "--target-base-url", f"{base}/targets"),
            *("--target-dir", str(self.targets), "download"),
        )

    def version(self, role: str) -> int:
        return int(json.loads((self.metadata / f"{role}.json").read_bytes())["signed"]["version"])

    def asked(self) -> list[str]:
        """Names of the files that were asked for since the last call."""
        names = [path.rsplit("/", 1)[1] for path, _ in self.repo.mirror.requests]
        self.repo.mirror.requests.clear()
        return names

    def downloaded(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.targets.iterdir()) if path.is_file() and not path.name.startswith(".")]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with mirrors.running() as made:
        yield made


@pytest.fixture
def repo(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository of today: this command's time is the system's."""
    from tests.edge_agent.attacks import world

    monkeypatch.setattr(world, "NOW_MS", now_ms())
    made = Repo(mirror, "image", {"agent": ["agent/*"], "a role/with strange ✓ name": ["odd/*"]})
    made.add("targets", "plain.txt", b"plain", None)
    made.add("agent", "agent/one.tar", b"one" * 1000, None)
    made.publish("targets", "agent")
    return made


@pytest.fixture
def client(repo: Repo, tmp_path: Path) -> Client:
    made = Client(tmp_path, repo)
    for folder in (made.metadata, made.targets):
        folder.mkdir()
    assert made.init() == 0
    return made


def test_init_asks_the_repository_for_nothing(client: Client) -> None:
    assert client.asked() == []
    assert (client.metadata / "root.json").read_bytes() == client.repo.first_root


def test_refresh_leaves_unversioned_files(client: Client) -> None:
    assert client.refresh() == 0
    assert client.asked() == ["2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"]
    assert sorted(path.name for path in client.metadata.glob("*.json")) == TOP
    assert client.refresh() == 0
    assert client.asked() == ["2.root.json", "timestamp.json"]


def test_without_init_nothing_is_trusted(client: Client) -> None:
    (client.metadata / "root.json").unlink()
    assert client.refresh() == 1
    assert client.asked() == []


def test_a_root_that_is_none(client: Client) -> None:
    (client.metadata / "root.json").unlink()
    assert client.init(b"{}") == 0  # as the protocol says, no checks here
    assert client.refresh() == 1


@pytest.mark.parametrize("words", [["refresh"], ["init"], ["download"], ["--metadata-url", "https://localhost:1/", "refresh"]])
def test_a_command_that_lacks_something_says_so(client: Client, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert client.run(*words) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_download_fetches_once(client: Client) -> None:
    assert client.download("agent/one.tar", "plain.txt") == 0
    assert sorted(client.downloaded()) == sorted([b"one" * 1000, b"plain"])
    client.asked()
    assert client.download("agent/one.tar") == 0
    assert client.asked() == ["2.root.json", "timestamp.json"]


def test_download_of_changed_content_takes_the_same_name(client: Client) -> None:
    assert client.download("plain.txt") == 0
    client.repo.add("targets", "plain.txt", b"changed", None)
    client.repo.publish("targets")
    assert client.download("plain.txt") == 0
    assert client.downloaded() == [b"changed"]


def test_download_stops_at_the_first_that_fails(client: Client) -> None:
    assert client.download("plain.txt", "nothing.txt", "agent/one.tar") == 1
    assert client.downloaded() == [b"plain"]


@pytest.mark.parametrize("served", [b"PLAIN", b"plain and more", b"pla", b""])
def test_download_of_what_was_not_signed(client: Client, served: bytes) -> None:
    key = client.repo.target_key(client.repo.targets["targets"].signed.targets["plain.txt"])
    client.repo.mirror.files[key] = served
    assert client.download("plain.txt") == 1
    assert client.downloaded() == []


def test_download_described_by_another_hash_algorithm(client: Client) -> None:
    target = TargetFile.from_data("other.txt", b"other", ["sha512"])
    client.repo.targets["targets"].signed.targets["other.txt"] = target
    client.repo.mirror.files[f"/updates/image/targets/{hashlib.sha512(b'other').hexdigest()}.other.txt"] = b"other"
    client.repo.publish("targets")
    assert client.download("other.txt") == 0
    assert client.downloaded() == [b"other"]
    client.asked()
    assert client.download("other.txt") == 0
    assert client.asked() == ["2.root.json", "timestamp.json"]


def test_download_whose_second_hash_is_wrong(client: Client) -> None:
    target = TargetFile.from_data("other.txt", b"other", ["sha256", "sha512"])
    target.hashes["sha512"] = "0" * 128
    client.repo.targets["targets"].signed.targets["other.txt"] = target
    client.repo.mirror.files[client.repo.target_key(target)] = b"other"
    client.repo.publish("targets")
    assert client.download("other.txt") == 1
    assert client.downloaded() == []


def test_a_role_with_a_strange_name_is_asked_for_and_kept_quoted(client: Client) -> None:
    repo, role = client.repo, "a role/with strange ✓ name"
    from urllib.parse import quote

    repo.add(role, "odd/x", b"odd", None)
    repo.publish(role)
    # Only its name is quoted, so the mirror (which unquotes once) keeps it under the plain one.
    assert client.download("odd/x") == 0
    assert (client.metadata / f"{quote(role, '')}.json").exists()
    assert client.downloaded() == [b"odd"]


def test_a_chain_of_new_roots_is_followed(client: Client) -> None:
    for role in ("root", "timestamp", "snapshot", "targets", "root"):
        client.repo.rotate(role)
    client.repo.publish("targets")
    assert client.refresh() == 0
    assert client.version("root") == 6
    assert client.asked()[:6] == [f"{version}.root.json" for version in range(2, 8)]


def test_a_root_that_skips_a_version_stops_the_refresh(client: Client) -> None:
    client.repo.rotate("timestamp")
    client.repo.rotate("snapshot")
    client.repo.set_file("2.root.json", client.repo.file("3.root.json"))
    assert client.refresh() == 1
    assert client.version("root") == 1


def test_a_root_without_the_old_threshold_stops_the_refresh(client: Client) -> None:
    client.repo.set_file("2.root.json", forged(client.repo.root, client.repo.keys["root"][:1], version=2))
    assert client.refresh() == 1
    client.repo.set_file("2.root.json", forged(client.repo.root, client.repo.keys["root"][:2], version=2))
    assert client.refresh() == 0


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root"])
def test_an_expired_role_stops_the_refresh(client: Client, role: str) -> None:
    assert client.refresh() == 0
    client.repo.expires_ms[role] = now_ms() - DAY_MS
    client.repo.publish(role)
    assert client.refresh() == 1
    del client.repo.expires_ms[role]
    client.repo.publish(role)
    assert client.refresh() == 0


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_an_older_version_stops_the_refresh(client: Client, role: str) -> None:
    client.repo.publish("targets")
    assert client.refresh() == 0
    before = client.version(role)
    client.repo.md(role).signed.version -= 2
    client.repo.publish(role)
    assert client.refresh() == 1
    assert client.version(role) == before


def test_a_role_signed_by_a_stranger_stops_the_refresh(client: Client) -> None:
    client.repo.keys["timestamp"] = signers()
    client.repo.publish("timestamp")
    assert client.refresh() == 1
    assert not (client.metadata / "timestamp.json").exists()


def test_a_snapshot_of_another_hash_stops_the_refresh(client: Client) -> None:
    repo = client.repo
    data = repo.file(repo.newest("snapshot"))
    repo.timestamp.signed.snapshot_meta = MetaFile(repo.snapshot.signed.version, len(data), {"sha256": "0" * 64})
    repo.set_file("timestamp.json", forged(repo.timestamp, repo.keys["timestamp"]))
    assert client.refresh() == 1


def test_a_delegation_to_nobody_ends_quietly(client: Client) -> None:
    assert client.download("agent/unknown.tar") == 1
    assert client.downloaded() == []


@pytest.mark.parametrize("answer", [mirrors.redirecting("http://127.0.0.1:1/"), mirrors.endless], ids=["redirect", "endless"])
def test_an_answer_that_is_none_stops_the_refresh(client: Client, answer: Any) -> None:
    kept = client.repo.file("timestamp.json")
    client.repo.set_file("timestamp.json", answer)
    assert client.refresh() == 1
    client.repo.set_file("timestamp.json", kept)
    assert client.refresh() == 0


def test_two_at_once_do_not_share_a_directory(client: Client) -> None:
    from edge_agent.updater.cache import alone_in

    with alone_in(client.metadata):
        assert client.refresh() == 1
    assert client.refresh() == 0
