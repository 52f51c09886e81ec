"""Every command of `fleet-server tuf`, each judged by what a real TUF client then accepts over HTTP."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api.exceptions import ExpiredMetadataError, RepositoryError

from fleet_server import cli
from fleet_server.updates import ceremony, director, drafts, duty, intake, keys, plan, steps, trust, words
from fleet_server.updates.ceremony import Change
from fleet_server.updates.errors import UpdatesError
from fleet_server.updates.layout import UpdatesLayout
from fleet_server.updates.repository import Updates
from fleet_server.updates.serving import Files
from protocols.contract.artifacts import ImageCustom
from tests.fleet_server.updates.client import Client
from tests.support.tuf_repo import now_ms, serving

DAY_MS = 86_400_000
PASSWORD = "correct horse battery"
CONTENT = "content/birth/1.tar"


class Hall:
    """A server's data directory, and the key files of people beside it. Commands run as a person types them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._capsys, self._monkeypatch = folder, capsys, monkeypatch
        self.updates = Updates(UpdatesLayout(folder / "data" / "updates"))
        (folder / "passwords").write_text(PASSWORD + "\n")
        monkeypatch.setenv(steps.PASSWORD_VARIABLE, str(folder / "passwords"))
        monkeypatch.setenv("LC_ALL", "en_GB.UTF-8")
        self.clock_ms = now_ms()

    def run(self, *words_: str | Path, ok: bool = True) -> str:
        self._monkeypatch.setattr(steps, "_now_ms", lambda: self.clock_ms)
        self._capsys.readouterr()
        code = cli.main(["--data", str(self.folder / "data"), *map(str, words_)])
        said = self._capsys.readouterr()
        assert (code == 0) == ok, said.out + said.err
        return said.out + said.err

    def key(self, name: str) -> Path:
        """The private key file of `name`, made when it is first asked for."""
        path = self.folder / f"{name}.pem"
        if not path.exists():
            keys.new_key_file(path, PASSWORD, f"holder {name}")
        return path

    def pub(self, name: str) -> Path:
        return keys.public_path(self.key(name))

    def id(self, name: str) -> str:
        return keys.read_public(self.pub(name)).keyid

    def draft(self, name: str) -> Path:
        return self.updates.layout.drafts / f"{name}.json"

    def sign(self, name: str, *people: str) -> str:
        return self.run("tuf", "sign", self.draft(name), *(word for person in people for word in ("--key", self.key(person))))

    def found(self) -> None:
        self.run("tuf", "init")
        self.run(
            *("tuf", "ceremony", "--root", self.key("a"), self.key("b"), self.pub("c")),
            *("--targets", self.key("t1"), self.key("t2"), self.pub("t3")),
            *("--agent", self.pub("r1"), "--profiles", self.pub("r1"), "--image", self.pub("r1")),
            *("--firmware", self.pub("f1"), self.pub("f2"), self.pub("f3")),
        )
        custom = ImageCustom(component="content", version="1", release=1, name="birth")
        intake.add_online(self.updates, "content", CONTENT, b"pages", custom, now_ms=self.clock_ms)
        director.set_assignments(self.updates, {"kiosk-1": []}, now_ms=self.clock_ms)

    def release(self, version: str, *people: str, role: str = "agent", ok: bool = True) -> str:
        """A release pack, made from this server's state and uploaded."""
        import io
        import tarfile

        artifact = self.folder / f"{role}-{version}.tar"
        with tarfile.open(artifact, "w") as archive:
            entry = tarfile.TarInfo("bin/agent")
            entry.size = len(version)
            archive.addfile(entry, io.BytesIO(version.encode()))
        state, pack = self.folder / "state.json", self.folder / f"{role}-{version}.pack"
        self.run("release", "state", role, "-o", state)
        more = ["--hardware", "epson-tm-t88"] if role == "firmware" else ["--arch", "x86_64"]
        words_: list[str | Path] = ["release", "sign", artifact, "--state", state, "--version", version, "-o", pack, *more]
        self.run(*words_, *(word for person in people for word in ("--key", self.key(person))))
        return self.run("release", "upload", pack, ok=ok)


