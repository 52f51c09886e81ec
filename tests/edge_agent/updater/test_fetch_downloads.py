"""Files on their way: they go on after a restart and a power cut, and nothing counts that was not hashed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent import tls
from edge_agent.updater import download as downloads
from edge_agent.updater import fetch, verified
from edge_agent.updater.cache import alone_in
from edge_agent.updater.download import Downloader, Item, Progress
from edge_agent.updater.errors import CacheInUse, NotTrusted, Stopped, Unavailable
from tests.edge_agent.attacks import mirror as mirrors
from tests.edge_agent.attacks.mirror import Mirror
from tests.support.tls import DAY, server_context
from tests.support.waiting import wait_until

pytestmark = pytest.mark.spec("U-201")

DATA = bytes(range(251)) * 20_000  # 5 MB that no shift maps onto itself
STEP = 256 * 1024
PACE = fetch.Pace(connect_s=5, silence_s=2, window_s=0.4, min_bytes_s=2000, deadline_s=None)


_made: list[fetch.Fetcher] = []


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with mirrors.running() as made:
        made.files["/image"] = DATA
        yield made
    while _made:
        _made.pop().close()


def item(mirror: Mirror) -> Item:
    return Item(f"{mirror.url}/image", len(DATA), hashlib.sha256(DATA).digest())


def downloader(mirror: Mirror, folder: Path, *, reserve_bytes: int = 0) -> Downloader:
    _made.append(fetch.Fetcher(fetch.Origin.of(mirror.url), tls=None, pace=PACE))
    return Downloader(
        folder, _made[-1], pace=PACE, reserve_bytes=reserve_bytes, sync_every_bytes=STEP, sleep=lambda seconds: None
    )


def stop_at(count: int) -> tuple[Callable[[Progress], None], Callable[[], bool]]:
    seen = [0]

    def progress(arrived: Progress) -> None:
        seen[0] = arrived.done

    return progress, lambda: seen[0] < count


def interrupted(mirror: Mirror, folder: Path, at: int = 2_000_000) -> int:
    """A download that was stopped; returns what its ledger says is safe."""
    progress, keep_on = stop_at(at)
    with pytest.raises(Stopped):
        downloader(mirror, folder).get(item(mirror), progress=progress, keep_on=keep_on)
    mirror.requests.clear()
    size = (folder / f"{item(mirror).name}.part").stat().st_size
    assert at <= size < len(DATA)
    return size


def test_a_file_comes_and_is_there_the_next_time(mirror: Mirror, tmp_path: Path) -> None:
    told: list[Progress] = []
    path = downloader(mirror, tmp_path / "new").get(item(mirror), progress=told.append)
    assert path.read_bytes() == DATA
    assert [each.done for each in told] == sorted(each.done for each in told) and told[-1] == Progress(len(DATA), len(DATA), 0)
    assert sorted(each.name for each in path.parent.iterdir()) == [item(mirror).name]
    mirror.requests.clear()
    assert downloader(mirror, tmp_path / "new").get(item(mirror)) == path
    assert mirror.requests == []


def test_a_connection_cut_again_and_again_costs_nothing_twice(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["/image"] = mirrors.cut_after(DATA, 1_500_000)
    told: list[Progress] = []
    path = downloader(mirror, tmp_path).get(item(mirror), progress=told.append)
    assert path.read_bytes() == DATA
    starts = [int((header or "bytes=0-")[6:-1]) for _, header in mirror.requests]
    assert starts == [0, 1_500_000, 3_000_000, 4_500_000]
    assert told[-1].resumed == 3


def test_it_goes_on_after_a_restart(mirror: Mirror, tmp_path: Path) -> None:
    kept = interrupted(mirror, tmp_path)
    told: list[Progress] = []
    assert downloader(mirror, tmp_path).get(item(mirror), progress=told.append).read_bytes() == DATA
    assert mirror.requests == [("/image", f"bytes={kept}-")]
    assert told[-1].resumed == 1


def test_it_goes_on_after_the_process_was_killed(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["/image"] = slow_after(DATA, 3_000_000)
    code = (
        "import sys, pathlib\n"
        "from edge_agent.updater import fetch; from edge_agent.updater.download import Downloader, Item\n"
        "url, length, digest, folder = sys.argv[1:]\n"
        "getting = fetch.Fetcher(fetch.Origin.of(url), tls=None)\n"
        f"Downloader(pathlib.Path(folder), getting, reserve_bytes=0, sync_every_bytes={STEP}).get("
        "Item(url, int(length), bytes.fromhex(digest)))\n"
    )
    wanted = item(mirror)
    child = subprocess.Popen(
        [sys.executable, "-c", code, wanted.url, str(wanted.length), wanted.name, str(tmp_path)],
        cwd=Path(__file__).parents[3],
    )
    try:
        ledger = tmp_path / f"{wanted.name}.ledger"
        safe = re.compile(rb'"synced":[2-9][0-9]{6}')
        wait_until(lambda: ledger.exists() and safe.search(ledger.read_bytes()), "two million bytes are safe", timeout_s=30)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    mirror.files["/image"] = DATA
    mirror.requests.clear()
    assert downloader(mirror, tmp_path).get(wanted).read_bytes() == DATA
    ((_, header),) = mirror.requests
    assert header is not None and int(header[6:-1]) >= 2_000_000


def slow_after(data: bytes, count: int) -> mirrors.Behaviour:
    def behave(handler: mirrors.Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data[:count])
        handler.mirror.released.wait(30)

    return behave


def test_after_a_power_cut_only_what_was_synced_counts(mirror: Mirror, tmp_path: Path) -> None:
    """The file is longer than its ledger says and has anything in its tail, as file systems leave it."""
    kept = interrupted(mirror, tmp_path)
    with (tmp_path / f"{item(mirror).name}.part").open("ab") as part:
        part.write(b"\0" * 700_000)
    assert downloader(mirror, tmp_path).get(item(mirror)).read_bytes() == DATA
    assert mirror.requests == [("/image", f"bytes={kept}-")]


def test_a_part_shorter_than_its_ledger_says_is_fetched_anew(mirror: Mirror, tmp_path: Path) -> None:
    interrupted(mirror, tmp_path)
    os.truncate(tmp_path / f"{item(mirror).name}.part", 1000)
    assert downloader(mirror, tmp_path).get(item(mirror)).read_bytes() == DATA
    assert mirror.requests == [("/image", None)]


@pytest.mark.parametrize(
    "spoiled", [b"", b"{", b"null", b'{"length":1,"synced":-5}', b'{"length":5020000,"synced":99999999}', b"\xff" * 9000]
)
def test_a_spoiled_ledger_means_a_new_beginning(mirror: Mirror, tmp_path: Path, spoiled: bytes) -> None:
    interrupted(mirror, tmp_path)
    (tmp_path / f"{item(mirror).name}.ledger").write_bytes(spoiled)
    assert downloader(mirror, tmp_path).get(item(mirror)).read_bytes() == DATA
    assert mirror.requests == [("/image", None)]


def test_another_file_under_the_same_address_is_not_glued_on(mirror: Mirror, tmp_path: Path) -> None:
    """The ETag is another one: the server sends the whole file, and the part is dropped."""
    ledger = tmp_path / f"{item(mirror).name}.ledger"
    interrupted(mirror, tmp_path)
    ledger.write_bytes(ledger.read_bytes().replace(b'"etag":"\\"', b'"etag":"\\"0'))
    told: list[Progress] = []
    assert downloader(mirror, tmp_path).get(item(mirror), progress=told.append).read_bytes() == DATA
    assert told[-1].resumed == 0


def test_a_server_without_ranges_costs_a_new_beginning(mirror: Mirror, tmp_path: Path) -> None:
    interrupted(mirror, tmp_path)
    mirror.files["/image"] = lambda handler: handler.send(200, DATA)
    assert downloader(mirror, tmp_path).get(item(mirror)).read_bytes() == DATA


def test_a_server_that_answers_another_range_than_asked_for(mirror: Mirror, tmp_path: Path) -> None:
    interrupted(mirror, tmp_path)
    lying = {"Content-Range": f"bytes 5-{len(DATA) - 1}/{len(DATA)}"}
    mirror.files["/image"] = lambda handler: handler.send(206, DATA[5:], lying)
    with pytest.raises(Unavailable) as caught:
        downloader(mirror, tmp_path).get(item(mirror))
    assert caught.value.reason == "unreachable"
    mirror.files["/image"] = DATA
    assert downloader(mirror, tmp_path).get(item(mirror)).read_bytes() == DATA


def test_the_rest_may_be_nothing(mirror: Mirror, tmp_path: Path) -> None:
    """Cut between the last byte and the rename."""
    downloader(mirror, tmp_path).get(item(mirror)).rename(tmp_path / f"{item(mirror).name}.part")
    (tmp_path / f"{item(mirror).name}.ledger").write_text(f'{{"length":{len(DATA)},"synced":{len(DATA)}}}')
    mirror.requests.clear()
    assert downloader(mirror, tmp_path).get(item(mirror)).read_bytes() == DATA
    assert mirror.requests == []


def test_no_room_on_the_disk_is_seen_before_and_in_between(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable) as caught:
        downloader(mirror, tmp_path, reserve_bytes=2**60).get(item(mirror))
    assert caught.value.reason == "noSpace" and mirror.requests == []
    write, left = os.write, [10]

    def full(handle: int, data: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "full")
        return write(handle, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Unavailable) as caught:
        downloader(mirror, tmp_path).get(item(mirror))
    assert caught.value.reason == "noSpace"
    monkeypatch.undo()
    assert downloader(mirror, tmp_path).get(item(mirror)).read_bytes() == DATA


def test_discard_leaves_what_is_still_wanted(mirror: Mirror, tmp_path: Path) -> None:
    path = downloader(mirror, tmp_path).get(item(mirror))
    for name in ("ab" * 32, f"{'cd' * 32}.part", f"{'cd' * 32}.ledger"):
        (tmp_path / name).write_bytes(b"old")
    downloader(mirror, tmp_path).discard([item(mirror).sha256])
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_two_updaters_never_share_a_directory(tmp_path: Path) -> None:
    with alone_in(tmp_path / "a"):
        with pytest.raises(CacheInUse), alone_in(tmp_path / "a"):
            raise AssertionError("both are in")
        with alone_in(tmp_path / "b"):
            pass
    with alone_in(tmp_path / "a"):
        pass


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, time; from edge_agent.updater.cache import alone_in\n"
        "with alone_in(pathlib.Path(sys.argv[1])): print('in', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"in\n"
        with pytest.raises(CacheInUse), alone_in(tmp_path):
            raise AssertionError("both are in")
        child.kill()
        child.wait()
    with alone_in(tmp_path):
        pass


def test_reading_what_was_hashed(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(DATA)
    digest = hashlib.sha256(DATA).digest()
    with verified.open_verified(path, len(DATA), digest) as file:
        reader = verified.HashingReader(file, len(DATA), digest)
        assert reader.read(1000) == DATA[:1000]
        reader.finish()
        file.seek(0)
        reader = verified.HashingReader(file, len(DATA) - 1, digest)
        with pytest.raises(NotTrusted):
            reader.finish()
    with pytest.raises(NotTrusted):
        verified.open_verified(path, len(DATA), b"\0" * 32)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(NotTrusted):
        verified.open_verified(tmp_path / "link", len(DATA), digest)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotTrusted):
        verified.open_verified(tmp_path / "pipe", len(DATA), digest)


def test_on_a_slow_line_little_is_lost_though_few_bytes_came(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill loses what is not in the ledger: with stretches of megabytes alone, a van's whole evening."""
    monkeypatch.setattr(downloads, "SYNC_EVERY_S", 0.0)
    _made.append(fetch.Fetcher(fetch.Origin.of(mirror.url), tls=None, pace=PACE))
    patient = Downloader(tmp_path, _made[-1], pace=PACE, reserve_bytes=0, sync_every_bytes=1 << 40)
    safe: list[int] = []

    def progress(arrived: Progress) -> None:
        ledger = tmp_path / f"{item(mirror).name}.ledger"
        if ledger.exists():
            safe.append(json.loads(ledger.read_bytes())["synced"])

    patient.get(item(mirror), progress=progress)
    assert safe[0] < len(DATA) // 2
    assert safe == sorted(safe)


