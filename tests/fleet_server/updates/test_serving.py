"""The repositories over HTTP and HTTPS: ranges, tags, paths that lead nowhere, memory that stays flat."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from fleet_server import db
from fleet_server.authority.authority import Authority
from fleet_server.enrolment import listener
from fleet_server.settings import Layout
from fleet_server.updates.layout import UpdatesLayout
from fleet_server.updates.serving import CHUNK_BYTES, Files, Span, choose, mounted
from tests.fleet_server.updates.client import Client
from tests.support.processes import Processes
from tests.support.tuf_repo import TufRepo, serving
from tests.support.waiting import wait_until

CONTENT = os.urandom(3 * CHUNK_BYTES + 17)
NAME = "/updates/image/targets/agent/" + hashlib.sha256(CONTENT).hexdigest() + ".kiosk-1.1.0.tar"
TIMESTAMP = "/updates/image/metadata/timestamp.json"


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> TufRepo:
    made = TufRepo.create(tmp_path_factory.mktemp("server"), terminals=["kiosk-1"])
    made.release("agent", "agent/kiosk-1.1.0.tar", CONTENT, version="1.1.0")
    return made


@pytest.fixture(scope="module")
def port(repo: TufRepo) -> Iterator[int]:
    with repo.serve() as url:
        yield urlsplit(url).port or 0


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with closing(connection):
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def test_a_whole_file(port: int) -> None:
    status, headers, body = ask(port, NAME)
    assert (status, body == CONTENT, headers["content-length"]) == (200, True, str(len(CONTENT)))
    assert headers["accept-ranges"] == "bytes"
    assert headers["etag"].startswith('"'), "strong"
    assert "immutable" in headers["cache-control"]
    assert headers["x-content-type-options"] == "nosniff"


def test_the_timestamp_is_asked_for_each_time(port: int) -> None:
    status, headers, _ = ask(port, TIMESTAMP)
    assert (status, headers["cache-control"], headers["content-type"]) == (200, "no-cache", "application/json")


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=5-9", 5, 9),
        (f"bytes={CHUNK_BYTES - 1}-{CHUNK_BYTES}", CHUNK_BYTES - 1, CHUNK_BYTES),
        (f"bytes={CHUNK_BYTES}-", CHUNK_BYTES, len(CONTENT) - 1),
        ("bytes=-10", len(CONTENT) - 10, len(CONTENT) - 1),
        (f"bytes=-{len(CONTENT) + 5}", 0, len(CONTENT) - 1),
        (f"bytes=7-{len(CONTENT) + 1000}", 7, len(CONTENT) - 1),
    ],
)
def test_one_range(port: int, asked: str, first: int, last: int) -> None:
    status, headers, body = ask(port, NAME, Range=asked)
    assert status == 206
    assert headers["content-range"] == f"bytes {first}-{last}/{len(CONTENT)}"
    assert body == CONTENT[first : last + 1]


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", f"bytes={len(CONTENT) + 9}-{len(CONTENT) + 10}", "bytes=-0"])
def test_a_range_that_begins_behind_the_end(port: int, asked: str) -> None:
    status, headers, body = ask(port, NAME, Range=asked)
    assert (status, headers["content-range"], body) == (416, f"bytes */{len(CONTENT)}", b"")


@pytest.mark.parametrize(
    "asked", ["bytes=5-3", "bytes=a-b", "bytes=", "bytes=-", "bytes=0-1,5-6", "items=0-1", "bytes=99999999999999999-"]
)
def test_ranges_that_are_none_get_the_whole(port: int, asked: str) -> None:
    status, _, body = ask(port, NAME, Range=asked)
    assert (status, len(body)) == (200, len(CONTENT))


def test_a_range_goes_on_only_in_the_same_content(port: int) -> None:
    tag = ask(port, NAME, "HEAD")[1]["etag"]
    assert ask(port, NAME, Range="bytes=10-", If_Range=tag)[0] == 206
    assert ask(port, NAME, Range="bytes=10-", If_Range='"other"')[0] == 200
    assert ask(port, NAME, Range="bytes=10-", If_Range=f"W/{tag}")[0] == 200, "a weak tag never fits"
    assert ask(port, NAME, Range="bytes=10-", If_Range="Sat, 01 Jan 2000 00:00:00 GMT")[0] == 200


def test_what_is_known_already_is_not_sent_again(port: int) -> None:
    tag = ask(port, TIMESTAMP, "HEAD")[1]["etag"]
    status, headers, body = ask(port, TIMESTAMP, If_None_Match=tag)
    assert (status, body, headers["etag"]) == (304, b"", tag)
    assert ask(port, TIMESTAMP, If_None_Match='"x"')[0] == 200


def test_a_new_timestamp_has_a_new_tag(repo: TufRepo, port: int) -> None:
    before = ask(port, TIMESTAMP, "HEAD")[1]["etag"]
    repo.release("profiles", f"profiles/{time.time_ns()}.tar", b"x", version="1", release=time.time_ns() // 1000)
    assert ask(port, TIMESTAMP, "HEAD")[1]["etag"] != before


def test_head_sends_no_body(port: int) -> None:
    status, headers, body = ask(port, NAME, "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(CONTENT)), b"")
    status, headers, body = ask(port, NAME, "HEAD", Range="bytes=0-9")
    assert (status, headers["content-length"], body) == (206, "10", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_written(port: int, method: str) -> None:
    status, headers, _ = ask(port, NAME, method, Content_Length="0")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/updates/",
        "/updates/image",
        "/updates/image/metadata",
        "/updates/image/metadata/",
        "/updates/image/targets/agent",
        "/updates/image/targets/agent/",
        "/updates/keys/x.pem",
        "/updates/image/../../keys",
        "/updates/image/metadata/../../../online.json",
        "/updates/image/metadata/../../image/metadata/timestamp.json",
        "/updates/image/metadata/%2e%2e/%2e%2e/%2e%2e/online.json",
        "/updates/image/metadata/..%2f..%2f..%2fonline.json",
        "/updates/image/metadata/%2e%2e%2f%2e%2e%2f%2e%2e%2fonline.json",
        "/updates/image/metadata/..%5c..%5c..%5conline.json",
        "/updates/image/metadata/..\\..\\..\\online.json",
        "/updates/image/metadata/%252e%252e/online.json",
        "/updates/image/metadata/timestamp.json%00",
        "/updates/image/metadata/timestamp.json%00.txt",
        "/updates/image/metadata//timestamp.json",
        "/updates//image/metadata/timestamp.json",
        "/updates/./image/metadata/timestamp.json",
        "/updates/image/metadata/./timestamp.json",
        "/updates/image/metadata/.hidden",
        "/updates/image/metadata/%2ehidden",
        "/updates/image/metadata/timestamp.json/",
        "/updates/image/metadata/timestamp.json%2f",
        "/updates/image/metadata/timestamp%c0%aejson",
        "/updates/image/metadata/" + "a" * 300,
        "/updates/image/metadata/a/b/c/d/e/f/g/h",
        "/updates/IMAGE/metadata/timestamp.json",
        "/updates/image/drafts/image.root.json",
        "/updates/etc/passwd",
        "/updates/%2fetc%2fpasswd/x/y",
        "//updates/image/metadata/timestamp.json",
        "/updatesimage/metadata/timestamp.json",
    ],
)
def test_paths_that_lead_nowhere(port: int, path: str) -> None:
    status, _, body = ask(port, path)
    assert (status, body) == (404, b"")


def test_a_quoted_name_is_the_same_name(port: int) -> None:
    assert ask(port, "/updates/image/metadata/%74imestamp%2Ejson")[0] == 200
    assert ask(port, TIMESTAMP + "?x=../../y")[0] == 200


def test_links_and_pipes_are_not_followed(repo: TufRepo, port: int) -> None:
    folder = repo.updates.layout.targets("image") / "content" / "evil"
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(repo.updates.layout.root / "online.json")
    os.mkfifo(folder / "pipe")
    (folder.parent / "folder").symlink_to(repo.updates.layout.keys)
    (folder / "plain").write_bytes(b"x")
    key = next(repo.updates.layout.keys.iterdir()).name
    assert ask(port, "/updates/image/targets/content/evil/plain")[0] == 200
    for path in ("evil/link", "evil/pipe", f"folder/{key}"):
        assert ask(port, f"/updates/image/targets/content/{path}")[0] == 404


def test_an_empty_file(repo: TufRepo, port: int) -> None:
    path = repo.updates.layout.targets("image") / "content" / "empty"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    assert ask(port, "/updates/image/targets/content/empty")[0] == 200
    assert ask(port, "/updates/image/targets/content/empty", Range="bytes=0-")[0] == 416


def test_choosing_never_leaves_the_file() -> None:
    for size in (0, 1, 2, 10):
        for asked in (f"bytes={first}-{last}" for first in ("", 0, 1, 5, 9, 10) for last in ("", 0, 1, 9, 10, 99)):
            span, status = choose(asked, None, '"t"', size)
            if span is not None:
                assert 0 <= span.first <= size and span.first + span.length <= size, (asked, size)
                assert (status == 206) == (span != Span(0, size) or status == 206)


def test_whoever_stops_reading_stops_the_reading(tmp_path: Path) -> None:
    """A client that goes away in the middle: the server reads no more of the file."""
    layout = UpdatesLayout(tmp_path / "updates")
    layout.make()
    big = layout.targets("image") / "big"
    with big.open("wb") as file:
        file.truncate(400 << 20)
    files = Files(layout)
    with serving(files) as address:
        for _ in range(3):
            with closing(socket.create_connection(("127.0.0.1", urlsplit(address).port or 0), 10)) as connection:
                connection.sendall(b"GET /updates/image/targets/big HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(1000)
        wait_until(lambda: files._transfers == 0, "the transfers to end")
        assert 0 < files.sent["image/targets"] < 150 << 20
    files.close()


def test_too_many_at_once_are_asked_to_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = UpdatesLayout(tmp_path / "updates")
    layout.make()
    with (layout.targets("image") / "big").open("wb") as file:
        file.truncate(100 << 20)
    monkeypatch.setattr("fleet_server.updates.serving.MAX_TRANSFERS", 3)
    monkeypatch.setattr("fleet_server.updates.serving.KEPT_FOR_PEERS", 1)
    files = Files(layout)
    with serving(files) as address:
        port = urlsplit(address).port or 0
        held = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(2)]
        for connection in held:
            connection.sendall(b"GET /updates/image/targets/big HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(1000)
        status, headers, _ = ask(port, "/updates/image/targets/big")
        assert (status, headers["retry-after"]) == (503, "30")
        for connection in held:
            connection.close()
        wait_until(lambda: ask(port, "/updates/image/targets/big", "HEAD")[0] == 200, "room again")
    files.close()


async def held(files: Files, peer: str | None, host: str) -> tuple[int, asyncio.Task[None]]:
    """One transfer that takes its head and then nothing; (status, what to cancel)."""
    status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            status.set_result(message["status"])
        elif message.get("body"):
            await asyncio.Event().wait()

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    path = "/updates/image/targets/big"
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "headers": [], "client": (host, 1), "kf_peer": peer}
    task = asyncio.ensure_future(files(scope, receive, send))
    return await asyncio.wait_for(status, 10), task


async def test_strangers_leave_room_for_terminals_and_one_address_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = UpdatesLayout(tmp_path / "updates")
    layout.make()
    (layout.targets("image") / "big").write_bytes(bytes(CHUNK_BYTES))
    for name, value in (("MAX_TRANSFERS", 12), ("KEPT_FOR_PEERS", 4), ("PER_ADDRESS", 3), ("PER_PEER", 2)):
        monkeypatch.setattr(f"fleet_server.updates.serving.{name}", value)
    files = Files(layout)
    tasks: list[asyncio.Task[None]] = []

    async def ask_for(count: int, peer: str | None, host: str) -> list[int]:
        found = [await held(files, peer, host) for _ in range(count)]
        tasks.extend(task for _, task in found)
        return [status for status, _ in found]

    try:
        # One address, and one network of IPv6 addresses, take their share and not more; all together leave what is kept for terminals.
        assert await ask_for(4, None, "192.0.2.1") == [200] * 3 + [503]
        assert await ask_for(2, None, "2001:db8::1") == [200, 200]
        assert await ask_for(2, None, "2001:db8::2") == [200, 503]
        assert await ask_for(3, None, "192.0.2.2") == [200, 200, 503]
        assert await ask_for(3, "kiosk-1", "192.0.2.1") == [200, 200, 503]
        assert await ask_for(3, "kiosk-2", "192.0.2.1") == [200, 200, 503]
        assert await ask_for(1, "kiosk-3", "192.0.2.9") == [503], "all are taken"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert (files._transfers, files._strangers, files._held) == (0, 0, {})
    assert await ask_for(1, None, "192.0.2.1") == [200]
    tasks[-1].cancel()
    await asyncio.gather(tasks[-1], return_exceptions=True)
    files.close()


def test_memory_stays_flat_under_slow_readers(tmp_path: Path, processes: Processes, free_port: Callable[[], int]) -> None:
    """A hundred readers that take nothing, of a large file, through the real listener over TLS."""
    office = Office(tmp_path, free_port(), processes)
    folder = office.layout.updates.targets("image")
    folder.mkdir(parents=True)
    with (folder / "big").open("wb") as file:
        file.truncate(60 << 20)
    process = psutil.Process(office.child.pid)
    held = []
    before, descriptors = process.memory_info().rss, process.num_fds()
    for _ in range(100):
        connection = office.connect()
        connection.sendall(b"GET /updates/image/targets/big HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1000)
        held.append(connection)
    grown = process.memory_info().rss - before
    for connection in held:
        connection.close()
    assert grown < 30 * (1 << 20), f"{grown >> 20} MiB for 100 readers of 60 MiB"
    wait_until(
        lambda: process.num_fds() <= descriptors, "nothing is left of readers that went away while the server waited for them"
    )


# The terminal-facing listener -----------------------------------------------------------------------------------------------------------


class Office:
    """The enrolment process as it runs, with repositories."""

    def __init__(self, folder: Path, port: int, processes: Processes) -> None:
        self.layout, self.port = Layout(folder / "data"), port
        self.layout.make()
        db.migrate(self.layout.database)
        self.authority = Authority.create(self.layout.authority, "testfleet", (), now_ms=time.time_ns() // 1_000_000)
        environment = {"KF_DATA_DIR": str(self.layout.root), "KF_ENROLMENT_PORT": str(port)}
        self.child = processes.start_python("-m", "fleet_server.enrolment", env=environment)
        wait_until(self._answers, "the listener")

    def connect(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.authority.ca_file))
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 20), server_hostname="127.0.0.1")

    def _answers(self) -> bool:
        assert self.child.running, self.child.output()
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False


def test_a_terminal_updates_over_the_listener_where_it_enrolled(
    tmp_path: Path, processes: Processes, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    office = Office(tmp_path, free_port(), processes)
    repo = TufRepo.create(office.layout.root, terminals=["kiosk-1"])
    assert repo.updates.layout.root == office.layout.updates.root
    repo.release("agent", "agent/kiosk-1.1.0.tar", CONTENT, version="1.1.0")
    monkeypatch.setenv("SSL_CERT_FILE", str(office.authority.ca_file))
    client = Client(tmp_path / "client", f"https://127.0.0.1:{office.port}/updates/", "image", repo.roots["image"])
    assert client.fetch("agent/kiosk-1.1.0.tar") == CONTENT
    with closing(office.connect()) as connection:
        connection.sendall(b"GET /updates/image/../../authority/ca.key HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 404")


def test_a_transfer_outlives_the_limit_of_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the listener a connection lives for a minute; one that carries a file lives as long as parts are taken."""
    import threading

    layout = UpdatesLayout(tmp_path / "updates")
    layout.make()
    (layout.targets("image") / "big").write_bytes(bytes(40 << 20))
    authority = Authority.create(tmp_path / "authority", "testfleet", (), now_ms=time.time_ns() // 1_000_000)
    authority.ensure_tls((), now_ms=time.time_ns() // 1_000_000)
    monkeypatch.setattr(listener, "CONNECTION_S", 1.0)
    monkeypatch.setattr(listener, "STALL_S", 3.0)
    files = Files(layout)

    async def nothing(scope: object, receive: object, send: object) -> None:
        return None

    port_socket = socket.create_server(("127.0.0.1", 0))
    port = port_socket.getsockname()[1]
    server = listener.server(mounted(nothing, files), authority, "127.0.0.1", port)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([port_socket])), daemon=True)
    thread.start()
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    try:
        wait_until(lambda: server.started, "the listener")
        raw = socket.create_connection(("127.0.0.1", port), 20)
        with closing(context.wrap_socket(raw, server_hostname="127.0.0.1")) as connection:
            connection.sendall(b"GET /updates/image/targets/big HTTP/1.1\r\nHost: x\r\n\r\n")
            began, got = time.monotonic(), 0
            while got < 40 << 20:
                part = connection.recv(1 << 18)
                assert part, f"cut off after {time.monotonic() - began:.1f} s and {got} bytes"
                got += len(part)
                if time.monotonic() - began < 2.0:
                    time.sleep(0.02)  # a slow line, for longer than a request may last
            assert time.monotonic() - began > 1.5
        raw = socket.create_connection(("127.0.0.1", port), 20)
        with closing(context.wrap_socket(raw, server_hostname="127.0.0.1")) as connection:
            connection.sendall(b"GET /updates/image/targets/big HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(1000)
            wait_until(lambda: files._transfers == 0, "a reader that takes nothing to be cut off", timeout_s=15)
    finally:
        server.should_exit = True
        thread.join(10)
        files.close()