@pytest.fixture
def hall(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Hall:
    made = Hall(tmp_path, capsys, monkeypatch)
    made.found()
    return made


@pytest.fixture
def url(hall: Hall) -> Iterator[str]:
    files = Files(hall.updates.layout)
    with serving(files) as address:
        yield f"{address}/updates/"
    files.close()


@pytest.fixture
def image(hall: Hall, url: str, tmp_path: Path) -> Client:
    """A terminal that was enrolled right after the ceremony."""
    client = Client(tmp_path / "image", url, "image", hall.updates.roots()["image"])
    client.refresh()
    return client


@pytest.fixture
def of_director(hall: Hall, url: str, tmp_path: Path) -> Client:
    client = Client(tmp_path / "director", url, "director", hall.updates.roots()["director"])
    client.refresh()
    return client


# Founding -------------------------------------------------------------------------------------------------------------------------------


def test_a_ceremony_step_by_step_in_several_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(tmp_path, capsys, monkeypatch)
    assert "at least three people" in hall.run("tuf", "init")
    assert "nothing was changed" in hall.run("tuf", "init")
    public = [hall.pub(name) for name in "abc"]
    said = hall.run("tuf", "ceremony", "--root", *public, "--agent", hall.pub("r1"))
    assert "2 more signatures are needed" in said and "holder a" in said
    assert hall.updates.roots() == {}
    copies = []
    for person in "ab":
        # Each signs a copy of their own, on a machine that has never seen the server.
        away = tmp_path / f"stick-{person}"
        shutil.copytree(hall.updates.layout.drafts, away)
        copies += sorted(away.iterdir())
        hall.run("--data", tmp_path / "nowhere", "tuf", "root", "sign", *sorted(away.iterdir()), "--key", hall.key(person))
    assert "lacks" not in hall.run("tuf", "root", "publish", *copies)
    assert set(hall.updates.roots()) == {"image", "director"}
    with serving(Files(hall.updates.layout)) as address:
        for name in ("image", "director"):
            Client(tmp_path / name, f"{address}/updates/", name, hall.updates.roots()[name]).refresh()
    assert drafts.pending(hall.updates.layout) == []


def test_one_signature_of_two_publishes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(tmp_path, capsys, monkeypatch)
    hall.run("tuf", "init")
    said = hall.run("tuf", "ceremony", "--root", hall.key("a"), hall.pub("b"), hall.pub("c"))
    assert "1 more signatures are needed" in said
    assert hall.updates.roots() == {}
    assert "nothing that could be published" in hall.run("tuf", "publish", ok=False)
    assert "no root" in hall.run("tuf", "status", ok=False)


def test_the_same_key_given_twice_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(tmp_path, capsys, monkeypatch)
    hall.run("tuf", "init")
    copy = tmp_path / "again.pub"
    shutil.copyfile(hall.pub("a"), copy)
    assert "never counts as two" in hall.run("tuf", "ceremony", "--root", hall.pub("a"), copy, hall.pub("b"), ok=False)
    renamed = json.loads(copy.read_text())
    renamed["keyid"] = "0" * 64
    copy.write_text(json.dumps(renamed))
    assert "cannot be read" in hall.run("tuf", "ceremony", "--root", hall.pub("a"), copy, hall.pub("b"), ok=False)
    assert hall.updates.roots() == {}


def test_thresholds_that_make_no_sense_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(tmp_path, capsys, monkeypatch)
    hall.run("tuf", "init")
    said = hall.run("tuf", "ceremony", "--root", hall.pub("a"), ok=False)
    assert "threshold of 2 makes no sense" in said


def test_a_ceremony_is_held_once(hall: Hall) -> None:
    assert "founded already" in hall.run("tuf", "ceremony", "--root", hall.pub("x"), hall.pub("y"), hall.pub("z"), ok=False)


def test_a_client_of_the_first_day_finds_what_is_there(image: Client, of_director: Client) -> None:
    assert image.fetch(CONTENT) == b"pages"
    assert of_director.target("kiosk-1/agent") is None


# Keys -----------------------------------------------------------------------------------------------------------------------------------


def test_a_key_file_is_protected_and_never_overwritten(hall: Hall) -> None:
    path = hall.folder / "new.pem"
    said = hall.run("tuf", "key", "new", path, "--label", "safe 2")
    assert "safe 2" in said and "lock it away" in said
    assert b"ENCRYPTED" in path.read_bytes() and path.stat().st_mode & 0o077 == 0
    before = path.read_bytes()
    assert "is not overwritten" in hall.run("tuf", "key", "new", path, ok=False)
    assert path.read_bytes() == before
    assert "safe 2" in hall.run("tuf", "key", "show", keys.public_path(path))
    assert "must not come to this place" in hall.run("tuf", "key", "show", path, ok=False)


def test_a_wrong_password_signs_nothing(hall: Hall) -> None:
    hall.run("tuf", "root", "new", "--repository", "image")
    key = hall.key("a")
    (hall.folder / "passwords").write_text("another one entirely\n")
    before = hall.draft("image.root").read_bytes()
    assert "is wrong" in hall.run("tuf", "sign", hall.draft("image.root"), "--key", key, ok=False)
    assert hall.draft("image.root").read_bytes() == before


def test_a_short_password_makes_no_key(hall: Hall) -> None:
    (hall.folder / "passwords").write_text("short\n")
    assert "at least 12" in hall.run("tuf", "key", "new", hall.folder / "k.pem", ok=False)
    assert not (hall.folder / "k.pem").exists()


def test_a_strangers_key_signs_nothing(hall: Hall) -> None:
    hall.run("tuf", "root", "new", "--repository", "image")
    assert "may not sign" in hall.run("tuf", "sign", hall.draft("image.root"), "--key", hall.key("r1"), ok=False)


# Rotation of every role -----------------------------------------------------------------------------------------------------------------


def test_rotating_root_needs_the_old_and_the_new(hall: Hall, image: Client) -> None:
    hall.run(
        "tuf",
        "root",
        "new",
        "--repository",
        "image",
        "--add",
        hall.pub("d"),
        hall.pub("e"),
        "--remove",
        hall.id("b"),
        hall.id("c"),
    )
    said = hall.run("tuf", "show")
    assert "new keys holder d" in said and "removed keys holder b" in said
    hall.sign("image.root", "d", "e")
    assert "nothing that could" in hall.run("tuf", "publish", ok=False)
    hall.sign("image.root", "a")
    assert "nothing that could" in hall.run("tuf", "publish", ok=False)
    hall.sign("image.root", "c")
    assert "image repository, version 2" in hall.run("tuf", "publish")
    image.refresh()
    assert image.version("root") == 2


@pytest.mark.parametrize("role", ["snapshot", "timestamp"])
@pytest.mark.parametrize("name", ["image", "director"])
def test_rotating_snapshot_and_timestamp(hall: Hall, image: Client, of_director: Client, name: str, role: str) -> None:
    client = image if name == "image" else of_director
    old = hall.updates.of(name).trusted_root().signed.roles[role].keyids
    hall.run("tuf", "rotate", role, "--repository", name)
    client.refresh()
    hall.sign(f"{name}.root", "a", "b")
    said = hall.run("tuf", "publish")
    assert f"The online key {old[0][:8]} is used no more" in said
    client.refresh()
    new = hall.updates.of(name).trusted_root().signed.roles[role].keyids
    assert client.version("root") == 2 and new != old
    assert hall.updates.keys.get(old[0]) is None
    duty.keep_fresh(hall.updates.layout, hall.clock_ms + 2 * DAY_MS)
    client.refresh()


def test_rotating_targets_waits_for_the_targets_signed_anew(hall: Hall, image: Client) -> None:
    hall.run("tuf", "rotate", "targets", "--add", hall.pub("t4"), hall.pub("t5"), "--remove", hall.id("t1"), hall.id("t2"))
    hall.sign("image.root", "a", "b")
    assert "nothing that could" in hall.run("tuf", "publish", ok=False)
    image.refresh()
    hall.sign("image.targets", "t4", "t5")
    hall.run("tuf", "publish")
    image.refresh()
    assert (image.version("root"), image.version("targets")) == (2, 2)
    assert image.fetch(CONTENT) == b"pages"


def test_rotating_the_directors_targets_key(hall: Hall, of_director: Client) -> None:
    hall.run("tuf", "rotate", "targets", "--repository", "director")
    hall.sign("director.root", "a", "b")
    hall.run("tuf", "publish")
    of_director.refresh()
    assert (of_director.version("root"), of_director.version("targets")) == (2, 3)
    director.set_assignments(hall.updates, {"kiosk-2": []}, now_ms=hall.clock_ms)
    of_director.refresh()


def test_rotating_the_key_of_all_terminals_is_one_step(hall: Hall, image: Client, of_director: Client) -> None:
    hall.release("1.0", "r1")
    wanted = [director.Assignment(bundle="a" * 32, component="agent", target="agent/agent-1.0.tar")]
    director.set_assignments(hall.updates, {f"kiosk-{number}": wanted for number in range(20)}, now_ms=hall.clock_ms)
    assert of_director.target("kiosk-3/agent") is not None
    said = hall.run("tuf", "rotate", "terminals", "--repository", "director")
    assert re.search(r"assignments of 20 terminals", said)
    assert of_director.target("kiosk-3/agent") is not None
    assert of_director.target("kiosk-19/agent") is not None


@pytest.mark.parametrize("role", ["agent", "profiles", "image"])
def test_rotating_a_release_role(hall: Hall, image: Client, role: str) -> None:
    hall.release("1.0", "r1", role=role)
    hall.run("tuf", "rotate", role, "--add", hall.pub("r2"), "--remove", hall.id("r1"))
    hall.sign("image.targets", "t1", "t2")
    said = hall.run("tuf", "publish", ok=False)
    assert "not signed as the new rules want" in said
    assert image.target(f"{role}/{role}-1.0.tar") is not None, "nothing breaks meanwhile"
    hall.sign(f"image.{role}", "r2")
    hall.run("tuf", "publish")
    assert image.target(f"{role}/{role}-1.0.tar") is not None
    hall.release("1.1", "r2", role=role)
    assert image.target(f"{role}/{role}-1.1.tar") is not None


def test_rotating_firmware_keeps_two_of_three(hall: Hall, image: Client) -> None:
    hall.release("7", "f1", "f2", role="firmware")
    hall.run("tuf", "rotate", "firmware", "--add", hall.pub("f4"), "--remove", hall.id("f1"))
    hall.sign("image.targets", "t1", "t3")
    hall.sign("image.firmware", "f4")
    hall.run("tuf", "publish", ok=False)
    hall.sign("image.firmware", "f3")
    hall.run("tuf", "publish")
    assert image.target("firmware/epson-tm-t88/firmware-7.tar") is not None


@pytest.mark.parametrize("role", ["content", "catalogue", "packed"])
def test_rotating_an_online_role_of_the_image_repository(hall: Hall, image: Client, role: str) -> None:
    old = [key.keyid for key in trust.keys_of(hall.updates.image.targets().signed, role)]
    hall.run("tuf", "rotate", role)
    hall.sign("image.targets", "t1", "t2")
    hall.run("tuf", "publish")
    new = [key.keyid for key in trust.keys_of(hall.updates.image.targets().signed, role)]
    assert new != old and hall.updates.keys.get(old[0]) is None
    assert image.fetch(CONTENT) == b"pages"
    custom = ImageCustom(component="content", version="2", release=2, name="birth")
    intake.add_online(hall.updates, "content", "content/birth/2.tar", b"more", custom, now_ms=hall.clock_ms)
    assert image.fetch("content/birth/2.tar") == b"more"


def test_changing_a_threshold(hall: Hall, image: Client) -> None:
    hall.run("tuf", "rotate", "agent", "--add", hall.pub("r2"), "--threshold", "2")
    assert "signatures needed 1 → 2" in hall.run("tuf", "show")
    hall.sign("image.targets", "t1", "t2")
    hall.run("tuf", "publish")
    assert "needs 2 valid signatures; there are 1" in hall.release("1.0", "r1", ok=False)
    (hall.folder / "agent-1.0.pack").unlink()
    hall.release("1.0", "r1", "r2")
    assert image.target("agent/agent-1.0.tar") is not None


def test_the_server_makes_its_own_keys(hall: Hall) -> None:
    assert "makes the keys of role snapshot itself" in hall.run("tuf", "rotate", "snapshot", "--add", hall.pub("x"), ok=False)


def test_a_role_that_does_not_exist(hall: Hall) -> None:
    assert "has no role bogus" in hall.run("tuf", "rotate", "bogus", "--add", hall.pub("x"), ok=False)


def test_a_first_delegation_later(hall: Hall, image: Client) -> None:
    hall.run("tuf", "delegate", "agent", "--key", hall.pub("n1"), hall.pub("n2"))
    hall.sign("image.targets", "t1", "t2")
    hall.run("tuf", "publish")
    hall.release("1.0", "n2")
    assert image.target("agent/agent-1.0.tar") is not None


# Revocation -----------------------------------------------------------------------------------------------------------------------------


def test_revoking_a_release_key_stops_what_it_signed(hall: Hall, image: Client) -> None:
    hall.release("1.0", "r1")
    said = hall.run("tuf", "revoke", hall.id("r1")[:12], "--add", hall.pub("r2"))
    assert "image.targets" in said and "image.agent" in said
    hall.sign("image.targets", "t1", "t2")
    said = hall.run("tuf", "publish", "--urgent")
    assert "no terminal installs anything of it" in said
    with pytest.raises(RepositoryError):
        image.target("agent/agent-1.0.tar")
    assert "not signed as the present rules want" in hall.run("tuf", "status", ok=False)
    wanted = [director.Assignment(bundle="a" * 32, component="agent", target="agent/agent-1.0.tar")]
    with pytest.raises(UpdatesError, match="cannot be assigned"):
        director.set_assignments(hall.updates, {"kiosk-1": wanted}, now_ms=hall.clock_ms)
    assert image.fetch(CONTENT) == b"pages", "the rest goes on"
    hall.sign("image.agent", "r2")
    hall.run("tuf", "publish")
    assert image.target("agent/agent-1.0.tar") is not None
    shutil.copyfile(hall.folder / "agent-1.0.tar", hall.folder / "agent-2.tar")
    assert "may not sign" in hall.run(
        *("release", "sign", hall.folder / "agent-2.tar", "--state", _state(hall), "--version", "2", "-o", hall.folder / "x"),
        *("--key", hall.key("r1")),
        ok=False,
    )


def _state(hall: Hall) -> Path:
    hall.run("release", "state", "agent", "-o", hall.folder / "state.json")
    return hall.folder / "state.json"


def test_revoking_a_root_key_takes_it_out_of_both_repositories(hall: Hall, image: Client, of_director: Client) -> None:
    said = hall.run("tuf", "revoke", hall.id("c"), "--add", hall.pub("d"))
    assert "image.root" in said and "director.root" in said
    hall.sign("image.root", "a", "b")
    hall.sign("director.root", "a", "b")
    hall.run("tuf", "publish")
    for client, repository in ((image, hall.updates.image), (of_director, hall.updates.director)):
        client.refresh()
        assert client.version("root") == 2
        assert hall.id("c") not in repository.trusted_root().signed.keys
    hall.run("tuf", "root", "new", "--repository", "image")
    assert "may not sign" in hall.run("tuf", "sign", hall.draft("image.root"), "--key", hall.key("c"), ok=False)


def test_revoking_an_online_key_replaces_it(hall: Hall, image: Client) -> None:
    old = hall.updates.image.trusted_root().signed.roles["timestamp"].keyids[0]
    hall.run("tuf", "revoke", old)
    hall.sign("image.root", "a", "b")
    hall.run("tuf", "publish")
    image.refresh()
    assert hall.updates.keys.get(old) is None


def test_revoking_below_the_threshold_wants_a_replacement(hall: Hall) -> None:
    hall.run("tuf", "revoke", hall.id("b"))
    said = hall.run("tuf", "revoke", hall.id("c"), ok=False)
    assert "fewer than the 2 that must sign" in said


def test_revoking_a_key_that_nobody_uses(hall: Hall) -> None:
    assert "No role uses a key" in hall.run("tuf", "revoke", "0123456789", ok=False)


# Expiry ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "role", "people"),
    [
        ("image", "root", ("a", "b")),
        ("director", "root", ("a", "b")),
        ("image", "targets", ("t1", "t2")),
        ("image", "agent", ("r1",)),
        ("image", "firmware", ("f1", "f3")),
    ],
)
def test_extending_what_people_sign(
    hall: Hall, image: Client, of_director: Client, name: str, role: str, people: tuple[str, ...]
) -> None:
    hall.release("1.0", "r1")
    hall.release("7", "f1", "f2", role="firmware")
    repository = hall.updates.of(name)
    before = repository.trusted_root() if role == "root" else repository.role(role)
    assert before is not None
    hall.clock_ms += 100 * DAY_MS
    hall.run("tuf", "extend", role, "--repository", name)
    hall.sign(f"{name}.{role}", *people)
    hall.run("tuf", "publish")
    after = repository.trusted_root() if role == "root" else repository.role(role)
    assert after is not None
    assert after.signed.version == before.signed.version + 1
    assert after.signed.expires - before.signed.expires == dt.timedelta(days=100)
    (image if name == "image" else of_director).refresh()
    assert image.target("agent/agent-1.0.tar") is not None


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("image", "snapshot"),
        ("image", "timestamp"),
        ("image", "content"),
        ("image", "packed"),
        ("director", "snapshot"),
        ("director", "timestamp"),
        ("director", "targets"),
        ("director", "terminals"),
    ],
)
def test_extending_what_the_server_signs(hall: Hall, image: Client, of_director: Client, name: str, role: str) -> None:
    repository = hall.updates.of(name)
    stands_for = "terminal-kiosk-1" if role == "terminals" else role

    def expires() -> dt.datetime:
        found = {"snapshot": repository.snapshot, "timestamp": repository.timestamp}.get(
            role, lambda: repository.role(stands_for)
        )()
        assert found is not None
        moment: dt.datetime = found.signed.expires
        return moment

    before = expires()
    hall.clock_ms += DAY_MS
    assert "Renewed" in hall.run("tuf", "extend", role, "--repository", name)
    assert expires() - before == dt.timedelta(days=1)
    (image if name == "image" else of_director).refresh()