def test_a_certificate_that_expires_in_the_middle(tmp_path: Path) -> None:
    """Told as that, what has come is kept, and with a new certificate it goes on."""
    for name in ("good", "expired"):
        (tmp_path / name).mkdir()
    context, good = server_context(tmp_path / "good")
    _, expired = server_context(tmp_path / "expired", ends_in=-DAY)
    trusted = tls.client_context(good.read_text("ascii") + expired.read_text("ascii"), check_dates=True)
    with mirrors.running(context) as mirror:
        mirror.files["/image"] = mirrors.cut_after(DATA, 2_000_000)

        def expire(arrived: Progress) -> None:
            context.load_cert_chain(expired, expired.with_suffix(".key"))

        with fetch.Fetcher(fetch.Origin.of(mirror.url), tls=trusted, pace=PACE) as getting:
            files = Downloader(tmp_path / "images", getting, pace=PACE, reserve_bytes=0, sync_every_bytes=STEP)
            with pytest.raises(Unavailable) as caught:
                files.get(item(mirror), progress=expire)
            assert caught.value.reason == "certificate"
            context.load_cert_chain(good, good.with_suffix(".key"))
            mirror.files["/image"] = DATA
            mirror.requests.clear()
            assert files.get(item(mirror)).read_bytes() == DATA
        assert mirror.requests == [("/image", "bytes=2000000-")]
