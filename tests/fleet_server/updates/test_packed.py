"""Packed forms: what is made, what is kept, and that the result is the image again. With the real `zstd` program."""

from __future__ import annotations

import io
import json
import random
import shutil
import sqlite3
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from fleet_server.updates import packed
from fleet_server.updates.packed import Job
from protocols.contract import artifacts
from protocols.contract.artifacts import PackedCustom
from tests.support.tuf_repo import TufRepo, now_ms

pytestmark = pytest.mark.skipif(shutil.which("zstd") is None, reason="differences are made by the zstd program")


def image(seed: int, changed: int = 0, files: int = 12) -> bytes:
    """A tar of files that compress a little, like code; `changed` of them differ between seeds."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number in range(files):
            draw = random.Random(number if number >= changed else seed * 1000 + number)
            data = bytes(draw.choices(b"abcdefghijklmnopqrstuvwxyz \n", k=20_000))
            entry = tarfile.TarInfo(f"lib/{number}.py")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def repo(tmp_path: Path) -> TufRepo:
    made = TufRepo.create(tmp_path / "server")
    for number in (1, 2, 3):
        made.release(
            "agent", f"agent/{number}.tar", image(number, changed=2), version=f"1.{number}", release=number, arch="x86_64"
        )
    return made


def sha(repo: TufRepo, path: str) -> str:
    return repo.updates.image.known_targets()[path][1].hashes["sha256"]


def content(repo: TufRepo, path: str) -> bytes:
    return repo.updates.image.file_of(repo.updates.image.known_targets()[path][1]).read_bytes()


def unpacked(data: bytes) -> bytes:
    with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(io.BytesIO(data)) as stream:
        return stream.read()


def test_the_whole_and_differences_from_what_the_fleet_runs(repo: TufRepo, tmp_path: Path) -> None:
    one, two, three = (sha(repo, f"agent/{number}.tar") for number in (1, 2, 3))
    done = packed.make(repo.updates, {one: 3, two: 7}, now_ms=now_ms())
    assert (done.made, done.dropped) == (4, 0)
    known = repo.updates.image.known_targets()
    wanted = {
        artifacts.packed_path(three),
        artifacts.packed_path(two),
        artifacts.packed_path(three, two),
        artifacts.packed_path(three, one),
    }
    assert {path for path, (role, _) in known.items() if role == "packed"} == wanted
    whole, delta = known[artifacts.packed_path(three)][1], known[artifacts.packed_path(three, one)][1]
    assert delta.length < whole.length * 0.3 < known["agent/3.tar"][1].length * 0.3
    assert artifacts.of_custom(delta.custom, PackedCustom) == PackedCustom(to=three, base=one)
    assert unpacked(content(repo, whole.path)) == content(repo, "agent/3.tar")
    out = tmp_path / "patched"
    base = repo.updates.image.file_of(known["agent/1.tar"][1])
    subprocess.run(
        ["zstd", "-q", "-d", f"--patch-from={base}", str(repo.updates.image.file_of(delta)), "-o", str(out)], check=True
    )
    assert out.read_bytes() == content(repo, "agent/3.tar")


def test_the_terminals_own_code_unpacks_them(repo: TufRepo, tmp_path: Path) -> None:
    from edge_agent.updater import delta as terminal
    from edge_agent.updater.trust import Form

    one, three = sha(repo, "agent/1.tar"), sha(repo, "agent/3.tar")
    packed.make(repo.updates, {one: 1}, now_ms=now_ms())
    known = repo.updates.image.known_targets()
    old, new = known["agent/1.tar"][1], known["agent/3.tar"][1]
    for base in (None, one):
        target = known[artifacts.packed_path(three, base)][1]
        form = Form(
            via="delta" if base else "packed",
            url=target.path,
            length=target.length,
            sha256=bytes.fromhex(target.hashes["sha256"]),
            base=bytes.fromhex(base) if base else None,
        )
        at_hand = terminal.Base(repo.updates.image.file_of(old), old.length, bytes.fromhex(one)) if base else None
        out = tmp_path / f"out-{base}"
        terminal.unpack(
            repo.updates.image.file_of(target), form, out, length=new.length, sha256=bytes.fromhex(three), base=at_hand
        )
        assert out.read_bytes() == content(repo, "agent/3.tar")


def test_what_is_there_is_not_made_again(repo: TufRepo) -> None:
    packed.make(repo.updates, {}, now_ms=now_ms())
    version = repo.updates.image.versions()["packed"]
    assert packed.make(repo.updates, {}, now_ms=now_ms()).made == 0
    assert repo.updates.image.versions()["packed"] == version


def test_what_would_not_be_smaller_is_given_up_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = TufRepo.create(tmp_path / "server")
    repo.release("agent", "agent/noise.tar", random.Random(1).randbytes(200_000))
    assert packed.make(repo.updates, {}, now_ms=now_ms()) == packed.Made(made=0, kept=0, dropped=1)
    monkeypatch.setattr(packed, "compress", lambda *_: pytest.fail("it was given up"))
    assert packed.make(repo.updates, {}, now_ms=now_ms()) == packed.Made()
    assert len(json.loads((repo.updates.layout.root / "not-smaller.json").read_text())) == 1


def test_what_nobody_needs_any_more_goes(repo: TufRepo) -> None:
    one, two = sha(repo, "agent/1.tar"), sha(repo, "agent/2.tar")
    packed.make(repo.updates, {one: 1, two: 1}, now_ms=now_ms())
    assert packed.clear_away(repo.updates, {two: 1}, now_ms=now_ms()) == [artifacts.packed_path(sha(repo, "agent/3.tar"), one)]
    assert packed.clear_away(repo.updates, {two: 1}, now_ms=now_ms()) == []


def test_firmware_and_small_files_stay_as_they_are(tmp_path: Path) -> None:
    repo = TufRepo.create(tmp_path / "server")
    repo.release("firmware", "firmware/printer/7.bin", bytes(1 << 20), version="7", hardware=("printer-a",))
    repo.release("agent", "agent/small.tar", bytes(1000))
    assert packed.make(repo.updates, {}, now_ms=now_ms()) == packed.Made()


def test_a_duty_makes_one_at_a_time(repo: TufRepo) -> None:
    with sqlite3.connect(":memory:") as conn:
        conn.execute("CREATE TABLE installed_version (terminal, component, version, release, sha256, at_ms, batch, idx)")
        one = sha(repo, "agent/1.tar")
        conn.executemany(
            "INSERT INTO installed_version (terminal, component, sha256) VALUES (?, 'agent', ?)",
            [("kiosk-1", bytes.fromhex(one)), ("kiosk-2", None)],
        )
        turn = packed.step(repo.updates.layout)
        turns = 0
        while turn(conn, now_ms()):
            turns += 1
        assert turns == 3
    assert artifacts.packed_path(sha(repo, "agent/3.tar"), one) in repo.updates.image.known_targets()


def test_a_program_that_dies_is_no_harm(repo: TufRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "command_for", lambda *_: ["false"])
    done = packed.make(repo.updates, {}, now_ms=now_ms())
    assert (done.made, done.dropped) == (0, 2)


def test_too_much_memory_ends_the_program_and_not_the_server(
    repo: TufRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "big"
    with source.open("wb") as file:
        file.truncate(100 << 20)
    monkeypatch.setattr(packed, "MEMORY_MAX_BYTES", 40 << 20)
    assert not packed.compress(source, tmp_path / "out", None)
    monkeypatch.undo()
    assert packed.compress(source, tmp_path / "out", None)


def test_without_the_program_the_library_packs_the_whole(repo: TufRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    source = tmp_path / "source"
    source.write_bytes(image(1))
    assert packed.compress(source, tmp_path / "out")
    assert unpacked((tmp_path / "out").read_bytes()) == source.read_bytes()
    assert not packed.compress(source, tmp_path / "delta", source)


def test_jobs_prefer_what_most_terminals_run(repo: TufRepo) -> None:
    targets = [target for _, target in repo.updates.image.known_targets().values()]
    one, two, three = (sha(repo, f"agent/{number}.tar") for number in (1, 2, 3))
    assert packed.jobs(targets, {one: 9, two: 1}) == [Job(three), Job(two), Job(three, one), Job(three, two)]
    assert packed.jobs(targets, {three: 400, "f" * 64: 3}) == [Job(three), Job(two)]