def test_an_expired_root_stops_terminals_until_it_is_extended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(tmp_path, capsys, monkeypatch)
    hall.clock_ms = now_ms() - 366 * DAY_MS
    hall.found()
    hall.clock_ms = now_ms()
    duty.keep_fresh(hall.updates.layout, hall.clock_ms)
    said = hall.run("tuf", "status", ok=False)
    assert "expired on" in said and "tuf extend root" in said
    with serving(Files(hall.updates.layout)) as address:
        client = Client(tmp_path / "client", f"{address}/updates/", "image", hall.updates.roots()["image"])
        with pytest.raises(ExpiredMetadataError, match="root"):
            client.refresh()
        hall.run("tuf", "root", "new", "--repository", "image")
        hall.run("tuf", "extend", "targets")
        hall.sign("image.root", "a", "b")
        hall.sign("image.targets", "t1", "t2")
        hall.run("tuf", "publish")
        client.refresh()


def test_a_terminal_that_slept_through_twenty_roots_wakes_up(hall: Hall, image: Client) -> None:
    people = ["a", "b", "c"]
    for number in range(20):
        gone, new = people.pop(0), f"n{number}"
        people.append(new)
        hall.run("tuf", "root", "new", "--repository", "image", "--add", hall.pub(new), "--remove", hall.id(gone))
        # Two that the old and the new root both know.
        hall.sign("image.root", *people[:2])
        hall.run("tuf", "publish")
    assert hall.updates.image.root_version() == 21
    image.refresh()
    assert image.version("root") == 21
    assert image.fetch(CONTENT) == b"pages"


