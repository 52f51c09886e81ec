"""How bytes come in: one origin, no redirects, a pace that no buffer hides, a rate that is kept."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api import exceptions as tuf_errors

from edge_agent import tls
from edge_agent.updater import fetch
from tests.edge_agent.attacks import mirror as mirrors
from tests.edge_agent.attacks.mirror import Handler, Mirror
from tests.support.tls import DAY, server_context

pytestmark = pytest.mark.spec("U-202 U-205")

QUICK = fetch.Pace(connect_s=5, silence_s=0.6, window_s=0.3, min_bytes_s=2000, deadline_s=20)


_made: list[fetch.Fetcher] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while _made:
        _made.pop().close()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with mirrors.running() as made:
        yield made


def fetcher(mirror: Mirror, *, tls: ssl.SSLContext | None = None, pace: fetch.Pace = QUICK) -> fetch.Fetcher:
    _made.append(fetch.Fetcher(fetch.Origin.of(mirror.url), tls=tls, pace=pace))
    return _made[-1]


class HandTime:
    """Monotonic time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_metadata_come_whole_over_one_connection(mirror: Mirror) -> None:
    mirror.files["/a"] = b"a" * 5000
    mirror.files["/empty"] = b""
    connections: list[object] = []
    getting = fetcher(mirror)
    for path in ("/a", "/empty", "/a"):
        assert getting.download_bytes(mirror.url + path, 5000) == mirror.files[path]
        connections.append(getting._connection)
    assert len({id(each) for each in connections}) == 1 and connections[0] is not None


def test_a_connection_that_the_server_closed_meanwhile_is_made_again(mirror: Mirror) -> None:
    def closing(handler: Handler) -> None:
        handler.close_connection = True  # without telling the client
        handler.send(200, b"once")

    mirror.files["/a"] = closing
    getting = fetcher(mirror)
    assert [getting.download_bytes(f"{mirror.url}/a", 10) for _ in range(3)] == [b"once"] * 3


def test_an_http_error_shows_when_fetch_is_called(mirror: Mirror) -> None:
    with pytest.raises(tuf_errors.DownloadHTTPError) as caught:
        fetcher(mirror).fetch(f"{mirror.url}/nothing")
    assert caught.value.status_code == 404


def test_more_than_the_limit_is_not_read(mirror: Mirror) -> None:
    mirror.files["/a"] = mirrors.endless
    getting = fetcher(mirror)
    with pytest.raises(tuf_errors.DownloadLengthMismatchError):
        getting.download_bytes(f"{mirror.url}/a", 16384)
    assert getting.bytes_received < 16384 + 2 * fetch.CHUNK_BYTES


def test_a_redirect_is_refused(mirror: Mirror) -> None:
    mirror.files["/there"] = b"x"
    mirror.files["/a"] = mirrors.redirecting(f"{mirror.url}/there")
    with pytest.raises(fetch.Redirected):
        fetcher(mirror).fetch(f"{mirror.url}/a")
    assert [path for path, _ in mirror.requests] == ["/a"]


def test_no_other_origin_is_asked(mirror: Mirror) -> None:
    with mirrors.running() as other:
        other.files["/a"] = b"x"
        for url in (
            f"{other.url}/a",
            "file:///etc/hostname",
            f"https{mirror.url[4:]}/a",
            f"http://user@{mirror.url[7:]}/a",
            "nonsense",
        ):
            with pytest.raises(fetch.OriginRefused):
                fetcher(mirror).fetch(url)
        assert other.requests == []


def test_an_encoding_that_was_not_asked_for_is_refused(mirror: Mirror) -> None:
    mirror.files["/a"] = lambda handler: handler.send(200, b"x", {"Content-Encoding": "gzip"})
    with pytest.raises(fetch.Unreachable):
        fetcher(mirror).fetch(f"{mirror.url}/a")


@pytest.mark.parametrize("headers_too", [False, True], ids=["body", "head"])
def test_a_drip_ends_as_slow_whatever_size_is_read(mirror: Mirror, headers_too: bool) -> None:
    """Each byte resets the time-out between bytes, and a read of 64 KiB would wait for hours: the pace is kept below the buffers."""
    mirror.files["/a"] = mirrors.dripping(b"x" * 100_000, every_s=0.02, headers_too=headers_too)
    with pytest.raises(tuf_errors.SlowRetrievalError):
        fetcher(mirror).download_bytes(f"{mirror.url}/a", 100_000)