# Drafts ---------------------------------------------------------------------------------------------------------------------------------


def test_a_draft_that_was_changed_on_the_way_is_refused(hall: Hall, tmp_path: Path) -> None:
    hall.run("tuf", "root", "new", "--repository", "image", "--out", tmp_path / "stick")
    copy = tmp_path / "stick" / "image.root.json"
    tree = json.loads(copy.read_text())
    tree["metadata"]["signed"]["expires"] = "2099-01-01T00:00:00Z"
    copy.write_text(json.dumps(tree))
    hall.run("tuf", "sign", copy, "--key", hall.key("a"), "--key", hall.key("b"))
    assert "is another draft" in hall.run("tuf", "publish", copy, ok=False)


def test_a_forged_signature_does_not_count(hall: Hall) -> None:
    hall.run("tuf", "root", "new", "--repository", "image")
    hall.sign("image.root", "a")
    tree = json.loads(hall.draft("image.root").read_text())
    real = tree["metadata"]["signatures"][0]
    tree["metadata"]["signatures"].append({"keyid": hall.id("b"), "sig": real["sig"]})
    hall.draft("image.root").write_text(json.dumps(tree))
    assert "nothing that could" in hall.run("tuf", "publish", ok=False)


def test_what_a_draft_claims_about_its_rules_is_not_believed(hall: Hall) -> None:
    """Its threshold lowered in the copy of the old root: the person sees it as complete, the server does not."""
    hall.run("tuf", "root", "new", "--repository", "image")
    hall.sign("image.root", "a")
    tree = json.loads(hall.draft("image.root").read_text())
    tree["before"]["signed"]["roles"]["root"]["threshold"] = 1
    hall.draft("image.root").write_text(json.dumps(tree))
    assert "nothing that could" in hall.run("tuf", "publish", ok=False)
    assert hall.updates.image.root_version() == 1


def test_a_draft_can_be_given_up(hall: Hall) -> None:
    hall.run("tuf", "root", "new", "--repository", "image")
    assert "given up" in hall.run("tuf", "drop", "image.root")
    assert "Nothing waits" in hall.run("tuf", "show")
    assert "no draft" in hall.run("tuf", "drop", "image.../../keys", ok=False)


def test_changes_gather_in_one_draft(hall: Hall, image: Client) -> None:
    hall.run("tuf", "rotate", "snapshot")
    hall.run("tuf", "rotate", "timestamp")
    hall.run("tuf", "root", "new", "--repository", "image", "--add", hall.pub("d"))
    hall.sign("image.root", "a", "b")
    hall.run("tuf", "publish")
    image.refresh()
    assert image.version("root") == 2
    assert len(hall.updates.image.trusted_root().signed.roles["root"].keyids) == 4


# Words ----------------------------------------------------------------------------------------------------------------------------------


def test_status_says_what_stands_and_what_is_to_do(hall: Hall) -> None:
    said = hall.run("tuf", "status")
    assert "All is well." in said and "holder a" in said and "2 of 3 sign" in said
    hall.clock_ms += 320 * DAY_MS
    duty.keep_fresh(hall.updates.layout, hall.clock_ms)
    said = hall.run("tuf", "status", ok=False)
    assert "Call its holders together" in said