def test_silence_ends_as_slow(mirror: Mirror) -> None:
    mirror.files["/a"] = mirrors.silent
    with pytest.raises(tuf_errors.SlowRetrievalError):
        fetcher(mirror).download_bytes(f"{mirror.url}/a", 10)


def test_the_deadline_ends_a_transfer_that_is_fast_enough(mirror: Mirror) -> None:
    def steady(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not handler.mirror.released.wait(0.01):
            handler.wfile.write(b"x" * 1000)

    mirror.files["/a"] = steady
    with pytest.raises(tuf_errors.SlowRetrievalError, match="not finished"):
        fetcher(mirror, pace=fetch.Pace(deadline_s=0.5)).download_bytes(f"{mirror.url}/a", 10**9)


def test_a_connection_cut_in_the_middle_is_no_complete_answer(mirror: Mirror) -> None:
    mirror.files["/a"] = mirrors.cut_after(b"x" * 5000, 3000)
    with pytest.raises(fetch.Unreachable, match="2000 bytes too early"):
        fetcher(mirror).download_bytes(f"{mirror.url}/a", 5000)


def test_nobody_there(free_port: object) -> None:
    assert callable(free_port)
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(fetch.Unreachable):
        fetch.Fetcher(fetch.Origin.of(url), tls=None, pace=QUICK).fetch(f"{url}/a")


def test_our_own_rate_limit_is_kept_and_is_not_taken_for_a_slow_server(mirror: Mirror) -> None:
    mirror.files["/a"] = b"x" * 1_000_000
    time = HandTime()
    pace = fetch.Pace(window_s=1, min_bytes_s=500_000, deadline_s=None)
    getting = fetch.Fetcher(fetch.Origin.of(mirror.url), tls=None, pace=pace, rate_bytes_s=100_000, clock=time, sleep=time.sleep)
    with getting:
        assert len(getting.download_bytes(f"{mirror.url}/a", 1_000_000)) == 1_000_000
    assert 8 <= time.now_s - 1000 <= 12


def test_token_bucket_never_gives_more_than_its_rate() -> None:
    time = HandTime()
    bucket = fetch.TokenBucket(1024, clock=time, sleep=time.sleep)
    taken = 0
    for _ in range(100):
        got = bucket.take(700)
        bucket.used(got)
        taken += got
    assert taken <= 1024 * (time.now_s - 1000) + 1024


def test_https_by_the_terminals_ca_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    server, ca_file = server_context(tmp_path)
    _, other_ca = server_context(tmp_path / "other")
    with mirrors.running(server) as mirror:
        mirror.files["/a"] = b"secret-free"
        trusted = tls.client_context(ca_file.read_text("ascii"), check_dates=True)
        assert fetcher(mirror, tls=trusted).download_bytes(f"{mirror.url}/a", 100) == b"secret-free"
        stranger = tls.client_context(other_ca.read_text("ascii"), check_dates=True)
        with pytest.raises(fetch.CertificateRefused):
            fetcher(mirror, tls=stranger).fetch(f"{mirror.url}/a")
        assert [path for path, _ in mirror.requests] == ["/a"]


def test_an_expired_certificate_is_told_as_such_where_the_clock_can_tell(tmp_path: Path) -> None:
    server, ca_file = server_context(tmp_path, ends_in=-DAY)
    with mirrors.running(server) as mirror:
        mirror.files["/a"] = b"data"
        strict = tls.client_context(ca_file.read_text("ascii"), check_dates=True)
        with pytest.raises(fetch.CertificateRefused):
            fetcher(mirror, tls=strict).fetch(f"{mirror.url}/a")
        clockless = tls.client_context(ca_file.read_text("ascii"), check_dates=False)
        assert fetcher(mirror, tls=clockless).download_bytes(f"{mirror.url}/a", 10) == b"data"


@pytest.mark.parametrize("status", [206, 416, 204, 302, 500])
def test_metadata_come_with_status_200_or_not_at_all(mirror: Mirror, status: int) -> None:
    mirror.files["/a"] = lambda handler: handler.send(status, b"data")
    with pytest.raises(tuf_errors.DownloadHTTPError) as caught:
        fetcher(mirror).download_bytes(f"{mirror.url}/a", 10)
    assert caught.value.status_code == status