def test_status_notices_an_online_key_that_is_missing(hall: Hall) -> None:
    keyid = hall.updates.image.trusted_root().signed.roles["timestamp"].keyids[0]
    hall.updates.keys.forget(keyid)
    assert "is not on this server" in hall.run("tuf", "status", ok=False)


def test_status_notices_an_offline_key_on_the_server(hall: Hall) -> None:
    signer = keys.read_signer(hall.key("a"), PASSWORD)
    (hall.updates.layout.keys / f"{hall.id('a')}.pem").write_bytes(signer.private_bytes)
    hall.updates.keys = keys.OnlineKeys(hall.updates.layout)
    assert "treat it as stolen" in hall.run("tuf", "status", ok=False)


def test_chinese_by_locale(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert "一切正常" in hall.run("tuf", "status")
    assert "没有任何角色使用" in hall.run("tuf", "revoke", "0123456789", ok=False)


def test_both_languages_have_the_same_sentences_with_the_same_facts() -> None:
    zh, en = words.catalogue("zh"), words.catalogue("en")
    assert {name: set(table) for name, table in zh.items()} == {name: set(table) for name, table in en.items()}
    for name, table in zh.items():
        for key, sentence in table.items():
            fields = re.findall(r"\{([a-z0-9]+)\}", sentence)
            assert set(fields) == set(re.findall(r"\{([a-z0-9]+)\}", en[name][key])), key


def test_a_server_without_repositories_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(tmp_path, capsys, monkeypatch)
    assert "run fleet-server tuf init first" in hall.run("tuf", "status", ok=False)
    assert duty.keep_fresh(hall.updates.layout, now_ms()) == []


def test_an_emergency_by_command(hall: Hall, of_director: Client) -> None:
    hall.release("1.0", "r1")
    wanted = [director.Assignment(bundle="a" * 32, component="agent", target="agent/agent-1.0.tar")]
    director.set_assignments(hall.updates, {"kiosk-1": wanted}, now_ms=hall.clock_ms)
    assert of_director.target("kiosk-1/agent") is not None
    assert "assignments of 1 terminals are empty" in hall.run("tuf", "withdraw", "agent/agent-1.0.tar")
    assert of_director.target("kiosk-1/agent") is None


def test_a_change_of_nothing_is_none(hall: Hall) -> None:
    with pytest.raises(UpdatesError, match="Nothing was to be changed"):
        ceremony.rotate(hall.updates, "image", "agent", Change(), now_ms=hall.clock_ms)
    assert plan.is_offline("image", "agent")


def test_every_reason_has_its_sentence() -> None:
    """Whatever the code may say is in the catalogues: nobody meets a missing sentence at the worst moment."""
    source = "\n".join(path.read_text("utf-8") for path in Path(steps.__file__).parent.glob("*.py"))
    catalogue = words.catalogue("en")
    reasons = set(re.findall(r'(?:UpdatesError|PackRefused|Busy|_bad)\(\s*"([a-zA-Z0-9]+)"', source))
    said = set(re.findall(r'(?:_say|outcome\.say|\.say)\(\s*"([a-zA-Z0-9]+)"', source))
    warned = set(re.findall(r'(?:Warning_|warn)\(\s*"(?:soon|broken)",\s*"([a-zA-Z0-9]+)"', source))
    assert len(reasons) > 40 and len(said) > 30 and len(warned) > 8, "the patterns still find the calls"
    assert reasons <= set(catalogue["problems"]), reasons - set(catalogue["problems"])
    assert said <= set(catalogue["results"]), said - set(catalogue["results"])
    assert warned <= set(catalogue["warnings"]), warned - set(catalogue["warnings"])
    quoted = set(re.findall(r'"([a-zA-Z0-9]+)"', source))
    unused = [key for table in catalogue.values() for key in table if key not in quoted]
    assert not unused, unused
